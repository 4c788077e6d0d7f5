//! Everything at once, with whole families of faults switched off by the seed.
//!
//! Swarm testing (Groce et al., 2012): a fault that is always on can hide the bug that needs its absence.

use super::{
    ALL_AND_GROUP_PROPERTIES, Entry, compaction, coordinator_crash, correlated_power_loss, hanging_transaction,
    late_messages, leader_failover, network_partition, rebalance_storm, rolling_restart, truncation, unclean_election,
    zombie_producer,
};
use crate::generate::{
    EventTime, Families, FaultSpace, JobText, Menu, base, events, faults, lose_a_disk, stream, switch_off,
    with_brokers, with_job,
};
use crate::plan::{Family, Flush, Plan};

/// Some seeds have the workload of one of these and the faults of its story, as far as their families are on, and a few of
/// others; with more of them, fewer than half of all seeds would restore a job from a checkpoint. By weight: what happens
/// there seldom comes often, such as a round of a group that somebody misses, or elections in which nothing is written.
const STORIES: &[(usize, &Entry)] = &[
    (3, &leader_failover::ENTRY),
    (4, &network_partition::ENTRY),
    (1, &rolling_restart::ENTRY),
    (4, &correlated_power_loss::ENTRY),
    (8, &truncation::ENTRY),
    (4, &unclean_election::ENTRY),
    (2, &compaction::ENTRY),
    (1, &coordinator_crash::ENTRY),
    (1, &zombie_producer::ENTRY),
    (4, &hanging_transaction::ENTRY),
    (4, &late_messages::ENTRY),
    (7, &rebalance_storm::ENTRY),
];

/// What befalls brokers and clients in a story, for a job to live through.
const PLOTS: &[fn(&mut Plan)] = &[
    leader_failover::fail_over,
    network_partition::part,
    truncation::diverge,
    coordinator_crash::die_at_steps,
    zombie_producer::sleep,
    hanging_transaction::delay,
    late_messages::straggle,
];

pub const ENTRY: Entry = Entry {
    name: "swarm",
    story: "A job of random shape, or the workload of one of the stories of brokers, runs under faults of every family. \
            Each seed switches whole families off, so that combinations and absences are both tried. \
            All properties of broker and processor hold, and after healing the job converges and drains.",
    properties: ALL_AND_GROUP_PROPERTIES,
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
    let mut rng = stream(&plan, "story", &[]);
    let is_story = rng.chance(1, 3);
    // The faults of a story belong together: half as many lack a family. Over all, each is off in a fifth of the seeds or more.
    switch_off(&mut plan, if is_story { 3 } else { 6 }, 20);
    if is_story {
        let on = Family::ALL.into_iter().filter(|f| !plan.families_off.contains(f)).collect();
        let by_weight: Vec<&Entry> =
            STORIES.iter().flat_map(|(weight, entry)| std::iter::repeat_n(*entry, *weight)).collect();
        if let Some(generate) = rng.choose(&by_weight).generate {
            return story(generate(seed, &on));
        }
    }
    with_a_job(plan)
}

/// One in six, where what was acknowledged outlives it.
fn some_lose_a_disk(plan: &mut Plan, space: FaultSpace) {
    if stream(plan, "a disk", &[]).chance(1, 6) {
        lose_a_disk(plan, space);
    }
}

/// The plan of a story, with faults of some families that its own are not of.
fn story(mut plan: Plan) -> Plan {
    plan.scenario = ENTRY.name.into();
    // Where a broker loses what it has not synced, none may die beside it.
    let crashes = if plan.knobs.broker.flush == Flush::Fsync { 2 } else { 0 };
    let more = |family, high| if plan.faults.iter().any(|f| f.family == family) { (0, 0) } else { (0, high) };
    let menu = Menu {
        clock: more(Family::Clock, 1),
        crash_points: more(Family::CrashPoints, crashes),
        duplicates: more(Family::Duplicates, 2),
        ..Menu::default()
    };
    let space = FaultSpace { from_ms: 500, to_ms: 9_000 };
    faults(&mut plan, space, menu);
    some_lose_a_disk(&mut plan, space);
    plan
}

fn with_a_job(mut plan: Plan) -> Plan {
    let mut rng = stream(&plan, "shape", &[]);
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
    let mut menu = Menu {
        net: (1, 3),
        disk: (1, 3),
        clock: (1, 2),
        process: (1, 3),
        crash_points: (1, 3),
        duplicates: (1, 3),
        power: None,
        power_at_crash_points: true,
    };
    let mut rng = stream(&plan, "plot", &[]);
    if plan.topology.brokers > 1 && rng.chance(1, 2) {
        // Consumer groups beside the job.
        if rng.chance(1, 4) {
            rebalance_storm::share(&mut plan);
            rebalance_storm::rebalance(&mut plan);
        } else {
            rng.choose(PLOTS)(&mut plan);
        }
        menu = Menu { net: (0, 1), disk: (0, 1), process: (2, 3), crash_points: (2, 3), duplicates: (0, 1), ..menu };
    }
    let space = FaultSpace { from_ms: 1_500, to_ms: 14_000 };
    faults(&mut plan, space, menu);
    some_lose_a_disk(&mut plan, space);
    plan.budgets.safety_ms = 17_000;
    plan
}
