//! **idleness.** A split is called idle only when it has been silent for `idle_after`, ends only at its bound, and after a
//! quiet stretch everything is where it should be.
//!
//! Source: rules 5, 22a (Idle and End) and 22b. *Idle at position p*: from p - 1 becoming readable, or the task's start, to
//! the earlier of now and p becoming readable, `idle_after` has passed on that node's clock; p became readable at most one
//! fetch time-out ago; no transaction is open at p. *Quiet*: after a stretch of the plan's bound without faults each
//! split's W is rule 2's at what was readable when the stretch's last bound began, each split silent for the bound is idle
//! unless a transaction is open, and each channel has its sender's changes.
//!
//! Not claimed: anything without the world's truth (a live cluster): then it is skipped, and reported as skipped by
//! [`check_rows`](crate::check_rows).

use std::collections::BTreeMap;

use history::{Change, Decision, Input, InputStatus, Verdict, Witness};
use models::replay::{Point, Replay};

use crate::evidence::Evidence;
use crate::no_aborted_read::StableTimes;
use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "idleness",
    statement: "a split is idle only after idle_after of silence, and always after the plan's bound of it",
    source: "semantics rules 5, 22a, 22b",
    kind: Kind::Safety,
    check,
};

/// Clocks are read in whole milliseconds.
const READING_NS: u64 = 1_000_000;

