//! The records of the metadata log, in the format of Kafka's `__cluster_metadata`.
//!
//! A value is a frame version (1), the record's api key and version, all unsigned varints, then the record's fields.
//! One batch is one decision: a crash leaves all of it or nothing. Unknown kinds are refused, since skipping one would
//! replay to another state. How each is written is in `codec`.
//!
//! | record | key | says |
//! |--|--|--|
//! | RegisterBroker | 0 | a broker's incarnation, its broker epoch and end point |
//! | UnregisterBroker | 1 | the broker is no part of the cluster any more |
//! | Topic | 2 | a topic's name and id |
//! | Partition | 3 | all of a new partition's state |
//! | Config | 4 | one setting of a topic |
//! | PartitionChange | 5 | what changed of a partition; the partition epoch rises, with a leader also the leader epoch |
//! | RemoveTopic | 9 | the topic is gone, with its partitions and settings |
//! | ProducerIds | 15 | the first producer id not yet handed to any broker |
//! | BrokerRegistrationChange | 17 | a broker was fenced, unfenced, or began to shut down |
//! | NoOp | 20 | nothing |

use protocol::Uuid;

use super::image::PartitionState;

/// The directory a replica has not been assigned to yet (KIP-858).
pub const UNASSIGNED: Uuid = Uuid::from_u128(0);

/// A broker's registration, with the epoch the controller gave it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RegisterBroker {
    pub broker_id: i32,
    pub incarnation_id: Uuid,
    /// The offset of this record.
    pub broker_epoch: i64,
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
    pub log_dir: Uuid,
}

/// What changed of a partition; `None` is no change.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct PartitionChange {
    pub partition: i32,
    pub topic_id: Uuid,
    pub isr: Option<Vec<i32>>,
    /// -1: it has no leader now.
    pub leader: Option<i32>,
    pub replicas: Option<Vec<i32>>,
    pub removing: Option<Vec<i32>>,
    pub adding: Option<Vec<i32>>,
    pub recovering: Option<bool>,
    pub elr: Option<Vec<i32>>,
    pub last_known_elr: Option<Vec<i32>>,
    pub directories: Option<Vec<Uuid>>,
}

impl PartitionChange {
    /// No change of this partition.
    pub fn of(topic_id: Uuid, partition: i32) -> Self {
        Self { partition, topic_id, ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::of(self.topic_id, self.partition)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum MetadataRecord {
    RegisterBroker(RegisterBroker),
    UnregisterBroker {
        broker_id: i32,
        broker_epoch: i64,
    },
    Topic {
        name: String,
        topic_id: Uuid,
    },
    Partition {
        partition: i32,
        topic_id: Uuid,
        state: PartitionState,
    },
    Config {
        topic: String,
        name: String,
        value: Option<String>,
    },
    PartitionChange(PartitionChange),
    RemoveTopic {
        topic_id: Uuid,
    },
    ProducerIds {
        broker_id: i32,
        broker_epoch: i64,
        next_producer_id: i64,
    },
    /// `fenced`: `None` is no change.
    BrokerRegistrationChange {
        broker_id: i32,
        broker_epoch: i64,
        fenced: Option<bool>,
        in_controlled_shutdown: bool,
    },
    NoOp,
}
