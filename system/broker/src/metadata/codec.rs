//! How the records of the metadata log are written: Kafka's own layouts.
//!
//! | record | version written | also read |
//! |--|--|--|
//! | RegisterBroker | 3 | |
//! | Partition | 2 (with the ELR of KIP-966) | 1 |
//! | PartitionChange | 2 | |
//! | BrokerRegistrationChange | 2 | |
//! | all others | 0 | |

use bytes::Bytes;
use protocol::Uuid;

use super::image::PartitionState;
use super::records::{MetadataRecord, PartitionChange, RegisterBroker, UNASSIGNED};
use crate::codec::{CodecError, Reader, Writer};

const FRAME_VERSION: u32 = 1;
const REGISTER_BROKER: u32 = 0;
const UNREGISTER_BROKER: u32 = 1;
const TOPIC: u32 = 2;
const PARTITION: u32 = 3;
const CONFIG: u32 = 4;
const PARTITION_CHANGE: u32 = 5;
const REMOVE_TOPIC: u32 = 9;
const PRODUCER_IDS: u32 = 15;
const BROKER_REGISTRATION_CHANGE: u32 = 17;
const NO_OP: u32 = 20;

/// Kafka's number for topics in ConfigRecord.
const TOPIC_RESOURCE: i8 = 2;

/// Tags of PartitionRecord.
mod partition_tag {
    pub const RECOVERING: u32 = 0;
    pub const ELR: u32 = 1;
    pub const LAST_KNOWN_ELR: u32 = 2;
}

/// Tags of PartitionChangeRecord.
mod change_tag {
    pub const ISR: u32 = 0;
    pub const LEADER: u32 = 1;
    pub const REPLICAS: u32 = 2;
    pub const REMOVING: u32 = 3;
    pub const ADDING: u32 = 4;
    pub const RECOVERING: u32 = 5;
    pub const ELR: u32 = 6;
    pub const LAST_KNOWN_ELR: u32 = 7;
    pub const DIRECTORIES: u32 = 8;
}

/// Tags of BrokerRegistrationChangeRecord.
mod registration_tag {
    pub const FENCED: u32 = 0;
    pub const IN_CONTROLLED_SHUTDOWN: u32 = 1;
}

fn put_i32s(w: &mut Writer, values: &[i32]) {
    w.compact_len(values.len());
    values.iter().for_each(|v| w.i32(*v));
}

fn get_i32s(r: &mut Reader<'_>, what: &'static str) -> Result<Vec<i32>, CodecError> {
    let n = r.compact_len(what)?.unwrap_or(0);
    (0..n).map(|_| r.i32(what)).collect()
}

fn put_uuids(w: &mut Writer, values: &[Uuid]) {
    w.compact_len(values.len());
    values.iter().for_each(|v| w.uuid(*v));
}

fn get_uuids(r: &mut Reader<'_>, what: &'static str) -> Result<Vec<Uuid>, CodecError> {
    let n = r.compact_len(what)?.unwrap_or(0);
    (0..n).map(|_| r.uuid(what)).collect()
}

fn get_bool(r: &mut Reader<'_>, what: &'static str) -> Result<bool, CodecError> {
    match r.i8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CodecError::Invalid(what)),
    }
}

fn get_text(r: &mut Reader<'_>, what: &'static str) -> Result<String, CodecError> {
    r.compact_string(what)?.ok_or(CodecError::Invalid(what))
}

fn put_nullable(w: &mut Writer, value: Option<&str>) {
    match value {
        Some(v) => w.compact_string(v),
        None => w.uvarint(0),
    }
}

fn field(put: impl FnOnce(&mut Writer)) -> Bytes {
    let mut w = Writer::new();
    put(&mut w);
    w.finish()
}

fn i32s(values: &[i32]) -> Bytes {
    field(|w| put_i32s(w, values))
}

