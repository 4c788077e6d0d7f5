//! What other brokers ask of the active controller: registration, heartbeats, in-sync sets, producer ids, directories,
//! and clients' requests in an envelope (KIP-590). A node that is not the active controller answers NOT_CONTROLLER.

use std::cell::RefCell;

use bytes::Bytes;
use protocol::messages::alter_partition_response::{PartitionData, TopicData};
use protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest, AlterPartitionResponse,
    AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
    BrokerId, BrokerRegistrationRequest, BrokerRegistrationResponse, EnvelopeRequest, EnvelopeResponse, ProducerId,
};
use protocol::{ErrorCode, RequestBody, ResponseBody, Uuid, request, response};

use super::admin;
use super::proposal::{Heartbeat, IsrChange, Outcome, Proposal, Registration};
use crate::config::BrokerConfig;
use crate::ids;
use crate::metadata::Metadata;

/// In AlterPartition: the leader has recovered from an unclean election.
const RECOVERED: i8 = 0;
const RECOVERING: i8 = 1;

/// A request that this node answers as the controller.
pub(crate) struct ControllerApi {
    pub(super) metadata: Metadata,
    cluster_id: String,
    producer_id_block: i64,
    fresh_id: RefCell<Box<dyn FnMut() -> Uuid>>,
}

impl ControllerApi {
    pub fn new(metadata: Metadata, config: &BrokerConfig) -> Self {
        Self {
            metadata,
            cluster_id: config.cluster_id.clone(),
            producer_id_block: config.producer_id_block,
            fresh_id: RefCell::new(Box::new(ids::source("broker.topic-id"))),
        }
    }

    pub fn fresh_id(&self) -> Uuid {
        (*self.fresh_id.borrow_mut())()
    }

    /// The answer to a request for the controller; `None` if it is none.
    pub async fn answer(&self, version: i16, body: &RequestBody) -> Option<ResponseBody> {
        Some(match body {
            RequestBody::BrokerRegistration(r) => self.register(r).await.into(),
            RequestBody::BrokerHeartbeat(r) => self.heartbeat(r).await.into(),
            RequestBody::AlterPartition(r) => self.alter_partition(version, r).await.into(),
            RequestBody::AllocateProducerIds(r) => self.allocate_producer_ids(r).await.into(),
            RequestBody::AssignReplicasToDirs(r) => self.assign_replicas(r).await.into(),
            RequestBody::Envelope(r) => self.envelope(r).await.into(),
            _ => return admin::answer(self, version, body).await,
        })
    }

    async fn register(&self, r: &BrokerRegistrationRequest) -> BrokerRegistrationResponse {
        let response = BrokerRegistrationResponse::default().with_broker_epoch(-1);
        if r.cluster_id.as_str() != self.cluster_id {
            return response.with_error_code(ErrorCode::INCONSISTENT_CLUSTER_ID.code());
        }
        let (Some(listener), Some(log_dir)) = (r.listeners.first(), r.log_dirs.first()) else {
            return response.with_error_code(ErrorCode::INVALID_REQUEST.code());
        };
        let registration = Registration {
            broker_id: r.broker_id.0,
            incarnation_id: r.incarnation_id,
            host: listener.host.as_str().to_owned(),
            port: listener.port,
            rack: r.rack.as_ref().map(|rack| rack.as_str().to_owned()),
            log_dir: *log_dir,
            previous_broker_epoch: r.previous_broker_epoch,
        };
        match self.metadata.propose(Proposal::RegisterBroker(registration)).await {
            Ok(Outcome::Registered { broker_epoch }) => response.with_broker_epoch(broker_epoch),
            other => response.with_error_code(unexpected(other).code()),
        }
    }

    async fn heartbeat(&self, r: &BrokerHeartbeatRequest) -> BrokerHeartbeatResponse {
        let heartbeat = Heartbeat {
            broker_id: r.broker_id.0,
            broker_epoch: r.broker_epoch,
            metadata_offset: r.current_metadata_offset,
            want_fence: r.want_fence,
            want_shut_down: r.want_shut_down,
        };
        let response = BrokerHeartbeatResponse::default();
        match self.metadata.propose(Proposal::Heartbeat(heartbeat)).await {
            Ok(Outcome::Heartbeat(reply)) => response
                .with_is_caught_up(reply.is_caught_up)
                .with_is_fenced(reply.is_fenced)
                .with_should_shut_down(reply.should_shut_down),
            other => response.with_error_code(unexpected(other).code()),
        }
    }

