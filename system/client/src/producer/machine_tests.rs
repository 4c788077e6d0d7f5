//! The sending machine against a small broker in memory: by hand for the rules, at random for all that can go wrong at
//! once.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;
use protocol::batch::{BatchHeader, Limits, decode_records};
use protocol::messages::MetadataResponse;
use protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use protocol::{str_bytes, topic_name};

use super::*;
use crate::producer::transaction::TxnVersion;

const NODE: i32 = 1;

fn ms(n: u64) -> Instant {
    Instant::from_nanos(n * 1_000_000)
}

fn settings() -> Settings {
    Settings {
        idempotent: true,
        linger: Duration::ZERO,
        // Two small records a batch.
        batch_bytes: 61 + 30,
        request_bytes: 1 << 20,
        max_in_flight: 5,
        delivery_timeout: Duration::from_secs(30),
        backoff: Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(1) },
        compression: Compression::None,
    }
}

fn metadata(partitions: i32) -> Rc<Metadata> {
    let partitions = (0..partitions)
        .map(|p| MetadataResponsePartition::default().with_partition_index(p).with_leader_id(NODE.into()));
    let topic = MetadataResponseTopic::default().with_name(Some(topic_name("t"))).with_partitions(partitions.collect());
    let broker = MetadataResponseBroker::default().with_node_id(NODE.into()).with_host(str_bytes("h")).with_port(1);
    let mut metadata = Metadata::default();
    metadata.update(&MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic]));
    Rc::new(metadata)
}

