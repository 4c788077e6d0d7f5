//! What people and machines read of a run: text, and JSON with one object a line.
//!
//! Input is [`SeedReport`], the one thing that crosses the pipe from a worker process to its supervisor and is kept
//! in the results store. Rendering is pure: bytes out, no clock, no terminal; colour and progress bars belong to the
//! CLI. Running, judging and storing belong to `sim`.
//!
//! ```text
//! history::Outcome --(worker)--> SeedReport --(pipe)--> Totals --> Summary --> text | json
//!                                     \--> failure story (property, witness, fault steps, replay command)
//! ```

pub mod ci;
pub mod explain;
pub mod fault_text;
pub mod job_phase;
pub mod page;
pub mod scene;
pub mod seed_report;
pub mod shrunk;
pub mod signature;
pub mod story;
pub mod summary;

pub use explain::{Case, Explanation};
pub use job_phase::{JobPhase, JobPhases};
pub use page::{Picture, Scenery, Sweep, SweepBuilder};
pub use scene::Scene;
pub use seed_report::{ClusterStats, Failure, FaultCount, FaultStep, SeedReport, Stats, Verdict, Witness};
pub use shrunk::{Shrunk, Size};
pub use signature::Signature;
pub use summary::{ScenarioSummary, Summary, Totals};

/// Version of every JSON object this crate writes. It rises when a field changes its meaning or goes away; new
/// fields do not raise it. Version 2: a violation's witness is an object with place, key, window, expected and found.
pub const JSON_VERSION: u32 = 2;

/// A JSON object line: `{"version":1,"type":kind, …fields of value}`, without the line's end.
///
/// # Panics
/// If `value` does not serialise to a JSON object: every caller passes a struct.
pub fn json_line(kind: &str, value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).expect("reports serialise");
    let serde_json::Value::Object(fields) = value else { panic!("a JSON line of type {kind} is not an object") };
    let mut object = serde_json::Map::new();
    object.insert("version".into(), JSON_VERSION.into());
    object.insert("type".into(), kind.into());
    object.extend(fields.into_iter().filter(|(name, _)| name != "version"));
    serde_json::Value::Object(object).to_string()
}
