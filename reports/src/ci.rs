//! What CI systems read of a run: JUnit's XML, and GitHub's annotations and step summary.

use std::fmt::Write;

use crate::seed_report::{SeedReport, Verdict};
use crate::summary::{ScenarioSummary, Summary};

/// GitHub shows ten of a step; a workflow's log holds all.
const MAX_ANNOTATIONS: usize = 10;

/// A failing or undecided seed, with the command that runs it again.
#[derive(Clone, Copy, Debug)]
pub struct Failing<'a> {
    pub report: &'a SeedReport,
    /// Of its scenario: the seed, or which plan and schedule.
    pub name: &'a str,
    pub replay: &'a str,
}

/// JUnit's XML: a suite a scenario, a case for each seed that did not pass and one for all that did. CI systems list every
/// case, so that a case a seed would bury what failed.
pub fn junit(summary: &Summary, failing: &[Failing<'_>]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let w = &mut out;
    let total = &summary.total;
    let seconds = summary.wall_ms as f64 / 1000.0;
    let told = |name: &str| failing.iter().filter(|one| one.report.scenario == name).count() as u64;
    let cases = |s: &ScenarioSummary| told(&s.scenario) + u64::from(s.passed > 0);
    let all: u64 = summary.scenarios.iter().map(cases).sum();
    let _ = writeln!(
        w,
        "<testsuites name=\"streamproof\" tests=\"{all}\" failures=\"{}\" time=\"{seconds:.3}\">",
        total.failed
    );
    for scenario in &summary.scenarios {
        let name = escape(&scenario.scenario);
        let tests = cases(scenario);
        let _ = writeln!(w, "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{}\">", scenario.failed);
        if scenario.passed > 0 {
            let _ = writeln!(w, "    <testcase classname=\"{name}\" name=\"{} seeds pass\"/>", scenario.passed);
        }
        for one in failing.iter().filter(|one| one.report.scenario == scenario.scenario) {
            let report = one.report;
            let time = report.wall_ms as f64 / 1000.0;
            let case = escape(one.name);
            let _ = writeln!(w, "    <testcase classname=\"{name}\" name=\"{case}\" time=\"{time:.3}\">");
            let (headline, detail) = (escape(&headline(report)), escape(&detail(one)));
            let _ = match report.verdict {
                Verdict::Inconclusive => writeln!(w, "      <skipped message=\"{headline}\"/>"),
                _ => writeln!(
                    w,
                    "      <failure type=\"{}\" message=\"{headline}\">{detail}</failure>",
                    report.verdict.word()
                ),
            };
            let _ = writeln!(w, "    </testcase>");
        }
        let _ = writeln!(w, "  </testsuite>");
    }
    let _ = writeln!(w, "</testsuites>");
    out
}

/// Lines for GitHub's log, the worst first: safety before panics before liveness.
pub fn annotations(failing: &[Failing<'_>]) -> String {
    let rank = |report: &SeedReport| match report.verdict {
        Verdict::HarnessFailed => 0,
        Verdict::NotDeterministic => 1,
        Verdict::Unsafe => 2,
        Verdict::Panicked => 3,
        Verdict::NotLive => 4,
        _ => 5,
    };
    let mut worst: Vec<_> = failing.iter().filter(|one| one.report.verdict.is_failure()).collect();
    worst.sort_by_key(|one| (rank(one.report), one.report.seed));
    let mut out = String::new();
    for one in worst.into_iter().take(MAX_ANNOTATIONS) {
        let title = format!("{} {}: {}", one.report.scenario, one.name, one.report.verdict.word());
        let _ = writeln!(out, "::error title={}::{}", property(&title), data(&detail(one)));
    }
    out
}

/// Markdown for GitHub's step summary.
pub fn step_summary(summary: &Summary, failing: &[Failing<'_>]) -> String {
    let mut out = String::from("### streamproof\n\n");
    for one in failing {
        let _ =
            writeln!(out, "- **{} {}**: {} — `{}`", one.report.scenario, one.name, headline(one.report), one.replay);
    }
    let _ = write!(out, "\n```\n{}```\n", summary.text());
    out
}

fn headline(report: &SeedReport) -> String {
    let first = report.failures.first().map(|f| format!("{}: {}", f.property, f.message));
    first.or_else(|| report.note.clone()).unwrap_or_else(|| report.verdict.word().to_owned())
}

fn detail(one: &Failing<'_>) -> String {
    let mut out = headline(one.report);
    if let Some(failure) = one.report.failures.first() {
        let _ = write!(out, "\n{}", failure.witness);
    }
    let _ = write!(out, "\n{}", one.replay);
    out
}

fn escape(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() || *c == '\n').collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// As GitHub's toolkit escapes a command's message.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed_report::{Failure, Witness};
    use crate::summary::Totals;

    fn failing(seed: u64, verdict: Verdict) -> SeedReport {
        let mut report = SeedReport::unfinished("swarm", seed, verdict, "");
        report.note = None;
        let witness = Witness::offset("orders", 0, 812).found("none");
        report.failures.push(Failure { property: "acked-durable".into(), message: "lost <1> & \"2\"".into(), witness });
        report
    }

    #[test]
    fn junit_counts_what_passed_and_names_what_did_not() {
        let (one, passed) = (failing(41, Verdict::Unsafe), SeedReport::unfinished("swarm", 1, Verdict::Pass, ""));
        let mut totals = Totals::default();
        [&one, &passed].into_iter().for_each(|report| totals.add(report));
        let xml = junit(
            &totals.summary(1500, None, 10),
            &[Failing { report: &one, name: "seed 41", replay: "streamproof replay swarm/41" }],
        );
        insta::assert_snapshot!(xml, @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="streamproof" tests="2" failures="1" time="1.500">
          <testsuite name="swarm" tests="2" failures="1">
            <testcase classname="swarm" name="1 seeds pass"/>
            <testcase classname="swarm" name="seed 41" time="0.000">
              <failure type="safety violated" message="acked-durable: lost &lt;1&gt; &amp; &quot;2&quot;">acked-durable: lost &lt;1&gt; &amp; &quot;2&quot;
        orders-0 offset 812; found none
        streamproof replay swarm/41</failure>
            </testcase>
          </testsuite>
        </testsuites>
        "#);
    }

    #[test]
    fn ten_annotations_the_worst_first() {
        let all: Vec<SeedReport> =
            (0..12).map(|seed| failing(seed, if seed == 11 { Verdict::Unsafe } else { Verdict::NotLive })).collect();
        let names: Vec<String> = (0..12).map(|seed| format!("seed {seed}")).collect();
        let all: Vec<_> = all.iter().zip(&names).map(|(report, name)| Failing { report, name, replay: "r" }).collect();
        let text = annotations(&all);
        assert_eq!(text.lines().count(), MAX_ANNOTATIONS);
        assert!(text.starts_with("::error title=swarm seed 11%3A safety violated::acked-durable: lost <1>"), "{text}");
        assert!(text.lines().next().is_some_and(|line| line.ends_with("found none%0Ar")), "{text}");
    }
}
