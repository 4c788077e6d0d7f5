//! The processor's own description of a job, complete: nothing is defaulted by the nodes that run it. The coordinator
//! sends it to the workers with each attempt.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobConfig {
    /// Names the job's transactional ids, epochs topic and checkpoints.
    pub name: String,
    pub source: SourceConfig,
    pub watermark: WatermarkConfig,
    pub window: WindowConfig,
    pub aggregates: Vec<Aggregate>,
    pub sink: SinkConfig,
    pub parallelism: Parallelism,
    pub checkpoint: CheckpointConfig,
    pub restart: RestartConfig,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    pub topic: String,
    pub format: Format,
    pub key: String,
    pub event_time: String,
    pub value: Option<String>,
    /// A longer record value goes to the dead-letter queue.
    pub max_record_bytes: usize,
    /// Longest wait of one fetch for data, milliseconds.
    pub fetch_max_wait_ms: u64,
    /// Records of a split that are judged together before its W moves.
    pub chunk_records: usize,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Json,
    /// One line a record, its columns in this order.
    Csv {
        columns: Vec<String>,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatermarkConfig {
    pub out_of_orderness_ms: i64,
    /// None: a silent split holds W for ever.
    pub idle_after_ms: Option<u64>,
    /// How old the answer of a fetch may be to prove anything about idleness, milliseconds.
    pub fetch_timeout_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowConfig {
    pub assigner: Assigner,
    pub allowed_lateness_ms: i64,
    pub accumulation: Accumulation,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Assigner {
    Tumbling { size_ms: i64, offset_ms: i64 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accumulation {
    Accumulating,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    Count,
    Sum,
    Min,
    Max,
    Digest,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    pub guarantee: Guarantee,
    pub topic: String,
    pub late_topic: String,
    pub dlq_topic: String,
    pub decisions_topic: Option<String>,
    /// Partitions of the topics above and of the epochs topic, when the coordinator has to create them.
    pub partitions: i32,
    pub replication_factor: i16,
}

impl SinkConfig {
    /// Every topic the tasks write to.
    pub fn topics(&self, job: &str) -> Vec<String> {
        let mut topics = vec![self.topic.clone(), self.late_topic.clone(), self.dlq_topic.clone(), epochs_topic(job)];
        topics.extend(self.decisions_topic.clone());
        topics.sort();
        topics.dedup();
        topics
    }
}

/// `<job>-epochs`: one record a task and epoch (rule 22).
pub fn epochs_topic(job: &str) -> String {
    format!("{job}-epochs")
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// Prepared transactions, committed after the checkpoint is complete.
    Transactional,
    /// Every row is acknowledged before the checkpoint is; replays may repeat rows.
    AtLeastOnce,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parallelism {
    /// Upper bound: never more source tasks than partitions.
    pub source_tasks: u32,
    pub window_tasks: u32,
    pub key_groups: u32,
    /// Messages in flight on one channel between two tasks before the sender waits.
    pub channel_capacity: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// From the end of one to the start of the next.
    pub interval_ms: u64,
    /// An attempt whose checkpoint takes longer is restarted: a channel may be stuck.
    pub timeout_ms: u64,
    /// Complete checkpoints kept.
    pub retained: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartConfig {
    pub initial_backoff_ms: u64,
    pub max_backoff_ms: u64,
    /// An attempt that ran this long without failing resets the backoff.
    pub reset_after_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("job {job:?}: {what}")]
pub struct JobError {
    pub job: String,
    pub what: String,
}

const LIMIT_MS: i64 = 1 << 43;

impl JobConfig {
    /// A job of one field each, with this crate's defaults for all knobs: the starting point of callers.
    pub fn new(name: &str, source_topic: &str, sink_topic: &str) -> Self {
        Self {
            name: name.to_owned(),
            source: SourceConfig {
                topic: source_topic.to_owned(),
                format: Format::Json,
                key: "key".to_owned(),
                event_time: "t".to_owned(),
                value: Some("value".to_owned()),
                max_record_bytes: 1 << 20,
                fetch_max_wait_ms: 500,
                chunk_records: 32,
            },
            watermark: WatermarkConfig { out_of_orderness_ms: 0, idle_after_ms: Some(30_000), fetch_timeout_ms: 5_000 },
            window: WindowConfig {
                assigner: Assigner::Tumbling { size_ms: 60_000, offset_ms: 0 },
                allowed_lateness_ms: 0,
                accumulation: Accumulation::Accumulating,
            },
            aggregates: vec![Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max, Aggregate::Digest],
            sink: SinkConfig {
                guarantee: Guarantee::Transactional,
                topic: sink_topic.to_owned(),
                late_topic: format!("{name}-late"),
                dlq_topic: format!("{name}-dlq"),
                decisions_topic: None,
                partitions: 2,
                replication_factor: 1,
            },
            parallelism: Parallelism { source_tasks: 2, window_tasks: 2, key_groups: 128, channel_capacity: 16 },
            checkpoint: CheckpointConfig { interval_ms: 2_000, timeout_ms: 20_000, retained: 3 },
            restart: RestartConfig { initial_backoff_ms: 200, max_backoff_ms: 5_000, reset_after_ms: 10_000 },
        }
    }

    /// Refuses what this build cannot run. The job file's own errors are reported where it is parsed; this is the
    /// second side of that boundary.
    pub fn validate(&self) -> Result<(), JobError> {
        let fail = |what: String| Err(JobError { job: self.name.clone(), what });
        if self.name.is_empty() {
            return fail("the name is empty".into());
        }
        let Assigner::Tumbling { size_ms, offset_ms } = self.window.assigner;
        if !(1..LIMIT_MS).contains(&size_ms) {
            return fail(format!("window size {size_ms} ms is not within 1 ms and 2^43 ms"));
        }
        if offset_ms.abs() >= LIMIT_MS {
            return fail(format!("window offset {offset_ms} ms is not below 2^43 ms"));
        }
        for (name, ms) in [
            ("out_of_orderness", self.watermark.out_of_orderness_ms),
            ("allowed_lateness", self.window.allowed_lateness_ms),
        ] {
            if !(0..LIMIT_MS).contains(&ms) {
                return fail(format!("{name} {ms} ms is not within 0 and 2^43 ms"));
            }
        }
        let p = self.parallelism;
        if p.source_tasks == 0 || p.window_tasks == 0 || p.key_groups < p.window_tasks || p.channel_capacity == 0 {
            return fail(format!("parallelism {p:?}"));
        }
        if self.source.chunk_records == 0 || self.checkpoint.retained == 0 || self.sink.partitions < 1 {
            return fail("chunk_records, retained and partitions must be at least 1".into());
        }
        let needs_value = self.aggregates.iter().any(|a| matches!(a, Aggregate::Sum | Aggregate::Min | Aggregate::Max));
        if needs_value && self.source.value.is_none() {
            return fail("sum, min and max need a value field".into());
        }
        if let Format::Csv { columns } = &self.source.format {
            for field in [Some(&self.source.key), Some(&self.source.event_time), self.source.value.as_ref()] {
                if let Some(field) = field.filter(|f| !columns.contains(f)) {
                    return fail(format!("column {field:?} is not among {columns:?}"));
                }
            }
        }
        Ok(())
    }

    pub fn fetch_timeout(&self) -> Duration {
        Duration::from_millis(self.watermark.fetch_timeout_ms)
    }

    pub fn idle_after(&self) -> Option<Duration> {
        self.watermark.idle_after_ms.map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_job_is_valid_and_survives_json() {
        let job = JobConfig::new("j", "in", "out");
        job.validate().unwrap();
        let text = serde_json::to_string(&job).unwrap();
        assert_eq!(serde_json::from_str::<JobConfig>(&text).unwrap(), job);
    }

    #[test]
    fn impossible_values_are_refused() {
        let mut job = JobConfig::new("j", "in", "out");
        job.window.assigner = Assigner::Tumbling { size_ms: 0, offset_ms: 0 };
        assert!(job.validate().is_err());
        let mut job = JobConfig::new("j", "in", "out");
        job.window.allowed_lateness_ms = 1 << 43;
        assert!(job.validate().is_err());
        let mut job = JobConfig::new("j", "in", "out");
        job.source.value = None;
        assert!(job.validate().is_err());
    }
}
