//! Checkpoints: what one holds, and its stored form. [`Aligner`] is a task's side of a barrier, [`CheckpointStore`]
//! where complete ones are kept; when to take one is the coordinator machine's business.

mod align;
mod store;

use std::collections::BTreeMap;

use bytes::Bytes;
use sink::Prepared;

pub use align::{Aligner, UnexpectedBarrier};
pub use store::{CheckpointStore, DiskStore, StoreError};

use crate::codec::{CodecError, Reader, Writer};
use crate::watermark::{Status, Watermark};

/// A complete checkpoint: a consistent cut of the whole job (rule 7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    pub job: String,
    /// The epoch that ended with it. From 1.
    pub n: u64,
    /// The attempt that took it.
    pub generation: u64,
    pub key_groups: u32,
    pub tasks: BTreeMap<String, TaskSnapshot>,
}

impl Checkpoint {
    /// Every split had reached its end: nothing is left to do but to commit.
    pub fn is_final(&self) -> bool {
        self.splits().all(|s| s.status == Status::Ended)
    }

    pub fn splits(&self) -> impl Iterator<Item = &SplitState> {
        self.tasks.values().flat_map(|t| match &t.state {
            TaskState::Source { splits, .. } => splits.as_slice(),
            TaskState::Window { .. } => &[],
        })
    }
}

/// What one task handed in at its barrier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskSnapshot {
    /// The transaction that waits for the checkpoint to be complete; None of an at-least-once sink.
    pub prepared: Option<Prepared>,
    pub state: TaskState,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskState {
    Source { watermark: Watermark, splits: Vec<SplitState> },
    Window { key_groups: Vec<(u32, Bytes)> },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SplitState {
    pub partition: i32,
    /// The next offset to read.
    pub position: i64,
    pub watermark: Watermark,
    pub status: Status,
}

const SNAPSHOT_VERSION: u16 = 1;
const CHECKPOINT_VERSION: u16 = 1;
const MAGIC: &[u8; 4] = b"SPCK";

impl TaskSnapshot {
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u16(SNAPSHOT_VERSION);
        match &self.prepared {
            None => w.u8(0),
            Some(p) => {
                w.u8(1);
                w.u8(p.slot);
                w.i64(p.producer_id);
                w.u16(p.producer_epoch.cast_unsigned());
            }
        }
        match &self.state {
            TaskState::Source { watermark, splits } => {
                w.u8(0);
                w.i64(watermark.as_ms());
                w.count(splits.len());
                for s in splits {
                    w.i32(s.partition);
                    w.i64(s.position);
                    w.i64(s.watermark.as_ms());
                    w.u8(s.status.code());
                }
            }
            TaskState::Window { key_groups } => {
                w.u8(1);
                w.count(key_groups.len());
                for (kg, state) in key_groups {
                    w.u32(*kg);
                    w.bytes(state);
                }
            }
        }
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut r = Reader::new("task snapshot", bytes);
        r.version(SNAPSHOT_VERSION)?;
        let prepared = match r.u8()? {
            0 => None,
            1 => Some(Prepared { slot: r.u8()?, producer_id: r.i64()?, producer_epoch: r.u16()?.cast_signed() }),
            other => return Err(r.malformed(format!("prepared flag {other}"))),
        };
        let state = match r.u8()? {
            0 => {
                let watermark = Watermark::from_ms(r.i64()?);
                let mut splits = Vec::new();
                for _ in 0..r.count(21)? {
                    let (partition, position) = (r.i32()?, r.i64()?);
                    let watermark = Watermark::from_ms(r.i64()?);
                    let code = r.u8()?;
                    let status = Status::from_code(code).ok_or_else(|| r.malformed(format!("status {code}")))?;
                    splits.push(SplitState { partition, position, watermark, status });
                }
                TaskState::Source { watermark, splits }
            }
            1 => {
                let mut key_groups = Vec::new();
                for _ in 0..r.count(8)? {
                    key_groups.push((r.u32()?, r.bytes()?));
                }
                TaskState::Window { key_groups }
            }
            other => return Err(r.malformed(format!("task kind {other}"))),
        };
        r.end()?;
        Ok(Self { prepared, state })
    }
}

impl Checkpoint {
    /// Magic, version, CRC-32C of all that follows, then the content.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.bytes(self.job.as_bytes());
        w.u64(self.n);
        w.u64(self.generation);
        w.u32(self.key_groups);
        w.count(self.tasks.len());
        for (task, snapshot) in &self.tasks {
            w.bytes(task.as_bytes());
            w.bytes(&snapshot.encode());
        }
        let content = w.finish();
        let mut out = Vec::with_capacity(content.len() + 10);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&CHECKPOINT_VERSION.to_be_bytes());
        out.extend_from_slice(&crc32c::crc32c(&content).to_be_bytes());
        out.extend_from_slice(&content);
        Bytes::from(out)
    }

    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut r = Reader::new("checkpoint", bytes);
        if r.take(4)?[..] != MAGIC[..] {
            return Err(r.malformed("not a checkpoint"));
        }
        r.version(CHECKPOINT_VERSION)?;
        let crc = r.u32()?;
        let content = r.rest();
        if crc32c::crc32c(&content) != crc {
            return Err(r.malformed("checksum does not match"));
        }
        let mut r = Reader::new("checkpoint", content);
        let job = r.string()?;
        let (n, generation, key_groups) = (r.u64()?, r.u64()?, r.u32()?);
        let mut tasks = BTreeMap::new();
        for _ in 0..r.count(8)? {
            let name = r.string()?;
            tasks.insert(name, TaskSnapshot::decode(r.bytes()?)?);
        }
        r.end()?;
        Ok(Self { job, n, generation, key_groups, tasks })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(n: u64) -> Checkpoint {
        let split = SplitState { partition: 1, position: 7, watermark: Watermark::from_ms(-3), status: Status::Idle };
        let source = TaskSnapshot {
            prepared: Some(Prepared { slot: 1, producer_id: 4000, producer_epoch: 3 }),
            state: TaskState::Source { watermark: Watermark::MIN, splits: vec![split] },
        };
        let window = TaskSnapshot {
            prepared: None,
            state: TaskState::Window { key_groups: vec![(0, Bytes::from_static(b"abc"))] },
        };
        let tasks = BTreeMap::from([("source-0".to_owned(), source), ("window-0".to_owned(), window)]);
        Checkpoint { job: "j".into(), n, generation: 2, key_groups: 128, tasks }
    }

    /// Version 1 as it was first stored. Never change these bytes: add a version and a reader for both.
    const V1: &str = "5350434b00011effa26f000000016a00000000000000050000000000000002000000800000000200000008736f757263\
652d3000000030000101010000000000000fa00003008000000000000000000000010000000100000000000000\
07fffffffffffffffd020000000877696e646f772d300000001300010001000000010000000000000003616263";

    #[test]
    fn version_1_is_read() {
        let hex: String = sample(5).encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, V1);
        assert_eq!(Checkpoint::decode(sample(5).encode()).unwrap(), sample(5));
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_seen() {
        let bytes = sample(5).encode();
        for n in 0..bytes.len() {
            assert!(Checkpoint::decode(bytes.slice(..n)).is_err(), "cut at {n}");
            let mut flipped = bytes.to_vec();
            flipped[n] ^= 0x40;
            assert!(Checkpoint::decode(flipped.into()).is_err(), "flipped at {n}");
        }
    }
}
