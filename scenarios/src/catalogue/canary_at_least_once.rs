//! A canary: a sink without transactions, judged as exactly-once, under crashes.

use super::Entry;
use crate::generate::{EventTime, Families, JobText, base, events, stream, with_brokers, with_job};
use crate::plan::{Action, Family, Fault, NodeName, Plan, Role, Target, Trigger};

pub const ENTRY: Entry = Entry {
    name: "canary_at_least_once",
    story: "The processor writes its rows without transactions. \
            Workers crash between checkpoints and repeat what they had written since. \
            Repeated rows must be found: a harness that does not see them is blind (exit 16).",
    properties: &["window-exactly-once"],
    must_fail: Some("window-exactly-once"),
    allowed: &[],
    rare: &[],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mut plan = base(ENTRY.name, seed, families);
    let job = JobText {
        window_ms: 500,
        out_of_orderness_ms: 300,
        idle_after_ms: 1_500,
        allowed_lateness_ms: 0,
        decisions_topic: false,
        exactly_once: false,
    };
    with_brokers(&mut plan, 3);
    with_job(&mut plan, job.toml(), 2);
    if let Some(p) = &mut plan.knobs.processor {
        p.checkpoint_interval_ms = 2_000;
    }
    let shape = EventTime {
        records: 600,
        partitions: 2,
        keys: 6,
        active_ms: 10_000,
        disorder_ms: 300,
        twists: false,
        idle_splits: 0,
        transactional_percent: 0,
        producers: 1,
    };
    events(&mut plan, job, shape);
    plan.budgets.safety_ms = 12_000;
    let mut rng = stream(&plan, "faults", &[Family::Process as u64]);
    plan.faults = (0..3)
        .map(|id| {
            let node = Target::Node(NodeName::new(Role::Worker, id % 2));
            let trigger = Trigger::At { ms: rng.range(2_500, 9_500) };
            Fault { id, family: Family::Process, trigger, action: Action::Crash { node, restart_after_ms: 300 } }
        })
        .collect();
    plan
}
