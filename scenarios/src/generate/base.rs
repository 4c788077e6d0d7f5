//! A plan without workload and faults: seeds, knobs, budgets.

use std::collections::BTreeMap;

use super::Families;
use crate::plan::{
    BrokerKnobs, Budgets, ClientKnobs, Compression, Family, Flush, Job, Knobs, Plan, ProcessorKnobs, Schedule, Seeds,
    Topic, Topology, VERSION, WorldKnobs,
};

/// One broker and nothing else, with strong settings. Families not in `families` are off.
pub fn base(scenario: &str, seed: u64, families: &Families) -> Plan {
    let part = |concern| seed::draw(seed, concern, &[]).u64();
    let mut rng = seed::stream(seed, "knobs", &[]);
    let latency_low = rng.range(1_000, 1_500);
    Plan {
        version: VERSION,
        scenario: scenario.to_owned(),
        seed,
        seeds: Seeds { workload: part("workload"), world: part("world"), schedule: part("schedule") },
        schedule: Schedule::Uniform,
        topology: Topology { brokers: 1, workers: 0 },
        knobs: Knobs {
            broker: BrokerKnobs {
                flush: Flush::Fsync,
                // Small, so that segments roll, indexes are used and recovery reads more than one file.
                segment_bytes: *rng.choose(&[8 * 1024, 32 * 1024, 128 * 1024, 1024 * 1024]),
                index_interval_bytes: *rng.choose(&[512, 4096]),
                max_frame_bytes: 4 * 1024 * 1024,
                offsets_partitions: 1,
                transactions_partitions: rng.range(1, 3) as u32,
                transaction_max_timeout_ms: 900_000,
                default_replication_factor: 1,
                min_insync_replicas: 1,
                quorum_election_timeout_ms: 1_000,
                quorum_fetch_timeout_ms: 2_000,
                session_timeout_ms: 9_000,
                heartbeat_interval_ms: 2_000,
                replica_lag_max_ms: 30_000,
                leader_rebalance_ms: 300_000,
                group_session_timeout_ms: *rng.choose(&[1_500, 2_500, 4_000]),
                group_heartbeat_interval_ms: 400,
                cleaner_interval_ms: *seed::stream(seed, "cleaner", &[]).choose(&[400, 1_500, 15_000]),
                retention_check_interval_ms: 300_000,
            },
            client: ClientKnobs {
                request_timeout_ms: *rng.choose(&[600, 1_000, 2_000]),
                delivery_timeout_ms: *rng.choose(&[8_000, 15_000, 30_000]),
                linger_ms: *rng.choose(&[0, 1, 5, 20]),
                batch_bytes: *rng.choose(&[512, 2 * 1024, 16 * 1024]),
                max_in_flight: *rng.choose(&[1, 2, 3, 5, 5]),
                compression: *rng.choose(&[
                    Compression::None,
                    Compression::None,
                    Compression::Gzip,
                    Compression::Snappy,
                    Compression::Lz4,
                    Compression::Zstd,
                ]),
                transaction_timeout_ms: *rng.choose(&[3_000, 6_000, 10_000]),
                fetch_max_wait_ms: 500,
                fetch_max_bytes: *rng.choose(&[4 * 1024, 64 * 1024, 1024 * 1024]),
            },
            processor: None,
            world: WorldKnobs {
                latency_us: (latency_low, latency_low + rng.range(0, 4_000)),
                loss_per_million: 0,
                partial_per_million: *rng.choose(&[0, 20_000, 100_000]),
                bandwidth: None,
                links: Vec::new(),
                sync_latency_us: (1_000, rng.range(1_500, 6_000)),
                disk_bytes: None,
                restart_exited_ms: rng.range(200, 800),
            },
        },
        topics: Vec::new(),
        job: None,
        clients: Vec::new(),
        families_off: Family::ALL.into_iter().filter(|f| !families.contains(f)).collect(),
        faults: Vec::new(),
        twists: Vec::new(),
        budgets: Budgets {
            safety_ms: 12_000,
            liveness_ms: 60_000,
            quiet_ms: 2_000,
            drain_ms: 60_000,
            max_events: 20_000_000,
        },
    }
}

/// Makes it `brokers` brokers, with three replicas of everything (as many as there are below that) and time-outs that fit a run of half a minute. Topics take
/// the number of replicas from here, so this comes before them.
pub fn with_brokers(plan: &mut Plan, brokers: u32) {
    let mut rng = seed::stream(plan.seed, "knobs", &[2]);
    plan.topology.brokers = brokers;
    let knobs = &mut plan.knobs.broker;
    knobs.default_replication_factor = brokers.min(3);
    knobs.quorum_election_timeout_ms = rng.range(300, 600);
    knobs.quorum_fetch_timeout_ms = rng.range(600, 1_200);
    knobs.heartbeat_interval_ms = 300;
    knobs.session_timeout_ms = *rng.choose(&[1_200, 2_000, 3_000]);
    knobs.replica_lag_max_ms = *rng.choose(&[800, 1_500, 3_000]);
    knobs.leader_rebalance_ms = *rng.choose(&[3_000, 8_000, 300_000]);
    // With one, a leader that is left alone goes on by itself.
    knobs.min_insync_replicas = if rng.chance(1, 5) { 1 } else { 2 };
}

/// A topic with as many replicas as the plan's topics have by default.
pub fn topic(plan: &Plan, name: &str, partitions: u32) -> Topic {
    let replication_factor = plan.knobs.broker.default_replication_factor;
    Topic { name: name.to_owned(), partitions, replication_factor, configs: BTreeMap::new() }
}

/// Adds a processor of `workers` workers running `toml`.
pub fn with_job(plan: &mut Plan, toml: String, workers: u32) {
    let mut rng = seed::stream(plan.seed, "knobs", &[1]);
    plan.topology.workers = workers;
    plan.job = Some(Job { toml });
    plan.knobs.processor = Some(ProcessorKnobs {
        source_tasks: rng.range(1, 2) as u32,
        window_tasks: rng.range(2, 3) as u32,
        key_groups: *rng.choose(&[8, 128]),
        checkpoint_interval_ms: *rng.choose(&[700, 1_000, 1_500]),
        checkpoint_timeout_ms: 4_000,
        heartbeat_interval_ms: 300,
        heartbeat_timeout_ms: *rng.choose(&[1_000, 1_500]),
        restart_backoff_min_ms: 100,
        restart_backoff_max_ms: 1_000,
        restart_reset_ms: 5_000,
        transaction_timeout_ms: 60_000,
        checkpoints_retained: rng.range(1, 3) as u32,
        chunk_records: *rng.choose(&[1, 8, 32, 64]),
        channel_capacity: *rng.choose(&[2, 16, 64]),
        fetch_timeout_ms: 2_000,
        sink_partitions: rng.range(1, 3) as u32,
    });
    plan.budgets =
        Budgets { safety_ms: 20_000, liveness_ms: 60_000, quiet_ms: 8_000, drain_ms: 60_000, max_events: 50_000_000 };
}

/// Switches whole families off besides those that are off already, each with `numerator` chances in `denominator` on a
/// draw of its own.
pub fn switch_off(plan: &mut Plan, numerator: u64, denominator: u64) {
    let off = |f: &Family| seed::draw(plan.seeds.workload, "family_off", &[*f as u64]).chance(numerator, denominator);
    plan.families_off = Family::ALL.into_iter().filter(|f| plan.families_off.contains(f) || off(f)).collect();
}
