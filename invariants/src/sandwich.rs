//! The last part of rule 22: rows without decisions, a foreign engine's say.
//!
//! Each accepted set must lie between the records that can be late under no legal W and all records. A record can be late
//! only if its window is past its lateness at the highest W that its point can have had when it came: its own split's W
//! before it, or, where a split may be idle and there is another, the highest W of any split. What lies within but is
//! undecided stays so; with the late output at hand nothing is undecided.

use std::collections::{BTreeMap, BTreeSet};

use history::Witness;
use models::Watermark;
use models::fold::Fold;
use models::record::Event;
use models::row::Row;
use models::spec::Function;
use models::window::{Class, Window};

use crate::Violations;
use crate::evidence::Evidence;

type Placed<'a> = (i32, i64, &'a Event);

#[derive(Default)]
struct Bounds<'a> {
    /// Late under no legal W.
    sure: Vec<Placed<'a>>,
    /// Late under some.
    maybe: Vec<Placed<'a>>,
}

/// Adds what is wrong to `found` and returns what cannot be decided.
pub(crate) fn judge(evidence: &Evidence<'_>, found: &mut Violations) -> Vec<String> {
    let mut windows: BTreeMap<(&str, Window), Bounds<'_>> = BTreeMap::new();
    let late = late_places(evidence, found);
    for (partition, records) in &evidence.input {
        for record in records {
            let Ok(event) = &record.decoded else { continue };
            let window = evidence.job.window.assign(event.event_time);
            let possible =
                evidence.job.window.classify(event.event_time, window, highest(evidence, *partition, record.offset))
                    == Class::Late;
            let is_late = late.as_ref().map(|late| late.contains(&(*partition, record.offset)));
            if is_late == Some(true) {
                if !possible {
                    let witness = Witness::offset(&evidence.job.source.topic, *partition, record.offset)
                        .key(&event.key)
                        .window(window.start, window.end)
                        .expected("accepted, under any legal watermark")
                        .found("late");
                    found.add(record.op, "a record is late under no legal watermark", witness);
                }
                continue;
            }
            let bounds = windows.entry((&event.key, window)).or_default();
            let place = (*partition, record.offset, event);
            if possible && is_late.is_none() { bounds.maybe.push(place) } else { bounds.sure.push(place) }
        }
    }
    let mut undecided = Vec::new();
    let mut rows = newest(evidence, found);
    for ((key, window), bounds) in &windows {
        let row = rows.remove(&(*key, window.start, window.end));
        judge_window(evidence, key, *window, bounds, row, found, &mut undecided);
    }
    for row in rows.values() {
        let witness = Witness::default().key(&row.key).window(row.window_start, row.window_end);
        found.add(None, "a row does not follow from the input", witness.expected("none").found(row));
    }
    undecided
}

fn judge_window(
    evidence: &Evidence<'_>,
    key: &str,
    window: Window,
    bounds: &Bounds<'_>,
    row: Option<&Row>,
    found: &mut Violations,
    undecided: &mut Vec<String>,
) {
    let fold = |records: &mut dyn Iterator<Item = &Placed<'_>>| {
        let mut fold = Fold::default();
        records.for_each(|(p, o, event)| fold.add(*p, *o, event));
        fold
    };
    let all = fold(&mut bounds.sure.iter().chain(&bounds.maybe));
    let sure = fold(&mut bounds.sure.iter());
    let name = format!("{key:?} [{}, {})", window.start, window.end);
    let witness = || Witness::default().key(key).window(window.start, window.end);
    let functions = &evidence.job.aggregate;
    let Some(row) = row else {
        if !bounds.sure.is_empty() {
            if evidence.drained {
                let witness = witness().expected(values(functions, &all)).found("none");
                found.add(None, "a row is missing from the output", witness);
            } else {
                undecided.push(format!("{name} has no row, and the input may not be at its end"));
            }
        } else if !bounds.maybe.is_empty() {
            undecided.push(format!("{name} has no row, and each of its records may have been late"));
        }
        return;
    };
    if bounds.maybe.is_empty() {
        if row.plain_values() != all.values(functions) {
            let witness = witness().expected(values(functions, &all)).found(row);
            found.add(None, "a row has wrong contents", witness);
        }
        return;
    }
    for (function, value) in &row.values {
        let within = match function {
            Function::Count => value.is_some_and(|v| (sure.count.into()..=all.count.into()).contains(&v)),
            Function::Sum => {
                let values: Vec<i128> = bounds.maybe.iter().filter_map(|(.., e)| e.value).map(i128::from).collect();
                let base = sure.value(Function::Sum).unwrap_or(0);
                let low = base + values.iter().filter(|v| **v < 0).sum::<i128>();
                let high = base + values.iter().filter(|v| **v > 0).sum::<i128>();
                value.is_none_or(|v| (low..=high).contains(&v))
            }
            Function::Min | Function::Max | Function::Digest => true,
        };
        if !within {
            let (sure, all) = (values(functions, &sure), values(functions, &all));
            let witness = witness().expected(format_args!("between {sure} and {all}")).found(row);
            found.add(None, "a row lies outside what any legal watermark allows", witness);
            return;
        }
    }
    undecided.push(format!("{name}: {} of its records may have been late", bounds.maybe.len()));
}

