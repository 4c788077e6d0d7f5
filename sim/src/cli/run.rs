//! `streamproof run`: scenarios over seeds, in worker processes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reports::story::{Next, Smaller};
use reports::{SeedReport, Totals, Verdict, ci, json_line, story};
use scenarios::Entry;
use scenarios::catalogue;

use super::args::{Format, RunArgs};
use super::{Refusal, out, suggest};
use crate::canary;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::plans::{FLIGHTS, Planner};
use crate::regressions::{self, Regression};
use crate::shrink::{self, End, Order, Reach};
use crate::store;
use crate::supervisor::{self, Capsules, Finished, Options};
use crate::task::{Source, Task, quote};

/// Seeds of each scenario in the main job: some four minutes on two cores.
const MAIN_JOB: &[(&str, u64)] = &[
    ("smoke", 100),
    ("crash_restart", 200),
    ("power_loss", 200),
    ("duplicates", 200),
    ("reordering", 100),
    ("idle_partition", 100),
    ("checkpoint_crash", 150),
    ("leader_failover", 60),
    ("network_partition", 60),
    ("rolling_restart", 60),
    ("correlated_power_loss", 60),
    ("truncation", 60),
    ("unclean_election", 60),
    ("compaction", 60),
    ("coordinator_crash", 60),
    ("zombie_producer", 60),
    ("hanging_transaction", 60),
    ("late_messages", 60),
    ("rebalance_storm", 60),
    ("swarm", 400),
    (FLIGHTS, 8),
    ("canary_page_cache", 20),
    ("canary_at_least_once", 20),
];

const DEFAULT_SEEDS: u64 = 200;
/// Failing seeds after which a run stops: more of them rarely say more.
const MAX_FAILURES: usize = 5;
/// Failures whose faults are tried at the end of a run, and how long each.
const QUICK_FAILURES: usize = 2;
const QUICK_BUDGET: Duration = Duration::from_secs(5);
/// Seeds of a scenario from which on its rare states must have been reached.
const REACH_SEEDS: u64 = 200;

pub fn run(args: RunArgs) -> Result<Exit, Refusal> {
    let mut tasks = select(&args)?;
    // With --seeds 0 the main job is its kept plans alone.
    if args.scenarios.is_empty() && args.job.job.is_none() {
        tasks.splice(0..0, regressions()?);
    }
    if tasks.is_empty() {
        return Err(Refusal::nothing("--seeds 0 selects nothing"));
    }
    let options = options(args.jobs)?;
    let interrupt = Interrupt::listen().map_err(|e| Refusal::failed(format!("failed to listen for Ctrl-C: {e}")))?;
    eprintln!("{}", headline(&args, &tasks, options.jobs));
    let mut session = Session::new(args.format, &tasks);
    let sweep = Options { capsules: session.capsules(), ..options.clone() };
    let outcome = supervisor::run(tasks.into_iter(), &sweep, &interrupt, |finished| session.take(finished));
    outcome.map_err(|e| Refusal::failed(format!("failed to run the {e}")))?;
    let quick = !args.no_shrink && args.format == Format::Text && !interrupt.is_set();
    let enough = if quick { session.enough_faults(&options, &interrupt) } else { BTreeMap::new() };
    Ok(session.end(interrupt.is_set(), &enough, args.junit.as_deref()))
}

/// The kept plans, which a main job runs first.
fn regressions() -> Result<Vec<Task>, Refusal> {
    let all = regressions::read_all(Path::new(regressions::DIR)).map_err(Refusal::usage)?;
    if let Some(why) = all.iter().find_map(|one| one.plan.as_ref().err()) {
        return Err(Refusal::usage(format!("{why}; `streamproof regress prune` drops plans that this build refuses")));
    }
    Ok(all.iter().flat_map(Regression::tasks).collect())
}

/// # Errors
/// If the program's own path is unknown.
pub fn options(jobs: Option<usize>) -> Result<Options, Refusal> {
    let exe = std::env::current_exe().map_err(|e| Refusal::failed(format!("failed to find this program: {e}")))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Options::new(exe, jobs.unwrap_or(cores)))
}

