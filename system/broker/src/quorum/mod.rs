//! The quorum that keeps the metadata log, in the shape of KRaft (KIP-595, 630, 996).
//!
//! | file | one line |
//! |--|--|
//! | `message` | what replicas say to each other |
//! | `log_view` | what the machine knows of its log |
//! | `state` | epoch and vote, as kept on disk |
//! | `machine` | the protocol, pure |
//!
//! Rules that everything rests on:
//! - one vote an epoch, on disk before it is answered;
//! - a position is acknowledged by fetching from it, and only what is durable is fetched past;
//! - a majority's ends commit a record only in the epoch that wrote it, or below one of that epoch (Raft 5.4.2);
//! - a voter that lost its disk neither votes nor stands until it cannot harm what it once promised (`machine::joining`).

pub(crate) mod driver;
mod handle;
pub mod log_view;
pub mod machine;
pub mod message;
pub mod rpc;
pub(crate) mod snapshot;
pub mod state;

pub use driver::Membership;
pub(crate) use driver::{Event, Incoming, Replica};
pub use handle::Quorum;
