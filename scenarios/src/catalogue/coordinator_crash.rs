//! Transaction coordinators die at every step of a transaction.
//!
//! Between the decision and its markers, between the markers and the end: whoever coordinates next reads the log, and
//! finishes what was decided (KIP-98).

use super::{CLUSTER_PROPERTIES, Entry};
use crate::generate::{Families, Mix, cluster, persistence, stream, strike, transactions_partition};
use crate::plan::{Action, CrashPoint, Family, Plan, Role, Target, Trigger, When};

pub const ENTRY: Entry = Entry {
    name: "coordinator_crash",
    story: "Transactional producers write while the coordinators of their transactions die. \
            They die before and after each step: the decision is stored, markers are sent, markers are written, the end is stored. \
            Every transaction is whole or absent, and none is open in the end.",
    properties: CLUSTER_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[],
    generate: Some(generate),
};

/// Steps of a transaction on brokers.
const STEPS: &[&str] = &["txn.persist", "txn.send", "txn.marker", "txn.complete"];

fn generate(seed: u64, families: &Families) -> Plan {
    let mix = Mix { idempotent: 0, transactional: 4, records: 150, partitions: 3, active_ms: 10_000 };
    let mut plan = cluster(ENTRY.name, seed, families, mix);
    die_at_steps(&mut plan);
    plan
}

/// Deaths of coordinators at the steps of transactions.
pub(super) fn die_at_steps(plan: &mut Plan) {
    let mut rng = stream(plan, ENTRY.name, &[Family::CrashPoints as u64]);
    for _ in 0..rng.range(2, 5) {
        let point = CrashPoint {
            node: Target::Role(Role::Broker),
            label: (*rng.choose(STEPS)).to_owned(),
            when: if rng.chance(1, 2) { When::Before } else { When::After },
            partition: None,
            nth: rng.range(1, 4) as u32,
            after_ms: rng.range(300, 8_500),
        };
        let (node, restart_after_ms) = (point.node, rng.range(100, 3_000));
        let action = match rng.range(0, 5) {
            0 => Action::Pause { node, for_ms: rng.range(500, 4_500) },
            1 => Action::Isolate { node, for_ms: rng.range(500, 4_500) },
            2 => Action::Power { node, unsynced: persistence(&mut rng), restart_after_ms },
            _ => Action::Crash { node, restart_after_ms },
        };
        strike(plan, Family::CrashPoints, Trigger::CrashPoint(point), action);
    }
    for _ in 0..rng.range(0, 2) {
        let node = Target::Leader(transactions_partition(plan, &mut rng));
        let action = Action::Crash { node, restart_after_ms: rng.range(100, 3_000) };
        strike(plan, Family::Process, Trigger::At { ms: rng.range(500, 9_500) }, action);
    }
}
