//! What a coordinator is told and what it says.

use env::clock::Instant;
use protocol::ErrorCode;

use crate::txn::state::{ProducerIdEpoch, TopicPartition, Txn};

/// Names a request until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Names one change of one transactional id, from its decision to its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// Both clocks of the node: time-outs run on the monotonic one, records carry the wall clock's.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub instant: Instant,
    pub wall_ms: i64,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub max_timeout_ms: i32,
    pub two_phase_commit: bool,
    /// An id without a transaction that nothing was done with for so long is forgotten (`transactional.id.expiration.ms`).
    pub expiration_ms: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    InitProducerId {
        timeout_ms: i32,
        /// What the client held before, if it says so (v3 and later).
        expected: Option<ProducerIdEpoch>,
        two_phase: bool,
        keep_prepared: bool,
    },
    /// Join partitions to the transaction, or ask whether they are in it.
    AddPartitions {
        producer: ProducerIdEpoch,
        partitions: Vec<TopicPartition>,
        verify_only: bool,
        /// The client gets a new epoch at each EndTxn.
        bumps: bool,
    },
    EndTxn {
        producer: ProducerIdEpoch,
        commit: bool,
        bumps: bool,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Initialized {
        producer: ProducerIdEpoch,
        ongoing: Option<ProducerIdEpoch>,
    },
    Added,
    /// The transaction is decided; the client goes on as `producer`.
    Ended {
        producer: ProducerIdEpoch,
    },
    Error(ErrorCode),
}

#[derive(Clone, Debug)]
pub enum Input {
    Request {
        id: RequestId,
        transactional_id: String,
        request: Request,
        /// A producer id that nobody has, if one was asked for by [`Action::AllocateProducerId`].
        fresh: Option<i64>,
    },
    /// The record of this change is durable.
    Persisted {
        transactional_id: String,
        token: Token,
    },
    /// The record of this change is certainly not in the log.
    NotPersisted {
        transactional_id: String,
        token: Token,
        error: ErrorCode,
    },
    MarkersWritten {
        transactional_id: String,
        token: Token,
    },
    /// Time passed.
    Tick,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Append this state to the log.
    Persist {
        transactional_id: String,
        token: Token,
        txn: Txn,
    },
    /// Append that the id is forgotten; its end is that of any change.
    Forget {
        transactional_id: String,
        token: Token,
    },
    WriteMarkers {
        transactional_id: String,
        token: Token,
        producer: ProducerIdEpoch,
        commit: bool,
        /// The markers' epoch is above that of every record of the transaction (KIP-890).
        bumps: bool,
        partitions: Vec<TopicPartition>,
    },
    Reply {
        id: RequestId,
        reply: Reply,
    },
    /// Submit the same request again with a fresh producer id.
    AllocateProducerId {
        id: RequestId,
        transactional_id: String,
        request: Request,
    },
}
