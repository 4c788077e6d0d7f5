//! Members of both protocols against the broker's own coordinator machine, in memory: calls and answers are lost, late
//! and doubled, members die and stop polling, the coordinator fails over, a topic grows. At no time do two members read
//! one partition, and once everything is quiet every partition is read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use broker::group::GroupConfig as Coordinating;
use broker::group::consumer::{Assignment as ById, Heartbeat};
use broker::group::machine::{Action as Did, Client, Machine, Now, Reply, Request, RequestId, Topics};
use broker::group::records::GroupRecord;
use broker::group::{classic as of_classic, consumer as of_consumer};
use env::clock::Instant;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use protocol::consumer_protocol::{Assignment, Subscription};
use protocol::{ErrorCode, Uuid};

use super::assignor::Assignor;
use super::classic::Classic;
use super::membership::{Action, Answer, Call, CallId, Input, Membership, Partitions, Refused, Settings};
use super::modern::Modern;
use crate::backoff::Backoff;
use crate::metadata::TopicPartition;

const SESSION_MS: u64 = 6_000;
const REBALANCE_MS: u64 = 12_000;
const REQUEST_MS: u64 = 2_000;

#[derive(Default)]
struct Cluster {
    partitions: i32,
}

impl Topics for Cluster {
    fn topic(&self, name: &str) -> Option<(Uuid, i32)> {
        (name == "t").then_some((Uuid::from_u128(1), self.partitions))
    }

    fn name(&self, _: Uuid) -> Option<String> {
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Eager,
    Cooperative,
    Modern,
}

struct Peer {
    membership: Membership,
    /// What it fetches.
    reads: Partitions,
    acknowledges: bool,
    present: bool,
    /// A member that died is deaf to what comes later.
    life: u64,
}

fn settings(kind: Kind, instance: Option<&str>) -> Settings {
    Settings {
        instance_id: instance.map(str::to_owned),
        topics: vec!["t".to_owned()],
        session_timeout: Duration::from_millis(SESSION_MS),
        rebalance_timeout: Duration::from_millis(REBALANCE_MS),
        heartbeat_interval: Duration::from_millis(1_000),
        assignors: vec![if kind == Kind::Cooperative { Assignor::CooperativeSticky } else { Assignor::Range }],
        rack: None,
        backoff: Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(1) },
    }
}

/// Something on its way.
enum Flight {
    Call { peer: usize, life: u64, id: CallId, call: Call },
    Answer { peer: usize, life: u64, id: CallId, result: Result<Answer, Refused> },
}

struct World {
    kind: Kind,
    now: u64,
    machine: Machine,
    cluster: Cluster,
    log: Vec<GroupRecord>,
    next: u64,
    /// Requests that the coordinator has not answered.
    open: BTreeMap<u64, (usize, u64, CallId)>,
    flights: VecDeque<(u64, Flight)>,
    peers: Vec<Peer>,
    lives: u64,
    /// How many of the next messages are lost, and by how much those after are late.
    lose: u32,
    delay: u64,
}

fn coordinator() -> Machine {
    Machine::new(Coordinating {
        min_session_timeout_ms: 1,
        consumer_session_timeout: Duration::from_millis(SESSION_MS),
        consumer_heartbeat_interval: Duration::from_millis(1_000),
        ..Coordinating::default()
    })
}

impl World {
    fn new(kind: Kind, members: usize) -> Self {
        let mut world = Self {
            kind,
            now: 0,
            machine: coordinator(),
            cluster: Cluster { partitions: 5 },
            log: Vec::new(),
            next: 0,
            open: BTreeMap::new(),
            flights: VecDeque::new(),
            peers: Vec::new(),
            lives: 0,
            lose: 0,
            delay: 0,
        };
        for _ in 0..members {
            let peer = world.born();
            world.peers.push(peer);
        }
        world
    }

    fn at(&self) -> Instant {
        Instant::from_nanos(self.now * 1_000_000)
    }

    fn coordinator_now(&self) -> Now {
        Now { instant: self.at(), wall_ms: self.now as i64 }
    }

    fn born(&mut self) -> Peer {
        self.lives += 1;
        let settings = settings(self.kind, None);
        let membership = match self.kind {
            Kind::Modern => {
                Membership::Consumer(Modern::new(self.at(), settings, Uuid::from_u128(u128::from(self.lives) << 64)))
            }
            Kind::Eager | Kind::Cooperative => Membership::Classic(Classic::new(self.at(), settings)),
        };
        Peer { membership, reads: Partitions::new(), acknowledges: false, present: true, life: self.lives }
    }

