//! Several runs put together, such as the shards of one sweep: what one run of all their seeds would have said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use reports::SweepBuilder;
use reports::summary::Stopped;

use super::args::ReportArgs;
use super::outcome::Outcome;
use super::tally::Tally;
use crate::exit::Exit;
use crate::selection::Shard;
use crate::store::{self, Program, RunHeader};
use crate::sweep::Sweep;
use crate::task::Task;

#[derive(Debug, Default)]
pub struct Merged {
    pub headers: Vec<RunHeader>,
    /// Of all runs one after the other, in milliseconds.
    pub wall_ms: u64,
    tally: Tally,
    /// Runs that were cut short, and why; nothing is known of those that were killed.
    short: Vec<(String, Option<Stopped>)>,
    /// What is wrong with those of which nothing, or not all, is known.
    lost: Vec<String>,
    /// Folders of the shards among them.
    shards: Vec<(String, Shard)>,
    /// Of each failure, by the command that replays it: the folder of its run.
    folders: BTreeMap<String, PathBuf>,
}

impl Merged {
    /// Adds a run, to the figures and to the report's page.
    ///
    /// # Errors
    /// A sentence: a run that cannot be read.
    pub fn add(&mut self, dir: &Path, builder: &mut SweepBuilder) -> Result<(), String> {
        let (tally, folders) = (&mut self.tally, &mut self.folders);
        let header = store::read_run(dir, &mut |stored| {
            builder.add(&stored.report);
            if stored.report.verdict.is_failure() {
                folders.insert(stored.task.replay_command(), dir.to_owned());
            }
            tally.add(stored.task, stored.report);
        });
        let header = header?;
        match store::ended(dir) {
            Some(ended) => {
                self.wall_ms += ended.wall_ms;
                self.tally.totals.repeated += ended.repeated;
                for (name, caught) in &ended.canaries {
                    self.tally.canary(name, *caught);
                }
                builder.canaries(ended.canaries);
                let stopped = ended.stopped.or(ended.interrupted.then_some(Stopped::Interrupt));
                if stopped.is_some() {
                    self.short.push((dir.display().to_string(), stopped));
                }
            }
            None => self.short.push((dir.display().to_string(), None)),
        }
        self.shards.extend(header.shard.map(|shard| (dir.display().to_string(), shard)));
        self.headers.push(header);
        Ok(())
    }

    /// Adds a folder that holds no run, or one that cannot be read, with why.
    pub fn lost(&mut self, why: String) {
        self.lost.push(why);
    }

    /// Writes the outcome; the exit code of one run of all the seeds, or 1 if a part is missing.
    pub fn tell(&mut self, args: &ReportArgs) -> Exit {
        for line in self.lost.iter().cloned().chain(missing(&self.shards)) {
            eprintln!("error: {line}");
            self.tally.exit = self.tally.exit.worst(Exit::Failed);
        }
        for (run, stopped) in &self.short {
            match stopped {
                Some(Stopped::Interrupt) => eprintln!("{run}: it was interrupted"),
                Some(Stopped::Failures) => eprintln!("{run}: it was stopped by its failures"),
                Some(Stopped::Time) => eprintln!("{run}: its time was up"),
                None => {
                    eprintln!("error: {run}: it did not end: killed, or still going on");
                    self.tally.exit = self.tally.exit.worst(Exit::Failed);
                }
            }
        }
        if self.short.is_empty() && self.lost.is_empty() {
            for line in self.tally.judge_whole() {
                eprintln!("{line}");
            }
        }
        // The worst of them says why not all seeds are there.
        let why = [Stopped::Interrupt, Stopped::Failures, Stopped::Time];
        let stopped = why.into_iter().find(|why| self.short.iter().any(|(_, stopped)| *stopped == Some(*why)));
        let summary = self.tally.summary(self.wall_ms, stopped);
        let capsule = |task: &Task| store::capsule(self.folders.get(&task.replay_command())?, task);
        let told = Outcome {
            summary: &summary,
            failures: &self.tally.failures,
            undecided: &self.tally.undecided,
            capsule: &capsule,
            enough: &BTreeMap::new(),
            kept: None,
            format: args.format,
            junit: args.junit.as_deref(),
        };
        self.tally.exit.worst(told.tell())
    }
}

