//! Fetching as a follower: one task a leader, one request at a time for all partitions followed there.
//!
//! ```text
//! position (secured end, last epoch) ──▶ Fetch, long poll ──▶ records: append, flush ──▶ next position
//!                                                       └──▶ diverging epoch: truncate ──▶ next position
//! ```
//! A position is given by the partition only once all below it is secured, so what the leader learns from a fetch is
//! what survives here. A partition whose answer was an error rests for a while; the others go on.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use env::clock::{self, Instant};
use env::node::{When, crash_point};
use env::sync::Notify;
use env::task::AbortOnDrop;
use protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use protocol::messages::fetch_response::PartitionData;
use protocol::messages::{BrokerId, FetchRequest, FetchResponse};
use protocol::{ErrorCode, RequestBody, ResponseBody, Uuid};

use crate::context::Context;
use crate::join::join_all;
use crate::partition::machine::Position;
use crate::partition::{Partition, TopicPartition};
use crate::peer::{Peer, PeerConfig};

const VERSION: i16 = 17;
/// How long a leader without news keeps a fetch (`replica.fetch.wait.max.ms`).
const MAX_WAIT: Duration = Duration::from_millis(500);
/// Beyond that an answer must have come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After an error, before the partition, or the leader, is tried again (`replica.fetch.backoff.ms`).
const BACKOFF: Duration = Duration::from_millis(500);
/// The same for a leader that does not know yet that it is one: it will within moments.
const NOT_YET: Duration = Duration::from_millis(100);
/// Of one answer (`replica.fetch.response.max.bytes`), and of one partition in it.
const MAX_BYTES: i32 = 10 << 20;
const PARTITION_MAX_BYTES: i32 = 1 << 20;

pub(super) type PartitionKey = (Uuid, i32);

/// A partition that is followed.
struct Followed {
    partition: Partition,
    leader_epoch: i32,
    /// `None`: not known yet, or lost with an error.
    position: Option<Position>,
    not_before: Option<Instant>,
}

type Shared = Rc<RefCell<BTreeMap<PartitionKey, Followed>>>;

/// All fetchers of a broker, by leader.
pub(super) struct Fetchers {
    context: Weak<Context>,
    by_leader: BTreeMap<i32, Fetcher>,
}

struct Fetcher {
    partitions: Shared,
    changed: Rc<Notify>,
    _task: AbortOnDrop<()>,
}

impl Fetchers {
    pub fn new(context: Weak<Context>) -> Self {
        Self { context, by_leader: BTreeMap::new() }
    }

    /// Fetches the partition from `leader`, which leads it in `leader_epoch`, and from nobody else.
    pub fn follow(&mut self, leader: i32, key: PartitionKey, partition: Partition, leader_epoch: i32) {
        let others = self.by_leader.iter().filter(|(id, _)| **id != leader);
        others.for_each(|(_, fetcher)| fetcher.remove(key));
        let context = self.context.clone();
        let fetcher = self.by_leader.entry(leader).or_insert_with(|| {
            let (partitions, changed) = (Shared::default(), Rc::new(Notify::new()));
            let task = Task {
                context,
                leader,
                partitions: Rc::clone(&partitions),
                changed: Rc::clone(&changed),
                peer: RefCell::default(),
                failing: Cell::new(false),
            };
            Fetcher { partitions, changed, _task: env::task::spawn(task.run()).abort_on_drop() }
        });
        let mut partitions = fetcher.partitions.borrow_mut();
        if partitions.get(&key).is_none_or(|f| f.leader_epoch != leader_epoch) {
            let followed = Followed { partition, leader_epoch, position: None, not_before: None };
            partitions.insert(key, followed);
            drop(partitions);
            fetcher.changed.notify_one();
        }
    }

    pub fn stop(&mut self, key: PartitionKey) {
        self.by_leader.values().for_each(|fetcher| fetcher.remove(key));
    }

    /// All tasks end; what they were about to append is not appended.
    pub fn stop_all(&mut self) {
        self.by_leader.clear();
    }
}

impl Fetcher {
    fn remove(&self, key: PartitionKey) {
        self.partitions.borrow_mut().remove(&key);
    }
}

struct Task {
    context: Weak<Context>,
    leader: i32,
    partitions: Shared,
    changed: Rc<Notify>,
    peer: RefCell<Option<Peer>>,
    failing: Cell<bool>,
}

