//! Runs a plan: deploys it into a simulated world, lets the faults loose, heals, drains, reads everything back, judges.
//!
//! Guarantees: [`run`] starts its own fresh thread, returns for every valid plan, and never panics because the system
//! did; with the same plan and options the two hashes are the same in every run of one build. Leaves to others: the
//! wall-clock watchdog and memory limit (`supervisor`), what is printed (`reports`).

mod finale;
mod judge;
mod nemesis;
mod phases;
mod result;
mod scene;
mod stats;

use std::sync::Mutex;
use std::time::Duration;

use history::{Outcome, Violation, Witness};
use scenarios::Plan;
use world::{Config, Failed, Tail, Why, on_seed};

pub use result::{RunResult, Timings};

use crate::deploy;
use crate::recorder::{Recorded, Recording};
use phases::Ending;

/// What the recorder does. The world's hash W does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Recorder {
    /// Probes are hashed (P) and kept; the run is judged.
    #[default]
    Full,
    /// Nobody listens to probes: no P, no history, no verdict beyond panics and time limits.
    Off,
}

/// How to run, beside what to run.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RunOptions {
    pub recorder: Recorder,
    /// Instead of the plan's own schedule seed: another order of ready tasks, all else the same.
    pub schedule: Option<u64>,
    /// Keep the history in the result.
    pub keep_history: bool,
    /// Keep the world's events in the result, for finding the first divergent one.
    pub keep_trace: bool,
    /// Keep lives and messages in the result, for pictures.
    pub keep_scene: bool,
    /// Other draws of the world from an instant on.
    pub tail: Option<Tail>,
}

/// Simulated time that set-up and finale may take on top of the plan's budgets.
const SLACK: Duration = Duration::from_secs(120);

/// Runs `plan` to its end and judges it. Blocks the calling thread; the run has one of its own.
pub fn run(plan: &Plan, options: &RunOptions) -> RunResult {
    if let Err(e) = plan.validate() {
        return RunResult::harness_failed(plan, e.to_string());
    }
    let config = Config {
        schedule_seed: options.schedule.unwrap_or(plan.seeds.schedule),
        world_seed: plan.seeds.world,
        sim_limit: Duration::from_millis(plan.budgets.total_ms()) + SLACK,
        event_limit: plan.budgets.max_events,
        law: deploy::link_law(plan, None, None),
        disk: deploy::disk_law(plan),
        keep_trace: options.keep_trace,
        keep_story: options.keep_scene,
        tail: options.tail,
        ..Config::default()
    };
    let started = std::time::Instant::now();
    // Where the run's recording is put when the run does not come to its end.
    let left: Mutex<Option<Recorded>> = Mutex::new(None);
    let full = options.recorder == Recorder::Full;
    let left_in = &left;
    let out = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        on_seed(config, |world| async move {
            let recording = Recording::default();
            if full {
                recording.listen();
            }
            let guard = Rescue { recording: recording.clone(), left: left_in };
            let ending = phases::run(world, plan, recording).await;
            drop(guard);
            ending
        })
    }));
    let mut recorded = left.into_inner().ok().flatten().unwrap_or_default();
    let mut result = match out {
        Err(payload) => {
            let message = payload.downcast_ref::<String>().cloned();
            let message = message.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            RunResult::harness_failed(plan, message.unwrap_or_else(|| "panicked outside the world".into()))
        }
        Ok(Ok(finished)) => {
            let mut result = RunResult::empty(plan, Outcome::Passed);
            result.world_hash = finished.trace_hash;
            result.trace = finished.trace.iter().map(ToString::to_string).collect();
            recorded.died(&finished.story.lives);
            if options.keep_scene {
                result.scene = scene::of(&finished.story);
            }
            judge(plan, &finished.value, &mut recorded, &finished.effects, full, options.keep_history, &mut result);
            result
        }
        Ok(Err(failed)) => {
            let mut result = RunResult::empty(plan, broken(&failed));
            result.world_hash = failed.trace_hash;
            result.trace = failed.trace.iter().map(ToString::to_string).collect();
            let (faults, steps) = stats::fault_effects(&failed.effects);
            result.fault_steps = steps;
            recorded.died(&failed.story.lives);
            if options.keep_scene {
                result.scene = scene::of(&failed.story);
            }
            if options.keep_history {
                // Nothing judges it, but a person may look.
                let ended_ns = u64::try_from(failed.sim_elapsed.as_nanos()).unwrap_or(u64::MAX);
                let ending = Ending { ended_ns, ..Ending::default() };
                result.history = Some(judge::history(plan, &ending, &mut recorded, faults));
            }
            result.stats.simulated_ms = failed.sim_elapsed.as_millis() as u64;
            result
        }
    };
    result.probe_hash = full.then_some(recorded.probe_hash);
    result.stats.reached = std::mem::take(&mut recorded.reached);
    result.notes = std::mem::take(&mut recorded.facts.notes);
    result.timings.wall_us = started.elapsed().as_micros() as u64;
    result
}

