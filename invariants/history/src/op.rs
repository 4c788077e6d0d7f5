//! What a workload client asked, and what it heard.
//!
//! A time-out or a lost connection is [`OpResult::Unknown`] and stays so; only the final read resolves it (rule 20).

use serde::{Deserialize, Serialize};

use crate::Blob;

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
    /// Anything else with a result worth keeping (create topic, commit offsets), by name.
    Other { name: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OpResult {
    /// Acknowledged; with the record's offset when one was told.
    Ok { offset: Option<i64> },
    /// Failed for certain: it has no effect, ever.
    Failed { code: String },
    /// May or may not have taken effect.
    Unknown { reason: Option<String> },
}

impl Op {
    pub fn is_ok(&self) -> bool {
        matches!(self.result, OpResult::Ok { .. })
    }

    pub fn is_failed(&self) -> bool {
        matches!(self.result, OpResult::Failed { .. })
    }

    pub fn is_unknown(&self) -> bool {
        matches!(self.result, OpResult::Unknown { .. })
    }
}
