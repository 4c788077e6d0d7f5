//! The consumer: partitions assigned by hand, read by long poll. It has no task of its own: [`Consumer::poll`] drives
//! it, and one response per broker may wait while nobody polls.

mod machine;
mod records;
mod session;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use env::clock::Instant;
use env::node::{When, crash_point};
use env::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use env::sync::{Mutex, Notify};
use protocol::batch::{Limits, Record};
use protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use protocol::messages::{FetchRequest, FetchResponse, OffsetForLeaderEpochRequest};
use protocol::{ApiKey, ErrorCode, ResponseBody, str_bytes, topic_name};

use crate::admin::{Admin, OffsetSpec, by_topic};
use crate::backoff::Backoff;
use crate::client::{Client, Lane};
use crate::connection::Connection;
use crate::error::CallError;
use crate::metadata::{Leader, Metadata, TopicPartition};

use machine::{Action, Answer, EpochEnd, Machine, Settings, Wanted};
use records::Aborted;
use session::{Ask, Session};

const ROLE: &str = "consumer";

/// Requests carry sessions from this version on.
const WITH_SESSIONS: i16 = 7;
/// A consumer says where it is from this version on.
const WITH_RACK: i16 = 11;
/// Topic ids replaced names in Fetch with this version.
const FIRST_WITH_TOPIC_ID: i16 = 13;
/// In newer versions only followers say more.
const NEWEST: i16 = 17;

/// Which records of transactions are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Isolation {
    ReadUncommitted,
    #[default]
    ReadCommitted,
}

impl Isolation {
    pub(crate) fn wire(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// What to do when the position is not, or no longer, in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum OutOfRange {
    /// Report it, and stop the partition until it is sought.
    #[default]
    Fail,
    Earliest,
    Latest,
}

/// Settings of one consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerConfig {
    pub isolation: Isolation,
    pub out_of_range: OutOfRange,
    /// How long a broker may hold an empty response.
    pub max_wait: Duration,
    pub min_bytes: i32,
    /// Of one response.
    pub max_bytes: i32,
    /// Of one partition in a response. Both give way to the first batch.
    pub partition_max_bytes: i32,
    pub limits: Limits,
    /// Where this consumer is: a leader may send it to a replica nearby (KIP-392).
    pub rack: Option<String>,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            out_of_range: OutOfRange::default(),
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 8 * 1024 * 1024,
            partition_max_bytes: 1024 * 1024,
            limits: Limits::default(),
            rack: None,
        }
    }
}

/// Why a fetch brought nothing, or not all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to fetch: {reason}")]
pub struct FetchError {
    pub code: Option<ErrorCode>,
    pub reason: Cow<'static, str>,
    /// The partition waits for [`Consumer::seek`]; otherwise it is fetched again by itself.
    pub stopped: bool,
}

/// What one fetch of one partition brought. An empty one is a result, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchResult {
    pub partition: TopicPartition,
    /// In order of offset, none below the position before. Control records and, with `read_committed`, aborted ones are
    /// left out.
    pub records: Vec<Record>,
    /// The next offset to be read.
    pub position: i64,
    /// -1 when the broker did not say.
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// The leader epoch of the last batch before the position, if one was read.
    pub leader_epoch: Option<i32>,
    /// The epoch of the leader that answered; `None` where a follower did, or nobody.
    pub answered_in: Option<i32>,
    pub error: Option<FetchError>,
    /// When the request was handed to the connection.
    pub sent_at: Instant,
    /// When its response, or the loss of it, was noticed.
    pub received_at: Instant,
}

enum Event {
    Metadata {
        ok: bool,
    },
    Fetched {
        node: i32,
        sent_at: Instant,
        received_at: Instant,
        wanted: Vec<Wanted>,
        result: Result<BTreeMap<TopicPartition, Answer>, CallError>,
    },
    Offset {
        tp: TopicPartition,
        generation: u64,
        offset: Option<i64>,
    },
    Validated {
        tp: TopicPartition,
        generation: u64,
        leader: Leader,
        result: Result<Option<EpochEnd>, ErrorCode>,
    },
}

type Sessions = Rc<RefCell<BTreeMap<i32, Session>>>;

