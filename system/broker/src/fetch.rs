//! Fetch: whole batches to readers and to other replicas, or a wait in purgatory until there are some.
//!
//! | who asks | reads up to | from whom |
//! |--|--|--|
//! | a consumer | high watermark or last stable offset | the leader; from version 11 on a follower too (KIP-392) |
//! | another replica | the end of the log | the leader of the epoch it names |
//!
//! A reader that names the epoch of its last record is told where the logs part, if they do, instead of records
//! (KIP-320). A replica that got records, or the word that there are none, has by that fetch proved what it holds: the
//! leader takes note of it, after its own read, so that the proof and the answer are of the same log.
//!
//! Fetch sessions are around this (`fetch_session`): here a request names all its partitions, and an answer too.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use env::clock;
use protocol::ErrorCode;
use protocol::messages::fetch_request::FetchPartition;
use protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};
use protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};

use crate::context::Context;
use crate::partition::leader::Fetched;
use crate::partition::{FetchData, Isolation, Partition};
use crate::purgatory::Readable;

/// From here on consumers may name their rack, and ask followers.
const FROM_FOLLOWERS: i16 = 11;
/// From here on an answer can name the leader.
const CURRENT_LEADER: i16 = 12;
/// From here on topics are named by id.
const TOPIC_IDS: i16 = 13;
/// From here on a replica names its broker epoch.
const REPLICA_STATE: i16 = 15;

/// Who fetches.
#[derive(Clone, Copy)]
enum Reader<'a> {
    Consumer {
        isolation: Isolation,
        rack: Option<&'a str>,
    },
    Replica {
        id: i32,
        broker_epoch: i64,
        /// What the image knows of it, if it may be in sync.
        eligible_epoch: Option<i64>,
        /// It has registered anew since: this request comes from an earlier life (KIP-903).
        stale: bool,
    },
}

impl Reader<'_> {
    fn isolation(&self) -> Isolation {
        match self {
            Reader::Consumer { isolation, .. } => *isolation,
            Reader::Replica { .. } => Isolation::Replica,
        }
    }
}

/// One partition that is asked for.
struct Asked<'a> {
    request: &'a FetchPartition,
    partition: Result<Partition, ErrorCode>,
}

/// What one partition answers.
enum Answer {
    Data(FetchData),
    /// The reader's log and this one part: the greatest epoch here at or below the reader's, and its end.
    Diverging(i32, i64, FetchData),
    /// Ask this broker instead.
    Preferred(i32, FetchData),
}

impl Answer {
    fn data(&self) -> &FetchData {
        match self {
            Answer::Data(data) | Answer::Diverging(.., data) | Answer::Preferred(_, data) => data,
        }
    }

    /// Not to be waited for.
    fn is_news(&self) -> bool {
        !matches!(self, Answer::Data(_))
    }
}

pub(crate) async fn handle(context: Rc<Context>, version: i16, mut request: FetchRequest) -> FetchResponse {
    let fresh = if request.session_epoch == 0 { context.fresh_session_id() } else { 0 };
    let begun = context.fetch_sessions.borrow_mut().begin(version, &mut request, fresh, clock::now());
    match begun {
        Ok(kind) => {
            let response = answer(&context, version, request).await;
            context.fetch_sessions.borrow_mut().finish(kind, response)
        }
        Err(error) => FetchResponse::default().with_error_code(error.code()),
    }
}

