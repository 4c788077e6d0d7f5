//! What the broker tells the harness about itself.

use crate::group::consumer::Current;
use crate::group::records::GroupRecord;
use crate::metadata::PartitionState;
use crate::metadata::records::MetadataRecord;
use crate::txn::state::{ProducerIdEpoch, State};

/// A coordinator: its partition of the internal topic, and the leader epoch in which it speaks.
#[derive(Debug, Hash, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CoordinatorId {
    pub partition: i32,
    pub leader_epoch: i32,
}

#[derive(Debug, Hash, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A broker is up: its state is recovered and it listens.
    Started { node_id: i32, broker_epoch: i64 },
    /// A committed record of the metadata log.
    Metadata { record: MetadataRecord },
    /// A committed batch of the metadata log was applied: `records` from `offset` on, written in `epoch`, of this checksum.
    MetadataApplied { offset: i64, records: i32, epoch: i32, crc: u32 },
    /// A partition's state by committed metadata, as this broker has it now.
    PartitionState { topic: String, partition: i32, state: PartitionState },
    /// A voter stored its vote, for itself or another.
    Voted { node: i32, epoch: i32, candidate: i32 },
    /// A voter leads the metadata log in this epoch; before its first record the log ends at `log_end`.
    LeaderElected { epoch: i32, node: i32, log_end: i64 },
    /// A replica of the metadata log knows everything below `high_watermark` to be committed; `epoch` is the one it is in.
    MetadataCommitted { node: i32, epoch: i32, high_watermark: i64 },
    /// A transactional id changed its state, durably.
    Transaction {
        transactional_id: String,
        state: State,
        producer: ProducerIdEpoch,
        /// Of a client that decides by itself when it ends (KIP-939).
        two_phase: bool,
        /// The leader epoch in which the coordinator speaks.
        coordinator_epoch: i32,
    },
    /// A consumer offset became visible: committed, and not inside an open transaction. `None`: it is deleted.
    OffsetCommitted {
        group: String,
        topic: String,
        partition: i32,
        offset: Option<i64>,
        producer_id: Option<i64>,
        coordinator: CoordinatorId,
    },
    /// A member's commit is in the log, be it in an open transaction; in the name of this generation (or member epoch).
    CommitStored { group: String, member: String, generation: i32, coordinator: CoordinatorId },
    /// A group coordinator has read its log and serves from now on, with these offsets: group, topic, partition, offset.
    OffsetsLoaded { coordinator: CoordinatorId, offsets: Vec<(String, String, i32, i64)> },
    /// A record about a group is stored: a generation and its assignment, an epoch, what a member has.
    Group { record: GroupRecord, coordinator: CoordinatorId },
    /// A group coordinator has read its log: members of groups that it assigns itself (KIP-848), and what each has.
    GroupsLoaded { coordinator: CoordinatorId, members: Vec<(String, String, Current)> },
    /// A coordinator could not know whether its record is in the log and read the log anew.
    CoordinatorReloaded { partition: i32 },
}
