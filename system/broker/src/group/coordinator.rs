//! The handle on this broker's group coordinators: finds the one of a group.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::{Rc, Weak};

use protocol::ErrorCode;

use super::shard::{Running, Shard};
use crate::context::Context;
use crate::internal_topics::{CONSUMER_OFFSETS, partition_for};
use crate::partition::Partition;

/// A shard and its tasks, which end with the coordinator.
type Led = (Rc<Shard>, Running);

pub struct GroupCoordinator {
    context: Weak<Context>,
    shards: RefCell<BTreeMap<i32, Led>>,
}

impl GroupCoordinator {
    pub(crate) fn new(context: Weak<Context>) -> Self {
        Self { context, shards: RefCell::default() }
    }

    /// Takes over a partition of `__consumer_offsets` that this broker leads from now on. Its groups are answered
    /// COORDINATOR_LOAD_IN_PROGRESS until the log is replayed; ready when that is done. What is returned may be dropped.
    pub(crate) fn lead(&self, partition: Partition) -> impl Future<Output = ()> + use<> {
        let index = partition.id().partition;
        let (shard, running, loaded) = Shard::start(self.context.clone(), partition);
        self.shards.borrow_mut().insert(index, (shard, running));
        async move {
            let _ = loaded.await;
        }
    }

    /// Gives up a partition: open requests are answered NOT_COORDINATOR, and so are all from now on.
    pub(crate) fn resign(&self, index: i32) {
        let led = self.shards.borrow_mut().remove(&index);
        if let Some((shard, _running)) = led {
            shard.resign();
        }
    }

    /// A transaction's marker is in this partition of `__consumer_offsets`, at `at` or before.
    pub(crate) async fn transaction_ended(&self, index: i32, producer_id: i64, commit: bool, at: i64) {
        let shard = self.shards.borrow().get(&index).map(|(s, _)| Rc::clone(s));
        if let Some(shard) = shard {
            shard.transaction_ended(producer_id, commit, at).await;
        }
    }

    /// The partition of `__consumer_offsets` that holds the group's offsets.
    pub(crate) async fn partition_of(&self, group: &str) -> Result<i32, ErrorCode> {
        let context = self.context.upgrade().ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
        let partitions = context.ensure_internal(CONSUMER_OFFSETS).await;
        // Whatever keeps it from being created, it may be there later.
        Ok(partition_for(group, partitions.map_err(|_| ErrorCode::COORDINATOR_NOT_AVAILABLE)?))
    }

    pub(super) async fn shard(&self, group: &str) -> Result<Rc<Shard>, ErrorCode> {
        let index = self.partition_of(group).await?;
        self.shards.borrow().get(&index).map(|(s, _)| Rc::clone(s)).ok_or(ErrorCode::NOT_COORDINATOR)
    }

    /// All shards, of groups that this broker coordinates.
    pub(crate) fn shards(&self) -> Vec<Rc<Shard>> {
        self.shards.borrow().values().map(|(s, _)| Rc::clone(s)).collect()
    }
}
