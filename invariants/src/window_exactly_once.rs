//! **window-exactly-once.** The committed output is that of one uninterrupted run over the committed input.
//!
//! Source: rules 22, 22a, 22c. The committed attempt is the chain of epochs whose transactions committed, read from the
//! log's markers: each n once, in one generation, by all of its tasks, and not before its checkpoint is complete. Its
//! judgements are replayed against the input log; the rows that must follow are compared with those that are there, by
//! identity (key, start, end, pane, op) and by value. If no record was behind or late, they equal the batch answer too.
//!
//! Not claimed: late and dead-letter records (conservation), idleness by the clock and progress (idleness), that windows
//! fire at all while running (convergence).

use std::collections::{BTreeMap, BTreeSet};

use history::{Decision, Observed, Observer, Verdict, Witness};
use models::replay::{Problem, Replay};
use models::row::{Row, RowOp};
use models::window::Class;

use crate::chain::{Chain, Marker};
use crate::evidence::Evidence;
use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "window-exactly-once",
    statement: "the committed rows are those of one uninterrupted run over the committed input",
    source: "semantics rules 22, 22a, 22c",
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
    let chain = evidence.chain();
    judge(evidence, replay, &chain, &mut found);
    if let Some(markers) = &evidence.markers {
        not_before_complete(context, markers, &chain, &mut found);
    }
    match chain.undecided.first() {
        Some(open) if found.found.is_empty() => Verdict::unknown(open),
        _ => found.verdict(),
    }
}

/// Everything but the order of markers and barriers in time.
pub(crate) fn judge(evidence: &Evidence<'_>, replay: &Replay, chain: &Chain, found: &mut Violations) {
    for (message, witness) in &chain.problems {
        found.add(None, message, witness.clone());
    }
    // First what was decided wrongly, then what came of it.
    for problem in &replay.problems {
        add_problem(evidence, problem, found);
    }
    let output = Output::read(evidence, found);
    output.against(&replay.rows, found);
    if evidence.drained && replay.judged.iter().all(|record| record.class == Class::OnTime) {
        output.against_batch(evidence, found);
    }
}

fn add_problem(evidence: &Evidence<'_>, problem: &Problem, found: &mut Violations) {
    let op = problem.record.and_then(|(p, o)| evidence.source(p, o)).and_then(|r| r.op);
    let entry = problem.entry.and_then(|i| evidence.decisions.as_deref()?.get(i));
    let mut witness = match entry {
        Some(entry) => {
            let at = Witness::decision(entry.generation, &entry.task, entry.seq);
            match &entry.decision {
                Decision::Fire { key, start, end, .. } => at.key(key).window(*start, *end),
                _ => at,
            }
            .found(format_args!("{:?}", entry.decision))
        }
        None => Witness::default().about(&problem.witness).found("none"),
    };
    witness = witness.expected(format_args!("a decision that follows by rule {}", problem.rule));
    if let Some((p, o)) = problem.record {
        witness = witness.about(format_args!("record {o} of split {p}"));
    }
    found.add(op, format!("rule {}: {}", problem.rule, problem.message), witness);
}

/// Rows as published, by identity.
struct Output {
    rows: BTreeMap<Identity, (Row, String)>,
}

/// Of a row (rule 15).
type Identity = (String, i64, i64, u64, RowOp);

fn identity(row: &Row) -> Identity {
    (row.key.clone(), row.window_start, row.window_end, row.pane, row.op)
}

fn of_row(row: &Row, place: Option<&str>) -> Witness {
    let witness = Witness { place: place.map(str::to_owned), ..Witness::default() };
    let witness = witness.key(&row.key).window(row.window_start, row.window_end);
    witness.about(format_args!("pane {} {}", row.pane, row.op.as_str()))
}

impl Output {
    fn read(evidence: &Evidence<'_>, found: &mut Violations) -> Output {
        let mut rows: BTreeMap<Identity, (Row, String)> = BTreeMap::new();
        for ((row, _), published) in evidence.parsed_rows().zip(evidence.rows()) {
            let row = match row {
                Ok(row) => row.clone(),
                Err(e) => {
                    let found_value = published.value.as_ref().map_or("none".to_owned(), |v| format!("{v:?}"));
                    let witness = Witness::at(&published.place).expected("a result row").found(found_value);
                    found.add(None, e.to_string(), witness);
                    continue;
                }
            };
            if let Some(key) = published.key.as_ref().filter(|key| ***key != *row.key.as_bytes()) {
                let witness = of_row(&row, Some(&published.place)).expected(format_args!("record key {:?}", row.key));
                found.add(None, "a row's record key is not its key", witness.found(format_args!("{key:?}")));
            }
            if let Some((_, first)) = rows.get(&identity(&row)) {
                let witness = of_row(&row, Some(&published.place));
                let witness = witness.expected(format_args!("once, at {first}")).found(format_args!("again: {row}"));
                found.add(None, "one row is in the output twice", witness);
                continue;
            }
            rows.insert(identity(&row), (row, published.place.clone()));
        }
        Output { rows }
    }

