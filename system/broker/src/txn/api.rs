//! The requests of transactional and idempotent producers.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    EndTxnRequest, EndTxnResponse,
};
use protocol::{ErrorCode, InitProducerIdRequest, InitProducerIdResponse, topic_name};

use super::machine::{Reply, Request};
use super::state::{ProducerIdEpoch, TopicPartition};
use crate::context::Context;
use crate::internal_topics::CONSUMER_OFFSETS;
use crate::join::join_all;
use crate::turn::Turn;

/// EndTxn gives a new epoch from this version on (KIP-890).
const END_TXN_BUMPS: i16 = 5;
/// AddPartitionsToTxn carries several transactions from this version on, sent by brokers.
const ADD_PARTITIONS_BATCHED: i16 = 4;
/// How long a broker's question waits for the log. Shorter than its patience with the connection, over which other
/// questions come too.
const BATCHED_LIMIT: Duration = Duration::from_secs(2);

pub(crate) async fn init_producer_id(context: &Rc<Context>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default();
    let given = (request.producer_id, request.producer_epoch);
    let expected = (given != (-1, -1)).then_some(ProducerIdEpoch::new(given.0, given.1));
    let reply = match request.transactional_id {
        // Only idempotent: an id of its own, with no state anywhere but in the partitions it writes to. A producer that
        // bumps its epoch itself gets a new id, as from Kafka.
        None => match context.producer_ids().next().await {
            Ok(id) => Reply::Initialized { producer: ProducerIdEpoch::new(id, 0), ongoing: None },
            Err(error) => Reply::Error(error),
        },
        Some(id) if id.is_empty() => Reply::Error(ErrorCode::INVALID_REQUEST),
        Some(_) if expected.is_some_and(|e| e.producer_id < 0 || e.epoch < 0) => {
            Reply::Error(ErrorCode::INVALID_REQUEST)
        }
        Some(id) => {
            let request = Request::InitProducerId {
                timeout_ms: request.transaction_timeout_ms,
                expected,
                two_phase: request.enable_2pc,
                keep_prepared: request.keep_prepared_txn,
            };
            context.txn().request(&id, request).await
        }
    };
    match reply {
        Reply::Initialized { producer, ongoing } => InitProducerIdResponse {
            producer_id: producer.producer_id,
            producer_epoch: producer.epoch,
            ongoing_txn_producer_id: ongoing.map_or(-1, |o| o.producer_id),
            ongoing_txn_producer_epoch: ongoing.map_or(-1, |o| o.epoch),
            ..response
        },
        Reply::Error(error) => InitProducerIdResponse { error_code: error, ..response },
        Reply::Added | Reply::Ended { .. } => {
            InitProducerIdResponse { error_code: ErrorCode::UNKNOWN_SERVER_ERROR, ..response }
        }
    }
}

pub(crate) async fn add_partitions(
    context: &Rc<Context>,
    version: i16,
    request: AddPartitionsToTxnRequest,
    turn: Turn,
) -> AddPartitionsToTxnResponse {
    let response = AddPartitionsToTxnResponse::default();
    if version < ADD_PARTITIONS_BATCHED {
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(request.v3_and_below_transactional_id)
            .with_producer_id(request.v3_and_below_producer_id)
            .with_producer_epoch(request.v3_and_below_producer_epoch)
            .with_topics(request.v3_and_below_topics);
        return response.with_results_by_topic_v3_and_below(add(context, version, transaction).await);
    }
    // Each is of another producer, which waits at a partition's leader: they need no order.
    drop(turn);
    let results = request.transactions.into_iter().map(|transaction| async move {
        let id = transaction.transactional_id.clone();
        let topics = add(context, version, transaction).await;
        AddPartitionsToTxnResult::default().with_transactional_id(id).with_topic_results(topics)
    });
    response.with_results_by_transaction(join_all(results).await)
}

