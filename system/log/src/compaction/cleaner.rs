//! One pass over a log: reads its closed segments and writes what stays beside them. The log goes on meanwhile; only the
//! swap at the end of each group of segments is the log's own doing (`swap`).
//!
//! Nothing here changes the log, so a pass may be dropped at any time; so is one that finds that the log was truncated or
//! shortened under it.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use env::clock::Instant;
use env::disk::{self, File, Open};
use protocol::batch::{BatchHeader, Limits, decode_records};

use super::filter::{Facts, Fate, Filter, by_producer, is_aborted};
use super::offset_map::OffsetMap;
use super::plan::{self, Dirty};
use super::{CleanerConfig, SegmentInfo};
use crate::log::State;
use crate::pages::{PageFile, PageSums};
use crate::scan::{Scanner, Step, corrupt};
use crate::segment::{Segment, log_path};
use crate::{LogError, Offset, snapshot};

/// Bytes that are written at a time.
const CHUNK: usize = 256 * 1024;
/// Batches after which other tasks of the node get their turn.
const TURN: usize = 64;

/// Looks for what to clean in one log. Clones are cheap.
#[derive(Clone, Debug)]
pub struct LogCleaner {
    state: Rc<RefCell<State>>,
}

/// A pass that has read the dirty part.
#[derive(Debug)]
pub struct Pass {
    state: Rc<RefCell<State>>,
    /// Of the log when the pass began.
    truncations: u64,
    filter: Filter,
    groups: VecDeque<(Offset, Offset)>,
    segment_bytes: u64,
}

/// A group of segments, written anew and synced, not yet part of the log.
#[derive(Debug)]
pub struct Cleaned {
    pub(super) segment: Segment,
    /// The segments it replaces hold the offsets from `segment.base` up to here.
    pub(super) end: Offset,
    /// Bases of them.
    pub(super) replaces: Vec<Offset>,
    /// Their bytes.
    pub(super) source_bytes: u64,
    /// Offsets of the markers that stay.
    pub(super) controls: BTreeSet<Offset>,
    pub(super) truncations: u64,
    pub(super) file_path: PathBuf,
}

impl Cleaned {
    /// First offset, and one past the last.
    pub fn range(&self) -> (Offset, Offset) {
        (self.segment.base, self.end)
    }

    /// Bytes of batches before and after.
    pub fn bytes(&self) -> (u64, u64) {
        (self.source_bytes, self.segment.size)
    }
}

/// A closed segment to read.
struct Source {
    info: SegmentInfo,
    file: File,
    path: PathBuf,
    pages: PageSums,
}

impl LogCleaner {
    pub(crate) fn new(state: Rc<RefCell<State>>) -> Self {
        Self { state }
    }

    /// What a pass would do now; `None` if it is not worth one. `now_ms` is wall clock.
    pub fn dirty(&self, config: &CleanerConfig, now_ms: i64) -> Option<Dirty> {
        let state = self.state.borrow();
        if state.poisoned {
            return None;
        }
        plan::plan(&state.infos(), state.checkpoint.first_dirty.max(state.start), state.uncleanable(), now_ms, config)
    }

    /// Reads the dirty part. `None` if the log is not what it was when `dirty` was decided, or lacks the snapshot that
    /// says which batches must stay.
    pub async fn begin(
        &self,
        dirty: Dirty,
        config: &CleanerConfig,
        now_ms: i64,
        now: Instant,
    ) -> Result<Option<Pass>, LogError> {
        let (dir, expiry, truncations, aborted) = {
            let s = self.state.borrow();
            // Other logs were cleaned since: this one may have been cut below the bound and have grown past it again, with a
            // snapshot there, before anybody said that it is committed.
            if s.uncleanable() < dirty.bound {
                return Ok(None);
            }
            let aborted = s.aborted.overlapping(s.start, dirty.bound);
            (s.dir.clone(), s.producers.expiry(), s.truncations, by_producer(&aborted))
        };
        // What was known just before the bound is what the cleaned part must still tell; what is remembered now is of a
        // log that may be truncated.
        let Some((_, producers)) = snapshot::load(&dir, dirty.bound, expiry, now).await? else {
            tracing::warn!(dir = %dir.display(), bound = dirty.bound, "not cleaned: no good snapshot at the bound");
            return Ok(None);
        };
        let mut map = OffsetMap::new(config.dedupe_buffer_bytes);
        let mut map_end = dirty.bound;
        'segments: for source in self.sources(dirty.first_dirty, dirty.bound) {
            let mut reading = Reading::of(&source);
            while let Some((header, bytes)) = reading.next().await? {
                if self.state.borrow().truncations != truncations {
                    return Ok(None);
                }
                if header.next_offset() <= dirty.first_dirty || header.is_control() || is_aborted(&aborted, &header) {
                    continue;
                }
                let records = decode_records(&bytes, &Limits::default());
                let records = records.map_err(|e| corrupt(&source.path, 0, header.base_offset, e.to_string()))?;
                if !map.has_room(records.iter().filter_map(|r| r.key.as_ref())) {
                    env::sometimes!(true, "log: more dirty keys than a cleaner's memory");
                    map_end = header.base_offset;
                    break 'segments;
                }
                for r in &records {
                    if let Some(key) = &r.key {
                        map.put(key, r.offset);
                    }
                }
            }
        }
        let s = self.state.borrow();
        if s.truncations != truncations {
            return Ok(None);
        }
        let remembered = |id: &i64| s.producers.get(*id, now).is_some();
        let last_batches = producers.last_batches().filter(|(id, _)| remembered(id)).collect();
        tracing::debug!(dir = %dir.display(), from = dirty.first_dirty, to = map_end, bytes = map.bytes(), "cleaning");
        let delete_retention_ms = config.delete_retention();
        let facts = Facts { map, map_end, aborted, last_batches, now_ms, delete_retention_ms };
        let segment_bytes = u64::from(s.config.segment_bytes);
        Ok(Some(Pass {
            state: Rc::clone(&self.state),
            truncations,
            filter: Filter::new(facts),
            groups: plan::groups(&s.infos(), map_end, segment_bytes).into(),
            segment_bytes,
        }))
    }

    fn sources(&self, from: Offset, to: Offset) -> Vec<Source> {
        sources(&self.state.borrow(), from, to)
    }
}

