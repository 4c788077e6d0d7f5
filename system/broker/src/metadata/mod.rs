//! The metadata log: what topics, brokers and producer ids exist, in the shape of KRaft.
//!
//! | file | one line |
//! |--|--|
//! | `records` | the records of `__cluster_metadata` |
//! | `image` | the state they replay to |
//! | `machine` | the controller's decisions, pure |
//! | `driver` | the log on disk, and the handle others use |

mod driver;
pub mod image;
pub mod machine;
pub mod records;

pub use driver::Metadata;
pub use image::{BrokerState, MetadataImage, PartitionState, TopicState};
pub use machine::{NewTopic, Outcome, Proposal};
