//! Simulated time: the safety phase ends earlier, begins later, goes faster. Event time is in the records and stays.

use scenarios::Plan;
use scenarios::plan::{Fault, Trigger};

use super::super::search::Search;
use super::records::for_each_batches;

/// Parts of the safety phase, in 64ths.
const PARTS: [u64; 10] = [4, 8, 16, 24, 32, 40, 48, 56, 60, 63];

/// Nothing begins after an earlier end, and healing starts there.
pub fn end(search: &mut Search<'_>) {
    loop {
        let safety = search.best().budgets.safety_ms;
        let ends: Vec<u64> = PARTS.iter().map(|part| safety * part / 64).filter(|ms| *ms > 0 && *ms < safety).collect();
        if !search.replace(&ends, |ms| format!("all after {ms} ms"), |plan, ms| ending(plan, *ms)) {
            break;
        }
    }
}

/// What lies before a later beginning goes, or happens at the beginning; the rest moves ahead.
pub fn begin(search: &mut Search<'_>) {
    loop {
        let safety = search.best().budgets.safety_ms;
        let by = PARTS.iter().rev().map(|part| safety * part / 64).filter(|ms| *ms > 0 && *ms < safety);
        let alternatives: Vec<(u64, bool)> = by.flat_map(|ms| [(ms, false), (ms, true)]).collect();
        let what = |(ms, keep): &(u64, bool)| match keep {
            false => format!("all before {ms} ms"),
            true => format!("the first {ms} ms of waiting"),
        };
        if !search.replace(&alternatives, what, |plan, (ms, keep)| beginning(plan, *ms, *keep)) {
            break;
        }
    }
}

/// Everything at a fraction of its time.
pub fn faster(search: &mut Search<'_>) {
    for _ in 0..6 {
        let quicker = search.replace(
            &[(1, 4), (1, 2), (3, 4)],
            |(n, of)| format!("time, to {n}/{of}"),
            |plan, (n, of)| moved(plan, plan.budgets.safety_ms * n / of, |ms| ms * n / of),
        );
        if !quicker {
            break;
        }
    }
}

fn ending(plan: &Plan, end: u64) -> Plan {
    let mut out = plan.clone();
    for_each_batches(&mut out, |_, batches| batches.retain(|b| b.at_ms <= end));
    out.faults.retain(|fault| start_of(fault) <= end);
    out.budgets.safety_ms = end;
    out
}

fn beginning(plan: &Plan, begin: u64, keep: bool) -> Plan {
    let mut out = plan.clone();
    if !keep {
        for_each_batches(&mut out, |_, batches| batches.retain(|b| b.at_ms >= begin));
        out.faults.retain(|fault| start_of(fault) >= begin);
    }
    moved(&out, plan.budgets.safety_ms - begin, |ms| ms.saturating_sub(begin))
}

fn moved(plan: &Plan, safety_ms: u64, to: impl Fn(u64) -> u64) -> Plan {
    let mut out = plan.clone();
    for_each_batches(&mut out, |_, batches| batches.iter_mut().for_each(|b| b.at_ms = to(b.at_ms)));
    for fault in &mut out.faults {
        match &mut fault.trigger {
            Trigger::At { ms } => *ms = to(*ms),
            Trigger::CrashPoint(point) => point.after_ms = to(point.after_ms),
        }
    }
    out.budgets.safety_ms = safety_ms.max(1);
    out
}

fn start_of(fault: &Fault) -> u64 {
    match &fault.trigger {
        Trigger::At { ms } => *ms,
        Trigger::CrashPoint(point) => point.after_ms,
    }
}
