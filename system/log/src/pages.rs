//! Checksums of 4 KiB pages of a segment. A Kafka batch's CRC leaves out its first 21 bytes (base offset, length, leader
//! epoch), and says nothing about a batch that a misplaced write has replaced by another good one.
//!
//! A page is *sealed* once it is full and a sync that began after its last byte was written has succeeded. Only then
//! its entry is written, so an entry proves that the page, and every page before it, was durable: after a crash a
//! sealed page that does not match is corruption, and one without an entry is judged by its batches.
//!
//! ```text
//! 0  "SPPG" | version u16 | 0 u16 | page bytes u32 | 0 u32      (little endian)
//! 16 + 8 i: crc32c of page i u32 | check u32 = crc32c(i, length, crc)
//! ```
//! Entries carry their own check because the file is written in pieces and synced rarely: an entry that is lost or torn
//! counts as absent. Eight bytes at a multiple of eight lie in one sector. When a segment is closed its last, partial
//! page gets an entry too, whose check names the shorter length.

use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use env::disk::{File, Open};

use crate::LogError;

pub(crate) const PAGE: usize = 4096;
const MAGIC: &[u8; 4] = b"SPPG";
const VERSION: u16 = 1;
const HEADER: usize = 16;
const ENTRY: usize = 8;

/// The checksums of one segment, fed with the bytes as they are appended.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageSums {
    /// Of each full page, sealed or not.
    full: Vec<u32>,
    /// Of the bytes of the last, unfinished page, and how many they are.
    partial: (u32, usize),
    /// Pages whose bytes are known to be durable.
    sealed: usize,
    /// Entries written to the file.
    written: usize,
    /// Entries synced.
    synced: usize,
    /// The partial page of a closed segment is sealed as well.
    closed: bool,
}

impl PageSums {
    pub fn len_bytes(&self) -> u64 {
        (self.full.len() * PAGE + self.partial.1) as u64
    }

    /// The bytes that follow those fed before.
    pub fn feed(&mut self, mut data: &[u8]) {
        assert!(!self.closed, "append to a closed segment");
        while !data.is_empty() {
            let take = data.len().min(PAGE - self.partial.1);
            let (now, later) = data.split_at(take);
            self.partial.0 = crc32c::crc32c_append(self.partial.0, now);
            self.partial.1 += take;
            if self.partial.1 == PAGE {
                self.full.push(self.partial.0);
                self.partial = (0, 0);
            }
            data = later;
        }
    }

    /// Whether both are of the same bytes.
    pub fn is_of_same_bytes(&self, other: &PageSums) -> bool {
        self.full == other.full && self.partial == other.partial
    }

    /// Everything below `position` is durable.
    pub fn seal_to(&mut self, position: u64) {
        let pages = (position / PAGE as u64) as usize;
        assert!(pages <= self.full.len(), "sealed to {position}, only {} bytes were fed", self.len_bytes());
        self.sealed = self.sealed.max(pages);
    }

    /// Seals all, the partial page too: nothing will be appended.
    pub fn close(&mut self) {
        self.sealed = self.full.len();
        self.closed = true;
    }

    /// Whether `bytes`, which lie at page number `page`, match. Unknown and unfinished pages match anything.
    pub fn verify(&self, page: usize, bytes: &[u8]) -> bool {
        let expected = match self.full.get(page) {
            Some(&crc) if bytes.len() == PAGE => crc,
            None if page == self.full.len() && self.closed && bytes.len() == self.partial.1 => self.partial.0,
            _ => return true,
        };
        crc32c::crc32c(bytes) == expected
    }