fn record(n: u64) -> Record {
    Record { value: Some(Bytes::from(n.to_be_bytes().to_vec())), ..Record::default() }
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

/// A leader's rules for idempotent producers: next sequence or one of the last five batches, sequence 0 for a new
/// producer (KIP-98).
#[derive(Default)]
struct Leader {
    log: Vec<u64>,
    producers: BTreeMap<i64, VecDeque<(i32, i32, i64)>>,
}

impl Leader {
    fn append(&mut self, batch: &Bytes) -> Answer {
        let header = BatchHeader::parse(batch).unwrap();
        header.verify_crc(batch).unwrap();
        header.check_produced().unwrap();
        let seen = self.producers.entry(header.producer_id).or_default();
        if let Some((_, _, offset)) =
            seen.iter().find(|(base, last, _)| (*base, *last) == (header.base_sequence, header.last_sequence()))
        {
            return Ok(*offset);
        }
        let expected = seen.back().map_or(0, |(_, last, _)| add_sequence(*last, 1));
        if header.base_sequence != expected {
            return Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        }
        let offset = self.log.len() as i64;
        seen.push_back((header.base_sequence, header.last_sequence(), offset));
        if seen.len() > 5 {
            seen.pop_front();
        }
        let records = decode_records(batch, &Limits::default()).unwrap();
        self.log.extend(records.iter().map(|r| u64::from_be_bytes(r.value.as_deref().unwrap().try_into().unwrap())));
        Ok(offset)
    }
}

type Request = (u64, Vec<(TopicPartition, Bytes)>);

/// A machine, its broker, and what lies between them.
struct Bench {
    machine: Machine<u64>,
    now: Instant,
    leaders: BTreeMap<TopicPartition, Leader>,
    wire: VecDeque<Request>,
    /// Requests of abandoned connections that may still arrive, oldest first.
    late: VecDeque<Request>,
    results: BTreeMap<u64, Result<Option<i64>, SendError>>,
    next_producer_id: i64,
    connects: bool,
}

impl Bench {
    fn new(settings: Settings, txn: Option<Transaction>) -> Self {
        let mut machine = Machine::new(settings, txn);
        machine.set_metadata(metadata(2));
        Self {
            machine,
            now: ms(1000),
            leaders: BTreeMap::new(),
            wire: VecDeque::new(),
            late: VecDeque::new(),
            results: BTreeMap::new(),
            next_producer_id: 100,
            connects: true,
        }
    }

    fn send(&mut self, partition: i32, n: u64) {
        if let Err((token, e)) = self.machine.enqueue(self.now, &tp(partition), &record(n), n) {
            self.results.insert(token, Err(e));
        }
    }

    /// Carries out decisions until there are none.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let actions = self.machine.poll(self.now);
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::RefreshMetadata => self.machine.metadata_refreshed(self.now, true),
                    Action::Connect { node } => self.machine.connected(self.now, node, self.connects),
                    Action::InitProducerId => {
                        self.next_producer_id += 1;
                        let id = ProducerIdEpoch { producer_id: self.next_producer_id, epoch: 0 };
                        self.machine.set_identity(id);
                    }
                    Action::AddPartitions(partitions) => {
                        self.machine.txn.as_mut().unwrap().partitions_added(partitions);
                    }
                    Action::Produce { request, batches, .. } => self.wire.push_back((request, batches)),
                    Action::Complete { tokens, result } => {
                        for (i, token) in tokens.into_iter().enumerate() {
                            let result = result.clone().map(|o| o.map(|o| o + i as i64));
                            assert!(self.results.insert(token, result).is_none(), "{token} completed twice");
                        }
                    }
                }
            }
        }
        panic!("the machine never settles");
    }

    fn apply(&mut self, batches: &[(TopicPartition, Bytes)]) -> BTreeMap<TopicPartition, Answer> {
        let answers = batches.iter().map(|(tp, b)| (tp.clone(), self.leaders.entry(tp.clone()).or_default().append(b)));
        answers.collect()
    }

    /// The broker handles the oldest request and answers.
    fn answer(&mut self) {
        let (request, batches) = self.wire.pop_front().expect("a request on the wire");
        let answers = self.apply(&batches);
        self.machine.produced(self.now, request, Ok(answers));
    }

    fn refuse(&mut self, code: ErrorCode) {
        let (request, batches) = self.wire.pop_front().expect("a request on the wire");
        let answers = batches.into_iter().map(|(tp, _)| (tp, Err(code))).collect();
        self.machine.produced(self.now, request, Ok(answers));
    }

    /// The connection dies. The broker has handled the first `handled` requests; the rest may come late.
    fn cut(&mut self, handled: usize) {
        let requests: Vec<_> = self.wire.drain(..).collect();
        for (n, (request, batches)) in requests.into_iter().enumerate() {
            if n < handled {
                self.apply(&batches);
            } else {
                self.late.push_back((request, batches));
            }
            self.machine.produced(self.now, request, Err(CallError::Lost("cut".into())));
        }
    }

    fn advance(&mut self) {
        // After `settle` a timer in the past would make the driver spin.
        self.settle();
        if let Some(at) = self.machine.next_timeout() {
            assert!(at > self.now, "a timer in the past and nothing to do");
            self.now = at;
        }
    }

    fn sequences(&self) -> Vec<i32> {
        let parse = |b: &Bytes| BatchHeader::parse(b).unwrap().base_sequence;
        self.wire.iter().flat_map(|(_, batches)| batches.iter().map(|(_, b)| parse(b))).collect()
    }

    fn log(&self, partition: i32) -> &[u64] {
        self.leaders.get(&tp(partition)).map_or(&[], |l| &l.log)
    }
}

/// Eight records, two a batch, all in flight or waiting.
fn four_batches() -> Bench {
    let mut b = Bench::new(settings(), None);
    for n in 0..8 {
        b.send(0, n);
    }
    b.settle();
    assert_eq!(b.sequences(), [0, 2, 4, 6]);
    b
}

#[test]
fn pipelines_and_acknowledges_in_order() {
    let mut b = four_batches();
    while !b.wire.is_empty() {
        b.answer();
        b.settle();
    }
    assert_eq!(b.log(0), [0, 1, 2, 3, 4, 5, 6, 7]);
    for n in 0..8 {
        assert_eq!(b.results[&n], Ok(Some(n as i64)));
    }
    assert_eq!(b.machine.next_timeout(), None, "nothing left to wait for");
}

#[test]
fn at_most_five_requests_are_in_flight() {
    let mut b = Bench::new(settings(), None);
    for n in 0..40 {
        b.send(0, n);
    }
    b.settle();
    assert_eq!(b.wire.len(), 5);
}

