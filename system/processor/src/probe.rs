//! What the processor tells about itself to whoever listens.

use crate::decision::Entry;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Probe {
    Decision(Entry),
    /// The coordinator speaks to the worker by this connection from now on; later ones have higher numbers.
    WorkerRegistered {
        worker: String,
        connection: u64,
    },
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

impl Probe {
    /// Tells it to people as well. Decisions are records of their own topic.
    pub(crate) fn log(&self) {
        match self {
            Self::Decision(_) => {}
            Self::WorkerRegistered { worker, connection } => tracing::info!(worker, connection, "worker registered"),
            Self::AttemptStarted { generation, checkpoint } => {
                tracing::info!(generation, checkpoint, "attempt is deployed");
            }
            Self::AttemptRunning { generation } => tracing::info!(generation, "attempt runs"),
            Self::AttemptFailed { generation, reason } => tracing::info!(generation, reason, "attempt failed"),
            Self::CheckpointCompleted { generation, n } => {
                tracing::info!(generation, checkpoint = n, "checkpoint is durable");
            }
            Self::CheckpointCommitted { generation, n } => {
                tracing::info!(generation, checkpoint = n, "checkpoint is committed");
            }
            Self::Finish { end_offsets } => tracing::info!(?end_offsets, "the input is bounded"),
            Self::Drained { generation } => tracing::info!(generation, "drained"),
        }
    }
}
