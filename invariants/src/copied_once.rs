//! **copied-once.** A group that copies a topic in transactions, with its offsets in them, copies every committed record
//! exactly once, through rebalances, crashes and members that do not know that they lost their partitions.
//!
//! Source: KIP-98 and KIP-447 (a member's offsets are fenced by its generation); semantics rule 20. Judged from the final logs
//! alone: each copy names the place that it is a copy of.
//!
//! Not claimed: the order of copies; that everything is copied where the group did not reach the end (liveness says so).

use std::collections::BTreeMap;

use history::{COPY_OF, LogRecord, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "copied-once",
    statement: "a group that copies in transactions copies every committed record once",
    source: "KIP-98, KIP-447, semantics rule 20",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let mut found = Violations::of(&PROPERTY);
    for copying in &context.history.facts.copies {
        let mut copies: BTreeMap<(i32, i64), (i32, &LogRecord)> = BTreeMap::new();
        for ((_, partition), raw) in context.raw().iter().filter(|((topic, _), _)| *topic == copying.to) {
            let visible = raw.log.records.iter().zip(&raw.fates).filter(|(_, fate)| fate.is_visible());
            for (record, _) in visible {
                let at = Witness::offset(&copying.to, *partition, record.offset);
                let Some(origin) = origin(record) else {
                    let witness = at.expected(format_args!("a place of {}", copying.from)).found("none");
                    found.add(context.op_of(record), "a copy does not say what it is a copy of", witness);
                    continue;
                };
                if let Some((p, first)) = copies.insert(origin, (*partition, record)) {
                    let witness = at
                        .about(format_args!("{}-{} offset {}", copying.from, origin.0, origin.1))
                        .expected(format_args!("the copy at {}-{p} offset {} alone", copying.to, first.offset))
                        .found("another one");
                    found.add(context.op_of(record), "a record is copied twice", witness);
                }
            }
        }
        for ((topic, partition), raw) in context.raw().iter().filter(|((topic, _), _)| *topic == copying.from) {
            for (record, fate) in raw.log.records.iter().zip(&raw.fates) {
                let copy = copies.remove(&(*partition, record.offset));
                let at = || Witness::offset(topic, *partition, record.offset);
                match copy {
                    None if fate.is_visible() && copying.caught_up => {
                        let witness = at().expected(format_args!("a copy in {}", copying.to)).found("none");
                        found.add(context.op_of(record), "a committed record is not copied", witness);
                    }
                    Some((p, copy)) if !fate.is_visible() => {
                        let witness = at()
                            .expected("no copy: it is not committed")
                            .found(format_args!("one at {}-{p} offset {}", copying.to, copy.offset));
                        found.add(context.op_of(copy), "a record that is not committed is copied", witness);
                    }
                    _ => {}
                }
            }
        }
        for ((p, offset), (_, copy)) in copies {
            let witness = Witness::offset(&copying.from, p, offset)
                .expected("a record that was copied")
                .found("none in the final log");
            found.add(context.op_of(copy), "a copy of a record that is not there", witness);
        }
    }
    found.verdict()
}

/// Partition and offset of what the record is a copy of.
fn origin(record: &LogRecord) -> Option<(i32, i64)> {
    let header = record.headers.iter().find(|h| h.key.as_str() == Some(COPY_OF))?;
    let (partition, offset) = header.value.as_ref()?.as_str()?.split_once(':')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use history::{Copying, Header, History, LogSource};

    use super::*;
    use crate::fixture;

    /// The fixture's topic `s`, copied to `t` as it is.
    fn copied() -> History {
        let mut history = fixture::streams();
        history.facts.copies = vec![Copying { from: "s".into(), to: "t".into(), caught_up: true }];
        let read = |h: &History, p: i32| {
            let log = h.log(&LogSource::ReadUncommitted, "s", p).expect("the fixture has the topic").clone();
            let fates = Context::new(h).raw()[&("s", p)].fates.clone();
            (log, fates)
        };
        for p in 0..2 {
            let (source, fates) = read(&history, p);
            let log = history
                .logs
                .iter_mut()
                .find(|l| l.source == LogSource::ReadUncommitted && l.topic == "t" && l.partition == p)
                .expect("the fixture has the topic");
            let visible = source.records.iter().zip(&fates).filter(|(_, fate)| fate.is_visible());
            let copies = visible.enumerate().map(|(n, (record, _))| {
                let mut copy = record.clone();
                let value = Some(format!("{p}:{}", record.offset).as_str().into());
                copy.offset = n as i64;
                copy.headers.push(Header { key: COPY_OF.into(), value });
                copy
            });
            let copies: Vec<_> = copies.collect();
            log.log_end_offset = copies.len() as i64;
            log.records = copies.into();
        }
        history
    }

    fn message(change: impl FnOnce(&mut Vec<LogRecord>)) -> String {
        let mut history = copied();
        let log = history
            .logs
            .iter_mut()
            .find(|l| l.source == LogSource::ReadUncommitted && l.topic == "t" && l.partition == 0)
            .expect("the topic is there");
        let mut records = log.records.to_vec();
        change(&mut records);
        log.records = records.into();
        let verdict = PROPERTY.check(&Context::new(&history));
        verdict.violations().first().map(|v| v.message.clone()).unwrap_or_default()
    }

    #[test]
    fn accepts_good_histories() {
        fixture::accepts(&PROPERTY);
        assert_eq!(PROPERTY.check(&Context::new(&copied())), Verdict::Pass);
    }

    #[test]
    fn rejects_what_breaks_it() {
        assert_eq!(message(|r| drop(r.remove(3))), "a committed record is not copied");
        let again = |r: &mut Vec<LogRecord>| {
            let again = LogRecord { offset: r.len() as i64, ..r[3].clone() };
            r.push(again);
        };
        assert_eq!(message(again), "a record is copied twice");
        assert_eq!(message(|r| r[3].headers.clear()), "a copy does not say what it is a copy of");
        let stray = |r: &mut Vec<LogRecord>| {
            let header = r[3].headers.last_mut().expect("a header");
            header.value = Some("0:1000000".into());
        };
        assert_eq!(message(stray), "a committed record is not copied");
    }

    #[test]
    fn a_group_on_its_way_has_not_copied_everything() {
        let mut history = copied();
        history.facts.copies[0].caught_up = false;
        for log in &mut history.logs {
            if log.source == LogSource::ReadUncommitted && log.topic == "t" {
                log.records = log.records[..1].to_vec().into();
            }
        }
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }
}
