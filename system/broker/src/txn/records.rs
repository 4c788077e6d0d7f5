//! The records of `__transaction_state`, in Kafka's format: TransactionLogKey version 0 (the transactional id) and
//! TransactionLogValue version 1, whose tagged fields carry what KIP-890 and KIP-939 added. A value of null forgets
//! the id.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::codec::{CodecError, Reader, Writer};

use super::state::{ProducerIdEpoch, State, Txn};

const KEY_VERSION: i16 = 0;
const VALUE_VERSION: i16 = 1;

/// Tags of TransactionLogValue.
mod tag {
    pub const PREVIOUS_PRODUCER_ID: u32 = 0;
    pub const NEXT_PRODUCER_ID: u32 = 1;
    pub const CLIENT_TRANSACTION_VERSION: u32 = 2;
    pub const NEXT_PRODUCER_EPOCH: u32 = 3;
}

pub fn encode_key(transactional_id: &str) -> Bytes {
    let mut w = Writer::new();
    w.i16(KEY_VERSION);
    w.string(transactional_id);
    w.finish()
}

pub fn decode_key(key: &[u8]) -> Result<String, CodecError> {
    let mut r = Reader::new(key);
    let version = r.i16("TransactionLogKey version")?;
    if version != KEY_VERSION {
        return Err(CodecError::Version { what: "TransactionLogKey", version: version.into() });
    }
    r.string("transactional id")
}

pub fn encode_value(txn: &Txn) -> Bytes {
    let mut w = Writer::new();
    w.i16(VALUE_VERSION);
    w.i64(txn.producer.producer_id);
    w.i16(txn.producer.epoch);
    w.i32(txn.timeout_ms);
    w.i8(txn.state as i8);
    if txn.state == State::Empty {
        w.uvarint(0); // Kafka writes null where there is no transaction
    } else {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &txn.partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        w.compact_len(topics.len());
        for (topic, partitions) in topics {
            w.compact_string(topic);
            w.compact_len(partitions.len());
            partitions.iter().for_each(|p| w.i32(*p));
            w.no_tags();
        }
    }
    w.i64(txn.last_update_ms);
    w.i64(txn.start_ms);
    let mut tags = Vec::new();
    let mut put = |tag, field: fn(&mut Writer, i64), value: i64| {
        let mut f = Writer::new();
        field(&mut f, value);
        tags.push((tag, f.finish()));
    };
    if txn.previous_producer_id != -1 {
        put(tag::PREVIOUS_PRODUCER_ID, Writer::i64, txn.previous_producer_id);
    }
    if let Some(next) = txn.next {
        put(tag::NEXT_PRODUCER_ID, Writer::i64, next.producer_id);
    }
    if txn.client_version != 0 {
        put(tag::CLIENT_TRANSACTION_VERSION, |w, v| w.i16(v as i16), txn.client_version.into());
    }
    if let Some(next) = txn.next {
        put(tag::NEXT_PRODUCER_EPOCH, |w, v| w.i16(v as i16), next.epoch.into());
    }
    w.tags(&tags);
    w.finish()
}

pub fn decode_value(value: &[u8]) -> Result<Txn, CodecError> {
    let mut r = Reader::new(value);
    let version = r.i16("TransactionLogValue version")?;
    if version != VALUE_VERSION {
        return Err(CodecError::Version { what: "TransactionLogValue", version: version.into() });
    }
    let producer_id = r.i64("producer id")?;
    let epoch = r.i16("producer epoch")?;
    let timeout_ms = r.i32("transaction time-out")?;
    let state = State::from_code(r.i8("state")?).ok_or(CodecError::Invalid("state"))?;
    let mut partitions = BTreeSet::new();
    for _ in 0..r.compact_len("partitions")?.unwrap_or(0) {
        let topic = r.compact_string("topic")?.ok_or(CodecError::Invalid("topic"))?;
        for _ in 0..r.compact_len("partition ids")?.unwrap_or(0) {
            partitions.insert((topic.clone(), r.i32("partition")?));
        }
        r.tags("partitions", |_, _| Ok(()))?;
    }
    let last_update_ms = r.i64("last update")?;
    let start_ms = r.i64("start")?;
    let (mut previous_producer_id, mut next_id, mut next_epoch, mut client_version) = (-1, -1, 0, 0);
    r.tags("TransactionLogValue", |tag, mut field| {
        match tag {
            tag::PREVIOUS_PRODUCER_ID => previous_producer_id = field.i64("previous producer id")?,
            tag::NEXT_PRODUCER_ID => next_id = field.i64("next producer id")?,
            tag::CLIENT_TRANSACTION_VERSION => client_version = field.i16("client transaction version")?,
            tag::NEXT_PRODUCER_EPOCH => next_epoch = field.i16("next producer epoch")?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Txn {
        producer: ProducerIdEpoch::new(producer_id, epoch),
        next: (next_id != -1).then_some(ProducerIdEpoch::new(next_id, next_epoch)),
        previous_producer_id,
        timeout_ms,
        state,
        partitions,
        last_update_ms,
        start_ms,
        client_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Txn {
        Txn {
            producer: ProducerIdEpoch::new(1001, 7),
            next: Some(ProducerIdEpoch::new(2000, 1)),
            previous_producer_id: 900,
            timeout_ms: 60_000,
            state: State::PrepareCommit,
            partitions: [("a".to_owned(), 0), ("a".to_owned(), 2), ("b".to_owned(), 1)].into(),
            last_update_ms: 5,
            start_ms: 4,
            client_version: 2,
        }
    }

    #[test]
    fn values_round_trip() {
        assert_eq!(decode_value(&encode_value(&full())), Ok(full()));
        let empty = Txn::new(ProducerIdEpoch::new(1, 0), 1000, 9);
        assert_eq!(decode_value(&encode_value(&empty)), Ok(empty));
        assert_eq!(decode_key(&encode_key("job-source-0-1")).as_deref(), Ok("job-source-0-1"));
    }

    #[test]
    fn every_cut_is_an_error_and_never_a_panic() {
        let bytes = encode_value(&full());
        for len in 0..bytes.len() {
            assert!(decode_value(&bytes[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn an_empty_value_has_kafkas_bytes() {
        let empty = Txn::new(ProducerIdEpoch::new(1, 2), 1000, 9);
        let expected = b"\x00\x01\0\0\0\0\0\0\0\x01\0\x02\0\0\x03\xe8\x00\x00\0\0\0\0\0\0\0\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00";
        assert_eq!(&encode_value(&empty)[..], expected);
    }
}
