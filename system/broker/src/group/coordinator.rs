//! The handle on this broker's group coordinators: finds the one of a group.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use env::task::AbortOnDrop;
use protocol::ErrorCode;

use super::shard::Shard;
use crate::context::Context;
use crate::failure::BrokerError;
use crate::internal_topics::{CONSUMER_OFFSETS, partition_for};
use crate::partition::Partition;

/// A shard and its task, which ends with the coordinator.
type Led = (Rc<Shard>, AbortOnDrop<()>);

pub struct GroupCoordinator {
    context: Weak<Context>,
    shards: RefCell<BTreeMap<i32, Led>>,
}

impl GroupCoordinator {
    pub(crate) fn new(context: Weak<Context>) -> Self {
        Self { context, shards: RefCell::default() }
    }

    /// Takes over a partition of `__consumer_offsets` that this broker leads.
    pub(crate) async fn lead(&self, partition: Partition) -> Result<(), BrokerError> {
        let index = partition.id().partition;
        let loaded = Shard::load(self.context.clone(), partition).await?;
        self.shards.borrow_mut().insert(index, loaded);
        Ok(())
    }

    /// This broker does not lead the partition any more.
    pub(crate) fn resign(&self, index: i32) {
        self.shards.borrow_mut().remove(&index);
    }

    /// A transaction's marker is in this partition of `__consumer_offsets`.
    pub(crate) async fn transaction_ended(&self, index: i32, producer_id: i64, commit: bool) {
        let shard = self.shards.borrow().get(&index).map(|(s, _)| Rc::clone(s));
        if let Some(shard) = shard {
            shard.transaction_ended(producer_id, commit).await;
        }
    }

    /// The partition of `__consumer_offsets` that holds the group's offsets.
    pub(crate) async fn partition_of(&self, group: &str) -> Result<i32, ErrorCode> {
        let context = self.context.upgrade().ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
        Ok(partition_for(group, context.ensure_internal(CONSUMER_OFFSETS).await?))
    }

    pub(super) async fn shard(&self, group: &str) -> Result<Rc<Shard>, ErrorCode> {
        let index = self.partition_of(group).await?;
        self.shards.borrow().get(&index).map(|(s, _)| Rc::clone(s)).ok_or(ErrorCode::NOT_COORDINATOR)
    }
}
