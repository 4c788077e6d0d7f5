//! How a broker is set up. Every limit on memory and queues is named here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::group::GroupConfig;

/// When an append counts as stored by this member of the in-sync set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Flush {
    /// Once fsync returned: an acknowledged record survives power loss.
    #[default]
    Fsync,
    /// Once it is in the page cache, as Kafka does by default: it survives a process crash, not power loss.
    PageCache,
}

#[derive(Clone, Debug)]
pub struct BrokerConfig {
    pub node_id: i32,
    /// At most 249 characters; must equal that of the data directory.
    pub cluster_id: String,
    /// Port 0 lets the world choose.
    pub listen: SocketAddr,
    /// What clients are told to connect to.
    pub advertised_host: String,
    /// The port that was bound if `None`.
    pub advertised_port: Option<u16>,
    pub data_dir: PathBuf,
    pub flush: Flush,
    /// Where this broker stands, for the placement of replicas and for consumers that read from the nearest one.
    pub rack: Option<String>,

    /// The controller quorum: host and port of each voter, the same on every node. A node that is not among them is a
    /// broker that only reads the metadata log. Empty: this node alone is the quorum.
    pub voters: BTreeMap<i32, (String, u16)>,
    /// A voter without a leader for this long, plus a random part of the same length, stands for election.
    pub quorum_election_timeout_ms: u64,
    /// A follower of the metadata log that could not fetch for this long gives its leader up; a leader that a majority
    /// did not fetch from for this long resigns.
    pub quorum_fetch_timeout_ms: u64,
    /// A broker that the controller did not hear of for this long is fenced: it leads nothing and leaves in-sync sets.
    pub broker_session_timeout_ms: u64,
    /// Between two heartbeats to the controller.
    pub broker_heartbeat_interval_ms: u64,

    /// Replicas of a topic created without a number. Internal topics have three, or as many as there are brokers.
    pub default_replication_factor: i16,
    /// Fewest members of the in-sync set with which acks=all is accepted, unless the topic says otherwise.
    pub min_insync_replicas: i32,
    /// How long a partition is led by another than its preferred replica, where that one could lead.
    pub leader_rebalance_ms: u64,
    /// A follower that was not at the leader's log end for this long leaves the in-sync set.
    pub replica_lag_max_ms: u64,

    /// Largest request accepted, in bytes; a connection that announces a larger one is closed.
    pub max_frame_bytes: usize,
    /// Connections at a time; further ones are closed at once.
    pub max_connections: usize,
    /// Requests of one connection that are being handled or whose answers wait to be written. Reading stops at this.
    pub max_in_flight: usize,
    /// A connection without a request for this long is closed.
    pub connection_idle: Duration,
    /// Most bytes one fetch may return, whatever it asks for (one batch may exceed it, KIP-74).
    pub fetch_max_bytes: i32,
    /// Largest record batch accepted, in bytes.
    pub max_message_bytes: usize,
    /// Roll a segment at this many bytes.
    pub segment_bytes: u32,
    /// Between two rounds of the cleaner over the compacted logs (`log.cleaner.backoff.ms`).
    pub cleaner_interval_ms: u64,
    /// Memory of the cleaner's map of keys, in bytes (`log.cleaner.dedupe.buffer.size`).
    pub cleaner_dedupe_buffer_bytes: usize,
    /// Between two looks for segments past their retention (`log.retention.check.interval.ms`).
    pub retention_check_interval_ms: u64,
    /// Of compacted topics that do not say: the dirty share, 0 to 1, from which on a log is cleaned.
    pub min_cleanable_dirty_ratio: f64,
    /// Of compacted topics that do not say: how long tombstones and the last markers stay. A replica or reader that is away
    /// for longer may miss them.
    pub delete_retention_ms: u64,
    /// Of compacted topics that do not say: how long a record is left alone.
    pub min_compaction_lag_ms: u64,
    /// Of topics that do not say: the age at which a segment goes; -1 is no limit.
    pub retention_ms: i64,
    /// Of topics that do not say: bytes of a partition beyond which its oldest segments go; -1 is no limit.
    pub retention_bytes: i64,
    /// Appends of one partition that wait for its disk, in bytes; further ones are refused for now.
    pub max_queued_bytes: usize,

    /// Create a topic that Metadata or Produce names and that does not exist.
    pub auto_create_topics: bool,
    /// Partitions of a topic created without a number.
    pub default_partitions: i32,
    /// Most partitions of one topic.
    pub max_partitions_per_topic: i32,
    /// Partitions of `__consumer_offsets`; fixed once the topic exists.
    pub offsets_partitions: i32,
    /// Partitions of `__transaction_state`; fixed once the topic exists.
    pub transaction_partitions: i32,

    /// Limits and time-outs of consumer groups.
    pub group: GroupConfig,