async fn answer(context: &Context, version: i16, request: FetchRequest) -> FetchResponse {
    let refused = |error: ErrorCode| FetchResponse::default().with_error_code(error.code());
    let reader = match reader(context, version, &request) {
        Ok(reader) => reader,
        Err(error) => return refused(error),
    };
    let resolve = |name: &TopicName, id, index| match reader {
        // Also what clients do not find yet: its coordinator reads it first, up to what other replicas have fetched.
        Reader::Replica { .. } if version >= TOPIC_IDS => context.replicas.copy((id, index)),
        Reader::Replica { .. } => Err(ErrorCode::UNSUPPORTED_VERSION),
        Reader::Consumer { .. } if version >= TOPIC_IDS => context.replica_by_id(id, index).map(|(_, p)| p),
        Reader::Consumer { .. } => context.replica(name, index),
    };
    let mut asked: Vec<Asked<'_>> = Vec::new();
    for topic in &request.topics {
        for p in &topic.partitions {
            let partition = resolve(&topic.topic, topic.topic_id, p.partition);
            asked.push(Asked { request: p, partition });
        }
    }

    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = clock::now() + wait;
    let max_bytes = request.max_bytes.clamp(0, context.config.fetch_max_bytes) as usize;
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes);
    let isolation = reader.isolation();
    let mut first = true;
    let results = loop {
        let results = read_all(context, version, &asked, max_bytes, reader).await;
        if first && let Reader::Replica { id, broker_epoch, eligible_epoch, .. } = reader {
            note_fetched(&asked, &results, id, broker_epoch, eligible_epoch);
        }
        first = false;
        let bytes: usize = results.iter().flatten().map(|a| a.data().records.len()).sum();
        let news = results.iter().any(|r| r.as_ref().map_or(true, Answer::is_news));
        let closed = asked.iter().flat_map(|a| &a.partition).any(Partition::is_closed);
        if bytes >= min_bytes || news || closed || clock::now() >= deadline {
            break results;
        }
        // Past the bound that was just read under, so that no move of it in between is missed.
        let waits = asked.iter().zip(&results).filter_map(|(a, r)| {
            let (partition, answer) = (a.partition.as_ref().ok()?, r.as_ref().ok()?);
            Some(partition.wait_after(answer.data(), a.request.fetch_offset, isolation))
        });
        let _ = env::time::timeout_at(deadline, any_readable(waits.collect())).await;
    };

    let mut results = asked.iter().zip(results);
    let responses = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let (asked, result) = match results.next() {
                Some((asked, result)) => (Some(asked), result),
                None => (None, Err(ErrorCode::UNKNOWN_SERVER_ERROR)),
            };
            let mut data = partition_data(p.partition, result, isolation);
            let known = asked.and_then(|a| a.partition.as_ref().ok());
            if let (Some(partition), Some(records)) = (known, data.records.as_ref()) {
                partition.traffic().fetched(records.len(), matches!(reader, Reader::Replica { .. }));
            }
            if let Some(known) = known.filter(|_| data.error_code == ErrorCode::OFFSET_OUT_OF_RANGE.code()) {
                // For a follower that is behind all there is.
                data.log_start_offset = known.log_start_offset();
            }
            with_leader(context, version, data, known)
        });
        let partitions = partitions.collect();
        FetchableTopicResponse::default()
            .with_topic(topic.topic.clone())
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions)
    });
    FetchResponse::default().with_responses(responses.collect())
}

fn reader<'a>(context: &Context, version: i16, request: &'a FetchRequest) -> Result<Reader<'a>, ErrorCode> {
    let (id, broker_epoch) = match version >= REPLICA_STATE {
        true => (request.replica_state.replica_id.0, request.replica_state.replica_epoch),
        false => (request.replica_id.0, -1),
    };
    if id >= 0 {
        let (known, active) = context
            .metadata
            .with(|image| image.brokers.get(&id).map_or((-1, false), |b| (b.broker_epoch, b.is_active())));
        let eligible_epoch = active.then_some(known);
        let stale = version >= REPLICA_STATE && broker_epoch < known;
        return Ok(Reader::Replica { id, broker_epoch, eligible_epoch, stale });
    }
    let isolation = match request.isolation_level {
        0 => Isolation::ReadUncommitted,
        1 => Isolation::ReadCommitted,
        _ => return Err(ErrorCode::INVALID_REQUEST),
    };
    let rack = Some(request.rack_id.as_str()).filter(|rack| version >= FROM_FOLLOWERS && !rack.is_empty());
    Ok(Reader::Consumer { isolation, rack })
}

