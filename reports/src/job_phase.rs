//! What the job was busy with at an instant, from what a run left behind.

use std::collections::{BTreeMap, BTreeSet};

use history::{Decision, History, Observed, TransactionState};
use serde::{Deserialize, Serialize};

/// In the order in which a job goes through them. There is none for the drain: nothing strikes any more by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobPhase {
    /// Until each task of the first attempt has opened.
    Starting,
    /// It reads and works; no checkpoint is under way.
    Processing,
    /// From the first task that passes a barrier until the checkpoint is complete: tasks snapshot and sinks prepare.
    Checkpoint,
    /// From a complete checkpoint until the coordinators have committed each of its transactions.
    Committing,
    /// From the deployment of a later attempt until each task has opened. What the failed one was busy with lasts until
    /// then, for no one observes its end.
    Recovering,
}

impl JobPhase {
    pub const ALL: [JobPhase; 5] =
        [JobPhase::Starting, JobPhase::Processing, JobPhase::Checkpoint, JobPhase::Committing, JobPhase::Recovering];
}

/// The phases of one run's job, in order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPhases(Vec<(u64, JobPhase)>);

/// What ends a phase. In one instant they come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Deployed,
    Opened,
    Barrier(u64),
    Complete(u64),
    Committed(u64),
}

impl JobPhases {
    /// Nothing if no job ran.
    pub fn of(history: &History) -> Option<JobPhases> {
        history.facts.job.as_ref()?;
        let mut turns = turns(history);
        turns.sort();
        let mut changes = Vec::new();
        let (mut attempt, mut phase, mut committing) = (None, JobPhase::Starting, 0);
        for (at_ns, generation, turn) in turns {
            // Tasks of an attempt that was given up may go on for a while.
            if turn != Turn::Deployed && attempt != Some(generation) {
                continue;
            }
            let next = match turn {
                Turn::Deployed if attempt.replace(generation).is_none() => JobPhase::Starting,
                Turn::Deployed => JobPhase::Recovering,
                Turn::Barrier(_) => JobPhase::Checkpoint,
                Turn::Complete(n) => {
                    committing = n;
                    JobPhase::Committing
                }
                // The next checkpoint may be under way already.
                Turn::Committed(n) if phase != JobPhase::Committing || committing != n => continue,
                Turn::Opened | Turn::Committed(_) => JobPhase::Processing,
            };
            if next != phase {
                phase = next;
                changes.push((at_ns, next));
            }
        }
        Some(JobPhases(changes))
    }

    /// At `at_ns` of the world's clock; a phase that begins at the instant counts.
    pub fn at(&self, at_ns: u64) -> JobPhase {
        let n = self.0.partition_point(|(at, _)| *at <= at_ns);
        n.checked_sub(1).map_or(JobPhase::Starting, |last| self.0[last].1)
    }
}

