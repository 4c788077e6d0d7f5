//! The sparse offset index of a segment: at which byte the batch that holds an offset is found.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::Offset;
use crate::format::Kind;

pub(crate) const KIND: Kind = Kind { tag: *b"OIDX", version: 1 };

/// Entries of (base offset of a batch, its position), both increasing. A batch gets one when at least
/// `index_interval_bytes` were written since the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OffsetIndex {
    entries: Vec<(u32, u32)>,
}

impl OffsetIndex {
    /// Notes that the batch with `base` starts at `position`. `base` is relative to the segment's.
    pub fn push(&mut self, base: u32, position: u32) {
        if let Some(&(b, p)) = self.entries.last() {
            assert!(base > b && position > p, "index entry ({base}, {position}) is not after ({b}, {p})");
        }
        self.entries.push((base, position));
    }

    /// Position of a batch whose base offset is at or below the relative `offset`, and from which it can be found by
    /// walking forward.
    pub fn lookup(&self, offset: u32) -> u64 {
        match self.entries.partition_point(|&(b, _)| b <= offset) {
            0 => 0,
            n => u64::from(self.entries[n - 1].1),
        }
    }

    pub fn encode(&self, out: &mut BytesMut) {
        for &(b, p) in &self.entries {
            out.put_u32_le(b);
            out.put_u32_le(p);
        }
    }

    /// `None` if the entries are not increasing or lie outside the segment.
    pub fn decode(mut bytes: Bytes, size: u64) -> Option<Self> {
        if !bytes.len().is_multiple_of(8) {
            return None;
        }
        let mut entries: Vec<(u32, u32)> = Vec::with_capacity(bytes.len() / 8);
        while bytes.has_remaining() {
            let (b, p) = (bytes.get_u32_le(), bytes.get_u32_le());
            if u64::from(p) >= size || entries.last().is_some_and(|&(lb, lp)| b <= lb || p <= lp) {
                return None;
            }
            entries.push((b, p));
        }
        Some(Self { entries })
    }
}

/// What the header of an index file says about its segment; a segment that differs is scanned anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Bytes of batches.
    pub size: u64,
    /// One past the last offset.
    pub end: Offset,
    /// Greatest record timestamp, `i64::MIN` if there is none.
    pub max_timestamp: i64,
}

impl Extent {
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.size);
        out.put_i64_le(self.end);
        out.put_i64_le(self.max_timestamp);
    }

    pub fn decode(bytes: &mut Bytes) -> Option<Self> {
        if bytes.len() < 24 {
            return None;
        }
        Some(Self { size: bytes.get_u64_le(), end: bytes.get_i64_le(), max_timestamp: bytes.get_i64_le() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_is_the_last_entry_at_or_below() {
        let mut i = OffsetIndex::default();
        i.push(10, 100);
        i.push(20, 200);
        assert_eq!(
            [0, 9, 10, 19, 20, 99].map(|o| i.lookup(o)),
            [0, 0, 100, 100, 200, 200],
            "offsets before the first entry start at the head"
        );
        let mut out = BytesMut::new();
        i.encode(&mut out);
        let bytes = out.freeze();
        assert_eq!(OffsetIndex::decode(bytes.clone(), 201), Some(i));
        assert_eq!(OffsetIndex::decode(bytes.clone(), 200), None, "position outside the segment");
        assert_eq!(OffsetIndex::decode(bytes.slice(..9), 201), None);
    }
}
