//! Several runs put together, such as the shards of one sweep: what one run of all their seeds would have said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use reports::SweepBuilder;
use reports::summary::Stopped;

use super::args::ReportArgs;
use super::outcome::Outcome;
use super::tally::Tally;
use crate::exit::Exit;
use crate::store::{self, RunHeader};
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
        self.headers.push(header);
        Ok(())
    }

    /// Adds a folder that holds no run, or one that cannot be read, with why.
    pub fn lost(&mut self, why: String) {
        self.lost.push(why);
    }

    /// Writes the outcome; the exit code of one run of all the seeds, or 1 if a part is missing.
    pub fn tell(&mut self, args: &ReportArgs) -> Exit {
        for line in self.lost.iter().cloned().chain(missing(&self.headers)) {
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

/// What is wrong with a set of shards; nothing about runs that are none.
fn missing(headers: &[RunHeader]) -> Vec<String> {
    let mut by_count: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for shard in headers.iter().filter_map(|header| header.shard) {
        if !by_count.entry(shard.of).or_default().insert(shard.index) {
            wrong.push(format!("shard {shard} is there twice"));
        }
    }
    for (of, there) in by_count {
        let gone: Vec<String> = (1..=of).filter(|n| !there.contains(n)).take(10).map(|n| n.to_string()).collect();
        let count = of - there.len() as u64;
        if count > 0 {
            let more = if count > 10 { " and more" } else { "" };
            wrong.push(format!("{count} of {of} shards are missing: {}{more}", gone.join(", ")));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::Shard;

    fn headers(shards: &[(u64, u64)]) -> Vec<RunHeader> {
        let header = |&(index, of): &(u64, u64)| RunHeader {
            version: store::VERSION,
            id: "a".into(),
            command: vec![],
            build: "0".into(),
            shard: (of > 0).then_some(Shard { index, of }),
        };
        shards.iter().map(header).collect()
    }

    #[test]
    fn a_set_of_shards_is_whole_or_says_what_is_missing() {
        assert!(missing(&headers(&[(1, 3), (3, 3), (2, 3), (0, 0)])).is_empty());
        assert_eq!(missing(&headers(&[(1, 3)])), ["2 of 3 shards are missing: 2, 3"]);
        assert_eq!(missing(&headers(&[(1, 2), (2, 2), (2, 2)])), ["shard 2/2 is there twice"]);
        let many = missing(&headers(&[(1, 20)]));
        assert_eq!(many, ["19 of 20 shards are missing: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and more"]);
    }
}
