//! What a machine knows of its log: where it begins and ends, what of it is durable, and which epoch wrote what.

use super::message::{Batch, Position};

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogView {
    /// Where the log begins; below it there is a snapshot, unless it is 0.
    start: Position,
    /// The first offset of each epoch at or above `start`; both increase strictly.
    epochs: Vec<(i32, i64)>,
    end: i64,
    flushed: i64,
    /// The newest snapshot: it holds everything below its offset.
    snapshot: Option<Position>,
}

impl LogView {
    /// The view of a log as it was opened, all of it durable: where it begins and ends, the first offsets of its
    /// epochs, and the newest snapshot. Where `start` is not the end of the snapshot, the epoch of the record before it
    /// is not known: then it is the epoch of the first record, and a follower that ends there takes the snapshot.
    pub fn new(start: i64, snapshot: Option<Position>, epochs: impl IntoIterator<Item = (i32, i64)>, end: i64) -> Self {
        assert!(end >= start, "log end {end} below its start {start}");
        let held = snapshot.map_or(0, |s| s.offset);
        assert!(start <= held, "the log begins at {start}, the snapshot ends at {held}");
        let epochs: Vec<(i32, i64)> = epochs.into_iter().collect();
        // The last epoch that begins at or below the start is the first record's.
        let first = epochs.iter().rev().find(|(_, offset)| *offset <= start).or(epochs.first()).map(|e| e.0);
        let epoch = match snapshot {
            Some(at) if at.offset == start => at.epoch,
            _ if start == 0 => 0,
            _ => first.unwrap_or(0),
        };
        let mut view = Self { start: Position { offset: start, epoch }, snapshot, ..Self::default() };
        let known = epochs.into_iter().filter(|e| Some(e.0) >= first && start < end);
        known.for_each(|(epoch, offset)| view.note(epoch, offset.max(start)));
        (view.end, view.flushed) = (end, end);
        view
    }

    pub fn start(&self) -> Position {
        self.start
    }

    pub fn end_offset(&self) -> i64 {
        self.end
    }

    pub fn end(&self) -> Position {
        Position { offset: self.end, epoch: self.epochs.last().map_or(self.start.epoch, |e| e.0) }
    }

    pub fn flushed(&self) -> i64 {
        self.flushed
    }

    pub fn is_flushed(&self) -> bool {
        self.flushed == self.end
    }

    pub fn snapshot(&self) -> Option<Position> {
        self.snapshot
    }

    /// The greatest epoch at or below `epoch` and where it ends. `None` if all epochs here are later.
    pub fn end_of_epoch(&self, epoch: i32) -> Option<Position> {
        let next = self.epochs.partition_point(|&(e, _)| e <= epoch);
        let end = self.epochs.get(next).map_or(self.end, |&(_, offset)| offset);
        match next.checked_sub(1) {
            Some(at) => Some(Position { offset: end, epoch: self.epochs[at].0 }),
            None if epoch >= self.start.epoch => Some(Position { offset: end, epoch: self.start.epoch }),
            None => None,
        }
    }

    /// The epoch of the last record below `offset`, which is in the log or its end.
    pub fn epoch_below(&self, offset: i64) -> i32 {
        let next = self.epochs.partition_point(|&(_, o)| o < offset);
        next.checked_sub(1).map_or(self.start.epoch, |at| self.epochs[at].0)
    }

    pub fn append(&mut self, batch: Batch) {
        assert!(batch.base == self.end, "batch at {} appended to a log that ends at {}", batch.base, self.end);
        assert!(batch.next > batch.base, "batch at {} without a record", batch.base);
        self.note(batch.epoch, batch.base);
        self.end = batch.next;
    }

    pub fn flushed_to(&mut self, end: i64) {
        // A truncation may have come between the sync's beginning and its end.
        self.flushed = self.flushed.max(end.min(self.end));
    }

    /// Everything from `offset` on is gone, durably.
    pub fn truncate(&mut self, offset: i64) {
        assert!(self.start.offset <= offset, "log cut to {offset}, below its start {}", self.start.offset);
        self.end = self.end.min(offset);
        self.flushed = self.flushed.min(offset);
        self.epochs.retain(|&(_, o)| o < offset);
    }

    /// A snapshot of everything below `at` is durable.
    pub fn snapshotted(&mut self, at: Position) {
        assert!(at.offset <= self.flushed, "snapshot of {} with {} flushed", at.offset, self.flushed);
        if self.snapshot.is_none_or(|s| s.offset < at.offset) {
            self.snapshot = Some(at);
        }
    }

    /// Whole segments below `offset` are gone; a snapshot holds them.
    pub fn delete_before(&mut self, offset: i64) {
        let held = self.snapshot.map_or(0, |s| s.offset);
        assert!(offset <= held, "log begins at {offset}, the snapshot ends at {held}");
        if offset <= self.start.offset {
            return;
        }
        self.start = Position { offset, epoch: self.epoch_below(offset) };
        let kept = self.epochs.partition_point(|&(_, o)| o <= offset);
        if let Some(last) = kept.checked_sub(1) {
            self.epochs.drain(..last);
            self.epochs[0].1 = offset;
        }
    }

    /// The log was replaced by a snapshot: it begins and ends at `at`.
    pub fn restart_at(&mut self, at: Position) {
        *self = Self { start: at, epochs: Vec::new(), end: at.offset, flushed: at.offset, snapshot: Some(at) };
    }

    fn note(&mut self, epoch: i32, offset: i64) {
        let last = self.epochs.last().map_or(self.start.epoch, |e| e.0);
        assert!(epoch >= last, "epoch {epoch} appended after {last}");
        if self.epochs.last().is_none_or(|e| e.0 < epoch) {
            self.epochs.push((epoch, offset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> LogView {
        let mut view = LogView::default();
        for (epoch, base, next) in [(1, 0, 3), (1, 3, 5), (4, 5, 6), (6, 6, 10)] {
            view.append(Batch { base, next, epoch });
        }
        view
    }

    fn at(epoch: i32, offset: i64) -> Position {
        Position { offset, epoch }
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let view = view();
        let ends = [0, 1, 3, 4, 5, 6, 9].map(|e| view.end_of_epoch(e));
        assert_eq!(ends, [at(0, 0), at(1, 5), at(1, 5), at(4, 6), at(4, 6), at(6, 10), at(6, 10)].map(Some));
        assert_eq!([0, 1, 5, 6, 7, 10].map(|o| view.epoch_below(o)), [0, 1, 1, 4, 6, 6]);
    }

    #[test]
    fn a_cut_forgets_the_epochs_behind_it() {
        let mut view = view();
        view.flushed_to(10);
        view.truncate(5);
        assert_eq!((view.end(), view.flushed()), (at(1, 5), 5));
        view.append(Batch { base: 5, next: 7, epoch: 7 });
        assert_eq!(view.end_of_epoch(4), Some(at(1, 5)));
    }

    #[test]
    fn a_log_that_lost_its_prefix_answers_for_what_it_has() {
        let mut view = view();
        view.flushed_to(10);
        view.snapshotted(at(4, 6));
        view.delete_before(5);
        assert_eq!(view.start(), at(1, 5));
        assert_eq!([0, 1, 4, 6].map(|e| view.end_of_epoch(e)), [None, Some(at(1, 5)), Some(at(4, 6)), Some(at(6, 10))]);
        view.restart_at(at(9, 20));
        assert_eq!(view.end(), at(9, 20));
        assert_eq!([8, 9].map(|e| view.end_of_epoch(e)), [None, Some(at(9, 20))]);
    }
}
