//! Retention: which of a log's oldest segments go, by age and by size (`retention.ms`, `retention.bytes`), and moving the
//! log's start, for retention, for DeleteRecords (KIP-107), and after a leader's.

use crate::checkpoint::Checkpoint;
use crate::compaction::SegmentInfo;
use crate::log::Log;
use crate::segment::NO_TIMESTAMP;
use crate::{LogError, LogReader, Offset};

/// What a log keeps; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionConfig {
    /// A segment goes when its latest record is older than this.
    pub retention_ms: Option<u64>,
    /// The oldest segments go as long as the others hold at least this many bytes.
    pub retention_bytes: Option<u64>,
}

/// Where the log is to start: the base of a segment. Whole segments go, oldest first, none that reaches past `limit`, and
/// never the last. Pure.
fn new_start(segments: &[SegmentInfo], limit: Offset, now_ms: i64, config: &RetentionConfig) -> Option<Offset> {
    let oldest = config.retention_ms.map(|ms| now_ms.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)));
    let mut left: u64 = segments.iter().map(|s| s.bytes).sum();
    let mut start = None;
    let (_, closed) = segments.split_last()?;
    for s in closed {
        // One without records is as old as what is before it.
        let aged = oldest.is_some_and(|oldest| s.max_timestamp == NO_TIMESTAMP || s.max_timestamp < oldest);
        let surplus = config.retention_bytes.is_some_and(|keep| left - s.bytes >= keep);
        if s.next > limit || !(aged || surplus) {
            break;
        }
        left -= s.bytes;
        start = Some(s.next);
    }
    start
}

impl LogReader {
    /// Where [`Log::start_at`] should let the log begin by now, if not where it does. Never past the high watermark or the
    /// last stable offset. `now_ms` is wall clock.
    pub fn retained_from(&self, config: &RetentionConfig, now_ms: i64) -> Option<Offset> {
        let state = self.state.borrow();
        let start = new_start(&state.infos(), state.uncleanable(), now_ms, config)?;
        (start > state.start).then_some(start)
    }
}

impl Log {
    /// Lets the log begin at `offset`, if it is past the present start and not past the high watermark: what is below is
    /// out of range at once and after any restart, and segments that lie below whole are removed. Returns the start.
    pub async fn start_at(&mut self, offset: Offset) -> Result<Offset, LogError> {
        self.usable()?;
        let (start, offset, segment) = {
            let state = self.state.borrow();
            let offset = offset.min(state.stable);
            let below = state.segments.partition_point(|s| s.base <= offset);
            (state.start, offset, below.checked_sub(1).map(|at| state.segments[at].base))
        };
        if offset <= start {
            return Ok(start);
        }
        if let Some(segment) = segment.filter(|base| *base != offset) {
            let remember = |c: &mut Checkpoint| c.start = c.start.max(offset);
            match self.update_checkpoint(remember).await {
                Err(error) if error.is_clean() && segment > start => {
                    // No room to say so. What lies below whole needs no saying, and makes room as it goes.
                    env::sometimes!(
                        true,
                        "log: segments go first, since the disk is too full to say where the log begins"
                    );
                    self.state.borrow_mut().start = segment;
                    self.delete_before(segment).await?;
                    self.update_checkpoint(remember).await?;
                }
                stored => stored?,
            }
        }
        self.state.borrow_mut().start = offset;
        self.delete_before(offset).await?;
        Ok(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(sizes_and_times: &[(u64, i64)]) -> Vec<SegmentInfo> {
        let one = |(i, (bytes, max_timestamp)): (Offset, &(u64, i64))| SegmentInfo {
            base: i * 10,
            next: i * 10 + 10,
            bytes: *bytes,
            max_timestamp: *max_timestamp,
        };
        (0..).zip(sizes_and_times).map(one).collect()
    }

    #[test]
    fn segments_go_by_age_oldest_first() {
        let aged = RetentionConfig { retention_ms: Some(1_000), ..RetentionConfig::default() };
        let s = segments(&[(1, 500), (1, NO_TIMESTAMP), (1, 3_000), (1, 400), (1, 0)]);
        let start = |now, limit| new_start(&s, limit, now, &aged);
        assert_eq!(start(1_500, 50), None, "as old as it may be");
        assert_eq!(start(1_501, 50), Some(20));
        assert_eq!(start(1_501, 19), Some(10), "never past the limit");
        assert_eq!(start(9_999, 50), Some(40), "never the active one");
        assert_eq!(new_start(&s, 50, i64::MAX, &RetentionConfig::default()), None);
    }

    #[test]
    fn segments_go_by_size_while_enough_is_left() {
        let s = segments(&[(10, 0), (20, 0), (30, 0), (5, 0)]);
        let start = |keep| {
            let config = RetentionConfig { retention_bytes: Some(keep), ..RetentionConfig::default() };
            new_start(&s, 40, 0, &config)
        };
        assert_eq!(
            [65, 56, 55, 36, 35, 5, 0].map(start),
            [None, None, Some(10), Some(10), Some(20), Some(30), Some(30)]
        );
    }
}
