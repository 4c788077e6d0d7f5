//! Which leader epoch wrote which offsets (KIP-101): the cache that answers OffsetsForLeaderEpoch and finds where two
//! logs part. Every batch names its epoch, so the cache is rebuilt from the log; it is stored in the snapshots.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::Offset;

/// The first offset of each leader epoch. Epochs and offsets both increase strictly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    starts: Vec<(i32, Offset)>,
}

impl LeaderEpochs {
    /// The epoch of the newest batch.
    pub fn latest(&self) -> Option<i32> {
        self.starts.last().map(|&(e, _)| e)
    }

    /// (epoch, first offset), in order.
    pub fn starts(&self) -> &[(i32, Offset)] {
        &self.starts
    }

    /// Notes that a batch of `epoch` starts at `offset`. An epoch that got no batch leaves no trace.
    pub fn note(&mut self, epoch: i32, offset: Offset) {
        match self.starts.last() {
            Some(&(e, _)) if epoch <= e => assert!(epoch == e, "leader epoch {epoch} appended after {e}"),
            Some(&(e, o)) => {
                assert!(offset > o, "leader epoch {epoch} starts at {offset}, not after epoch {e} at {o}");
                self.starts.push((epoch, offset));
            }
            None => self.starts.push((epoch, offset)),
        }
    }

    /// Answer to OffsetsForLeaderEpoch: the greatest epoch at or below `epoch` and the offset where it ends. `None` if
    /// `epoch` is later than any known or earlier than all. The caller must look at which epoch was answered
    /// (KIP-279): it may be smaller than the one asked.
    pub fn end_offset_for_epoch(&self, epoch: i32, log_end: Offset) -> Option<(i32, Offset)> {
        if self.latest()? < epoch {
            return None;
        }
        let next = self.starts.partition_point(|&(e, _)| e <= epoch);
        let &(found, _) = self.starts.get(next.checked_sub(1)?)?;
        Some((found, self.starts.get(next).map_or(log_end, |&(_, o)| o)))
    }

    /// The epoch that wrote `offset`.
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<i32> {
        let n = self.starts.partition_point(|&(_, o)| o <= offset);
        Some(self.starts.get(n.checked_sub(1)?)?.0)
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.starts.len() as u32);
        for &(e, o) in &self.starts {
            out.put_i32_le(e);
            out.put_i64_le(o);
        }
    }

    pub(crate) fn decode(bytes: &mut Bytes) -> Option<Self> {
        let mut epochs = Self::default();
        for _ in 0..bytes.try_get_u32_le().ok()? {
            let next = (bytes.try_get_i32_le().ok()?, bytes.try_get_i64_le().ok()?);
            if epochs.starts.last().is_some_and(|&(e, o)| next.0 <= e || next.1 <= o) {
                return None;
            }
            epochs.starts.push(next);
        }
        Some(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_the_greatest_epoch_at_or_below() {
        let mut c = LeaderEpochs::default();
        assert_eq!(c.end_offset_for_epoch(0, 0), None);
        for (e, o) in [(1, 0), (1, 5), (3, 10), (7, 30)] {
            c.note(e, o);
        }
        assert_eq!(c.end_offset_for_epoch(0, 40), None);
        assert_eq!(c.end_offset_for_epoch(1, 40), Some((1, 10)));
        assert_eq!(c.end_offset_for_epoch(2, 40), Some((1, 10)));
        assert_eq!(c.end_offset_for_epoch(3, 40), Some((3, 30)));
        assert_eq!(c.end_offset_for_epoch(7, 40), Some((7, 40)));
        assert_eq!(c.end_offset_for_epoch(8, 40), None);
        assert_eq!([0, 9, 10, 29, 30].map(|o| c.epoch_for_offset(o)), [1, 1, 3, 3, 7].map(Some));
        let mut out = BytesMut::new();
        c.encode(&mut out);
        assert_eq!(LeaderEpochs::decode(&mut out.freeze()), Some(c));
    }
}
