//! What is to be true in the end, as readers see it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::{Admin, Client, Consumer, ConsumerConfig, Isolation, OffsetSpec, TopicPartition};

use super::WRITERS;
use super::cluster::{PARTITIONS, TOPICS};
use super::writer::{End, Told, group, offset_place};

/// How long transactions that nobody ends may stay open: their time-out, and some.
const PATIENCE: Duration = Duration::from_secs(60);

fn all_partitions(topics: &[&str]) -> Vec<TopicPartition> {
    topics.iter().flat_map(|t| (0..PARTITIONS).map(|p| TopicPartition::new(*t, p))).collect()
}

async fn ends(admin: &Admin, of: &[TopicPartition], isolation: Isolation) -> BTreeMap<TopicPartition, i64> {
    loop {
        if let Ok(ends) = admin.list_offsets(of, OffsetSpec::Latest, isolation).await
            && let Some(ends) = ends.into_iter().map(|(tp, end)| Some((tp, end?))).collect()
        {
            return ends;
        }
        env::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until no transaction is open anywhere.
async fn settled(admin: &Admin) -> BTreeMap<TopicPartition, i64> {
    let all = all_partitions(&[TOPICS[0], TOPICS[1], "__consumer_offsets"]);
    let deadline = env::clock::now() + PATIENCE;
    loop {
        let committed = ends(admin, &all, Isolation::ReadCommitted).await;
        let high_watermarks = ends(admin, &all, Isolation::ReadUncommitted).await;
        if committed == high_watermarks {
            return committed;
        }
        let late = env::clock::now() >= deadline;
        assert!(!late, "transactions hang: stable {committed:?}, high watermarks {high_watermarks:?}");
        env::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The committed values of every partition, in order.
async fn read(client: &Client, mut ends: BTreeMap<TopicPartition, i64>) -> BTreeMap<TopicPartition, Vec<String>> {
    let isolation = Isolation::ReadCommitted;
    let consumer = Consumer::new(client.clone(), ConsumerConfig { isolation, ..ConsumerConfig::default() });
    ends.retain(|tp, end| *end > 0 && TOPICS.contains(&tp.topic.as_str()));
    consumer.assign(ends.keys().map(|tp| (tp.clone(), 0)).collect());
    let mut found: BTreeMap<TopicPartition, Vec<String>> = BTreeMap::new();
    while !ends.is_empty() {
        for result in consumer.poll().await {
            let values = found.entry(result.partition.clone()).or_default();
            let text = |v: &bytes::Bytes| String::from_utf8_lossy(v).into_owned();
            values.extend(result.records.iter().filter_map(|r| r.value.as_ref().map(text)));
            if ends.get(&result.partition).is_some_and(|end| result.position >= *end) {
                ends.remove(&result.partition);
            }
        }
    }
    found
}

pub async fn check(client: &Client, told: &Told) {
    let admin = Admin::new(client.clone());
    let ends = settled(&admin).await;
    let found = read(client, ends).await;
    let transactions = told.transactions();
    let mut seen: BTreeMap<(String, i64), BTreeSet<TopicPartition>> = BTreeMap::new();
    for (place, values) in &found {
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        for value in values {
            let (writer, n) = value.rsplit_once('-').expect("a writer's value");
            let n: i64 = n.parse().expect("a number");
            assert!(WRITERS.iter().any(|(name, _)| *name == writer), "{value} is seen in {place}");
            let before = last.insert(writer.to_owned(), n).unwrap_or(0);
            assert!(before < n, "{value} comes after {writer}-{before} in {place}");
            seen.entry((writer.to_owned(), n)).or_default().insert(place.clone());
        }
    }
    let mut offsets: BTreeMap<&str, i64> = BTreeMap::new();
    for ((writer, n), transaction) in &transactions {
        let at = seen.remove(&((*writer).to_owned(), *n)).unwrap_or_default();
        let whole = at == transaction.places;
        let told = transaction.end;
        assert!(whole || at.is_empty(), "{writer}-{n} ({told:?}) is torn: in {at:?} of {:?}", transaction.places);
        match told {
            End::Committed => assert!(whole, "{writer}-{n} was committed, and is not there"),
            End::Aborted => assert!(at.is_empty(), "{writer}-{n} was aborted, and is there"),
            End::Unknown => {}
        }
        if whole {
            offsets.insert(writer, *n);
        }
    }
    assert!(seen.is_empty(), "of nobody: {seen:?}");
    for (writer, n) in offsets {
        let place = offset_place();
        let offset = loop {
            if let Ok(found) = admin.fetch_offsets(&group(writer), std::slice::from_ref(&place), true).await {
                break found.get(&place).map(|c| c.offset);
            }
        };
        assert_eq!(offset, Some(n), "{writer}'s offset is not of its last transaction that committed");
    }
}
