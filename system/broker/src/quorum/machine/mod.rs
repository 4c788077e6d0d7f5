//! The quorum's protocol as a pure machine: one replica of the metadata log, voter or observer.
//!
//! ```text
//!                 fetch time-out        majority would vote       majority voted
//!  Unattached ──► Prospective ─────────► Candidate ─────────────► Leader ──► Resigned
//!      ▲  │        │    ▲                  │                        │           │
//!      │  └► Follower ──┘ ◄── a leader of this epoch is known       └ no majority fetches from it, or it hands over
//!      └─ any message of a later epoch
//! ```
//! The driver executes the actions of one call in order, each one finished before the next begins; so a state that is
//! stored before a reply is on disk when the reply leaves. An observer is never more than Unattached or Follower, and so
//! is a voter whose votes do not count yet (`joining`).
//!
//! | file | one line |
//! |--|--|
//! | `exchange` | which request is owed to whom, and when it is tried again |
//! | `election` | votes, and what ends an epoch |
//! | `leader` | serving fetches, the high watermark, check-quorum |
//! | `follower` | fetching, truncating, snapshots |
//! | `joining` | when a voter without a past may vote |

mod election;
mod exchange;
mod follower;
mod joining;
mod leader;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use env::clock::Instant;
use protocol::ErrorCode;

use self::exchange::{Exchange, Kind, Lane};
use self::joining::Joining;
use self::leader::Leading;
pub use self::leader::Progress;
use super::log_view::LogView;
use super::message::{Answer, Batches, Fetched, Header, Position, ReplicaKey, Request};
use super::state::QuorumState;

#[derive(Clone, Debug)]
pub struct Config {
    pub me: ReplicaKey,
    pub voters: BTreeSet<i32>,
    /// An election is waited for between one and two of these.
    pub election_timeout: Duration,
    /// A follower that did not hear from its leader for this long looks for another; a leader that did not hear from a
    /// majority for one and a half of it resigns.
    pub fetch_timeout: Duration,
    /// How long a leader holds a fetch that has nothing to get.
    pub fetch_max_wait: Duration,
    /// First pause after a failed request; it doubles up to [`MAX_BACKOFF`].
    pub retry_backoff: Duration,
    /// Where its random waits come from.
    pub chance: u64,
}

/// Longest pause between two tries of a request.
pub const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Observers whose progress a leader remembers.
const MAX_OBSERVERS: usize = 1000;

/// Names a request that came in, until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// Names a request that went out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    Request {
        token: Token,
        request: Request,
    },
    Answer {
        from: i32,
        id: RequestId,
        answer: Answer,
    },
    /// No answer will come; whether the request arrived is unknown.
    Failed {
        to: i32,
        id: RequestId,
    },
    /// Append `batch`, so many records of it. Ignored unless this replica leads: see [`Machine::appendable`].
    Append {
        batch: Bytes,
        records: i64,
    },
    /// Everything below `end` is durable.
    Flushed {
        end: i64,
    },
    /// Hand the leadership over, if this replica has it.
    Resign,
    /// A snapshot of everything below `at` is durable.
    Snapshotted {
        at: Position,
    },
    /// The log was cut at its front.
    Prefix {
        start: i64,
    },
    /// The replica asks this one for parts of a snapshot.
    Heard {
        replica: ReplicaKey,
    },
    /// Part of a snapshot arrived from the leader.
    SnapshotProgress,
    /// The snapshot that was asked for is durable, in a place of its own.
    SnapshotFetched {
        at: Position,
    },
    SnapshotFailed,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Replace the quorum-state file.
    Store(QuorumState),
    /// This replica was elected: append the leader-change record at `base`.
    AppendLeaderChange {
        base: i64,
        epoch: i32,
        granting: Vec<i32>,
    },
    Append {
        base: i64,
        epoch: i32,
        batch: Bytes,
    },
    /// Append what was fetched from the leader, with its offsets and epochs.
    AppendFetched(Batches),
    /// Remove everything from `offset` on.
    Truncate {
        offset: i64,
    },
    /// Sync the log, then [`Input::Flushed`].
    Flush,
    Send {
        to: i32,
        id: RequestId,
        request: Request,
    },
    Reply {
        token: Token,
        answer: Answer,
    },
    /// Read from `from` up to `upper` and reply with it.
    Serve {
        token: Token,
        header: Header,
        high_watermark: i64,
        from: i64,
        upper: i64,
    },
    /// Everything below `high_watermark` is committed.
    Committed {
        high_watermark: i64,
    },
    /// The epoch or its leader changed.
    LeaderChanged {
        epoch: i32,
        leader: Option<i32>,
    },
    /// Get the leader's snapshot; then [`Input::SnapshotFetched`] or [`Input::SnapshotFailed`].
    FetchSnapshot {
        leader: i32,
        epoch: i32,
        at: Position,
    },
    /// Put the fetched snapshot in the place of the log.
    InstallSnapshot {
        at: Position,
    },
}

