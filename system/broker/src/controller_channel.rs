//! The way to the active controller, wherever it is.
//!
//! A call goes to the leader of the metadata quorum as this node knows it: without the network if that is this node. It
//! is tried again while there is no leader, while the one known is none any more, and, where that does no harm, after its
//! answer was lost; a new leader ends the wait for an old one. What does harm is answered REQUEST_TIMED_OUT: unknown.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use env::clock::Instant;
use env::node::{When, crash_point};
use env::sync::oneshot;
use protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use protocol::messages::assign_replicas_to_dirs_request as assign;
use protocol::messages::{
    AllocateProducerIdsRequest, AlterPartitionRequest, AssignReplicasToDirsRequest, BrokerHeartbeatRequest, BrokerId,
    BrokerRegistrationRequest, EnvelopeRequest, broker_registration_request,
};
use protocol::{ApiKey, ErrorCode, RequestBody, ResponseBody, Uuid, api, request, response, str_bytes};

use crate::config::BrokerConfig;
use crate::controller::admin;
use crate::controller::api::{ControllerApi, without_length};
use crate::controller::proposal::{Heartbeat, HeartbeatReply, IsrChange, IsrState, Registration};
use crate::metadata::Metadata;
use crate::peer::{Peer, PeerConfig, PeerError};

/// Between two tries, unless the leader changes before.
const BACKOFF: Duration = Duration::from_millis(100);
/// How long one try may take; the leader may be cut off and not know it.
const TRY: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(2);
/// How long a call of the broker's own is tried.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a lost answer means for a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// It may be made again.
    Again,
    /// Nobody knows.
    Unknown,
}

type Answer = Result<IsrState, ErrorCode>;

/// In-sync sets that wait for the request in flight to be answered; they share the next one.
#[derive(Default)]
struct Altering {
    waiting: Vec<(IsrChange, oneshot::Sender<Answer>)>,
    in_flight: bool,
}

pub(crate) struct ControllerChannel {
    me: Weak<Self>,
    node_id: i32,
    metadata: Metadata,
    local: ControllerApi,
    /// The other voters.
    peers: BTreeMap<i32, Peer>,
    /// From this broker's last registration; -1 before the first.
    broker_epoch: Cell<i64>,
    altering: RefCell<Altering>,
}

impl ControllerChannel {
    pub fn new(metadata: Metadata, config: &BrokerConfig) -> Rc<Self> {
        let node_id = config.node_id;
        let settings = PeerConfig { connect_timeout: CONNECT, max_response_bytes: config.max_frame_bytes };
        let peers = config
            .voters
            .iter()
            .filter(|(id, _)| **id != node_id)
            .map(|(id, (host, port))| (*id, Peer::new(node_id, host.clone(), *port, settings)))
            .collect();
        Rc::new_cyclic(|me| Self {
            me: me.clone(),
            node_id,
            local: ControllerApi::new(metadata.clone(), config),
            metadata,
            peers,
            broker_epoch: Cell::new(-1),
            altering: RefCell::default(),
        })
    }

    /// This broker's epoch; -1 before it is registered.
    pub fn broker_epoch(&self) -> i64 {
        self.broker_epoch.get()
    }

    /// Answers a request that is meant for the controller; `None` if it is not.
    pub async fn answer(&self, version: i16, body: &RequestBody) -> Option<ResponseBody> {
        self.local.answer(version, body).await
    }

