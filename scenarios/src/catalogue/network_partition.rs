//! The network falls apart: a leader alone or without its followers, the controller cut off, two halves with clients on
//! both sides, one direction only.
//!
//! A leader that nobody follows must not acknowledge; one that does not know that it was deposed is fenced by its epoch.

use super::{CLUSTER_PROPERTIES, Entry};
use crate::generate::{
    Families, Mix, broker_node, cluster_of, side_of, stream, strike, transactions_partition, workload_partition,
};
use crate::plan::{Action, Family, NodeName, Plan, Role, Target, Trigger};

pub const ENTRY: Entry = Entry {
    name: "network_partition",
    story: "Producers write to three or five brokers while cuts part the brokers from each other. \
            A broker is left alone, with some of the clients or with none, the controller is cut off, or bytes flow in one direction only. \
            What was acknowledged stays on whatever side it was, and after healing all copies are one again.",
    properties: CLUSTER_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mix = Mix { idempotent: 2, transactional: 2, records: 150, partitions: 3, active_ms: 10_000 };
    // Of five, a leader can lose a follower and keep another, on either side.
    let brokers = if seed::draw(seed, "brokers", &[]).chance(1, 2) { 5 } else { 3 };
    let mut plan = cluster_of(brokers, ENTRY.name, seed, families, mix);
    part(&mut plan);
    plan
}

/// Cuts that part the brokers from each other, and clients from some of them.
pub(super) fn part(plan: &mut Plan) {
    let brokers = plan.topology.brokers;
    let mut rng = stream(plan, ENTRY.name, &[Family::Net as u64]);
    for _ in 0..rng.range(2, 5) {
        let ms = rng.range(300, 9_000);
        let for_ms = rng.range(800, 6_000);
        let node = match rng.range(0, 3) {
            0 => Target::Controller,
            1 | 2 => Target::Leader(workload_partition(plan, &mut rng)),
            _ => Target::Node(broker_node(plan, &mut rng)),
        };
        // Of five, a leader may lose its followers alone: it stays the leader and is alone in the in-sync set, so that what
        // it waits for has an end that nobody knows.
        let leader_alone = (brokers == 5 && rng.chance(1, 2)).then(|| match rng.chance(1, 3) {
            true => workload_partition(plan, &mut rng),
            false => transactions_partition(plan, &mut rng),
        });
        let action = match rng.range(0, 4) {
            0 => Action::Isolate { node, for_ms },
            1 | 2 => Action::Split { nodes: side_of(plan, &mut rng, node, |role| role == Role::Client), for_ms },
            _ => {
                let from = broker_node(plan, &mut rng);
                let to =
                    NodeName::new(Role::Broker, (from.number + rng.range(1, u64::from(brokers) - 1) as u32) % brokers);
                Action::Cut { from: Target::Node(from), to: Target::Node(to), both: rng.chance(1, 3), for_ms }
            }
        };
        let alone = |at| Action::Cut { from: Target::Leader(at), to: Target::Followers(at), both: true, for_ms };
        strike(plan, Family::Net, Trigger::At { ms }, leader_alone.map_or(action, alone));
    }
}
