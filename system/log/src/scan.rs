//! Walking the batches of a segment file from its head, with every check a batch allows.

use bytes::{Bytes, BytesMut};
use env::disk::File;
use protocol::batch::{BatchError, BatchHeader, HEADER_LEN};

use crate::{LogError, Offset};

const CHUNK: usize = 256 * 1024;

/// The next thing in a segment.
#[derive(Debug)]
pub(crate) enum Step {
    Batch {
        header: BatchHeader,
        bytes: Bytes,
    },
    End,
    /// No good batch starts at this position. Everything before it is good.
    Bad {
        position: u64,
        reason: String,
    },
}

/// Reads a file from byte 0, batch by batch. A batch is good if its header parses, it is complete, its CRC holds and its
/// base offset follows the batch before, or in a log with holes comes after it.
#[derive(Debug)]
pub(crate) struct Scanner {
    file: File,
    len: u64,
    /// Position of the first byte of `window`.
    position: u64,
    window: Bytes,
    expected: Offset,
    holes: bool,
}

impl Scanner {
    pub fn new(file: File, len: u64, base: Offset, holes: bool) -> Self {
        Self { file, len, position: 0, window: Bytes::new(), expected: base, holes }
    }

    /// Where the next step begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub async fn next(&mut self) -> std::io::Result<Step> {
        if self.position >= self.len {
            return Ok(Step::End);
        }
        let position = self.position;
        let bad = |reason: String| Ok(Step::Bad { position, reason });
        if !self.fill(HEADER_LEN).await? {
            return bad("header is cut short".into());
        }
        let header = match BatchHeader::parse(&self.window) {
            Ok(header) => header,
            Err(e) => return bad(e.to_string()),
        };
        if header.base_offset < self.expected || (header.base_offset > self.expected && !self.holes) {
            let reason = format!("offset {} where {} is expected", header.base_offset, self.expected);
            return bad(reason);
        }
        let total = header.total_len();
        if !self.fill(total).await? {
            let left = self.len - self.position;
            return bad(BatchError::Truncated { wanted: total, left: left as usize }.to_string());
        }
        if let Err(e) = header.verify_crc(&self.window) {
            return bad(e.to_string());
        }
        let bytes = self.window.split_to(total);
        self.position += total as u64;
        self.expected = header.next_offset();
        Ok(Step::Batch { header, bytes })
    }

    /// Makes the window at least `wanted` long; false if the file is too short for that.
    async fn fill(&mut self, wanted: usize) -> std::io::Result<bool> {
        if self.window.len() >= wanted {
            return Ok(true);
        }
        let at = self.position + self.window.len() as u64;
        let left = self.len.saturating_sub(at);
        if (self.window.len() as u64).saturating_add(left) < wanted as u64 {
            return Ok(false);
        }
        let more = (wanted - self.window.len()).max(CHUNK).min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.file.read_at(at, more).await?;
        if self.window.is_empty() {
            self.window = read;
        } else {
            let mut joined = BytesMut::with_capacity(self.window.len() + read.len());
            joined.extend_from_slice(&self.window);
            joined.extend_from_slice(&read);
            self.window = joined.freeze();
        }
        Ok(self.window.len() >= wanted)
    }
}

/// A closed segment holds nothing bad: its successor proves that it was durable as a whole.
pub(crate) fn corrupt(path: &std::path::Path, position: u64, offset: Offset, reason: impl Into<String>) -> LogError {
    LogError::Corrupt { path: path.to_owned(), position, offset, reason: reason.into() }
}
