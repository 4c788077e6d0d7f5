//! `streamproof run`: scenarios over seeds, in worker processes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use reports::summary::Stopped;
use reports::{LineType, SeedReport, Verdict, json_line};
use scenarios::catalogue;

use super::args::{RunArgs, RunFormat};
use super::outcome::{Enough, Outcome};
use super::settings::{self, Setting};
use super::tally::Tally;
use super::{Refusal, out, suggest};
use crate::canary;
use crate::capsule::is_capsule;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::plans::{FLIGHTS, Planner, read_plan};
use crate::regressions::{self, Regression};
use crate::runner::TAILS;
use crate::selection::{Lane, Selection, Shard};
use crate::shrink::{self, End, Order, Reach};
use crate::store;
use crate::supervisor::{self, Capsules, Finished, Options};
use crate::sweep::Sweep;
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
/// With a time limit a turn of the main job's scenario is one in so many of its seeds.
const TURNS: u64 = 20;
/// Failures whose faults are tried at the end of a run, and how long each.
const QUICK_FAILURES: usize = 2;
const QUICK_BUDGET: Duration = Duration::from_secs(5);

/// `settings` are all of the verb, for `--show-config`.
pub fn run(args: RunArgs, settings: &[Setting]) -> Result<Exit, Refusal> {
    if args.show_config {
        return Ok(show(args.format, settings));
    }
    let (selection, sweep) = select(&args)?;
    if selection.total() == 0 {
        return Err(Refusal::nothing(match args.shard {
            Some(shard) => format!("shard {shard} has no seed: there are fewer seeds than shards"),
            None => "--seeds 0 selects nothing".to_owned(),
        }));
    }
    let options = options(args.jobs)?;
    let interrupt = Interrupt::listen().map_err(|e| Refusal::failed(format!("failed to listen for Ctrl-C: {e}")))?;
    eprintln!("{}", headline(&args, &selection, options.jobs));
    let mut session = Session::new(&args, &selection, sweep)?;
    let sweep = Options { capsules: session.capsules(), ..options.clone() };
    let deadline = args.limit.map(|limit| session.started + limit);
    let tasks = selection.tasks().take_while(|_| deadline.is_none_or(|at| Instant::now() < at));
    let outcome = supervisor::run(tasks, &sweep, &interrupt, |finished| session.take(finished));
    outcome.map_err(|e| Refusal::failed(format!("failed to run the {e}")))?;
    let stopped = session.stopped(&interrupt);
    let quick = !args.no_shrink && args.format != RunFormat::Json && !interrupt.is_set();
    let enough = if quick { session.enough_faults(&options, &interrupt) } else { BTreeMap::new() };
    Ok(session.end(stopped, &enough, args.junit.as_deref()))
}