/// The tasks of a command line, checked before anything runs.
fn select(args: &RunArgs) -> Result<Vec<Task>, Refusal> {
    let faults = args.faults.faults.as_ref().map(|set| set.0.clone());
    let first = args.seed.unwrap_or(0);
    let mut tasks = Vec::new();
    let mut add = |source: Source, seeds: u64| {
        let last = first.checked_add(seeds.saturating_sub(1));
        if last.is_none() {
            return Err(Refusal::usage(format!("{seeds} seeds from {first} go beyond 2^64 - 1")));
        }
        tasks.extend((0..seeds).map(|i| Task { source: source.clone(), seed: first + i, faults: faults.clone() }));
        Ok(())
    };
    if let (Some(job), Some(events)) = (&args.job.job, &args.job.events) {
        if let Some(scenario) = args.scenarios.first() {
            return Err(Refusal::usage(format!("give a scenario (`{scenario}`) or --job and --events, not both")));
        }
        add(Source::Job { job: job.clone(), events: events.clone() }, args.seeds.unwrap_or(DEFAULT_SEEDS))?;
    } else if args.scenarios.is_empty() {
        for (name, seeds) in MAIN_JOB {
            add(Source::Scenario((*name).to_owned()), args.seeds.unwrap_or(*seeds))?;
        }
    } else {
        for name in &args.scenarios {
            add(Source::Scenario(scenario(name)?), args.seeds.unwrap_or(DEFAULT_SEEDS))?;
        }
    }
    // A wrong job file is one clear error here, not one a worker.
    if let Some(task) = tasks.iter().find(|t| matches!(t.source, Source::Job { .. })) {
        let mut planner = Planner::default();
        planner.plan(task).map_err(Refusal::usage)?;
        super::out::notes(planner.notes());
    }
    Ok(tasks)
}

/// A scenario that runs without files of the user's.
///
/// # Errors
/// A sentence with the nearest name.
pub fn scenario(name: &str) -> Result<String, Refusal> {
    if catalogue::find(name).is_none() {
        let names: Vec<&str> = catalogue::list().iter().map(|e| e.name).collect();
        let hint = suggest::sentence(name, &names);
        let message = format!("unknown scenario `{name}`{hint}; `streamproof list scenarios` names them all");
        return Err(Refusal::usage(message));
    }
    if name == "job" {
        return Err(Refusal::usage("scenario `job` is your own: give --job and --events instead"));
    }
    Ok(name.to_owned())
}

/// The run's options, whole, so that a pasted log can be run again.
fn headline(args: &RunArgs, tasks: &[Task], jobs: usize) -> String {
    let mut per_source: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for task in tasks {
        let (low, high, count) = per_source.entry(task.scenario()).or_insert((u64::MAX, 0, 0));
        *low = (*low).min(task.seed);
        *high = (*high).max(task.seed);
        *count += 1;
    }
    let what = match (args.scenarios.is_empty(), &args.job.job) {
        (_, Some(job)) => format!("job {}", job.display()),
        (true, None) => {
            let kept = per_source.contains_key("regressions");
            let first = if kept { "regressions, then " } else { "" };
            format!("main job: {first}{} scenarios", per_source.len() - usize::from(kept))
        }
        (false, None) => args.scenarios.join(", "),
    };
    let seeds = match per_source.values().collect::<Vec<_>>()[..] {
        [(low, high, _)] => format!("seeds {low} to {high}"),
        _ => format!("{} seeds from {}", tasks.len(), args.seed.unwrap_or(0)),
    };
    let workers = if jobs == 1 { "1 worker".to_owned() } else { format!("{jobs} workers") };
    format!("{what}; {seeds}; {workers}")
}

