//! The least of everything: three brokers, a coordinator, two workers, 2,000 records, one crash of each.

use super::{ALL_PROPERTIES, Entry};
use crate::generate::{
    EventTime, Families, FaultSpace, JobText, Menu, base, events, faults, stream, with_brokers, with_job,
};
use crate::plan::Plan;

pub const ENTRY: Entry = Entry {
    name: "smoke",
    story: "Two thousand events run through three brokers and a processor of two workers for half a minute. \
            A few crashes and cuts fall into it. \
            Every committed window equals the batch model, and every record is accounted for.",
    properties: ALL_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &["a split became idle", "an attempt restored from a checkpoint"],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mut plan = base(ENTRY.name, seed, families);
    let mut rng = stream(&plan, "shape", &[]);
    let job = JobText {
        window_ms: 1_000,
        out_of_orderness_ms: rng.range(200, 800),
        idle_after_ms: 1_500,
        allowed_lateness_ms: *rng.choose(&[0, 500]),
        decisions_topic: false,
        exactly_once: true,
    };
    with_brokers(&mut plan, 3);
    with_job(&mut plan, job.toml(), 2);
    let shape = EventTime {
        records: 2_000,
        partitions: 3,
        keys: 8,
        active_ms: 20_000,
        disorder_ms: 500,
        twists: true,
        idle_splits: 0,
        transactional_percent: 0,
        producers: 1,
    };
    events(&mut plan, job, shape);
    faults(
        &mut plan,
        FaultSpace { from_ms: 2_000, to_ms: 18_000 },
        Menu { net: (1, 2), process: (1, 2), crash_points: (0, 1), ..Menu::default() },
    );
    plan.budgets.safety_ms = 21_000;
    plan
}
