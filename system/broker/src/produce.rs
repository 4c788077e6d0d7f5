//! Produce: batches of clients into partitions.
//!
//! Every batch is checked before anything is queued: one whole batch a partition, its CRC, its records; one that would
//! open a transaction also by that transaction's coordinator. Appends are then queued in the order of the request, all without a pause, so that requests of one connection keep their order
//! and may share a flush; the connection's turn ends there, and the answer waits for the acknowledgements.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use protocol::batch::{BatchError, BatchHeader, Limits, check_records, decode_records};
use protocol::messages::produce_request::TopicProduceData;
use protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use protocol::messages::{ProduceRequest, ProduceResponse};
use protocol::{ErrorCode, StrBytes};

use crate::context::Context;
use crate::internal_topics::{CONSUMER_OFFSETS, TRANSACTION_STATE};
use crate::join::join_all;
use crate::partition::machine::Asked;
use crate::partition::{Acks, Appended, Origin, Partition, PendingAppend};
use crate::turn::Turn;
use crate::txn::state::{ProducerIdEpoch, TopicPartition};
use crate::txn::verification;

/// From here on topics are named by id.
const TOPIC_IDS: i16 = 13;
/// From here on a produce joins its partition to the transaction (KIP-890).
const IMPLICIT_ADD: i16 = 12;
/// The markers of a transaction are written after its end is answered, and a producer may begin the next one at once: as
/// often, and that far apart, its coordinator is asked again before the producer is told to come again, which it does
/// only after a pause of its own, 100 ms for most.
const ENDING_TRIES: u32 = 20;
const ENDING_PAUSE: Duration = Duration::from_millis(5);
/// From here on clients know TRANSACTION_ABORTABLE.
const ABORTABLE: i16 = 11;

/// One partition of a request that passed every check.
struct Checked {
    topic: String,
    partition: Partition,
    header: BatchHeader,
    records: Bytes,
    /// Its transaction's coordinator was asked after this.
    asked: Option<Asked>,
}

/// Answers a produce request; `None` for acks=0.
pub(crate) async fn handle(
    context: Rc<Context>,
    version: i16,
    request: ProduceRequest,
    turn: Turn,
) -> Option<ProduceResponse> {
    let acks = match request.acks {
        0 => Ok(Acks::None),
        1 => Ok(Acks::Leader),
        -1 => Ok(Acks::All),
        _ => Err(ErrorCode::INVALID_REQUIRED_ACKS),
    };
    let mut checked: Vec<Vec<Result<Checked, ErrorCode>>> = Vec::new();
    for topic in &request.topic_data {
        let partitions = topic.partition_data.iter();
        let check = |p: &_| acks.and_then(|_| check(&context, version, topic, p));
        checked.push(partitions.map(check).collect());
    }
    let transactional_id = request.transactional_id.as_ref().map(|id| id.0.as_str());
    verify_transactions(&context, version, transactional_id, &mut checked).await;

    let mut pending: Vec<Vec<Result<PendingAppend, ErrorCode>>> = Vec::new();
    for topic in checked {
        let queue = |item: Result<Checked, ErrorCode>| {
            let item = item?;
            item.partition.enqueue(item.records, Origin::Client, acks?, item.asked)
        };
        pending.push(topic.into_iter().map(queue).collect());
    }
    drop(turn);
    if acks == Ok(Acks::None) {
        return None;
    }

    let time_limit = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = env::clock::now() + time_limit;
    let waits = pending.into_iter().flatten().map(|answer| async move {
        match answer {
            Ok(append) => env::time::timeout_at(deadline, append).await.unwrap_or(Err(ErrorCode::REQUEST_TIMED_OUT)),
            Err(error) => Err(error),
        }
        .map_err(|error| as_known_to(version, error))
    });
    let mut answers = join_all(waits).await.into_iter();
    let responses = request.topic_data.into_iter().map(|topic| {
        let partition_responses = topic.partition_data.iter().map(|p| {
            let result = answers.next().unwrap_or(Err(ErrorCode::UNKNOWN_SERVER_ERROR));
            partition_response(p.index, result)
        });
        let partition_responses = partition_responses.collect();
        TopicProduceResponse::default()
            .with_name(topic.name)
            .with_topic_id(topic.topic_id)
            .with_partition_responses(partition_responses)
    });
    Some(ProduceResponse::default().with_responses(responses.collect()))
}

