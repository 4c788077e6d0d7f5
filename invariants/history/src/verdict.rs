//! What a check says, and what a run comes to.

use serde::{Deserialize, Serialize};

use crate::{OpId, Witness};

/// Of one property over one history. A check that cannot decide, for whatever reason of its own, is `Unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    /// At least one.
    Fail(Vec<Violation>),
    Unknown {
        reason: String,
    },
}

/// One place where a property does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// Name of the property, as in the registry.
    pub property: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Where, what must be there, and what is.
    pub witness: Witness,
    /// The client operation concerned, if one is.
    pub op: Option<OpId>,
}

impl Verdict {
    /// Pass without violations, else Fail.
    pub fn from_violations(violations: Vec<Violation>) -> Verdict {
        if violations.is_empty() { Verdict::Pass } else { Verdict::Fail(violations) }
    }

    pub fn unknown(reason: impl Into<String>) -> Verdict {
        Verdict::Unknown { reason: reason.into() }
    }

    pub fn violations(&self) -> &[Violation] {
        match self {
            Verdict::Fail(violations) => violations,
            _ => &[],
        }
    }
}

/// Of a whole run; what an exit code is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Passed,
    /// A safety property failed.
    Unsafe(Vec<Violation>),
    /// A liveness property failed.
    NotLive(Vec<Violation>),
    /// The system panicked.
    Panicked {
        node: String,
        message: String,
    },
    /// A repeat differed.
    NotDeterministic {
        message: String,
    },
    /// Some property could not be decided, and none failed.
    Inconclusive {
        reasons: Vec<String>,
    },
    /// The harness itself failed.
    HarnessFailed {
        message: String,
    },
}
