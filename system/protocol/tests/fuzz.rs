//! The fuzz target without a fuzzer: its own code over mutations of valid input of every API and version, on a stable
//! toolchain and bounded. `STREAMPROOF_FUZZ_RUNS=10000000 cargo test --release -p streamproof-protocol --test fuzz`
//! goes on for longer, with other mutations in each run of the loop.

#[path = "../fuzz/input.rs"]
mod input;

use bytes::{BufMut, Bytes, BytesMut};
use input::Kind;
use streamproof_protocol::batch::{BatchBuilder, Compression, ControlRecord, ControlType, Record};
use streamproof_protocol::{api, request, response};

const RUNS: u64 = 40_000;

/// SplitMix64: a failure names its run, which is the seed.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// One valid input.
struct Seed {
    kind: Kind,
    key: u8,
    version: u8,
    bytes: Bytes,
}

/// Zeros are a request of almost every API and version: encoded anew, it is exactly one.
fn requests() -> Vec<Seed> {
    let mut all = Vec::new();
    for key in api::ALL.iter().copied() {
        let range = api::versions(key).expect("a listed API has versions");
        for version in range.min..=range.max {
            let mut zeros = BytesMut::new();
            zeros.put_i16(key as i16);
            zeros.put_i16(version);
            zeros.put_bytes(0, 300);
            let Ok(request) = request::decode(zeros.freeze()) else { continue };
            let frame = request::encode(version, 7, Some("fuzz"), &request.body).expect("encoded");
            all.push(Seed { kind: Kind::Request, key: 0, version: 0, bytes: frame.slice(4..) });
        }
    }
    all
}

fn responses() -> Vec<Seed> {
    let mut all = Vec::new();
    for (k, key) in (0u8..).zip(api::ALL.iter().copied()) {
        let range = api::versions(key).expect("a listed API has versions");
        for (v, version) in (0u8..).zip(range.min..=range.max) {
            let zeros = (4..400).map(|n| Bytes::from(vec![0; n]));
            let valid = zeros.into_iter().find(|bytes| response::decode(key, version, bytes.clone()).is_ok());
            all.extend(valid.map(|bytes| Seed { kind: Kind::Response, key: k, version: v, bytes }));
        }
    }
    all
}

fn batches() -> Vec<Seed> {
    let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    let data = codecs.into_iter().map(|codec| {
        let mut builder = BatchBuilder::new().producer(7, 1, 3).compression(codec);
        for i in 0..5 {
            builder.push(&Record {
                timestamp: i,
                key: Some(Bytes::from_static(b"key")),
                value: Some(Bytes::from_static(b"a value, a value, a value")),
                headers: vec![(Bytes::from_static(b"name"), Some(Bytes::from_static(b"text")))],
                ..Record::default()
            });
        }
        builder.build()
    });
    let marker = ControlRecord { control_type: ControlType::Commit, coordinator_epoch: 2 }.batch(7, 1, 0);
    data.chain([marker]).map(|bytes| Seed { kind: Kind::Batches, key: 0, version: 0, bytes }).collect()
}

/// Several frames in a row.
fn stream(requests: &[Seed]) -> Seed {
    let mut bytes = BytesMut::new();
    for seed in requests.iter().step_by(7) {
        bytes.put_i32(seed.bytes.len() as i32);
        bytes.put_slice(&seed.bytes);
    }
    Seed { kind: Kind::Stream, key: 0, version: 60, bytes: bytes.freeze() }
}

/// Lengths, counts and varints that decoders must not believe.
const NASTY: [&[u8]; 8] = [
    &[0xff; 4],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff; 10],
    &[0x7f, 0xff],
    &[0],
    &[1, 0, 0, 0],
];

fn mutate(draws: &mut Draws, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=draws.below(4) {
        let at = draws.below(bytes.len() + 1);
        match draws.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << draws.below(8),
            1 if at < bytes.len() => bytes[at] = draws.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                let nasty = NASTY[draws.below(NASTY.len())];
                let end = (at + nasty.len()).min(bytes.len());
                bytes.splice(at..end, nasty.iter().copied());
            }
            4 => {
                let from = draws.below(other.len() + 1);
                let piece = &other[from..(from + draws.below(40)).min(other.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            _ => {
                let end = (at + draws.below(8)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
}

#[test]
fn mutations_of_valid_input() {
    let mut seeds = requests();
    let (all, most) = (api::ALL.len(), seeds.len());
    assert!(most > all, "{most} requests of {all} APIs");
    seeds.push(stream(&seeds));
    seeds.extend(responses());
    seeds.extend(batches());
    for kind in input::KINDS {
        assert!(seeds.iter().any(|seed| seed.kind == kind), "no input of kind {kind:?}");
    }
    for seed in &seeds {
        input::run(seed.kind, seed.key, seed.version, &seed.bytes);
    }
    let runs = std::env::var("STREAMPROOF_FUZZ_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(RUNS);
    for run in 0..runs {
        let mut draws = Draws(run);
        let seed = &seeds[draws.below(seeds.len())];
        let other = &seeds[draws.below(seeds.len())];
        let mut bytes = seed.bytes.to_vec();
        mutate(&mut draws, &mut bytes, &other.bytes);
        let out = std::panic::catch_unwind(|| input::run(seed.kind, seed.key, seed.version, &bytes));
        assert!(out.is_ok(), "run {run}, {:?} {} {}: {bytes:02x?}", seed.kind, seed.key, seed.version);
    }
}