#[derive(Debug)]
enum Role {
    /// No leader is known, or (an observer) it cannot be reached. `election` is absent if this replica does not stand.
    Unattached {
        election: Option<Instant>,
    },
    Follower(Following),
    Prospective {
        votes: BTreeMap<i32, bool>,
        deadline: Instant,
    },
    Candidate {
        votes: BTreeMap<i32, bool>,
        deadline: Instant,
    },
    Leader(Leading),
    /// It led this epoch and never will again. `told`: who answered EndQuorumEpoch; empty `successors` tell nobody.
    Resigned {
        deadline: Instant,
        successors: Vec<i32>,
        told: BTreeSet<i32>,
    },
}

#[derive(Debug)]
struct Following {
    leader: i32,
    /// When the leader counts as gone.
    deadline: Instant,
    /// Whether a fetch from it succeeded in this role.
    has_fetched: bool,
    /// The leader's high watermark, to be taken over once what came with it is durable.
    high_watermark: i64,
    downloading: Option<Position>,
}

/// What a replica is doing, for logs, metrics and DescribeQuorum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RoleName {
    Unattached,
    Follower,
    Prospective,
    Candidate,
    Leader,
    Resigned,
    Observer,
}

#[derive(Debug)]
pub struct Machine {
    config: Config,
    chance: u64,
    state: QuorumState,
    /// The leader of `state.epoch`, once known. Never changes within an epoch.
    leader: Option<i32>,
    role: Role,
    log: LogView,
    high_watermark: i64,
    exchanges: BTreeMap<(i32, Lane), Exchange>,
    next_id: u64,
    joining: Option<Joining>,
    probe_at: Instant,
    probes: u64,
    actions: Vec<Action>,
}

impl Machine {
    /// A replica that starts with what its disk holds: `state` is `None` if it never stored one. The actions are to be
    /// executed before any other.
    pub fn start(now: Instant, config: Config, state: Option<QuorumState>, log: LogView) -> (Self, Vec<Action>) {
        assert!(!config.voters.is_empty(), "a quorum has a voter");
        let is_voter = config.voters.contains(&config.me.id);
        let mut state = state.unwrap_or_default();
        if state.epoch < log.end().epoch {
            // Only a log from before there was a quorum state: of an only voter.
            state = QuorumState { epoch: log.end().epoch, voted: None, ..state };
        }
        let mut machine = Self {
            chance: config.chance,
            role: Role::Unattached { election: None },
            leader: None,
            joining: (is_voter && !state.voting).then(|| Joining::new(&config)),
            high_watermark: log.snapshot().map_or(0, |s| s.offset),
            exchanges: BTreeMap::new(),
            next_id: 0,
            probe_at: now,
            probes: 0,
            actions: Vec::new(),
            state,
            log,
            config,
        };
        if machine.stands() {
            machine.begin_waiting(now);
        } else {
            machine.joined_if_all_are_heard(now);
        }
        let actions = machine.finish(now);
        (machine, actions)
    }

    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Action> {
        match input {
            Input::Tick => {}
            Input::Request { token, request } => self.on_request(now, token, request),
            Input::Answer { from, id, answer } => self.on_answer(now, from, id, answer),
            Input::Failed { to, id } => {
                if let Some((lane, kind)) = self.take_in_flight(to, id) {
                    self.back_off(now, to, lane);
                    if kind == Kind::Probe {
                        self.probe_at = now + self.config.retry_backoff * 2;
                    }
                }
            }
            Input::Append { batch, records } => self.on_append(now, batch, records),
            Input::Flushed { end } => self.on_flushed(now, end),
            Input::Resign => self.hand_over(now),
            Input::Snapshotted { at } => self.log.snapshotted(at),
            Input::Prefix { start } => self.log.delete_before(start),
            Input::Heard { replica } => self.heard_from(now, replica),
            Input::SnapshotProgress => self.on_snapshot_progress(now),
            Input::SnapshotFetched { at } => self.on_snapshot_fetched(now, at),
            Input::SnapshotFailed => self.on_snapshot_failed(now),
        }
        self.finish(now)
    }

