//! What every request handler of a broker shares.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::messages::TopicName;
use protocol::{ErrorCode, Uuid, topic_name};

use crate::config::BrokerConfig;
use crate::controller_channel::ControllerChannel;
use crate::failure::Failure;
use crate::group::GroupCoordinator;
use crate::internal_topics::{CONSUMER_OFFSETS, TRANSACTION_STATE};
use crate::lifecycle::Lifecycle;
use crate::metadata::image::NO_LEADER;
use crate::metadata::{Metadata, PartitionState};
use crate::partition::Partition;
use crate::producer_ids::ProducerIds;
use crate::topics::Topics;
use crate::txn::TxnCoordinator;

pub struct Context {
    pub config: BrokerConfig,
    pub(crate) failure: Failure,
    pub(crate) metadata: Metadata,
    pub(crate) controller: Rc<ControllerChannel>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) topics: Topics,
    pub(crate) txn: TxnCoordinator,
    pub(crate) groups: GroupCoordinator,
    pub(crate) producer_ids: ProducerIds,
    /// The partitions this broker has open.
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
        let open = self.partitions.borrow().get(topic).and_then(|p| p.get(&partition)).cloned();
        open.ok_or_else(|| {
            let exists = self.leader(topic, partition).is_some();
            // In the metadata log, not yet open: soon.
            if exists { ErrorCode::LEADER_NOT_AVAILABLE } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION }
        })
    }

    /// The open partition and its topic's name, by topic id.
    pub fn partition_by_id(&self, topic_id: Uuid, partition: i32) -> Result<(TopicName, Partition), ErrorCode> {
        let name = self.metadata.with(|image| image.topics.get(&topic_id).map(|t| t.name.clone()));
        let name = name.ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
        let open = self.partition(&name, partition)?;
        Ok((topic_name(name), open))
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
        self.topics.ensure(self, topic, -1).await
    }

    /// Makes sure that an internal topic is there; the number of its partitions.
    pub(crate) async fn ensure_internal(self: &Rc<Self>, topic: &'static str) -> Result<i32, ErrorCode> {
        let count = || self.metadata.with(|image| image.topic(topic).map(|t| t.partitions.len() as i32));
        if let Some(count) = count() {
            return Ok(count);
        }
        let partitions = match topic {
            TRANSACTION_STATE => self.config.transaction_partitions,
            CONSUMER_OFFSETS => self.config.offsets_partitions,
            _ => return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        };
        self.topics.ensure(self, topic, partitions).await?;
        count().ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)
    }
}