/// Reads assigned partitions. All methods take `&self`: share it in an `Rc` to pause or seek while another task polls.
pub struct Consumer {
    client: Client,
    config: Rc<ConsumerConfig>,
    lane: Lane,
    /// By broker.
    sessions: Sessions,
    machine: RefCell<Machine>,
    /// The application changed something while a poll may be waiting.
    wake: Notify,
    events: UnboundedSender<Event>,
    inbox: Mutex<UnboundedReceiver<Event>>,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.client.close_lane(self.lane);
    }
}

impl Consumer {
    pub fn new(client: Client, config: ConsumerConfig) -> Self {
        let (events, inbox) = unbounded_channel();
        let settings = Settings {
            isolation: config.isolation,
            out_of_range: config.out_of_range,
            max_wait: config.max_wait,
            backoff: Backoff { initial: client.config().retry_backoff, max: client.config().retry_backoff_max },
            limits: config.limits,
        };
        Self {
            lane: client.new_lane(),
            client,
            config: Rc::new(config),
            sessions: Sessions::default(),
            machine: RefCell::new(Machine::new(settings)),
            wake: Notify::new(),
            events,
            inbox: Mutex::new(inbox),
        }
    }

    /// Replaces the assignment; each partition is read from its offset on.
    pub fn assign(&self, partitions: Vec<(TopicPartition, i64)>) {
        self.client.want_topics(partitions.iter().map(|(tp, _)| tp.topic.as_str()));
        self.machine.borrow_mut().assign(partitions);
        self.wake.notify_one();
    }

    /// Adds a partition to those that are read, with the leader epoch of what was read before (-1 if it is not known).
    pub fn assign_more(&self, tp: &TopicPartition, offset: i64, leader_epoch: i32) {
        self.client.want_topics([tp.topic.as_str()]);
        self.machine.borrow_mut().assign_more(tp.clone(), offset, leader_epoch);
        self.wake.notify_one();
    }

