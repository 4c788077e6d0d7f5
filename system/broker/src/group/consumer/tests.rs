//! The consumer protocol step by step, and over random histories of joins, losses, late messages, growing topics and
//! failovers.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use env::clock::Instant;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use protocol::{ErrorCode, Uuid};

use super::*;
use crate::group::machine::{Action, Group as AnyGroup, GroupConfig, Machine, Now, Reply, Request, RequestId, Topics};

/// Topics "a" and "b".
#[derive(Default)]
struct Cluster {
    partitions: Cell<i32>,
}

impl Topics for Cluster {
    fn topic(&self, name: &str) -> Option<(Uuid, i32)> {
        match name {
            "a" => Some((Uuid::from_u128(1), self.partitions.get())),
            "b" => Some((Uuid::from_u128(2), 2)),
            _ => None,
        }
    }

    fn name(&self, _: Uuid) -> Option<String> {
        None
    }
}

struct Coordinator {
    machine: Machine,
    cluster: Cluster,
    now: u64,
    next: u64,
    log: Vec<GroupRecord>,
}

impl Coordinator {
    fn new(partitions: i32) -> Self {
        let cluster = Cluster { partitions: Cell::new(partitions) };
        Self { machine: Machine::new(GroupConfig::default()), cluster, now: 0, next: 0, log: Vec::new() }
    }

    fn now(&self) -> Now {
        Now { instant: Instant::from_nanos(self.now * 1_000_000), wall_ms: 0 }
    }

    fn take(&mut self, actions: Vec<Action>) -> Option<Beat> {
        let mut beat = None;
        for action in actions {
            match action {
                Action::Persist(record) => self.log.push(record),
                Action::Reply { reply: Reply::Beat(b), .. } => beat = Some(b),
                Action::Reply { .. } => {}
            }
        }
        beat
    }

    fn beat(&mut self, heartbeat: Heartbeat) -> Beat {
        self.next += 1;
        let (id, request) = (RequestId(self.next), Request::ConsumerHeartbeat(heartbeat));
        let fresh = Uuid::from_u128(self.next.into());
        let actions = self.machine.handle(self.now(), &self.cluster, "g", id, request, fresh);
        self.take(actions).expect("a heartbeat is answered at once")
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        let actions = self.machine.tick(self.now(), &self.cluster);
        self.take(actions);
    }

    fn fail_over(&mut self) {
        self.machine = Machine::new(GroupConfig::default());
        for record in self.log.clone() {
            self.machine.replay(record);
        }
        self.machine.loaded(self.now(), &self.cluster);
    }

    fn group(&self) -> &Group {
        match self.machine.group("g") {
            Some(AnyGroup::Consumer(g)) => g,
            other => panic!("{other:?}"),
        }
    }
}

/// A client that follows the protocol: it reads what it owns, and gives up before it takes.
#[derive(Clone, Debug, Default)]
struct Peer {
    member_id: String,
    instance: Option<String>,
    epoch: i32,
    owned: Assignment,
    assigned: Assignment,
    topics: BTreeSet<String>,
}

impl Peer {
    fn new(name: &str, instance: Option<&str>) -> Self {
        Self {
            member_id: name.to_owned(),
            instance: instance.map(str::to_owned),
            topics: BTreeSet::from(["a".to_owned(), "b".to_owned()]),
            ..Self::default()
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            member_id: self.member_id.clone(),
            epoch: self.epoch,
            instance_id: self.instance.clone(),
            rebalance_timeout_ms: 10_000,
            topics: Some(self.topics.clone()),
            owned: Some(self.owned.clone()),
            ..Heartbeat::default()
        }
    }

    fn hears(&mut self, beat: Beat) {
        match beat.error {
            ErrorCode::NONE => {
                self.epoch = beat.epoch;
                if let Some(assigned) = beat.assignment {
                    self.owned.retain(|t, _| assigned.contains_key(t));
                    self.assigned = assigned;
                }
            }
            ErrorCode::FENCED_MEMBER_EPOCH | ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND => {
                self.epoch = 0;
                self.owned.clear();
                self.assigned.clear();
            }
            ErrorCode::UNRELEASED_INSTANCE_ID => {}
            other => panic!("{other}"),
        }
    }

