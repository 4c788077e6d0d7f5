//! The metadata log: what topics, brokers and producer ids exist, in the shape of KRaft.
//!
//! | file | one line |
//! |--|--|
//! | `records` | the records of `__cluster_metadata` |
//! | `codec` | how they are written |
//! | `image` | the state they replay to |
//! | `snapshot` | that state as records |
//! | `driver` | the quorum's replica followed, and the handle others use |

mod codec;
mod driver;
pub mod image;
pub mod records;
mod snapshot;

pub use driver::Metadata;
pub use image::{BrokerState, MetadataImage, PartitionState, TopicState};
