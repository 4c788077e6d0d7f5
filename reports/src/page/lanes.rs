//! The lanes of the timeline: nodes with their lives, partitions with epochs, in-sync sets and watermarks, tasks with their
//! decisions, checkpoints and transactions as spans.

use std::collections::BTreeMap;

use history::{Change, Decision, History, Input, Observed, Observer, OpKind, OpResult, TransactionState};
use invariants::JobView;
use serde::Serialize;

use super::picture::Strings;
use crate::explain::{Case, Names, ms};
use crate::scene::Scene;

/// Marks of one lane; past them only what is rare is kept.
const MAX_MARKS: usize = 40_000;

#[derive(Clone, Debug, Serialize)]
pub struct Lane {
    pub group: &'static str,
    pub name: String,
    pub bands: Vec<Band>,
    pub marks: Vec<Mark>,
    pub lines: Vec<Line>,
}

/// (from, to, row: 0 whole height, 1 upper half, 2 lower half, kind, text). The page colours by kind; of `epoch`, `isr` and
/// `attempt`, alternately.
#[derive(Clone, Debug, Serialize)]
pub struct Band(pub f64, pub f64, pub u8, pub &'static str, pub u32);

/// (at, kind, text, key or -1, partition or -1, transaction or -1).
#[derive(Clone, Debug, Serialize)]
pub struct Mark(pub f64, pub &'static str, pub u32, pub i64, pub i64, pub i64);

/// A quantity over time, as an offset of the lane's partition.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub name: String,
    pub kind: &'static str,
    pub points: Vec<(f64, i64)>,
}

impl Lane {
    fn new(group: &'static str, name: impl Into<String>) -> Self {
        Self { group, name: name.into(), bands: Vec::new(), marks: Vec::new(), lines: Vec::new() }
    }

    fn line(&mut self, name: &str, kind: &'static str, at: f64, value: i64) {
        let line = match self.lines.iter().position(|line| line.name == name) {
            Some(i) => &mut self.lines[i],
            None => {
                self.lines.push(Line { name: name.to_owned(), kind, points: Vec::new() });
                self.lines.last_mut().expect("just pushed")
            }
        };
        line.points.push((at, value));
    }
}

/// All of a run, in the order in which they are drawn.
pub(super) fn of(
    case: &Case<'_>,
    scene: &Scene,
    names: &Names,
    view: &JobView,
    strings: &mut Strings,
    end: f64,
) -> Vec<Lane> {
    let mut lanes = nodes(case.history, scene, names, strings, end);
    lanes.extend(partitions(case.history, names, strings, end));
    lanes.extend(tasks(case.history, strings, end));
    lanes.extend(checkpoints(case.history, view, strings, end));
    lanes.extend(transactions(case.history, strings, end));
    lanes
}

fn nodes(history: &History, scene: &Scene, names: &Names, strings: &mut Strings, end: f64) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = names.all().iter().map(|name| Lane::new("nodes", name)).collect();
    // (since, kind of what it is in, incarnation).
    let mut now: Vec<(f64, &'static str, u32)> = vec![(0.0, "up", 1); lanes.len()];
    for turn in &scene.turns {
        let Some(i) = turn.node.checked_sub(1).map(|n| n as usize).filter(|i| *i < lanes.len()) else { continue };
        let at = ms(turn.at_ns);
        let (since, was, incarnation) = now[i];
        let next = match turn.kind.as_str() {
            "crash" | "exit" => "down",
            "power-loss" => "off",
            "pause" => "paused",
            "restart" | "resume" => "up",
            _ => was,
        };
        let text = strings.of(format!("{}: {}", lanes[i].name, turn.kind));
        lanes[i].marks.push(Mark(at, "turn", text, -1, -1, -1));
        if next != was || turn.incarnation != incarnation {
            let text = strings.of(format!("{} {was}, life {incarnation}", lanes[i].name));
            lanes[i].bands.push(Band(since, at, 0, was, text));
            now[i] = (at, next, turn.incarnation);
        }
    }
    for (lane, (since, was, incarnation)) in lanes.iter_mut().zip(now) {
        let text = strings.of(format!("{} {was}, life {incarnation}", lane.name));
        lane.bands.push(Band(since, end, 0, was, text));
    }
    for seen in &history.observations {
        let (Observer::Node { node, .. }, kind, text) = (match &seen.what {
            Observed::QuorumLeader { epoch, node, .. } => {
                (&seen.observer, "elected", format!("broker-{node} leads the metadata quorum in epoch {epoch}"))
            }
            Observed::Restored { generation, checkpoint } => {
                let from = checkpoint.map_or("nothing".to_owned(), |n| format!("checkpoint {n}"));
                (&seen.observer, "restored", format!("attempt {generation} starts from {from}"))
            }
            Observed::CheckpointComplete { generation, n } => {
                (&seen.observer, "complete", format!("checkpoint {n} of attempt {generation} is complete"))
            }
            Observed::GroupGeneration { group, generation, members } => {
                let text = format!("group {group} generation {generation}: {} members", members.len());
                (&seen.observer, "group", text)
            }
            Observed::OffsetsLoaded { coordinator, coordinator_epoch, .. } => {
                let text =
                    format!("coordinator of __consumer_offsets-{coordinator} loaded in epoch {coordinator_epoch}");
                (&seen.observer, "group", text)
            }
            _ => continue,
        }) else {
            continue;
        };
        if let Some(lane) = node.checked_sub(1).and_then(|i| lanes.get_mut(i as usize)) {
            lane.marks.push(Mark(ms(seen.at_ns), kind, strings.of(text), -1, -1, -1));
        }
    }
    for lane in &mut lanes {
        lane.marks.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    lanes
}

fn partitions(history: &History, names: &Names, strings: &mut Strings, end: f64) -> Vec<Lane> {
    let mut lanes: BTreeMap<(&str, i32), Lane> = BTreeMap::new();
    let lane = |lanes: &mut BTreeMap<_, Lane>, topic, partition| {
        lanes.entry((topic, partition)).or_insert_with(|| Lane::new("partitions", format!("{topic}-{partition}")));
    };
    // Open bands: (since, epoch, text).
    let mut epochs: BTreeMap<(&str, i32), (f64, i32, u32)> = BTreeMap::new();
    let mut in_sync: BTreeMap<(&str, i32), (f64, i32, u32)> = BTreeMap::new();
    for seen in &history.observations {
        let at = ms(seen.at_ns);
        let who = names.observer(&seen.observer);
        match &seen.what {
            Observed::HighWatermark { topic, partition, offset, .. } => {
                // Brokers' own sights only: a client's come later and say the same.
                if let Observer::Node { .. } = seen.observer {
                    lane(&mut lanes, topic, *partition);
                    let lane = lanes.get_mut(&(topic.as_str(), *partition)).expect("just made");
                    lane.line("high watermark", "high", at, *offset);
                }
            }
            Observed::LastStableOffset { topic, partition, offset, .. } => {
                if let Observer::Node { .. } = seen.observer {
                    lane(&mut lanes, topic, *partition);
                    let lane = lanes.get_mut(&(topic.as_str(), *partition)).expect("just made");
                    lane.line("last stable offset", "stable", at, *offset);
                }
            }
            Observed::FollowerHighWatermark { topic, partition, offset, .. } => {
                lane(&mut lanes, topic, *partition);
                let lane = lanes.get_mut(&(topic.as_str(), *partition)).expect("just made");
                lane.line(&format!("high watermark at {who}"), "follower", at, *offset);
            }
            Observed::LeaderElected { topic, partition, leader_epoch, broker, log_end } => {
                lane(&mut lanes, topic, *partition);
                let id = (topic.as_str(), *partition);
                let lane = lanes.get_mut(&id).expect("just made");
                let end_text = log_end.map_or(String::new(), |end| format!(", log end {end}"));
                let text = strings.of(format!("epoch {leader_epoch}: broker-{broker} leads{end_text}"));
                let open = epochs.get(&id).copied();
                if open.is_none_or(|(_, epoch, _)| epoch < *leader_epoch) {
                    lane.bands.extend(open.map(|(since, _, text)| Band(since, at, 1, "epoch", text)));
                    lane.marks.push(Mark(at, "elected", text, -1, -1, -1));
                    epochs.insert(id, (at, *leader_epoch, text));
                }
            }
            Observed::IsrChanged { topic, partition, partition_epoch, isr, .. } => {
                lane(&mut lanes, topic, *partition);
                let id = (topic.as_str(), *partition);
                let lane = lanes.get_mut(&id).expect("just made");
                let open = in_sync.get(&id).copied();
                if open.is_none_or(|(_, epoch, _)| epoch < *partition_epoch) {
                    let text = strings.of(format!("in-sync set {isr:?}, partition epoch {partition_epoch}"));
                    lane.bands.extend(open.map(|(since, _, text)| Band(since, at, 2, "isr", text)));
                    lane.marks.push(Mark(at, "isr", text, -1, -1, -1));
                    in_sync.insert(id, (at, *partition_epoch, text));
                }
            }
            _ => {}
        }
    }
    for (id, (since, _, text)) in epochs {
        lanes.get_mut(&id).expect("it has a lane").bands.push(Band(since, end, 1, "epoch", text));
    }
    for (id, (since, _, text)) in in_sync {
        lanes.get_mut(&id).expect("it has a lane").bands.push(Band(since, end, 2, "isr", text));
    }
    let mut lanes: Vec<Lane> = lanes.into_values().collect();
    // Topics of the workload first, internal ones last.
    lanes.sort_by_key(|lane| (lane.name.starts_with("__"), lane.name.clone()));
    lanes
}

fn tasks(history: &History, strings: &mut Strings, end: f64) -> Vec<Lane> {
    let mut lanes: BTreeMap<&str, Lane> = BTreeMap::new();
    let mut open: BTreeMap<&str, (f64, u64)> = BTreeMap::new();
    let source = history.facts.job.as_ref().map(|job| job.source.topic.as_str()).unwrap_or_default();
    for entry in &history.decisions {
        let Some(at) = entry.at_ns.map(ms) else { continue };
        let task = entry.task.as_str();
        let lane = lanes.entry(task).or_insert_with(|| Lane::new("tasks", task));
        let (since, generation) = *open.entry(task).or_insert((at, entry.generation));
        if generation != entry.generation {
            let text = strings.of(format!("{task}: attempt {generation}"));
            lane.bands.push(Band(since, at, 0, "attempt", text));
            open.insert(task, (at, entry.generation));
        }
        let (kind, text, key, partition) = match &entry.decision {
            Decision::Open { checkpoint, watermark, .. } => {
                let from = checkpoint.map_or("nothing".to_owned(), |n| format!("checkpoint {n}"));
                ("open", format!("opens from {from} at watermark {watermark}"), None, None)
            }
            Decision::Advance { input, change, .. } => {
                let from = match input {
                    Input::Split(p) => format!("split {p}"),
                    Input::Channel(task) => task.clone(),
                };
                let (kind, what) = match change {
                    Change::Watermark(w) => ("advance", format!("at watermark {w}")),
                    Change::Idle => ("idle", "idle".to_owned()),
                    Change::Active => ("idle", "active".to_owned()),
                    Change::End => ("idle", "ended".to_owned()),
                };
                (kind, format!("{from} is {what}"), None, split_of(input, source))
            }
            Decision::Judge { partition, offsets, .. } => {
                let text = format!("judges records {} to {} of split {partition}", offsets[0], offsets[1]);
                ("judge", text, None, Some(format!("{source}-{partition}")))
            }
            Decision::Late { partition, offset } => (
                "late",
                format!("record {offset} of split {partition} is late"),
                None,
                Some(format!("{source}-{partition}")),
            ),
            Decision::Barrier { n, producer_id, producer_epoch, .. } => {
                ("barrier", format!("passes barrier {n}, producer {producer_id} epoch {producer_epoch}"), None, None)
            }
            Decision::Fire { key, start, end, pane, op } => {
                ("fire", format!("fires {key:?} [{start}, {end}) pane {pane} {}", op.as_str()), Some(key.clone()), None)
            }
        };
        if lane.marks.len() >= MAX_MARKS && matches!(kind, "advance" | "judge") {
            continue;
        }
        let text = strings.of(format!("attempt {} decision {}: {text}", entry.generation, entry.seq));
        let (key, partition) = (strings.maybe(key), strings.maybe(partition));
        lane.marks.push(Mark(at, kind, text, key, partition, -1));
    }
    for (task, (since, generation)) in open {
        let text = strings.of(format!("{task}: attempt {generation}"));
        lanes.get_mut(task).expect("it has a lane").bands.push(Band(since, end, 0, "attempt", text));
    }
    let mut lanes: Vec<Lane> = lanes.into_values().collect();
    for lane in &mut lanes {
        lane.marks.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    lanes
}

fn split_of(input: &Input, source: &str) -> Option<String> {
    match input {
        Input::Split(p) => Some(format!("{source}-{p}")),
        Input::Channel(_) => None,
    }
}

/// From the first barrier to completion.
fn checkpoints(history: &History, view: &JobView, strings: &mut Strings, end: f64) -> Option<Lane> {
    let mut first: BTreeMap<(u64, u64), f64> = BTreeMap::new();
    for entry in &history.decisions {
        if let (Decision::Barrier { n, .. }, Some(at)) = (&entry.decision, entry.at_ns) {
            first.entry((entry.generation, *n)).or_insert(ms(at));
        }
    }
    let mut complete: BTreeMap<(u64, u64), f64> = BTreeMap::new();
    for seen in &history.observations {
        if let Observed::CheckpointComplete { generation, n } = seen.what {
            complete.entry((generation, n)).or_insert(ms(seen.at_ns));
        }
    }
    let mut lane = Lane::new("job", "checkpoints");
    for ((generation, n), from) in first {
        let committed = view.committed.iter().any(|c| c.n == n && c.generation == generation);
        let (to, kind, what) = match (complete.get(&(generation, n)), committed) {
            (Some(to), true) => (*to, "done", "complete and committed"),
            (Some(to), false) => (*to, "kept", "complete, not in the committed output"),
            (None, _) => ((from + 200.0).min(end), "lost", "never complete"),
        };
        let text = strings.of(format!("checkpoint {n} of attempt {generation}: {what}"));
        lane.bands.push(Band(from, to, 0, kind, text));
    }
    (!lane.bands.is_empty()).then_some(lane)
}

/// The workload's by client, and those that coordinators told of by transactional id.
fn transactions(history: &History, strings: &mut Strings, end: f64) -> Vec<Lane> {
    let mut spans: BTreeMap<(u32, u64), (f64, f64, &'static str)> = BTreeMap::new();
    for op in &history.ops {
        match op.kind {
            OpKind::Produce { txn: Some(txn), .. } => {
                spans.entry((op.client, txn)).or_insert((ms(op.invoked_ns), end, "open"));
            }
            OpKind::EndTxn { txn, commit } => {
                let kind = match (&op.result, commit) {
                    (OpResult::Ok { .. }, true) => "done",
                    (OpResult::Ok { .. }, false) => "aborted",
                    (OpResult::Failed { .. }, _) => "lost",
                    _ => "unknown",
                };
                let span = spans.entry((op.client, txn)).or_insert((ms(op.invoked_ns), end, kind));
                (span.1, span.2) = (op.completed_ns.map_or(end, ms), kind);
            }
            _ => {}
        }
    }
    let mut lanes: BTreeMap<String, Lane> = BTreeMap::new();
    for ((client, txn), (from, to, kind)) in spans {
        let name = format!("transactions of client-{client}");
        let lane = lanes.entry(name.clone()).or_insert_with(|| Lane::new("transactions", name));
        let what = match kind {
            "done" => "committed",
            "lost" => "refused",
            "unknown" => "end not known to the client",
            other => other,
        };
        let text = strings.of(format!("transaction {txn}: {what}"));
        lane.bands.push(Band(from, to.max(from), 0, kind, text));
        lane.marks.push(Mark(from, "begin", text, -1, -1, txn as i64));
    }
    let mut open: BTreeMap<&str, (f64, &'static str, u32)> = BTreeMap::new();
    for seen in &history.observations {
        let Observed::TransactionState { transactional_id, producer_id, producer_epoch, state, .. } = &seen.what else {
            continue;
        };
        let at = ms(seen.at_ns);
        let lane = lanes.entry(transactional_id.clone()).or_insert_with(|| Lane::new("transactions", transactional_id));
        let kind = match state {
            TransactionState::Ongoing => "open",
            TransactionState::CompleteCommit => "done",
            TransactionState::CompleteAbort => "aborted",
            TransactionState::Empty | TransactionState::Dead => "empty",
            _ => "kept",
        };
        let text = strings.of(format!("{transactional_id}: {state:?}, producer {producer_id} epoch {producer_epoch}"));
        if let Some((since, kind, text)) = open.insert(transactional_id, (at, kind, text)) {
            lane.bands.push(Band(since, at, 0, kind, text));
        }
        lane.marks.push(Mark(at, "state", text, -1, -1, -1));
    }
    for (id, (since, kind, text)) in open {
        lanes.get_mut(id).expect("it has a lane").bands.push(Band(since, end, 0, kind, text));
    }
    lanes.into_values().collect()
}
