//! Opening a log after any kind of stop, and cutting it.
//!
//! What may be found, given the order of steps in `Log::roll`: every segment but the last is whole (a bad byte there is
//! corruption); the last one is good up to some batch, at or after the last flush, with anything behind it. So recovery
//! cuts the last segment at its first bad batch, unless that batch begins in a page that was sealed, which was durable.
//!
//! ```text
//! 0. finish a swap of compacted segments that was decided
//! 1. list segments, remove what no segment owns
//! 2. closed segments: take the index files, or scan if any is missing or damaged
//! 3. newest good snapshot at or below the first segment to be scanned; scan from there
//! 4. the last segment is always scanned; cut the torn tail. Snapshots that are missing on the way are written anew
//! 5. sync the last segment and the directory: all that was found is durable from here on
//! ```

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use env::clock::Instant;
use env::disk;

use crate::checkpoint::Checkpoint;
use crate::compaction::{self, Leftover};
use crate::format;
use crate::log::State;
use crate::scan::{Scanner, Step, corrupt};
use crate::segment::{Segment, log_path};
use crate::{AbortedTransaction, LogConfig, LogError, Offset, snapshot};

/// A torn tail that was cut away. None of it was ever flushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The log's new end.
    pub offset: Offset,
    pub bytes: u64,
    /// Why the first batch in it was bad.
    pub reason: String,
}

/// What opening a log found.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Recovery {
    /// One past the last good record.
    pub end: Offset,
    pub segments: usize,
    /// Segments that were read whole.
    pub scanned: usize,
    /// Closed segments whose index files or checksums were missing or damaged.
    pub rebuilt: usize,
    pub cut: Option<Cut>,
}

/// Names in a log's directory.
#[derive(Debug, Default)]
struct Listing {
    segments: Vec<Offset>,
    snapshots: Vec<Offset>,
    /// Files of segments that are not there.
    orphans: Vec<PathBuf>,
}

/// `stable`: what lies at or past it is read batch by batch, whatever the index files say.
pub(crate) async fn recover(
    dir: &Path,
    config: LogConfig,
    stable: Offset,
    now: Instant,
) -> Result<(State, Recovery), LogError> {
    disk::create_dir_all(dir).await.map_err(LogError::storage("create", dir))?;
    finish_swaps(dir).await?;
    let listing = list(dir).await?;
    for orphan in &listing.orphans {
        disk::remove_file(orphan).await.map_err(LogError::storage("remove", orphan))?;
    }
    let mut state = State::empty(dir.to_owned(), config);
    state.checkpoint = Checkpoint::load(dir).await?;
    let mut recovery = Recovery::default();
    let Some(&start) = listing.segments.first() else {
        disk::sync_ancestors(dir).await.map_err(LogError::storage("sync", dir))?;
        state.segments.push(Segment::create(dir, 0).await?);
        disk::sync_dir(dir).await.map_err(LogError::storage("sync", dir))?;
        recovery.segments = 1;
        return Ok((state, recovery));
    };
    state.start = start.max(state.checkpoint.start);
    let last = listing.segments.len() - 1;

    let mut aborted: Vec<Option<Vec<AbortedTransaction>>> = Vec::new();
    for (at, &base) in listing.segments.iter().enumerate() {
        let mut segment = Segment::open(dir, base).await?;
        let loaded = match listing.segments.get(at + 1) {
            Some(&end) => segment.load_closed(end).await?,
            None => None,
        };
        recovery.rebuilt += usize::from(at < last && loaded.is_none());
        aborted.push(loaded);
        state.segments.push(segment);
    }
    let unstable = listing.segments.partition_point(|&base| base <= stable).saturating_sub(1);
    let needed = aborted.iter().position(Option::is_none).unwrap_or(last).min(unstable);
    let from = restore_snapshot(&mut state, &listing, needed, now).await?;
    for txn in aborted.drain(..from).flatten().flatten() {
        state.aborted.push(txn);
    }

    for at in from..=last {
        // What a compacted segment still tells of producers is less than what they are remembered by (KAFKA-12520), so
        // each segment is read on top of what was known when it was begun.
        if at > from && !load_snapshot(&mut state, &listing, at, now).await? {
            let base = listing.segments[at];
            snapshot::store(dir, base, &snapshot::encode(base, &state.epochs, &state.producers)).await?;
        }
        let cut = scan(&mut state, at, at < last, now).await?;
        recovery.scanned += 1;
        if at < last {
            let end = listing.segments[at + 1];
            let holes = state.checkpoint.holes;
            let segment = &mut state.segments[at];
            if holes && segment.next < end {
                segment.next = end;
            }
            if segment.next != end {
                let reason = format!("it ends at offset {}, the next segment begins at {end}", segment.next);
                return Err(corrupt(&segment.path, segment.size, segment.next, reason));
            }
            rewrite_side_files(&mut state, at).await?;
        } else {
            recovery.cut = cut;
        }
    }

    make_durable(&mut state).await?;
    let end = state.end();
    state.stable = stable.min(end);
    state.start = state.start.min(end);
    lower_checkpoint(&mut state, end).await?;
    let start = state.start;
    state.aborted.forget_below(start);
    state.ended = state.ended.split_off(&state.stable);
    for &offset in listing.snapshots.iter().filter(|&&o| o > end) {
        // Cannot be: a snapshot is written after a sync of all before it. Still, never load the future (KAFKA-6683).
        tracing::error!(offset, end, dir = %dir.display(), "removed a snapshot past the end of the log");
        let path = snapshot::path(dir, offset);
        disk::remove_file(&path).await.map_err(LogError::storage("remove", &path))?;
    }
    if let Some(cut) = &recovery.cut {
        tracing::info!(dir = %dir.display(), offset = cut.offset, bytes = cut.bytes, reason = cut.reason, "cut a torn tail");
    }
    env::sometimes!(recovery.cut.is_some(), "log: recovery cut a torn tail");
    env::sometimes!(recovery.rebuilt > 0, "log: recovery rebuilt a closed segment's files");
    env::sometimes!(from < needed, "log: recovery fell back to an older snapshot");
    recovery.end = end;
    recovery.segments = state.segments.len();
    Ok((state, recovery))
}

