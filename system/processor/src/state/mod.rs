//! Window state per key group, and its stored form.
//!
//! A key group is the unit of state: it carries its own W and what it knew of each channel, so that a restore with other
//! parallelism can move it whole (rule 7). The format is versioned; a test reads the bytes of version 1.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::codec::{CodecError, Reader, Writer};
use crate::watermark::{Input, Status, Watermark};
use crate::window::{Accumulator, Window};

const VERSION: u16 = 1;
const WHAT: &str = "key group state";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowState {
    pub content: Accumulator,
    /// Panes emitted so far: the next one's number.
    pub panes: u32,
}

/// The live windows of every key of one group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyGroup {
    pub keys: BTreeMap<Bytes, BTreeMap<Window, WindowState>>,
}

/// A key group at a barrier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    pub watermark: Watermark,
    pub channels: Vec<(String, Input)>,
    pub group: KeyGroup,
}

impl Snapshot {
    pub fn encode(&self) -> Bytes {
        encode(self.watermark, &self.channels, &self.group)
    }

    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut r = Reader::new(WHAT, bytes);
        r.version(VERSION)?;
        let watermark = Watermark::from_ms(r.i64()?);
        let mut channels = Vec::new();
        for _ in 0..r.count(13)? {
            let name = r.string()?;
            let own = Watermark::from_ms(r.i64()?);
            let code = r.u8()?;
            let status = Status::from_code(code).ok_or_else(|| r.malformed(format!("status {code}")))?;
            channels.push((name, Input { watermark: own, status }));
        }
        let mut group = KeyGroup::default();
        for _ in 0..r.count(8)? {
            let key = r.bytes()?;
            let mut windows = BTreeMap::new();
            for _ in 0..r.count(20 + Accumulator::BYTES_MIN)? {
                let window = Window { start: r.i64()?, end: r.i64()? };
                let panes = r.u32()?;
                windows.insert(window, WindowState { content: Accumulator::read(&mut r)?, panes });
            }
            group.keys.insert(key, windows);
        }
        r.end()?;
        Ok(Self { watermark, channels, group })
    }
}

/// The stored form, without a copy of the group.
pub fn encode(watermark: Watermark, channels: &[(String, Input)], group: &KeyGroup) -> Bytes {
    let mut w = Writer::new();
    w.u16(VERSION);
    w.i64(watermark.as_ms());
    w.count(channels.len());
    for (name, input) in channels {
        w.bytes(name.as_bytes());
        w.i64(input.watermark.as_ms());
        w.u8(input.status.code());
    }
    w.count(group.keys.len());
    for (key, windows) in &group.keys {
        w.bytes(key);
        w.count(windows.len());
        for (window, state) in windows {
            w.i64(window.start);
            w.i64(window.end);
            w.u32(state.panes);
            state.content.write(&mut w);
        }
    }
    w.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    fn sample() -> Snapshot {
        let mut content = Accumulator::default();
        content.add(&Record {
            partition: 0,
            offset: 0,
            event_time_ms: -5,
            key: Bytes::from_static(b"k"),
            value: Some(-1),
            raw_key: None,
            raw_value: None,
        });
        let windows = BTreeMap::from([(Window { start: -10, end: 0 }, WindowState { content, panes: 2 })]);
        Snapshot {
            watermark: Watermark::from_ms(-7),
            channels: vec![("source-0".into(), Input { watermark: Watermark::MIN, status: Status::Behind })],
            group: KeyGroup { keys: BTreeMap::from([(Bytes::from_static(b"k"), windows)]) },
        }
    }

    /// Version 1 as it was first stored. Never change these bytes: add a version and a reader for both.
    const V1: &str = "0001fffffffffffffff90000000100000008736f757263652d30800000000000000003000000010000000\
16b00000001fffffffffffffff6000000000000000000000002000000000000000\
1ffffffffffffffffffffffffffffffff01ffffffffffffffffffffffffffffffff";

    #[test]
    fn version_1_is_read() {
        let snapshot = sample();
        let bytes = snapshot.encode();
        assert_eq!(Snapshot::decode(bytes.clone()).unwrap(), snapshot);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        // The last eight bytes are the digest.
        assert_eq!(hex[..hex.len() - 16], *V1);
    }

    #[test]
    fn other_versions_and_cut_bytes_are_errors() {
        let bytes = sample().encode();
        let mut other = bytes.to_vec();
        other[1] = 9;
        assert!(matches!(Snapshot::decode(other.into()), Err(CodecError::Version { found: 9, .. })));
        for n in 0..bytes.len() {
            assert!(Snapshot::decode(bytes.slice(..n)).is_err(), "cut at {n}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(Snapshot::decode(longer.into()).is_err());
    }
}