impl MetadataRecord {
    /// The record's value in the log.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.uvarint(FRAME_VERSION);
        match self {
            Self::RegisterBroker(r) => {
                w.uvarint(REGISTER_BROKER);
                w.uvarint(3);
                put_register_broker(&mut w, r);
            }
            Self::UnregisterBroker { broker_id, broker_epoch } => {
                w.uvarint(UNREGISTER_BROKER);
                w.uvarint(0);
                w.i32(*broker_id);
                w.i64(*broker_epoch);
                w.no_tags();
            }
            Self::Topic { name, topic_id } => {
                w.uvarint(TOPIC);
                w.uvarint(0);
                w.compact_string(name);
                w.uuid(*topic_id);
                w.no_tags();
            }
            Self::Partition { partition, topic_id, state } => {
                w.uvarint(PARTITION);
                w.uvarint(2);
                put_partition(&mut w, *partition, *topic_id, state);
            }
            Self::Config { topic, name, value } => {
                w.uvarint(CONFIG);
                w.uvarint(0);
                w.i8(TOPIC_RESOURCE);
                w.compact_string(topic);
                w.compact_string(name);
                put_nullable(&mut w, value.as_deref());
                w.no_tags();
            }
            Self::PartitionChange(change) => {
                w.uvarint(PARTITION_CHANGE);
                w.uvarint(2);
                put_partition_change(&mut w, change);
            }
            Self::RemoveTopic { topic_id } => {
                w.uvarint(REMOVE_TOPIC);
                w.uvarint(0);
                w.uuid(*topic_id);
                w.no_tags();
            }
            Self::ProducerIds { broker_id, broker_epoch, next_producer_id } => {
                w.uvarint(PRODUCER_IDS);
                w.uvarint(0);
                w.i32(*broker_id);
                w.i64(*broker_epoch);
                w.i64(*next_producer_id);
                w.no_tags();
            }
            Self::BrokerRegistrationChange { broker_id, broker_epoch, fenced, in_controlled_shutdown } => {
                w.uvarint(BROKER_REGISTRATION_CHANGE);
                w.uvarint(2);
                w.i32(*broker_id);
                w.i64(*broker_epoch);
                let mut tags = Vec::new();
                if let Some(fenced) = fenced {
                    tags.push((registration_tag::FENCED, field(|w| w.i8(if *fenced { 1 } else { -1 }))));
                }
                if *in_controlled_shutdown {
                    tags.push((registration_tag::IN_CONTROLLED_SHUTDOWN, field(|w| w.i8(1))));
                }
                w.tags(&tags);
            }
            Self::NoOp => {
                w.uvarint(NO_OP);
                w.uvarint(0);
                w.no_tags();
            }
        }
        w.finish()
    }

    pub fn decode(value: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(value);
        let r = &mut reader;
        let frame = r.uvarint("frame version")?;
        if frame != FRAME_VERSION {
            return Err(CodecError::Version { what: "metadata frame", version: frame as i32 });
        }
        let (key, version) = (r.uvarint("api key")?, r.uvarint("record version")?);
        let known = |what, versions: &[u32]| {
            if versions.contains(&version) {
                Ok(())
            } else {
                Err(CodecError::Version { what, version: version as i32 })
            }
        };
        let record = match key {
            REGISTER_BROKER => {
                known("RegisterBrokerRecord", &[3])?;
                Self::RegisterBroker(get_register_broker(r)?)
            }
            UNREGISTER_BROKER => {
                known("UnregisterBrokerRecord", &[0])?;
                let (broker_id, broker_epoch) = (r.i32("broker id")?, r.i64("broker epoch")?);
                r.tags("UnregisterBrokerRecord", |_, _| Ok(()))?;
                Self::UnregisterBroker { broker_id, broker_epoch }
            }
            TOPIC => {
                known("TopicRecord", &[0])?;
                let (name, topic_id) = (get_text(r, "topic")?, r.uuid("topic id")?);
                r.tags("TopicRecord", |_, _| Ok(()))?;
                Self::Topic { name, topic_id }
            }
            PARTITION => {
                known("PartitionRecord", &[1, 2])?;
                get_partition(r)?
            }
            CONFIG => {
                known("ConfigRecord", &[0])?;
                if r.i8("resource type")? != TOPIC_RESOURCE {
                    return Err(CodecError::Invalid("resource type"));
                }
                let (topic, name) = (get_text(r, "resource")?, get_text(r, "name")?);
                let value = r.compact_string("value")?;
                r.tags("ConfigRecord", |_, _| Ok(()))?;
                Self::Config { topic, name, value }
            }
            PARTITION_CHANGE => {
                known("PartitionChangeRecord", &[2])?;
                Self::PartitionChange(get_partition_change(r)?)
            }
            REMOVE_TOPIC => {
                known("RemoveTopicRecord", &[0])?;
                let topic_id = r.uuid("topic id")?;
                r.tags("RemoveTopicRecord", |_, _| Ok(()))?;
                Self::RemoveTopic { topic_id }
            }
            PRODUCER_IDS => {
                known("ProducerIdsRecord", &[0])?;
                let (broker_id, broker_epoch) = (r.i32("broker id")?, r.i64("broker epoch")?);
                let next_producer_id = r.i64("next producer id")?;
                r.tags("ProducerIdsRecord", |_, _| Ok(()))?;
                Self::ProducerIds { broker_id, broker_epoch, next_producer_id }
            }
            BROKER_REGISTRATION_CHANGE => {
                known("BrokerRegistrationChangeRecord", &[2])?;
                get_registration_change(r)?
            }
            NO_OP => {
                known("NoOpRecord", &[0])?;
                r.tags("NoOpRecord", |_, _| Ok(()))?;
                Self::NoOp
            }
            _ => return Err(CodecError::Version { what: "metadata record kind", version: key as i32 }),
        };
        if reader.is_empty() { Ok(record) } else { Err(CodecError::Invalid("bytes after the record")) }
    }
}

