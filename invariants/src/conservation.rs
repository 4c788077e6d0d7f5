//! **conservation.** Each input of the committed attempt is in exactly one of: an accepted pair, the late output, the
//! dead-letter topic.
//!
//! Source: rules 23 and 24. Late and dead-letter records carry the source record's own bytes; a dead letter names its
//! reason.
//!
//! Not claimed: what accepted records amount to (window-exactly-once). Tumbling windows leave no record unassigned.

use std::collections::BTreeMap;

use history::{Verdict, Witness};
use models::replay::Replay;
use models::window::Class;

use crate::evidence::{Evidence, Published};
use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "conservation",
    statement: "each input is accepted, late or a dead letter, once, with its own bytes",
    source: "semantics rules 23, 24",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let (evidence, replay) = match context.evidence() {
        None => return Verdict::Pass,
        Some(Err(reason)) => return Verdict::unknown(reason),
        Some(Ok(made)) => (&made.0, &made.1),
    };
    let mut found = Violations::of(&PROPERTY);
    judge(evidence, replay, &mut found);
    found.verdict()
}

pub(crate) fn judge(evidence: &Evidence<'_>, replay: &Replay, found: &mut Violations) {
    let late = side(evidence, evidence.late.as_deref(), &evidence.job.sink.late_topic, found);
    let dead = side(evidence, evidence.dead.as_deref(), &evidence.job.sink.dlq_topic, found);
    let mut accepted: Vec<(i32, i64)> =
        replay.judged.iter().filter(|r| r.class != Class::Late).map(|r| (r.partition, r.offset)).collect();
    accepted.sort_unstable();
    for (partition, records) in &evidence.input {
        let position = replay.positions.get(partition).copied().unwrap_or(0);
        for record in records.iter().take_while(|r| r.offset < position) {
            let place = (*partition, record.offset);
            let is_accepted = accepted.binary_search(&place).is_ok();
            let is_late = late.as_ref().map(|late| late.contains_key(&place));
            let is_dead = dead.as_ref().map(|dead| dead.contains_key(&place));
            // Where a topic is not at hand it is given the benefit of the doubt.
            let at_least =
                usize::from(is_accepted) + usize::from(is_late == Some(true)) + usize::from(is_dead == Some(true));
            let valid = record.decoded.is_ok();
            let elsewhere = (is_late.is_none() && valid) || (is_dead.is_none() && !valid);
            let witness = |expected: &str| {
                let places =
                    [(is_accepted, "accepted"), (is_late == Some(true), "late"), (is_dead == Some(true), "dead")];
                let places: Vec<&str> = places.iter().filter(|(there, _)| *there).map(|(_, name)| *name).collect();
                let is = if places.is_empty() { "nowhere".to_owned() } else { places.join(" and ") };
                Witness::offset(&evidence.job.source.topic, *partition, record.offset).expected(expected).found(is)
            };
            if at_least == 0 && !elsewhere {
                found.add(record.op, "an input is lost", witness("accepted, late or dead"));
            }
            if at_least > 1 {
                found.add(record.op, "an input went to two places", witness("one of accepted, late, dead"));
            }
            if valid && is_dead == Some(true) {
                found.add(record.op, "a valid record is a dead letter", witness("accepted or late"));
            }
            if !valid && (is_late == Some(true) || is_accepted) {
                found.add(record.op, "a bad record was judged", witness("dead"));
            }
        }
    }
    for (name, topic) in [("late", &late), ("dead-letter", &dead)] {
        for (place, published) in topic.iter().flatten() {
            let op = evidence.source(place.0, place.1).and_then(|r| r.op);
            if place.1 >= replay.positions.get(&place.0).copied().unwrap_or(0) {
                let message = format!("a {name} record is past the committed positions");
                let position = replay.positions.get(&place.0).copied().unwrap_or(0);
                let witness = at(published, *place).expected(format_args!("a record below the committed {position}"));
                found.add(op, message, witness.found(format_args!("record {}", place.1)));
            }
        }
    }
    for (place, published) in dead.iter().flatten() {
        let Some(record) = evidence.source(place.0, place.1) else { continue };
        if let Err(reason) = record.decoded
            && published.header("reason") != Some(reason.as_str())
        {
            let is = published.header("reason").unwrap_or("none");
            let witness = at(published, *place).expected(format_args!("reason {reason}")).found(is);
            found.add(record.op, "a dead letter names another reason", witness);
        }
    }
}

fn at(published: &Published, source: (i32, i64)) -> Witness {
    Witness::at(&published.place).about(format_args!("record {} of split {}", source.1, source.0))
}

/// A side topic by the source record that each names.
fn side<'a>(
    evidence: &Evidence<'_>,
    topic: Option<&'a [Published]>,
    name: &str,
    found: &mut Violations,
) -> Option<BTreeMap<(i32, i64), &'a Published>> {
    let mut by_source: BTreeMap<(i32, i64), &Published> = BTreeMap::new();
    for published in topic? {
        let Some(place) = published.source() else {
            let witness = Witness::at(&published.place).expected("a source partition and offset").found("none");
            found.add(None, format!("a record of {name} names no source record"), witness);
            continue;
        };
        let record = evidence.source(place.0, place.1);
        let op = record.and_then(|r| r.op);
        match record {
            None => {
                let witness = at(published, place).expected("the source record that it names").found("none");
                found.add(None, format!("a record of {name} names a source record that is not there"), witness);
            }
            Some(record) if record.key != published.key || record.value != published.value => {
                let witness = at(published, place)
                    .expected(format_args!("key {:?}, value {:?}", record.key, record.value))
                    .found(format_args!("key {:?}, value {:?}", published.key, published.value));
                found.add(op, format!("a record of {name} has other bytes than its source"), witness);
            }
            Some(_) => {}
        }
        if published.header("source.topic") != Some(&evidence.job.source.topic) {
            let is = published.header("source.topic").unwrap_or("none");
            let witness = at(published, place).expected(&evidence.job.source.topic).found(is);
            found.add(op, format!("a record of {name} names another topic"), witness);
        }
        if let Some(first) = by_source.insert(place, published) {
            let witness = at(published, place).expected(format_args!("once, at {}", first.place)).found("again");
            found.add(op, format!("one record is in {name} twice"), witness);
        }
    }
    Some(by_source)
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
        fixture::rejects_job(
            &PROPERTY,
            &[
                DROP_LATE,
                DROP_DEAD,
                DUPLICATE_LATE,
                DUPLICATE_DEAD,
                SWAP_LATE,
                SHIFT_LATE,
                SHIFT_DEAD,
                MISATTRIBUTE_LATE,
                MISATTRIBUTE_DEAD,
                CHANGE_DEAD,
                SKIP_JUDGE,
            ],
            &[(Mutator::Unacknowledge, "it takes the committed epochs as given: window-exactly-once's")],
        );
    }
}
