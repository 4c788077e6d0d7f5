//! What a run did, in numbers: how much of the workload took place, and which faults bit.

use std::collections::{BTreeMap, BTreeSet};

use history::{Decision, FaultEffect, History, LogSource, Observed, TransactionState};
use models::JobSpec;
use reports::{ClusterStats, FaultCount, FaultStep, JobPhase, JobPhases, Stats};
use scenarios::Plan;
use scenarios::plan::{Action, Family, Trigger, Twist};
use world::Effect;

use super::nemesis::Effects;
use crate::recorder::ProbeFacts;

/// Effects that changed something, as the history and as reports have them, in order of time.
pub(super) fn fault_effects(effects: &[Effect]) -> (Vec<FaultEffect>, Vec<FaultStep>) {
    let mut bitten: Vec<&Effect> = effects.iter().filter(|e| e.bit()).collect();
    // Crash points are armed in one order and reached in another.
    bitten.sort_by_key(|e| e.began);
    bitten
        .into_iter()
        .map(|e| {
            let counts: Vec<_> = e.counts.iter().map(|(name, n)| format!("{n} {}", name.replace('_', " "))).collect();
            let effect = FaultEffect {
                at_ns: e.began.as_nanos(),
                until_ns: e.ended.map(|t| t.as_nanos()),
                lasting: e.ended.is_none(),
                fault: e.kind.to_owned(),
                target: e.subject.clone(),
                effect: counts.join(", "),
            };
            let at_ms = e.began.as_nanos() / 1_000_000;
            (effect, FaultStep { at_ms, what: format!("{} {}: {}", e.kind, e.subject, counts.join(", ")) })
        })
        .unzip()
}

/// Numbers of the plan's faults that never had an effect.
pub(super) fn did_not_bite(plan: &Plan, ids: &Effects, effects: &[Effect]) -> Vec<u32> {
    let bit = |id: &u32| ids.get(id).is_some_and(|ids| ids.iter().any(|i| effects[i.index()].bit()));
    plan.faults.iter().map(|f| f.id).filter(|id| !bit(id)).collect()
}

pub(super) fn stats(plan: &Plan, history: &History, facts: &ProbeFacts, did_not_bite: &[u32]) -> Stats {
    let job = plan.job.as_ref().and_then(|j| JobSpec::parse(&j.toml, "job.toml").ok());
    let rows_of = |topic: &str| {
        history
            .logs_from(&LogSource::ReadCommitted)
            .filter(|l| l.topic == topic)
            .flat_map(|l| &l.records)
            .collect::<Vec<_>>()
    };
    let workload: BTreeSet<_> = history
        .logs_from(&LogSource::ReadUncommitted)
        .filter(|l| plan.topics.iter().any(|t| t.name == l.topic))
        .flat_map(|l| l.records.iter().filter_map(|r| r.op()))
        .collect();
    let windows: BTreeSet<_> = job
        .iter()
        .flat_map(|job| rows_of(&job.sink.topic))
        .filter_map(|r| {
            let row: serde_json::Value = serde_json::from_slice(r.value.as_ref()?).ok()?;
            Some((row["key"].as_str()?.to_owned(), row["window_start"].as_i64()?, row["window_end"].as_i64()?))
        })
        .collect();
    let mut stats = Stats {
        simulated_ms: history.facts.ended_ns / 1_000_000,
        records: workload.len() as u64,
        windows: windows.len() as u64,
        checkpoints: facts.committed.len() as u64,
        events_checked: (history.ops.len()
            + history.observations.len()
            + history.decisions.len()
            + history.logs.iter().map(|l| l.records.len()).sum::<usize>()) as u64,
        restored_non_empty: facts.restored_non_empty,
        cluster: cluster(history),
        families_off: plan.families_off.iter().map(|f| f.name().to_owned()).collect(),
        ..Stats::default()
    };
    for fault in &plan.faults {
        let count = stats.faults.entry(fault.family.name().to_owned()).or_default();
        count.enabled += 1;
        count.bit += u64::from(!did_not_bite.contains(&fault.id));
    }
    for twist in &plan.twists {
        let bit = match twist {
            Twist::IdleSplit { partition, .. } => history.decisions.iter().any(|d| {
                matches!(&d.decision, Decision::Advance { input: history::Input::Split(p), change: history::Change::Idle, .. } if p == partition)
            }),
            Twist::Late { .. } => {
                let late = job.as_ref().is_some_and(|j| !rows_of(&j.sink.late_topic).is_empty());
                late || history.decisions.iter().any(|d| matches!(d.decision, Decision::Fire { pane: 1.., .. }))
            }
            Twist::Poison { .. } => job.as_ref().is_some_and(|j| !rows_of(&j.sink.dlq_topic).is_empty()),
            Twist::Burst { .. } | Twist::Boundary { .. } => !workload.is_empty(),
        };
        let count = stats.faults.entry(Family::EventTime.name().to_owned()).or_default();
        count.enabled += 1;
        count.bit += u64::from(bit);
    }
    stats
}

