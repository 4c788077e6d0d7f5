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
pub mod line;
pub mod page;
pub mod scene;
pub mod seed_report;
pub mod shrunk;
pub mod signature;
pub mod story;
pub mod summary;

pub use explain::{Case, Explanation};
pub use job_phase::{JobPhase, JobPhases};
pub use line::{JSON_VERSION, LineType, json_line};
pub use page::{Picture, Scenery, Sweep, SweepBuilder};
pub use scene::Scene;
pub use seed_report::{ClusterStats, Failure, FaultCount, FaultStep, SeedReport, Stats, Verdict, Witness};
pub use shrunk::{Shrunk, Size};
pub use signature::Signature;
pub use summary::{ScenarioSummary, Summary, Totals};
