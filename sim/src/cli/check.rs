//! `streamproof check`: is this output the job's answer to this input?

use history::Outcome;
use reports::{LineType, json_line};
use serde::Serialize;

use super::args::{CheckArgs, Format};
use super::{Refusal, out};
use crate::check::{Files, live_evidence};
use crate::exit::Exit;
use crate::plans::read_text;

#[derive(Serialize)]
struct Line {
    verdict: &'static str,
    records: usize,
    rows: usize,
    violations: Vec<history::Violation>,
    undecided: Vec<String>,
    skipped: Vec<String>,
}

pub fn run(args: CheckArgs) -> Result<Exit, Refusal> {
    let toml = read_text(&args.job).map_err(Refusal::usage)?;
    let job = models::JobSpec::parse(&toml, &args.job.display().to_string());
    let job = job.map_err(|e| Refusal::usage(e.to_string()))?;
    let evidence = match (&args.brokers, args.input, args.output) {
        (Some(brokers), ..) => {
            let brokers = bootstrap(brokers)?;
            let read = env::node::run_real(live_evidence(brokers, &job));
            read.map_err(|e| Refusal::failed(format!("no runtime: {e}")))?.map_err(Refusal::failed)?
        }
        (None, Some(input), Some(output)) => {
            let files = Files { input, output, late: args.late, decisions: args.decisions };
            let (evidence, notes) = files.evidence(&job).map_err(Refusal::usage)?;
            out::notes(&notes);
            evidence
        }
        (None, ..) => return Err(Refusal::usage("give --input and --output, or --brokers")),
    };
    let report = invariants::check_rows(&evidence);
    let (exit, verdict) = match report.outcome() {
        Outcome::Passed => (Exit::Pass, "pass"),
        Outcome::Inconclusive { .. } => (Exit::Inconclusive, "inconclusive"),
        _ => (Exit::Unsafe, "fail"),
    };
    let line = Line {
        verdict,
        records: report.records,
        rows: report.rows,
        violations: report.violations,
        undecided: report.undecided,
        skipped: report.skipped,
    };
    match args.format {
        Format::Json => out::line(&json_line(LineType::Check, &line)),
        Format::Text => print(&line),
    }
    Ok(exit)
}

fn print(line: &Line) {
    const SHOWN: usize = 5;
    out::line(&format!("{}: {} rows against {} input records", line.verdict, line.rows, line.records));
    for skipped in &line.skipped {
        out::line(&format!("  not judged  {skipped}"));
    }
    for undecided in line.undecided.iter().take(SHOWN) {
        out::line(&format!("  undecided   {undecided}"));
    }
    if line.undecided.len() > SHOWN {
        out::line(&format!("  undecided   … and {} more", line.undecided.len() - SHOWN));
    }
    for violation in line.violations.iter().take(SHOWN) {
        out::line(&format!("  property    {}", violation.property));
        out::line(&format!("              {}", violation.message));
        let witness = &violation.witness;
        let heading = Some(witness.heading()).filter(|heading| !heading.is_empty());
        for (name, text) in [("witness", &heading), ("expected", &witness.expected), ("found", &witness.found)] {
            if let Some(text) = text {
                out::line(&format!("  {name:<11} {text}"));
            }
        }
    }
    if line.violations.len() > SHOWN {
        out::line(&format!("  … and {} more violations", line.violations.len() - SHOWN));
    }
}

/// `HOST:PORT[,HOST:PORT…]`
fn bootstrap(text: &str) -> Result<Vec<(String, u16)>, Refusal> {
    text.split(',')
        .map(|part| {
            let (host, port) = part.trim().rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            (!host.is_empty()).then_some(())?;
            Some((host.to_owned(), port.parse().ok()?))
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Refusal::usage(format!("--brokers `{text}`: write HOST:PORT, such as 127.0.0.1:9092")))
}
