//! What the job did: attempts, what each was restored from, and what its tasks did against the rules of checkpoints.

use std::collections::BTreeMap;

use history::{Change, Decision, DecisionEntry, History, Input, InputState, InputStatus, Observed, TransactionState};

use super::clue::Clue;
use super::names::Names;
use super::told::{Story, Weight};
use super::{Case, StepKind};

/// Changes of a split's idleness that are told; the last ones before the violation.
const MAX_IDLE: usize = 4;

pub(super) fn tell(case: &Case<'_>, names: &Names, clue: &Clue, story: &mut Story) {
    let history = case.history;
    let mut connections: BTreeMap<(&history::Observer, &str), u64> = BTreeMap::new();
    for seen in &history.observations {
        let who = || names.observer(&seen.observer);
        match &seen.what {
            Observed::Restored { generation, checkpoint } => {
                let from = checkpoint.map_or("nothing".to_owned(), |n| format!("checkpoint {n}"));
                let what = format!("starts attempt {generation} from {from}");
                story.tell(Weight::Near, StepKind::Job, seen.at_ns, who(), what);
            }
            Observed::WorkerRegistered { worker, connection } => {
                let newest = connections.entry((&seen.observer, worker)).or_default();
                if *connection < *newest {
                    let what = format!(
                        "takes connection {connection} of {worker} for its newest, though connection {newest} had \
                         registered"
                    );
                    story.odd("registration", StepKind::Job, seen.at_ns, who(), what);
                }
                *newest = (*newest).max(*connection);
            }
            _ => {}
        }
    }
    if history.facts.job.is_none() {
        return;
    }
    wrong_decision(history, clue, story);
    early_commits(history, story);
    past_barriers(history, story);
    restored_below(history, story);
    idleness(history, clue, story);
    for note in case.notes {
        // As the recorder writes them: `12.034s attempt 2 failed: …`.
        let Some((seconds, what)) = note.split_once("s ") else { continue };
        let Ok(seconds) = seconds.parse::<f64>() else { continue };
        story.tell(Weight::Near, StepKind::Job, (seconds * 1e9) as u64, "job", what);
    }
}

fn wrong_decision(history: &History, clue: &Clue, story: &mut Story) {
    let Some(entry) = clue.decision.map(|i| &history.decisions[i]) else { return };
    let what = match &entry.decision {
        Decision::Judge { partition, offsets: [first, last], .. } if first == last => {
            format!("judges record {first} of split {partition}")
        }
        Decision::Judge { partition, offsets: [first, last], .. } => {
            format!("judges records {first} to {last} of split {partition}")
        }
        Decision::Barrier { n, .. } => format!("passes barrier {n}"),
        Decision::Fire { key, start, end, pane, op } => {
            format!("fires pane {pane} {} of key {key:?}, window [{start}, {end})", op.as_str())
        }
        Decision::Late { partition, offset } => format!("takes record {offset} of split {partition} for late"),
        Decision::Advance { input, change, .. } => format!("{}: {}", input_name(input), change_name(change)),
        Decision::Open { checkpoint, watermark, .. } => {
            let from = checkpoint.map_or("nothing".to_owned(), |n| format!("checkpoint {n}"));
            format!("opens from {from} with watermark {watermark}")
        }
    };
    if let Some(at_ns) = entry.at_ns {
        let what = format!("decides in attempt {}, decision {}: {what}", entry.generation, entry.seq);
        story.tell(Weight::Odd, StepKind::Job, at_ns, &entry.task, what);
    }
}

fn input_name(input: &Input) -> String {
    match input {
        Input::Split(p) => format!("split {p}"),
        Input::Channel(task) => format!("channel of {task}"),
    }
}

fn change_name(change: &Change) -> String {
    match change {
        Change::Watermark(w) => format!("watermark {w}"),
        Change::Idle => "idle".into(),
        Change::Active => "active".into(),
        Change::End => "ended".into(),
    }
}

/// A task's transaction of an epoch was decided on before the epoch's checkpoint was complete.
fn early_commits(history: &History, story: &mut Story) {
    let mut complete: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut decided: BTreeMap<(i64, i16), u64> = BTreeMap::new();
    for seen in &history.observations {
        match &seen.what {
            Observed::CheckpointComplete { generation, n } => {
                complete.entry((*generation, *n)).or_insert(seen.at_ns);
            }
            Observed::TransactionState {
                producer_id, producer_epoch, state: TransactionState::PrepareCommit, ..
            } => {
                decided.entry((*producer_id, *producer_epoch)).or_insert(seen.at_ns);
            }
            _ => {}
        }
    }
    for entry in &history.decisions {
        let Decision::Barrier { n, producer_id, producer_epoch, .. } = entry.decision else { continue };
        // The coordinator decides in the epoch after the transaction's.
        let Some(at_ns) = decided.get(&(producer_id, producer_epoch + 1)).filter(|_| producer_id >= 0) else {
            continue;
        };
        if complete.get(&(entry.generation, n)).is_none_or(|done| at_ns < done) {
            let what = format!(
                "commits its transaction of epoch {n}, though checkpoint {n} of attempt {} is not complete",
                entry.generation
            );
            story.odd("early commit", StepKind::Job, *at_ns, &entry.task, what);
        }
    }
}

