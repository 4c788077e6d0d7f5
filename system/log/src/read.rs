//! Reading a log while it is written.
//!
//! A reader borrows the shared state to plan, reads the file without it, and borrows again to verify the pages.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use env::disk::File;
use protocol::batch::{BatchHeader, HEADER_LEN, Limits, decode_records};

use crate::compaction::LogCleaner;
use crate::log::State;
use crate::pages::PAGE;
use crate::scan::corrupt;
use crate::segment::NO_TIMESTAMP;
use crate::{AbortedTransaction, LogError, Offset};

/// Reads one log. Clones are cheap.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(crate) state: Rc<RefCell<State>>,
}

/// Where to look for an offset.
struct Plan {
    file: File,
    path: PathBuf,
    segment: Offset,
    /// Of a batch at or before the offset.
    position: u64,
    /// Bytes of the segment.
    size: u64,
    /// Where the next segment begins.
    next: Offset,
    version: (u64, u64),
}

/// A stretch of a segment.
struct Window {
    position: u64,
    bytes: Bytes,
}

impl LogReader {
    pub(crate) fn new(state: Rc<RefCell<State>>) -> Self {
        Self { state }
    }

    /// Looks for what to compact.
    pub fn cleaner(&self) -> LogCleaner {
        LogCleaner::new(Rc::clone(&self.state))
    }

    pub fn start_offset(&self) -> Offset {
        self.state.borrow().start
    }

    pub fn end_offset(&self) -> Offset {
        self.state.borrow().end()
    }

    /// Whole batches from the one that holds `from`, up to `max_bytes` of them but at least one (KIP-74), none that
    /// reaches `upper` (exclusive). Empty if `from` is at or past `upper` or the end. The first batch may begin before
    /// `from`, or after it where the log was compacted. May return less than there is: call again from the next offset.
    pub async fn read(&self, from: Offset, max_bytes: usize, upper: Offset) -> Result<Bytes, LogError> {
        let mut at = from;
        loop {
            if let Some(bytes) = self.read_tail(at, max_bytes, upper)? {
                return Ok(bytes);
            }
            let Some(plan) = self.plan(at)? else { return Ok(Bytes::new()) };
            match self.read_planned(&plan, at, max_bytes, upper).await {
                // The file changed while it was read: what came back belongs to neither state.
                _ if self.state.borrow().version() != plan.version => at = from,
                // The rest of the segment is a hole.
                Ok(None) => at = plan.next,
                Ok(Some(bytes)) => return Ok(bytes),
                Err(e) => return Err(e),
            }
        }
    }

    /// Aborted transactions with a record or marker in `[from, to)`, ordered by their first offset.
    pub fn aborted_transactions(&self, from: Offset, to: Offset) -> Vec<AbortedTransaction> {
        self.state.borrow().aborted.overlapping(from, to)
    }

    /// Whether a transaction of the producer is open at the log's end, in this epoch of it.
    pub fn is_open(&self, producer_id: i64, producer_epoch: i16) -> bool {
        self.state.borrow().producers.is_open(producer_id, producer_epoch)
    }

    /// The leader epoch that wrote `offset`.
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<i32> {
        self.state.borrow().epochs.epoch_for_offset(offset)
    }

    /// Timestamp and offset of the first record below `upper` whose timestamp is at least `timestamp` (milliseconds).
    pub async fn offset_for_timestamp(&self, timestamp: i64, upper: Offset) -> Result<Option<(i64, Offset)>, LogError> {
        let start = self.start_offset();
        let Some(mut next) = self.first_candidate(timestamp) else { return Ok(None) };
        while next < upper {
            let bytes = self.read(next, 64 * 1024, upper).await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            for part in protocol::batch::split(bytes) {
                let (header, bytes) = part.map_err(|e| self.corrupt_at(next, e.to_string()))?;
                next = header.next_offset();
                if header.is_control() || header.max_timestamp < timestamp {
                    continue;
                }
                let records =
                    decode_records(&bytes, &Limits::default()).map_err(|e| self.corrupt_at(next, e.to_string()))?;
                if let Some(found) = records.iter().find(|r| r.timestamp >= timestamp && r.offset >= start) {
                    return Ok(Some((found.timestamp, found.offset)));
                }
            }
        }
        Ok(None)
    }

