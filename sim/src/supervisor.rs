//! Runs tasks in worker processes.
//!
//! Guarantees: each task is answered by exactly one report, whatever its worker does; a seed that runs longer than
//! the time limit or grows over the memory limit is killed with its worker and reported inconclusive; every failure,
//! and one pass in [`Options::repeat_every`], runs a second time in a fresh process, and a difference is reported as
//! not deterministic. Which pass is repeated depends on the seed alone. The same workers serve sweeps and
//! [`crate::shrink`], whose candidates fail by the hundred and are not repeated.
//!
//! ```text
//! queue --> slot 0 --pipe--> worker process (recycled after Options::recycle_after seeds)
//!      \--> slot 1 --pipe--> worker process        |
//!                 \----- SeedReport --channel--> caller
//! ```
//!
//! One thread a slot, one more that reads its worker's stdout. Judging belongs to the worker, exit codes to the CLI.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use reports::{SeedReport, Verdict};

use crate::interrupt::Interrupt;
use crate::store::capsule_name;
use crate::task::{Answer, Keep, Request, Task, VERSION, WORKER_VERB};

/// How the worker is watched. [`Options::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// The worker's program; it is started with [`WORKER_VERB`].
    pub worker: PathBuf,
    /// Worker processes.
    pub jobs: usize,
    /// Wall-clock time of one seed.
    pub time_limit: Duration,
    /// Resident memory of one worker, in bytes.
    pub memory_limit: u64,
    /// Seeds after which a worker is replaced: what leaks a little in each seed stays bounded.
    pub recycle_after: u32,
    /// One pass in this many is repeated in a fresh process; 0 repeats none.
    pub repeat_every: u64,
    /// Whether each failure is repeated in a fresh process.
    pub repeat_failures: bool,
    /// Where capsules go.
    pub capsules: Capsules,
}

/// Which runs leave a capsule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Capsules {
    #[default]
    None,
    /// Failures, except of canaries that are caught: in this folder, by [`crate::store::capsule_name`].
    OfFailures(PathBuf),
    /// Whatever it comes to: in this file. For one task.
    Always(PathBuf),
}

impl Capsules {
    fn of(&self, task: &Task) -> Option<Keep> {
        match self {
            Capsules::None => None,
            Capsules::OfFailures(dir) => Some(Keep { path: dir.join(capsule_name(task)), always: false }),
            Capsules::Always(path) => Some(Keep { path: path.clone(), always: true }),
        }
    }
}

impl Options {
    pub fn new(worker: PathBuf, jobs: usize) -> Self {
        Self {
            worker,
            jobs,
            time_limit: Duration::from_secs(60),
            memory_limit: 2 << 30,
            recycle_after: 200,
            repeat_every: 20,
            repeat_failures: true,
            capsules: Capsules::None,
        }
    }
}

/// A finished task.
#[derive(Debug)]
pub struct Finished {
    pub task: Task,
    pub report: SeedReport,
    /// Whether it ran a second time.
    pub repeated: bool,
}

/// Signals by which people and engines end a process (POSIX).
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// How often a waiting slot looks at the clock, the worker's memory and the interrupt.
const TICK: Duration = Duration::from_millis(100);
/// How long a seed that is under way may still run after an interrupt.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the tasks, handing each result to `on_finished` on the calling thread. Stops early, without starting another
/// task, once `on_finished` returns false or the interrupt is set; tasks under way then finish, or are dropped after
/// [`GRACE`].
///
/// # Errors
/// If a worker process cannot be started at all.
pub fn run(
    tasks: impl Iterator<Item = Task> + Send,
    options: &Options,
    interrupt: &Interrupt,
    mut on_finished: impl FnMut(Finished) -> bool,
) -> std::io::Result<()> {
    let mut error = None;
    drive(tasks, options, interrupt, |event| match event {
        Ok(finished) => on_finished(finished),
        Err(e) => {
            error = Some(e);
            false
        }
    });
    error.map_or(Ok(()), Err)
}