/// A window task judged before a barrier what its source sent after it.
fn past_barriers(history: &History, story: &mut Story) {
    let mut positions: BTreeMap<(u64, u64, i32), (i64, &str)> = BTreeMap::new();
    for entry in &history.decisions {
        if let Decision::Barrier { n, positions: at, .. } = &entry.decision {
            positions.extend(at.iter().map(|(p, o)| ((entry.generation, *n, *p), (*o, entry.task.as_str()))));
        }
    }
    let mut judged: BTreeMap<(u64, &str), Vec<&DecisionEntry>> = BTreeMap::new();
    for entry in &history.decisions {
        let of_task = judged.entry((entry.generation, entry.task.as_str())).or_default();
        match entry.decision {
            Decision::Judge { .. } => of_task.push(entry),
            Decision::Barrier { n, .. } => {
                for early in std::mem::take(of_task) {
                    let Decision::Judge { partition, offsets: [_, last], .. } = early.decision else { continue };
                    let Some((position, source)) = positions.get(&(early.generation, n, partition)) else { continue };
                    if last >= *position
                        && let Some(at_ns) = early.at_ns
                    {
                        let what = format!(
                            "judges record {last} of split {partition} before barrier {n} of attempt {}, though \
                             {source} passed \
                             it at {position}",
                            early.generation
                        );
                        story.odd("past barrier", StepKind::Job, at_ns, &early.task, what);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A source task opened with less of a split's watermark than it had at the barrier that it was restored from.
fn restored_below(history: &History, story: &mut Story) {
    let mut made: BTreeMap<u64, u64> = BTreeMap::new();
    for seen in &history.observations {
        if let Observed::CheckpointComplete { generation, n } = seen.what {
            made.insert(n, generation);
        }
    }
    // (attempt, split) -> the watermark so far; (attempt, n, split) -> at the barrier.
    let mut now = BTreeMap::new();
    let mut at_barrier = BTreeMap::new();
    for entry in &history.decisions {
        let generation = entry.generation;
        match &entry.decision {
            Decision::Open { checkpoint, inputs, .. } => {
                for InputState { input, watermark, .. } in inputs {
                    let Input::Split(p) = input else { continue };
                    now.insert((generation, *p), *watermark);
                    let was = checkpoint.and_then(|n| at_barrier.get(&(*made.get(&n)?, n, *p)).copied());
                    if let (Some(n), Some(was), Some(at_ns)) =
                        (checkpoint, was.filter(|was| watermark < was), entry.at_ns)
                    {
                        let what = format!(
                            "opens attempt {generation} from checkpoint {n} with split {p} at watermark {watermark}, \
                             though it \
                             was {was} at the barrier"
                        );
                        story.odd("restored below", StepKind::Job, at_ns, &entry.task, what);
                    }
                }
            }
            Decision::Advance { input: Input::Split(p), change: Change::Watermark(w), .. } => {
                now.insert((generation, *p), *w);
            }
            Decision::Barrier { n, positions, .. } => {
                for (p, _) in positions {
                    if let Some(w) = now.get(&(generation, *p)) {
                        at_barrier.insert((generation, *n, *p), *w);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Splits that went idle or active before the wrong decision, or before the wrong window fired.
fn idleness(history: &History, clue: &Clue, story: &mut Story) {
    let fires = |d: &DecisionEntry| {
        let Some((key, start, end)) = &clue.window else { return false };
        matches!(&d.decision, Decision::Fire { key: k, start: s, end: e, .. } if k == key && s == start && e == end)
    };
    let Some(at) = clue.decision.or_else(|| history.decisions.iter().rposition(fires)) else { return };
    let generation = history.decisions[at].generation;
    let mut told = Vec::new();
    for entry in history.decisions[..at].iter().filter(|d| d.generation == generation) {
        match &entry.decision {
            Decision::Advance {
                input: input @ Input::Split(_),
                change: change @ (Change::Idle | Change::Active),
                ..
            } => {
                told.push((entry, format!("{}: {}", input_name(input), change_name(change))));
            }
            Decision::Open { inputs, .. } => {
                for idle in
                    inputs.iter().filter(|i| i.status == InputStatus::Idle && matches!(i.input, Input::Split(_)))
                {
                    told.push((entry, format!("opens attempt {generation} with {} idle", input_name(&idle.input))));
                }
            }
            _ => {}
        }
    }
    let surplus = told.len().saturating_sub(MAX_IDLE);
    for (entry, what) in told.into_iter().skip(surplus) {
        if let Some(at_ns) = entry.at_ns {
            story.tell(Weight::Own, StepKind::Job, at_ns, &entry.task, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use models::Watermark;

    use super::super::fixture::Scene;
    use super::*;

    fn barrier(task: &str, positions: Vec<(i32, i64)>, scene: &mut Scene) {
        scene.decide(task, Decision::Barrier { n: 3, producer_id: 7, producer_epoch: 1, positions });
    }

    fn prepare_commit(producer_epoch: i16, scene: &mut Scene) {
        let (transactional_id, state) = ("totals-window-0-0".to_owned(), TransactionState::PrepareCommit);
        let producer_id = 7;
        scene.see(
            0,
            Observed::TransactionState { transactional_id, producer_id, producer_epoch, coordinator_epoch: 0, state },
        );
    }

    #[test]
    fn a_commit_before_the_checkpoint_is_complete_is_named() {
        let complete = Observed::CheckpointComplete { generation: 1, n: 3 };
        let mut scene = Scene::new();
        barrier("window-0", Vec::new(), &mut scene);
        scene.see(0, complete.clone());
        prepare_commit(2, &mut scene);
        assert_eq!(scene.odd(tell), [""; 0]);
        let mut scene = Scene::new();
        barrier("window-0", Vec::new(), &mut scene);
        prepare_commit(1, &mut scene);
        prepare_commit(2, &mut scene);
        scene.see(0, complete);
        assert_eq!(
            scene.odd(tell),
            ["window-0: commits its transaction of epoch 3, though checkpoint 3 of attempt 1 is not complete"]
        );
    }

    #[test]
    fn a_record_judged_before_the_barrier_that_it_follows_is_named() {
        let mut scene = Scene::new();
        barrier("source-0", vec![(0, 12)], &mut scene);
        for offsets in [[10, 11], [12, 12]] {
            scene.decide("window-0", Decision::Judge { partition: 0, offsets, key_group: 0 });
        }
        assert_eq!(scene.odd(tell), [""; 0]);
        barrier("window-0", Vec::new(), &mut scene);
        assert_eq!(
            scene.odd(tell),
            ["window-0: judges record 12 of split 0 before barrier 3 of attempt 1, though source-0 passed it at 12"]
        );
    }

    #[test]
    fn a_split_restored_with_less_watermark_is_named() {
        let mut scene = Scene::new();
        let change = Change::Watermark(Watermark(5_000));
        scene.decide("source-0", Decision::Advance { input: Input::Split(0), offset: Some(11), change, time_ms: 0 });
        barrier("source-0", vec![(0, 12)], &mut scene);
        scene.see(0, Observed::CheckpointComplete { generation: 1, n: 3 });
        let open = |w: i64, scene: &mut Scene| {
            let (input, status, position) = (Input::Split(0), InputStatus::In, Some(12));
            let inputs = vec![InputState { input, watermark: Watermark(w), status, position }];
            let watermark = Watermark(w);
            scene.decide("source-0", Decision::Open { checkpoint: Some(3), watermark, inputs, key_groups: Vec::new() });
        };
        open(5_000, &mut scene);
        assert_eq!(scene.odd(tell), [""; 0]);
        open(-1, &mut scene);
        assert_eq!(
            scene.odd(tell),
            ["source-0: opens attempt 1 from checkpoint 3 with split 0 at watermark -1, though it was 5000 at the \
                 barrier"]
        );
    }

    #[test]
    fn a_wrong_decision_is_told_with_the_splits_that_were_idle() {
        let mut scene = Scene::new();
        let idle = Decision::Advance { input: Input::Split(1), offset: Some(4), change: Change::Idle, time_ms: 0 };
        scene.decide("source-0", idle);
        scene.decide("window-0", Decision::Late { partition: 0, offset: 9 });
        scene.clue.decision = Some(1);
        assert_eq!(
            scene.all(tell),
            [
                "window-0: decides in attempt 1, decision 1: takes record 9 of split 0 for late",
                "source-0: split 1: idle",
            ]
        );
    }

    #[test]
    fn an_old_connection_that_takes_a_newer_one_s_place_is_named() {
        let mut scene = Scene::new();
        for connection in [3, 5, 4] {
            scene.see(0, Observed::WorkerRegistered { worker: "worker-1".into(), connection });
        }
        assert_eq!(
            scene.odd(tell),
            ["broker-0: takes connection 4 of worker-1 for its newest, though connection 5 had registered"]
        );
    }
}
