//! The results store: what finished runs leave behind for `replay RUN`.
//!
//! ```text
//! .streamproof/runs/<id>/run.json            version, command line, build
//!                       /seeds.jsonl         one SeedReport a line, in the order they finished
//!                       /plans/S-N.json      the plan of each failure
//!                       /capsules/S-N.capsule    all that is known of it, for another machine
//!                       /summary.json        once the run has ended, also by Ctrl-C
//! ```
//!
//! A run's id is its start in UTC with a number after it if two start in one second. The newest [`KEEP`] runs are kept.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use reports::{SeedReport, Summary};
use scenarios::Plan;
use serde::{Deserialize, Serialize};

use crate::task::{Source, Task};

/// Version of the directory's layout and files.
pub const VERSION: u32 = 1;
/// Runs kept.
const KEEP: usize = 100;

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
    /// Version of the program that ran.
    pub build: String,
}

/// A stored failure.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failed {
    pub task: Task,
    pub report: SeedReport,
}

/// A run being written.
#[derive(Debug)]
pub struct Run {
    pub id: String,
    dir: PathBuf,
    seeds: BufWriter<File>,
}

impl Run {
    /// # Errors
    /// If the directory cannot be written.
    pub fn create(root: &Path, command: Vec<String>, now: jiff::Timestamp) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        if let Some(top) = root.parent() {
            let ignore = top.join(".gitignore");
            if !ignore.exists() {
                fs::write(ignore, "*\n")?;
            }
        }
        let stamp = now.strftime("%Y%m%dT%H%M%SZ").to_string();
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
        let header =
            RunHeader { version: VERSION, id: id.clone(), command, build: env!("CARGO_PKG_VERSION").to_owned() };
        fs::write(dir.join("run.json"), serde_json::to_string_pretty(&header)? + "\n")?;
        let seeds = BufWriter::new(File::create(dir.join("seeds.jsonl"))?);
        let run = Self { id, dir, seeds };
        run.prune(root);
        Ok(run)
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
        self.seeds.write_all(b"\n")
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
        fs::write(self.dir.join("summary.json"), reports::json_line("summary", summary) + "\n")
    }

    fn prune(&self, root: &Path) {
        let Ok(mut ids) = ids(root) else { return };
        let surplus = ids.len().saturating_sub(KEEP);
        for id in ids.drain(..surplus) {
            if id != self.id {
                // A run that cannot be removed harms nobody.
                let _ = fs::remove_dir_all(root.join(id));
            }
        }
    }
}

/// Where the plan of a failure is in the directory of its run.
pub fn plan_path(run: &Path, task: &Task) -> PathBuf {
    run.join("plans").join(format!("{}-{}.json", task.scenario(), task.seed))
}

/// Where the capsules of a run are in its directory.
pub fn capsules_dir(run: &Path) -> PathBuf {
    run.join("capsules")
}

/// The file's name of a failure's capsule. A kept plan has a name of its own and many schedules.
pub fn capsule_name(task: &Task) -> String {
    match &task.source {
        Source::Schedule { plan, n } => {
            let stem = plan.file_stem().unwrap_or_default().to_string_lossy();
            format!("{}-{stem}-{n}.capsule", task.scenario())
        }
        _ => format!("{}-{}.capsule", task.scenario(), task.seed),
    }
}

