//! From what a run left behind to its verdicts.

use std::collections::BTreeMap;

use history::{Copying, Facts, FaultEffect, Flush, Group, History, Outcome, Verdict};
use invariants::{Context, Property};
use models::JobSpec;
use scenarios::plan::{self, Action, ClientRole, Commit, Member};
use scenarios::{Plan, catalogue};

use super::phases::{self, Ending};
use crate::recorder::Recorded;

/// The history of a run.
pub(super) fn history(plan: &Plan, ending: &Ending, recorded: &mut Recorded, faults: Vec<FaultEffect>) -> History {
    let mut history = History::new(facts(plan, ending));
    history.ops = std::mem::take(&mut recorded.ops);
    history.observations = std::mem::take(&mut recorded.observations);
    history.decisions = std::mem::take(&mut recorded.decisions);
    history.faults = faults;
    history.logs = ending.logs.all.clone();
    history
}

fn facts(plan: &Plan, ending: &Ending) -> Facts {
    const MS: u64 = 1_000_000;
    let job = plan.job.as_ref().and_then(|j| JobSpec::parse(&j.toml, "job.toml").ok());
    let partitions = plan.topics.first().map_or(0, |t| t.partitions);
    let tasks = plan.knobs.processor.as_ref().map(|p| {
        let sources = (0..p.source_tasks.min(partitions)).map(|n| format!("source-{n}"));
        sources.chain((0..p.window_tasks).map(|n| format!("window-{n}"))).collect()
    });
    let drifts = plan.faults.iter().map(|f| match f.action {
        Action::ClockDrift { ppm, .. } => ppm.unsigned_abs(),
        _ => 0,
    });
    Facts {
        job,
        flush: match plan.knobs.broker.flush {
            plan::Flush::Fsync => Flush::Fsync,
            plan::Flush::PageCache => Flush::PageCache,
        },
        disks_lost: catalogue::may_lose_records(plan),
        healed_ns: Some(ending.healed_ns),
        ended_ns: ending.ended_ns,
        bound_ns: phases::quiet_ms(plan) * MS - MS,
        calm: ending.calm.clone(),
        drained: ending.drained,
        source_ends: ending.source_ends.clone(),
        tasks: tasks.unwrap_or_default(),
        copies: copies(plan, ending),
        groups: groups(plan),
        compacted: plan.topics.iter().filter(|t| t.is_compacted()).map(|t| t.name.clone()).collect(),
        fetch_timeout_ns: plan.knobs.processor.as_ref().map_or(0, |p| p.fetch_timeout_ms * MS),
        repeats_after_ns: Some(plan.knobs.client.request_timeout_ms * MS),
        clock_drift_ppm: drifts.max().unwrap_or(0),
    }
}

/// What members copy, each pair of topics once.
fn copies(plan: &Plan, ending: &Ending) -> Vec<Copying> {
    let mut copies: Vec<Copying> = Vec::new();
    for client in &plan.clients {
        let ClientRole::Member(Member { topic, commit: Commit::Transaction { to }, .. }) = &client.role else {
            continue;
        };
        if !copies.iter().any(|c| c.from == *topic && c.to == *to) {
            copies.push(Copying { from: topic.clone(), to: to.clone(), caught_up: ending.caught_up });
        }
    }
    copies
}

fn groups(plan: &Plan) -> Vec<Group> {
    let mut groups: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for client in &plan.clients {
        if let ClientRole::Member(Member { group, .. }) = &client.role {
            groups.entry(group).or_default().push(client.id);
        }
    }
    groups.into_iter().map(|(name, clients)| Group { name: name.to_owned(), clients }).collect()
}

/// Judges the history by the scenario's properties.
pub(super) fn verdicts(plan: &Plan, history: &History, ending: &Ending) -> Vec<(&'static Property, Verdict)> {
    let context = Context::new(history);
    let judged = catalogue::properties_of(plan).into_iter().filter_map(invariants::find);
    let mut all: Vec<_> = judged.map(|property| (property, property.check(&context))).collect();
    // A damaged disk is a finding of its own: what the decoder could not read, no other check sees.
    if let Some(entry) = all.iter_mut().find(|(p, _)| p.name == "read-equals-disk")
        && !ending.logs.damage.is_empty()
    {
        let damaged = ending.logs.damage.iter().map(|what| history::Violation {
            property: entry.0.name.to_owned(),
            message: "a log is damaged after the run".into(),
            witness: history::Witness::default().expected("a log that decodes to its end").found(what),
            op: None,
        });
        let violations = entry.1.violations().iter().cloned().chain(damaged).collect();
        entry.1 = Verdict::Fail(violations);
    }
    all
}

/// What it comes to. Being stuck is judged beside the properties, since it needs no history; what a stuck run did wrong
/// is worse than that it is stuck, and no check takes for missing what was not read.
pub(super) fn outcome(verdicts: &[(&'static Property, Verdict)], ending: &Ending) -> Outcome {
    match invariants::outcome(verdicts) {
        Outcome::Unsafe(violations) => Outcome::Unsafe(violations),
        Outcome::NotLive(violations) => Outcome::NotLive(ending.stuck.iter().cloned().chain(violations).collect()),
        _ if !ending.stuck.is_empty() => Outcome::NotLive(ending.stuck.clone()),
        other => other,
    }
}

/// Names of the properties that are judged, for results.
pub(super) fn named(verdicts: Vec<(&'static Property, Verdict)>) -> Vec<(String, Verdict)> {
    verdicts.into_iter().map(|(property, verdict)| (property.name.to_owned(), verdict)).collect()
}
