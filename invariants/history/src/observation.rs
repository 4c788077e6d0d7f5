//! What was seen while the run went on, and the faults that took effect.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One sight of the system's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    pub at_ns: u64,
    pub observer: Observer,
    pub what: Observed,
}

/// Sights of one observer are in its own order; those of two are comparable only where a check says so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observer {
    /// A probe in one life of a broker or processor node.
    Node { node: u32, incarnation: u32 },
    /// A workload client, from answers that it handled in order.
    Client { client: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Observed {
    HighWatermark {
        topic: String,
        partition: i32,
        leader_epoch: i32,
        offset: i64,
    },
    LastStableOffset {
        topic: String,
        partition: i32,
        leader_epoch: i32,
        offset: i64,
    },
    /// A consumer at `read_committed` asked from `from`, got records at `offsets`, and stands at `to` now.
    ReadCommitted {
        topic: String,
        partition: i32,
        from: i64,
        to: i64,
        offsets: Vec<i64>,
        last_stable_offset: i64,
    },
    /// The coordinator made checkpoint `n` complete and durable.
    CheckpointComplete {
        generation: u64,
        n: u64,
    },
    /// The coordinator started the attempt `generation`, from this checkpoint.
    Restored {
        generation: u64,
        checkpoint: Option<u64>,
    },
}

impl fmt::Display for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Observer::Node { node, incarnation } => write!(f, "node {node} life {incarnation}"),
            Observer::Client { client } => write!(f, "client {client}"),
        }
    }
}

/// A fault that did something, as against one that was planned and met nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultEffect {
    pub at_ns: u64,
    /// When it ceased; `None`: it was over at once, or lasted to the end if `lasting`.
    #[serde(default)]
    pub until_ns: Option<u64>,
    #[serde(default)]
    pub lasting: bool,
    /// Kind of fault as in the plan: `crash`, `power`, `cut`, `stall`, …
    pub fault: String,
    /// Node, link or disk.
    pub target: String,
    /// What it did: "dropped 3 unsynced pages of deliveries-0".
    pub effect: String,
}