    /// Entries that are sealed and not yet in the file: their position in it, and the bytes.
    fn pending(&self) -> Option<(u64, Bytes)> {
        let to = self.durable();
        if self.written >= to && self.written > 0 {
            return None;
        }
        let mut out = BytesMut::new();
        let at = if self.written == 0 {
            out.put_slice(MAGIC);
            out.put_u16_le(VERSION);
            out.put_u16_le(0);
            out.put_u32_le(PAGE as u32);
            out.put_u32_le(0);
            0
        } else {
            HEADER + ENTRY * self.written
        };
        for page in self.written..to {
            let (crc, len) = self.full.get(page).map_or(self.partial, |&crc| (crc, PAGE));
            out.put_u32_le(crc);
            out.put_u32_le(check(page, len, crc));
        }
        Some((at as u64, out.freeze()))
    }

    /// Entries that belong in the file.
    fn durable(&self) -> usize {
        self.sealed + usize::from(self.closed && self.partial.1 > 0)
    }
}

fn check(page: usize, len: usize, crc: u32) -> u32 {
    let mut b = [0; 16];
    b[..8].copy_from_slice(&(page as u64).to_le_bytes());
    b[8..12].copy_from_slice(&(len as u32).to_le_bytes());
    b[12..].copy_from_slice(&crc.to_le_bytes());
    crc32c::crc32c(&b)
}

/// What the file says about a segment of a given length.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    entries: Vec<Option<u32>>,
}

impl Stored {
    /// Parses the file of a segment that is `segment_len` bytes long.
    pub fn parse(path: &Path, bytes: &[u8], segment_len: u64) -> Result<Self, LogError> {
        if bytes.len() < HEADER || &bytes[..4] != MAGIC {
            return Ok(Self::default());
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version != VERSION {
            return Err(LogError::Unsupported { path: path.to_owned(), version });
        }
        let mut entries = Vec::new();
        for (page, e) in bytes[HEADER..].chunks_exact(ENTRY).enumerate() {
            let at = (page * PAGE) as u64;
            if at >= segment_len {
                break;
            }
            let len = (segment_len - at).min(PAGE as u64) as usize;
            let crc = u32::from_le_bytes([e[0], e[1], e[2], e[3]]);
            let found = u32::from_le_bytes([e[4], e[5], e[6], e[7]]);
            entries.push((check(page, len, crc) == found).then_some(crc));
        }
        Ok(Self { entries })
    }

    /// Bytes below this were durable once: whole pages up to the last one that has an entry.
    pub fn sealed_bytes(&self) -> u64 {
        (self.entries.iter().rposition(Option::is_some).map_or(0, |p| p + 1) * PAGE) as u64
    }

    /// First page whose stored checksum differs from the fed bytes'.
    pub fn mismatch(&self, sums: &PageSums) -> Option<usize> {
        self.entries.iter().enumerate().position(|(page, entry)| {
            let actual = match sums.full.get(page) {
                Some(&crc) => crc,
                None if page == sums.full.len() => sums.partial.0,
                None => return false,
            };
            entry.is_some_and(|crc| crc != actual)
        })
    }

    /// The sums of a closed segment, taken from the file without reading the segment; `None` if an entry is absent.
    pub fn into_closed(self, segment_len: u64) -> Option<PageSums> {
        let pages = segment_len.div_ceil(PAGE as u64) as usize;
        let mut full = self.entries.into_iter().collect::<Option<Vec<u32>>>()?;
        if full.len() != pages {
            return None;
        }
        let rest = (segment_len % PAGE as u64) as usize;
        let partial = if rest == 0 { (0, 0) } else { (full.pop()?, rest) };
        let sealed = full.len();
        Some(PageSums { full, partial, sealed, written: pages, synced: pages, closed: true })
    }
}

/// The file of checksums beside a segment.
#[derive(Debug, Clone)]
pub(crate) struct PageFile {
    path: PathBuf,
    file: File,
}

impl PageFile {
    /// Of a file that is open already.
    pub fn of(path: PathBuf, file: File) -> Self {
        Self { path, file }
    }

    pub async fn open(path: PathBuf) -> Result<Self, LogError> {
        let file = File::open(&path, Open::OrCreate).await.map_err(LogError::write("create", &path))?;
        Ok(Self { path, file })
    }