/// A run under way: gathers reports, prints them, keeps them in the store.
struct Session {
    format: Format,
    started: Instant,
    totals: Totals,
    failures: Vec<(Task, SeedReport)>,
    inconclusive: u64,
    exit: Exit,
    /// Of each canary: whether it was caught.
    canaries: BTreeMap<String, bool>,
    seeds: BTreeMap<String, u64>,
    /// Of each scenario: seeds with every fault family, and the rare states they reached.
    reached: BTreeMap<String, (u64, BTreeSet<String>)>,
    /// Of each scenario: seeds not finished yet.
    left: BTreeMap<String, u64>,
    store: Option<store::Run>,
    planner: Planner,
    bar: indicatif::ProgressBar,
}

impl Session {
    fn new(format: Format, tasks: &[Task]) -> Self {
        let mut left: BTreeMap<String, u64> = BTreeMap::new();
        for task in tasks {
            *left.entry(task.scenario().to_owned()).or_default() += 1;
        }
        let command = std::env::args().skip(1).collect();
        let store = store::Run::create(&store::root(), command, jiff::Timestamp::now())
            .inspect_err(|e| eprintln!("warning: this run is not kept: {}: {e}", store::root().display()))
            .ok();
        Self {
            format,
            started: Instant::now(),
            totals: Totals::default(),
            failures: Vec::new(),
            inconclusive: 0,
            exit: Exit::Pass,
            canaries: BTreeMap::new(),
            seeds: BTreeMap::new(),
            reached: BTreeMap::new(),
            store,
            planner: Planner::default(),
            left,
            bar: out::bar(tasks.len() as u64),
        }
    }

    fn capsules(&self) -> Capsules {
        let dir = self.store.as_ref().map(|store| store::capsules_dir(store.dir()));
        dir.map_or(Capsules::None, Capsules::OfFailures)
    }

    /// Whether to go on.
    fn take(&mut self, finished: Finished) -> bool {
        let Finished { task, mut report, repeated } = finished;
        self.totals.repeated += u64::from(repeated);
        let task_name = task.scenario().to_owned();
        if matches!(task.source, Source::Schedule { .. }) {
            report.scenario.clone_from(&task_name); // a row of their own, whatever scenarios they come from
        }
        *self.seeds.entry(task_name.clone()).or_default() += 1;
        if task.faults.is_none() {
            let (seeds, labels) = self.reached.entry(task_name.clone()).or_default();
            *seeds += 1;
            labels.extend(report.stats.reached.iter().cloned());
        }
        self.judge_canary(&task, &mut report);
        self.totals.add(&report);
        self.exit = self.exit.worst(Exit::of(report.verdict));
        let kept = self.store.as_mut().map_or(Ok(()), |store| store.add(&task, &report));
        if let Err(e) = kept {
            eprintln!("warning: this run is kept no further: {e}");
            self.store = None;
        }
        if self.format == Format::Json {
            out::line(&json_line("seed", &report));
        }
        match report.verdict {
            Verdict::Inconclusive => {
                self.inconclusive += 1;
                let note = report.note.as_deref().unwrap_or("no reason given");
                self.bar.suspend(|| eprintln!("inconclusive: {}/{}: {note}", task.scenario(), task.seed));
            }
            verdict if verdict.is_failure() => {
                self.bar.suspend(|| eprintln!("failed: {}/{}: {}", task.scenario(), task.seed, verdict.word()));
                self.keep_plan(&task);
                self.failures.push((task, report));
            }
            _ => {}
        }
        if let Some(left) = self.left.get_mut(task_name.as_str()) {
            *left -= 1;
            if *left == 0 && self.bar.is_hidden() {
                eprintln!("{task_name}: {} seeds done", self.seeds.get(&task_name).copied().unwrap_or(0));
            }
        }
        self.bar.inc(1);
        self.bar.set_message(match self.failures.len() {
            0 => String::new(),
            n => format!("{n} failed"),
        });
        self.failures.len() < MAX_FAILURES
    }