/// (when, attempt, what), in no order.
fn turns(history: &History) -> Vec<(u64, u64, Turn)> {
    let mut turns = Vec::new();
    let mut opened: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    // By checkpoint: of each producer that takes part, the epoch in which it wrote.
    let mut writing: BTreeMap<(u64, u64), BTreeMap<i64, i16>> = BTreeMap::new();
    for entry in &history.decisions {
        let Some(at_ns) = entry.at_ns else { continue };
        let generation = entry.generation;
        match &entry.decision {
            Decision::Open { .. } => {
                let tasks = opened.entry(generation).or_default();
                if tasks.insert(&entry.task) && tasks.len() == history.facts.tasks.len() {
                    turns.push((at_ns, generation, Turn::Opened));
                }
            }
            Decision::Barrier { n, producer_id, producer_epoch, .. } => {
                let producers = writing.entry((generation, *n)).or_insert_with(|| {
                    turns.push((at_ns, generation, Turn::Barrier(*n)));
                    BTreeMap::new()
                });
                // A sink without transactions has none.
                if *producer_id >= 0 {
                    producers.insert(*producer_id, *producer_epoch);
                }
            }
            _ => {}
        }
    }
    let mut complete: BTreeSet<(u64, u64)> = BTreeSet::new();
    for seen in &history.observations {
        let at_ns = seen.at_ns;
        match seen.what {
            Observed::Restored { generation, .. } => turns.push((at_ns, generation, Turn::Deployed)),
            Observed::CheckpointComplete { generation, n } if complete.insert((generation, n)) => {
                turns.push((at_ns, generation, Turn::Complete(n)));
                if writing.get(&(generation, n)).is_none_or(BTreeMap::is_empty) {
                    turns.push((at_ns, generation, Turn::Committed(n)));
                }
            }
            // The epoch rises with each commit (KIP-890): a coordinator that loads its log tells of older ones again.
            Observed::TransactionState {
                producer_id, producer_epoch, state: TransactionState::CompleteCommit, ..
            } => {
                for (generation, n) in &complete {
                    let Some(producers) = writing.get_mut(&(*generation, *n)) else { continue };
                    if producers.get(&producer_id).is_some_and(|wrote| *wrote < producer_epoch) {
                        producers.remove(&producer_id);
                        if producers.is_empty() {
                            turns.push((at_ns, *generation, Turn::Committed(*n)));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use history::{DecisionEntry, Observation, Observer};
    use models::Watermark;

    use super::*;
    use crate::explain::fixture::history;

    fn decide(history: &mut History, at_ns: u64, generation: u64, task: &str, decision: Decision) {
        history.decisions.push(DecisionEntry { generation, task: task.into(), seq: 0, decision, at_ns: Some(at_ns) });
    }

    fn open(history: &mut History, at_ns: u64, generation: u64, task: &str) {
        let (inputs, key_groups) = (Vec::new(), Vec::new());
        let decision = Decision::Open { checkpoint: None, watermark: Watermark::MIN, inputs, key_groups };
        decide(history, at_ns, generation, task, decision);
    }

    fn barrier(history: &mut History, at_ns: u64, generation: u64, n: u64, producer_id: i64, producer_epoch: i16) {
        let positions = Vec::new();
        let decision = Decision::Barrier { n, producer_id, producer_epoch, positions };
        decide(history, at_ns, generation, "window-0", decision);
    }

    fn see(history: &mut History, at_ns: u64, what: Observed) {
        history.observations.push(Observation { at_ns, observer: Observer::Node { node: 1, incarnation: 1 }, what });
    }

    fn committed(producer_id: i64, producer_epoch: i16) -> Observed {
        let (transactional_id, state) = ("totals-window-0-0".into(), TransactionState::CompleteCommit);
        Observed::TransactionState { transactional_id, producer_id, producer_epoch, coordinator_epoch: 0, state }
    }

    #[test]
    fn a_job_goes_through_its_phases() {
        let mut h = history(1_000);
        see(&mut h, 10, Observed::Restored { generation: 1, checkpoint: None });
        open(&mut h, 20, 1, "source-0");
        open(&mut h, 30, 1, "window-0");
        barrier(&mut h, 40, 1, 1, 7, 0);
        barrier(&mut h, 41, 1, 1, 8, 3);
        see(&mut h, 50, Observed::CheckpointComplete { generation: 1, n: 1 });
        see(&mut h, 60, committed(7, 1));
        see(&mut h, 65, committed(8, 3)); // told again: the transaction before
        see(&mut h, 70, committed(8, 4));
        barrier(&mut h, 80, 1, 2, 7, 1);
        see(&mut h, 90, Observed::Restored { generation: 2, checkpoint: Some(1) });
        barrier(&mut h, 91, 1, 3, 8, 4); // a task that does not know yet
        open(&mut h, 100, 2, "window-0");
        open(&mut h, 110, 2, "source-0");
        let phases = JobPhases::of(&h).expect("it has a job");
        let at = [0, 29, 30, 39, 40, 49, 50, 69, 70, 79, 80, 89, 90, 109, 110, 999].map(|ns| phases.at(ns));
        use JobPhase::*;
        let expected = [
            Starting, Starting, Processing, Processing, Checkpoint, Checkpoint, Committing, Committing, Processing,
            Processing, Checkpoint, Checkpoint, Recovering, Recovering, Processing, Processing,
        ];
        assert_eq!(at, expected);
    }

    #[test]
    fn a_commit_does_not_end_the_next_checkpoint() {
        let mut h = history(1_000);
        see(&mut h, 10, Observed::Restored { generation: 1, checkpoint: None });
        barrier(&mut h, 20, 1, 1, 7, 0);
        see(&mut h, 30, Observed::CheckpointComplete { generation: 1, n: 1 });
        barrier(&mut h, 40, 1, 2, 8, 0);
        see(&mut h, 50, committed(7, 1));
        let phases = JobPhases::of(&h).expect("it has a job");
        assert_eq!(
            [35, 45, 55].map(|ns| phases.at(ns)),
            [JobPhase::Committing, JobPhase::Checkpoint, JobPhase::Checkpoint]
        );
    }

    #[test]
    fn a_sink_without_transactions_has_nothing_to_commit() {
        let mut h = history(1_000);
        see(&mut h, 10, Observed::Restored { generation: 1, checkpoint: None });
        barrier(&mut h, 20, 1, 1, -1, -1);
        see(&mut h, 30, Observed::CheckpointComplete { generation: 1, n: 1 });
        assert_eq!(JobPhases::of(&h).expect("it has a job").at(30), JobPhase::Processing);
    }

    #[test]
    fn without_a_job_there_is_no_phase() {
        let mut h = history(1_000);
        h.facts.job = None;
        assert_eq!(JobPhases::of(&h), None);
    }
}
