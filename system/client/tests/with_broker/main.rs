//! The client with the broker of this project, for real on loopback and files, and in the simulated world with
//! everything that can go wrong there.

mod groups;
mod real;
mod simulated;

use std::collections::BTreeMap;

use bytes::Bytes;
use streamproof_client::{Consumer, Record, TopicPartition};

fn record(value: impl ToString) -> Record {
    Record { value: Some(Bytes::from(value.to_string())), ..Record::default() }
}

fn text(record: &Record) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

/// Reads assigned partitions up to these ends.
async fn read_to(consumer: &Consumer, ends: &BTreeMap<TopicPartition, i64>) -> BTreeMap<TopicPartition, Vec<Record>> {
    consumer.assign(ends.keys().map(|tp| (tp.clone(), 0)).collect());
    let mut found: BTreeMap<TopicPartition, Vec<Record>> = BTreeMap::new();
    while consumer.positions().iter().any(|(tp, at)| *at < ends[tp]) {
        for result in consumer.poll().await {
            found.entry(result.partition).or_default().extend(result.records);
        }
    }
    found
}
