//! A failure as a story: what was violated, step by step who did what, the way of the guilty record, which faults it took,
//! and from when on it could not be helped.
//!
//! Steps and journey are read from the history alone, so they are facts of that run. What the faults had to do with it, and
//! when it became inevitable, only other runs can say: `sim::explain` makes them and fills in [`Explanation::faults`] and
//! [`Explanation::curve`].
//!
//! ```text
//! Case (plan, history, violation) -> clue -> journey + steps -> Explanation -> text | JSON | the page
//! ```

mod clue;
mod copies;
#[cfg(test)]
pub(crate) mod fixture;
mod journey;
pub mod judged;
mod members;
mod names;
mod replicas;
mod steps;
mod tasks;
mod text;
mod told;
mod transactions;
mod trials;
mod waits;

use history::{History, Outcome, Violation};
use scenarios::Plan;
use serde::Serialize;

pub use clue::Clue;
pub use names::Names;
pub use trials::{Curve, CurvePoint, FaultTrial, Need, Runs};

use crate::seed_report::{SeedReport, Verdict};
use told::{Story, Told, Weight};

/// What is explained.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub plan: &'a Plan,
    pub history: &'a History,
    pub outcome: &'a Outcome,
    pub report: &'a SeedReport,
    /// Why attempts failed and nodes stopped, in order.
    pub notes: &'a [String],
}

/// The story of one violation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    pub scenario: String,
    pub seed: u64,
    pub verdict: Verdict,
    /// Absent for a panic.
    pub property: Option<PropertyNote>,
    pub message: String,
    /// Where, and what it is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// When the violation showed for the first time, as far as the history tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<f64>,
    /// In order of time, numbered from 1 as they are listed.
    pub steps: Vec<Step>,
    /// Of the record that the violation is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journey: Option<Journey>,
    /// Runs without any fault; absent until they were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_any: Option<Runs>,
    /// Which faults it took; absent until other runs were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<Vec<FaultTrial>>,
    /// From when on it could not be helped; absent until other runs were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub curve: Option<Curve>,
}

/// What a property promises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PropertyNote {
    pub name: String,
    pub statement: String,
    pub source: String,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Simulated time; absent where the history does not tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<f64>,
    pub who: String,
    pub what: String,
    pub kind: StepKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Of a client.
    Client,
    /// Of a broker.
    Broker,
    /// Of the job.
    Job,
    Fault,
    /// What is wrong.
    Violation,
}

/// The stages of a record's life, in the order in which they come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Journey {
    /// `orders-0 offset 812, client 2 operation 17`.
    pub record: String,
    pub stages: Vec<Stage>,
}

/// One stage, or that it is missing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// `produced`, `appended`, `replicated`, `acknowledged`, `stable`, `judged`, `checkpointed`, `committed`, `read`.
    pub name: &'static str,
    pub reached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<f64>,
    pub what: String,
}

impl Explanation {
    /// The story of the first violation, or of the first by that property. `None` if the run has no such violation and did
    /// not panic.
    pub fn of(case: &Case<'_>, property: Option<&str>) -> Option<Explanation> {
        let violation = violations(case.outcome).iter().find(|v| property.is_none_or(|name| v.property == name));
        let names = Names::of(case.plan);
        let mut told = match (violation, case.outcome) {
            (Some(violation), _) => Self::of_violation(case, violation),
            (None, Outcome::Panicked { node, message }) if property.is_none() => {
                let message = format!("{node} panicked: {message}");
                Explanation { place: node.clone(), found: Some(message.clone()), ..Self::empty(case, message) }
            }
            _ => return None,
        };
        let clue = Clue::of(case.history, violation);
        let (stages, own) = journey::of(case, &names, &clue);
        told.journey = stages;
        let mut story = Story::default();
        story.told.extend(own.into_iter().map(|step| Told { weight: Weight::Own, step }));
        steps::around(case, &names, &clue, violation, &mut story);
        // What is wrong shows when something was done wrong, not before.
        let odd = story.first_odd().map(|ms| (ms * 1e6) as u64);
        let at_ns = steps::violated_at(case, violation, &clue, &story).map(|at| at.max(odd.unwrap_or(0)));
        told.at_ms = at_ns.map(ms);
        told.steps = story.ordered(at_ns, &told);
        Some(told)
    }

    fn of_violation(case: &Case<'_>, violation: &Violation) -> Explanation {
        let note = invariants::find(&violation.property).map_or_else(
            || PropertyNote {
                name: violation.property.clone(),
                statement: "after the faults stop, the system catches up within the plan's bound".into(),
                source: "semantics rule 26".into(),
            },
            |p| PropertyNote { name: p.name.into(), statement: p.statement.into(), source: p.source.into() },
        );
        Explanation {
            property: Some(note),
            place: violation.witness.heading(),
            expected: violation.witness.expected.clone(),
            found: violation.witness.found.clone(),
            ..Self::empty(case, violation.message.clone())
        }
    }

    fn empty(case: &Case<'_>, message: String) -> Explanation {
        Explanation {
            scenario: case.plan.scenario.clone(),
            seed: case.plan.seed,
            verdict: case.report.verdict,
            property: None,
            message,
            place: String::new(),
            expected: None,
            found: None,
            at_ms: None,
            steps: Vec::new(),
            journey: None,
            without_any: None,
            faults: None,
            curve: None,
        }
    }
}

/// All that the outcome names.
pub fn violations(outcome: &Outcome) -> &[Violation] {
    match outcome {
        Outcome::Unsafe(violations) | Outcome::NotLive(violations) => violations,
        _ => &[],
    }
}

/// Nanoseconds as milliseconds, to the microsecond.
pub fn ms(ns: u64) -> f64 {
    (ns / 1_000) as f64 / 1_000.0
}