    /// When [`Input::Tick`] is due next, if nothing else happens before.
    pub fn next_timeout(&self) -> Option<Instant> {
        let role = match &self.role {
            Role::Unattached { election } => *election,
            Role::Follower(following) => Some(following.deadline),
            Role::Prospective { deadline, .. } | Role::Candidate { deadline, .. } | Role::Resigned { deadline, .. } => {
                Some(*deadline)
            }
            Role::Leader(leading) => self.leader_timeout(leading),
        };
        let wanted = self.wanted().into_iter().filter_map(|(to, lane, kind)| {
            let exchange = self.exchanges.get(&(to, lane));
            match exchange {
                Some(e) if e.in_flight.is_some() => None,
                Some(e) => e.not_before.max(self.wanted_at(kind, to)),
                None => self.wanted_at(kind, to),
            }
        });
        role.into_iter().chain(wanted).min()
    }

    pub fn epoch(&self) -> i32 {
        self.state.epoch
    }

    /// The leader of the present epoch. One that resigned is none.
    pub fn leader(&self) -> Option<i32> {
        self.leader.filter(|l| *l != self.config.me.id || matches!(self.role, Role::Leader(_)))
    }

    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    pub fn log(&self) -> &LogView {
        &self.log
    }

    pub fn state(&self) -> QuorumState {
        self.state
    }

    pub fn role(&self) -> RoleName {
        match &self.role {
            _ if !self.is_voter() => RoleName::Observer,
            Role::Unattached { .. } => RoleName::Unattached,
            Role::Follower(_) => RoleName::Follower,
            Role::Prospective { .. } => RoleName::Prospective,
            Role::Candidate { .. } => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
            Role::Resigned { .. } => RoleName::Resigned,
        }
    }

    /// The offset of the leader-change record of the epoch that this replica leads.
    pub fn leading_from(&self) -> Option<i64> {
        if let Role::Leader(leading) = &self.role { Some(leading.epoch_start) } else { None }
    }

    fn is_voter(&self) -> bool {
        self.config.voters.contains(&self.config.me.id)
    }

    fn majority(&self) -> usize {
        self.config.voters.len() / 2 + 1
    }

    fn others(&self) -> impl Iterator<Item = i32> + use<> {
        let me = self.config.me.id;
        self.config.voters.clone().into_iter().filter(move |v| *v != me)
    }

    fn header(&self, error: ErrorCode) -> Header {
        Header { error, epoch: self.state.epoch, leader: self.leader() }
    }

    fn on_request(&mut self, now: Instant, token: Token, request: Request) {
        match request {
            Request::Vote(vote) => self.on_vote(now, token, &vote),
            Request::Begin { epoch, leader } => self.on_begin(now, token, epoch, leader),
            Request::End { epoch, leader, successors } => self.on_end(now, token, epoch, leader, &successors),
            Request::Fetch(fetch) => self.on_fetch(now, token, fetch),
        }
    }

    fn on_answer(&mut self, now: Instant, from: i32, id: RequestId, answer: Answer) {
        let in_flight = self.take_in_flight(from, id);
        let header = answer.header();
        // Whatever it answers, it may know of a later epoch.
        self.observe(now, header.epoch, header.leader);
        let Some((lane, kind)) = in_flight else { return };
        if let Some(exchange) = self.exchanges.get_mut(&(from, lane)) {
            (exchange.failures, exchange.not_before) = (0, None);
        }
        match (kind, answer) {
            (Kind::Poll, Answer::Vote { header, .. }) => self.on_polled(now, from, header),
            (Kind::PreVote | Kind::Vote, Answer::Vote { header, granted }) => {
                self.on_vote_answer(now, from, kind, header, granted);
            }
            (Kind::Begin, Answer::Begin { .. }) => self.on_begun(now, from),
            (Kind::End, Answer::End { .. }) => self.on_ended(from),
            (Kind::Fetch, Answer::Fetch { header, high_watermark, fetched }) => {
                self.on_fetched(now, from, id, header, high_watermark, fetched);
            }
            (Kind::Probe, Answer::Fetch { .. }) => self.probe_at = now + self.config.retry_backoff * 2,
            _ => self.back_off(now, from, lane),
        }
    }

