//! The processor's decision log (rule 22): what each task of an attempt decided, in the order it did.
//!
//! The JSON form is that of the job's `decisions_topic`; the simulation's probes carry the same entries.

use crate::time::Watermark;
use serde::{Deserialize, Serialize};

use crate::row::RowOp;

/// One decision of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionEntry {
    /// The attempt.
    pub generation: u64,
    /// `source-0`, `window-1`, …
    pub task: String,
    /// From 0 without gaps per (generation, task).
    pub seq: u64,
    pub decision: Decision,
    /// When it was probed, on the world's clock; `None` from a topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ns: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Decision {
    /// The task starts from checkpoint `checkpoint`, or from nothing.
    Open {
        checkpoint: Option<u64>,
        watermark: Watermark,
        inputs: Vec<InputState>,
        /// W per key group (window tasks).
        #[serde(default)]
        key_groups: Vec<(u32, Watermark)>,
    },
    /// An input changed.
    Advance {
        input: Input,
        /// For a split: the offset that the change covers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<i64>,
        change: Change,
        /// On the node's clock.
        time_ms: i64,
    },
    /// Records first to last (both included) of a source partition were judged, all of one key group.
    Judge { partition: i32, offsets: [i64; 2], key_group: u32 },
    /// A judged record went to the late output.
    Late { partition: i32, offset: i64 },
    /// The task passed barrier `n`.
    Barrier {
        n: u64,
        producer_id: i64,
        producer_epoch: i16,
        /// Source tasks: per split, the offset of the next record.
        #[serde(default)]
        positions: Vec<(i32, i64)>,
    },
    /// A row was emitted.
    Fire { key: String, start: i64, end: i64, pane: u64, op: RowOp },
}

/// What feeds a task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A source partition.
    Split(i32),
    /// Another task.
    Channel(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputState {
    pub input: Input,
    pub watermark: Watermark,
    pub status: InputStatus,
    /// Splits: the offset of the next record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
}

/// Rule 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputStatus {
    /// In the minimum at MIN, no record yet.
    New,
    Idle,
    /// Active again, not yet in the minimum.
    Behind,
    /// In the minimum.
    In,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Watermark(Watermark),
    Idle,
    Active,
    End,
}