    pub async fn register(&self, registration: Registration, cluster_id: &str) -> Result<i64, ErrorCode> {
        let listener = broker_registration_request::Listener::default()
            .with_name(str_bytes("PLAINTEXT"))
            .with_host(str_bytes(registration.host))
            .with_port(registration.port);
        let request = BrokerRegistrationRequest::default()
            .with_broker_id(BrokerId(registration.broker_id))
            .with_cluster_id(str_bytes(cluster_id))
            .with_incarnation_id(registration.incarnation_id)
            .with_listeners(vec![listener])
            .with_rack(registration.rack.map(str_bytes))
            .with_log_dirs(vec![registration.log_dir])
            .with_previous_broker_epoch(registration.previous_broker_epoch);
        match self.call(request.into(), Lost::Again).await? {
            ResponseBody::BrokerRegistration(r) => {
                checked(r.error_code)?;
                self.broker_epoch.set(r.broker_epoch);
                Ok(r.broker_epoch)
            }
            other => Err(strange(&other)),
        }
    }

    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatReply, ErrorCode> {
        let request = BrokerHeartbeatRequest::default()
            .with_broker_id(BrokerId(heartbeat.broker_id))
            .with_broker_epoch(heartbeat.broker_epoch)
            .with_current_metadata_offset(heartbeat.metadata_offset)
            .with_want_fence(heartbeat.want_fence)
            .with_want_shut_down(heartbeat.want_shut_down);
        match self.call(request.into(), Lost::Again).await? {
            ResponseBody::BrokerHeartbeat(r) => {
                checked(r.error_code)?;
                let (is_caught_up, is_fenced, should_shut_down) = (r.is_caught_up, r.is_fenced, r.should_shut_down);
                Ok(HeartbeatReply { is_caught_up, is_fenced, should_shut_down })
            }
            other => Err(strange(&other)),
        }
    }

    /// A block of producer ids: the first and how many.
    pub async fn allocate_producer_ids(&self) -> Result<(i64, i64), ErrorCode> {
        let request = AllocateProducerIdsRequest::default()
            .with_broker_id(BrokerId(self.node_id))
            .with_broker_epoch(self.broker_epoch());
        match self.call(request.into(), Lost::Again).await? {
            ResponseBody::AllocateProducerIds(r) => {
                checked(r.error_code)?;
                Ok((r.producer_id_start.0, r.producer_id_len.into()))
            }
            other => Err(strange(&other)),
        }
    }

    /// Says that this broker keeps these partitions in `directory`: from now on a missing one is a loss.
    pub async fn place(&self, directory: Uuid, partitions: &[(Uuid, i32)]) -> Result<(), ErrorCode> {
        let mut topics: BTreeMap<Uuid, Vec<assign::PartitionData>> = BTreeMap::new();
        for (topic_id, partition) in partitions {
            let data = assign::PartitionData::default().with_partition_index(*partition);
            topics.entry(*topic_id).or_default().push(data);
        }
        let topics =
            topics.into_iter().map(|(id, p)| assign::TopicData::default().with_topic_id(id).with_partitions(p));
        let directory = assign::DirectoryData::default().with_id(directory).with_topics(topics.collect());
        let request = AssignReplicasToDirsRequest::default()
            .with_broker_id(BrokerId(self.node_id))
            .with_broker_epoch(self.broker_epoch())
            .with_directories(vec![directory]);
        match self.call(request.into(), Lost::Again).await? {
            ResponseBody::AssignReplicasToDirs(r) => checked(r.error_code),
            other => Err(strange(&other)),
        }
    }

    /// Asks for an in-sync set. REQUEST_TIMED_OUT: nobody knows which one it is until the metadata log says so.
    #[allow(dead_code, reason = "partitions ask once they have followers")]
    pub async fn alter_partition(&self, change: IsrChange) -> Answer {
        let (tx, rx) = oneshot::channel();
        let first = {
            let mut altering = self.altering.borrow_mut();
            altering.waiting.push((change, tx));
            !std::mem::replace(&mut altering.in_flight, true)
        };
        if first && let Some(me) = self.me.upgrade() {
            env::task::spawn(async move { me.alter_waiting().await });
        }
        rx.await.unwrap_or(Err(ErrorCode::REQUEST_TIMED_OUT))
    }

