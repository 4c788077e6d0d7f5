//! The records of the metadata log, in the format of Kafka's `__cluster_metadata`.
//!
//! A value is a frame version (1), the record's api key and version, all unsigned varints, then the record's fields.
//! One batch is one decision: a crash leaves all of it or nothing. The subset here is what one broker with topics and
//! producers needs; unknown kinds are refused, since skipping one would replay to another state.
//!
//! | record | key | says |
//! |--|--|--|
//! | RegisterBroker | 0 | a broker's incarnation, its broker epoch and end point |
//! | Topic | 2 | a topic's name and id |
//! | Partition | 3 | replicas, in-sync set, leader and epochs of a new partition |
//! | Config | 4 | one setting of a topic |
//! | PartitionChange | 5 | what changed of a partition; the partition epoch rises, with a leader also the leader epoch |
//! | ProducerIds | 15 | the first producer id not yet handed to any broker |

use bytes::Bytes;
use protocol::Uuid;

use crate::codec::{CodecError, Reader, Writer};

const FRAME_VERSION: u32 = 1;
const REGISTER_BROKER: u32 = 0;
const TOPIC: u32 = 2;
const PARTITION: u32 = 3;
const CONFIG: u32 = 4;
const PARTITION_CHANGE: u32 = 5;
const PRODUCER_IDS: u32 = 15;

/// Kafka's number for topics in ConfigRecord.
const TOPIC_RESOURCE: i8 = 2;

