//! What a node can be measured by: counters that it owns, a snapshot of them as families, the text that Prometheus reads,
//! and the endpoint that serves it.
//!
//! | module | one line |
//! |--|--|
//! | `counter` | a number that only rises, owned by the node that counts |
//! | `snapshot` | families of samples as they are now, bounded, and their text |
//! | `endpoint` | `GET /metrics` over `env` |
//! | `stream` | `env`'s sockets as hyper reads and writes them |
//!
//! A node is single-threaded, so counting is one add to a cell; nothing is rendered, drawn or timed before somebody
//! asks. `prometheus-client` was looked at and left: its registry wants `Send + Sync` and keeps a family's series in a
//! hash map, whose order would change from one scrape to the next.

mod counter;
pub mod endpoint;
mod snapshot;
mod stream;

pub use counter::Counter;
pub use snapshot::{CONTENT_TYPE, Labels, MAX_SERIES, Snapshot};