fn put_register_broker(w: &mut Writer, r: &RegisterBroker) {
    w.i32(r.broker_id);
    w.i8(0); // migrating from ZooKeeper
    w.uuid(r.incarnation_id);
    w.i64(r.broker_epoch);
    w.compact_len(1);
    w.compact_string("PLAINTEXT");
    w.compact_string(&r.host);
    w.u16(r.port);
    w.i16(0);
    w.no_tags();
    w.compact_len(0); // features
    put_nullable(w, r.rack.as_deref());
    w.i8(r.fenced.into());
    w.i8(r.in_controlled_shutdown.into());
    w.tags(&[(0, field(|w| put_uuids(w, &[r.log_dir])))]);
}

fn get_register_broker(r: &mut Reader<'_>) -> Result<RegisterBroker, CodecError> {
    let broker_id = r.i32("broker id")?;
    r.i8("migrating")?;
    let (incarnation_id, broker_epoch) = (r.uuid("incarnation id")?, r.i64("broker epoch")?);
    if r.compact_len("end points")? != Some(1) {
        return Err(CodecError::Invalid("end points"));
    }
    get_text(r, "end point name")?;
    let (host, port) = (get_text(r, "host")?, r.u16("port")?);
    r.i16("security protocol")?;
    r.tags("end point", |_, _| Ok(()))?;
    if r.compact_len("features")? != Some(0) {
        return Err(CodecError::Invalid("features"));
    }
    let rack = r.compact_string("rack")?;
    let (fenced, in_controlled_shutdown) = (get_bool(r, "fenced")?, get_bool(r, "in controlled shutdown")?);
    let mut log_dir = UNASSIGNED;
    r.tags("RegisterBrokerRecord", |tag, mut field| {
        if tag == 0 {
            log_dir = *get_uuids(&mut field, "log dirs")?.first().ok_or(CodecError::Invalid("log dirs"))?;
        }
        Ok(())
    })?;
    Ok(RegisterBroker {
        broker_id,
        incarnation_id,
        broker_epoch,
        host,
        port,
        rack,
        fenced,
        in_controlled_shutdown,
        log_dir,
    })
}

fn put_partition(w: &mut Writer, partition: i32, topic_id: Uuid, state: &PartitionState) {
    w.i32(partition);
    w.uuid(topic_id);
    put_i32s(w, &state.replicas);
    put_i32s(w, &state.isr);
    put_i32s(w, &state.removing);
    put_i32s(w, &state.adding);
    w.i32(state.leader);
    w.i32(state.leader_epoch);
    w.i32(state.partition_epoch);
    put_uuids(w, &state.directories);
    let mut tags = Vec::new();
    if state.recovering {
        tags.push((partition_tag::RECOVERING, field(|w| w.i8(1))));
    }
    if !state.elr.is_empty() {
        tags.push((partition_tag::ELR, i32s(&state.elr)));
    }
    if !state.last_known_elr.is_empty() {
        tags.push((partition_tag::LAST_KNOWN_ELR, i32s(&state.last_known_elr)));
    }
    w.tags(&tags);
}

