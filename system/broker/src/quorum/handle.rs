//! The door to this node's replica of the metadata log, for the handlers of requests.

use env::sync::{mpsc, oneshot};
use protocol::messages::{
    BrokerId, DescribeQuorumRequest, DescribeQuorumResponse, describe_quorum_response as describe_res,
};
use protocol::{ErrorCode, RequestBody, ResponseBody, topic_name};

use super::driver::{Description, Incoming};
use super::machine::Progress;
use super::message::ReplicaKey;
use super::rpc::{self, Refused, TOPIC};

/// Clones are cheap.
#[derive(Clone, Debug)]
pub struct Quorum {
    me: ReplicaKey,
    cluster_id: String,
    queue: mpsc::Sender<Incoming>,
}

impl Quorum {
    pub(crate) fn new(me: ReplicaKey, cluster_id: String, queue: mpsc::Sender<Incoming>) -> Self {
        Self { me, cluster_id, queue }
    }

    /// Whether the request is for [`Quorum::request`] to answer.
    pub fn serves(request: &RequestBody) -> bool {
        rpc::is_quorums(request)
    }

    /// Answers a request that it [serves](Quorum::serves). `None` if this node stops.
    pub async fn request(&self, request: RequestBody) -> Option<ResponseBody> {
        match request {
            RequestBody::FetchSnapshot(body) => {
                let part = match rpc::decode_snapshot(body.clone(), &self.cluster_id) {
                    Ok(part) => part,
                    Err(Refused(error)) => return Some(rpc::encode_refusal(&body.into(), error)),
                };
                let (answer, response) = oneshot::channel();
                self.queue.send(Incoming::Snapshot { part, answer }).await.ok()?;
                response.await.ok()
            }
            request => {
                let decoded = match rpc::decode(request.clone(), &self.cluster_id, self.me.id) {
                    Ok(decoded) => decoded,
                    Err(Refused(error)) => return Some(rpc::encode_refusal(&request, error)),
                };
                let (answer, response) = oneshot::channel();
                self.queue.send(Incoming::Request { request: decoded, answer }).await.ok()?;
                Some(rpc::encode_answer(response.await.ok()?))
            }
        }
    }

    /// The state of the quorum as this node knows it; `None` if this node stops.
    pub async fn describe(&self) -> Option<Description> {
        let (answer, description) = oneshot::channel();
        self.queue.send(Incoming::Describe { answer }).await.ok()?;
        description.await.ok()
    }

    /// Answers a client; NOT_CONTROLLER where this node does not lead the quorum, or stops.
    pub async fn describe_to_client(&self, body: &DescribeQuorumRequest) -> DescribeQuorumResponse {
        let refuse = |error: ErrorCode| DescribeQuorumResponse::default().with_error_code(error.code());
        if !body.topics.iter().any(|t| t.topic_name.0.as_str() == TOPIC) {
            return refuse(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        }
        match self.describe().await {
            Some(description) if description.leader == Some(description.me.id) => described(&description),
            _ => refuse(ErrorCode::NOT_CONTROLLER),
        }
    }

    /// Hands the leadership over, if this node has it and there is another voter. Does not wait for a successor.
    pub async fn resign(&self) {
        // A replica that stopped leads nothing.
        let _ = self.queue.send(Incoming::Resign).await;
    }
}

/// By the leader, which alone knows how far the others are.
fn described(description: &Description) -> DescribeQuorumResponse {
    // Kafka's are wall-clock times; ours are ages on the node's own clock, taken off its wall clock.
    let wall = env::clock::wall_ms();
    let at = |instant: env::clock::Instant| {
        let age = description.now.saturating_since(instant).as_millis();
        wall - i64::try_from(age).unwrap_or(i64::MAX)
    };
    let state = |p: &Progress| {
        describe_res::ReplicaState::default()
            .with_replica_id(BrokerId(p.replica.id))
            .with_replica_directory_id(p.replica.directory)
            .with_log_end_offset(p.end)
            .with_last_fetch_timestamp(at(p.fetched))
            .with_last_caught_up_timestamp(p.caught_up.map_or(-1, at))
    };
    let mine = describe_res::ReplicaState::default()
        .with_replica_id(BrokerId(description.me.id))
        .with_replica_directory_id(description.me.directory)
        .with_log_end_offset(description.end)
        .with_last_fetch_timestamp(wall)
        .with_last_caught_up_timestamp(wall);
    let mut voters: Vec<_> = description.voters.iter().map(state).collect();
    voters.push(mine);
    voters.sort_by_key(|v| v.replica_id.0);
    let partition = describe_res::PartitionData::default()
        .with_leader_id(BrokerId(description.me.id))
        .with_leader_epoch(description.epoch)
        .with_high_watermark(description.high_watermark)
        .with_current_voters(voters)
        .with_observers(description.observers.iter().map(state).collect());
    let topic = describe_res::TopicData::default().with_topic_name(topic_name(TOPIC)).with_partitions(vec![partition]);
    DescribeQuorumResponse::default().with_topics(vec![topic])
}
