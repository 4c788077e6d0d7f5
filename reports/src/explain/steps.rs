//! What happened around the guilty record: faults, leaders, in-sync sets, attempts of the job; in order, and not too many.

use history::{Decision, FaultEffect, Observed, OpId, Violation};

use super::clue::{Clue, record_of};
use super::names::Names;
use super::told::{Story, Told, Weight};
use super::{Case, Step, StepKind, members, ms, replicas, tasks, transactions, waits};

/// Steps that are not of the record itself.
pub(super) fn around(case: &Case<'_>, names: &Names, clue: &Clue, violation: Option<&Violation>, story: &mut Story) {
    faults(case, story);
    for seen in &case.history.observations {
        if let Observed::QuorumLeader { epoch, node, .. } = &seen.what {
            let what = format!("leads the metadata quorum in epoch {epoch}");
            story.tell(Weight::Far, StepKind::Broker, seen.at_ns, format!("broker-{node}"), what);
        }
    }
    replicas::tell(case, names, clue, story);
    transactions::tell(case, names, clue, story);
    members::tell(case, names, clue, story);
    tasks::tell(case, names, clue, story);
    if violation.is_some_and(|v| ["liveness", "convergence", "transactions-end"].contains(&v.property.as_str())) {
        waits::tell(case, names, story);
    }
}

fn faults(case: &Case<'_>, story: &mut Story) {
    for effect in struck(case) {
        // What destroys something is more than what delays it.
        let destroys = ["power-loss", "crash", "fsync-error"].contains(&effect.fault.as_str());
        let weight = if destroys { Weight::Near } else { Weight::Far };
        story.told.extend(fault(effect).into_iter().map(|step| Told { weight, step }));
    }
}

/// Faults of the plan: what ends after it healed is the end of the run itself.
fn struck<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a FaultEffect> {
    let healed = case.history.facts.healed_ns.unwrap_or(u64::MAX);
    case.history.faults.iter().filter(move |f| f.at_ns <= healed)
}

/// Its beginning, and its end if it had one of its own.
fn fault(effect: &FaultEffect) -> Vec<Step> {
    let step = |at_ns, what| Step { at_ms: Some(ms(at_ns)), who: effect.target.clone(), what, kind: StepKind::Fault };
    let mut steps = vec![step(effect.at_ns, format!("{}: {}", effect.fault, effect.effect))];
    if let Some(until) = effect.until_ns.filter(|until| *until > effect.at_ns) {
        let end = match effect.fault.as_str() {
            "crash" | "power-loss" => "starts again".to_owned(),
            "pause" => "goes on".to_owned(),
            other => format!("{other} is over"),
        };
        steps.push(step(until, end));
    }
    steps
}

/// When the high watermark of a record's partition first passed it.
fn readable_at(history: &history::History, (topic, partition, offset): &(String, i32, i64)) -> Option<u64> {
    let passes = |what: &Observed| {
        matches!(what, Observed::HighWatermark { topic: t, partition: p, offset: high, .. }
            if t == topic && p == partition && high > offset)
    };
    history.observations.iter().find(|seen| passes(&seen.what)).map(|seen| seen.at_ns)
}

/// When the violation showed: the last thing that it takes. For a lost record, the last fault before the end of which
/// nothing shows; for a row, its firing; for a stuck run, the end.
pub(super) fn violated_at(case: &Case<'_>, violation: Option<&Violation>, clue: &Clue, story: &Story) -> Option<u64> {
    let history = case.history;
    let Some(violation) = violation else { return Some(history.facts.ended_ns) };
    if violation.property == "liveness" {
        return Some(history.facts.ended_ns);
    }
    if let Some(at) = clue.decision.and_then(|i| history.decisions[i].at_ns) {
        return Some(at);
    }
    let given = clue.group.as_ref().zip(clue.generation).and_then(|(wanted, n)| {
        let is = |seen: &&history::Observation| match &seen.what {
            Observed::GroupGeneration { group, generation, .. } => group == wanted && *generation == n,
            _ => false,
        };
        history.observations.iter().find(is)
    });
    if let Some(seen) = given {
        return Some(seen.at_ns);
    }
    // A window may fire again after the row that is wrong was written: the firing before that row could be read is meant.
    let written = violation.witness.place.as_deref().and_then(record_of).and_then(|row| readable_at(history, &row));
    let fired = clue.window.as_ref().and_then(|(key, start, end)| {
        let is = |d: &&history::DecisionEntry| {
            matches!(&d.decision, Decision::Fire { key: k, start: s, end: e, .. } if k == key && s == start && e == end)
        };
        let firings = || history.decisions.iter().filter(is).filter_map(|d| d.at_ns);
        firings().filter(|at| written.is_none_or(|written| *at <= written)).max().or_else(|| firings().max())
    });
    if fired.is_some() {
        return fired;
    }
    let acked = clue.op.and_then(|OpId(i)| history.ops[i].completed_ns);
    let Some(acked) = acked else {
        return story.ends_at().map(|ms| (ms * 1e6) as u64);
    };
    // What was acknowledged and is not there was lost by the first fault that destroys something after the answer.
    let lost =
        struck(case).find(|f| f.at_ns >= acked && ["power-loss", "crash", "fsync-error"].contains(&f.fault.as_str()));
    Some(lost.map_or(acked, |f| f.at_ns))
}
