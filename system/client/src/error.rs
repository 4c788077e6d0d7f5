//! What went wrong, and what that says about the work that was asked for.
//!
//! Semantics rule 20: an outcome is acknowledged, failed for certain, or unknown. A time-out and a lost connection are
//! unknown, and unknown stays so over retries: a later attempt that certainly failed says nothing about an earlier one.

use std::borrow::Cow;

use protocol::{ApiKey, Certainty, ErrorCode};

/// Whether failed work may have been done all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It was not done and never will be.
    Failed,
    /// It may have been done, or may yet be.
    Unknown,
}

impl Outcome {
    /// Two attempts at the same work: unknown wins.
    pub fn and(self, other: Outcome) -> Outcome {
        self.max(other)
    }
}

impl From<Certainty> for Outcome {
    fn from(c: Certainty) -> Self {
        match c {
            Certainty::Failed => Self::Failed,
            Certainty::Unknown => Self::Unknown,
        }
    }
}

/// Why one request on one connection brought no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// No byte of it was written.
    #[error("not sent: {0}")]
    NotSent(Cow<'static, str>),
    /// It was handed to the connection, and no response came.
    #[error("no response: {0}")]
    Lost(Cow<'static, str>),
    /// The broker does not speak this API in a version that would do.
    #[error("broker does not support {0:?}")]
    Unsupported(ApiKey),
}

impl CallError {
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NotSent(_) | Self::Unsupported(_) => Outcome::Failed,
            Self::Lost(_) => Outcome::Unknown,
        }
    }
}

/// A request (with all its retries) that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to {what}: {reason}{}", if *.outcome == Outcome::Unknown { " (outcome unknown)" } else { "" })]
pub struct ClientError {
    pub what: &'static str,
    pub outcome: Outcome,
    /// The broker's last answer, if there was one.
    pub code: Option<ErrorCode>,
    pub reason: Cow<'static, str>,
}

/// A record that was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to deliver: {reason}{}", if *.outcome == Outcome::Unknown { " (outcome unknown)" } else { "" })]
pub struct SendError {
    pub outcome: Outcome,
    /// The broker's last answer, if there was one.
    pub code: Option<ErrorCode>,
    pub reason: Cow<'static, str>,
}

impl SendError {
    pub(crate) fn failed(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: Outcome::Failed, code: None, reason: reason.into() }
    }
}

/// What can be done after a transactional call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remedy {
    /// Call the same method again.
    Retry,
    /// Abort the transaction, then go on.
    Abort,
    /// This producer is done: it was fenced, or the coordinator does not know it. Make a new one.
    Close,
    /// The method does not fit the producer's state: a bug of the caller.
    Misuse,
}

/// A transactional call that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to {what}: {reason}{}", if *.outcome == Outcome::Unknown { " (outcome unknown)" } else { "" })]
pub struct TxnError {
    pub what: &'static str,
    /// Of the thing asked for: a commit that is `Unknown` may have committed.
    pub outcome: Outcome,
    pub remedy: Remedy,
    pub code: Option<ErrorCode>,
    pub reason: Cow<'static, str>,
}

impl TxnError {
    pub(crate) fn misuse(what: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { what, outcome: Outcome::Failed, remedy: Remedy::Misuse, code: None, reason: reason.into() }
    }
}
