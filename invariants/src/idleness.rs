//! **idleness.** A split is called idle only when it has been silent for `idle_after`, ends only at its bound, and after a
//! quiet stretch everything is where it should be.
//!
//! Source: rules 5, 22a (Idle and End) and 22b. *Idle at position p*: from p - 1 becoming readable, or the task's start, to
//! the earlier of now and p becoming readable, `idle_after` has passed on that node's clock; p became readable at most one
//! fetch time-out ago; no transaction is open at p. All three hold for the readers of one leader: the newest, or one that
//! took itself for the leader within the last fetch time-out, to whose readers nothing of later leaders is readable.
//! *Quiet*: after a stretch of the plan's bound without faults each split's W is rule 2's at what was readable when the
//! stretch's last bound began, each split silent for the bound is idle unless a transaction is open, and each channel has
//! its sender's changes.
//!
//! Not claimed: anything without the world's truth (a live cluster): then it is skipped, and reported as skipped by
//! [`check_rows`](crate::check_rows).

use std::collections::BTreeMap;

use history::{Change, Decision, Input, InputStatus, Verdict, Witness};
use models::replay::{Point, Replay};

use crate::evidence::Evidence;
use crate::readable::{Readable, View};
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
    let times = Readable::of(context, &evidence.job.source.topic);
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

/// Right if it is for the readers of some leader that answered lately, which one split reads from; else wrong as it is for
/// those of the newest.
#[allow(clippy::too_many_arguments)]
fn idle(
    context: &Context<'_>,
    evidence: &Evidence<'_>,
    times: &Readable,
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
    let timeout_ns = with_drift(facts.fetch_timeout_ns, facts.clock_drift_ppm) + READING_NS;
    // The position was read, from whichever leader.
    let before = if position > 0 { times.since(p, position - 1) } else { Some(0) };
    let silence = Silence {
        position,
        from_ns: before.unwrap_or(now_ns).max(opened_ns),
        now_ns,
        idle_after_ns: idle_after_ms as u64 * 1_000_000,
        timeout_ns,
        drift_ppm: facts.clock_drift_ppm,
    };
    let views = times.views(p, now_ns.saturating_sub(timeout_ns), now_ns);
    let mut wrongs = views.into_iter().map(|view| silence.wrongs(view));
    let of_newest = wrongs.next().unwrap_or_default();
    if of_newest.is_empty() || wrongs.any(|wrong| wrong.is_empty()) {
        return;
    }
    for (message, expected, was) in of_newest {
        found.add(None, message, place().expected(expected).found(was));
    }
}

/// That a split is idle at a position, since when at the earliest.
struct Silence {
    position: i64,
    from_ns: u64,
    now_ns: u64,
    idle_after_ns: u64,
    timeout_ns: u64,
    drift_ppm: u32,
}

impl Silence {
    /// What contradicts it for the readers of one leader: message, what was expected, what was found.
    fn wrongs(&self, view: View<'_>) -> Vec<(&'static str, String, String)> {
        let mut wrongs = Vec::new();
        let lately = |since: u64| self.now_ns.saturating_sub(since) <= self.timeout_ns;
        let next = view.since(self.position);
        let end = next.map_or(self.now_ns, |next| next.min(self.now_ns));
        let passed = with_drift(end.saturating_sub(self.from_ns), self.drift_ppm) + READING_NS;
        if passed < self.idle_after_ns {
            let expected = format!("silence for {} ms", self.idle_after_ns / 1_000_000);
            let found = format!("silent from {} to {end} ns", self.from_ns);
            wrongs.push(("a split is called idle too early", expected, found));
        }
        if let Some(next) = next.filter(|next| !lately(*next)) {
            let found = format!("readable since {next} ns");
            wrongs.push(("a split is called idle with readable records", "nothing readable".into(), found));
        }
        // Open at the position for longer than any fetch of this split could have been under way.
        if next.is_none_or(|next| next > self.now_ns)
            && let Some(high) = view.high_since(self.position).filter(|high| !lately(*high))
        {
            let (expected, found) = ("no open transaction".into(), format!("one, replicated at {high} ns"));
            wrongs.push(("a split is called idle while a transaction is open at its position", expected, found));
        }
        wrongs
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
    times: &Readable,
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
    times: &Readable,
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
    use history::{History, Observation, Observed, Observer};

    use super::*;
    use crate::fixture::mutate::*;
    use crate::fixture::{self, Mutator};

    #[test]
    fn accepts_good_histories() {
        fixture::accepts(&PROPERTY);
    }

    /// The first split that is idle: partition, position, when.
    fn first_idle(h: &History) -> (i32, i64, u64) {
        let idle = h.decisions.iter().find_map(|e| match &e.decision {
            Decision::Advance { input: Input::Split(p), offset: Some(at), change: Change::Idle, .. } => {
                Some((*p, *at, e.at_ns?))
            }
            _ => None,
        });
        idle.expect("a split is idle")
    }

    /// From long before a split is idle another leader has a record at its position; the one that the split reads from
    /// does not know that there is one. What that one's node tells in the end.
    fn deposed(end: Option<Observed>) -> Verdict {
        let mut h = fixture::job();
        let (partition, position, now_ns) = first_idle(&h);
        let topic = h.facts.job.as_ref().expect("a job").source.topic.clone();
        let before_ns = now_ns - 2 * h.facts.fetch_timeout_ns;
        let led = |leader_epoch, broker, end| Observed::LeaderElected {
            topic: topic.clone(),
            partition,
            leader_epoch,
            broker,
            log_end: Some(end),
        };
        let is_sight = |seen: &Observation| matches!(&seen.what, Observed::LastStableOffset { partition: p, .. } if *p == partition);
        let old = h.observations.iter().find(|seen| is_sight(seen)).expect("a sight of it").observer.clone();
        let new = Observer::Node { node: 99, incarnation: 1 };
        let more =
            Observed::LastStableOffset { topic: topic.clone(), partition, leader_epoch: 1, offset: position + 1 };
        let sights = [(0, &old, led(0, 0, 0)), (before_ns, &new, led(1, 1, position)), (before_ns, &new, more)];
        let ends = end.map(|end| (before_ns, &old, end));
        for (at_ns, observer, what) in sights.into_iter().chain(ends) {
            h.observations.push(Observation { at_ns, observer: observer.clone(), what });
        }
        h.observations.sort_by_key(|seen| seen.at_ns);
        PROPERTY.check(&Context::new(&h))
    }

    /// Cut off from the controller with its reader, a deposed leader says that there is nothing, and the other side of the
    /// cut has more.
    #[test]
    fn accepts_silence_of_a_leader_that_does_not_know_it_is_deposed() {
        let found = deposed(None).violations().to_vec();
        assert!(found.iter().all(|v| v.message.starts_with("rule 22b")), "{found:?}");
    }

    #[test]
    fn rejects_silence_once_no_leader_is_silent() {
        let (partition, ..) = first_idle(&fixture::job());
        let topic = fixture::job().facts.job.expect("a job").source.topic;
        for end in [Observed::LeadershipEnded { topic, partition, leader_epoch: 0 }, Observed::Died] {
            let found = deposed(Some(end)).violations().to_vec();
            assert!(found.iter().any(|v| v.message == "a split is called idle with readable records"), "{found:?}");
        }
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
