//! Consumer groups: who is a member and reads what, and the offsets they commit.
//!
//! | file | one line |
//! |--|--|
//! | `machine` | the groups of one partition of `__consumer_offsets`, pure |
//! | `classic`, `consumer` | a group of either protocol |
//! | `offsets` | the offsets of that partition, pure |
//! | `expiry` | which offsets are past their retention, pure |
//! | `timers` | deadlines of members and rebalances |
//! | `records` | the partition's records, in Kafka's formats |
//! | `shard`, `work` | its driver; what that appends |
//! | `coordinator` | the handle: routes to shards |
//! | `api` | the handlers |

pub mod api;
pub mod classic;
pub mod consumer;
mod coordinator;
pub mod expiry;
pub mod machine;
pub mod offsets;
pub mod records;
mod shard;
pub mod timers;
mod work;

pub use coordinator::GroupCoordinator;
pub use machine::GroupConfig;
