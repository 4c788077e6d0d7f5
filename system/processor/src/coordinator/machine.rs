//! The coordinator machine: the life of attempts and of their checkpoints, as decisions without I/O.
//!
//! ```text
//!  Waiting ─ enough workers ─▶ Preparing ─▶ Deploying ─▶ Opening ─▶ Idle ─▶ Collecting ─▶ Storing ─▶ Committing
//!     ▲                        (generation                            ▲      (all acks)    (durable)     │
//!     │                         durable)                              └──────────────────────────────────┘
//!     └─ Backoff ◀─ Cancelling (every live worker confirmed) ◀─ any failure      final one committed ─▶ Drained
//! ```
//! Guarantees: a generation is used by one attempt only; one attempt at a time, the last one confirmed gone on every
//! worker that is reachable; transactions commit only after their checkpoint is durable, and checkpoint n + 1 starts
//! only after every task committed n (a task has two transactions, epochs n and n + 1).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use env::clock::Instant;

use crate::checkpoint::{Checkpoint, TaskSnapshot};
use crate::control::{self, Deploy, Generation, TaskDeploy, ToCoordinator, ToWorker};
use crate::job::JobConfig;
use crate::probe::Probe;
use crate::restart::Backoff;

#[derive(Debug)]
pub enum Input {
    Registered {
        worker: String,
        shuffle: SocketAddr,
    },
    Lost {
        worker: String,
    },
    Message {
        worker: String,
        message: ToCoordinator,
        payload: Bytes,
    },
    Prepared {
        generation: Generation,
        result: Result<Preparation, String>,
    },
    Stored {
        n: u64,
        result: Result<(), String>,
    },
    /// The end offsets are durable.
    Bounds(Vec<(i32, i64)>),
    Tick,
}

/// What an attempt starts from.
#[derive(Debug)]
pub struct Preparation {
    pub checkpoint: Option<Checkpoint>,
    /// Every partition of the source topic with its first offset.
    pub partitions: Vec<(i32, i64)>,
}

#[derive(Debug)]
pub enum Action {
    /// Make the generation durable, then load the newest checkpoint and look at the source topic.
    Prepare {
        generation: Generation,
    },
    Send {
        worker: String,
        message: ToWorker,
        payload: Bytes,
    },
    Store(Checkpoint),
    /// Make it durable that the job is done.
    MarkDrained {
        generation: Generation,
    },
    Report(Probe),
}

#[derive(Debug)]
enum Phase {
    Waiting,
    Backoff { until: Instant },
    Preparing,
    Attempt(Box<Attempt>),
    Cancelling { waiting: BTreeSet<String>, then: AfterCancel },
    Drained,
}

#[derive(Clone, Copy, Debug)]
enum AfterCancel {
    Backoff(Duration),
    Drained,
}

#[derive(Debug)]
struct Attempt {
    /// The worker of each task.
    placement: BTreeMap<String, String>,
    source_tasks: BTreeSet<String>,
    is_final: bool,
    deployed: BTreeSet<String>,
    opened: BTreeSet<String>,
    ended: BTreeSet<String>,
    /// The number of the newest checkpoint begun, or restored from.
    last: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Deploying { deadline: Instant },
    Opening { deadline: Instant },
    Idle { next: Instant },
    Collecting { n: u64, acks: BTreeMap<String, Bytes>, deadline: Instant },
    Storing { n: u64, is_final: bool },
    Committing { n: u64, is_final: bool, committed: BTreeSet<String>, deadline: Instant },
}

#[derive(Debug)]
pub struct Machine {
    job: JobConfig,
    workers_expected: usize,
    workers: BTreeMap<String, SocketAddr>,
    generation: Generation,
    bounds: Option<Vec<(i32, i64)>>,
    backoff: Backoff,
    phase: Phase,
    actions: Vec<Action>,
}

impl Machine {
    /// `generation`: the newest that was ever made durable, 0 for none.
    pub fn new(
        job: JobConfig,
        workers_expected: usize,
        generation: Generation,
        bounds: Option<Vec<(i32, i64)>>,
        drained: bool,
    ) -> Self {
        let backoff = Backoff::new(job.restart);
        let phase = if drained { Phase::Drained } else { Phase::Waiting };
        let workers = BTreeMap::new();
        Self { job, workers_expected, workers, generation, bounds, backoff, phase, actions: Vec::new() }
    }

