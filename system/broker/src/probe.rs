//! What the broker tells the harness about itself.

use crate::group::records::GroupRecord;
use crate::metadata::records::MetadataRecord;
use crate::txn::state::{ProducerIdEpoch, State};

#[derive(Debug, Hash, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A broker is up: its state is recovered and it listens.
    Started { node_id: i32, broker_epoch: i64 },
    /// A committed record of the metadata log.
    Metadata { record: MetadataRecord },
    /// A voter stored its vote, for itself or another.
    Voted { node: i32, epoch: i32, candidate: i32 },
    /// A voter leads the metadata log in this epoch.
    LeaderElected { epoch: i32, node: i32 },
    /// A replica of the metadata log knows everything below `high_watermark` to be committed; `epoch` is the one it is in.
    MetadataCommitted { node: i32, epoch: i32, high_watermark: i64 },
    /// A transactional id changed its state, durably.
    Transaction { transactional_id: String, state: State, producer: ProducerIdEpoch },
    /// A consumer offset became visible: committed, and not inside an open transaction.
    OffsetCommitted { group: String, topic: String, partition: i32, offset: i64, producer_id: Option<i64> },
    /// A record about a group is stored: a generation and its assignment, an epoch, what a member has.
    Group { record: GroupRecord },
    /// A coordinator could not know whether its record is in the log and read the log anew.
    CoordinatorReloaded { partition: i32 },
}
