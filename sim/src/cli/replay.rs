//! `streamproof replay`: the same seed or plan again, twice, each time in a fresh process.

use reports::{LineType, SeedReport, Verdict, json_line, story};

use super::args::{Format, ReplayArgs};
use super::outcome::{failure_line, next};
use super::run::options;
use super::which::{self, Named};
use super::{Refusal, out};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::plans::Planner;
use crate::run_log;
use crate::runner::{self, RunOptions};
use crate::supervisor::{self, Options};
use crate::task::Task;

pub fn run(args: ReplayArgs) -> Result<Exit, Refusal> {
    let wanted = which::select(&args.which)?;
    let mut planner = Planner::default();
    for named in &wanted {
        let plan = planner.plan(&named.task).map_err(Refusal::usage)?;
        if let Some(filter) = &args.log {
            run_log::on_stderr(filter, || runner::run(&plan, &RunOptions::default()));
        }
    }
    let options = Options { repeat_every: 1, recycle_after: 1, ..options(Some(1))? };
    let interrupt = Interrupt::listen().map_err(|e| Refusal::failed(format!("failed to listen for Ctrl-C: {e}")))?;
    let mut exit = Exit::Pass;
    let mut expected = wanted.iter();
    let tasks: Vec<Task> = wanted.iter().map(|named| named.task.clone()).collect();
    supervisor::run(tasks.into_iter(), &options, &interrupt, |finished| {
        // One worker: results come in the order of the tasks.
        exit = exit.worst(print(&finished.task, &finished.report, expected.next(), args.format));
        true
    })
    .map_err(|e| Refusal::failed(format!("failed to run the {e}")))?;
    Ok(if interrupt.is_set() { exit.worst(Exit::Interrupted) } else { exit })
}

fn print(task: &Task, report: &SeedReport, named: Option<&Named>, format: Format) -> Exit {
    let before = named.and_then(|named| named.before.as_ref()).filter(|before| !before.world_hash.is_empty());
    let same = before.map(|before| before.same_trace(report));
    let exact = named.is_some_and(|named| named.exact);
    match format {
        Format::Json if report.verdict.is_failure() => out::line(&failure_line(task, report)),
        Format::Json => out::line(&json_line(LineType::Seed, report)),
        Format::Text if report.verdict == Verdict::Pass => out::line(&format!(
            "passed {} seed {}: world {}, probes {}",
            report.scenario, report.seed, report.world_hash, report.probe_hash
        )),
        Format::Text => out::data(&story::text(report, &next(task, report))),
    }
    match same {
        Some(false) if exact => {
            eprintln!("error: this build made the capsule, and did not run the plan as it did then");
            return Exit::of(report.verdict).worst(Exit::NotDeterministic);
        }
        Some(false) => eprintln!(
            "warning: {}/{} did not run as it did when it was stored: the program or the plan's generator has changed",
            task.scenario(),
            task.seed
        ),
        Some(true) if exact => eprintln!("it ran as in the capsule, bit for bit: world {}", report.world_hash),
        _ => {}
    }
    Exit::of(report.verdict)
}
