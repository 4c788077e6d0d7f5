//! The header of a batch: parsing, the checksum, splitting a set of batches, assigning offsets.

use bytes::{Buf, Bytes, BytesMut};

use super::{BatchError, Compression, NO_PRODUCER_ID, NO_SEQUENCE};

/// Bytes before the records.
pub const HEADER_LEN: usize = 61;
/// Bytes before those that `batch_length` counts.
const LENGTH_END: usize = 12;
const CRC_START: usize = 17;
const CRC_END: usize = 21;

pub(super) const COMPRESSION_MASK: i16 = 0x07;
pub(super) const LOG_APPEND_TIME: i16 = 0x08;
pub(super) const TRANSACTIONAL: i16 = 0x10;
pub(super) const CONTROL: i16 = 0x20;
pub(super) const DELETE_HORIZON: i16 = 0x40;

/// The fields of a batch's header, as they are in the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes of the batch after this field.
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes` and checks what can be checked without the records: the format, the
    /// length, and that nothing is negative that cannot be. Neither the checksum nor the presence of the whole batch.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() < HEADER_LEN {
            // The magic byte is at the same place in every format: an old, short message is not a truncated one.
            if let Some(&magic) = bytes.get(16)
                && magic != 2
            {
                return Err(BatchError::Magic(magic as i8));
            }
            return Err(BatchError::Truncated { wanted: HEADER_LEN, left: bytes.len() });
        }
        let mut b = bytes;
        let header = Self {
            base_offset: b.get_i64(),
            batch_length: b.get_i32(),
            partition_leader_epoch: b.get_i32(),
            magic: b.get_i8(),
            crc: b.get_u32(),
            attributes: b.get_i16(),
            last_offset_delta: b.get_i32(),
            base_timestamp: b.get_i64(),
            max_timestamp: b.get_i64(),
            producer_id: b.get_i64(),
            producer_epoch: b.get_i16(),
            base_sequence: b.get_i32(),
            records_count: b.get_i32(),
        };
        if header.magic != 2 {
            return Err(BatchError::Magic(header.magic));
        }
        if header.batch_length < (HEADER_LEN - LENGTH_END) as i32 {
            return Err(BatchError::Length(header.batch_length));
        }
        if header.base_offset < 0 || header.base_offset.checked_add(i64::from(header.last_offset_delta)).is_none() {
            return Err(BatchError::Malformed("base offset out of range"));
        }
        if header.last_offset_delta < 0 {
            return Err(BatchError::Malformed("negative last offset delta"));
        }
        if header.records_count < 0 {
            return Err(BatchError::Malformed("negative count of records"));
        }
        Ok(header)
    }

    /// Bytes of the whole batch, header included.
    pub fn total_len(&self) -> usize {
        LENGTH_END + self.batch_length as usize
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The offset after the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// The sequence of the last record, [`NO_SEQUENCE`] without sequences. Sequences wrap from `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            NO_SEQUENCE
        } else {
            add_sequence(self.base_sequence, self.last_offset_delta)
        }
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer_id != NO_PRODUCER_ID
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Timestamps are the broker's (LogAppendTime), not the producer's.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// When the tombstones of the batch, or its marker, may be removed (KIP-534), in milliseconds since 1970. Compaction
    /// sets it, in the place of the base timestamp.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_bits((self.attributes & COMPRESSION_MASK) as u8)
    }

    /// Checks the checksum of `batch`, which must begin with this header and may go on after the batch.
    pub fn verify_crc(&self, batch: &[u8]) -> Result<(), BatchError> {
        let Some(batch) = batch.get(..self.total_len()) else {
            return Err(BatchError::Truncated { wanted: self.total_len(), left: batch.len() });
        };
        let found = crc32c::crc32c(&batch[CRC_END..]);
        if found == self.crc { Ok(()) } else { Err(BatchError::Crc { expected: self.crc, found }) }
    }

    /// What a broker demands of a batch from a producer, beyond a correct checksum (KAFKA-4340, `LogValidator`): one
    /// record or more, offset deltas without gaps, no control batch, no delete horizon, a known compression, sequences if and only if
    /// there is a producer id.
    pub fn check_produced(&self) -> Result<(), BatchError> {
        if self.records_count == 0 || self.records_count.checked_sub(1) != Some(self.last_offset_delta) {
            return Err(BatchError::Malformed("count of records is not last offset delta + 1"));
        }
        if self.is_control() {
            return Err(BatchError::Malformed("control batch from a client"));
        }
        if self.delete_horizon_ms().is_some() {
            return Err(BatchError::Malformed("delete horizon from a client"));
        }
        self.compression()?;
        if self.has_producer_id() && (self.producer_id < 0 || self.producer_epoch < 0 || self.base_sequence < 0) {
            return Err(BatchError::Malformed("producer id without epoch or sequence"));
        }
        if !self.has_producer_id() && self.is_transactional() {
            return Err(BatchError::Malformed("transactional batch without a producer id"));
        }
        Ok(())
    }
}

