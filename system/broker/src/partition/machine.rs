//! What a partition decides: as a leader in which order appends go to the log, when to flush, when to acknowledge; as a
//! follower what to append and what to cut away; as either what readers may see. Pure: inputs in, actions out; the
//! driver executes them and feeds back what came of them.
//!
//! ```text
//! leader    Append ───▶ queue ──▶ [Append] ──▶ log end ──▶ [Flush] ──▶ min over ISR = high watermark ──▶ [Publish], [Reply]
//! follower  Replicate ─▶ queue ─▶ [Replicate] ─▶ log end ─▶ [Flush] ──▶ [Position]: fetch on from there
//!           Truncate ──▶ queue ─▶ [Truncate], durable ─────────────────▶ [Position]
//! ```
//!
//! - One thing is at the log at a time, in the order of the queue. A flush runs beside appends (group commit): what is
//!   appended meanwhile goes with the next one. A truncation waits for the flush to end.
//! - A replica counts with what it would still have after its worst crash: its flushed offset under `flush=fsync`, its
//!   log end under the page cache. A follower is given a position to fetch from only once all below it is so secured;
//!   so the offset it fetches from says how far it counts (and an acknowledged record is on as many disks as the
//!   in-sync set has members).
//! - acks=all waits for the high watermark, a duplicate's too: its first copy may still be lost (Redpanda 4576093165).
//! - A leader that is deposed answers what waits with NOT_LEADER_OR_FOLLOWER: whether it stays in the log is for the
//!   next leader to say. A new leader keeps the high watermark it knew, and raises it only by what the in-sync set
//!   fetches in its own epoch.
//! - A follower takes the high watermark from an answer that proves agreement only, never from one that says where the
//!   logs part (KAFKA-14704), and no further than its own end.
//! - The last stable offset is the exclusive bound of what read_committed sees. A transaction counts as open until its
//!   *marker* is below the high watermark: else a crash could take back a marker that readers had seen the effect of.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use env::clock::Instant;
use log::{LeaderEpochs, Offset, TxnChange};
use protocol::ErrorCode;

use super::leader::{Leader, Leadership};
pub use super::messages::{
    Action, Asked, Bounds, Following, HIGH_WATERMARK, Input, Outcome, Position, Settings, Start, Token, Work,
};
use super::{Acks, Appended};
use crate::config::Flush;

/// Appends after which a flush is due even if more are queued.
const FLUSH_AFTER: usize = 64;

#[derive(Clone, Debug)]
enum Role {
    /// Open, and not told yet.
    None,
    Leader(Box<Leader>),
    Follower {
        with: Following,
        /// The leader's high watermark, as of its last answer that proved agreement.
        high_watermark: Offset,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Lead(Leadership),
    Follow(Following),
}

#[derive(Clone, Debug)]
enum Queued {
    Append { token: Token, work: Work, acks: Acks },
    Replicate { token: Token, leader_epoch: i32, records: Bytes, high_watermark: Offset },
    Truncate { token: Token, leader_epoch: i32, diverging: (i32, Offset) },
    Reset { token: Token, leader_epoch: i32, offset: Offset },
}

/// What is at the log.
#[derive(Clone, Copy, Debug)]
enum AtLog {
    Append { token: Token, acks: Acks, leader_epoch: i32 },
    Replicate { token: Token, leader_epoch: i32, high_watermark: Offset },
    Truncate { token: Token },
    Reset { token: Token },
}

/// One replica of one partition.
#[derive(Clone, Debug)]
pub struct Machine {
    settings: Settings,
    log_start: Offset,
    end: Offset,
    flushed: Offset,
    epochs: LeaderEpochs,
    role: Role,
    /// A change that waits for what is at the log.
    next_role: Option<Change>,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    at_log: Option<AtLog>,
    /// Appends since the last flush began.
    unflushed: usize,
    flushing: bool,
    published: Bounds,
    high_watermark: Offset,
    last_stable: Offset,
    /// First offset of each transaction that is open, or whose marker is not below the high watermark.
    transactions: BTreeMap<Offset, Option<Offset>>,
    /// Acknowledgements by the high watermark they wait for.
    waiting: BTreeMap<(Offset, Token), Appended>,
    /// Positions by what must be secured before they are given.
    unsecured: BTreeMap<(Offset, Token), ()>,
    closing: bool,
    /// Closed or failed.
    stopped: bool,
    closed: bool,
}

impl Machine {
    pub fn new(settings: Settings, start: Start) -> Self {
        let high_watermark = start.high_watermark.clamp(start.log_start, start.end);
        let transactions = Start { high_watermark, ..start.clone() }.transactions();
        let last_stable = transactions.keys().next().map_or(high_watermark, |first| (*first).min(high_watermark));
        Self {
            settings,
            log_start: start.log_start,
            end: start.end,
            flushed: start.end,
            epochs: start.epochs,
            role: Role::None,
            next_role: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            at_log: None,
            unflushed: 0,
            flushing: false,
            published: Bounds { high_watermark, last_stable_offset: last_stable, log_end: start.end },
            high_watermark,
            last_stable,
            transactions,
            waiting: BTreeMap::new(),
            unsecured: BTreeMap::new(),
            closing: false,
            stopped: false,
            closed: false,
        }
    }