/// As [`Stats::faults_by_job_phase`] has them.
pub(super) fn by_job_phase(
    plan: &Plan,
    history: &History,
    ids: &Effects,
    effects: &[Effect],
) -> BTreeMap<String, BTreeMap<JobPhase, FaultCount>> {
    let mut all: BTreeMap<String, BTreeMap<JobPhase, FaultCount>> = BTreeMap::new();
    let Some(phases) = JobPhases::of(history) else { return all };
    for fault in &plan.faults {
        let mut mine = ids.get(&fault.id).into_iter().flatten().map(|id| &effects[id.index()]);
        let Some(first) = mine.clone().next() else { continue };
        let bit = mine.find(|e| e.bit());
        // These wait for a node: until one comes, nothing was struck.
        let waits =
            matches!(fault.trigger, Trigger::CrashPoint(_)) || matches!(fault.action, Action::FsyncError { .. });
        if bit.is_none() && waits {
            continue;
        }
        let phase = phases.at(bit.unwrap_or(first).began.as_nanos());
        let count = all.entry(fault.family.name().to_owned()).or_default().entry(phase).or_default();
        count.enabled += 1;
        count.bit += u64::from(bit.is_some());
    }
    all
}

/// What committed metadata and coordinators said of leaderships, each thing once though several brokers tell of it.
fn cluster(history: &History) -> ClusterStats {
    let mut stats = ClusterStats::default();
    let mut leaders: BTreeMap<(&str, i32), (i32, u32)> = BTreeMap::new();
    let mut sets: BTreeMap<(&str, i32), (i32, usize)> = BTreeMap::new();
    let mut open: BTreeMap<&str, i32> = BTreeMap::new();
    for seen in &history.observations {
        match &seen.what {
            Observed::LeaderElected { topic, partition, leader_epoch, broker, .. } => {
                let known = leaders.entry((topic, *partition)).or_insert((*leader_epoch, *broker));
                if known.0 < *leader_epoch {
                    stats.leader_changes += u64::from(known.1 != *broker);
                    *known = (*leader_epoch, *broker);
                }
            }
            Observed::IsrChanged { topic, partition, partition_epoch, isr, .. } => {
                let known = sets.entry((topic, *partition)).or_insert((*partition_epoch, isr.len()));
                if known.0 < *partition_epoch {
                    stats.isr_shrinks += u64::from(isr.len() < known.1);
                    *known = (*partition_epoch, isr.len());
                }
            }
            Observed::TransactionState { transactional_id, coordinator_epoch, state, .. } => {
                if open.get(transactional_id.as_str()).is_some_and(|epoch| epoch < coordinator_epoch) {
                    stats.coordinator_failovers += 1;
                }
                match state {
                    TransactionState::Ongoing
                    | TransactionState::Prepared
                    | TransactionState::PrepareCommit
                    | TransactionState::PrepareAbort => {
                        open.insert(transactional_id, *coordinator_epoch);
                    }
                    _ => {
                        open.remove(transactional_id.as_str());
                    }
                }
            }
            _ => {}
        }
    }
    stats
}
