//! Events out of order, far beyond the bound, over connections that deliver late.

use super::{ALL_PROPERTIES, Entry};
use crate::generate::{
    EventTime, Families, FaultSpace, JobText, Menu, base, events, faults, stream, with_brokers, with_job,
};
use crate::plan::Plan;

pub const ENTRY: Entry = Entry {
    name: "reordering",
    story: "Events arrive far out of order, some behind the watermark's bound and some behind the allowed lateness. \
            Connections are held, reset and given up, so that requests arrive late as well. \
            Each record is judged on time, behind or late exactly as the recorded watermark says, and none is lost.",
    properties: ALL_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &["a record was late for all its windows", "an attempt restored from a checkpoint"],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mut plan = base(ENTRY.name, seed, families);
    let mut rng = stream(&plan, "shape", &[]);
    let out_of_orderness_ms = rng.range(100, 600);
    let job = JobText {
        window_ms: *rng.choose(&[400, 1_000, 2_000]),
        out_of_orderness_ms,
        idle_after_ms: 1_500,
        allowed_lateness_ms: *rng.choose(&[0, 300, 1_500]),
        decisions_topic: rng.chance(1, 3),
        exactly_once: true,
    };
    with_brokers(&mut plan, 3);
    with_job(&mut plan, job.toml(), 2);
    let shape = EventTime {
        records: 1_400,
        partitions: rng.range(2, 4) as u32,
        keys: rng.range(3, 12),
        active_ms: 14_000,
        disorder_ms: out_of_orderness_ms * 2,
        twists: true,
        idle_splits: 0,
        transactional_percent: *rng.choose(&[0, 30]),
        producers: 1,
    };
    events(&mut plan, job, shape);
    faults(
        &mut plan,
        FaultSpace { from_ms: 1_000, to_ms: 13_000 },
        Menu { net: (2, 5), duplicates: (1, 4), process: (0, 1), ..Menu::default() },
    );
    plan.budgets.safety_ms = 15_000;
    plan
}
