//! What must hold of every run: one property a file, over a [`History`].
//!
//! Each property states itself, names its source and says what it does not claim. A check that cannot decide is
//! [`Verdict::Unknown`], never a pass; what clients do not know stays unknown until the final read decides it.
//!
//! ```text
//! History ─ Context ─┬─ client and broker properties: operations against the logs as read and as on the disks
//!                    └─ Evidence ─ models::replay ─ processor properties     (also for `check`, from files or topics)
//! ```

mod acked_durable;
pub mod anomalies;
mod chain;
mod compaction;
mod conservation;
mod context;
mod convergence;
mod copied_once;
mod decided_once;
mod evidence;
mod failed_absent;
#[doc(hidden)]
pub mod fixture;
mod high_watermark;
mod idleness;
mod in_sync_holds;
mod last_stable_offset;
mod logs_agree;
mod metadata_kept;
mod no_aborted_read;
mod no_duplicate;
mod offsets_kept;
mod one_leader;
mod producer_order;
mod read_equals_disk;
mod readable;
mod report;
mod sandwich;
mod single_owner;
mod transaction_atomicity;
mod transactions_end;
mod view;
mod watermark_monotonic;
mod window_exactly_once;

pub use chain::Marker;
pub use context::{Context, Fate};
pub use evidence::{Evidence, Published, SourceRecord};
use history::{History, Outcome, Verdict, Violation, Witness};
pub use offsets_kept::{StaleCommit, stale_commits};
pub use report::{Report, check_rows};
pub use view::{JobView, JudgedView, PaneView, WatermarkView};

/// A property, as `list invariants` shows it.
#[derive(Clone, Copy)]
pub struct Property {
    /// Kebab case; what a violation, a patch's header and a report call it.
    pub name: &'static str,
    pub statement: &'static str,
    /// The rule, KIP or paper that promises it.
    pub source: &'static str,
    pub kind: Kind,
    check: fn(&Context<'_>) -> Verdict,
}

/// Which exit code its violation leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Safety,
    Liveness,
}

impl Property {
    pub fn check(&self, context: &Context<'_>) -> Verdict {
        (self.check)(context)
    }
}

/// Every property, in the order in which they are reported.
pub fn all() -> &'static [Property] {
    &[
        acked_durable::PROPERTY,
        failed_absent::PROPERTY,
        no_duplicate::PROPERTY,
        producer_order::PROPERTY,
        high_watermark::PROPERTY,
        last_stable_offset::PROPERTY,
        transaction_atomicity::PROPERTY,
        decided_once::PROPERTY,
        no_aborted_read::PROPERTY,
        read_equals_disk::PROPERTY,
        logs_agree::PROPERTY,
        one_leader::PROPERTY,
        in_sync_holds::PROPERTY,
        copied_once::PROPERTY,
        metadata_kept::PROPERTY,
        single_owner::PROPERTY,
        offsets_kept::PROPERTY,
        anomalies::lost_write::PROPERTY,
        anomalies::duplicate::PROPERTY,
        anomalies::unseen::PROPERTY,
        anomalies::inconsistent_offsets::PROPERTY,
        anomalies::aborted_read::PROPERTY,
        anomalies::precommitted_read::PROPERTY,
        anomalies::poll_skip::PROPERTY,
        anomalies::nonmonotonic_poll::PROPERTY,
        anomalies::int_poll_skip::PROPERTY,
        anomalies::int_nonmonotonic_poll::PROPERTY,
        anomalies::nonmonotonic_send::PROPERTY,
        anomalies::int_nonmonotonic_send::PROPERTY,
        anomalies::cycles::PROPERTY,
        window_exactly_once::PROPERTY,
        idleness::PROPERTY,
        conservation::PROPERTY,
        watermark_monotonic::PROPERTY,
        convergence::PROPERTY,
        transactions_end::PROPERTY,
    ]
}

/// What [`check_rows`] judges.
#[cfg(test)]
const PROPERTIES_OF_ROWS: [Property; 2] = [window_exactly_once::PROPERTY, conservation::PROPERTY];

/// The property of that name.
pub fn find(name: &str) -> Option<&'static Property> {
    all().iter().find(|property| property.name == name)
}

