//! DeleteRecords (KIP-107): the leader gives up what lies below an offset, and answers once every live replica has.
//!
//! ```text
//! DeleteRecords ──▶ leader: log start, durable [records.delete] ──▶ low watermark = min(log starts of live replicas) ──▶ answer
//!                                  └──▶ fetch answer ──▶ follower: log start, durable [retain.delete] ──▶ next fetch ──┘
//! ```
//! A replica that is fenced is not waited for: it leaves the in-sync set, and joins it again, and so may lead, only once its
//! log begins no earlier than its leader's.
//! The call can be repeated: what is gone already is no error, and the same low watermark is waited for.

use std::rc::Rc;
use std::time::Duration;

use env::clock::{self, Instant};
use protocol::ErrorCode;
use protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use crate::context::Context;
use crate::internal_topics::is_internal;
use crate::join::join_all;
use crate::log_settings::LogSettings;
use crate::partition::Partition;
use crate::turn::Turn;

/// Where there is no low watermark to tell (`DeleteRecordsResponse.INVALID_LOW_WATERMARK`).
const INVALID_LOW_WATERMARK: i64 = -1;

pub(crate) async fn handle(context: Rc<Context>, request: DeleteRecordsRequest, turn: Turn) -> DeleteRecordsResponse {
    let deadline = clock::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let mut deleting = Vec::new();
    for topic in &request.topics {
        for p in &topic.partitions {
            let partition = check(&context, &topic.name, p.partition_index);
            deleting.push(async move {
                let partition = partition?;
                let offset = partition.delete_records(p.offset).await?;
                Ok((partition, offset))
            });
        }
    }
    let deleted = join_all(deleting).await;
    // All that follows is waiting.
    drop(turn);
    let waiting = deleted.into_iter().map(async |deleted: Result<(Partition, i64), ErrorCode>| match deleted {
        Ok((partition, offset)) => follow(&context, &partition, offset, deadline).await,
        Err(error) => (error, INVALID_LOW_WATERMARK),
    });
    let mut results = join_all(waiting).await.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let (error, low_watermark) =
                results.next().unwrap_or((ErrorCode::UNKNOWN_SERVER_ERROR, INVALID_LOW_WATERMARK));
            DeleteRecordsPartitionResult::default()
                .with_partition_index(p.partition_index)
                .with_low_watermark(low_watermark)
                .with_error_code(error.code())
        });
        DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

/// What Kafka refuses before it looks at the offset, in its order (`KafkaApis.handleDeleteRecordsRequest`,
/// `Partition.deleteRecordsOnLeader`).
fn check(context: &Context, topic: &str, index: i32) -> Result<Partition, ErrorCode> {
    if context.leader(topic, index).is_none() {
        return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
    if is_internal(topic) {
        return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    let partition = context.partition(topic, index).map_err(|error| match error {
        // Only consumers ask what is no leader.
        ErrorCode::REPLICA_NOT_AVAILABLE => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        error => error,
    })?;
    let settings = context.metadata.with(|image| {
        let topic = image.topics.get(&partition.id().topic_id)?;
        Some(LogSettings::of(&topic.name, &topic.configs, &context.config))
    });
    match settings {
        None => Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        // The newest record of each key is to stay.
        Some(settings) if settings.compact && !settings.delete => Err(ErrorCode::POLICY_VIOLATION),
        Some(_) => Ok(partition),
    }
}

/// Waits until the log begins at `offset` or later on every live replica. The error, and the low watermark.
async fn follow(context: &Context, partition: &Partition, offset: i64, deadline: Instant) -> (ErrorCode, i64) {
    let is_live = |broker: i32| context.metadata.with(|i| i.brokers.get(&broker).is_some_and(|b| !b.fenced));
    loop {
        // Before the look, so that no move in between is missed.
        let (moves, fenced) = (partition.low_watermark_moves(), context.metadata.changed());
        let low_watermark = match partition.low_watermark(is_live) {
            Ok(low_watermark) => low_watermark.unwrap_or(INVALID_LOW_WATERMARK),
            Err(error) => {
                env::sometimes!(true, "delete records: the leader changed before replicas had followed");
                return (error, INVALID_LOW_WATERMARK);
            }
        };
        if low_watermark >= offset {
            return (ErrorCode::NONE, low_watermark);
        }
        let change = async {
            env::select! {
                () = moves => {}
                () = fenced => {}
            }
        };
        if env::time::timeout_at(deadline, change).await.is_err() {
            env::sometimes!(true, "delete records: a live replica did not follow in time");
            return (ErrorCode::REQUEST_TIMED_OUT, low_watermark);
        }
    }
}