    fn reconcile(&mut self) {
        self.owned = self.assigned.clone();
    }
}

fn count(a: &Assignment) -> usize {
    partitions_of(a).count()
}

#[test]
fn a_member_is_told_until_it_says_what_it_has() {
    let mut c = Coordinator::new(4);
    let (mut one, mut two) = (Peer::new("m1", None), Peer::new("m2", None));
    one.hears(c.beat(one.heartbeat()));
    one.reconcile();
    two.hears(c.beat(two.heartbeat()));
    assert_eq!(count(&two.assigned), 0, "the other has not given anything up");
    one.hears(c.beat(one.heartbeat()));
    one.reconcile();
    one.hears(c.beat(one.heartbeat()));

    // A heartbeat that says nothing new, and whose answer nobody hears.
    let short = |p: &Peer| Heartbeat { rebalance_timeout_ms: -1, topics: None, owned: None, ..p.heartbeat() };
    let lost = c.beat(short(&two));
    assert_eq!(count(lost.assignment.as_ref().unwrap()), 3);
    two.epoch = lost.epoch;
    two.hears(c.beat(short(&two)));
    assert_eq!(count(&two.assigned), 3, "told again");
    two.reconcile();
    two.hears(c.beat(two.heartbeat()));
    assert_eq!(c.beat(short(&two)).assignment, None, "it said that it has them");
    c.fail_over();
    assert_eq!(count(c.beat(short(&two)).assignment.as_ref().unwrap()), 3, "what it said is in no log");
}

#[test]
fn a_second_member_gets_its_part_once_the_first_gave_it_up() {
    let mut c = Coordinator::new(4);
    let (mut one, mut two) = (Peer::new("m1", None), Peer::new("m2", None));
    one.hears(c.beat(one.heartbeat()));
    assert_eq!((one.epoch, count(&one.assigned)), (1, 6));
    one.reconcile();
    two.hears(c.beat(two.heartbeat()));
    assert_eq!((two.epoch, count(&two.assigned)), (2, 0));
    let beat = c.beat(one.heartbeat());
    assert_eq!((beat.epoch, count(beat.assignment.as_ref().unwrap())), (1, 3));
    one.hears(beat);
    // It still owns all: nothing is given away.
    two.hears(c.beat(two.heartbeat()));
    assert_eq!(count(&two.assigned), 0);
    one.reconcile();
    one.hears(c.beat(one.heartbeat()));
    assert_eq!(one.epoch, 2);
    two.hears(c.beat(two.heartbeat()));
    assert_eq!((two.epoch, count(&two.assigned), c.group().state_name()), (2, 3, "Stable"));
}

#[test]
fn a_member_that_gives_nothing_up_is_out_after_its_time() {
    let mut c = Coordinator::new(4);
    let (mut one, mut two) = (Peer::new("m1", None), Peer::new("m2", None));
    one.hears(c.beat(one.heartbeat()));
    one.reconcile();
    two.hears(c.beat(two.heartbeat()));
    one.hears(c.beat(one.heartbeat()));
    c.pass(9_000);
    let stubborn = Heartbeat { owned: None, ..one.heartbeat() };
    assert_eq!(c.beat(stubborn.clone()).error, ErrorCode::NONE);
    c.pass(2_000);
    assert_eq!(c.beat(stubborn).error, ErrorCode::UNKNOWN_MEMBER_ID);
    two.hears(c.beat(two.heartbeat()));
    assert_eq!(count(&two.assigned), 6);
}