    /// When to call with [`Input::Tick`] at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Backoff { until } => Some(*until),
            Phase::Attempt(attempt) => match &attempt.stage {
                Stage::Deploying { deadline }
                | Stage::Opening { deadline }
                | Stage::Collecting { deadline, .. }
                | Stage::Committing { deadline, .. } => Some(*deadline),
                Stage::Idle { next } => Some(*next),
                Stage::Storing { .. } => None,
            },
            Phase::Waiting | Phase::Preparing | Phase::Cancelling { .. } | Phase::Drained => None,
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Action> {
        match input {
            Input::Registered { worker, shuffle } => {
                self.lost(now, &worker);
                self.workers.insert(worker.clone(), shuffle);
                self.send(&worker, ToWorker::Welcome);
                self.start_if_ready();
            }
            Input::Lost { worker } => self.lost(now, &worker),
            Input::Message { worker, message, payload } => self.message(now, &worker, message, payload),
            Input::Prepared { generation, result } => self.prepared(now, generation, result),
            Input::Stored { n, result } => self.stored(now, n, result),
            Input::Bounds(bounds) => self.bounds(bounds),
            Input::Tick => self.tick(now),
        }
        std::mem::take(&mut self.actions)
    }

    fn send(&mut self, worker: &str, message: ToWorker) {
        self.actions.push(Action::Send { worker: worker.to_owned(), message, payload: Bytes::new() });
    }

    fn report(&mut self, probe: Probe) {
        self.actions.push(Action::Report(probe));
    }

    fn deadline(&self, now: Instant) -> Instant {
        now + Duration::from_millis(self.job.checkpoint.timeout_ms)
    }

    fn attempt(&mut self) -> Option<&mut Attempt> {
        if let Phase::Attempt(attempt) = &mut self.phase { Some(attempt) } else { None }
    }

    fn start_if_ready(&mut self) {
        if matches!(self.phase, Phase::Waiting) && self.workers.len() >= self.workers_expected {
            self.generation += 1;
            self.phase = Phase::Preparing;
            self.actions.push(Action::Prepare { generation: self.generation });
        }
    }

    fn lost(&mut self, now: Instant, worker: &str) {
        if self.workers.remove(worker).is_none() {
            return;
        }
        if let Phase::Cancelling { waiting, .. } = &mut self.phase {
            // It tears its attempt down by itself when it loses its coordinator.
            waiting.remove(worker);
            self.cancelled_if_all(now);
        } else if self.attempt().is_some_and(|a| a.placement.values().any(|w| w == worker)) {
            self.fail(now, format!("worker {worker} lost"));
        }
    }

    fn fail(&mut self, now: Instant, reason: String) {
        self.report(Probe::AttemptFailed { generation: self.generation, reason });
        let wait = self.backoff.failed(now);
        self.cancel(now, AfterCancel::Backoff(wait));
    }

    /// Ends the attempt, if any, on every worker it was sent to.
    fn cancel(&mut self, now: Instant, then: AfterCancel) {
        let mut waiting = BTreeSet::new();
        if let Phase::Attempt(attempt) = &self.phase {
            waiting = attempt.placement.values().filter(|w| self.workers.contains_key(*w)).cloned().collect();
        }
        for worker in &waiting {
            self.send(worker, ToWorker::Cancel { generation: self.generation });
        }
        self.phase = Phase::Cancelling { waiting, then };
        self.cancelled_if_all(now);
    }

    fn cancelled_if_all(&mut self, now: Instant) {
        let Phase::Cancelling { waiting, then } = &self.phase else { return };
        if waiting.is_empty() {
            self.phase = match *then {
                AfterCancel::Backoff(wait) => Phase::Backoff { until: now + wait },
                AfterCancel::Drained => Phase::Drained,
            };
        }
    }

