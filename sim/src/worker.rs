//! The worker process: reads tasks from stdin, runs each, writes its report to stdout.
//!
//! Ends when stdin closes, that is, with its supervisor. Nothing else writes to stdout here.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::time::Instant;

use history::{Outcome, Violation};
use reports::{Failure, SeedReport, Verdict};
use scenarios::Plan;

use crate::canary;
use crate::capsule::Capsule;
use crate::exit::Exit;
use crate::plans::Planner;
use crate::runner::{self, RunOptions, RunResult};
use crate::task::{Answer, Keep, Request, Source, Task, VERSION};

/// Of the process.
pub fn main() -> Exit {
    let mut planner = Planner::default();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let request: Request = match serde_json::from_str(&line) {
            Ok(request) => request,
            Err(e) => {
                eprintln!("worker: unreadable request: {e}");
                return Exit::Failed;
            }
        };
        if request.version != VERSION {
            eprintln!("worker: request of version {}, this program speaks version {VERSION}", request.version);
            return Exit::Failed;
        }
        let report = execute(&mut planner, &request.task, request.capsule.as_ref());
        let answer = Answer { version: VERSION, id: request.id, report };
        let mut text = match serde_json::to_string(&answer) {
            Ok(text) => text,
            Err(e) => {
                eprintln!("worker: failed to write the answer: {e}");
                return Exit::Failed;
            }
        };
        text.push('\n');
        let mut stdout = std::io::stdout().lock();
        if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            break; // the supervisor is gone
        }
    }
    Exit::Pass
}

/// Runs one task on this process. A capsule that cannot be written is no reason to lose the report.
pub fn execute(planner: &mut Planner, task: &Task, keep: Option<&Keep>) -> SeedReport {
    let started = Instant::now();
    let mut report = match planner.plan(task) {
        Err(e) => SeedReport::unfinished(task.scenario(), task.seed, Verdict::HarnessFailed, e),
        Ok(plan) => match plan.validate() {
            Err(e) => SeedReport::unfinished(
                task.scenario(),
                task.seed,
                Verdict::HarnessFailed,
                format!("the plan is invalid: {e}"),
            ),
            Ok(()) => run(task, &plan, keep, started),
        },
    };
    report.wall_ms = started.elapsed().as_millis() as u64;
    report
}

fn run(task: &Task, plan: &Plan, keep: Option<&Keep>, started: Instant) -> SeedReport {
    let tail = match &task.source {
        Source::Inline { tail, .. } => tail.map(Into::into),
        _ => None,
    };
    let kept = keep.is_some();
    let mut result =
        runner::run(plan, &RunOptions { keep_history: kept, keep_scene: kept, tail, ..RunOptions::default() });
    let Some(keep) = keep else { return report(result) };
    let history = result.history.take();
    let scene = std::mem::take(&mut result.scene);
    let mut report = report(result.clone());
    report.wall_ms = started.elapsed().as_millis() as u64;
    if keep.always || (report.verdict.is_failure() && !canary::caught(&report)) {
        (result.history, result.scene) = (history, scene);
        if let Some(capsule) = Capsule::new(plan, &report, result)
            && let Err(e) = capsule.write(&keep.path)
        {
            eprintln!("warning: no capsule of {}/{}: {e}", report.scenario, report.seed);
        }
    }
    report
}

/// What of a result crosses the pipe.
pub fn report(result: RunResult) -> SeedReport {
    let (verdict, violations, note) = match result.outcome {
        Outcome::Passed => (Verdict::Pass, Vec::new(), None),
        Outcome::Unsafe(violations) => (Verdict::Unsafe, violations, None),
        Outcome::NotLive(violations) => (Verdict::NotLive, violations, None),
        Outcome::Panicked { node, message } => (Verdict::Panicked, Vec::new(), Some(format!("{node}: {message}"))),
        Outcome::NotDeterministic { message } => (Verdict::NotDeterministic, Vec::new(), Some(message)),
        Outcome::Inconclusive { reasons } => (Verdict::Inconclusive, Vec::new(), Some(reasons.join("; "))),
        Outcome::HarnessFailed { message } => (Verdict::HarnessFailed, Vec::new(), Some(message)),
    };
    // A run that did not end has no trace to compare.
    let hash = |hash: u64| if verdict == Verdict::HarnessFailed { String::new() } else { format!("{hash:016x}") };
    let fault_steps = if verdict.is_failure() { result.fault_steps } else { Vec::new() };
    SeedReport {
        version: reports::JSON_VERSION,
        scenario: result.scenario,
        seed: result.seed,
        verdict,
        failures: reported(violations),
        fault_steps,
        note,
        world_hash: hash(result.world_hash),
        probe_hash: result.probe_hash.map_or_else(String::new, hash),
        stats: result.stats,
        wall_ms: 0,
    }
}

/// Violations of one seed that are reported: one bug may violate a property for every record. Past this many, only the
/// first of each signature.
const MAX_FAILURES: usize = 20;

fn reported(violations: Vec<Violation>) -> Vec<Failure> {
    let mut seen = BTreeSet::new();
    let all = violations.into_iter().map(failure).enumerate();
    all.filter(|(n, failure)| seen.insert(failure.signature()) || *n < MAX_FAILURES).map(|(_, f)| f).collect()
}

fn failure(violation: Violation) -> Failure {
    Failure { property: violation.property, message: violation.message, witness: violation.witness }
}
