//! **logs-agree.** Below the high watermark every broker's log of a partition holds the same records, byte for byte, and
//! every in-sync member holds all of them.
//!
//! Source: Kafka's replication protocol (KIP-101, KIP-279, KIP-966). Judged from the disk images of all brokers, decoded by
//! the second decoder, below the high watermark of the final read and of every observation.
//!
//! Not claimed: anything past the high watermark, where logs differ until they are truncated; that a member out of sync has
//! caught up; what a compacted topic may lack; holes of internal topics, whose names begin with `__`: there only records
//! that both have are compared.

use std::collections::BTreeMap;

use history::{LogRecord, LogSource, Observed, PartitionLog, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "logs-agree",
    statement: "below the high watermark all brokers' logs are equal, and in-sync ones whole",
    source: "KIP-101, KIP-279, KIP-966",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let mut copies: BTreeMap<(&str, i32), Vec<(u32, &PartitionLog)>> = BTreeMap::new();
    for log in &context.history.logs {
        if let LogSource::Disk { node } = log.source {
            copies.entry((&log.topic, log.partition)).or_default().push((node, log));
        }
    }
    let marks = Marks::of(context);
    let mut found = Violations::of(&PROPERTY);
    for (at, copies) in &copies {
        let Some(high) = marks.high.get(at).copied() else { continue };
        for (node, log) in copies {
            let in_sync = marks.isr.get(at).is_some_and(|(_, isr)| isr.contains(node));
            if in_sync && log.log_end_offset < high && !context.history.facts.disks_lost {
                let witness = Witness::offset(at.0, at.1, log.log_end_offset)
                    .about(format_args!("the disk of broker {node}, in sync"))
                    .expected(format_args!("a log up to the high watermark {high}"))
                    .found(format_args!("it ends at {}", log.log_end_offset));
                let lost = context.raw().get(at).and_then(|raw| {
                    let i = raw.log.records.partition_point(|r| r.offset < log.log_end_offset);
                    raw.ops.get(i).copied().flatten()
                });
                found.add(lost, "an in-sync member lacks what is committed", witness);
            }
        }
        // The newest leader's is the measure of the others, or else the longest.
        let leader = marks.leader.get(at).and_then(|(_, broker)| copies.iter().find(|(node, _)| node == broker));
        let measure = leader.or(copies.iter().max_by_key(|(_, log)| log.log_end_offset));
        let Some((first, measure)) = measure else { continue };
        for (node, log) in copies.iter().filter(|(node, _)| node != first) {
            compare(context, (*first, measure), (*node, log), high, &mut found);
        }
    }
    found.verdict()
}

fn compare(
    context: &Context<'_>,
    (first, a): (u32, &PartitionLog),
    (second, b): (u32, &PartitionLog),
    high: i64,
    found: &mut Violations,
) {
    let internal = a.topic.starts_with("__");
    let gone = |record: &LogRecord| internal || context.compaction().may_lack_record(&a.topic, a.partition, record);
    let start = a.log_start_offset.max(b.log_start_offset);
    let end = high.min(a.log_end_offset).min(b.log_end_offset);
    let within = |log: &PartitionLog| {
        log.records.partition_point(|r| r.offset < start)..log.records.partition_point(|r| r.offset < end)
    };
    let mut left = a.records[within(a)].iter().peekable();
    let mut right = b.records[within(b)].iter().peekable();
    let at = |offset| {
        let brokers = format_args!("brokers {first} and {second}, high watermark {high}").to_string();
        Witness::offset(&a.topic, a.partition, offset).about(brokers)
    };
    loop {
        let (l, r) = (left.peek().copied(), right.peek().copied());
        let offset = match (l, r) {
            (None, None) => break,
            (Some(l), Some(r)) => l.offset.min(r.offset),
            (Some(one), None) | (None, Some(one)) => one.offset,
        };
        let l = left.next_if(|l| l.offset == offset);
        let r = right.next_if(|r| r.offset == offset);
        match (l, r) {
            (Some(l), Some(r)) if l != r => {
                let witness = at(offset).expected(format_args!("as broker {first} has it: {l:?}"));
                let op = context.op_of(r).or(context.op_of(l));
                found.add(op, "two brokers hold different records", witness.found(format_args!("{r:?}")));
            }
            (Some(one), None) if !gone(one) => {
                let witness = at(offset).expected(format_args!("the record of broker {first}"));
                found.add(context.op_of(one), "a broker lacks a committed record", witness.found("none"));
            }
            (None, Some(one)) if !gone(one) => {
                let witness = at(offset).expected(format_args!("no record, as on broker {first}"));
                found.add(context.op_of(one), "a broker lacks a committed record", witness.found("one"));
            }
            _ => {}
        }
    }
}

/// What is known to be committed.
#[derive(Default)]
struct Marks<'a> {
    high: BTreeMap<(&'a str, i32), i64>,
    /// The newest in-sync set, with its partition epoch.
    isr: BTreeMap<(&'a str, i32), (i32, &'a [u32])>,
    /// The newest leader epoch, with its broker.
    leader: BTreeMap<(&'a str, i32), (i32, u32)>,
}

impl<'a> Marks<'a> {
    fn of(context: &Context<'a>) -> Marks<'a> {
        let mut marks = Marks::default();
        for (at, raw) in context.raw() {
            if let Some(high) = raw.log.high_watermark {
                marks.high.insert(*at, high);
            }
        }
        // Under page-cache acknowledgement what was once readable may be gone: only the end counts.
        let all = context.history.facts.flush == history::Flush::Fsync && !context.history.facts.disks_lost;
        for seen in &context.history.observations {
            match &seen.what {
                Observed::HighWatermark { topic, partition, offset, .. } if all => {
                    let high = marks.high.entry((topic, *partition)).or_insert(*offset);
                    *high = (*high).max(*offset);
                }
                Observed::LeaderElected { topic, partition, leader_epoch, broker, .. } => {
                    let newest = marks.leader.entry((topic, *partition)).or_insert((*leader_epoch, *broker));
                    *newest = (*newest).max((*leader_epoch, *broker));
                }
                Observed::IsrChanged { topic, partition, partition_epoch, isr, .. } => {
                    let newest = marks.isr.entry((topic, *partition)).or_insert((*partition_epoch, isr));
                    if newest.0 <= *partition_epoch {
                        *newest = (*partition_epoch, isr);
                    }
                }
                _ => {}
            }
        }
        marks
    }
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
        fixture::rejects_cluster(
            &PROPERTY,
            &[
                REPLICA_DROPS,
                REPLICA_DUPLICATES,
                REPLICA_SWAPS,
                REPLICA_SHIFTS,
                REPLICA_MISATTRIBUTES,
                REPLICA_ENDS_EARLY,
            ],
            &[(Mutator::Unacknowledge, "copies agree whatever clients heard")],
        );
    }

    #[test]
    fn past_the_high_watermark_logs_may_differ() {
        let mut history = fixture::cluster();
        for log in &mut history.logs {
            if log.source == (LogSource::Disk { node: 2 }) && log.partition == 0 {
                let mut past = log.records[0].clone();
                past.offset = log.log_end_offset;
                log.log_end_offset += 1;
                let mut records = log.records.to_vec();
                records.push(past);
                log.records = records.into();
            }
        }
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }
}
