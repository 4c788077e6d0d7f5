//! Committed offsets: OffsetCommitKey version 1 (group, topic, partition) and OffsetCommitValue version 3.

use bytes::Bytes;

use crate::codec::{CodecError, Reader, Writer};
use crate::group::offsets::{Committed, Place};

/// Versions 0 and 1 of the key are the same.
const KEY_VERSION: i16 = 1;
const VALUE_VERSION: i16 = 3;

pub fn encode_key(group: &str, place: &Place) -> Bytes {
    let mut w = Writer::new();
    w.i16(KEY_VERSION);
    w.string(group);
    w.string(&place.0);
    w.i32(place.1);
    w.finish()
}

pub fn decode_key(key: &[u8]) -> Result<(String, Place), CodecError> {
    let mut r = Reader::new(key);
    let version = r.i16("OffsetCommitKey version")?;
    if !(0..=KEY_VERSION).contains(&version) {
        return Err(CodecError::Version { what: "OffsetCommitKey", version: version.into() });
    }
    let group = r.string("group")?;
    let topic = r.string("topic")?;
    Ok((group, (topic, r.i32("partition")?)))
}

pub fn encode_value(committed: &Committed) -> Bytes {
    let mut w = Writer::new();
    w.i16(VALUE_VERSION);
    w.i64(committed.offset);
    w.i32(committed.leader_epoch);
    w.string(&committed.metadata);
    w.i64(committed.commit_ms);
    w.finish()
}

pub fn decode_value(value: &[u8]) -> Result<Committed, CodecError> {
    let mut r = Reader::new(value);
    let version = r.i16("OffsetCommitValue version")?;
    if !(0..=VALUE_VERSION).contains(&version) {
        return Err(CodecError::Version { what: "OffsetCommitValue", version: version.into() });
    }
    let offset = r.i64("offset")?;
    let leader_epoch = if version >= 3 { r.i32("leader epoch")? } else { -1 };
    let metadata = r.string("metadata")?;
    let commit_ms = r.i64("commit timestamp")?;
    Ok(Committed { offset, leader_epoch, metadata, commit_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_cuts_are_errors() {
        let place = ("topic".to_owned(), 3);
        let committed = Committed { offset: 42, leader_epoch: 7, metadata: "m".into(), commit_ms: 9 };
        let (key, value) = (encode_key("g", &place), encode_value(&committed));
        assert_eq!(decode_key(&key), Ok(("g".to_owned(), place)));
        assert_eq!(decode_value(&value), Ok(committed));
        for len in 0..key.len() {
            assert!(decode_key(&key[..len]).is_err());
        }
        for len in 0..value.len() {
            assert!(decode_value(&value[..len]).is_err());
        }
    }

    #[test]
    fn a_key_has_kafkas_bytes() {
        assert_eq!(&encode_key("g", &("t".to_owned(), 1))[..], b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x01");
    }
}
