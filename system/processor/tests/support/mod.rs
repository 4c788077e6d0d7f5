//! A job, its input, and an oracle.

use std::cell::Cell;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use client::{
    Admin, Client, ClientConfig, Consumer, ConsumerConfig, Isolation, NewTopic, OffsetSpec, Producer, ProducerConfig,
    Record, TopicPartition,
};
use streamproof_processor::job::JobConfig;

pub mod oracle;

thread_local! {
    /// The simulated world is one thread: these stand for a user at the coordinator.
    pub static FINISH: Cell<bool> = const { Cell::new(false) };
    pub static DRAINED: Cell<bool> = const { Cell::new(false) };
}

pub struct Job {
    pub config: JobConfig,
    pub partitions: i32,
}

impl Default for Job {
    fn default() -> Self {
        let mut config = JobConfig::new("job", "in", "out");
        config.watermark.out_of_orderness_ms = 150;
        config.watermark.idle_after_ms = Some(1_000);
        config.window.assigner = streamproof_processor::job::Assigner::Tumbling { size_ms: 100, offset_ms: 0 };
        config.window.allowed_lateness_ms = 100;
        config.checkpoint.interval_ms = 200;
        config.checkpoint.timeout_ms = 10_000;
        config.source.chunk_records = 4;
        config.source.fetch_max_wait_ms = 200;
        config.restart.initial_backoff_ms = 50;
        config.restart.max_backoff_ms = 1_000;
        config.sink.decisions_topic = Some("job-decisions".to_owned());
        Self { config, partitions: 3 }
    }
}

pub fn client_config(broker: SocketAddr) -> ClientConfig {
    ClientConfig {
        bootstrap: vec![(broker.ip().to_string(), broker.port())],
        request_timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(2),
        api_timeout: Duration::from_secs(10),
        ..ClientConfig::default()
    }
}

/// Record `i`: one in 25 is poison, one in 11 far behind the others.
pub fn record(i: i64) -> Record {
    let draw = |concern: &str, n: i64| (seed::draw(7, concern, &[i as u64]).range(0, n as u64)) as i64;
    let value = if i % 25 == 24 {
        "{\"key\":".to_owned()
    } else {
        let behind = if i % 11 == 10 { 600 } else { 0 };
        let t = i * 5 - 900 + draw("disorder", 140) - behind;
        format!(r#"{{"key":"k{}","t":{t},"value":{}}}"#, draw("key", 7), draw("value", 1 << 40))
    };
    Record { value: Some(value.into()), ..Record::default() }
}

/// Sends records `range`, in order and exactly once.
pub async fn produce(config: &ClientConfig, job: &Job, range: Range<i64>) {
    let client = Client::new(ClientConfig { api_timeout: Duration::from_secs(60), ..config.clone() });
    let topic = NewTopic::new(&job.config.source.topic, job.partitions);
    Admin::new(client.clone()).create_topics(&[topic]).await.unwrap();
    let producer = Producer::new(client, ProducerConfig::default());
    let mut sent = Vec::new();
    for i in range {
        // The last partition is silent now and then, for longer than `idle_after`.
        let busy = if (i / 200) % 2 == 1 { job.partitions - 1 } else { job.partitions };
        let partition = (i % i64::from(busy)) as i32;
        sent.push(producer.send(&job.config.source.topic, partition, record(i)).await);
    }
    for delivery in sent {
        delivery.await.unwrap();
    }
}

/// Everything that `read_committed` shows of a topic, which must reach its end: nothing is left open.
pub async fn read_topic(config: &ClientConfig, topic: &str) -> Vec<(i32, Record)> {
    let client = Client::new(config.clone());
    let admin = Admin::new(client.clone());
    let metadata = admin.metadata(&[topic]).await.unwrap();
    let Some(found) = metadata.topics.get(topic) else { return Vec::new() };
    let all: Vec<TopicPartition> = found.partitions.keys().map(|p| TopicPartition::new(topic, *p)).collect();
    let ends = admin.list_offsets(&all, OffsetSpec::Latest, Isolation::ReadUncommitted).await.unwrap();
    let stable = admin.list_offsets(&all, OffsetSpec::Latest, Isolation::ReadCommitted).await.unwrap();
    assert_eq!(ends, stable, "{topic}: a transaction is open");
    let consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign(all.iter().map(|tp| (tp.clone(), 0)).collect());
    let mut records = Vec::new();
    let read = async {
        while consumer.positions().iter().any(|(tp, at)| Some(*at) < ends[tp]) {
            for result in consumer.poll().await {
                assert_eq!(result.error, None, "{topic}");
                records.extend(result.records.into_iter().map(|r| (result.partition.partition, r)));
            }
        }
    };
    env::time::timeout(Duration::from_secs(30), read).await.expect("the topic is read to its end");
    records
}

pub fn text(bytes: &Option<Bytes>) -> String {
    String::from_utf8(bytes.clone().unwrap_or_default().to_vec()).unwrap()
}