fn partition_response(index: i32, result: Result<Appended, ErrorCode>) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    match result {
        Ok(done) => response
            .with_base_offset(done.base_offset)
            .with_log_append_time_ms(done.log_append_time_ms)
            .with_log_start_offset(done.log_start_offset),
        Err(error) => response
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(error.to_string())))
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1),
    }
}

fn check(
    context: &Context,
    version: i16,
    topic: &TopicProduceData,
    data: &protocol::messages::produce_request::PartitionProduceData,
) -> Result<Checked, ErrorCode> {
    let (topic, partition) = if version >= TOPIC_IDS {
        let (name, partition) = context.partition_by_id(topic.topic_id, data.index)?;
        (name.0.to_string(), partition)
    } else {
        (topic.name.0.to_string(), context.partition(&topic.name, data.index)?)
    };
    if topic == CONSUMER_OFFSETS || topic == TRANSACTION_STATE {
        return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    let records = data.records.clone().ok_or(ErrorCode::INVALID_RECORD)?;
    let header = check_batch(&records, context.config.max_message_bytes)?;
    if context.is_compacted(&topic) {
        check_keys(&records)?;
    }
    Ok(Checked { topic, partition, header, records, asked: None })
}

/// Exactly one good batch, all of its records readable.
fn check_batch(records: &Bytes, max_bytes: usize) -> Result<BatchHeader, ErrorCode> {
    let header = BatchHeader::parse(records).map_err(|e| match e {
        BatchError::Magic(_) => ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT,
        _ => ErrorCode::CORRUPT_MESSAGE,
    })?;
    if records.len() > max_bytes {
        return Err(ErrorCode::MESSAGE_TOO_LARGE);
    }
    if header.total_len() != records.len() {
        return Err(if header.total_len() > records.len() {
            ErrorCode::CORRUPT_MESSAGE
        } else {
            ErrorCode::INVALID_RECORD
        });
    }
    header.verify_crc(records).map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
    header.check_produced().map_err(|_| ErrorCode::INVALID_RECORD)?;
    if header.is_log_append_time() {
        return Err(ErrorCode::INVALID_TIMESTAMP);
    }
    check_records(records, &Limits::default()).map_err(|e| match e {
        BatchError::TooLarge { .. } => ErrorCode::MESSAGE_TOO_LARGE,
        _ => ErrorCode::INVALID_RECORD,
    })?;
    Ok(header)
}

/// A record without a key would stay in a compacted log for ever.
fn check_keys(records: &Bytes) -> Result<(), ErrorCode> {
    let records = decode_records(records, &Limits::default()).map_err(|_| ErrorCode::INVALID_RECORD)?;
    if records.iter().all(|r| r.key.is_some()) { Ok(()) } else { Err(ErrorCode::INVALID_RECORD) }
}

/// Asks the coordinator about the batches whose transaction is not open in their log, once for each producer; replaces
/// those that it refuses.
async fn verify_transactions(
    context: &Rc<Context>,
    version: i16,
    transactional_id: Option<&str>,
    checked: &mut [Vec<Result<Checked, ErrorCode>>],
) {
    let mut producers: BTreeMap<(i64, i16), Vec<TopicPartition>> = BTreeMap::new();
    for item in checked.iter_mut().flatten().flatten().filter(|c| c.header.is_transactional()) {
        let producer = (item.header.producer_id, item.header.producer_epoch);
        item.asked = item.partition.ask(producer.0, producer.1);
        if item.asked.is_some() || transactional_id.is_none() {
            let partitions = producers.entry(producer).or_default();
            partitions.push((item.topic.clone(), item.partition.id().partition));
        }
    }
    for (producer, partitions) in producers {
        let verified = match transactional_id {
            Some(id) => {
                let add = version >= IMPLICIT_ADD;
                let identity = ProducerIdEpoch::new(producer.0, producer.1);
                let mut tries = 1;
                loop {
                    let verified = verification::verify(context, id, identity, partitions.clone(), add).await;
                    if !add || verified != Err(ErrorCode::CONCURRENT_TRANSACTIONS) || tries == ENDING_TRIES {
                        break verified;
                    }
                    env::sometimes!(true, "a produce waits for the end of the transaction before its own");
                    tries += 1;
                    env::time::sleep(ENDING_PAUSE).await;
                    // The marker that was awaited must not pass for one that has overtaken the answer.
                    for item in checked.iter_mut().flatten().flatten().filter(|c| c.asked.is_some()) {
                        if (item.header.producer_id, item.header.producer_epoch) == producer {
                            item.asked = item.partition.ask(producer.0, producer.1);
                        }
                    }
                }
            }
            None => Err(ErrorCode::INVALID_REQUEST),
        };
        let Err(error) = verified else { continue };
        // Producers ask no coordinator here, and take this one for "nothing was appended, come again".
        let error = if verification::is_passing(error) { ErrorCode::NOT_ENOUGH_REPLICAS } else { error };
        for item in checked.iter_mut().flatten() {
            let refused = |c: &Checked| {
                let of = (c.header.producer_id, c.header.producer_epoch);
                c.header.is_transactional() && of == producer && (c.asked.is_some() || transactional_id.is_none())
            };
            if item.as_ref().is_ok_and(refused) {
                *item = Err(error);
            }
        }
    }
}

/// Older clients know neither of the codes that a transaction's batch may be refused with.
fn as_known_to(version: i16, error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::TRANSACTION_ABORTABLE if version < ABORTABLE => ErrorCode::INVALID_TXN_STATE,
        ErrorCode::CONCURRENT_TRANSACTIONS if version < IMPLICIT_ADD => ErrorCode::NOT_ENOUGH_REPLICAS,
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use protocol::batch::{BatchBuilder, Record};

    use super::*;

    fn batch() -> BatchBuilder {
        let mut b = BatchBuilder::new().producer(1, 0, 0);
        b.push(&Record { value: Some(Bytes::from_static(b"value")), ..Record::default() });
        b
    }

    #[test]
    fn what_a_client_may_not_send() {
        let good = batch().build();
        let check = |bytes: &[u8]| check_batch(&Bytes::copy_from_slice(bytes), 1000).err();
        assert_eq!(check(&good), None);
        assert_eq!(check(&[]), Some(ErrorCode::CORRUPT_MESSAGE));
        assert_eq!(check(&good[..good.len() - 1]), Some(ErrorCode::CORRUPT_MESSAGE));
        assert_eq!(check(&[&good[..], &good[..]].concat()), Some(ErrorCode::INVALID_RECORD), "two batches");
        let mut flipped = good.to_vec();
        flipped[70] ^= 1;
        assert_eq!(check(&flipped), Some(ErrorCode::CORRUPT_MESSAGE));
        flipped[16] = 1;
        assert_eq!(check(&flipped), Some(ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT));
        assert_eq!(check(&batch().control().build()), Some(ErrorCode::INVALID_RECORD), "a marker of its own");
        assert_eq!(check_keys(&good), Err(ErrorCode::INVALID_RECORD), "no key, for a compacted topic");
        let mut keyed = BatchBuilder::new();
        keyed.push(&Record { key: Some(Bytes::from_static(b"k")), ..Record::default() });
        assert_eq!(check_keys(&keyed.build()), Ok(()), "a tombstone");
        let mut large = BatchBuilder::new();
        large.push(&Record { value: Some(vec![0; 1000].into()), ..Record::default() });
        assert_eq!(check(&large.build()), Some(ErrorCode::MESSAGE_TOO_LARGE));
    }
}
