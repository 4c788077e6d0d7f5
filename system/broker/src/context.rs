//! What every request handler of a broker shares.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::messages::TopicName;
use protocol::{ErrorCode, Uuid, topic_name};

use crate::config::BrokerConfig;
use crate::failure::Failure;
use crate::group::GroupCoordinator;
use crate::internal_topics::{CONSUMER_OFFSETS, TRANSACTION_STATE};
use crate::metadata::Metadata;
use crate::partition::Partition;
use crate::producer_ids::ProducerIds;
use crate::topics::Topics;
use crate::txn::TxnCoordinator;

pub struct Context {
    pub config: BrokerConfig,
    pub(crate) failure: Failure,
    pub(crate) metadata: Metadata,
    pub(crate) topics: Topics,
    pub(crate) txn: TxnCoordinator,
    pub(crate) groups: GroupCoordinator,
    /// Set once this broker is registered, before it listens.
    pub(crate) producer_ids: OnceCell<ProducerIds>,
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
        match self.producer_ids.get() {
            Some(ids) => ids,
            None => unreachable!("producer ids are asked for after registration"),
        }
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

    /// Creates the topic if it does not exist and the configuration allows it.
    pub async fn ensure_topic(self: &Rc<Self>, topic: &str) -> Result<(), ErrorCode> {
        if self.partitions.borrow().contains_key(topic) {
            return Ok(());
        }
        if !self.config.auto_create_topics {
            return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        }
        self.topics.ensure(self, topic, self.config.default_partitions).await
    }

    /// Makes sure that an internal topic is there and led; the number of its partitions.
    pub(crate) async fn ensure_internal(self: &Rc<Self>, topic: &'static str) -> Result<i32, ErrorCode> {
        let count = self.partitions.borrow().get(topic).map(|p| p.len() as i32);
        if let Some(count) = count {
            return Ok(count);
        }
        let partitions = match topic {
            TRANSACTION_STATE => self.config.transaction_partitions,
            CONSUMER_OFFSETS => self.config.offsets_partitions,
            _ => return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        };
        self.topics.ensure(self, topic, partitions).await?;
        let count = self.partitions.borrow().get(topic).map(|p| p.len() as i32);
        count.ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)
    }
}
