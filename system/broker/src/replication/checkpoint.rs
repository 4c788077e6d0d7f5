//! The high watermarks that a next life starts from: one file for all copies of this broker, replaced as a whole.
//!
//! Each is a lower bound: a node that restarts learns the rest from the leader, or as a leader from the in-sync set. One
//! that is missing counts as 0, which only makes the start slower.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use env::disk;
use protocol::Uuid;

const NAME: &str = "replication-offset-checkpoint";
const MAGIC: &[u8; 4] = b"SPHW";
const VERSION: u16 = 1;

pub(super) type HighWatermarks = BTreeMap<(Uuid, i32), i64>;

#[derive(Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    stored: HighWatermarks,
}

impl Checkpoint {
    /// Reads the file; one that is missing or damaged is an empty one.
    pub async fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(NAME);
        let stored = match disk::read(&path).await {
            Ok(bytes) => decode(bytes).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "the high watermarks are damaged; they are learned anew");
                HighWatermarks::new()
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => HighWatermarks::new(),
            Err(e) => return Err(e),
        };
        Ok(Self { path, stored })
    }

    pub fn get(&self, partition: (Uuid, i32)) -> i64 {
        self.stored.get(&partition).copied().unwrap_or(0)
    }

    /// Stores these, durably, if they are not what is stored.
    pub async fn store(&mut self, high_watermarks: HighWatermarks) -> io::Result<()> {
        if high_watermarks == self.stored {
            return Ok(());
        }
        disk::replace(&self.path, encode(&high_watermarks)).await?;
        self.stored = high_watermarks;
        Ok(())
    }
}

/// `SPHW`, version u16, then (topic id 16, partition i32, offset i64) each, then the crc32c of all before; big endian.
fn encode(high_watermarks: &HighWatermarks) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(MAGIC);
    out.put_u16(VERSION);
    for ((topic_id, partition), offset) in high_watermarks {
        out.put_slice(topic_id.as_bytes());
        out.put_i32(*partition);
        out.put_i64(*offset);
    }
    let crc = crc32c::crc32c(&out);
    out.put_u32(crc);
    out.freeze()
}

fn decode(mut bytes: Bytes) -> Option<HighWatermarks> {
    let crc = bytes.split_off(bytes.len().checked_sub(4)?);
    if crc32c::crc32c(&bytes) != u32::from_be_bytes(crc[..].try_into().ok()?) {
        return None;
    }
    let magic = bytes.try_get_u32().ok()?.to_be_bytes();
    let version = bytes.try_get_u16().ok()?;
    if magic != *MAGIC || version != VERSION || !bytes.len().is_multiple_of(28) {
        return None;
    }
    let mut stored = HighWatermarks::new();
    while bytes.has_remaining() {
        let topic_id = Uuid::from_u128(bytes.get_u128());
        let partition = bytes.get_i32();
        stored.insert((topic_id, partition), bytes.get_i64());
    }
    Some(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_is_not_read() {
        let stored: HighWatermarks = (0..3).map(|p| ((Uuid::from_u128(7), p), 100 + i64::from(p))).collect();
        let bytes = encode(&stored);
        assert_eq!(decode(bytes.clone()), Some(stored));
        assert_eq!(decode(encode(&HighWatermarks::new())), Some(HighWatermarks::new()));
        for cut in 0..bytes.len() {
            assert_eq!(decode(bytes.slice(..cut)), None, "cut at {cut}");
            let mut flipped = bytes.to_vec();
            flipped[cut] ^= 1;
            assert_eq!(decode(flipped.into()), None, "flip at {cut}");
        }
    }
}
