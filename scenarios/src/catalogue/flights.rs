//! A user's job over a user's events, through the same disasters.

use super::{ALL_PROPERTIES, Entry};
use crate::generate::{FaultSpace, Menu, base, faults, with_job};
use crate::plan::{Acks, Batch, Client, ClientRole, Family, Payload, Plan, Producer, Record, Topic};

pub const ENTRY: Entry = Entry {
    name: "flights",
    story: "Real events, departures from New York in 2013 or any file of the user's, arrive in their own order. \
            Broker and processor go through crashes, power loss, cuts and lost replies meanwhile. \
            The committed windows equal the batch model over the same file.",
    properties: ALL_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[],
    generate: None,
};

/// One event of a file: bytes as they are produced, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
}

/// The plan of `seed` for a job file and its events in arrival order: `topic` is the job's source topic.
pub fn generate(seed: u64, toml: &str, topic: &str, partitions: u32, events: &[Event]) -> Plan {
    let mut plan = base(ENTRY.name, seed);
    with_job(&mut plan, toml.to_owned(), 2);
    plan.topics.push(Topic { name: topic.to_owned(), partitions });
    // As fast as the broker takes them, but over at least 15 seconds, so that checkpoints fall in between.
    let active_ms = 15_000;
    let chunk = (events.len() / 150).clamp(10, 500);
    let count = events.len().div_ceil(chunk).max(1) as u64;
    let batches = events
        .chunks(chunk)
        .enumerate()
        .map(|(b, chunk_events)| Batch {
            at_ms: active_ms * b as u64 / count,
            transaction: None,
            records: chunk_events
                .iter()
                .enumerate()
                .map(|(i, e)| Record {
                    n: (b * chunk + i) as u64,
                    partition: e.partition,
                    timestamp: 1_700_000_000_000 + (active_ms * b as u64 / count) as i64,
                    key: e.key.as_deref().map(Payload::of),
                    value: Payload::of(&e.value),
                })
                .collect(),
        })
        .collect();
    let producer =
        Producer { topic: topic.to_owned(), acks: Acks::All, idempotent: true, transactional: false, batches };
    plan.clients.push(Client { id: 0, role: ClientRole::Producer(producer) });
    plan.families_off = Family::ALL
        .into_iter()
        .filter(|f| seed::draw(plan.seeds.workload, "family_off", &[*f as u64]).chance(1, 5))
        .collect();
    faults(
        &mut plan,
        FaultSpace { from_ms: 1_500, to_ms: 14_000 },
        Menu {
            net: (1, 3),
            disk: (0, 2),
            clock: (0, 1),
            process: (1, 3),
            crash_points: (1, 3),
            duplicates: (0, 2),
            power: None,
            power_at_crash_points: true,
        },
    );
    plan.budgets.safety_ms = 17_000;
    plan
}
