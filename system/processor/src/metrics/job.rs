//! What the coordinator counts: workers, attempts, checkpoints.

use std::cell::Cell;

use metrics::{Counter, Snapshot};

use crate::probe::Probe;

#[derive(Debug, Default)]
pub(crate) struct JobMetrics {
    attempts: Counter,
    failures: Counter,
    completed: Counter,
    committed: Counter,
    last_checkpoint: Cell<u64>,
    last_checkpoint_bytes: Cell<usize>,
    running: Cell<bool>,
    drained: Cell<bool>,
    workers: Cell<usize>,
}

impl JobMetrics {
    /// Takes note of what the machine reports.
    pub fn note(&self, probe: &Probe) {
        match probe {
            Probe::AttemptStarted { .. } => self.attempts.inc(),
            Probe::AttemptRunning { .. } => self.running.set(true),
            Probe::AttemptFailed { .. } => {
                self.running.set(false);
                self.failures.inc();
            }
            Probe::CheckpointCompleted { n, .. } => {
                self.completed.inc();
                self.last_checkpoint.set(*n);
            }
            Probe::CheckpointCommitted { .. } => self.committed.inc(),
            Probe::Drained { .. } => {
                self.running.set(false);
                self.drained.set(true);
            }
            Probe::Decision(_) | Probe::WorkerRegistered { .. } | Probe::Finish { .. } => {}
        }
    }

    pub fn stored(&self, bytes: usize) {
        self.last_checkpoint_bytes.set(bytes);
    }

    pub fn workers(&self, connected: usize) {
        self.workers.set(connected);
    }

    /// An earlier life of the coordinator had drained the job.
    pub fn already_drained(&self) {
        self.drained.set(true);
    }

    pub fn measure(&self, job: &str, out: &mut Snapshot) {
        let labels: metrics::Labels<'_> = &[("job", &job)];
        for (name, help, counter) in [
            ("flink_jobmanager_job_attempts_total", "Attempts that were deployed", &self.attempts),
            ("flink_jobmanager_job_numrestarts_total", "Attempts that failed", &self.failures),
            ("flink_jobmanager_job_numberofcompletedcheckpoints_total", "Checkpoints made durable", &self.completed),
            (
                "flink_jobmanager_job_numberofcommittedcheckpoints_total",
                "Checkpoints whose rows every task committed",
                &self.committed,
            ),
        ] {
            out.counter(name, help, labels, counter.get());
        }
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("flink_jobmanager_job_running", "1 while every task of an attempt runs", self.running.get().into()),
            ("flink_jobmanager_job_drained", "1 once all bounded input is committed", self.drained.get().into()),
            (
                "flink_jobmanager_job_lastcompletedcheckpointid",
                "Number of the newest checkpoint of this life of the coordinator",
                i64::try_from(self.last_checkpoint.get()).unwrap_or(i64::MAX),
            ),
            (
                "flink_jobmanager_job_lastcheckpointsize",
                "Bytes of the newest checkpoint",
                count(self.last_checkpoint_bytes.get()),
            ),
            ("flink_jobmanager_numregisteredtaskmanagers", "Workers that are connected", count(self.workers.get())),
        ] {
            out.gauge(name, help, labels, value);
        }
    }
}
