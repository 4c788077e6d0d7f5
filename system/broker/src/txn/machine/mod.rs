//! The transaction coordinator of one partition of `__transaction_state`, as a pure machine.
//!
//! Guarantees: no answer and no marker leaves before the state it speaks of is durable; a transaction has one outcome;
//! a producer whose epoch was passed can change nothing. Left to others: the log, the markers' way to their partitions,
//! producer ids, the clock.
//!
//! | file | one line |
//! |--|--|
//! | `messages` | inputs and actions |
//! | `decide` | what a request does |
//! | `entry` | one transactional id, and its change on the way to the log |
//!
//! At most one change of a transactional id is on its way to the log. Requests that only want to join the transaction
//! wait for it, others are answered CONCURRENT_TRANSACTIONS and come again.
//!
//! ```text
//!  request ---> Persist(target) ---> Persisted ---> Reply
//!                                         '---> (Prepare*) WriteMarkers ---> MarkersWritten ---> Persist(Complete*)
//! ```

mod decide;
mod entry;
#[cfg(test)]
mod failover_tests;
mod messages;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use env::clock::Instant;
use protocol::ErrorCode;

pub use messages::{Action, Config, Input, Now, Reply, Request, RequestId, Token};

use super::state::{ProducerIdEpoch, State, Txn};
use decide::Decision;
use entry::{After, Entry};

/// Requests of one transactional id that may wait for its change on the way to the log.
const MAX_WAITING: usize = 64;
/// After a try to forget an id that was refused.
const FORGET_AGAIN: Duration = Duration::from_secs(1);

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

    /// The durable state of an id.
    pub fn txn(&self, transactional_id: &str) -> Option<&Txn> {
        self.entries.get(transactional_id).filter(|e| !e.is_new()).map(|e| &e.txn)
    }

    /// The durable state of each id, in the order of ids.
    pub fn txns(&self) -> impl Iterator<Item = (&String, &Txn)> {
        self.entries.iter().filter(|(_, e)| !e.is_new()).map(|(id, e)| (id, &e.txn))
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
            let mut entry = Entry::new(txn, deadline);
            entry.expires = self.expires(now, &entry.txn);
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
        let idle = self.entries.values().filter(|e| e.change.is_none());
        idle.filter_map(|e| e.deadline.into_iter().chain(e.expires).min()).min()
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
                // A new one is never seen by anybody: requests meanwhile find the change and come again.
                let fresh = || Entry::new(target.clone(), None);
                let entry = self.entries.entry(transactional_id.clone()).or_insert_with(fresh);
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

    /// When an id in this state is forgotten. The wall clock may have stepped: never later than a whole expiration.
    fn expires(&self, now: Now, txn: &Txn) -> Option<Instant> {
        let idle = matches!(txn.state, State::Empty | State::CompleteCommit | State::CompleteAbort);
        let gone = now.wall_ms.saturating_sub(txn.last_update_ms).clamp(0, self.config.expiration_ms);
        idle.then(|| now.instant + ms(self.config.expiration_ms - gone))
    }

    fn persisted(&mut self, now: Now, transactional_id: String, token: Token) -> Vec<Action> {
        let next = self.token();
        let of = |e: &Entry| e.change.as_ref().filter(|c| c.token == token).map(|c| (c.forgets, c.target.clone()));
        let expires = match self.entries.get(&transactional_id).and_then(of) {
            Some((true, _)) => {
                self.entries.remove(&transactional_id);
                return Vec::new();
            }
            Some((false, target)) => self.expires(now, &target),
            None => None,
        };
        let Some(entry) = self.entries.get_mut(&transactional_id) else { return Vec::new() };
        let Some(change) = entry.change.take_if(|c| c.token == token) else { return Vec::new() };
        let before = entry.txn.client();
        let started = change.target.state == State::Ongoing && entry.txn.state != State::Ongoing;
        entry.txn = change.target;
        entry.expires = expires;
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
        if change.forgets {
            entry.expires = Some(now.instant + FORGET_AGAIN);
            return Vec::new();
        }
        let mut actions = Vec::new();
        if let After::Reply(id, _) = change.after {
            actions.push(Action::Reply { id, reply: Reply::Error(error) });
        }
        if entry.txn.state.is_prepare() {
            // All markers are written, and the end of a decided transaction is owed.
            let target = entry.txn.completed(now.wall_ms);
            actions.push(entry.change_to(&transactional_id, next, target, After::Nothing));
        } else if entry.txn == change.target {
            // The first record of a new id, see `Entry::is_new`.
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
        let expired =
            |e: &Entry| e.change.is_none() && e.marking.is_none() && e.expires.is_some_and(|at| at <= now.instant);
        let idle: Vec<String> = self.entries.iter().filter(|(_, e)| expired(e)).map(|(id, _)| id.clone()).collect();
        for transactional_id in idle {
            let token = self.token();
            env::sometimes!(true, "a transactional id expires");
            let entry = self.entries.get_mut(&transactional_id);
            actions.extend(entry.map(|entry| entry.forget(&transactional_id, token)));
        }
        actions
    }
}

fn ms(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
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
