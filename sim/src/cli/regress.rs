//! `streamproof regress`: plans that once failed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use reports::{LineType, SeedReport, Signature, json_line, story};
use serde::Serialize;

use super::args::{
    Format, RegressAddArgs, RegressArgs, RegressListArgs, RegressPruneArgs, RegressRunArgs, RegressVerb,
};
use super::outcome::next;
use super::run::options;
use super::{Refusal, out};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::plans::read_plan;
use crate::regressions::{self, Regression, Surplus};
use crate::supervisor::{self, Options};
use crate::task::{Source, Task};

pub fn run(args: RegressArgs) -> Result<Exit, Refusal> {
    match args.verb {
        RegressVerb::Add(args) => add(&args),
        RegressVerb::List(args) => list(&args),
        RegressVerb::Run(args) => run_all(&args),
        RegressVerb::Prune(args) => prune(&args),
    }
}

fn add(args: &RegressAddArgs) -> Result<Exit, Refusal> {
    let plan = read_plan(&args.plan).map_err(Refusal::usage)?;
    let task = Task { source: Source::Plan(args.plan.clone()), seed: plan.seed, faults: None };
    let report = once(task)?;
    let path = regressions::add(&args.dir.dir, &args.name, &plan, &args.story, &report).map_err(Refusal::usage)?;
    match report.signatures().first() {
        Some(signature) => out::line(&format!("added {}: {signature}", path.display())),
        None => out::line(&format!("added {}: it passes in this build", path.display())),
    }
    out::line(&format!("next: streamproof regress run {}", args.name));
    Ok(Exit::Pass)
}

fn once(task: Task) -> Result<SeedReport, Refusal> {
    let options = Options { repeat_every: 0, repeat_failures: false, ..options(Some(1))? };
    let mut report = None;
    supervisor::run(std::iter::once(task), &options, &Interrupt::default(), |finished| {
        report = Some(finished.report);
        true
    })
    .map_err(|e| Refusal::failed(format!("failed to run the {e}")))?;
    report.ok_or_else(|| Refusal::failed("the plan was not run"))
}

/// Those named, or all. None at all is a refusal.
fn selected(dir: &Path, names: &[String]) -> Result<Vec<Regression>, Refusal> {
    let mut all = regressions::read_all(dir).map_err(Refusal::usage)?;
    for name in names {
        if !all.iter().any(|one| one.name == *name) {
            let known: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
            let hint = super::suggest::sentence(name, &known);
            return Err(Refusal::usage(format!("no regression `{name}` in {}{hint}", dir.display())));
        }
    }
    all.retain(|one| names.is_empty() || names.contains(&one.name));
    match all.is_empty() {
        true => Err(Refusal::nothing(format!("no regression in {}", dir.display()))),
        false => Ok(all),
    }
}

fn list(args: &RegressListArgs) -> Result<Exit, Refusal> {
    #[derive(Serialize)]
    struct Row<'a> {
        name: &'a str,
        faults: usize,
        records: usize,
        found: Option<&'a str>,
        signature: Option<&'a Signature>,
        story: Option<&'a str>,
        refused: Option<&'a str>,
    }
    let all = selected(&args.dir.dir, &[])?;
    for one in &all {
        let plan = one.plan.as_ref();
        let note = one.note.as_ref();
        let row = Row {
            name: &one.name,
            faults: plan.map_or(0, |p| p.faults.len()),
            records: plan.map_or(0, |p| p.records().count()),
            found: note.map(|note| note.found.as_str()),
            signature: note.and_then(|note| note.signature.as_ref()),
            story: note.map(|note| note.story.as_str()),
            refused: plan.err().map(String::as_str),
        };
        if args.format == Format::Json {
            out::line(&json_line(LineType::Regression, &row));
            continue;
        }
        let found = row.found.map_or_else(String::new, |found| format!(" (found by {found})"));
        out::line(&format!("{}: faults {}, records {}{found}", row.name, row.faults, row.records));
        for text in [row.refused, row.signature.map(Signature::as_str)].into_iter().flatten() {
            out::line(&format!("    {text}"));
        }
        for line in row.story.unwrap_or_default().lines() {
            out::line(&format!("    {line}"));
        }
    }
    Ok(Exit::Pass)
}

