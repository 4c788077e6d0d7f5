//! Leaders that nobody follows go on writing; when they are back, what the others do not have is cut away.
//!
//! Where logs part is told by leader epochs (KIP-101, KIP-279, KIP-320), also after elections in which nothing was written.

use super::{CLUSTER_PROPERTIES, Entry};
use crate::generate::{Families, Mix, cluster, side_of, stream, strike, workload_partition};
use crate::plan::{Action, Family, Plan, Role, Target, Trigger};

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
    let mix = Mix { idempotent: 3, transactional: 1, records: 150, partitions: 2, active_ms: 10_000 };
    let mut plan = cluster(ENTRY.name, seed, families, mix);
    diverge(&mut plan);
    plan
}

/// Leaders with some of the producers on their side of a cut, and elections with little or no data in between.
pub(super) fn diverge(plan: &mut Plan) {
    let mut rng = stream(plan, "faults", &[Family::Net as u64]);
    let mut ms = rng.range(300, 2_000);
    while ms < 9_500 {
        let leader = Target::Leader(workload_partition(plan, &mut rng));
        let nodes = side_of(plan, &mut rng, leader, |role| role == Role::Client);
        let for_ms = rng.range(1_500, 4_500);
        let split = Action::Split { nodes, for_ms };
        strike(plan, Family::Net, Trigger::At { ms }, split);
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
