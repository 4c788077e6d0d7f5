//! The last look: every partition read from offset 0 at both isolations, then every broker's disk decoded.
//!
//! The uncommitted read goes over the wire with requests made here and batches decoded by the second decoder, so that it
//! sees control records and producer ids; the committed one is what the system's own consumer returns.

use std::cell::RefCell;
use std::time::Duration;

use bytes::BytesMut;
use client::{Admin, Client, Consumer, ConsumerConfig, Isolation, OffsetSpec, TopicPartition};
use env::io::{AsyncReadExt, AsyncWriteExt};
use history::{Blob, Header, LogRecord, LogSource, PartitionLog};
use protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use protocol::messages::{FetchRequest, FetchResponse};
use protocol::{ApiKey, ErrorCode, RequestBody, ResponseBody, topic_name};
use scenarios::plan::Role;

use crate::deploy::Cluster;
use crate::disk_image;

/// Everything read.
#[derive(Debug, Default)]
pub(super) struct Logs {
    pub all: Vec<PartitionLog>,
    /// What the disks or the fetched batches have wrong with them.
    pub damage: Vec<String>,
}

/// A version of Fetch that names topics by name.
const FETCH_VERSION: i16 = 12;
const MAX_BYTES: i32 = 4 << 20;
/// Nothing that a healed broker answers takes this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before asking again.
const PAUSE: Duration = Duration::from_millis(200);

/// `compacted` says which topics are.
pub(super) async fn read(client: &Client, topics: &[String], compacted: impl Fn(&str) -> bool) -> Result<Logs, String> {
    let admin = Admin::new(client.clone());
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let metadata = admin.metadata(&names).await.map_err(|e| e.to_string())?;
    let mut logs = Logs::default();
    for name in names {
        let Some(topic) = metadata.topics.get(name) else { continue };
        for partition in topic.partitions.keys() {
            let tp = TopicPartition::new(name, *partition);
            let trouble = RefCell::new(String::from("none"));
            let raw = env::time::timeout(PATIENCE, raw(&tp, &admin, compacted(name), &trouble, &mut logs.damage)).await;
            let late = |_| format!("{tp}: the read took more than {PATIENCE:?}, last error: {}", trouble.borrow());
            let raw = raw.map_err(late)??;
            let upper = raw.last_stable_offset.unwrap_or(0);
            logs.all.push(raw);
            let committed = env::time::timeout(PATIENCE, committed(client, &tp, upper));
            logs.all
                .push(committed.await.map_err(|_| format!("{tp}: the committed read took more than {PATIENCE:?}"))?);
        }
    }
    Ok(logs)
}

impl Logs {
    /// Adds what the brokers' disks hold of `topics`, as a program on the node would read it.
    pub(super) fn add_disks(&mut self, cluster: &Cluster, topics: &[String]) {
        for (number, node) in cluster.of_role(Role::Broker).into_iter().enumerate() {
            let files = cluster.world.disk(node).image();
            let files = files.iter().filter_map(|(path, bytes)| Some((path.to_str()?, bytes)));
            let image = disk_image::decode(number as u32, files);
            self.damage.extend(image.damage);
            self.all.extend(image.logs.into_iter().filter(|log| topics.contains(&log.topic)));
        }
    }
}

/// Fetches the partition from 0 up to the high watermark, with requests of our own, from whoever leads it. A leadership may
/// go back to its preferred broker meanwhile, so an answer that is none is asked for again; `trouble` keeps the last.
async fn raw(
    tp: &TopicPartition,
    admin: &Admin,
    holes: bool,
    trouble: &RefCell<String>,
    damage: &mut Vec<String>,
) -> Result<PartitionLog, String> {
    let mut log = PartitionLog {
        source: LogSource::ReadUncommitted,
        topic: tp.topic.clone(),
        partition: tp.partition,
        log_start_offset: 0,
        log_end_offset: 0,
        high_watermark: None,
        last_stable_offset: None,
        records: Default::default(),
    };
    let mut stream = None;
    for correlation in 0.. {
        let next = log.log_end_offset;
        let connected = match stream.take() {
            Some(stream) => Ok(stream),
            None => connect(tp, admin).await,
        };
        let answer = match connected {
            Ok(mut stream_of) => fetch(&mut stream_of, tp, next, correlation).await.map(|answer| (stream_of, answer)),
            Err(e) => Err(e),
        };
        let (of, response) = match answer {
            Ok(both) => both,
            Err(e) => {
                *trouble.borrow_mut() = e;
                env::time::sleep(PAUSE).await;
                continue;
            }
        };
        let data = response.responses.into_iter().flat_map(|t| t.partitions).next();
        let data = data.ok_or("the response names no partition")?;
        let code = ErrorCode::from_code(data.error_code);
        if code.retriable() {
            *trouble.borrow_mut() = format!("fetch at {next} answered {code}");
            env::time::sleep(PAUSE).await;
            continue;
        }
        if !code.is_ok() {
            return Err(format!("{tp}: fetch at {next} answered {code}"));
        }
        log.high_watermark = Some(data.high_watermark);
        log.last_stable_offset = Some(data.last_stable_offset);
        log.log_start_offset = data.log_start_offset.max(0);
        let bytes = data.records.unwrap_or_default();
        log.log_end_offset = disk_image::decode_batches(&tp.to_string(), &bytes, next, holes, &mut log.records, damage);
        stream = Some(of);
        if log.log_end_offset > next {
            continue;
        }
        // A leader of this instant may know an older high watermark than its followers told before it, and serves what is
        // below that; where the log ends it does not answer until it knows (KIP-207).
        match admin.list_offsets(std::slice::from_ref(tp), OffsetSpec::Latest, Isolation::ReadUncommitted).await {
            Ok(ends) if ends.get(tp).copied().flatten().is_some_and(|end| end <= next) => break,
            Ok(ends) => *trouble.borrow_mut() = format!("nothing at {next}, though the log ends at {:?}", ends.get(tp)),
            Err(e) => *trouble.borrow_mut() = e.to_string(),
        }
        env::time::sleep(PAUSE).await;
    }
    Ok(log)
}

