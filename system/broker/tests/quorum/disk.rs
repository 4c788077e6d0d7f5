//! What a node keeps: its epoch and vote, its log as far as it is synced, its snapshot.

use super::*;

/// A batch as it lies in a log. Records have no contents of their own: the batch's number is enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) batch: Batch,
    pub(crate) value: u64,
}

/// What outlives a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) directory: u128,
    pub(crate) state: Option<QuorumState>,
    pub(crate) log: Log,
    pub(crate) snapshot: Option<Snapshot>,
}

#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) at: Position,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) start: i64,
    pub(crate) entries: Vec<Entry>,
    /// Entries that are durable, from the first.
    pub(crate) synced: usize,
}

impl Log {
    pub(crate) fn end(&self) -> i64 {
        self.entries.last().map_or(self.start, |e| e.batch.next)
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        assert_eq!(entry.batch.base, self.end(), "append at the end");
        self.entries.push(entry);
    }

    pub(crate) fn truncate(&mut self, offset: i64) {
        self.entries.retain(|e| e.batch.next <= offset);
        assert_eq!(self.end(), offset, "cut between batches");
        self.synced = self.synced.min(self.entries.len());
    }
}