    fn send(&mut self, flight: Flight) {
        if self.lose > 0 {
            self.lose -= 1;
            // Its sender waits in vain, for a while.
            let (Flight::Call { peer, life, id, .. } | Flight::Answer { peer, life, id, .. }) = flight;
            let lost = Refused { code: None, reason: "lost".into(), member_id: None };
            let at = self.now + REQUEST_MS;
            self.flights.push_back((at, Flight::Answer { peer, life, id, result: Err(lost) }));
            return;
        }
        self.flights.push_back((self.now + 5 + self.delay, flight));
    }

    fn act(&mut self, i: usize, actions: Vec<Action>) {
        for action in actions {
            let peer = &mut self.peers[i];
            match action {
                Action::Call { id, call } => {
                    let flight = Flight::Call { peer: i, life: peer.life, id, call };
                    self.send(flight);
                }
                Action::Share { id, assignor, members } => {
                    let topics = BTreeMap::from([("t".to_owned(), self.cluster.partitions)]);
                    let assigned = assignor.assign(&members, &topics);
                    let assignments = assigned.into_iter().map(|(m, a)| (m, a.encode())).collect();
                    self.input(i, Input::Shared { call: id, assignments });
                }
                Action::Revoke(revoked) => {
                    peer.reads.retain(|tp| !revoked.contains(tp));
                    peer.acknowledges = true;
                }
                Action::Take(taken) => peer.reads.extend(taken),
                Action::Lost(lost) => {
                    peer.reads.retain(|tp| !lost.contains(tp));
                    peer.acknowledges = false;
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        let mut readers = BTreeMap::new();
        for (i, peer) in self.peers.iter().enumerate() {
            for tp in &peer.reads {
                let other = readers.insert(tp, i);
                assert!(other.is_none(), "{tp} is read by {other:?} and {i} at {} ms", self.now);
            }
        }
    }

    fn input(&mut self, i: usize, input: Input) {
        let now = self.at();
        let actions = self.peers[i].membership.handle(now, input);
        self.act(i, actions);
    }

    fn polls(&mut self, i: usize) {
        if !std::mem::replace(&mut self.peers[i].present, true) {
            self.input(i, Input::Present);
        }
        if std::mem::take(&mut self.peers[i].acknowledges) {
            self.input(i, Input::Revoked);
        }
    }

    fn arrive(&mut self, flight: Flight) {
        match flight {
            Flight::Answer { peer, life, id, result } => {
                if self.peers[peer].life == life {
                    self.input(peer, Input::Answer { call: id, result });
                }
            }
            Flight::Call { peer, life, id, call } => {
                self.next += 1;
                self.open.insert(self.next, (peer, life, id));
                let request = request(call);
                let (fresh, request_id) = (Uuid::from_u128(u128::from(self.next) << 64), RequestId(self.next));
                let now = self.coordinator_now();
                let did = self.machine.handle(now, &self.cluster, "g", request_id, request, fresh);
                self.did(did);
            }
        }
    }

    fn did(&mut self, did: Vec<Did>) {
        for action in did {
            match action {
                Did::Persist(record) => self.log.push(record),
                Did::Reply { id, reply } => {
                    let Some((peer, life, id)) = self.open.remove(&id.0) else { continue };
                    let flight = Flight::Answer { peer, life, id, result: answer(reply) };
                    self.send(flight);
                }
            }
        }
    }

    /// Lets time go on to `until`, event by event.
    fn run(&mut self, until: u64) {
        loop {
            for i in 0..self.peers.len() {
                let now = self.at();
                let actions = self.peers[i].membership.poll(now);
                self.act(i, actions);
            }
            let now = self.coordinator_now();
            let did = self.machine.tick(now, &self.cluster);
            self.did(did);
            let due = self.flights.iter().position(|(at, _)| *at <= self.now);
            if let Some((_, flight)) = due.and_then(|i| self.flights.remove(i)) {
                self.arrive(flight);
                continue;
            }
            let nanos = |at: Instant| at.as_nanos().div_ceil(1_000_000);
            let timers = self.peers.iter().filter_map(|p| p.membership.next_timeout()).map(nanos);
            let next =
                timers.chain(self.machine.next_timeout().map(nanos)).chain(self.flights.iter().map(|(at, _)| *at));
            let next = next.min().unwrap_or(until);
            if next >= until {
                self.now = until;
                return;
            }
            self.now = next.max(self.now + 1);
        }
    }

    fn fail_over(&mut self) {
        self.machine = coordinator();
        for record in self.log.clone() {
            self.machine.replay(record);
        }
        let now = self.coordinator_now();
        self.machine.loaded(now, &self.cluster);
        // Connections break.
        for (peer, life, id) in std::mem::take(&mut self.open).into_values() {
            let lost = Refused { code: Some(ErrorCode::NOT_COORDINATOR), reason: "moved".into(), member_id: None };
            self.flights.push_back((self.now + 5, Flight::Answer { peer, life, id, result: Err(lost) }));
        }
    }
}

fn request(call: Call) -> Request {
    let client = Client { id: "c".into(), host: "/h".into() };
    match call {
        Call::Join { member_id, protocols } => Request::Join(of_classic::Join {
            member_id,
            instance_id: None,
            client,
            session_timeout_ms: SESSION_MS as i32,
            rebalance_timeout_ms: REBALANCE_MS as i32,
            protocol_type: "consumer".into(),
            protocols: protocols.into_iter().map(|(name, m)| (name.to_owned(), m)).collect(),
            id_required: true,
            can_skip_assignment: true,
        }),
        Call::Sync { member_id, generation, protocol, assignments } => Request::Sync(of_classic::Sync {
            who: of_classic::Who { member_id, instance_id: None, generation },
            protocol_type: Some("consumer".into()),
            protocol: Some(protocol),
            assignments: assignments.into_iter().collect(),
        }),
        Call::Heartbeat { member_id, generation } => {
            Request::Heartbeat(of_classic::Who { member_id, instance_id: None, generation })
        }
        Call::Leave { member_id } => Request::Leave(vec![of_classic::Leaving { member_id, instance_id: None }]),
        Call::ConsumerHeartbeat { member_id, epoch, full, owned } => {
            let mut by_id = ById::new();
            for tp in owned {
                by_id.entry(Uuid::from_u128(1)).or_default().insert(tp.partition);
            }
            Request::ConsumerHeartbeat(Heartbeat {
                member_id,
                epoch,
                client,
                rebalance_timeout_ms: if full { REBALANCE_MS as i32 } else { -1 },
                topics: full.then(|| BTreeSet::from(["t".to_owned()])),
                owned: full.then_some(by_id),
                ..Heartbeat::default()
            })
        }
    }
}

fn answer(reply: Reply) -> Result<Answer, Refused> {
    let refused = |code: ErrorCode, member_id| Err(Refused { code: Some(code), reason: "refused".into(), member_id });
    match reply {
        Reply::Joined(j) if !j.error.is_ok() => refused(j.error, Some(j.member_id)),
        Reply::Joined(j) => Ok(Answer::Joined {
            generation: j.generation,
            protocol: j.protocol.unwrap_or_default(),
            leads: j.leader == j.member_id,
            member_id: j.member_id,
            skip_assignment: j.skip_assignment,
            members: j.members,
        }),
        Reply::Synced(s) if !s.error.is_ok() => refused(s.error, None),
        Reply::Synced(s) => Ok(Answer::Synced(s.assignment)),
        Reply::Heartbeat(ErrorCode::NONE) => Ok(Answer::Beat),
        Reply::Heartbeat(error) => refused(error, None),
        Reply::Left(_) => Ok(Answer::Left),
        Reply::Beat(of_consumer::Beat { error, .. }) if !error.is_ok() => refused(error, None),
        Reply::Beat(b) => {
            let tps = |a: ById| a.into_values().flatten().map(|p| TopicPartition::new("t", p)).collect();
            Ok(Answer::Told {
                epoch: b.epoch,
                interval: Duration::from_millis(b.heartbeat_interval_ms as u64),
                assigned: b.assignment.map(tps),
                incomplete: false,
            })
        }
        Reply::Deleted(_) => refused(ErrorCode::UNKNOWN_SERVER_ERROR, None),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Polls(usize),
    Pass(u16),
    Lose(u8),
    Delay(u16),
    Dies(usize),
    Leaves(usize),
    Absent(usize),
    Grow,
    FailOver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0usize..3).prop_map(Step::Polls),
        10 => (0u16..3_000).prop_map(Step::Pass),
        2 => (0u8..4).prop_map(Step::Lose),
        2 => (0u16..1_500).prop_map(Step::Delay),
        1 => (0usize..3).prop_map(Step::Dies),
        1 => (0usize..3).prop_map(Step::Leaves),
        1 => (0usize..3).prop_map(Step::Absent),
        1 => Just(Step::Grow),
        1 => Just(Step::FailOver),
    ]
}

fn history(kind: Kind, steps: Vec<Step>) {
    let mut w = World::new(kind, 3);
    for step in steps {
        match step {
            Step::Polls(i) => w.polls(i),
            Step::Pass(ms) => w.run(w.now + u64::from(ms)),
            Step::Lose(n) => w.lose = n.into(),
            Step::Delay(ms) => w.delay = ms.into(),
            Step::Dies(i) => w.peers[i] = w.born(),
            Step::Leaves(i) => {
                w.input(i, Input::Leave);
                w.peers[i] = w.born();
            }
            Step::Absent(i) => {
                w.peers[i].present = false;
                w.input(i, Input::Absent);
            }
            Step::Grow => w.cluster.partitions = w.cluster.partitions.min(8) + 1,
            Step::FailOver => w.fail_over(),
        }
    }
    (w.lose, w.delay) = (0, 0);
    for _ in 0..400 {
        for i in 0..3 {
            w.polls(i);
        }
        w.run(w.now + 250);
    }
    // A classic leader looks for new partitions by itself.
    if kind != Kind::Modern {
        for i in 0..3 {
            w.input(i, Input::TopicsChanged);
            for _ in 0..100 {
                for i in 0..3 {
                    w.polls(i);
                }
                w.run(w.now + 100);
            }
        }
    }
    let read: usize = w.peers.iter().map(|p| p.reads.len()).sum();
    assert_eq!(read, w.cluster.partitions as usize, "{:?}", w.peers.iter().map(|p| &p.membership).collect::<Vec<_>>());
    assert!(w.peers.iter().all(|p| p.membership.fatal().is_none()));
}

fn histories(kind: Kind) {
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let run = |steps| {
        history(kind, steps);
        Ok(())
    };
    runner.run(&proptest::collection::vec(step(), 0..80), run).unwrap();
}

#[test]
fn eager_members() {
    histories(Kind::Eager);
}

#[test]
fn cooperative_members() {
    histories(Kind::Cooperative);
}

#[test]
fn members_of_the_consumer_protocol() {
    histories(Kind::Modern);
}

/// A member that lost its partitions between JoinGroup and SyncGroup joins once more: what it had named there, and was not
/// given again, is held back for it otherwise.
#[test]
fn what_was_lost_on_the_way_to_an_assignment_is_given_out() {
    let now = Instant::from_nanos(0);
    let after = |ms: u64| now + Duration::from_millis(ms);
    let mut m = Classic::new(now, settings(Kind::Cooperative, None));
    let call = |actions: Vec<Action>| {
        let calls = actions.into_iter().filter_map(|a| match a {
            Action::Call { id, call } => Some((id, call)),
            _ => None,
        });
        calls.last().expect("a call")
    };
    let joined = |generation| Answer::Joined {
        generation,
        protocol: Assignor::CooperativeSticky.name().to_owned(),
        member_id: "m".to_owned(),
        leads: false,
        skip_assignment: false,
        members: Vec::new(),
    };
    let synced = |partitions: Vec<i32>| {
        let partitions = BTreeMap::from([("t".to_owned(), partitions)]);
        Answer::Synced(Assignment { partitions, user_data: None }.encode())
    };
    let owned = |call: &Call| match call {
        Call::Join { protocols, .. } => Subscription::decode(protocols[0].1.clone()).expect("ours").owned,
        _ => panic!("JoinGroup was expected"),
    };
    let (join, _) = call(m.poll(now));
    let (sync, _) = call(m.handle(now, Input::Answer { call: join, result: Ok(joined(1)) }));
    m.handle(now, Input::Answer { call: sync, result: Ok(synced(vec![0, 1, 2])) });
    assert_eq!(m.owned().len(), 3);

    // A round begins: it names all three, and hears nothing for as long as its session lasts.
    let (beat, _) = call(m.poll(after(1_000)));
    let moves = Refused { code: Some(ErrorCode::REBALANCE_IN_PROGRESS), reason: "moves".into(), member_id: None };
    let (join, asked) = call(m.handle(after(1_001), Input::Answer { call: beat, result: Err(moves) }));
    assert_eq!(owned(&asked)["t"], [0, 1, 2]);
    m.poll(after(1_000 + SESSION_MS));
    assert_eq!(m.owned().len(), 0, "its session has ended");

    let later = after(1_100 + SESSION_MS);
    let (sync, _) = call(m.handle(later, Input::Answer { call: join, result: Ok(joined(2)) }));
    let (_, again) = call(m.handle(later, Input::Answer { call: sync, result: Ok(synced(vec![2])) }));
    assert_eq!(owned(&again)["t"], [2], "0 and 1 are free");
}

#[test]
fn an_answer_to_an_earlier_generation_is_let_be() {
    let mut w = World::new(Kind::Eager, 1);
    w.run(2_000);
    assert_eq!(w.peers[0].reads.len(), 5);
    // A heartbeat is on its way as the group moves on; its answer speaks of the generation before (KAFKA-9823).
    let stale = Refused { code: Some(ErrorCode::ILLEGAL_GENERATION), reason: "stale".into(), member_id: None };
    w.input(0, Input::Answer { call: 1, result: Err(stale) });
    assert_eq!(w.peers[0].reads.len(), 5);
}
