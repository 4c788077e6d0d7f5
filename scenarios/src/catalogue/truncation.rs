//! Leaders that nobody follows go on writing; when they are back, what the others do not have is cut away.
//!
//! Where logs part is told by leader epochs (KIP-101, KIP-279, KIP-320), also after elections in which nothing was written.

use super::{CLUSTER_PROPERTIES, Entry};
use crate::generate::{Families, Mix, broker_node, cluster_of, side_of, stream, strike, workload_partition};
use crate::plan::{Action, CrashPoint, Family, Plan, Role, Target, Trigger, When};

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
    let mut rng = stream(plan, ENTRY.name, &[]);
    let mut ms = rng.range(300, 2_000);
    while ms < 9_500 {
        let leader = Target::Leader(workload_partition(plan, &mut rng));
        let mut nodes = side_of(plan, &mut rng, leader, |role| role == Role::Client);
        let for_ms = rng.range(1_500, 4_500);
        // Of one that is there too, what it has in common with its leader is cut away from that one alone, if it is back
        // later: it has missed the epoch in between, and perhaps finds the same leader again (KAFKA-7164).
        if plan.topology.brokers > 3 && rng.chance(2, 3) {
            let other = Target::Node(broker_node(plan, &mut rng));
            nodes.push(other);
            let longer = Action::Isolate { node: other, for_ms: rng.range(1_000, 3_500) };
            strike(plan, Family::Net, Trigger::At { ms: (ms + for_ms - 300).min(11_000) }, longer);
            let action = Action::Crash { node: leader, restart_after_ms: rng.range(500, 2_500) };
            strike(
                plan,
                Family::Process,
                Trigger::At { ms: (ms + for_ms + rng.range(400, 1_800)).min(11_000) },
                action,
            );
        }
        let split = Action::Split { nodes, for_ms };
        strike(plan, Family::Net, Trigger::At { ms }, split);
        // Whoever is about to cut its log does not come to it, and its leader dies before anything else is heard of it.
        if rng.chance(1, 2) {
            let node = Target::Role(Role::Broker);
            let (label, when) = ("truncate".to_owned(), When::Before);
            let point = CrashPoint { node, label, when, partition: None, nth: 1, after_ms: ms };
            let action = match rng.chance(1, 2) {
                true => Action::Pause { node, for_ms: rng.range(500, 3_000) },
                false => Action::Isolate { node, for_ms: rng.range(500, 3_000) },
            };
            strike(plan, Family::CrashPoints, Trigger::CrashPoint(point), action);
            let action = Action::Crash { node: leader, restart_after_ms: rng.range(500, 3_000) };
            strike(
                plan,
                Family::Process,
                Trigger::At { ms: (ms + for_ms + rng.range(100, 1_000)).min(11_000) },
                action,
            );
        }
        // The next leader dies young, perhaps without having written anything.
        for _ in 0..rng.range(0, 2) {
            let ms = (ms + rng.range(500, for_ms)).min(11_000);
            let node = match rng.chance(2, 3) {
                true => Target::Leader(workload_partition(plan, &mut rng)),
                false => Target::Follower(workload_partition(plan, &mut rng)),
            };
            let action = Action::Crash { node, restart_after_ms: rng.range(100, 2_000) };
            strike(plan, Family::Process, Trigger::At { ms }, action);
        }
        ms += for_ms + rng.range(100, 2_000);
    }
}
