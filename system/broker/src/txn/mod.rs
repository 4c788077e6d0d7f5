//! Transactions: the coordinator, its log and its drivers.
//!
//! | file | one line |
//! |--|--|
//! | `state` | one transactional id: states and identities |
//! | `machine` | the coordinator's decisions, pure |
//! | `records` | the records of `__transaction_state` |
//! | `shard` | the driver of one partition of it |
//! | `coordinator` | the handle: routes to shards |
//! | `markers` | WriteTxnMarkers, over the wire and in process |
//! | `api` | the requests of producers |

pub mod api;
mod coordinator;
pub mod machine;
#[cfg(test)]
mod machine_tests;
pub mod markers;
pub mod records;
mod shard;
pub mod state;

pub use coordinator::TxnCoordinator;
