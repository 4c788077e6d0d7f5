//! What the windows of one task hold, and when they fire (rules 12 to 16).

use std::collections::BTreeMap;

use crate::JobSpec;
use crate::fold::Fold;
use crate::partition::key_group;
use crate::record::Event;
use crate::row::{Row, RowKind, RowOp};
use crate::time::Watermark;
use crate::window::{Class, Window};

/// Open windows in rule 12's order of firing: (c, key group, key).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Windows {
    open: BTreeMap<Slot, Held>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    closing_point: i64,
    key_group: u32,
    key: String,
    start: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Held {
    fold: Fold,
    /// Rows emitted so far.
    panes: u64,
}

/// What became of a judged record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    pub class: Class,
    /// The row that it fired at once.
    pub fired: Option<Row>,
}

impl Windows {
    /// Judges a record at `w` and takes it in unless it is late.
    pub fn judge(&mut self, job: &JobSpec, groups: u32, place: (i32, i64), event: &Event, w: Watermark) -> Judged {
        let window = job.window.assign(event.event_time);
        let class = job.window.classify(event.event_time, window, w);
        if class == Class::Late {
            return Judged { class, fired: None };
        }
        let slot = Slot {
            closing_point: window.closing_point(),
            key_group: key_group(event.key.as_bytes(), groups),
            key: event.key.clone(),
            start: window.start,
        };
        let held = self.open.entry(slot).or_default();
        held.fold.add(place.0, place.1, event);
        let fired = window.closed_at(w).then(|| held.fire(job, &event.key, window, RowKind::Late));
        Judged { class, fired }
    }

    /// Moves the watermark from `from` to `to`: the rows that fire, in order. Windows that no record can change any more
    /// go.
    pub fn advance(&mut self, job: &JobSpec, from: Watermark, to: Watermark) -> Vec<Row> {
        if to <= from {
            return Vec::new();
        }
        let mut rows = Vec::new();
        for (slot, held) in self.open.iter_mut() {
            if slot.closing_point > to.ms() {
                break;
            }
            if slot.closing_point > from.ms() {
                let window = Window { start: slot.start, end: slot.closing_point + 1 };
                rows.push(held.fire(job, &slot.key, window, RowKind::OnTime));
            }
        }
        let lateness = job.window.allowed_lateness_ms;
        while let Some(first) = self.open.first_entry() {
            if first.key().closing_point + lateness > to.ms() {
                break;
            }
            first.remove();
        }
        rows
    }

    /// Windows with content that have not been purged.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl Held {
    /// The full content as the next pane (rule 14, accumulating).
    fn fire(&mut self, job: &JobSpec, key: &str, window: Window, kind: RowKind) -> Row {
        let pane = self.panes;
        self.panes += 1;
        Row {
            key: key.to_owned(),
            window_start: window.start,
            window_end: window.end,
            pane,
            op: if pane == 0 { RowOp::Insert } else { RowOp::Update },
            kind,
            values: job.aggregate.iter().map(|f| (*f, self.fold.value(*f))).collect(),
        }
    }
}
