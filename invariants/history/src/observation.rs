//! What was seen while the run went on, and the faults that took effect.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One sight of the system's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    pub at_ns: u64,
    pub observer: Observer,
    pub what: Observed,
}

/// Sights of one observer are in its own order; those of two are comparable only where a check says so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observer {
    /// A probe in one life of a broker or processor node.
    Node { node: u32, incarnation: u32 },
    /// A workload client, from answers that it handled in order.
    Client { client: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Observed {
    /// A leader's, by its own probe, or as a client hears it. A client gives the leader's epoch, or -1 where the cluster
    /// has one broker only.
    HighWatermark {
        topic: String,
        partition: i32,
        leader_epoch: i32,
        offset: i64,
    },
    LastStableOffset {
        topic: String,
        partition: i32,
        leader_epoch: i32,
        offset: i64,
    },
    /// A consumer at `read_committed` asked from `from`, got records at `offsets`, and stands at `to` now.
    ReadCommitted {
        topic: String,
        partition: i32,
        from: i64,
        to: i64,
        offsets: Vec<i64>,
        last_stable_offset: i64,
    },
    /// A broker begins to lead a partition, its log ending at `log_end`: told by the broker itself, or by a node that
    /// applied it from the metadata (`None`).
    LeaderElected {
        topic: String,
        partition: i32,
        leader_epoch: i32,
        broker: u32,
        log_end: Option<i64>,
    },
    /// A broker that led a partition does not any more, and knows it: it follows, or has given the partition up.
    LeadershipEnded {
        topic: String,
        partition: i32,
        leader_epoch: i32,
    },
    /// The observer's life ends: it has crashed, lost power or stopped, and answers nobody.
    Died,
    /// Committed metadata: who is in sync.
    IsrChanged {
        topic: String,
        partition: i32,
        leader_epoch: i32,
        partition_epoch: i32,
        isr: Vec<u32>,
    },
    /// Committed metadata: a broker registered anew, and this is its epoch. What it was seen to hold before does not count.
    BrokerRegistered {
        broker: u32,
        broker_epoch: i64,
    },
    /// The observer is this broker, up and registered with this epoch.
    BrokerStarted {
        broker: u32,
        broker_epoch: i64,
    },
    /// What a follower knows of the high watermark; it lags the leader's.
    FollowerHighWatermark {
        topic: String,
        partition: i32,
        leader_epoch: i32,
        offset: i64,
    },
    /// A voter begins to lead the metadata quorum, its log ending at `log_end` before its first record.
    QuorumLeader {
        epoch: i32,
        node: u32,
        log_end: i64,
    },
    /// A node knows a record of the metadata log to be committed. `hash` is of its contents.
    MetadataCommitted {
        offset: i64,
        epoch: i32,
        hash: u64,
    },
    /// A group coordinator made a generation durable (classic protocol).
    GroupGeneration {
        group: String,
        generation: i32,
        members: Vec<MemberAssignment>,
    },
    /// A group coordinator made a member's assignment durable (KIP-848). Empty when it has left.
    GroupMember {
        group: String,
        member: String,
        epoch: i32,
        assigned: Vec<TopicPartition>,
        /// Taken from it, and not given up yet.
        revoking: Vec<TopicPartition>,
    },
    /// A group coordinator has read its log and finds these members (KIP-848), all of them. What was durable and never told
    /// is among it.
    GroupLoaded {
        group: String,
        members: Vec<LoadedMember>,
    },
    /// The group is gone: its generations may begin anew.
    GroupGone {
        group: String,
    },
    /// A member learns what it owns; told by the client.
    Assigned {
        group: String,
        member: String,
        /// Or member epoch; -1: it is no member any more.
        generation: i32,
        partitions: Vec<TopicPartition>,
        /// It hears that it has lost the rest: others may have it already.
        #[serde(default)]
        lost: bool,
    },
    /// A committed offset is durable and outside open transactions; `None`: deleted.
    OffsetCommitted {
        group: String,
        topic: String,
        partition: i32,
        offset: Option<i64>,
    },
    /// A coordinator has stored a member's commit, be it in an open transaction.
    CommitStored {
        group: String,
        member: String,
        /// That the member said, or member epoch; -1: it says that it is no member.
        generation: i32,
    },
    /// A coordinator has loaded its partition of `__consumer_offsets` and serves it from now on: all that it holds.
    OffsetsLoaded {
        /// Of the internal topic.
        coordinator: i32,
        coordinator_epoch: i32,
        /// Groups whose coordinator it is; offsets of others are not looked for.
        groups: Vec<String>,
        offsets: Vec<LoadedOffset>,
    },
    /// A transaction coordinator made a state durable.
    TransactionState {
        transactional_id: String,
        producer_id: i64,
        producer_epoch: i16,
        coordinator_epoch: i32,
        state: TransactionState,
    },
    /// The coordinator made checkpoint `n` complete and durable.
    CheckpointComplete {
        generation: u64,
        n: u64,
    },
    /// The coordinator started the attempt `generation`, from this checkpoint.
    Restored {
        generation: u64,
        checkpoint: Option<u64>,
    },
    /// The job's coordinator speaks to a worker by this connection from now on; later ones have higher numbers.
    WorkerRegistered {
        worker: String,
        connection: u64,
    },
    /// A broker did something with its copy of a partition's log.
    Log {
        topic: String,
        partition: i32,
        event: LogEvent,
    },
}

/// What a broker does with its copy of a log. It tells people how things came about; one check judges by it,
/// in-sync-holds, since what a replica held in a life that is over is on no disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LogEvent {
    /// Recovered from the disk. The first transaction that the broker knows to be open begins at `first_open`; `aborted` is
    /// how many aborted ones it knows.
    Opened {
        start: i64,
        end: i64,
        first_open: Option<i64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aborted: Option<u64>,
    },
    /// A follower of this leader from now on.
    Followed { leader_epoch: i32, leader: Option<i32>, end: i64 },
    /// Batches of the leader, not synced yet.
    Replicated { base: i64, last: i64 },
    /// What the leader does not have was cut away; `high_watermark` is what the broker knew before.
    Truncated { from: i64, to: i64, high_watermark: i64 },
    /// All was given up for a log that begins here, as the leader's does.
    Reset { offset: i64 },
    /// The leader asks for this in-sync set.
    IsrAsked { leader_epoch: i32, isr: Vec<i32> },
    /// The leader hears that this is the in-sync set.
    IsrAnswered { partition_epoch: i32, isr: Vec<i32> },
    /// A producer's batch, not synced yet.
    Appended { base: i64, last: i64, transactional: bool, batch: Batch },
    /// The end of a transaction.
    Marker { offset: i64, producer_id: i64, producer_epoch: i16, commit: bool },
    /// A marker was refused with this Kafka error code.
    MarkerRefused { error: i16, producer_id: i64, producer_epoch: i16 },
    /// A batch was taken for a copy of the one at these offsets.
    Duplicate { base: i64, last: i64, producer_id: i64 },
    /// A producer's batch was refused with this Kafka error code.
    Refused { error: i16, batch: Batch },
    /// The segments of [base, end) were compacted into one.
    Cleaned { base: i64, end: i64 },
    /// What is below survives power loss.
    Flushed { offset: i64 },
}

