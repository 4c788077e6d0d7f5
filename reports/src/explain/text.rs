//! An explanation for people at a terminal: numbered steps, the journey, the faults, the curve in bars.

use std::fmt::Write;

use super::{Explanation, StepKind};

/// Width of the curve's bars.
const BAR: usize = 24;

impl Explanation {
    /// Several paragraphs.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let w = &mut out;
        let _ = writeln!(w, "{} seed {}: {}", self.scenario, self.seed, self.verdict.word());
        if let Some(property) = &self.property {
            let _ = writeln!(w, "  property  {}: {} ({})", property.name, property.statement, property.source);
        }
        let _ = writeln!(w, "  violated  {}", self.message);
        for (name, value) in
            [("where", Some(&self.place)), ("expected", self.expected.as_ref()), ("found", self.found.as_ref())]
        {
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                let _ = writeln!(w, "  {name:<8}  {value}");
            }
        }
        let _ = writeln!(w, "\nWhat happened");
        for (i, step) in self.steps.iter().enumerate() {
            let mark = match step.kind {
                StepKind::Fault => "!",
                StepKind::Violation => "X",
                _ => " ",
            };
            let _ = writeln!(w, "{mark} {:>3}. {}  {}: {}", i + 1, clock(step.at_ms), step.who, step.what);
        }
        if let Some(journey) = &self.journey {
            let _ = writeln!(w, "\nThe record: {}", journey.record);
            for stage in &journey.stages {
                let name = if stage.reached { stage.name.to_owned() } else { format!("not {}", stage.name) };
                let _ = writeln!(w, "  {name:<18} {}  {}", clock(stage.at_ms), stage.what);
            }
        }
        if let Some(faults) = &self.faults {
            let _ = writeln!(w, "\nWhich faults it takes (each removed in turn)");
            if faults.is_empty() {
                let _ = writeln!(w, "  none: the plan has no faults");
            }
            if let Some(runs) = self.without_any.filter(|runs| runs.tried > 0) {
                let _ = writeln!(w, "  without any fault it fails in {runs} runs");
            }
            for fault in faults {
                let bit = if fault.did_bite { "" } else { " (did not bite)" };
                let without = match fault.without.tried {
                    0 => "not tried".to_owned(),
                    _ => format!("fails in {} runs without it", fault.without),
                };
                let _ = writeln!(w, "  {:<10} fault {} {}{bit}: {without}", fault.need.word(), fault.id, fault.what);
            }
        }
        if let Some(curve) = &self.curve {
            let _ = writeln!(
                w,
                "\nHow probable the failure was (everything after the instant drawn anew, up to {} times)",
                curve.tails
            );
            for point in &curve.points {
                let share = point.runs.share();
                let full = share.map_or(0, |share| (share * BAR as f64).round() as usize);
                let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR - full));
                let percent = share.map_or("  ?  ".into(), |share| format!("{:>3.0} %", share * 100.0));
                let _ = writeln!(
                    w,
                    "  {}  {bar}  {percent}  {} after {}",
                    clock(Some(point.at_ms)),
                    point.runs,
                    point.after
                );
            }
            match curve.inevitable_ms {
                Some(at) => _ = writeln!(w, "  inevitable from {} on: every later run failed", clock(Some(at)).trim()),
                None => _ = writeln!(w, "  never inevitable: some run escaped even from the last instant tried"),
            }
        }
        out
    }
}

fn clock(at_ms: Option<f64>) -> String {
    match at_ms {
        Some(ms) => format!("{:>9.3} s", ms / 1000.0),
        None => " ".repeat(11),
    }
}
