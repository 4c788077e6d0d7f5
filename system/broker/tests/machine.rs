//! The machine of a partition without other replicas against a model that keeps everything and computes each bound from scratch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use env::clock::Instant;
use log::{LeaderEpochs, Marker, Offset, Origin, TransactionVersion, TxnChange};
use proptest::prelude::*;
use protocol::ErrorCode;
use protocol::batch::{BatchBuilder, BatchHeader, Record};
use streamproof_broker::Flush;
use streamproof_broker::partition::leader::{Fetched, Leadership};
use streamproof_broker::partition::machine::{
    Action, Bounds, Following, HIGH_WATERMARK, Input, Machine, Outcome, Settings, Start, Token, Work,
};
use streamproof_broker::partition::{Acks, Appended};

/// What the world around the machine does next.
#[derive(Clone, Debug)]
enum Step {
    /// A batch of so many records of a producer; 0 is not transactional, others each have a transaction.
    Arrive { producer: i64, records: i32, acks: u8 },
    /// Its transaction ends.
    End { producer: i64, commit: bool },
    /// The append at the log ends: as it should, or refused, or as a duplicate of what is there.
    Log { refuse: bool, duplicate: bool },
    /// The flush ends.
    Synced,
    /// Records below so many thousandths of the log, and a bit, are to be given up; or below the high watermark.
    Delete { to: Option<i64> },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4i64, 1..5i32, 0..3u8).prop_map(|(producer, records, acks)| Step::Arrive { producer, records, acks }),
        2 => (1..4i64, any::<bool>()).prop_map(|(producer, commit)| Step::End { producer, commit }),
        6 => (prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(refuse, duplicate)| Step::Log { refuse, duplicate }),
        2 => Just(Step::Synced),
        1 => prop::option::of(0..1200i64).prop_map(|to| Step::Delete { to }),
    ]
}

/// The world: a log, and everything that was ever answered.
struct Harness {
    flush: Flush,
    machine: Machine,
    next_token: Token,
    arrived: VecDeque<(Token, Acks)>,
    acks: BTreeMap<Token, Acks>,
    end: Offset,
    flushed: Offset,
    log_start: Offset,
    /// First offset of each open transaction, by producer.
    open: BTreeMap<i64, Offset>,
    /// (first offset, marker) of each ended one.
    ended: Vec<(Offset, Offset)>,
    at_log: Option<(Token, Work)>,
    syncing: Option<Offset>,
    answered: BTreeMap<Token, Result<Appended, ErrorCode>>,
    high_watermark: Offset,
    last_stable: Offset,
    failed: bool,
    closed: bool,
}

impl Harness {
    fn new(flush: Flush) -> Self {
        let lag_max = std::time::Duration::from_secs(10);
        let settings = Settings { node: 1, flush, max_queued_bytes: 1 << 20, lag_max };
        let (open, ended, epochs) = (Vec::new(), Vec::new(), LeaderEpochs::default());
        let start = Start { log_start: 0, end: 0, high_watermark: 0, open, ended, epochs };
        let mut machine = Machine::new(settings, start);
        let sole = Leadership { leader_epoch: 0, partition_epoch: 0, replicas: vec![1], isr: vec![1], min_isr: 1 };
        assert_eq!(machine.handle(Instant::default(), Input::Lead(sole)), [Action::RoleChanged]);
        Self {
            flush,
            machine,
            next_token: 0,
            arrived: VecDeque::new(),
            acks: BTreeMap::new(),
            end: 0,
            flushed: 0,
            log_start: 0,
            open: BTreeMap::new(),
            ended: Vec::new(),
            at_log: None,
            syncing: None,
            answered: BTreeMap::new(),
            high_watermark: 0,
            last_stable: 0,
            failed: false,
            closed: false,
        }
    }

    fn secured(&self) -> Offset {
        match self.flush {
            Flush::Fsync => self.flushed,
            Flush::PageCache => self.end,
        }
    }

    fn feed(&mut self, input: Input) {
        for action in self.machine.handle(Instant::default(), input) {
            match action {
                Action::Append { token, work, .. } => {
                    assert!(self.at_log.is_none(), "two appends at the log");
                    let (first, _) = self.arrived.pop_front().expect("an append that arrived");
                    assert_eq!(first, token, "appends go in the order they arrived");
                    self.at_log = Some((token, work));
                }
                Action::Flush => {
                    assert!(self.syncing.is_none(), "two flushes at once");
                    self.syncing = Some(self.end);
                }
                Action::Publish(Bounds { high_watermark, last_stable_offset, .. }) => {
                    assert!(high_watermark >= self.high_watermark && last_stable_offset >= self.last_stable);
                    (self.high_watermark, self.last_stable) = (high_watermark, last_stable_offset);
                }
                Action::Reply { token, result } => {
                    if let (Ok(done), Acks::All) = (&result, self.acks[&token]) {
                        assert!(done.last_offset < self.high_watermark, "acknowledged before it was visible");
                        assert!(done.last_offset < self.secured(), "acknowledged before it was secured");
                        assert!(done.log_start_offset <= self.log_start, "given up before it was told");
                    }
                    assert!(self.answered.insert(token, result).is_none(), "answered twice");
                }
                Action::Fail => self.failed = true,
                Action::Closed => self.closed = true,
                other => panic!("{other:?} without another replica"),
            }
        }
        if self.failed {
            return;
        }
        assert_eq!(self.high_watermark, self.secured(), "high watermark");
        let first_unstable = self
            .open
            .values()
            .copied()
            .chain(self.ended.iter().filter(|(_, marker)| *marker >= self.high_watermark).map(|(first, _)| *first))
            .min();
        let expected = first_unstable.map_or(self.high_watermark, |f| f.min(self.high_watermark));
        assert_eq!(self.last_stable, expected, "last stable offset");
    }