    fn tick(&mut self, now: Instant) {
        match &self.phase {
            Phase::Backoff { until } if *until <= now => {
                self.phase = Phase::Waiting;
                self.start_if_ready();
            }
            Phase::Attempt(attempt) => match &attempt.stage {
                Stage::Deploying { deadline } | Stage::Opening { deadline } if *deadline <= now => {
                    self.fail(now, "tasks did not open in time".into());
                }
                Stage::Collecting { n, deadline, .. } | Stage::Committing { n, deadline, .. } if *deadline <= now => {
                    let reason = format!("checkpoint {n} timed out");
                    env::sometimes!(true, "a checkpoint timed out");
                    self.fail(now, reason);
                }
                Stage::Idle { next } if *next <= now => self.trigger(now),
                _ => {}
            },
            _ => {}
        }
    }

    fn prepared(&mut self, now: Instant, generation: Generation, result: Result<Preparation, String>) {
        if !matches!(self.phase, Phase::Preparing) || generation != self.generation {
            return;
        }
        match result.and_then(|p| self.deploy(now, p)) {
            Ok(()) => {}
            Err(reason) => self.fail(now, reason),
        }
    }

    fn deploy(&mut self, now: Instant, preparation: Preparation) -> Result<(), String> {
        let Preparation { checkpoint, partitions } = preparation;
        if partitions.is_empty() {
            return Err(format!("source topic {:?} has no partitions", self.job.source.topic));
        }
        if self.workers.len() < self.workers_expected {
            self.phase = Phase::Waiting;
            return Ok(());
        }
        let source_tasks = self.job.parallelism.source_tasks.min(partitions.len() as u32);
        let known: BTreeSet<i32> = checkpoint.iter().flat_map(|c| c.splits()).map(|s| s.partition).collect();
        if let Some(p) = known.iter().find(|p| partitions.iter().all(|(q, _)| q != *p)) {
            return Err(format!("partition {p} of the checkpoint is gone"));
        }
        let mut tasks = Vec::new();
        for index in 0..source_tasks {
            let mine = |(p, _): &&(i32, i64)| p.unsigned_abs() % source_tasks == index && !known.contains(p);
            let new_splits = partitions.iter().filter(mine).copied().collect();
            tasks.push(TaskDeploy::Source { index, new_splits });
        }
        let windows = 0..self.job.parallelism.window_tasks;
        tasks.extend(windows.map(|index| TaskDeploy::Window { index }));
        if let Some(c) = &checkpoint {
            let now_names: BTreeSet<String> = tasks.iter().map(TaskDeploy::name).collect();
            if !c.tasks.keys().eq(now_names.iter()) || c.key_groups != self.job.parallelism.key_groups {
                return Err(format!("checkpoint {} has other tasks or key groups: rescaling is not built", c.n));
            }
        }
        let names: Vec<String> = self.workers.keys().cloned().collect();
        let mut by_worker: BTreeMap<String, Vec<TaskDeploy>> = BTreeMap::new();
        let mut placement = BTreeMap::new();
        for task in tasks {
            let (TaskDeploy::Source { index, .. } | TaskDeploy::Window { index }) = &task;
            let worker = &names[*index as usize % names.len()];
            placement.insert(task.name(), worker.clone());
            by_worker.entry(worker.clone()).or_default().push(task);
        }
        let n = checkpoint.as_ref().map(|c| c.n);
        let is_final = self.bounds.is_some() && checkpoint.as_ref().is_some_and(Checkpoint::is_final);
        env::sometimes!(n.is_some(), "an attempt restored from a checkpoint");
        self.report(Probe::AttemptStarted { generation: self.generation, checkpoint: n });
        for (worker, tasks) in by_worker {
            let stored = checkpoint.iter().flat_map(|c| c.tasks.iter());
            let mine = stored.filter(|(name, _)| tasks.iter().any(|t| t.name() == **name));
            let snapshots = mine.map(|(name, snapshot)| (name.clone(), snapshot.encode())).collect();
            let message = ToWorker::Deploy(Box::new(Deploy {
                generation: self.generation,
                job: self.job.clone(),
                checkpoint: n,
                is_final,
                source_tasks,
                tasks,
                bounds: self.bounds.clone(),
            }));
            self.actions.push(Action::Send { worker, message, payload: control::encode_snapshots(&snapshots) });
        }
        self.phase = Phase::Attempt(Box::new(Attempt {
            placement,
            source_tasks: (0..source_tasks).map(control::source_task).collect(),
            is_final,
            deployed: BTreeSet::new(),
            opened: BTreeSet::new(),
            ended: BTreeSet::new(),
            last: n.unwrap_or(0),
            stage: Stage::Deploying { deadline: self.deadline(now) },
        }));
        Ok(())
    }