    /// Longest transaction time-out a producer may ask for. Two-phase transactions have none.
    pub transaction_max_timeout_ms: i32,
    /// A transactional id without a transaction that nothing was done with for so long is forgotten.
    pub transactional_id_expiration_ms: u64,
    /// Allow two-phase transactions (KIP-939).
    pub two_phase_commit: bool,
    /// Largest metadata string of a committed offset, in bytes.
    pub offset_metadata_max_bytes: usize,
    /// Producer ids a broker takes from the controller at a time.
    pub producer_id_block: i64,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            node_id: 1,
            cluster_id: "streamproof".to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9092)),
            advertised_host: Ipv4Addr::LOCALHOST.to_string(),
            advertised_port: None,
            data_dir: PathBuf::from("data"),
            flush: Flush::Fsync,
            rack: None,
            voters: BTreeMap::new(),
            quorum_election_timeout_ms: 1000,
            quorum_fetch_timeout_ms: 2000,
            broker_session_timeout_ms: 9000,
            broker_heartbeat_interval_ms: 2000,
            default_replication_factor: 1,
            min_insync_replicas: 1,
            leader_rebalance_ms: 300_000,
            replica_lag_max_ms: 30_000,
            max_frame_bytes: 32 << 20,
            max_connections: 1024,
            max_in_flight: 16,
            connection_idle: Duration::from_secs(600),
            fetch_max_bytes: 52 << 20,
            max_message_bytes: 1 << 20,
            segment_bytes: 64 << 20,
            cleaner_interval_ms: 15_000,
            cleaner_dedupe_buffer_bytes: 128 << 20,
            retention_check_interval_ms: 300_000,
            min_cleanable_dirty_ratio: 0.5,
            delete_retention_ms: 24 * 3600 * 1000,
            min_compaction_lag_ms: 0,
            retention_ms: -1,
            retention_bytes: -1,
            max_queued_bytes: 64 << 20,
            auto_create_topics: false,
            default_partitions: 1,
            max_partitions_per_topic: 1024,
            offsets_partitions: 1,
            transaction_partitions: 1,
            group: GroupConfig::default(),
            transaction_max_timeout_ms: 900_000,
            transactional_id_expiration_ms: 7 * 24 * 3600 * 1000,
            two_phase_commit: true,
            offset_metadata_max_bytes: 4096,
            producer_id_block: 1000,
        }
    }
}

impl BrokerConfig {
    /// Says what is wrong, in a sentence for the person who wrote it.
    pub fn validate(&self) -> Result<(), String> {
        let at_least_one = [
            ("max_connections", self.max_connections as i64),
            ("max_in_flight", self.max_in_flight as i64),
            ("default_partitions", self.default_partitions.into()),
            ("max_partitions_per_topic", self.max_partitions_per_topic.into()),
            ("offsets_partitions", self.offsets_partitions.into()),
            ("transaction_partitions", self.transaction_partitions.into()),
            ("transaction_max_timeout_ms", self.transaction_max_timeout_ms.into()),
            ("producer_id_block", self.producer_id_block),
            ("fetch_max_bytes", self.fetch_max_bytes.into()),
            ("default_replication_factor", self.default_replication_factor.into()),
            ("min_insync_replicas", self.min_insync_replicas.into()),
            ("replica_lag_max_ms", self.replica_lag_max_ms as i64),
            ("quorum_election_timeout_ms", self.quorum_election_timeout_ms as i64),
            ("quorum_fetch_timeout_ms", self.quorum_fetch_timeout_ms as i64),
            ("cleaner_interval_ms", self.cleaner_interval_ms as i64),
            ("retention_check_interval_ms", self.retention_check_interval_ms as i64),
            ("offsets_retention in ms", self.group.offsets_retention.as_millis() as i64),
            ("offsets_retention_check_interval in ms", self.group.offsets_retention_check_interval.as_millis() as i64),
            ("broker_heartbeat_interval_ms", self.broker_heartbeat_interval_ms as i64),
        ];
        if let Some((name, value)) = at_least_one.iter().find(|(_, v)| *v < 1) {
            return Err(format!("{name} is {value}, must be at least 1"));
        }
        if !(0.0..=1.0).contains(&self.min_cleanable_dirty_ratio) {
            return Err(format!("min_cleanable_dirty_ratio is {}, must be 0 to 1", self.min_cleanable_dirty_ratio));
        }
        if self.retention_ms < -1 || self.retention_bytes < -1 {
            return Err("retention_ms and retention_bytes must not be below -1".to_owned());
        }
        if self.node_id < 0 {
            return Err(format!("node_id is {}, must not be negative", self.node_id));
        }
        if self.voters.keys().any(|id| *id < 0) {
            return Err("voters must not have negative ids".to_owned());
        }
        if self.broker_session_timeout_ms <= self.broker_heartbeat_interval_ms {
            let (session, heartbeat) = (self.broker_session_timeout_ms, self.broker_heartbeat_interval_ms);
            return Err(format!(
                "broker_session_timeout_ms is {session}, must be more than the heartbeat's {heartbeat}"
            ));
        }
        if self.cluster_id.is_empty() || self.cluster_id.len() > 249 || self.cluster_id.contains(['\n', '\r']) {
            return Err("cluster_id must be one line of 1 to 249 characters".to_owned());
        }
        if self.max_frame_bytes < 1024 || self.max_frame_bytes > i32::MAX as usize {
            return Err(format!("max_frame_bytes is {}, must be 1 KiB to 2 GiB", self.max_frame_bytes));
        }
        Ok(())
    }

    /// The ids of the controller quorum's voters.
    pub fn voter_ids(&self) -> BTreeSet<i32> {
        if self.voters.is_empty() { BTreeSet::from([self.node_id]) } else { self.voters.keys().copied().collect() }
    }

    /// Whether this node is a quorum by itself.
    pub fn is_alone(&self) -> bool {
        self.voter_ids() == BTreeSet::from([self.node_id])
    }

    /// Whether this node is a voter of the controller quorum.
    pub fn is_voter(&self) -> bool {
        self.voters.is_empty() || self.voters.contains_key(&self.node_id)
    }
}
