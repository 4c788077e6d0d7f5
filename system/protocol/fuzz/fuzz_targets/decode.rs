//! Everything that a peer can send: a stream of frames, a request, a response of any API and version, a record batch.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use streamproof_protocol::batch::{ControlRecord, Limits, decode_records, split};
use streamproof_protocol::frame::FrameDecoder;
use streamproof_protocol::{api, request, response};

fuzz_target!(|data: &[u8]| {
    let [kind, key, version, rest @ ..] = data else { return };
    let bytes = Bytes::copy_from_slice(rest);
    match kind % 4 {
        0 => {
            let mut decoder = FrameDecoder::new(1 << 20);
            for piece in rest.chunks(usize::from(*version) + 1) {
                decoder.feed(piece);
                while let Ok(Some(frame)) = decoder.next() {
                    let _ = request::decode(frame);
                }
            }
        }
        1 => {
            let _ = request::decode(bytes);
        }
        2 => {
            let key = api::ALL[usize::from(*key) % api::ALL.len()];
            let Some(range) = api::versions(key) else { return };
            let version = range.min + i16::from(*version) % (range.max - range.min + 1);
            let _ = response::decode(key, version, bytes);
        }
        _ => {
            for (header, batch) in split(bytes).flatten() {
                let _ = header.verify_crc(&batch);
                let _ = header.check_produced();
                for record in decode_records(&batch, &Limits { max_decompressed_bytes: 1 << 20 }).unwrap_or_default() {
                    let _ = ControlRecord::decode(&record);
                }
            }
        }
    }
});