/// The capsule of a run's failure, if it has one.
pub fn capsule(run: &str, task: &Task) -> Option<PathBuf> {
    Some(capsules_dir(&root().join(run)).join(capsule_name(task))).filter(|path| path.is_file())
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

/// Wall time of a whole run in milliseconds, and its canaries; of one that was killed, nothing is known.
pub fn figures(run: &Path) -> (u64, BTreeMap<String, bool>) {
    #[derive(Default, Deserialize)]
    struct Figures {
        wall_ms: u64,
        canaries: BTreeMap<String, bool>,
    }
    let text = fs::read_to_string(run.join("summary.json")).unwrap_or_default();
    let figures: Figures = serde_json::from_str(&text).unwrap_or_default();
    (figures.wall_ms, figures.canaries)
}

/// Hands each report of a run to `take`, one at a time: a sweep may have a million.
///
/// # Errors
/// A sentence for people, as [`failures`].
pub fn read_run(dir: &Path, take: &mut dyn FnMut(SeedReport)) -> Result<RunHeader, String> {
    let named = |name: &str, e: &dyn std::fmt::Display| format!("{}: {e}", dir.join(name).display());
    let text = fs::read_to_string(dir.join("run.json")).map_err(|e| named("run.json", &e))?;
    let header: RunHeader = serde_json::from_str(&text).map_err(|e| named("run.json", &e))?;
    if header.version != VERSION {
        let other = header.version;
        return Err(named("run.json", &format_args!("of version {other}, this program reads version {VERSION}")));
    }
    let file = File::open(dir.join("seeds.jsonl")).map_err(|e| named("seeds.jsonl", &e))?;
    for (n, line) in io::BufReader::new(file).lines().enumerate() {
        match serde_json::from_str::<Failed>(&line.map_err(|e| named("seeds.jsonl", &e))?) {
            Ok(stored) => take(stored.report),
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
/// A sentence for people: the run is of another version, or its files are unreadable.
pub fn failures(root: &Path, id: &str) -> Result<Vec<Failed>, String> {
    let dir = root.join(id);
    let read = |name: &str| fs::read_to_string(dir.join(name)).map_err(|e| format!("run {id}: {name}: {e}"));
    let header: RunHeader = serde_json::from_str(&read("run.json")?).map_err(|e| format!("run {id}: run.json: {e}"))?;
    if header.version != VERSION {
        return Err(format!(
            "run {id} is of version {}, this program reads version {VERSION}: use the program that wrote it",
            header.version
        ));
    }
    let mut failed = Vec::new();
    for (n, line) in read("seeds.jsonl")?.lines().enumerate() {
        match serde_json::from_str::<Failed>(line) {
            Ok(f) if f.report.verdict.is_failure() => failed.push(f),
            Ok(_) => {}
            // The last line of a run that was killed may be cut short.
            Err(e) => {
                if e.is_eof() {
                    break;
                }
                return Err(format!("run {id}: seeds.jsonl line {}: {e}", n + 1));
            }
        }
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use reports::{Totals, Verdict};

    use super::*;

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn task(seed: u64) -> Task {
        Task { source: Source::Scenario("smoke".into()), seed, faults: None }
    }

    #[test]
    fn keeps_failures_for_replay() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join(".streamproof/runs");
        let mut run = Run::create(&root, vec!["run".into()], at(0)).unwrap();
        let mut totals = Totals::default();
        for (seed, verdict) in [(0, Verdict::Pass), (1, Verdict::Unsafe), (2, Verdict::Inconclusive)] {
            let report = SeedReport::unfinished("smoke", seed, verdict, "why");
            run.add(&task(seed), &report).unwrap();
            totals.add(&report);
        }
        let id = run.id.clone();
        assert_eq!(id, "20231114T221320Z");
        run.finish(&totals.summary(5, false, 10)).unwrap();
        let failed = failures(&root, &id).unwrap();
        assert_eq!(failed.iter().map(|f| f.task.seed).collect::<Vec<_>>(), [1]);
        assert_eq!(fs::read_to_string(tmp.path().join(".streamproof/.gitignore")).unwrap(), "*\n");
    }

    #[test]
    fn two_runs_in_one_second_have_two_names_and_old_ones_go() {
        let tmp = tempfile::tempdir().unwrap();
        let first = Run::create(tmp.path(), vec![], at(0)).unwrap();
        let second = Run::create(tmp.path(), vec![], at(0)).unwrap();
        assert_ne!(first.id, second.id);
        for i in 1..=KEEP as i64 {
            Run::create(tmp.path(), vec![], at(i)).unwrap();
        }
        let ids = ids(tmp.path()).unwrap();
        assert_eq!(ids.len(), KEEP);
        assert!(!ids.contains(&first.id));
    }

    #[test]
    fn a_run_of_another_version_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let run = Run::create(tmp.path(), vec![], at(0)).unwrap();
        let path = run.dir().join("run.json");
        fs::write(&path, fs::read_to_string(&path).unwrap().replace("\"version\": 1", "\"version\": 9")).unwrap();
        let error = failures(tmp.path(), &run.id).unwrap_err();
        assert!(error.contains("is of version 9, this program reads version 1"), "{error}");
    }
}
