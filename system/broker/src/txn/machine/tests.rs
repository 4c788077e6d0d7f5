//! The coordinator alone, over a log in memory: rules one by one, then random histories with crashes at every point.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use env::clock::Instant;
use proptest::prelude::*;
use protocol::ErrorCode;

use super::{Action, Config, Input, Machine, Now, Reply, Request, RequestId, Token, replay};
use crate::txn::state::{MAX_CLIENT_EPOCH, ProducerIdEpoch, State, Txn};

const ID: &str = "job";
const EXPIRATION_MS: i64 = 1_000_000_000;

/// A marker, and what transaction it was for: the identity of its records.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Written {
    producer: ProducerIdEpoch,
    commit: bool,
}

/// A coordinator with its log. Persists and markers wait until they are let go.
struct Bed {
    machine: Machine,
    log: Vec<(String, Option<Txn>)>,
    queue: VecDeque<Action>,
    replies: BTreeMap<RequestId, Reply>,
    markers: Vec<Written>,
    next_request: u64,
    next_producer_id: i64,
    now_ms: i64,
}

impl Bed {
    fn new() -> Self {
        Self {
            machine: Machine::new(Self::config(), 0),
            log: Vec::new(),
            queue: VecDeque::new(),
            replies: BTreeMap::new(),
            markers: Vec::new(),
            next_request: 0,
            next_producer_id: 1000,
            now_ms: 0,
        }
    }

    fn config() -> Config {
        Config { max_timeout_ms: 60_000, two_phase_commit: true, expiration_ms: EXPIRATION_MS }
    }

    fn now(&self) -> Now {
        Now { instant: Instant::default() + Duration::from_millis(self.now_ms as u64), wall_ms: self.now_ms }
    }

    fn input(&mut self, input: Input) {
        let actions = self.machine.handle(self.now(), input);
        self.take(actions);
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Reply { id, reply } => {
                    assert!(self.replies.insert(id, reply).is_none(), "two answers to one request");
                }
                Action::AllocateProducerId { id, transactional_id, request } => {
                    self.next_producer_id += 1;
                    let fresh = Some(self.next_producer_id);
                    self.input(Input::Request { id, transactional_id, request, fresh });
                }
                action => self.queue.push_back(action),
            }
        }
    }

    /// Lets the oldest waiting action happen.
    fn step(&mut self) -> bool {
        match self.queue.pop_front() {
            None => return false,
            Some(Action::Persist { transactional_id, token, txn }) => {
                self.log.push((transactional_id.clone(), Some(txn)));
                self.input(Input::Persisted { transactional_id, token });
            }
            Some(Action::WriteMarkers { transactional_id, token, producer, commit, .. }) => {
                self.markers.push(Written { producer, commit });
                self.input(Input::MarkersWritten { transactional_id, token });
            }
            Some(Action::Forget { transactional_id, token }) => {
                self.log.push((transactional_id.clone(), None));
                self.input(Input::Persisted { transactional_id, token });
            }
            Some(other) => panic!("{other:?}"),
        }
        true
    }

    fn send(&mut self, request: Request) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.input(Input::Request { id, transactional_id: ID.into(), request, fresh: None });
        id
    }

    fn ask(&mut self, request: Request) -> Reply {
        let id = self.send(request);
        while self.step() {}
        self.replies.remove(&id).expect("answered")
    }

    fn crash(&mut self) {
        self.queue.clear();
        self.replies.clear();
        self.machine = Machine::new(Self::config(), 0);
        let actions = self.machine.load(self.now(), replay(self.log.clone()));
        self.take(actions);
    }

    fn init(&mut self) -> ProducerIdEpoch {
        match self.ask(init(None, false, false)) {
            Reply::Initialized { producer, .. } => producer,
            other => panic!("{other:?}"),
        }
    }

    fn state(&self) -> State {
        self.machine.txn(ID).expect("known").state
    }
}