/// `count 2, sum 5`.
fn values(functions: &[Function], fold: &Fold) -> String {
    let value = |f: &Function| match fold.value(*f) {
        Some(value) => format!("{} {value}", f.name()),
        None => format!("{} null", f.name()),
    };
    functions.iter().map(value).collect::<Vec<_>>().join(", ")
}

/// The highest W at which a record can have been judged.
fn highest(evidence: &Evidence<'_>, partition: i32, offset: i64) -> Watermark {
    let bound = evidence.job.watermark.out_of_orderness_ms;
    let splits = evidence.splits();
    let own = splits.get(&partition).map_or(Watermark::MIN, |log| log.watermark_at(offset - 1, bound));
    if evidence.job.watermark.idle_after_ms.is_none() {
        return own;
    }
    let others = splits.iter().filter(|(p, _)| **p != partition).map(|(_, log)| log.watermark_at_end(bound));
    others.fold(own, Watermark::max)
}

fn late_places(evidence: &Evidence<'_>, found: &mut Violations) -> Option<BTreeSet<(i32, i64)>> {
    let mut places = BTreeSet::new();
    for published in evidence.late.as_ref()? {
        match published.source() {
            Some(place) if evidence.source(place.0, place.1).is_none() => {
                let witness = Witness::at(&published.place).expected("the source record that it names");
                let witness = witness.found(format_args!("no record {} of split {}", place.1, place.0));
                found.add(None, "a late record names a source record that is not there", witness);
            }
            Some(place) if !places.insert(place) => {
                let op = evidence.source(place.0, place.1).and_then(|r| r.op);
                let witness =
                    Witness::at(&published.place).about(format_args!("record {} of split {}", place.1, place.0));
                found.add(op, "one record is late twice", witness.expected("late once").found("again"));
            }
            Some(_) => {}
            None => {
                let witness = Witness::at(&published.place).expected("a source partition and offset").found("none");
                found.add(None, "a late record names no source record", witness);
            }
        }
    }
    Some(places)
}

/// The newest pane of each window (accumulating).
fn newest<'a>(evidence: &'a Evidence<'_>, found: &mut Violations) -> BTreeMap<(&'a str, i64, i64), &'a Row> {
    let rows = evidence.parsed_rows();
    let mut newest: BTreeMap<(&str, i64, i64), &Row> = BTreeMap::new();
    for (row, place) in rows {
        let row = match row {
            Ok(row) => row,
            Err(e) => {
                found.add(None, e.to_string(), Witness::at(place).expected("a result row").found(e));
                continue;
            }
        };
        let slot = (row.key.as_str(), row.window_start, row.window_end);
        match newest.get(&slot) {
            Some(before) if before.pane == row.pane => {
                let witness = Witness::at(place).key(&row.key).window(row.window_start, row.window_end);
                let witness = witness
                    .about(format_args!("pane {}", row.pane))
                    .expected("once")
                    .found(format_args!("again: {row}"));
                found.add(None, "one row is in the output twice", witness);
            }
            Some(before) if before.pane > row.pane => {}
            _ => {
                newest.insert(slot, row);
            }
        }
    }
    newest
}
