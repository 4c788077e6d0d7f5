//! What the page shows in rows and dots: operations, records and watermarks in event time, windows.

use std::collections::BTreeMap;

use history::{Decision, History, OpKind, OpResult};
use invariants::JobView;
use models::window::Class;
use serde::Serialize;

use super::picture::Strings;
use crate::explain::judged::{judges, key_groups};
use crate::explain::{Case, Explanation, ms};

/// Dots of the event-time chart; more than these look the same.
const MAX_DOTS: usize = 60_000;

/// (client, n, what, partition, key, transaction or -1, invoked, completed or -1, result 0 ok 1 failed 2 unknown, answer,
/// whether the violation is about it). Texts by number, -1 for none.
pub type OpRow = (u32, u64, u32, i64, i64, i64, f64, f64, u8, u32, bool);

/// (judged at, event time, key, partition, offset, class 0 on time 1 behind 2 late 3 not committed).
pub type RecordDot = (f64, i64, u32, i32, i64, u8);

#[derive(Clone, Debug, Serialize)]
pub struct WatermarkLine {
    pub task: String,
    pub generation: u64,
    /// (time, watermark); a watermark of MIN or MAX is left out.
    pub points: Vec<(f64, i64)>,
}

#[derive(Clone, Debug, Serialize)]
pub struct PaneRow {
    pub key: String,
    pub start: i64,
    pub end: i64,
    pub pane: u64,
    pub op: &'static str,
    pub expected: Option<String>,
    /// (values, place).
    pub found: Vec<(String, String)>,
    pub differs: bool,
    /// When it was fired for the last time, and by whom.
    pub fired: Option<f64>,
}

pub(super) fn ops(case: &Case<'_>, told: Option<&Explanation>, strings: &mut Strings) -> Vec<OpRow> {
    let journey = told.and_then(|told| told.journey.as_ref()).map(|j| j.record.as_str()).unwrap_or_default();
    let row = |op: &history::Op| {
        let (what, partition, key, txn) = match &op.kind {
            OpKind::Produce { topic, partition, key, txn, .. } => {
                let key = key.as_ref().map(|key| key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned));
                ("produce".to_owned(), Some(format!("{topic}-{partition}")), key, *txn)
            }
            OpKind::EndTxn { txn, commit: true } => ("commit".into(), None, None, Some(*txn)),
            OpKind::EndTxn { txn, commit: false } => ("abort".into(), None, None, Some(*txn)),
            OpKind::Assign { partitions } => (format!("assign {} partitions", partitions.len()), None, None, None),
            OpKind::Subscribe { topics } => (format!("subscribe {}", topics.join(" ")), None, None, None),
            OpKind::Rebalance { assigned } => (format!("rebalance to {} partitions", assigned.len()), None, None, None),
            OpKind::Poll { txn, .. } => ("poll".into(), None, None, *txn),
            OpKind::CommitOffset { group, topic, partition, offset } => {
                (format!("commit offset {offset} of {group}"), Some(format!("{topic}-{partition}")), None, None)
            }
            OpKind::FetchOffset { group, topic, partition } => {
                (format!("fetch offset of {group}"), Some(format!("{topic}-{partition}")), None, None)
            }
            OpKind::Other { name } => (name.clone(), None, None, None),
        };
        let (result, answer) = match &op.result {
            OpResult::Ok { offset: Some(offset) } => (0, format!("offset {offset}")),
            OpResult::Ok { offset: None } => (0, "ok".to_owned()),
            OpResult::Polled { reads } => {
                (0, format!("{} records", reads.iter().map(|r| r.records.len()).sum::<usize>()))
            }
            OpResult::Failed { code } => (1, format!("failed: {code}")),
            OpResult::Unknown { reason } => (2, reason.clone().unwrap_or_else(|| "no answer".into())),
        };
        let name = format!("client {} operation {}", op.client, op.n);
        let guilty = journey == name || journey.ends_with(&format!(", {name}"));
        (
            op.client,
            op.n,
            strings.of(what),
            strings.maybe(partition),
            strings.maybe(key),
            txn.map_or(-1, |txn| txn as i64),
            ms(op.invoked_ns),
            op.completed_ns.map_or(-1.0, ms),
            result,
            strings.of(answer),
            guilty,
        )
    };
    case.history.ops.iter().map(row).collect()
}