/// What the head of a batch says of its producer; -1 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
}

/// Of a topic, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicPartition {
    pub topic: String,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<String>, partition: i32) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberAssignment {
    pub member: String,
    pub partitions: Vec<TopicPartition>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadedOffset {
    pub group: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// As [`Observed::GroupMember`] has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadedMember {
    pub member: String,
    pub epoch: i32,
    pub assigned: Vec<TopicPartition>,
    pub revoking: Vec<TopicPartition>,
}

/// As `__transaction_state` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionState {
    Empty,
    Ongoing,
    /// Of a two-phase commit (KIP-939): it waits for its client without a time-out.
    Prepared,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
    Dead,
}

impl fmt::Display for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Observer::Node { node, incarnation } => write!(f, "node {node} life {incarnation}"),
            Observer::Client { client } => write!(f, "client {client}"),
        }
    }
}

/// A fault that did something, as against one that was planned and met nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultEffect {
    pub at_ns: u64,
    /// When it ceased; `None`: it was over at once, or lasted to the end if `lasting`.
    #[serde(default)]
    pub until_ns: Option<u64>,
    #[serde(default)]
    pub lasting: bool,
    /// Kind of fault as in the plan: `crash`, `power`, `cut`, `stall`, …
    pub fault: String,
    /// Node, link or disk.
    pub target: String,
    /// What it did: "dropped 3 unsynced pages of deliveries-0".
    pub effect: String,
}