/// What a stop has left of compaction: a file that was being written goes, a swap that was decided is finished.
async fn finish_swaps(dir: &Path) -> Result<(), LogError> {
    for entry in disk::read_dir(dir).await.map_err(LogError::storage("list", dir))? {
        match compaction::leftover(&entry.name) {
            Some(Leftover::Cleaned) => {
                let path = dir.join(&entry.name);
                disk::remove_file(&path).await.map_err(LogError::storage("remove", &path))?;
            }
            Some(Leftover::Swap { base, end }) => compaction::complete(dir, base, end).await?,
            None => {}
        }
    }
    Ok(())
}

/// The files that a swap of the segments in `[base, end)` removes.
pub(crate) async fn files_replaced(dir: &Path, base: Offset, end: Offset) -> Result<Vec<PathBuf>, LogError> {
    let mut found = Vec::new();
    for entry in disk::read_dir(dir).await.map_err(LogError::storage("list", dir))? {
        if let Some((of, extension)) = segment_file(&entry.name)
            && compaction::is_replaced(of, extension, base, end)
        {
            found.push(dir.join(&entry.name));
        }
    }
    Ok(found)
}

/// Base offset and kind of a file that is named after an offset.
fn segment_file(name: &str) -> Option<(Offset, &str)> {
    let (stem, extension) = name.split_once('.')?;
    Some((Some(stem).filter(|s| s.len() == 20)?.parse().ok()?, extension))
}

async fn list(dir: &Path) -> Result<Listing, LogError> {
    let mut listing = Listing::default();
    let mut side_files = Vec::new();
    for entry in disk::read_dir(dir).await.map_err(LogError::storage("list", dir))? {
        let Some((base, extension)) = segment_file(&entry.name) else { continue };
        match extension {
            "log" => listing.segments.push(base),
            "snapshot" => listing.snapshots.push(base),
            "pages" | "index" | "timeindex" | "txnindex" => side_files.push((base, dir.join(&entry.name))),
            _ => {}
        }
    }
    listing.segments.sort_unstable();
    listing.snapshots.sort_unstable();
    // Left by a segment whose own name was not durable. Its checksums must not judge the next one of that name.
    side_files.retain(|(base, _)| !listing.segments.contains(base));
    listing.orphans = side_files.into_iter().map(|(_, path)| path).collect();
    Ok(listing)
}

