//! The layouts of the messages, in the order of the wire: kind of each field and the versions that have it. Taken from
//! the message definitions of Apache Kafka as the `kafka-protocol` crate decodes them; a test compares the two.

mod cluster;
mod group;
mod quorum;
mod records;
mod txn;

pub(crate) use txn::{WRITE_TXN_MARKERS_REQUEST, WRITE_TXN_MARKERS_RESPONSE};
