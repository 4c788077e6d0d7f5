//! A Kafka-compatible broker: the wire protocol over sockets, topics in a metadata log, partitions on disk,
//! transactions and consumer offsets as records of internal topics.
//!
//! | module | one line |
//! |--|--|
//! | `broker`, `config`, `data_dir`, `failure` | from start to stop |
//! | `server`, `connection`, `turn`, `dispatch` | from bytes to handlers and back |
//! | `lifecycle`, `controller_channel` | membership of the cluster, and the way to its controller |
//! | `view` | what this broker knows of its cluster, for whoever runs it |
//! | `metadata` | the metadata log: topics, brokers, producer-id blocks |
//! | `controller` | what the metadata log decides: liveness, leaders, in-sync sets, topics |
//! | `topics`, `create_topics`, `metadata_api`, `describe`, `find_coordinator`, `api_versions` | what clients ask about the cluster |
//! | `producer_ids` | ids from blocks |
//! | `txn` | the transaction coordinator |
//! | `group` | consumer groups and their offsets |
//! | `partition`, `produce`, `fetch`, `list_offsets`, `delete_records`, `purgatory` | records |
//! | `peer` | calls to other brokers |
//! | `metrics` | what it can be measured by |

mod api_versions;
mod broker;
mod cleaner;
mod codec;
pub mod config;
mod connection;
mod context;
pub mod controller;
mod controller_channel;
mod create_topics;
mod data_dir;
mod delete_records;
mod describe;
mod dispatch;
pub mod failure;
mod fetch;
mod fetch_session;
mod find_coordinator;
pub mod group;
mod ids;
mod internal_topics;
mod join;
mod lifecycle;
mod list_offsets;
pub mod log_settings;
pub mod metadata;
mod metadata_api;
mod metrics;
mod offset_for_leader_epoch;
pub mod partition;
pub mod peer;
mod peers;
pub mod probe;
mod produce;
mod producer_ids;
mod purgatory;
pub mod quorum;
mod replication;
mod server;
mod topics;
mod turn;
pub mod txn;
mod view;

pub use self::metrics::{Metrics, Observer};
pub use broker::Broker;
pub use config::{BrokerConfig, Flush};
pub use context::Context;
pub use failure::{BrokerError, Failure};
pub use turn::Turn;
pub use view::View;
