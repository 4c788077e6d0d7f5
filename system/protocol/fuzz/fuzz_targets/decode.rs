//! Everything that a peer can send: a stream of frames, a request, a response of any API and version, a record batch.

#![no_main]

#[path = "../input.rs"]
mod input;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [kind, key, version, rest @ ..] = data else { return };
    input::run(input::KINDS[usize::from(*kind) % input::KINDS.len()], *key, *version, rest);
});