    fn message(&mut self, now: Instant, worker: &str, message: ToCoordinator, payload: Bytes) {
        if let ToCoordinator::Cancelled { generation } = message {
            if generation == self.generation
                && let Phase::Cancelling { waiting, .. } = &mut self.phase
            {
                waiting.remove(worker);
                self.cancelled_if_all(now);
            }
            return;
        }
        let (generation, task) = match &message {
            ToCoordinator::Deployed { generation } => (*generation, None),
            ToCoordinator::Opened { generation, task }
            | ToCoordinator::Ack { generation, task, .. }
            | ToCoordinator::Committed { generation, task, .. }
            | ToCoordinator::Ended { generation, task }
            | ToCoordinator::Failed { generation, task, .. } => (*generation, Some(task.clone())),
            _ => return,
        };
        let current = self.generation;
        let stale = generation != current;
        env::sometimes!(stale, "a message of an older attempt reached the coordinator");
        let Some(attempt) = self.attempt() else { return };
        if stale || task.as_ref().is_some_and(|t| attempt.placement.get(t).is_none_or(|w| w != worker)) {
            return;
        }
        match message {
            ToCoordinator::Deployed { .. } => self.deployed(now, worker),
            ToCoordinator::Opened { task, .. } => self.opened(now, task),
            ToCoordinator::Ack { task, n, .. } => self.acked(now, task, n, payload),
            ToCoordinator::Committed { task, n, .. } => self.committed(now, task, n),
            ToCoordinator::Ended { task, .. } => {
                attempt.ended.insert(task);
                self.trigger_if_all_ended(now);
            }
            ToCoordinator::Failed { task, reason, .. } => self.fail(now, format!("{task}: {reason}")),
            ToCoordinator::Register { .. } | ToCoordinator::Heartbeat | ToCoordinator::Cancelled { .. } => {}
        }
    }

    fn deployed(&mut self, now: Instant, worker: &str) {
        let (generation, deadline) = (self.generation, self.deadline(now));
        let Phase::Attempt(attempt) = &mut self.phase else { return };
        attempt.deployed.insert(worker.to_owned());
        let all: BTreeSet<String> = attempt.placement.values().cloned().collect();
        if !matches!(attempt.stage, Stage::Deploying { .. }) || attempt.deployed != all {
            return;
        }
        attempt.stage = Stage::Opening { deadline };
        let windows: BTreeMap<String, SocketAddr> = attempt
            .placement
            .iter()
            .filter(|(task, _)| !attempt.source_tasks.contains(*task))
            .filter_map(|(task, worker)| Some((task.clone(), *self.workers.get(worker)?)))
            .collect();
        for worker in all {
            self.send(&worker, ToWorker::Start { generation, windows: windows.clone() });
        }
    }

    fn opened(&mut self, now: Instant, task: String) {
        let generation = self.generation;
        let interval = Duration::from_millis(self.job.checkpoint.interval_ms);
        let Phase::Attempt(attempt) = &mut self.phase else { return };
        attempt.opened.insert(task);
        if !matches!(attempt.stage, Stage::Opening { .. }) || attempt.opened.len() != attempt.placement.len() {
            return;
        }
        attempt.stage = Stage::Idle { next: now + interval };
        let is_final = attempt.is_final;
        self.backoff.running(now);
        self.report(Probe::AttemptRunning { generation });
        if is_final {
            // Every task has committed what the final checkpoint holds.
            self.drained(now);
        } else {
            self.trigger_if_all_ended(now);
        }
    }

