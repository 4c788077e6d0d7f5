//! The results store: what finished runs leave behind for `replay RUN`.
//!
//! ```text
//! .streamproof/runs/<id>/run.json            version, command line, build, shard and of what sweep
//!                       /lock                locked while the run goes on
//!                       /seeds.jsonl         one SeedReport a line, in the order they finished
//!                       /given/NAME.json     a copy of each plan file that was to run
//!                       /plans/S-N.json      the plan of each failure
//!                       /capsules/S-N.capsule    all that is known of it, for another machine
//!                       /summary.json        once the run has ended, also by Ctrl-C
//! ```
//!
//! A run's id is its start in UTC with a number after it if two start in one second. So many runs are kept as `--keep-runs`
//! says: the oldest go when a new one starts, but none that still goes on, however old. With `--run-dir` a run has the
//! folder that is named, and stays until somebody removes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use reports::summary::Stopped;
use reports::{SeedReport, Summary};
use scenarios::Plan;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::build_info::Build;
use crate::regressions;
use crate::selection::Shard;
use crate::sweep::Sweep;
use crate::task::{Source, Task, plan_scenario};

/// Version of the directory's layout and files. Version 2 may name a shard; version 3 says of what sweep, and names the build.
pub const VERSION: u32 = 3;
const OLDEST_VERSION: u32 = 1;

/// The directory of all runs, under the current one.
pub fn root() -> PathBuf {
    PathBuf::from(".streamproof/runs")
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunHeader {
    pub version: u32,
    pub id: String,
    pub command: Vec<String>,
    /// The program that ran.
    pub build: Program,
    /// Which part of a sweep it is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// The sweep that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
}

/// What is known of a program that ran.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Program {
    Build(Box<Build>),
    /// All that run.json had up to version 2.
    Version(String),
}

/// What is known of a run before its first seed.
#[derive(Clone, Debug)]
pub struct Start {
    pub command: Vec<String>,
    pub now: jiff::Timestamp,
    pub shard: Option<Shard>,
    /// Of a shard.
    pub sweep: Option<Sweep>,
    /// Plan files that it is to run.
    pub plans: BTreeSet<PathBuf>,
}

/// A stored seed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stored {
    pub task: Task,
    pub report: SeedReport,
}

/// A run being written.
#[derive(Debug)]
pub struct Run {
    id: String,
    dir: PathBuf,
    /// Whether it has its place by its id.
    in_store: bool,
    seeds: BufWriter<File>,
    /// Held until the run ends, whatever ends it.
    _lock: File,
}

impl Run {
    /// A run with an id of its own under `root`; the oldest of more than `keep` go.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn create(root: &Path, keep: usize, start: Start) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        if let Some(top) = root.parent() {
            let ignore = top.join(".gitignore");
            if !ignore.exists() {
                fs::write(ignore, "*\n")?;
            }
        }
        let stamp = stamp(&start);
        let (id, dir) = (0..1000)
            .find_map(|n| {
                let id = if n == 0 { stamp.clone() } else { format!("{stamp}-{n}") };
                let dir = root.join(&id);
                match fs::create_dir(&dir) {
                    Ok(()) => Some(Ok((id, dir))),
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => None,
                    Err(e) => Some(Err(e)),
                }
            })
            .unwrap_or_else(|| Err(io::Error::other("1000 runs in one second")))?;
        let run = Self::begin(dir.clone(), id, true, start).inspect_err(|_| {
            // Without its run.json nobody would ever remove it.
            let _ = fs::remove_dir_all(&dir);
        })?;
        prune(root, keep);
        Ok(run)
    }

    /// A run in a folder of the user's.
    ///
    /// # Errors
    /// If the folder holds anything, or cannot be written.
    pub fn create_at(dir: &Path, start: Start) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        if fs::read_dir(dir)?.next().is_some() {
            let message = "it is not empty: name a new folder, or remove what an earlier run left there";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        Self::begin(dir.to_owned(), stamp(&start), false, start)
    }

    fn begin(dir: PathBuf, id: String, in_store: bool, start: Start) -> io::Result<Self> {
        let lock = File::create(dir.join(LOCK))?;
        // Some file systems have no locks: such a run is kept all the same.
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another run goes on in it"));
        }
        for plan in &start.plans {
            let copy = given(&dir, plan);
            fs::create_dir_all(dir.join(GIVEN))?;
            fs::copy(plan, copy).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", plan.display())))?;
        }
        let header = RunHeader {
            version: VERSION,
            id: id.clone(),
            command: start.command,
            build: Program::Build(Box::new(Build::current())),
            shard: start.shard,
            sweep: start.sweep,
        };
        fs::write(dir.join("run.json"), serde_json::to_string_pretty(&header)? + "\n")?;
        let seeds = BufWriter::new(File::create(dir.join("seeds.jsonl"))?);
        Ok(Self { id, dir, in_store, seeds, _lock: lock })
    }

    /// What a command takes that asks for this run.
    pub fn name(&self) -> String {
        if self.in_store { self.id.clone() } else { self.dir.display().to_string() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// # Errors
    /// If the file cannot be written.
    pub fn add(&mut self, task: &Task, report: &SeedReport) -> io::Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            task: &'a Task,
            report: &'a SeedReport,
        }
        serde_json::to_writer(&mut self.seeds, &Line { task, report })?;
        // A run that is killed keeps what had finished.
        self.seeds.write_all(b"\n")?;
        self.seeds.flush()
    }

    /// Keeps the plan of a failure.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add_plan(&mut self, task: &Task, plan: &Plan) -> io::Result<PathBuf> {
        fs::create_dir_all(self.dir.join("plans"))?;
        let path = plan_path(&self.dir, task);
        fs::write(&path, plan.to_json() + "\n")?;
        Ok(path)
    }

    /// # Errors
    /// If the files cannot be written.
    pub fn finish(mut self, summary: &Summary) -> io::Result<()> {
        self.seeds.flush()?;
        fs::write(self.dir.join("summary.json"), reports::json_line(reports::LineType::Summary, summary) + "\n")
    }
}

