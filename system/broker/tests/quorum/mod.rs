//! Quorum machines of one, three and five voters on a network and on disks that do their worst.
//!
//! Messages are dropped, doubled, held for seconds and overtaken; links are cut one way or both; nodes stop between any
//! two actions of a call, keep some of what they had not synced, stall at a sync, or lose their disk. Snapshots are
//! taken and logs cut at the front at any time. Checked all along: one leader an epoch; one vote an epoch and voter,
//! whatever became of its disk; a committed record is never changed, never missing in a later leader; logs that share an
//! epoch and offset share everything before. Once all is healed, a record proposed is committed on every node.

mod act;
mod checks;
mod disk;
mod events;
mod nemesis;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use env::clock::Instant;
use protocol::Uuid;
use seed::Rng;
use streamproof_broker::quorum::log_view::LogView;
use streamproof_broker::quorum::machine::{Action, Config, Input, Machine, RequestId, RoleName, Token};
use streamproof_broker::quorum::message::{Answer, Batch, Batches, Fetched, Position, ReplicaKey, Request};
use streamproof_broker::quorum::state::QuorumState;

use disk::{Disk, Entry, Log, Snapshot};

#[derive(Debug)]
struct Node {
    id: i32,
    incarnation: u64,
    disk: Disk,
    /// Absent while the process is down.
    machine: Option<Machine>,
    stalled_until: Instant,
    /// A snapshot that arrived and is not yet in place.
    fetched: Option<Snapshot>,
    high_watermark: i64,
}

#[derive(Clone, Debug)]
enum Event {
    Request { from: i32, incarnation: u64, to: i32, id: RequestId, request: Request },
    Answer { from: i32, to: i32, incarnation: u64, id: RequestId, answer: Answer },
    Lost { node: i32, incarnation: u64, to: i32, id: RequestId },
    SnapshotArrives { node: i32, incarnation: u64, leader: i32, at: Position },
    Restart { node: i32 },
    Flushed { node: i32, incarnation: u64, end: i64 },
    Nemesis,
    Propose,
}

/// Where the answer to a request goes.
#[derive(Clone, Copy, Debug)]
struct ReturnTo {
    node: i32,
    incarnation: u64,
    id: RequestId,
}

struct World {
    rng: Rng,
    now: Instant,
    voters: BTreeSet<i32>,
    nodes: BTreeMap<i32, Node>,
    queue: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    tokens: BTreeMap<Token, ReturnTo>,
    /// (from, to) that carries nothing.
    cut: BTreeSet<(i32, i32)>,
    healed: bool,
    next_value: u64,
    next_directory: u128,
    // What was observed.
    committed: Vec<Entry>,
    leaders: BTreeMap<i32, i32>,
    votes: BTreeMap<(i32, i32), i32>,
    wipes: u64,
    rejoined: u64,
    snapshots_taken_over: u64,
    cuts: u64,
}

const ELECTION: Duration = Duration::from_millis(1000);
const FETCH: Duration = Duration::from_millis(2000);
const CALL: Duration = Duration::from_millis(1500);

fn survive(seed: u64, voters: i32, observers: i32) -> World {
    let mut world = World::new(seed, voters, observers);
    world.push(Instant::from_nanos(1_000_000_000), Event::Propose);
    world.push(Instant::from_nanos(500_000_000), Event::Nemesis);
    let faults = Duration::from_secs(world.rng.range(5, 60));
    world.run(Instant::from_nanos(0) + faults);
    world.heal();
    world.run(world.now + Duration::from_secs(25));
    let reached = world.committed.last().map_or(0, |e| e.batch.next);
    world.run(world.now + Duration::from_secs(5));
    let end = world.committed.last().map_or(0, |e| e.batch.next);
    assert!(end > reached, "nothing was committed after healing: {:#?}", states(&world));
    for node in world.nodes.values() {
        assert!(
            node.high_watermark >= reached,
            "node {} stays at {}: {:#?}",
            node.id,
            node.high_watermark,
            states(&world)
        );
        let joined = node.machine.as_ref().is_some_and(|m| m.state().voting);
        assert!(joined || !world.voters.contains(&node.id), "voter {} never joined: {:#?}", node.id, states(&world));
    }
    world.logs_match();
    world
}

fn states(world: &World) -> Vec<String> {
    let of = |n: &Node| {
        let machine = n.machine.as_ref();
        let role = machine.map(|m| (m.role(), m.state(), m.leader(), m.high_watermark(), m.log().end()));
        format!("{}: {role:?} next {:?} now {:?}", n.id, machine.and_then(Machine::next_timeout), world.now)
    };
    world.nodes.values().map(of).collect()
}

fn sweep(voters: i32, observers: i32, seeds: u64) {
    let first: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(seeds);
    let (mut leaders, mut rejoined, mut taken, mut cuts) = (0, 0, 0, 0);
    for seed in first..first + seeds {
        let world = std::panic::catch_unwind(|| survive(seed, voters, observers));
        let Ok(world) = world else { panic!("seed {seed} of {voters} voters failed") };
        leaders += world.leaders.len();
        rejoined += world.rejoined;
        taken += world.snapshots_taken_over;
        cuts += world.cuts;
    }
    println!(
        "{voters} voters: {leaders} leaders, {cuts} cuts, {rejoined} voters rejoined, {taken} snapshots taken over"
    );
    if voters > 1 {
        assert!(leaders as u64 > seeds && cuts > 0 && rejoined > 0 && taken > 0, "the sweep reaches what it is for");
    }
}

#[test]
fn quorum_of_three_keeps_what_it_committed() {
    sweep(3, 1, 150);
}

#[test]
fn quorum_of_five_keeps_what_it_committed() {
    sweep(5, 1, 60);
}

#[test]
fn quorum_of_one_keeps_what_it_committed() {
    sweep(1, 2, 60);
}

#[test]
fn an_only_voter_leads_at_once() {
    let mut world = World::new(1, 1, 0);
    world.healed = true;
    world.start(1);
    let machine = world.nodes[&1].machine.as_ref().expect("it is up");
    assert_eq!((machine.role(), machine.epoch(), machine.appendable()), (RoleName::Leader, 1, Some(1)));
}

#[test]
fn a_leader_hands_over_without_a_time_out() {
    let mut world = World::new(7, 3, 0);
    world.healed = true;
    world.run(Instant::from_nanos(6_000_000_000));
    let leading = |w: &World| {
        w.nodes.values().find(|n| n.machine.as_ref().is_some_and(|m| m.role() == RoleName::Leader)).map(|n| n.id)
    };
    let first = leading(&world).expect("three fresh voters elect one");
    let epoch = world.nodes[&first].machine.as_ref().expect("it is up").epoch();
    world.feed(first, Input::Resign);
    world.run(world.now + Duration::from_millis(200));
    let second = leading(&world).expect("a successor leads");
    assert_ne!(first, second);
    assert_eq!(world.nodes[&second].machine.as_ref().expect("it is up").epoch(), epoch + 1);
}

#[test]
fn a_leader_that_hears_from_no_majority_resigns() {
    let mut world = World::new(9, 3, 0);
    world.healed = true;
    world.run(Instant::from_nanos(6_000_000_000));
    let leader = *world.leaders.last_key_value().expect("a leader").1;
    for other in (1..=3).filter(|o| *o != leader) {
        world.cut.insert((other, leader));
    }
    world.run(world.now + FETCH * 2);
    let role = world.nodes[&leader].machine.as_ref().expect("it is up").role();
    assert_ne!(role, RoleName::Leader);
    assert!(world.leaders.last_key_value().is_some_and(|(_, l)| *l != leader), "the others elected one of them");
}
