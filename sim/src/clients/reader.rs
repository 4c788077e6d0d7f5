//! A workload reader: follows a topic from offset 0 and records the offsets that brokers report.

use std::rc::Rc;
use std::time::Duration;

use client::{Consumer, ConsumerConfig, TopicPartition};
use history::Observed;
use scenarios::plan::{Isolation, Reader};

use super::Stage;

pub(super) async fn run(stage: &Rc<Stage>, id: u32, script: &Reader) {
    let config = ConsumerConfig {
        isolation: match script.isolation {
            Isolation::ReadUncommitted => client::Isolation::ReadUncommitted,
            Isolation::ReadCommitted => client::Isolation::ReadCommitted,
        },
        max_wait: Duration::from_millis(stage.knobs.fetch_max_wait_ms),
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::new(stage.client(id), config);
    let partitions = stage.partitions_of(&script.topic);
    consumer.assign((0..partitions).map(|p| (TopicPartition::new(&script.topic, p), 0)).collect());
    while !stage.stop.get() {
        for result in consumer.poll().await {
            if result.error.is_some() || result.high_watermark < 0 {
                continue;
            }
            let (topic, partition) = (script.topic.clone(), result.partition.partition);
            let Some(leader_epoch) = result.answered_in else { continue };
            let offset = result.high_watermark;
            stage
                .recording
                .observe(id, Observed::HighWatermark { topic: topic.clone(), partition, leader_epoch, offset });
            let offset = result.last_stable_offset;
            stage.recording.observe(id, Observed::LastStableOffset { topic, partition, leader_epoch, offset });
        }
    }
}
