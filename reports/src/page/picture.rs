//! One run as the page draws it: lanes over simulated time, event time against it, windows, operations.
//!
//! Times are milliseconds with three digits. Texts that repeat are in one table and named by their index.

use std::collections::BTreeMap;

use history::Verdict;
use invariants::JobView;
use serde::Serialize;

use super::lanes::{self, Lane};
use super::tables::{self, OpRow, PaneRow, RecordDot, WatermarkLine};
use crate::explain::{Case, Explanation, Names, ms};
use crate::scene::Scene;

/// Everything that a picture is made from.
#[derive(Debug)]
pub struct Scenery<'a> {
    pub case: Case<'a>,
    pub scene: &'a Scene,
    /// Ends of set-up's successors: healed, converged, drained; 0 if not reached.
    pub phase_ends_ms: [u64; 3],
    /// Each property that judged the run.
    pub verdicts: &'a [(String, Verdict)],
    /// (name, value) of build, hashes and commands.
    pub facts: Vec<(String, String)>,
    pub told: Option<Explanation>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Picture {
    pub name: String,
    pub verdict: &'static str,
    pub failed: bool,
    pub end: f64,
    pub violated: Option<f64>,
    pub facts: Vec<(String, String)>,
    pub told: Option<Explanation>,
    pub strings: Vec<String>,
    /// (name, from, to).
    pub phases: Vec<(&'static str, f64, f64)>,
    pub lanes: Vec<Lane>,
    /// (from, to, kind, target, effect, lanes it struck).
    pub faults: Vec<(f64, f64, String, String, String, Vec<usize>)>,
    /// (sent, arrived, lane from, lane to, bytes).
    pub messages: Vec<(f64, f64, usize, usize, u32)>,
    pub messages_left_out: u64,
    pub ops: Vec<OpRow>,
    pub watermarks: Vec<WatermarkLine>,
    pub records: Vec<RecordDot>,
    pub panes: Vec<PaneRow>,
    /// (property, verdict, first message).
    pub properties: Vec<(String, &'static str, String)>,
    pub notes: Vec<String>,
    /// (key, start, end) of the window that the violation is about.
    pub guilty_window: Option<(String, i64, i64)>,
}

/// Texts by number.
#[derive(Debug, Default)]
pub(super) struct Strings {
    numbers: BTreeMap<String, u32>,
    all: Vec<String>,
}

impl Strings {
    pub fn of(&mut self, text: impl Into<String>) -> u32 {
        let text = text.into();
        if let Some(number) = self.numbers.get(&text) {
            return *number;
        }
        let number = self.all.len() as u32;
        self.all.push(text.clone());
        self.numbers.insert(text, number);
        number
    }

    /// -1 for none.
    pub fn maybe(&mut self, text: Option<impl Into<String>>) -> i64 {
        text.map_or(-1, |text| i64::from(self.of(text)))
    }
}

impl Picture {
    pub fn of(from: Scenery<'_>) -> Picture {
        let Scenery { case, scene, phase_ends_ms, verdicts, facts, told } = from;
        let names = Names::of(case.plan);
        let mut strings = Strings::default();
        let view = JobView::of(case.history).and_then(Result::ok).unwrap_or_default();
        let end = ms(case.history.facts.ended_ns);
        let lanes = lanes::of(&case, scene, &names, &view, &mut strings, end);
        let by_name: BTreeMap<&str, usize> = lanes.iter().enumerate().map(|(i, l)| (l.name.as_str(), i)).collect();
        let faults = case.history.faults.iter().map(|f| {
            let to = f.until_ns.map_or(if f.lasting { end } else { ms(f.at_ns) }, ms);
            let struck = names.all().iter().filter(|name| mentions(&f.target, name));
            let struck = struck.filter_map(|name| by_name.get(name.as_str()).copied()).collect();
            (ms(f.at_ns), to, f.fault.clone(), f.target.clone(), f.effect.clone(), struck)
        });
        let faults = faults.collect();
        let lane_of = |node: u32| by_name.get(names.node(node).as_str()).copied();
        let messages = scene
            .messages
            .iter()
            .filter_map(|m| Some((ms(m.sent_ns), ms(m.arrived_ns), lane_of(m.from)?, lane_of(m.to)?, m.bytes)));
        let messages = messages.collect();
        let verdict_word = |v: &Verdict| match v {
            Verdict::Pass => ("holds", String::new()),
            Verdict::Fail(all) => ("violated", all.first().map_or(String::new(), |v| v.message.clone())),
            Verdict::Unknown { reason } => ("undecided", reason.clone()),
        };
        let properties = verdicts.iter().map(|(name, v)| {
            let (word, why) = verdict_word(v);
            (name.clone(), word, why)
        });
        let guilty_window = crate::explain::violations(case.outcome).iter().find_map(|v| {
            let window = v.witness.window?;
            Some((v.witness.key.clone()?, window.start_ms, window.end_ms))
        });
        Picture {
            name: format!("{}/{}", case.plan.scenario, case.plan.seed),
            verdict: case.report.verdict.word(),
            failed: case.report.verdict.is_failure(),
            end,
            violated: told.as_ref().and_then(|told| told.at_ms),
            phases: phases(phase_ends_ms, end),
            ops: tables::ops(&case, told.as_ref(), &mut strings),
            watermarks: tables::watermarks(case.history, &view),
            records: tables::records(case.history, &view, &mut strings),
            panes: tables::panes(case.history, &view),
            properties: properties.collect(),
            notes: case.notes.to_vec(),
            messages_left_out: scene.messages_left_out,
            strings: strings.all,
            lanes,
            faults,
            messages,
            facts,
            told,
            guilty_window,
        }
    }
}

/// Whether a target's text names the node, and not another whose name is longer.
fn mentions(target: &str, name: &str) -> bool {
    target.match_indices(name).any(|(at, _)| !target[at + name.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

fn phases(ends_ms: [u64; 3], end: f64) -> Vec<(&'static str, f64, f64)> {
    let mut all = Vec::new();
    let mut from = 0.0;
    for (name, to) in ["faults strike", "healed, clients finish", "input closed, job drains"].into_iter().zip(ends_ms) {
        if to > 0 {
            all.push((name, from, to as f64));
            from = to as f64;
        }
    }
    if from < end {
        all.push(("final read", from, end));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_not_mistaken_for_one_with_a_longer_number() {
        assert!(mentions("client-1 -> broker-1", "broker-1") && !mentions("client-10 -> broker-1", "client-1"));
    }

    #[test]
    fn phases_follow_each_other() {
        assert_eq!(
            phases([4_000, 5_000, 0], 9_000.0),
            [
                ("faults strike", 0.0, 4_000.0),
                ("healed, clients finish", 4_000.0, 5_000.0),
                ("final read", 5_000.0, 9_000.0)
            ]
        );
        assert_eq!(phases([0, 0, 0], 7.0), [("final read", 0.0, 7.0)]);
    }
}
