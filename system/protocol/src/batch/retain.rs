//! A batch with some of its records gone, as compaction leaves it (KIP-58, KIP-534): offsets, producer and sequences stay
//! what they were, so that readers, replicas and producer states see holes and nothing else.

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{COMPRESSION_MASK, DELETE_HORIZON, seal};
use super::record::put_record;
use super::{BatchError, BatchHeader, Compression, HEADER_LEN, Record};

/// The batch of `header` with only `records` of its own, which may be none: base offset, last offset, leader epoch,
/// producer and sequences are kept. `delete_horizon_ms` (milliseconds since 1970) is when its tombstones or its marker may
/// go; it takes the place of the base timestamp, from which records count theirs.
///
/// # Errors
/// A compression that is not known.
pub fn retain(header: &BatchHeader, records: &[Record], delete_horizon_ms: Option<i64>) -> Result<Bytes, BatchError> {
    let base_timestamp = delete_horizon_ms.or(records.first().map(|r| r.timestamp)).unwrap_or(header.max_timestamp);
    let max_timestamp = match records.iter().map(|r| r.timestamp).max() {
        Some(max) if !header.is_log_append_time() => max,
        _ => header.max_timestamp,
    };
    let mut body = BytesMut::new();
    for record in records {
        let delta = record.offset - header.base_offset;
        let delta = i32::try_from(delta).ok().filter(|d| (0..=header.last_offset_delta).contains(d));
        let delta = delta.ok_or(BatchError::Malformed("a record that is not of the batch"))?;
        put_record(&mut body, record, record.timestamp.wrapping_sub(base_timestamp), delta);
    }
    let compression = header.compression()?;
    // An empty batch has nothing to compress; some codecs would write a frame of their own.
    let compression = if records.is_empty() { Compression::None } else { compression };
    let body = match compression {
        Compression::None => body.freeze(),
        codec => Bytes::from(codec.compress(&body)),
    };
    let mut attributes = (header.attributes & !COMPRESSION_MASK & !DELETE_HORIZON) | compression.bits();
    if delete_horizon_ms.is_some() {
        attributes |= DELETE_HORIZON;
    }
    let length = i32::try_from(HEADER_LEN - 12 + body.len()).map_err(|_| BatchError::Malformed("past 2 GiB"))?;
    let count = i32::try_from(records.len()).map_err(|_| BatchError::Malformed("too many records"))?;
    let mut b = BytesMut::with_capacity(HEADER_LEN + body.len());
    b.put_i64(header.base_offset);
    b.put_i32(length);
    b.put_i32(header.partition_leader_epoch);
    b.put_i8(header.magic);
    b.put_u32(0);
    b.put_i16(attributes);
    b.put_i32(header.last_offset_delta);
    b.put_i64(base_timestamp);
    b.put_i64(max_timestamp);
    b.put_i64(header.producer_id);
    b.put_i16(header.producer_epoch);
    b.put_i32(header.base_sequence);
    b.put_i32(count);
    b.put_slice(&body);
    seal(&mut b);
    Ok(b.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Limits, assign, decode_records};

    #[test]
    fn what_stays_keeps_its_place_and_its_time() {
        for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let mut builder = BatchBuilder::new().producer(7, 3, 10).transactional().compression(codec);
            for i in 0..4i64 {
                let value = (i != 2).then(|| Bytes::from(format!("v{i}")));
                let key = Some(Bytes::from(format!("k{i}")));
                builder.push(&Record { timestamp: 1_000 - i, key, value, ..Record::default() });
            }
            let mut bytes = BytesMut::from(&builder.build()[..]);
            assign(&mut bytes, 500, 9);
            let bytes = bytes.freeze();
            let header = BatchHeader::parse(&bytes).unwrap();
            let records = decode_records(&bytes, &Limits::default()).unwrap();
            for horizon in [None, Some(77_000)] {
                for kept in [vec![], vec![2], vec![0, 3], vec![0, 1, 2, 3]] {
                    let kept: Vec<Record> = kept.iter().map(|i: &usize| records[*i].clone()).collect();
                    let left = retain(&header, &kept, horizon).unwrap();
                    let now = BatchHeader::parse(&left).unwrap();
                    now.verify_crc(&left).unwrap();
                    assert_eq!(decode_records(&left, &Limits::default()).unwrap(), kept);
                    assert_eq!(now.delete_horizon_ms(), horizon);
                    assert_eq!((now.base_offset, now.last_offset(), now.partition_leader_epoch), (500, 503, 9));
                    let producer = (now.producer_id, now.producer_epoch, now.base_sequence, now.last_sequence());
                    assert_eq!(producer, (7, 3, 10, 13));
                    assert!(now.is_transactional() && !now.is_control());
                    let latest = kept.iter().map(|r| r.timestamp).max().unwrap_or(1_000);
                    assert_eq!(now.max_timestamp, latest);
                    let again = retain(&now, &kept, now.delete_horizon_ms()).unwrap();
                    assert_eq!(again, left, "a second pass changes nothing");
                }
            }
        }
    }

    #[test]
    fn a_record_of_another_batch_is_refused() {
        let mut builder = BatchBuilder::new();
        builder.push(&Record::default());
        let header = BatchHeader::parse(&builder.build()).unwrap();
        assert!(retain(&header, &[Record { offset: 1, ..Record::default() }], None).is_err());
    }
}