    async fn alter_partition(&self, version: i16, r: &AlterPartitionRequest) -> AlterPartitionResponse {
        let mut changes = Vec::new();
        for topic in &r.topics {
            for p in &topic.partitions {
                let isr = if version >= 3 {
                    p.new_isr_with_epochs.iter().map(|b| (b.broker_id.0, b.broker_epoch)).collect()
                } else {
                    p.new_isr.iter().map(|b| (b.0, -1)).collect()
                };
                changes.push(IsrChange {
                    topic_id: topic.topic_id,
                    partition: p.partition_index,
                    leader_epoch: p.leader_epoch,
                    partition_epoch: p.partition_epoch,
                    isr,
                    recovering: p.leader_recovery_state != RECOVERED,
                });
            }
        }
        let names: Vec<(Uuid, i32)> = changes.iter().map(|c| (c.topic_id, c.partition)).collect();
        let (broker_id, broker_epoch) = (r.broker_id.0, r.broker_epoch);
        let response = AlterPartitionResponse::default();
        let results = match self.metadata.propose(Proposal::AlterPartition { broker_id, broker_epoch, changes }).await {
            Ok(Outcome::Altered(results)) => results,
            other => return response.with_error_code(unexpected(other).code()),
        };
        let mut topics: Vec<TopicData> = Vec::new();
        for ((topic_id, partition), result) in names.into_iter().zip(results) {
            let data = PartitionData::default().with_partition_index(partition);
            let data = match result {
                Ok(state) => data
                    .with_leader_id(BrokerId(state.leader))
                    .with_leader_epoch(state.leader_epoch)
                    .with_isr(state.isr.into_iter().map(BrokerId).collect())
                    .with_partition_epoch(state.partition_epoch)
                    .with_leader_recovery_state(if state.recovering { RECOVERING } else { RECOVERED }),
                Err(error) => data.with_error_code(error.code()),
            };
            match topics.last_mut().filter(|t| t.topic_id == topic_id) {
                Some(topic) => topic.partitions.push(data),
                None => topics.push(TopicData::default().with_topic_id(topic_id).with_partitions(vec![data])),
            }
        }
        response.with_topics(topics)
    }

    async fn allocate_producer_ids(&self, r: &AllocateProducerIdsRequest) -> AllocateProducerIdsResponse {
        let (broker_id, broker_epoch) = (r.broker_id.0, r.broker_epoch);
        let count = self.producer_id_block.min(i32::MAX.into());
        let response = AllocateProducerIdsResponse::default();
        match self.metadata.propose(Proposal::AllocateProducerIds { broker_id, broker_epoch, count }).await {
            Ok(Outcome::ProducerIds { first, count }) => {
                response.with_producer_id_start(ProducerId(first)).with_producer_id_len(count as i32)
            }
            other => response.with_error_code(unexpected(other).code()),
        }
    }

    async fn assign_replicas(&self, r: &AssignReplicasToDirsRequest) -> AssignReplicasToDirsResponse {
        let response = AssignReplicasToDirsResponse::default();
        for directory in &r.directories {
            let of_topic = |t: &protocol::messages::assign_replicas_to_dirs_request::TopicData| {
                let id = t.topic_id;
                t.partitions.iter().map(move |p| (id, p.partition_index)).collect::<Vec<_>>()
            };
            let partitions = directory.topics.iter().flat_map(of_topic).collect();
            let (broker_id, broker_epoch, directory) = (r.broker_id.0, r.broker_epoch, directory.id);
            let place = Proposal::Place { broker_id, broker_epoch, directory, partitions };
            match self.metadata.propose(place).await {
                Ok(Outcome::Placed) => {}
                other => return response.with_error_code(unexpected(other).code()),
            }
        }
        response
    }

    /// A client's request by way of its broker.
    async fn envelope(&self, r: &EnvelopeRequest) -> EnvelopeResponse {
        let refuse =
            |error: ErrorCode| EnvelopeResponse::default().with_error_code(error.code()).with_response_data(None);
        let Ok(inner) = request::decode(r.request_data.clone()) else { return refuse(ErrorCode::INVALID_REQUEST) };
        if !admin::is_forwarded(inner.api_key()) {
            return refuse(ErrorCode::INVALID_REQUEST);
        }
        let Some(answer) = admin::answer(self, inner.version, &inner.body).await else {
            return refuse(ErrorCode::INVALID_REQUEST);
        };
        if admin::is_refused(&answer, ErrorCode::NOT_CONTROLLER) {
            return refuse(ErrorCode::NOT_CONTROLLER);
        }
        match response::encode(inner.version, inner.correlation_id, &answer) {
            Ok(frame) => EnvelopeResponse::default().with_response_data(Some(without_length(frame))),
            Err(error) => {
                tracing::error!(%error, "answer in an envelope cannot be encoded");
                refuse(ErrorCode::UNKNOWN_SERVER_ERROR)
            }
        }
    }
}

/// A frame without its length prefix, as envelopes carry it.
pub(crate) fn without_length(frame: Bytes) -> Bytes {
    frame.slice(4.min(frame.len())..)
}

/// The error of a proposal that was not answered as it should be.
pub(super) fn unexpected(result: Result<Outcome, ErrorCode>) -> ErrorCode {
    match result {
        Err(error) => error,
        Ok(other) => {
            tracing::error!(?other, "the controller answered another proposal");
            ErrorCode::UNKNOWN_SERVER_ERROR
        }
    }
}
