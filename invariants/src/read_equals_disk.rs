//! **read-equals-disk.** What the final read returns is what the disks hold, record for record, decoded by two decoders.
//!
//! Source: the design's rule that a fetch bug cannot hide a log bug.
//!
//! Not claimed: anything past the high watermark of the read, or of partitions that only one of the two has; that every
//! broker's copy is whole (logs-agree): of several, the longest must be; what a compacted topic may lack, which is
//! compacted on each broker and at any time.

use std::collections::BTreeMap;

use history::{Flush, LogRecord, LogSource, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "read-equals-disk",
    statement: "the final read and the disk images hold the same records",
    source: "two decoders of one log",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let mut found = Violations::of(&PROPERTY);
    let mut longest: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for disk in context.history.logs.iter().filter(|log| matches!(log.source, LogSource::Disk { .. })) {
        let end = longest.entry((&disk.topic, disk.partition)).or_insert(disk.log_end_offset);
        *end = (*end).max(disk.log_end_offset);
    }
    for disk in &context.history.logs {
        let LogSource::Disk { node } = disk.source else { continue };
        let Some(raw) = context.raw().get(&(disk.topic.as_str(), disk.partition)) else { continue };
        let at = |offset: i64| {
            Witness::offset(&disk.topic, disk.partition, offset).about(format_args!("the disk of broker {node}"))
        };
        let longest = longest.get(&(disk.topic.as_str(), disk.partition)).copied().unwrap_or(0);
        let start = disk.log_start_offset.max(raw.log.log_start_offset);
        let high = raw.log.high_watermark.unwrap_or(raw.log.log_end_offset);
        let end = match context.history.facts.flush {
            Flush::Fsync if disk.log_end_offset >= longest => high,
            Flush::Fsync => high.min(disk.log_end_offset),
            // What was never flushed may be missing from an image of the platters.
            Flush::PageCache => high.min(disk.log_end_offset),
        };
        let within = |records: &'_ [LogRecord]| -> (usize, usize) {
            (records.partition_point(|r| r.offset < start), records.partition_point(|r| r.offset < end))
        };
        let (a, b) = (within(&raw.log.records), within(&disk.records));
        let mut read = raw.log.records[a.0..a.1].iter().peekable();
        let mut held = disk.records[b.0..b.1].iter().peekable();
        let gone = |r: &LogRecord| context.compaction().may_lack_record(&disk.topic, disk.partition, r);
        loop {
            let (r, d) = (read.peek().copied(), held.peek().copied());
            match (r, d) {
                (None, None) => break,
                (Some(r), Some(d)) if r.offset == d.offset => {
                    if r != d {
                        let witness =
                            at(r.offset).expected(format_args!("as read: {r:?}")).found(format_args!("{d:?}"));
                        found.add(context.op_of(d).or(context.op_of(r)), "the read and the disk differ", witness);
                    }
                    read.next();
                    held.next();
                }
                (Some(r), d) if d.is_none_or(|d| r.offset < d.offset) => {
                    if !gone(r) {
                        let witness = at(r.offset).expected("the record that is read").found("none");
                        found.add(context.op_of(r), "a record is read that the disk has not", witness);
                    }
                    read.next();
                }
                (_, Some(d)) => {
                    if !gone(d) {
                        let witness = at(d.offset).expected("no record, for none is read").found("one");
                        found.add(context.op_of(d), "a record is on the disk that is not read", witness);
                    }
                    held.next();
                }
                (Some(_), None) => unreachable!("the guard above takes it"),
            }
        }
    }
    found.verdict()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::mutate::*;
    use crate::fixture::{self, Mutator};

    #[test]
    fn accepts_good_histories() {
        fixture::accepts(&PROPERTY);
    }

    #[test]
    fn rejects_what_breaks_it() {
        fixture::rejects(
            &PROPERTY,
            &[DROP, DROP_FROM_DISK, DUPLICATE, SWAP, SHIFT, MISATTRIBUTE, CHANGE_VALUE],
            &[(Mutator::Unacknowledge, "two readers of one log agree whatever clients heard")],
        );
    }
}
