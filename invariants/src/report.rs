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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use history::{Header, OpId, Verdict};
    use models::JobSpec;

    use super::*;
    use crate::evidence::{Published, SourceRecord};
    use crate::fixture::{self, Mutation, mutate};
    use crate::{Context, PROPERTIES_OF_ROWS};

    const JOB: &str = r#"
name = "job"
[source]
topic = "in"
format = "json"
key = "k"
event_time = "t"
value = "v"
[watermark]
out_of_orderness = "0ms"
[window]
type = "tumbling"
size = "10ms"
[aggregate]
functions = ["count", "sum"]
[sink]
topic = "out"
late_topic = "late"
dlq_topic = "dead"
"#;

    /// The third is late if it was judged after the second, which no watermark prevents.
    const INPUT: [&str; 4] = [
        r#"{"k":"a","t":1,"v":2}"#,
        r#"{"k":"b","t":12,"v":4}"#,
        r#"{"k":"a","t":2,"v":3}"#,
        r#"{"k":"b","t":13,"v":1}"#,
    ];
    const ON_TIME: [&str; 2] = [
        r#"{"key":"a","window_start":0,"window_end":10,"count":1,"sum":2}"#,
        r#"{"key":"b","window_start":10,"window_end":20,"count":2,"sum":5}"#,
    ];

    fn published(place: String, value: &str) -> Published {
        Published { place, key: None, value: Some(value.into()), headers: Vec::new() }
    }

    fn evidence(rows: &[&str], late: Option<&[i64]>) -> Evidence<'static> {
        let job = JobSpec::parse(JOB, "test.toml").expect("a valid job");
        let decode =
            |(o, text): (usize, &&str)| SourceRecord::decode(&job, o as i64, None, Some((*text).into()), Some(OpId(o)));
        let input = BTreeMap::from([(0, INPUT.iter().enumerate().map(decode).collect())]);
        let rows = rows.iter().enumerate().map(|(i, row)| published(format!("rows line {}", i + 1), row)).collect();
        let mut evidence = Evidence::new(job, input, rows);
        evidence.drained = true;
        evidence.dead = Some(Vec::new());
        evidence.late = late.map(|offsets| {
            let header = |key: &str, value: i64| Header { key: key.into(), value: Some(value.to_string().into()) };
            let headers = |offset| vec![header("source.partition", 0), header("source.offset", offset)];
            offsets
                .iter()
                .map(|offset| Published { headers: headers(*offset), ..published(format!("late {offset}"), "") })
                .collect()
        });
        evidence
    }

    /// (message, key, window start, operation) of a violation.
    type Told = (String, Option<String>, Option<i64>, Option<OpId>);

    fn violated(rows: &[&str], late: Option<&[i64]>) -> Vec<Told> {
        let report = check_rows(&evidence(rows, late));
        let told = report.violations.into_iter();
        told.map(|v| (v.message, v.witness.key, v.witness.window.map(|w| w.start_ms), v.op)).collect()
    }

    fn row(message: &str, key: &str, start: i64) -> Told {
        (message.to_owned(), Some(key.to_owned()), Some(start), None)
    }

    #[test]
    fn without_decisions_the_late_output_decides() {
        let report = check_rows(&evidence(&ON_TIME, Some(&[2])));
        assert_eq!((report.outcome(), report.rows, report.records), (Outcome::Passed, 2, 4));
        assert_eq!(report.skipped.len(), 1, "{:?}", report.skipped);
        // As late or as accepted, it is one or the other.
        let accepted = ON_TIME[0].replace(r#""count":1,"sum":2"#, r#""count":2,"sum":5"#);
        assert_eq!(check_rows(&evidence(&[&accepted, ON_TIME[1]], Some(&[]))).outcome(), Outcome::Passed);
        assert_eq!(violated(&ON_TIME, Some(&[])), [row("a row has wrong contents", "a", 0)]);
        assert_eq!(violated(&[&accepted, ON_TIME[1]], Some(&[2])), [row("a row has wrong contents", "a", 0)]);
    }

    #[test]
    fn without_the_late_output_what_may_be_late_is_undecided() {
        let accepted = ON_TIME[0].replace(r#""count":1,"sum":2"#, r#""count":2,"sum":5"#);
        for first in [ON_TIME[0], &accepted] {
            let report = check_rows(&evidence(&[first, ON_TIME[1]], None));
            assert!(matches!(report.outcome(), Outcome::Inconclusive { .. }), "{report:?}");
        }
        // Outside what any watermark allows it is not.
        for values in [r#""count":3,"sum":2"#, r#""count":0,"sum":2"#, r#""count":1,"sum":9"#] {
            let wrong = ON_TIME[0].replace(r#""count":1,"sum":2"#, values);
            let message = "a row lies outside what any legal watermark allows";
            assert_eq!(violated(&[&wrong, ON_TIME[1]], None), [row(message, "a", 0)]);
        }
    }

    #[test]
    fn without_decisions_each_mutation_of_a_row_is_caught_and_named() {
        let late: Option<&[i64]> = Some(&[2]);
        let [a, b] = ON_TIME;
        assert_eq!(violated(&[a], late), [row("a row is missing from the output", "b", 10)], "drop");
        assert_eq!(violated(&[a, b, b], late), [row("one row is in the output twice", "b", 10)], "duplicate");
        let swapped = [a.replace(r#""count":1,"sum":2"#, r#""count":2,"sum":5"#), b.replace(":5", ":2")];
        let wrong = "a row has wrong contents";
        assert_eq!(violated(&[&swapped[0], &swapped[1]], late), [row(wrong, "a", 0), row(wrong, "b", 10)], "swap");
        let shifted = b.replace(":10", ":20").replace("\"window_end\":20", "\"window_end\":30");
        let elsewhere =
            [row("a row is missing from the output", "b", 10), row("a row does not follow from the input", "b", 20)];
        assert_eq!(violated(&[a, &shifted], late), elsewhere, "shift");
        let other = b.replace("\"b\"", "\"c\"");
        let elsewhere =
            [row("a row is missing from the output", "b", 10), row("a row does not follow from the input", "c", 10)];
        assert_eq!(violated(&[a, &other], late), elsewhere, "mis-attribute");
        assert_eq!(violated(&[a, b, "no row"], late).len(), 1, "undecodable");
    }

    #[test]
    fn without_decisions_late_records_are_held_to_the_input() {
        let late = |offsets: &[i64]| violated(&ON_TIME, Some(offsets)).into_iter().map(|(m, .., op)| (m, op)).collect();
        let all: Vec<(String, Option<OpId>)> = late(&[2, 2]);
        assert_eq!(all, [("one record is late twice".to_owned(), Some(OpId(2)))]);
        let all: Vec<(String, Option<OpId>)> = late(&[2, 9]);
        assert_eq!(all, [("a late record names a source record that is not there".to_owned(), None)]);
        let all: Vec<(String, Option<OpId>)> = late(&[2, 1]);
        let impossible = ("a record is late under no legal watermark".to_owned(), Some(OpId(1)));
        assert!(all.contains(&impossible), "{all:?}");
    }

    #[test]
    fn an_input_that_may_not_be_at_its_end_may_lack_rows() {
        let mut evidence = evidence(&ON_TIME[..1], Some(&[2]));
        evidence.drained = false;
        assert!(matches!(check_rows(&evidence).outcome(), Outcome::Inconclusive { .. }));
    }

    fn of_history<T>(history: &history::History, look: impl FnOnce(&mut Evidence<'_>) -> T) -> T {
        let context = Context::new(history);
        let job = history.facts.job.clone().expect("the fixture has a job");
        look(&mut Evidence::from_history(&context, &job).expect("whole evidence"))
    }

    #[test]
    fn with_decisions_a_good_run_passes_and_says_what_it_skipped() {
        let good = fixture::job();
        let report = of_history(&good, |evidence| check_rows(evidence));
        assert_eq!(report.outcome(), Outcome::Passed, "{:?}", report.violations);
        assert_eq!(report.skipped.len(), 2, "{:?}", report.skipped);
        assert!(report.rows > 20 && report.records > 200);
        // As from a live cluster, which has no epochs topic at hand, and only the decisions that committed.
        let report = of_history(&good, |evidence| {
            let chain = evidence.chain().epochs;
            let entries = evidence.decisions.as_deref().unwrap_or_default().iter();
            let last = |g: u64| chain.iter().filter(|c| c.generation == g).map(|c| c.n).max();
            let mut open = std::collections::BTreeMap::new();
            let mut committed = entries.cloned().collect::<Vec<_>>();
            committed.retain(|e| {
                let done = open.entry((e.generation, e.task.clone())).or_insert(false);
                let keep = !*done;
                *done |= matches!(e.decision, history::Decision::Barrier { n, .. } if Some(n) == last(e.generation));
                keep
            });
            evidence.decisions = Some(std::borrow::Cow::Owned(committed));
            evidence.markers = None;
            check_rows(evidence)
        });
        assert_eq!(report.outcome(), Outcome::Passed, "{:?}", report.violations);
        assert_eq!(report.skipped.len(), 3, "{:?}", report.skipped);
    }

    #[test]
    fn with_decisions_it_judges_as_the_properties_do() {
        let good = fixture::job();
        let mut caught = 0;
        for mutation in mutate::ALL {
            let Some(bad) = applied(&good, *mutation) else { continue };
            let context = Context::new(&bad);
            let expected: Vec<Violation> =
                PROPERTIES_OF_ROWS.iter().flat_map(|p| p.check(&context).violations().to_vec()).collect();
            let report = of_history(&bad, |evidence| check_rows(evidence));
            let told = |v: &Violation| expected.contains(v);
            assert!(report.violations.iter().all(told), "{mutation:?}: {:#?}", report.violations);
            // Only the order of commits in time needs more than the rows.
            if mutation.name != "COMMIT_EARLY" {
                assert_eq!(report.violations.is_empty(), expected.is_empty(), "{mutation:?}");
            }
            caught += usize::from(!report.violations.is_empty());
        }
        assert!(caught > 25, "{caught}");
    }

    /// `None` where the job's history has nothing of the kind.
    fn applied(good: &history::History, mutation: Mutation) -> Option<history::History> {
        // Or such that the history is no evidence at all.
        const BROKER_ONLY: [&str; 8] = [
            "MOVE_PARTITION",
            "READ_LESS",
            "READ_TWICE",
            "READ_SWAPPED",
            "READ_SHIFTED",
            "READ_ELSEWHERE",
            "SWAP_MARKERS",
            "SHIFT_MARKER",
        ];
        (!["cluster", "streams"].contains(&mutation.of) && !BROKER_ONLY.contains(&mutation.name))
            .then(|| mutate::mutated(good, mutation).0)
    }

    #[test]
    fn without_a_topic_the_job_is_undecided() {
        let mut history = fixture::job();
        history.logs.retain(|log| log.topic != "late");
        for property in PROPERTIES_OF_ROWS {
            assert!(matches!(property.check(&Context::new(&history)), Verdict::Unknown { .. }));
        }
    }
}
