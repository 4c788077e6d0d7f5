//! Leading: fetches served, the high watermark, and the majority that must go on fetching.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use env::clock::Instant;
use protocol::{ErrorCode, Uuid};

use super::{Action, MAX_OBSERVERS, Machine, Role, Token, fetch_error};
use crate::quorum::log_view::LogView;
use crate::quorum::message::{Answer, Batch, Batches, Fetch, Fetched, Position, ReplicaKey};

#[derive(Debug)]
pub(super) struct Leading {
    /// The offset of this epoch's leader-change record.
    pub epoch_start: i64,
    voters: BTreeMap<i32, Voter>,
    observers: BTreeMap<ReplicaKey, Progress>,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Voter {
    progress: Progress,
    /// When it is told next that this replica leads; put off by each of its fetches.
    begin_at: Instant,
}

/// How far a replica is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The replica that fetched last under this id.
    pub replica: ReplicaKey,
    /// Everything below is durable there. -1 if it never fetched.
    pub end: i64,
    /// When it last fetched; for a voter that never did, the beginning of the epoch.
    pub fetched: Instant,
    /// When it last was at the end of the log.
    pub caught_up: Option<Instant>,
    /// The high watermark it was last told.
    told: i64,
}

/// A fetch that waits for something to get.
#[derive(Debug)]
struct Waiting {
    token: Token,
    fetch: Fetch,
    told: i64,
    deadline: Instant,
}

impl Leading {
    pub fn begin_at(&self, voter: i32) -> Option<Instant> {
        self.voters.get(&voter).map(|v| v.begin_at)
    }

    pub fn end_of(&self, voter: i32) -> i64 {
        self.voters.get(&voter).map_or(-1, |v| v.progress.end)
    }
}

impl Machine {
    pub(super) fn lead(&mut self, now: Instant, granting: Vec<i32>) {
        self.leave_role(now);
        let (me, epoch) = (self.config.me, self.state.epoch);
        let epoch_start = self.log.end_offset();
        let voter = |id: i32| {
            let replica = ReplicaKey { id, directory: Uuid::nil() };
            let progress = Progress { replica, end: -1, fetched: now, caught_up: None, told: -1 };
            (id, Voter { progress, begin_at: now })
        };
        let voters = self.others().map(voter).collect();
        self.role = Role::Leader(Leading { epoch_start, voters, observers: BTreeMap::new(), waiting: Vec::new() });
        self.leader = Some(me.id);
        self.log.append(Batch { base: epoch_start, next: epoch_start + 1, epoch });
        self.actions.push(Action::LeaderChanged { epoch, leader: Some(me.id) });
        self.actions.push(Action::AppendLeaderChange { base: epoch_start, epoch, granting });
        self.actions.push(Action::Flush);
    }

    /// The offset that the next appended batch gets, if this replica leads and its epoch's first record is committed.
    pub fn appendable(&self) -> Option<i64> {
        match &self.role {
            Role::Leader(leading) if self.high_watermark > leading.epoch_start => Some(self.log.end_offset()),
            _ => None,
        }
    }

    pub(super) fn on_append(&mut self, now: Instant, batch: Bytes, records: i64) {
        if self.appendable().is_none() {
            return;
        }
        assert!(records > 0, "a batch without a record");
        let (base, epoch) = (self.log.end_offset(), self.state.epoch);
        self.log.append(Batch { base, next: base + records, epoch });
        self.actions.push(Action::Append { base, epoch, batch });
        // The others write it while this node does.
        self.serve_waiting(now);
        self.actions.push(Action::Flush);
    }

    pub(super) fn on_flushed(&mut self, now: Instant, end: i64) {
        self.log.flushed_to(end);
        match &self.role {
            Role::Leader(_) => self.advance_high_watermark(now),
            Role::Follower(following) => self.commit(following.high_watermark.min(self.log.flushed())),
            _ => {}
        }
    }

    pub(super) fn commit(&mut self, high_watermark: i64) {
        if high_watermark > self.high_watermark {
            self.high_watermark = high_watermark;
            self.actions.push(Action::Committed { high_watermark });
        }
    }

