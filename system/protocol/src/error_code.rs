//! Kafka's error codes, and what each says about a request that was answered with it: may it be sent again, and did
//! the work certainly not happen or is that unknown (semantics rule 20).
//!
//! Source: `org.apache.kafka.common.protocol.Errors`. The last column is about a write (Produce, EndTxn, offset commits);
//! for reads it has no meaning. `Unknown` marks the codes that a broker may give after the write has reached a log:
//! time-outs, too few replicas after the append, a leader or coordinator that moved or failed in the middle, a
//! duplicate whose first copy is there.

/// An error code of the wire. Codes that this table does not know keep their number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ErrorCode(i16);

/// What an answer with an error code says about the work that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    /// This attempt did nothing.
    Failed,
    /// It may have been done, or may yet be.
    Unknown,
}

struct Row {
    code: ErrorCode,
    name: &'static str,
    retriable: bool,
    certainty: Certainty,
}

macro_rules! error_codes {
    ($($name:ident = $code:literal, $retriable:literal, $certainty:ident;)*) => {
        impl ErrorCode {
            pub const NONE: Self = Self(0);
            $(pub const $name: Self = Self($code);)*
        }

        /// In the order of the codes.
        const TABLE: &[Row] = &[$(Row {
            code: ErrorCode::$name,
            name: stringify!($name),
            retriable: $retriable,
            certainty: Certainty::$certainty,
        }),*];
    };
}

