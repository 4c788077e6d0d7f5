//! A user's job over a user's events, through the same disasters.

use super::{ALL_PROPERTIES, Entry};
use crate::generate::{
    Families, FaultSpace, Menu, base, faults, switch_off, topic as new_topic, with_brokers, with_job,
};
use crate::plan::{Acks, Batch, Client, ClientRole, Payload, Plan, Producer, Record};

pub const ENTRY: Entry = Entry {
    name: "flights",
    story: "Departures from New York in 2013 arrive in the order in which they were known. \
            Broker and processor go through crashes, power loss, cuts and lost replies meanwhile. \
            The committed windows equal the batch model over the same file.",
    properties: ALL_PROPERTIES,
    must_fail: None,
    allowed: &[],
    rare: &[],
    generate: None,
};

/// The same for a job and events named on the command line.
pub const JOB: Entry = Entry {
    name: "job",
    story: "The user's own events arrive in the order of the file. \
            Broker and processor go through crashes, power loss, cuts and lost replies meanwhile. \
            The committed windows equal the batch model over the same file.",
    ..ENTRY
};

/// One event of a file: bytes as they are produced, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
}

/// A user's job and its events.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Text of the job file.
    pub toml: &'a str,
    /// The job's source topic.
    pub topic: &'a str,
    pub partitions: u32,
    /// In arrival order.
    pub events: &'a [Event],
}

/// The plan of `seed` for a job file and its events in arrival order. `scenario` is `flights` or `job`, `topic` the job's
/// source topic.
pub fn generate(scenario: &str, seed: u64, families: &Families, input: &Input<'_>) -> Plan {
    let Input { toml, topic, partitions, events } = *input;
    let mut plan = base(scenario, seed, families);
    with_brokers(&mut plan, 3);
    with_job(&mut plan, toml.to_owned(), 2);
    plan.topics.push(new_topic(&plan, topic, partitions));
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
    switch_off(&mut plan, 1, 5);
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
