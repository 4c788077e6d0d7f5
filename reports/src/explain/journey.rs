//! The way of one record: produced, appended, replicated, acknowledged, stable, judged, checkpointed, committed, read.
//!
//! Each stage says when and where, or that it was not reached. The log keeps no simulated times, so "appended" is told by
//! the first high watermark past the record: by then it was there.

use history::{Control, Decision, DecisionEntry, LogSource, Observation, Observed, Op, OpKind, OpResult};
use invariants::{Context, Fate};
use models::record::decode;

use super::clue::{Clue, at};
use super::judged::{judges, key_groups};
use super::names::Names;
use super::{Case, Journey, Stage, Step, StepKind, ms};

/// The journey, and the same as steps of the story.
pub(super) fn of(case: &Case<'_>, names: &Names, clue: &Clue) -> (Option<Journey>, Vec<Step>) {
    let op = clue.op.map(|id| &case.history.ops[id.0]);
    if clue.record.is_none() && op.is_none_or(|op| !matches!(op.kind, OpKind::Produce { .. })) {
        return (None, Vec::new());
    }
    let mut way = Way { case, names, stages: Vec::new(), steps: Vec::new() };
    let mut name = Vec::new();
    if let Some((topic, partition, offset)) = &clue.record {
        name.push(format!("{topic}-{partition} offset {offset}"));
    }
    if let Some(op) = op {
        name.push(format!("client {} operation {}", op.client, op.n));
        way.produced(op);
    }
    if let Some((topic, partition, offset)) = &clue.record {
        way.kept(topic, *partition, *offset, op);
    }
    if let Some(op) = op {
        way.acknowledged(op);
    }
    if let Some((topic, partition, offset)) = &clue.record {
        way.ended(topic, *partition, *offset, op);
        if case.history.facts.job.as_ref().is_some_and(|job| job.source.topic == *topic) {
            way.processed(*partition, *offset);
        }
        way.read(topic, *partition, *offset, op);
    }
    (Some(Journey { record: name.join(", "), stages: way.stages }), way.steps)
}

struct Way<'a> {
    case: &'a Case<'a>,
    names: &'a Names,
    stages: Vec<Stage>,
    steps: Vec<Step>,
}

