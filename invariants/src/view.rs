//! A job's run laid open for people: each pane as it must be beside what is there, each record with its judgement.
//!
//! It judges nothing: what differs here is a violation of `window-exactly-once`, which says so.

use std::collections::BTreeMap;

use history::History;
use models::Watermark;
use models::replay::Committed;
use models::row::{Row, RowOp};
use models::window::Class;

use crate::Context;

/// Of a whole run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobView {
    /// By key, window and pane.
    pub panes: Vec<PaneView>,
    /// By partition and offset.
    pub records: Vec<JudgedView>,
    /// Epochs that committed, in order of n.
    pub committed: Vec<Committed>,
    /// The combined watermark of each task of each attempt after each decision that moved it.
    pub watermarks: Vec<WatermarkView>,
}

/// Of one task of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatermarkView {
    pub generation: u64,
    pub task: String,
    /// (index in `History::decisions`, watermark after it).
    pub steps: Vec<(usize, Watermark)>,
}

/// One row, as expected and as published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaneView {
    pub key: String,
    /// [start, end) in event time.
    pub start_ms: i64,
    pub end_ms: i64,
    pub pane: u64,
    pub op: RowOp,
    /// Its values; `None`: it does not follow from the input.
    pub expected: Option<String>,
    /// (values, place) of each row there is.
    pub found: Vec<(String, String)>,
}

/// One committed record of the source topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedView {
    pub partition: i32,
    pub offset: i64,
    /// `None`: it does not decode, and belongs in the dead-letter topic.
    pub event: Option<(String, i64)>,
    /// (class, epoch) if it was judged in a committed epoch.
    pub judged: Option<(Class, u64)>,
}

impl PaneView {
    /// Whether what is there is not what must be.
    pub fn differs(&self) -> bool {
        match (&self.expected, &self.found[..]) {
            (Some(expected), [(found, _)]) => expected != found,
            _ => true,
        }
    }
}

impl JobView {
    /// `None` if no job ran.
    ///
    /// # Errors
    /// What the history lacks, in a sentence.
    pub fn of(history: &History) -> Option<Result<JobView, String>> {
        let context = Context::new(history);
        let (evidence, replay) = match context.evidence()? {
            Ok(made) => (&made.0, &made.1),
            Err(reason) => return Some(Err(reason.to_owned())),
        };
        let mut panes: BTreeMap<Identity, PaneView> = BTreeMap::new();
        for row in &replay.rows {
            slot(&mut panes, row).expected = Some(values(row));
        }
        for (row, place) in evidence.parsed_rows() {
            if let Ok(row) = row {
                slot(&mut panes, row).found.push((values(row), place.to_owned()));
            }
        }
        let judged: BTreeMap<(i32, i64), (Class, u64)> =
            replay.judged.iter().map(|r| ((r.partition, r.offset), (r.class, r.n))).collect();
        let records = evidence.input.iter().flat_map(|(partition, records)| {
            records.iter().map(|record| JudgedView {
                partition: *partition,
                offset: record.offset,
                event: record.decoded.as_ref().ok().map(|event| (event.key.clone(), event.event_time)),
                judged: judged.get(&(*partition, record.offset)).copied(),
            })
        });
        let records = records.collect();
        let watermarks = replay.tasks.iter().map(|((generation, task), trace)| {
            let mut steps: Vec<(usize, Watermark)> = Vec::new();
            for (entry, point) in &trace.points {
                if steps.last().is_none_or(|(_, was)| *was != point.watermark) {
                    steps.push((*entry, point.watermark));
                }
            }
            WatermarkView { generation: *generation, task: task.clone(), steps }
        });
        let watermarks = watermarks.collect();
        Some(Ok(JobView {
            panes: panes.into_values().collect(),
            records,
            committed: evidence.chain().epochs,
            watermarks,
        }))
    }
}

/// Of a row (rule 15).
type Identity = (String, i64, i64, u64, RowOp);

fn slot<'a>(panes: &'a mut BTreeMap<Identity, PaneView>, row: &Row) -> &'a mut PaneView {
    let id = (row.key.clone(), row.window_start, row.window_end, row.pane, row.op);
    panes.entry(id).or_insert_with(|| PaneView {
        key: row.key.clone(),
        start_ms: row.window_start,
        end_ms: row.window_end,
        pane: row.pane,
        op: row.op,
        expected: None,
        found: Vec::new(),
    })
}

/// `count 3, sum 17`.
fn values(row: &Row) -> String {
    let value = |(function, value): &(models::spec::Function, Option<i128>)| match value {
        Some(value) => format!("{} {value}", function.name()),
        None => format!("{} null", function.name()),
    };
    row.values.iter().map(value).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, mutate};
    use crate::window_exactly_once;

    #[test]
    fn panes_differ_where_the_property_is_violated() {
        let good = fixture::job();
        let view = JobView::of(&good).unwrap().unwrap();
        assert!(view.panes.len() > 20 && view.panes.iter().all(|pane| !pane.differs()));
        assert!(view.records.iter().filter(|r| r.judged.is_some()).count() > 100 && !view.committed.is_empty());
        assert!(JobView::of(&fixture::broker()).is_none());
        let mut differing = 0;
        for mutation in mutate::ALL.iter().filter(|m| m.of == "output") {
            let (bad, _) = mutate::mutated(&good, *mutation);
            let Some(Ok(view)) = JobView::of(&bad) else { continue };
            let differs = view.panes.iter().any(PaneView::differs);
            let verdict = window_exactly_once::PROPERTY.check(&Context::new(&bad));
            assert!(!differs || !verdict.violations().is_empty(), "{mutation:?}");
            differing += usize::from(differs);
        }
        assert!(differing > 3, "{differing}");
    }
}
