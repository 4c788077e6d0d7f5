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

    /// A leader's answer to OffsetsForLeaderEpoch and to a fetch that names its last epoch: the greatest epoch at or
    /// below `asked`, and where it ends. `leading` is the epoch of the leader, which begins at the log's end while it
    /// has no batch. `None` if `asked` is later than that. An epoch before all that are here ends where they begin. The
    /// caller must look at which epoch was answered (KIP-279): it may be smaller than the one asked.
    pub fn end_offset_for_epoch(&self, asked: i32, leading: i32, log_end: Offset) -> Option<(i32, Offset)> {
        if asked < 0 || asked > leading {
            return None;
        }
        if asked == leading {
            return Some((leading, log_end));
        }
        let next = self.starts.partition_point(|&(e, _)| e <= asked);
        let end = self.starts.get(next).map_or(log_end, |&(_, o)| o);
        let found = next.checked_sub(1).and_then(|at| self.starts.get(at));
        Some((found.map_or(asked, |&(e, _)| e), end))
    }

    /// As a follower: the first offset at which this log, which ends at `log_end`, may hold something else than the
    /// leader's. `leaders` is the leader's answer: the greatest of its epochs at or below this log's last one, and where
    /// it ends there. What lies past that is of epochs that the leader has not, or has less of (KIP-101, KIP-279).
    ///
    /// One answer need not be enough: after the cut the log's last epoch is asked about again.
    pub fn parts_from(&self, leaders: (i32, Offset), log_end: Offset) -> Offset {
        let (epoch, end) = leaders;
        let next = self.starts.partition_point(|&(e, _)| e <= epoch);
        // Where the first epoch after the leader's begins here: that one, the leader has not.
        let later = self.starts.get(next).map_or(log_end, |&(_, o)| o);
        end.min(later).min(log_end)
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

    fn epochs(starts: &[(i32, Offset)]) -> LeaderEpochs {
        let mut c = LeaderEpochs::default();
        starts.iter().for_each(|&(e, o)| c.note(e, o));
        c
    }

    #[test]
    fn answers_the_greatest_epoch_at_or_below() {
        let c = epochs(&[(1, 0), (1, 5), (3, 10), (7, 30)]);
        let ask = |epoch| c.end_offset_for_epoch(epoch, 9, 40);
        assert_eq!(ask(0), Some((0, 0)), "nothing of it is here");
        assert_eq!(ask(1), Some((1, 10)));
        assert_eq!(ask(2), Some((1, 10)));
        assert_eq!(ask(3), Some((3, 30)));
        assert_eq!(ask(7), Some((7, 40)));
        assert_eq!(ask(8), Some((7, 40)), "the leader's own epoch begins where the log ends");
        assert_eq!(ask(9), Some((9, 40)));
        assert_eq!(ask(10), None);
        assert_eq!(ask(-1), None);
        assert_eq!(LeaderEpochs::default().end_offset_for_epoch(4, 5, 0), Some((4, 0)), "an empty log has nothing");
        assert_eq!([0, 9, 10, 29, 30].map(|o| c.epoch_for_offset(o)), [1, 1, 3, 3, 7].map(Some));
        let mut out = BytesMut::new();
        c.encode(&mut out);
        assert_eq!(LeaderEpochs::decode(&mut out.freeze()), Some(c));
    }

    /// Asks and cuts until the leader has nothing to object.
    fn reconcile(mut mine: Vec<i32>, leaders: &[i32], leading: i32) -> (Vec<i32>, usize) {
        let of = |log: &[i32]| epochs(&(0..).zip(log).map(|(o, e)| (*e, o)).collect::<Vec<_>>());
        for rounds in 0.. {
            let local = of(&mine);
            let end = mine.len() as Offset;
            let Some(last) = local.latest() else { return (mine, rounds) };
            let answer = of(leaders).end_offset_for_epoch(last, leading, leaders.len() as Offset).unwrap();
            if answer.0 == last && answer.1 >= end {
                return (mine, rounds);
            }
            let cut = local.parts_from(answer, end);
            assert!(cut < end, "a diverging answer must cut something: {answer:?} of {local:?}");
            mine.truncate(cut as usize);
        }
        unreachable!()
    }

    #[test]
    fn a_follower_ends_as_a_prefix_of_its_leader() {
        // KIP-279's fast elections: epochs with little or no data in them.
        assert_eq!(reconcile(vec![1, 1, 2, 2, 4], &[1, 1, 3, 3, 3, 5], 5), (vec![1, 1], 2));
        assert_eq!(reconcile(vec![4, 4], &[2, 2, 2], 5), (vec![], 1), "all of it is another leader's");
        assert_eq!(reconcile(vec![2, 2, 2], &[2], 3), (vec![2], 1));
        assert_eq!(reconcile(vec![2, 3], &[], 4), (vec![], 1));
        assert_eq!(reconcile(vec![2], &[2, 2], 2), (vec![2], 0));
    }

    #[test]
    fn any_two_histories_are_reconciled() {
        // Every pair of logs of at most five records where a common prefix is followed by epochs that the two do not
        // share, as elections make them: an epoch has one leader, so its records are in both logs from the same place.
        let mut logs = vec![vec![]];
        for _ in 0..5 {
            let longer = logs.iter().flat_map(|log: &Vec<i32>| {
                (log.last().copied().unwrap_or(1)..=4).map(move |e| log.iter().copied().chain([e]).collect::<Vec<_>>())
            });
            logs = logs.iter().cloned().chain(longer).collect();
            logs.sort();
            logs.dedup();
        }
        let mut pairs = 0;
        for mine in &logs {
            for leaders in &logs {
                let common = mine.iter().zip(leaders).take_while(|(a, b)| a == b).count();
                let one_leader = mine[common..].iter().all(|e| !leaders[common..].contains(e));
                if one_leader {
                    let (left, _) = reconcile(mine.clone(), leaders, 5);
                    assert_eq!(left, mine[..common], "of {mine:?} under {leaders:?}");
                    pairs += 1;
                }
            }
        }
        assert!(pairs > 1000, "{pairs}");
    }
}
