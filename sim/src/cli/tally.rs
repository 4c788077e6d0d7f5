//! What a run comes to: the seeds of one process, or of several runs put together.

use std::collections::{BTreeMap, BTreeSet};

use reports::summary::Stopped;
use reports::{SeedReport, Summary, Totals, Verdict};
use scenarios::Entry;
use scenarios::catalogue;

use crate::exit::Exit;
use crate::task::Task;

/// Seeds of a scenario from which on its rare states must have been reached.
const REACH_SEEDS: u64 = 200;
/// Seeds of a canary of which one must be caught.
const CANARY_SEEDS: u64 = 20;

#[derive(Debug)]
pub struct Tally {
    pub totals: Totals,
    /// Failing seeds, in the order they came.
    pub failures: Vec<(Task, SeedReport)>,
    /// Seeds that came to no verdict.
    pub undecided: Vec<(Task, SeedReport)>,
    pub exit: Exit,
    /// Of each scenario: seeds with every fault family, and the rare states they reached.
    reached: BTreeMap<String, (u64, BTreeSet<String>)>,
    canary_seeds: BTreeMap<String, u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let (totals, failures, undecided, reached, canary_seeds) = Default::default();
        Self { totals, failures, undecided, exit: Exit::Pass, reached, canary_seeds }
    }
}

impl Tally {
    /// Adds a seed; one of a canary that was caught as the pass that it is.
    pub fn add(&mut self, task: Task, report: SeedReport) {
        if task.faults.is_none() {
            let (seeds, labels) = self.reached.entry(task.scenario().to_owned()).or_default();
            *seeds += 1;
            labels.extend(report.stats.reached.iter().cloned());
        }
        self.totals.add(&report);
        self.exit = self.exit.worst(Exit::of(report.verdict));
        match report.verdict {
            Verdict::Inconclusive => self.undecided.push((task, report)),
            verdict if verdict.is_failure() => self.failures.push((task, report)),
            _ => {}
        }
    }

    /// One seed of a canary, or whether any of a run's was caught.
    pub fn canary(&mut self, name: &str, caught: bool) {
        *self.canary_seeds.entry(name.to_owned()).or_default() += 1;
        *self.totals.canaries.entry(name.to_owned()).or_default() |= caught;
    }

    /// Of a run that was not cut short: what a whole one must have seen, and this one did not. They count in its exit code.
    pub fn judge_whole(&mut self) -> Vec<String> {
        self.judge(1)
    }

    /// The same of a run that had as much time as it asked for: a canary counts from so many seeds on as a main job has.
    pub fn judge_long(&mut self) -> Vec<String> {
        self.judge(CANARY_SEEDS)
    }

    fn judge(&mut self, canary_seeds: u64) -> Vec<String> {
        let missing = not_reached(&self.reached);
        let tried = |name: &String| self.canary_seeds.get(name).is_some_and(|seeds| *seeds >= canary_seeds);
        if self.totals.canaries.iter().any(|(name, caught)| !caught && tried(name)) {
            self.exit = self.exit.worst(Exit::Blind);
        }
        if !missing.is_empty() {
            self.exit = self.exit.worst(Exit::NotReached);
        }
        missing.into_iter().map(|(scenario, label)| format!("not reached: {scenario}: {label}")).collect()
    }

    /// The figures. Failures are in order of scenario and seed afterwards.
    pub fn summary(&mut self, wall_ms: u64, stopped: Option<Stopped>) -> Summary {
        if stopped == Some(Stopped::Interrupt) {
            self.exit = self.exit.worst(Exit::Interrupted);
        }
        // Schedules of one plan by their numbers.
        self.failures.sort_by_cached_key(|(task, _)| {
            let label = task.label();
            (task.scenario().to_owned(), task.seed, label.len(), label)
        });
        self.totals.summary(wall_ms, stopped, self.exit.code())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Source;

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

    #[test]
    fn a_canary_that_was_caught_once_is_caught() {
        let mut tally = Tally::default();
        tally.canary("canary_page_cache", false);
        tally.canary("canary_page_cache", true);
        tally.judge_whole();
        assert_eq!(tally.exit, Exit::Pass);
        tally.canary("canary_at_least_once", false);
        tally.judge_long();
        assert_eq!(tally.exit, Exit::Pass, "one seed may miss it");
        tally.judge_whole();
        assert_eq!(tally.exit, Exit::Blind);
    }

    #[test]
    fn an_interrupt_hides_no_failure() {
        let mut tally = Tally::default();
        let task = Task { source: Source::Scenario("swarm".into()), seed: 1, faults: None };
        assert_eq!(tally.summary(1, Some(Stopped::Interrupt)).exit_code, Exit::Interrupted.code());
        tally.add(task, SeedReport::unfinished("swarm", 1, Verdict::NotLive, ""));
        assert_eq!(tally.summary(1, Some(Stopped::Interrupt)).exit_code, Exit::NotLive.code());
    }
}
