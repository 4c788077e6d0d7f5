//! Leaders that nobody follows go on writing; when they are back, what the others do not have is cut away.
//!
//! Where logs part is told by leader epochs (KIP-101, KIP-279, KIP-320), also after elections in which nothing was written.

use super::{CLUSTER_PROPERTIES, Entry};
use crate::generate::{Families, Mix, broker_node, cluster_of, side_of, stream, strike, workload_partition};
use crate::plan::{Action, CrashPoint, Family, Partition, Plan, Role, Target, Trigger, When};

pub const ENTRY: Entry = Entry {
    name: "truncation",
    story: "Leaders are cut off together with some producers and append what nobody else has. \
            Others take over meanwhile, some of them die before they wrote anything, and the old ones come back. \
            Whatever was not acknowledged is cut away at the right place, and all copies agree.",
    properties: CLUSTER_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[],
    generate: Some(generate),
};

/// Nothing strikes later than this.
const LAST_MS: u64 = 11_000;

fn generate(seed: u64, families: &Families) -> Plan {
    // Of five, a leader and one that follows it can be on the side that is no majority: with several partitions, of most
    // pairs of brokers one leads and the other follows somewhere.
    let (brokers, partitions) = if seed::draw(seed, "brokers", &[]).chance(1, 2) { (5, 6) } else { (3, 2) };
    let mix = Mix { idempotent: 3, transactional: 1, records: 150, partitions, active_ms: 10_000 };
    let mut plan = cluster_of(brokers, ENTRY.name, seed, families, mix);
    if brokers == 5 {
        plan.knobs.broker.leader_rebalance_ms = *seed::stream(seed, "leaders return", &[]).choose(&[800, 1_500, 3_000]);
    }
    diverge(&mut plan);
    plan
}

/// Leaders with some of the producers on their side of a cut, and elections with little or no data in between.
pub(super) fn diverge(plan: &mut Plan) {
    diverge_and_strike(plan, 2);
}

/// `cuts` of three times a leader is cut off alone, a crash point waits for the follower that cuts its log.
pub(super) fn diverge_and_strike(plan: &mut Plan, cuts: u64) {
    let mut rng = stream(plan, ENTRY.name, &[]);
    let mut ms = rng.range(300, 2_000);
    while ms < 9_500 {
        let partition = workload_partition(plan, &mut rng);
        ms = match plan.topology.brokers > 3 && rng.chance(2, 3) {
            true => with_a_follower(plan, &mut rng, partition, ms),
            false => alone(plan, &mut rng, partition, ms, cuts),
        };
        ms += rng.range(100, 2_000);
    }
}

/// A leader is cut off. The next one dies young, perhaps without having written anything. When it is over.
fn alone(plan: &mut Plan, rng: &mut seed::Rng, partition: Partition, ms: u64, cuts: u64) -> u64 {
    let leader = Target::Leader(partition);
    let for_ms = rng.range(1_500, 4_500);
    let nodes = side_of(plan, rng, leader, |role| role == Role::Client);
    strike(plan, Family::Net, Trigger::At { ms }, Action::Split { nodes, for_ms });
    for _ in 0..rng.range(0, 2) {
        let ms = (ms + rng.range(500, for_ms)).min(LAST_MS);
        let at = workload_partition(plan, rng);
        let node = if rng.chance(2, 3) { Target::Leader(at) } else { Target::Follower(at) };
        let action = Action::Crash { node, restart_after_ms: rng.range(100, 2_000) };
        strike(plan, Family::Process, Trigger::At { ms }, action);
    }
    // Whoever is about to cut its log does not come to it, and its leader dies before anything else is heard of it.
    if rng.chance(cuts, 3) {
        let node = Target::Role(Role::Broker);
        let (label, when) = ("truncate".to_owned(), When::Before);
        let point = CrashPoint { node, label, when, partition: None, nth: 1, after_ms: ms };
        let action = match rng.chance(1, 2) {
            true => Action::Pause { node, for_ms: rng.range(500, 3_000) },
            false => Action::Isolate { node, for_ms: rng.range(500, 3_000) },
        };
        strike(plan, Family::CrashPoints, Trigger::CrashPoint(point), action);
        let action = Action::Crash { node: leader, restart_after_ms: rng.range(500, 3_000) };
        let ms = (ms + for_ms + rng.range(100, 1_000)).min(LAST_MS);
        strike(plan, Family::Process, Trigger::At { ms }, action);
    }
    ms + for_ms
}

/// A leader is cut off together with one that follows it. What they alone have is cut away from the leader first: it is
/// back in time to lead again, while the other has missed the epoch in between and finds the leader that it had
/// (KAFKA-7164). When it is over.
fn with_a_follower(plan: &mut Plan, rng: &mut seed::Rng, partition: Partition, ms: u64) -> u64 {
    let knobs = &plan.knobs.broker;
    let (for_ms, returns_ms) = (knobs.session_timeout_ms + rng.range(800, 2_000), knobs.leader_rebalance_ms.min(3_000));
    let other = Target::Node(broker_node(plan, rng));
    let mut nodes = side_of(plan, rng, Target::Leader(partition), |role| role == Role::Client);
    nodes.push(other);
    strike(plan, Family::Net, Trigger::At { ms }, Action::Split { nodes, for_ms });
    let longer = Action::Isolate { node: other, for_ms: 500 + returns_ms + rng.range(800, 2_500) };
    strike(plan, Family::Net, Trigger::At { ms: (ms + for_ms - 500).min(LAST_MS) }, longer);
    ms + for_ms + returns_ms + 1_500
}