#[test]
fn an_id_without_a_transaction_is_forgotten_after_a_while() {
    let mut bed = Bed::new();
    let producer = bed.init();
    bed.now_ms += EXPIRATION_MS - 1;
    bed.input(Input::Tick);
    assert!(bed.queue.is_empty());
    assert_eq!(bed.ask(add(producer, 0)), Reply::Added);
    let ongoing = bed.machine.txn(ID).cloned();
    assert_eq!(bed.machine.next_timeout(), Some(bed.now().instant + Duration::from_secs(1)), "its time-out only");
    let producer = ended(bed.ask(end(producer, true)));
    assert_ne!(bed.machine.txn(ID).cloned(), ongoing);
    bed.crash();
    bed.now_ms += EXPIRATION_MS;
    bed.input(Input::Tick);
    let Some(Action::Forget { transactional_id, token }) = bed.queue.pop_front() else { panic!("{:?}", bed.queue) };
    let error = ErrorCode::COORDINATOR_NOT_AVAILABLE;
    bed.input(Input::NotPersisted { transactional_id, token, error });
    assert!(bed.machine.txn(ID).is_some(), "until it is in the log");
    bed.now_ms += 1_000;
    bed.input(Input::Tick);
    while bed.step() {}
    assert_eq!(bed.machine.txn(ID), None);
    assert_eq!(replay(bed.log.clone()), BTreeMap::new());
    assert_eq!(bed.ask(add(producer, 0)), Reply::Error(ErrorCode::INVALID_PRODUCER_ID_MAPPING));
    bed.init();
}

fn init(expected: Option<ProducerIdEpoch>, two_phase: bool, keep_prepared: bool) -> Request {
    Request::InitProducerId { timeout_ms: 1000, expected, two_phase, keep_prepared }
}

fn add(producer: ProducerIdEpoch, partition: i32) -> Request {
    Request::AddPartitions { producer, partitions: vec![("t".into(), partition)], verify_only: false, bumps: true }
}

fn end(producer: ProducerIdEpoch, commit: bool) -> Request {
    Request::EndTxn { producer, commit, bumps: true }
}