fn get_partition(r: &mut Reader<'_>) -> Result<MetadataRecord, CodecError> {
    let (partition, topic_id) = (r.i32("partition")?, r.uuid("topic id")?);
    let mut state = PartitionState {
        replicas: get_i32s(r, "replicas")?,
        isr: get_i32s(r, "isr")?,
        removing: get_i32s(r, "removing replicas")?,
        adding: get_i32s(r, "adding replicas")?,
        leader: r.i32("leader")?,
        leader_epoch: r.i32("leader epoch")?,
        partition_epoch: r.i32("partition epoch")?,
        directories: get_uuids(r, "directories")?,
        recovering: false,
        elr: Vec::new(),
        last_known_elr: Vec::new(),
    };
    r.tags("PartitionRecord", |tag, mut field| {
        match tag {
            partition_tag::RECOVERING => state.recovering = get_bool(&mut field, "recovering")?,
            partition_tag::ELR => state.elr = get_i32s(&mut field, "elr")?,
            partition_tag::LAST_KNOWN_ELR => state.last_known_elr = get_i32s(&mut field, "last known elr")?,
            _ => return Err(CodecError::Invalid("PartitionRecord")),
        }
        Ok(())
    })?;
    Ok(MetadataRecord::Partition { partition, topic_id, state })
}

fn put_partition_change(w: &mut Writer, change: &PartitionChange) {
    w.i32(change.partition);
    w.uuid(change.topic_id);
    let tags = [
        (change_tag::ISR, change.isr.as_deref().map(i32s)),
        (change_tag::LEADER, change.leader.map(|leader| field(|w| w.i32(leader)))),
        (change_tag::REPLICAS, change.replicas.as_deref().map(i32s)),
        (change_tag::REMOVING, change.removing.as_deref().map(i32s)),
        (change_tag::ADDING, change.adding.as_deref().map(i32s)),
        (change_tag::RECOVERING, change.recovering.map(|r| field(|w| w.i8(r.into())))),
        (change_tag::ELR, change.elr.as_deref().map(i32s)),
        (change_tag::LAST_KNOWN_ELR, change.last_known_elr.as_deref().map(i32s)),
        (change_tag::DIRECTORIES, change.directories.as_deref().map(|d| field(|w| put_uuids(w, d)))),
    ];
    let set: Vec<(u32, Bytes)> = tags.into_iter().filter_map(|(tag, bytes)| Some((tag, bytes?))).collect();
    w.tags(&set);
}

fn get_partition_change(r: &mut Reader<'_>) -> Result<PartitionChange, CodecError> {
    let (partition, topic_id) = (r.i32("partition")?, r.uuid("topic id")?);
    let mut change = PartitionChange::of(topic_id, partition);
    r.tags("PartitionChangeRecord", |tag, mut field| {
        let f = &mut field;
        match tag {
            change_tag::ISR => change.isr = Some(get_i32s(f, "isr")?),
            change_tag::LEADER => change.leader = Some(f.i32("leader")?),
            change_tag::REPLICAS => change.replicas = Some(get_i32s(f, "replicas")?),
            change_tag::REMOVING => change.removing = Some(get_i32s(f, "removing")?),
            change_tag::ADDING => change.adding = Some(get_i32s(f, "adding")?),
            change_tag::RECOVERING => change.recovering = Some(get_bool(f, "recovering")?),
            change_tag::ELR => change.elr = Some(get_i32s(f, "elr")?),
            change_tag::LAST_KNOWN_ELR => change.last_known_elr = Some(get_i32s(f, "last known elr")?),
            change_tag::DIRECTORIES => change.directories = Some(get_uuids(f, "directories")?),
            _ => return Err(CodecError::Invalid("PartitionChangeRecord")),
        }
        Ok(())
    })?;
    Ok(change)
}

