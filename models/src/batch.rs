//! The batch answer: every valid record on time, one row a key and window (rule 11).

use std::collections::BTreeMap;

use crate::JobSpec;
use crate::fold::Fold;
use crate::record::Event;
use crate::row::{Row, RowKind, RowOp};
use crate::window::Window;

/// Rows by (key, window), sorted by key, window_start, window_end. `records` are (partition, offset, event) in any
/// order; partition and offset matter to `digest` only.
pub fn batch<'a>(job: &JobSpec, records: impl IntoIterator<Item = (i32, i64, &'a Event)>) -> Vec<Row> {
    let mut windows: BTreeMap<&'a str, BTreeMap<Window, Fold>> = BTreeMap::new();
    for (partition, offset, event) in records {
        let window = job.window.assign(event.event_time);
        windows.entry(&event.key).or_default().entry(window).or_default().add(partition, offset, event);
    }
    let mut rows = Vec::new();
    for (key, windows) in windows {
        for (window, fold) in windows {
            rows.push(Row {
                key: key.to_owned(),
                window_start: window.start,
                window_end: window.end,
                pane: 0,
                op: RowOp::Insert,
                kind: RowKind::OnTime,
                values: job.aggregate.iter().map(|f| (*f, fold.value(*f))).collect(),
            });
        }
    }
    rows
}
