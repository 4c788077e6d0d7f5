//! Consumer groups' offsets: committed, fetched, committed inside transactions. Membership comes with replication;
//! consumers assign their partitions themselves.
//!
//! | file | one line |
//! |--|--|
//! | `machine` | the offsets of one partition of `__consumer_offsets`, pure |
//! | `records` | its records |
//! | `shard` | its driver |
//! | `coordinator` | the handle: routes to shards |
//! | `api` | OffsetCommit, OffsetFetch, TxnOffsetCommit |

pub mod api;
mod coordinator;
pub mod machine;
pub mod records;
mod shard;

pub use coordinator::GroupCoordinator;
