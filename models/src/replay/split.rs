//! A split's committed records, and its watermark after each (rule 2).

use std::collections::BTreeMap;

use crate::record::{Event, Reason};
use crate::time::Watermark;

/// What a `read_committed` reader finds in one source partition, decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SplitLog {
    /// In order of offset.
    records: Vec<SplitRecord>,
    /// max T of the valid records up to each of `records`.
    highest: Vec<Option<i64>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitRecord {
    pub offset: i64,
    pub decoded: Result<Event, Reason>,
}

/// All of a topic's splits, by partition.
pub type SplitLogs = BTreeMap<i32, SplitLog>;

impl SplitLog {
    /// # Panics
    /// If offsets do not rise.
    pub fn new(records: Vec<SplitRecord>) -> SplitLog {
        for pair in records.windows(2) {
            assert!(pair[0].offset < pair[1].offset, "offset {} after {}", pair[1].offset, pair[0].offset);
        }
        let mut high: Option<i64> = None;
        let highest = records
            .iter()
            .map(|record| {
                high = high.max(record.decoded.as_ref().ok().map(|e| e.event_time));
                high
            })
            .collect();
        SplitLog { records, highest }
    }

    pub fn records(&self) -> &[SplitRecord] {
        &self.records
    }

    /// The records with offsets in [first, last].
    pub fn range(&self, first: i64, last: i64) -> &[SplitRecord] {
        let from = self.records.partition_point(|r| r.offset < first);
        let to = self.records.partition_point(|r| r.offset <= last);
        &self.records[from.min(to)..to]
    }

    pub fn get(&self, offset: i64) -> Option<&SplitRecord> {
        self.range(offset, offset).first()
    }

    /// W after `offset`: max T of the valid records up to it, minus `out_of_orderness_ms`, minus 1; MIN before the
    /// first.
    pub fn watermark_at(&self, offset: i64, out_of_orderness_ms: i64) -> Watermark {
        let upto = self.records.partition_point(|r| r.offset <= offset);
        match upto.checked_sub(1).and_then(|i| self.highest[i]) {
            Some(high) => Watermark(high - out_of_orderness_ms - 1),
            None => Watermark::MIN,
        }
    }

    /// W after the last record.
    pub fn watermark_at_end(&self, out_of_orderness_ms: i64) -> Watermark {
        self.watermark_at(i64::MAX, out_of_orderness_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_never_move_the_watermark() {
        let valid = |t| Ok(Event { key: "k".into(), event_time: t, value: None });
        let log = SplitLog::new(vec![
            SplitRecord { offset: 1, decoded: Err(Reason::Undecodable) },
            SplitRecord { offset: 2, decoded: valid(-5) },
            SplitRecord { offset: 5, decoded: valid(-9) },
            SplitRecord { offset: 6, decoded: valid(4) },
        ]);
        let w = |offset| log.watermark_at(offset, 2);
        assert_eq!([w(0), w(1), w(2), w(4), w(5), w(6), w(99)].map(|w| w.ms()), [i64::MIN, i64::MIN, -8, -8, -8, 1, 1]);
        assert_eq!(log.range(2, 5).len(), 2);
        assert!(log.get(3).is_none());
    }
}
