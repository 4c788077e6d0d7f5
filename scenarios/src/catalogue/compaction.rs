//! Logs are compacted while they are written, copied, truncated and recovered.
//!
//! Of each key the last committed record stays, for certain: what is above the high watermark may yet be cut away, so it
//! supersedes nothing (KAFKA-13194); markers and the last batch of a producer are there for others than readers of keys
//! (KAFKA-14055, KAFKA-5490); a crash within the swap of segments leaves either the old ones or the new (KAFKA-12520).

use super::{CLUSTER_PROPERTIES, Entry, truncation};
use crate::generate::{
    Families, FaultSpace, Menu, Mix, cluster, faults, persistence, stream, strike, workload_partition,
};
use crate::plan::{Action, ClientRole, Family, Hex, Payload, Plan, Target, Trigger};

pub const ENTRY: Entry = Entry {
    name: "compaction",
    story: "Producers write few keys again and again to a compacted topic of small segments, some of them in transactions. \
            The cleaner runs all the time, and brokers crash within it, lose power, or are cut off and truncate what they wrote alone. \
            The last committed record of each key is in every log, none is there twice, and transactions are whole.",
    properties: CLUSTER_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[],
    generate: Some(generate),
};

fn generate(seed: u64, families: &Families) -> Plan {
    let mix = Mix { idempotent: 2, transactional: 2, records: 250, partitions: 2, active_ms: 10_000 };
    let mut plan = cluster(ENTRY.name, seed, families, mix);
    let mut rng = stream(&plan, "compaction", &[]);
    let broker = &mut plan.knobs.broker;
    broker.segment_bytes = *rng.choose(&[2 * 1024, 4 * 1024, 8 * 1024]);
    broker.cleaner_interval_ms = *rng.choose(&[200, 500, 1_000]);
    let configs = &mut plan.topics[0].configs;
    configs.insert("cleanup.policy".into(), "compact".into());
    configs.insert("min.cleanable.dirty.ratio".into(), (*rng.choose(&["0.0", "0.1", "0.3"])).into());
    configs.insert("delete.retention.ms".into(), (*rng.choose(&["0", "1000", "86400000"])).into());
    rekey(&mut plan);
    if rng.chance(1, 2) {
        truncation::diverge(&mut plan);
    }
    let mut rng = stream(&plan, "faults", &[Family::Disk as u64]);
    for _ in 0..rng.range(1, 3) {
        let ms = rng.range(2_000, 10_000);
        let node = match rng.chance(1, 2) {
            true => Target::Leader(workload_partition(&plan, &mut rng)),
            false => Target::Follower(workload_partition(&plan, &mut rng)),
        };
        let restart_after_ms = rng.range(100, 1_500);
        let (family, action) = match rng.chance(1, 2) {
            true => (Family::Disk, Action::Power { node, unsynced: persistence(&mut rng), restart_after_ms }),
            false => (Family::Process, Action::Crash { node, restart_after_ms }),
        };
        strike(&mut plan, family, Trigger::At { ms }, action);
    }
    let menu = Menu { crash_points: (1, 3), duplicates: (0, 2), power_at_crash_points: true, ..Menu::default() };
    faults(&mut plan, FaultSpace { from_ms: 1_000, to_ms: 9_000 }, menu);
    plan
}

/// Few keys; two of them have the bytes of a marker's.
fn rekey(plan: &mut Plan) {
    let mut rng = stream(plan, "keys", &[]);
    let markers = ["00000000", "00000001"].map(|hex| Payload::Hex(Hex { hex: hex.into() }));
    let keys: Vec<Payload> = markers.into_iter().chain((0..4).map(|n| Payload::Text(format!("k{n}")))).collect();
    for client in &mut plan.clients {
        if let ClientRole::Producer(producer) = &mut client.role {
            for record in producer.batches.iter_mut().flat_map(|b| &mut b.records) {
                record.key = Some(rng.choose(&keys).clone());
            }
        }
    }
}