#[test]
fn epochs_fence() {
    let mut c = Coordinator::new(4);
    let mut one = Peer::new("m1", None);
    one.hears(c.beat(one.heartbeat()));
    one.reconcile();
    let beat = |c: &mut Coordinator, epoch, owned| c.beat(Heartbeat { epoch, owned, ..one.heartbeat() }).error;
    assert_eq!(beat(&mut c, 7, None), ErrorCode::FENCED_MEMBER_EPOCH);
    c.cluster.partitions.set(5);
    assert_eq!(c.beat(one.heartbeat()).epoch, 2);
    // The answer was lost: the epoch before will do, with what it had.
    assert_eq!(beat(&mut c, 1, Some(one.owned.clone())), ErrorCode::NONE);
    assert_eq!(beat(&mut c, 1, None), ErrorCode::FENCED_MEMBER_EPOCH);
    let who = Committer { member_id: "m1", instance_id: None, generation: 2, in_transaction: false };
    let place = |partition| ("a".to_owned(), partition);
    let check = |who, partition| c.group().check_commit(&c.cluster, who, [place(partition)].iter());
    assert_eq!(check(who, 0), Ok(()));
    assert_eq!(check(Committer { generation: 3, ..who }, 0), Err(ErrorCode::STALE_MEMBER_EPOCH));
    assert_eq!(check(Committer { member_id: "x", ..who }, 0), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    // It has had the partition since epoch 1, but the new one and none of another topic.
    let before = Committer { generation: 1, ..who };
    assert_eq!(check(before, 0), Ok(()));
    assert_eq!(check(before, 4), Err(ErrorCode::STALE_MEMBER_EPOCH));
    assert_eq!(check(Committer { in_transaction: true, ..before }, 4), Err(ErrorCode::ILLEGAL_GENERATION));
    let all = c.group().check_commit(&c.cluster, before, [place(0), place(4)].iter());
    assert_eq!(all, Err(ErrorCode::STALE_MEMBER_EPOCH));
    assert_eq!(check(Committer { generation: 0, ..who }, 0), Err(ErrorCode::STALE_MEMBER_EPOCH));
}

#[test]
fn a_partition_given_up_and_had_again_is_fenced_from_before() {
    let mut c = Coordinator::new(4);
    let (mut one, mut two) = (Peer::new("m1", None), Peer::new("m2", None));
    one.hears(c.beat(one.heartbeat()));
    one.reconcile();
    let first = one.epoch;
    two.hears(c.beat(two.heartbeat()));
    for _ in 0..3 {
        for peer in [&mut one, &mut two] {
            peer.hears(c.beat(peer.heartbeat()));
            peer.reconcile();
        }
    }
    let kept = one.owned.clone();
    c.beat(Heartbeat { epoch: LEAVE, ..two.heartbeat() });
    one.hears(c.beat(one.heartbeat()));
    one.reconcile();
    c.fail_over();
    assert_eq!((count(&one.owned), count(&kept)), (6, 3));
    for (topic, name) in [(1, "a"), (2, "b")] {
        let topic = Uuid::from_u128(topic);
        for partition in &one.owned[&topic] {
            let who = Committer { member_id: "m1", instance_id: None, generation: first, in_transaction: false };
            let place = (name.to_owned(), *partition);
            let stayed = kept.get(&topic).is_some_and(|kept| kept.contains(partition));
            assert_eq!(c.group().check_commit(&c.cluster, who, [place].iter()).is_ok(), stayed, "{name} {partition}");
        }
    }
}

#[test]
fn a_static_member_that_left_for_now_gets_its_part_back() {
    let mut c = Coordinator::new(4);
    let (mut one, mut two) = (Peer::new("m1", Some("i1")), Peer::new("m2", Some("i2")));
    for _ in 0..4 {
        for peer in [&mut one, &mut two] {
            peer.hears(c.beat(peer.heartbeat()));
            peer.reconcile();
        }
    }
    assert_eq!((count(&one.owned), count(&two.owned)), (3, 3));
    let mut back = Peer::new("m3", Some("i1"));
    assert_eq!(c.beat(back.heartbeat()).error, ErrorCode::UNRELEASED_INSTANCE_ID);
    assert_eq!(c.beat(Heartbeat { epoch: LEAVE_FOR_NOW, ..one.heartbeat() }).epoch, LEAVE_FOR_NOW);
    let epoch = c.group().epoch();
    c.fail_over();
    back.hears(c.beat(back.heartbeat()));
    assert_eq!((&back.assigned, back.epoch, c.group().epoch()), (&one.owned, epoch, epoch));
    assert_eq!(c.beat(one.heartbeat()).error, ErrorCode::FENCED_INSTANCE_ID);
}

#[derive(Clone, Debug)]
enum Step {
    Beat(usize),
    Reconcile(usize),
    Lose(usize),
    Late(usize),
    Restart(usize),
    Leave(usize),
    Pass(u16),
    Grow,
    FailOver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0usize..4).prop_map(Step::Beat),
        8 => (0usize..4).prop_map(Step::Reconcile),
        2 => (0usize..4).prop_map(Step::Lose),
        2 => (0usize..40).prop_map(Step::Late),
        1 => (0usize..4).prop_map(Step::Restart),
        1 => (0usize..4).prop_map(Step::Leave),
        4 => (0u16..12_000).prop_map(Step::Pass),
        1 => Just(Step::Grow),
        1 => Just(Step::FailOver),
    ]
}

