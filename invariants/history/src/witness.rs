//! The one thing that proves a violation, in parts that machines can compare and people can read.
//!
//! A part that does not apply is absent. It names where to look (`place`), what it is about (`subject`, `key`, `window`),
//! what must be there (`expected`) and what is (`found`). Like a report's, its fields may grow: readers pass over those
//! that they do not know.

use std::fmt;

use serde::{Deserialize, Serialize};

/// ```
/// use streamproof_history::Witness;
///
/// let witness = Witness::offset("orders", 0, 812).about("client 2 operation 17").expected("its record").found("none");
/// assert_eq!(witness.to_string(), "orders-0 offset 812: client 2 operation 17; expected its record; found none");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Witness {
    /// What it is about, in the field's words: `client 2 operation 17`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// Where to look: `orders-0 offset 812`, `generation 2 window-0 seq 31`, `rows.jsonl line 4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Of the record or row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Of the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// What must be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

/// [start, end) in event time, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    pub start_ms: i64,
    pub end_ms: i64,
}

impl Witness {
    pub fn about(self, subject: impl fmt::Display) -> Witness {
        Witness { subject: subject.to_string(), ..self }
    }

    pub fn at(place: impl fmt::Display) -> Witness {
        Witness { place: Some(place.to_string()), ..Witness::default() }
    }

    /// At a partition, as a whole.
    pub fn partition(topic: &str, partition: i32) -> Witness {
        Witness::at(format_args!("{topic}-{partition}"))
    }

    /// At a record of a partition.
    pub fn offset(topic: &str, partition: i32, offset: i64) -> Witness {
        Witness::at(format_args!("{topic}-{partition} offset {offset}"))
    }

    /// At a decision of a job's task.
    pub fn decision(generation: u64, task: &str, seq: u64) -> Witness {
        Witness::at(format_args!("generation {generation} {task} seq {seq}"))
    }

    pub fn key(self, key: impl fmt::Display) -> Witness {
        Witness { key: Some(key.to_string()), ..self }
    }

    pub fn window(self, start_ms: i64, end_ms: i64) -> Witness {
        Witness { window: Some(Window { start_ms, end_ms }), ..self }
    }

    pub fn expected(self, expected: impl fmt::Display) -> Witness {
        Witness { expected: Some(expected.to_string()), ..self }
    }

    pub fn found(self, found: impl fmt::Display) -> Witness {
        Witness { found: Some(found.to_string()), ..self }
    }

    /// What it is about and where, without `expected` and `found`: one line.
    pub fn heading(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.place.clone());
        parts.extend(self.key.as_ref().map(|key| format!("key {key:?}")));
        parts.extend(self.window.map(|w| format!("window {w}")));
        let place = parts.join(", ");
        match (place.is_empty(), self.subject.is_empty()) {
            (_, true) => place,
            (true, false) => self.subject.clone(),
            (false, false) => format!("{place}: {}", self.subject),
        }
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Witness::default()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start_ms, self.end_ms)
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = vec![self.heading()];
        parts.extend(self.expected.as_ref().map(|expected| format!("expected {expected}")));
        parts.extend(self.found.as_ref().map(|found| format!("found {found}")));
        parts.retain(|part| !part.is_empty());
        f.write_str(&parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_the_parts_that_are_there() {
        let witness = Witness::at("out-0 offset 3").key("JFK").window(-10, 0).expected(5).found("none");
        let json = r#"{"place":"out-0 offset 3","key":"JFK","window":{"start_ms":-10,"end_ms":0},"expected":"5","found":"none"}"#;
        assert_eq!(serde_json::to_string(&witness).unwrap(), json);
        assert_eq!(serde_json::from_str::<Witness>(json).unwrap(), witness);
        // As reports of version 1 had it.
        let old = serde_json::from_str::<Witness>(r#"{"subject":"a row"}"#).unwrap();
        assert_eq!(old, Witness::default().about("a row"));
        assert_eq!(witness.to_string(), "out-0 offset 3, key \"JFK\", window [-10, 0); expected 5; found none");
        assert!(Witness::default().is_empty() && Witness::default().to_string().is_empty());
    }
}
