//! `streamproof audit`: does the harness see what it claims to see?

use std::time::Duration;

use reports::{LineType, json_line};

use super::args::{AuditArgs, Format};
use super::run::options;
use super::{Refusal, out, suggest};
use crate::audit::{Detection, Finding, Workshop};
use crate::bugs::{self, Bug};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::lesson::{self, Lesson};

/// Three disjoint ranges: a bug that one range finds by luck is not found.
const FIRST_SEEDS: [u64; 3] = [0, 10_000, 20_000];

/// What a failure may take to become small.
const SHRINK_BUDGET: Duration = Duration::from_secs(120);

pub fn run(args: AuditArgs) -> Result<Exit, Refusal> {
    let checkout = bugs::checkout().map_err(Refusal::usage)?;
    let bugs = select(&args, bugs::read_all(&checkout).map_err(Refusal::usage)?)?;
    let jobs = options(args.jobs)?.jobs;
    let interrupt = Interrupt::listen().map_err(|e| Refusal::failed(format!("failed to listen for Ctrl-C: {e}")))?;
    let shop = Workshop::open(&checkout).map_err(Refusal::usage)?;
    let firsts = args.seed.map_or_else(|| FIRST_SEEDS.to_vec(), |seed| vec![seed]);
    let (mut exit, mut found, mut ranges) = (Exit::Pass, 0, 0);
    let mut lessons = Vec::new();
    for bug in &bugs {
        eprintln!("{}: building", bug.name);
        shop.plant(bug).map_err(Refusal::failed)?;
        let program = shop.build().map_err(|e| Refusal::failed(format!("{}: {e}", bug.name)))?;
        for first in &firsts {
            if interrupt.is_set() {
                return Ok(exit.worst(Exit::Interrupted));
            }
            let seeds = args.seeds.unwrap_or(bug.seeds).min(bug.seeds);
            let detection = shop
                .detect(&program, bug, *first, seeds, jobs, &interrupt)
                .map_err(|e| Refusal::failed(format!("{}: {e}", bug.name)))?;
            ranges += 1;
            found += u32::from(detection.is_right());
            if !detection.is_right() {
                exit = exit.worst(Exit::Blind);
            }
            match args.format {
                Format::Text => out::line(&sentence(bug, &detection)),
                Format::Json => out::line(&json_line(LineType::Detection, &detection)),
            }
            if let (true, Finding::RightCheck { seed, check }) = (args.shrink && *first == firsts[0], &detection.result)
            {
                let runs = shop.runs().map_err(Refusal::failed)?;
                let lesson = lesson::learn(&program, &runs, bug, (*seed, check), jobs, SHRINK_BUDGET);
                let lesson = lesson.map_err(|e| Refusal::failed(format!("{}: {e}", bug.name)))?;
                if lesson.guilty_named == Some(false) {
                    exit = exit.worst(Exit::Blind);
                }
                if lesson.not_explained.is_some() {
                    exit = exit.worst(Exit::Failed);
                }
                match args.format {
                    Format::Text => out::line(&lesson_sentence(&lesson)),
                    Format::Json => out::line(&json_line(LineType::Lesson, &lesson)),
                }
                lessons.push(lesson);
            }
        }
    }
    if args.format == Format::Text && !lessons.is_empty() {
        let median = |of: fn(&Lesson) -> u64| {
            let mut all: Vec<u64> = lessons.iter().map(of).collect();
            all.sort_unstable();
            all[(all.len() - 1) / 2]
        };
        let (faults, records, ms) = (median(|l| l.faults), median(|l| l.records), median(|l| l.wall_ms));
        let seconds = ms as f64 / 1000.0;
        out::line(&format!(
            "shrunk plans: {}, median {faults} faults, {records} records, {seconds:.1} s",
            lessons.len()
        ));
    }
    if args.format == Format::Text {
        out::line(&format!("bugs: {}; {found} of {ranges} ranges found by the right check", bugs.len()));
    }
    Ok(exit)
}

fn select(args: &AuditArgs, all: Vec<Bug>) -> Result<Vec<Bug>, Refusal> {
    if all.is_empty() {
        return Err(Refusal::nothing(format!("{} holds no patch", bugs::DIR)));
    }
    if args.bugs.is_empty() {
        return Ok(all);
    }
    let names: Vec<&str> = all.iter().map(|bug| bug.name.as_str()).collect();
    for name in &args.bugs {
        if !names.contains(&name.as_str()) {
            let hint = suggest::sentence(name, &names);
            return Err(Refusal::usage(format!("unknown bug `{name}`{hint}; `streamproof list bugs` names them all")));
        }
    }
    Ok(all.into_iter().filter(|bug| args.bugs.contains(&bug.name)).collect())
}

fn lesson_sentence(l: &Lesson) -> String {
    let size = format!("{} of {} faults, {} of {} records", l.faults, l.faults_before, l.records, l.records_before);
    let end = if l.complete { "" } else { ", not to the end" };
    let guilty = match (&l.not_explained, l.guilty_named) {
        (Some(why), _) => format!("; NOT EXPLAINED: {why}"),
        (None, Some(true)) => "; its guilty step is named".to_owned(),
        (None, Some(false)) => "; its guilty step is NOT NAMED".to_owned(),
        (None, None) => String::new(),
    };
    format!("{:<32} shrunk: {size} in {:.1} s{end}{guilty}", l.bug, l.wall_ms as f64 / 1000.0)
}

fn sentence(bug: &Bug, d: &Detection) -> String {
    let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
    let cost = format!("{} seeds, {} simulated, {}", d.seeds_run, seconds(d.simulated_ms), seconds(d.wall_ms));
    let range = format!("{:<32} from {:>5}", bug.name, d.first_seed);
    match &d.result {
        Finding::RightCheck { seed, check } => format!("{range}: found by {check} at seed {seed}; {cost}"),
        Finding::WrongCheck { seed, checks } => {
            let checks: Vec<&str> = checks.iter().map(String::as_str).collect();
            format!(
                "{range}: WRONG CHECK: {} first at seed {seed}, not {}; {cost}",
                checks.join(", "),
                bug.checks.join(" or ")
            )
        }
        Finding::Nothing => format!("{range}: NOT FOUND by {}; {cost}", bug.checks.join(" or ")),
    }
}