/// Whether the runs may be put together: each is named once, and shards are of one sweep, run by one build.
///
/// # Errors
/// A sentence that names two folders, what is different, and what to do.
pub fn fit(runs: &[PathBuf]) -> Result<(), String> {
    let mut named = BTreeSet::new();
    for dir in runs {
        if !named.insert(dir.canonicalize().unwrap_or_else(|_| dir.clone())) {
            return Err(format!("{} is named twice: name each run once, or its seeds count twice", dir.display()));
        }
    }
    // What cannot be read is told of when its seeds are.
    let headers = runs.iter().filter_map(|dir| Some((dir.as_path(), store::header(dir).ok()?)));
    let shards: Vec<Part> = headers.filter_map(|(dir, header)| Part::of(dir, header)).collect();
    for part in shards.iter().filter(|part| part.sweep.is_none()) {
        eprintln!(
            "warning: {}: an earlier program ran it and did not write of what sweep it is a part: see for yourself that it \
             belongs to the others",
            part.dir.display()
        );
    }
    one_sweep(&shards)
}

/// A shard in its folder.
struct Part {
    dir: PathBuf,
    shard: Shard,
    build: Program,
    sweep: Option<Sweep>,
}

impl Part {
    fn of(dir: &Path, header: RunHeader) -> Option<Self> {
        Some(Self { dir: dir.to_owned(), shard: header.shard?, build: header.build, sweep: header.sweep })
    }

    fn differences(&self, other: &Part) -> Vec<String> {
        let mut all = match (&self.sweep, &other.sweep) {
            (Some(one), Some(other)) => one.differences(other),
            _ => Vec::new(),
        };
        if self.shard.of != other.shard.of {
            all.push(format!("the number of shards ({} and {})", self.shard.of, other.shard.of));
        }
        all.extend(builds_differ(&self.build, &other.build));
        all
    }
}

fn builds_differ(one: &Program, other: &Program) -> Option<String> {
    if let (Program::Build(one), Program::Build(other)) = (one, other) {
        let parts = one.differences(other);
        let commits = format!("{} and {}", one.commit_text(), other.commit_text());
        return (!parts.is_empty()).then(|| format!("the build ({commits}, with other {})", parts.join(" and ")));
    }
    let version = |program: &Program| match program {
        Program::Build(build) => build.version.clone(),
        Program::Version(version) => version.clone(),
    };
    let (one, other) = (version(one), version(other));
    (one != other).then(|| format!("the program's version ({one} and {other})"))
}

fn one_sweep(shards: &[Part]) -> Result<(), String> {
    // An earlier program's says less.
    let Some(first) = shards.iter().find(|part| part.sweep.is_some()).or(shards.first()) else { return Ok(()) };
    for part in shards {
        let differences = first.differences(part);
        if !differences.is_empty() {
            return Err(format!(
                "{} and {} are shards of different sweeps: they differ in {}. Merge the shards of one sweep, which one build \
                 runs with the same options but for --shard and --run-dir: run again the one that is wrong, or leave it out",
                first.dir.display(),
                part.dir.display(),
                differences.join(" and in ")
            ));
        }
    }
    Ok(())
}