fn show(format: RunFormat, settings: &[Setting]) -> Exit {
    match format {
        RunFormat::Json => {
            for Setting { name, value, origin } in settings {
                out::line(&json_line(LineType::Setting, &settings::Line { name, value, from: origin.to_string() }));
            }
        }
        RunFormat::Text | RunFormat::Github => out::data(&settings::table(settings)),
    }
    Exit::Pass
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

/// What a command line selects, checked before anything runs; of a shard also the sweep that it is a part of.
fn select(args: &RunArgs) -> Result<(Selection, Option<Sweep>), Refusal> {
    let turns = args.limit.is_some();
    let mut all =
        Selection { faults: args.faults.faults.as_ref().map(|set| set.0.clone()), turns, ..Selection::default() };
    // With a time limit there are as many seeds as there is time for.
    let endless = turns && args.seeds.is_none();
    if let (true, Some(shard)) = (endless, args.shard) {
        return Err(Refusal::usage(format!(
            "--shard {shard} is a part of --seeds: say how many there are, and --for too"
        )));
    }
    let lane = |source: Source, seeds: u64, share: u64| {
        let count = if endless { u64::MAX - args.seed } else { seeds };
        match args.seed.checked_add(count.saturating_sub(1)) {
            Some(_) => Ok(Lane { source, first: args.seed, count, share }),
            None => Err(Refusal::usage(format!("{seeds} seeds from {} go beyond 2^64 - 1", args.seed))),
        }
    };
    if let (Some(job), Some(events)) = (&args.job.job, &args.job.events) {
        if let Some(scenario) = args.scenarios.first() {
            return Err(Refusal::usage(format!("give a scenario (`{scenario}`) or --job and --events, not both")));
        }
        let source = Source::Job { job: job.clone(), events: events.clone() };
        all.lanes.push(lane(source, args.seeds.unwrap_or(DEFAULT_SEEDS), 1)?);
    } else if args.scenarios.is_empty() {
        // With --seeds 0 the main job is its kept plans alone.
        all.kept = regressions()?;
        for (name, seeds) in MAIN_JOB {
            let share = (seeds / TURNS).max(1);
            all.lanes.push(lane(Source::Scenario((*name).to_owned()), args.seeds.unwrap_or(*seeds), share)?);
        }
    } else {
        for name in &args.scenarios {
            match plan(name, args)? {
                Some(schedules) => all.kept.extend(schedules),
                None => {
                    let source = Source::Scenario(scenario(name)?);
                    all.lanes.push(lane(source, args.seeds.unwrap_or(DEFAULT_SEEDS), 1)?);
                }
            }
        }
    }
    let mut sweep = None;
    if let Some(shard) = args.shard {
        sweep = Some(Sweep::of(&all).map_err(Refusal::usage)?);
        all.shard(shard);
    }
    // A wrong job file is one clear error here, not one a worker.
    if let Some(lane) = all.lanes.iter().find(|lane| matches!(lane.source, Source::Job { .. })) {
        let mut planner = Planner::default();
        let task = Task { source: lane.source.clone(), seed: lane.first, faults: all.faults.clone() };
        planner.plan(&task).map_err(Refusal::usage)?;
        super::out::notes(planner.notes());
    }
    Ok((all, sweep))
}

/// The schedules of a plan, if a plan's file is named.
fn plan(name: &str, args: &RunArgs) -> Result<Option<Vec<Task>>, Refusal> {
    let path = Path::new(name);
    if catalogue::find(name).is_some() {
        return Ok(None); // whatever files there are
    }
    if !path.is_file() {
        return match name.ends_with(".json") {
            true => Err(Refusal::usage(format!("no plan file {name}"))),
            false => Ok(None),
        };
    }
    if is_capsule(path) {
        return Err(Refusal::usage(format!("{name} is a capsule: `streamproof replay {}` runs it", quote(name))));
    }
    if args.faults.faults.is_some() {
        return Err(Refusal::usage(format!("--faults is for scenarios: the faults of {name} are in its file")));
    }
    let seed = read_plan(path).map_err(Refusal::usage)?.seed;
    let task = |n| Task { source: Source::Schedule { plan: path.to_owned(), n }, seed, faults: None };
    Ok(Some((0..args.seeds.unwrap_or(TAILS)).map(task).collect()))
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
fn headline(args: &RunArgs, selection: &Selection, jobs: usize) -> String {
    let what = match (args.scenarios.is_empty(), &args.job.job) {
        (_, Some(job)) => format!("job {}", job.display()),
        (true, None) => {
            let first = if selection.kept.is_empty() { "" } else { "regressions, then " };
            format!("main job: {first}{} scenarios", selection.lanes.len())
        }
        (false, None) => args.scenarios.join(", "),
    };
    let seeds = match (&selection.lanes[..], args.limit, args.seeds) {
        (lanes, Some(_), None) if !lanes.is_empty() => format!("seeds from {}", args.seed),
        ([], ..) => format!("{} schedules", selection.kept.len()),
        ([lane], ..) if selection.kept.is_empty() => {
            format!("seeds {} to {}", lane.first, lane.last().unwrap_or(lane.first))
        }
        _ => format!("{} seeds from {}", selection.total(), args.seed),
    };
    let limit = args.limit.map_or_else(String::new, |limit| format!(", for {} s", limit.as_secs_f64()));
    let shard = args.shard.map_or_else(String::new, |shard| format!(", shard {shard}"));
    let workers = if jobs == 1 { "1 worker".to_owned() } else { format!("{jobs} workers") };
    format!("{what}; {seeds}{limit}{shard}; {workers}")
}

/// A run under way: gathers reports, prints them, keeps them in the store.
struct Session {
    format: RunFormat,
    started: Instant,
    limit: Option<Duration>,
    max_fail: usize,
    shard: Option<Shard>,
    tally: Tally,
    /// All tasks, and of each scenario those not finished yet, with how many there were.
    total: u64,
    left: BTreeMap<String, (u64, u64)>,
    store: Option<store::Run>,
    planner: Planner,
    /// A canary's seed that was caught, for whoever wants to see a failure: the first by name and number.
    example: Option<Task>,
    bar: indicatif::ProgressBar,
}

impl Session {
    fn new(args: &RunArgs, selection: &Selection, sweep: Option<Sweep>) -> Result<Self, Refusal> {
        let plan = |task: &Task| match &task.source {
            Source::Schedule { plan, .. } => Some(plan.clone()),
            _ => None,
        };
        let header = store::Start {
            command: std::env::args().skip(1).collect(),
            now: jiff::Timestamp::now(),
            shard: args.shard,
            sweep,
            plans: selection.kept.iter().filter_map(plan).collect(),
        };
        let store = match &args.run_dir {
            // Whoever asked for a folder wants the run there or not at all.
            Some(dir) => Some(
                store::Run::create_at(dir, header)
                    .map_err(|e| Refusal::usage(format!("--run-dir {}: {e}", dir.display())))?,
            ),
            None => store::Run::create(&store::root(), args.keep_runs, header)
                .inspect_err(|e| eprintln!("warning: this run is not kept: {}: {e}", store::root().display()))
                .ok(),
        };
        let total = selection.total();
        let endless = args.limit.is_some() && args.seeds.is_none();
        Ok(Self {
            format: args.format,
            started: Instant::now(),
            limit: args.limit,
            max_fail: args.max_fail,
            shard: args.shard,
            tally: Tally::default(),
            total,
            left: match endless {
                true => BTreeMap::new(),
                false => selection.counts().into_iter().map(|(name, n)| (name, (n, n))).collect(),
            },
            store,
            planner: Planner::default(),
            example: None,
            bar: out::bar((!endless).then_some(total)),
        })
    }

    fn capsules(&self) -> Capsules {
        let dir = self.store.as_ref().map(|store| store::capsules_dir(store.dir()));
        dir.map_or(Capsules::None, Capsules::OfFailures)
    }

    /// Whether to go on.
    fn take(&mut self, finished: Finished) -> bool {
        let Finished { task, mut report, repeated } = finished;
        self.tally.totals.repeated += u64::from(repeated);
        self.judge_canary(&task, &mut report);
        if matches!(task.source, Source::Schedule { .. }) {
            task.scenario().clone_into(&mut report.scenario); // a row of their own, whatever scenarios they come from
        }
        let kept = self.store.as_mut().map_or(Ok(()), |store| store.add(&task, &report));
        if let Err(e) = kept {
            eprintln!("warning: this run is kept no further: {e}");
            self.store = None;
        }
        if self.format == RunFormat::Json {
            out::line(&json_line(LineType::Seed, &report));
        }
        match report.verdict {
            Verdict::Inconclusive => {
                let note = report.note.as_deref().unwrap_or("no reason given");
                self.bar.suspend(|| eprintln!("inconclusive: {}: {note}", task.label()));
            }
            verdict if verdict.is_failure() => {
                self.bar.suspend(|| eprintln!("failed: {}: {}", task.label(), verdict.word()));
                self.keep_plan(&task);
            }
            _ => {}
        }
        if let Some((left, of)) = self.left.get_mut(task.scenario()) {
            *left -= 1;
            if *left == 0 && self.bar.is_hidden() {
                eprintln!("{}: {of} seeds done", task.scenario());
            }
        }
        self.tally.add(task, report);
        self.bar.inc(1);
        self.bar.set_message(match self.tally.failures.len() {
            0 => String::new(),
            n => format!("{n} failed"),
        });
        !self.failed_enough()
    }

    fn failed_enough(&self) -> bool {
        self.max_fail > 0 && self.tally.failures.len() >= self.max_fail
    }

    /// Why the run ended before its last seed, if it did.
    fn stopped(&self, interrupt: &Interrupt) -> Option<Stopped> {
        let whole = self.tally.totals.seeds() >= self.total;
        if interrupt.is_set() {
            Some(Stopped::Interrupt)
        } else if self.failed_enough() {
            Some(Stopped::Failures)
        } else {
            self.limit.filter(|limit| !whole && self.started.elapsed() >= *limit).map(|_| Stopped::Time)
        }
    }

    /// A canary's violation by the property that must catch it is what we want to see: it counts as a pass.
    fn judge_canary(&mut self, task: &Task, report: &mut SeedReport) {
        let Some(property) = canary::must_fail(task.scenario()) else { return };
        let caught = canary::caught(report);
        self.tally.canary(task.scenario(), caught);
        if caught {
            report.verdict = Verdict::Pass;
            report.failures.clear();
            report.fault_steps.clear();
            report.note = Some(format!("canary caught by {property}"));
            let place = (task.scenario(), task.seed);
            if self.example.as_ref().is_none_or(|first| place < (first.scenario(), first.seed)) {
                self.example = Some(task.clone());
            }
        }
    }

    fn keep_plan(&mut self, task: &Task) {
        // A plan that was given is kept since the start.
        if !matches!(task.source, Source::Schedule { .. })
            && let (Some(store), Ok(plan)) = (&mut self.store, self.planner.plan(task))
            && let Err(e) = store.add_plan(task, &plan)
        {
            eprintln!("warning: the plan of {}/{} is not kept: {e}", task.scenario(), task.seed);
        }
    }

    /// For the first failures of different signatures: a plan with only the faults that are enough, and how many those
    /// are of how many. By failing task.
    fn enough_faults(&self, options: &Options, interrupt: &Interrupt) -> BTreeMap<String, Enough> {
        let (mut seen, mut out) = (BTreeSet::new(), BTreeMap::new());
        let Some(store) = &self.store else { return out };
        let new = |(task, report): &&(Task, SeedReport)| {
            let known = report.signatures().first().is_some_and(|s| s.property() != reports::signature::HARNESS);
            known && task.faults.is_none() && report.signatures().first().is_some_and(|s| seen.insert(s.clone()))
        };
        for (task, _) in self.tally.failures.iter().filter(new).take(QUICK_FAILURES) {
            let Ok(plan) = Planner::default().plan(task) else { continue };
            let order = Order {
                plan,
                property: None,
                reach: Reach::Faults,
                budget: QUICK_BUDGET,
                output: store::plan_path(store.dir(), task).with_extension("faults.json"),
                journal: false,
            };
            eprintln!("{}: trying which faults are enough", task.label());
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
    fn end(mut self, stopped: Option<Stopped>, enough: &BTreeMap<String, Enough>, junit: Option<&Path>) -> Exit {
        self.bar.finish_and_clear();
        // What a whole run must see, its shards see together.
        let lines = match (stopped, self.shard) {
            (None, None) => self.tally.judge_whole(),
            (Some(Stopped::Time), None) => self.tally.judge_long(),
            _ => Vec::new(),
        };
        for line in lines {
            eprintln!("{line}");
        }
        let wall_ms = self.started.elapsed().as_millis() as u64;
        let summary = self.tally.summary(wall_ms, stopped);
        if stopped == Some(Stopped::Failures) {
            eprintln!("stopped after {} failing seeds: --max-fail allows more", self.max_fail);
        }
        let kept = self.store.take().and_then(|store| {
            let (name, dir) = (store.name(), store.dir().to_owned());
            match store.finish(&summary) {
                Ok(()) => Some((name, dir)),
                Err(e) => {
                    eprintln!("warning: this run is not kept whole: {e}");
                    None
                }
            }
        });
        let told = Outcome {
            summary: &summary,
            failures: &self.tally.failures,
            undecided: &self.tally.undecided,
            capsule: &|task| store::capsule(&kept.as_ref()?.1, task),
            enough,
            kept: kept.as_ref().map(|(name, dir)| (name.as_str(), dir.as_path())),
            format: self.format,
            junit,
        };
        let exit = self.tally.exit.worst(told.tell());
        if let (Some(task), Exit::Pass, RunFormat::Text) = (&self.example, exit, self.format) {
            out::line(&format!("see a canary fail: {}", task.replay_command()));
        }
        exit
    }
}
