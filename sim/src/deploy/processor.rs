//! The processor's nodes, and the translation of a job file into the processor's own configuration.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ::processor::coordinator::{Coordinator, CoordinatorConfig};
use ::processor::job::{
    Accumulation, Aggregate, Assigner, CheckpointConfig, Format, Guarantee, JobConfig, Parallelism, RestartConfig,
    SinkConfig, SourceConfig, WatermarkConfig, WindowConfig,
};
use ::processor::worker::{self, WorkerConfig};
use client::ClientConfig;
use models::{JobSpec, spec};
use scenarios::Plan;
use scenarios::plan::{NodeName, ProcessorKnobs, Role};

use super::{DATA_DIR, address};
use crate::recorder::Recording;

/// What the harness asks of the coordinator, and what it hears: kept outside the node, so that it survives its crashes.
#[derive(Debug, Default)]
pub struct Control {
    /// End offsets to close the input at, once the harness has chosen them.
    finish: RefCell<Option<BTreeMap<i32, i64>>>,
    asked: env::sync::Notify,
    drained: Cell<bool>,
    pub heard: env::sync::Notify,
}

impl Control {
    /// Closes the input at these offsets (exclusive, by partition). Repeated to each new life of the coordinator.
    pub fn finish(&self, ends: BTreeMap<i32, i64>) {
        *self.finish.borrow_mut() = Some(ends);
        self.asked.notify_waiters();
    }

    pub fn is_drained(&self) -> bool {
        self.drained.get()
    }
}

/// What all processor nodes of a plan share.
#[derive(Debug)]
pub(super) struct Setup {
    job: JobConfig,
    client: ClientConfig,
    workers: u32,
    knobs: ProcessorKnobs,
}

impl Setup {
    /// `None` without a job.
    pub(super) fn of(plan: &Plan, client: &ClientConfig) -> Option<Setup> {
        let (job, knobs) = (plan.job.as_ref()?, plan.knobs.processor.clone()?);
        let spec = JobSpec::parse(&job.toml, "job.toml").expect("a valid plan has a valid job");
        let job = job_config(&spec, &knobs, plan.knobs.client.fetch_max_wait_ms);
        Some(Setup { job, client: client.clone(), workers: plan.topology.workers, knobs })
    }
}

/// The processor's configuration of a job.
pub fn job_config(job: &JobSpec, knobs: &ProcessorKnobs, fetch_max_wait_ms: u64) -> JobConfig {
    let spec::WindowKind::Tumbling { size_ms, offset_ms } = job.window.kind;
    JobConfig {
        name: job.name.clone(),
        source: SourceConfig {
            topic: job.source.topic.clone(),
            format: match job.source.format {
                spec::Format::Json => Format::Json,
                spec::Format::Csv => Format::Csv { columns: job.source.columns.clone().unwrap_or_default() },
            },
            key: job.source.key.clone(),
            event_time: job.source.event_time.clone(),
            value: job.source.value.clone(),
            max_record_bytes: 1 << 20,
            fetch_max_wait_ms,
            chunk_records: knobs.chunk_records as usize,
        },
        watermark: WatermarkConfig {
            out_of_orderness_ms: job.watermark.out_of_orderness_ms,
            idle_after_ms: job.watermark.idle_after_ms.map(|ms| ms as u64),
            fetch_timeout_ms: knobs.fetch_timeout_ms,
        },
        window: WindowConfig {
            assigner: Assigner::Tumbling { size_ms, offset_ms },
            allowed_lateness_ms: job.window.allowed_lateness_ms,
            accumulation: Accumulation::Accumulating,
        },
        aggregates: job
            .aggregate
            .iter()
            .map(|f| match f {
                spec::Function::Count => Aggregate::Count,
                spec::Function::Sum => Aggregate::Sum,
                spec::Function::Min => Aggregate::Min,
                spec::Function::Max => Aggregate::Max,
                spec::Function::Digest => Aggregate::Digest,
            })
            .collect(),
        sink: SinkConfig {
            guarantee: match job.sink.delivery {
                spec::Delivery::ExactlyOnce => Guarantee::Transactional,
                spec::Delivery::AtLeastOnce => Guarantee::AtLeastOnce,
            },
            topic: job.sink.topic.clone(),
            late_topic: job.sink.late_topic.clone(),
            dlq_topic: job.sink.dlq_topic.clone(),
            decisions_topic: job.sink.decisions_topic.clone(),
            partitions: knobs.sink_partitions as i32,
            replication_factor: -1,
        },
        parallelism: Parallelism {
            source_tasks: knobs.source_tasks,
            window_tasks: knobs.window_tasks,
            key_groups: knobs.key_groups,
            channel_capacity: knobs.channel_capacity as usize,
        },
        checkpoint: CheckpointConfig {
            interval_ms: knobs.checkpoint_interval_ms,
            timeout_ms: knobs.checkpoint_timeout_ms,
            retained: knobs.checkpoints_retained as usize,
        },
        restart: RestartConfig {
            initial_backoff_ms: knobs.restart_backoff_min_ms,
            max_backoff_ms: knobs.restart_backoff_max_ms,
            reset_after_ms: knobs.restart_reset_ms,
        },
    }
}

/// The coordinator's node.
pub(super) async fn coordinator(setup: Rc<Setup>, control: Rc<Control>, recording: Recording) {
    let config = CoordinatorConfig {
        listen: address(NodeName::new(Role::Coordinator, 0)),
        job: setup.job.clone(),
        client: setup.client.clone(),
        data_dir: PathBuf::from(DATA_DIR),
        workers: setup.workers as usize,
        heartbeat_timeout: Duration::from_millis(setup.knobs.heartbeat_timeout_ms),
    };
    let coordinator = match Coordinator::start(config).await {
        Ok(coordinator) => coordinator,
        Err(e) => {
            recording.note(format!("coordinator-0 stopped: {e}"));
            return;
        }
    };
    let handle = coordinator.clone();
    let notes = recording.clone();
    let orders = async move {
        loop {
            let asked = control.asked.notified();
            let ends = control.finish.borrow().clone();
            match ends {
                None => asked.await,
                Some(ends) => {
                    if let Err(e) = handle.finish(Some(ends)).await {
                        notes.note(format!("coordinator-0 failed to finish: {e}"));
                        env::time::sleep(Duration::from_millis(500)).await;
                        continue;
                    }
                    if handle.drained().await.is_err() {
                        break;
                    }
                    control.drained.set(true);
                    control.heard.notify_waiters();
                    break;
                }
            }
        }
    };
    let orders = env::task::spawn(orders);
    if let Err(e) = coordinator.run_until(std::future::pending::<()>()).await {
        recording.note(format!("coordinator-0 stopped: {e}"));
    }
    orders.abort();
}

/// A worker's node.
pub(super) async fn worker(setup: Rc<Setup>, number: u32, recording: Recording) {
    let name = NodeName::new(Role::Worker, number);
    let config = WorkerConfig {
        name: name.to_string(),
        listen: address(name),
        advertised: None,
        coordinator: address(NodeName::new(Role::Coordinator, 0)),
        client: setup.client.clone(),
        connect_timeout: Duration::from_millis(setup.knobs.heartbeat_timeout_ms),
        reconnect_backoff: Duration::from_millis(setup.knobs.restart_backoff_min_ms),
        heartbeat_interval: Duration::from_millis(setup.knobs.heartbeat_interval_ms),
        heartbeat_timeout: Duration::from_millis(setup.knobs.heartbeat_timeout_ms),
    };
    if let Err(e) = worker::run(config, std::future::pending::<()>()).await {
        recording.note(format!("{name} stopped: {e}"));
    }
}
