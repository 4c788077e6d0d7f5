//! Records inside a batch.
//!
//! ```text
//! length varint | attributes i8 | timestamp_delta varlong | offset_delta varint
//! key_length varint (-1 null) | key | value_length varint (-1 null) | value
//! header_count varint | { key_length varint | key | value_length varint (-1 null) | value }*
//! ```

use bytes::{Buf, BufMut, Bytes};

use super::{BatchError, BatchHeader, HEADER_LEN, Limits};

/// One record. `offset` is absolute once it was read from a log; a builder ignores it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    pub offset: i64,
    /// Milliseconds since 1970-01-01T00:00Z.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// In order, repeats allowed. Keys are UTF-8 by convention; nothing checks it.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl Record {
    /// The last header with this key, if it has a value.
    pub fn header(&self, key: &str) -> Option<&Bytes> {
        self.headers.iter().rev().find(|(k, _)| k == key.as_bytes()).and_then(|(_, v)| v.as_ref())
    }
}

/// Length, attributes, two deltas, key, value and header count take one byte each at least.
const MIN_RECORD_LEN: usize = 7;
const MIN_HEADER_LEN: usize = 2;

/// The records of one whole batch. Keys, values and headers share the batch's memory (or that of its decompressed
/// records). Does not check the checksum.
pub fn decode_records(batch: &Bytes, limits: &Limits) -> Result<Vec<Record>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if batch.len() < header.total_len() {
        return Err(BatchError::Truncated { wanted: header.total_len(), left: batch.len() });
    }
    let mut data = header.compression()?.decompress(&batch.slice(HEADER_LEN..header.total_len()), limits)?;
    let count = header.records_count as usize;
    if count > data.len() / MIN_RECORD_LEN {
        return Err(BatchError::Malformed("more records than bytes for them"));
    }
    let mut records = Vec::with_capacity(count);
    let mut last_delta = -1;
    for _ in 0..count {
        let len = length(&mut data, "record")?.ok_or(BatchError::Malformed("record of negative length"))?;
        let mut body = data.split_to(len);
        let record = decode_record(&mut body, &header)?;
        let delta = record.offset - header.base_offset;
        if delta <= last_delta || delta > i64::from(header.last_offset_delta) {
            return Err(BatchError::Malformed("offset deltas do not rise within the batch"));
        }
        last_delta = delta;
        records.push(record);
    }
    if data.has_remaining() {
        return Err(BatchError::Malformed("bytes after the last record"));
    }
    Ok(records)
}

fn decode_record(body: &mut Bytes, header: &BatchHeader) -> Result<Record, BatchError> {
    const SHORT: BatchError = BatchError::Malformed("record cut short");
    let _attributes = body.try_get_i8().map_err(|_| SHORT)?;
    let timestamp_delta = varlong(body)?;
    let offset_delta = varint(body)?;
    let key = nullable(body, "key")?;
    let value = nullable(body, "value")?;
    let count = usize::try_from(varint(body)?).map_err(|_| BatchError::Malformed("negative count of headers"))?;
    if count > body.remaining() / MIN_HEADER_LEN {
        return Err(BatchError::Malformed("more headers than bytes for them"));
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let key = nullable(body, "header key")?.ok_or(BatchError::Malformed("header without a key"))?;
        headers.push((key, nullable(body, "header value")?));
    }
    if body.has_remaining() {
        return Err(BatchError::Malformed("bytes after the headers"));
    }
    let timestamp = if header.is_log_append_time() {
        header.max_timestamp
    } else {
        header.base_timestamp.wrapping_add(timestamp_delta)
    };
    // `parse` checked that base + last delta fits; `decode_records` checks that the delta is not past the last one.
    let offset = header.base_offset.checked_add(i64::from(offset_delta)).ok_or(SHORT)?;
    Ok(Record { offset, timestamp, key, value, headers })
}

fn nullable(body: &mut Bytes, what: &'static str) -> Result<Option<Bytes>, BatchError> {
    Ok(length(body, what)?.map(|len| body.split_to(len)))
}

/// A length that the buffer can satisfy, `None` for -1.
fn length(body: &mut Bytes, _what: &'static str) -> Result<Option<usize>, BatchError> {
    let len = varint(body)?;
    if len == -1 {
        return Ok(None);
    }
    match usize::try_from(len) {
        Ok(len) if len <= body.remaining() => Ok(Some(len)),
        Ok(_) => Err(BatchError::Malformed("length past the end")),
        Err(_) => Err(BatchError::Malformed("negative length")),
    }
}

fn varint(buf: &mut Bytes) -> Result<i32, BatchError> {
    i32::try_from(varlong(buf)?).map_err(|_| BatchError::Malformed("varint past 32 bits"))
}