    pub async fn load(&self, segment_len: u64) -> Result<Stored, LogError> {
        let failed = || LogError::storage("read", &self.path);
        let len = self.file.len().await.map_err(failed())?;
        let bytes = self.file.read_at(0, len as usize).await.map_err(failed())?;
        Stored::parse(&self.path, &bytes, segment_len)
    }

    /// Makes sure that no entry for a page at or after byte `segment_len` is left. Durable on return: pages there may be
    /// written anew.
    pub async fn truncate(&self, segment_len: u64) -> Result<(), LogError> {
        let keep = (HEADER + ENTRY * (segment_len / PAGE as u64) as usize) as u64;
        let failed = || LogError::storage("truncate", &self.path);
        if self.file.len().await.map_err(failed())? > keep {
            self.file.set_len(keep).await.map_err(failed())?;
            self.file.sync().await.map_err(LogError::storage("sync", &self.path))?;
        }
        Ok(())
    }

    /// The write that brings the file up to date, if one is due; then call [`PageWrite::run`] and [`PageWrite::done`].
    pub fn due(&self, sums: &PageSums, sync_every: u32) -> Option<PageWrite> {
        let (at, bytes) = sums.pending()?;
        let to = sums.durable();
        let sync = sums.closed || to - sums.synced >= sync_every.max(1) as usize;
        Some(PageWrite { file: self.clone(), at, bytes, to, sync })
    }
}

/// Entries on their way to the file.
#[derive(Debug)]
pub(crate) struct PageWrite {
    file: PageFile,
    at: u64,
    bytes: Bytes,
    to: usize,
    sync: bool,
}

impl PageWrite {
    pub async fn run(&self) -> Result<(), LogError> {
        let path = &self.file.path;
        self.file.file.write_at(self.at, self.bytes.clone()).await.map_err(LogError::write("write", path))?;
        if self.sync {
            self.file.file.sync().await.map_err(LogError::storage("sync", path))?;
        }
        Ok(())
    }

    pub fn done(&self, sums: &mut PageSums) {
        sums.written = self.to;
        if self.sync {
            sums.synced = sums.written;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn entries_survive_a_torn_file_one_by_one() {
        let data = data(3 * PAGE + 100);
        let mut sums = PageSums::default();
        for piece in data.chunks(1000) {
            sums.feed(piece);
        }
        sums.close();
        let (at, file) = sums.pending().unwrap();
        assert_eq!(at, 0);
        let path = Path::new("x");
        let whole = Stored::parse(path, &file, data.len() as u64).unwrap();
        assert_eq!(whole.mismatch(&sums), None);
        assert_eq!(whole.sealed_bytes(), 4 * PAGE as u64);
        assert!(whole.into_closed(data.len() as u64).is_some());

        let mut torn = file.to_vec();
        torn[HEADER + 8..HEADER + 16].fill(0);
        let torn = Stored::parse(path, &torn, data.len() as u64).unwrap();
        assert_eq!(torn.entries.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, true]);
        assert_eq!(torn.mismatch(&sums), None, "an absent entry accuses nobody");

        let longer = Stored::parse(path, &file, data.len() as u64 + 50).unwrap();
        assert_eq!(longer.sealed_bytes(), 3 * PAGE as u64, "the partial page's entry dies when the page grows");
    }

    #[test]
    fn a_changed_byte_of_a_sealed_page_is_found() {
        let mut bytes = data(2 * PAGE);
        let mut good = PageSums::default();
        good.feed(&bytes);
        good.seal_to(2 * PAGE as u64);
        let (_, file) = good.pending().unwrap();
        bytes[PAGE + 7] ^= 1;
        let mut bad = PageSums::default();
        bad.feed(&bytes);
        let stored = Stored::parse(Path::new("x"), &file, 2 * PAGE as u64).unwrap();
        assert_eq!(stored.mismatch(&bad), Some(1));
        assert!(good.verify(0, &bytes[..PAGE]) && !good.verify(1, &bytes[PAGE..]));
    }
}
