//! **acked-durable.** What was acknowledged with acks=all is in the log, at the offset that was told, with the bytes
//! that were sent, in the final read and on a disk.
//!
//! Source: rule 21. It is judged whatever the flush mode is: page-cache acknowledgement under power loss is the legal
//! weak configuration that must fail it (a canary).
//!
//! Not claimed: anything of acks 0 and 1; what a compacted topic may lack (a later record has the key); that a record is there once (no-duplicate); anything below a log's start.

use std::collections::BTreeMap;

use history::{LogRecord, LogSource, OpId, OpKind, OpResult, PartitionLog, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "acked-durable",
    statement: "a record acknowledged with acks=all is in the final log and on a disk, at its offset, unchanged",
    source: "semantics rule 21",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let history = context.history;
    let mut found = Violations::of(&PROPERTY);
    let mut disks: BTreeMap<(&str, i32), Vec<&PartitionLog>> = BTreeMap::new();
    for log in &history.logs {
        if let LogSource::Disk { .. } = log.source {
            disks.entry((&log.topic, log.partition)).or_default().push(log);
        }
    }
    let disk_index: BTreeMap<(&str, i32), Index<'_>> =
        disks.iter().map(|(at, logs)| (*at, index(context, logs.iter().copied()))).collect();
    let read_index: BTreeMap<(&str, i32), Index<'_>> =
        context.raw().iter().map(|(at, raw)| (*at, index(context, std::iter::once(raw.log)))).collect();
    let mut unread = None;
    for (i, op) in history.ops.iter().enumerate() {
        let OpKind::Produce { topic, partition, key, value, acks: -1, txn, .. } = &op.kind else { continue };
        let OpResult::Ok { offset } = op.result else { continue };
        let at = (topic.as_str(), *partition);
        let witness = || {
            let place = match offset {
                Some(offset) => Witness::offset(topic, *partition, offset),
                None => Witness::partition(topic, *partition),
            };
            place.about(context.name_of(OpId(i)))
        };
        let Some(raw) = context.raw().get(&at) else {
            unread = Some(format!("no final read of {topic}-{partition}"));
            continue;
        };
        if offset.is_some_and(|offset| offset < raw.log.log_start_offset) {
            continue;
        }
        for (reader, index) in [("the final read", read_index.get(&at)), ("every disk", disk_index.get(&at))] {
            let Some(index) = index else { continue };
            let gone = || {
                let compaction = context.compaction();
                offset.is_some_and(|o| compaction.may_lack(topic, *partition, o, key.as_ref(), *txn))
            };
            match index.binary_search_by_key(&OpId(i), |(op, _)| *op).ok().map(|at| index[at].1) {
                None if gone() => {}
                None => {
                    let witness = witness().expected("its record, once").found("none");
                    found.add(Some(OpId(i)), format!("an acknowledged record is missing from {reader}"), witness);
                }
                Some(record) => {
                    if let Some(told) = offset.filter(|told| *told != record.offset) {
                        let message = format!("an acknowledged record is at another offset in {reader}");
                        let witness = witness().expected(format_args!("offset {told}, as acknowledged"));
                        found.add(Some(OpId(i)), message, witness.found(format_args!("offset {}", record.offset)));
                    }
                    if record.key != *key || record.value != *value {
                        let witness = witness()
                            .expected(format_args!("key {key:?}, value {value:?}"))
                            .found(format_args!("key {:?}, value {:?}", record.key, record.value));
                        found.add(
                            Some(OpId(i)),
                            format!("an acknowledged record has other bytes in {reader}"),
                            witness,
                        );
                    }
                }
            }
        }
    }
    match (found.found.is_empty(), unread) {
        (true, Some(reason)) => Verdict::unknown(reason),
        (false, _) if history.facts.disks_lost => Verdict::unknown(
            "acknowledged records are missing, and a disk was lost: rule 21 then promises nothing here",
        ),
        _ => found.verdict(),
    }
}

/// Sorted by operation.
type Index<'a> = Vec<(OpId, &'a LogRecord)>;

/// Records by the operation that wrote them. Of several (a duplicate), the first.
fn index<'a>(context: &Context<'_>, logs: impl Iterator<Item = &'a PartitionLog>) -> Index<'a> {
    let mut pairs: Vec<(OpId, &LogRecord)> =
        logs.flat_map(|log| &log.records).filter_map(|r| context.op_of(r).map(|op| (op, r))).collect();
    pairs.sort_by_key(|(op, record)| (*op, record.offset));
    pairs.dedup_by_key(|(op, _)| *op);
    pairs
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
            &[DROP, DROP_FROM_DISK, DROP_TAIL, SWAP, SHIFT, MISATTRIBUTE, CHANGE_VALUE],
            &[
                (Mutator::Duplicate, "it is there; that it is there once is no-duplicate's"),
                (Mutator::Unacknowledge, "what was not acknowledged is promised nothing"),
            ],
        );
    }

    #[test]
    fn unknown_operations_may_be_there_or_not() {
        let mut history = fixture::broker();
        for op in &mut history.ops {
            op.result = OpResult::Unknown { reason: None };
        }
        for log in &mut history.logs {
            log.records.truncate(1);
        }
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }

    #[test]
    fn a_log_that_was_not_read_is_unknown() {
        let mut history = fixture::broker();
        history.logs.clear();
        assert!(matches!(PROPERTY.check(&Context::new(&history)), Verdict::Unknown { .. }));
    }
}