/// Loads the newest good snapshot at the base of a segment at or before `needed`; returns that segment. Without any, all
/// is scanned.
async fn restore_snapshot(
    state: &mut State,
    listing: &Listing,
    needed: usize,
    now: Instant,
) -> Result<usize, LogError> {
    for at in (0..=needed).rev() {
        if load_snapshot(state, listing, at, now).await? {
            return Ok(at);
        }
    }
    Ok(0)
}

/// Takes the state from the snapshot at the base of the segment; false if there is no good one.
async fn load_snapshot(state: &mut State, listing: &Listing, at: usize, now: Instant) -> Result<bool, LogError> {
    let base = listing.segments[at];
    if !listing.snapshots.contains(&base) {
        return Ok(false);
    }
    let expiry = Duration::from_millis(state.config.producer_expiry_ms);
    if let Some((epochs, producers)) = snapshot::load(&state.dir, base, expiry, now).await? {
        (state.epochs, state.producers) = (epochs, producers);
        return Ok(true);
    }
    tracing::warn!(offset = base, dir = %state.dir.display(), "a producer snapshot is damaged; an older one is used");
    Ok(false)
}

/// Reads a segment whole into the state. A closed one must be good to its end.
async fn scan(state: &mut State, at: usize, closed: bool, now: Instant) -> Result<Option<Cut>, LogError> {
    state.segments[at].reset();
    let segment = &state.segments[at];
    let (path, file, base) = (segment.path.clone(), segment.file.clone(), segment.base);
    let len = file.len().await.map_err(LogError::storage("stat", &path))?;
    let stored = segment.page_file.load(len).await?;
    let sealed = stored.sealed_bytes().min(len);
    let mut scanner = Scanner::new(file.clone(), len, base, state.checkpoint.holes);
    let mut cut = None;
    loop {
        let step = scanner.next().await.map_err(LogError::storage("read", &path))?;
        match step {
            Step::End => break,
            Step::Batch { header, bytes } => {
                let position = state.segments[at].size;
                if state.epochs.latest().is_some_and(|e| header.partition_leader_epoch < e) {
                    return Err(corrupt(
                        &path,
                        position,
                        header.base_offset,
                        "its leader epoch is behind the one before",
                    ));
                }
                // Only a writer that does not keep the format gets here: the CRC held.
                state.note(at, &header, &bytes, now).map_err(|e| corrupt(&path, position, header.base_offset, e))?;
            }
            Step::Bad { position, reason } => {
                let offset = state.segments[at].next;
                if closed || position < sealed {
                    return Err(corrupt(&path, position, offset, reason));
                }
                cut = Some(Cut { offset, bytes: len - position, reason });
                break;
            }
        }
    }
    let segment = &state.segments[at];
    assert!(segment.size == scanner.position(), "scanned {} bytes, took in {}", scanner.position(), segment.size);
    if let Some(page) = stored.mismatch(&segment.pages) {
        let position = (page * crate::PAGE_BYTES) as u64;
        return Err(corrupt(&path, position, segment.base, "page checksum does not match"));
    }
    if cut.is_some() {
        file.set_len(segment.size).await.map_err(LogError::storage("truncate", &path))?;
    }
    Ok(cut)
}

async fn rewrite_side_files(state: &mut State, at: usize) -> Result<(), LogError> {
    let segment = &mut state.segments[at];
    segment.pages.close();
    let files = segment.side_files(&state.aborted);
    let write = segment.page_file.due(&segment.pages, 1);
    for (path, kind, payload) in &files {
        format::store(*kind, path, payload, false).await?;
    }
    if let Some(write) = write {
        write.run().await?;
        write.done(&mut segment.pages);
    }
    Ok(())
}

/// After a process crash the page cache may hold batches that never were synced. From here on they count as durable, so
/// they are made so; the cut too, before anything is written over it.
async fn make_durable(state: &mut State) -> Result<(), LogError> {
    let dir = state.dir.clone();
    let end = state.end();
    let Some(active) = state.segments.last_mut() else { return Ok(()) };
    active.file.sync().await.map_err(LogError::storage("sync", &active.path))?;
    disk::sync_dir(&dir).await.map_err(LogError::storage("sync", &dir))?;
    active.pages.seal_to(active.size);
    if let Some(write) = active.page_file.due(&active.pages, state.config.checksum_sync_pages) {
        write.run().await?;
        write.done(&mut active.pages);
    }
    state.flushed = end;
    Ok(())
}