fn varlong(buf: &mut Bytes) -> Result<i64, BatchError> {
    let mut value: u64 = 0;
    for shift in (0..70).step_by(7) {
        let byte = buf.try_get_u8().map_err(|_| BatchError::Malformed("varint cut short"))?;
        if shift == 63 && byte > 1 {
            return Err(BatchError::Malformed("varint past 64 bits"));
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(BatchError::Malformed("varint of more than 10 bytes"))
}

pub(super) fn put_varlong(buf: &mut impl BufMut, value: i64) {
    let mut value = ((value << 1) ^ (value >> 63)) as u64;
    while value >= 0x80 {
        buf.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

pub(super) fn varlong_len(value: i64) -> usize {
    let value = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn nullable_len(value: Option<&Bytes>) -> usize {
    value.map_or(1, |v| varlong_len(v.len() as i64) + v.len())
}

fn put_nullable(buf: &mut impl BufMut, value: Option<&Bytes>) {
    match value {
        None => put_varlong(buf, -1),
        Some(v) => {
            put_varlong(buf, v.len() as i64);
            buf.put_slice(v);
        }
    }
}

/// Bytes of the record after its length field.
pub(super) fn body_len(record: &Record, timestamp_delta: i64, offset_delta: i32) -> usize {
    1 + varlong_len(timestamp_delta)
        + varlong_len(i64::from(offset_delta))
        + nullable_len(record.key.as_ref())
        + nullable_len(record.value.as_ref())
        + varlong_len(record.headers.len() as i64)
        + record.headers.iter().map(|(k, v)| nullable_len(Some(k)) + nullable_len(v.as_ref())).sum::<usize>()
}

pub(super) fn put_record(buf: &mut impl BufMut, record: &Record, timestamp_delta: i64, offset_delta: i32) {
    put_varlong(buf, body_len(record, timestamp_delta, offset_delta) as i64);
    buf.put_i8(0);
    put_varlong(buf, timestamp_delta);
    put_varlong(buf, i64::from(offset_delta));
    put_nullable(buf, record.key.as_ref());
    put_nullable(buf, record.value.as_ref());
    put_varlong(buf, record.headers.len() as i64);
    for (key, value) in &record.headers {
        put_nullable(buf, Some(key));
        put_nullable(buf, value.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::{BatchBuilder, Compression};

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn record() -> impl Strategy<Value = Record> {
        let headers = proptest::collection::vec((bytes(), proptest::option::of(bytes())), 0..4);
        (-1_000_000i64..1_000_000, proptest::option::of(bytes()), proptest::option::of(bytes()), headers)
            .prop_map(|(timestamp, key, value, headers)| Record { offset: 0, timestamp, key, value, headers })
    }

    proptest! {
        #[test]
        fn batches_round_trip(mut records in proptest::collection::vec(record(), 1..20), codec in 0u8..5) {
            let codec = Compression::from_bits(codec).unwrap();
            let mut builder = BatchBuilder::new().compression(codec);
            for (i, record) in records.iter_mut().enumerate() {
                builder.push(record);
                record.offset = i as i64;
            }
            let batch = builder.build();
            let header = BatchHeader::parse(&batch).unwrap();
            prop_assert_eq!(header.total_len(), batch.len());
            header.verify_crc(&batch).unwrap();
            header.check_produced().unwrap();
            prop_assert_eq!(header.max_timestamp, records.iter().map(|r| r.timestamp).max().unwrap());
            prop_assert_eq!(decode_records(&batch, &Limits::default()).unwrap(), records);
        }

        #[test]
        fn varlongs_round_trip(v: i64) {
            let mut buf = bytes::BytesMut::new();
            put_varlong(&mut buf, v);
            prop_assert_eq!(buf.len(), varlong_len(v));
            prop_assert_eq!(varlong(&mut buf.freeze()).unwrap(), v);
        }

        #[test]
        fn arbitrary_records_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..300), codec in 0u8..8) {
            let mut builder = BatchBuilder::new();
            builder.push(&Record::default());
            let mut batch = builder.build()[..HEADER_LEN].to_vec();
            batch[22] = codec;
            batch.extend_from_slice(&tail);
            let length = (batch.len() - 12) as i32;
            batch[8..12].copy_from_slice(&length.to_be_bytes());
            let _ = decode_records(&batch.into(), &Limits { max_decompressed_bytes: 1 << 16 });
        }
    }

    /// A batch of Apache Kafka's own layout, put together by hand: two records, one header.
    #[test]
    fn golden_records() {
        let mut builder = BatchBuilder::new();
        builder.push(&Record { timestamp: 10, value: Some(Bytes::from_static(b"a")), ..Record::default() });
        builder.push(&Record {
            timestamp: 12,
            key: Some(Bytes::from_static(b"k")),
            headers: vec![(Bytes::from_static(b"h"), None)],
            ..Record::default()
        });
        let batch = builder.build();
        let golden = [
            0x0e, 0, 0, 0, 0x01, 0x02, b'a', 0, // length 7, attributes, +0, 0, key -1, value 1, no headers
            0x14, 0, 0x04, 0x02, 0x02, b'k', 0x01, 0x02, 0x02, b'h', 0x01, // length 10, +2, 1, key "k", value -1
        ];
        assert_eq!(&batch[HEADER_LEN..], golden);
        assert_eq!(&batch[16..17], [2]);
        assert_eq!(&batch[27..43], [0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 12]);
    }
}