const LOCK: &str = "lock";
const GIVEN: &str = "given";

fn stamp(start: &Start) -> String {
    start.now.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Removes the oldest runs of more than `keep`, except those that go on.
fn prune(root: &Path, keep: usize) {
    let Ok(mut ids) = ids(root) else { return };
    let surplus = ids.len().saturating_sub(keep);
    for dir in ids.drain(..surplus).map(|id| root.join(id)) {
        // One without a lock is of version 1, or was made this instant.
        let goes_on =
            File::open(dir.join(LOCK)).is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
        if !goes_on {
            // A run that cannot be removed harms nobody.
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// Where the plan of a failure is in the directory of its run.
pub fn plan_path(run: &Path, task: &Task) -> PathBuf {
    run.join("plans").join(format!("{}.json", stem(task)))
}

/// A failure's name among the files of its run. A stored plan has a name of its own and many schedules.
fn stem(task: &Task) -> String {
    match &task.source {
        Source::Schedule { plan, n } => format!("{}-{}-{n}", task.scenario(), plan_name(plan)),
        _ => format!("{}-{}", task.scenario(), task.seed),
    }
}

/// What stands for a plan file in the names of other files. Two of one name in two folders are two plans, so a path with a
/// folder adds its hash; kept plans are all in one.
pub fn plan_name(plan: &Path) -> String {
    let plan = plan.strip_prefix(".").unwrap_or(plan);
    let name = plan.file_stem().unwrap_or_default().to_string_lossy();
    let alone = plan.parent().is_some_and(|dir| dir == Path::new("") || dir == Path::new(regressions::DIR));
    if alone && plan.extension().is_some_and(|e| e == "json") {
        return name.into_owned();
    }
    let hash = xxh3_64(plan.as_os_str().as_encoded_bytes()) as u32;
    format!("{name}-{hash:08x}")
}

/// Where a run keeps its copy of a plan file that it was given.
pub fn given(run: &Path, plan: &Path) -> PathBuf {
    run.join(GIVEN).join(format!("{}-{}.json", plan_scenario(plan), plan_name(plan)))
}

/// Where the capsules of a run are in its directory.
pub fn capsules_dir(run: &Path) -> PathBuf {
    run.join("capsules")
}

/// The file's name of a failure's capsule.
pub fn capsule_name(task: &Task) -> String {
    format!("{}.capsule", stem(task))
}

/// The capsule of a failure in the directory of its run, if it has one.
pub fn capsule(run: &Path, task: &Task) -> Option<PathBuf> {
    Some(capsules_dir(run).join(capsule_name(task))).filter(|path| path.is_file())
}

/// Ids of all runs, the oldest first.
///
/// # Errors
/// If the directory cannot be read; a missing one has no runs.
pub fn ids(root: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().join("run.json").exists() {
            ids.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    ids.sort();
    Ok(ids)
}

/// The folder of a run: one of this store by its id, or any by its path.
pub fn run_dir(what: &str) -> Option<PathBuf> {
    let is_run = |dir: &PathBuf| dir.join("run.json").is_file();
    Some(PathBuf::from(what)).filter(is_run).or_else(|| Some(root().join(what)).filter(is_run))
}

/// Capsules of a run, by name.
pub fn capsules(run: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(capsules_dir(run)) else { return Vec::new() };
    let mut all: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    all.retain(|path| path.extension().is_some_and(|e| e == "capsule"));
    all.sort();
    all
}

/// How a run ended.
#[derive(Debug, Default, Deserialize)]
pub struct Ended {
    pub wall_ms: u64,
    #[serde(default)]
    pub repeated: u64,
    #[serde(default)]
    pub canaries: BTreeMap<String, bool>,
    #[serde(default)]
    pub stopped: Option<Stopped>,
    #[serde(default)]
    pub interrupted: bool,
}

/// Of a run that was killed, or still goes on, nothing is known.
pub fn ended(run: &Path) -> Option<Ended> {
    serde_json::from_str(&fs::read_to_string(run.join("summary.json")).ok()?).ok()
}

/// What a run was, without its seeds.
///
/// # Errors
/// As [`read_run`].
pub fn header(dir: &Path) -> Result<RunHeader, String> {
    /// What every version has; another may have any fields beside it.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let path = dir.join("run.json");
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = fs::read_to_string(&path).map_err(|e| named(&e))?;
    let Versioned { version } = serde_json::from_str(&text).map_err(|e| named(&e))?;
    if !(OLDEST_VERSION..=VERSION).contains(&version) {
        let why =
            format_args!("of version {version}, this program reads version {VERSION}: use the program that wrote it");
        return Err(named(&why));
    }
    serde_json::from_str(&text).map_err(|e| named(&e))
}

/// Hands each seed of a run to `take`, one at a time: a sweep may have a million.
///
/// # Errors
/// A sentence for people: the run is of another version, or its files are unreadable.
pub fn read_run(dir: &Path, take: &mut dyn FnMut(Stored)) -> Result<RunHeader, String> {
    let named = |name: &str, e: &dyn std::fmt::Display| format!("{}: {e}", dir.join(name).display());
    let header = header(dir)?;
    let file = File::open(dir.join("seeds.jsonl")).map_err(|e| named("seeds.jsonl", &e))?;
    for (n, line) in io::BufReader::new(file).lines().enumerate() {
        match serde_json::from_str::<Stored>(&line.map_err(|e| named("seeds.jsonl", &e))?) {
            Ok(stored) => take(stored),
            // The last line of a run that was killed may be cut short.
            Err(e) if e.is_eof() => break,
            Err(e) => return Err(named(&format!("seeds.jsonl line {}", n + 1), &e)),
        }
    }
    Ok(header)
}

/// The failures of a run, in the order they were found.
///
/// # Errors
/// As [`read_run`].
pub fn failures(dir: &Path) -> Result<Vec<Stored>, String> {
    let mut failed = Vec::new();
    read_run(dir, &mut |stored| {
        if stored.report.verdict.is_failure() {
            failed.push(stored);
        }
    })?;
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use reports::{Totals, Verdict};

    use super::*;

    fn at(second: i64) -> Start {
        let now = jiff::Timestamp::from_second(1_700_000_000 + second).unwrap();
        Start { command: vec!["run".into()], now, shard: None, sweep: None, plans: BTreeSet::new() }
    }

    fn task(seed: u64) -> Task {
        Task { source: Source::Scenario("smoke".into()), seed, faults: None }
    }

    #[test]
    fn keeps_failures_for_replay() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join(".streamproof/runs");
        let mut run = Run::create(&root, 9, at(0)).unwrap();
        let mut totals = Totals::default();
        for (seed, verdict) in [(0, Verdict::Pass), (1, Verdict::Unsafe), (2, Verdict::Inconclusive)] {
            let report = SeedReport::unfinished("smoke", seed, verdict, "why");
            run.add(&task(seed), &report).unwrap();
            totals.add(&report);
        }
        assert_eq!(run.name(), "20231114T221320Z");
        let dir = run.dir().to_owned();
        assert!(ended(&dir).is_none());
        run.finish(&totals.summary(5, Some(Stopped::Failures), 10)).unwrap();
        let failed = failures(&dir).unwrap();
        assert_eq!(failed.iter().map(|f| f.task.seed).collect::<Vec<_>>(), [1]);
        let ended = ended(&dir).unwrap();
        assert_eq!((ended.wall_ms, ended.stopped), (5, Some(Stopped::Failures)));
        assert_eq!(fs::read_to_string(tmp.path().join(".streamproof/.gitignore")).unwrap(), "*\n");
    }

    #[test]
    fn two_runs_in_one_second_have_two_names_and_old_ones_go() {
        let tmp = tempfile::tempdir().unwrap();
        let first = Run::create(tmp.path(), 3, at(0)).unwrap().name();
        let second = Run::create(tmp.path(), 3, at(0)).unwrap().name();
        assert_ne!(first, second);
        for i in 1..=3 {
            Run::create(tmp.path(), 3, at(i)).unwrap();
        }
        let ids = ids(tmp.path()).unwrap();
        assert_eq!(ids.len(), 3);
        assert!(!ids.contains(&first));
    }

    #[test]
    fn a_run_that_goes_on_stays_however_old() {
        let tmp = tempfile::tempdir().unwrap();
        let old = Run::create(tmp.path(), 1, at(0)).unwrap();
        let new = Run::create(tmp.path(), 1, at(1)).unwrap();
        assert_eq!(ids(tmp.path()).unwrap(), [old.name(), new.name()]);
        drop((old, new));
        let last = Run::create(tmp.path(), 1, at(2)).unwrap();
        assert_eq!(ids(tmp.path()).unwrap(), [last.name()]);
    }

    #[test]
    fn a_folder_of_the_users_must_be_empty() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("shards/3");
        let run = Run::create_at(&dir, at(0)).unwrap();
        assert_eq!(run.name(), dir.display().to_string());
        drop(run);
        let error = Run::create_at(&dir, at(1)).unwrap_err();
        assert!(error.to_string().starts_with("it is not empty"), "{error}");
    }

    #[test]
    fn a_run_of_another_version_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let run = Run::create(tmp.path(), 9, at(0)).unwrap();
        let path = run.dir().join("run.json");
        let text = fs::read_to_string(&path).unwrap();
        let later = text.replace("\"version\": 3", "\"version\": 9").replace("\"command\"", "\"of_a_later_day\"");
        fs::write(&path, later).unwrap();
        let error = failures(run.dir()).unwrap_err();
        assert!(error.contains("of version 9, this program reads version 3"), "{error}");
    }

    #[test]
    fn a_run_of_an_earlier_version_is_read() {
        let tmp = tempfile::tempdir().unwrap();
        let run = Run::create(tmp.path(), 9, at(0)).unwrap();
        let text = r#"{"version":2,"id":"a","command":["run"],"build":"0.1.0","shard":{"index":1,"of":2}}"#;
        fs::write(run.dir().join("run.json"), text).unwrap();
        let header = read_run(run.dir(), &mut |_| {}).unwrap();
        assert_eq!((header.build, header.sweep), (Program::Version("0.1.0".into()), None));
    }

    #[test]
    fn plans_of_one_name_have_two_names_in_a_run() {
        let schedule = |plan: &str| {
            let source = Source::Schedule { plan: plan.into(), n: 3 };
            capsule_name(&Task { source, seed: 1, faults: None })
        };
        let plans =
            ["x.json", "a/x.json", "b/x.json", "x.txt", "tests/regressions/x.json", "tests/regressions/old/x.json"];
        let (names, copies): (BTreeSet<_>, BTreeSet<_>) =
            plans.iter().map(|plan| (schedule(plan), given(Path::new("run"), Path::new(plan)))).unzip();
        assert_eq!((names.len(), copies.len()), (plans.len(), plans.len()), "{names:?} {copies:?}");
        // Stable: also from one build to the next.
        assert_eq!(schedule("./x.json"), "plan-x-3.capsule");
        assert_eq!(schedule("tests/regressions/x.json"), "regressions-x-3.capsule");
        assert_eq!(schedule("a/x.json"), "plan-x-8af3f127-3.capsule");
        assert_eq!(schedule("./a/x.json"), schedule("a/x.json"));
    }

    #[test]
    fn a_run_keeps_the_plans_that_it_was_given() {
        let tmp = tempfile::tempdir().unwrap();
        let plan = tmp.path().join("x.json");
        let start = Start { plans: [plan.clone()].into(), ..at(0) };
        let error = Run::create(tmp.path(), 9, start.clone()).unwrap_err();
        assert!(error.to_string().contains("x.json: "), "{error}");
        fs::write(&plan, "{}").unwrap();
        let run = Run::create(tmp.path(), 9, start).unwrap();
        fs::write(&plan, "changed").unwrap();
        assert_eq!(fs::read_to_string(given(run.dir(), &plan)).unwrap(), "{}");
    }
}
