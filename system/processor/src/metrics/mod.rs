//! What a job can be measured by, under the names that Flink's dashboards know, in lower case as its Prometheus reporter
//! writes them; `_total` marks what only rises.
//!
//! | file | whose |
//! |--|--|
//! | `job` | the coordinator's: attempts and checkpoints |
//! | `task` | a worker's: records, late ones, dead letters, watermarks, by task |
//!
//! As in the broker, counting is an add to a cell of this node.

mod job;
mod task;

pub(crate) use job::JobMetrics;
pub(crate) use task::{RunningTask, TaskMetrics};

pub use task::WorkerMetrics;
