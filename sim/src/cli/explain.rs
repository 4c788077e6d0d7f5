//! `streamproof explain`: a failure as a story, and what other runs say of it.

use std::path::{Path, PathBuf};

use reports::{Case, Explanation, LineType, Signature, json_line};

use super::args::{ExplainArgs, Format};
use super::run::options;
use super::shrink::known_property;
use super::which::{self, Named};
use super::{Refusal, out};
use crate::capsule::{self, Capsule};
use crate::exit::Exit;
use crate::explain::{self, Found, Order};
use crate::interrupt::Interrupt;
use crate::supervisor::Options;
use crate::task::{Source, Task, quote};

pub fn run(args: ExplainArgs) -> Result<Exit, Refusal> {
    let mut all = which::select(&args.which)?;
    let named = all.remove(0);
    if let Some(property) = &args.property {
        known_property(property)?;
    }
    if let Some(next) = all.first() {
        let command = next.task.explain_command();
        eprintln!("failures of this run that are left alone: {}; the next one: {command}", all.len());
    }
    let options = options(args.jobs)?;
    let interrupt = Interrupt::listen().map_err(|e| Refusal::failed(format!("failed to listen for Ctrl-C: {e}")))?;
    let (capsule, path) = capsule_at(&named, &options, &interrupt)?;
    let Some(mut told) = told(&capsule, args.property.as_deref()) else {
        let (scenario, seed) = (&capsule.plan.scenario, capsule.plan.seed);
        return Err(Refusal::nothing(match &args.property {
            Some(property) => format!("{scenario}/{seed} does not fail by {property}"),
            None => format!("{scenario}/{seed} does not fail: there is nothing to explain"),
        }));
    };
    if !args.no_runs {
        let order = Order { tails: args.tails, budget: args.budget, violated_ms: told.at_ms };
        eprintln!("asking what it took: at most {} s of other runs", args.budget.as_secs());
        let signature = signature(&capsule, &told);
        let answers = explain::ask(&capsule, &signature, &order, &options, &interrupt).map_err(Refusal::failed)?;
        if !answers.complete {
            eprintln!("stopped after {} runs: some answers rest on fewer of them; --for gives more time", answers.runs);
        }
        if answers.with_all.tried > 0 && answers.with_all.failing == 0 {
            eprintln!("warning: this build runs the plan without that failure: what other runs say is of this build");
        }
        let found = Found::new(&told, answers);
        // The report shows it too; where it cannot be written, it is on stdout all the same.
        let _ = found.write(&path);
        found.tell(&mut told);
    }
    match args.format {
        Format::Json => out::line(&json_line(LineType::Explanation, &told)),
        Format::Text => {
            out::data(&told.text());
            out::data(&what_next(&named.task, &path));
        }
    }
    Ok(if interrupt.is_set() { Exit::Interrupted } else { Exit::Pass })
}

/// The commands that come after the story, as a failing run prints them.
fn what_next(task: &Task, capsule: &Path) -> String {
    let (shrink, replay) = (task.shrink_command(), task.replay_command());
    let capsule = quote(&capsule.display().to_string());
    format!("\nWhat next\n  shrink    {shrink}\n  report    streamproof report {capsule}\n  fixed?    {replay}\n")
}

/// The story of a capsule.
pub fn told(capsule: &Capsule, property: Option<&str>) -> Option<Explanation> {
    let case = Case {
        plan: &capsule.plan,
        history: &capsule.history,
        outcome: &capsule.result.outcome,
        report: &capsule.report,
        notes: &capsule.result.notes,
    };
    Explanation::of(&case, property)
}

/// By which the other runs must fail to count.
fn signature(capsule: &Capsule, told: &Explanation) -> Signature {
    let of = |property: &str| Signature::new(property, &told.message);
    let panic = || capsule.report.signatures().into_iter().next();
    match &told.property {
        Some(property) => of(&property.name),
        None => panic().unwrap_or_else(|| of(reports::signature::PANIC)),
    }
}

/// The capsule that is named, the one that its run left, or one of a new run; with its file.
pub fn capsule_at(named: &Named, options: &Options, interrupt: &Interrupt) -> Result<(Capsule, PathBuf), Refusal> {
    let at = |path: &Path| Capsule::read(path).map(|capsule| (capsule, path.to_owned())).map_err(Refusal::usage);
    if let Source::Capsule(path) = &named.task.source {
        return at(path);
    }
    let stored = named.run.as_ref().and_then(|run| crate::store::capsule(&run.dir, &run.task));
    if let Some(path) = stored {
        let (capsule, path) = at(&path)?;
        eprintln!("{}", capsule::expectation(&capsule.build));
        return Ok((capsule, path));
    }
    let path = explain::capsule_path(&named.task);
    let capsule = explain::capsule(&named.task, &path, options, interrupt).map_err(Refusal::usage)?;
    Ok((capsule, path))
}
