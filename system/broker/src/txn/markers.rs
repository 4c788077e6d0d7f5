//! Transaction markers as their partitions take them: WriteTxnMarkers, and the same in process.

use std::rc::Rc;
use std::time::Duration;

use env::node::{When, crash_point};
use protocol::messages::WriteTxnMarkersResponse;
use protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use protocol::write_txn_markers::WritableTxnMarker;
use protocol::{ErrorCode, WriteTxnMarkersRequest, topic_name};

use super::state::{CLIENT_BUMPS, ProducerIdEpoch};
use crate::context::Context;
use crate::internal_topics::CONSUMER_OFFSETS;
use crate::join::join_all;
use crate::turn::Turn;

/// How long a request waits for in-sync sets. Shorter than the coordinator's patience with its connection, over which
/// other markers come too.
const LIMIT: Duration = Duration::from_secs(3);

/// The end of one transaction, as told to its partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnMarker {
    pub producer: ProducerIdEpoch,
    pub commit: bool,
    pub coordinator_epoch: i32,
    /// The marker's epoch is above that of the transaction's records (KIP-890).
    pub bumps: bool,
}

impl TxnMarker {
    fn of_wire(marker: &WritableTxnMarker) -> Self {
        Self {
            producer: ProducerIdEpoch::new(marker.producer_id, marker.producer_epoch),
            commit: marker.transaction_result,
            coordinator_epoch: marker.coordinator_epoch,
            bumps: i16::from(marker.transaction_version) >= CLIENT_BUMPS,
        }
    }
}

/// Serves WriteTxnMarkers. Markers of different transactions need no order among each other, and those of one come one
/// at a time from their coordinator.
pub(crate) async fn handle(
    context: &Rc<Context>,
    request: WriteTxnMarkersRequest,
    turn: Turn,
) -> WriteTxnMarkersResponse {
    drop(turn);
    let markers = request.markers.into_iter().map(|wanted| async move {
        let marker = TxnMarker::of_wire(&wanted);
        let topics = wanted.topics.into_iter().map(|topic| async move {
            let name = topic.name.as_str();
            let writes = topic.partition_indexes.into_iter().map(|index| async move {
                let written = env::time::timeout(LIMIT, write(context, marker, name, index)).await;
                let error = written.unwrap_or(ErrorCode::REQUEST_TIMED_OUT);
                WritableTxnMarkerPartitionResult::default().with_partition_index(index).with_error_code(error.code())
            });
            let partitions = join_all(writes).await;
            WritableTxnMarkerTopicResult::default().with_name(topic_name(name)).with_partitions(partitions)
        });
        let topics = join_all(topics).await;
        WritableTxnMarkerResult::default().with_producer_id(wanted.producer_id.into()).with_topics(topics)
    });
    WriteTxnMarkersResponse::default().with_markers(join_all(markers).await)
}

/// One marker into one partition, below its high watermark; for a partition of `__consumer_offsets` the offsets it
/// decides become visible, or are dropped, before this returns. A marker that is there is not written again.
pub(crate) async fn write(context: &Rc<Context>, marker: TxnMarker, topic: &str, index: i32) -> ErrorCode {
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
    // A task of its own: whoever asked may go, the offsets must still follow their marker.
    let context = Rc::clone(context);
    let offsets = (topic == CONSUMER_OFFSETS).then_some(index);
    let work = env::task::spawn(async move {
        crash_point("broker", "txn.marker", Some(index), When::Before).await;
        let at = match partition.append_marker(record).await {
            Ok(at) => at,
            Err(error) => return error,
        };
        crash_point("broker", "txn.marker", Some(index), When::After).await;
        if let Some(shard) = offsets {
            context.groups().transaction_ended(shard, marker.producer.producer_id, marker.commit, at).await;
        }
        ErrorCode::NONE
    });
    work.await.unwrap_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)
}
