//! The log of one partition: appending, rolling, flushing.
//!
//! [`Log`] is the one writer; [`LogReader`]s share what it knows. All of it runs on one thread, and no borrow of the
//! shared state lasts over an await.

use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use env::clock::Instant;
use env::disk::{self, File};
use protocol::batch::{BatchHeader, ControlRecord, ControlType, Limits, assign, decode_records, split};

use crate::checkpoint::Checkpoint;
use crate::compaction::SegmentInfo;
use crate::segment::Segment;
use crate::txn_index::TxnIndex;
use crate::{
    LeaderEpochs, LogConfig, LogError, LogReader, Marker, Offset, ProducerStates, Recovery, recovery, snapshot,
};

/// What an append did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// First offset given.
    pub first: Offset,
    /// Last offset given.
    pub last: Offset,
    /// Greatest record timestamp, in milliseconds.
    pub max_timestamp: i64,
    /// Transactions that began or ended with it, in order.
    pub transactions: Vec<TxnChange>,
    /// (leader epoch, first offset) of the leader epochs that begin with it.
    pub epochs: Vec<(i32, Offset)>,
}

/// A transaction's beginning or end in this partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnChange {
    Began { producer_id: i64, first: Offset },
    Ended { producer_id: i64, first: Offset, marker: Offset, committed: bool },
}

/// The end of a sync: everything below `offset` is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    pub offset: Offset,
    segment: Offset,
    position: u64,
}

/// What the writer and the readers of a log share.
#[derive(Debug)]
pub(crate) struct State {
    pub dir: PathBuf,
    pub config: LogConfig,
    /// In order of their base offsets, never empty; the last is active.
    pub segments: Vec<Segment>,
    pub producers: ProducerStates,
    pub epochs: LeaderEpochs,
    pub aborted: TxnIndex,
    /// Marker and first offset of transactions that ended at or past `stable`.
    pub ended: BTreeMap<Offset, Offset>,
    /// What the caller said would stay for ever is below this.
    pub stable: Offset,
    pub start: Offset,
    pub flushed: Offset,
    pub poisoned: bool,
    pub checkpoint: Checkpoint,
    /// Counts truncations, so that a reader notices one that happened while it read.
    pub truncations: u64,
    /// Counts the groups of segments that were replaced by cleaned ones, for the same reason.
    pub rewrites: u64,
    pub tail: Tail,
}

/// The newest batches, in memory.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub batches: VecDeque<(Offset, Offset, Bytes)>,
    bytes: usize,
}

impl Tail {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets the batches below `offset`.
    pub fn drop_below(&mut self, offset: Offset) {
        while let Some((_, _, old)) = self.batches.pop_front_if(|(_, last, _)| *last < offset) {
            self.bytes -= old.len();
        }
    }

    fn push(&mut self, header: &BatchHeader, bytes: Bytes, max: usize) {
        self.bytes += bytes.len();
        self.batches.push_back((header.base_offset, header.last_offset(), bytes));
        while self.bytes > max {
            let Some((_, _, old)) = self.batches.pop_front() else { break };
            self.bytes -= old.len();
        }
    }
}

impl State {
    pub fn empty(dir: PathBuf, config: LogConfig) -> Self {
        let producers = ProducerStates::new(Duration::from_millis(config.producer_expiry_ms));
        Self {
            dir,
            config,
            segments: Vec::new(),
            producers,
            epochs: LeaderEpochs::default(),
            aborted: TxnIndex::default(),
            ended: BTreeMap::new(),
            stable: 0,
            start: 0,
            flushed: 0,
            poisoned: false,
            checkpoint: Checkpoint::default(),
            truncations: 0,
            rewrites: 0,
            tail: Tail::default(),
        }
    }

    pub fn active(&self) -> &Segment {
        let Some(active) = self.segments.last() else { unreachable!("a log has a segment") };
        active
    }

    fn active_mut(&mut self) -> &mut Segment {
        let Some(active) = self.segments.last_mut() else { unreachable!("a log has a segment") };
        active
    }

    pub fn end(&self) -> Offset {
        self.active().next
    }

    /// What a reader compares to notice that files changed while it read.
    pub fn version(&self) -> (u64, u64) {
        (self.truncations, self.rewrites)
    }

    pub fn infos(&self) -> Vec<SegmentInfo> {
        self.segments.iter().map(SegmentInfo::of).collect()
    }

