//! A result row and its JSON form, both ways.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::json::Json;
use crate::spec::Function;
use crate::time::MAX_EVENT_TIME;

/// One line of output. Its identity is (key, window_start, window_end, pane, op) (rule 15). Prints as the semantics
/// page shows it, aggregates in the order the job names them, integers beyond 2^53 as strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: String,
    pub window_start: i64,
    pub window_end: i64,
    pub pane: u64,
    pub op: RowOp,
    pub kind: RowKind,
    /// `None` prints as null.
    pub values: Vec<(Function, Option<i128>)>,
}

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

/// What fired the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// The watermark reached the window's closing point.
    OnTime,
    /// A behind record came to a closed window.
    Late,
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

impl RowKind {
    pub fn as_str(self) -> &'static str {
        match self {
            RowKind::OnTime => "on_time",
            RowKind::Late => "late",
        }
    }
}

/// Why a text is not a result row of the job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a result row: {0}")]
pub struct RowError(pub String);

impl Row {
    /// Reads a row. `pane`, `op` and `kind` may be absent (a foreign engine's): 0, `+I` and `on_time`. Other fields are
    /// ignored; each of `functions` must be there.
    pub fn parse(text: &[u8], functions: &[Function]) -> Result<Row, RowError> {
        let json = Json::parse(text).map_err(|e| RowError(e.to_string()))?;
        if !matches!(json, Json::Object(_)) {
            return Err(RowError("not a JSON object".into()));
        }
        let key = match json.get("key") {
            Some(Json::String(key)) => key.clone().into_owned(),
            _ => return Err(RowError("`key` is not a text".into())),
        };
        let bound = |name: &str| -> Result<i64, RowError> {
            let n = integer(json.get(name), name)?;
            n.and_then(|n| i64::try_from(n).ok()).ok_or_else(|| RowError(format!("`{name}` is not a time")))
        };
        let (window_start, window_end) = (bound("window_start")?, bound("window_end")?);
        let pane = match json.get("pane") {
            None => 0,
            some => integer(some, "pane")?
                .and_then(|n| u64::try_from(n).ok())
                .ok_or_else(|| RowError("`pane` is not a count".into()))?,
        };
        let op = match json.get("op") {
            None => RowOp::Insert,
            Some(Json::String(text)) => [RowOp::Insert, RowOp::Update, RowOp::Retract]
                .into_iter()
                .find(|op| op.as_str() == text)
                .ok_or_else(|| RowError(format!("`op` is {text:?}")))?,
            Some(_) => return Err(RowError("`op` is not a text".into())),
        };
        let kind = match json.get("kind") {
            None => RowKind::OnTime,
            Some(Json::String(text)) => [RowKind::OnTime, RowKind::Late]
                .into_iter()
                .find(|kind| kind.as_str() == text)
                .ok_or_else(|| RowError(format!("`kind` is {text:?}")))?,
            Some(_) => return Err(RowError("`kind` is not a text".into())),
        };
        let mut values = Vec::with_capacity(functions.len());
        for function in functions {
            let found =
                json.get(function.name()).ok_or_else(|| RowError(format!("`{}` is missing", function.name())))?;
            values.push((*function, integer(Some(found), function.name())?));
        }
        Ok(Row { key, window_start, window_end, pane, op, kind, values })
    }

    /// The values alone, in the job's order.
    pub fn plain_values(&self) -> Vec<Option<i128>> {
        self.values.iter().map(|(_, v)| *v).collect()
    }
}

/// A JSON integer, a string of digits, or null.
fn integer(json: Option<&Json<'_>>, name: &str) -> Result<Option<i128>, RowError> {
    let json = json.ok_or_else(|| RowError(format!("`{name}` is missing")))?;
    match (json, json.text()) {
        (Json::Null, _) => Ok(None),
        (_, Some(text)) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(RowError(format!("`{name}` is {text:?}, not an integer")));
            }
            text.parse().map(Some).map_err(|_| RowError(format!("`{name}` is out of range")))
        }
        (_, None) => Err(RowError(format!("`{name}` is not an integer"))),
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{{\"key\":{},\"window_start\":{},\"window_end\":{},\"pane\":{},\"op\":\"{}\",\"kind\":\"{}\"",
            serde_json::Value::from(self.key.as_str()),
            Number(i128::from(self.window_start)),
            Number(i128::from(self.window_end)),
            Number(i128::from(self.pane)),
            self.op.as_str(),
            self.kind.as_str()
        )?;
        for (function, value) in &self.values {
            match value {
                Some(value) => write!(f, ",\"{}\":{}", function.name(), Number(*value))?,
                None => write!(f, ",\"{}\":null", function.name())?,
            }
        }
        f.write_str("}")
    }
}

/// A JSON number within 2^53, a string beyond (rule 17).
struct Number(i128);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.unsigned_abs() <= MAX_EVENT_TIME.unsigned_abs().into() {
            write!(f, "{}", self.0)
        } else {
            write!(f, "\"{}\"", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_the_semantics_page_shows() {
        let text = r#"{"key":"JFK","window_start":1357034400000,"window_end":1357038000000,"pane":0,"op":"+I","kind":"on_time","count":6,"sum":41,"min":-7,"max":33}"#;
        let functions = [Function::Count, Function::Sum, Function::Min, Function::Max];
        assert_eq!(Row::parse(text.as_bytes(), &functions).unwrap().to_string(), text);
    }

    #[test]
    fn big_integers_are_strings() {
        let row = |sum| Row {
            key: "é\"".into(),
            window_start: -10,
            window_end: 0,
            pane: 1,
            op: RowOp::Update,
            kind: RowKind::Late,
            values: vec![(Function::Sum, sum)],
        };
        for (sum, printed) in [
            (Some(1 << 53), "9007199254740992"),
            (Some((1 << 53) + 1), "\"9007199254740993\""),
            (Some(-(1 << 53) - 1), "\"-9007199254740993\""),
            (None, "null"),
        ] {
            let text = row(sum).to_string();
            assert!(text.ends_with(&format!("\"sum\":{printed}}}")), "{text}");
            assert_eq!(Row::parse(text.as_bytes(), &[Function::Sum]).unwrap(), row(sum));
        }
    }

    #[test]
    fn foreign_rows_may_lack_pane_op_and_kind() {
        let row =
            Row::parse(br#"{"key":"","window_start":0,"window_end":"5","count":"3","x":1.5}"#, &[Function::Count]);
        assert_eq!(row.unwrap().values, [(Function::Count, Some(3))]);
        for bad in [
            "{}",
            "[]",
            r#"{"key":"a","window_start":0,"window_end":5}"#,
            r#"{"key":"a","window_start":0,"window_end":5,"count":3.0}"#,
        ] {
            assert!(Row::parse(bad.as_bytes(), &[Function::Count]).is_err(), "{bad}");
        }
    }
}