/// The same for tasks that are made while others run: `tasks` may wait inside `next`, and `on_event` hears at once of a
/// worker process that cannot be started, so that it can end them.
pub fn drive(
    tasks: impl Iterator<Item = Task> + Send,
    options: &Options,
    interrupt: &Interrupt,
    mut on_event: impl FnMut(std::io::Result<Finished>) -> bool,
) {
    let stop = Interrupt::default();
    let queue = Mutex::new(tasks);
    let ids = AtomicU64::new(0);
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            let mut slot = Slot { options, interrupt, stop: &stop, ids: &ids, worker: None };
            let (queue, send, stop) = (&queue, send.clone(), &stop);
            scope.spawn(move || {
                while !interrupt.is_set() && !stop.is_set() {
                    let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                    let Some(task) = next else { break };
                    let outcome = slot.run(&task);
                    let failed = outcome.is_err();
                    if send.send((task, outcome)).is_err() || failed {
                        break;
                    }
                }
            });
        }
        drop(send);
        for (task, outcome) in receive {
            let event = match outcome {
                Ok(Some((report, repeated))) => Ok(Finished { task, report, repeated }),
                Ok(None) => continue, // interrupted half way: it counts as never started
                Err(e) => Err(e),
            };
            let failed = event.is_err();
            if !on_event(event) || failed {
                stop.set();
            }
        }
    });
}

struct Slot<'a> {
    options: &'a Options,
    interrupt: &'a Interrupt,
    stop: &'a Interrupt,
    ids: &'a AtomicU64,
    worker: Option<Worker>,
}

impl Slot<'_> {
    /// The report and whether it was repeated; nothing if interrupted before the end.
    fn run(&mut self, task: &Task) -> std::io::Result<Option<(SeedReport, bool)>> {
        let Some(first) = self.attempt(task)? else { return Ok(None) };
        let sampled = self.options.repeat_every > 0 && task.seed.is_multiple_of(self.options.repeat_every);
        let repeat = match first.verdict {
            Verdict::Inconclusive => false,
            Verdict::Pass => sampled,
            _ => self.options.repeat_failures,
        };
        if !repeat || self.stopping() {
            return Ok(Some((first, false)));
        }
        self.worker = None; // a fresh process: nothing that the first one remembers can help
        let Some(second) = self.attempt(task)? else { return Ok(Some((first, false))) };
        // A repeat that did not end says nothing about determinism.
        if second.verdict == Verdict::Inconclusive || first.same_trace(&second) {
            return Ok(Some((first, true)));
        }
        let note = format!(
            "repeated in a fresh process it differed: {} (world {}, probes {}), then {} (world {}, probes {})",
            first.verdict.word(),
            first.world_hash,
            first.probe_hash,
            second.verdict.word(),
            second.world_hash,
            second.probe_hash
        );
        let report = SeedReport { verdict: Verdict::NotDeterministic, note: Some(note), ..first };
        Ok(Some((report, true)))
    }

    fn stopping(&self) -> bool {
        self.interrupt.is_set() || self.stop.is_set()
    }

    fn attempt(&mut self, task: &Task) -> std::io::Result<Option<SeedReport>> {
        if self.worker.as_ref().is_some_and(|w| w.seeds >= self.options.recycle_after) {
            self.worker = None;
        }
        let worker = match &mut self.worker {
            Some(worker) => worker,
            none => none.insert(Worker::start(&self.options.worker)?),
        };
        worker.seeds += 1;
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        let end = match worker.send(id, task, self.options.capsules.of(task)) {
            Ok(()) => wait(worker, id, started, self.options, self.interrupt, self.stop),
            Err(e) => End::Died(format!("its worker took no request: {e}")),
        };
        let unfinished = |verdict, note: String| {
            let mut report = SeedReport::unfinished(task.scenario(), task.seed, verdict, note);
            report.wall_ms = started.elapsed().as_millis() as u64;
            report
        };
        let report = match end {
            End::Answer(report) => return Ok(Some(*report)),
            End::Interrupted => {
                self.worker = None;
                return Ok(None);
            }
            End::Died(why) => {
                let status = self.worker.take().and_then(Worker::status);
                // A job that is ended tells all its processes: the worker heard it first.
                if status.is_some_and(|status| matches!(status.signal(), Some(SIGINT | SIGTERM))) {
                    self.interrupt.set();
                    return Ok(None);
                }
                let status = status.map_or_else(String::new, |status| format!(" ({status})"));
                unfinished(Verdict::HarnessFailed, format!("{why}{status}"))
            }
            End::TooLong => unfinished(
                Verdict::Inconclusive,
                format!("stopped by the watchdog after {} s", self.options.time_limit.as_secs_f64()),
            ),
            End::TooLarge(bytes) => unfinished(
                Verdict::Inconclusive,
                format!("stopped at {} MiB of memory (limit {} MiB)", bytes >> 20, self.options.memory_limit >> 20),
            ),
        };
        self.worker = None;
        Ok(Some(report))
    }
}

enum End {
    Answer(Box<SeedReport>),
    Died(String),
    TooLong,
    TooLarge(u64),
    Interrupted,
}