    /// What a majority holds durably is committed, if it reaches into this leader's epoch.
    fn advance_high_watermark(&mut self, now: Instant) {
        let Role::Leader(leading) = &self.role else { return };
        let mut ends: Vec<i64> = leading.voters.values().map(|v| v.progress.end).collect();
        ends.push(self.log.flushed());
        ends.sort_unstable_by(|a, b| b.cmp(a));
        let held = ends[self.majority() - 1];
        if held > leading.epoch_start && held > self.high_watermark {
            self.commit(held);
            self.serve_waiting(now);
        }
    }

    pub(super) fn on_fetch(&mut self, now: Instant, token: Token, fetch: Fetch) {
        let error = if !matches!(self.role, Role::Leader(_)) {
            // Not for the asker to learn from a later epoch: it says so when it is asked to vote.
            ErrorCode::NOT_LEADER_OR_FOLLOWER
        } else if fetch.epoch < self.state.epoch {
            ErrorCode::FENCED_LEADER_EPOCH
        } else if fetch.epoch > self.state.epoch {
            ErrorCode::UNKNOWN_LEADER_EPOCH
        } else if fetch.from.epoch > self.state.epoch || fetch.from.offset < 0 || fetch.replica.id == self.config.me.id
        {
            ErrorCode::INVALID_REQUEST
        } else {
            ErrorCode::NONE
        };
        if !error.is_ok() {
            self.actions.push(Action::Reply { token, answer: fetch_error(self.header(error)) });
            return;
        }
        if let Some(fetched) = elsewhere(&self.log, fetch.from) {
            let (header, high_watermark) = (self.header(ErrorCode::NONE), self.high_watermark);
            self.actions.push(Action::Reply { token, answer: Answer::Fetch { header, high_watermark, fetched } });
            self.heard_from(now, fetch.replica);
            return;
        }
        let told = self.note_progress(now, &fetch);
        self.advance_high_watermark(now);
        let deadline = now + fetch.max_wait;
        if let Role::Leader(leading) = &mut self.role {
            leading.waiting.retain(|w| w.fetch.replica.id != fetch.replica.id);
            leading.waiting.push(Waiting { token, fetch, told, deadline });
        }
        self.serve_waiting(now);
    }

    /// A voter that is told to truncate or to take a snapshot holds nothing yet, but it listens.
    pub(super) fn heard_from(&mut self, now: Instant, replica: ReplicaKey) {
        let pause = self.config.fetch_timeout / 2;
        if let Role::Leader(leading) = &mut self.role
            && let Some(voter) = leading.voters.get_mut(&replica.id)
        {
            voter.progress.fetched = now;
            voter.begin_at = now + pause;
        }
    }

    /// Takes in where a replica's log ends; the high watermark it was last told.
    fn note_progress(&mut self, now: Instant, fetch: &Fetch) -> i64 {
        let (end, pause) = (self.log.end_offset(), self.config.fetch_timeout / 2);
        let Role::Leader(leading) = &mut self.role else { return -1 };
        let fresh = Progress { replica: fetch.replica, end: -1, fetched: now, caught_up: None, told: -1 };
        let progress = match leading.voters.get_mut(&fetch.replica.id) {
            Some(voter) => {
                voter.begin_at = now + pause;
                &mut voter.progress
            }
            None => {
                if leading.observers.len() >= MAX_OBSERVERS && !leading.observers.contains_key(&fetch.replica) {
                    let oldest = leading.observers.iter().min_by_key(|(_, p)| p.fetched).map(|(key, _)| *key);
                    oldest.map(|key| leading.observers.remove(&key));
                }
                leading.observers.entry(fetch.replica).or_insert(fresh)
            }
        };
        if progress.replica != fetch.replica {
            *progress = fresh;
        }
        progress.end = fetch.from.offset;
        progress.fetched = now;
        if fetch.from.offset == end {
            progress.caught_up = Some(now);
        }
        progress.told
    }

