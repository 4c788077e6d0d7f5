//! Producer ids: unique for ever. The controller hands out blocks as records of the metadata log, a broker gives out
//! the ids of its block; what is left of a block at a crash is lost.

use env::sync::Mutex;
use protocol::ErrorCode;

use crate::controller::proposal::{Outcome, Proposal};
use crate::metadata::Metadata;

#[derive(Debug)]
pub struct ProducerIds {
    metadata: Metadata,
    broker_id: i32,
    broker_epoch: i64,
    block_size: i64,
    /// The rest of the current block.
    block: Mutex<std::ops::Range<i64>>,
}

impl ProducerIds {
    pub fn new(metadata: Metadata, broker_id: i32, broker_epoch: i64, block_size: i64) -> Self {
        Self { metadata, broker_id, broker_epoch, block_size, block: Mutex::new(0..0) }
    }

    /// An id that nobody had.
    pub async fn next(&self) -> Result<i64, ErrorCode> {
        let mut block = self.block.lock().await;
        if let Some(id) = block.next() {
            return Ok(id);
        }
        let proposal = Proposal::AllocateProducerIds {
            broker_id: self.broker_id,
            broker_epoch: self.broker_epoch,
            count: self.block_size,
        };
        match self.metadata.propose(proposal).await? {
            Outcome::ProducerIds { first, count } => {
                *block = first..first + count;
                block.next().ok_or(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)
            }
            other => {
                tracing::error!(?other, "the controller answered another proposal");
                Err(ErrorCode::UNKNOWN_SERVER_ERROR)
            }
        }
    }
}
