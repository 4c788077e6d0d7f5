//! What a broker's copy of a log holds at an instant, followed from what brokers tell of their copies.

use std::collections::{BTreeMap, BTreeSet};

use history::Batch;

/// What is at some offsets of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub base: i64,
    pub last: i64,
    /// In which it was appended; -1: nobody told of it.
    pub leader_epoch: i32,
    pub held: Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Batch { transactional: bool, batch: Batch },
    Marker { producer_id: i64, producer_epoch: i16, commit: bool },
    Unknown,
}

/// One broker's copy.
#[derive(Clone, Debug, Default)]
pub(super) struct Copy {
    entries: Vec<Entry>,
    pub end: i64,
    /// What is below survives power loss.
    pub flushed: i64,
}

impl Copy {
    /// An empty one that begins at an offset.
    pub fn beginning(offset: i64) -> Self {
        Copy { entries: Vec::new(), end: offset, flushed: offset }
    }

    pub fn push(&mut self, entry: Entry) {
        self.end = entry.last + 1;
        self.entries.push(entry);
    }

    /// Takes over offsets of the leader's copy; what the leader was not seen to append is unknown.
    pub fn take(&mut self, leader: Option<&Copy>, base: i64, last: i64) {
        let theirs = leader.map_or(&[][..], |l| &l.entries);
        let from = theirs.partition_point(|e| e.last < base);
        let taken: Vec<Entry> = theirs[from..].iter().take_while(|e| e.base <= last).copied().collect();
        if taken.is_empty() {
            self.entries.push(Entry { base, last, leader_epoch: -1, held: Held::Unknown });
        }
        self.entries.extend(taken);
        self.end = last + 1;
    }

    /// Ends at `end` now, cut or lost.
    pub fn cut(&mut self, end: i64) {
        self.entries.retain(|e| e.base < end);
        self.end = end;
        self.flushed = self.flushed.min(end);
    }

    /// The first offset at which the two hold what was written in different epochs.
    pub fn parts_from(&self, other: &Copy) -> Option<i64> {
        let known = |e: &&Entry| e.leader_epoch >= 0;
        let mut theirs = other.entries.iter().filter(known).peekable();
        for mine in self.entries.iter().filter(known) {
            while theirs.next_if(|e| e.last < mine.base).is_some() {}
            let Some(theirs) = theirs.peek() else { break };
            if theirs.base <= mine.last && theirs.leader_epoch != mine.leader_epoch {
                return Some(theirs.base.max(mine.base));
            }
        }
        None
    }

    /// Batches and markers of a producer, the last one first.
    pub fn of_producer(&self, producer_id: i64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev().filter(move |e| match e.held {
            Held::Batch { batch, .. } => batch.producer_id == producer_id,
            Held::Marker { producer_id: p, .. } => p == producer_id,
            Held::Unknown => false,
        })
    }

    /// The batch of that identity and sequence.
    pub fn batch(&self, wanted: &Batch) -> Option<&Entry> {
        self.of_producer(wanted.producer_id).find(|e| matches!(e.held, Held::Batch { batch, .. } if batch == *wanted))
    }

    /// Markers in [base, end): offset, producer, and the offset of its marker before, or -1.
    pub fn markers(&self, base: i64, end: i64) -> Vec<(i64, i64, i64)> {
        let mut last: BTreeMap<i64, i64> = BTreeMap::new();
        let mut all = Vec::new();
        for entry in &self.entries {
            let Held::Marker { producer_id, .. } = entry.held else { continue };
            let before = last.insert(producer_id, entry.base).unwrap_or(-1);
            if (base..end).contains(&entry.base) {
                all.push((entry.base, producer_id, before));
            }
        }
        all
    }

    /// Markers from an offset on that abort something which is here.
    pub fn aborted(&self, from: i64) -> u64 {
        let mut began: BTreeSet<i64> = BTreeSet::new();
        let mut aborted = 0;
        for entry in &self.entries {
            match entry.held {
                Held::Batch { transactional: true, batch } => {
                    began.insert(batch.producer_id);
                }
                Held::Marker { producer_id, commit, .. } => {
                    aborted += u64::from(began.remove(&producer_id) && !commit && entry.base >= from);
                }
                _ => {}
            }
        }
        aborted
    }