/// The directory a replica has not been assigned to yet (KIP-858).
pub const UNASSIGNED: Uuid = Uuid::from_u128(0);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum MetadataRecord {
    RegisterBroker {
        broker_id: i32,
        incarnation_id: Uuid,
        broker_epoch: i64,
        host: String,
        port: u16,
        log_dir: Uuid,
    },
    Topic {
        name: String,
        topic_id: Uuid,
    },
    Partition {
        partition: i32,
        topic_id: Uuid,
        replicas: Vec<i32>,
        isr: Vec<i32>,
        leader: i32,
        leader_epoch: i32,
        partition_epoch: i32,
        /// One per replica: where it keeps the partition, or [`UNASSIGNED`].
        directories: Vec<Uuid>,
    },
    Config {
        topic: String,
        name: String,
        value: Option<String>,
    },
    PartitionChange {
        partition: i32,
        topic_id: Uuid,
        isr: Option<Vec<i32>>,
        leader: Option<i32>,
        directories: Option<Vec<Uuid>>,
    },
    ProducerIds {
        broker_id: i32,
        broker_epoch: i64,
        next_producer_id: i64,
    },
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

fn tagged(put: impl FnOnce(&mut Writer)) -> Bytes {
    let mut w = Writer::new();
    put(&mut w);
    w.finish()
}

impl MetadataRecord {
    /// The record's value in the log.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.uvarint(FRAME_VERSION);
        match self {
            Self::RegisterBroker { broker_id, incarnation_id, broker_epoch, host, port, log_dir } => {
                w.uvarint(REGISTER_BROKER);
                w.uvarint(3);
                w.i32(*broker_id);
                w.i8(0); // migrating from ZooKeeper
                w.uuid(*incarnation_id);
                w.i64(*broker_epoch);
                w.compact_len(1);
                w.compact_string("PLAINTEXT");
                w.compact_string(host);
                w.u16(*port);
                w.i16(0);
                w.no_tags();
                w.compact_len(0); // features
                w.uvarint(0); // rack: null
                w.i8(0); // fenced
                w.i8(0); // in controlled shutdown
                w.tags(&[(0, tagged(|w| put_uuids(w, &[*log_dir])))]);
            }
            Self::Topic { name, topic_id } => {
                w.uvarint(TOPIC);
                w.uvarint(0);
                w.compact_string(name);
                w.uuid(*topic_id);
                w.no_tags();
            }
            Self::Partition {
                partition,
                topic_id,
                replicas,
                isr,
                leader,
                leader_epoch,
                partition_epoch,
                directories,
            } => {
                w.uvarint(PARTITION);
                w.uvarint(1);
                w.i32(*partition);
                w.uuid(*topic_id);
                put_i32s(&mut w, replicas);
                put_i32s(&mut w, isr);
                w.compact_len(0); // removing
                w.compact_len(0); // adding
                w.i32(*leader);
                w.i32(*leader_epoch);
                w.i32(*partition_epoch);
                put_uuids(&mut w, directories);
                w.no_tags();
            }
            Self::Config { topic, name, value } => {
                w.uvarint(CONFIG);
                w.uvarint(0);
                w.i8(TOPIC_RESOURCE);
                w.compact_string(topic);
                w.compact_string(name);
                match value {
                    Some(v) => w.compact_string(v),
                    None => w.uvarint(0),
                }
                w.no_tags();
            }
            Self::PartitionChange { partition, topic_id, isr, leader, directories } => {
                w.uvarint(PARTITION_CHANGE);
                w.uvarint(2);
                w.i32(*partition);
                w.uuid(*topic_id);
                let mut tags = Vec::new();
                if let Some(isr) = isr {
                    tags.push((0, tagged(|w| put_i32s(w, isr))));
                }
                if let Some(leader) = leader {
                    tags.push((1, tagged(|w| w.i32(*leader))));
                }
                if let Some(directories) = directories {
                    tags.push((8, tagged(|w| put_uuids(w, directories))));
                }
                w.tags(&tags);
            }
            Self::ProducerIds { broker_id, broker_epoch, next_producer_id } => {
                w.uvarint(PRODUCER_IDS);
                w.uvarint(0);
                w.i32(*broker_id);
                w.i64(*broker_epoch);
                w.i64(*next_producer_id);
                w.no_tags();
            }
        }
        w.finish()
    }

    pub fn decode(value: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(value);
        let frame = r.uvarint("frame version")?;
        if frame != FRAME_VERSION {
            return Err(CodecError::Version { what: "metadata frame", version: frame as i32 });
        }
        let (key, version) = (r.uvarint("api key")?, r.uvarint("record version")?);
        let known = |what, expected| {
            if version == expected { Ok(()) } else { Err(CodecError::Version { what, version: version as i32 }) }
        };
        let record = match key {
            REGISTER_BROKER => {
                known("RegisterBrokerRecord", 3)?;
                let broker_id = r.i32("broker id")?;
                r.i8("migrating")?;
                let incarnation_id = r.uuid("incarnation id")?;
                let broker_epoch = r.i64("broker epoch")?;
                if r.compact_len("end points")? != Some(1) {
                    return Err(CodecError::Invalid("end points"));
                }
                r.compact_string("end point name")?;
                let host = r.compact_string("host")?.ok_or(CodecError::Invalid("host"))?;
                let port = r.u16("port")?;
                r.i16("security protocol")?;
                r.tags("end point", |_, _| Ok(()))?;
                if r.compact_len("features")? != Some(0) {
                    return Err(CodecError::Invalid("features"));
                }
                r.compact_string("rack")?;
                r.i8("fenced")?;
                r.i8("in controlled shutdown")?;
                let mut log_dir = UNASSIGNED;
                r.tags("RegisterBrokerRecord", |tag, mut field| {
                    if tag == 0 {
                        log_dir = *get_uuids(&mut field, "log dirs")?.first().ok_or(CodecError::Invalid("log dirs"))?;
                    }
                    Ok(())
                })?;
                Self::RegisterBroker { broker_id, incarnation_id, broker_epoch, host, port, log_dir }
            }
            TOPIC => {
                known("TopicRecord", 0)?;
                let name = r.compact_string("topic")?.ok_or(CodecError::Invalid("topic"))?;
                let topic_id = r.uuid("topic id")?;
                r.tags("TopicRecord", |_, _| Ok(()))?;
                Self::Topic { name, topic_id }
            }
            PARTITION => {
                known("PartitionRecord", 1)?;
                let (partition, topic_id) = (r.i32("partition")?, r.uuid("topic id")?);
                let (replicas, isr) = (get_i32s(&mut r, "replicas")?, get_i32s(&mut r, "isr")?);
                get_i32s(&mut r, "removing replicas")?;
                get_i32s(&mut r, "adding replicas")?;
                let (leader, leader_epoch) = (r.i32("leader")?, r.i32("leader epoch")?);
                let partition_epoch = r.i32("partition epoch")?;
                let directories = get_uuids(&mut r, "directories")?;
                r.tags("PartitionRecord", |_, _| Ok(()))?;
                Self::Partition {
                    partition,
                    topic_id,
                    replicas,
                    isr,
                    leader,
                    leader_epoch,
                    partition_epoch,
                    directories,
                }
            }
            CONFIG => {
                known("ConfigRecord", 0)?;
                if r.i8("resource type")? != TOPIC_RESOURCE {
                    return Err(CodecError::Invalid("resource type"));
                }
                let topic = r.compact_string("resource")?.ok_or(CodecError::Invalid("resource"))?;
                let name = r.compact_string("name")?.ok_or(CodecError::Invalid("name"))?;
                let value = r.compact_string("value")?;
                r.tags("ConfigRecord", |_, _| Ok(()))?;
                Self::Config { topic, name, value }
            }
            PARTITION_CHANGE => {
                known("PartitionChangeRecord", 2)?;
                let (partition, topic_id) = (r.i32("partition")?, r.uuid("topic id")?);
                let (mut isr, mut leader, mut directories) = (None, None, None);
                r.tags("PartitionChangeRecord", |tag, mut field| {
                    match tag {
                        0 => isr = Some(get_i32s(&mut field, "isr")?),
                        1 => leader = Some(field.i32("leader")?),
                        8 => directories = Some(get_uuids(&mut field, "directories")?),
                        _ => return Err(CodecError::Invalid("PartitionChangeRecord")),
                    }
                    Ok(())
                })?;
                Self::PartitionChange { partition, topic_id, isr, leader, directories }
            }
            PRODUCER_IDS => {
                known("ProducerIdsRecord", 0)?;
                let broker_id = r.i32("broker id")?;
                let broker_epoch = r.i64("broker epoch")?;
                let next_producer_id = r.i64("next producer id")?;
                r.tags("ProducerIdsRecord", |_, _| Ok(()))?;
                Self::ProducerIds { broker_id, broker_epoch, next_producer_id }
            }
            _ => return Err(CodecError::Version { what: "metadata record kind", version: key as i32 }),
        };
        if r.is_empty() { Ok(record) } else { Err(CodecError::Invalid("bytes after the record")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<MetadataRecord> {
        let id = Uuid::from_u128(7);
        vec![
            MetadataRecord::RegisterBroker {
                broker_id: 1,
                incarnation_id: id,
                broker_epoch: 12,
                host: "localhost".into(),
                port: 65_000,
                log_dir: Uuid::from_u128(9),
            },
            MetadataRecord::Topic { name: "t".into(), topic_id: id },
            MetadataRecord::Partition {
                partition: 3,
                topic_id: id,
                replicas: vec![1, 2, 3],
                isr: vec![1],
                leader: 1,
                leader_epoch: 4,
                partition_epoch: 5,
                directories: vec![UNASSIGNED],
            },
            MetadataRecord::Config { topic: "t".into(), name: "segment.bytes".into(), value: Some("1024".into()) },
            MetadataRecord::PartitionChange {
                partition: 3,
                topic_id: id,
                isr: Some(vec![1]),
                leader: Some(1),
                directories: Some(vec![id]),
            },
            MetadataRecord::PartitionChange {
                partition: 3,
                topic_id: id,
                isr: None,
                leader: Some(-1),
                directories: None,
            },
            MetadataRecord::ProducerIds { broker_id: 1, broker_epoch: 12, next_producer_id: 2000 },
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
}
