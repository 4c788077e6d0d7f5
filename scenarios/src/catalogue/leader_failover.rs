//! Leaders die right after they acknowledged, again and again, and so do the brokers that follow them.
//!
//! The high watermark of a follower lags that of its leader by a fetch (KIP-101): what a leader acknowledged is safe only
//! if the next leader keeps what it has.

use super::{CLUSTER_PROPERTIES, Entry};
use crate::generate::{
    Families, FaultSpace, Mix, broker_node, cluster, lose_a_disk, persistence, stream, strike, transactions_partition,
    workload_partition,
};
use crate::plan::{Action, Family, Flush, Plan, Target, Trigger};

pub const ENTRY: Entry = Entry {
    name: "leader_failover",
    story: "Producers write to three brokers that replicate. \
            Whoever leads a partition, coordinates a transaction or the cluster crashes, loses power or its disk, or stands still, and sometimes the one that took over too. \
            Every acknowledged record is in the log once, all copies agree below the high watermark, and no transaction hangs.",
    properties: CLUSTER_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mix = Mix { idempotent: 2, transactional: 2, records: 150, partitions: 3, active_ms: 10_000 };
    let mut plan = cluster(ENTRY.name, seed, families, mix);
    // With two in-sync copies of each, one of them may lose what it has not synced: it is known by its new epoch (KIP-903),
    // and does not count until it has caught up. One, and none that dies otherwise: whoever ends without a goodbye may have
    // lost its tail, for all the controller knows, and with all of them so a leader is taken that has (KIP-966).
    let page_cache = seed::draw(seed, "page_cache", &[]).chance(1, 3);
    if page_cache {
        plan.knobs.broker.flush = Flush::PageCache;
        plan.knobs.broker.min_insync_replicas = 2;
    }
    fail_over(&mut plan);
    if seed::draw(seed, "a disk", &[]).chance(1, 4) {
        lose_a_disk(&mut plan, FaultSpace { from_ms: 1_000, to_ms: 9_000 });
    }
    plan
}

/// Deaths and pauses of leaders, of those that follow them and of the controller.
pub(super) fn fail_over(plan: &mut Plan) {
    let page_cache = plan.knobs.broker.flush == Flush::PageCache;
    let mut power = false;
    let mut rng = stream(plan, ENTRY.name, &[Family::Process as u64]);
    for _ in 0..rng.range(3, 6) {
        let ms = rng.range(300, 10_000);
        let node = match rng.range(0, 9) {
            0..5 => Target::Leader(workload_partition(plan, &mut rng)),
            5 => Target::Follower(workload_partition(plan, &mut rng)),
            6..8 => Target::Leader(transactions_partition(plan, &mut rng)),
            8 => Target::Controller,
            _ => Target::Node(broker_node(plan, &mut rng)),
        };
        let restart_after_ms = rng.range(100, 2_500);
        let (family, action) = match rng.range(0, 4) {
            0 => (Family::Process, Action::Pause { node, for_ms: rng.range(500, 4_500) }),
            1 if !(page_cache && power) => {
                (Family::Disk, Action::Power { node, unsynced: persistence(&mut rng), restart_after_ms })
            }
            _ if page_cache => (Family::Process, Action::Pause { node, for_ms: rng.range(500, 4_500) }),
            _ => (Family::Process, Action::Crash { node, restart_after_ms }),
        };
        power |= matches!(action, Action::Power { .. });
        strike(plan, family, Trigger::At { ms }, action);
    }
}