    fn arrive(&mut self, work: Work, acks: Acks) {
        self.next_token += 1;
        self.arrived.push_back((self.next_token, acks));
        self.acks.insert(self.next_token, acks);
        self.feed(Input::Append { token: self.next_token, work, acks });
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Arrive { producer, records, acks } => {
                let acks = [Acks::None, Acks::Leader, Acks::All][acks as usize];
                self.arrive(data(producer, records), acks);
            }
            Step::End { producer, commit } => {
                let marker = Marker {
                    producer_id: producer,
                    producer_epoch: 0,
                    commit,
                    coordinator_epoch: 0,
                    version: TransactionVersion::V1,
                };
                self.arrive(Work::Marker(marker), Acks::All);
            }
            Step::Log { refuse, duplicate } => {
                let Some((token, work)) = self.at_log.take() else { return };
                let outcome = if refuse {
                    Outcome::Refused(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)
                } else if duplicate && self.end > 0 {
                    Outcome::Duplicate { first: self.end - 1, last: self.end - 1 }
                } else {
                    self.append(work)
                };
                self.feed(Input::Appended { token, outcome });
            }
            Step::Synced => {
                let Some(target) = self.syncing.take() else { return };
                self.flushed = target;
                self.feed(Input::Flushed(target));
            }
            Step::Delete { to } => self.delete(to),
        }
    }

    fn delete(&mut self, to: Option<i64>) {
        let offset = to.map_or(HIGH_WATERMARK, |thousandths| self.end * thousandths / 1_000);
        let to = if offset == HIGH_WATERMARK { self.high_watermark } else { offset };
        self.next_token += 1;
        let token = self.next_token;
        let actions = self.machine.handle(Instant::default(), Input::DeleteRecords { token, offset });
        if to > self.high_watermark {
            assert_eq!(actions, [Action::NotDeleted { token, error: ErrorCode::OFFSET_OUT_OF_RANGE }]);
        } else {
            assert_eq!(actions, [Action::StartAt { token, offset: to }]);
            self.log_start = self.log_start.max(to);
            self.feed(Input::StartMoved(to));
            assert_eq!(self.machine.log_start_offset(), self.log_start, "the start never goes back");
        }
        let answer = Appended { base_offset: 0, last_offset: 0, log_append_time_ms: -1, log_start_offset: 0 };
        self.answered.insert(token, Ok(answer));
    }

    fn append(&mut self, work: Work) -> Outcome {
        let first = self.end;
        let mut transactions = Vec::new();
        match work {
            Work::Data { header, .. } => {
                self.end += Offset::from(header.records_count);
                let producer_id = header.producer_id;
                if header.is_transactional() && !self.open.contains_key(&producer_id) {
                    self.open.insert(producer_id, first);
                    transactions.push(TxnChange::Began { producer_id, first });
                }
            }
            Work::Marker(marker) => {
                self.end += 1;
                if let Some(begin) = self.open.remove(&marker.producer_id) {
                    self.ended.push((begin, first));
                    let committed = marker.commit;
                    let producer_id = marker.producer_id;
                    transactions.push(TxnChange::Ended { producer_id, first: begin, marker: first, committed });
                }
            }
        }
        Outcome::Done { first, last: self.end - 1, epochs: Vec::new(), transactions }
    }

    /// Lets everything come to its end.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            if self.at_log.is_none() && self.syncing.is_none() {
                return;
            }
            self.step(Step::Log { refuse: false, duplicate: false });
            self.step(Step::Synced);
        }
        panic!("no end");
    }
}

fn data(producer: i64, records: i32) -> Work {
    let mut b = BatchBuilder::new().producer(producer, 0, 0);
    if producer > 0 {
        b = b.transactional();
    }
    for _ in 0..records {
        b.push(&Record { value: Some(Bytes::from_static(b"v")), ..Record::default() });
    }
    let records = b.build();
    Work::Data { header: BatchHeader::parse(&records).unwrap(), records, origin: Origin::Client, asked: None }
}

