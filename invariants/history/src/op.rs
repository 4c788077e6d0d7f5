//! What a workload client asked, and what it heard.
//!
//! A time-out or a lost connection is [`OpResult::Unknown`] and stays so; only the final read resolves it (rule 20).

use serde::{Deserialize, Serialize};

use crate::{Blob, TopicPartition};

/// Index of an operation in [`History::ops`](crate::History::ops).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId(pub usize);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Op {
    /// Value of the record's header `op.client`.
    pub client: u32,
    /// Unique per client and rising in order of invocation: the record's header `op.n`.
    pub n: u64,
    pub kind: OpKind,
    pub invoked_ns: u64,
    /// `None`: never answered, which is unknown.
    pub completed_ns: Option<u64>,
    pub result: OpResult,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OpKind {
    /// One record to one partition.
    Produce {
        topic: String,
        partition: i32,
        key: Option<Blob>,
        value: Option<Blob>,
        /// -1 (all), 0 or 1.
        acks: i16,
        idempotent: bool,
        /// The transaction it belongs to: the record's header `op.txn`; unique over the run.
        txn: Option<u64>,
    },
    /// End of a transaction; the result tells whether it took.
    EndTxn { txn: u64, commit: bool },
    /// A consumer takes these partitions, each from its offset.
    Assign { partitions: Vec<(TopicPartition, i64)> },
    /// A consumer joins a group for these topics.
    Subscribe { topics: Vec<String> },
    /// A consumer heard of its new assignment, at the time of this operation: an event, always acknowledged.
    Rebalance { assigned: Vec<TopicPartition> },
    /// A consumer asks for the next records; inside the transaction that its offsets are committed in, if in one.
    Poll { read_committed: bool, txn: Option<u64> },
    /// A group's offset for one partition.
    CommitOffset { group: String, topic: String, partition: i32, offset: i64 },
    /// Asks for it: `Ok { offset: None }` if there is none.
    FetchOffset { group: String, topic: String, partition: i32 },
    /// Anything else with a result worth keeping (create topic, commit offsets), by name.
    Other { name: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OpResult {
    /// Acknowledged; with the record's offset when one was told.
    Ok { offset: Option<i64> },
    /// What a poll returned, in the order in which the client got it.
    Polled { reads: Vec<PolledPartition> },
    /// Failed for certain: it has no effect, ever.
    Failed { code: String },
    /// May or may not have taken effect.
    Unknown { reason: Option<String> },
}

/// Of one partition. A poll may hold a partition more than once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolledPartition {
    pub topic: String,
    pub partition: i32,
    pub records: Vec<PolledRecord>,
}

/// A record by the operation that wrote it, which stands for its contents: headers `op.client` and `op.n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolledRecord {
    pub offset: i64,
    pub client: u32,
    pub n: u64,
}

impl Op {
    pub fn is_ok(&self) -> bool {
        matches!(self.result, OpResult::Ok { .. } | OpResult::Polled { .. })
    }

    pub fn is_failed(&self) -> bool {
        matches!(self.result, OpResult::Failed { .. })
    }

    pub fn is_unknown(&self) -> bool {
        matches!(self.result, OpResult::Unknown { .. })
    }
}
