//! The judgement of a job's output by itself, for `check`: rows from files or topics, with or without decisions.

use history::{Outcome, Violation};

use crate::evidence::Evidence;
use crate::{Violations, conservation, sandwich, window_exactly_once};

/// What [`check_rows`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    pub violations: Vec<Violation>,
    /// What cannot be decided from what is at hand: exit 14 if nothing is violated.
    pub undecided: Vec<String>,
    /// Which rules were not judged, and why.
    pub skipped: Vec<String>,
    /// Result rows looked at.
    pub rows: usize,
    /// Input records looked at.
    pub records: usize,
}

impl Report {
    pub fn outcome(&self) -> Outcome {
        if !self.violations.is_empty() {
            Outcome::Unsafe(self.violations.clone())
        } else if !self.undecided.is_empty() {
            Outcome::Inconclusive { reasons: self.undecided.clone() }
        } else {
            Outcome::Passed
        }
    }
}

/// Judges rows, late and dead-letter records against the input. With decisions: rules 22, 22a, 22c and 23. Without: the
/// sandwich of rule 22's last part.
pub fn check_rows(evidence: &Evidence<'_>) -> Report {
    let mut report = Report {
        rows: evidence.rows().len(),
        records: evidence.input.values().map(Vec::len).sum(),
        ..Report::default()
    };
    let mut windows = Violations::of(&window_exactly_once::PROPERTY);
    if evidence.decisions.is_some() {
        let replay = evidence.replay();
        let chain = evidence.chain();
        window_exactly_once::judge(evidence, &replay, &chain, &mut windows);
        report.undecided.extend(chain.undecided.iter().cloned());
        let mut conserved = Violations::of(&conservation::PROPERTY);
        conservation::judge(evidence, &replay, &mut conserved);
        report.violations.extend(windows.found);
        report.violations.extend(conserved.found);
        let why = "needs the world's truth, which only a simulation has";
        report.skipped.push(format!("rule 22a, the test of Idle: {why}"));
        report.skipped.push(format!("rule 22b: {why}"));
        if evidence.markers.is_none() {
            report.skipped.push("rule 22, epochs from the log's markers: no epochs topic at hand".into());
        }
    } else {
        report.undecided = sandwich::judge(evidence, &mut windows);
        report.violations.extend(windows.found);
        report.skipped.push("rules 22a to 22c and the panes before the newest: no decisions at hand".into());
    }
    for (what, missing) in [("late", evidence.late.is_none()), ("dead-letter", evidence.dead.is_none())] {
        if missing {
            report.skipped.push(format!("rule 23, {what} records: not at hand"));
        }
    }
    report
}
