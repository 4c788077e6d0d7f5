//! Log compaction: of the records of a key only the newest stays (KIP-58, KIP-98, KIP-534).
//!
//! A pass reads the dirty part of a log into a map of each key's newest offset, then writes the log anew up to there,
//! segment by segment from its start, without what the map supersedes. Offsets never change; a reader finds holes.
//!
//! | file | one line |
//! |--|--|
//! | `plan` | whether to clean, how far, which segments become one |
//! | `offset_map` | each key's newest offset, bounded in memory |
//! | `filter` | what stays of a batch |
//! | `cleaner` | reads and writes beside the log, which goes on being appended to and read |
//! | `swap` | puts what was written in the place of the segments it is of; finishes that after a crash |
//!
//! Guarantees: nothing at or past the high watermark or the last stable offset is touched, nor is the active segment. Each
//! replica cleans on its own; below the high watermark any record that two of them hold is the same. What is derived from a
//! log is what it was: leader epochs, and of each producer that is remembered its last batch.
//!
//! It leaves to whoever sets `delete_retention_ms`: a reader or replica that is away for longer may miss a tombstone, or
//! the marker of a transaction it has the beginning of.

mod cleaner;
mod filter;
mod offset_map;
mod plan;
mod swap;

pub use cleaner::{Cleaned, LogCleaner, Pass};
pub use plan::Dirty;
pub(crate) use swap::{Leftover, complete, is_replaced, leftover};

use crate::Offset;
use crate::segment::Segment;

/// Knobs of a cleaner, by Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CleanerConfig {
    /// A log is cleaned when more than this share of its cleanable bytes is dirty, 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// How long a tombstone, and the marker of a transaction that has no batch left, stays for readers on their way.
    pub delete_retention_ms: u64,
    /// A segment with a record younger than this is not cleaned.
    pub min_compaction_lag_ms: u64,
    /// Memory of the map of keys (`log.cleaner.dedupe.buffer.size`). A dirty part with more keys takes several passes.
    pub dedupe_buffer_bytes: usize,
}

impl Default for CleanerConfig {
    fn default() -> Self {
        Self {
            min_cleanable_dirty_ratio: 0.5,
            delete_retention_ms: 24 * 3600 * 1000,
            min_compaction_lag_ms: 0,
            dedupe_buffer_bytes: 128 << 20,
        }
    }
}

/// What decisions need to know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    pub base: Offset,
    /// Where the next one begins.
    pub next: Offset,
    pub bytes: u64,
    /// Greatest record timestamp in milliseconds, `i64::MIN` if there is none.
    pub max_timestamp: i64,
}

impl SegmentInfo {
    pub(crate) fn of(s: &Segment) -> Self {
        Self { base: s.base, next: s.next, bytes: s.size, max_timestamp: s.max_timestamp }
    }
}