    /// The first transaction that has no end: where it begins, and whose it is.
    pub fn first_open(&self) -> Option<(i64, i64)> {
        let mut open: Vec<(i64, i64)> = Vec::new();
        for entry in &self.entries {
            match entry.held {
                Held::Batch { transactional: true, batch } if open.iter().all(|(_, p)| *p != batch.producer_id) => {
                    open.push((entry.base, batch.producer_id));
                }
                Held::Marker { producer_id, .. } => open.retain(|(_, p)| *p != producer_id),
                _ => {}
            }
        }
        open.into_iter().min()
    }
}

/// Whose a batch is.
pub(super) fn batch_name(batch: &Batch) -> String {
    match batch.producer_id {
        -1 => "a batch".to_owned(),
        id => format!("producer {id} epoch {} sequence {}", batch.producer_epoch, batch.base_sequence),
    }
}

pub(super) fn has_sequence(batch: &Batch) -> bool {
    batch.producer_id >= 0 && batch.base_sequence >= 0
}

/// Why a batch does not belong where the log ends: the rule, and what is there.
pub(super) fn out_of_place(copy: &Copy, batch: &Batch) -> Option<(&'static str, String)> {
    let mut due = 0;
    for (i, entry) in copy.of_producer(batch.producer_id).enumerate() {
        match entry.held {
            Held::Marker { producer_epoch, .. } if producer_epoch > batch.producer_epoch => {
                return Some((
                    "after its marker",
                    format!("the marker of epoch {producer_epoch} is at {}", entry.base),
                ));
            }
            Held::Batch { batch: other, .. } if other.producer_epoch > batch.producer_epoch && i == 0 => {
                return Some(("late", format!("epoch {} is there from {} on", other.producer_epoch, entry.base)));
            }
            Held::Batch { batch: other, .. } if other.producer_epoch == batch.producer_epoch => {
                due = other.base_sequence.wrapping_add((entry.last - entry.base + 1) as i32) & i32::MAX;
                break;
            }
            Held::Batch { .. } => break,
            _ => {}
        }
    }
    if let Some(there) = copy.batch(batch) {
        return Some(("twice", format!("it has it at {}", there.base)));
    }
    (batch.base_sequence != due).then(|| ("out of order", format!("sequence {due} is due")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(producer_id: i64, base_sequence: i32) -> Batch {
        Batch { producer_id, producer_epoch: 0, base_sequence }
    }

    fn copy(entries: &[(i64, i64, i32)]) -> Copy {
        let mut copy = Copy::default();
        for (base, last, leader_epoch) in entries {
            let held = Held::Batch { transactional: true, batch: batch(*base % 2, *base as i32) };
            copy.push(Entry { base: *base, last: *last, leader_epoch: *leader_epoch, held });
        }
        copy
    }

    #[test]
    fn copies_part_where_epochs_differ() {
        let leader = copy(&[(0, 4, 1), (5, 6, 3), (7, 9, 3)]);
        let mut follower = copy(&[(0, 4, 1), (5, 8, 2)]);
        assert_eq!(follower.parts_from(&leader), Some(5));
        follower.cut(5);
        assert_eq!((follower.parts_from(&leader), follower.end), (None, 5));
        follower.take(Some(&leader), 5, 9);
        assert_eq!((follower.parts_from(&leader), follower.end), (None, 10));
        follower.take(None, 10, 10);
        assert_eq!(follower.parts_from(&copy(&[(10, 12, 4)])), None, "nobody told what is there");
    }

    #[test]
    fn a_transaction_is_open_until_its_marker() {
        let mut log = copy(&[(0, 0, 1), (1, 2, 1)]);
        assert_eq!(log.first_open(), Some((0, 0)));
        log.push(Entry {
            base: 3,
            last: 3,
            leader_epoch: 1,
            held: Held::Marker { producer_id: 0, producer_epoch: 1, commit: true },
        });
        assert_eq!(log.first_open(), Some((1, 1)));
        assert_eq!(log.batch(&batch(1, 1)).map(|e| e.base), Some(1));
        assert_eq!(log.batch(&batch(1, 9)), None);
        log.cut(0);
        assert_eq!(log.first_open(), None);
    }
}
