//! The records of `__consumer_offsets`, in Kafka's formats: a key starts with the kind of record it is.
//!
//! | key | what |
//! |--|--|
//! | 0, 1 | a committed offset ([`offset`]) |
//! | 2 | a classic group ([`classic`]) |
//! | 3, 5 to 8 | a consumer group: epoch, member, epoch of the target, target of a member, current part of a member ([`consumer`]) |
//! | others | skipped: partition metadata of early KIP-848 brokers, regular expressions, share and streams groups |
//!
//! A value of null forgets.

pub mod classic;
pub mod consumer;
pub mod offset;

use bytes::Bytes;
use protocol::batch::Record;

pub use classic::{StoredClassic, StoredMember};

use super::consumer::{Assignment, Current, MemberMetadata};
use super::offsets::{Committed, Place};
use crate::codec::{CodecError, Reader, Writer};

/// A record about a group rather than an offset.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum GroupRecord {
    Classic {
        group: String,
        value: Option<StoredClassic>,
    },
    /// Epoch and hash of the topics' metadata.
    Epoch {
        group: String,
        value: Option<(i32, u64)>,
    },
    Member {
        group: String,
        member_id: String,
        value: Option<MemberMetadata>,
    },
    TargetEpoch {
        group: String,
        epoch: Option<i32>,
    },
    Target {
        group: String,
        member_id: String,
        value: Option<Assignment>,
    },
    Current {
        group: String,
        member_id: String,
        value: Option<Current>,
    },
}

/// What a record of the partition is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kept {
    Offset { group: String, place: Place, committed: Option<Committed> },
    Group(GroupRecord),
    Skipped,
}

impl GroupRecord {
    pub fn group(&self) -> &str {
        match self {
            Self::Classic { group, .. }
            | Self::Epoch { group, .. }
            | Self::Member { group, .. }
            | Self::TargetEpoch { group, .. }
            | Self::Target { group, .. }
            | Self::Current { group, .. } => group,
        }
    }

    pub fn is_tombstone(&self) -> bool {
        match self {
            Self::Classic { value, .. } => value.is_none(),
            Self::Epoch { value, .. } => value.is_none(),
            Self::Member { value, .. } => value.is_none(),
            Self::TargetEpoch { epoch, .. } => epoch.is_none(),
            Self::Target { value, .. } => value.is_none(),
            Self::Current { value, .. } => value.is_none(),
        }
    }

    fn kind(&self) -> i16 {
        match self {
            Self::Classic { .. } => 2,
            Self::Epoch { .. } => 3,
            Self::Member { .. } => 5,
            Self::TargetEpoch { .. } => 6,
            Self::Target { .. } => 7,
            Self::Current { .. } => 8,
        }
    }

    /// Key and value.
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        let mut key = Writer::new();
        key.i16(self.kind());
        key.string(self.group());
        if let Self::Member { member_id, .. } | Self::Target { member_id, .. } | Self::Current { member_id, .. } = self
        {
            key.string(member_id);
        }
        let value = match self {
            Self::Classic { value, .. } => value.as_ref().map(classic::encode),
            Self::Epoch { value, .. } => value.map(consumer::encode_epoch),
            Self::Member { value, .. } => value.as_ref().map(consumer::encode_member),
            Self::TargetEpoch { epoch, .. } => epoch.map(consumer::encode_target_epoch),
            Self::Target { value, .. } => value.as_ref().map(consumer::encode_target),
            Self::Current { value, .. } => value.as_ref().map(consumer::encode_current),
        };
        (key.finish(), value)
    }
}

