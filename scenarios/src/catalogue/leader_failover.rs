//! Leaders die right after they acknowledged, again and again, and so do the brokers that follow them.
//!
//! The high watermark of a follower lags that of its leader by a fetch (KIP-101): what a leader acknowledged is safe only
//! if the next leader keeps what it has.

use super::{CLUSTER_PROPERTIES, Entry};
use crate::generate::{
    Families, FaultSpace, Mix, broker_node, cluster, lose_a_disk, persistence, stream, strike, transactions_partition,
    workload_partition,
};
use crate::plan::{Action, CrashPoint, Family, Flush, NodeName, Plan, Role, Target, Trigger, When};

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
    let page_cache = seed::draw(seed, "page_cache", &[]).chance(1, 2);
    if page_cache {
        plan.knobs.broker.flush = Flush::PageCache;
        plan.knobs.broker.min_insync_replicas = 2;
    }
    if seed::draw(seed, "alone", &[]).chance(1, if page_cache { 2 } else { 3 }) {
        lose_a_tail_alone(&mut plan);
    } else {
        fail_over(&mut plan);
    }
    if seed::draw(seed, "a disk", &[]).chance(1, 4) {
        lose_a_disk(&mut plan, FaultSpace { from_ms: 1_000, to_ms: 9_000 });
    }
    plan
}

/// What only two have, one of them loses, and is back while the other stands still.
///
/// 1. `behind` stands still until it is out of the in-sync sets. 2. `loses` loses power, and with it what it has not synced; it
///    leaves the in-sync sets, which are `last` alone from then on. 3. `last` stands still before it could give that back.
///    4. Of those that are there, `loses` was in sync last. Where brokers acknowledge from the page cache, it must not lead
///    before `last` is back (KIP-966): it stopped without a goodbye. Where they sync first, it may: what it had not
///    synced counted for nothing.
fn lose_a_tail_alone(plan: &mut Plan) {
    let mut rng = stream(plan, "tail", &[]);
    let (lag_ms, session_ms) = (plan.knobs.broker.replica_lag_max_ms, plan.knobs.broker.session_timeout_ms);
    let first = rng.range(0, 2) as u32;
    let (second, third) = if rng.chance(1, 2) { (1, 2) } else { (2, 1) };
    let broker = |n: u32| Target::Node(NodeName::new(Role::Broker, n % 3));
    let (behind, loses, last) = (broker(first), broker(first + second), broker(first + third));
    let ms = rng.range(500, 3_000);
    let lost_ms = ms + lag_ms * 3 / 2 + rng.range(100, 900);
    let action = Action::Pause { node: behind, for_ms: lost_ms - ms + rng.range(300, 1_500) };
    strike(plan, Family::Process, Trigger::At { ms }, action);
    let unsynced = persistence(&mut rng);
    let action = Action::Power { node: loses, unsynced, restart_after_ms: rng.range(300, 1_500) };
    if plan.knobs.broker.flush == Flush::PageCache {
        strike(plan, Family::Disk, Trigger::At { ms: lost_ms }, action);
    } else {
        let (label, when, nth) = ("flush".to_owned(), When::Before, rng.range(1, 3) as u32);
        let point = CrashPoint { node: loses, label, when, partition: None, nth, after_ms: lost_ms };
        strike(plan, Family::CrashPoints, Trigger::CrashPoint(point), action);
    }
    let action = Action::Pause { node: last, for_ms: session_ms * 2 + rng.range(2_000, 5_000) };
    strike(plan, Family::Process, Trigger::At { ms: lost_ms + rng.range(20, 400) }, action);
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