fn run_all(args: &RegressRunArgs) -> Result<Exit, Refusal> {
    #[derive(Serialize)]
    struct Row<'a> {
        name: &'a str,
        schedules: u64,
        failed: u64,
        signatures: BTreeSet<Signature>,
    }
    let all = selected(&args.dir.dir, &args.names)?;
    if let Some((one, why)) = all.iter().find_map(|one| Some((one, one.plan.as_ref().err()?))) {
        return Err(Refusal::usage(format!("{why}; `streamproof regress prune` would drop {}", one.name)));
    }
    let interrupt = Interrupt::listen().map_err(|e| Refusal::failed(format!("failed to listen for Ctrl-C: {e}")))?;
    let mut rows: BTreeMap<&Path, Row<'_>> = all
        .iter()
        .map(|one| (&*one.path, Row { name: &one.name, schedules: 0, failed: 0, signatures: BTreeSet::new() }))
        .collect();
    let mut exit = Exit::Pass;
    let mut failed: BTreeMap<String, (Task, SeedReport)> = BTreeMap::new();
    let tasks: Vec<Task> = all.iter().flat_map(Regression::tasks).collect();
    supervisor::run(tasks.into_iter(), &options(args.jobs)?, &interrupt, |finished| {
        let (task, report) = (finished.task, finished.report);
        exit = exit.worst(Exit::of(report.verdict));
        if let Source::Schedule { plan, .. } = &task.source
            && let Some(row) = rows.get_mut(plan.as_path())
        {
            row.schedules += 1;
            if report.verdict.is_failure() {
                row.failed += 1;
                row.signatures.extend(report.signatures());
                failed.entry(row.name.to_owned()).or_insert((task, report));
            }
        }
        true
    })
    .map_err(|e| Refusal::failed(format!("failed to run the {e}")))?;
    for row in rows.values() {
        let word = if row.failed == 0 { "passed" } else { "FAILED" };
        match args.format {
            Format::Json => out::line(&json_line(LineType::RegressionRun, row)),
            Format::Text if row.failed == 0 => out::line(&format!("{word} {}: {} schedules", row.name, row.schedules)),
            Format::Text => {
                let count = format!("{} of {} schedules", row.failed, row.schedules);
                out::line(&format!("{word} {}: {count}: {}", row.name, joined(&row.signatures)));
            }
        }
    }
    for (task, report) in failed.values().filter(|_| args.format == Format::Text) {
        out::line("");
        out::data(&story::text(report, &next(task, report)));
    }
    Ok(if interrupt.is_set() { exit.worst(Exit::Interrupted) } else { exit })
}

fn joined(signatures: &BTreeSet<Signature>) -> String {
    signatures.iter().map(Signature::as_str).collect::<Vec<_>>().join("; ")
}

fn prune(args: &RegressPruneArgs) -> Result<Exit, Refusal> {
    #[derive(Serialize)]
    struct Row<'a> {
        name: &'a str,
        reason: String,
        removed: bool,
    }
    let all = selected(&args.dir.dir, &[])?;
    let mut known: BTreeMap<String, Option<BTreeSet<String>>> = BTreeMap::new();
    let mut reached = |one: &Regression| {
        let own = one.tasks().into_iter().next();
        let run = || once(own?).ok().map(|report| report.stats.reached);
        known.entry(one.name.clone()).or_insert_with(run).clone()
    };
    let surplus = regressions::surplus(&all, &mut reached);
    for (one, why) in &surplus {
        if !args.dry_run {
            one.remove().map_err(Refusal::failed)?;
        }
        let verb = if args.dry_run { "would drop" } else { "dropped" };
        match args.format {
            Format::Json => {
                let row = Row { name: &one.name, reason: why.to_string(), removed: !args.dry_run };
                out::line(&json_line(LineType::Pruned, &row));
            }
            Format::Text => out::line(&format!("{verb} {}: {why}", one.name)),
        }
    }
    let invalid = surplus.iter().filter(|(_, why)| matches!(why, Surplus::Invalid(_))).count();
    eprintln!("{} of {} regressions stay; {invalid} were refused by this build", all.len() - surplus.len(), all.len());
    Ok(Exit::Pass)
}
