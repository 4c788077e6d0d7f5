//! Producer ids: unique for ever. The controller hands out blocks as records of the metadata log, a broker gives out
//! the ids of its block; what is left of a block at a crash is lost.

use std::rc::Rc;

use env::sync::Mutex;
use protocol::ErrorCode;

use crate::controller_channel::ControllerChannel;

pub struct ProducerIds {
    controller: Rc<ControllerChannel>,
    /// The rest of the current block.
    block: Mutex<std::ops::Range<i64>>,
}

impl ProducerIds {
    pub(crate) fn new(controller: Rc<ControllerChannel>) -> Self {
        Self { controller, block: Mutex::new(0..0) }
    }

    /// An id that nobody had. COORDINATOR_LOAD_IN_PROGRESS while the controller cannot be reached: producers come again.
    pub async fn next(&self) -> Result<i64, ErrorCode> {
        let mut block = self.block.lock().await;
        if let Some(id) = block.next() {
            return Ok(id);
        }
        let (first, count) = self.controller.allocate_producer_ids().await.map_err(|error| {
            tracing::info!(%error, "no producer ids from the controller");
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
        })?;
        *block = first..first + count;
        block.next().ok_or(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)
    }
}
