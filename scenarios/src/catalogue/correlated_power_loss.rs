//! The whole rack loses power, as in the post that asks why anybody would want fsync.
//!
//! With replication alone, an acknowledgement from page caches is lost when all copies lose power at once; with
//! `flush=fsync` it is on the disks of the in-sync set.

use super::{CLUSTER_PROPERTIES, Entry};
use crate::generate::{Families, FaultSpace, Menu, Mix, cluster, faults, persistence, stream, strike};
use crate::plan::{Action, Family, NodeName, Plan, Role, Target, Trigger};

pub const ENTRY: Entry = Entry {
    name: "correlated_power_loss",
    story: "Producers write to three brokers that sync before they count a record as theirs. \
            All of them lose power at nearly the same instant, one or several times, and unsynced data is kept, lost or torn. \
            Every acknowledged record is still there once, whoever leads afterwards.",
    properties: CLUSTER_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mix = Mix { idempotent: 2, transactional: 2, records: 150, partitions: 3, active_ms: 9_000 };
    let mut plan = cluster(ENTRY.name, seed, families, mix);
    if seed::draw(seed, "slow_syncs", &[]).chance(2, 3) {
        // Disks that take their time have more to lose.
        plan.knobs.world.sync_latency_us = (4_000, 25_000);
    }
    let mut rng = stream(&plan, "faults", &[Family::Disk as u64]);
    for _ in 0..rng.range(1, 3) {
        let at = rng.range(500, 8_500);
        let apart = *rng.choose(&[0, 0, 5, 100, 400]);
        for number in 0..3 {
            let node = Target::Node(NodeName::new(Role::Broker, number));
            let restart_after_ms = rng.range(100, 2_500);
            let action = Action::Power { node, unsynced: persistence(&mut rng), restart_after_ms };
            strike(&mut plan, Family::Disk, Trigger::At { ms: at + rng.range(0, apart) }, action);
        }
    }
    let space = FaultSpace { from_ms: 300, to_ms: 8_500 };
    faults(&mut plan, space, Menu { crash_points: (0, 2), power_at_crash_points: true, ..Menu::default() });
    plan
}
