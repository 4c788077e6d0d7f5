//! What a run comes to.

use history::{History, Outcome, Verdict};
use reports::{FaultStep, Scene, Stats};
use scenarios::Plan;
use serde::{Deserialize, Serialize};

/// The whole result of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunResult {
    pub scenario: String,
    pub seed: u64,
    pub outcome: Outcome,
    /// Each property that judged the run, with its verdict.
    pub verdicts: Vec<(String, Verdict)>,
    /// Faults that took effect, in order.
    pub fault_steps: Vec<FaultStep>,
    /// Faults of the plan that never had an effect, by their number in the plan.
    pub did_not_bite: Vec<u32>,
    /// W, over the world's events.
    pub world_hash: u64,
    /// P, over the probes; `None` with the recorder off.
    pub probe_hash: Option<u64>,
    pub stats: Stats,
    pub timings: Timings,
    /// Why attempts failed and nodes stopped, in order: for people.
    pub notes: Vec<String>,
    /// If asked for.
    pub history: Option<History>,
    /// If asked for: the world's events as text, one each.
    pub trace: Vec<String>,
    /// If asked for.
    #[serde(default)]
    pub scene: Scene,
}

/// Simulated time of each phase's end, in milliseconds since the world began; 0 if it was not reached. Wall time of the
/// whole, which takes no part in any comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    pub healed_ms: u64,
    pub converged_ms: u64,
    pub drained_ms: u64,
    pub wall_us: u64,
}

impl RunResult {
    pub(crate) fn empty(plan: &Plan, outcome: Outcome) -> RunResult {
        RunResult {
            scenario: plan.scenario.clone(),
            seed: plan.seed,
            outcome,
            verdicts: Vec::new(),
            fault_steps: Vec::new(),
            did_not_bite: Vec::new(),
            world_hash: 0,
            probe_hash: None,
            stats: Stats::default(),
            timings: Timings::default(),
            notes: Vec::new(),
            history: None,
            trace: Vec::new(),
            scene: Scene::default(),
        }
    }

    pub(crate) fn harness_failed(plan: &Plan, message: impl Into<String>) -> RunResult {
        Self::empty(plan, Outcome::HarnessFailed { message: message.into() })
    }
}
