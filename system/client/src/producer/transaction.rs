//! The state of a transactional producer. Pure; the calls to the coordinator are in `producer::coordination`.
//!
//! ```text
//! Uninitialized --init--> Ready --begin--> Open --prepare--> Prepared
//!       |                   ^               |                   |
//!       +--init, kept-------|---------------|------> Prepared --+--> Ending{commit or abort} --answered--> Ready
//! ```
//! An error while open makes it abortable: nothing more is sent, and only an abort leads on. A fatal error (fenced)
//! leads nowhere. A commit whose outcome is unknown stays `Ending{commit}`: it may be repeated, never turned into an
//! abort.

use std::borrow::Cow;
use std::collections::BTreeSet;

use protocol::ErrorCode;

use super::ProducerIdEpoch;
use crate::error::{Outcome, Remedy, SendError, TxnError};
use crate::metadata::TopicPartition;

/// How partitions get into a transaction and how it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TxnVersion {
    /// AddPartitionsToTxn before the first record of each partition; the epoch lasts until an error.
    V1,
    /// KIP-890: the partition's leader adds it; each end bumps the epoch.
    V2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Uninitialized,
    Ready,
    Open,
    /// All records are acknowledged, the end is yet to be told. `kept`: it was found again by InitProducerId.
    Prepared {
        kept: Option<ProducerIdEpoch>,
    },
    Ending {
        commit: bool,
    },
}

#[derive(Debug, Clone)]
struct Failure {
    code: Option<ErrorCode>,
    reason: Cow<'static, str>,
    fatal: bool,
}

#[derive(Debug)]
pub(super) struct Transaction {
    pub version: TxnVersion,
    state: State,
    failure: Option<Failure>,
    /// A commit waits for the records before it.
    flushing: bool,
    /// The coordinator or a leader may know of this transaction.
    touched: bool,
    added: BTreeSet<TopicPartition>,
    adding: bool,
    /// A batch of this epoch was given up: its sequence is missing, so the epoch must change before the next one (V1).
    gap: bool,
}

