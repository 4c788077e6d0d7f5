//! What a check must know of the plan and its deployment.

use models::JobSpec;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The job that ran, if one did.
    pub job: Option<JobSpec>,
    pub flush: Flush,
    /// Records that were committed may be lost, and the high watermark may fall: a disk was wiped, so that durability is
    /// promised by the other members only, or a topic allows unclean elections.
    pub disks_lost: bool,
    /// When the last fault ended; `None`: the run never healed (liveness is not judged).
    pub healed_ns: Option<u64>,
    /// When the run was looked at for the last time.
    pub ended_ns: u64,
    /// The plan's bound: after this much time without faults the system has caught up.
    pub bound_ns: u64,
    /// Stretches without faults (and without their after-effects still planned), while the job ran and before the
    /// drain: where rule 22b looks.
    #[serde(default)]
    pub calm: Vec<Span>,
    /// Whether the input was closed and the job drained to MAX.
    pub drained: bool,
    /// Partitions of the source topic and where the input was closed: (partition, end offset).
    #[serde(default)]
    pub source_ends: Vec<(i32, i64)>,
    /// Tasks that the job runs, such as `source-0` and `window-1`.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// Topics that groups copy.
    #[serde(default)]
    pub copies: Vec<Copying>,
    /// Consumer groups.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// Topics whose logs are compacted: of each key the last committed record stays, for certain.
    #[serde(default)]
    pub compacted: Vec<String>,
    /// Longest time a fetch may take before the client gives it up.
    pub fetch_timeout_ns: u64,
    /// A client's call that took this long may have been sent twice, and what was sent first may be heard after all that
    /// followed it.
    #[serde(default)]
    pub repeats_after_ns: Option<u64>,
    /// Largest deviation of a node's clock from the world's rate, in parts per million.
    pub clock_drift_ppm: u32,
}

/// Members of a group copy a topic in transactions that also commit their offsets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copying {
    pub from: String,
    pub to: String,
    /// The group's committed offsets reached the end of the topic before the run was looked at.
    pub caught_up: bool,
}

/// Its members share what they read: each record comes to one of them at least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub name: String,
    /// Clients that are members, now or then.
    pub clients: Vec<u32>,
}

/// When a broker acknowledges with acks=all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flush {
    Fsync,
    PageCache,
}

/// [from, to).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    pub from_ns: u64,
    pub to_ns: u64,
}