/// Every property's verdict over one history.
pub fn check_all(history: &History) -> Vec<(&'static Property, Verdict)> {
    let context = Context::new(history);
    all().iter().map(|property| (property, property.check(&context))).collect()
}

/// What a run comes to: safety before liveness before what could not be decided.
pub fn outcome(verdicts: &[(&'static Property, Verdict)]) -> Outcome {
    let of = |kind: Kind| -> Vec<Violation> {
        let failed = verdicts.iter().filter(|(property, _)| property.kind == kind);
        failed.flat_map(|(_, verdict)| verdict.violations().iter().cloned()).collect()
    };
    let (unsafe_, not_live) = (of(Kind::Safety), of(Kind::Liveness));
    let reasons: Vec<String> = verdicts
        .iter()
        .filter_map(|(property, verdict)| match verdict {
            Verdict::Unknown { reason } => Some(format!("{}: {reason}", property.name)),
            _ => None,
        })
        .collect();
    if !unsafe_.is_empty() {
        Outcome::Unsafe(unsafe_)
    } else if !not_live.is_empty() {
        Outcome::NotLive(not_live)
    } else if !reasons.is_empty() {
        Outcome::Inconclusive { reasons }
    } else {
        Outcome::Passed
    }
}

/// At most this many violations of one property are listed; one is enough to fail.
const MAX_VIOLATIONS: usize = 20;
/// And this many of one message, so that what follows from a fault does not crowd out the fault.
const MAX_ALIKE: usize = 5;

/// Collects a property's violations.
struct Violations {
    property: &'static str,
    found: Vec<Violation>,
}

impl Violations {
    fn of(property: &Property) -> Violations {
        Violations { property: property.name, found: Vec::new() }
    }

    fn add(&mut self, op: Option<history::OpId>, message: impl Into<String>, witness: Witness) {
        let message = message.into();
        let alike = self.found.iter().filter(|v| v.message == message).count();
        if self.found.len() < MAX_VIOLATIONS && alike < MAX_ALIKE {
            self.found.push(Violation { property: self.property.to_owned(), message, witness, op });
        }
    }

    fn verdict(self) -> Verdict {
        Verdict::from_violations(self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for property in all() {
            assert_eq!(find(property.name).map(|p| p.statement), Some(property.statement), "{}", property.name);
        }
    }

    #[test]
    fn histories_survive_their_json() {
        for history in [fixture::broker(), fixture::cluster(), fixture::streams(), fixture::job()] {
            let json = serde_json::to_string(&history).expect("a history serialises");
            assert_eq!(serde_json::from_str::<History>(&json).expect("and is read again"), history);
        }
    }

    /// Where a log begins is what the final reads and the disks say: whatever is below was given up, by retention or by
    /// DeleteRecords (KIP-107), and is no loss. (The processor's own input must be there whole for the model to judge it.)
    #[test]
    fn what_a_log_has_given_up_is_no_loss() {
        for history in [fixture::broker(), fixture::cluster()] {
            let ends: std::collections::BTreeMap<_, _> =
                history.logs.iter().map(|log| ((log.topic.clone(), log.partition), log.log_end_offset)).collect();
            for quarters in 1..=4 {
                let mut history = history.clone();
                for log in &mut history.logs {
                    let start = ends[&(log.topic.clone(), log.partition)] * quarters / 4;
                    log.log_start_offset = log.log_start_offset.max(start);
                    log.records.retain(|r| r.offset >= start);
                }
                let broken: Vec<_> = check_all(&history)
                    .into_iter()
                    .filter(|(_, verdict)| !verdict.violations().is_empty())
                    .map(|(property, verdict)| (property.name, format!("{:?}", verdict.violations()[0])))
                    .collect();
                assert!(broken.is_empty(), "{quarters} quarters: {broken:#?}");
            }
        }
    }

    /// Nothing is quadratic in the operations; the bench says how fast it is.
    #[test]
    fn a_long_history_is_checked() {
        let history = fixture::streams_of(20_000);
        for (property, verdict) in check_all(&history) {
            assert_eq!(verdict, Verdict::Pass, "{}", property.name);
        }
        anomalies::census(&Context::new(&history));
    }
}