impl Transaction {
    pub fn new() -> Self {
        Self {
            version: TxnVersion::V2,
            state: State::Uninitialized,
            failure: None,
            flushing: false,
            touched: false,
            added: BTreeSet::new(),
            adding: false,
            gap: false,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    // ---- records

    pub fn accepts_records(&self) -> Result<(), SendError> {
        if let Some(f) = &self.failure {
            let reason = format!("the transaction must be aborted: {}", f.reason);
            return Err(SendError { outcome: Outcome::Failed, code: f.code, reason: reason.into() });
        }
        match self.state {
            State::Open if !self.flushing => Ok(()),
            State::Open => Err(SendError::failed("the transaction is being ended")),
            _ => Err(SendError::failed("no transaction is open")),
        }
    }

    /// Records sent before are still to be delivered, though no new ones are taken.
    pub fn is_flushing(&self) -> bool {
        self.flushing && self.failure.is_none()
    }

    pub fn may_produce(&self, tp: &TopicPartition) -> bool {
        self.failure.is_none() && (self.version == TxnVersion::V2 || self.added.contains(tp))
    }

    /// Partitions that must be added first, if none are being added already.
    pub fn partitions_to_add<'a>(
        &mut self,
        waiting: impl Iterator<Item = &'a TopicPartition>,
    ) -> Option<BTreeSet<TopicPartition>> {
        if self.version == TxnVersion::V2 || self.adding || self.failure.is_some() {
            return None;
        }
        let missing: BTreeSet<_> = waiting.filter(|tp| !self.added.contains(*tp)).cloned().collect();
        if missing.is_empty() {
            return None;
        }
        self.adding = true;
        self.touched = true;
        Some(missing)
    }

    pub fn partitions_added(&mut self, partitions: BTreeSet<TopicPartition>) {
        self.adding = false;
        self.added.extend(partitions);
    }

    pub fn adding_failed(&mut self) {
        self.adding = false;
    }

    pub fn touched(&mut self) {
        self.touched = true;
    }

    /// A record of the transaction will not be delivered.
    pub fn record_lost(&mut self, tp: &TopicPartition, error: &SendError) {
        self.gap = true;
        self.fail(error.code, format!("a record of {tp} was lost: {}", error.reason).into());
    }

    /// The transaction can only be aborted, or not even that. The first reason stays, unless a fatal one comes.
    pub fn fail(&mut self, code: Option<ErrorCode>, reason: Cow<'static, str>) {
        let fatal = code.is_some_and(is_fatal);
        env::sometimes!(fatal, "a transactional producer is fenced");
        if self.failure.as_ref().is_none_or(|f| fatal && !f.fatal) {
            self.failure = Some(Failure { code, reason, fatal });
        }
    }

    pub fn failure_code(&self) -> Option<ErrorCode> {
        self.failure.as_ref().and_then(|f| f.code)
    }

    fn error(&self, what: &'static str, f: &Failure) -> TxnError {
        let remedy = if f.fatal { Remedy::Close } else { Remedy::Abort };
        TxnError { what, outcome: Outcome::Failed, remedy, code: f.code, reason: f.reason.clone() }
    }

    fn check(&self, what: &'static str) -> Result<(), TxnError> {
        self.failure.as_ref().map_or(Ok(()), |f| Err(self.error(what, f)))
    }

    fn misuse(&self, what: &'static str) -> TxnError {
        TxnError::misuse(what, format!("the producer is {:?}", self.state))
    }

    // ---- verbs

    pub fn check_init(&self) -> Result<(), TxnError> {
        match self.state {
            State::Uninitialized => self.check("initialise transactions"),
            _ => Err(self.misuse("initialise transactions")),
        }
    }

    pub fn initialized(&mut self, version: TxnVersion, kept: Option<ProducerIdEpoch>) {
        self.version = version;
        self.state = if kept.is_some() { State::Prepared { kept } } else { State::Ready };
        self.touched = kept.is_some();
    }

    pub fn begin(&mut self) -> Result<(), TxnError> {
        self.check("begin")?;
        if self.state != State::Ready {
            return Err(self.misuse("begin"));
        }
        self.state = State::Open;
        self.flushing = false;
        self.touched = false;
        self.adding = false;
        self.added.clear();
        Ok(())
    }

    pub fn check_open(&self, what: &'static str) -> Result<(), TxnError> {
        self.check(what)?;
        if self.state == State::Open { Ok(()) } else { Err(self.misuse(what)) }
    }

    /// First half of prepare and commit: takes no more records.
    pub fn start_flush(&mut self, what: &'static str) -> Result<(), TxnError> {
        match self.state {
            State::Open => {
                self.check(what)?;
                self.flushing = true;
                Ok(())
            }
            State::Prepared { .. } | State::Ending { commit: true } => self.check_not_fatal(what),
            _ => Err(self.misuse(what)),
        }
    }

    fn check_not_fatal(&self, what: &'static str) -> Result<(), TxnError> {
        self.failure.as_ref().filter(|f| f.fatal).map_or(Ok(()), |f| Err(self.error(what, f)))
    }

    pub fn prepared(&mut self) -> Result<(), TxnError> {
        match self.state {
            State::Open | State::Prepared { .. } => {
                self.check("prepare")?;
                self.state = State::Prepared { kept: None };
                Ok(())
            }
            _ => Err(self.misuse("prepare")),
        }
    }

    /// Second half: true if the coordinator must be told. All records are done by now.
    pub fn start_end(&mut self, commit: bool) -> Result<bool, TxnError> {
        let what = if commit { "commit" } else { "abort" };
        self.check_not_fatal(what)?;
        match self.state {
            State::Open | State::Prepared { .. } => {
                if commit {
                    self.check(what)?;
                }
                if !self.touched {
                    self.ended();
                    return Ok(false);
                }
                self.state = State::Ending { commit };
                Ok(true)
            }
            // Repeated after an unknown outcome: the same end only.
            State::Ending { commit: before } if before == commit => Ok(true),
            _ => Err(self.misuse(what)),
        }
    }

    /// The coordinator refused to commit, and wants an abort.
    pub fn end_refused(&mut self) {
        self.state = State::Open;
        self.flushing = false;
    }

    /// The end was answered. True if the epoch must be bumped by InitProducerId before the next transaction.
    pub fn ended(&mut self) -> bool {
        let bump = self.version == TxnVersion::V1 && self.gap;
        self.state = State::Ready;
        self.failure = None;
        self.flushing = false;
        self.touched = false;
        self.adding = false;
        self.added.clear();
        self.gap = false;
        bump
    }

    /// The bump after [`Transaction::ended`] failed: the producer has to be initialised again.
    pub fn uninitialized(&mut self) {
        self.state = State::Uninitialized;
    }
}

/// Another producer has taken over, or the coordinator will never accept this one.
pub(super) fn is_fatal(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::PRODUCER_FENCED
            | ErrorCode::INVALID_PRODUCER_ID_MAPPING
            | ErrorCode::TRANSACTIONAL_ID_NOT_FOUND
            | ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
            | ErrorCode::CLUSTER_AUTHORIZATION_FAILED
            | ErrorCode::UNSUPPORTED_VERSION
            | ErrorCode::INVALID_TRANSACTION_TIMEOUT
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Transaction {
        let mut t = Transaction::new();
        t.initialized(TxnVersion::V2, None);
        t.begin().unwrap();
        t
    }

    #[test]
    fn the_straight_way() {
        let mut t = open();
        t.accepts_records().unwrap();
        t.touched();
        t.start_flush("commit").unwrap();
        assert!(t.accepts_records().is_err(), "no records behind the commit");
        assert!(t.start_end(true).unwrap());
        assert!(!t.ended());
        t.begin().unwrap();
    }

    #[test]
    fn an_empty_transaction_tells_nobody() {
        let mut t = open();
        t.start_flush("commit").unwrap();
        assert!(!t.start_end(true).unwrap());
        assert_eq!(t.state(), State::Ready);
    }

    #[test]
    fn an_error_leaves_only_the_abort() {
        let mut t = open();
        t.touched();
        t.fail(Some(ErrorCode::MESSAGE_TOO_LARGE), "big".into());
        assert_eq!(t.start_flush("commit").unwrap_err().remedy, Remedy::Abort);
        assert_eq!(t.prepared().unwrap_err().remedy, Remedy::Abort);
        assert_eq!(t.start_end(true).unwrap_err().remedy, Remedy::Abort);
        assert!(t.start_end(false).unwrap());
        t.ended();
        t.begin().unwrap();
    }

    #[test]
    fn fencing_leaves_nothing() {
        let mut t = open();
        t.touched();
        t.fail(Some(ErrorCode::MESSAGE_TOO_LARGE), "big".into());
        t.fail(Some(ErrorCode::PRODUCER_FENCED), "fenced".into());
        assert_eq!(t.start_end(false).unwrap_err().remedy, Remedy::Close);
        assert_eq!(t.begin().unwrap_err().remedy, Remedy::Close);
    }

    #[test]
    fn a_commit_of_unknown_outcome_is_never_turned_into_an_abort() {
        let mut t = open();
        t.touched();
        t.start_flush("commit").unwrap();
        assert!(t.start_end(true).unwrap());
        assert_eq!(t.start_end(false).unwrap_err().remedy, Remedy::Misuse);
        t.start_flush("commit").unwrap();
        assert!(t.start_end(true).unwrap(), "but it can be repeated");
    }

    #[test]
    fn a_kept_transaction_must_be_ended_first() {
        let mut t = Transaction::new();
        let kept = Some(ProducerIdEpoch { producer_id: 1, epoch: 2 });
        t.initialized(TxnVersion::V2, kept);
        assert_eq!(t.state(), State::Prepared { kept });
        assert!(t.begin().is_err());
        assert!(t.start_end(true).unwrap());
    }

    #[test]
    fn v1_adds_partitions_first_and_bumps_after_a_gap() {
        let mut t = Transaction::new();
        t.initialized(TxnVersion::V1, None);
        t.begin().unwrap();
        let tp = TopicPartition::new("t", 0);
        assert!(!t.may_produce(&tp));
        let missing = t.partitions_to_add([&tp].into_iter()).unwrap();
        assert!(t.partitions_to_add([&tp].into_iter()).is_none(), "one request at a time");
        t.partitions_added(missing);
        assert!(t.may_produce(&tp));
        t.record_lost(&tp, &SendError::failed("x"));
        assert!(t.start_end(false).unwrap());
        assert!(t.ended(), "epoch must be bumped");
    }
}
