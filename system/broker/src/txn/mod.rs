//! Transactions: the coordinator, its log and its drivers.
//!
//! | file | one line |
//! |--|--|
//! | `state` | one transactional id: states and identities |
//! | `machine` | the coordinator's decisions, pure |
//! | `records` | the records of `__transaction_state` |
//! | `shard` | the driver of one partition of it |
//! | `coordinator` | the handle: routes to shards |
//! | `markers` | the end of a transaction, as partitions take it |
//! | `marker_sender` | the coordinator's way to send it |
//! | `verification` | what a partition's leader asks the coordinator first |
//! | `api` | the requests of producers |
//! | `listing` | what is told of transactional ids |

pub mod api;
mod coordinator;
pub(crate) mod listing;
pub mod machine;
mod marker_sender;
pub mod markers;
pub mod records;
mod shard;
pub mod state;
pub(crate) mod verification;

pub use coordinator::TxnCoordinator;
