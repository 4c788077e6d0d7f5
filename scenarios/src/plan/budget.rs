//! How long each phase of a run may last, in simulated milliseconds.

use serde::{Deserialize, Serialize};

/// Phases in order: safety (faults strike), heal, liveness (no faults; progress is demanded), drain (bounded input ends).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// Length of the safety phase. Faults end with it and everything is healed.
    pub safety_ms: u64,
    /// After healing, within this time the clients have finished and the system has converged (rule 26).
    pub liveness_ms: u64,
    /// The quiet stretch after which rule 22b is judged: clients silent, everything caught up.
    pub quiet_ms: u64,
    /// After the end offsets are set, within this time the job has ended and committed.
    pub drain_ms: u64,
    /// Upper bound of executor events: a run that reaches it is stuck in a loop (outcome: liveness).
    pub max_events: u64,
}

impl Budgets {
    /// The longest a run may last, in simulated milliseconds.
    pub fn total_ms(&self) -> u64 {
        self.safety_ms + self.liveness_ms + self.quiet_ms + self.drain_ms
    }
}