    pub fn bounds(&self) -> Bounds {
        Bounds { high_watermark: self.high_watermark, last_stable_offset: self.last_stable, log_end: self.end }
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    pub fn last_stable_offset(&self) -> Offset {
        self.last_stable
    }

    /// Transactions that have records in the log and no marker.
    pub fn open_transactions(&self) -> usize {
        self.transactions.values().filter(|marker| marker.is_none()).count()
    }

    pub fn log_end_offset(&self) -> Offset {
        self.end
    }

    /// Where the log begins, also after the worst crash.
    pub fn log_start_offset(&self) -> Offset {
        self.log_start
    }

    /// Of the present role; -1 before there is any.
    pub fn leader_epoch(&self) -> i32 {
        match &self.role {
            Role::None => -1,
            Role::Leader(leader) => leader.leader_epoch,
            Role::Follower { with, .. } => with.leader_epoch,
        }
    }

    pub fn leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    pub fn following(&self) -> Option<Following> {
        match &self.role {
            Role::Follower { with, .. } => Some(*with),
            _ => None,
        }
    }

    /// A change of the role waits for what is at the log.
    pub fn changes_role(&self) -> bool {
        self.next_role.is_some() && !self.stopped
    }

    /// The leader epochs of the log.
    pub fn epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    /// As a leader: the greatest epoch at or below `epoch`, and where it ends here. `None` for one that this leader
    /// does not know of.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, Offset)> {
        self.epochs.end_offset_for_epoch(epoch, self.leader()?.leader_epoch, self.end)
    }