    fn against(&self, expected: &[Row], found: &mut Violations) {
        let mut due = BTreeSet::new();
        for row in expected {
            due.insert(identity(row));
            match self.rows.get(&identity(row)) {
                None => {
                    let witness = of_row(row, None).expected(row).found("none");
                    found.add(None, "a row is missing from the output", witness);
                }
                Some((is, place)) if is != row => {
                    let witness = of_row(row, Some(place)).expected(row).found(is);
                    found.add(None, "a row has wrong contents", witness);
                }
                Some(_) => {}
            }
        }
        for (id, (row, place)) in &self.rows {
            if !due.contains(id) {
                let witness = of_row(row, Some(place)).expected("none").found(row);
                found.add(None, "a row does not follow from the input", witness);
            }
        }
    }

    /// Rule 22's last sentence: without any recorded W.
    fn against_batch(&self, evidence: &Evidence<'_>, found: &mut Violations) {
        let valid = evidence.input.iter().flat_map(|(p, records)| {
            records.iter().filter_map(|r| r.decoded.as_ref().ok().map(|event| (*p, r.offset, event)))
        });
        let expected = models::batch(&evidence.job, valid);
        let mut folded: BTreeMap<(&str, i64), &Row> = BTreeMap::new();
        for (row, _) in self.rows.values() {
            let newest = folded.entry((&row.key, row.window_start)).or_insert(row);
            if row.pane > newest.pane {
                *newest = row;
            }
        }
        for row in &expected {
            match folded.remove(&(row.key.as_str(), row.window_start)) {
                Some(is) if is.values == row.values => {}
                is => {
                    let is = is.map_or("none".to_owned(), Row::to_string);
                    let witness = of_row(row, None).expected(row).found(is);
                    found.add(None, "all records were on time, and a row differs from the batch answer", witness);
                }
            }
        }
        for row in folded.values() {
            let witness = of_row(row, None).expected("none").found(row);
            found.add(None, "all records were on time, and the batch answer lacks a row", witness);
        }
    }
}

/// No commit of n is seen in the log before each task's Barrier n and before its checkpoint is complete. An observed high
/// watermark past a control record proves that it was there by then.
fn not_before_complete(context: &Context<'_>, markers: &[Marker], chain: &Chain, found: &mut Violations) {
    let Some(job) = &context.history.facts.job else { return };
    let topic = job.epochs_topic();
    let times = crate::readable::Readable::of(context, &topic);
    let mut first_commit: BTreeMap<(u64, u64), (u64, &Marker)> = BTreeMap::new();
    for marker in markers.iter().filter(|m| m.fate == crate::Fate::Committed) {
        let Some((partition, offset)) = marker.ended_at else { continue };
        let Some(seen) = times.newest(partition).high_since(offset) else { continue };
        let slot = first_commit.entry((marker.n, marker.generation)).or_insert((seen, marker));
        if seen < slot.0 {
            *slot = (seen, marker);
        }
    }
    let mut complete: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for seen in &context.history.observations {
        if let (Observed::CheckpointComplete { generation, n }, Observer::Node { .. }) = (&seen.what, &seen.observer) {
            complete.entry((*n, *generation)).or_insert(seen.at_ns);
        }
    }
    for epoch in &chain.epochs {
        let Some((committed, marker)) = first_commit.get(&(epoch.n, epoch.generation)) else { continue };
        if let Some(done) = complete.get(&(epoch.n, epoch.generation)).filter(|done| committed < done) {
            let message = format!("epoch {} is committed before its checkpoint is complete", epoch.n);
            let witness = Witness::at(&marker.place)
                .expected(format_args!("a commit after the checkpoint is complete, at {done} ns"))
                .found(format_args!("committed by {committed} ns"));
            found.add(None, message, witness);
        }
    }
    for entry in &context.history.decisions {
        let (Decision::Barrier { n, .. }, Some(at_ns)) = (&entry.decision, entry.at_ns) else { continue };
        if let Some((committed, marker)) = first_commit.get(&(*n, entry.generation)).filter(|(c, _)| *c < at_ns) {
            let message = format!("epoch {n} is committed before {} passed its barrier", entry.task);
            let witness = Witness::at(&marker.place)
                .expected(format_args!("a commit after the barrier, at {at_ns} ns"))
                .found(format_args!("committed by {committed} ns"));
            found.add(None, message, witness);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::fixture::mutate::*;

    #[test]
    fn accepts_good_histories() {
        fixture::accepts(&PROPERTY);
    }

    #[test]
    fn rejects_what_breaks_it() {
        fixture::rejects_job(
            &PROPERTY,
            &[
                DROP_INPUT,
                DROP_ROW,
                DUPLICATE_ROW,
                SWAP_ROWS,
                SHIFT_ROW,
                MISATTRIBUTE_ROW,
                CHANGE_ROW,
                MISATTRIBUTE_EPOCH,
                ABORT_EPOCH,
                COMMIT_EARLY,
                FORGET_WATERMARK,
                LEAD_WATERMARK,
                SWAP_WATERMARKS,
                MISATTRIBUTE_WATERMARK,
                JUDGE_PAST_BARRIER,
                SKIP_JUDGE,
                SHIFT_FIRE,
                DROP_FIRE,
                KEEP_IDLE,
            ],
            &[],
        );
    }

    #[test]
    fn a_missing_topic_is_unknown() {
        let mut history = fixture::job();
        let topic = history.facts.job.as_ref().expect("the fixture has a job").epochs_topic();
        history.logs.retain(|log| log.topic != topic);
        assert!(matches!(PROPERTY.check(&Context::new(&history)), Verdict::Unknown { .. }));
    }
}