    /// A canary's violation by the property that must catch it is what we want to see: it counts as a pass.
    fn judge_canary(&mut self, task: &Task, report: &mut SeedReport) {
        let Some(property) = canary::must_fail(task.scenario()) else { return };
        let caught = canary::caught(report);
        *self.canaries.entry(task.scenario().to_owned()).or_default() |= caught;
        if caught {
            report.verdict = Verdict::Pass;
            report.failures.clear();
            report.fault_steps.clear();
            report.note = Some(format!("canary caught by {property}"));
        }
    }

    fn keep_plan(&mut self, task: &Task) {
        // A kept plan has its file already.
        if !matches!(task.source, Source::Schedule { .. })
            && let (Some(store), Ok(plan)) = (&mut self.store, self.planner.plan(task))
            && let Err(e) = store.add_plan(task, &plan)
        {
            eprintln!("warning: the plan of {}/{} is not kept: {e}", task.scenario(), task.seed);
        }
    }

    /// For the first failures of different signatures: a plan with only the faults that are enough, and how many those
    /// are of how many. By failing task.
    fn enough_faults(&self, options: &Options, interrupt: &Interrupt) -> BTreeMap<String, (PathBuf, u64, u64)> {
        let (mut seen, mut out) = (BTreeSet::new(), BTreeMap::new());
        let Some(store) = &self.store else { return out };
        let new = |(task, report): &&(Task, SeedReport)| {
            let known = report.signatures().first().is_some_and(|s| s.property() != reports::signature::HARNESS);
            known && task.faults.is_none() && report.signatures().first().is_some_and(|s| seen.insert(s.clone()))
        };
        for (task, _) in self.failures.iter().filter(new).take(QUICK_FAILURES) {
            let Ok(plan) = Planner::default().plan(task) else { continue };
            let order = Order {
                plan,
                property: None,
                reach: Reach::Faults,
                budget: QUICK_BUDGET,
                output: store::plan_path(store.dir(), task).with_extension("faults.json"),
                journal: false,
            };
            eprintln!("{}/{}: trying which faults are enough", task.scenario(), task.seed);
            // A quick look must not spoil the run it looks at: what it cannot say, `shrink` will.
            if let Ok(End::Shrunk(found)) = shrink::shrink(&order, options, interrupt, &mut |_| {})
                && found.cuts > 0
            {
                out.insert(task.replay_command(), (order.output, found.after.faults, found.before.faults));
            }
        }
        out
    }

    /// Prints summary, then failures; the exit code.
    fn end(mut self, interrupted: bool, enough: &BTreeMap<String, (PathBuf, u64, u64)>, junit: Option<&Path>) -> Exit {
        self.bar.finish_and_clear();
        let complete = !interrupted && self.failures.len() < MAX_FAILURES;
        if complete {
            if self.canaries.values().any(|caught| !caught) {
                self.exit = self.exit.worst(Exit::Blind);
            }
            for (scenario, label) in not_reached(&self.reached) {
                eprintln!("not reached: {scenario}: {label}");
                self.exit = self.exit.worst(Exit::NotReached);
            }
        }
        if interrupted {
            self.exit = self.exit.worst(Exit::Interrupted);
        }
        self.totals.canaries = std::mem::take(&mut self.canaries);
        let wall_ms = self.started.elapsed().as_millis() as u64;
        let summary = self.totals.summary(wall_ms, interrupted, self.exit.code());
        if self.failures.len() >= MAX_FAILURES {
            eprintln!("stopped after {MAX_FAILURES} failing seeds");
        }
        let stored = self.store.take().and_then(|store| {
            let id = store.id.clone();
            match store.finish(&summary) {
                Ok(()) => Some(id),
                Err(e) => {
                    eprintln!("warning: this run is not kept whole: {e}");
                    None
                }
            }
        });
        self.failures.sort_by(|a, b| (a.0.scenario(), a.0.seed).cmp(&(b.0.scenario(), b.0.seed)));
        match self.format {
            Format::Json => {
                for (task, report) in &self.failures {
                    out::line(&failure_line(task, report));
                }
                out::line(&json_line("summary", &summary));
            }
            Format::Text => {
                out::data(&summary.text());
                if let (Some(id), false) = (&stored, self.failures.is_empty()) {
                    out::line(&format!("kept: streamproof replay {id} runs all its failures again"));
                }
                for (task, report) in &self.failures {
                    out::line("");
                    let replay = task.replay_command();
                    let mut next = next(task, report);
                    next.capsule = stored
                        .as_ref()
                        .and_then(|id| store::capsule(id, task))
                        .map(|path| quote(&path.display().to_string()));
                    if let (Some(smaller), Some((path, few, all))) = (&mut next.smaller, enough.get(&replay)) {
                        smaller.enough = Some((*few, *all));
                        let plan = Task { source: Source::Plan(path.clone()), ..task.clone() };
                        smaller.command = plan.shrink_command();
                    }
                    out::data(&story::text(report, &next));
                }
            }
        }
        self.exit = self.exit.worst(self.tell_ci(&summary, junit));
        self.exit
    }

