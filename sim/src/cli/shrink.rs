//! `streamproof shrink`: a failing plan, made small.

use std::path::{Path, PathBuf};
use std::time::Instant;

use reports::explain::Runs;
use reports::story::Next;
use reports::{LineType, Shrunk, json_line, story};

use super::args::{Format, ShrinkArgs};
use super::run::options;
use super::which::{self, Named};
use super::{Refusal, out};
use crate::canary;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::plans::Planner;
use crate::shrink::{self, End, Found, Order, Reach};
use crate::store;
use crate::task::{Source, quote};

pub fn run(args: ShrinkArgs) -> Result<Exit, Refusal> {
    let mut all = which::select(&args.which)?;
    let named = all.remove(0);
    let plan = named.plan(&mut Planner::default())?;
    if let Some(property) = &args.property {
        known_property(property)?;
    }
    let output = args.output.clone().unwrap_or_else(|| default_output(&named));
    let options = options(args.jobs)?;
    let interrupt = Interrupt::listen().map_err(|e| Refusal::failed(format!("failed to listen for Ctrl-C: {e}")))?;
    eprintln!("shrinking {}/{}", plan.scenario, plan.seed);
    if let Some(next) = all.first() {
        let command = next.task.shrink_command();
        eprintln!("failures of this run that are left alone: {}; the next one: {command}", all.len());
    }
    let started = Instant::now();
    let order =
        Order { plan, property: args.property, reach: Reach::Whole, budget: args.budget, output, journal: true };
    let end = shrink::shrink(&order, &options, &interrupt, &mut |line| eprintln!("{line}")).map_err(Refusal::failed)?;
    match end {
        End::Interrupted => Ok(Exit::Interrupted),
        End::Other(signatures) => Err(does_not_fail(&order, &signatures)),
        End::Unstable(report) => {
            out::data(&story::text(
                &report,
                &Next { replay: format!("streamproof replay {}", shown(&order.output)), ..Next::default() },
            ));
            Ok(Exit::NotDeterministic)
        }
        End::Shrunk(found) => {
            let shrunk = summary(&order, &found, started.elapsed().as_millis() as u64, &named.task.replay_command());
            match args.format {
                Format::Json => out::line(&json_line(LineType::Shrunk, &shrunk)),
                Format::Text => out::data(&shrunk.text()),
            }
            Ok(if interrupt.is_set() { Exit::Interrupted } else { Exit::Pass })
        }
    }
}

fn does_not_fail(order: &Order, signatures: &[reports::Signature]) -> Refusal {
    let (scenario, seed) = (&order.plan.scenario, order.plan.seed);
    Refusal::nothing(match (&order.property, signatures) {
        (_, []) => format!("{scenario}/{seed} does not fail: there is nothing to shrink"),
        (property, failing) => {
            let failing: Vec<&str> = failing.iter().map(|s| s.property()).collect();
            let property = property.as_deref().unwrap_or_default();
            format!("{scenario}/{seed} does not fail by {property}, but by {}", failing.join(", "))
        }
    })
}

/// # Errors
/// A sentence with the nearest name.
pub fn known_property(name: &str) -> Result<(), Refusal> {
    let runner = [crate::bugs::LIVENESS, reports::signature::PANIC, reports::signature::HARNESS];
    let names: Vec<&str> = invariants::all().iter().map(|p| p.name).chain(runner).collect();
    if names.contains(&name) {
        return Ok(());
    }
    let hint = super::suggest::sentence(name, &names);
    Err(Refusal::usage(format!("unknown property `{name}`{hint}; `streamproof list invariants` names them")))
}

/// Beside the plan it comes from, if there is one.
fn default_output(named: &Named) -> PathBuf {
    let task = &named.task;
    match (&named.run, &task.source) {
        (Some(run), _) => store::plan_path(&run.dir, &run.task).with_extension("shrunk.json"),
        (None, Source::Plan(path) | Source::Capsule(path) | Source::Schedule { plan: path, .. }) => {
            path.with_extension("shrunk.json")
        }
        (None, _) => PathBuf::from(format!(".streamproof/shrunk/{}-{}.json", task.scenario(), task.seed)),
    }
}

fn summary(order: &Order, found: &Found, wall_ms: u64, replay: &str) -> Shrunk {
    let plan = (found.cuts > 0).then(|| shown(&order.output));
    let next = match &plan {
        // Its plan is not kept: it fails by design.
        Some(plan) if canary::must_fail(&order.plan.scenario).is_some() => format!("streamproof explain {plan}"),
        Some(plan) => format!("streamproof regress add {plan} NAME --story 'WHAT WAS WRONG'"),
        None => replay.to_owned(),
    };
    Shrunk {
        scenario: order.plan.scenario.clone(),
        seed: order.plan.seed,
        signature: found.signature.clone(),
        before: found.before,
        after: found.after,
        runs: found.runs,
        cuts: found.cuts,
        wall_ms,
        schedules: found.schedules.map(|(failing, tried)| Runs { failing, tried }),
        complete: found.complete,
        replay: plan.as_ref().map_or_else(|| replay.to_owned(), |plan| format!("streamproof replay {plan}")),
        plan,
        next,
    }
}

fn shown(path: &Path) -> String {
    quote(&path.display().to_string())
}
