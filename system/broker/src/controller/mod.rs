//! The controller: which brokers live, where partitions lie, who leads them, and what else the metadata log decides.
//! One node is the active controller, the leader of the metadata quorum; it alone holds a [`machine::Machine`].
//!
//! | file | one line |
//! |--|--|
//! | `proposal` | what can be asked, and the answers |
//! | `machine` | decisions in order, each on the state that all before lead to; pure |
//! | `brokers` | registration, heartbeats, fencing, controlled shutdown |
//! | `partitions` | in-sync sets as their leaders ask for them, elections |
//! | `topics` | topics, partitions and settings as clients ask for them |
//! | `election` | the leader, the in-sync set and the eligible set of one partition |
//! | `placement` | where replicas go |
//! | `liveness` | sessions |
//! | `configs` | the settings of topics |
//! | `api` | what brokers ask of it over the network |
//! | `admin` | what clients ask of it, by way of any broker |

pub(crate) mod admin;
pub(crate) mod api;
mod brokers;
pub mod configs;
pub mod election;
pub mod liveness;
pub mod machine;
mod partitions;
pub mod placement;
pub mod proposal;
mod topics;
