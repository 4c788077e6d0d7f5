//! The coordinator's way to tell partitions the end of a transaction, whoever leads them.
//!
//! ```text
//! partitions -> by leader, as the image says -> WriteTxnMarkers (in process if this broker leads)
//!     ^                                              | not written, not known: again after a while
//!     '----------------------------------------------'
//! ```
//! A marker may be written twice, never left out. A partition whose topic is gone has nothing to be ended and is
//! dropped. That its topic is not merely unknown *yet* follows from the order of the metadata log: a partition joins a
//! transaction only at a broker whose image holds the topic and still has that broker coordinate; a later coordinator's
//! image holds its own election, and so that topic too.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use env::node::{When, crash_point};
use protocol::write_txn_markers::{WritableTxnMarker, WritableTxnMarkerTopic};
use protocol::{ErrorCode, ResponseBody, WriteTxnMarkersRequest, str_bytes};

use super::markers::{self, TxnMarker};
use super::state::{CLIENT_BUMPS, TopicPartition};
use crate::context::Context;
use crate::join::join_all;
use crate::metadata::image::NO_LEADER;
use crate::peers::{self, Lane};

/// How long a leader may take; it gives its in-sync sets less.
const LIMIT: Duration = Duration::from_secs(5);

/// Sends `marker` to the leaders of `partitions` once; those that do not certainly have it, with the reason.
pub(super) async fn send(
    context: &Rc<Context>,
    marker: TxnMarker,
    partitions: &[TopicPartition],
) -> Vec<(TopicPartition, ErrorCode)> {
    let mut by_leader: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
    for at in partitions {
        match context.leader(&at.0, at.1) {
            Some(leader) => by_leader.entry(leader).or_default().push(at.clone()),
            None => env::sometimes!(true, "a transaction ends in a topic that was deleted"),
        }
    }
    let sends = by_leader.into_iter().map(|(leader, partitions)| send_to(context, marker, leader, partitions));
    let results = join_all(sends).await.into_iter().flatten();
    results.filter(|(_, error)| !error.is_ok()).collect()
}

async fn send_to(
    context: &Rc<Context>,
    marker: TxnMarker,
    leader: i32,
    partitions: Vec<TopicPartition>,
) -> Vec<(TopicPartition, ErrorCode)> {
    if leader == NO_LEADER {
        return all(partitions, ErrorCode::LEADER_NOT_AVAILABLE);
    }
    if leader == context.config.node_id {
        let writes = partitions.into_iter().map(|at| async move {
            let written = env::time::timeout(LIMIT, markers::write(context, marker, &at.0, at.1)).await;
            (at, written.unwrap_or(ErrorCode::REQUEST_TIMED_OUT))
        });
        return join_all(writes).await;
    }
    env::sometimes!(true, "markers go to a leader on another broker");
    crash_point("broker", "txn.send", None, When::Before).await;
    let sent = env::select! {
        sent = call(context, marker, leader, &partitions) => sent,
        // It may be down or cut off: the next leader will do as well.
        () = moved(context, leader, &partitions) => Err(ErrorCode::NOT_LEADER_OR_FOLLOWER),
    };
    crash_point("broker", "txn.send", None, When::After).await;
    match sent {
        Err(error) => all(partitions, error),
        Ok(mut codes) => {
            let code = |at: TopicPartition| {
                let error = codes.remove(&at).unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR);
                (at, error)
            };
            partitions.into_iter().map(code).collect()
        }
    }
}

async fn call(
    context: &Rc<Context>,
    marker: TxnMarker,
    leader: i32,
    partitions: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, ErrorCode>, ErrorCode> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let topics = topics
        .into_iter()
        .map(|(name, partition_indexes)| WritableTxnMarkerTopic { name: str_bytes(name), partition_indexes });
    let marker = WritableTxnMarker {
        producer_id: marker.producer.producer_id,
        producer_epoch: marker.producer.epoch,
        transaction_result: marker.commit,
        topics: topics.collect(),
        coordinator_epoch: marker.coordinator_epoch,
        transaction_version: if marker.bumps { CLIENT_BUMPS as i8 } else { 0 },
    };
    let request = WriteTxnMarkersRequest { markers: vec![marker] }.into();
    match context.peers.call(leader, Lane::Markers, None, &request, LIMIT).await {
        Ok(ResponseBody::WriteTxnMarkers(answer)) => {
            let topics = answer.markers.into_iter().flat_map(|m| m.topics);
            let codes = topics.flat_map(|t| {
                let name = t.name.as_str().to_owned();
                let code = move |p: &_| of_partition(&name, p);
                t.partitions.iter().map(code).collect::<Vec<_>>()
            });
            Ok(codes.collect())
        }
        Ok(other) => {
            tracing::error!(api = ?other.api_key(), "a leader answered another request");
            Err(ErrorCode::UNKNOWN_SERVER_ERROR)
        }
        Err(failure) => {
            tracing::debug!(leader, %failure, "markers did not arrive, or their answer did not");
            Err(peers::error_of(&failure))
        }
    }
}

fn of_partition(
    topic: &str,
    result: &protocol::messages::write_txn_markers_response::WritableTxnMarkerPartitionResult,
) -> (TopicPartition, ErrorCode) {
    ((topic.to_owned(), result.partition_index), ErrorCode::from_code(result.error_code))
}

/// Ready once the image has another leader for one of them.
async fn moved(context: &Rc<Context>, leader: i32, partitions: &[TopicPartition]) {
    loop {
        let changed = context.metadata.changed();
        if partitions.iter().any(|(topic, index)| context.leader(topic, *index) != Some(leader)) {
            env::sometimes!(true, "a leader moves while it is sent markers");
            return;
        }
        changed.await;
    }
}

fn all(partitions: Vec<TopicPartition>, error: ErrorCode) -> Vec<(TopicPartition, ErrorCode)> {
    partitions.into_iter().map(|at| (at, error)).collect()
}