/// Tells the leaders how far the follower has come.
fn note_fetched(
    asked: &[Asked<'_>],
    results: &[Result<Answer, ErrorCode>],
    replica: i32,
    broker_epoch: i64,
    eligible_epoch: Option<i64>,
) {
    for (a, result) in asked.iter().zip(results) {
        if let (Ok(partition), Ok(Answer::Data(data))) = (&a.partition, result) {
            partition.fetched(Fetched {
                replica,
                broker_epoch,
                eligible_epoch,
                leader_epoch: a.request.current_leader_epoch,
                from: a.request.fetch_offset,
                end: data.log_end,
                log_start: a.request.log_start_offset,
            });
        }
    }
}

/// Reads the partitions in the order of the request until `max_bytes` are there. The first batch found may exceed it.
async fn read_all(
    context: &Context,
    version: i16,
    asked: &[Asked<'_>],
    max_bytes: usize,
    reader: Reader<'_>,
) -> Vec<Result<Answer, ErrorCode>> {
    let mut results = Vec::with_capacity(asked.len());
    let mut total = 0;
    for a in asked {
        let result = match &a.partition {
            Err(error) => Err(*error),
            Ok(partition) => {
                let left = max_bytes.saturating_sub(total);
                let wanted = usize::try_from(a.request.partition_max_bytes).unwrap_or(0).min(left);
                let read = read(context, version, partition, a.request, wanted, reader).await;
                read.map(|answer| match answer {
                    Answer::Data(mut data) if total > 0 && data.records.len() > left => {
                        data.records.clear();
                        data.aborted.clear();
                        Answer::Data(data)
                    }
                    answer => answer,
                })
            }
        };
        total += result.as_ref().map_or(0, |a| a.data().records.len());
        results.push(result);
    }
    results
}

async fn read(
    context: &Context,
    version: i16,
    partition: &Partition,
    asked: &FetchPartition,
    max_bytes: usize,
    reader: Reader<'_>,
) -> Result<Answer, ErrorCode> {
    let isolation = reader.isolation();
    match reader {
        Reader::Replica { stale: true, .. } => {
            env::sometimes!(true, "fetch: a replica's request of an earlier life");
            return Err(ErrorCode::STALE_BROKER_EPOCH);
        }
        Reader::Replica { id, .. } => {
            partition.check_leader(asked.current_leader_epoch)?;
            // A replica that names no epoch could be of any leadership.
            let known = partition.with_leader(|l| l.remotes().contains_key(&id)).unwrap_or(false);
            if asked.current_leader_epoch < 0 || !known {
                return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
            }
        }
        Reader::Consumer { .. } if version < FROM_FOLLOWERS => partition.check_leader(asked.current_leader_epoch)?,
        Reader::Consumer { .. } => partition.check_replica(asked.current_leader_epoch)?,
    }
    let leads = partition.is_leader();
    if leads && asked.last_fetched_epoch >= 0 {
        let last = asked.last_fetched_epoch;
        let (epoch, end) = partition.end_offset_for_epoch(last).ok_or(ErrorCode::OFFSET_OUT_OF_RANGE)?;
        if epoch < last || end < asked.fetch_offset {
            env::sometimes!(true, "fetch: the reader's log and the leader's part");
            return Ok(Answer::Diverging(epoch, end, partition.nothing()));
        }
    }
    if leads
        && let Reader::Consumer { rack: Some(rack), .. } = reader
        && let Some(preferred) = preferred(context, partition, rack, asked.fetch_offset)
    {
        return Ok(Answer::Preferred(preferred, partition.nothing()));
    }
    if !leads && asked.fetch_offset > partition.log_end_offset() {
        // The leader is ahead of this replica; the reader is not wrong (KIP-392).
        return Err(ErrorCode::OFFSET_NOT_AVAILABLE);
    }
    Ok(Answer::Data(partition.read(asked.fetch_offset, max_bytes, isolation).await?))
}

/// The in-sync replica of the reader's rack that has most, if it is not this one and has what is asked for (KIP-392).
fn preferred(context: &Context, partition: &Partition, rack: &str, from: i64) -> Option<i32> {
    let me = context.config.node_id;
    let nearby = context.metadata.with(|image| {
        let here = |(_, b): &(&i32, &crate::metadata::BrokerState)| b.is_active() && b.rack.as_deref() == Some(rack);
        image.brokers.iter().filter(here).map(|(id, _)| *id).collect::<Vec<_>>()
    });
    if nearby.contains(&me) {
        return None;
    }
    let end = |leader: &crate::partition::leader::Leader, id: i32| {
        let remote = leader.remotes().get(&id).filter(|_| leader.isr().contains(&id))?;
        remote.end.filter(|end| *end >= from)
    };
    partition.with_leader(|leader| {
        let ends = nearby.iter().filter_map(|id| Some((end(leader, *id)?, std::cmp::Reverse(*id))));
        ends.max().map(|(_, std::cmp::Reverse(id))| id)
    })?
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

fn partition_data(index: i32, result: Result<Answer, ErrorCode>, isolation: Isolation) -> PartitionData {
    let answer = PartitionData::default().with_partition_index(index).with_preferred_read_replica(BrokerId(-1));
    let (data, answer) = match result {
        Ok(Answer::Data(data)) => (data, answer),
        Ok(Answer::Diverging(epoch, end, data)) => {
            let diverging = EpochEndOffset::default().with_epoch(epoch).with_end_offset(end);
            (data, answer.with_diverging_epoch(diverging))
        }
        Ok(Answer::Preferred(id, data)) => (data, answer.with_preferred_read_replica(BrokerId(id))),
        Err(error) => {
            return answer
                .with_error_code(error.code())
                .with_high_watermark(-1)
                .with_last_stable_offset(-1)
                .with_log_start_offset(-1)
                .with_aborted_transactions(None)
                .with_records(Some(bytes::Bytes::new()));
        }
    };
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

/// Who asked the wrong broker, or with an old epoch, is told the leader (KIP-951).
fn with_leader(context: &Context, version: i16, data: PartitionData, partition: Option<&Partition>) -> PartitionData {
    let error = ErrorCode::from_code(data.error_code);
    let wrong = matches!(error, ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::FENCED_LEADER_EPOCH);
    let Some(id) = partition.map(Partition::id).filter(|_| wrong && version >= CURRENT_LEADER) else { return data };
    let leader = context.metadata.with(|image| {
        let state = image.topics.get(&id.topic_id)?.partitions.get(&id.partition)?;
        Some((state.leader, state.leader_epoch))
    });
    let Some((leader, leader_epoch)) = leader else { return data };
    let leader = LeaderIdAndEpoch::default().with_leader_id(BrokerId(leader)).with_leader_epoch(leader_epoch);
    data.with_current_leader(leader)
}
