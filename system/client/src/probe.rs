//! What the client reports of itself.

use protocol::ErrorCode;

use crate::metadata::TopicPartition;

/// An observation of a client.
#[derive(Debug, Hash, Clone, PartialEq, Eq)]
pub enum ClientProbe {
    /// A producer got its identity.
    ProducerInitialized { transactional_id: Option<String>, producer_id: i64, producer_epoch: i16 },
    /// A batch goes out again with the sequence it had.
    BatchRetried { partition: TopicPartition, base_sequence: i32, code: Option<ErrorCode> },
    /// A producer can no longer be used.
    ProducerFatal { transactional_id: Option<String>, code: Option<ErrorCode> },
    /// A transaction ended, as the coordinator answered.
    TransactionEnded { transactional_id: String, producer_id: i64, producer_epoch: i16, committed: bool },
    /// What a member of a group may read changes: `take`, `revoke` or `lose`.
    GroupChange {
        group: String,
        member_id: String,
        generation: i32,
        change: &'static str,
        partitions: Vec<TopicPartition>,
    },
    /// The log no longer holds what was read below the position: it was truncated, and may have grown again.
    Truncated { partition: TopicPartition, position: i64, diverges_at: i64 },
    /// The position is outside the log.
    OffsetOutOfRange { partition: TopicPartition, position: i64 },
}
