//! The stream processor: a Kafka source with per-split watermarks, records shuffled by key group to window tasks, and
//! aligned barrier checkpoints whose rows a two-phase sink commits (semantics.md is the reference).
//!
//! ```text
//!                 coordinator ── deploy, trigger, commit ──┐   (one node; checkpoints on its own disk)
//!                      ▲ register, ack, ended, failed      ▼
//!   worker   source-0 ─────▶ window-0 ─▶ sink      worker  source-1 ─▶ window-1 ─▶ sink
//!              splits 0,2  ╲▶ window-1                      splits 1,3
//! ```
//! Decisions are pure machines ([`watermark`], [`window`], [`source`], [`checkpoint`], [`coordinator`]); drivers carry
//! them out, with a crash point around every action. Every message carries the attempt's generation.

pub mod checkpoint;
pub mod codec;
pub mod control;
pub mod coordinator;
pub mod decision;
pub mod decode;
pub mod job;
pub mod keys;
mod metrics;
pub mod probe;
pub mod record;
pub mod restart;
pub mod shuffle;
pub mod source;
pub mod state;
mod task_set;
pub mod watermark;
pub mod window;
pub mod worker;

pub use self::metrics::WorkerMetrics;