/// No partition is owned by two members that the coordinator still counts as such; epochs only rise; and once everything
/// is quiet, every partition is read by somebody.
fn history(steps: Vec<Step>) {
    let mut c = Coordinator::new(3);
    let name = |i: usize, incarnation: usize| format!("m{i}-{incarnation}");
    let instance = |i: usize| (i == 3).then_some("static");
    let mut peers: Vec<Peer> = (0..4).map(|i| Peer::new(&name(i, 0), instance(i))).collect();
    let mut sent: Vec<Heartbeat> = Vec::new();
    let mut incarnation = 0;
    let mut group_epoch = 0;
    for step in steps {
        match step {
            Step::Beat(i) => {
                let heartbeat = peers[i].heartbeat();
                sent.push(heartbeat.clone());
                let beat = c.beat(heartbeat);
                peers[i].hears(beat);
            }
            Step::Reconcile(i) => peers[i].reconcile(),
            Step::Lose(i) => {
                let heartbeat = peers[i].heartbeat();
                sent.push(heartbeat.clone());
                c.beat(heartbeat);
            }
            Step::Late(at) => {
                if let Some(heartbeat) = sent.iter().rev().nth(at).cloned() {
                    c.beat(heartbeat);
                }
            }
            Step::Restart(i) => {
                incarnation += 1;
                if peers[i].instance.is_some() {
                    c.beat(Heartbeat { epoch: LEAVE_FOR_NOW, ..peers[i].heartbeat() });
                }
                peers[i] = Peer::new(&name(i, incarnation), instance(i));
            }
            Step::Leave(i) => {
                incarnation += 1;
                c.beat(Heartbeat { epoch: LEAVE, ..peers[i].heartbeat() });
                peers[i] = Peer::new(&name(i, incarnation), instance(i));
            }
            Step::Pass(ms) => c.pass(ms.into()),
            Step::Grow => c.cluster.partitions.set(c.cluster.partitions.get().min(8) + 1),
            Step::FailOver => c.fail_over(),
        }
        let Some(AnyGroup::Consumer(g)) = c.machine.group("g") else { continue };
        assert!(g.epoch() >= group_epoch, "the group's epoch falls");
        group_epoch = g.epoch();
        let mut owners = BTreeMap::new();
        for peer in &peers {
            // One that was put out does not know it yet; it cannot commit.
            let known = g.members().get(&peer.member_id).map(|m| &m.current);
            let counts =
                known.is_some_and(|m| m.epoch == peer.epoch || m.previous_epoch == peer.epoch && peer.epoch > 0);
            for p in partitions_of(&peer.owned).filter(|_| counts) {
                let other = owners.insert(p, &peer.member_id);
                assert!(other.is_none(), "{p:?} is owned by {other:?} and {}", peer.member_id);
            }
        }
    }
    for _ in 0..40 {
        for peer in &mut peers {
            let beat = c.beat(peer.heartbeat());
            peer.hears(beat);
            peer.reconcile();
        }
        c.pass(5_000);
    }
    let read: BTreeSet<_> = peers.iter().flat_map(|p| partitions_of(&p.owned)).collect();
    let all: usize = peers.iter().map(|p| count(&p.owned)).sum();
    let expected = c.cluster.partitions.get() as usize + 2;
    assert_eq!((read.len(), all, c.group().state_name()), (expected, expected, "Stable"));
}

#[test]
fn random_histories() {
    let config = Config { cases: 1_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(&proptest::collection::vec(step(), 0..120), |steps| {
            history(steps);
            Ok(())
        })
        .unwrap();
}
