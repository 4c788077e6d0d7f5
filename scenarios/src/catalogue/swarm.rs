//! Everything at once, with whole families of faults switched off by the seed.
//!
//! Swarm testing (Groce et al., 2012): a fault that is always on can hide the bug that needs its absence.

use super::{ALL_PROPERTIES, Entry};
use crate::generate::{
    EventTime, Families, FaultSpace, JobText, Menu, base, events, faults, stream, switch_off, with_brokers, with_job,
};
use crate::plan::{Family, Plan};

pub const ENTRY: Entry = Entry {
    name: "swarm",
    story: "A job of random shape runs under faults of every family, a few of each. \
            Each seed switches whole families off, so that combinations and absences are both tried. \
            All properties of broker and processor hold, and after healing the job converges and drains.",
    properties: ALL_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[
        "a batch of unknown outcome is acknowledged on retry",
        "a decided transaction is finished after a restart",
        "a lingering transaction was aborted",
        "a prepared transaction is kept over InitProducerId",
        "a record was late for all its windows",
        "a restored transaction was committed",
        "a worker gave up its attempt because it lost the coordinator",
        "an attempt restored from a checkpoint",
        "an input came back behind its point's watermark",
        "client repeats a call whose outcome is unknown",
        "EndTxn is repeated after a lost answer",
        "log: recovery rebuilt a closed segment's files",
        "partition: append refused by a full disk",
        "partition: duplicate of a batch that is not yet stable",
    ],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mut plan = base(ENTRY.name, seed, families);
    let mut rng = stream(&plan, "shape", &[]);
    switch_off(&mut plan, 3, 10);
    let twists = !plan.families_off.contains(&Family::EventTime);
    let job = JobText {
        window_ms: *rng.choose(&[400, 700, 1_000, 2_000]),
        out_of_orderness_ms: rng.range(100, 700),
        idle_after_ms: rng.range(800, 1_800),
        allowed_lateness_ms: *rng.choose(&[0, 0, 400, 1_500]),
        decisions_topic: rng.chance(1, 2),
        exactly_once: true,
    };
    // One in ten has a broker that is alone, which is a different way to start and to stop.
    if !rng.chance(1, 10) {
        with_brokers(&mut plan, 3);
    }
    with_job(&mut plan, job.toml(), rng.range(2, 3) as u32);
    let partitions = rng.range(2, 4) as u32;
    let shape = EventTime {
        records: rng.range(1_000, 1_400),
        partitions,
        keys: rng.range(3, 12),
        active_ms: 15_000,
        disorder_ms: rng.range(50, 900),
        twists,
        idle_splits: if twists && rng.chance(1, 2) { rng.range(1, u64::from(partitions) - 1) as u32 } else { 0 },
        transactional_percent: *rng.choose(&[0, 25, 60, 60]),
        producers: rng.range(1, 6),
    };
    events(&mut plan, job, shape);
    faults(
        &mut plan,
        FaultSpace { from_ms: 1_500, to_ms: 14_000 },
        Menu {
            net: (1, 3),
            disk: (1, 3),
            clock: (1, 2),
            process: (1, 3),
            crash_points: (1, 3),
            duplicates: (1, 3),
            power: None,
            power_at_crash_points: true,
        },
    );
    plan.budgets.safety_ms = 17_000;
    plan
}