proptest! {
    #[test]
    fn bounds_and_answers_agree_with_the_model(
        steps in prop::collection::vec(step(), 1..200),
        flush in prop_oneof![Just(Flush::Fsync), Just(Flush::PageCache)],
    ) {
        let mut h = Harness::new(flush);
        for s in steps {
            h.step(s);
        }
        h.drain();
        prop_assert_eq!(h.answered.len() as u64, h.next_token, "every append is answered");
        h.feed(Input::Close);
        h.drain();
        prop_assert!(h.closed);
        prop_assert_eq!(h.flushed, h.end, "all is durable at the close");
        h.step(Step::Arrive { producer: 0, records: 1, acks: 2 });
        prop_assert_eq!(h.answered.get(&h.next_token), Some(&Err(ErrorCode::LEADER_NOT_AVAILABLE)));
    }

    #[test]
    fn a_failed_log_answers_everybody_and_acknowledges_nobody(
        steps in prop::collection::vec(step(), 1..60),
        by_flush in any::<bool>(),
    ) {
        let mut h = Harness::new(Flush::Fsync);
        for s in steps {
            h.step(s);
        }
        let before: BTreeSet<Token> = h.answered.keys().copied().collect();
        if by_flush && h.syncing.take().is_some() {
            h.feed(Input::FlushFailed);
        } else if let Some((token, _)) = h.at_log.take() {
            h.feed(Input::Appended { token, outcome: Outcome::Failed });
        }
        if h.failed {
            if let Some((token, work)) = h.at_log.take() {
                let outcome = h.append(work);
                h.feed(Input::Appended { token, outcome });
            }
            let all: BTreeSet<Token> = h.answered.keys().copied().collect();
            prop_assert_eq!(all.len() as u64, h.next_token);
            for token in all.difference(&before) {
                prop_assert_eq!(h.answered[token], Err(ErrorCode::KAFKA_STORAGE_ERROR));
            }
            h.feed(Input::Close);
            prop_assert!(h.closed);
        }
    }
}

/// A leader of epoch 1 whose log holds 10 records, of which it knows 4 to be committed.
fn new_leader() -> Machine {
    let settings = Settings {
        node: 1,
        flush: Flush::Fsync,
        max_queued_bytes: 1 << 20,
        lag_max: std::time::Duration::from_secs(10),
    };
    let (open, ended, epochs) = (Vec::new(), Vec::new(), LeaderEpochs::default());
    let start = Start { log_start: 2, end: 10, high_watermark: 4, open, ended, epochs };
    let mut machine = Machine::new(settings, start);
    let lead = Leadership { leader_epoch: 1, partition_epoch: 0, replicas: vec![1, 2], isr: vec![1, 2], min_isr: 1 };
    assert_eq!(machine.handle(Instant::default(), Input::Lead(lead)), [Action::RoleChanged]);
    machine
}

fn asked_to_delete(machine: &mut Machine, offset: Offset) -> Result<Offset, ErrorCode> {
    match machine.handle(Instant::default(), Input::DeleteRecords { token: 1, offset }).as_slice() {
        [Action::StartAt { token: 1, offset }] => Ok(*offset),
        [Action::NotDeleted { token: 1, error }] => Err(*error),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_a_leader_gives_up_records_and_only_what_it_knows_to_be_committed() {
    let mut machine = new_leader();
    assert_eq!(asked_to_delete(&mut machine, HIGH_WATERMARK), Ok(4));
    assert_eq!(asked_to_delete(&mut machine, 1), Ok(1), "what is gone is no error");
    assert_eq!(asked_to_delete(&mut machine, -2), Err(ErrorCode::OFFSET_OUT_OF_RANGE));
    // It was committed under the leader before, perhaps: who asks may know.
    assert_eq!(asked_to_delete(&mut machine, 10), Err(ErrorCode::OFFSET_NOT_AVAILABLE));
    assert_eq!(asked_to_delete(&mut machine, 11), Err(ErrorCode::OFFSET_OUT_OF_RANGE));
    let fetch = Fetched {
        replica: 2,
        broker_epoch: 5,
        eligible_epoch: Some(5),
        leader_epoch: 1,
        from: 10,
        end: 10,
        log_start: 2,
    };
    let actions = machine.handle(Instant::default(), Input::Fetched(fetch));
    assert!(actions.contains(&Action::FollowerStartMoved), "{actions:?}");
    assert_eq!(asked_to_delete(&mut machine, 10), Ok(10));
    let again = machine.handle(Instant::default(), Input::Fetched(fetch));
    assert!(!again.contains(&Action::FollowerStartMoved), "{again:?}");
    let follow = Following { leader_epoch: 2, partition_epoch: 1, leader: Some(2) };
    machine.handle(Instant::default(), Input::Follow(follow));
    assert_eq!(asked_to_delete(&mut machine, 3), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    machine.handle(Instant::default(), Input::LogFailed);
    assert_eq!(asked_to_delete(&mut machine, 3), Err(ErrorCode::KAFKA_STORAGE_ERROR));
}
