//! Splits fall silent and wake.

use super::{ALL_PROPERTIES, Entry};
use crate::generate::{
    EventTime, Families, FaultSpace, JobText, Menu, base, events, faults, stream, with_brokers, with_job,
};
use crate::plan::Plan;

pub const ENTRY: Entry = Entry {
    name: "idle_partition",
    story: "Partitions fall silent for seconds at a time and wake again, some with events that are behind by then. \
            Workers crash and links are cut meanwhile, and an outage is not silence. \
            The watermark leaves silent splits out, takes them in again by the rules, and never moves back.",
    properties: ALL_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &["a split became idle", "an input came back behind its point's watermark"],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mut plan = base(ENTRY.name, seed, families);
    let mut rng = stream(&plan, "shape", &[]);
    let job = JobText {
        window_ms: *rng.choose(&[500, 1_000]),
        out_of_orderness_ms: rng.range(100, 600),
        idle_after_ms: rng.range(700, 1_200),
        allowed_lateness_ms: *rng.choose(&[0, 1_000]),
        decisions_topic: rng.chance(1, 3),
        exactly_once: true,
    };
    with_brokers(&mut plan, 3);
    with_job(&mut plan, job.toml(), 2);
    let partitions = rng.range(2, 4) as u32;
    let shape = EventTime {
        records: 1_200,
        partitions,
        keys: rng.range(3, 10),
        active_ms: 16_000,
        disorder_ms: 400,
        twists: rng.chance(1, 2),
        idle_splits: partitions - 1,
        transactional_percent: *rng.choose(&[0, 0, 40]),
        producers: 1,
    };
    events(&mut plan, job, shape);
    faults(
        &mut plan,
        FaultSpace { from_ms: 1_000, to_ms: 15_000 },
        Menu { net: (0, 2), process: (1, 3), crash_points: (0, 1), ..Menu::default() },
    );
    plan.budgets.safety_ms = 17_000;
    plan
}
