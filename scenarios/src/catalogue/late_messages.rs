//! Requests of one transaction arrive in the next.
//!
//! The three cases of KIP-890: a record that arrives after the end of its transaction opens one that hangs, or joins the
//! next one; an end that arrives late ends a later transaction.

use super::{CLUSTER_PROPERTIES, Entry};
use crate::generate::{
    Families, FaultSpace, Menu, Mix, cluster, faults, some_transactional, stream, strike, transactions_partition,
    workload_partition,
};
use crate::plan::{Action, Family, Plan, Target, Trigger};

pub const ENTRY: Entry = Entry {
    name: "late_messages",
    story: "Transactional producers give connections up and repeat themselves on new ones. \
            What they sent on the old ones arrives after all, often in the middle of the next transaction. \
            Each record is in its own transaction or nowhere, and each transaction ends as its producer said.",
    properties: CLUSTER_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[],
    generate: Some(generate),
};

const PRODUCERS: u32 = 4;

fn generate(seed: u64, families: &Families) -> Plan {
    let mix = Mix { idempotent: 0, transactional: PRODUCERS, records: 400, partitions: 2, active_ms: 10_000 };
    let mut plan = cluster(ENTRY.name, seed, families, mix);
    straggle(&mut plan);
    let space = FaultSpace { from_ms: 500, to_ms: 9_000 };
    faults(&mut plan, space, Menu { net: (0, 2), process: (0, 1), ..Menu::default() });
    plan
}

/// Requests of transactions that arrive after their clients have given them up.
pub(super) fn straggle(plan: &mut Plan) {
    let mut rng = stream(plan, ENTRY.name, &[]);
    plan.knobs.client.request_timeout_ms = *rng.choose(&[300, 400, 600]);
    let mut rng = stream(plan, ENTRY.name, &[Family::Duplicates as u64]);
    for _ in 0..rng.range(5, 10) {
        // Ends of transactions go to their coordinators, records to the leaders of their partitions.
        let to = match rng.chance(1, 2) {
            true => transactions_partition(plan, &mut rng),
            false => workload_partition(plan, &mut rng),
        };
        let action = Action::Straggle {
            from: some_transactional(plan, &mut rng),
            to: Target::Leader(to),
            per_million: rng.range(200_000, 600_000) as u32,
            up_to_ms: plan.knobs.client.request_timeout_ms + rng.range(100, 2_000),
            for_ms: rng.range(500, 2_500),
        };
        strike(plan, Family::Duplicates, Trigger::At { ms: rng.range(300, 9_500) }, action);
    }
}
