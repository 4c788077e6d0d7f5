//! Whether a log is worth cleaning, how far, and which segments become one. Pure.
//!
//! ```text
//! log start      first dirty            bound              high watermark, last stable offset, lag      log end
//!     |  clean       |  dirty: the map      |  not yet cleanable                                 | active |
//! ```

use super::{CleanerConfig, SegmentInfo};
use crate::Offset;
use crate::segment::NO_TIMESTAMP;

/// A log that may be cleaned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dirty {
    /// Everything below has been through the cleaner.
    pub first_dirty: Offset,
    /// The base of the first segment that may not be touched.
    pub bound: Offset,
    /// Share of the dirty bytes in those below the bound, 0 to 1.
    pub ratio: f64,
}

/// `uncleanable`: the high watermark or the last stable offset, whichever is lower. What lies past it may be truncated, and
/// an uncommitted record must not take a committed one with it (KAFKA-13194); of an open transaction nobody knows yet
/// whether its records count.
pub(crate) fn plan(
    segments: &[SegmentInfo],
    first_dirty: Offset,
    uncleanable: Offset,
    now_ms: i64,
    config: &CleanerConfig,
) -> Option<Dirty> {
    // The last segment that holds anything counts as active: its end is the log's, and a reader on its way there must
    // find something.
    let closed = segments.iter().rposition(|s| s.bytes > 0)?;
    let lag = i64::try_from(config.min_compaction_lag_ms).unwrap_or(i64::MAX);
    let (mut clean, mut dirty) = (0u64, 0u64);
    let mut bound = None;
    for s in &segments[..closed] {
        let is_dirty = s.next > first_dirty;
        let young = lag > 0 && s.max_timestamp != NO_TIMESTAMP && s.max_timestamp > now_ms.saturating_sub(lag);
        if s.next > uncleanable || (is_dirty && young) {
            break;
        }
        bound = Some(s.next);
        *(if is_dirty { &mut dirty } else { &mut clean }) += s.bytes;
    }
    let bound = bound.filter(|_| dirty > 0)?;
    let ratio = dirty as f64 / (clean + dirty) as f64;
    (ratio > config.min_cleanable_dirty_ratio).then_some(Dirty { first_dirty, bound, ratio })
}

/// Runs of segments below `to` that fit one segment each, as (first, one past the last) of their offsets.
pub(crate) fn groups(segments: &[SegmentInfo], to: Offset, segment_bytes: u64) -> Vec<(Offset, Offset)> {
    let mut groups: Vec<(Offset, Offset)> = Vec::new();
    let mut bytes = 0;
    for s in segments.iter().filter(|s| s.base < to) {
        match groups.last_mut() {
            Some(last) if bytes + s.bytes <= segment_bytes && s.next - last.0 <= Offset::from(i32::MAX) => {
                last.1 = s.next;
                bytes += s.bytes;
            }
            _ => {
                groups.push((s.base, s.next));
                bytes = s.bytes;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(bytes: &[u64]) -> Vec<SegmentInfo> {
        let one = |(i, bytes): (Offset, &u64)| SegmentInfo {
            base: i * 10,
            next: i * 10 + 10,
            bytes: *bytes,
            max_timestamp: i * 1_000,
        };
        (0..).zip(bytes).map(one).collect()
    }

    fn config(ratio: f64, lag: u64) -> CleanerConfig {
        CleanerConfig { min_cleanable_dirty_ratio: ratio, min_compaction_lag_ms: lag, ..CleanerConfig::default() }
    }

    #[test]
    fn the_bound_is_below_the_active_segment_the_stable_offsets_and_the_lag() {
        let s = segments(&[100, 100, 100, 50]);
        let bound = |uncleanable, now, c: &CleanerConfig| plan(&s, 0, uncleanable, now, c).map(|d| d.bound);
        let c = config(0.0, 0);
        assert_eq!(bound(40, 0, &c), Some(30), "never the active one");
        assert_eq!(bound(29, 0, &c), Some(20), "whole segments only");
        assert_eq!(bound(9, 0, &c), None);
        assert_eq!(bound(40, 3_000, &config(0.0, 2_000)), Some(20));
        assert_eq!(bound(40, 2_000, &config(0.0, 2_001)), None);
        let empty_tail = segments(&[100, 100, 100, 0]);
        assert_eq!(plan(&empty_tail, 0, 40, 0, &c).map(|d| d.bound), Some(20), "what is last counts as active");
        assert_eq!(plan(&segments(&[0, 0]), 0, 40, 0, &c), None);
    }

    #[test]
    fn a_log_is_cleaned_when_enough_of_it_is_dirty() {
        let s = segments(&[100, 100, 100, 50]);
        let ratio = |first_dirty, c| plan(&s, first_dirty, 40, 0, &c).map(|d| d.ratio);
        assert_eq!(ratio(0, config(0.5, 0)), Some(1.0));
        assert_eq!(ratio(10, config(0.5, 0)), Some(2.0 / 3.0));
        assert_eq!(ratio(20, config(0.5, 0)), None);
        assert_eq!(ratio(25, config(0.3, 0)), Some(1.0 / 3.0), "a segment half through is dirty as a whole");
        assert_eq!(ratio(30, config(0.0, 0)), None, "nothing is dirty");
    }

    #[test]
    fn small_segments_become_one() {
        assert_eq!(groups(&segments(&[40, 40, 40, 100, 0, 10]), 60, 100), [(0, 20), (20, 30), (30, 50), (50, 60)]);
        assert_eq!(groups(&segments(&[40, 40, 40]), 15, 1_000), [(0, 20)]);
    }
}
