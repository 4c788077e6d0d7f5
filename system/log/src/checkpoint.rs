//! `offset-checkpoint`: what a log must remember beyond its batches. Replaced as a whole, durable before what it allows.
//!
//! | field | why |
//! |--|--|
//! | start | a log start offset inside a segment: followers take over their leader's, whatever their segments are |
//! | first dirty offset | everything below went through the cleaner; a tombstone below it has nothing older to hide |
//! | holes | offsets may be missing: it was compacted, here or where it was copied from. Without it a gap is damage |
//!
//! A log without the file starts at its first segment, is dirty from there on, and has no holes. A damaged one counts as
//! all dirty and with holes: compacting once more than needed changes nothing.

use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, BytesMut};
use env::disk;

use crate::format::{self, Kind};
use crate::{LogError, Offset};

pub(crate) const NAME: &str = "offset-checkpoint";
const KIND: Kind = Kind { tag: *b"CKPT", version: 1 };

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub start: Offset,
    pub first_dirty: Offset,
    pub holes: bool,
}

fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

impl Checkpoint {
    pub async fn load(dir: &Path) -> Result<Self, LogError> {
        let path = path(dir);
        if !disk::exists(&path).await.map_err(LogError::storage("stat", &path))? {
            return Ok(Self::default());
        }
        let damaged = Self { holes: true, ..Self::default() };
        let Some(mut payload) = format::load(KIND, &path).await? else { return Ok(damaged) };
        if payload.len() != 17 {
            return Ok(damaged);
        }
        Ok(Self { start: payload.get_i64_le(), first_dirty: payload.get_i64_le(), holes: payload.get_u8() != 0 })
    }

    /// Durable on return.
    pub async fn store(&self, dir: &Path) -> Result<(), LogError> {
        let mut payload = BytesMut::new();
        payload.put_i64_le(self.start);
        payload.put_i64_le(self.first_dirty);
        payload.put_u8(u8::from(self.holes));
        let path = path(dir);
        disk::replace(&path, format::seal(KIND, &payload)).await.map_err(LogError::write("replace", &path))
    }
}