error_codes! {
    // name = code, retriable, certainty of a write answered so;
    UNKNOWN_SERVER_ERROR = -1, false, Unknown;
    OFFSET_OUT_OF_RANGE = 1, false, Failed;
    CORRUPT_MESSAGE = 2, true, Failed;
    UNKNOWN_TOPIC_OR_PARTITION = 3, true, Failed;
    INVALID_FETCH_SIZE = 4, false, Failed;
    LEADER_NOT_AVAILABLE = 5, true, Failed;
    NOT_LEADER_OR_FOLLOWER = 6, true, Unknown;
    REQUEST_TIMED_OUT = 7, true, Unknown;
    BROKER_NOT_AVAILABLE = 8, false, Failed;
    REPLICA_NOT_AVAILABLE = 9, true, Failed;
    MESSAGE_TOO_LARGE = 10, false, Failed;
    STALE_CONTROLLER_EPOCH = 11, false, Failed;
    OFFSET_METADATA_TOO_LARGE = 12, false, Failed;
    NETWORK_EXCEPTION = 13, true, Unknown;
    COORDINATOR_LOAD_IN_PROGRESS = 14, true, Failed;
    COORDINATOR_NOT_AVAILABLE = 15, true, Unknown;
    NOT_COORDINATOR = 16, true, Unknown;
    INVALID_TOPIC_EXCEPTION = 17, false, Failed;
    RECORD_LIST_TOO_LARGE = 18, false, Failed;
    NOT_ENOUGH_REPLICAS = 19, true, Failed;
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20, true, Unknown;
    INVALID_REQUIRED_ACKS = 21, false, Failed;
    ILLEGAL_GENERATION = 22, false, Failed;
    INCONSISTENT_GROUP_PROTOCOL = 23, false, Failed;
    INVALID_GROUP_ID = 24, false, Failed;
    UNKNOWN_MEMBER_ID = 25, false, Failed;
    INVALID_SESSION_TIMEOUT = 26, false, Failed;
    REBALANCE_IN_PROGRESS = 27, false, Failed;
    INVALID_COMMIT_OFFSET_SIZE = 28, false, Failed;
    TOPIC_AUTHORIZATION_FAILED = 29, false, Failed;
    GROUP_AUTHORIZATION_FAILED = 30, false, Failed;
    CLUSTER_AUTHORIZATION_FAILED = 31, false, Failed;
    INVALID_TIMESTAMP = 32, false, Failed;
    UNSUPPORTED_SASL_MECHANISM = 33, false, Failed;
    ILLEGAL_SASL_STATE = 34, false, Failed;
    UNSUPPORTED_VERSION = 35, false, Failed;
    TOPIC_ALREADY_EXISTS = 36, false, Failed;
    INVALID_PARTITIONS = 37, false, Failed;
    INVALID_REPLICATION_FACTOR = 38, false, Failed;
    INVALID_REPLICA_ASSIGNMENT = 39, false, Failed;
    INVALID_CONFIG = 40, false, Failed;
    NOT_CONTROLLER = 41, true, Failed;
    INVALID_REQUEST = 42, false, Failed;
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43, false, Failed;
    POLICY_VIOLATION = 44, false, Failed;
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45, false, Failed;
    DUPLICATE_SEQUENCE_NUMBER = 46, false, Unknown;
    INVALID_PRODUCER_EPOCH = 47, false, Failed;
    INVALID_TXN_STATE = 48, false, Failed;
    INVALID_PRODUCER_ID_MAPPING = 49, false, Failed;
    INVALID_TRANSACTION_TIMEOUT = 50, false, Failed;
    CONCURRENT_TRANSACTIONS = 51, true, Failed;
    TRANSACTION_COORDINATOR_FENCED = 52, false, Failed;
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53, false, Failed;
    SECURITY_DISABLED = 54, false, Failed;
    OPERATION_NOT_ATTEMPTED = 55, false, Failed;
    KAFKA_STORAGE_ERROR = 56, true, Unknown;
    LOG_DIR_NOT_FOUND = 57, false, Failed;
    SASL_AUTHENTICATION_FAILED = 58, false, Failed;
    UNKNOWN_PRODUCER_ID = 59, false, Failed;
    REASSIGNMENT_IN_PROGRESS = 60, false, Failed;
    DELEGATION_TOKEN_AUTH_DISABLED = 61, false, Failed;
    DELEGATION_TOKEN_NOT_FOUND = 62, false, Failed;
    DELEGATION_TOKEN_OWNER_MISMATCH = 63, false, Failed;
    DELEGATION_TOKEN_REQUEST_NOT_ALLOWED = 64, false, Failed;
    DELEGATION_TOKEN_AUTHORIZATION_FAILED = 65, false, Failed;
    DELEGATION_TOKEN_EXPIRED = 66, false, Failed;
    INVALID_PRINCIPAL_TYPE = 67, false, Failed;
    NON_EMPTY_GROUP = 68, false, Failed;
    GROUP_ID_NOT_FOUND = 69, false, Failed;
    FETCH_SESSION_ID_NOT_FOUND = 70, true, Failed;
    INVALID_FETCH_SESSION_EPOCH = 71, true, Failed;
    LISTENER_NOT_FOUND = 72, true, Failed;
    TOPIC_DELETION_DISABLED = 73, false, Failed;
    FENCED_LEADER_EPOCH = 74, true, Failed;
    UNKNOWN_LEADER_EPOCH = 75, true, Failed;
    UNSUPPORTED_COMPRESSION_TYPE = 76, false, Failed;
    STALE_BROKER_EPOCH = 77, false, Failed;
    OFFSET_NOT_AVAILABLE = 78, true, Failed;
    MEMBER_ID_REQUIRED = 79, false, Failed;
    PREFERRED_LEADER_NOT_AVAILABLE = 80, true, Failed;
    GROUP_MAX_SIZE_REACHED = 81, false, Failed;
    FENCED_INSTANCE_ID = 82, false, Failed;
    ELIGIBLE_LEADERS_NOT_AVAILABLE = 83, true, Failed;
    ELECTION_NOT_NEEDED = 84, true, Failed;
    NO_REASSIGNMENT_IN_PROGRESS = 85, false, Failed;
    GROUP_SUBSCRIBED_TO_TOPIC = 86, false, Failed;
    INVALID_RECORD = 87, false, Failed;
    UNSTABLE_OFFSET_COMMIT = 88, true, Failed;
    THROTTLING_QUOTA_EXCEEDED = 89, true, Failed;
    PRODUCER_FENCED = 90, false, Failed;
    RESOURCE_NOT_FOUND = 91, false, Failed;
    DUPLICATE_RESOURCE = 92, false, Failed;
    UNACCEPTABLE_CREDENTIAL = 93, false, Failed;
    INCONSISTENT_VOTER_SET = 94, false, Failed;
    INVALID_UPDATE_VERSION = 95, false, Failed;
    FEATURE_UPDATE_FAILED = 96, false, Failed;
    PRINCIPAL_DESERIALIZATION_FAILURE = 97, false, Failed;
    SNAPSHOT_NOT_FOUND = 98, false, Failed;
    POSITION_OUT_OF_RANGE = 99, false, Failed;
    UNKNOWN_TOPIC_ID = 100, true, Failed;
    DUPLICATE_BROKER_REGISTRATION = 101, false, Failed;
    BROKER_ID_NOT_REGISTERED = 102, false, Failed;
    INCONSISTENT_TOPIC_ID = 103, true, Failed;
    INCONSISTENT_CLUSTER_ID = 104, false, Failed;
    TRANSACTIONAL_ID_NOT_FOUND = 105, false, Failed;
    FETCH_SESSION_TOPIC_ID_ERROR = 106, true, Failed;
    INELIGIBLE_REPLICA = 107, false, Failed;
    NEW_LEADER_ELECTED = 108, false, Failed;
    OFFSET_MOVED_TO_TIERED_STORAGE = 109, false, Failed;
    FENCED_MEMBER_EPOCH = 110, false, Failed;
    UNRELEASED_INSTANCE_ID = 111, false, Failed;
    UNSUPPORTED_ASSIGNOR = 112, false, Failed;
    STALE_MEMBER_EPOCH = 113, false, Failed;
    MISMATCHED_ENDPOINT_TYPE = 114, false, Failed;
    UNSUPPORTED_ENDPOINT_TYPE = 115, false, Failed;
    UNKNOWN_CONTROLLER_ID = 116, false, Failed;
    UNKNOWN_SUBSCRIPTION_ID = 117, false, Failed;
    TELEMETRY_TOO_LARGE = 118, false, Failed;
    INVALID_REGISTRATION = 119, false, Failed;
    TRANSACTION_ABORTABLE = 120, false, Failed;
    INVALID_RECORD_STATE = 121, false, Failed;
    SHARE_SESSION_NOT_FOUND = 122, true, Failed;
    INVALID_SHARE_SESSION_EPOCH = 123, true, Failed;
    FENCED_STATE_EPOCH = 124, false, Failed;
    INVALID_VOTER_KEY = 125, false, Failed;
    DUPLICATE_VOTER = 126, false, Failed;
    VOTER_NOT_FOUND = 127, false, Failed;
    INVALID_REGULAR_EXPRESSION = 128, false, Failed;
    REBOOTSTRAP_REQUIRED = 129, false, Failed;
    STREAMS_INVALID_TOPOLOGY = 130, false, Failed;
    STREAMS_INVALID_TOPOLOGY_EPOCH = 131, false, Failed;
    STREAMS_TOPOLOGY_FENCED = 132, false, Failed;
    SHARE_SESSION_LIMIT_REACHED = 133, true, Failed;
}

