//! `streamproof replay`: the same seed or plan again, twice, each time in a fresh process.

use std::path::{Path, PathBuf};

use reports::{SeedReport, Verdict, json_line, story};

use super::args::{Format, ReplayArgs, seed};
use super::run::{failure_line, options, scenario};
use super::{Refusal, out};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::plans::Planner;
use crate::store::{self, Failed};
use crate::supervisor::{self, Options};
use crate::task::{Source, Task};

pub fn run(args: ReplayArgs) -> Result<Exit, Refusal> {
    let wanted = select(&args)?;
    let mut planner = Planner::default();
    for (task, _) in &wanted {
        planner.plan(task).map_err(Refusal::usage)?;
    }
    let options = Options { repeat_every: 1, recycle_after: 1, ..options(Some(1))? };
    let interrupt = Interrupt::listen().map_err(|e| Refusal::failed(format!("failed to listen for Ctrl-C: {e}")))?;
    let mut exit = Exit::Pass;
    let mut expected = wanted.iter().map(|(_, before)| before);
    let tasks: Vec<Task> = wanted.iter().map(|(task, _)| task.clone()).collect();
    supervisor::run(tasks.into_iter(), &options, &interrupt, |finished| {
        // One worker: results come in the order of the tasks.
        let before = expected.next().and_then(Option::as_ref);
        exit = exit.worst(print(&finished.task, &finished.report, before, args.format));
        true
    })
    .map_err(|e| Refusal::failed(format!("failed to run the {e}")))?;
    Ok(if interrupt.is_set() { exit.worst(Exit::Interrupted) } else { exit })
}

fn print(task: &Task, report: &SeedReport, before: Option<&SeedReport>, format: Format) -> Exit {
    let differs = before.is_some_and(|before| !before.world_hash.is_empty() && !before.same_trace(report));
    match format {
        Format::Json if report.verdict.is_failure() => out::line(&failure_line(task, report)),
        Format::Json => out::line(&json_line("seed", report)),
        Format::Text if report.verdict == Verdict::Pass => out::line(&format!(
            "passed {} seed {}: world {}, probes {}",
            report.scenario, report.seed, report.world_hash, report.probe_hash
        )),
        Format::Text => out::data(&story::text(report, &task.replay_command())),
    }
    if differs {
        eprintln!(
            "warning: {}/{} did not run as it did when it was stored: the program or the plan's generator has changed",
            task.scenario(),
            task.seed
        );
    }
    Exit::of(report.verdict)
}

/// The tasks, each with the report of the run it comes from, if it does.
fn select(args: &ReplayArgs) -> Result<Vec<(Task, Option<SeedReport>)>, Refusal> {
    let what = args.what.as_str();
    let faults = args.faults.faults.as_ref().map(|set| set.0.clone());
    let one = |source, seed| Ok(vec![(Task { source, seed, faults: faults.clone() }, None)]);
    if Path::new(what).is_file() {
        let plan = crate::plans::read_plan(Path::new(what)).map_err(Refusal::usage)?;
        return one(Source::Plan(PathBuf::from(what)), plan.seed);
    }
    if let (Some(job), Some(events)) = (&args.job.job, &args.job.events) {
        let number = seed(what.strip_prefix("job/").unwrap_or(what))
            .map_err(|e| Refusal::usage(format!("`{what}` is no seed of the job: {e}")))?;
        return one(Source::Job { job: job.clone(), events: events.clone() }, number);
    }
    if let Some((name, number)) = what.split_once('/')
        && !what.ends_with(".json")
    {
        if name == "job" {
            return Err(Refusal::usage(format!("`{what}` needs the job's files: give --job and --events")));
        }
        let name = scenario(name)?;
        let number = seed(number).map_err(|e| Refusal::usage(format!("`{number}` is no seed: {e}")))?;
        return one(Source::Scenario(name), number);
    }
    if what.ends_with(".json") {
        return Err(Refusal::usage(format!("no plan file {what}")));
    }
    stored(what)
}

/// All failures of a stored run, or those of a seed in the newest run that has them.
fn stored(what: &str) -> Result<Vec<(Task, Option<SeedReport>)>, Refusal> {
    let root = store::root();
    let ids = store::ids(&root).map_err(|e| Refusal::usage(format!("{}: {e}", root.display())))?;
    let tasks = |failed: Vec<Failed>| failed.into_iter().map(|f| (f.task, Some(f.report))).collect::<Vec<_>>();
    if ids.iter().any(|id| id == what) {
        let failed = store::failures(&root, what).map_err(Refusal::usage)?;
        if failed.is_empty() {
            return Err(Refusal::nothing(format!("run {what} has no failure to replay")));
        }
        return Ok(tasks(failed));
    }
    if let Ok(number) = seed(what) {
        for id in ids.iter().rev() {
            let mut failed = store::failures(&root, id).map_err(Refusal::usage)?;
            failed.retain(|f| f.task.seed == number);
            if !failed.is_empty() {
                return Ok(tasks(failed));
            }
        }
        return Err(Refusal::usage(format!(
            "no stored run failed at seed {what}: write SCENARIO/{what}, such as swarm/{what}"
        )));
    }
    Err(Refusal::usage(format!(
        "`{what}` is no stored run, no SCENARIO/SEED and no plan file; {} has {} runs",
        root.display(),
        ids.len()
    )))
}
