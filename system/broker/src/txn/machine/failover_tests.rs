//! Coordinators that follow each other over one log, the earlier ones not knowing that they are deposed; partitions that
//! take markers and records late, twice, and in any order. Whatever happens: a transaction has one outcome on all its
//! partitions, what a client was told to be committed is, and in the end nothing is open.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use env::clock::Instant;
use proptest::prelude::*;

use super::{Action, Config, Input, Machine, Now, Reply, Request, RequestId, Token, replay};
use crate::txn::state::{ProducerIdEpoch, Txn};

const ID: &str = "job";
const PARTITIONS: i32 = 3;

/// What one partition knows of one producer id, by the rules of its log.
#[derive(Debug)]
struct Producer {
    epoch: i16,
    coordinator_epoch: i32,
    open: bool,
    last_marker: usize,
}

#[derive(Debug, Default)]
struct Partition {
    /// Records and markers so far.
    len: usize,
    producers: BTreeMap<i64, Producer>,
    committed: BTreeSet<ProducerIdEpoch>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Marker {
    producer: ProducerIdEpoch,
    commit: bool,
    bumps: bool,
    coordinator_epoch: i32,
}

impl Partition {
    fn producer(&mut self, id: i64) -> &mut Producer {
        let unknown = Producer { epoch: -1, coordinator_epoch: -1, open: false, last_marker: 0 };
        self.producers.entry(id).or_insert(unknown)
    }

    /// A record whose coordinator was asked when the partition had `asked` entries.
    fn append(&mut self, of: ProducerIdEpoch, asked: usize) -> bool {
        let p = self.producer(of.producer_id);
        let refused = of.epoch < p.epoch || (p.open && of.epoch > p.epoch) || (!p.open && p.last_marker > asked);
        if !refused {
            (p.epoch, p.open) = (of.epoch, true);
            self.len += 1;
        }
        !refused
    }

    /// The transaction that it ended here, if any; an error if it was refused.
    fn mark(&mut self, marker: Marker) -> Result<Option<ProducerIdEpoch>, ()> {
        let len = self.len + 1;
        let p = self.producer(marker.producer.producer_id);
        if marker.coordinator_epoch < p.coordinator_epoch || marker.producer.epoch < p.epoch {
            return Err(());
        }
        if marker.bumps && marker.producer.epoch == p.epoch {
            return if p.open { Err(()) } else { Ok(None) };
        }
        let ended = ProducerIdEpoch::new(marker.producer.producer_id, p.epoch);
        let open = std::mem::replace(&mut p.open, false);
        (p.epoch, p.coordinator_epoch, p.last_marker) = (marker.producer.epoch, marker.coordinator_epoch, len);
        self.len = len;
        if open && marker.commit {
            self.committed.insert(ended);
        }
        Ok(open.then_some(ended))
    }
}

struct Coordinator {
    machine: Machine,
    queue: VecDeque<Action>,
    /// Partitions that have not answered yet, by the change whose markers they get.
    waiting: BTreeMap<Token, BTreeSet<i32>>,
}

/// A marker on its way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    coordinator: usize,
    token: Token,
    partition: i32,
    marker: Marker,
}

/// A write on its way: asked for, and once it is granted, to its partition.
#[derive(Clone, Copy, Debug)]
struct Write {
    producer: ProducerIdEpoch,
    partition: i32,
    asked: usize,
}

#[derive(Default)]
struct Client {
    identity: Option<ProducerIdEpoch>,
    /// Partitions written to in this transaction, acknowledged.
    written: BTreeSet<i32>,
    /// Writes that are not answered: it will not commit before.
    unanswered: usize,
    ending: Option<bool>,
}

