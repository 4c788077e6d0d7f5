//! What the clients do, record by record, and the job that reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A topic that exists before the clients start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    pub name: String,
    pub partitions: u32,
    /// At most as many as there are brokers.
    pub replication_factor: u32,
    /// Topic configurations by their Kafka names, such as `unclean.leader.election.enable`.
    pub configs: BTreeMap<String, String>,
}

impl Topic {
    /// Its log is compacted, and nothing of it is deleted by age or size.
    pub fn is_compacted(&self) -> bool {
        self.configs.get("cleanup.policy").is_some_and(|policy| policy == "compact")
    }
}

/// The job as its own file: parsed by `models::spec`, translated by `sim::deploy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    pub toml: String,
}

/// A workload client: one node of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Unique; goes into the header `op.client`.
    pub id: u32,
    pub role: ClientRole,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientRole {
    Producer(Producer),
    Reader(Reader),
    Member(Member),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acks {
    None,
    Leader,
    All,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Producer {
    pub topic: String,
    pub acks: Acks,
    pub idempotent: bool,
    /// With a transactional id `workload-<client>`; every batch then names its transaction.
    pub transactional: bool,
    /// In order of `at_ms`.
    pub batches: Vec<Batch>,
}

/// Records sent one after another without waiting, from `at_ms` on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Not before this time, in milliseconds since the clients started; later if the one before is still under way.
    pub at_ms: u64,
    pub transaction: Option<Transaction>,
    pub records: Vec<Record>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// Unique in the plan; goes into the header `op.txn`.
    pub id: u64,
    /// Number of the operation that ends it, above those of its records.
    pub n: u64,
    pub end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Commit,
    Abort,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Number of the operation within its client, from 0, rising; goes into the header `op.n`.
    pub n: u64,
    pub partition: i32,
    /// Timestamp of the Kafka record, in milliseconds. Not the event time, which is a field of the value.
    pub timestamp: i64,
    pub key: Option<Payload>,
    pub value: Payload,
}

/// Bytes, as text where they are UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Payload {
    Text(String),
    Hex(Hex),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hex {
    pub hex: String,
}

impl Payload {
    pub fn of(bytes: &[u8]) -> Payload {
        match std::str::from_utf8(bytes) {
            Ok(text) => Payload::Text(text.to_owned()),
            Err(_) => Payload::Hex(Hex { hex: bytes.iter().map(|b| format!("{b:02x}")).collect() }),
        }
    }

    /// Whether it stands for bytes.
    pub(super) fn is_well_formed(&self) -> bool {
        match self {
            Payload::Text(_) => true,
            Payload::Hex(Hex { hex }) => hex.len().is_multiple_of(2) && hex.bytes().all(|b| b.is_ascii_hexdigit()),
        }
    }

    /// `None` if the hexadecimal form is malformed; `validate` refuses such plans.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Payload::Text(text) => Some(text.as_bytes().to_vec()),
            Payload::Hex(Hex { hex }) => {
                if !self.is_well_formed() {
                    return None;
                }
                (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).ok()).collect()
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

/// Follows all partitions of a topic from 0 and records what it sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reader {
    pub topic: String,
    pub isolation: Isolation,
}

/// A member of a consumer group, from time to time: it reads what it is assigned and commits what it has done with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub group: String,
    pub topic: String,
    pub protocol: GroupProtocol,
    /// A static member (KIP-345).
    pub instance_id: Option<String>,
    pub commit: Commit,
    /// In order of time, without overlap.
    pub stays: Vec<Stay>,
}

impl Member {
    /// Whether it is there at this time, in milliseconds since the clients started.
    pub fn is_there(&self, ms: u64) -> bool {
        self.stays.iter().any(|s| s.from_ms <= ms && s.until_ms.is_none_or(|until| ms < until))
    }
}

/// How a group shares its partitions out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupProtocol {
    /// Classic, eager, by ranges.
    Range,
    /// Classic, eager, one after the other.
    RoundRobin,
    /// Classic, cooperative (KIP-429).
    CooperativeSticky,
    /// Assigned by the coordinator (KIP-848).
    Consumer,
}

/// When a member commits its offsets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Commit {
    /// By itself, this often.
    Auto { every_ms: u64 },
    /// After each poll, and it waits for the answer.
    Each,
    /// Within a transaction that copies what the poll brought to this topic (KIP-98, KIP-447).
    Transaction { to: String },
}

/// A stretch of membership, in milliseconds since the clients started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stay {
    pub from_ms: u64,
    /// It leaves then; `None`: it stays to the end of the run.
    pub until_ms: Option<u64>,
}

/// Something the generator did to event time: named so that a run can say how often it mattered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Twist {
    /// No records for this split between these times.
    IdleSplit { partition: i32, from_ms: u64, to_ms: u64 },
    /// Records placed behind the watermark bound.
    Late { records: u64 },
    /// Many records at one instant.
    Burst { at_ms: u64, records: u64 },
    /// Event times on window edges: s, e - 1, e.
    Boundary { records: u64 },
    /// Undecodable or invalid values, meant for the dead-letter queue.
    Poison { records: u64 },
}
