//! Fetch: whole batches to readers, or a wait in purgatory until there are some.
//!
//! Fetch sessions (KIP-227) are not kept: every answer carries session id 0, which tells the client to name all its
//! partitions each time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use env::clock;
use protocol::ErrorCode;
use protocol::messages::fetch_request::FetchPartition;
use protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};

use crate::context::Context;
use crate::partition::{FetchData, Isolation, Partition};
use crate::purgatory::Readable;

/// From here on topics are named by id.
const TOPIC_IDS: i16 = 13;
/// `current_leader_epoch` of a client that does not know it.
const NO_EPOCH: i32 = -1;

/// One partition that is asked for.
struct Asked<'a> {
    request: &'a FetchPartition,
    partition: Result<Partition, ErrorCode>,
}

pub(crate) async fn handle(context: Rc<Context>, version: i16, request: FetchRequest) -> FetchResponse {
    if request.session_id != 0 {
        return FetchResponse::default().with_error_code(ErrorCode::FETCH_SESSION_ID_NOT_FOUND.code());
    }
    let isolation = match request.isolation_level {
        0 => Isolation::ReadUncommitted,
        1 => Isolation::ReadCommitted,
        _ => return FetchResponse::default().with_error_code(ErrorCode::INVALID_REQUEST.code()),
    };
    let resolve = |name: &TopicName, id, index| {
        if version >= TOPIC_IDS {
            context.partition_by_id(id, index).map(|(_, p)| p)
        } else {
            context.partition(name, index)
        }
    };
    let mut asked: Vec<Asked<'_>> = Vec::new();
    for topic in &request.topics {
        for p in &topic.partitions {
            let partition = resolve(&topic.topic, topic.topic_id, p.partition)
                .and_then(|partition| check_epoch(&partition, p.current_leader_epoch).map(|()| partition));
            asked.push(Asked { request: p, partition });
        }
    }

    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = clock::now() + wait;
    let max_bytes = request.max_bytes.clamp(0, context.config.fetch_max_bytes) as usize;
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes);
    let results = loop {
        let results = read_all(&asked, max_bytes, isolation).await;
        let bytes: usize = results.iter().flatten().map(|d| d.records.len()).sum();
        let failed = results.iter().any(Result::is_err);
        let closed = asked.iter().flat_map(|a| &a.partition).any(Partition::is_closed);
        if bytes >= min_bytes || failed || closed || clock::now() >= deadline {
            break results;
        }
        // Past the bound that was just read under, so that no move of it in between is missed.
        let waits = asked.iter().zip(&results).filter_map(|(a, r)| {
            let (partition, data) = (a.partition.as_ref().ok()?, r.as_ref().ok()?);
            let seen = match isolation {
                Isolation::ReadUncommitted => data.high_watermark,
                Isolation::ReadCommitted => data.last_stable_offset,
            };
            Some(partition.wait_readable(seen.max(a.request.fetch_offset), isolation))
        });
        let _ = env::time::timeout_at(deadline, any_readable(waits.collect())).await;
    };

    let mut results = results.into_iter();
    let responses = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let result = results.next().unwrap_or(Err(ErrorCode::UNKNOWN_SERVER_ERROR));
            partition_data(p.partition, result, isolation)
        });
        let partitions = partitions.collect();
        FetchableTopicResponse::default()
            .with_topic(topic.topic.clone())
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions)
    });
    FetchResponse::default().with_responses(responses.collect())
}

/// A client that knows an older leader, or a newer one than this broker does.
pub(crate) fn check_epoch(partition: &Partition, current: i32) -> Result<(), ErrorCode> {
    match current.cmp(&partition.leader_epoch()) {
        _ if current == NO_EPOCH => Ok(()),
        std::cmp::Ordering::Less => Err(ErrorCode::FENCED_LEADER_EPOCH),
        std::cmp::Ordering::Greater => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
        std::cmp::Ordering::Equal => Ok(()),
    }
}

/// Reads the partitions in the order of the request until `max_bytes` are there. The first batch found may exceed it.
async fn read_all(asked: &[Asked<'_>], max_bytes: usize, isolation: Isolation) -> Vec<Result<FetchData, ErrorCode>> {
    let mut results = Vec::with_capacity(asked.len());
    let mut total = 0;
    for a in asked {
        let result = match &a.partition {
            Err(error) => Err(*error),
            Ok(partition) => {
                let left = max_bytes.saturating_sub(total);
                let wanted = usize::try_from(a.request.partition_max_bytes).unwrap_or(0).min(left);
                let read = partition.read(a.request.fetch_offset, wanted, isolation).await;
                read.map(|mut data| {
                    if total > 0 && data.records.len() > left {
                        data.records.clear();
                        data.aborted.clear();
                    }
                    data
                })
            }
        };
        total += result.as_ref().map_or(0, |d| d.records.len());
        results.push(result);
    }
    results
}

/// Ready with the first of them. Dropping it drops them all.
async fn any_readable(mut waits: Vec<Readable>) {
    poll_fn(|cx| {
        // All are polled: each must know whom to wake.
        let mut ready = false;
        for wait in &mut waits {
            ready |= Pin::new(wait).poll(cx).is_ready();
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn partition_data(index: i32, result: Result<FetchData, ErrorCode>, isolation: Isolation) -> PartitionData {
    let answer = PartitionData::default().with_partition_index(index).with_preferred_read_replica(BrokerId(-1));
    match result {
        Ok(data) => {
            let aborted = data.aborted.iter().map(|t| {
                AbortedTransaction::default().with_producer_id(t.producer_id.into()).with_first_offset(t.first_offset)
            });
            let aborted = (isolation == Isolation::ReadCommitted).then(|| aborted.collect());
            answer
                .with_high_watermark(data.high_watermark)
                .with_last_stable_offset(data.last_stable_offset)
                .with_log_start_offset(data.log_start_offset)
                .with_aborted_transactions(aborted)
                .with_records(Some(data.records))
        }
        Err(error) => answer
            .with_error_code(error.code())
            .with_high_watermark(-1)
            .with_last_stable_offset(-1)
            .with_log_start_offset(-1)
            .with_aborted_transactions(None)
            .with_records(Some(bytes::Bytes::new())),
    }
}
