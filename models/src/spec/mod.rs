//! The job: one TOML file, the same for the simulation, the real run, the batch answer and the verification.
//!
//! [`JobSpec::parse`] is the only reader of job files. It refuses what is wrong with the line and what to write instead
//! ([`SpecError`]), and tells what is wrong ([`ErrorKind::Invalid`]) from what is legal but not built yet
//! ([`ErrorKind::NotYetBuilt`]). Durations are milliseconds here; ranges are those of rule 1.

mod error;
mod parse;

pub use error::{ErrorKind, SpecError};
use serde::{Deserialize, Serialize};

use crate::time::print_duration;

/// A validated job. Build one from a file with [`JobSpec::parse`]; one built by hand is checked by printing it with
/// [`JobSpec::to_toml`] and parsing that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Names the job, its transactional ids and its epochs topic; legal in a Kafka topic name.
    pub name: String,
    pub source: Source,
    pub watermark: WatermarkSpec,
    pub window: WindowSpec,
    pub aggregate: Vec<Function>,
    pub sink: Sink,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub topic: String,
    pub format: Format,
    /// Field of the partitioning and grouping key.
    pub key: String,
    /// Field of the event time: integer milliseconds or RFC 3339 text.
    pub event_time: String,
    /// Integer field that sum, min and max read; `None` when only count and digest are asked.
    pub value: Option<String>,
    /// The names of a CSV record's fields, in order; present exactly when the format is CSV, whose records carry no
    /// header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Json,
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatermarkSpec {
    /// b of rule 2, at least 0.
    pub out_of_orderness_ms: i64,
    /// Rule 5; `None`: a split never becomes idle.
    pub idle_after_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    pub kind: WindowKind,
    /// L, at least 0.
    pub allowed_lateness_ms: i64,
    pub accumulation: Accumulation,
}

/// Rule 9. Other kinds of the job file are refused as not yet built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum WindowKind {
    /// s = T - floor_mod(T - offset, size).
    Tumbling { size_ms: i64, offset_ms: i64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accumulation {
    Accumulating,
}

/// Rule 17. A result row prints them in the order the job names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    Count,
    Sum,
    Min,
    Max,
    Digest,
}

impl Function {
    pub const ALL: [Function; 5] = [Function::Count, Function::Sum, Function::Min, Function::Max, Function::Digest];

    /// Its name in the job file and in a result row.
    pub fn name(self) -> &'static str {
        match self {
            Function::Count => "count",
            Function::Sum => "sum",
            Function::Min => "min",
            Function::Max => "max",
            Function::Digest => "digest",
        }
    }

    /// Whether it reads the value field.
    pub fn needs_value(self) -> bool {
        matches!(self, Function::Sum | Function::Min | Function::Max)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    pub topic: String,
    #[serde(default)]
    pub delivery: Delivery,
    pub late_topic: String,
    pub dlq_topic: String,
    pub decisions_topic: Option<String>,
}

/// `[sink] delivery`. The job file's default is exactly-once: rows, late and dead-letter records and decisions are
/// written in the sink transaction of their epoch. At-least-once writes them in no transaction, as they come, so that a
/// restart from a checkpoint may write a row twice: it is the weak configuration that a canary runs, and the window
/// property does not hold for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    #[default]
    ExactlyOnce,
    AtLeastOnce,
}

impl JobSpec {
    /// Reads a job file. `file` only names it in errors.
    pub fn parse(text: &str, file: &str) -> Result<JobSpec, SpecError> {
        parse::parse(text, file)
    }

    /// The topic of epoch markers (rule 22).
    pub fn epochs_topic(&self) -> String {
        format!("{}-epochs", self.name)
    }

    /// A job file that parses to this job.
    pub fn to_toml(&self) -> String {
        use std::fmt::Write;
        let q = |s: &str| toml::Value::String(s.to_owned()).to_string();
        let mut out = format!("name = {}\n", q(&self.name));
        let s = &self.source;
        let format = match s.format {
            Format::Json => "json",
            Format::Csv => "csv",
        };
        let _ = write!(
            out,
            "\n[source]\ntopic = {}\nformat = \"{format}\"\nkey = {}\nevent_time = {}\n",
            q(&s.topic),
            q(&s.key),
            q(&s.event_time)
        );
        if let Some(value) = &s.value {
            let _ = writeln!(out, "value = {}", q(value));
        }
        if let Some(columns) = &s.columns {
            let names: Vec<String> = columns.iter().map(|c| q(c)).collect();
            let _ = writeln!(out, "columns = [{}]", names.join(", "));
        }
        let w = &self.watermark;
        let _ = writeln!(out, "\n[watermark]\nout_of_orderness = \"{}\"", print_duration(w.out_of_orderness_ms));
        if let Some(idle) = w.idle_after_ms {
            let _ = writeln!(out, "idle_after = \"{}\"", print_duration(idle));
        }
        let WindowKind::Tumbling { size_ms, offset_ms } = self.window.kind;
        let _ = writeln!(out, "\n[window]\ntype = \"tumbling\"\nsize = \"{}\"", print_duration(size_ms));
        if offset_ms != 0 {
            let _ = writeln!(out, "offset = \"{}\"", print_duration(offset_ms));
        }
        let _ = writeln!(out, "allowed_lateness = \"{}\"", print_duration(self.window.allowed_lateness_ms));
        let Accumulation::Accumulating = self.window.accumulation;
        let _ = writeln!(out, "accumulation = \"accumulating\"");
        let functions: Vec<String> = self.aggregate.iter().map(|f| q(f.name())).collect();
        let _ = writeln!(out, "\n[aggregate]\nfunctions = [{}]", functions.join(", "));
        let k = &self.sink;
        let _ = writeln!(out, "\n[sink]\ntopic = {}", q(&k.topic));
        if k.delivery == Delivery::AtLeastOnce {
            let _ = writeln!(out, "delivery = \"at-least-once\"");
        }
        let _ = writeln!(out, "late_topic = {}\ndlq_topic = {}", q(&k.late_topic), q(&k.dlq_topic));
        if let Some(decisions) = &k.decisions_topic {
            let _ = writeln!(out, "decisions_topic = {}", q(decisions));
        }
        out
    }
}
