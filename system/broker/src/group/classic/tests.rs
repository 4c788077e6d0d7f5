//! The classic protocol step by step, and over random histories of joins, losses, late messages and failovers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use env::clock::Instant;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use protocol::{ErrorCode, Uuid};

use super::*;
use crate::group::machine::{Action, Group as AnyGroup, GroupConfig, Machine, Now, Reply, Request, Topics};

struct NoTopics;

impl Topics for NoTopics {
    fn topic(&self, _: &str) -> Option<(Uuid, i32)> {
        None
    }

    fn name(&self, _: Uuid) -> Option<String> {
        None
    }
}

struct Coordinator {
    machine: Machine,
    now: u64,
    next: u64,
    log: Vec<GroupRecord>,
    replies: BTreeMap<u64, Reply>,
}

impl Coordinator {
    fn new() -> Self {
        let config = GroupConfig { min_session_timeout_ms: 1, ..GroupConfig::default() };
        Self { machine: Machine::new(config), now: 0, next: 0, log: Vec::new(), replies: BTreeMap::new() }
    }

    fn now(&self) -> Now {
        Now { instant: Instant::from_nanos(self.now * 1_000_000), wall_ms: self.now as i64 }
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Persist(record) => self.log.push(record),
                Action::Reply { id, reply } => {
                    let again = self.replies.insert(id.0, reply);
                    assert!(again.is_none(), "answered twice");
                }
            }
        }
    }

    fn ask(&mut self, request: Request) -> u64 {
        self.next += 1;
        let (id, fresh) = (RequestId(self.next), Uuid::from_u128(self.next.into()));
        let actions = self.machine.handle(self.now(), &NoTopics, "g", id, request, fresh);
        self.take(actions);
        id.0
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        let actions = self.machine.tick(self.now(), &NoTopics);
        self.take(actions);
    }

    /// Another broker leads from here on.
    fn fail_over(&mut self) {
        self.machine = Machine::new(GroupConfig { min_session_timeout_ms: 1, ..GroupConfig::default() });
        for record in self.log.clone() {
            self.machine.replay(record);
        }
        self.machine.loaded(self.now(), &NoTopics);
    }

    fn joined(&mut self, id: u64) -> Joined {
        match self.replies.remove(&id) {
            Some(Reply::Joined(joined)) => joined,
            other => panic!("{other:?}"),
        }
    }

    fn synced(&mut self, id: u64) -> Synced {
        match self.replies.remove(&id) {
            Some(Reply::Synced(synced)) => synced,
            other => panic!("{other:?}"),
        }
    }

    fn beats(&mut self, member: &Joined) -> ErrorCode {
        let id = self.ask(Request::Heartbeat(who(member)));
        match self.replies.remove(&id) {
            Some(Reply::Heartbeat(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    /// Joins with an id of its own, as a client does.
    fn join(&mut self, instance: Option<&str>) -> u64 {
        let request = join("", instance);
        let id = self.ask(Request::Join(request.clone()));
        if instance.is_some() {
            return id;
        }
        let told = self.joined(id);
        assert_eq!(told.error, ErrorCode::MEMBER_ID_REQUIRED);
        self.ask(Request::Join(join(&told.member_id, None)))
    }

    fn sync(&mut self, member: &Joined, assignments: &[(&str, &'static str)]) -> u64 {
        let assignments =
            assignments.iter().map(|(id, a)| ((*id).to_owned(), Bytes::from_static(a.as_bytes()))).collect();
        self.ask(Request::Sync(Sync { who: who(member), protocol_type: None, protocol: None, assignments }))
    }

    fn group(&self) -> &Group {
        match self.machine.group("g") {
            Some(AnyGroup::Classic(g)) => g,
            other => panic!("{other:?}"),
        }
    }
}

fn who(member: &Joined) -> Who {
    Who { member_id: member.member_id.clone(), instance_id: None, generation: member.generation }
}

fn join(member_id: &str, instance: Option<&str>) -> Join {
    Join {
        member_id: member_id.to_owned(),
        instance_id: instance.map(str::to_owned),
        client: Client { id: "c".into(), host: "/h".into() },
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(b"meta"))],
        id_required: true,
        can_skip_assignment: true,
    }
}

/// Two members in a stable generation: leader first.
fn two(c: &mut Coordinator) -> (Joined, Joined) {
    let (a, b) = (c.join(None), c.join(None));
    c.pass(500);
    c.pass(500);
    let (a, b) = (c.joined(a), c.joined(b));
    let (leader, other) = if a.members.is_empty() { (b, a) } else { (a, b) };
    assert_eq!((leader.generation, other.generation, leader.members.len()), (1, 1, 2));
    let follower = c.sync(&other, &[]);
    assert!(!c.replies.contains_key(&follower), "the leader has not assigned");
    let assignments = [(leader.member_id.as_str(), "0"), (other.member_id.as_str(), "1")];
    let synced = c.sync(&leader, &assignments);
    assert_eq!((&c.synced(synced).assignment[..], &c.synced(follower).assignment[..]), (&b"0"[..], &b"1"[..]));
    (leader, other)
}

#[test]
fn two_join_and_share_and_survive_a_failover() {
    let mut c = Coordinator::new();
    let (leader, other) = two(&mut c);
    assert_eq!((c.beats(&leader), c.beats(&other)), (ErrorCode::NONE, ErrorCode::NONE));
    c.fail_over();
    assert_eq!((c.beats(&leader), c.beats(&other)), (ErrorCode::NONE, ErrorCode::NONE));
    assert_eq!(c.group().state(), State::Stable);
    let again = c.sync(&other, &[]);
    assert_eq!(&c.synced(again).assignment[..], b"1");
}

#[test]
fn a_silent_member_is_out_after_its_session() {
    let mut c = Coordinator::new();
    let (leader, other) = two(&mut c);
    c.pass(9_000);
    assert_eq!(c.beats(&leader), ErrorCode::NONE);
    c.pass(2_000);
    assert_eq!(c.beats(&leader), ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(c.beats(&other), ErrorCode::UNKNOWN_MEMBER_ID);
    let rejoin = c.ask(Request::Join(join(&leader.member_id, None)));
    let joined = c.joined(rejoin);
    assert_eq!((joined.generation, joined.members.len()), (2, 1));
}

#[test]
fn whoever_does_not_ask_for_its_part_is_out() {
    let mut c = Coordinator::new();
    let (leader, other) = two(&mut c);
    let third = c.join(None);
    let leader = c.ask(Request::Join(join(&leader.member_id, None)));
    let other = c.ask(Request::Join(join(&other.member_id, None)));
    let (leader, other, third) = (c.joined(leader), c.joined(other), c.joined(third));
    assert_eq!(leader.generation, 2);
    let sync = c.sync(&leader, &[]);
    assert_eq!(c.synced(sync).error, ErrorCode::NONE);
    let sync = c.sync(&other, &[]);
    assert_eq!(c.synced(sync).error, ErrorCode::NONE);
    // The third only sends heartbeats.
    for _ in 0..12 {
        c.pass(5_000);
        c.beats(&leader);
        c.beats(&other);
        c.beats(&third);
    }
    assert_eq!(c.beats(&third), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(c.beats(&leader), ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn a_lost_sync_of_the_leader_does_not_hold_up_the_group() {
    let mut c = Coordinator::new();
    let (a, b) = (c.join(None), c.join(None));
    c.pass(500);
    c.pass(500);
    let (a, b) = (c.joined(a), c.joined(b));
    let (leader, other) = if a.members.is_empty() { (b, a) } else { (a, b) };
    let waiting = c.sync(&other, &[]);
    for _ in 0..13 {
        c.pass(5_000);
        c.beats(&leader);
    }
    assert_eq!(c.synced(waiting).error, ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(c.beats(&leader), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_past() {
    let mut c = Coordinator::new();
    let (a, b) = (c.join(Some("one")), c.join(Some("two")));
    c.pass(500);
    c.pass(500);
    let (a, b) = (c.joined(a), c.joined(b));
    let (leader, other) = if a.members.is_empty() { (b, a) } else { (a, b) };
    c.sync(&leader, &[(&leader.member_id, "0"), (&other.member_id, "1")]);
    let instance = if other.member_id.starts_with("one") { "one" } else { "two" };
    let back = c.join(Some(instance));
    let back = c.joined(back);
    assert_eq!((back.error, back.generation, back.skip_assignment), (ErrorCode::NONE, 1, false));
    assert_ne!(back.member_id, other.member_id);
    let sync = c.sync(&back, &[]);
    assert_eq!(&c.synced(sync).assignment[..], b"1");
    let old = Who { instance_id: Some(instance.to_owned()), ..who(&other) };
    let id = c.ask(Request::Heartbeat(old));
    assert_eq!(c.replies.remove(&id), Some(Reply::Heartbeat(ErrorCode::FENCED_INSTANCE_ID)));
    c.fail_over();
    assert_eq!(c.beats(&back), ErrorCode::NONE);
}

#[test]
fn commits_are_fenced_by_the_generation() {
    let mut c = Coordinator::new();
    let nobody = Committer { member_id: "", instance_id: None, generation: -1, in_transaction: false };
    let check = |c: &mut Coordinator, who| {
        let now = c.now();
        c.machine.check_commit(now, &NoTopics, "g", who, [].iter())
    };
    assert_eq!(check(&mut c, nobody), Ok(()));
    assert_eq!(check(&mut c, Committer { generation: 1, ..nobody }), Err(ErrorCode::ILLEGAL_GENERATION));
    let (leader, _) = two(&mut c);
    let member = Committer { member_id: &leader.member_id, generation: 1, ..nobody };
    assert_eq!(check(&mut c, member), Ok(()));
    assert_eq!(check(&mut c, Committer { generation: 0, ..member }), Err(ErrorCode::ILLEGAL_GENERATION));
    assert_eq!(check(&mut c, Committer { member_id: "x", ..member }), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!(check(&mut c, nobody), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!(check(&mut c, Committer { in_transaction: true, ..nobody }), Ok(()));
}

#[test]
fn the_last_to_leave_empties_the_group_and_it_can_be_deleted() {
    let mut c = Coordinator::new();
    let (leader, other) = two(&mut c);
    let leaving = |m: &Joined| Leaving { member_id: m.member_id.clone(), instance_id: None };
    let id = c.ask(Request::Delete);
    assert_eq!(c.replies.remove(&id), Some(Reply::Deleted(ErrorCode::NON_EMPTY_GROUP)));
    let unknown = Leaving { member_id: "x".into(), instance_id: None };
    let id = c.ask(Request::Leave(vec![leaving(&leader), unknown, leaving(&other)]));
    let answers = vec![ErrorCode::NONE, ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::NONE];
    assert_eq!(c.replies.remove(&id), Some(Reply::Left(answers)));
    assert_eq!(c.group().state(), State::Empty);
    let id = c.ask(Request::Delete);
    assert_eq!(c.replies.remove(&id), Some(Reply::Deleted(ErrorCode::NONE)));
    assert!(c.machine.group("g").is_none());
    c.fail_over();
    assert!(c.machine.group("g").is_none());
}

/// A client that follows the protocol, but whose messages may be lost, late or doubled, and that may die.
#[derive(Clone, Debug, Default)]
struct Peer {
    instance: Option<String>,
    member_id: String,
    generation: i32,
    waits: Option<(u64, bool)>,
    assigned: Option<String>,
}

#[derive(Clone, Debug)]
enum Step {
    Act(usize),
    Forget(usize),
    Restart(usize),
    Leave(usize),
    Late,
    Pass(u16),
    FailOver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0usize..4).prop_map(Step::Act),
        1 => (0usize..4).prop_map(Step::Forget),
        1 => (0usize..4).prop_map(Step::Restart),
        1 => (0usize..4).prop_map(Step::Leave),
        2 => Just(Step::Late),
        5 => (0u16..4_000).prop_map(Step::Pass),
        1 => Just(Step::FailOver),
    ]
}

/// Within a generation each member has one assignment, all of one leader; generations that were stored only rise; and
/// once everything is quiet, the group is stable with everybody in it.
fn history(steps: Vec<Step>) {
    let mut c = Coordinator::new();
    let mut peers: Vec<Peer> = (0..4)
        .map(|i| Peer { instance: (i == 3).then(|| "static".to_owned()), generation: -1, ..Peer::default() })
        .collect();
    let mut sent: Vec<Request> = Vec::new();
    // What the members of a generation were told; a leader's assignment names itself.
    let mut told: BTreeMap<(i32, String), Bytes> = BTreeMap::new();
    let act = |c: &mut Coordinator,
               peers: &mut Vec<Peer>,
               sent: &mut Vec<Request>,
               told: &mut BTreeMap<_, _>,
               i: usize| {
        let peer = &mut peers[i];
        if let Some((id, joining)) = peer.waits {
            match c.replies.remove(&id) {
                None => return,
                Some(Reply::Joined(j)) if joining => {
                    peer.waits = None;
                    match j.error {
                        ErrorCode::NONE => {
                            peer.member_id = j.member_id.clone();
                            peer.generation = j.generation;
                            let assignments = j
                                .members
                                .iter()
                                .map(|(m, ..)| (m.clone(), Bytes::from(format!("{} by {}", j.generation, j.member_id))))
                                .collect();
                            let who = Who {
                                member_id: j.member_id,
                                instance_id: peer.instance.clone(),
                                generation: j.generation,
                            };
                            let request = Request::Sync(Sync { who, protocol_type: None, protocol: None, assignments });
                            sent.push(request.clone());
                            peer.waits = Some((c.ask(request), false));
                        }
                        ErrorCode::MEMBER_ID_REQUIRED => peer.member_id = j.member_id,
                        ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID => peer.member_id = String::new(),
                        ErrorCode::REBALANCE_IN_PROGRESS => {}
                        other => panic!("{other}"),
                    }
                }
                Some(Reply::Synced(s)) => {
                    peer.waits = None;
                    match s.error {
                        ErrorCode::NONE => {
                            let text = String::from_utf8(s.assignment.to_vec()).unwrap();
                            let before = told.insert((peer.generation, peer.member_id.clone()), s.assignment.clone());
                            assert!(before.is_none_or(|b| b == s.assignment), "two assignments in one generation");
                            let leaders: BTreeSet<_> = told
                                .iter()
                                .filter(|((g, _), a): &(&(i32, String), &Bytes)| *g == peer.generation && !a.is_empty())
                                .map(|(_, a)| a.clone())
                                .collect();
                            assert!(
                                leaders.len() <= 1,
                                "two leaders assigned in generation {}: {leaders:?}",
                                peer.generation
                            );
                            peer.assigned = Some(text);
                        }
                        ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID => {
                            peer.member_id = String::new();
                            peer.assigned = None;
                        }
                        _ => peer.assigned = None,
                    }
                }
                Some(other) => panic!("{other:?}"),
            }
            return;
        }
        if peer.assigned.is_some() {
            let who = Who {
                member_id: peer.member_id.clone(),
                instance_id: peer.instance.clone(),
                generation: peer.generation,
            };
            let request = Request::Heartbeat(who);
            sent.push(request.clone());
            let id = c.ask(request);
            match c.replies.remove(&id) {
                Some(Reply::Heartbeat(ErrorCode::NONE)) => {}
                Some(Reply::Heartbeat(ErrorCode::REBALANCE_IN_PROGRESS | ErrorCode::ILLEGAL_GENERATION)) => {
                    peer.assigned = None;
                }
                Some(Reply::Heartbeat(_)) => {
                    peer.assigned = None;
                    peer.member_id = String::new();
                }
                other => panic!("{other:?}"),
            }
            return;
        }
        let request = Request::Join(Join {
            session_timeout_ms: 3_000,
            rebalance_timeout_ms: 6_000,
            ..join(&peer.member_id, peer.instance.as_deref())
        });
        sent.push(request.clone());
        peer.waits = Some((c.ask(request), true));
    };
    for step in steps {
        match step {
            Step::Act(i) => act(&mut c, &mut peers, &mut sent, &mut told, i),
            // An answer is lost: the client asks again.
            Step::Forget(i) => peers[i].waits = None,
            Step::Restart(i) => {
                peers[i] = Peer { instance: peers[i].instance.clone(), generation: -1, ..Peer::default() }
            }
            Step::Leave(i) => {
                let (member_id, instance_id) = (peers[i].member_id.clone(), peers[i].instance.clone());
                if !member_id.is_empty() {
                    c.ask(Request::Leave(vec![Leaving { member_id, instance_id }]));
                }
                peers[i] = Peer { instance: peers[i].instance.clone(), generation: -1, ..Peer::default() };
            }
            Step::Late => {
                if let Some(request) = sent.get(sent.len() / 2).cloned() {
                    c.ask(request);
                }
            }
            Step::Pass(ms) => c.pass(ms.into()),
            Step::FailOver => {
                c.fail_over();
                // Connections break: nobody waits any more.
                for peer in &mut peers {
                    peer.waits = None;
                }
            }
        }
        let mut highest = 0;
        for record in &c.log {
            if let GroupRecord::Classic { value: Some(stored), .. } = record {
                assert!(stored.generation >= highest, "the generation falls");
                highest = stored.generation;
            }
        }
    }
    for _ in 0..400 {
        for i in 0..peers.len() {
            act(&mut c, &mut peers, &mut sent, &mut told, i);
            act(&mut c, &mut peers, &mut sent, &mut told, i);
        }
        c.pass(200);
    }
    assert_eq!((c.group().state(), c.group().members().len()), (State::Stable, 4), "{:?}", c.group());
    let of_now: BTreeSet<_> = peers.iter().map(|p| p.assigned.clone()).collect();
    assert!(of_now.len() == 1 && !of_now.contains(&None), "{of_now:?}");
}

#[test]
fn random_histories() {
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(&proptest::collection::vec(step(), 0..150), |steps| {
            history(steps);
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_initial_wait_gathers_members() {
    let mut c = Coordinator::new();
    let a = c.join(None);
    c.pass(400);
    let b = c.join(None);
    c.pass(100);
    assert!(!c.replies.contains_key(&a), "a member came during the wait: it is extended");
    c.pass(500);
    let (a, b) = (c.joined(a), c.joined(b));
    assert_eq!((a.generation, b.generation, a.members.len() + b.members.len()), (1, 1, 2));
}