/// `sequence + n`, wrapping from `i32::MAX` to 0. `sequence` and `n` are not negative.
pub fn add_sequence(sequence: i32, n: i32) -> i32 {
    let sum = (i64::from(sequence) + i64::from(n)) % (i64::from(i32::MAX) + 1);
    sum as i32
}

/// The batches of `set`, each with its header, sharing the memory of `set`. Ends after the first error;
/// [`BatchError::Truncated`] is the normal end of a fetched set.
pub fn split(set: Bytes) -> impl Iterator<Item = Result<(BatchHeader, Bytes), BatchError>> {
    let mut rest = set;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let result = BatchHeader::parse(&rest).and_then(|header| {
            let wanted = header.total_len();
            if rest.len() < wanted {
                return Err(BatchError::Truncated { wanted, left: rest.len() });
            }
            Ok((header, rest.split_to(wanted)))
        });
        if result.is_err() {
            rest = Bytes::new();
        }
        Some(result)
    })
}

/// Writes the fields that the leader assigns into the batch that `batch` begins with. Neither is under the checksum.
pub fn assign(batch: &mut BytesMut, base_offset: i64, leader_epoch: i32) {
    assert!(batch.len() >= HEADER_LEN, "assign to {} bytes, less than a header", batch.len());
    batch[0..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Writes the checksum over the finished batch.
pub(super) fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_END..]);
    batch[CRC_START..CRC_END].copy_from_slice(&crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Record};

    fn batch(n: i64) -> Bytes {
        let mut b = BatchBuilder::new().producer(7, 3, i32::MAX - 1);
        for i in 0..n {
            b.push(&Record { timestamp: 1000 + i, value: Some(Bytes::from_static(b"v")), ..Record::default() });
        }
        b.build()
    }

    #[test]
    fn offsets_and_sequences() {
        let header = BatchHeader::parse(&batch(4)).unwrap();
        assert_eq!((header.base_offset, header.last_offset(), header.next_offset()), (0, 3, 4));
        assert_eq!(header.last_sequence(), 1, "MAX-1, MAX, 0, 1");
        assert_eq!(add_sequence(5, 0), 5);
        header.check_produced().unwrap();
    }

    #[test]
    fn assigning_keeps_the_checksum() {
        let mut b = BytesMut::from(&batch(2)[..]);
        assign(&mut b, 500, 9);
        let header = BatchHeader::parse(&b).unwrap();
        assert_eq!((header.base_offset, header.partition_leader_epoch), (500, 9));
        header.verify_crc(&b).unwrap();
        let last = b.len() - 1;
        b[last] ^= 1;
        assert!(matches!(header.verify_crc(&b), Err(BatchError::Crc { .. })));
    }

    #[test]
    fn splits_sets_and_says_when_the_last_is_cut() {
        let one = batch(3);
        let mut set = BytesMut::new();
        set.extend_from_slice(&one);
        set.extend_from_slice(&one);
        set.extend_from_slice(&one[..one.len() - 1]);
        let got: Vec<_> = split(set.freeze()).collect();
        assert_eq!(got.len(), 3);
        assert_eq!(got[1].as_ref().unwrap().1, one);
        assert_eq!(got[2], Err(BatchError::Truncated { wanted: one.len(), left: one.len() - 1 }));
    }

    #[test]
    fn refuses_old_formats_and_impossible_lengths() {
        let mut b = BytesMut::from(&batch(1)[..]);
        b[16] = 1;
        assert_eq!(BatchHeader::parse(&b), Err(BatchError::Magic(1)));
        assert_eq!(BatchHeader::parse(&b[..30]), Err(BatchError::Magic(1)));
        b[16] = 2;
        b[8..12].copy_from_slice(&(-1i32).to_be_bytes());
        assert_eq!(BatchHeader::parse(&b), Err(BatchError::Length(-1)));
    }
}