    /// Reads these no more; what is on its way is dropped.
    pub fn unassign<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        let mut machine = self.machine.borrow_mut();
        for tp in partitions {
            machine.unassign(tp);
        }
    }

    /// Moves a partition to another offset. False if it is not assigned.
    pub fn seek(&self, tp: &TopicPartition, offset: i64) -> bool {
        let found = self.machine.borrow_mut().seek(tp, offset);
        self.wake.notify_one();
        found
    }

    /// Fetches no more of a partition until it is resumed. What is on its way is dropped, the position stays. False if
    /// it is not assigned.
    pub fn pause(&self, tp: &TopicPartition) -> bool {
        self.machine.borrow_mut().set_paused(tp, true)
    }

    pub fn resume(&self, tp: &TopicPartition) -> bool {
        let found = self.machine.borrow_mut().set_paused(tp, false);
        self.wake.notify_one();
        found
    }

    /// The next offset of each assigned partition.
    pub fn positions(&self) -> BTreeMap<TopicPartition, i64> {
        self.machine.borrow().positions()
    }

    /// Waits for results of one or more partitions; empty fetches and errors are results. Dropping the future loses
    /// nothing. It waits for ever while nothing is assigned or all is paused. One poll at a time; a second one waits.
    pub async fn poll(&self) -> Vec<FetchResult> {
        let mut inbox = self.inbox.lock().await;
        loop {
            while let Ok(event) = inbox.try_recv() {
                self.handle(event);
            }
            // The next fetch is on its way while the application looks at this one's records.
            let (actions, results, timeout) = {
                let mut machine = self.machine.borrow_mut();
                machine.set_metadata(self.client.metadata());
                (machine.poll(env::clock::now()), machine.take_results(), machine.next_timeout())
            };
            for action in actions {
                self.execute(action);
            }
            if !results.is_empty() {
                return results;
            }
            let timer = async {
                match timeout {
                    Some(at) => env::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let event = env::select! {
                event = inbox.recv() => event,
                () = self.wake.notified() => None,
                () = timer => None,
            };
            if let Some(event) = event {
                self.handle(event);
            }
        }
    }

    fn handle(&self, event: Event) {
        let now = env::clock::now();
        let mut machine = self.machine.borrow_mut();
        match event {
            Event::Metadata { ok } => {
                machine.set_metadata(self.client.metadata());
                machine.metadata_refreshed(now, ok);
            }
            Event::Fetched { node, sent_at, received_at, wanted, result } => {
                machine.fetched(received_at, sent_at, node, wanted, result);
            }
            Event::Offset { tp, generation, offset } => machine.reset(now, &tp, generation, offset),
            Event::Validated { tp, generation, leader, result } => {
                machine.validated(now, &tp, generation, leader, result);
            }
        }
    }

    /// Starts an action in a task of its own, with a crash point before and after it.
    fn execute(&self, action: Action) {
        let (client, events) = (self.client.clone(), self.events.clone());
        match action {
            Action::RefreshMetadata => {
                env::task::spawn(async move {
                    let ok = client.refresh().await.is_ok();
                    let _ = events.send(Event::Metadata { ok });
                });
            }
            Action::Fetch { node, partitions } => {
                let (config, lane, sessions) = (Rc::clone(&self.config), self.lane, Rc::clone(&self.sessions));
                env::task::spawn(async move {
                    let partition = partitions.first().map(|w| w.tp.partition);
                    crash_point(ROLE, "fetch", partition, When::Before).await;
                    let sent_at = env::clock::now();
                    let result = fetch(&client, &config, lane, &sessions, node, &partitions).await;
                    let received_at = env::clock::now();
                    crash_point(ROLE, "fetch", partition, When::After).await;
                    let _ = events.send(Event::Fetched { node, sent_at, received_at, wanted: partitions, result });
                });
            }
            Action::Validate { tp, generation, leader, last_epoch } => {
                let lane = self.lane;
                env::task::spawn(async move {
                    let result = epoch_end(&client, lane, &tp, leader, last_epoch).await;
                    let _ = events.send(Event::Validated { tp, generation, leader, result });
                });
            }
            Action::FindOffset { tp, generation, earliest } => {
                let isolation = self.config.isolation;
                env::task::spawn(async move {
                    let spec = if earliest { OffsetSpec::Earliest } else { OffsetSpec::Latest };
                    let found = Admin::new(client).list_offsets(std::slice::from_ref(&tp), spec, isolation).await;
                    let offset = found.ok().and_then(|offsets| offsets.get(&tp).copied().flatten());
                    let _ = events.send(Event::Offset { tp, generation, offset });
                });
            }
        }
    }
}

/// Asks the leader where the epoch ends in its log. `None` if it does not speak of epochs.
async fn epoch_end(
    client: &Client,
    lane: Lane,
    tp: &TopicPartition,
    leader: Leader,
    last_epoch: i32,
) -> Result<Option<EpochEnd>, ErrorCode> {
    let connection = client.connect(leader.node, lane).await.map_err(|_| ErrorCode::NETWORK_EXCEPTION)?;
    let Ok(version) = connection.version_up_to(ApiKey::OffsetForLeaderEpoch, 4) else { return Ok(None) };
    let partition = OffsetForLeaderPartition::default()
        .with_partition(tp.partition)
        .with_current_leader_epoch(leader.epoch)
        .with_leader_epoch(last_epoch);
    let topic =
        OffsetForLeaderTopic::default().with_topic(topic_name(tp.topic.as_str())).with_partitions(vec![partition]);
    let mut body = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    if version >= 3 {
        // A consumer.
        body.replica_id = (-1).into();
    }
    let answer = client.call(&connection, ROLE, "offset_for_leader_epoch", version, &body.into()).await;
    let ResponseBody::OffsetForLeaderEpoch(answer) = answer.map_err(|_| ErrorCode::NETWORK_EXCEPTION)? else {
        return Err(ErrorCode::UNKNOWN_SERVER_ERROR);
    };
    let found = answer.topics.first().and_then(|t| t.partitions.first()).ok_or(ErrorCode::UNKNOWN_SERVER_ERROR)?;
    ErrorCode::from_code(found.error_code).ok()?;
    Ok(Some(EpochEnd { epoch: found.leader_epoch, end: found.end_offset }))
}

async fn fetch(
    client: &Client,
    config: &ConsumerConfig,
    lane: Lane,
    sessions: &Sessions,
    node: i32,
    wanted: &[Wanted],
) -> Result<BTreeMap<TopicPartition, Answer>, CallError> {
    let connection = client.connect(node, lane).await?;
    let metadata = client.metadata();
    let ask = sessions.borrow_mut().entry(node).or_default().ask(wanted, |topic| metadata.topic_id(topic));
    let answer = match submit(client, &connection, config, &metadata, ask) {
        Ok(reply) => reply.wait().await,
        Err(e) => Err(e),
    };
    let mut sessions = sessions.borrow_mut();
    let session = sessions.entry(node).or_default();
    match answer {
        Ok(ResponseBody::Fetch(answer)) => {
            let (id, code) = (answer.session_id, ErrorCode::from_code(answer.error_code));
            let mut answers = answers(answer, &metadata, wanted);
            session.answered(id, code, &mut answers);
            Ok(answers)
        }
        Ok(_) => {
            session.lost();
            Err(CallError::Lost("answer to another request".into()))
        }
        Err(e) => {
            session.lost();
            Err(e)
        }
    }
}

fn submit(
    client: &Client,
    connection: &Connection,
    config: &ConsumerConfig,
    metadata: &Metadata,
    ask: Ask,
) -> Result<crate::connection::Reply, CallError> {
    let with_ids = ask.named.iter().all(|w| metadata.topic_id(&w.tp.topic).is_some())
        && ask.forgotten.iter().all(|(_, id)| id.is_some());
    let max = if with_ids { NEWEST } else { FIRST_WITH_TOPIC_ID - 1 };
    let version = connection.version_up_to(ApiKey::Fetch, max)?;
    let topics = by_topic(ask.named.iter().map(|w| (&w.tp, w))).into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(index, w)| {
            FetchPartition::default()
                .with_partition(index)
                .with_current_leader_epoch(w.leader_epoch)
                .with_fetch_offset(w.position)
                .with_partition_max_bytes(config.partition_max_bytes)
        });
        let fetch = FetchTopic::default().with_partitions(partitions.collect());
        match metadata.topic_id(topic) {
            Some(id) if version >= FIRST_WITH_TOPIC_ID => fetch.with_topic_id(id),
            _ => fetch.with_topic(topic_name(topic)),
        }
    });
    let mut body = FetchRequest::default()
        .with_max_wait_ms(i32::try_from(config.max_wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(config.min_bytes)
        .with_max_bytes(config.max_bytes)
        .with_isolation_level(config.isolation.wire())
        .with_session_id(ask.session_id)
        .with_session_epoch(ask.session_epoch)
        .with_topics(topics.collect());
    if version >= WITH_SESSIONS {
        let forgotten =
            by_topic(ask.forgotten.iter().map(|(tp, id)| (tp, *id))).into_iter().map(|(topic, partitions)| {
                let id = partitions.first().and_then(|(_, id)| *id);
                let gone = ForgottenTopic::default().with_partitions(partitions.into_iter().map(|(p, _)| p).collect());
                match id {
                    Some(id) if version >= FIRST_WITH_TOPIC_ID => gone.with_topic_id(id),
                    _ => gone.with_topic(topic_name(topic)),
                }
            });
        body.forgotten_topics_data = forgotten.collect();
    }
    if version >= WITH_RACK {
        body.rack_id = str_bytes(config.rack.as_deref().unwrap_or_default());
    }
    connection.submit(version, &body.into(), client.config().request_timeout + config.max_wait)
}

/// What a response says of each partition, by name.
fn answers(answer: FetchResponse, metadata: &Metadata, wanted: &[Wanted]) -> BTreeMap<TopicPartition, Answer> {
    let overall = ErrorCode::from_code(answer.error_code);
    let mut answers = BTreeMap::new();
    if !overall.is_ok() {
        // Of a session, say: no partition is named.
        let refused = |w: &Wanted| (w.tp.clone(), Answer { code: overall, ..Answer::default() });
        answers.extend(wanted.iter().map(refused));
    }
    for t in answer.responses {
        let name = if t.topic_id.is_nil() { Some(t.topic.as_str()) } else { metadata.topic_name(t.topic_id) };
        let Some(name) = name else { continue };
        for p in t.partitions {
            let code = if overall.is_ok() { ErrorCode::from_code(p.error_code) } else { overall };
            let aborted = p.aborted_transactions.unwrap_or_default().into_iter();
            let aborted =
                aborted.map(|a| Aborted { first_offset: a.first_offset, producer_id: a.producer_id.0 }).collect();
            let answer = Answer {
                code,
                high_watermark: p.high_watermark,
                last_stable_offset: p.last_stable_offset,
                log_start_offset: p.log_start_offset,
                aborted,
                records: p.records.unwrap_or_default(),
                preferred: (p.preferred_read_replica.0 >= 0).then_some(p.preferred_read_replica.0),
            };
            answers.insert(TopicPartition::new(name, p.partition_index), answer);
        }
    }
    answers
}