struct World {
    now_ms: i64,
    log: Vec<(String, Option<Txn>)>,
    /// The last one leads.
    coordinators: Vec<Coordinator>,
    partitions: Vec<Partition>,
    wire: Vec<Sent>,
    /// Copies that arrive some time.
    stale: Vec<Sent>,
    asking: BTreeMap<RequestId, Write>,
    granted: Vec<Write>,
    initialising: BTreeSet<RequestId>,
    ends: BTreeMap<RequestId, (ProducerIdEpoch, bool)>,
    /// Requests to end that were made, and may come again.
    made: Vec<Request>,
    client: Client,
    next_request: u64,
    next_producer_id: i64,
    outcomes: BTreeMap<ProducerIdEpoch, bool>,
    promised: BTreeMap<ProducerIdEpoch, BTreeSet<i32>>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now_ms: 0,
            log: Vec::new(),
            coordinators: Vec::new(),
            partitions: (0..PARTITIONS).map(|_| Partition::default()).collect(),
            wire: Vec::new(),
            stale: Vec::new(),
            asking: BTreeMap::new(),
            granted: Vec::new(),
            initialising: BTreeSet::new(),
            ends: BTreeMap::new(),
            made: Vec::new(),
            client: Client::default(),
            next_request: 0,
            next_producer_id: 0,
            outcomes: BTreeMap::new(),
            promised: BTreeMap::new(),
        };
        world.fail_over(0);
        world
    }

    fn now(&self) -> Now {
        Now { instant: Instant::default() + Duration::from_millis(self.now_ms as u64), wall_ms: self.now_ms }
    }

    /// A new coordinator. Of what the one before had on its way to the log, the first `kept` records are in it.
    fn fail_over(&mut self, kept: usize) {
        if let Some(old) = self.coordinators.last() {
            let persists = old.queue.iter().filter_map(|action| match action {
                Action::Persist { transactional_id, txn, .. } => Some((transactional_id.clone(), Some(txn.clone()))),
                _ => None,
            });
            self.log.extend(persists.take(kept));
        }
        let mut machine =
            Machine::new(Config { max_timeout_ms: 60_000, two_phase_commit: true, expiration_ms: 1_000_000_000 }, 0);
        let actions = machine.load(self.now(), replay(self.log.clone()));
        self.coordinators.push(Coordinator { machine, queue: actions.into(), waiting: BTreeMap::new() });
        // Its client hears nothing more of what it asked.
        self.initialising.clear();
        self.client.unanswered = 0;
    }

    fn leader(&self) -> usize {
        self.coordinators.len() - 1
    }

    fn input(&mut self, at: usize, input: Input) {
        let now = self.now();
        let actions = self.coordinators[at].machine.handle(now, input);
        for action in actions {
            match action {
                Action::Reply { id, reply } => self.reply(id, reply),
                Action::AllocateProducerId { id, transactional_id, request } => {
                    self.next_producer_id += 1;
                    let fresh = Some(self.next_producer_id);
                    self.input(at, Input::Request { id, transactional_id, request, fresh });
                }
                action => self.coordinators[at].queue.push_back(action),
            }
        }
    }

    fn reply(&mut self, id: RequestId, reply: Reply) {
        if let Some(write) = self.asking.remove(&id) {
            if reply == Reply::Added {
                self.granted.push(write);
            } else if Some(write.producer) == self.client.identity {
                self.client.unanswered = self.client.unanswered.saturating_sub(1);
            }
        }
        if let (true, Reply::Initialized { producer, .. }) = (self.initialising.remove(&id), &reply) {
            self.client = Client { identity: Some(*producer), ..Client::default() };
        }
        if let (Some((of, commit)), Reply::Ended { producer }) = (self.ends.remove(&id), &reply) {
            if Some(of) != self.client.identity {
                return;
            }
            if commit && self.client.ending == Some(true) {
                self.promised.insert(of, self.client.written.clone());
            }
            self.client = Client { identity: Some(*producer), ..Client::default() };
        }
    }

    fn next_id(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    fn ask(&mut self, at: usize, id: RequestId, request: Request) {
        self.input(at, Input::Request { id, transactional_id: ID.into(), request, fresh: None });
    }

    fn init(&mut self) {
        self.client = Client::default();
        let id = self.next_id();
        self.initialising.insert(id);
        let request =
            Request::InitProducerId { timeout_ms: 1000, expected: None, two_phase: false, keep_prepared: false };
        self.ask(self.leader(), id, request);
    }

    /// The partition's leader may not know yet who coordinates.
    fn write(&mut self, partition: i32, behind: usize) {
        let Some(producer) = self.client.identity.filter(|_| self.client.ending.is_none()) else { return };
        let asked = self.partitions[partition as usize].len;
        let id = self.next_id();
        self.asking.insert(id, Write { producer, partition, asked });
        self.client.unanswered += 1;
        let partitions = vec![("t".to_owned(), partition)];
        let request = Request::AddPartitions { producer, partitions, verify_only: false, bumps: true };
        self.ask(self.leader().saturating_sub(behind), id, request);
    }

    /// A granted write arrives, perhaps long after its client gave it up.
    fn arrive(&mut self, i: usize) {
        if self.granted.is_empty() {
            return;
        }
        let write = self.granted.swap_remove(i % self.granted.len());
        let appended = self.partitions[write.partition as usize].append(write.producer, write.asked);
        if Some(write.producer) == self.client.identity {
            self.client.unanswered = self.client.unanswered.saturating_sub(1);
            if appended {
                self.client.written.insert(write.partition);
            }
        }
    }

    fn end(&mut self, commit: bool) {
        let Some(producer) = self.client.identity else { return };
        let commit = self.client.ending.unwrap_or(commit);
        if commit && self.client.unanswered > 0 {
            return;
        }
        self.client.ending = Some(commit);
        let request = Request::EndTxn { producer, commit, bumps: true };
        self.made.push(request.clone());
        let id = self.next_id();
        self.ends.insert(id, (producer, commit));
        self.ask(self.leader(), id, request);
    }

    /// Lets a coordinator do the oldest thing it has decided. A deposed one commits nothing.
    fn step(&mut self, at: usize) -> bool {
        let Some(action) = self.coordinators[at].queue.pop_front() else { return false };
        match action {
            Action::Persist { transactional_id, token, txn } => {
                if at == self.leader() {
                    self.log.push((transactional_id.clone(), Some(txn)));
                    self.input(at, Input::Persisted { transactional_id, token });
                }
            }
            Action::WriteMarkers { token, producer, commit, bumps, partitions, .. } => {
                let marker = Marker { producer, commit, bumps, coordinator_epoch: at as i32 };
                let of = partitions.iter().map(|(_, p)| *p);
                self.coordinators[at].waiting.insert(token, of.clone().collect());
                self.wire.extend(of.map(|partition| Sent { coordinator: at, token, partition, marker }));
            }
            other => panic!("{other:?}"),
        }
        true
    }

    fn mark(&mut self, sent: Sent) -> bool {
        let marked = self.partitions[sent.partition as usize].mark(sent.marker);
        if let Ok(Some(ended)) = marked {
            let outcome = *self.outcomes.entry(ended).or_insert(sent.marker.commit);
            assert_eq!(outcome, sent.marker.commit, "{ended:?} is torn");
        }
        marked.is_ok()
    }

    /// A marker arrives, and a copy of it may stay behind.
    fn deliver(&mut self, i: usize, copy: bool) {
        if self.wire.is_empty() {
            return;
        }
        let sent = self.wire.swap_remove(i % self.wire.len());
        if copy {
            self.stale.push(sent);
        }
        let Sent { coordinator, token, partition, .. } = sent;
        if !self.mark(sent) {
            // A deposed coordinator tries for a while.
            if coordinator == self.leader() {
                self.wire.push(sent);
            }
            return;
        }
        let Some(waiting) = self.coordinators[coordinator].waiting.get_mut(&token) else { return };
        waiting.remove(&partition);
        if waiting.is_empty() {
            self.coordinators[coordinator].waiting.remove(&token);
            self.input(coordinator, Input::MarkersWritten { transactional_id: ID.into(), token });
        }
    }

    fn late(&mut self, i: usize) {
        if !self.stale.is_empty() {
            let sent = self.stale.swap_remove(i % self.stale.len());
            self.mark(sent);
        }
    }

    fn again(&mut self, i: usize) {
        if !self.made.is_empty() {
            let request = self.made[i % self.made.len()].clone();
            let id = self.next_id();
            self.ask(self.leader(), id, request);
        }
    }

    fn quiesce(&mut self) {
        for _ in 0..10_000 {
            let leader = self.leader();
            let moved = self.step(leader);
            let before = self.wire.len();
            self.deliver(0, false);
            if !moved && before == 0 {
                return;
            }
        }
        panic!("the coordinator that leads does not come to an end");
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        for at in 0..self.coordinators.len() {
            self.input(at, Input::Tick);
        }
    }

    fn open(&self) -> usize {
        self.partitions.iter().flat_map(|p| p.producers.values()).filter(|p| p.open).count()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Init,
    Write { partition: i32, behind: usize },
    Arrive(usize),
    End { commit: bool },
    Again(usize),
    Step { behind: usize },
    Deliver { i: usize, copy: bool },
    Late(usize),
    FailOver { kept: usize },
    Pass { ms: i64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => Just(Op::Init),
        6 => (0..PARTITIONS, 0usize..2).prop_map(|(partition, behind)| Op::Write { partition, behind }),
        6 => any::<usize>().prop_map(Op::Arrive),
        3 => prop::bool::weighted(0.7).prop_map(|commit| Op::End { commit }),
        1 => any::<usize>().prop_map(Op::Again),
        14 => prop::bool::weighted(0.2).prop_map(|b| Op::Step { behind: usize::from(b) }),
        8 => (any::<usize>(), prop::bool::weighted(0.3)).prop_map(|(i, copy)| Op::Deliver { i, copy }),
        2 => any::<usize>().prop_map(Op::Late),
        1 => (0usize..3).prop_map(|kept| Op::FailOver { kept }),
        1 => (0i64..700).prop_map(|ms| Op::Pass { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_transaction_has_one_outcome_over_all_its_coordinators(ops in proptest::collection::vec(op(), 1..160)) {
        let mut world = World::new();
        world.init();
        world.quiesce();
        for op in ops {
            match op {
                Op::Init => world.init(),
                Op::Write { partition, behind } => world.write(partition, behind),
                Op::Arrive(i) => world.arrive(i),
                Op::End { commit } => world.end(commit),
                Op::Again(i) => world.again(i),
                Op::Step { behind } => {
                    world.step(world.leader().saturating_sub(behind));
                }
                Op::Deliver { i, copy } => world.deliver(i, copy),
                Op::Late(i) => world.late(i),
                Op::FailOver { kept } => world.fail_over(kept),
                Op::Pass { ms } => world.pass(ms),
            }
        }
        // Healed: what is decided is finished, what is open times out, and what is late comes at last.
        world.quiesce();
        world.pass(2_000);
        world.quiesce();
        prop_assert_eq!(world.open(), 0, "a transaction is open");
        while !world.granted.is_empty() {
            world.arrive(0);
        }
        while !world.stale.is_empty() {
            world.late(0);
        }
        prop_assert_eq!(world.open(), 0, "a late record opened a transaction that nobody ends");
        for (producer, partitions) in &world.promised {
            for p in partitions {
                prop_assert!(world.partitions[*p as usize].committed.contains(producer), "{:?} is lost in {}", producer, p);
            }
        }
        // And the id is of use to its next producer.
        for _ in 0..2 {
            world.init();
            world.quiesce();
        }
        world.write(0, 0);
        world.quiesce();
        world.arrive(0);
        world.end(true);
        world.quiesce();
        let last = world.promised.last_key_value();
        prop_assert!(last.is_some_and(|(_, partitions)| partitions.contains(&0)), "the next transaction commits");
    }
}
