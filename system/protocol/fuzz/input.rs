//! What one input of the fuzz target does. `tests/fuzz.rs` runs the same over mutations of valid input.

use bytes::Bytes;
use streamproof_protocol::batch::{ControlRecord, Limits, check_records, decode_records, split};
use streamproof_protocol::frame::FrameDecoder;
use streamproof_protocol::{api, request, response};

/// What the bytes are taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Stream,
    Request,
    Response,
    Batches,
}

pub const KINDS: [Kind; 4] = [Kind::Stream, Kind::Request, Kind::Response, Kind::Batches];

/// `key` picks the API of a response, `version` its version or the size of a stream's pieces.
pub fn run(kind: Kind, key: u8, version: u8, data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    match kind {
        Kind::Stream => {
            let mut decoder = FrameDecoder::new(1 << 20);
            for piece in data.chunks(usize::from(version) + 1) {
                decoder.feed(piece);
                while let Ok(Some(frame)) = decoder.next() {
                    let _ = request::decode(frame);
                }
            }
        }
        Kind::Request => {
            if let Ok(request) = request::decode(bytes) {
                let again = request::encode(
                    request.version,
                    request.correlation_id,
                    request.client_id.as_deref(),
                    &request.body,
                );
                let frame = again.expect("what was decoded can be encoded in its version");
                assert_eq!(request::decode(frame.slice(4..)), Ok(request));
            }
        }
        Kind::Response => {
            let key = api::ALL[usize::from(key) % api::ALL.len()];
            let Some(range) = api::versions(key) else { return };
            let version = range.min + i16::from(version) % (range.max - range.min + 1);
            let _ = response::decode(key, version, bytes);
        }
        Kind::Batches => {
            for (header, batch) in split(bytes).flatten() {
                let _ = header.verify_crc(&batch);
                let _ = header.check_produced();
                let limits = Limits { max_decompressed_bytes: 1 << 20 };
                let records = decode_records(&batch, &limits);
                assert_eq!(records.as_ref().err(), check_records(&batch, &limits).as_ref().err());
                for record in records.unwrap_or_default() {
                    let _ = ControlRecord::decode(&record);
                }
            }
        }
    }
}