fn check(context: &Context<'_>) -> Verdict {
    let (evidence, replay) = match context.evidence() {
        None => return Verdict::Pass,
        Some(Err(reason)) => return Verdict::unknown(reason),
        Some(Ok(made)) => (&made.0, &made.1),
    };
    let mut found = Violations::of(&PROPERTY);
    let times = StableTimes::of(context, &evidence.job.source.topic);
    let mut opened: BTreeMap<(u64, &str), u64> = BTreeMap::new();
    for entry in &context.history.decisions {
        let Some(at_ns) = entry.at_ns else { continue };
        match &entry.decision {
            Decision::Open { .. } => {
                opened.insert((entry.generation, &entry.task), at_ns);
            }
            Decision::Advance { input: Input::Split(p), offset: Some(position), change, .. } => {
                let place = || {
                    Witness::decision(entry.generation, &entry.task, entry.seq)
                        .about(format_args!("split {p} at offset {position}, at {at_ns} ns"))
                };
                let since = opened.get(&(entry.generation, entry.task.as_str())).copied().unwrap_or(0);
                match change {
                    Change::Idle => idle(context, evidence, &times, *p, *position, since, at_ns, &place, &mut found),
                    Change::End => {
                        let bound = context.history.facts.source_ends.iter().find(|(split, _)| split == p);
                        if let Some((_, end)) = bound.filter(|(_, end)| end != position) {
                            let witness = place().expected(format_args!("an end at its bound {end}")).found(position);
                            found.add(None, "a split ends elsewhere than at its bound", witness);
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    for calm in &context.history.facts.calm {
        if calm.to_ns.saturating_sub(calm.from_ns) >= context.history.facts.bound_ns {
            quiet(context, evidence, replay, &times, calm.to_ns, &mut found);
        }
    }
    found.verdict()
}

#[allow(clippy::too_many_arguments)]
fn idle(
    context: &Context<'_>,
    evidence: &Evidence<'_>,
    times: &StableTimes,
    p: i32,
    position: i64,
    opened_ns: u64,
    now_ns: u64,
    place: &dyn Fn() -> Witness,
    found: &mut Violations,
) {
    let facts = &context.history.facts;
    let Some(idle_after_ms) = evidence.job.watermark.idle_after_ms else {
        let witness = place().expected("no idleness").found("idle");
        found.add(None, "a split is idle, though the job has no idle_after", witness);
        return;
    };
    let before = if position > 0 { times.readable_at(p, position - 1) } else { Some(0) };
    let next = times.readable_at(p, position);
    let start = before.unwrap_or(now_ns).max(opened_ns);
    let end = next.map_or(now_ns, |next| next.min(now_ns));
    let passed = with_drift(end.saturating_sub(start), facts.clock_drift_ppm) + READING_NS;
    if passed < idle_after_ms as u64 * 1_000_000 {
        let witness = place()
            .expected(format_args!("silence for {idle_after_ms} ms"))
            .found(format_args!("silent from {start} to {end} ns"));
        found.add(None, "a split is called idle too early", witness);
    }
    let timeout = with_drift(facts.fetch_timeout_ns, facts.clock_drift_ppm) + READING_NS;
    if let Some(next) = next.filter(|next| now_ns.saturating_sub(*next) > timeout) {
        let witness = place().expected("nothing readable").found(format_args!("readable since {next} ns"));
        found.add(None, "a split is called idle with readable records", witness);
    }
    // Open at the position for longer than any fetch of this split could have been under way.
    let high = times.high_at(p, position);
    if next.is_none_or(|next| next > now_ns)
        && let Some(high) = high.filter(|high| now_ns.saturating_sub(*high) > timeout)
    {
        let witness = place().expected("no open transaction").found(format_args!("one, replicated at {high} ns"));
        found.add(None, "a split is called idle while a transaction is open at its position", witness);
    }
}

fn with_drift(ns: u64, ppm: u32) -> u64 {
    ns + ns / 1_000_000 * u64::from(ppm)
}

/// Rule 22b at `t`, the end of a stretch without faults.
fn quiet(
    context: &Context<'_>,
    evidence: &Evidence<'_>,
    replay: &Replay,
    times: &StableTimes,
    t: u64,
    found: &mut Violations,
) {
    let facts = &context.history.facts;
    let decisions = &context.history.decisions;
    let since = t.saturating_sub(facts.bound_ns);
    let opened_by = |at: u64| {
        let opens = decisions.iter().filter(|e| matches!(e.decision, Decision::Open { .. }));
        opens.filter(|e| e.at_ns.is_some_and(|ns| ns <= at)).map(|e| e.generation).max()
    };
    // Only an attempt that had the whole bound; that one exists by then is convergence's to ask.
    let Some(generation) = opened_by(since).filter(|g| opened_by(t) == Some(*g)) else { return };
    let at = |index: usize| decisions[index].at_ns.unwrap_or(u64::MAX);
    let drift = u64::from(facts.clock_drift_ppm);
    let bound_is_long = |idle_after_ms: i64| {
        let idle_ns = idle_after_ms as u64 * 1_000_000;
        facts.bound_ns > idle_ns + idle_ns / 1_000_000 * drift + 2 * facts.fetch_timeout_ns
    };
    for ((g, task), trace) in &replay.tasks {
        if *g != generation {
            continue;
        }
        let upto = trace.points.partition_point(|(index, _)| at(*index) <= t);
        let Some((_, point)) = upto.checked_sub(1).map(|i| &trace.points[i]) else { continue };
        if task.starts_with("source-") {
            splits_are_current(
                evidence,
                times,
                point,
                &format!("generation {generation} {task}"),
                t,
                since,
                &bound_is_long,
                found,
            );
            continue;
        }
        for sender in point.inputs.keys() {
            let Input::Channel(sender) = sender else { continue };
            let Some(sent) = replay.tasks.get(&(generation, sender.clone())) else { continue };
            let due = sent.outputs.partition_point(|(index, _)| at(*index) <= since);
            let shown = decisions.iter().filter(|e| {
                e.generation == generation
                    && e.task == *task
                    && e.at_ns.is_some_and(|ns| ns <= t)
                    && matches!(&e.decision, Decision::Advance { input: Input::Channel(c), .. } if c == sender)
            });
            let shown = shown.count();
            if shown < due {
                let witness = Witness::at(format_args!("generation {generation} {task}"))
                    .about(format_args!("at {t} ns"))
                    .expected(format_args!("{due} changes of {sender}, sent the bound before"))
                    .found(format_args!("{shown} seen"));
                found.add(None, "rule 22b: a channel lags its sender", witness);
            }
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn splits_are_current(
    evidence: &Evidence<'_>,
    times: &StableTimes,
    point: &Point,
    place: &str,
    t: u64,
    since: u64,
    bound_is_long: &dyn Fn(i64) -> bool,
    found: &mut Violations,
) {
    for (input, state) in &point.inputs {
        let Input::Split(p) = *input else { continue };
        if !times.knows(p) {
            continue;
        }
        let at = || Witness::at(place).about(format_args!("split {p} at {t} ns"));
        let end = times.stable_end(p, since);
        let due =
            evidence.splits().get(&p).map(|log| log.watermark_at(end - 1, evidence.job.watermark.out_of_orderness_ms));
        if let Some(due) = due.filter(|due| state.watermark < *due) {
            let witness = at().expected(format_args!("W {due}, as rule 2 gives at its end {end}"));
            let witness = witness.found(format_args!("W {}", state.watermark));
            found.add(None, "rule 22b: a split's watermark lags its log", witness);
        }
        let silent = times.stable_end(p, t) == end && times.high_end(p, t) == end;
        let idle = matches!(state.status, InputStatus::Idle | InputStatus::Ended);
        if silent && !idle && evidence.job.watermark.idle_after_ms.is_some_and(bound_is_long) {
            let witness = at().expected(format_args!("idle, having been silent at {end} for the plan's bound"));
            let witness = witness.found(format_args!("{:?}", state.status));
            found.add(None, "rule 22b: a silent split is not idle", witness);
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
            &[NEVER_IDLE, SWAP_IDLE, IDLE_EARLY, IDLE_WITH_RECORDS, END_ELSEWHERE, MISATTRIBUTE_IDLE],
            &[
                (Mutator::Duplicate, "idle again is idle; a decision made twice is window-exactly-once's"),
                (Mutator::Unacknowledge, "it judges by what is readable, not by what was answered"),
            ],
        );
    }
}
