//! The loop that executes what the sending machine decides. Each action has a crash point before and after it.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use env::node::{When, crash_point};
use env::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use protocol::messages::ProduceRequest;
use protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use protocol::{ApiKey, ErrorCode, ResponseBody, topic_name};

use super::machine::{Action, Answer};
use super::transaction::TxnVersion;
use super::{Acks, ProducerIdEpoch, RecordMetadata, Shared, Token};
use crate::admin::by_topic;
use crate::connection::{Connection, Reply};
use crate::error::CallError;
use crate::metadata::{Metadata, TopicPartition};

pub(super) const ROLE: &str = "producer";

/// Topic ids replaced names in Produce with this version.
const FIRST_WITH_TOPIC_ID: i16 = 13;
/// From this version on a leader adds the partition to the transaction (KIP-890).
const FIRST_IMPLICIT_ADD: i16 = 12;

/// What the tasks that wait on the driver's behalf tell it.
pub(super) enum Event {
    Metadata {
        ok: bool,
    },
    Connected {
        node: i32,
        connection: Option<Rc<Connection>>,
    },
    Produced {
        request: u64,
        result: Result<BTreeMap<TopicPartition, Answer>, CallError>,
    },
    Identity(Option<ProducerIdEpoch>),
    /// The machine was told already.
    Poll,
}

