//! The handle on this broker's transaction coordinators: finds the one of a transactional id.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use env::task::AbortOnDrop;
use protocol::ErrorCode;

use super::machine::{Config, Reply, Request};
use super::shard::Shard;
use super::state::{ProducerIdEpoch, TopicPartition};
use crate::context::Context;
use crate::failure::BrokerError;
use crate::internal_topics::{TRANSACTION_STATE, partition_for};
use crate::partition::Partition;

/// A shard and its task, which ends with the coordinator.
type Led = (Rc<Shard>, AbortOnDrop<()>);

pub struct TxnCoordinator {
    context: Weak<Context>,
    config: Config,
    shards: RefCell<BTreeMap<i32, Led>>,
}

impl TxnCoordinator {
    pub(crate) fn new(context: Weak<Context>, config: Config) -> Self {
        Self { context, config, shards: RefCell::default() }
    }

    /// Takes over a partition of `__transaction_state` that this broker leads.
    pub(crate) async fn lead(&self, partition: Partition) -> Result<(), BrokerError> {
        let index = partition.id().partition;
        let loaded = Shard::load(self.context.clone(), partition, self.config.clone()).await?;
        self.shards.borrow_mut().insert(index, loaded);
        Ok(())
    }

    /// This broker does not lead the partition any more.
    pub(crate) fn resign(&self, index: i32) {
        self.shards.borrow_mut().remove(&index);
    }

    pub(crate) async fn request(&self, transactional_id: &str, request: Request) -> Reply {
        match self.shard(transactional_id).await {
            Ok(shard) => shard.request(transactional_id.to_owned(), request).await,
            Err(error) => Reply::Error(error),
        }
    }

    /// For a transactional produce: makes sure the partitions are in the transaction of this producer, joining them if
    /// `add`. An error means that nothing may be appended.
    pub async fn verify_or_add(
        &self,
        transactional_id: &str,
        producer_id: i64,
        producer_epoch: i16,
        partitions: &[TopicPartition],
        add: bool,
    ) -> Result<(), ErrorCode> {
        let producer = ProducerIdEpoch::new(producer_id, producer_epoch);
        let shard = self.shard(transactional_id).await?;
        if shard.is_ongoing(transactional_id, producer, partitions.iter()) {
            return Ok(());
        }
        let request =
            Request::AddPartitions { producer, partitions: partitions.to_vec(), verify_only: !add, bumps: add };
        match shard.request(transactional_id.to_owned(), request).await {
            Reply::Added => Ok(()),
            // Clients before produce v12 do not know the newer code.
            Reply::Error(ErrorCode::TRANSACTION_ABORTABLE) if !add => Err(ErrorCode::INVALID_TXN_STATE),
            Reply::Error(error) => Err(error),
            Reply::Initialized { .. } | Reply::Ended { .. } => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
        }
    }

    /// Whether an append of this producer may be queued now. Asked in the same breath as the append is queued: an
    /// answer that is waited for may be overtaken by the transaction's marker (KAFKA-14884).
    pub fn is_ongoing(
        &self,
        transactional_id: &str,
        producer_id: i64,
        producer_epoch: i16,
        topic: &str,
        partition: i32,
    ) -> bool {
        let count = self.context.upgrade().and_then(|context| context.partition_count(TRANSACTION_STATE));
        let Some(count) = count else { return false };
        let shards = self.shards.borrow();
        let producer = ProducerIdEpoch::new(producer_id, producer_epoch);
        let asked = (topic.to_owned(), partition);
        shards
            .get(&partition_for(transactional_id, count))
            .is_some_and(|(s, _)| s.is_ongoing(transactional_id, producer, std::iter::once(&asked)))
    }

    async fn shard(&self, transactional_id: &str) -> Result<Rc<Shard>, ErrorCode> {
        let context = self.context.upgrade().ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
        let partitions = context.ensure_internal(TRANSACTION_STATE).await?;
        let shards = self.shards.borrow();
        let shard = shards.get(&partition_for(transactional_id, partitions)).map(|(s, _)| Rc::clone(s));
        shard.ok_or(ErrorCode::NOT_COORDINATOR)
    }
}