    /// Timestamp and offset of the first record below `upper` that has the greatest timestamp there.
    pub async fn offset_of_max_timestamp(&self, upper: Offset) -> Result<Option<(i64, Offset)>, LogError> {
        let (mut greatest, mut next) = {
            let state = self.state.borrow();
            let whole = state.segments.iter().take_while(|s| s.next <= upper);
            let greatest = whole.clone().map(|s| s.max_timestamp).max();
            (greatest.unwrap_or(NO_TIMESTAMP), whole.last().map_or(state.start, |s| s.next))
        };
        while next < upper {
            let bytes = self.read(next, 64 * 1024, upper).await?;
            if bytes.is_empty() {
                break;
            }
            for part in protocol::batch::split(bytes) {
                let (header, _) = part.map_err(|e| self.corrupt_at(next, e.to_string()))?;
                next = header.next_offset();
                if !header.is_control() {
                    greatest = greatest.max(header.max_timestamp);
                }
            }
        }
        if greatest == NO_TIMESTAMP { Ok(None) } else { self.offset_for_timestamp(greatest, upper).await }
    }

    /// An offset at or before the first record that is late enough.
    fn first_candidate(&self, timestamp: i64) -> Option<Offset> {
        let state = self.state.borrow();
        let segment =
            state.segments.iter().find(|s| s.max_timestamp != NO_TIMESTAMP && s.max_timestamp >= timestamp)?;
        Some((segment.base + Offset::from(segment.times.lookup(timestamp))).max(state.start))
    }

    /// From memory, if all from `from` on is there.
    fn read_tail(&self, from: Offset, max_bytes: usize, upper: Offset) -> Result<Option<Bytes>, LogError> {
        let state = self.state.borrow();
        let (start, end) = (state.start, state.end());
        if state.poisoned {
            return Err(LogError::Poisoned { path: state.dir.clone() });
        }
        if from < start || from > end {
            return Err(LogError::OutOfRange { offset: from, start, end });
        }
        if from >= upper.min(end) {
            return Ok(Some(Bytes::new()));
        }
        let batches = &state.tail.batches;
        if batches.front().is_none_or(|&(first, ..)| first > from) {
            return Ok(None);
        }
        let begin = batches.partition_point(|&(_, last, _)| last < from);
        let mut total = 0;
        let mut count = 0;
        for (_, last, bytes) in batches.iter().skip(begin) {
            if *last >= upper || (count > 0 && total + bytes.len() > max_bytes) {
                break;
            }
            total += bytes.len();
            count += 1;
        }
        let mut chosen = batches.iter().skip(begin).take(count).map(|(_, _, b)| b);
        Ok(Some(match (count, chosen.next()) {
            (_, None) => Bytes::new(),
            (1, Some(only)) => only.clone(),
            (_, Some(first)) => {
                let mut joined = BytesMut::with_capacity(total);
                joined.extend_from_slice(first);
                chosen.for_each(|b| joined.extend_from_slice(b));
                joined.freeze()
            }
        }))
    }

    fn plan(&self, from: Offset) -> Result<Option<Plan>, LogError> {
        let state = self.state.borrow();
        let at = state.segments.partition_point(|s| s.base <= from).saturating_sub(1);
        let segment = &state.segments[at];
        if from >= segment.next {
            return Ok(None);
        }
        let relative = u32::try_from(from - segment.base).unwrap_or(u32::MAX);
        Ok(Some(Plan {
            file: segment.file.clone(),
            path: segment.path.clone(),
            segment: segment.base,
            position: segment.index.lookup(relative),
            size: segment.size,
            next: segment.next,
            version: state.version(),
        }))
    }