/// What is wrong with the shards of one sweep; nothing if there is none.
fn missing(shards: &[(String, Shard)]) -> Vec<String> {
    let mut there: BTreeMap<u64, &str> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (dir, shard) in shards {
        if let Some(other) = there.insert(shard.index, dir) {
            wrong.push(format!("shard {shard} is there twice: {other} and {dir}"));
        }
    }
    let of = shards.first().map_or(0, |(_, shard)| shard.of);
    let gone: Vec<String> = (1..=of).filter(|n| !there.contains_key(n)).map(|n| n.to_string()).collect();
    if !gone.is_empty() {
        let more = if gone.len() > 10 { " and more" } else { "" };
        let first = gone[..gone.len().min(10)].join(", ");
        wrong.push(format!("{} of {of} shards are missing: {first}{more}", gone.len()));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build_info::Build;
    use crate::sweep::tests::sweep;

    fn part(dir: &str, (index, of): (u64, u64), build: Build, sweep: Sweep) -> Part {
        let build = Program::Build(Box::new(build));
        Part { dir: dir.into(), shard: Shard { index, of }, build, sweep: Some(sweep) }
    }

    #[test]
    fn a_set_of_shards_is_whole_or_says_what_is_missing() {
        let of = |shards: &[(u64, u64)]| {
            let shards = shards.iter().enumerate().map(|(n, &(index, of))| (format!("s{n}"), Shard { index, of }));
            missing(&shards.collect::<Vec<_>>())
        };
        assert!(of(&[]).is_empty() && of(&[(1, 3), (3, 3), (2, 3)]).is_empty());
        assert_eq!(of(&[(1, 3)]), ["2 of 3 shards are missing: 2, 3"]);
        assert_eq!(of(&[(1, 2), (2, 2), (2, 2)]), ["shard 2/2 is there twice: s1 and s2"]);
        assert_eq!(of(&[(1, 20)]), ["19 of 20 shards are missing: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and more"]);
    }

    #[test]
    fn shards_of_two_sweeps_are_refused_by_their_folders() {
        let (build, swarm) = (Build::current(), sweep(&[("swarm", 0, 600)]));
        let other = Build { commit: "0123456789abcdef".into(), sources: "0".into(), ..build.clone() };
        let elsewhere = Build { target: "aarch64".into(), ..build.clone() };
        let one = || part("s/1", (1, 2), build.clone(), swarm.clone());
        assert_eq!(one_sweep(&[]), Ok(()));
        assert_eq!(one_sweep(&[one(), part("s/2", (2, 2), elsewhere, swarm.clone())]), Ok(()));
        let refused = |part: Part| one_sweep(&[one(), part]).unwrap_err();
        let text = refused(part("s/2", (2, 2), build.clone(), sweep(&[("swarm", 600, 500)])));
        assert!(
            text.starts_with("s/1 and s/2 are shards of different sweeps: they differ in the first seed of swarm"),
            "{text}"
        );
        assert!(
            text.contains("(0 and 600) and in the number of seeds of swarm (600 and 500). Merge the shards of"),
            "{text}"
        );
        let text = refused(part("s/3", (3, 3), build.clone(), swarm.clone()));
        assert!(text.contains("s/1 and s/3") && text.contains("the number of shards (2 and 3)"), "{text}");
        let text = refused(part("s/2", (2, 2), other, swarm.clone()));
        assert!(text.contains("and commit 0123456789ab, with other sources)"), "{text}");
    }

    #[test]
    fn of_an_earlier_programs_shard_is_compared_what_is_known() {
        let known = || part("s/1", (1, 2), Build::current(), sweep(&[("swarm", 0, 600)]));
        let earlier = |version: &str, of| Part {
            dir: "s/2".into(),
            shard: Shard { index: 2, of },
            build: Program::Version(version.into()),
            sweep: None,
        };
        let version = Build::current().version;
        assert_eq!(one_sweep(&[earlier(&version, 2), known()]), Ok(()));
        let text = one_sweep(&[earlier("0.0.1", 2), known()]).unwrap_err();
        assert!(text.starts_with("s/1 and s/2 ") && text.contains("the program's version ("), "{text}");
        let text = one_sweep(&[earlier("0.0.1", 2), earlier("0.0.1", 3)]).unwrap_err();
        assert!(text.contains("the number of shards (2 and 3)"), "{text}");
    }

    #[test]
    fn a_run_that_is_named_twice_counts_once() {
        let tmp = tempfile::tempdir().unwrap();
        let same = tmp.path().join("../").join(tmp.path().file_name().unwrap());
        let text = fit(&[tmp.path().to_owned(), same]).unwrap_err();
        assert!(text.contains("is named twice"), "{text}");
    }
}
