//! Produce requests and markers are held up beyond the end of their transactions.
//!
//! A request that arrives after the marker must not open a transaction that nobody will end (KIP-890), and markers that a
//! cut holds up must be written in the end.

use super::{CLUSTER_PROPERTIES, Entry};
use crate::generate::{
    Families, FaultSpace, Menu, Mix, broker_node, cluster, faults, some_transactional, stream, strike,
    transactions_partition, workload_partition,
};
use crate::plan::{Action, Family, Plan, Target, Trigger};

pub const ENTRY: Entry = Entry {
    name: "hanging_transaction",
    story: "Requests of transactional producers are held up for longer than their transactions may last. \
            Links between coordinators and leaders are cut while markers are under way. \
            In the end no transaction is open, and the last stable offset is the end of every log.",
    properties: CLUSTER_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[],
    generate: Some(generate),
};

const PRODUCERS: u32 = 4;

fn generate(seed: u64, families: &Families) -> Plan {
    let mix = Mix { idempotent: 0, transactional: PRODUCERS, records: 150, partitions: 3, active_ms: 10_000 };
    let mut plan = cluster(ENTRY.name, seed, families, mix);
    delay(&mut plan);
    let space = FaultSpace { from_ms: 500, to_ms: 9_000 };
    faults(&mut plan, space, Menu { process: (0, 2), ..Menu::default() });
    plan
}

/// Requests that arrive late, and coordinators that do not reach the leaders of their transactions' partitions.
pub(super) fn delay(plan: &mut Plan) {
    let mut rng = stream(plan, ENTRY.name, &[]);
    plan.knobs.client.transaction_timeout_ms = *rng.choose(&[800, 1_200, 2_000]);
    plan.knobs.client.request_timeout_ms = *rng.choose(&[400, 600, 1_000]);
    let mut rng = stream(plan, ENTRY.name, &[Family::Duplicates as u64]);
    for _ in 0..rng.range(3, 6) {
        let ms = rng.range(300, 8_500);
        let client = some_transactional(plan, &mut rng);
        let up_to_ms = plan.knobs.client.transaction_timeout_ms + rng.range(500, 3_000);
        let action = Action::Straggle {
            from: client,
            to: Target::Node(broker_node(plan, &mut rng)),
            per_million: rng.range(50_000, 300_000) as u32,
            up_to_ms,
            for_ms: rng.range(1_000, 3_000),
        };
        strike(plan, Family::Duplicates, Trigger::At { ms }, action);
    }
    // What the coordinator answers about a transaction comes after the transaction's marker.
    for _ in 0..rng.range(3, 6) {
        let action = Action::Straggle {
            from: Target::Leader(transactions_partition(plan, &mut rng)),
            to: Target::Leader(workload_partition(plan, &mut rng)),
            per_million: rng.range(200_000, 500_000) as u32,
            up_to_ms: plan.knobs.client.transaction_timeout_ms + rng.range(500, 1_500),
            for_ms: rng.range(1_000, 3_000),
        };
        strike(plan, Family::Duplicates, Trigger::At { ms: rng.range(300, 9_000) }, action);
    }
    for _ in 0..rng.range(1, 3) {
        let action = Action::Cut {
            from: Target::Leader(transactions_partition(plan, &mut rng)),
            to: Target::Leader(workload_partition(plan, &mut rng)),
            both: rng.chance(1, 2),
            for_ms: rng.range(500, 4_000),
        };
        strike(plan, Family::Net, Trigger::At { ms: rng.range(300, 9_000) }, action);
    }
}