    /// What lies at or past it may be truncated, or is of a transaction that is open or whose marker may be truncated:
    /// compaction and retention keep off.
    pub fn uncleanable(&self) -> Offset {
        let open = self.producers.first_unstable_offset();
        let ended = self.ended.values().min().copied();
        [open, ended].into_iter().flatten().fold(self.stable, Offset::min)
    }

    /// Takes in a batch that is in the file of `segments[at]`, at its end. The one place where state follows the log,
    /// for appends and for recovery.
    pub fn note(
        &mut self,
        at: usize,
        header: &BatchHeader,
        bytes: &Bytes,
        now: Instant,
    ) -> Result<Option<TxnChange>, String> {
        let marker = marker_of(header, bytes)?;
        let interval = self.config.index_interval_bytes;
        self.segments[at].note(header, bytes, interval, now);
        self.epochs.note(header.partition_leader_epoch, header.base_offset);
        let producer_id = header.producer_id;
        let Some(marker) = marker else {
            if header.is_control() {
                return Ok(None);
            }
            let was_open = self.producers.opened_at(producer_id);
            self.producers.note_data(header, now);
            let opened = self.producers.opened_at(producer_id).filter(|_| was_open.is_none());
            return Ok(opened.map(|first| TxnChange::Began { producer_id, first }));
        };
        let committed = marker.control_type == ControlType::Commit;
        let ended = self.producers.note_marker(
            producer_id,
            header.producer_epoch,
            marker.coordinator_epoch,
            committed,
            header.base_offset,
            now,
        );
        Ok(ended.map(|ended| {
            if let Some(txn) = ended.aborted {
                self.aborted.push(txn);
            }
            self.ended.insert(header.base_offset, ended.first);
            TxnChange::Ended { producer_id, first: ended.first, marker: header.base_offset, committed }
        }))
    }
}

/// The marker in a control batch. Other control records are skipped, as Kafka's clients do.
pub(crate) fn marker_of(header: &BatchHeader, bytes: &Bytes) -> Result<Option<ControlRecord>, String> {
    if !header.is_control() {
        return Ok(None);
    }
    let records = decode_records(bytes, &Limits::default()).map_err(|e| e.to_string())?;
    match records.first() {
        Some(record) => ControlRecord::decode(record).map_err(|e| e.to_string()),
        None => Ok(None),
    }
}

/// A partition's log, open for writing.
#[derive(Debug)]
pub struct Log {
    pub(crate) state: Rc<RefCell<State>>,
}

impl Log {
    /// Opens the log in `dir`, created if missing, and brings it to the state of its last good batch. On return
    /// everything in it is durable. `now` is the node's monotonic clock.
    pub async fn open(dir: impl AsRef<Path>, config: LogConfig, now: Instant) -> Result<(Self, Recovery), LogError> {
        Self::open_from(dir, config, Offset::MAX, now).await
    }

    /// [`Log::open`] for a log whose end may still be truncated: everything from `stable` on is read, so that
    /// [`Log::ended_transactions`] is complete.
    pub async fn open_from(
        dir: impl AsRef<Path>,
        config: LogConfig,
        stable: Offset,
        now: Instant,
    ) -> Result<(Self, Recovery), LogError> {
        let (state, recovery) = recovery::recover(dir.as_ref(), config, stable, now).await?;
        Ok((Self { state: Rc::new(RefCell::new(state)) }, recovery))
    }

    pub fn reader(&self) -> LogReader {
        LogReader::new(Rc::clone(&self.state))
    }

    /// First offset that is there.
    pub fn start_offset(&self) -> Offset {
        self.state.borrow().start
    }

    /// The offset that the next record gets.
    pub fn end_offset(&self) -> Offset {
        self.state.borrow().end()
    }

    /// Everything below it survives power loss.
    pub fn flushed_offset(&self) -> Offset {
        self.state.borrow().flushed
    }

