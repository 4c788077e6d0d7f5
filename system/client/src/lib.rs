//! The Kafka client of the system: producer (idempotent, transactional, two-phase), consumer by assignment and in groups
//! of either protocol, admin.
//!
//! Decisions live in pure machines (`producer::machine`, `producer::transaction`, `consumer::machine`, `group::{classic, modern,
//! assignor}`, `metadata`,
//! `backoff`); the rest moves bytes and waits. It speaks with any broker that answers ApiVersions, and tells the truth
//! about what it does not know: a time-out or a lost connection makes an outcome unknown, and it stays so (semantics
//! rule 20, [`Outcome`]).

mod admin;
mod backoff;
mod client;
mod config;
mod connection;
mod consumer;
mod error;
pub mod group;
mod metadata;
pub mod partitioner;
pub mod probe;
mod producer;

pub use admin::{Admin, CommittedOffset, NewTopic, OffsetSpec};
pub use client::Client;
pub use config::ClientConfig;
pub use consumer::{Consumer, ConsumerConfig, FetchError, FetchResult, Isolation, OutOfRange};
pub use error::{ClientError, Outcome, Remedy, SendError, TxnError};
pub use group::{
    GroupConfig, GroupConsumer, GroupError, GroupMetadata, GroupProtocol, Polled, Reset, assignor::Assignor,
};
pub use metadata::{Leader, Metadata, Node, Topic, TopicPartition};
pub use producer::{
    Acks, Completion, Delivery, Initialized, Producer, ProducerConfig, ProducerIdEpoch, Record, RecordMetadata,
};
