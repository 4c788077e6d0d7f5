//! Builds one batch from records.

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{CONTROL, TRANSACTIONAL, seal};
use super::record::{body_len, put_record, varlong_len};
use super::{Compression, HEADER_LEN, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record};

/// Collects records and writes them as one batch with base offset 0, for a leader to [`assign`](super::assign).
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    attributes: i16,
    compression: Compression,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
    records: BytesMut,
}

/// Room of a new builder: a few records of ordinary size.
const FIRST_ROOM: usize = 512;

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// Without a producer's identity, not transactional, not compressed.
    pub fn new() -> Self {
        Self {
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            attributes: 0,
            compression: Compression::None,
            base_timestamp: 0,
            max_timestamp: 0,
            count: 0,
            records: BytesMut::with_capacity(FIRST_ROOM),
        }
    }

    pub fn producer(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        self.set_producer(producer_id, producer_epoch, base_sequence);
        self
    }

    pub fn transactional(mut self) -> Self {
        self.attributes |= TRANSACTIONAL;
        self
    }

    pub fn control(mut self) -> Self {
        self.attributes |= CONTROL;
        self
    }

    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sequences are given out when a batch is sent, not when it is begun.
    pub fn set_producer(&mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (producer_id, producer_epoch, base_sequence);
    }

    /// Appends a record; its `offset` is ignored. Records past `i32::MAX` are a bug of the caller.
    pub fn push(&mut self, record: &Record) {
        if self.count == 0 {
            self.base_timestamp = record.timestamp;
            self.max_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        put_record(&mut self.records, record, record.timestamp.wrapping_sub(self.base_timestamp), self.count);
        self.count = self.count.checked_add(1).expect("fewer than 2^31 records in a batch");
    }

    /// Bytes that `record` would add before compression.
    pub fn cost(&self, record: &Record) -> usize {
        let base = if self.count == 0 { record.timestamp } else { self.base_timestamp };
        let body = body_len(record, record.timestamp.wrapping_sub(base), self.count);
        varlong_len(body as i64) + body
    }

    /// Bytes of the batch before compression.
    pub fn len(&self) -> usize {
        HEADER_LEN + self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn count(&self) -> i32 {
        self.count
    }

    /// The batch. It must hold a record.
    pub fn build(&self) -> Bytes {
        assert!(self.count > 0, "a batch without records");
        let compressed;
        let records: &[u8] = match self.compression {
            Compression::None => &self.records,
            codec => {
                compressed = codec.compress(&self.records);
                &compressed
            }
        };
        let length = i32::try_from(HEADER_LEN - 12 + records.len()).expect("a batch of our own is below 2 GiB");
        let mut b = BytesMut::with_capacity(HEADER_LEN + records.len());
        b.put_i64(0);
        b.put_i32(length);
        b.put_i32(-1);
        b.put_i8(2);
        b.put_u32(0);
        b.put_i16(self.attributes | self.compression.bits());
        b.put_i32(self.count - 1);
        b.put_i64(self.base_timestamp);
        b.put_i64(self.max_timestamp);
        b.put_i64(self.producer_id);
        b.put_i16(self.producer_epoch);
        b.put_i32(self.base_sequence);
        b.put_i32(self.count);
        b.put_slice(records);
        seal(&mut b);
        b.freeze()
    }
}
