//! ListOffsets: the first and last offsets of partitions, and offsets by time, bounded by what the isolation shows
//! (KAFKA-5522).

use std::rc::Rc;

use protocol::ErrorCode;
use protocol::messages::list_offsets_request::ListOffsetsPartition;
use protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use crate::context::Context;
use crate::partition::{Isolation, Partition};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
/// Neither timestamp nor offset nor epoch.
const NONE: i64 = -1;

/// Answers carry the leader epoch from this version on.
const LEADER_EPOCHS: i16 = 4;
/// From here on clients know OFFSET_NOT_AVAILABLE.
const NOT_AVAILABLE: i16 = 5;

pub(crate) async fn handle(context: Rc<Context>, version: i16, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let isolation = if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            let answer = match context.partition(&topic.name, asked.partition_index) {
                Ok(partition) => look_up(&partition, version, asked, isolation).await,
                Err(error) => Err(error),
            };
            let response = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
            partitions.push(match answer {
                Ok((timestamp, offset, epoch)) => {
                    let epoch = if version >= LEADER_EPOCHS { epoch } else { NONE as i32 };
                    response.with_timestamp(timestamp).with_offset(offset).with_leader_epoch(epoch)
                }
                Err(error) => response
                    .with_error_code(error.code())
                    .with_timestamp(NONE)
                    .with_offset(NONE)
                    .with_leader_epoch(NONE as i32),
            });
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// (timestamp, offset, leader epoch).
async fn look_up(
    partition: &Partition,
    version: i16,
    asked: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<(i64, i64, i32), ErrorCode> {
    partition.check_leader(asked.current_leader_epoch)?;
    // A new leader may know an older high watermark than clients have seen (KIP-207).
    if !partition.knows_high_watermark() && !matches!(asked.timestamp, EARLIEST | EARLIEST_LOCAL) {
        env::sometimes!(true, "list offsets: the new leader's high watermark is not known yet");
        let known = version >= NOT_AVAILABLE;
        return Err(if known { ErrorCode::OFFSET_NOT_AVAILABLE } else { ErrorCode::LEADER_NOT_AVAILABLE });
    }
    let found = match asked.timestamp {
        LATEST => return Ok((NONE, partition.readable_end(isolation), partition.leader_epoch())),
        EARLIEST | EARLIEST_LOCAL => Some((NONE, partition.log_start_offset())),
        MAX_TIMESTAMP => partition.offset_of_max_timestamp(isolation).await?,
        time if time < 0 => return Err(ErrorCode::UNSUPPORTED_VERSION),
        time => partition.offset_for_timestamp(time, isolation).await?,
    };
    Ok(match found {
        Some((timestamp, offset)) => {
            let epoch = partition.epoch_for_offset(offset).unwrap_or(partition.leader_epoch());
            (timestamp, offset, epoch)
        }
        None => (NONE, NONE, NONE as i32),
    })
}
