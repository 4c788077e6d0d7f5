//! WriteTxnMarkers, also in version 2, which the `kafka-protocol` crate does not know yet (KIP-1228): a marker says by
//! which rule its epoch relates to its transaction's. In version 1 a partition cannot tell a late copy of a marker from
//! the end of the next transaction of the same producer.
//!
//! | field of a marker | type | versions |
//! |--|--|--|
//! | producer_id, producer_epoch, transaction_result | int64, int16, bool | 1+ |
//! | topics: name, partition_indexes | compact array of compact string, compact array of int32 | 1+ |
//! | coordinator_epoch | int32 | 1+ |
//! | transaction_version | int8, 0 where it is not said | 2+ |
//!
//! The response is the same in both versions.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::body::Message;
use crate::guard::{self, Layout};
use crate::primitives::{
    nullable_string, put_nullable_string, put_unsigned_varint, skip_tagged_fields, unsigned_varint,
};
use crate::request::Malformed;

/// The version that the crate knows.
const KNOWN: i16 = 1;
/// Markers carry `transaction_version` from this version on.
const TRANSACTION_VERSION: i16 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteTxnMarkersRequest {
    pub markers: Vec<WritableTxnMarker>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WritableTxnMarker {
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// True commits, false aborts.
    pub transaction_result: bool,
    pub topics: Vec<WritableTxnMarkerTopic>,
    /// Leader epoch of the coordinator's partition of `__transaction_state`.
    pub coordinator_epoch: i32,
    /// From 2 on the marker's epoch is one above that of its transaction (KIP-890).
    pub transaction_version: i8,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WritableTxnMarkerTopic {
    pub name: StrBytes,
    pub partition_indexes: Vec<i32>,
}

impl Message for WriteTxnMarkersRequest {
    const LAYOUT: Option<&'static Layout> = Some(&guard::WRITE_TXN_MARKERS_REQUEST);

    fn read(buf: &mut Bytes, version: i16) -> Result<Self, Malformed> {
        let markers = array(buf, |buf| {
            let mut marker = WritableTxnMarker {
                producer_id: buf.try_get_i64()?,
                producer_epoch: buf.try_get_i16()?,
                transaction_result: buf.try_get_u8()? != 0,
                topics: array(buf, |buf| {
                    let name = nullable_string(buf, true)?.ok_or_else(|| Malformed::new("a topic without a name"))?;
                    let partition_indexes = array(buf, |buf| Ok(buf.try_get_i32()?))?;
                    skip_tagged_fields(buf)?;
                    Ok(WritableTxnMarkerTopic { name, partition_indexes })
                })?,
                coordinator_epoch: buf.try_get_i32()?,
                transaction_version: 0,
            };
            if version >= TRANSACTION_VERSION {
                marker.transaction_version = buf.try_get_i8()?;
            }
            skip_tagged_fields(buf)?;
            Ok(marker)
        })?;
        skip_tagged_fields(buf)?;
        Ok(Self { markers })
    }

    fn put(&self, buf: &mut BytesMut, version: i16) -> Result<(), String> {
        put_array(buf, &self.markers, |buf, marker| {
            buf.put_i64(marker.producer_id);
            buf.put_i16(marker.producer_epoch);
            buf.put_u8(u8::from(marker.transaction_result));
            put_array(buf, &marker.topics, |buf, topic| {
                put_nullable_string(buf, Some(&topic.name), true);
                put_array(buf, &topic.partition_indexes, |buf, index| buf.put_i32(*index));
                buf.put_u8(0);
            });
            buf.put_i32(marker.coordinator_epoch);
            if version >= TRANSACTION_VERSION {
                buf.put_i8(marker.transaction_version);
            }
            buf.put_u8(0);
        });
        buf.put_u8(0);
        Ok(())
    }
}

impl Message for messages::WriteTxnMarkersResponse {
    const LAYOUT: Option<&'static Layout> = Some(&guard::WRITE_TXN_MARKERS_RESPONSE);

    fn read(buf: &mut Bytes, _: i16) -> Result<Self, Malformed> {
        Self::decode(buf, KNOWN).map_err(|e| Malformed::new(e.to_string()))
    }

    fn put(&self, buf: &mut BytesMut, _: i16) -> Result<(), String> {
        self.encode(buf, KNOWN).map_err(|e| e.to_string())
    }
}

/// Counts were checked against the bytes left before.
fn array<T>(buf: &mut Bytes, mut element: impl FnMut(&mut Bytes) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
    let count = unsigned_varint(buf)?.saturating_sub(1);
    (0..count).map(|_| element(buf)).collect()
}

fn put_array<T>(buf: &mut BytesMut, elements: &[T], mut put: impl FnMut(&mut BytesMut, &T)) {
    put_unsigned_varint(buf, u32::try_from(elements.len()).unwrap_or(u32::MAX - 1) + 1);
    elements.iter().for_each(|e| put(buf, e));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(transaction_version: i8) -> WriteTxnMarkersRequest {
        let topic = |name, partition_indexes| WritableTxnMarkerTopic {
            name: StrBytes::from_static_str(name),
            partition_indexes,
        };
        let marker = WritableTxnMarker {
            producer_id: 4_000,
            producer_epoch: 7,
            transaction_result: true,
            topics: vec![topic("a", vec![0, 2]), topic("bc", vec![])],
            coordinator_epoch: 5,
            transaction_version,
        };
        WriteTxnMarkersRequest { markers: vec![marker.clone(), WritableTxnMarker { producer_id: 1, ..marker }] }
    }

    fn bytes(request: &WriteTxnMarkersRequest, version: i16) -> Bytes {
        let mut buf = BytesMut::new();
        request.put(&mut buf, version).unwrap();
        buf.freeze()
    }

    #[test]
    fn version_1_is_the_crates() {
        use messages::write_txn_markers_request as theirs;
        let ours = request(0);
        let markers = ours.markers.iter().map(|m| {
            let topics = m.topics.iter().map(|t| {
                theirs::WritableTxnMarkerTopic::default()
                    .with_name(messages::TopicName(t.name.clone()))
                    .with_partition_indexes(t.partition_indexes.clone())
            });
            theirs::WritableTxnMarker::default()
                .with_producer_id(m.producer_id.into())
                .with_producer_epoch(m.producer_epoch)
                .with_transaction_result(m.transaction_result)
                .with_topics(topics.collect())
                .with_coordinator_epoch(m.coordinator_epoch)
        });
        let theirs = messages::WriteTxnMarkersRequest::default().with_markers(markers.collect());
        let mut buf = BytesMut::new();
        theirs.encode(&mut buf, 1).unwrap();
        assert_eq!(bytes(&ours, 1), buf);
        assert_eq!(WriteTxnMarkersRequest::read(&mut buf.freeze(), 1), Ok(ours));
    }

    #[test]
    fn version_2_adds_a_byte_to_each_marker() {
        let ours = request(2);
        let (one, two) = (bytes(&ours, 1), bytes(&ours, 2));
        assert_eq!(two.len(), one.len() + 2);
        assert_eq!(WriteTxnMarkersRequest::read(&mut two.clone(), 2), Ok(ours.clone()));
        assert_eq!(WriteTxnMarkersRequest::read(&mut one.clone(), 1), Ok(request(0)));
        // producer id, epoch, result, two topics, coordinator epoch 5, version 2, no tags
        assert_eq!(two[two.len() - 7..], [0, 0, 0, 5, 2, 0, 0]);
        for len in 0..two.len() {
            assert!(WriteTxnMarkersRequest::read(&mut two.slice(..len), 2).is_err(), "{len} bytes");
        }
    }
}
