//! A result row, as it goes to the sink topic.

use std::fmt::Write as _;

use bytes::Bytes;

use super::{Accumulator, Window};
use crate::decision::Op;
use crate::job::Aggregate;

/// Why a row was emitted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// W reached the window's closing point.
    OnTime,
    /// A behind record was accepted.
    Late,
}

/// Its identity is (key, start, end, pane, op) (rule 15).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub key: Bytes,
    pub window: Window,
    pub pane: u32,
    pub op: Op,
    pub kind: Kind,
    pub content: Accumulator,
}

impl Row {
    /// The key as text: keys are decoded from text, so nothing is lost.
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(&self.key).into_owned()
    }

    /// One JSON object, without a line end.
    pub fn to_json(&self, functions: &[Aggregate]) -> String {
        let mut out = String::with_capacity(160);
        let key = serde_json::Value::from(self.key_text());
        let kind = match self.kind {
            Kind::OnTime => "on_time",
            Kind::Late => "late",
        };
        let (Window { start, end }, pane, op) = (self.window, self.pane, self.op.as_str());
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            r#"{{"key":{key},"window_start":{start},"window_end":{end},"pane":{pane},"op":"{op}","kind":"{kind}""#
        );
        self.content.print(functions, &mut out);
        out.push('}');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_of_the_reference() {
        let row = Row {
            key: Bytes::from_static(b"J\"FK"),
            window: Window { start: 1_357_034_400_000, end: 1_357_038_000_000 },
            pane: 0,
            op: Op::Insert,
            kind: Kind::OnTime,
            content: Accumulator::default(),
        };
        assert_eq!(
            row.to_json(&[Aggregate::Count, Aggregate::Sum]),
            r#"{"key":"J\"FK","window_start":1357034400000,"window_end":1357038000000,"pane":0,"op":"+I","kind":"on_time","count":0,"sum":null}"#
        );
    }
}
