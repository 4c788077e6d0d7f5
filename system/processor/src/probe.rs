//! What the processor tells about itself to whoever listens.

use crate::decision::Entry;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Probe {
    Decision(Entry),
    /// The coordinator deploys an attempt, from `checkpoint` or from the beginning.
    AttemptStarted {
        generation: u64,
        checkpoint: Option<u64>,
    },
    /// Every task of the attempt has recovered its sink and runs.
    AttemptRunning {
        generation: u64,
    },
    AttemptFailed {
        generation: u64,
        reason: String,
    },
    /// Checkpoint `n` is durable: its transactions may commit.
    CheckpointCompleted {
        generation: u64,
        n: u64,
    },
    /// All tasks committed checkpoint `n`.
    CheckpointCommitted {
        generation: u64,
        n: u64,
    },
    /// The end offsets are durable (exclusive, per partition).
    Finish {
        end_offsets: Vec<(i32, i64)>,
    },
    /// All input below the end offsets is processed and committed.
    Drained {
        generation: u64,
    },
}
