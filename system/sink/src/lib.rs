//! Sinks: how a task's rows become visible exactly once, or at least once.
//!
//! ```text
//!   begin(n) ── write … ── pre_commit(n) ──▶ checkpoint n complete ──▶ commit(n)
//!                              └ begin(n + 1) in the other slot ── write …
//! ```
//! [`SinkWriter`] is the contract; [`Transactional`] keeps it with two prepared transactions in turn,
//! [`AtLeastOnce`] with acknowledgements alone.

mod at_least_once;
mod outbox;
mod router;
mod transactional;
mod writer;

pub use at_least_once::AtLeastOnce;
pub use transactional::Transactional;
pub use writer::{Pending, Prepared, SinkError, SinkRecord, SinkWriter};