    /// Answers the fetches that have something to get, be it a later high watermark.
    fn serve_waiting(&mut self, now: Instant) {
        let (end, high_watermark, header) = (self.log.end_offset(), self.high_watermark, self.header(ErrorCode::NONE));
        let Role::Leader(leading) = &mut self.role else { return };
        let due = |w: &mut Waiting| w.fetch.from.offset < end || w.told < high_watermark || w.deadline <= now;
        let due: Vec<Waiting> = leading.waiting.extract_if(.., due).collect();
        for Waiting { token, fetch, .. } in due {
            let replica = fetch.replica;
            let progress = match leading.voters.get_mut(&replica.id) {
                Some(voter) => Some(&mut voter.progress),
                None => leading.observers.get_mut(&replica),
            };
            if let Some(progress) = progress {
                progress.told = high_watermark;
            }
            let (from, upper) = (fetch.from.offset, end);
            self.actions.push(if from < upper {
                Action::Serve { token, header, high_watermark, from, upper }
            } else {
                let fetched = Fetched::Batches(Batches::default());
                Action::Reply { token, answer: Answer::Fetch { header, high_watermark, fetched } }
            });
        }
    }

    pub(super) fn expire_fetches(&mut self, now: Instant) {
        let expired = matches!(&self.role, Role::Leader(leading) if leading.waiting.iter().any(|w| w.deadline <= now));
        if expired {
            self.serve_waiting(now);
        }
    }

    /// Sends those who wait for this leader away.
    pub(super) fn stop_leading(&mut self) {
        let header = self.header(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        let Role::Leader(leading) = &mut self.role else { return };
        for Waiting { token, .. } in std::mem::take(&mut leading.waiting) {
            self.actions.push(Action::Reply { token, answer: fetch_error(header) });
        }
    }

    pub(super) fn on_begun(&mut self, now: Instant, from: i32) {
        let pause = self.config.fetch_timeout / 2;
        if let Role::Leader(leading) = &mut self.role
            && let Some(voter) = leading.voters.get_mut(&from)
        {
            voter.begin_at = voter.begin_at.max(now + pause);
        }
    }

    pub(super) fn lost_its_majority(&self, now: Instant) -> bool {
        self.majority_lost_at().is_some_and(|at| at <= now)
    }

    /// When too few voters will have fetched lately (check-quorum). Never with one voter.
    fn majority_lost_at(&self) -> Option<Instant> {
        let Role::Leader(leading) = &self.role else { return None };
        let others = self.majority() - 1;
        let mut fetched: Vec<Instant> = leading.voters.values().map(|v| v.progress.fetched).collect();
        fetched.sort_unstable_by(|a, b| b.cmp(a));
        Some(*fetched.get(others.checked_sub(1)?)? + self.check_quorum_timeout())
    }

    fn check_quorum_timeout(&self) -> Duration {
        self.config.fetch_timeout * 3 / 2
    }

    pub(super) fn leader_timeout(&self, leading: &Leading) -> Option<Instant> {
        leading.waiting.iter().map(|w| w.deadline).chain(self.majority_lost_at()).min()
    }

    /// How far the other voters and the observers are, as this leader knows it.
    pub fn progress(&self) -> (Vec<Progress>, Vec<Progress>) {
        match &self.role {
            Role::Leader(leading) => {
                (leading.voters.values().map(|v| v.progress).collect(), leading.observers.values().copied().collect())
            }
            _ => (Vec::new(), Vec::new()),
        }
    }
}

/// What to answer a replica whose log ends at `from`, if that is not a place in this log (KIP-595, KIP-630).
fn elsewhere(log: &LogView, from: Position) -> Option<Fetched> {
    let start = log.start();
    if from.offset == start.offset && from.epoch == start.epoch {
        return None;
    }
    let snapshot = log.snapshot().map(Fetched::Snapshot);
    if from.offset < start.offset {
        return Some(snapshot.unwrap_or(Fetched::Diverging(start)));
    }
    match log.end_of_epoch(from.epoch) {
        Some(end) if end.epoch == from.epoch && from.offset <= end.offset => None,
        Some(end) => Some(Fetched::Diverging(end)),
        None => Some(snapshot.unwrap_or(Fetched::Diverging(start))),
    }
}