    async fn alter_waiting(&self) {
        loop {
            let waiting = {
                let mut altering = self.altering.borrow_mut();
                altering.in_flight = !altering.waiting.is_empty();
                std::mem::take(&mut altering.waiting)
            };
            if waiting.is_empty() {
                return;
            }
            let (changes, answers): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
            crash_point("broker", "isr.alter", None, When::Before).await;
            let results = self.alter(&changes).await;
            crash_point("broker", "isr.alter", None, When::After).await;
            for (i, answer) in answers.into_iter().enumerate() {
                let result = match &results {
                    Ok(results) => results.get(i).cloned().unwrap_or(Err(ErrorCode::UNKNOWN_SERVER_ERROR)),
                    Err(error) => Err(*error),
                };
                let _ = answer.send(result);
            }
        }
    }

    async fn alter(&self, changes: &[IsrChange]) -> Result<Vec<Answer>, ErrorCode> {
        // One entry each, also for several partitions of a topic: answers come in the same order.
        let topics = changes.iter().map(|c| {
            let member = |(broker, epoch): &(i32, i64)| {
                BrokerState::default().with_broker_id(BrokerId(*broker)).with_broker_epoch(*epoch)
            };
            let data = PartitionData::default()
                .with_partition_index(c.partition)
                .with_leader_epoch(c.leader_epoch)
                .with_new_isr_with_epochs(c.isr.iter().map(member).collect())
                .with_leader_recovery_state(c.recovering.into())
                .with_partition_epoch(c.partition_epoch);
            TopicData::default().with_topic_id(c.topic_id).with_partitions(vec![data])
        });
        let request = AlterPartitionRequest::default()
            .with_broker_id(BrokerId(self.node_id))
            .with_broker_epoch(self.broker_epoch())
            .with_topics(topics.collect());
        let answer = match self.call(request.into(), Lost::Unknown).await? {
            ResponseBody::AlterPartition(answer) => answer,
            other => return Err(strange(&other)),
        };
        checked(answer.error_code)?;
        let mut states = BTreeMap::new();
        for topic in answer.topics {
            for p in topic.partitions {
                let state = checked(p.error_code).map(|()| IsrState {
                    leader: p.leader_id.0,
                    leader_epoch: p.leader_epoch,
                    isr: p.isr.iter().map(|b| b.0).collect(),
                    partition_epoch: p.partition_epoch,
                    recovering: p.leader_recovery_state != 0,
                });
                states.insert((topic.topic_id, p.partition_index), state);
            }
        }
        let missing = || Err(ErrorCode::UNKNOWN_SERVER_ERROR);
        Ok(changes.iter().map(|c| states.remove(&(c.topic_id, c.partition)).unwrap_or_else(missing)).collect())
    }

    /// Passes a client's request on; its answer says what became of it.
    pub async fn forward(&self, version: i16, body: RequestBody) -> Option<ResponseBody> {
        let deadline = env::clock::now() + PATIENCE.max(timeout_of(&body));
        let error = match self.call_until(version, &body, Lost::Unknown, deadline, true).await {
            Ok(answer) => return Some(answer),
            // Clients know no controller: they ask any broker again.
            Err(ErrorCode::NOT_CONTROLLER) => ErrorCode::REQUEST_TIMED_OUT,
            Err(error) => error,
        };
        admin::refuse(version, &body, error)
    }

    async fn call(&self, body: RequestBody, lost: Lost) -> Result<ResponseBody, ErrorCode> {
        let version = api::versions(body.api_key()).map_or(0, |range| range.max);
        self.call_until(version, &body, lost, env::clock::now() + PATIENCE, false).await
    }

