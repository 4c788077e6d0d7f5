//! The transaction coordinator of one partition of `__transaction_state`, as a pure machine.
//!
//! Guarantees: no answer and no marker leaves before the state it speaks of is durable; a transaction has one outcome;
//! a producer whose epoch was passed can change nothing. Left to others: the log, the markers' way to their partitions,
//! producer ids, the clock.
//!
//! At most one change of a transactional id is on its way to the log. Requests that only want to join the transaction
//! wait for it, others are answered CONCURRENT_TRANSACTIONS and come again.
//!
//! ```text
//!  request ---> Persist(target) ---> Persisted ---> Reply
//!                                         '---> (Prepare*) WriteMarkers ---> MarkersWritten ---> Persist(Complete*)
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use env::clock::Instant;
use protocol::ErrorCode;

use super::state::{NO_TIMEOUT_MS, ProducerIdEpoch, State, TopicPartition, Txn};

/// Requests of one transactional id that may wait for its change on the way to the log.
const MAX_WAITING: usize = 64;

/// Names a request until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Names one change of one transactional id, from its decision to its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// Both clocks of the node: time-outs run on the monotonic one, records carry the wall clock's.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub instant: Instant,
    pub wall_ms: i64,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub max_timeout_ms: i32,
    pub two_phase_commit: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    InitProducerId {
        timeout_ms: i32,
        /// What the client held before, if it says so (v3 and later).
        expected: Option<ProducerIdEpoch>,
        two_phase: bool,
        keep_prepared: bool,
    },
    /// Join partitions to the transaction, or ask whether they are in it.
    AddPartitions {
        producer: ProducerIdEpoch,
        partitions: Vec<TopicPartition>,
        verify_only: bool,
        /// The client gets a new epoch at each EndTxn.
        bumps: bool,
    },
    EndTxn {
        producer: ProducerIdEpoch,
        commit: bool,
        bumps: bool,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Initialized {
        producer: ProducerIdEpoch,
        ongoing: Option<ProducerIdEpoch>,
    },
    Added,
    /// The transaction is decided; the client goes on as `producer`.
    Ended {
        producer: ProducerIdEpoch,
    },
    Error(ErrorCode),
}

#[derive(Clone, Debug)]
pub enum Input {
    Request {
        id: RequestId,
        transactional_id: String,
        request: Request,
        /// A producer id that nobody has, if one was asked for by [`Action::AllocateProducerId`].
        fresh: Option<i64>,
    },
    /// The record of this change is durable.
    Persisted {
        transactional_id: String,
        token: Token,
    },
    /// The record of this change is certainly not in the log.
    NotPersisted {
        transactional_id: String,
        token: Token,
        error: ErrorCode,
    },
    MarkersWritten {
        transactional_id: String,
        token: Token,
    },
    /// Time passed.
    Tick,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Append this state to the log.
    Persist {
        transactional_id: String,
        token: Token,
        txn: Txn,
    },
    WriteMarkers {
        transactional_id: String,
        token: Token,
        producer: ProducerIdEpoch,
        commit: bool,
        partitions: Vec<TopicPartition>,
    },
    Reply {
        id: RequestId,
        reply: Reply,
    },
    /// Submit the same request again with a fresh producer id.
    AllocateProducerId {
        id: RequestId,
        transactional_id: String,
        request: Request,
    },
}

#[derive(Debug)]
enum After {
    Reply(RequestId, Reply),
    /// A time-out or a fencing InitProducerId decided it: nobody waits.
    Nothing,
}

#[derive(Debug)]
struct Change {
    token: Token,
    target: Txn,
    after: After,
    /// Another instance took the id over: the holder of the identity before is not to learn the new one.
    fences: bool,
    /// Joining requests that came meanwhile.
    waiting: VecDeque<(RequestId, Request)>,
}

#[derive(Debug)]
struct Entry {
    txn: Txn,
    /// The identity before the last bump by InitProducerId or EndTxn: its holder may ask again for the new one.
    last: Option<ProducerIdEpoch>,
    /// When the ongoing transaction times out.
    deadline: Option<Instant>,
    change: Option<Change>,
    /// The change whose markers are being written.
    marking: Option<Token>,
}

#[derive(Debug)]
pub struct Machine {
    config: Config,
    entries: BTreeMap<String, Entry>,
    next_token: u64,
}

impl Machine {
    /// `first_token` is above every token of an earlier machine of the same partition.
    pub fn new(config: Config, first_token: u64) -> Self {
        Self { config, entries: BTreeMap::new(), next_token: first_token }
    }

    pub fn next_token(&self) -> u64 {
        self.next_token
    }

