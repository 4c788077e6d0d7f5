//! OffsetForLeaderEpoch: where a leader epoch ends in the leader's log (KIP-101, KIP-320). A reader that saw records of
//! that epoch past its end has seen records that are no more.

use std::rc::Rc;

use protocol::ErrorCode;
use protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::context::Context;

/// Neither epoch nor offset.
const NONE: i64 = -1;

pub(crate) fn handle(context: &Rc<Context>, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            match look_up(context, &topic.topic, asked) {
                Ok((epoch, end)) => answer.with_leader_epoch(epoch).with_end_offset(end),
                Err(error) => answer.with_error_code(error.code()).with_leader_epoch(NONE as i32).with_end_offset(NONE),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn look_up(context: &Context, topic: &str, asked: &OffsetForLeaderPartition) -> Result<(i32, i64), ErrorCode> {
    let partition = context.partition(topic, asked.partition)?;
    partition.check_leader(asked.current_leader_epoch)?;
    // An epoch that this leader does not know of is no error: the answer says so.
    Ok(partition.end_offset_for_epoch(asked.leader_epoch).unwrap_or((NONE as i32, NONE)))
}
