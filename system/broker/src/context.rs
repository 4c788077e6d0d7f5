//! What every request handler of a broker shares.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::messages::TopicName;
use protocol::{ErrorCode, Uuid, topic_name};

use crate::config::BrokerConfig;
use crate::controller_channel::ControllerChannel;
use crate::failure::Failure;
use crate::fetch_session::FetchSessions;
use crate::group::GroupCoordinator;
use crate::internal_topics::{CONSUMER_OFFSETS, TRANSACTION_STATE};
use crate::lifecycle::Lifecycle;
use crate::log_settings::LogSettings;
use crate::metadata::image::NO_LEADER;
use crate::metadata::{Metadata, PartitionState};
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::peers::Peers;
use crate::producer_ids::ProducerIds;
use crate::replication::Replicas;
use crate::topics::Topics;
use crate::txn::TxnCoordinator;

/// Of `__transaction_state` and `__consumer_offsets`, if there are so many brokers.
const INTERNAL_REPLICAS: usize = 3;

pub struct Context {
    pub config: BrokerConfig,
    pub(crate) failure: Failure,
    pub(crate) metrics: Metrics,
    pub(crate) metadata: Metadata,
    pub(crate) controller: Rc<ControllerChannel>,
    pub(crate) peers: Peers,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) topics: Topics,
    pub(crate) txn: TxnCoordinator,
    pub(crate) groups: GroupCoordinator,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) replicas: Rc<Replicas>,
    pub(crate) fetch_sessions: RefCell<FetchSessions>,
    pub(crate) session_ids: RefCell<Box<dyn FnMut() -> Uuid>>,
    /// The partitions that requests find here, led or followed.
    pub(crate) partitions: RefCell<BTreeMap<String, BTreeMap<i32, Partition>>>,
}

impl Context {
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    pub fn txn(&self) -> &TxnCoordinator {
        &self.txn
    }

    pub(crate) fn groups(&self) -> &GroupCoordinator {
        &self.groups
    }

    pub(crate) fn producer_ids(&self) -> &ProducerIds {
        &self.producer_ids
    }

    /// The open partition, if this broker leads it.
    pub fn partition(&self, topic: &str, partition: i32) -> Result<Partition, ErrorCode> {
        let open = self.replica(topic, partition)?;
        if open.is_leader() { Ok(open) } else { Err(ErrorCode::NOT_LEADER_OR_FOLLOWER) }
    }

    /// The open partition and its topic's name, by topic id, if this broker leads it.
    pub fn partition_by_id(&self, topic_id: Uuid, partition: i32) -> Result<(TopicName, Partition), ErrorCode> {
        let (name, open) = self.replica_by_id(topic_id, partition)?;
        if open.is_leader() { Ok((name, open)) } else { Err(ErrorCode::NOT_LEADER_OR_FOLLOWER) }
    }

    /// The copy of the partition that is open here, led or followed.
    pub fn replica(&self, topic: &str, partition: i32) -> Result<Partition, ErrorCode> {
        let open = self.partitions.borrow().get(topic).and_then(|p| p.get(&partition)).cloned();
        open.ok_or_else(|| {
            let me = self.config.node_id;
            let state = self.metadata.with(|image| {
                let state = image.topic(topic)?.partitions.get(&partition)?;
                Some((state.leader, state.replicas.contains(&me)))
            });
            match state {
                None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                Some((leader, is_replica)) => not_open(me, leader, is_replica),
            }
        })
    }

    /// [`Context::replica`] and the topic's name, by topic id.
    pub fn replica_by_id(&self, topic_id: Uuid, partition: i32) -> Result<(TopicName, Partition), ErrorCode> {
        let name = self.metadata.with(|image| image.topics.get(&topic_id).map(|t| t.name.clone()));
        let name = name.ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
        let open = self.replica(&name, partition)?;
        Ok((topic_name(name), open))
    }

    /// Drawn, for a fetch session.
    pub(crate) fn fresh_session_id(&self) -> i32 {
        let id = (*self.session_ids.borrow_mut())();
        (id.as_u128() & 0x7fff_ffff) as i32
    }