/// What a round asks of one partition.
struct Asked {
    key: PartitionKey,
    partition: Partition,
    leader_epoch: i32,
    position: Position,
}

impl Task {
    async fn run(self) {
        loop {
            self.find_positions().await;
            let asked = self.asked();
            if asked.is_empty() {
                self.rest().await;
                continue;
            }
            match self.fetch(&asked).await {
                Some(response) => {
                    self.failing.set(false);
                    self.take(asked, response).await;
                }
                None => {
                    self.failing.set(true);
                    env::time::sleep(BACKOFF).await;
                }
            }
        }
    }

    /// Asks partitions that have just come, or had an error, where their logs end.
    async fn find_positions(&self) {
        let now = clock::now();
        let unknown: Vec<_> = {
            let partitions = self.partitions.borrow();
            let due = |f: &Followed| f.position.is_none() && f.not_before.is_none_or(|at| at <= now);
            let unknown = partitions.iter().filter(|(_, f)| due(f));
            unknown.map(|(key, f)| (*key, f.partition.clone(), f.leader_epoch)).collect()
        };
        let asking = unknown.into_iter().map(|(key, partition, leader_epoch)| async move {
            // Nothing to append: answered when all there is is secured.
            let position = partition.replicate(leader_epoch, Bytes::new(), 0).await;
            (key, leader_epoch, position)
        });
        for (key, leader_epoch, position) in join_all(asking).await {
            self.moved(key, leader_epoch, position);
        }
    }

    fn asked(&self) -> Vec<Asked> {
        let now = clock::now();
        let partitions = self.partitions.borrow();
        let ready = partitions.iter().filter(|(_, f)| f.not_before.is_none_or(|at| at <= now));
        let asked = ready.filter_map(|(key, f)| {
            let (partition, leader_epoch, position) = (f.partition.clone(), f.leader_epoch, f.position?);
            Some(Asked { key: *key, partition, leader_epoch, position })
        });
        asked.collect()
    }

    /// Until a partition comes, or one has rested.
    async fn rest(&self) {
        let next = self.partitions.borrow().values().filter_map(|f| f.not_before).min();
        match next {
            None => self.changed.notified().await,
            Some(at) => {
                let _ = env::time::timeout_at(at, self.changed.notified()).await;
            }
        }
    }

