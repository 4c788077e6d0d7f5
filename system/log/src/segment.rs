//! One segment: a file of batches, and what is derived from it.

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use env::clock::Instant;
use env::disk::{File, Open};
use protocol::batch::BatchHeader;

use crate::index::{self, Extent, OffsetIndex};
use crate::pages::{PageFile, PageSums};
use crate::time_index::{self, TimeIndex};
use crate::txn_index::{self, TxnIndex};
use crate::{AbortedTransaction, LogError, Offset, format};

/// `max_timestamp` of a segment without records. Timestamps may be negative.
pub(crate) const NO_TIMESTAMP: i64 = i64::MIN;

/// A segment, the last of which is active. `size` and `next` cover what was written by calls that returned.
#[derive(Debug)]
pub(crate) struct Segment {
    pub base: Offset,
    /// One past its last offset; of a closed one, where the next begins.
    pub next: Offset,
    /// Bytes of batches.
    pub size: u64,
    pub max_timestamp: i64,
    pub first_append: Option<Instant>,
    pub path: PathBuf,
    pub file: File,
    pub page_file: PageFile,
    pub pages: PageSums,
    pub index: OffsetIndex,
    pub times: TimeIndex,
    /// Bytes since the last index entry.
    unindexed: u64,
}

pub(crate) fn log_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

impl Segment {
    /// Makes the files of a new segment. Its name is durable once the directory was synced. Files of that name that a
    /// crash left behind are emptied.
    pub async fn create(dir: &Path, base: Offset) -> Result<Self, LogError> {
        let path = log_path(dir, base);
        let file = File::open(&path, Open::OrCreate).await.map_err(LogError::write("create", &path))?;
        file.set_len(0).await.map_err(LogError::write("truncate", &path))?;
        let page_file = PageFile::open(path.with_extension("pages")).await?;
        page_file.truncate(0).await?;
        Ok(Self::empty(base, path, file, page_file))
    }

    /// Opens the files of an existing segment; what is in them is for the caller to read.
    pub async fn open(dir: &Path, base: Offset) -> Result<Self, LogError> {
        let path = log_path(dir, base);
        let file = File::open(&path, Open::Existing).await.map_err(LogError::storage("open", &path))?;
        let page_file = PageFile::open(path.with_extension("pages")).await?;
        Ok(Self::empty(base, path, file, page_file))
    }

    pub fn empty(base: Offset, path: PathBuf, file: File, page_file: PageFile) -> Self {
        Self {
            base,
            next: base,
            size: 0,
            max_timestamp: NO_TIMESTAMP,
            first_append: None,
            path,
            file,
            page_file,
            pages: PageSums::default(),
            index: OffsetIndex::default(),
            times: TimeIndex::default(),
            unindexed: 0,
        }
    }

    /// A batch was written at the end.
    pub fn note(&mut self, header: &BatchHeader, bytes: &[u8], index_interval: u32, now: Instant) {
        assert!(header.base_offset >= self.next, "batch at {} after {}", header.base_offset, self.next);
        let relative = u32::try_from(header.base_offset - self.base).unwrap_or(u32::MAX);
        if self.unindexed >= u64::from(index_interval) {
            self.index.push(relative, self.size as u32);
            self.unindexed = 0;
        }
        // Markers carry the broker's clock, and nobody looks for them by time.
        if !header.is_control() && header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.times.push(header.max_timestamp, relative);
        }
        self.pages.feed(bytes);
        self.unindexed += bytes.len() as u64;
        self.size += bytes.len() as u64;
        self.next = header.next_offset();
        self.first_append.get_or_insert(now);
    }

    /// Nothing will be appended; the next segment begins at `end`, maybe after a hole.
    pub fn close(&mut self, end: Offset) {
        assert!(self.next <= end, "segment of {} ends at {}, past {end}", self.base, self.next);
        self.next = end;
        self.pages.close();
    }

    fn extent(&self) -> Extent {
        Extent { size: self.size, end: self.next, max_timestamp: self.max_timestamp }
    }

    /// The index files of a closed segment, ready to be written: not synced, since any of them can be rebuilt.
    pub fn side_files(&self, aborted: &TxnIndex) -> Vec<(PathBuf, format::Kind, BytesMut)> {
        let file = |extension: &str, kind, fill: &dyn Fn(&mut BytesMut)| {
            let mut payload = BytesMut::new();
            self.extent().encode(&mut payload);
            fill(&mut payload);
            (self.path.with_extension(extension), kind, payload)
        };
        vec![
            file("index", index::KIND, &|out| self.index.encode(out)),
            file("timeindex", time_index::KIND, &|out| self.times.encode(out)),
            file("txnindex", txn_index::KIND, &|out| aborted.encode(self.base, self.next, out)),
        ]
    }

    /// Takes what a closed segment needs from the files beside it. `None` if any is missing, damaged or of another
    /// extent: then the segment must be scanned.
    pub async fn load_closed(&mut self, end: Offset) -> Result<Option<Vec<AbortedTransaction>>, LogError> {
        let size = self.file.len().await.map_err(LogError::storage("stat", &self.path))?;
        let mut payloads = Vec::new();
        let kinds = [("index", index::KIND), ("timeindex", time_index::KIND), ("txnindex", txn_index::KIND)];
        let mut extent = None;
        for (extension, kind) in kinds {
            let Some(mut payload) = format::load(kind, &self.path.with_extension(extension)).await? else {
                return Ok(None);
            };
            let Some(found) = Extent::decode(&mut payload) else { return Ok(None) };
            if found.size != size || found.end != end || extent.is_some_and(|e| e != found) {
                return Ok(None);
            }
            extent = Some(found);
            payloads.push(payload);
        }
        let pages = self.page_file.load(size).await?.into_closed(size);
        let (Some(extent), Some(pages)) = (extent, pages) else { return Ok(None) };
        let aborted = payloads.pop().and_then(|p| TxnIndex::decode(p, self.base, end));
        let times = payloads.pop().and_then(TimeIndex::decode);
        let offsets = payloads.pop().and_then(|p| OffsetIndex::decode(p, size));
        let (Some(aborted), Some(times), Some(offsets)) = (aborted, times, offsets) else { return Ok(None) };
        self.size = extent.size;
        self.next = extent.end;
        self.max_timestamp = extent.max_timestamp;
        (self.index, self.times, self.pages) = (offsets, times, pages);
        Ok(Some(aborted))
    }

    /// Forgets what was read, before a scan.
    pub fn reset(&mut self) {
        let page_file = self.page_file.clone();
        *self = Self::empty(self.base, std::mem::take(&mut self.path), self.file.clone(), page_file);
    }
}
