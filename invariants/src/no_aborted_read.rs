//! **no-aborted-read.** `read_committed` returns every committed record, once and in order, and nothing of a transaction
//! that aborted or is still open.
//!
//! Source: KIP-98 (G1a and G1b in Adya's terms). Three readers are judged: our consumer's final read, its reads while the
//! run went on, and the processor, which must not judge a record before it is stable.
//!
//! Not claimed: that the markers themselves are right (transaction-atomicity).

use history::{Decision, LogSource, Observed, Verdict, Witness};

use crate::context::RawLog;
use crate::readable::Readable;
use crate::{Context, Fate, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "no-aborted-read",
    statement: "read_committed returns all that is committed and nothing aborted or open",
    source: "KIP-98; Adya's G1a, G1b",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let mut found = Violations::of(&PROPERTY);
    let mut unread = None;
    for log in context.history.logs_from(&LogSource::ReadCommitted) {
        let Some(raw) = context.raw().get(&(log.topic.as_str(), log.partition)) else {
            unread = Some(format!("no raw read of {}-{}", log.topic, log.partition));
            continue;
        };
        let offsets: Vec<i64> = log.records.iter().map(|r| r.offset).collect();
        let end = log.last_stable_offset.unwrap_or(raw.log.log_end_offset);
        let reader = &|| "the final read".to_owned();
        judge(context, &mut found, raw, reader, log.log_start_offset, end, &offsets);
        for record in &log.records {
            let same = raw.log.records.binary_search_by_key(&record.offset, |r| r.offset).map(|i| &raw.log.records[i]);
            if same.is_ok_and(|same| same.key != record.key || same.value != record.value) {
                let witness = Witness::offset(&log.topic, log.partition, record.offset).about("the final read");
                let witness = witness.expected("the bytes of the raw read").found(format_args!("{:?}", record.value));
                found.add(context.op_of(record), "read_committed returns other bytes than the log has", witness);
            }
        }
    }
    for seen in &context.history.observations {
        let Observed::ReadCommitted { topic, partition, from, to, offsets, last_stable_offset } = &seen.what else {
            continue;
        };
        let Some(raw) = context.raw().get(&(topic.as_str(), *partition)) else {
            unread = Some(format!("no raw read of {topic}-{partition}"));
            continue;
        };
        let reader = || format!("{} at {} ns", seen.observer, seen.at_ns);
        judge(context, &mut found, raw, &reader, *from, *to, offsets);
        if let Some(offset) = offsets.iter().find(|o| *o >= last_stable_offset) {
            let witness = Witness::offset(topic, *partition, *offset)
                .about(reader())
                .expected(format_args!("offsets below the last stable offset {last_stable_offset}"))
                .found(offset);
            found.add(op_at(context, raw, *offset), "read_committed returns a record that is not stable", witness);
        }
    }
    judged_too_early(context, &mut found);
    match unread {
        Some(reason) if found.found.is_empty() => Verdict::unknown(reason),
        _ => found.verdict(),
    }
}

/// `offsets` are what a reader got of [from, to).
fn judge(
    context: &Context<'_>,
    found: &mut Violations,
    raw: &RawLog<'_>,
    reader: &dyn Fn() -> String,
    from: i64,
    to: i64,
    offsets: &[i64],
) {
    let at = |offset: i64| Witness::offset(&raw.log.topic, raw.log.partition, offset).about(reader());
    if let Some(pair) = offsets.windows(2).find(|pair| pair[0] >= pair[1]) {
        let witness = at(pair[1]).expected(format_args!("an offset past {}", pair[0])).found(pair[1]);
        found.add(op_at(context, raw, pair[1]), "read_committed goes backwards", witness);
        return;
    }
    let low = offsets.first().map_or(from, |first| from.min(*first));
    let high = offsets.last().map_or(to, |last| to.max(last + 1));
    let slice =
        raw.log.records.partition_point(|r| r.offset < low)..raw.log.records.partition_point(|r| r.offset < high);
    for (record, fate) in raw.log.records[slice.clone()].iter().zip(&raw.fates[slice]) {
        let gone = || context.compaction().may_lack_record(&raw.log.topic, raw.log.partition, record);
        let due = fate.is_visible() && record.offset >= from && record.offset < to && !gone();
        match (offsets.binary_search(&record.offset).is_ok(), fate) {
            (true, Fate::Aborted | Fate::Open | Fate::Marker) => {
                let witness = at(record.offset).expected("not returned").found(format_args!("{fate:?}, returned"));
                found.add(context.op_of(record), "read_committed returns what is not committed", witness);
            }
            (false, _) if due => {
                let witness = at(record.offset).expected(format_args!("{fate:?}, returned")).found("not returned");
                found.add(context.op_of(record), "read_committed skips a committed record", witness);
            }
            _ => {}
        }
    }
    // What a compacted topic has no longer, or what lies before the log's start, was there once.
    if context.compaction().is_compacted(&raw.log.topic) {
        return;
    }
    let mut kept = offsets.iter().filter(|o| **o >= raw.log.log_start_offset);
    if let Some(offset) = kept.find(|o| raw.log.records.binary_search_by_key(*o, |r| r.offset).is_err()) {
        let witness = at(*offset).expected("a record in the log").found("none");
        found.add(None, "read_committed returns a record that the log has not", witness);
    }
}

/// The processor's Judge of an offset is not before the first sight of a last stable offset past it.
fn judged_too_early(context: &Context<'_>, found: &mut Violations) {
    let Some(job) = &context.history.facts.job else { return };
    let stable = Readable::of(context, &job.source.topic);
    for entry in &context.history.decisions {
        let (Decision::Judge { partition, offsets: [_, last], .. }, Some(at_ns)) = (&entry.decision, entry.at_ns)
        else {
            continue;
        };
        if !stable.knows(*partition) {
            continue;
        }
        if stable.since(*partition, *last).is_none_or(|since| since > at_ns) {
            let raw = context.raw().get(&(job.source.topic.as_str(), *partition));
            let since = stable.since(*partition, *last).map_or("never".to_owned(), |ns| format!("at {ns} ns"));
            let witness = Witness::decision(entry.generation, &entry.task, entry.seq)
                .about(format_args!("record {last} of split {partition}"))
                .expected(format_args!("a judgement after it is stable, {since}"))
                .found(format_args!("judged at {at_ns} ns"));
            let op = raw.and_then(|raw| op_at(context, raw, *last));
            found.add(op, "the processor judges a record before it is stable", witness);
        }
    }
}

fn op_at(context: &Context<'_>, raw: &RawLog<'_>, offset: i64) -> Option<history::OpId> {
    let i = raw.log.records.binary_search_by_key(&offset, |r| r.offset).ok()?;
    context.op_of(&raw.log.records[i])
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
            &[
                READ_LESS,
                READ_LESS_AT_THE_END,
                READ_TWICE,
                READ_SWAPPED,
                READ_SHIFTED,
                READ_ELSEWHERE,
                READ_ABORTED,
                FLIP_MARKER,
            ],
            &[(Mutator::Unacknowledge, "what is committed the markers say, not the answers")],
        );
    }

    #[test]
    fn rejects_a_judgement_of_what_is_not_stable() {
        let mut history = fixture::job();
        for entry in &mut history.decisions {
            if matches!(entry.decision, Decision::Judge { .. }) {
                entry.at_ns = Some(0);
            }
        }
        assert!(!PROPERTY.check(&Context::new(&history)).violations().is_empty());
    }
}