    /// How far this replica itself counts.
    fn secured(&self) -> Offset {
        match self.settings.flush {
            Flush::Fsync => self.flushed,
            Flush::PageCache => self.end,
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        let looks_again = matches!(input, Input::IsrAnswered { .. } | Input::Tick | Input::Flushed(_));
        match input {
            Input::Lead(with) => self.change_role(Change::Lead(with), now, &mut actions),
            Input::Follow(with) => self.change_role(Change::Follow(with), now, &mut actions),
            Input::Append { token, work, acks } => self.arrived(token, work, acks, &mut actions),
            Input::Replicate { token, leader_epoch, records, high_watermark } => {
                self.queue.push_back(Queued::Replicate { token, leader_epoch, records, high_watermark });
            }
            Input::Truncate { token, leader_epoch, diverging } => {
                self.queue.push_back(Queued::Truncate { token, leader_epoch, diverging });
            }
            Input::Reset { token, leader_epoch, offset } => {
                self.queue.push_back(Queued::Reset { token, leader_epoch, offset });
            }
            Input::DeleteRecords { token, offset } => actions.push(match self.may_delete(offset) {
                Ok(offset) => Action::StartAt { token, offset },
                Err(error) => Action::NotDeleted { token, error },
            }),
            Input::StartMoved(offset) => {
                assert!(offset <= self.high_watermark, "log start {offset} past {}", self.high_watermark);
                self.log_start = self.log_start.max(offset);
            }
            Input::LogFailed => self.fail(&mut actions),
            Input::Appended { token, outcome } => self.appended(token, outcome, now, &mut actions),
            Input::Truncated { token, log } => self.truncated(token, log, now, &mut actions),
            Input::Fetched(fetch) => {
                let begins = |leader: &Leader| leader.remotes().get(&fetch.replica).and_then(|r| r.log_start);
                if let Role::Leader(leader) = &mut self.role
                    && let known = begins(leader)
                    && leader.fetched(&fetch, now)
                {
                    actions.extend((begins(leader) != known).then_some(Action::FollowerStartMoved));
                    // The bound first: a follower that joins must have what was committed without it.
                    self.advance(now, &mut actions);
                    let (high_watermark, log_start) = (self.high_watermark, self.log_start);
                    let Role::Leader(leader) = &mut self.role else { unreachable!("the role does not change here") };
                    let ask = leader.maybe_expand(fetch.replica, high_watermark, log_start, now);
                    actions.extend(ask.map(Action::AlterIsr));
                }
            }
            Input::IsrAnswered { attempt, result } => {
                if let Role::Leader(leader) = &mut self.role {
                    actions.extend(leader.answered(attempt, result, now).map(Action::AlterIsr));
                    self.isr_changed(now, &mut actions);
                }
            }
            Input::Tick => {
                if let Role::Leader(leader) = &mut self.role {
                    actions.extend(leader.maybe_shrink(self.end, now).map(Action::AlterIsr));
                    // One that is not a member is not waited for any longer once it has fallen behind.
                    self.advance(now, &mut actions);
                }
            }
            Input::Flushed(offset) => {
                assert!(self.flushing, "a flush ended that was not begun");
                self.flushing = false;
                assert!(offset <= self.end, "flushed to {offset}, past the log end {}", self.end);
                self.flushed = self.flushed.max(offset);
                self.advance(now, &mut actions);
            }
            Input::FlushFailed => {
                self.flushing = false;
                self.fail(&mut actions);
            }
            Input::Close => self.closing = true,
        }
        self.proceed(now, &mut actions);
        self.check();
        if looks_again {
            self.check_committed(now);
        }
        actions
    }

    /// Takes on a role, now or when what is at the log has ended.
    fn change_role(&mut self, change: Change, now: Instant, actions: &mut Vec<Action>) {
        if self.at_log.is_some() {
            self.next_role = Some(change);
            return;
        }
        if self.stopped {
            return;
        }
        let known = self.leader_epoch();
        let (leader_epoch, replaces) = match &change {
            Change::Lead(with) => (with.leader_epoch, !matches!(self.role, Role::Leader(_))),
            Change::Follow(with) => (with.leader_epoch, !matches!(self.role, Role::Follower { .. })),
        };
        if leader_epoch < known || self.epochs.latest().is_some_and(|latest| leader_epoch < latest) {
            // An image that is older than this log: the next one will say what to do.
            env::sometimes!(true, "partition: told of an older leader epoch than its log has");
            return;
        }
        let anew = replaces || leader_epoch > known;
        match change {
            Change::Lead(with) => {
                if let Role::Leader(leader) = &mut self.role
                    && !anew
                {
                    leader.update(with, now);
                } else {
                    // Led twice in a row by this node: what waits for its turn was asked of the earlier leadership, whose
                    // coordinators are gone. What is in the log goes on being waited for.
                    self.refuse_queued(ErrorCode::NOT_LEADER_OR_FOLLOWER, actions);
                    self.drop_replication(actions);
                    let Settings { node, lag_max, .. } = self.settings;
                    self.role = Role::Leader(Box::new(Leader::new(node, lag_max, with, self.end, now)));
                    actions.push(Action::RoleChanged);
                }
                self.isr_changed(now, actions);
            }
            Change::Follow(with) => {
                if matches!(self.role, Role::Leader(_)) {
                    env::sometimes!(!self.waiting.is_empty(), "partition: a deposed leader had unacknowledged records");
                    self.refuse_all(ErrorCode::NOT_LEADER_OR_FOLLOWER, actions);
                }
                if anew {
                    self.drop_replication(actions);
                    self.role = Role::Follower { with, high_watermark: self.high_watermark };
                    actions.push(Action::RoleChanged);
                } else if let Role::Follower { with: old, .. } = &mut self.role {
                    *old = with;
                }
            }
        }
    }

    /// The in-sync set may be another: the high watermark may move without any append or fetch (KAFKA-13091), or may
    /// not move any more.
    fn isr_changed(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.advance(now, actions);
        if self.leader().is_some_and(|l| !l.has_enough()) {
            let result = Err(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND);
            let waiting = std::mem::take(&mut self.waiting).into_keys();
            actions.extend(waiting.map(|(_, token)| Action::Reply { token, result }));
        }
    }

    fn arrived(&mut self, token: Token, work: Work, acks: Acks, actions: &mut Vec<Action>) {
        let following = matches!(self.next_role, Some(Change::Follow(_)));
        let refusal = if self.closing {
            Some(ErrorCode::LEADER_NOT_AVAILABLE)
        } else if self.stopped {
            Some(ErrorCode::KAFKA_STORAGE_ERROR)
        } else if following || (self.leader().is_none() && self.next_role.is_none()) {
            Some(ErrorCode::NOT_LEADER_OR_FOLLOWER)
        } else if self.queued_bytes + work.bytes() > self.settings.max_queued_bytes && !self.queue.is_empty() {
            env::sometimes!(true, "partition: append queue is full");
            Some(ErrorCode::NOT_ENOUGH_REPLICAS)
        } else {
            None
        };
        match refusal {
            Some(error) => actions.push(Action::Reply { token, result: Err(error) }),
            None => {
                self.queued_bytes += work.bytes();
                self.queue.push_back(Queued::Append { token, work, acks });
            }
        }
    }

    /// Where the log is to begin for a DeleteRecords: only what is committed is given up (`Partition.deleteRecordsOnLeader`).
    fn may_delete(&self, offset: Offset) -> Result<Offset, ErrorCode> {
        if self.stopped {
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        let Some(leader) = self.leader() else { return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER) };
        match offset {
            HIGH_WATERMARK => Ok(self.high_watermark),
            offset if offset < 0 => Err(ErrorCode::OFFSET_OUT_OF_RANGE),
            offset if offset <= self.high_watermark => Ok(offset),
            // A new leader may know an older high watermark than who asks has seen (KIP-207): it is not out of range yet.
            offset if offset <= self.end && self.high_watermark < leader.epoch_start => {
                env::sometimes!(true, "partition: records to delete that a new leader does not know to be committed");
                Err(ErrorCode::OFFSET_NOT_AVAILABLE)
            }
            _ => Err(ErrorCode::OFFSET_OUT_OF_RANGE),
        }
    }

    fn appended(&mut self, token: Token, outcome: Outcome, now: Instant, actions: &mut Vec<Action>) {
        let at_log = self.at_log.take();
        let (expected, acks) = match at_log {
            Some(AtLog::Append { token, acks, .. }) => (token, Some(acks)),
            Some(AtLog::Replicate { token, .. }) => (token, None),
            Some(AtLog::Truncate { .. } | AtLog::Reset { .. }) | None => {
                unreachable!("an append ended that was not begun")
            }
        };
        assert!(expected == token, "append {token} ended, {expected} was begun");
        let refuse = |error| match acks {
            Some(_) => Action::Reply { token, result: Err(error) },
            None => Action::Position { token, result: Err(error) },
        };
        let appended = match outcome {
            Outcome::Done { first, last, epochs, transactions } => {
                // A follower takes over the holes of its leader's log.
                let follows = first == self.end || (acks.is_none() && first > self.end);
                assert!(follows, "appended at {first}, the log ended at {}", self.end);
                self.end = last + 1;
                self.unflushed += 1;
                for (epoch, offset) in epochs {
                    self.epochs.note(epoch, offset);
                }
                for change in transactions {
                    match change {
                        TxnChange::Began { first, .. } => self.transactions.insert(first, None),
                        TxnChange::Ended { first, marker, .. } => self.transactions.insert(first, Some(marker)),
                    };
                }
                Ok((first, last))
            }
            Outcome::Duplicate { first, last } => {
                env::sometimes!(last >= self.high_watermark, "partition: duplicate of a batch that is not yet stable");
                Ok((first, last))
            }
            Outcome::MarkerThere => Ok((self.end, self.end - 1)),
            Outcome::Refused(error) => Err(error),
            Outcome::Failed => {
                actions.push(refuse(ErrorCode::KAFKA_STORAGE_ERROR));
                self.fail(actions);
                return;
            }
        };
        if self.stopped {
            // A flush failed meanwhile: whether this append can ever become durable is not known.
            actions.push(refuse(ErrorCode::KAFKA_STORAGE_ERROR));
            return;
        }
        match (appended, at_log) {
            (Err(error), _) => actions.push(refuse(error)),
            (Ok((first, last)), Some(AtLog::Append { acks, leader_epoch, .. })) => {
                let done = Appended {
                    base_offset: first,
                    last_offset: last,
                    log_append_time_ms: -1,
                    log_start_offset: self.log_start,
                };
                assert!(self.leader_epoch() == leader_epoch, "the role waits for what is at the log");
                match acks {
                    Acks::All if self.leader().is_some_and(|l| !l.has_enough()) && last >= self.high_watermark => {
                        actions.push(refuse(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND));
                    }
                    Acks::All => {
                        self.waiting.insert((last + 1, token), done);
                    }
                    Acks::None | Acks::Leader => actions.push(Action::Reply { token, result: Ok(done) }),
                }
            }
            (Ok(_), Some(AtLog::Replicate { leader_epoch, high_watermark, .. })) => {
                assert!(self.leader_epoch() == leader_epoch, "the role waits for what is at the log");
                self.agreed(token, high_watermark);
            }
            (Ok(_), Some(AtLog::Truncate { .. } | AtLog::Reset { .. }) | None) => {
                unreachable!("an append ended that was not begun")
            }
        }
        self.advance(now, actions);
        self.take_next_role(now, actions);
    }

    /// The leader's log and this one agree up to this one's end.
    fn agreed(&mut self, token: Token, leaders: Offset) {
        if let Role::Follower { high_watermark, .. } = &mut self.role {
            *high_watermark = leaders.max(*high_watermark);
        }
        self.unsecured.insert((self.end, token), ());
    }

    fn truncated(&mut self, token: Token, log: Option<Start>, now: Instant, actions: &mut Vec<Action>) {
        let (expected, reset) = match self.at_log.take() {
            Some(AtLog::Truncate { token }) => (token, false),
            Some(AtLog::Reset { token }) => (token, true),
            _ => unreachable!("a truncation ended that was not begun"),
        };
        assert!(expected == token, "truncation {token} ended, {expected} was begun");
        let Some(log) = log else {
            actions.push(Action::Position { token, result: Err(ErrorCode::KAFKA_STORAGE_ERROR) });
            self.fail(actions);
            return;
        };
        assert!(reset || log.end <= self.end, "a truncation made the log longer: {} to {}", self.end, log.end);
        env::sometimes!(log.end < self.high_watermark, "partition: truncated below its high watermark");
        // Where a leader's log begins, it is committed.
        self.high_watermark = if reset { log.end } else { self.high_watermark.min(log.end) };
        let log = Start { high_watermark: self.high_watermark, ..log };
        self.transactions = log.transactions();
        (self.log_start, self.end, self.flushed, self.epochs) = (log.log_start, log.end, log.end, log.epochs);
        self.last_stable = self.last_stable.min(self.end);
        if let Role::Follower { high_watermark, .. } = &mut self.role {
            *high_watermark = self.high_watermark;
        }
        if !self.stopped {
            self.unsecured.insert((self.end, token), ());
        }
        self.advance(now, actions);
        self.take_next_role(now, actions);
    }

    fn take_next_role(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let Some(change) = self.next_role.take() {
            env::sometimes!(true, "partition: the role changed while something was at the log");
            self.change_role(change, now, actions);
        }
    }

    /// Moves the bounds and answers what waited for them.
    fn advance(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.stopped {
            return;
        }
        let bound = match &self.role {
            Role::None => None,
            Role::Leader(leader) => leader.bound(self.secured(), self.end, now),
            Role::Follower { high_watermark, .. } => Some((*high_watermark).min(self.end)),
        };
        self.high_watermark = self.high_watermark.max(bound.unwrap_or(self.high_watermark));
        let high_watermark = self.high_watermark;
        self.transactions.retain(|_, marker| marker.is_none_or(|m| m >= high_watermark));
        let first_unstable = self.transactions.keys().next().copied().unwrap_or(Offset::MAX);
        env::sometimes!(first_unstable < high_watermark, "partition: a transaction holds back the last stable offset");
        let before = self.last_stable;
        self.last_stable = first_unstable.min(high_watermark);
        assert!(
            self.last_stable >= before || high_watermark < self.published.high_watermark,
            "last stable offset went back from {before} to {}",
            self.last_stable
        );
        let bounds = self.bounds();
        let seen = |b: Bounds| (b.high_watermark, b.last_stable_offset);
        // Only other replicas care for an end that is not committed.
        let replicated = self.leader().is_some_and(Leader::is_replicated);
        if seen(bounds) != seen(self.published) || (replicated && bounds.log_end != self.published.log_end) {
            self.published = bounds;
            actions.push(Action::Publish(bounds));
        }
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 <= high_watermark
        {
            let ((_, token), done) = entry.remove_entry();
            actions.push(Action::Reply { token, result: Ok(done) });
        }
        let secured = self.secured();
        while let Some(entry) = self.unsecured.first_entry()
            && entry.key().0 <= secured
        {
            let ((_, token), ()) = entry.remove_entry();
            let position = Position { end: self.end, last_epoch: self.epochs.latest() };
            // One replication at a time: nothing was appended since.
            let result = if secured == self.end { Ok(position) } else { Err(ErrorCode::FENCED_LEADER_EPOCH) };
            actions.push(Action::Position { token, result });
        }
    }

    /// Gives the log what it can do next.
    fn proceed(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.stopped {
            if self.closing && !self.closed && self.at_log.is_none() {
                self.closed = true;
                actions.push(Action::Closed);
            }
            return;
        }
        while self.at_log.is_none() && !self.queue.is_empty() {
            if self.flushing && matches!(self.queue.front(), Some(Queued::Truncate { .. } | Queued::Reset { .. })) {
                break;
            }
            let Some(next) = self.queue.pop_front() else { break };
            self.dispatch(next, now, actions);
        }
        let dirty = self.flushed < self.end;
        // With more appends at hand the flush waits for them, up to a bound: one sync for all.
        let truncating = matches!(self.at_log, Some(AtLog::Truncate { .. } | AtLog::Reset { .. }));
        let waits = self.queue.iter().any(|q| matches!(q, Queued::Append { .. } | Queued::Replicate { .. }));
        let idle = self.at_log.is_none() && !waits;
        let wanted = self.settings.flush == Flush::Fsync || self.closing;
        if dirty && wanted && !self.flushing && !truncating && (idle || self.unflushed >= FLUSH_AFTER) {
            self.flushing = true;
            self.unflushed = 0;
            actions.push(Action::Flush);
        }
        if self.closing && idle && self.queue.is_empty() && !dirty && !self.flushing {
            self.stopped = true;
            self.closed = true;
            self.drop_replication(actions);
            self.refuse_all(ErrorCode::NOT_LEADER_OR_FOLLOWER, actions);
            actions.push(Action::Closed);
        }
    }

    fn dispatch(&mut self, next: Queued, now: Instant, actions: &mut Vec<Action>) {
        let follows = |epoch: i32| matches!(&self.role, Role::Follower { with, .. } if with.leader_epoch == epoch);
        match next {
            Queued::Append { token, work, acks } => {
                self.queued_bytes -= work.bytes();
                let refusal = match self.leader() {
                    None => Some(ErrorCode::NOT_LEADER_OR_FOLLOWER),
                    Some(leader) if acks == Acks::All && !leader.has_enough() => {
                        env::sometimes!(true, "partition: fewer in-sync replicas than min.insync.replicas");
                        Some(ErrorCode::NOT_ENOUGH_REPLICAS)
                    }
                    Some(_) => None,
                };
                if let Some(error) = refusal {
                    actions.push(Action::Reply { token, result: Err(error) });
                    return;
                }
                let leader_epoch = self.leader_epoch();
                self.at_log = Some(AtLog::Append { token, acks, leader_epoch });
                actions.push(Action::Append { token, work, leader_epoch });
            }
            Queued::Replicate { token, leader_epoch, .. }
            | Queued::Truncate { token, leader_epoch, .. }
            | Queued::Reset { token, leader_epoch, .. }
                if !follows(leader_epoch) =>
            {
                actions.push(Action::Position { token, result: Err(ErrorCode::FENCED_LEADER_EPOCH) });
            }
            Queued::Replicate { token, leader_epoch, records, high_watermark } => {
                if records.is_empty() {
                    self.agreed(token, high_watermark);
                    self.advance(now, actions);
                    return;
                }
                self.at_log = Some(AtLog::Replicate { token, leader_epoch, high_watermark });
                actions.push(Action::Replicate { token, records });
            }
            Queued::Truncate { token, diverging, .. } => {
                let offset = self.epochs.parts_from(diverging, self.end);
                if offset >= self.end {
                    self.unsecured.insert((self.end, token), ());
                    self.advance(now, actions);
                    return;
                }
                env::sometimes!(true, "partition: a follower cuts away what its leader does not have");
                self.at_log = Some(AtLog::Truncate { token });
                actions.push(Action::Truncate { token, offset });
            }
            Queued::Reset { token, offset, .. } => {
                if offset <= self.end {
                    self.unsecured.insert((self.end, token), ());
                    self.advance(now, actions);
                    return;
                }
                env::sometimes!(true, "partition: a follower begins anew where its leader's log begins");
                self.at_log = Some(AtLog::Reset { token });
                actions.push(Action::Reset { token, offset });
            }
        }
    }

    /// Whoever waits for a position learns that the leader it fetched from is not the leader any more.
    fn drop_replication(&mut self, actions: &mut Vec<Action>) {
        let result = Err(ErrorCode::FENCED_LEADER_EPOCH);
        let unsecured = std::mem::take(&mut self.unsecured).into_keys();
        actions.extend(unsecured.map(|(_, token)| Action::Position { token, result }));
    }

    /// Answers every append that waits.
    fn refuse_all(&mut self, error: ErrorCode, actions: &mut Vec<Action>) {
        let result = Err(error);
        let waiting = std::mem::take(&mut self.waiting).into_keys();
        actions.extend(waiting.map(|(_, token)| Action::Reply { token, result }));
        self.refuse_queued(error, actions);
    }

    /// Answers every append that has not been at the log.
    fn refuse_queued(&mut self, error: ErrorCode, actions: &mut Vec<Action>) {
        let result = Err(error);
        let mut rest = VecDeque::new();
        for queued in std::mem::take(&mut self.queue) {
            match queued {
                Queued::Append { token, .. } => actions.push(Action::Reply { token, result }),
                other => rest.push_back(other),
            }
        }
        self.queue = rest;
        self.queued_bytes = 0;
    }

    /// Nobody knows what is on the disk: nothing is acknowledged any more, and nobody is left without an answer.
    fn fail(&mut self, actions: &mut Vec<Action>) {
        if self.stopped {
            return;
        }
        self.stopped = true;
        let error = ErrorCode::KAFKA_STORAGE_ERROR;
        // The one at the log is answered when it ends.
        self.refuse_all(error, actions);
        let result = Err(error);
        let unsecured = std::mem::take(&mut self.unsecured).into_keys().map(|(_, token)| token);
        let queued = std::mem::take(&mut self.queue).into_iter().map(|q| match q {
            Queued::Append { token, .. }
            | Queued::Replicate { token, .. }
            | Queued::Truncate { token, .. }
            | Queued::Reset { token, .. } => token,
        });
        actions.extend(unsecured.chain(queued).map(|token| Action::Position { token, result }));
        actions.push(Action::Fail);
    }

    /// What the whole in-sync set has is committed at once. Nobody may come who looks again: a producer that waits for its
    /// acknowledgement sends nothing, and the other replicas have everything (KAFKA-13091).
    fn check_committed(&self, now: Instant) {
        let bound = self.leader().filter(|_| !self.stopped).and_then(|l| l.bound(self.secured(), self.end, now));
        if let Some(bound) = bound {
            let high_watermark = self.high_watermark;
            assert!(high_watermark >= bound, "high watermark {high_watermark}, the in-sync set has all up to {bound}");
        }
    }

    fn check(&self) {
        let end = self.end;
        assert!(self.high_watermark <= end, "high watermark {} past log end {end}", self.high_watermark);
        assert!(self.flushed <= end, "flushed to {}, past log end {end}", self.flushed);
        assert!(
            self.last_stable <= self.high_watermark,
            "last stable offset {} past high watermark {}",
            self.last_stable,
            self.high_watermark
        );
    }
}
