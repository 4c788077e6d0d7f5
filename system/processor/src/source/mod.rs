//! The Kafka source: a task reads several splits (partitions), each with its own position, W and idleness.
//! [`SourceMachine`] decides; fetching and sending is the driver's ([`crate::worker`]).

mod machine;

pub use machine::{Action, Fetched, SourceMachine, SourceRecord};
