//! The Kafka wire protocol behind a door of our own.
//!
//! Messages and their encodings come from the `kafka-protocol` crate. What this crate adds is what a server that faces
//! strangers needs: frames with a maximum, array counts checked against the bytes left before anything is allocated,
//! decompression with a limit, InitProducerId v6 (KIP-939) and WriteTxnMarkers v2 (KIP-1228), error codes with their
//! meaning for delivery, and record batches (format v2) that are read, split and built without copying records around.
//!
//! It leaves to others: sockets, which versions a broker advertises, and every rule about what a request does.
//!
//! | module | one line |
//! |--|--|
//! | [`frame`] | bytes of a connection to frames and back |
//! | [`request`], [`response`] | frames to messages and back |
//! | [`api`] | the APIs and versions this crate can speak |
//! | `body` | the two enums of messages, from the one table of APIs |
//! | [`consumer_protocol`] | what members of a classic consumer group tell each other |
//! | [`error_code`] | Kafka's error codes: retriable or not, failed or unknown |
//! | [`batch`] | record batches, records, control records, compression |

pub mod api;
pub mod batch;
mod body;
pub mod consumer_protocol;
pub mod error_code;
pub mod frame;
mod guard;
pub mod init_producer_id;
mod primitives;
pub mod request;
pub mod response;
pub mod write_txn_markers;

pub use api::{ApiKey, VersionRange};
pub use body::{RequestBody, ResponseBody};
pub use error_code::{Certainty, ErrorCode};
pub use init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
pub use kafka_protocol::{messages, protocol as wire};
pub use request::Request;
pub use uuid::Uuid;
pub use wire::StrBytes;
pub use write_txn_markers::WriteTxnMarkersRequest;

/// A string of the wire, from anything that is a string.
pub fn str_bytes(s: impl Into<String>) -> StrBytes {
    StrBytes::from_string(s.into())
}

/// A topic's name as the messages carry it.
pub fn topic_name(s: impl Into<String>) -> messages::TopicName {
    messages::TopicName(str_bytes(s))
}
