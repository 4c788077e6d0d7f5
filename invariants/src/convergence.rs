//! **convergence.** Once faults stop, within the plan's bound everything comes to rest: no transaction is open, every
//! operation is answered, and with a closed input every record is consumed and every window has fired.
//!
//! Source: rule 26.
//!
//! Not claimed: anything of a run that never healed, or was looked at before the bound had passed.

use history::{Decision, InputStatus, OpId, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "convergence",
    statement: "after healing the last stable offset reaches the log's end, every window fires and lag is 0",
    source: "semantics rule 26",
    kind: Kind::Liveness,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let facts = &context.history.facts;
    let Some(healed_ns) = facts.healed_ns else { return Verdict::Pass };
    if facts.ended_ns < healed_ns.saturating_add(facts.bound_ns) {
        return Verdict::unknown("the run was looked at before the plan's bound had passed since healing");
    }
    let mut found = Violations::of(&PROPERTY);
    for ((topic, partition), raw) in context.raw() {
        let log = raw.log;
        let end = log.log_end_offset;
        if let Some(stable) = log.last_stable_offset.filter(|stable| *stable < end) {
            let open = raw.log.records.get(raw.log.records.partition_point(|r| r.offset < stable));
            let op = open.and_then(|r| context.op_of(r));
            let witness = Witness::offset(topic, *partition, stable)
                .expected(format_args!("a last stable offset at the log's end {end}"))
                .found(stable);
            found.add(op, "a transaction is still open after healing", witness);
        }
        if let Some(high) = log.high_watermark.filter(|high| *high < end) {
            let witness = Witness::partition(topic, *partition)
                .expected(format_args!("a high watermark at the log's end {end}"))
                .found(high);
            found.add(None, "the high watermark has not reached the log's end after healing", witness);
        }
    }
    for (i, op) in context.history.ops.iter().enumerate() {
        if op.completed_ns.is_none() && op.invoked_ns >= healed_ns && op.invoked_ns + facts.bound_ns <= facts.ended_ns {
            let witness = Witness::default().about(context.name_of(OpId(i)));
            let witness = witness.expected("an answer").found(format_args!("none since {} ns", op.invoked_ns));
            found.add(Some(OpId(i)), "an operation invoked after healing was never answered", witness);
        }
    }
    match context.evidence() {
        None => {}
        Some(Err(reason)) if found.found.is_empty() => return Verdict::unknown(reason),
        Some(Err(_)) => {}
        Some(Ok((evidence, replay))) if facts.drained => {
            for (p, end) in &facts.source_ends {
                let position = replay.positions.get(p).copied().unwrap_or(0);
                if position < *end {
                    let next = evidence.input.get(p).and_then(|all| all.iter().find(|r| r.offset >= position));
                    let witness = Witness::offset(&evidence.job.source.topic, *p, position)
                        .expected(format_args!("committed up to {end}, where the input was closed"))
                        .found(format_args!("committed up to {position}"));
                    found.add(next.and_then(|r| r.op), "the closed input is not consumed to its end", witness);
                }
            }
            every_window_fired(context, replay, &mut found);
        }
        Some(Ok(_)) => {}
    }
    found.verdict()
}

/// The last committed epoch's window tasks have seen the end of every channel, so that W is MAX there.
fn every_window_fired(context: &Context<'_>, replay: &models::replay::Replay, found: &mut Violations) {
    let Some(Ok((evidence, _))) = context.evidence() else { return };
    let Some(last) = evidence.chain().epochs.last().copied() else {
        let witness = Witness::at(evidence.job.epochs_topic()).expected("a chain of committed epochs").found("none");
        found.add(None, "no epoch was ever committed", witness);
        return;
    };
    for ((generation, task), trace) in &replay.tasks {
        if *generation != last.generation || task.starts_with("source-") {
            continue;
        }
        let barrier = context.history.decisions.iter().find(|e| {
            e.generation == last.generation
                && e.task == *task
                && matches!(e.decision, Decision::Barrier { n, .. } if n == last.n)
        });
        let Some(seq) = barrier.map(|e| e.seq) else { continue };
        let point = trace.points.iter().rev().find(|(i, _)| context.history.decisions[*i].seq < seq);
        if let Some((_, point)) = point
            && !point.is_ended()
        {
            let open = point.inputs.values().filter(|s| s.status != InputStatus::Ended).count();
            let witness = Witness::decision(*generation, task, seq)
                .about(format_args!("barrier {}", last.n))
                .expected("W at MAX, every channel ended")
                .found(format_args!("W {}, {open} channels have not ended", point.watermark));
            found.add(None, "the drained job has windows that never fired", witness);
        }
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
        fixture::rejects_job(
            &PROPERTY,
            &[DROP_MARKER, STOP_EARLY, STOP_SHORT, NEVER_ANSWER],
            &[
                (Mutator::Duplicate, "what is there twice is at rest"),
                (Mutator::Swap, "what is in the wrong place is at rest"),
                (Mutator::Misattribute, "who wrote what does not matter to rest"),
            ],
        );
    }

    #[test]
    fn a_run_that_never_healed_is_not_judged() {
        let (mut history, _) = fixture::mutated(&fixture::job(), DROP_MARKER);
        history.facts.healed_ns = None;
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }
}
