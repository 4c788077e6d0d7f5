//! Control records: the markers that end a transaction in a partition (KIP-98).
//!
//! Key: version i16 = 0, type i16 (0 abort, 1 commit). Value: version i16 = 0, coordinator epoch i32.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{BatchBuilder, BatchError, NO_SEQUENCE, Record};

/// How the transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ControlType {
    Abort,
    Commit,
}

/// A transaction marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ControlRecord {
    pub control_type: ControlType,
    pub coordinator_epoch: i32,
}

impl ControlRecord {
    /// Reads a marker from a record of a control batch. `Ok(None)` for types that are not markers, which readers skip.
    pub fn decode(record: &Record) -> Result<Option<Self>, BatchError> {
        const SHORT: BatchError = BatchError::Malformed("control record cut short");
        let mut key = record.key.as_deref().ok_or(SHORT)?;
        let version = key.try_get_i16().map_err(|_| SHORT)?;
        if version < 0 {
            return Err(BatchError::Malformed("control record of negative version"));
        }
        let control_type = match key.try_get_i16().map_err(|_| SHORT)? {
            0 => ControlType::Abort,
            1 => ControlType::Commit,
            _ => return Ok(None),
        };
        let mut value = record.value.as_deref().ok_or(SHORT)?;
        let _version = value.try_get_i16().map_err(|_| SHORT)?;
        let coordinator_epoch = value.try_get_i32().map_err(|_| SHORT)?;
        Ok(Some(Self { control_type, coordinator_epoch }))
    }

    /// The marker's record.
    pub fn encode(&self, timestamp: i64) -> Record {
        let mut key = BytesMut::with_capacity(4);
        key.put_i16(0);
        key.put_i16(match self.control_type {
            ControlType::Abort => 0,
            ControlType::Commit => 1,
        });
        let mut value = BytesMut::with_capacity(6);
        value.put_i16(0);
        value.put_i32(self.coordinator_epoch);
        Record { timestamp, key: Some(key.freeze()), value: Some(value.freeze()), ..Record::default() }
    }

    /// The marker's batch, as a coordinator has it appended.
    pub fn batch(&self, producer_id: i64, producer_epoch: i16, timestamp: i64) -> Bytes {
        let mut builder =
            BatchBuilder::new().producer(producer_id, producer_epoch, NO_SEQUENCE).transactional().control();
        builder.push(&self.encode(timestamp));
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchHeader, Limits, decode_records};

    #[test]
    fn markers_round_trip() {
        for control_type in [ControlType::Abort, ControlType::Commit] {
            let marker = ControlRecord { control_type, coordinator_epoch: 12 };
            let batch = marker.batch(5, 6, 1_000);
            let header = BatchHeader::parse(&batch).unwrap();
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (5, 6, -1));
            assert_eq!(header.last_sequence(), -1);
            let records = decode_records(&batch, &Limits::default()).unwrap();
            assert_eq!(ControlRecord::decode(&records[0]), Ok(Some(marker)));
        }
    }

    #[test]
    fn unknown_types_are_skipped_and_short_ones_refused() {
        let mut record = ControlRecord { control_type: ControlType::Commit, coordinator_epoch: 0 }.encode(0);
        record.key = Some(Bytes::from_static(&[0, 0, 0, 6]));
        assert_eq!(ControlRecord::decode(&record), Ok(None));
        record.key = Some(Bytes::from_static(&[0, 0, 0]));
        assert!(ControlRecord::decode(&record).is_err());
    }
}
