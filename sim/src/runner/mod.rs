//! Runs a plan: deploys it into a simulated world, lets the faults loose, heals, drains, reads everything back, judges.
//!
//! Guarantees: [`run`] starts its own fresh thread, returns for every valid plan, and never panics because the system
//! did; with the same plan and options the two hashes are the same in every run of one build. Leaves to others: the
//! wall-clock watchdog and memory limit (`supervisor`), what is printed (`reports`).

mod result;

pub use result::{RunResult, Timings};

use scenarios::Plan;

/// What the recorder does. The world's hash W does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Recorder {
    /// Probes are hashed (P) and kept; the run is judged.
    #[default]
    Full,
    /// Nobody listens to probes: no P, no history, no verdict beyond panics and time limits.
    Off,
}

/// How to run, beside what to run.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RunOptions {
    pub recorder: Recorder,
    /// Instead of the plan's own schedule seed: another order of ready tasks, all else the same.
    pub schedule: Option<u64>,
    /// Keep the history in the result.
    pub keep_history: bool,
    /// Keep the world's events in the result, for finding the first divergent one.
    pub keep_trace: bool,
}

/// Runs `plan` to its end and judges it. Blocks the calling thread; the run has one of its own.
pub fn run(plan: &Plan, options: &RunOptions) -> RunResult {
    let _ = options;
    RunResult::harness_failed(plan, "the simulated world is not linked into this build")
}