#[test]
fn a_refused_batch_holds_back_those_behind_it() {
    let mut b = four_batches();
    b.refuse(ErrorCode::NOT_ENOUGH_REPLICAS);
    for _ in 0..3 {
        b.answer();
    }
    b.send(0, 8);
    b.settle();
    assert!(b.wire.is_empty(), "backoff");
    b.advance();
    b.settle();
    assert_eq!(b.sequences(), [0], "the lowest goes alone");
    b.answer();
    b.settle();
    assert_eq!(b.sequences(), [2]);
    for _ in 0..4 {
        b.answer();
        b.settle();
    }
    assert_eq!(b.log(0), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(b.results.values().all(Result::is_ok));
    assert_eq!(b.next_producer_id, 101, "nothing was given up");
}

#[test]
fn lost_responses_are_resolved_by_repeating() {
    let mut b = four_batches();
    b.cut(3);
    b.settle();
    b.advance();
    b.settle();
    while !b.wire.is_empty() {
        b.answer();
        b.settle();
    }
    assert_eq!(b.log(0), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(b.results.values().all(Result::is_ok));
}

#[test]
fn out_of_order_for_the_lowest_is_never_sent_under_another_identity() {
    let mut b = four_batches();
    b.cut(0);
    b.settle();
    b.advance();
    // The broker lost its memory of the producer, and the log's end.
    b.settle();
    assert_eq!(b.sequences(), [0]);
    b.refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    b.settle();
    for n in 0..2 {
        assert_eq!(b.results[&n].as_ref().unwrap_err().outcome, Outcome::Unknown, "an attempt was lost before");
    }
    // The others come to their end under the old identity, one by one; new records wait for a new one.
    b.send(0, 8);
    while b.results.len() < 8 {
        b.advance();
        b.settle();
        assert_eq!(b.wire.len(), 1);
        b.refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        b.settle();
    }
    assert_eq!(b.next_producer_id, 102);
    b.advance();
    b.settle();
    assert_eq!(b.sequences(), [0], "the new identity starts at 0");
    b.answer();
    b.settle();
    assert_eq!(b.log(0), [8]);
}

#[test]
fn out_of_order_of_a_batch_sent_once_is_a_failure() {
    let mut b = Bench::new(settings(), None);
    b.send(0, 0);
    b.settle();
    b.refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    b.settle();
    let error = b.results[&0].clone().unwrap_err();
    assert_eq!((error.outcome, error.code), (Outcome::Failed, Some(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)));
}

#[test]
fn running_out_of_time_is_a_failure_only_for_what_was_never_lost() {
    let mut b = Bench::new(settings(), None);
    b.connects = false;
    b.send(0, 0);
    b.settle();
    b.now = ms(31_001);
    b.settle();
    assert_eq!(b.results[&0].as_ref().unwrap_err().outcome, Outcome::Failed);

    b.connects = true;
    b.send(0, 1);
    b.advance();
    b.settle();
    b.connects = false;
    b.cut(1);
    b.now = ms(70_000);
    b.settle();
    assert_eq!(b.results[&1].as_ref().unwrap_err().outcome, Outcome::Unknown);
}

#[test]
fn unknown_stays_unknown_when_a_later_attempt_certainly_fails() {
    let mut b = Bench::new(settings(), None);
    b.send(0, 0);
    b.settle();
    b.cut(0);
    b.settle();
    b.advance();
    b.settle();
    b.refuse(ErrorCode::MESSAGE_TOO_LARGE);
    b.settle();
    let error = b.results[&0].clone().unwrap_err();
    assert_eq!((error.outcome, error.code), (Outcome::Unknown, Some(ErrorCode::MESSAGE_TOO_LARGE)));
}

#[test]
fn a_lost_record_leaves_the_transaction_only_the_abort() {
    let mut txn = Transaction::new();
    txn.initialized(TxnVersion::V2, None);
    txn.begin().unwrap();
    let mut b = Bench::new(settings(), Some(txn));
    b.machine.set_identity(ProducerIdEpoch { producer_id: 5, epoch: 1 });
    b.send(0, 0);
    b.send(1, 1);
    b.settle();
    b.send(1, 2);
    b.refuse(ErrorCode::INVALID_PRODUCER_EPOCH);
    b.settle();
    assert!(b.results.values().all(|r| r.as_ref().is_err_and(|e| e.outcome == Outcome::Failed)));
    assert_eq!(b.results.len(), 3, "what waited is given up, too");
    assert!(b.machine.txn.as_mut().unwrap().start_end(true).is_err());
    b.send(0, 3);
    assert!(b.results[&3].is_err(), "and nothing more is taken");
    assert!(b.machine.is_idle());
}

#[test]
fn the_epoch_of_the_next_transaction_starts_its_sequences_anew() {
    let mut txn = Transaction::new();
    txn.initialized(TxnVersion::V2, None);
    txn.begin().unwrap();
    let mut b = Bench::new(settings(), Some(txn));
    b.machine.set_identity(ProducerIdEpoch { producer_id: 5, epoch: 1 });
    b.send(0, 0);
    b.settle();
    b.answer();
    b.settle();
    let txn = b.machine.txn.as_mut().unwrap();
    txn.start_flush("commit").unwrap();
    assert!(txn.start_end(true).unwrap());
    txn.ended();
    b.machine.set_identity(ProducerIdEpoch { producer_id: 5, epoch: 2 });
    b.machine.txn.as_mut().unwrap().begin().unwrap();
    b.send(0, 1);
    b.settle();
    assert_eq!(b.sequences(), [0]);
}

/// What may happen next.
#[derive(Debug, Clone)]
enum Event {
    Send(i32),
    Answer,
    Refuse,
    AfterAppend,
    Cut(usize),
    Late,
    NoConnection,
    Wait,
    LongWait,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..2i32).prop_map(Event::Send),
        5 => Just(Event::Answer),
        1 => Just(Event::Refuse),
        1 => Just(Event::AfterAppend),
        2 => (0..6usize).prop_map(Event::Cut),
        2 => Just(Event::Late),
        1 => Just(Event::NoConnection),
        3 => Just(Event::Wait),
        1 => Just(Event::LongWait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is lost, refused or late: an acknowledged record is in the log once, where it was said to be, in
    /// order; a failed one is not; an unknown one at most once.
    #[test]
    fn exactly_once_in_order(events in proptest::collection::vec(event(), 1..120)) {
        let mut b = Bench::new(settings(), None);
        let mut sent: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
        let mut n = 0;
        for event in events {
            match event {
                Event::Send(p) => {
                    b.send(p, n);
                    sent.entry(p).or_default().push(n);
                    n += 1;
                }
                Event::Answer if !b.wire.is_empty() => b.answer(),
                Event::Refuse if !b.wire.is_empty() => b.refuse(ErrorCode::NOT_ENOUGH_REPLICAS),
                Event::AfterAppend if !b.wire.is_empty() => {
                    let batches = b.wire[0].1.clone();
                    // Appended where it may be; the answer says that too few replicas have it.
                    let answers = b.apply(&batches);
                    let (request, _) = b.wire.pop_front().unwrap();
                    let answers = answers
                        .into_iter()
                        .map(|(tp, a)| (tp, a.and(Err(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND))))
                        .collect();
                    b.machine.produced(b.now, request, Ok(answers));
                }
                Event::Cut(handled) => b.cut(handled),
                Event::Late => {
                    if let Some((_, batches)) = b.late.pop_front() {
                        b.apply(&batches);
                    }
                }
                Event::NoConnection => b.connects = !b.connects,
                Event::Wait => b.advance(),
                Event::LongWait => b.now += Duration::from_secs(12),
                _ => {}
            }
            b.settle();
        }
        // Calm: everything comes to an end.
        b.connects = true;
        for _ in 0..2_000 {
            b.settle();
            if b.machine.is_idle() {
                break;
            }
            if b.wire.is_empty() { b.advance() } else { b.answer() }
        }
        prop_assert!(b.machine.is_idle(), "records are stuck");
        while let Some((_, batches)) = b.late.pop_front() {
            b.apply(&batches);
        }
        for (p, sent) in sent {
            let log = b.log(p).to_vec();
            let count = |n: u64| log.iter().filter(|m| **m == n).count();
            let mut last = -1;
            for n in sent {
                match &b.results[&n] {
                    Ok(offset) => {
                        let offset = offset.expect("the leader remembers");
                        prop_assert_eq!(log.get(offset as usize), Some(&n), "{} is not where it was said to be", n);
                        prop_assert_eq!(count(n), 1, "{} is duplicated", n);
                        prop_assert!(offset > last, "{} is out of order", n);
                        last = offset;
                    }
                    Err(e) if e.outcome == Outcome::Failed => prop_assert_eq!(count(n), 0, "{} failed, yet is there", n),
                    Err(_) => prop_assert!(count(n) <= 1, "{} is duplicated", n),
                }
            }
        }
    }
}