pub(super) fn watermarks(history: &History, view: &JobView) -> Vec<WatermarkLine> {
    let line = |of: &invariants::WatermarkView| {
        let step = |(entry, w): &(usize, models::Watermark)| {
            let at = history.decisions.get(*entry)?.at_ns?;
            let finite = *w != models::Watermark::MIN && *w != models::Watermark::MAX;
            finite.then_some((ms(at), w.ms()))
        };
        let points = of.steps.iter().filter_map(step).collect();
        WatermarkLine { task: of.task.clone(), generation: of.generation, points }
    };
    view.watermarks.iter().map(line).filter(|line| !line.points.is_empty()).collect()
}

pub(super) fn records(history: &History, view: &JobView, strings: &mut Strings) -> Vec<RecordDot> {
    let by_place: BTreeMap<(i32, i64), &invariants::JudgedView> =
        view.records.iter().map(|r| ((r.partition, r.offset), r)).collect();
    let groups = key_groups(history);
    let is = |d: &Decision, record: &invariants::JudgedView| {
        let key = record.event.as_ref().map(|(key, _)| key.as_str()).unwrap_or_default();
        judges(d, record.partition, record.offset, key, groups)
    };
    // An earlier attempt's judgement does not count where a later one judged again.
    let mut last: BTreeMap<(i32, i64), u64> = BTreeMap::new();
    for entry in &history.decisions {
        let Decision::Judge { partition, offsets, .. } = entry.decision else { continue };
        let of = by_place.range((partition, offsets[0])..=(partition, offsets[1]));
        for (place, _) in of.filter(|(_, record)| is(&entry.decision, record)) {
            last.entry(*place).and_modify(|g| *g = entry.generation.max(*g)).or_insert(entry.generation);
        }
    }
    let mut dots = Vec::new();
    for entry in &history.decisions {
        let (Decision::Judge { partition, offsets, .. }, Some(at)) = (&entry.decision, entry.at_ns) else { continue };
        for (place, record) in by_place.range((*partition, offsets[0])..=(*partition, offsets[1])) {
            let Some((key, event_time)) = record.event.as_ref().filter(|_| is(&entry.decision, record)) else {
                continue;
            };
            if dots.len() == MAX_DOTS {
                return dots;
            }
            let class = match record.judged {
                Some(_) if last.get(place).is_some_and(|g| entry.generation < *g) => 3,
                Some((Class::OnTime, _)) => 0,
                Some((Class::Behind, _)) => 1,
                Some((Class::Late, _)) => 2,
                None => 3,
            };
            dots.push((ms(at), *event_time, strings.of(key.as_str()), record.partition, record.offset, class));
        }
    }
    dots
}

pub(super) fn panes(history: &History, view: &JobView) -> Vec<PaneRow> {
    let mut fired: BTreeMap<(&str, i64, i64, u64), f64> = BTreeMap::new();
    for entry in &history.decisions {
        if let (Decision::Fire { key, start, end, pane, .. }, Some(at)) = (&entry.decision, entry.at_ns) {
            fired.insert((key, *start, *end, *pane), ms(at));
        }
    }
    let row = |pane: &invariants::PaneView| PaneRow {
        key: pane.key.clone(),
        start: pane.start_ms,
        end: pane.end_ms,
        pane: pane.pane,
        op: pane.op.as_str(),
        expected: pane.expected.clone(),
        found: pane.found.clone(),
        differs: pane.differs(),
        fired: fired.get(&(pane.key.as_str(), pane.start_ms, pane.end_ms, pane.pane)).copied(),
    };
    view.panes.iter().map(row).collect()
}