    /// `None` if the segment holds nothing at or past `from`.
    async fn read_planned(
        &self,
        plan: &Plan,
        from: Offset,
        max_bytes: usize,
        upper: Offset,
    ) -> Result<Option<Bytes>, LogError> {
        let mut at = plan.position;
        let mut want = max_bytes.saturating_add(PAGE);
        let mut window = Window { position: at, bytes: Bytes::new() };
        // Bytes of `window` that are the answer so far: they begin at `first` and end at `at`.
        let mut first = None;
        loop {
            if at >= plan.size {
                break;
            }
            let rest = |window: &Window| window.bytes.slice((at - window.position) as usize..);
            let mut here = rest(&window);
            let have_header = here.len() >= HEADER_LEN;
            let needed = if have_header { self.header(plan, at, &here)?.total_len() } else { HEADER_LEN };
            if here.len() < needed {
                if first.is_some_and(|f| at > f) && !have_header {
                    break;
                }
                if first.is_some_and(|f| (at - f) as usize + needed > max_bytes && at > f) {
                    break;
                }
                let begin = first.unwrap_or(at);
                want = want.max((at - begin) as usize + needed);
                let known = window.position + window.bytes.len() as u64;
                window = self.window(plan, begin, want).await?;
                if window.position + window.bytes.len() as u64 <= known {
                    return Err(corrupt(&plan.path, at, from, "a batch reaches past the end of its segment"));
                }
                here = rest(&window);
                if here.len() < HEADER_LEN {
                    return Err(corrupt(&plan.path, at, from, "a header reaches past the end of its segment"));
                }
                continue;
            }
            let header = self.header(plan, at, &here)?;
            let end = at + header.total_len() as u64;
            if header.last_offset() >= upper {
                break;
            }
            if header.last_offset() < from {
                at = end;
                continue;
            }
            if first.is_some_and(|f| (end - f) as usize > max_bytes) {
                break;
            }
            first.get_or_insert(at);
            at = end;
        }
        Ok(match first {
            Some(first) => {
                Some(window.bytes.slice((first - window.position) as usize..(at - window.position) as usize))
            }
            None if at >= plan.size => None,
            None => Some(Bytes::new()),
        })
    }

    fn header(&self, plan: &Plan, at: u64, bytes: &[u8]) -> Result<BatchHeader, LogError> {
        let header = BatchHeader::parse(bytes).map_err(|e| corrupt(&plan.path, at, plan.segment, e.to_string()))?;
        if at + header.total_len() as u64 > plan.size {
            return Err(corrupt(&plan.path, at, header.base_offset, "a batch reaches past the end of its segment"));
        }
        Ok(header)
    }

    /// Reads the whole pages that hold `len` bytes from `position`, and verifies those that are finished.
    async fn window(&self, plan: &Plan, position: u64, len: usize) -> Result<Window, LogError> {
        let first_page = (position / PAGE as u64) as usize;
        let begin = (first_page * PAGE) as u64;
        let end = position.saturating_add(len as u64).next_multiple_of(PAGE as u64).min(plan.size);
        let read = plan.file.read_at(begin, (end - begin) as usize).await;
        let bytes = read.map_err(LogError::storage("read", &plan.path))?;
        let state = self.state.borrow();
        if state.version() == plan.version {
            let segment = state.segments.iter().find(|s| s.base == plan.segment);
            for (n, page) in bytes.chunks(PAGE).enumerate() {
                if segment.is_some_and(|s| !s.pages.verify(first_page + n, page)) {
                    let at = begin + (n * PAGE) as u64;
                    return Err(corrupt(&plan.path, at, plan.segment, "page checksum does not match"));
                }
            }
        }
        Ok(Window { position: begin, bytes })
    }

    fn corrupt_at(&self, offset: Offset, reason: String) -> LogError {
        corrupt(&self.state.borrow().dir, 0, offset, reason)
    }
}