    /// JUnit's file if asked for; annotations and step summary where GitHub runs it.
    fn tell_ci(&self, summary: &reports::Summary, junit: Option<&Path>) -> Exit {
        let replays: Vec<String> = self.failures.iter().map(|(task, _)| task.replay_command()).collect();
        let failing: Vec<ci::Failing<'_>> =
            self.failures.iter().zip(&replays).map(|((_, report), replay)| ci::Failing { report, replay }).collect();
        if std::env::var_os("GITHUB_ACTIONS").is_some() {
            // On stderr: stdout is data, and GitHub reads both.
            eprint!("{}", ci::annotations(&failing));
            if let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY") {
                let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
                let text = ci::step_summary(summary, &failing);
                if let Err(e) = file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes())) {
                    eprintln!("warning: no step summary: {e}");
                }
            }
        }
        match junit.map(|path| (path, std::fs::write(path, ci::junit(summary, &failing)))) {
            Some((path, Err(e))) => {
                eprintln!("error: {}: {e}", path.display());
                Exit::Failed
            }
            _ => Exit::Pass,
        }
    }
}

/// Rare states that a scenario must reach and a run, long enough to demand it, did not.
fn not_reached(reached: &BTreeMap<String, (u64, BTreeSet<String>)>) -> Vec<(&'static str, &'static str)> {
    let of = |entry: &Entry| {
        let (seeds, labels) = reached.get(entry.name)?;
        let missing = entry.rare.iter().filter(|label| !labels.contains(**label));
        (*seeds >= REACH_SEEDS).then(|| missing.map(|label| (entry.name, *label)).collect::<Vec<_>>())
    };
    catalogue::list().iter().filter_map(of).flatten().collect()
}

/// What can be done about a failure: some have nothing to explain or to make small.
pub fn next(task: &Task, report: &SeedReport) -> Next {
    let told = !report.signatures().is_empty();
    Next {
        replay: task.replay_command(),
        explain: told.then(|| task.explain_command()),
        capsule: None,
        smaller: told.then(|| Smaller { command: task.shrink_command(), enough: None }),
    }
}

/// A failure as a JSON line: the report with the command that replays it.
pub fn failure_line(task: &Task, report: &SeedReport) -> String {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        report: &'a SeedReport,
        replay: String,
    }
    json_line("failure", &Line { report, replay: task.replay_command() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sweep_must_reach_its_rare_states() {
        let rare = catalogue::find("swarm").unwrap().rare;
        let last = rare.last().unwrap();
        let all = rare.iter().map(|label| (*label).to_owned()).collect();
        let mut reached = BTreeMap::from([("swarm".to_owned(), (REACH_SEEDS, all))]);
        assert_eq!(not_reached(&reached), []);
        let (seeds, labels) = reached.get_mut("swarm").unwrap();
        labels.remove(*last);
        *seeds -= 1;
        assert_eq!(not_reached(&reached), []);
        reached.get_mut("swarm").unwrap().0 = REACH_SEEDS;
        assert_eq!(not_reached(&reached), [("swarm", *last)]);
    }
}