/// A connection to the partition's leader.
async fn connect(tp: &TopicPartition, admin: &Admin) -> Result<env::net::TcpStream, String> {
    let metadata = admin.metadata(&[&tp.topic]).await.map_err(|e| e.to_string())?;
    let leader = metadata.leader(tp).and_then(|leader| metadata.nodes.get(&leader.node)).ok_or("no leader")?;
    let address = format!("{}:{}", leader.host, leader.port);
    let address = address.parse().map_err(|e| format!("{address}: {e}"))?;
    env::net::TcpStream::connect(address).await.map_err(|e| e.to_string())
}

async fn fetch(
    stream: &mut env::net::TcpStream,
    tp: &TopicPartition,
    from: i64,
    correlation: i32,
) -> Result<FetchResponse, String> {
    let partition = FetchPartition::default()
        .with_partition(tp.partition)
        .with_fetch_offset(from)
        .with_partition_max_bytes(MAX_BYTES);
    let topic = FetchTopic::default().with_topic(topic_name(tp.topic.clone())).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_bytes(MAX_BYTES)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let frame = protocol::request::encode(FETCH_VERSION, correlation, Some("final-read"), &RequestBody::Fetch(request));
    let frame = frame.map_err(|e| e.to_string())?;
    stream.write_all(&frame).await.map_err(|e| e.to_string())?;
    stream.flush().await.map_err(|e| e.to_string())?;
    let length = stream.read_i32().await.map_err(|e| e.to_string())?;
    let mut body = BytesMut::zeroed(usize::try_from(length).map_err(|_| format!("frame of {length} bytes"))?);
    stream.read_exact(&mut body).await.map_err(|e| e.to_string())?;
    match protocol::response::decode(ApiKey::Fetch, FETCH_VERSION, body.freeze()).map_err(|e| e.to_string())? {
        (_, ResponseBody::Fetch(response)) => Ok(response),
        (_, other) => Err(format!("an answer of another kind: {other:?}")),
    }
}

/// What the system's consumer returns at `read_committed`, up to `upper`.
async fn committed(client: &Client, tp: &TopicPartition, upper: i64) -> PartitionLog {
    let config = ConsumerConfig {
        isolation: Isolation::ReadCommitted,
        max_wait: Duration::from_millis(100),
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::new(client.clone(), config);
    consumer.assign(vec![(tp.clone(), 0)]);
    let mut log = PartitionLog {
        source: LogSource::ReadCommitted,
        topic: tp.topic.clone(),
        partition: tp.partition,
        log_start_offset: 0,
        log_end_offset: 0,
        high_watermark: None,
        last_stable_offset: None,
        records: Default::default(),
    };
    while log.log_end_offset < upper {
        for result in consumer.poll().await {
            log.log_end_offset = log.log_end_offset.max(result.position);
            log.high_watermark = Some(result.high_watermark);
            log.last_stable_offset = Some(result.last_stable_offset);
            log.records.extend(result.records.into_iter().map(consumed));
        }
    }
    log
}

fn consumed(record: client::Record) -> LogRecord {
    LogRecord {
        offset: record.offset,
        leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        sequence: -1,
        transactional: false,
        control: None,
        timestamp_ms: record.timestamp,
        key: record.key.map(Blob),
        value: record.value.map(Blob),
        headers: record
            .headers
            .into_iter()
            .map(|(key, value)| Header { key: Blob(key), value: value.map(Blob) })
            .collect(),
    }
}
