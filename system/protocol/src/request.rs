//! Requests: a frame to a typed message and back.
//!
//! Before the `kafka-protocol` crate decodes a body, `guard` walks it and makes sure that no array claims more elements
//! than the bytes left could hold.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::api;
use crate::body::RequestBody;
use crate::frame::put_frame;

use crate::wire::StrBytes;

/// Bytes that are not the message they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(String);

impl Malformed {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl From<bytes::TryGetError> for Malformed {
    fn from(e: bytes::TryGetError) -> Self {
        Self::new(format!("{} bytes wanted, {} left", e.requested, e.available))
    }
}

/// Why a request's frame could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No such API here. Kafka closes the connection.
    #[error("unknown API key {api_key}")]
    UnknownApi { api_key: i16, version: i16, correlation_id: i32 },
    /// For ApiVersions the answer is [`crate::response::unsupported_api_versions`]; for others Kafka closes the
    /// connection, since it cannot encode an answer the client would understand.
    #[error("{api_key:?} version {version} is not supported")]
    UnsupportedVersion { api_key: ApiKey, version: i16, correlation_id: i32 },
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A message that cannot be written in the version asked for: a field is set that the version does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot encode {api_key:?} version {version}: {reason}")]
pub struct EncodeError {
    pub api_key: ApiKey,
    pub version: i16,
    pub reason: String,
}

/// A decoded request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<String>,
    pub body: RequestBody,
}

impl Request {
    pub fn api_key(&self) -> ApiKey {
        self.body.api_key()
    }
}

/// Decodes a frame (without its length prefix). Never panics, and allocates no more than a small multiple of the frame.
pub fn decode(frame: Bytes) -> Result<Request, DecodeError> {
    // The first eight bytes are the same in every header version.
    let mut peek = &frame[..];
    let code = peek.try_get_i16().map_err(Malformed::from)?;
    let version = peek.try_get_i16().map_err(Malformed::from)?;
    let correlation_id = peek.try_get_i32().map_err(Malformed::from)?;
    let unknown = DecodeError::UnknownApi { api_key: code, version, correlation_id };
    let api_key = ApiKey::try_from(code).map_err(|()| unknown.clone())?;
    let range = api::versions(api_key).ok_or(unknown)?;
    if version < range.min || version > range.max {
        return Err(DecodeError::UnsupportedVersion { api_key, version, correlation_id });
    }
    let mut buf = frame;
    let header = RequestHeader::decode(&mut buf, api::request_header_version(api_key, version))
        .map_err(|e| Malformed::new(e.to_string()))?;
    let body = RequestBody::decode(api_key, version, &mut buf)?;
    // Bytes after the message are let be, as Kafka does: librdkafka's Metadata of version 9 and later ends in some.
    let client_id = header.client_id.map(|id| id.as_str().to_owned());
    Ok(Request { version, correlation_id, client_id, body })
}

/// Length, header without client id, and a few to spare.
const HEADER_BYTES: usize = 32;

/// Room for a body: that of its record batches, and what suffices for most of the rest.
fn body_room(body: &RequestBody) -> usize {
    let batches = match body {
        RequestBody::Produce(r) => {
            let partitions = r.topic_data.iter().flat_map(|t| &t.partition_data);
            partitions.map(|p| 16 + p.records.as_ref().map_or(0, Bytes::len)).sum()
        }
        _ => 0,
    };
    batches + 160
}

/// Encodes a request as a frame, its length first.
pub fn encode(
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    body: &RequestBody,
) -> Result<Bytes, EncodeError> {
    let api_key = body.api_key();
    let fail = |reason: String| EncodeError { api_key, version, reason };
    if !api::versions(api_key).is_some_and(|r| r.min <= version && version <= r.max) {
        return Err(fail("no such version".to_owned()));
    }
    let mut header = RequestHeader::default();
    header.request_api_key = api_key as i16;
    header.request_api_version = version;
    header.correlation_id = correlation_id;
    header.client_id = client_id.map(|id| StrBytes::from_string(id.to_owned()));
    let mut buf = BytesMut::with_capacity(HEADER_BYTES + client_id.map_or(0, str::len) + body_room(body));
    put_frame(&mut buf, |buf| {
        header.encode(buf, api::request_header_version(api_key, version)).map_err(|e| fail(e.to_string()))?;
        body.put(version, buf).map_err(fail)
    })?;
    Ok(buf.freeze())
}
