//! What a leader asks of the controller about its in-sync set, and what it is told (KIP-497, KIP-841, KIP-903).

use std::future::Future;
use std::pin::Pin;

use protocol::{ErrorCode, Uuid};

/// Of a broker whose epoch the leader has not heard in this leadership.
pub const UNKNOWN_BROKER_EPOCH: i64 = -1;

/// The in-sync set that the leader wants. The controller takes it only if both epochs are those it knows, and every
/// member is registered under the epoch named here, unfenced and not shutting down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsrProposal {
    pub topic_id: Uuid,
    pub partition: i32,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    /// (broker, its epoch); [`UNKNOWN_BROKER_EPOCH`] for the leader itself.
    pub isr: Vec<(i32, i64)>,
}

/// What the controller has committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsrState {
    pub leader: i32,
    pub leader_epoch: i32,
    pub isr: Vec<i32>,
    pub partition_epoch: i32,
}

pub type Altering = Pin<Box<dyn Future<Output = Result<IsrState, ErrorCode>>>>;

/// The way to the controller. An answer that was lost is REQUEST_TIMED_OUT: the leader asks again, and counts with both
/// sets until it knows.
pub trait AlterPartition {
    fn alter(&self, proposal: IsrProposal) -> Altering;
}