fn get_registration_change(r: &mut Reader<'_>) -> Result<MetadataRecord, CodecError> {
    let (broker_id, broker_epoch) = (r.i32("broker id")?, r.i64("broker epoch")?);
    let (mut fenced, mut in_controlled_shutdown) = (None, false);
    r.tags("BrokerRegistrationChangeRecord", |tag, mut field| {
        match tag {
            registration_tag::FENCED => {
                fenced = match field.i8("fenced")? {
                    -1 => Some(false),
                    0 => None,
                    1 => Some(true),
                    _ => return Err(CodecError::Invalid("fenced")),
                };
            }
            registration_tag::IN_CONTROLLED_SHUTDOWN => {
                in_controlled_shutdown = get_bool(&mut field, "in controlled shutdown")?;
            }
            _ => return Err(CodecError::Invalid("BrokerRegistrationChangeRecord")),
        }
        Ok(())
    })?;
    Ok(MetadataRecord::BrokerRegistrationChange { broker_id, broker_epoch, fenced, in_controlled_shutdown })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<MetadataRecord> {
        let id = Uuid::from_u128(7);
        let state = PartitionState {
            replicas: vec![1, 2, 3],
            isr: vec![1],
            leader: 1,
            leader_epoch: 4,
            partition_epoch: 5,
            directories: vec![UNASSIGNED, id, UNASSIGNED],
            removing: vec![3],
            adding: vec![2],
            recovering: true,
            elr: vec![2],
            last_known_elr: vec![3],
        };
        let register = RegisterBroker {
            broker_id: 1,
            incarnation_id: id,
            broker_epoch: 12,
            host: "localhost".into(),
            port: 65_000,
            rack: Some("a".into()),
            fenced: true,
            in_controlled_shutdown: false,
            log_dir: Uuid::from_u128(9),
        };
        let plain = PartitionState {
            removing: Vec::new(),
            adding: Vec::new(),
            recovering: false,
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            ..state.clone()
        };
        vec![
            MetadataRecord::RegisterBroker(RegisterBroker { rack: None, fenced: false, ..register.clone() }),
            MetadataRecord::RegisterBroker(register),
            MetadataRecord::UnregisterBroker { broker_id: 1, broker_epoch: 12 },
            MetadataRecord::Topic { name: "t".into(), topic_id: id },
            MetadataRecord::Partition { partition: 3, topic_id: id, state },
            MetadataRecord::Partition { partition: 4, topic_id: id, state: plain },
            MetadataRecord::Config { topic: "t".into(), name: "segment.bytes".into(), value: Some("1024".into()) },
            MetadataRecord::Config { topic: "t".into(), name: "segment.bytes".into(), value: None },
            MetadataRecord::PartitionChange(PartitionChange {
                isr: Some(vec![1]),
                leader: Some(1),
                replicas: Some(vec![1, 2]),
                removing: Some(vec![]),
                adding: Some(vec![2]),
                recovering: Some(false),
                elr: Some(vec![]),
                last_known_elr: Some(vec![3]),
                directories: Some(vec![id]),
                ..PartitionChange::of(id, 3)
            }),
            MetadataRecord::PartitionChange(PartitionChange { leader: Some(-1), ..PartitionChange::of(id, 3) }),
            MetadataRecord::RemoveTopic { topic_id: id },
            MetadataRecord::ProducerIds { broker_id: 1, broker_epoch: 12, next_producer_id: 2000 },
            MetadataRecord::BrokerRegistrationChange {
                broker_id: 1,
                broker_epoch: 12,
                fenced: Some(false),
                in_controlled_shutdown: true,
            },
            MetadataRecord::BrokerRegistrationChange {
                broker_id: 1,
                broker_epoch: 12,
                fenced: None,
                in_controlled_shutdown: false,
            },
            MetadataRecord::NoOp,
        ]
    }

    #[test]
    fn records_round_trip() {
        for record in samples() {
            assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn every_cut_is_an_error_and_never_a_panic() {
        for record in samples() {
            let bytes = record.encode();
            for len in 0..bytes.len() {
                assert!(MetadataRecord::decode(&bytes[..len]).is_err(), "{record:?} cut at {len}");
            }
        }
    }

    #[test]
    fn a_topic_record_has_kafkas_bytes() {
        let bytes = MetadataRecord::Topic { name: "foo".into(), topic_id: Uuid::from_u128(1) }.encode();
        assert_eq!(&bytes[..], b"\x01\x02\x00\x04foo\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00");
    }

    #[test]
    fn a_partition_of_the_first_release_is_read() {
        let mut w = Writer::new();
        w.uvarint(FRAME_VERSION);
        w.uvarint(PARTITION);
        w.uvarint(1);
        w.i32(3);
        w.uuid(Uuid::from_u128(7));
        put_i32s(&mut w, &[1]);
        put_i32s(&mut w, &[1]);
        w.compact_len(0);
        w.compact_len(0);
        w.i32(1);
        w.i32(0);
        w.i32(0);
        put_uuids(&mut w, &[UNASSIGNED]);
        w.no_tags();
        let Ok(MetadataRecord::Partition { state, .. }) = MetadataRecord::decode(&w.finish()) else { panic!() };
        assert_eq!((state.replicas, state.isr, state.leader), (vec![1], vec![1], 1));
        assert!(!state.recovering && state.elr.is_empty() && state.last_known_elr.is_empty());
    }
}
