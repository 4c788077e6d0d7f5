//! The topics that coordinators keep their state in, and how they are written and replayed.

use bytes::Bytes;
use protocol::ErrorCode;
use protocol::batch::{self, BatchBuilder, BatchHeader, ControlRecord, ControlType, Limits, Record};

use crate::failure::BrokerError;
use crate::partition::{Isolation, Partition};

pub const TRANSACTION_STATE: &str = "__transaction_state";
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";

const READ_BYTES: usize = 4 << 20;
const LIMITS: Limits = Limits { max_decompressed_bytes: 256 << 20 };

pub fn is_internal(topic: &str) -> bool {
    topic == TRANSACTION_STATE || topic == CONSUMER_OFFSETS
}

/// The partition that coordinates `key`: Java's string hash, as every Kafka broker computes it.
pub fn partition_for(key: &str, partitions: i32) -> i32 {
    let hash = key.encode_utf16().fold(0i32, |h, unit| h.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's `Utils.abs`: the smallest integer becomes 0.
    hash.checked_abs().unwrap_or(0) % partitions
}

/// One batch of keyed records.
pub fn batch_of(records: impl IntoIterator<Item = (Bytes, Option<Bytes>)>, timestamp: i64) -> BatchBuilder {
    let mut builder = BatchBuilder::new();
    for (key, value) in records {
        builder.push(&Record { timestamp, key: Some(key), value, ..Record::default() });
    }
    builder
}

/// What a replay meets, in log order.
pub enum Replayed {
    Records { header: BatchHeader, records: Vec<Record> },
    Marker { at: i64, producer_id: i64, commit: bool },
}

/// Reads a coordinator's partition from its start to its end, waiting until the end is below the high watermark: a record
/// whose append was never answered is in the log or is not, and from here on everybody knows which.
pub async fn replay(partition: &Partition, mut visit: impl FnMut(Replayed)) -> Result<(), BrokerError> {
    let name = partition.id().to_string();
    let mut next = partition.log_start_offset();
    let leader_epoch = partition.leader_epoch();
    let end = partition.log_end_offset();
    while next < end {
        if next >= partition.high_watermark() {
            if partition.is_closed() || partition.leader_epoch() != leader_epoch {
                return Err(BrokerError::storage(&name, "the partition failed while it was replayed"));
            }
            partition.wait_readable(next, Isolation::ReadUncommitted).await;
            continue;
        }
        let data = partition.read(next, READ_BYTES, Isolation::ReadUncommitted).await;
        let data = data.map_err(|e: ErrorCode| BrokerError::storage(&name, e))?;
        let (before, bound) = (next, data.high_watermark);
        let data = if data.records.is_empty() && bound < end {
            // What is there to be read begins past the high watermark: a hole of a compacted log.
            partition.wait_after(&data, next, Isolation::ReadUncommitted).await;
            if partition.is_closed() || partition.leader_epoch() != leader_epoch {
                return Err(BrokerError::storage(&name, "the partition failed while it was replayed"));
            }
            continue;
        } else {
            data
        };
        for item in batch::split(data.records) {
            let (header, bytes) = item.map_err(|e| BrokerError::corrupt(&name, e))?;
            next = header.next_offset();
            let records = batch::decode_records(&bytes, &LIMITS).map_err(|e| BrokerError::corrupt(&name, e))?;
            if !header.is_control() {
                visit(Replayed::Records { header, records });
                continue;
            }
            for record in records {
                let control = ControlRecord::decode(&record).map_err(|e| BrokerError::corrupt(&name, e))?;
                if let Some(control) = control {
                    let commit = control.control_type == ControlType::Commit;
                    visit(Replayed::Marker { at: header.base_offset, producer_id: header.producer_id, commit });
                }
            }
        }
        if next == before {
            // The hole reaches to the log's end.
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_to_kafkas_partitions() {
        // "foo".hashCode() is 101574, "polygenelubricants".hashCode() is the smallest integer.
        assert_eq!(partition_for("foo", 50), 101_574 % 50);
        assert_eq!(partition_for("polygenelubricants", 50), 0);
    }
}
