//! What the leader of a partition asks before a transaction is opened in its log (KIP-890): is it ongoing, and is the
//! partition in it?
//!
//! Without the question a produce that was held up on its way, and arrives after its transaction's marker, opens one
//! that nobody will ever end. The coordinator may be on another broker, so its answer may be overtaken by the marker:
//! whoever asks takes [`Partition::ask`](crate::partition::Partition::ask) first and hands that in with the append.

use std::rc::Rc;
use std::time::Duration;

use protocol::messages::AddPartitionsToTxnRequest;
use protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use protocol::{ErrorCode, ResponseBody, str_bytes, topic_name};

use super::machine::{Reply, Request};
use super::state::{ProducerIdEpoch, TopicPartition};
use crate::context::Context;
use crate::internal_topics::TRANSACTION_STATE;
use crate::peers::{self, Lane};

/// From this version on a request adds the partitions for a client that gets a new epoch at each end.
const ADDS: i16 = 5;
/// The version that only asks.
const ASKS: i16 = 4;
/// How long a coordinator may take. The producer's connection waits meanwhile; it comes again.
const LIMIT: Duration = Duration::from_secs(3);

/// Makes sure that the partitions are in the ongoing transaction of this producer, joining them if `add`. An error means
/// that nothing may be appended.
pub(crate) async fn verify(
    context: &Rc<Context>,
    transactional_id: &str,
    producer: ProducerIdEpoch,
    partitions: Vec<TopicPartition>,
    add: bool,
) -> Result<(), ErrorCode> {
    let index = context.txn().partition_of(transactional_id).await?;
    let leader = context.leader(TRANSACTION_STATE, index).ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
    let result = if leader == context.config.node_id {
        let request = Request::AddPartitions { producer, partitions, verify_only: !add, bumps: add };
        match env::time::timeout(LIMIT, context.txn().request(transactional_id, request)).await {
            Ok(Reply::Added) => Ok(()),
            Ok(Reply::Error(error)) => Err(error),
            Ok(Reply::Initialized { .. } | Reply::Ended { .. }) => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
            Err(env::time::Elapsed) => Err(ErrorCode::REQUEST_TIMED_OUT),
        }
    } else {
        env::sometimes!(true, "a partition's leader asks a coordinator on another broker");
        ask(context, leader, transactional_id, producer, partitions, add).await
    };
    match result {
        // Clients of before produce v12 do not know the newer code.
        Err(ErrorCode::TRANSACTION_ABORTABLE) if !add => Err(ErrorCode::INVALID_TXN_STATE),
        result => result,
    }
}

async fn ask(
    context: &Rc<Context>,
    coordinator: i32,
    transactional_id: &str,
    producer: ProducerIdEpoch,
    partitions: Vec<TopicPartition>,
    add: bool,
) -> Result<(), ErrorCode> {
    // One topic an entry: the answer is one code for all.
    let topics = partitions.into_iter().map(|(topic, partition)| {
        AddPartitionsToTxnTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition])
    });
    let transaction = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(str_bytes(transactional_id).into())
        .with_producer_id(producer.producer_id.into())
        .with_producer_epoch(producer.epoch)
        .with_verify_only(!add)
        .with_topics(topics.collect());
    let request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]).into();
    let version = Some(if add { ADDS } else { ASKS });
    match context.peers.call(coordinator, Lane::Verification, version, &request, LIMIT).await {
        Ok(ResponseBody::AddPartitionsToTxn(answer)) => {
            ErrorCode::from_code(answer.error_code).ok()?;
            let topics = answer.results_by_transaction.iter().flat_map(|t| &t.topic_results);
            let mut codes = topics.flat_map(|t| &t.results_by_partition).map(|p| p.partition_error_code).peekable();
            if codes.peek().is_none() {
                return Err(ErrorCode::UNKNOWN_SERVER_ERROR);
            }
            // OPERATION_NOT_ATTEMPTED stands beside the error of another partition.
            let errors = codes.filter(|c| *c != 0).map(ErrorCode::from_code);
            errors.min_by_key(|c| *c == ErrorCode::OPERATION_NOT_ATTEMPTED).unwrap_or_default().ok()
        }
        Ok(other) => {
            tracing::error!(api = ?other.api_key(), "the coordinator answered another request");
            Err(ErrorCode::UNKNOWN_SERVER_ERROR)
        }
        Err(failure) => {
            tracing::debug!(coordinator, %failure, "a transaction could not be verified");
            Err(peers::error_of(&failure))
        }
    }
}

/// Whether the error says nothing but that the coordinator could not tell for now. What was asked for was not appended;
/// how that is told to a client that never spoke with a coordinator depends on the request.
pub(crate) fn is_passing(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NOT_COORDINATOR
            | ErrorCode::COORDINATOR_NOT_AVAILABLE
            | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
            | ErrorCode::LEADER_NOT_AVAILABLE
            | ErrorCode::REQUEST_TIMED_OUT
            | ErrorCode::NETWORK_EXCEPTION
    )
}
