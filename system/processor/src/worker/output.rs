//! A task's output side: its sink writer, its decision log, and the epoch both belong to.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use client::Client;
use env::node::{When, crash_point};
use serde_json::json;
use sink::{AtLeastOnce, Pending, Prepared, SinkError, SinkRecord, SinkWriter, Transactional};

use super::ROLE;
use super::task::Reporter;
use crate::control::Generation;
use crate::decision::{Decision, DecisionLog};
use crate::job::{self, Guarantee, JobConfig};
use crate::metrics::TaskMetrics;
use crate::record::Record;
use crate::source::SourceRecord;
use crate::window::Row;

pub struct Output {
    job: Rc<JobConfig>,
    task: String,
    generation: Generation,
    writer: Box<dyn SinkWriter>,
    log: DecisionLog,
    metrics: Rc<TaskMetrics>,
    epochs_topic: String,
    /// The open epoch.
    n: u64,
    /// Producer id and epoch of its transaction.
    identity: (i64, i16),
}

impl Output {
    pub fn new(client: Client, job: Rc<JobConfig>, reporter: &Reporter) -> Self {
        let (task, generation) = (&reporter.task, reporter.generation);
        let topics = job.sink.topics(&job.name);
        let delivery_timeout = Duration::from_millis(job.checkpoint.timeout_ms);
        let writer: Box<dyn SinkWriter> = match job.sink.guarantee {
            Guarantee::Transactional => {
                let id = format!("{}-{task}", job.name);
                Box::new(Transactional::new(client, &id, topics, delivery_timeout))
            }
            Guarantee::AtLeastOnce => Box::new(AtLeastOnce::new(client, topics, delivery_timeout)),
        };
        Self {
            epochs_topic: job::epochs_topic(&job.name),
            job,
            task: task.clone(),
            generation,
            writer,
            metrics: Rc::clone(&reporter.metrics),
            log: DecisionLog::new(generation, task),
            n: 0,
            identity: (-1, -1),
        }
    }

    /// Settles what earlier attempts left.
    pub async fn recover(&mut self, restored: Option<Prepared>) -> Result<(), SinkError> {
        crash_point(ROLE, "restore", None, When::Before).await;
        self.writer.recover(restored).await?;
        crash_point(ROLE, "restore", None, When::After).await;
        Ok(())
    }

    pub async fn begin(&mut self, n: u64) -> Result<(), SinkError> {
        self.identity = self.writer.begin(n).await?;
        self.n = n;
        Ok(())
    }

    pub async fn decide(&mut self, decision: Decision) -> Result<(), SinkError> {
        let topic = self.job.sink.decisions_topic.as_ref();
        let (Some(entry), Some(topic)) = (self.log.record(decision, topic.is_some()), topic) else { return Ok(()) };
        let value = serde_json::to_vec(&entry).map_err(|e| SinkError::new("write a decision", e))?;
        let record = SinkRecord { key: Some(self.task.clone().into()), value: Some(value.into()), headers: Vec::new() };
        self.writer.write(topic, record).await
    }

    pub async fn emit(&mut self, row: Row) -> Result<(), SinkError> {
        let value = row.to_json(&self.job.aggregates);
        let record = SinkRecord { key: Some(row.key), value: Some(value.into()), headers: Vec::new() };
        crash_point(ROLE, "window.fire", None, When::Before).await;
        self.writer.write(&self.job.sink.topic, record).await?;
        self.metrics.rows_out.inc();
        crash_point(ROLE, "window.fire", None, When::After).await;
        Ok(())
    }

    pub async fn late(&mut self, record: Record) -> Result<(), SinkError> {
        let headers = self.origin(record.partition, record.offset);
        let record = SinkRecord { key: record.raw_key, value: record.raw_value, headers };
        crash_point(ROLE, "late.write", None, When::Before).await;
        self.writer.write(&self.job.sink.late_topic, record).await?;
        self.metrics.late.inc();
        crash_point(ROLE, "late.write", None, When::After).await;
        Ok(())
    }

    pub async fn dead_letter(
        &mut self,
        partition: i32,
        record: SourceRecord,
        reason: &'static str,
    ) -> Result<(), SinkError> {
        let mut headers = self.origin(partition, record.offset);
        headers.push((Bytes::from_static(b"reason"), Some(Bytes::from_static(reason.as_bytes()))));
        let record = SinkRecord { key: record.key, value: record.value, headers };
        crash_point(ROLE, "dead_letter.write", Some(partition), When::Before).await;
        self.writer.write(&self.job.sink.dlq_topic, record).await?;
        self.metrics.dead_letters.inc();
        crash_point(ROLE, "dead_letter.write", Some(partition), When::After).await;
        Ok(())
    }

    fn origin(&self, partition: i32, offset: i64) -> Vec<(Bytes, Option<Bytes>)> {
        [
            ("source.topic", self.job.source.topic.clone()),
            ("source.partition", partition.to_string()),
            ("source.offset", offset.to_string()),
        ]
        .map(|(name, value)| (Bytes::from_static(name.as_bytes()), Some(Bytes::from(value))))
        .to_vec()
    }

    /// Ends epoch `n`: its last decision, its marker on the epochs topic, then the pre-commit.
    pub async fn barrier(&mut self, n: u64, positions: Option<Vec<(i32, i64)>>) -> Result<Option<Prepared>, SinkError> {
        if n != self.n {
            return Err(SinkError::new("pre-commit", format!("barrier {n} in epoch {}", self.n)));
        }
        let (producer_id, producer_epoch) = self.identity;
        let marker = json!({"generation": self.generation, "task": self.task, "n": n}).to_string();
        let record =
            SinkRecord { key: Some(self.task.clone().into()), value: Some(marker.into()), headers: Vec::new() };
        self.writer.write(&self.epochs_topic, record).await?;
        self.decide(Decision::Barrier { n, producer_id, producer_epoch, positions }).await?;
        crash_point(ROLE, "sink.prepare", None, When::Before).await;
        let prepared = self.writer.pre_commit(n).await?;
        crash_point(ROLE, "sink.prepare", None, When::After).await;
        Ok(prepared)
    }

    /// Runs beside the next epoch.
    pub fn commit(&mut self, n: u64) -> Pending<'static, u64> {
        let committing = self.writer.commit(n);
        Box::pin(async move {
            crash_point(ROLE, "sink.commit", None, When::Before).await;
            committing.await?;
            crash_point(ROLE, "sink.commit", None, When::After).await;
            Ok(n)
        })
    }
}