    fn trigger_if_all_ended(&mut self, now: Instant) {
        if self.attempt().is_some_and(|a| matches!(a.stage, Stage::Idle { .. }) && a.ended == a.source_tasks) {
            self.trigger(now);
        }
    }

    fn trigger(&mut self, now: Instant) {
        let (generation, deadline) = (self.generation, self.deadline(now));
        let Phase::Attempt(attempt) = &mut self.phase else { return };
        let n = attempt.last + 1;
        attempt.last = n;
        attempt.stage = Stage::Collecting { n, acks: BTreeMap::new(), deadline };
        let workers: BTreeSet<String> =
            attempt.source_tasks.iter().filter_map(|t| attempt.placement.get(t).cloned()).collect();
        for worker in workers {
            self.send(&worker, ToWorker::Trigger { generation, n });
        }
    }

    fn acked(&mut self, now: Instant, task: String, n: u64, payload: Bytes) {
        let Phase::Attempt(attempt) = &mut self.phase else { return };
        let Stage::Collecting { n: current, acks, .. } = &mut attempt.stage else { return };
        if n != *current {
            return;
        }
        acks.insert(task, payload);
        if acks.len() != attempt.placement.len() {
            return;
        }
        let decoded: Result<BTreeMap<String, TaskSnapshot>, _> =
            std::mem::take(acks).into_iter().map(|(t, b)| TaskSnapshot::decode(b).map(|s| (t, s))).collect();
        match decoded {
            Err(e) => self.fail(now, format!("checkpoint {n}: {e}")),
            Ok(tasks) => {
                let checkpoint = Checkpoint {
                    job: self.job.name.clone(),
                    n,
                    generation: self.generation,
                    key_groups: self.job.parallelism.key_groups,
                    tasks,
                };
                let is_final = self.bounds.is_some() && checkpoint.is_final();
                attempt.stage = Stage::Storing { n, is_final };
                self.actions.push(Action::Store(checkpoint));
            }
        }
    }

    fn stored(&mut self, now: Instant, n: u64, result: Result<(), String>) {
        let (generation, deadline) = (self.generation, self.deadline(now));
        let Phase::Attempt(attempt) = &mut self.phase else { return };
        let Stage::Storing { n: current, is_final } = attempt.stage else { return };
        if n != current {
            return;
        }
        if let Err(reason) = result {
            self.fail(now, reason);
            return;
        }
        attempt.stage = Stage::Committing { n, is_final, committed: BTreeSet::new(), deadline };
        let workers: BTreeSet<String> = attempt.placement.values().cloned().collect();
        self.report(Probe::CheckpointCompleted { generation, n });
        for worker in workers {
            self.send(&worker, ToWorker::Commit { generation, n });
        }
    }

    fn committed(&mut self, now: Instant, task: String, n: u64) {
        let generation = self.generation;
        let interval = Duration::from_millis(self.job.checkpoint.interval_ms);
        let Phase::Attempt(attempt) = &mut self.phase else { return };
        let Stage::Committing { n: current, is_final, committed, .. } = &mut attempt.stage else { return };
        if n != *current {
            return;
        }
        committed.insert(task);
        if committed.len() != attempt.placement.len() {
            return;
        }
        let is_final = *is_final;
        attempt.stage = Stage::Idle { next: now + interval };
        self.report(Probe::CheckpointCommitted { generation, n });
        if is_final {
            self.drained(now);
        } else {
            self.trigger_if_all_ended(now);
        }
    }

    fn drained(&mut self, now: Instant) {
        self.actions.push(Action::MarkDrained { generation: self.generation });
        self.report(Probe::Drained { generation: self.generation });
        self.cancel(now, AfterCancel::Drained);
    }

    fn bounds(&mut self, bounds: Vec<(i32, i64)>) {
        if self.bounds.is_some() {
            return;
        }
        self.bounds = Some(bounds.clone());
        self.report(Probe::Finish { end_offsets: bounds.clone() });
        let generation = self.generation;
        let Phase::Attempt(attempt) = &self.phase else { return };
        let workers: BTreeSet<String> = attempt.placement.values().cloned().collect();
        for worker in workers {
            self.send(&worker, ToWorker::Bounds { generation, ends: bounds.clone() });
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
