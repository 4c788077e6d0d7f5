//! The handle on this broker's transaction coordinators: finds the one of a transactional id.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::{Rc, Weak};

use env::task::AbortOnDrop;
use protocol::ErrorCode;

use super::machine::{Config, Machine, Reply, Request};
use super::shard::Shard;
use crate::context::Context;
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

    /// Takes over a partition of `__transaction_state` that this broker leads from now on. Its ids are answered
    /// COORDINATOR_LOAD_IN_PROGRESS until the log is replayed; ready when that is done. What is returned may be dropped.
    pub(crate) fn lead(&self, partition: Partition) -> impl Future<Output = ()> + use<> {
        let index = partition.id().partition;
        let (shard, task, loaded) = Shard::start(self.context.clone(), partition, self.config.clone());
        self.shards.borrow_mut().insert(index, (shard, task));
        async move {
            let _ = loaded.await;
        }
    }

    /// Gives up a partition: open requests are answered NOT_COORDINATOR, and so are all from now on.
    pub(crate) fn resign(&self, index: i32) {
        let led = self.shards.borrow_mut().remove(&index);
        if let Some((shard, _task)) = led {
            shard.resign();
        }
    }

    /// The partition of `__transaction_state` that holds the id's state. The topic is created if it is not there.
    pub(crate) async fn partition_of(&self, transactional_id: &str) -> Result<i32, ErrorCode> {
        let context = self.context.upgrade().ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
        let partitions = context.ensure_internal(TRANSACTION_STATE).await;
        // Whatever keeps it from being created, it may be there later.
        let partitions = partitions.map_err(|_| ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
        Ok(partition_for(transactional_id, partitions))
    }

    pub(crate) async fn request(&self, transactional_id: &str, request: Request) -> Reply {
        match self.shard_of(transactional_id).await {
            Ok(shard) => shard.request(transactional_id.to_owned(), request).await,
            Err(error) => Reply::Error(error),
        }
    }

    /// Reads what is held of an id that is coordinated here.
    pub(crate) async fn look<T>(&self, transactional_id: &str, f: impl FnOnce(&Machine) -> T) -> Result<T, ErrorCode> {
        self.shard_of(transactional_id).await?.look(f)
    }

    /// All that are led here, in the order of their partitions.
    pub(crate) fn shards(&self) -> Vec<Rc<Shard>> {
        self.shards.borrow().values().map(|(shard, _)| Rc::clone(shard)).collect()
    }

    async fn shard_of(&self, transactional_id: &str) -> Result<Rc<Shard>, ErrorCode> {
        let index = self.partition_of(transactional_id).await?;
        self.shards.borrow().get(&index).map(|(shard, _)| Rc::clone(shard)).ok_or(ErrorCode::NOT_COORDINATOR)
    }
}