/// One transaction's partitions: all of them join, or none.
async fn add(
    context: &Rc<Context>,
    version: i16,
    transaction: AddPartitionsToTxnTransaction,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut partitions: Vec<(TopicPartition, ErrorCode)> = Vec::new();
    for AddPartitionsToTxnTopic { name, partitions: indexes, .. } in &transaction.topics {
        for index in indexes {
            let known = context.leader(name.as_str(), *index).is_some();
            let error = if known { ErrorCode::NONE } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
            partitions.push(((name.as_str().to_owned(), *index), error));
        }
    }
    let code = if transaction.transactional_id.is_empty() {
        Some(ErrorCode::INVALID_REQUEST)
    } else if partitions.iter().any(|(_, e)| !e.is_ok()) {
        None
    } else {
        let request = Request::AddPartitions {
            producer: ProducerIdEpoch::new(transaction.producer_id.0, transaction.producer_epoch),
            partitions: partitions.iter().map(|(p, _)| p.clone()).collect(),
            verify_only: transaction.verify_only,
            bumps: version > ADD_PARTITIONS_BATCHED,
        };
        let asking = context.txn().request(&transaction.transactional_id, request);
        let reply = if version < ADD_PARTITIONS_BATCHED {
            asking.await
        } else {
            let reply = env::time::timeout(BATCHED_LIMIT, asking).await;
            reply.unwrap_or(Reply::Error(ErrorCode::COORDINATOR_NOT_AVAILABLE))
        };
        Some(match reply {
            Reply::Added => ErrorCode::NONE,
            Reply::Error(error) => error,
            Reply::Initialized { .. } | Reply::Ended { .. } => ErrorCode::UNKNOWN_SERVER_ERROR,
        })
    };
    let mut by_topic: BTreeMap<String, Vec<AddPartitionsToTxnPartitionResult>> = BTreeMap::new();
    for ((topic, index), error) in partitions {
        let error = match code {
            Some(code) => code,
            None if error.is_ok() => ErrorCode::OPERATION_NOT_ATTEMPTED,
            None => error,
        };
        let result = AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(index)
            .with_partition_error_code(error.code());
        by_topic.entry(topic).or_default().push(result);
    }
    let topics = by_topic.into_iter();
    topics
        .map(|(topic, results)| {
            AddPartitionsToTxnTopicResult::default().with_name(topic_name(topic)).with_results_by_partition(results)
        })
        .collect()
}

/// Joins the partition of `__consumer_offsets` that holds the group's offsets.
pub(crate) async fn add_offsets(context: &Rc<Context>, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let response = AddOffsetsToTxnResponse::default();
    let index = match context.groups().partition_of(request.group_id.as_str()).await {
        Ok(index) => index,
        Err(error) => return response.with_error_code(error.code()),
    };
    let add = Request::AddPartitions {
        producer: ProducerIdEpoch::new(request.producer_id.0, request.producer_epoch),
        partitions: vec![(CONSUMER_OFFSETS.to_owned(), index)],
        verify_only: false,
        bumps: false,
    };
    let error = match context.txn().request(request.transactional_id.as_str(), add).await {
        Reply::Added => ErrorCode::NONE,
        Reply::Error(error) => error,
        Reply::Initialized { .. } | Reply::Ended { .. } => ErrorCode::UNKNOWN_SERVER_ERROR,
    };
    response.with_error_code(error.code())
}

pub(crate) async fn end(context: &Rc<Context>, version: i16, request: EndTxnRequest) -> EndTxnResponse {
    let bumps = version >= END_TXN_BUMPS;
    let producer = ProducerIdEpoch::new(request.producer_id.0, request.producer_epoch);
    let end = Request::EndTxn { producer, commit: request.committed, bumps };
    let response = EndTxnResponse::default();
    match context.txn().request(request.transactional_id.as_str(), end).await {
        Reply::Ended { producer } if bumps => {
            response.with_producer_id(producer.producer_id.into()).with_producer_epoch(producer.epoch)
        }
        Reply::Ended { .. } => response,
        Reply::Error(error) => response.with_error_code(error.code()),
        Reply::Initialized { .. } | Reply::Added => response.with_error_code(ErrorCode::UNKNOWN_SERVER_ERROR.code()),
    }
}
