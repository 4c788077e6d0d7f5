//! Crashes at every step of a checkpoint.

use super::{ALL_PROPERTIES, Entry};
use crate::generate::{
    EventTime, Families, FaultSpace, JobText, Menu, base, events, faults, stream, with_brokers, with_job,
};
use crate::plan::Plan;

pub const ENTRY: Entry = Entry {
    name: "checkpoint_crash",
    story: "Checkpoints are taken often, and every step of one is interrupted somewhere. \
            Coordinator, workers and broker crash at barrier, snapshot, pre-commit, completion and commit. \
            The job restarts from the last complete checkpoint, and each committed epoch is there once, whole and of \
            one generation.",
    properties: ALL_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[
        "a prepared transaction is found again",
        "a restored transaction was committed",
        "an attempt restored from a checkpoint",
    ],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mut plan = base(ENTRY.name, seed, families);
    let mut rng = stream(&plan, "shape", &[]);
    let job = JobText {
        window_ms: *rng.choose(&[500, 1_000]),
        out_of_orderness_ms: rng.range(100, 500),
        idle_after_ms: 1_500,
        allowed_lateness_ms: *rng.choose(&[0, 500]),
        decisions_topic: rng.chance(1, 3),
        exactly_once: true,
    };
    with_brokers(&mut plan, 3);
    with_job(&mut plan, job.toml(), 2);
    if let Some(p) = &mut plan.knobs.processor {
        p.checkpoint_interval_ms = rng.range(400, 800);
    }
    let shape = EventTime {
        records: 1_200,
        partitions: rng.range(2, 4) as u32,
        keys: rng.range(3, 10),
        active_ms: 16_000,
        disorder_ms: 400,
        twists: rng.chance(1, 2),
        idle_splits: 0,
        transactional_percent: 0,
        producers: 1,
    };
    events(&mut plan, job, shape);
    faults(
        &mut plan,
        FaultSpace { from_ms: 1_500, to_ms: 15_000 },
        Menu { process: (1, 3), crash_points: (2, 5), power_at_crash_points: true, ..Menu::default() },
    );
    plan.budgets.safety_ms = 17_000;
    plan
}