    /// Takes notice that `epoch` exists and, maybe, who leads it.
    fn observe(&mut self, now: Instant, epoch: i32, leader: Option<i32>) {
        let leader = leader.filter(|l| self.config.voters.contains(l));
        if epoch < self.state.epoch {
            return;
        }
        if epoch > self.state.epoch {
            self.state = QuorumState { epoch, voted: None, ..self.state };
            self.actions.push(Action::Store(self.state));
            self.leader = None;
            self.leave_role(now);
            // Whoever waits for an election goes on waiting as long as it did.
            let election = match &self.role {
                Role::Unattached { election: Some(at) }
                | Role::Prospective { deadline: at, .. }
                | Role::Candidate { deadline: at, .. } => Some(*at),
                _ => None,
            };
            let fresh = self.stands().then(|| self.election_deadline(now));
            self.role = Role::Unattached { election: election.or(fresh) };
            self.actions.push(Action::LeaderChanged { epoch, leader: None });
        }
        let Some(leader) = leader else { return };
        // An epoch has one leader, so whoever names another is no voter of this quorum. And a former leader of this
        // epoch, restarted, hears of itself.
        if !self.may_lead(epoch, leader) || leader == self.config.me.id {
            return;
        }
        let news = self.leader.is_none();
        // A prospect that is told of the leader it cannot reach goes on: only the leader itself makes it follow again.
        // Else two followers of a dead leader would keep each other from electing another for ever.
        if news || matches!(self.role, Role::Unattached { .. }) {
            self.leave_role(now);
            self.follow(now, leader);
        }
        if news {
            self.leader = Some(leader);
            self.actions.push(Action::LeaderChanged { epoch, leader: Some(leader) });
        }
    }

    /// Whether nothing is known against `leader` leading `epoch`.
    fn may_lead(&self, epoch: i32, leader: i32) -> bool {
        self.config.voters.contains(&leader)
            && (epoch != self.state.epoch || self.leader.is_none_or(|known| known == leader))
    }

    /// Forgets what the present role asked of others.
    fn leave_role(&mut self, now: Instant) {
        self.exchanges.clear();
        self.probe_at = now;
        self.stop_leading();
    }

    fn follow(&mut self, now: Instant, leader: i32) {
        self.role = Role::Follower(Following {
            leader,
            deadline: now + self.config.fetch_timeout,
            has_fetched: false,
            high_watermark: 0,
            downloading: None,
        });
    }

    /// Whether this replica may stand for election.
    fn stands(&self) -> bool {
        self.is_voter() && self.joining.is_none()
    }

    fn finish(&mut self, now: Instant) -> Vec<Action> {
        self.expire(now);
        self.send_what_is_wanted(now);
        std::mem::take(&mut self.actions)
    }

    fn expire(&mut self, now: Instant) {
        // Each step waits for something later, so this ends.
        loop {
            match &self.role {
                Role::Unattached { election: Some(at) } if *at <= now => self.prospect(now),
                Role::Follower(following) if following.deadline <= now => {
                    if self.stands() {
                        self.prospect(now);
                    } else {
                        self.leave_role(now);
                        self.role = Role::Unattached { election: None };
                    }
                }
                Role::Prospective { deadline, .. } if *deadline <= now => self.give_up_prospect(now),
                Role::Candidate { deadline, .. } if *deadline <= now => self.prospect(now),
                Role::Resigned { deadline, .. } if *deadline <= now => self.prospect(now),
                Role::Leader(_) if self.lost_its_majority(now) => self.resign(now, Vec::new()),
                _ => break,
            }
        }
        self.expire_fetches(now);
    }

    /// Uniform in `low..2 * low`.
    fn between_one_and_two(&mut self, low: Duration) -> Duration {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let nanos = u64::try_from(low.as_nanos()).unwrap_or(u64::MAX / 2).max(1);
        low + Duration::from_nanos(mix(self.chance) % nanos)
    }
}

/// SplitMix64's finaliser.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Answers a fetch with nothing but the outcome.
fn fetch_error(header: Header) -> Answer {
    Answer::Fetch { header, high_watermark: -1, fetched: Fetched::Batches(Batches::default()) }
}
