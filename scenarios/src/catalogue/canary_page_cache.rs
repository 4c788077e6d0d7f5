//! A canary: acknowledging from the page cache, judged as if it were durable, under power loss.
//!
//! This is a legal weak configuration (Apache Kafka's default on one replica). If the harness did not see it lose
//! acknowledged records, it would be blind to the same bug in the strong configuration.

use super::Entry;
use crate::generate::{Families, Mix, base, mixed_producers, stream};
use crate::plan::{Action, Family, Fault, Flush, NodeName, Persistence, Plan, Role, Target, Trigger};

pub const ENTRY: Entry = Entry {
    name: "canary_page_cache",
    story: "The broker acknowledges records that are only in its page cache. \
            Its machine loses power while producers write, and all unsynced data is lost. \
            Acknowledged records must be found missing: a harness that does not see it is blind (exit 16).",
    properties: &["acked-durable"],
    must_fail: Some("acked-durable"),
    allowed: &[],
    rare: &[],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mut plan = base(ENTRY.name, seed, families);
    plan.knobs.broker.flush = Flush::PageCache;
    mixed_producers(&mut plan, Mix { idempotent: 2, transactional: 0, records: 150, partitions: 2, active_ms: 5_000 });
    plan.budgets.safety_ms = 7_000;
    let mut rng = stream(&plan, "faults", &[Family::Disk as u64]);
    let node = Target::Node(NodeName::new(Role::Broker, 0));
    let action = Action::Power { node, unsynced: Persistence::Lost, restart_after_ms: 500 };
    plan.faults = (0..2)
        .map(|id| {
            let ms = rng.range(1_000, 5_000);
            Fault { id, family: Family::Disk, trigger: Trigger::At { ms }, action: action.clone() }
        })
        .collect();
    plan
}