    pub fn txn(&self, transactional_id: &str) -> Option<&Txn> {
        self.entries.get(transactional_id).map(|e| &e.txn)
    }

    /// Takes over what the log replayed to: decided transactions are finished, ongoing ones keep the rest of their
    /// time-out.
    pub fn load(&mut self, now: Now, replayed: BTreeMap<String, Txn>) -> Vec<Action> {
        let mut actions = Vec::new();
        for (transactional_id, txn) in replayed {
            let deadline = (txn.state == State::Ongoing && txn.has_timeout()).then(|| {
                // The wall clock may have stepped: never wait longer than a whole time-out.
                let gone = now.wall_ms.saturating_sub(txn.start_ms).clamp(0, txn.timeout_ms.into());
                now.instant + ms(i64::from(txn.timeout_ms) - gone)
            });
            let (token, next) = (self.token(), self.token());
            let mut entry = Entry { txn, last: None, deadline, change: None, marking: None };
            env::sometimes!(entry.txn.state.is_prepare(), "a decided transaction is finished after a restart");
            if entry.txn.state.is_prepare() {
                actions.extend(entry.finish(now, &transactional_id, token, next));
            }
            self.entries.insert(transactional_id, entry);
        }
        actions
    }

    /// When [`Input::Tick`] is wanted next.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.entries.values().filter(|e| e.change.is_none()).filter_map(|e| e.deadline).min()
    }

    /// Whether these partitions are in the ongoing transaction of `producer`, and no change of it is on its way that
    /// could end it.
    pub fn is_ongoing<'a>(
        &self,
        transactional_id: &str,
        producer: ProducerIdEpoch,
        mut partitions: impl Iterator<Item = &'a TopicPartition>,
    ) -> bool {
        self.entries.get(transactional_id).is_some_and(|e| {
            e.txn.state == State::Ongoing
                && e.txn.client() == producer
                && !e.txn.is_kept()
                && e.change.as_ref().is_none_or(|c| c.target.state == State::Ongoing)
                && partitions.all(|p| e.txn.partitions.contains(p))
        })
    }

    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Action> {
        match input {
            Input::Request { id, transactional_id, request, fresh } => {
                self.request(now, id, transactional_id, request, fresh)
            }
            Input::Persisted { transactional_id, token } => self.persisted(now, transactional_id, token),
            Input::NotPersisted { transactional_id, token, error } => {
                self.not_persisted(now, transactional_id, token, error)
            }
            Input::MarkersWritten { transactional_id, token } => {
                let next = self.token();
                match self.entries.get_mut(&transactional_id) {
                    Some(entry) if entry.marking == Some(token) => {
                        entry.marking = None;
                        let target = entry.txn.completed(now.wall_ms);
                        vec![entry.change_to(&transactional_id, next, target, After::Nothing)]
                    }
                    _ => Vec::new(),
                }
            }
            Input::Tick => self.tick(now),
        }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    fn request(
        &mut self,
        now: Now,
        id: RequestId,
        transactional_id: String,
        request: Request,
        fresh: Option<i64>,
    ) -> Vec<Action> {
        let token = self.token();
        let takes_over = matches!(request, Request::InitProducerId { expected: None, .. });
        let decided = match self.entries.get_mut(&transactional_id) {
            None => match &request {
                Request::InitProducerId { .. } => self.first_init(now, &request, fresh),
                // Kafka's answer to a producer whose id this coordinator does not know.
                _ => Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING),
            },
            Some(entry) => {
                if let Some(change) = &mut entry.change {
                    let joining = change.target.state == State::Ongoing && change.target.next.is_none();
                    if joining
                        && !matches!(request, Request::InitProducerId { .. })
                        && change.waiting.len() < MAX_WAITING
                    {
                        change.waiting.push_back((id, request));
                        return Vec::new();
                    }
                }
                entry.decide(now, &self.config, &request, fresh)
            }
        };
        match decided {
            Err(error) => vec![Action::Reply { id, reply: Reply::Error(error) }],
            Ok(Decision::Answer(reply)) => vec![Action::Reply { id, reply }],
            Ok(Decision::Allocate) => vec![Action::AllocateProducerId { id, transactional_id, request }],
            Ok(Decision::Change(target, reply)) => {
                let entry = self.entries.entry(transactional_id.clone()).or_insert_with(|| Entry {
                    // Never seen by anybody: requests meanwhile find the change and come again.
                    txn: target.clone(),
                    last: None,
                    deadline: None,
                    change: None,
                    marking: None,
                });
                let persist = entry.change_to(&transactional_id, token, target, After::Reply(id, reply));
                entry.fence(takes_over);
                vec![persist]
            }
            Ok(Decision::Fence(target)) => {
                let Some(entry) = self.entries.get_mut(&transactional_id) else { return Vec::new() };
                let persist = entry.change_to(&transactional_id, token, target, After::Nothing);
                entry.fence(takes_over);
                let reply = Reply::Error(ErrorCode::CONCURRENT_TRANSACTIONS);
                vec![persist, Action::Reply { id, reply }]
            }
        }
    }

    fn first_init(&self, now: Now, request: &Request, fresh: Option<i64>) -> Result<Decision, ErrorCode> {
        let Request::InitProducerId { timeout_ms, two_phase, keep_prepared, .. } = request else {
            return Err(ErrorCode::INVALID_REQUEST);
        };
        let timeout_ms = self.config.check_timeout(*timeout_ms, *two_phase, *keep_prepared)?;
        let Some(fresh) = fresh else { return Ok(Decision::Allocate) };
        let producer = ProducerIdEpoch::new(fresh, 0);
        let reply = Reply::Initialized { producer, ongoing: None };
        Ok(Decision::Change(Txn::new(producer, timeout_ms, now.wall_ms), reply))
    }

    fn persisted(&mut self, now: Now, transactional_id: String, token: Token) -> Vec<Action> {
        let next = self.token();
        let Some(entry) = self.entries.get_mut(&transactional_id) else { return Vec::new() };
        let Some(change) = entry.change.take_if(|c| c.token == token) else { return Vec::new() };
        let before = entry.txn.client();
        let started = change.target.state == State::Ongoing && entry.txn.state != State::Ongoing;
        entry.txn = change.target;
        if entry.txn.client() != before {
            entry.last = (!change.fences).then_some(before);
        }
        if started {
            entry.deadline = entry.txn.has_timeout().then(|| now.instant + ms(entry.txn.timeout_ms.into()));
        } else if entry.txn.state != State::Ongoing || !entry.txn.has_timeout() {
            entry.deadline = None;
        }
        let mut actions = Vec::new();
        if let After::Reply(id, reply) = change.after {
            actions.push(Action::Reply { id, reply });
        }
        if entry.txn.state.is_prepare() {
            actions.extend(entry.finish(now, &transactional_id, token, next));
        }
        for (id, request) in change.waiting {
            actions.extend(self.request(now, id, transactional_id.clone(), request, None));
        }
        actions
    }

    fn not_persisted(&mut self, now: Now, transactional_id: String, token: Token, error: ErrorCode) -> Vec<Action> {
        let next = self.token();
        let Some(entry) = self.entries.get_mut(&transactional_id) else { return Vec::new() };
        let Some(change) = entry.change.take_if(|c| c.token == token) else { return Vec::new() };
        let mut actions = Vec::new();
        if let After::Reply(id, _) = change.after {
            actions.push(Action::Reply { id, reply: Reply::Error(error) });
        }
        if entry.txn.state.is_prepare() {
            // The end of a decided transaction is owed: write its markers again, then its record.
            actions.extend(entry.finish(now, &transactional_id, token, next));
        } else if entry.txn == change.target {
            // The first record of a new id.
            self.entries.remove(&transactional_id);
        }
        for (id, request) in change.waiting {
            actions.extend(self.request(now, id, transactional_id.clone(), request, None));
        }
        actions
    }

    /// Aborts what is past its time-out, under a new epoch: a producer that only paused must not go on in the same one
    /// (KAFKA-6119).
    fn tick(&mut self, now: Now) -> Vec<Action> {
        let due: Vec<String> = self
            .entries
            .iter()
            .filter(|(_, e)| e.change.is_none() && e.deadline.is_some_and(|d| d <= now.instant))
            .map(|(id, _)| id.clone())
            .collect();
        let mut actions = Vec::new();
        for transactional_id in due {
            let token = self.token();
            let Some(entry) = self.entries.get_mut(&transactional_id) else { continue };
            env::sometimes!(true, "a transaction times out");
            let target = entry.txn.prepared(false, entry.txn.client().bumped(), now.wall_ms);
            actions.push(entry.change_to(&transactional_id, token, target, After::Nothing));
        }
        actions
    }
}

