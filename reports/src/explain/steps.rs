//! What happened around the guilty record: faults, leaders, in-sync sets, attempts of the job; in order, and not too many.

use history::{Decision, FaultEffect, Observed, OpId, Violation};

use super::clue::Clue;
use super::names::Names;
use super::{Case, Explanation, Step, StepKind, ms};

/// Steps of a story. Past this many the earliest faults are left out first: what is near the violation matters most.
const MAX_STEPS: usize = 40;

/// Steps that are not of the record itself.
pub(super) fn around(case: &Case<'_>, names: &Names, clue: &Clue) -> Vec<Step> {
    let history = case.history;
    let mut steps: Vec<Step> = history.faults.iter().flat_map(fault).collect();
    let about = |topic: &str, partition: i32| match &clue.partition {
        Some((t, p)) => t == topic && *p == partition,
        None => clue.record.is_none() && clue.op.is_none(),
    };
    for seen in &history.observations {
        let who = names.observer(&seen.observer);
        let (kind, who, what) = match &seen.what {
            Observed::LeaderElected { topic, partition, leader_epoch, broker, log_end } if about(topic, *partition) => {
                // Told by the broker itself; what others applied of it comes later and says no more.
                let Some(log_end) = log_end else { continue };
                let what = format!("leads {topic}-{partition} in epoch {leader_epoch}, log end {log_end}");
                (StepKind::Broker, format!("broker-{broker}"), what)
            }
            Observed::IsrChanged { topic, partition, leader_epoch, isr, .. } if about(topic, *partition) => {
                let what = format!("in-sync set of {topic}-{partition} is {isr:?} in epoch {leader_epoch}");
                (StepKind::Broker, who, what)
            }
            Observed::QuorumLeader { epoch, node, .. } => {
                (StepKind::Broker, format!("broker-{node}"), format!("leads the metadata quorum in epoch {epoch}"))
            }
            Observed::Restored { generation, checkpoint } => {
                let from = checkpoint.map_or("nothing".to_owned(), |n| format!("checkpoint {n}"));
                (StepKind::Job, who, format!("starts attempt {generation} from {from}"))
            }
            _ => continue,
        };
        let step = Step { at_ms: Some(ms(seen.at_ns)), who, what, kind };
        // Every broker tells of a committed change: once is enough.
        if !steps.iter().rev().take(8).any(|s| s.what == step.what && s.kind == step.kind) {
            steps.push(step);
        }
    }
    if let Some(entry) = clue.decision.map(|i| &history.decisions[i])
        && !matches!(entry.decision, Decision::Judge { .. } | Decision::Fire { .. } | Decision::Barrier { .. })
    {
        let what = format!("decides {:?} in attempt {}, decision {}", entry.decision, entry.generation, entry.seq);
        steps.push(Step { at_ms: entry.at_ns.map(ms), who: entry.task.clone(), what, kind: StepKind::Job });
    }
    for note in case.notes {
        // As the recorder writes them: `12.034s attempt 2 failed: …`.
        let Some((seconds, what)) = note.split_once("s ") else { continue };
        let Ok(seconds) = seconds.parse::<f64>() else { continue };
        let what = what.to_owned();
        steps.push(Step { at_ms: Some(seconds * 1000.0), who: "job".into(), what, kind: StepKind::Job });
    }
    steps
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

/// When the violation showed: the last thing that it takes. For a lost record, the last fault before the end of which
/// nothing shows; for a row, its firing; for a stuck run, the end.
pub(super) fn violated_at(case: &Case<'_>, violation: Option<&Violation>, clue: &Clue, steps: &[Step]) -> Option<u64> {
    let history = case.history;
    let Some(violation) = violation else { return Some(history.facts.ended_ns) };
    if violation.property == "liveness" {
        return Some(history.facts.ended_ns);
    }
    if let Some(at) = clue.decision.and_then(|i| history.decisions[i].at_ns) {
        return Some(at);
    }
    let fired = clue.window.as_ref().and_then(|(key, start, end)| {
        let is = |d: &&history::DecisionEntry| {
            matches!(&d.decision, Decision::Fire { key: k, start: s, end: e, .. } if k == key && s == start && e == end)
        };
        history.decisions.iter().rfind(is)?.at_ns
    });
    if fired.is_some() {
        return fired;
    }
    let acked = clue.op.and_then(|OpId(i)| history.ops[i].completed_ns);
    let Some(acked) = acked else {
        let last = steps.iter().filter_map(|s| s.at_ms).fold(None, |a: Option<f64>, b| Some(a.map_or(b, |a| a.max(b))));
        return last.map(|ms| (ms * 1e6) as u64);
    };
    // What was acknowledged and is not there was lost by the first fault that destroys something after the answer.
    let lost = history
        .faults
        .iter()
        .find(|f| f.at_ns >= acked && ["power-loss", "crash", "fsync-error"].contains(&f.fault.as_str()));
    Some(lost.map_or(acked, |f| f.at_ns))
}

/// In order of time, with the violation at its place, and no more than can be read.
pub(super) fn ordered(mut steps: Vec<Step>, at_ns: Option<u64>, told: &Explanation) -> Vec<Step> {
    let key = |step: &Step| step.at_ms.map_or(i64::MAX, |ms| (ms * 1000.0) as i64);
    steps.sort_by_key(key);
    steps.dedup_by(|a, b| a.who == b.who && a.what == b.what);
    let violated = at_ns.map_or(f64::MAX, ms);
    // What came long after it is another story.
    steps.retain(|step| step.at_ms.is_none_or(|at| at <= violated + 1_000.0));
    let mut surplus = steps.len().saturating_sub(MAX_STEPS - 1);
    steps.retain(|step| {
        let drop = surplus > 0 && step.kind == StepKind::Fault && step.at_ms.is_some_and(|at| at < violated - 500.0);
        surplus -= usize::from(drop);
        !drop
    });
    let mut what = told.message.clone();
    if let Some(expected) = &told.expected {
        what += &format!("; expected {expected}");
    }
    if let Some(found) = &told.found {
        what += &format!("; found {found}");
    }
    let who = if told.place.is_empty() { "the run".to_owned() } else { told.place.clone() };
    let step = Step { at_ms: at_ns.map(ms), who, what, kind: StepKind::Violation };
    let after = steps.partition_point(|s| s.at_ms.is_some_and(|at| at <= violated));
    steps.insert(after, step);
    steps
}