    /// How many partitions the topic has; `None` if there is no such topic.
    pub(crate) fn partition_count(&self, topic: &str) -> Option<i32> {
        self.metadata.with(|image| image.topic(topic).map(|t| t.partitions.len() as i32))
    }

    /// Whether the topic's logs are compacted, so that every record needs a key.
    pub(crate) fn is_compacted(&self, topic: &str) -> bool {
        self.metadata.with(|image| {
            let configs = image.topic(topic).map(|t| &t.configs);
            configs.is_some_and(|configs| LogSettings::of(topic, configs, &self.config).compact)
        })
    }

    /// The leader of a partition that exists.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.metadata.with(|image| image.topic(topic)?.partitions.get(&partition).map(|p| p.leader))
    }

    /// The leader to tell clients of: none as long as this broker leads it and has not opened it.
    pub(crate) fn shown_leader(&self, topic: &str, partition: i32, state: &PartitionState) -> i32 {
        let mine = state.leader == self.config.node_id;
        if mine && self.partition(topic, partition).is_err() { NO_LEADER } else { state.leader }
    }

    /// The broker that clients are told to ask for what the controller decides: the active controller if it is known and
    /// serves, else this one, since any passes such requests on.
    pub(crate) fn controller_id(&self) -> i32 {
        let (_, leader) = self.metadata.leader();
        let serves = |id: &i32| self.metadata.with(|image| image.brokers.get(id).is_some_and(|b| !b.fenced));
        leader.filter(serves).or(Some(self.config.node_id).filter(serves)).unwrap_or(-1)
    }

    /// Creates the topic if it does not exist and the configuration allows it.
    pub async fn ensure_topic(self: &Rc<Self>, topic: &str) -> Result<(), ErrorCode> {
        if self.metadata.with(|image| image.names.contains_key(topic)) {
            return Ok(());
        }
        if !self.config.auto_create_topics {
            return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        }
        self.topics.ensure(self, topic, -1, -1).await
    }

    /// Makes sure that an internal topic is there; the number of its partitions.
    pub(crate) async fn ensure_internal(self: &Rc<Self>, topic: &'static str) -> Result<i32, ErrorCode> {
        if let Some(count) = self.partition_count(topic) {
            return Ok(count);
        }
        let partitions = match topic {
            TRANSACTION_STATE => self.config.transaction_partitions,
            CONSUMER_OFFSETS => self.config.offsets_partitions,
            _ => return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        };
        self.topics.ensure(self, topic, partitions, self.internal_replicas()).await?;
        self.partition_count(topic).ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)
    }

    /// Replicas of an internal topic: three, or as many as there are brokers. Every voter is a broker, and counts before
    /// it has registered: a topic made while the first of three brokers is up must not stay with one copy for ever.
    fn internal_replicas(&self) -> i16 {
        let registered = self.metadata.with(|image| image.brokers.len());
        registered.max(self.config.voters.len()).clamp(1, INTERNAL_REPLICAS) as i16
    }
}

/// What is said of a partition that exists and is not open here. Not LEADER_NOT_AVAILABLE, though its leader may be on
/// the way: no broker of Kafka answers a fetch so, and its consumer takes the code for a bug and stops.
fn not_open(me: i32, leader: i32, is_replica: bool) -> ErrorCode {
    if is_replica && leader != me && leader != NO_LEADER {
        ErrorCode::REPLICA_NOT_AVAILABLE
    } else {
        ErrorCode::NOT_LEADER_OR_FOLLOWER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_is_not_open_is_refused_in_codes_that_consumers_know() {
        for (leader, is_replica, expected) in [
            (1, true, ErrorCode::NOT_LEADER_OR_FOLLOWER),
            (NO_LEADER, true, ErrorCode::NOT_LEADER_OR_FOLLOWER),
            (2, false, ErrorCode::NOT_LEADER_OR_FOLLOWER),
            (2, true, ErrorCode::REPLICA_NOT_AVAILABLE),
        ] {
            assert_eq!(not_open(1, leader, is_replica), expected, "leader {leader}, replica {is_replica}");
        }
    }
}
