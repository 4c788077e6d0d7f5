//! Following: fetch, cut what the leader does not have, append, sync; only then fetch past it.

use std::time::Duration;

use env::clock::Instant;

use super::{Action, Following, Lane, Machine, RequestId, Role};
use crate::quorum::message::{Batches, Fetch, Fetched, Header, Position, Request};

impl Machine {
    pub(super) fn fetch_request(&self, max_wait: Duration) -> Request {
        let (epoch, replica) = (self.state.epoch, self.config.me);
        Request::Fetch(Fetch { epoch, replica, from: self.log.end(), max_wait })
    }

    pub(super) fn on_fetched(
        &mut self,
        now: Instant,
        from: i32,
        id: RequestId,
        header: Header,
        high_watermark: i64,
        fetched: Fetched,
    ) {
        let (epoch, fetch_timeout) = (self.state.epoch, self.config.fetch_timeout);
        let Role::Follower(following) = &mut self.role else { return };
        if following.leader != from || header.epoch != epoch || !header.error.is_ok() {
            // It does not lead, or not yet, or no more.
            self.back_off(now, from, Lane::Fetch);
            return;
        }
        following.deadline = now + fetch_timeout;
        following.has_fetched = true;
        match fetched {
            // Before the high watermark is looked at: it may cover offsets at which this log holds something else.
            Fetched::Diverging(end) => self.cut(end),
            Fetched::Snapshot(at) => {
                if at.offset <= self.high_watermark {
                    self.back_off(now, from, Lane::Fetch);
                    return;
                }
                following.downloading = Some(at);
                self.actions.push(Action::FetchSnapshot { leader: from, epoch, at });
            }
            Fetched::Batches(batches) => {
                if !follows(self.log.end(), epoch, &batches) {
                    self.back_off(now, from, Lane::Fetch);
                    return;
                }
                following.high_watermark = high_watermark;
                if batches.headers.is_empty() {
                    let flushed = self.log.flushed();
                    self.commit(high_watermark.min(flushed));
                    self.caught_up(now, id);
                    return;
                }
                for batch in &batches.headers {
                    self.log.append(*batch);
                }
                self.actions.push(Action::AppendFetched(batches));
                self.actions.push(Action::Flush);
            }
        }
    }

    /// Cuts the log back to the last place it may share with the leader's, where the leader's epoch ends at `end`.
    fn cut(&mut self, end: Position) {
        let target = match self.log.end_of_epoch(end.epoch) {
            Some(mine) if mine.epoch == end.epoch => mine.offset.min(end.offset),
            Some(mine) => mine.offset,
            None => self.log.start().offset,
        };
        let hw = self.high_watermark;
        assert!(target >= hw, "log cut to {target}, below the high watermark {hw}");
        env::sometimes!(target < self.log.end_offset(), "quorum: a follower cuts its log");
        self.log.truncate(target);
        self.actions.push(Action::Truncate { offset: target });
    }

    pub(super) fn on_snapshot_progress(&mut self, now: Instant) {
        let fetch_timeout = self.config.fetch_timeout;
        if let Role::Follower(following @ Following { downloading: Some(_), .. }) = &mut self.role {
            following.deadline = now + fetch_timeout;
        }
    }

    pub(super) fn on_snapshot_fetched(&mut self, now: Instant, at: Position) {
        let fetch_timeout = self.config.fetch_timeout;
        let Role::Follower(following) = &mut self.role else { return };
        if following.downloading.take_if(|d| *d == at).is_none() {
            return;
        }
        following.deadline = now + fetch_timeout;
        if at.offset > self.high_watermark {
            env::sometimes!(true, "quorum: a follower takes a snapshot");
            self.log.restart_at(at);
            self.actions.push(Action::InstallSnapshot { at });
            self.commit(at.offset);
        }
    }

    pub(super) fn on_snapshot_failed(&mut self, now: Instant) {
        if let Role::Follower(following) = &mut self.role
            && following.downloading.take().is_some()
        {
            let leader = following.leader;
            self.back_off(now, leader, Lane::Fetch);
        }
    }
}

/// Whether the batches go on where the log ends, in epochs that only rise and that the leader can have.
fn follows(end: Position, epoch: i32, batches: &Batches) -> bool {
    let mut at = end;
    for batch in &batches.headers {
        if batch.base != at.offset || batch.next <= batch.base || batch.epoch < at.epoch || batch.epoch > epoch {
            return false;
        }
        at = Position { offset: batch.next, epoch: batch.epoch };
    }
    true
}
