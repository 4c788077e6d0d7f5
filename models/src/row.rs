//! A result row and its JSON form.

use serde::{Deserialize, Serialize};

/// What a row does to the result it names (rules 14, 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RowOp {
    /// Pane 0.
    #[serde(rename = "+I")]
    Insert,
    /// A later pane.
    #[serde(rename = "+U")]
    Update,
    /// Takes a row back.
    #[serde(rename = "-U")]
    Retract,
}

impl RowOp {
    pub fn as_str(self) -> &'static str {
        match self {
            RowOp::Insert => "+I",
            RowOp::Update => "+U",
            RowOp::Retract => "-U",
        }
    }
}
