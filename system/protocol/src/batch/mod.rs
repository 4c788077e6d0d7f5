//! Record batches, format v2 (KIP-98): the unit of the log, of Produce and of Fetch.
//!
//! ```text
//! 0  base_offset i64          27 base_timestamp i64
//! 8  batch_length i32         35 max_timestamp i64
//! 12 partition_leader_epoch   43 producer_id i64
//! 16 magic i8 = 2             51 producer_epoch i16
//! 17 crc u32 (CRC-32C of 21..)53 base_sequence i32
//! 21 attributes i16           57 records_count i32
//! 23 last_offset_delta i32    61 records
//! ```
//! `batch_length` counts from byte 12. Base offset and leader epoch are outside the checksum, so that a broker assigns
//! them without touching the rest.

mod builder;
mod compression;
mod control;
mod header;
mod record;
mod retain;

pub use builder::BatchBuilder;
pub use compression::{Compression, Limits};
pub use control::{ControlRecord, ControlType};
pub use header::{BatchHeader, HEADER_LEN, add_sequence, assign, split};
pub use record::{Record, check_records, decode_records};
pub use retain::retain;

/// `producer_id` of a batch without a producer's identity.
pub const NO_PRODUCER_ID: i64 = -1;
/// `producer_epoch` of a batch without a producer's identity.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// `base_sequence` of a batch without a producer's identity, and of control batches.
pub const NO_SEQUENCE: i32 = -1;

/// Why bytes are not a record batch, or its records cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header or its length say. At the end of a fetched set it means "the rest comes next time".
    #[error("batch of {wanted} bytes, {left} left")]
    Truncated { wanted: usize, left: usize },
    #[error("record format v{0}, only v2 is supported")]
    Magic(i8),
    #[error("batch length {0} is impossible")]
    Length(i32),
    #[error("checksum {found:#010x}, header says {expected:#010x}")]
    Crc { expected: u32, found: u32 },
    #[error("unknown compression type {0}")]
    UnknownCompression(u8),
    #[error("failed to decompress {compression}: {reason}")]
    Decompress { compression: Compression, reason: String },
    #[error("records decompress to more than {max} bytes")]
    TooLarge { max: usize },
    #[error("malformed batch: {0}")]
    Malformed(&'static str),
}
