//! Every setting a run depends on. Times are milliseconds of simulated time, sizes are bytes.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Knobs {
    pub broker: BrokerKnobs,
    pub client: ClientKnobs,
    /// `None` without a job.
    pub processor: Option<ProcessorKnobs>,
    pub world: WorldKnobs,
}

/// When a broker counts its own copy of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flush {
    /// After fsync: acknowledged means durable.
    Fsync,
    /// Once in the page cache, as Apache Kafka does by default: weak under power loss.
    PageCache,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerKnobs {
    pub flush: Flush,
    pub segment_bytes: u64,
    pub index_interval_bytes: u64,
    pub max_frame_bytes: u64,
    /// Partitions of `__consumer_offsets` and of `__transaction_state`.
    pub offsets_partitions: u32,
    pub transactions_partitions: u32,
    pub transaction_max_timeout_ms: u64,
    /// Replicas of topics that do not say; of internal topics, three or as many as there are brokers.
    pub default_replication_factor: u32,
    /// Fewest in-sync replicas with which acks=all is accepted, where a topic does not say.
    pub min_insync_replicas: u32,
    /// A voter of the metadata quorum without a leader for this long, and up to as much again, stands for election.
    pub quorum_election_timeout_ms: u64,
    /// A follower of the metadata log that could not fetch for this long gives its leader up.
    pub quorum_fetch_timeout_ms: u64,
    /// A broker that the controller did not hear of for this long is fenced.
    pub session_timeout_ms: u64,
    pub heartbeat_interval_ms: u64,
    /// A follower that was not at the leader's log end for this long leaves the in-sync set.
    pub replica_lag_max_ms: u64,
    /// A member of a consumer group that its coordinator did not hear of for this long is out of it.
    pub group_session_timeout_ms: u64,
    pub group_heartbeat_interval_ms: u64,
    /// Between two rounds of the cleaner over the compacted logs.
    pub cleaner_interval_ms: u64,
    /// Between two looks for segments past their retention.
    pub retention_check_interval_ms: u64,
    /// A partition is given back to its preferred leader after this long.
    pub leader_rebalance_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientKnobs {
    pub request_timeout_ms: u64,
    pub delivery_timeout_ms: u64,
    pub linger_ms: u64,
    pub batch_bytes: u64,
    pub max_in_flight: u32,
    pub compression: Compression,
    pub transaction_timeout_ms: u64,
    pub fetch_max_wait_ms: u64,
    pub fetch_max_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessorKnobs {
    pub source_tasks: u32,
    pub window_tasks: u32,
    pub key_groups: u32,
    pub checkpoint_interval_ms: u64,
    pub checkpoint_timeout_ms: u64,
    pub heartbeat_interval_ms: u64,
    pub heartbeat_timeout_ms: u64,
    pub restart_backoff_min_ms: u64,
    pub restart_backoff_max_ms: u64,
    /// An attempt that ran this long resets the backoff.
    pub restart_reset_ms: u64,
    pub transaction_timeout_ms: u64,
    /// Complete checkpoints kept.
    pub checkpoints_retained: u32,
    /// Records of a split judged together before its watermark moves.
    pub chunk_records: u32,
    /// Messages in flight on a channel between two tasks.
    pub channel_capacity: u32,
    /// How old the answer of a fetch may be to prove anything about idleness.
    pub fetch_timeout_ms: u64,
    /// Partitions of each topic the job writes.
    pub sink_partitions: u32,
}

/// The world before any fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorldKnobs {
    /// Applied to every link that no entry of `links` names.
    pub latency_us: (u64, u64),
    pub loss_per_million: u32,
    /// Reads and writes of sockets that take only a part of what they could.
    pub partial_per_million: u32,
    /// Bytes a second of one direction of a link; `None` is unlimited.
    pub bandwidth: Option<u64>,
    pub links: Vec<LinkLaw>,
    pub sync_latency_us: (u64, u64),
    /// Capacity of each node's disk; `None` is unlimited.
    pub disk_bytes: Option<u64>,
    /// A system node whose process ended by itself is started again after this time.
    pub restart_exited_ms: u64,
}

/// The law of one direction of one link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkLaw {
    pub from: super::NodeName,
    pub to: super::NodeName,
    pub latency_us: (u64, u64),
    pub loss_per_million: u32,
}
