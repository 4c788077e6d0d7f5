//! Records inside a batch.
//!
//! ```text
//! length varint | attributes i8 | timestamp_delta varlong | offset_delta varint
//! key_length varint (-1 null) | key | value_length varint (-1 null) | value
//! header_count varint | { key_length varint | key | value_length varint (-1 null) | value }*
//! ```

use bytes::{BufMut, Bytes, BytesMut};

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
    let (header, data) = records_of(batch, limits)?;
    let mut records = Vec::with_capacity(header.records_count as usize);
    walk(&header, &data, |offset, record| {
        let part = |bytes: &[u8]| data.slice_ref(bytes);
        let mut headers = Vec::with_capacity(record.header_count);
        record.headers(|key, value| headers.push((part(key), value.map(part))))?;
        let timestamp = if header.is_log_append_time() {
            header.max_timestamp
        } else {
            header.base_timestamp.wrapping_add(record.timestamp_delta)
        };
        records.push(Record { offset, timestamp, key: record.key.map(part), value: record.value.map(part), headers });
        Ok(())
    })?;
    Ok(records)
}

/// Whether [`decode_records`] would succeed: the same walk, with nothing kept.
pub fn check_records(batch: &Bytes, limits: &Limits) -> Result<(), BatchError> {
    let (header, data) = records_of(batch, limits)?;
    walk(&header, &data, |_, record| record.headers(|_, _| {}))
}

/// The header, and the bytes of as many records as it names.
fn records_of(batch: &Bytes, limits: &Limits) -> Result<(BatchHeader, Bytes), BatchError> {
    let header = BatchHeader::parse(batch)?;
    if batch.len() < header.total_len() {
        return Err(BatchError::Truncated { wanted: header.total_len(), left: batch.len() });
    }
    let data = header.compression()?.decompress(&batch.slice(HEADER_LEN..header.total_len()), limits)?;
    if header.records_count as usize > data.len() / MIN_RECORD_LEN {
        return Err(BatchError::Malformed("more records than bytes for them"));
    }
    Ok((header, data))
}

/// Visits each record with its offset.
fn walk(
    header: &BatchHeader,
    mut data: &[u8],
    mut visit: impl FnMut(i64, RawRecord<'_>) -> Result<(), BatchError>,
) -> Result<(), BatchError> {
    let mut last_delta = -1;
    for _ in 0..header.records_count {
        let body = nullable(&mut data)?.ok_or(BatchError::Malformed("record of negative length"))?;
        let record = RawRecord::parse(body)?;
        let delta = i64::from(record.offset_delta);
        // `parse` of the header checked that base + last delta fits.
        if delta <= last_delta || delta > i64::from(header.last_offset_delta) {
            return Err(BatchError::Malformed("offset deltas do not rise within the batch"));
        }
        last_delta = delta;
        visit(header.base_offset + delta, record)?;
    }
    if !data.is_empty() {
        return Err(BatchError::Malformed("bytes after the last record"));
    }
    Ok(())
}

/// A record in the bytes of its batch.
struct RawRecord<'a> {
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    header_count: usize,
    /// Not read yet.
    headers: &'a [u8],
}

impl<'a> RawRecord<'a> {
    fn parse(mut body: &'a [u8]) -> Result<Self, BatchError> {
        let _attributes = body.split_off_first().ok_or(BatchError::Malformed("record cut short"))?;
        let timestamp_delta = varlong(&mut body)?;
        let offset_delta = varint(&mut body)?;
        let key = nullable(&mut body)?;
        let value = nullable(&mut body)?;
        let count = usize::try_from(varint(&mut body)?);
        let header_count = count.map_err(|_| BatchError::Malformed("negative count of headers"))?;
        if header_count > body.len() / MIN_HEADER_LEN {
            return Err(BatchError::Malformed("more headers than bytes for them"));
        }
        Ok(Self { timestamp_delta, offset_delta, key, value, header_count, headers: body })
    }

    fn headers(&self, mut visit: impl FnMut(&'a [u8], Option<&'a [u8]>)) -> Result<(), BatchError> {
        let mut body = self.headers;
        for _ in 0..self.header_count {
            let key = nullable(&mut body)?.ok_or(BatchError::Malformed("header without a key"))?;
            visit(key, nullable(&mut body)?);
        }
        if !body.is_empty() {
            return Err(BatchError::Malformed("bytes after the headers"));
        }
        Ok(())
    }
}

/// A length, then that many bytes; `None` for the length -1.
fn nullable<'a>(body: &mut &'a [u8]) -> Result<Option<&'a [u8]>, BatchError> {
    let len = varint(body)?;
    if len == -1 {
        return Ok(None);
    }
    let len = usize::try_from(len).map_err(|_| BatchError::Malformed("negative length"))?;
    let part = body.split_off(..len).ok_or(BatchError::Malformed("length past the end"))?;
    Ok(Some(part))
}

fn varint(buf: &mut &[u8]) -> Result<i32, BatchError> {
    i32::try_from(varlong(buf)?).map_err(|_| BatchError::Malformed("varint past 32 bits"))
}

fn varlong(buf: &mut &[u8]) -> Result<i64, BatchError> {
    let mut value: u64 = 0;
    for shift in (0..70).step_by(7) {
        let byte = *buf.split_off_first().ok_or(BatchError::Malformed("varint cut short"))?;
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

pub(super) fn put_record(buf: &mut BytesMut, record: &Record, timestamp_delta: i64, offset_delta: i32) {
    let len = body_len(record, timestamp_delta, offset_delta);
    // Once a record, instead of byte by byte.
    buf.reserve(varlong_len(len as i64) + len);
    put_varlong(buf, len as i64);
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
            prop_assert_eq!(varlong(&mut &buf[..]).unwrap(), v);
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
            let limits = Limits { max_decompressed_bytes: 1 << 16 };
            let batch = Bytes::from(batch);
            prop_assert_eq!(decode_records(&batch, &limits).err(), check_records(&batch, &limits).err());
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
