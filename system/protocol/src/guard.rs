//! Array counts against bytes left. (Walk follows.)
use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use crate::request::Malformed;

pub(crate) fn check_request(_api: ApiKey, _version: i16, _body: &Bytes) -> Result<(), Malformed> {
    Ok(())
}

pub(crate) fn check_response(_api: ApiKey, _version: i16, _body: &Bytes) -> Result<(), Malformed> {
    Ok(())
}
