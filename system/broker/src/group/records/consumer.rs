//! The values of a consumer group's records (KIP-848), all of version 0.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::Uuid;

use crate::codec::{CodecError, Reader, Writer};
use crate::group::consumer::{Assignment, Current, MemberMetadata, MemberState};
use crate::group::machine::Client;

const VERSION: i16 = 0;
/// ConsumerGroupMetadataValue's tagged field with the hash of the topics (KIP-1101).
const METADATA_HASH: u32 = 0;
/// ConsumerGroupCurrentMemberAssignmentValue's tagged field, one for each topic, with the epochs since when the member has
/// had the partitions (KIP-1251).
const ASSIGNMENT_EPOCHS: u32 = 0;

type Since = BTreeMap<(Uuid, i32), i32>;

fn start() -> Writer {
    let mut w = Writer::new();
    w.i16(VERSION);
    w
}

fn open<'a>(value: &'a [u8], what: &'static str) -> Result<Reader<'a>, CodecError> {
    let mut r = Reader::new(value);
    match r.i16(what)? {
        VERSION => Ok(r),
        version => Err(CodecError::Version { what, version: version.into() }),
    }
}

fn skip_tags(r: &mut Reader<'_>) -> Result<(), CodecError> {
    r.tags("tagged fields", |_, _| Ok(()))
}

pub fn encode_epoch((epoch, hash): (i32, u64)) -> Bytes {
    let mut w = start();
    w.i32(epoch);
    let hash = (hash != 0).then(|| (METADATA_HASH, Bytes::copy_from_slice(&hash.to_be_bytes())));
    w.tags(hash.as_slice());
    w.finish()
}

pub fn decode_epoch(value: &[u8]) -> Result<(i32, u64), CodecError> {
    let mut r = open(value, "ConsumerGroupMetadataValue")?;
    let epoch = r.i32("epoch")?;
    let mut hash = 0;
    r.tags("metadata hash", |tag, mut field| {
        if tag == METADATA_HASH {
            hash = field.i64("metadata hash")? as u64;
        }
        Ok(())
    })?;
    Ok((epoch, hash))
}

pub fn encode_member(m: &MemberMetadata) -> Bytes {
    let mut w = start();
    w.nullable_compact_string(m.instance_id.as_deref());
    w.nullable_compact_string(m.rack_id.as_deref());
    w.compact_string(&m.client.id);
    w.compact_string(&m.client.host);
    w.compact_len(m.topics.len());
    for topic in &m.topics {
        w.compact_string(topic);
    }
    w.nullable_compact_string(None);
    w.i32(m.rebalance_timeout_ms);
    w.nullable_compact_string(m.assignor.as_deref());
    w.no_tags();
    w.finish()
}

pub fn decode_member(value: &[u8]) -> Result<MemberMetadata, CodecError> {
    let mut r = open(value, "ConsumerGroupMemberMetadataValue")?;
    let instance_id = r.compact_string("instance id")?;
    let rack_id = r.compact_string("rack id")?;
    let id = r.compact_string("client id")?.unwrap_or_default();
    let host = r.compact_string("client host")?.unwrap_or_default();
    let mut topics = BTreeSet::new();
    for _ in 0..r.compact_len("topics")?.unwrap_or(0) {
        topics.insert(r.compact_string("topic")?.ok_or(CodecError::Invalid("topic"))?);
    }
    r.compact_string("regular expression")?;
    let rebalance_timeout_ms = r.i32("rebalance timeout")?;
    let assignor = r.compact_string("assignor")?;
    skip_tags(&mut r)?;
    Ok(MemberMetadata { instance_id, rack_id, client: Client { id, host }, topics, rebalance_timeout_ms, assignor })
}

pub fn encode_target_epoch(epoch: i32) -> Bytes {
    let mut w = start();
    w.i32(epoch);
    w.no_tags();
    w.finish()
}

pub fn decode_target_epoch(value: &[u8]) -> Result<i32, CodecError> {
    let mut r = open(value, "ConsumerGroupTargetAssignmentMetadataValue")?;
    let epoch = r.i32("epoch")?;
    skip_tags(&mut r)?;
    Ok(epoch)
}

/// Topics with partitions; with their epochs if all are known.
fn put_assignment(w: &mut Writer, a: &Assignment, since: &Since) {
    w.compact_len(a.len());
    for (topic, partitions) in a {
        w.uuid(*topic);
        w.compact_len(partitions.len());
        for p in partitions {
            w.i32(*p);
        }
        let epochs: Option<Vec<i32>> = partitions.iter().map(|p| since.get(&(*topic, *p)).copied()).collect();
        let epochs = epochs.map(|epochs| {
            let mut field = Writer::new();
            field.compact_len(epochs.len());
            epochs.into_iter().for_each(|e| field.i32(e));
            (ASSIGNMENT_EPOCHS, field.finish())
        });
        w.tags(epochs.as_slice());
    }
}

fn get_assignment(r: &mut Reader<'_>, since: &mut Since) -> Result<Assignment, CodecError> {
    let mut a = Assignment::new();
    for _ in 0..r.compact_len("topics")?.unwrap_or(0) {
        let topic = r.uuid("topic id")?;
        let mut partitions = Vec::new();
        for _ in 0..r.compact_len("partitions")?.unwrap_or(0) {
            partitions.push(r.i32("partition")?);
        }
        r.tags("assignment epochs", |tag, mut field| {
            if tag == ASSIGNMENT_EPOCHS {
                let count = field.compact_len("assignment epochs")?;
                for p in &partitions[..count.unwrap_or(0).min(partitions.len())] {
                    since.insert((topic, *p), field.i32("assignment epoch")?);
                }
            }
            Ok(())
        })?;
        a.insert(topic, BTreeSet::from_iter(partitions));
    }
    Ok(a)
}

pub fn encode_target(a: &Assignment) -> Bytes {
    let mut w = start();
    put_assignment(&mut w, a, &Since::new());
    w.no_tags();
    w.finish()
}

pub fn decode_target(value: &[u8]) -> Result<Assignment, CodecError> {
    let mut r = open(value, "ConsumerGroupTargetAssignmentMemberValue")?;
    let a = get_assignment(&mut r, &mut Since::new())?;
    skip_tags(&mut r)?;
    Ok(a)
}

pub fn encode_current(c: &Current) -> Bytes {
    let mut w = start();
    w.i32(c.epoch);
    w.i32(c.previous_epoch);
    w.i8(c.state as i8);
    put_assignment(&mut w, &c.assigned, &c.since);
    put_assignment(&mut w, &c.pending_revocation, &c.since);
    w.no_tags();
    w.finish()
}

pub fn decode_current(value: &[u8]) -> Result<Current, CodecError> {
    let mut r = open(value, "ConsumerGroupCurrentMemberAssignmentValue")?;
    let epoch = r.i32("epoch")?;
    let previous_epoch = r.i32("previous epoch")?;
    let state = MemberState::from_code(r.i8("state")?).ok_or(CodecError::Invalid("state"))?;
    let mut since = Since::new();
    let assigned = get_assignment(&mut r, &mut since)?;
    let pending_revocation = get_assignment(&mut r, &mut since)?;
    skip_tags(&mut r)?;
    Ok(Current { epoch, previous_epoch, state, assigned, pending_revocation, since })
}
