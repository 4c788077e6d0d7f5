//! Workloads of the broker scenarios: producers of several kinds and readers of both isolations.

use std::collections::BTreeSet;

use super::{Families, base, stream, topic, unique_value, with_brokers};
use crate::plan::{
    Acks, Batch, Client, ClientRole, End, Isolation, Payload, Plan, Producer, Reader, Record, Transaction,
};

const TOPIC: &str = "events";

/// A plan of three brokers, with these producers and a reader of each isolation.
pub fn cluster(scenario: &str, seed: u64, families: &Families, mix: Mix) -> Plan {
    cluster_of(3, scenario, seed, families, mix)
}

/// A plan of that many brokers.
pub fn cluster_of(brokers: u32, scenario: &str, seed: u64, families: &Families, mix: Mix) -> Plan {
    let mut plan = base(scenario, seed, families);
    with_brokers(&mut plan, brokers);
    mixed_producers(&mut plan, mix);
    readers(&mut plan, TOPIC);
    plan
}

/// How many producers of each kind, and how much they send within `active_ms`.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub idempotent: u32,
    pub transactional: u32,
    /// Records of each producer.
    pub records: u64,
    pub partitions: u32,
    pub active_ms: u64,
}

/// Adds topic `events` and the producers, numbered on from the clients already there.
pub fn mixed_producers(plan: &mut Plan, mix: Mix) {
    plan.topics.push(topic(plan, TOPIC, mix.partitions));
    let mut taken = BTreeSet::new();
    let mut next_transaction = 0;
    for k in 0..mix.idempotent + mix.transactional {
        let transactional = k >= mix.idempotent;
        let id = plan.clients.len() as u32;
        let mut rng = stream(plan, "producer", &[u64::from(id)]);
        let (mut batches, mut n) = (Vec::new(), 0);
        let mut times: Vec<u64> = Vec::new();
        let mut sizes = Vec::new();
        let mut left = mix.records;
        while left > 0 {
            let size = rng.range(1, 12).min(left);
            left -= size;
            sizes.push(size);
            times.push(rng.range(0, mix.active_ms));
        }
        times.sort_unstable();
        for (at_ms, size) in times.into_iter().zip(sizes) {
            let records = (0..size)
                .map(|_| {
                    let value = unique_value(&mut rng, &mut taken);
                    let record = Record {
                        n,
                        partition: rng.range(0, u64::from(mix.partitions) - 1) as i32,
                        timestamp: 1_700_000_000_000 + at_ms as i64,
                        key: Some(Payload::Text(format!("k{}", rng.range(0, 15)))),
                        value: Payload::Text(value.to_string()),
                    };
                    n += 1;
                    record
                })
                .collect();
            let transaction = transactional.then(|| {
                let end = if rng.chance(1, 4) { End::Abort } else { End::Commit };
                (next_transaction, n) = (next_transaction + 1, n + 1);
                Transaction { id: next_transaction - 1, n: n - 1, end }
            });
            batches.push(Batch { at_ms, transaction, records });
        }
        let producer = Producer { topic: TOPIC.into(), acks: Acks::All, idempotent: true, transactional, batches };
        plan.clients.push(Client { id, role: ClientRole::Producer(producer) });
    }
}

/// Adds one reader of `topic` for each isolation.
pub fn readers(plan: &mut Plan, topic: &str) {
    for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
        let id = plan.clients.len() as u32;
        plan.clients.push(Client { id, role: ClientRole::Reader(Reader { topic: topic.into(), isolation }) });
    }
}