impl Way<'_> {
    fn stage(&mut self, name: &'static str, reached: bool, at_ns: Option<u64>, what: impl Into<String>) {
        self.stages.push(Stage { name, reached, at_ms: at_ns.map(ms), what: what.into() });
    }

    fn step(&mut self, at_ns: Option<u64>, kind: StepKind, who: impl Into<String>, what: impl Into<String>) {
        self.steps.push(Step { at_ms: at_ns.map(ms), who: who.into(), what: what.into(), kind });
    }

    fn produced(&mut self, op: &Op) {
        let OpKind::Produce { topic, partition, key, acks, idempotent, txn, .. } = &op.kind else { return };
        let key = key.as_ref().map_or(String::new(), |key| format!(", key {key:?}"));
        let acks = if *acks == -1 { "all".to_owned() } else { acks.to_string() };
        let idempotent = if *idempotent { ", idempotent" } else { "" };
        let txn = txn.map_or(String::new(), |txn| format!(", in transaction {txn}"));
        let what = format!("sends operation {} to {topic}-{partition}{key}, acks={acks}{idempotent}{txn}", op.n);
        self.step(Some(op.invoked_ns), StepKind::Client, format!("client-{}", op.client), &what);
        self.stage("produced", true, Some(op.invoked_ns), format!("client-{} {what}", op.client));
    }

    /// In the log: where, on which disks, and when it was on enough of them.
    fn kept(&mut self, topic: &str, partition: i32, offset: i64, op: Option<&Op>) {
        let history = self.case.history;
        let written = |log: &history::PartitionLog| {
            let record = at(log, offset)?;
            let same = op.is_none_or(|op| record.op() == Some((op.client, op.n)));
            same.then(|| record.clone())
        };
        let log = history.log(&LogSource::ReadUncommitted, topic, partition);
        let disks: Vec<(u32, bool, i64)> = history
            .logs
            .iter()
            .filter(|log| log.topic == topic && log.partition == partition)
            .filter_map(|log| match log.source {
                LogSource::Disk { node } => Some((node, written(log).is_some(), log.log_end_offset)),
                _ => None,
            })
            .collect();
        let high = first(&history.observations, |seen| match &seen.what {
            Observed::HighWatermark { topic: t, partition: p, offset: o, .. } => {
                t == topic && *p == partition && *o > offset
            }
            _ => false,
        });
        match log.and_then(written) {
            Some(record) => {
                let mut what = format!("{topic}-{partition} offset {offset}, leader epoch {}", record.leader_epoch);
                if record.producer_id >= 0 {
                    what += &format!(
                        ", producer {} epoch {} sequence {}",
                        record.producer_id, record.producer_epoch, record.sequence
                    );
                }
                self.stage("appended", true, None, what);
            }
            None => {
                let end = log.map_or(0, |log| log.log_end_offset);
                let was = if high.is_some() { "was there once; " } else { "" };
                let what = format!("{was}{topic}-{partition} does not hold it at the end; the log ends at {end}");
                self.stage("appended", high.is_some(), None, what);
            }
        }
        if !disks.is_empty() {
            let list = |holds: bool| {
                let of = disks.iter().filter(|(_, has, _)| *has == holds);
                of.map(|(node, _, end)| format!("broker-{node} (log end {end})")).collect::<Vec<_>>().join(", ")
            };
            let (with, without) = (list(true), list(false));
            let reached = !with.is_empty();
            let what = match (with.is_empty(), without.is_empty()) {
                (false, true) => format!("on the disk of {with}"),
                (false, false) => format!("on the disk of {with}; not of {without}"),
                _ => format!("on no disk: {without}"),
            };
            self.stage("replicated", reached, None, what);
        }
        if let Some(seen) = high {
            let Observed::HighWatermark { offset: to, leader_epoch, .. } = &seen.what else { return };
            let epoch = if *leader_epoch < 0 { String::new() } else { format!(" in leader epoch {leader_epoch}") };
            let what = format!("high watermark of {topic}-{partition} passes {offset}: {to}{epoch}");
            let who = self.names.observer(&seen.observer);
            self.stage("high watermark", true, Some(seen.at_ns), format!("{who}: {what}"));
            self.step(Some(seen.at_ns), StepKind::Broker, who, what);
        }
    }

    fn acknowledged(&mut self, op: &Op) {
        let who = format!("client-{}", op.client);
        let (reached, what) = match &op.result {
            OpResult::Ok { offset: Some(offset) } => {
                (true, format!("hears that operation {} is at offset {offset}", op.n))
            }
            OpResult::Ok { offset: None } => (true, format!("hears that operation {} succeeded", op.n)),
            OpResult::Polled { .. } => return,
            OpResult::Failed { code } => (false, format!("hears that operation {} failed: {code}", op.n)),
            OpResult::Unknown { reason } => {
                let reason = reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
                (false, format!("never learns what became of operation {}{reason}", op.n))
            }
        };
        self.stage("acknowledged", reached, op.completed_ns, format!("{who} {what}"));
        if op.completed_ns.is_some() {
            self.step(op.completed_ns, StepKind::Client, who, what);
        }
    }

    /// Its transaction, and when a committed reader could see it.
    fn ended(&mut self, topic: &str, partition: i32, offset: i64, op: Option<&Op>) {
        let history = self.case.history;
        let txn = op.and_then(|op| match op.kind {
            OpKind::Produce { txn, .. } => txn,
            _ => None,
        });
        if let Some(txn) = txn {
            let end = history.ops.iter().find(|op| matches!(op.kind, OpKind::EndTxn { txn: t, .. } if t == txn));
            if let Some(end) = end {
                let OpKind::EndTxn { commit, .. } = end.kind else { return };
                let verb = if commit { "commits" } else { "aborts" };
                let what = format!("{verb} transaction {txn}");
                self.step(Some(end.invoked_ns), StepKind::Client, format!("client-{}", end.client), &what);
                let heard = match &end.result {
                    OpResult::Failed { code } => format!("; refused: {code}"),
                    OpResult::Unknown { .. } => "; the answer never came".into(),
                    _ => String::new(),
                };
                self.stage("ended", end.is_ok(), end.completed_ns, format!("client-{} {what}{heard}", end.client));
            }
        }
        let context = Context::new(history);
        if let Some((log, fates)) = context.log(topic, partition)
            && let Ok(i) = log.records.binary_search_by_key(&offset, |r| r.offset)
            && log.records[i].transactional
        {
            let producer = log.records[i].producer_id;
            let marker = log.records[i..].iter().find(|r| r.producer_id == producer && r.control.is_some());
            let what = match (marker, fates[i]) {
                (Some(marker), fate) => {
                    let kind = if marker.control == Some(Control::Commit) { "commit" } else { "abort" };
                    format!("{kind} marker of producer {producer} at offset {}: {}", marker.offset, fate_word(fate))
                }
                (None, _) => format!("no marker of producer {producer}: its transaction is open"),
            };
            self.stage("marker", marker.is_some(), None, what);
        }
        let stable = first(&history.observations, |seen| match &seen.what {
            Observed::LastStableOffset { topic: t, partition: p, offset: o, .. } => {
                t == topic && *p == partition && *o > offset
            }
            _ => false,
        });
        if let Some(seen) = stable {
            let Observed::LastStableOffset { offset: to, .. } = seen.what else { return };
            let who = self.names.observer(&seen.observer);
            let what = format!("last stable offset of {topic}-{partition} passes {offset}: {to}");
            self.stage("stable", true, Some(seen.at_ns), format!("{who}: {what}"));
        }
    }

    /// In the job: each time it was judged, and what became of that epoch.
    fn processed(&mut self, split: i32, offset: i64) {
        let history = self.case.history;
        let Some(job) = &history.facts.job else { return };
        let view = invariants::JobView::of(history).and_then(Result::ok).unwrap_or_default();
        let record = history.log(&LogSource::ReadUncommitted, &job.source.topic, split).and_then(|log| at(log, offset));
        let event = record.and_then(|r| decode(&job.source, r.value.as_deref()).ok());
        let key = event.as_ref().map(|event| event.key.as_str()).unwrap_or_default();
        let groups = if event.is_some() { key_groups(history) } else { 0 };
        let is = |d: &DecisionEntry| judges(&d.decision, split, offset, key, groups);
        let mut judged = 0;
        for (i, entry) in history.decisions.iter().enumerate().filter(|(_, d)| is(d)) {
            judged += 1;
            let Decision::Judge { key_group, .. } = entry.decision else { continue };
            let (generation, task, seq) = (entry.generation, &entry.task, entry.seq);
            let what = format!(
                "judges record {offset} of split {split} in attempt {generation}, decision {seq}, key group {key_group}"
            );
            self.step(entry.at_ns, StepKind::Job, task, &what);
            self.stage("judged", true, entry.at_ns, format!("{task} {what}"));
            let later = || history.decisions[i + 1..].iter().filter(|d| d.generation == generation && d.task == *task);
            if let Some(late) = later().find(
                |d| matches!(d.decision, Decision::Late { partition, offset: o } if partition == split && o == offset),
            ) {
                let what = format!("takes record {offset} of split {split} for late");
                self.step(late.at_ns, StepKind::Job, task, &what);
                self.stage("late", true, late.at_ns, format!("{task} {what}"));
            }
            let barrier = later().find_map(|d| match d.decision {
                Decision::Barrier { n, .. } => Some((n, d.at_ns)),
                _ => None,
            });
            let Some((n, at_ns)) = barrier else {
                let what = format!(
                    "attempt {generation} ended before {task} passed another barrier: what it judged is forgotten"
                );
                self.stage("checkpointed", false, None, what);
                continue;
            };
            self.step(at_ns, StepKind::Job, task, format!("passes barrier {n} of attempt {generation}"));
            let complete = first(
                &history.observations,
                |seen| matches!(seen.what, Observed::CheckpointComplete { n: m, generation: g } if m == n && g == generation),
            );
            match complete {
                Some(seen) => {
                    let who = self.names.observer(&seen.observer);
                    self.step(
                        Some(seen.at_ns),
                        StepKind::Job,
                        &who,
                        format!("checkpoint {n} of attempt {generation} is complete"),
                    );
                    self.stage(
                        "checkpointed",
                        true,
                        Some(seen.at_ns),
                        format!("{who}: checkpoint {n} of attempt {generation} is complete"),
                    );
                }
                None => self.stage(
                    "checkpointed",
                    false,
                    None,
                    format!("checkpoint {n} of attempt {generation} never completes"),
                ),
            }
            let committed = view.committed.iter().any(|c| c.n == n && c.generation == generation);
            let what = match committed {
                true => format!("epoch {n} of attempt {generation} is in the committed output"),
                false => format!("epoch {n} of attempt {generation} is not in the committed output"),
            };
            self.stage("committed", committed, None, what);
        }
        if judged == 0 {
            self.stage("judged", false, None, format!("no task ever judged record {offset} of split {split}"));
        }
        if let Some(event) = event {
            let window = job.window.assign(event.event_time);
            self.fired(&event.key, window.start, window.end);
        }
    }

    fn fired(&mut self, key: &str, start: i64, end: i64) {
        for entry in &self.case.history.decisions {
            let Decision::Fire { key: k, start: s, end: e, pane, op } = &entry.decision else { continue };
            if k != key || *s != start || *e != end {
                continue;
            }
            let what = format!(
                "fires pane {pane} {} of key {key:?}, window [{start}, {end}), in attempt {}, decision {}",
                op.as_str(),
                entry.generation,
                entry.seq
            );
            self.step(entry.at_ns, StepKind::Job, &entry.task, &what);
            self.stage("fired", true, entry.at_ns, format!("{} {what}", entry.task));
        }
    }

    /// Who has seen it in the end.
    fn read(&mut self, topic: &str, partition: i32, offset: i64, op: Option<&Op>) {
        let Some(log) = self.case.history.log(&LogSource::ReadCommitted, topic, partition) else { return };
        let there = at(log, offset).is_some_and(|r| op.is_none_or(|op| r.op() == Some((op.client, op.n))));
        let what = match there {
            true => format!("the final committed read of {topic}-{partition} returns it"),
            false => format!("the final committed read of {topic}-{partition} does not return it"),
        };
        self.stage("read", there, None, what);
    }
}

fn fate_word(fate: Fate) -> &'static str {
    match fate {
        Fate::Plain => "in no transaction",
        Fate::Committed => "committed",
        Fate::Aborted => "aborted",
        Fate::Open => "open",
        Fate::Marker => "a marker",
    }
}

fn first(all: &[Observation], is: impl Fn(&Observation) -> bool) -> Option<&Observation> {
    all.iter().find(|seen| is(seen))
}