impl Config {
    /// The time-out to store.
    fn check_timeout(&self, timeout_ms: i32, two_phase: bool, keep_prepared: bool) -> Result<i32, ErrorCode> {
        if two_phase {
            if self.two_phase_commit {
                Ok(NO_TIMEOUT_MS)
            } else {
                Err(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
            }
        } else if keep_prepared {
            Err(ErrorCode::INVALID_TXN_STATE)
        } else if timeout_ms <= 0 || timeout_ms > self.max_timeout_ms {
            Err(ErrorCode::INVALID_TRANSACTION_TIMEOUT)
        } else {
            Ok(timeout_ms)
        }
    }
}

enum Decision {
    Answer(Reply),
    Allocate,
    Change(Txn, Reply),
    /// Abort the ongoing transaction under a new epoch; the client comes again.
    Fence(Txn),
}

fn ms(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

impl Entry {
    fn change_to(&mut self, transactional_id: &str, token: Token, target: Txn, after: After) -> Action {
        assert!(self.change.is_none(), "two changes of {transactional_id} at a time");
        let txn = target.clone();
        self.change = Some(Change { token, target, after, fences: false, waiting: VecDeque::new() });
        Action::Persist { transactional_id: transactional_id.to_owned(), token, txn }
    }

    fn fence(&mut self, fences: bool) {
        if let Some(change) = &mut self.change {
            change.fences = fences;
        }
    }

    /// What follows a durable decision.
    fn finish(&mut self, now: Now, transactional_id: &str, token: Token, next: Token) -> Vec<Action> {
        if self.txn.partitions.is_empty() {
            let target = self.txn.completed(now.wall_ms);
            return vec![self.change_to(transactional_id, next, target, After::Nothing)];
        }
        self.marking = Some(token);
        vec![Action::WriteMarkers {
            transactional_id: transactional_id.to_owned(),
            token,
            producer: self.txn.producer,
            commit: self.txn.state == State::PrepareCommit,
            partitions: self.txn.partitions.iter().cloned().collect(),
        }]
    }

    fn decide(&self, now: Now, config: &Config, request: &Request, fresh: Option<i64>) -> Result<Decision, ErrorCode> {
        match request {
            Request::InitProducerId { timeout_ms, expected, two_phase, keep_prepared } => {
                let timeout_ms = config.check_timeout(*timeout_ms, *two_phase, *keep_prepared)?;
                self.init(now, timeout_ms, *expected, *keep_prepared, fresh)
            }
            Request::AddPartitions { producer, partitions, verify_only, bumps } => {
                self.add(now, *producer, partitions, *verify_only, *bumps)
            }
            Request::EndTxn { producer, commit, bumps } => self.end(now, *producer, *commit, *bumps, fresh),
        }
    }

    fn init(
        &self,
        now: Now,
        timeout_ms: i32,
        expected: Option<ProducerIdEpoch>,
        keep_prepared: bool,
        fresh: Option<i64>,
    ) -> Result<Decision, ErrorCode> {
        if self.change.is_some() || self.txn.state.is_prepare() {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        let client = self.txn.client();
        let kept = self.txn.is_kept().then_some(self.txn.producer);
        if let Some(id) = expected
            && id != client
        {
            // It was given the new identity and lost the answer; nobody can have used it since.
            let unused = self.txn.state != State::Ongoing || (kept.is_some() && keep_prepared);
            if Some(id) != self.last || !unused || client.epoch == i16::MAX {
                return Err(ErrorCode::PRODUCER_FENCED);
            }
            env::sometimes!(true, "InitProducerId is repeated after a lost answer");
            return Ok(Decision::Answer(Reply::Initialized { producer: client, ongoing: kept }));
        }
        if self.txn.state == State::Ongoing && !keep_prepared {
            let target = self.txn.prepared(false, client.bumped(), now.wall_ms);
            return Ok(Decision::Fence(target));
        }
        let next = match (client.is_exhausted(), fresh) {
            (false, _) => client.bumped(),
            (true, None) => return Ok(Decision::Allocate),
            (true, Some(id)) => ProducerIdEpoch::new(id, 0),
        };
        let mut target = Txn { timeout_ms, last_update_ms: now.wall_ms, ..self.txn.clone() };
        let ongoing = if self.txn.state == State::Ongoing {
            env::sometimes!(true, "a prepared transaction is kept over InitProducerId");
            target.next = Some(next);
            Some(self.txn.producer)
        } else {
            target.state = State::Empty;
            target.producer = next;
            target.previous_producer_id = -1;
            None
        };
        Ok(Decision::Change(target, Reply::Initialized { producer: next, ongoing }))
    }

    fn add(
        &self,
        now: Now,
        producer: ProducerIdEpoch,
        partitions: &[TopicPartition],
        verify_only: bool,
        bumps: bool,
    ) -> Result<Decision, ErrorCode> {
        let client = self.txn.client();
        if producer.producer_id != client.producer_id {
            return Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING);
        }
        if producer.epoch != client.epoch {
            return Err(ErrorCode::PRODUCER_FENCED);
        }
        if self.change.is_some() || self.txn.state.is_prepare() {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        if self.txn.is_kept() || client.epoch == i16::MAX {
            return Err(if client.epoch == i16::MAX {
                ErrorCode::PRODUCER_FENCED
            } else {
                ErrorCode::INVALID_TXN_STATE
            });
        }
        let ongoing = self.txn.state == State::Ongoing;
        if ongoing && partitions.iter().all(|p| self.txn.partitions.contains(p)) {
            return Ok(Decision::Answer(Reply::Added));
        }
        if verify_only {
            return Err(ErrorCode::TRANSACTION_ABORTABLE);
        }
        let mut target = self.txn.clone();
        if !ongoing {
            target.state = State::Ongoing;
            target.start_ms = now.wall_ms;
            target.previous_producer_id = -1;
            target.client_version = if bumps { 2 } else { 0 };
        }
        target.partitions.extend(partitions.iter().cloned());
        target.last_update_ms = now.wall_ms;
        Ok(Decision::Change(target, Reply::Added))
    }

    fn end(
        &self,
        now: Now,
        producer: ProducerIdEpoch,
        commit: bool,
        bumps: bool,
        fresh: Option<i64>,
    ) -> Result<Decision, ErrorCode> {
        let client = self.txn.client();
        let retry = bumps && self.txn.is_retry_of_end(producer);
        if producer != client && !retry {
            return Err(if producer.producer_id == client.producer_id {
                ErrorCode::PRODUCER_FENCED
            } else {
                ErrorCode::INVALID_PRODUCER_ID_MAPPING
            });
        }
        if self.change.is_some() {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        // A repeated EndTxn, its first answer lost.
        if retry {
            env::sometimes!(true, "EndTxn is repeated after a lost answer");
            return match self.txn.state.outcome() {
                // A later transaction, or a later holder of the id: nothing here is this request's to end.
                None => Err(ErrorCode::PRODUCER_FENCED),
                // The last epoch is no client's: it must ask for a new producer id.
                Some(_) if client.epoch == i16::MAX => Err(ErrorCode::PRODUCER_FENCED),
                Some(outcome) if outcome != commit => Err(ErrorCode::INVALID_TXN_STATE),
                Some(_) if self.txn.state.is_prepare() => Err(ErrorCode::CONCURRENT_TRANSACTIONS),
                Some(_) => Ok(Decision::Answer(Reply::Ended { producer: client })),
            };
        }
        match self.txn.state {
            State::PrepareCommit | State::PrepareAbort if bumps => Err(ErrorCode::CONCURRENT_TRANSACTIONS),
            State::PrepareCommit if commit => Err(ErrorCode::CONCURRENT_TRANSACTIONS),
            State::PrepareAbort if !commit => Err(ErrorCode::CONCURRENT_TRANSACTIONS),
            State::PrepareCommit | State::PrepareAbort => Err(ErrorCode::INVALID_TXN_STATE),
            // Without a new epoch per transaction a repeat looks like this.
            State::CompleteCommit if commit && !bumps => Ok(Decision::Answer(Reply::Ended { producer: client })),
            State::CompleteAbort if !commit && !bumps => Ok(Decision::Answer(Reply::Ended { producer: client })),
            // A client that cannot know whether its first produce arrived aborts: it gets a new epoch, so that a late
            // produce cannot open a transaction (KIP-890).
            State::Empty | State::CompleteCommit | State::CompleteAbort if !bumps || commit => {
                Err(ErrorCode::INVALID_TXN_STATE)
            }
            State::Ongoing | State::Empty | State::CompleteCommit | State::CompleteAbort => {
                let after = match (bumps, client.is_exhausted(), fresh) {
                    (false, ..) => client,
                    (true, false, _) => client.bumped(),
                    (true, true, None) => return Ok(Decision::Allocate),
                    (true, true, Some(id)) => {
                        env::sometimes!(true, "a producer's epochs are exhausted");
                        ProducerIdEpoch::new(id, 0)
                    }
                };
                let mut target = self.txn.prepared(commit, after, now.wall_ms);
                if bumps {
                    target.client_version = 2;
                }
                Ok(Decision::Change(target, Reply::Ended { producer: after }))
            }
        }
    }
}

/// The last state of each transactional id, from records in log order; null forgets the id.
pub fn replay(records: impl IntoIterator<Item = (String, Option<Txn>)>) -> BTreeMap<String, Txn> {
    let mut state = BTreeMap::new();
    for (id, txn) in records {
        match txn {
            Some(txn) => state.insert(id, txn),
            None => state.remove(&id),
        };
    }
    state
}
