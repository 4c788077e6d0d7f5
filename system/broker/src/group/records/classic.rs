//! GroupMetadataValue, versions 0 to 3; version 3 is written, as Kafka does.

use bytes::Bytes;

use crate::codec::{CodecError, Reader, Writer};
use crate::group::machine::Client;

const VERSION: i16 = 3;

/// A classic group as the log has it: empty, or stable.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StoredClassic {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// -1 if unknown.
    pub state_timestamp_ms: i64,
    pub members: Vec<StoredMember>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StoredMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client: Client,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

pub fn encode(group: &StoredClassic) -> Bytes {
    let mut w = Writer::new();
    w.i16(VERSION);
    w.string(&group.protocol_type);
    w.i32(group.generation);
    w.nullable_string(group.protocol.as_deref());
    w.nullable_string(group.leader.as_deref());
    w.i64(group.state_timestamp_ms);
    w.len(group.members.len());
    for m in &group.members {
        w.string(&m.member_id);
        w.nullable_string(m.instance_id.as_deref());
        w.string(&m.client.id);
        w.string(&m.client.host);
        w.i32(m.rebalance_timeout_ms);
        w.i32(m.session_timeout_ms);
        w.bytes(&m.subscription);
        w.bytes(&m.assignment);
    }
    w.finish()
}

pub fn decode(value: &[u8]) -> Result<StoredClassic, CodecError> {
    let mut r = Reader::new(value);
    let version = r.i16("GroupMetadataValue version")?;
    if !(0..=VERSION).contains(&version) {
        return Err(CodecError::Version { what: "GroupMetadataValue", version: version.into() });
    }
    let protocol_type = r.string("protocol type")?;
    let generation = r.i32("generation")?;
    let protocol = r.nullable_string("protocol")?;
    let leader = r.nullable_string("leader")?;
    let state_timestamp_ms = if version >= 2 { r.i64("state timestamp")? } else { -1 };
    let count = r.len("members")?;
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        let member_id = r.string("member id")?;
        let instance_id = if version >= 3 { r.nullable_string("instance id")? } else { None };
        let client = Client { id: r.string("client id")?, host: r.string("client host")? };
        let rebalance = if version >= 1 { Some(r.i32("rebalance timeout")?) } else { None };
        let session_timeout_ms = r.i32("session timeout")?;
        members.push(StoredMember {
            member_id,
            instance_id,
            client,
            rebalance_timeout_ms: rebalance.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            subscription: r.bytes("subscription")?,
            assignment: r.bytes("assignment")?,
        });
    }
    Ok(StoredClassic { protocol_type, generation, protocol, leader, state_timestamp_ms, members })
}
