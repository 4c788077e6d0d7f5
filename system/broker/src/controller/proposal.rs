//! What can be asked of the controller, and what it answers.

use std::collections::BTreeMap;

use protocol::{ErrorCode, Uuid};

/// Names a proposal until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProposalId(pub u64);

/// Why one item of a request was refused, for whoever reads the answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{error}: {message}")]
pub struct Refusal {
    pub error: ErrorCode,
    pub message: String,
}

impl Refusal {
    pub fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Self {
        Self::new(error, "")
    }
}

/// A process of a broker has started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registration {
    pub broker_id: i32,
    /// Drawn anew by each process.
    pub incarnation_id: Uuid,
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
    /// The id of its data directory; another one than before means that the broker lost its disk.
    pub log_dir: Uuid,
    /// The epoch of the incarnation this one follows, if nothing that was promised can have been lost in between; -1 if
    /// it may (KIP-966).
    pub previous_broker_epoch: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    pub broker_id: i32,
    pub broker_epoch: i64,
    /// The last record of the metadata log that the broker acts by; -1 before the first.
    pub metadata_offset: i64,
    /// It does not want to lead or to be in sync, yet or any more.
    pub want_fence: bool,
    /// It wants to stop: its leaderships should move.
    pub want_shut_down: bool,
}

/// What a heartbeat is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeartbeatReply {
    /// The broker acts by its own registration, so it may be unfenced.
    pub is_caught_up: bool,
    pub is_fenced: bool,
    /// It leads nothing any more, and the others know.
    pub should_shut_down: bool,
}

/// The in-sync set that the leader of a partition asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsrChange {
    pub topic_id: Uuid,
    pub partition: i32,
    /// In which it leads.
    pub leader_epoch: i32,
    /// The change is to this state of the partition and no other.
    pub partition_epoch: i32,
    /// Members, each with the broker epoch in which it was seen to be in sync (KIP-903); -1 is not checked.
    pub isr: Vec<(i32, i64)>,
    /// False: the leader has recovered from an unclean election.
    pub recovering: bool,
}

/// A partition's state after an accepted [`IsrChange`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsrState {
    pub leader: i32,
    pub leader_epoch: i32,
    pub isr: Vec<i32>,
    pub partition_epoch: i32,
    pub recovering: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewTopic {
    pub name: String,
    pub topic_id: Uuid,
    pub place: Placement,
    pub configs: BTreeMap<String, String>,
}

/// How the partitions of a topic are laid out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Placement {
    Count {
        partitions: i32,
        replication_factor: i16,
    },
    /// The replicas of each partition, the preferred leader first.
    Assigned(Vec<Vec<i32>>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedTopic {
    pub topic_id: Uuid,
    pub partitions: i32,
    pub replication_factor: i16,
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewPartitions {
    pub topic: String,
    /// How many the topic should have then.
    pub total: i32,
    /// Replicas of the new ones; empty: the controller places them.
    pub assigned: Vec<Vec<i32>>,
}

/// A topic, by either of its names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TopicRef {
    Name(String),
    Id(Uuid),
}

/// One setting's change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigOp {
    Set(String),
    /// Back to the default.
    Delete,
    /// Adds to a list.
    Append(String),
    /// Takes from a list.
    Subtract(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigChange {
    pub topic: String,
    /// All other settings go back to their defaults (AlterConfigs); else they stay (IncrementalAlterConfigs).
    pub replace: bool,
    pub ops: Vec<(String, ConfigOp)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proposal {
    RegisterBroker(Registration),
    UnregisterBroker {
        broker_id: i32,
    },
    Heartbeat(Heartbeat),
    AlterPartition {
        broker_id: i32,
        broker_epoch: i64,
        changes: Vec<IsrChange>,
    },
    /// The broker opened its copies of these partitions: from now on a missing one is a loss.
    Place {
        broker_id: i32,
        broker_epoch: i64,
        directory: Uuid,
        partitions: Vec<(Uuid, i32)>,
    },
    AllocateProducerIds {
        broker_id: i32,
        broker_epoch: i64,
        count: i64,
    },
    CreateTopics {
        topics: Vec<NewTopic>,
        validate_only: bool,
    },
    DeleteTopics {
        topics: Vec<TopicRef>,
    },
    CreatePartitions {
        topics: Vec<NewPartitions>,
        validate_only: bool,
    },
    AlterConfigs {
        changes: Vec<ConfigChange>,
        validate_only: bool,
    },
    /// `partitions`: `None` is all of them. `unclean`: any replica, whatever the topic says; else the preferred one.
    ElectLeaders {
        partitions: Option<Vec<(String, i32)>>,
        unclean: bool,
    },
}

/// The answer to a proposal, item by item in the order of the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Registered {
        broker_epoch: i64,
    },
    Unregistered,
    Heartbeat(HeartbeatReply),
    Altered(Vec<Result<IsrState, ErrorCode>>),
    Placed,
    ProducerIds {
        first: i64,
        count: i64,
    },
    CreatedTopics(Vec<Result<CreatedTopic, Refusal>>),
    /// Name and id of each.
    DeletedTopics(Vec<Result<(String, Uuid), Refusal>>),
    CreatedPartitions(Vec<Result<(), Refusal>>),
    AlteredConfigs(Vec<Result<(), Refusal>>),
    Elected(Vec<(String, i32, Result<(), ErrorCode>)>),
}