fn ended(reply: Reply) -> ProducerIdEpoch {
    match reply {
        Reply::Ended { producer } => producer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_end_gives_a_new_epoch_and_its_repeat_the_same_answer() {
    let mut bed = Bed::new();
    let first = bed.init();
    assert_eq!(bed.ask(add(first, 0)), Reply::Added);
    let second = ended(bed.ask(end(first, true)));
    assert_eq!(second, first.bumped());
    assert_eq!(bed.markers, [Written { producer: second, commit: true }]);
    assert_eq!(bed.ask(end(first, true)), Reply::Ended { producer: second }, "the answer was lost");
    assert_eq!(bed.ask(end(first, false)), Reply::Error(ErrorCode::INVALID_TXN_STATE));
    assert_eq!(bed.markers.len(), 1);
    bed.crash();
    assert_eq!(bed.ask(end(first, true)), Reply::Ended { producer: second }, "also after a restart");
}

#[test]
fn a_delayed_end_never_touches_a_later_transaction() {
    let mut bed = Bed::new();
    let first = bed.init();
    bed.ask(add(first, 0));
    let second = ended(bed.ask(end(first, true)));
    bed.ask(add(second, 0));
    for commit in [true, false] {
        assert_eq!(bed.ask(end(first, commit)), Reply::Error(ErrorCode::PRODUCER_FENCED));
        assert_eq!(bed.state(), State::Ongoing);
    }
    let third = ended(bed.ask(end(second, false)));
    assert_eq!(bed.ask(end(first, true)), Reply::Error(ErrorCode::PRODUCER_FENCED));
    assert_eq!(bed.ask(end(third, false)), Reply::Ended { producer: third.bumped() }, "an empty abort bumps (KIP-890)");
    assert_eq!(bed.ask(end(third.bumped(), true)), Reply::Error(ErrorCode::INVALID_TXN_STATE));
}

#[test]
fn nothing_is_answered_or_marked_before_it_is_durable() {
    let mut bed = Bed::new();
    let producer = bed.init();
    let joined = bed.send(add(producer, 0));
    assert!(bed.replies.is_empty());
    bed.step();
    assert_eq!(bed.replies.remove(&joined), Some(Reply::Added));
    let done = bed.send(end(producer, true));
    assert!(bed.replies.is_empty() && bed.markers.is_empty());
    bed.step();
    assert!(bed.replies.contains_key(&done) && bed.markers.is_empty());
    assert_eq!(bed.ask(add(producer.bumped(), 0)), Reply::Error(ErrorCode::CONCURRENT_TRANSACTIONS));
}

#[test]
fn requests_that_join_wait_for_each_other() {
    let mut bed = Bed::new();
    let producer = bed.init();
    let joins: Vec<_> = (0..5).map(|p| bed.send(add(producer, p))).collect();
    let ends = bed.send(end(producer, true));
    while bed.step() {}
    assert!(joins.iter().all(|id| bed.replies[id] == Reply::Added));
    assert_eq!(bed.replies[&ends], Reply::Ended { producer: producer.bumped() });
}

#[test]
fn a_new_instance_aborts_and_fences_the_one_before() {
    let mut bed = Bed::new();
    let old = bed.init();
    bed.ask(add(old, 0));
    assert_eq!(bed.ask(init(None, false, false)), Reply::Error(ErrorCode::CONCURRENT_TRANSACTIONS));
    assert_eq!(bed.markers, [Written { producer: old.bumped(), commit: false }]);
    assert_eq!(bed.ask(init(Some(old), false, false)), Reply::Error(ErrorCode::PRODUCER_FENCED));
    let new = bed.init();
    assert_eq!(new.epoch, old.epoch + 2);
    for request in [add(old, 0), end(old, true), init(Some(old), false, false)] {
        assert_eq!(bed.ask(request), Reply::Error(ErrorCode::PRODUCER_FENCED));
    }
}

#[test]
fn an_init_whose_answer_was_lost_is_repeated() {
    let mut bed = Bed::new();
    let first = bed.init();
    let again = |bed: &mut Bed| match bed.ask(init(Some(first), false, false)) {
        Reply::Initialized { producer, ongoing: None } => producer,
        other => panic!("{other:?}"),
    };
    assert_eq!(again(&mut bed), first.bumped());
    assert_eq!(again(&mut bed), first.bumped());
}

#[test]
fn a_paused_producer_is_fenced_by_the_time_out() {
    let mut bed = Bed::new();
    let producer = bed.init();
    bed.ask(add(producer, 0));
    bed.now_ms += 999;
    bed.input(Input::Tick);
    assert_eq!(bed.state(), State::Ongoing);
    bed.now_ms += 1;
    assert_eq!(bed.machine.next_timeout(), Some(bed.now().instant));
    bed.input(Input::Tick);
    while bed.step() {}
    assert_eq!(bed.markers, [Written { producer: producer.bumped(), commit: false }]);
    assert_eq!(bed.ask(add(producer, 0)), Reply::Error(ErrorCode::PRODUCER_FENCED));
    assert_eq!(bed.ask(end(producer, true)), Reply::Error(ErrorCode::INVALID_TXN_STATE));
    let expires = bed.now().instant + Duration::from_millis(EXPIRATION_MS as u64);
    assert_eq!(bed.machine.next_timeout(), Some(expires), "only the id's own end is waited for");
}

#[test]
fn a_time_out_runs_on_over_a_restart_and_a_stepped_clock_does_not_stretch_it() {
    let mut bed = Bed::new();
    let producer = bed.init();
    bed.now_ms = 5000;
    bed.ask(add(producer, 0));
    bed.now_ms += 400;
    bed.crash();
    assert_eq!(bed.machine.next_timeout(), Some(bed.now().instant + Duration::from_millis(600)));
    bed.now_ms = 100;
    bed.crash();
    assert_eq!(bed.machine.next_timeout(), Some(bed.now().instant + Duration::from_millis(1000)));
}

#[test]
fn a_prepared_transaction_has_no_time_out_and_is_kept_over_clients() {
    let mut bed = Bed::new();
    let Reply::Initialized { producer, ongoing: None } = bed.ask(init(None, true, false)) else { panic!() };
    bed.ask(add(producer, 0));
    assert_eq!(bed.machine.next_timeout(), None);
    let keep = |bed: &mut Bed| match bed.ask(init(None, true, true)) {
        Reply::Initialized { producer, ongoing } => (producer, ongoing),
        other => panic!("{other:?}"),
    };
    let (one, ongoing) = keep(&mut bed);
    assert_eq!((one, ongoing), (producer.bumped(), Some(producer)));
    bed.crash();
    let (two, ongoing) = keep(&mut bed);
    assert_eq!((two, ongoing), (one.bumped(), Some(producer)), "the same transaction, a newer client");
    assert_eq!(bed.ask(end(producer, true)), Reply::Error(ErrorCode::PRODUCER_FENCED));
    assert_eq!(bed.ask(end(one, true)), Reply::Error(ErrorCode::PRODUCER_FENCED));
    assert_eq!(bed.ask(add(two, 1)), Reply::Error(ErrorCode::INVALID_TXN_STATE), "it can only be ended");
    let next = ended(bed.ask(end(two, true)));
    assert_eq!(bed.markers, [Written { producer: next, commit: true }]);
    assert_eq!(bed.ask(end(two, true)), Reply::Ended { producer: next });
    assert_eq!(keep(&mut bed), (next.bumped(), None));
}

#[test]
fn epochs_run_out_and_a_new_producer_id_goes_on() {
    let mut bed = Bed::new();
    let mut txn = Txn::new(ProducerIdEpoch::new(7, MAX_CLIENT_EPOCH - 1), 1000, 0);
    txn.client_version = 2;
    bed.log.push((ID.into(), Some(txn)));
    bed.crash();
    let last = bed.init();
    assert_eq!(last, ProducerIdEpoch::new(7, MAX_CLIENT_EPOCH));
    bed.ask(add(last, 0));
    let next = ended(bed.ask(end(last, true)));
    assert!(next.producer_id != 7 && next.epoch == 0);
    assert_eq!(bed.markers, [Written { producer: ProducerIdEpoch::new(7, i16::MAX), commit: true }]);
    assert_eq!(bed.ask(end(last, true)), Reply::Ended { producer: next }, "its answer was lost");
    bed.crash();
    assert_eq!(bed.ask(end(last, true)), Reply::Ended { producer: next });
    assert_eq!(bed.ask(add(next, 0)), Reply::Added);
    assert_eq!(bed.ask(end(last, true)), Reply::Error(ErrorCode::INVALID_PRODUCER_ID_MAPPING));
}

#[test]
fn older_clients_keep_their_epoch() {
    let mut bed = Bed::new();
    let producer = bed.init();
    let end = |commit| Request::EndTxn { producer, commit, bumps: false };
    bed.ask(Request::AddPartitions { producer, partitions: vec![("t".into(), 0)], verify_only: false, bumps: false });
    let verify = |partition| Request::AddPartitions {
        producer,
        partitions: vec![("t".into(), partition)],
        verify_only: true,
        bumps: false,
    };
    assert_eq!(bed.ask(verify(0)), Reply::Added);
    assert_eq!(bed.ask(verify(1)), Reply::Error(ErrorCode::TRANSACTION_ABORTABLE));
    assert_eq!(bed.ask(end(true)), Reply::Ended { producer });
    assert_eq!(bed.ask(end(true)), Reply::Ended { producer });
    assert_eq!(bed.ask(end(false)), Reply::Error(ErrorCode::INVALID_TXN_STATE));
}

#[test]
fn a_refused_record_changes_nothing() {
    let mut bed = Bed::new();
    let producer = bed.init();
    bed.ask(add(producer, 0));
    let refuse = |bed: &mut Bed, token: Token| {
        let error = ErrorCode::COORDINATOR_NOT_AVAILABLE;
        bed.input(Input::NotPersisted { transactional_id: ID.into(), token, error });
    };
    let id = bed.send(end(producer, true));
    let Some(Action::Persist { token, .. }) = bed.queue.pop_front() else { panic!() };
    refuse(&mut bed, token);
    assert_eq!(bed.replies.remove(&id), Some(Reply::Error(ErrorCode::COORDINATOR_NOT_AVAILABLE)));
    assert_eq!(bed.state(), State::Ongoing);
    // The end of a decided transaction is owed, refused or not.
    bed.send(end(producer, true));
    bed.step();
    bed.step();
    let Some(Action::Persist { token, .. }) = bed.queue.pop_front() else { panic!() };
    refuse(&mut bed, token);
    while bed.step() {}
    assert_eq!(bed.state(), State::CompleteCommit);
}

/// What a client, a crash or time does next.
#[derive(Clone, Debug)]
enum Op {
    Init { expected: bool, two_phase: bool, keep: bool },
    Add { identity: u8, partition: i32 },
    End { identity: u8, commit: bool },
    Step,
    Crash,
    Pass { ms: i64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(expected, two_phase, keep)| Op::Init {
            expected,
            two_phase,
            keep: keep && two_phase
        }),
        4 => (0u8..3, 0..3).prop_map(|(identity, partition)| Op::Add { identity, partition }),
        4 => (0u8..3, any::<bool>()).prop_map(|(identity, commit)| Op::End { identity, commit }),
        12 => Just(Op::Step),
        1 => Just(Op::Crash),
        1 => (0i64..800).prop_map(|ms| Op::Pass { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever comes in whatever order: client identities only rise, one outcome for each transaction, markers of
    /// one transaction agree and come after the decision, a durable decision is finished.
    #[test]
    fn every_transaction_has_one_outcome(ops in proptest::collection::vec(op(), 1..80)) {
        let mut bed = Bed::new();
        // Identities handed out, newest last.
        let mut seen: Vec<ProducerIdEpoch> = vec![bed.init()];
        let mut asked: BTreeMap<RequestId, Request> = BTreeMap::new();
        let mut outcomes: BTreeMap<ProducerIdEpoch, bool> = BTreeMap::new();
        let mut checked = 0;
        for op in ops {
            let pick = |back: u8| seen[seen.len().saturating_sub(1 + usize::from(back))];
            match op {
                Op::Init { expected, two_phase, keep } => {
                    let request = init(expected.then(|| pick(0)), two_phase, keep);
                    let id = bed.send(request.clone());
                    asked.insert(id, request);
                }
                Op::Add { identity, partition } => {
                    let request = add(pick(identity), partition);
                    let id = bed.send(request.clone());
                    asked.insert(id, request);
                }
                Op::End { identity, commit } => {
                    let request = end(pick(identity), commit);
                    let id = bed.send(request.clone());
                    asked.insert(id, request);
                }
                Op::Step => {
                    bed.step();
                }
                Op::Crash => {
                    bed.crash();
                    asked.clear();
                }
                Op::Pass { ms } => {
                    bed.now_ms += ms;
                    bed.input(Input::Tick);
                }
            }
            // What the log says was decided, by the identity of the decision: it never changes.
            for (_, txn) in &bed.log[checked..] {
                let txn = txn.as_ref().unwrap();
                if let Some(outcome) = txn.state.outcome() {
                    let first = *outcomes.entry(txn.client()).or_insert(outcome);
                    prop_assert_eq!(first, outcome);
                }
            }
            checked = bed.log.len();
            for written in &bed.markers {
                let decided = bed.log.iter().any(|(_, t)| t.as_ref().is_some_and(|t| {
                    t.state == State::prepare(written.commit) && t.producer == written.producer
                }));
                prop_assert!(decided, "a marker without a decision: {:?}", written);
            }
            for (id, reply) in std::mem::take(&mut bed.replies) {
                let request = asked.remove(&id);
                let given = match reply {
                    Reply::Initialized { producer, .. } | Reply::Ended { producer } => producer,
                    Reply::Added | Reply::Error(_) => continue,
                };
                if let Some(Request::EndTxn { producer, commit, .. }) = request {
                    prop_assert_eq!(outcomes.get(&given), Some(&commit), "{:?} was told {}", producer, commit);
                }
                if !seen.contains(&given) {
                    prop_assert!(seen.iter().all(|s| *s < given), "identities rise");
                    seen.push(given);
                }
            }
        }
        while bed.step() {}
        prop_assert!(!bed.state().is_prepare(), "a decision is finished");
        let commits: BTreeSet<_> = bed.markers.iter().filter(|m| m.commit).map(|m| m.producer).collect();
        let aborts: BTreeSet<_> = bed.markers.iter().filter(|m| !m.commit).map(|m| m.producer).collect();
        prop_assert!(commits.is_disjoint(&aborts), "both kinds of marker for one transaction");
    }
}