pub(super) async fn run(shared: Rc<Shared>, events: UnboundedSender<Event>, mut inbox: UnboundedReceiver<Event>) {
    let mut driver = Driver { shared, events, connections: BTreeMap::new() };
    loop {
        let (actions, timeout) = {
            let mut machine = driver.shared.machine.borrow_mut();
            machine.set_metadata(driver.shared.client.metadata());
            let actions = machine.poll(env::clock::now());
            (actions, machine.next_timeout())
        };
        // Actions may be followed by more at once, but only through an event: none is done twice.
        for action in actions {
            let (label, partition) = describe(&action);
            crash_point(ROLE, label, partition, When::Before).await;
            driver.execute(action);
            crash_point(ROLE, label, partition, When::After).await;
        }
        let timer = async {
            match timeout {
                Some(at) => env::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        env::select! {
            event = inbox.recv() => match event {
                Some(event) => {
                    driver.handle(event);
                    // Events that are here already belong to the same decision.
                    while let Ok(event) = inbox.try_recv() {
                        driver.handle(event);
                    }
                }
                None => return,
            },
            () = driver.shared.wake.notified() => {}
            () = timer => {}
        }
    }
}

fn describe(action: &Action<Token>) -> (&'static str, Option<i32>) {
    match action {
        Action::RefreshMetadata => ("refresh_metadata", None),
        Action::Connect { .. } => ("connect", None),
        Action::InitProducerId => ("init_producer_id", None),
        Action::AddPartitions(_) => ("add_partitions", None),
        Action::Produce { batches, .. } => ("produce", batches.first().map(|(tp, _)| tp.partition)),
        Action::Complete { tokens, .. } => ("complete", tokens.first().map(|t| t.partition)),
    }
}

struct Driver {
    shared: Rc<Shared>,
    events: UnboundedSender<Event>,
    connections: BTreeMap<i32, Rc<Connection>>,
}

impl Driver {
    /// Starts the action; whatever has to be waited for is waited for in a task of its own. The tasks hold no handle of
    /// the producer, and what they send to a driver that is gone is dropped.
    fn execute(&mut self, action: Action<Token>) {
        let client = self.shared.client.clone();
        let events = self.events.clone();
        match action {
            Action::RefreshMetadata => {
                env::task::spawn(async move {
                    let ok = client.refresh().await.is_ok();
                    let _ = events.send(Event::Metadata { ok });
                });
            }
            Action::Connect { node } => {
                let lane = self.shared.lane;
                env::task::spawn(async move {
                    let connection = client.connect(node, lane).await;
                    if let Err(e) = &connection {
                        tracing::debug!(broker = node, error = %e, "producer failed to connect");
                    }
                    let _ = events.send(Event::Connected { node, connection: connection.ok() });
                });
            }
            Action::InitProducerId => {
                env::task::spawn(async move {
                    let id = super::coordination::producer_id(&client).await;
                    let _ = events.send(Event::Identity(id.ok()));
                });
            }
            Action::AddPartitions(partitions) => {
                let shared = Rc::clone(&self.shared);
                env::task::spawn(async move {
                    super::coordination::add_partitions(&shared, partitions).await;
                    let _ = events.send(Event::Poll);
                });
            }
            Action::Produce { request, node, batches } => self.produce(request, node, batches),
            Action::Complete { tokens, result } => {
                let mut offset = result.as_ref().ok().copied().flatten();
                for token in tokens {
                    let metadata = RecordMetadata { partition: token.partition, offset };
                    let _ = token.reply.send(result.clone().map(|_| metadata));
                    offset = offset.map(|o| o + 1);
                }
                self.shared.progress.notify_waiters();
            }
        }
    }

    fn produce(&mut self, request: u64, node: i32, batches: Vec<(TopicPartition, Bytes)>) {
        let metadata = self.shared.client.metadata();
        let submitted = match self.connections.get(&node) {
            Some(connection) => self.submit(connection, &metadata, &batches),
            None => Err(CallError::NotSent("connection is gone".into())),
        };
        let events = self.events.clone();
        match submitted {
            Ok(Some(reply)) => {
                env::task::spawn(async move {
                    let result = reply.wait().await.map(|body| answers(&body, &metadata));
                    let _ = events.send(Event::Produced { request, result });
                });
            }
            Ok(None) => {
                let result = Ok(batches.into_iter().map(|(tp, _)| (tp, Ok(-1))).collect());
                let _ = events.send(Event::Produced { request, result });
            }
            Err(e) => {
                self.connections.remove(&node);
                let _ = events.send(Event::Produced { request, result: Err(e) });
            }
        }
    }

    /// Writes the request; `None` if it will not be answered.
    fn submit(
        &self,
        connection: &Connection,
        metadata: &Metadata,
        batches: &[(TopicPartition, Bytes)],
    ) -> Result<Option<Reply>, CallError> {
        let config = &self.shared.config;
        let with_ids = batches.iter().all(|(tp, _)| metadata.topic_id(&tp.topic).is_some());
        let mut max = if with_ids { FIRST_WITH_TOPIC_ID } else { FIRST_WITH_TOPIC_ID - 1 };
        let mut min = 0;
        if let Some(txn) = &self.shared.machine.borrow().txn {
            match txn.version {
                TxnVersion::V1 => max = max.min(FIRST_IMPLICIT_ADD - 1),
                TxnVersion::V2 => min = FIRST_IMPLICIT_ADD,
            }
        }
        let version = connection.version_up_to(ApiKey::Produce, max)?;
        if version < min {
            return Err(CallError::Unsupported(ApiKey::Produce));
        }
        let topics = by_topic(batches.iter().map(|(tp, bytes)| (tp, bytes))).into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|(index, bytes)| {
                PartitionProduceData::default().with_index(index).with_records(Some(bytes.clone()))
            });
            let data = TopicProduceData::default().with_partition_data(partitions.collect());
            match metadata.topic_id(topic) {
                Some(id) if version >= FIRST_WITH_TOPIC_ID => data.with_topic_id(id),
                _ => data.with_name(topic_name(topic)),
            }
        });
        let timeout = self.shared.client.config().request_timeout;
        let body = ProduceRequest::default()
            .with_transactional_id(config.transactional_id.as_ref().map(|id| protocol::str_bytes(id.clone()).into()))
            .with_acks(config.acks.wire())
            .with_timeout_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(topics.collect())
            .into();
        match config.acks {
            Acks::None => connection.submit_unanswered(version, &body).map(|()| None),
            Acks::Leader | Acks::All => connection.submit(version, &body, timeout).map(Some),
        }
    }

    fn handle(&mut self, event: Event) {
        let now = env::clock::now();
        let mut machine = self.shared.machine.borrow_mut();
        match event {
            Event::Metadata { ok } => {
                machine.set_metadata(self.shared.client.metadata());
                machine.metadata_refreshed(now, ok);
            }
            Event::Connected { node, connection } => {
                machine.connected(now, node, connection.is_some());
                match connection {
                    Some(connection) => self.connections.insert(node, connection),
                    None => self.connections.remove(&node),
                };
            }
            Event::Produced { request, result } => machine.produced(now, request, result),
            Event::Identity(Some(id)) => machine.set_identity(id),
            Event::Identity(None) => machine.identity_failed(now),
            Event::Poll => {}
        }
    }
}

/// What a response says of each partition, by name.
fn answers(body: &ResponseBody, metadata: &Metadata) -> BTreeMap<TopicPartition, Answer> {
    let ResponseBody::Produce(answer) = body else { return BTreeMap::new() };
    let mut answers = BTreeMap::new();
    for t in &answer.responses {
        let name = if t.topic_id.is_nil() { Some(t.name.as_str()) } else { metadata.topic_name(t.topic_id) };
        let Some(name) = name else { continue };
        for p in &t.partition_responses {
            let result = ErrorCode::from_code(p.error_code).ok().map(|()| p.base_offset);
            answers.insert(TopicPartition::new(name, p.index), result);
        }
    }
    answers
}
