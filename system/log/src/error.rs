//! How a log fails.

use std::io;
use std::path::{Path, PathBuf};

use crate::Offset;

/// What went wrong, and whether the log can go on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk is full. Nothing was appended and the log is as it was before the call.
    #[error("failed to append to {}: no space left", path.display())]
    Full { path: PathBuf, source: io::Error },
    /// A disk call failed. What is in the files is unknown (after a failed sync, a later one that succeeds proves
    /// nothing), so the log refuses everything from here on: open it anew.
    #[error("failed to {what} {}: {source}", path.display())]
    Storage { what: &'static str, path: PathBuf, source: io::Error },
    /// An earlier call failed with [`LogError::Storage`].
    #[error("failed to use the log in {}: an earlier disk call failed", path.display())]
    Poisoned { path: PathBuf },
    /// Bytes that were durable are not what was written.
    #[error("failed to verify {} at byte {position} (offset {offset}): {reason}", path.display())]
    Corrupt { path: PathBuf, position: u64, offset: Offset, reason: String },
    /// A file of a later version of this program.
    #[error("failed to read {}: format version {version} is not known", path.display())]
    Unsupported { path: PathBuf, version: u16 },
    /// The offset asked for is not in the log.
    #[error("failed to read offset {offset}: the log holds {start} to {end}")]
    OutOfRange { offset: Offset, start: Offset, end: Offset },
    /// Bytes given to append are not complete, valid record batches. Nothing was appended.
    #[error("failed to append: {reason}")]
    Invalid { reason: String },
}

impl LogError {
    /// Whether the log is still usable and unchanged.
    pub fn is_clean(&self) -> bool {
        matches!(self, LogError::Full { .. } | LogError::OutOfRange { .. } | LogError::Invalid { .. })
    }

    pub(crate) fn storage(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
        let path = path.to_owned();
        move |source| LogError::Storage { what, path, source }
    }

    /// A failed write or create: clean if the disk was full, else fatal.
    pub(crate) fn write(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LogError::Full { path, source },
            _ => LogError::Storage { what, path, source },
        }
    }
}