impl ErrorCode {
    pub const fn from_code(code: i16) -> Self {
        Self(code)
    }

    pub const fn code(self) -> i16 {
        self.0
    }

    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// `Ok` for [`ErrorCode::NONE`], so that `?` can follow.
    pub const fn ok(self) -> Result<(), ErrorCode> {
        if self.is_ok() { Ok(()) } else { Err(self) }
    }

    fn row(self) -> Option<&'static Row> {
        TABLE.binary_search_by_key(&self, |row| row.code).ok().map(|at| &TABLE[at])
    }

    /// The name in Kafka's documentation.
    pub fn name(self) -> Option<&'static str> {
        if self.is_ok() { Some("NONE") } else { self.row().map(|row| row.name) }
    }

    /// The same request may succeed later. Codes not in the table are not retriable.
    pub fn retriable(self) -> bool {
        self.row().is_some_and(|row| row.retriable)
    }

    /// What this answer to a write says about the write. Codes not in the table are `Unknown`.
    pub fn certainty(self) -> Certainty {
        self.row().map_or(Certainty::Unknown, |row| row.certainty)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "error code {}", self.0),
        }
    }
}

impl std::fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ErrorCode {}

impl From<i16> for ErrorCode {
    fn from(code: i16) -> Self {
        Self(code)
    }
}

impl From<ErrorCode> for i16 {
    fn from(code: ErrorCode) -> Self {
        code.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_agrees_with_the_crate() {
        assert!(TABLE.is_sorted_by_key(|row| row.code));
        for row in TABLE {
            let theirs = kafka_protocol::error::ResponseError::try_from_code(row.code.code()).unwrap();
            // Retriable since KIP-890; the crate's table is older.
            if row.code != ErrorCode::CONCURRENT_TRANSACTIONS {
                assert_eq!(row.retriable, theirs.is_retriable(), "{}", row.code);
            }
        }
    }

    #[test]
    fn names_and_defaults() {
        assert_eq!(ErrorCode::default(), ErrorCode::NONE);
        assert_eq!(ErrorCode::NOT_LEADER_OR_FOLLOWER.to_string(), "NOT_LEADER_OR_FOLLOWER (6)");
        assert_eq!(ErrorCode::from(999).to_string(), "error code 999");
        assert_eq!(ErrorCode::from(999).certainty(), Certainty::Unknown);
        assert!(!ErrorCode::from(999).retriable());
        assert_eq!(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND.certainty(), Certainty::Unknown);
        assert_eq!(ErrorCode::NOT_ENOUGH_REPLICAS.certainty(), Certainty::Failed);
    }
}