/// A log that lost its end with the page cache may end before what its checkpoint says. Were that kept, the next start
/// would take what was appended meanwhile for given up.
async fn lower_checkpoint(state: &mut State, end: Offset) -> Result<(), LogError> {
    let Checkpoint { start, first_dirty, holes } = state.checkpoint;
    let lowered = Checkpoint { start: start.min(end), first_dirty: first_dirty.min(end), holes };
    if lowered == state.checkpoint {
        return Ok(());
    }
    env::sometimes!(start > end, "log: it was lost to before its start");
    state.checkpoint = lowered;
    match lowered.store(&state.dir).await {
        Err(error) if error.is_clean() => {
            tracing::warn!(%error, "failed to store the checkpoint of a log that lost its end");
            Ok(())
        }
        stored => stored,
    }
}

/// Removes everything from the batch that holds `offset` on, then reads the log anew. Segments go from the last one
/// down, each removal durable before the next, so that a crash leaves no gap. Checksums go before the bytes they are of.
pub(crate) async fn truncate(state: &Rc<RefCell<State>>, offset: Offset, now: Instant) -> Result<(), LogError> {
    let (dir, config, stable, bases, checkpoint) = {
        let mut s = state.borrow_mut();
        s.truncations += 1;
        s.tail.clear();
        let bases = s.segments.iter().map(|x| x.base).collect::<Vec<_>>();
        (s.dir.clone(), s.config.clone(), s.stable, bases, s.checkpoint)
    };
    // Before: what comes in the place of what goes is dirty.
    let Checkpoint { start, first_dirty, holes } = checkpoint;
    let lowered = Checkpoint { start: start.min(offset), first_dirty: first_dirty.min(offset), holes };
    if lowered != checkpoint {
        lowered.store(&dir).await?;
    }
    let keep = bases.partition_point(|&b| b <= offset).max(1);
    let snapshots = list(&dir).await?.snapshots;
    for &at in snapshots.iter().filter(|&&at| at > offset) {
        let path = snapshot::path(&dir, at);
        disk::remove_file(&path).await.map_err(LogError::storage("remove", &path))?;
    }
    disk::sync_dir(&dir).await.map_err(LogError::storage("sync", &dir))?;
    for &base in bases[keep..].iter().rev() {
        let path = log_path(&dir, base);
        disk::remove_file(&path).await.map_err(LogError::storage("remove", &path))?;
        disk::sync_dir(&dir).await.map_err(LogError::storage("sync", &dir))?;
    }
    let (file, path, page_file, base) = {
        let s = state.borrow();
        let target = &s.segments[keep - 1];
        (target.file.clone(), target.path.clone(), target.page_file.clone(), target.base)
    };
    let len = file.len().await.map_err(LogError::storage("stat", &path))?;
    let mut scanner = Scanner::new(file.clone(), len, base, holes);
    let mut kept = base;
    let (position, end) = loop {
        let before = scanner.position();
        match scanner.next().await.map_err(LogError::storage("read", &path))? {
            Step::Batch { header, .. } if header.last_offset() < offset => kept = header.next_offset(),
            Step::Batch { header, .. } => break (before, header.base_offset.min(offset)),
            Step::End => break (before, offset),
            Step::Bad { .. } => break (before, kept),
        }
    };
    page_file.truncate(position).await?;
    file.set_len(position).await.map_err(LogError::storage("truncate", &path))?;
    file.sync().await.map_err(LogError::storage("sync", &path))?;
    if holes && end > kept {
        // The log ends in a hole that is below the cut. Its end stays where it was: offsets that were given once, and are
        // committed, must not be given again to other records.
        Segment::create(&dir, end).await?;
        disk::sync_dir(&dir).await.map_err(LogError::storage("sync", &dir))?;
    }
    let (mut fresh, _) = recover(&dir, config, stable, now).await?;
    let mut s = state.borrow_mut();
    fresh.truncations = s.truncations + 1;
    *s = fresh;
    Ok(())
}
