//! Transaction markers: WriteTxnMarkers as a request, and the coordinator's way to send it.
//!
//! The coordinator groups partitions by leader and sends each leader one request. With one broker every leader is this
//! one, and the request is handled in process by the same function that serves the wire.

use std::collections::BTreeMap;
use std::rc::Rc;

use env::node::{When, crash_point};
use protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use protocol::{ErrorCode, topic_name};

use super::state::{ProducerIdEpoch, TopicPartition};
use crate::context::Context;
use crate::internal_topics::CONSUMER_OFFSETS;
use crate::join::join_all;

/// The end of one transaction, as told to its partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnMarker {
    pub producer: ProducerIdEpoch,
    pub commit: bool,
    pub coordinator_epoch: i32,
    /// The marker's epoch is above that of the transaction's records (KIP-890). The wire's version 1 cannot say it.
    pub bumps: bool,
}

/// Sends `marker` to the leaders of `partitions`; what became of each.
pub(crate) async fn send(
    context: &Rc<Context>,
    marker: TxnMarker,
    partitions: &[TopicPartition],
) -> Vec<(TopicPartition, ErrorCode)> {
    let mut by_leader: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
    let mut results = Vec::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        let at = (topic.clone(), *partition);
        match context.leader(topic, *partition) {
            Some(leader) => by_leader.entry(leader).or_default().push(at),
            None => results.push((at, ErrorCode::LEADER_NOT_AVAILABLE)),
        }
    }
    for (leader, partitions) in by_leader {
        if leader == context.config.node_id {
            let writes = partitions.into_iter().map(|at| async move {
                let error = write(context, marker, &at.0, at.1).await;
                (at, error)
            });
            results.extend(join_all(writes).await);
        } else {
            // A leader elsewhere comes with replication.
            results.extend(partitions.into_iter().map(|at| (at, ErrorCode::LEADER_NOT_AVAILABLE)));
        }
    }
    results
}

/// Serves WriteTxnMarkers.
pub(crate) async fn handle(context: &Rc<Context>, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let mut markers = Vec::with_capacity(request.markers.len());
    for wanted in request.markers {
        let marker = of_wire(&wanted);
        let mut topics = Vec::with_capacity(wanted.topics.len());
        for WritableTxnMarkerTopic { name, partition_indexes, .. } in wanted.topics {
            let topic = name.as_str().to_owned();
            let writes = partition_indexes.into_iter().map(|index| {
                let topic = &topic;
                async move {
                    let error = write(context, marker, topic, index).await;
                    WritableTxnMarkerPartitionResult::default()
                        .with_partition_index(index)
                        .with_error_code(error.code())
                }
            });
            let partitions = join_all(writes).await;
            topics.push(
                WritableTxnMarkerTopicResult::default()
                    .with_name(topic_name(topic.clone()))
                    .with_partitions(partitions),
            );
        }
        markers.push(WritableTxnMarkerResult::default().with_producer_id(wanted.producer_id).with_topics(topics));
    }
    WriteTxnMarkersResponse::default().with_markers(markers)
}

fn of_wire(marker: &WritableTxnMarker) -> TxnMarker {
    TxnMarker {
        producer: ProducerIdEpoch::new(marker.producer_id.0, marker.producer_epoch),
        commit: marker.transaction_result,
        coordinator_epoch: marker.coordinator_epoch,
        bumps: false,
    }
}

/// One marker into one partition; for a partition of `__consumer_offsets` the offsets it decides become visible, or
/// are dropped, before this returns.
async fn write(context: &Rc<Context>, marker: TxnMarker, topic: &str, index: i32) -> ErrorCode {
    let partition = match context.partition(topic, index) {
        Ok(partition) => partition,
        Err(error) => return error,
    };
    let version = if marker.bumps { log::TransactionVersion::V2 } else { log::TransactionVersion::V1 };
    let record = log::Marker {
        producer_id: marker.producer.producer_id,
        producer_epoch: marker.producer.epoch,
        commit: marker.commit,
        coordinator_epoch: marker.coordinator_epoch,
        version,
    };
    // A task of its own: the request's connection may die, the offsets must still follow their marker.
    let context = Rc::clone(context);
    let offsets = (topic == CONSUMER_OFFSETS).then_some(index);
    let work = env::task::spawn(async move {
        crash_point("broker", "txn.marker", Some(index), When::Before).await;
        if let Err(error) = partition.append_marker(record).await {
            return error;
        }
        crash_point("broker", "txn.marker", Some(index), When::After).await;
        if let Some(shard) = offsets {
            context.groups().transaction_ended(shard, marker.producer.producer_id, marker.commit).await;
        }
        ErrorCode::NONE
    });
    work.await.unwrap_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)
}