    async fn fetch(&self, asked: &[Asked]) -> Option<FetchResponse> {
        let context = self.context.upgrade()?;
        let peer = self.peer(&context)?;
        let mut topics: BTreeMap<Uuid, Vec<FetchPartition>> = BTreeMap::new();
        for a in asked {
            let log_start = a.partition.secured_start_offset();
            let partition = FetchPartition::default()
                .with_partition(a.key.1)
                .with_current_leader_epoch(a.leader_epoch)
                .with_fetch_offset(a.position.end)
                .with_last_fetched_epoch(a.position.last_epoch.unwrap_or(-1))
                .with_log_start_offset(log_start)
                .with_partition_max_bytes(PARTITION_MAX_BYTES);
            topics.entry(a.key.0).or_default().push(partition);
        }
        let topics = topics.into_iter().map(|(id, p)| FetchTopic::default().with_topic_id(id).with_partitions(p));
        let replica = ReplicaState::default()
            .with_replica_id(BrokerId(context.config.node_id))
            .with_replica_epoch(context.controller.broker_epoch());
        let request = FetchRequest::default()
            .with_replica_state(replica)
            .with_max_wait_ms(MAX_WAIT.as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(MAX_BYTES)
            .with_session_epoch(-1)
            .with_topics(topics.collect());
        drop(context);
        crash_point("broker", "fetch.send", None, When::Before).await;
        let answer = peer.call(VERSION, &RequestBody::from(request), MAX_WAIT + REQUEST_TIMEOUT).await;
        crash_point("broker", "fetch.send", None, When::After).await;
        match answer {
            Ok(ResponseBody::Fetch(response)) if response.error_code == 0 => Some(response),
            Ok(ResponseBody::Fetch(response)) => {
                let error = ErrorCode::from_code(response.error_code);
                tracing::debug!(leader = self.leader, %error, "fetch was refused");
                None
            }
            Ok(other) => {
                tracing::error!(leader = self.leader, ?other, "fetch was answered with something else");
                None
            }
            Err(error) => {
                // Once for a while of failures: a leader that is down is no news.
                if !self.failing.get() {
                    tracing::info!(leader = self.leader, %error, "failed to fetch");
                }
                None
            }
        }
    }

    /// The connection to the leader, at the address that the image gives.
    fn peer(&self, context: &Context) -> Option<Peer> {
        let address = context.metadata.with(|image| image.brokers.get(&self.leader).map(|b| (b.host.clone(), b.port)));
        let (host, port) = address?;
        let mut peer = self.peer.borrow_mut();
        if let Some(known) = peer.as_ref().filter(|p| p.address() == (host.as_str(), port)) {
            return Some(known.clone());
        }
        let config = PeerConfig { connect_timeout: CONNECT_TIMEOUT, max_response_bytes: 4 * MAX_BYTES as usize };
        let new = Peer::new(context.config.node_id, host, port, config);
        *peer = Some(new.clone());
        Some(new)
    }

    /// Gives each partition its part of the answer, all at once, and waits until all have secured it.
    async fn take(&self, asked: Vec<Asked>, response: FetchResponse) {
        let mut answers: BTreeMap<PartitionKey, PartitionData> = BTreeMap::new();
        let mut bytes = 0;
        for topic in response.responses {
            for data in topic.partitions {
                bytes += data.records.as_ref().map_or(0, Bytes::len);
                answers.insert((topic.topic_id, data.partition_index), data);
            }
        }
        for records in answers.values_mut().filter_map(|a| a.records.as_mut()) {
            // The log keeps its newest batches in memory: a small part must not keep all of a large answer there.
            if records.len() < bytes / 4 {
                *records = Bytes::copy_from_slice(records);
            }
        }
        let taking = asked.into_iter().map(|a| {
            let answer = answers.remove(&a.key);
            async move {
                let position = match answer {
                    Some(answer) => take_one(&a, answer).await,
                    None => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
                };
                (a.key, a.leader_epoch, position)
            }
        });
        for (key, leader_epoch, position) in join_all(taking).await {
            self.moved(key, leader_epoch, position);
        }
    }

    fn moved(&self, key: PartitionKey, leader_epoch: i32, position: Result<Position, ErrorCode>) {
        let mut partitions = self.partitions.borrow_mut();
        // It may have gone, or be followed in another epoch by now.
        let Some(followed) = partitions.get_mut(&key).filter(|f| f.leader_epoch == leader_epoch) else { return };
        (followed.position, followed.not_before) = match position {
            Ok(position) => (Some(position), None),
            Err(error) => {
                let TopicPartition { topic, partition, .. } = followed.partition.id();
                tracing::debug!(topic, partition, epoch = leader_epoch, leader = self.leader, %error, "not replicated");
                let soon = matches!(
                    error,
                    ErrorCode::UNKNOWN_LEADER_EPOCH | ErrorCode::UNKNOWN_TOPIC_ID | ErrorCode::NOT_LEADER_OR_FOLLOWER
                );
                (None, Some(clock::now() + if soon { NOT_YET } else { BACKOFF }))
            }
        };
    }
}

async fn take_one(asked: &Asked, answer: PartitionData) -> Result<Position, ErrorCode> {
    let error = ErrorCode::from_code(answer.error_code);
    if error == ErrorCode::OFFSET_OUT_OF_RANGE && answer.log_start_offset > asked.position.end {
        // What this log would go on with, the leader has given up.
        return asked.partition.reset(asked.leader_epoch, answer.log_start_offset).await;
    }
    error.ok()?;
    let diverging = &answer.diverging_epoch;
    if diverging.epoch >= 0 {
        // What else the answer says is of a log that this one is not a copy of yet (KAFKA-14704).
        return asked.partition.truncate(asked.leader_epoch, (diverging.epoch, diverging.end_offset)).await;
    }
    let records = answer.records.unwrap_or_default();
    let position = asked.partition.replicate(asked.leader_epoch, records, answer.high_watermark).await?;
    if answer.log_start_offset > asked.partition.log_start_offset() {
        // What the leader has given up goes here too, as far as it is known to be committed.
        asked.partition.start_at(answer.log_start_offset).await?;
    }
    Ok(position)
}
