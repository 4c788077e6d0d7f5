//! A Kafka-compatible broker: the wire protocol over sockets, topics in a metadata log, partitions on disk,
//! transactions and consumer offsets as records of internal topics.

pub mod config;
pub mod failure;
pub mod partition;
mod purgatory;

pub use config::{BrokerConfig, Flush};
pub use failure::{BrokerError, Failure};
