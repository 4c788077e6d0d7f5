//! Producers stand still in the middle of a transaction until it is aborted for them, and then go on.
//!
//! The abort raises the producer's epoch, so that what the sleeper still sends is refused (KAFKA-6119, KIP-890).

use super::{CLUSTER_PROPERTIES, Entry};
use crate::generate::{Families, FaultSpace, Menu, Mix, cluster, faults, some_transactional, stream, strike};
use crate::plan::{Action, Family, Plan, Trigger};

pub const ENTRY: Entry = Entry {
    name: "zombie_producer",
    story: "Transactional producers pause for longer than their transactions may last. \
            Brokers abort what they left open, and the producers wake up and go on as if nothing had happened. \
            Nothing that they send afterwards joins an ended transaction, and the next one is whole.",
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
    sleep(&mut plan);
    let space = FaultSpace { from_ms: 500, to_ms: 9_000 };
    faults(&mut plan, space, Menu { process: (0, 2), duplicates: (0, 2), ..Menu::default() });
    plan
}

/// Pauses of clients with transactions, longer than a transaction may last.
pub(super) fn sleep(plan: &mut Plan) {
    let mut rng = stream(plan, ENTRY.name, &[]);
    plan.knobs.client.transaction_timeout_ms = *rng.choose(&[800, 1_200, 2_000]);
    // Long enough that transactions are often under way.
    plan.knobs.client.linger_ms = *rng.choose(&[5, 20, 100]);
    let mut rng = stream(plan, ENTRY.name, &[Family::Process as u64]);
    for _ in 0..rng.range(4, 9) {
        let node = some_transactional(plan, &mut rng);
        let for_ms = plan.knobs.client.transaction_timeout_ms + rng.range(0, 2_500);
        strike(plan, Family::Process, Trigger::At { ms: rng.range(300, 9_500) }, Action::Pause { node, for_ms });
    }
}