/// How many schedules a committed regression is run with: its own, and others.
pub const TAILS: u64 = 20;

/// The plan with the `n`th of the schedules made from its own; 0 is its own.
pub fn with_tail(plan: &Plan, n: u64) -> Plan {
    let mut plan = plan.clone();
    if n > 0 {
        plan.seeds.schedule = seed::draw(plan.seeds.schedule, "tail", &[n]).u64();
    }
    plan
}

/// Runs `plan` with its own schedule, then with [`TAILS`] - 1 others made from it.
pub fn run_tails(plan: &Plan) -> Vec<RunResult> {
    (0..TAILS).map(|n| run(&with_tail(plan, n), &RunOptions::default())).collect()
}

/// Hands the recording out of the world however the run ends.
struct Rescue<'a> {
    recording: Recording,
    left: &'a Mutex<Option<Recorded>>,
}

impl Drop for Rescue<'_> {
    fn drop(&mut self) {
        self.recording.deafen();
        if let Ok(mut left) = self.left.lock() {
            *left = Some(self.recording.take());
        }
    }
}

fn judge(
    plan: &Plan,
    ending: &Ending,
    recorded: &mut Recorded,
    effects: &[world::Effect],
    full: bool,
    keep_history: bool,
    result: &mut RunResult,
) {
    const MS: u64 = 1_000_000;
    let (faults, steps) = stats::fault_effects(effects);
    result.fault_steps = steps;
    result.did_not_bite = stats::did_not_bite(plan, &ending.effects, effects);
    result.timings = Timings {
        healed_ms: ending.healed_ns / MS,
        converged_ms: ending.converged_ns / MS,
        drained_ms: ending.drained_ns / MS,
        wall_us: 0,
    };
    let history = judge::history(plan, ending, recorded, faults);
    result.stats = stats::stats(plan, &history, &recorded.facts, &result.did_not_bite);
    result.stats.faults_by_job_phase = stats::by_job_phase(plan, &history, &ending.effects, effects);
    // Without probes most properties have nothing to look at.
    if full {
        let verdicts = judge::verdicts(plan, &history, ending);
        result.outcome = judge::outcome(&verdicts, ending);
        result.verdicts = judge::named(verdicts);
    } else if !ending.stuck.is_empty() {
        result.outcome = Outcome::NotLive(ending.stuck.clone());
    }
    if keep_history {
        result.history = Some(history);
    }
}

/// A run that did not come to its end.
fn broken(failed: &Failed) -> Outcome {
    let at = failed.sim_elapsed;
    let liveness = |message: String| -> Outcome {
        let found = format!("it went on after {:.3} simulated seconds", at.as_secs_f64());
        let witness = Witness::default().expected("an end of the run").found(found);
        Outcome::NotLive(vec![Violation { property: "liveness".into(), message, witness, op: None }])
    };
    match &failed.why {
        Why::Panic { message, node: Some(node) } => Outcome::Panicked { node: node.clone(), message: message.clone() },
        Why::Panic { message, node: None } => Outcome::HarnessFailed { message: message.clone() },
        why => liveness(why.to_string()),
    }
}