    async fn call_until(
        &self,
        version: i16,
        body: &RequestBody,
        lost: Lost,
        deadline: Instant,
        in_envelope: bool,
    ) -> Result<ResponseBody, ErrorCode> {
        loop {
            let changed = self.metadata.changed();
            match self.metadata.leader() {
                (_, Some(node)) if node == self.node_id => {
                    let answer = env::time::timeout_at(deadline, self.local.answer(version, body)).await;
                    match answer {
                        Ok(Some(answer)) if !admin::is_refused(&answer, ErrorCode::NOT_CONTROLLER) => {
                            return Ok(answer);
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => return Err(ErrorCode::INVALID_REQUEST),
                        Err(env::time::Elapsed) => return Err(ErrorCode::REQUEST_TIMED_OUT),
                    }
                }
                (epoch, Some(node)) => match self.ask(node, epoch, version, body, in_envelope, deadline).await {
                    Ok(answer) if !admin::is_refused(&answer, ErrorCode::NOT_CONTROLLER) => return Ok(answer),
                    Ok(_) => {}
                    Err(PeerError::NotSent(reason)) => {
                        tracing::debug!(controller = node, %reason, "the controller is out of reach");
                    }
                    Err(PeerError::Lost(reason)) => {
                        tracing::debug!(controller = node, %reason, "no answer from the controller");
                        if lost == Lost::Unknown {
                            return Err(ErrorCode::REQUEST_TIMED_OUT);
                        }
                    }
                },
                (_, None) => {}
            }
            if env::clock::now() >= deadline {
                return Err(ErrorCode::NOT_CONTROLLER);
            }
            let _ = env::time::timeout_at((env::clock::now() + BACKOFF).min(deadline), changed).await;
        }
    }

    /// One try at a controller on another node, given up once it is known to be none any more.
    async fn ask(
        &self,
        node: i32,
        epoch: i32,
        version: i16,
        body: &RequestBody,
        in_envelope: bool,
        deadline: Instant,
    ) -> Result<ResponseBody, PeerError> {
        let Some(peer) = self.peers.get(&node) else {
            return Err(PeerError::NotSent("the leader of the quorum is no voter".into()));
        };
        let timeout = TRY.min(deadline.saturating_since(env::clock::now()));
        let asking = async {
            if in_envelope {
                in_an_envelope(peer, version, body, timeout).await
            } else {
                peer.call(version, body, timeout).await
            }
        };
        env::select! {
            answer = asking => answer,
            () = self.leader_after(epoch) => Err(PeerError::Lost("it is not the controller any more".into())),
        }
    }

    async fn leader_after(&self, epoch: i32) {
        loop {
            let changed = self.metadata.changed();
            if self.metadata.leader().0 > epoch {
                return;
            }
            changed.await;
        }
    }
}

async fn in_an_envelope(
    peer: &Peer,
    version: i16,
    body: &RequestBody,
    timeout: Duration,
) -> Result<ResponseBody, PeerError> {
    let frame = request::encode(version, 0, None, body).map_err(|e| PeerError::NotSent(e.to_string().into()))?;
    let envelope = EnvelopeRequest::default().with_request_data(without_length(frame)).with_request_principal(None);
    let version_of = |api| api::versions(api).map_or(0, |range| range.max);
    match peer.call(version_of(ApiKey::Envelope), &envelope.into(), timeout).await? {
        ResponseBody::Envelope(answer) if answer.error_code != 0 => Ok(answer.into()),
        ResponseBody::Envelope(answer) => {
            let inner = answer.response_data.unwrap_or_default();
            let decoded = response::decode(body.api_key(), version, inner);
            decoded.map(|(_, answer)| answer).map_err(|e| PeerError::Lost(e.to_string().into()))
        }
        other => Err(PeerError::Lost(format!("{:?} for an envelope", other.api_key()).into())),
    }
}

fn timeout_of(body: &RequestBody) -> Duration {
    let ms = match body {
        RequestBody::CreateTopics(r) => r.timeout_ms,
        RequestBody::DeleteTopics(r) => r.timeout_ms,
        RequestBody::CreatePartitions(r) => r.timeout_ms,
        RequestBody::ElectLeaders(r) => r.timeout_ms,
        _ => 0,
    };
    Duration::from_millis(ms.clamp(0, 60_000) as u64)
}

fn checked(code: i16) -> Result<(), ErrorCode> {
    ErrorCode::from_code(code).ok()
}

fn strange(answer: &ResponseBody) -> ErrorCode {
    tracing::error!(api = ?answer.api_key(), "the controller answered another request");
    ErrorCode::UNKNOWN_SERVER_ERROR
}
