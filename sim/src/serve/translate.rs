//! The translation of a job file into the processor's own configuration.

use ::processor::job::{
    Accumulation, Aggregate, Assigner, CheckpointConfig, Format, Guarantee, JobConfig, Parallelism, RestartConfig,
    SinkConfig, SourceConfig, WatermarkConfig, WindowConfig,
};
use models::{JobSpec, spec};
use scenarios::plan::ProcessorKnobs;

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
            replication_factor: 1,
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
