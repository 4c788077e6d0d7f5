//! Responses: a typed message to a frame and back. A response does not name its API and version: the side that sent
//! the request remembers them by the correlation id.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{self, ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::api;
use crate::body::ResponseBody;
use crate::error_code::ErrorCode;
use crate::frame::put_frame;
use crate::request::{EncodeError, Malformed};

/// Room for a frame: that of its record batches, and what suffices for most of the rest.
fn room(body: &ResponseBody) -> usize {
    let batches = match body {
        ResponseBody::Fetch(r) => {
            let partitions = r.responses.iter().flat_map(|t| &t.partitions);
            partitions.map(|p| 64 + p.records.as_ref().map_or(0, Bytes::len)).sum()
        }
        _ => 0,
    };
    batches + 160
}

/// Encodes a response as a frame, its length first.
pub fn encode(version: i16, correlation_id: i32, body: &ResponseBody) -> Result<Bytes, EncodeError> {
    let api_key = body.api_key();
    let fail = |reason: String| EncodeError { api_key, version, reason };
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    let mut buf = BytesMut::with_capacity(room(body));
    put_frame(&mut buf, |buf| {
        header.encode(buf, api::response_header_version(api_key, version)).map_err(|e| fail(e.to_string()))?;
        body.put(version, buf).map_err(fail)
    })?;
    Ok(buf.freeze())
}

/// The correlation id of a response's frame, with which its request is found.
pub fn correlation_id(frame: &[u8]) -> Result<i32, Malformed> {
    let mut buf = frame;
    Ok(buf.try_get_i32()?)
}

/// Decodes a frame (without its length prefix) that answers a request of this API and version. Never panics, and
/// allocates no more than a small multiple of the frame.
pub fn decode(api_key: ApiKey, version: i16, frame: Bytes) -> Result<(i32, ResponseBody), Malformed> {
    let mut buf = frame;
    let header = ResponseHeader::decode(&mut buf, api::response_header_version(api_key, version))
        .map_err(|e| Malformed::new(e.to_string()))?;
    // A broker that does not know the version asked for answers in version 0 (KIP-511).
    let unsupported = ErrorCode::UNSUPPORTED_VERSION.code().to_be_bytes();
    let version = if api_key == ApiKey::ApiVersions && buf.starts_with(&unsupported) { 0 } else { version };
    let body = ResponseBody::decode(api_key, version, &mut buf)?;
    if buf.has_remaining() {
        return Err(Malformed::new(format!("{} bytes after the message", buf.remaining())));
    }
    Ok((header.correlation_id, body))
}

/// The answer to an ApiVersions request of a version this side does not know: version 0, UNSUPPORTED_VERSION, and the
/// versions of ApiVersions itself, so that the client can ask again (KIP-511).
pub fn unsupported_api_versions(correlation_id: i32) -> Bytes {
    let range = ApiKey::ApiVersions.valid_versions();
    let body = messages::ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UNSUPPORTED_VERSION.code())
        .with_api_keys(vec![
            messages::api_versions_response::ApiVersion::default()
                .with_api_key(ApiKey::ApiVersions as i16)
                .with_min_version(range.min)
                .with_max_version(range.max),
        ]);
    encode(0, correlation_id, &body.into()).expect("version 0 of ApiVersions has these fields")
}
