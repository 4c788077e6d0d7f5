//! One partition's log on disk: segments of Kafka v2 record batches, what is derived from them, and recovery.
//!
//! Guarantees, for an offset below [`Log::flushed_offset`]: its batch survives power loss, and is found again by
//! [`Log::open`] with the producer state, transactions and leader epochs that it implies. Offsets are contiguous but
//! for the holes that compaction leaves. A bad byte in a page that was sealed is reported as [`LogError::Corrupt`], never cut
//! away.
//!
//! It leaves to others: which appends to accept (the broker asks [`ProducerStates::check`] first), the high watermark,
//! acknowledgement, and replication; when to clean and what to retain is decided here and set off there. A log need not
//! start at offset 0, and a compacted one, or a copy of one, has holes.
//!
//! A partition's directory, with Kafka's own file names:
//!
//! | file | holds | if lost or torn |
//! |--|--|--|
//! | `<base>.log` | record batches, base offset in the name | the unsealed tail is cut, a sealed page is an error |
//! | `<base>.pages` | a checksum for each sealed (full and synced) 4 KiB page | rebuilt from the batches, by their CRC |
//! | `<base>.index`, `.timeindex` | sparse offset and time index of a closed segment | rebuilt from the batches |
//! | `<base>.txnindex` | aborted transactions whose marker is in the closed segment | rebuilt from the batches |
//! | `<base>.log.cleaned`, `<base>-<end>.log.swap` | a compacted segment on its way ([`compaction`]) | removed, finished |
//! | `offset-checkpoint` | log start, how far it is compacted, whether it has holes | starts at its first segment; all dirty |
//! | `<offset>.snapshot` | producers and leader epochs just before `offset`; synced before the segment `offset` exists | an older one plus the batches since |
//!
//! The order of durable steps, which recovery leans on (`roll`): data of the old segment is synced, then its snapshot
//! is, then the new file is created, then the directory is synced, and only then anything is appended to the new
//! file. So only the last segment can be torn, and a successor proves that its predecessor is whole.

mod checkpoint;
pub mod compaction;
mod config;
mod error;
mod format;
mod index;
mod leader_epoch;
mod log;
mod pages;
mod prefix;
mod producer_state;
mod read;
mod recovery;
mod retention;
mod scan;
mod segment;
mod snapshot;
mod time_index;
mod txn_index;

pub use compaction::{CleanerConfig, SegmentInfo};
pub use config::LogConfig;
pub use error::LogError;
pub use leader_epoch::LeaderEpochs;
pub use log::{Appended, Flushed, Log, TxnChange};
pub use producer_state::{
    Marker, MarkerVerdict, Origin, ProducerEntry, ProducerError, ProducerStates, TransactionVersion, Verdict,
};
pub use read::LogReader;
pub use recovery::{Cut, Recovery};
pub use retention::RetentionConfig;
pub use txn_index::AbortedTransaction;

/// A record's position in its partition, from 0.
pub type Offset = i64;

/// Bytes covered by one page checksum.
pub const PAGE_BYTES: usize = pages::PAGE;