fn wait(worker: &Worker, id: u64, started: Instant, options: &Options, interrupt: &Interrupt, stop: &Interrupt) -> End {
    let mut stopped_at = None;
    loop {
        match worker.answers.recv_timeout(TICK) {
            Ok(line) => {
                return match serde_json::from_str::<Answer>(&line) {
                    Ok(a) if a.version == VERSION && a.id == id => End::Answer(Box::new(a.report)),
                    Ok(a) => End::Died(format!("its worker answered {} of version {}, not {id}", a.id, a.version)),
                    Err(e) => End::Died(format!("its worker's answer is unreadable: {e}")),
                };
            }
            Err(RecvTimeoutError::Disconnected) => return End::Died("its worker process died".into()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if started.elapsed() > options.time_limit {
            return End::TooLong;
        }
        if let Some(bytes) = worker.resident_bytes().filter(|bytes| *bytes > options.memory_limit) {
            return End::TooLarge(bytes);
        }
        if interrupt.is_set() || stop.is_set() {
            let since = *stopped_at.get_or_insert_with(Instant::now);
            if since.elapsed() > GRACE {
                return End::Interrupted;
            }
        }
    }
}

/// A worker process; dropping it kills the process.
struct Worker {
    child: Child,
    stdin: ChildStdin,
    answers: mpsc::Receiver<String>,
    seeds: u32,
}

impl Worker {
    fn start(program: &PathBuf) -> std::io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut child = Command::new(program)
            .arg(WORKER_VERB)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A terminal's Ctrl-C goes to the foreground process group: the supervisor alone decides what it means.
            .process_group(0)
            .spawn()
            .map_err(|e| std::io::Error::new(e.kind(), format!("worker {}: {e}", program.display())))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::Error::other("worker has no pipes"));
        };
        let (send, answers) = mpsc::channel();
        // Ends with the worker: its stdout closes.
        std::thread::Builder::new().name("worker-answers".into()).spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                if send.send(line).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { child, stdin, answers, seeds: 0 })
    }

    fn send(&mut self, id: u64, task: &Task, capsule: Option<Keep>) -> std::io::Result<()> {
        let mut line = serde_json::to_string(&Request { version: VERSION, id, task: task.clone(), capsule })?;
        line.push('\n');
        self.stdin.write_all(line.as_bytes())
    }

    /// Resident memory in bytes; `None` where /proc does not say.
    fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?.trim();
        kib.parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// How it ended; waits for the end.
    fn status(mut self) -> Option<ExitStatus> {
        // Its pipes are closed or nonsense: do not wait for one that lingers.
        for _ in 0..20 {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Err(_) => break,
            }
        }
        None
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::task::Source;

    /// A worker made of a shell script: `$id` and `$seed` are the request's, `$out` is a directory that outlives it.
    fn script(dir: &tempfile::TempDir, body: &str) -> Options {
        let path = dir.path().join("worker");
        let text = format!(
            r#"#!/bin/sh
out='{}'
echo started >>"$out/starts"
report() {{ # verdict, world hash
    printf '{{"version":1,"id":%s,"report":{{"version":1,"scenario":"s","seed":%s,"verdict":"%s","world_hash":"%s","probe_hash":"","stats":{{"simulated_ms":0,"records":0,"windows":0,"checkpoints":0,"events_checked":0,"restored_non_empty":false,"faults":{{}},"families_off":[],"reached":[]}},"wall_ms":1}}}}\n' "$id" "$seed" "$1" "$2"
}}
while read -r line; do
    id=$(echo "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
    seed=$(echo "$line" | sed 's/.*"seed":\([0-9]*\).*/\1/')
    {body}
done
"#,
            dir.path().display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Options { repeat_every: 0, ..Options::new(path, 2) }
    }

    fn run_seeds(seeds: std::ops::Range<u64>, options: &Options) -> Vec<Finished> {
        let tasks = seeds.map(|seed| Task { source: Source::Scenario("s".into()), seed, faults: None });
        let mut all = Vec::new();
        run(tasks, options, &Interrupt::default(), |f| {
            all.push(f);
            true
        })
        .unwrap();
        all.sort_by_key(|f| f.task.seed);
        all
    }

    fn starts(dir: &tempfile::TempDir) -> usize {
        std::fs::read_to_string(dir.path().join("starts")).unwrap().lines().count()
    }

    #[test]
    fn answers_each_task_once() {
        let dir = tempfile::tempdir().unwrap();
        let all = run_seeds(0..20, &script(&dir, "report pass aa"));
        assert_eq!(all.iter().map(|f| f.report.seed).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        assert!(all.iter().all(|f| f.report.verdict == Verdict::Pass && !f.repeated));
    }

    #[test]
    fn a_seed_that_hangs_is_inconclusive_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = script(&dir, r#"if [ "$seed" = 1 ]; then exec sleep 100; fi; report pass aa"#);
        options.time_limit = Duration::from_millis(1500);
        let all = run_seeds(0..4, &options);
        let verdicts: Vec<Verdict> = all.iter().map(|f| f.report.verdict).collect();
        assert_eq!(verdicts, [Verdict::Pass, Verdict::Inconclusive, Verdict::Pass, Verdict::Pass]);
        assert_eq!(all[1].report.note.as_deref(), Some("stopped by the watchdog after 1.5 s"));
    }

    #[test]
    fn a_worker_over_the_memory_limit_is_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = script(&dir, "sleep 2; report pass aa");
        options.memory_limit = 4096;
        let all = run_seeds(0..1, &options);
        assert_eq!(all[0].report.verdict, Verdict::Inconclusive);
        assert!(all[0].report.note.as_deref().unwrap_or_default().contains("of memory"), "{:?}", all[0].report.note);
    }

    #[test]
    fn a_worker_that_dies_or_babbles_is_a_failure_of_ours() {
        for (body, note) in [("exit 3", "its worker process died (exit status: 3)"), ("echo hello", "unreadable")] {
            let dir = tempfile::tempdir().unwrap();
            let all = run_seeds(0..1, &script(&dir, body));
            assert_eq!(all[0].report.verdict, Verdict::HarnessFailed);
            assert!(all[0].report.note.as_deref().unwrap_or_default().contains(note), "{:?}", all[0].report.note);
        }
    }

    #[test]
    fn a_worker_that_is_told_to_end_ends_the_run_in_peace() {
        let dir = tempfile::tempdir().unwrap();
        let body = r#"if [ "$seed" = 2 ]; then kill -TERM $$; fi; report pass aa"#;
        let options = Options { jobs: 1, ..script(&dir, body) };
        let tasks = (0..9).map(|seed| Task { source: Source::Scenario("s".into()), seed, faults: None });
        let (interrupt, mut seeds) = (Interrupt::default(), Vec::new());
        run(tasks, &options, &interrupt, |finished| {
            seeds.push(finished.task.seed);
            true
        })
        .unwrap();
        assert!(interrupt.is_set());
        assert_eq!(seeds, [0, 1]);
    }

    #[test]
    fn failures_and_samples_are_repeated_in_a_fresh_process() {
        let dir = tempfile::tempdir().unwrap();
        // Seed 3 fails the same way twice; seed 4 fails with a hash that tells its process.
        let body = r#"case "$seed" in 3) report unsafe cc;; 4) report unsafe "$$";; *) report pass aa;; esac"#;
        let options = Options { repeat_every: 10, jobs: 1, ..script(&dir, body) };
        let all = run_seeds(0..6, &options);
        let verdicts: Vec<(Verdict, bool)> = all.iter().map(|f| (f.report.verdict, f.repeated)).collect();
        use Verdict::{NotDeterministic, Pass, Unsafe};
        assert_eq!(
            verdicts,
            [(Pass, true), (Pass, false), (Pass, false), (Unsafe, true), (NotDeterministic, true), (Pass, false)]
        );
        assert_eq!(starts(&dir), 4, "the first process and one for each repeat");
    }

    #[test]
    fn workers_are_recycled() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { recycle_after: 3, jobs: 1, ..script(&dir, "report pass aa") };
        assert_eq!(run_seeds(0..9, &options).len(), 9);
        assert_eq!(starts(&dir), 3);
    }

    #[test]
    fn stops_when_asked_and_keeps_what_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { jobs: 1, ..script(&dir, "report pass aa") };
        let tasks = (0..).map(|seed| Task { source: Source::Scenario("s".into()), seed, faults: None });
        let mut count = 0;
        run(tasks, &options, &Interrupt::default(), |_| {
            count += 1;
            count < 5
        })
        .unwrap();
        assert!((5..10).contains(&count), "{count}");
    }

    #[test]
    fn a_missing_worker_is_an_error() {
        let options = Options::new("/nonexistent/worker".into(), 1);
        let tasks = [Task { source: Source::Scenario("s".into()), seed: 0, faults: None }];
        let error = run(tasks.into_iter(), &options, &Interrupt::default(), |_| true).unwrap_err();
        assert!(error.to_string().starts_with("worker /nonexistent/worker:"), "{error}");
    }
}
