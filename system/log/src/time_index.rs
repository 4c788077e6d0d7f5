//! The sparse time index of a segment: below which offset no record is as late as a given time.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::format::Kind;

pub(crate) const KIND: Kind = Kind { tag: *b"TIDX", version: 1 };

/// Entries of (greatest timestamp so far, relative offset of the batch that reached it), both increasing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeIndex {
    entries: Vec<(i64, u32)>,
}

impl TimeIndex {
    /// Notes that the batch at `base` has the greatest timestamp so far; ignored if it has not.
    pub fn push(&mut self, max_timestamp: i64, base: u32) {
        if self.entries.last().is_none_or(|&(t, b)| max_timestamp > t && base > b) {
            self.entries.push((max_timestamp, base));
        }
    }

    /// Relative offset from which to search for the first record with a timestamp >= `timestamp`: every batch before
    /// it has only earlier ones.
    pub fn lookup(&self, timestamp: i64) -> u32 {
        match self.entries.partition_point(|&(t, _)| t < timestamp) {
            0 => 0,
            n => self.entries[n - 1].1,
        }
    }

    pub fn encode(&self, out: &mut BytesMut) {
        for &(t, b) in &self.entries {
            out.put_i64_le(t);
            out.put_u32_le(b);
        }
    }

    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        if !bytes.len().is_multiple_of(12) {
            return None;
        }
        let mut entries: Vec<(i64, u32)> = Vec::with_capacity(bytes.len() / 12);
        while bytes.has_remaining() {
            let (t, b) = (bytes.get_i64_le(), bytes.get_u32_le());
            if entries.last().is_some_and(|&(lt, lb)| t <= lt || b <= lb) {
                return None;
            }
            entries.push((t, b));
        }
        Some(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_never_skips_a_record_that_is_late_enough() {
        let mut i = TimeIndex::default();
        // Batches at 0, 5, 9 with greatest timestamps 100, 50, 200.
        i.push(100, 0);
        i.push(50, 5);
        i.push(200, 9);
        assert_eq!([1, 100, 101, 200, 201].map(|t| i.lookup(t)), [0, 0, 0, 0, 9]);
        let mut out = BytesMut::new();
        i.encode(&mut out);
        assert_eq!(TimeIndex::decode(out.freeze()), Some(i));
    }
}