/// Decodes a record of the partition's log.
pub fn decode(record: &Record) -> Result<Kept, CodecError> {
    let key = record.key.as_deref().unwrap_or_default();
    let value = record.value.as_deref();
    let mut r = Reader::new(key);
    let kind = r.i16("key version")?;
    if let 0 | 1 = kind {
        let (group, place) = offset::decode_key(key)?;
        return Ok(Kept::Offset { group, place, committed: value.map(offset::decode_value).transpose()? });
    }
    if !matches!(kind, 2 | 3 | 5..=8) {
        return Ok(Kept::Skipped);
    }
    let group = r.string("group")?;
    let mut member_id = || r.string("member id");
    Ok(Kept::Group(match kind {
        2 => GroupRecord::Classic { group, value: value.map(classic::decode).transpose()? },
        3 => GroupRecord::Epoch { group, value: value.map(consumer::decode_epoch).transpose()? },
        5 => {
            let value = value.map(consumer::decode_member).transpose()?;
            GroupRecord::Member { group, member_id: member_id()?, value }
        }
        6 => GroupRecord::TargetEpoch { group, epoch: value.map(consumer::decode_target_epoch).transpose()? },
        7 => {
            let value = value.map(consumer::decode_target).transpose()?;
            GroupRecord::Target { group, member_id: member_id()?, value }
        }
        _ => {
            let value = value.map(consumer::decode_current).transpose()?;
            GroupRecord::Current { group, member_id: member_id()?, value }
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use protocol::Uuid;

    use super::*;
    use crate::group::consumer::MemberState;
    use crate::group::machine::Client;

    fn samples() -> Vec<GroupRecord> {
        let client = Client { id: "c".into(), host: "/10.0.0.1".into() };
        let assignment = BTreeMap::from([(Uuid::from_u128(7), BTreeSet::from([0, 3]))]);
        let stored = StoredClassic {
            protocol_type: "consumer".into(),
            generation: 3,
            protocol: Some("range".into()),
            leader: Some("m".into()),
            state_timestamp_ms: 99,
            members: vec![StoredMember {
                member_id: "m".into(),
                instance_id: Some("i".into()),
                client: client.clone(),
                rebalance_timeout_ms: 60_000,
                session_timeout_ms: 10_000,
                subscription: Bytes::from_static(b"sub"),
                assignment: Bytes::from_static(b"ass"),
            }],
        };
        let member = MemberMetadata {
            instance_id: None,
            rack_id: Some("r".into()),
            client,
            topics: BTreeSet::from(["a".to_owned(), "b".to_owned()]),
            rebalance_timeout_ms: 5,
            assignor: Some("uniform".into()),
        };
        let current = Current {
            epoch: 4,
            previous_epoch: 3,
            state: MemberState::Unrevoked,
            assigned: assignment.clone(),
            pending_revocation: assignment.clone(),
            since: assignment.iter().flat_map(|(t, ps)| ps.iter().map(|p| ((*t, *p), 2))).collect(),
        };
        let unstamped = Current { since: BTreeMap::new(), ..current.clone() };
        let (group, member_id) = (|| "g".to_owned(), || "m".to_owned());
        vec![
            GroupRecord::Classic { group: group(), value: Some(stored) },
            GroupRecord::Epoch { group: group(), value: Some((9, u64::MAX)) },
            GroupRecord::Epoch { group: group(), value: Some((9, 0)) },
            GroupRecord::Member { group: group(), member_id: member_id(), value: Some(member) },
            GroupRecord::TargetEpoch { group: group(), epoch: Some(8) },
            GroupRecord::Target { group: group(), member_id: member_id(), value: Some(assignment) },
            GroupRecord::Current { group: group(), member_id: member_id(), value: Some(current) },
            GroupRecord::Current { group: group(), member_id: member_id(), value: Some(unstamped) },
            GroupRecord::Current { group: group(), member_id: member_id(), value: None },
        ]
    }

    #[test]
    fn records_round_trip_and_cuts_are_errors() {
        for sample in samples() {
            let (key, value) = sample.encode();
            let record = |key: &[u8], value: Option<Bytes>| Record {
                key: Some(Bytes::copy_from_slice(key)),
                value,
                ..Record::default()
            };
            assert_eq!(decode(&record(&key, value.clone())), Ok(Kept::Group(sample)));
            for len in 0..key.len() {
                assert!(decode(&record(&key[..len], None)).is_err());
            }
            for len in 0..value.as_ref().map_or(0, Bytes::len) {
                assert!(decode(&record(&key, value.as_ref().map(|v| v.slice(..len)))).is_err());
            }
        }
    }

    #[test]
    fn records_have_kafkas_bytes() {
        let epoch = GroupRecord::Epoch { group: "g".into(), value: Some((5, 1)) };
        let (key, value) = epoch.encode();
        assert_eq!(&key[..], b"\x00\x03\x00\x01g");
        assert_eq!(&value.unwrap()[..], b"\x00\x00\x00\x00\x00\x05\x01\x00\x08\x00\x00\x00\x00\x00\x00\x00\x01");
        let assigned = BTreeMap::from([(Uuid::from_u128(1), BTreeSet::from([2]))]);
        let since = BTreeMap::from([((Uuid::from_u128(1), 2), 2)]);
        let current = Current { epoch: 2, previous_epoch: 1, assigned, since, ..Current::default() };
        let (key, value) =
            GroupRecord::Current { group: "g".into(), member_id: "m".into(), value: Some(current) }.encode();
        assert_eq!(&key[..], b"\x00\x08\x00\x01g\x00\x01m");
        let mut expected = b"\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01\x00\x02".to_vec();
        expected.extend(Uuid::from_u128(1).as_bytes());
        expected.extend(b"\x02\x00\x00\x00\x02\x01\x00\x05\x02\x00\x00\x00\x02\x01\x00");
        assert_eq!(value.unwrap(), expected);
    }

    #[test]
    fn kinds_of_others_are_skipped() {
        let record = Record { key: Some(Bytes::from_static(b"\x00\x04\x00\x01g")), ..Record::default() };
        assert_eq!(decode(&record), Ok(Kept::Skipped));
    }
}
