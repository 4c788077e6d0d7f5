//! `streamproof determinism`: each seed in a child process, and four times in this one.

use std::collections::BTreeMap;

use reports::{LineType, json_line};
use serde::Serialize;

use super::args::{DeterminismArgs, Format};
use super::run::{options, scenario};
use super::{Refusal, out};
use crate::determinism::{self, Divergence, Hashes};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::plans::Planner;
use crate::supervisor::{self, Options};
use crate::task::{Source, Task};

/// One seed that ran the same everywhere, or did not.
#[derive(Serialize)]
struct Line<'a> {
    scenario: &'a str,
    seed: u64,
    same: bool,
    world_hash: String,
    divergence: Option<String>,
}

pub fn run(args: DeterminismArgs) -> Result<Exit, Refusal> {
    let mut names = Vec::new();
    for name in &args.scenarios {
        names.push(scenario(name)?);
    }
    if names.is_empty() {
        // `job` needs files of the user's.
        names.extend(scenarios::list().iter().map(|e| e.name.to_owned()).filter(|name| name != "job"));
    }
    let last = args
        .seed
        .checked_add(args.seeds)
        .ok_or_else(|| Refusal::usage(format!("{} seeds from {} go beyond 2^64 - 1", args.seeds, args.seed)))?;
    let tasks: Vec<Task> = names
        .iter()
        .flat_map(|name| (args.seed..last).map(|seed| (name.clone(), seed)))
        .map(|(name, seed)| Task { source: Source::Scenario(name), seed, faults: None })
        .collect();
    if tasks.is_empty() {
        return Err(Refusal::nothing("--seeds 0 selects nothing"));
    }
    let interrupt = Interrupt::listen().map_err(|e| Refusal::failed(format!("failed to listen for Ctrl-C: {e}")))?;
    let children = children(&tasks, &interrupt)?;
    let mut planner = Planner::default();
    let bar = out::bar(Some(tasks.len() as u64));
    let (mut exit, mut same, mut runs) = (Exit::Pass, 0_u64, 0_u64);
    for task in &tasks {
        if interrupt.is_set() {
            exit = exit.worst(Exit::Interrupted);
            break;
        }
        let plan = planner.plan(task).map_err(Refusal::failed)?;
        let child = children.get(&(task.scenario().to_owned(), task.seed));
        let found = determinism::check(&plan).and_then(|here| compare(here, child.copied()));
        runs += 1;
        same += u64::from(found.is_ok());
        if found.is_err() {
            exit = exit.worst(Exit::NotDeterministic);
        }
        let line = Line {
            scenario: task.scenario(),
            seed: task.seed,
            same: found.is_ok(),
            world_hash: found.as_ref().map_or_else(|_| String::new(), |h| format!("{:016x}", h.world)),
            divergence: found.as_ref().err().map(ToString::to_string),
        };
        match (args.format, &line.divergence) {
            (Format::Json, _) => out::line(&json_line(LineType::Determinism, &line)),
            (Format::Text, Some(divergence)) => {
                bar.suspend(|| out::line(&format!("DIFFERS {} seed {}: {divergence}", line.scenario, line.seed)));
            }
            (Format::Text, None) => {}
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if args.format == Format::Text {
        out::line(&format!(
            "{same} of {runs} seeds ran the same five times: twice at once in one process, recorder off, logging at trace, in a child"
        ));
    }
    Ok(exit)
}

/// The hashes of each task in a worker process.
fn children(tasks: &[Task], interrupt: &Interrupt) -> Result<BTreeMap<(String, u64), Hashes>, Refusal> {
    let options = Options { repeat_every: 0, ..options(None)? };
    let mut hashes = BTreeMap::new();
    let mut trouble = None;
    let parse = |text: &str| u64::from_str_radix(text, 16).ok();
    supervisor::run(tasks.iter().cloned(), &options, interrupt, |finished| {
        let (task, report) = (finished.task, finished.report);
        match parse(&report.world_hash) {
            Some(world) => {
                let found = Hashes { world, probe: parse(&report.probe_hash) };
                hashes.insert((task.scenario().to_owned(), task.seed), found);
                true
            }
            None => {
                let note = report.note.unwrap_or_else(|| "no reason given".into());
                trouble = Some(format!("{}/{} did not end in a child process: {note}", task.scenario(), task.seed));
                false
            }
        }
    })
    .map_err(|e| Refusal::failed(format!("failed to run the {e}")))?;
    match trouble {
        Some(sentence) => Err(Refusal::failed(sentence)),
        None => Ok(hashes),
    }
}

fn compare(here: Hashes, child: Option<Hashes>) -> Result<Hashes, Box<Divergence>> {
    match child {
        Some(found) if found != here => {
            Err(Box::new(Divergence { variant: "child process".into(), expected: here, found, first: None }))
        }
        _ => Ok(here),
    }
}