fn sources(state: &State, from: Offset, to: Offset) -> Vec<Source> {
    let within = state.segments.iter().filter(|s| s.next > from && s.base < to);
    within
        .map(|s| Source {
            info: SegmentInfo::of(s),
            file: s.file.clone(),
            path: s.path.clone(),
            pages: s.pages.clone(),
        })
        .collect()
}

impl Pass {
    /// One past the last offset that this pass has read into its map: what is below is clean once all groups are swapped.
    pub fn end(&self) -> Offset {
        self.filter.facts().map_end
    }

    /// Writes the next group that changes. `None` at the end, or when the log has been truncated or shortened: the pass is
    /// over then, and [`Pass::is_complete`] says which.
    pub async fn next(&mut self) -> Result<Option<Cleaned>, LogError> {
        while let Some(&(base, end)) = self.groups.front() {
            let (dir, interval, sources) = {
                let s = self.state.borrow();
                (s.dir.clone(), s.config.index_interval_bytes, sources(&s, base, end))
            };
            let whole = sources.first().is_some_and(|s| s.info.base == base)
                && sources.last().is_some_and(|s| s.info.next == end);
            if !whole || self.is_stale() {
                return Ok(None);
            }
            let path = log_path(&dir, base);
            let file_path = path.with_extension("log.cleaned");
            let mut out = Output::create(base, path, file_path, interval).await?;
            let written = self.write(&sources, &mut out).await;
            let (changed, taken) = match written {
                Ok(Some(written)) => written,
                Ok(None) => {
                    out.discard().await?;
                    return Ok(None);
                }
                Err(e) => {
                    out.discard().await?;
                    return Err(e);
                }
            };
            let (sources, rest) = sources.split_at(taken);
            self.groups.pop_front();
            if let Some(next) = rest.first() {
                self.groups.push_front((next.info.base, end));
            }
            if !changed {
                out.discard().await?;
                continue;
            }
            let end = sources.last().map_or(end, |last| last.info.next);
            let replaces = sources.iter().map(|s| s.info.base).collect();
            let source_bytes = sources.iter().map(|s| s.info.bytes).sum();
            return Ok(Some(out.finish(end, replaces, source_bytes, self.truncations)));
        }
        Ok(None)
    }

    /// Whether every group was written.
    pub fn is_complete(&self) -> bool {
        self.groups.is_empty() && !self.is_stale()
    }

    fn is_stale(&self) -> bool {
        let state = self.state.borrow();
        state.poisoned || state.truncations != self.truncations
    }

    /// A producer's last batch stays, if only its header: whoever copies the log from its start, or rebuilds what it knew of
    /// producers, tells a retry by it. Nothing else shows for long after it is gone (KAFKA-5490).
    fn check_forgettable(&self, gone: &BatchHeader) {
        if let Some(last) = self.filter.facts().last_batches.get(&gone.producer_id) {
            let (id, at) = (gone.producer_id, gone.last_offset());
            assert!(last.last_offset() != at, "the last batch of producer {id}, up to offset {at}, is cleaned away");
        }
    }

