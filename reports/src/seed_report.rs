//! The outcome of one seed, as it crosses process boundaries and rests in the results store.
//!
//! It holds no history: that stays in the worker, which can make it again from the seed at any time.

use std::collections::{BTreeMap, BTreeSet};

pub use history::Witness;
use serde::{Deserialize, Serialize};

use crate::job_phase::JobPhase;

/// How a seed ended. Ordered by nothing: the CLI's exit codes say which is worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every property held.
    Pass,
    /// A safety property was violated.
    Unsafe,
    /// The system did not converge within the plan's bound after the faults stopped (rule 26).
    NotLive,
    /// A node of the system panicked.
    Panicked,
    /// Two executions of the same plan differed.
    NotDeterministic,
    /// Not decided: the watchdog or the memory limit ended it, or a checker could not tell.
    Inconclusive,
    /// streamproof itself failed: a panic outside the system, a worker that died.
    HarnessFailed,
}

impl Verdict {
    /// Whether the seed counts as a failure that the user must look at.
    pub fn is_failure(self) -> bool {
        !matches!(self, Verdict::Pass | Verdict::Inconclusive)
    }

    /// A word for people.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Unsafe => "safety violated",
            Verdict::NotLive => "not live",
            Verdict::Panicked => "system panicked",
            Verdict::NotDeterministic => "not deterministic",
            Verdict::Inconclusive => "inconclusive",
            Verdict::HarnessFailed => "streamproof failed",
        }
    }
}

/// A fault that took effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultStep {
    /// Simulated milliseconds since the start of the run.
    pub at_ms: u64,
    pub what: String,
}

/// One violated property.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The property's stable name, as `streamproof list invariants` prints it.
    pub property: String,
    pub message: String,
    pub witness: Witness,
}

/// What a seed did. All counts are of this seed alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub simulated_ms: u64,
    /// Records that workload clients sent and the final read found.
    pub records: u64,
    /// Distinct committed windows (key, start, end).
    pub windows: u64,
    /// Committed checkpoints.
    pub checkpoints: u64,
    /// Operations, observations and log records that the properties were checked over.
    pub events_checked: u64,
    /// Whether the processor restored from a checkpoint that held state.
    pub restored_non_empty: bool,
    /// What became of the brokers' leaderships.
    #[serde(default)]
    pub cluster: ClusterStats,
    /// Enabled faults by family: how many the plan holds and how many took effect.
    pub faults: BTreeMap<String, FaultCount>,
    /// Faults by family and by what the job was busy with as they struck: how many struck then and how many took effect.
    /// Without those that were never carried out, and crash points and failing syncs that no node reached. Empty without a
    /// job.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub faults_by_job_phase: BTreeMap<String, BTreeMap<JobPhase, FaultCount>>,
    /// Fault families that this plan switches off. Empty for scenarios that do not choose families.
    pub families_off: BTreeSet<String>,
    /// Labels of the rare states that were reached.
    pub reached: BTreeSet<String>,
}

/// Of the brokers' leaderships, by committed metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStats {
    /// Elections of another leader for a partition that had one.
    pub leader_changes: u64,
    /// Times that an in-sync set lost a member.
    pub isr_shrinks: u64,
    /// Times that the coordinator of an open or decided transaction changed.
    pub coordinator_failovers: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCount {
    pub enabled: u64,
    pub bit: u64,
}

/// The outcome of one seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedReport {
    pub version: u32,
    pub scenario: String,
    pub seed: u64,
    pub verdict: Verdict,
    /// The failures, the most telling one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// The faults that took effect, in order; kept for failures only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fault_steps: Vec<FaultStep>,
    /// Why it is inconclusive or failed in the harness, or what the checkers had to skip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Hash W over the world's events, 16 hex digits; empty if the run did not end.
    pub world_hash: String,
    /// Hash P over the probes, 16 hex digits; empty if the run did not end.
    pub probe_hash: String,
    pub stats: Stats,
    pub wall_ms: u64,
}

impl SeedReport {
    /// A report of a seed that never ended: killed, crashed or refused.
    pub fn unfinished(scenario: &str, seed: u64, verdict: Verdict, note: impl Into<String>) -> Self {
        Self {
            version: crate::JSON_VERSION,
            scenario: scenario.to_owned(),
            seed,
            verdict,
            failures: Vec::new(),
            fault_steps: Vec::new(),
            note: Some(note.into()),
            world_hash: String::new(),
            probe_hash: String::new(),
            stats: Stats::default(),
            wall_ms: 0,
        }
    }

    /// The same execution, as far as anybody can tell: same verdict, same hashes.
    pub fn same_trace(&self, other: &SeedReport) -> bool {
        self.verdict == other.verdict
            && self.world_hash == other.world_hash
            && self.probe_hash == other.probe_hash
            && self.failures == other.failures
    }
}