    /// First offset of the oldest open transaction.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        self.state.borrow().producers.first_unstable_offset()
    }

    /// Producers, as of the last append. Do not hold it over an await.
    pub fn producers(&self) -> Ref<'_, ProducerStates> {
        Ref::map(self.state.borrow(), |s| &s.producers)
    }

    /// (first offset, marker) of transactions that ended at or past the stable offset.
    pub fn ended_transactions(&self) -> Vec<(Offset, Offset)> {
        self.state.borrow().ended.iter().map(|(&marker, &first)| (first, marker)).collect()
    }

    /// Nothing below `offset` will be truncated (the high watermark).
    pub fn stable_to(&self, offset: Offset) {
        let mut state = self.state.borrow_mut();
        if offset > state.stable {
            state.stable = offset;
            state.ended = state.ended.split_off(&offset);
        }
    }

    /// Leader epochs, as of the last append. Do not hold it over an await.
    pub fn leader_epochs(&self) -> Ref<'_, LeaderEpochs> {
        Ref::map(self.state.borrow(), |s| &s.epochs)
    }

    /// Appends complete batches into the page cache, giving them offsets from [`Log::end_offset`] on and the leader
    /// epoch. Rolls first if the segment is full. The caller has asked [`ProducerStates::check`].
    ///
    /// Never drop the future half way: the file would be ahead of the log.
    pub async fn append(&mut self, batches: Bytes, leader_epoch: i32, now: Instant) -> Result<Appended, LogError> {
        let mut parts = self.parse(&batches)?;
        let mut next = self.end_offset();
        for (header, _) in &mut parts {
            header.base_offset = next;
            header.partition_leader_epoch = leader_epoch;
            next = header.next_offset();
        }
        let bytes = assigned(batches, &parts, leader_epoch);
        self.write(bytes, &parts, now).await
    }

    /// Appends batches of the leader's log as they are: they go on from [`Log::end_offset`], or after it where the leader's
    /// log was compacted, in its leader epochs. See [`Log::append`].
    pub async fn append_replicated(&mut self, batches: Bytes, now: Instant) -> Result<Appended, LogError> {
        let parts = self.parse(&batches)?;
        let mut next = self.end_offset();
        let mut holes = false;
        for (header, _) in &parts {
            if header.base_offset < next {
                let reason = format!("offset {} where {next} or a later one is expected", header.base_offset);
                return Err(LogError::Invalid { reason });
            }
            holes |= header.base_offset > next;
            next = header.next_offset();
        }
        if holes {
            self.update_checkpoint(|c| c.holes = true).await?;
        }
        self.write(batches, &parts, now).await
    }

    /// The batches' headers and lengths; every check that their bytes allow.
    fn parse(&self, batches: &Bytes) -> Result<Vec<(BatchHeader, usize)>, LogError> {
        self.usable()?;
        let invalid = |reason: String| LogError::Invalid { reason };
        let mut parts = Vec::new();
        for part in split(batches.clone()) {
            let (header, bytes) = part.map_err(|e| invalid(e.to_string()))?;
            header.verify_crc(&bytes).map_err(|e| invalid(e.to_string()))?;
            marker_of(&header, &bytes).map_err(invalid)?;
            parts.push((header, bytes.len()));
        }
        if parts.is_empty() {
            return Err(invalid("no batch".into()));
        }
        Ok(parts)
    }

    /// Writes batches whose headers are `parts`.
    async fn write(
        &mut self,
        bytes: Bytes,
        parts: &[(BatchHeader, usize)],
        now: Instant,
    ) -> Result<Appended, LogError> {
        let end = self.end_offset();
        let first = parts.first().map_or(end, |(header, _)| header.base_offset);
        let next = parts.last().map_or(end, |(header, _)| header.next_offset());
        let mut latest = self.state.borrow().epochs.latest();
        let mut epochs = Vec::new();
        for (header, _) in parts {
            let epoch = header.partition_leader_epoch;
            if latest.is_some_and(|latest| epoch < latest) {
                return Err(LogError::Invalid { reason: format!("leader epoch {epoch} is behind the log's") });
            }
            if latest != Some(epoch) {
                epochs.push((epoch, header.base_offset));
                latest = Some(epoch);
            }
        }

        if self.must_roll(bytes.len(), next - end, now) {
            self.roll(now).await?;
        }
        if next - self.state.borrow().active().base > Offset::from(i32::MAX) {
            // The hole before these batches alone is larger than what a segment's offsets can span.
            self.roll_at(first, now).await?;
        }
        let (file, path, position) = {
            let state = self.state.borrow();
            let active = state.active();
            (active.file.clone(), active.path.clone(), active.size)
        };
        if let Err(e) = file.write_at(position, bytes.clone()).await {
            return Err(self.restore_tail(&file, &path, position, e).await);
        }

        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let at = state.segments.len() - 1;
        let mut rest = bytes;
        let mut transactions = Vec::new();
        let mut max_timestamp = i64::MIN;
        for (header, len) in parts {
            let bytes = rest.split_to(*len);
            // Its control records were decoded above, so this cannot fail here.
            let change = state.note(at, header, &bytes, now).map_err(|reason| LogError::Invalid { reason })?;
            transactions.extend(change);
            max_timestamp = max_timestamp.max(header.max_timestamp);
            state.tail.push(header, bytes, state.config.tail_cache_bytes);
        }
        assert!(state.end() == next, "log end {} after an append up to {next}", state.end());
        Ok(Appended { first, last: next - 1, max_timestamp, transactions, epochs })
    }

    /// From the next append on a segment rolls before it would grow past this many bytes.
    pub fn set_segment_bytes(&mut self, segment_bytes: u32) {
        self.state.borrow_mut().config.segment_bytes = segment_bytes;
    }

    /// Appends the marker's control batch; see [`Log::append`]. The caller has asked [`ProducerStates::check_marker`].
    pub async fn append_marker(
        &mut self,
        marker: &Marker,
        leader_epoch: i32,
        timestamp_ms: i64,
        now: Instant,
    ) -> Result<Appended, LogError> {
        let control_type = if marker.commit { ControlType::Commit } else { ControlType::Abort };
        let record = ControlRecord { control_type, coordinator_epoch: marker.coordinator_epoch };
        self.append(record.batch(marker.producer_id, marker.producer_epoch, timestamp_ms), leader_epoch, now).await
    }

    /// Whether an append of `bytes` and `records` would roll first.
    pub fn must_roll(&self, bytes: usize, records: i64, now: Instant) -> bool {
        let state = self.state.borrow();
        let (active, config) = (state.active(), &state.config);
        let max = u64::from(config.segment_bytes.min(i32::MAX as u32));
        active.size > 0
            && (active.size + bytes as u64 > max
                || active.next + records - active.base > i64::from(i32::MAX)
                || active
                    .first_append
                    .is_some_and(|t| now.saturating_since(t) >= Duration::from_millis(config.segment_ms)))
    }

    /// Closes the active segment and begins a new one. On return everything before it is durable.
    ///
    /// The order matters. Power may fail between any two steps, and recovery takes a successor as proof that the
    /// segment before it is whole:
    /// 1. sync the old segment's data,
    /// 2. write its checksums and indexes, and sync the snapshot at its end,
    /// 3. create the new file, empty,
    /// 4. sync the directory; only now may anything be appended to the new file and count as flushed.
    pub async fn roll(&mut self, now: Instant) -> Result<(), LogError> {
        self.roll_at(self.end_offset(), now).await
    }

    /// [`Log::roll`] to a segment that begins at `base`, at or past the end.
    async fn roll_at(&mut self, base: Offset, now: Instant) -> Result<(), LogError> {
        self.usable()?;
        if self.state.borrow().active().base == base {
            return Ok(());
        }
        let result = self.roll_in_order(base, now).await;
        self.poison_if_fatal(result)
    }

    async fn roll_in_order(&mut self, end: Offset, now: Instant) -> Result<(), LogError> {
        let flushed = self.flusher().await?;
        self.note_flushed(&flushed);
        let (dir, side_files, snapshot, page_write) = {
            let mut state = self.state.borrow_mut();
            state.producers.expire(now);
            state.active_mut().next = end;
            let snapshot = snapshot::encode(end, &state.epochs, &state.producers);
            let active = state.active();
            let mut closing = active.pages.clone();
            closing.close();
            let page_write = active.page_file.due(&closing, 1);
            (state.dir.clone(), active.side_files(&state.aborted), snapshot, page_write)
        };
        if let Some(write) = &page_write {
            write.run().await?;
        }
        for (path, kind, payload) in &side_files {
            crate::format::store(*kind, path, payload, false).await?;
        }
        snapshot::store(&dir, end, &snapshot).await?;
        let segment = Segment::create(&dir, end).await?;
        disk::sync_dir(&dir).await.map_err(LogError::storage("sync", &dir))?;
        let mut state = self.state.borrow_mut();
        let active = state.active_mut();
        active.pages.close();
        if let Some(write) = &page_write {
            write.done(&mut active.pages);
        }
        state.segments.push(segment);
        Ok(())
    }

    /// Begins a sync of everything appended so far. Appends may go on while it runs. Give its result to
    /// [`Log::flushed`]. A closed segment was synced when it rolled.
    ///
    /// A failed sync is fatal, and at once: the kernel may have dropped the pages, and a second sync that is under way beside
    /// it succeeds without them. Were the failure known only when its result is taken in, a roll in between would close a
    /// segment that has a hole.
    pub fn flusher(&self) -> impl Future<Output = Result<Flushed, LogError>> + 'static + use<> {
        let log = Rc::clone(&self.state);
        let state = self.state.borrow();
        let active = state.active();
        let (file, path) = (active.file.clone(), active.path.clone());
        let flushed = Flushed { offset: active.next, segment: active.base, position: active.size };
        async move {
            let synced = file.sync().await;
            let mut log = log.borrow_mut();
            match synced {
                Err(e) => {
                    log.poisoned = true;
                    Err(LogError::storage("sync", &path)(e))
                }
                Ok(()) if log.poisoned => {
                    env::sometimes!(true, "log: a sync succeeded after one had failed");
                    Err(LogError::Poisoned { path: log.dir.clone() })
                }
                Ok(()) => Ok(flushed),
            }
        }
    }

    /// Takes in the end of a sync. The error of a failed one comes out as it is, whoever has met the poisoned log before.
    pub async fn flushed(&mut self, result: Result<Flushed, LogError>) -> Result<Offset, LogError> {
        let flushed = result?;
        self.usable()?;
        self.note_flushed(&flushed);
        let write = {
            let state = self.state.borrow();
            let active = state.active();
            active.page_file.due(&active.pages, state.config.checksum_sync_pages)
        };
        if let Some(write) = write {
            let result = write.run().await;
            match result {
                Ok(()) => write.done(&mut self.state.borrow_mut().active_mut().pages),
                // The entries stay due, and until then the pages count as unsealed.
                Err(e) if e.is_clean() => tracing::warn!(error = %e, "failed to store page checksums"),
                Err(e) => self.poison_if_fatal(Err(e))?,
            }
        }
        Ok(self.flushed_offset())
    }

    /// Syncs and seals everything. Call it last: a start after it finds every page sealed.
    pub async fn close(&mut self) -> Result<(), LogError> {
        let result = self.flusher().await;
        self.flushed(result).await?;
        Ok(())
    }

    /// Removes everything from `offset` on (from the start of the batch that holds it). Durable on return.
    pub async fn truncate_to(&mut self, offset: Offset, now: Instant) -> Result<(), LogError> {
        self.usable()?;
        if offset >= self.end_offset() {
            return Ok(());
        }
        let result = recovery::truncate(&self.state, offset, now).await;
        self.poison_if_fatal(result)
    }

    fn note_flushed(&mut self, flushed: &Flushed) {
        let mut state = self.state.borrow_mut();
        state.flushed = state.flushed.max(flushed.offset);
        let active = state.active_mut();
        if active.base == flushed.segment {
            active.pages.seal_to(flushed.position);
        }
    }

    /// A write failed and may have left any prefix: cuts the file back to the last batch.
    async fn restore_tail(&mut self, file: &File, path: &Path, position: u64, e: std::io::Error) -> LogError {
        let error = LogError::write("append to", path)(e);
        let cut = file.set_len(position).await;
        match (error.is_clean(), cut) {
            (true, Ok(())) => error,
            (_, Err(source)) => {
                self.poison(LogError::Storage { what: "restore the end of", path: path.to_owned(), source })
            }
            (false, Ok(())) => self.poison(error),
        }
    }

    pub(crate) fn usable(&self) -> Result<(), LogError> {
        let state = self.state.borrow();
        if state.poisoned { Err(LogError::Poisoned { path: state.dir.clone() }) } else { Ok(()) }
    }

    fn poison(&self, error: LogError) -> LogError {
        self.state.borrow_mut().poisoned = true;
        error
    }

    pub(crate) fn poison_if_fatal<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        result.map_err(|e| if e.is_clean() { e } else { self.poison(e) })
    }
}

/// The batches with their offsets and leader epoch written in; without a copy if nobody else holds the bytes.
fn assigned(batches: Bytes, parts: &[(BatchHeader, usize)], leader_epoch: i32) -> Bytes {
    let mut whole = batches.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let mut out = BytesMut::new();
    for (header, len) in parts {
        let mut batch = whole.split_to(*len);
        assign(&mut batch, header.base_offset, leader_epoch);
        // Parts split off one buffer join again without a copy.
        out.unsplit(batch);
    }
    out.freeze()
}