    /// Whether anything differs from the sources, and how many of them were written: those that fit. `None` if the log was
    /// truncated meanwhile.
    async fn write(&mut self, sources: &[Source], out: &mut Output) -> Result<Option<(bool, usize)>, LogError> {
        let (mut changed, mut taken) = (false, 0);
        for source in sources {
            // Segments that are small after all their batches went are joined; never past what a segment may hold. What is
            // written may be more than what was read: a batch that lost a record is compressed anew, by our compressor.
            if taken > 0 && out.segment.size + source.info.bytes > self.segment_bytes {
                env::sometimes!(true, "log: a cleaned group of segments grew past one");
                break;
            }
            taken += 1;
            let mut reading = Reading::of(source);
            while let Some((header, bytes)) = reading.next().await? {
                if self.is_stale() {
                    return Ok(None);
                }
                let judged = self.filter.judge(&header, &bytes);
                match judged.map_err(|e| corrupt(&source.path, 0, header.base_offset, e))? {
                    Fate::Keep => out.push(header, bytes).await?,
                    Fate::Rewrite(bytes) => {
                        changed = true;
                        let header = BatchHeader::parse(&bytes);
                        let header = header.map_err(|e| corrupt(&source.path, 0, 0, e.to_string()))?;
                        out.push(header, bytes).await?;
                    }
                    Fate::Drop => {
                        self.check_forgettable(&header);
                        changed = true;
                    }
                }
            }
        }
        changed |= taken > 1;
        if changed {
            out.sync().await?;
        }
        Ok(Some((changed, taken)))
    }
}

/// Reads a closed segment, and makes sure that it is what was written.
struct Reading<'a> {
    source: &'a Source,
    scanner: Scanner,
    sums: PageSums,
    batches: usize,
}

impl<'a> Reading<'a> {
    fn of(source: &'a Source) -> Self {
        let scanner = Scanner::new(source.file.clone(), source.info.bytes, source.info.base, true);
        Self { source, scanner, sums: PageSums::default(), batches: 0 }
    }

    async fn next(&mut self) -> Result<Option<(BatchHeader, Bytes)>, LogError> {
        let path = &self.source.path;
        self.batches += 1;
        if self.batches.is_multiple_of(TURN) {
            env::task::yield_now().await;
        }
        match self.scanner.next().await.map_err(LogError::storage("read", path))? {
            Step::Batch { header, bytes } => {
                self.sums.feed(&bytes);
                Ok(Some((header, bytes)))
            }
            // A batch's CRC leaves out its offset: what is written anew must not be a misplaced batch with a good one.
            Step::End if self.sums.is_of_same_bytes(&self.source.pages) => Ok(None),
            Step::End => Err(corrupt(path, 0, self.source.info.base, "page checksum does not match")),
            Step::Bad { position, reason } => Err(corrupt(path, position, self.source.info.base, reason)),
        }
    }
}

/// Removes a file that will not be swapped in, unless a truncation has.
pub(super) async fn discard(path: &Path) -> Result<(), LogError> {
    match disk::remove_file(path).await {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(LogError::storage("remove", path)),
    }
}

/// The file that is written.
struct Output {
    segment: Segment,
    file_path: PathBuf,
    interval: u32,
    pending: BytesMut,
    /// Where `pending` goes.
    at: u64,
    controls: BTreeSet<Offset>,
}

impl Output {
    async fn create(base: Offset, path: PathBuf, file_path: PathBuf, interval: u32) -> Result<Self, LogError> {
        let file = File::open(&file_path, Open::OrCreate).await.map_err(LogError::write("create", &file_path))?;
        file.set_len(0).await.map_err(LogError::write("truncate", &file_path))?;
        // Opened anew once the old one is gone.
        let page_file = PageFile::of(path.with_extension("pages"), file.clone());
        let segment = Segment::empty(base, path, file, page_file);
        Ok(Self { segment, file_path, interval, pending: BytesMut::new(), at: 0, controls: BTreeSet::new() })
    }

    async fn push(&mut self, header: BatchHeader, bytes: Bytes) -> Result<(), LogError> {
        self.segment.note(&header, &bytes, self.interval, Instant::from_nanos(0));
        // An emptied marker ends nothing: were its aborted transaction still told of, readers would skip what its producer
        // committed afterwards.
        if header.is_control() && header.records_count > 0 {
            self.controls.insert(header.base_offset);
        }
        self.pending.extend_from_slice(&bytes);
        if self.pending.len() >= CHUNK { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> Result<(), LogError> {
        let chunk = self.pending.split().freeze();
        let len = chunk.len() as u64;
        let written = self.segment.file.write_at(self.at, chunk).await;
        written.map_err(LogError::write("write", &self.file_path))?;
        self.at += len;
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), LogError> {
        self.write().await?;
        self.segment.file.sync().await.map_err(LogError::storage("sync", &self.file_path))
    }

    async fn discard(self) -> Result<(), LogError> {
        discard(&self.file_path).await
    }

    fn finish(mut self, end: Offset, replaces: Vec<Offset>, source_bytes: u64, truncations: u64) -> Cleaned {
        self.segment.close(end);
        let Self { segment, file_path, controls, .. } = self;
        Cleaned { segment, end, replaces, source_bytes, controls, truncations, file_path }
    }
}
