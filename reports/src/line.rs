//! JSON lines: one object a line, each with the version of them all and the type that says which fields it has.
//!
//! `schema/lines.schema.json` beside this crate's sources says what each type holds, for whoever reads them; the tests hold
//! it to what the program writes.

use serde::Serialize;
use serde_json::{Map, Value};

/// Version of every JSON object this crate writes. It rises when a field changes its meaning or goes away; new
/// fields do not raise it. Version 2: a violation's witness is an object with place, key, window, expected and found.
/// Version 3: `regress run` has a type of its own, and `result` of a detection and `schedules` of a shrunk plan one shape.
pub const JSON_VERSION: u32 = 3;

macro_rules! line_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a line is. Each type has one shape.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum LineType {
            $($(#[$doc])* $variant,)*
        }

        impl LineType {
            pub const ALL: &[LineType] = &[$(LineType::$variant),*];

            /// Its field `type`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(LineType::$variant => $name,)*
                }
            }
        }
    };
}

// A macro, so that a type cannot be missing from `ALL`, which the schema is held to.
line_types! {
    /// Of `run` and `replay`.
    Seed = "seed",
    /// Of `run`, `replay` and `report --merge`.
    Failure = "failure",
    /// Of `run` and `report --merge`.
    Summary = "summary",
    /// Of `run --show-config`.
    Setting = "setting",
    /// These five of `list`.
    Scenario = "scenario",
    Invariant = "invariant",
    Fault = "fault",
    Bug = "bug",
    Sometimes = "sometimes",
    /// Of `shrink`.
    Shrunk = "shrunk",
    /// Of `explain`.
    Explanation = "explanation",
    /// Of `regress list`.
    Regression = "regression",
    /// Of `regress run`.
    RegressionRun = "regression_run",
    /// Of `regress prune`.
    Pruned = "pruned",
    /// Of `determinism`.
    Determinism = "determinism",
    /// Of `check`.
    Check = "check",
    /// Of `audit`.
    Detection = "detection",
    /// Of `audit --shrink`.
    Lesson = "lesson",
}

/// A JSON object line: `{"version":3,"type":kind, …fields of value}`, without the line's end.
///
/// # Panics
/// If `value` does not serialise to a JSON object: every caller passes a struct.
pub fn json_line(kind: LineType, value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).expect("reports serialise");
    let Value::Object(fields) = value else { panic!("a JSON line of type {} is not an object", kind.name()) };
    let mut object = Map::new();
    object.insert("version".into(), JSON_VERSION.into());
    object.insert("type".into(), kind.name().into());
    object.extend(fields.into_iter().filter(|(name, _)| name != "version"));
    Value::Object(object).to_string()
}
