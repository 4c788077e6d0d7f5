//! The last thing a failing run prints: the property, its witness, the faults that led there, and the command that
//! makes it happen again.

use std::fmt::Write;

use crate::seed_report::{SeedReport, Verdict};

/// Fault steps shown; the rest are counted. The last ones before the end matter most.
const MAX_STEPS: usize = 20;

/// What can be done next: whole command lines, and a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// Of its scenario: which plan and schedule, say; by default the seed.
    pub name: Option<String>,
    pub replay: String,
    pub explain: Option<String>,
    /// Where everything known of it is, for another machine.
    pub capsule: Option<String>,
    pub smaller: Option<Smaller>,
}

/// The command that makes a failure small, and what a quick try at its faults gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smaller {
    /// The whole command line.
    pub command: String,
    /// Faults that are enough, of how many; none if it was not tried.
    pub enough: Option<(u64, u64)>,
}

/// The story of one failing seed.
pub fn text(report: &SeedReport, next: &Next) -> String {
    let mut out = String::new();
    let r = &mut out;
    let name = next.name.clone().unwrap_or_else(|| format!("seed {}", report.seed));
    let _ = writeln!(r, "FAILED {} {name}: {}", report.scenario, report.verdict.word());
    if let Some(note) = &report.note {
        let _ = writeln!(r, "  note      {note}");
    }
    for (i, failure) in report.failures.iter().enumerate() {
        if i == 3 && report.failures.len() > 4 {
            let _ = writeln!(r, "  … and {} more violations", report.failures.len() - i);
            break;
        }
        let _ = writeln!(r, "  property  {}", failure.property);
        let _ = writeln!(r, "            {}", failure.message);
        let heading = failure.witness.heading();
        if !heading.is_empty() {
            let _ = writeln!(r, "  witness   {heading}");
        }
        if let Some(expected) = &failure.witness.expected {
            let _ = writeln!(r, "  expected  {expected}");
        }
        if let Some(found) = &failure.witness.found {
            let _ = writeln!(r, "  found     {found}");
        }
    }
    if !report.failures.is_empty() || report.verdict == Verdict::Panicked {
        let skipped = report.fault_steps.len().saturating_sub(MAX_STEPS);
        match report.fault_steps.len() {
            0 => _ = writeln!(r, "  faults    none took effect"),
            _ if skipped > 0 => _ = writeln!(r, "  faults    ({skipped} earlier ones left out)"),
            _ => _ = writeln!(r, "  faults"),
        }
        for step in &report.fault_steps[skipped..] {
            let _ = writeln!(r, "    {:>9}  {}", seconds(step.at_ms), step.what);
        }
    }
    if let Some((enough, of)) = next.smaller.as_ref().and_then(|smaller| smaller.enough) {
        let _ = writeln!(r, "  enough    {enough} of its {of} faults");
    }
    if let Some(capsule) = &next.capsule {
        let _ = writeln!(r, "  capsule   {capsule}");
    }
    let _ = writeln!(r, "  replay    {}", next.replay);
    if let Some(explain) = &next.explain {
        let _ = writeln!(r, "  explain   {explain}");
    }
    if let Some(smaller) = &next.smaller {
        let _ = writeln!(r, "  shrink    {}", smaller.command);
    }
    out
}

/// Milliseconds as seconds with three digits: `12.034 s`.
fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed_report::{Failure, FaultStep, Witness};

    fn replay(command: &str) -> Next {
        Next { replay: command.into(), ..Next::default() }
    }

    fn failing() -> SeedReport {
        let mut report = SeedReport::unfinished("power_loss", 41, Verdict::Unsafe, "");
        report.note = None;
        report.failures.push(Failure {
            property: "acked-durable".into(),
            message: "an acknowledged record is not in the log".into(),
            witness: Witness::offset("orders", 0, 812)
                .about("client 2 operation 17")
                .expected("its record, once")
                .found("none; the log ends at 809"),
        });
        report.fault_steps.push(FaultStep { at_ms: 4_210, what: "power lost at broker-0".into() });
        report.fault_steps.push(FaultStep { at_ms: 5_003, what: "broker-0 started again".into() });
        report
    }

    #[test]
    fn tells_property_witness_faults_and_commands() {
        let smaller = Smaller { command: "streamproof shrink power_loss/41".into(), enough: Some((1, 6)) };
        let next = Next {
            explain: Some("streamproof explain power_loss/41".into()),
            capsule: Some("power_loss-41.capsule".into()),
            smaller: Some(smaller),
            ..replay("streamproof replay power_loss/41")
        };
        insta::assert_snapshot!(text(&failing(), &next), @r"
        FAILED power_loss seed 41: safety violated
          property  acked-durable
                    an acknowledged record is not in the log
          witness   orders-0 offset 812: client 2 operation 17
          expected  its record, once
          found     none; the log ends at 809
          faults
              4.210 s  power lost at broker-0
              5.003 s  broker-0 started again
          enough    1 of its 6 faults
          capsule   power_loss-41.capsule
          replay    streamproof replay power_loss/41
          explain   streamproof explain power_loss/41
          shrink    streamproof shrink power_loss/41
        ");
    }

    #[test]
    fn keeps_the_last_fault_steps_when_there_are_many() {
        let mut report = failing();
        report.fault_steps = (0..30).map(|i| FaultStep { at_ms: i * 1000, what: format!("cut {i}") }).collect();
        let story = text(&report, &replay("streamproof replay power_loss/41"));
        assert!(story.contains("(10 earlier ones left out)"), "{story}");
        assert!(!story.contains("cut 9\n") && story.contains("cut 29\n"), "{story}");
    }

    #[test]
    fn says_why_a_seed_did_not_end() {
        let report =
            SeedReport::unfinished("swarm", 7, Verdict::HarnessFailed, "the worker process died (exit status 101)");
        insta::assert_snapshot!(text(&report, &replay("streamproof replay swarm/7")), @r"
        FAILED swarm seed 7: streamproof failed
          note      the worker process died (exit status 101)
          replay    streamproof replay swarm/7
        ");
    }
}
