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

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"name = "departure-delays"

[source]
topic = "flights"
format = "json"
key = "origin"
event_time = "scheduled_ms"
value = "delay_min"

[watermark]
out_of_orderness = "2h"
idle_after = "30s"

[window]
type = "tumbling"
size = "1h"
offset = "15m"
allowed_lateness = "0s"
accumulation = "accumulating"

[aggregate]
functions = ["count", "sum", "min", "max"]

[sink]
topic = "delays-hourly"
late_topic = "flights-late"
dlq_topic = "flights-dlq"
decisions_topic = "flights-decisions"
"#;

    #[test]
    fn the_semantics_pages_job_reads_and_prints_back() {
        let job = JobSpec::parse(FULL, "job.toml").unwrap();
        assert_eq!(job.window.kind, WindowKind::Tumbling { size_ms: 3_600_000, offset_ms: 900_000 });
        assert_eq!(job.watermark, WatermarkSpec { out_of_orderness_ms: 7_200_000, idle_after_ms: Some(30_000) });
        assert_eq!(job.epochs_topic(), "departure-delays-epochs");
        assert_eq!(job.to_toml(), FULL);
        let json = serde_json::to_string(&job).unwrap();
        assert_eq!(serde_json::from_str::<JobSpec>(&json).unwrap(), job);
        let mut canary = job;
        canary.sink.delivery = Delivery::AtLeastOnce;
        canary.source.format = Format::Csv;
        canary.source.columns = Some(vec!["origin".into(), "scheduled_ms".into(), "delay_min".into()]);
        assert_eq!(JobSpec::parse(&canary.to_toml(), "job.toml").unwrap(), canary);
    }

    /// Each wrong file: what is replaced by what, and the first words of the refusal.
    #[test]
    fn refusals_name_the_line_and_the_remedy() {
        let cases: &[(&str, &str, &str)] = &[
            ("size = \"1h\"", "sizee = \"1h\"", "unknown key `sizee` in [window]"),
            ("name = ", "nmae = ", "unknown key `nmae` at the top"),
            ("key = \"origin\"\n", "", "missing `key` in [source]"),
            ("[watermark]\nout_of_orderness = \"2h\"\nidle_after = \"30s\"\n", "", "missing section [watermark]"),
            ("size = \"1h\"", "size = \"0s\"", "impossible window: its size"),
            ("size = \"1h\"", "size = 3600", "`size` has no unit"),
            ("size = \"1h\"", "size = \"one hour\"", "`size` is \"one hour\""),
            ("size = \"1h\"", "size = \"400000d\"", "`size` is 34560000000000 ms, not below 2^43"),
            ("size = \"1h\"", "size = \"-9223372036854775808ms\"", "`size` is -9223372036854775808 ms, not below"),
            ("offset = \"15m\"", "offset = \"75m\"", "impossible window: its offset"),
            ("allowed_lateness = \"0s\"", "allowed_lateness = \"-1s\"", "`allowed_lateness` is negative"),
            ("\"2h\"", "\"-2h\"", "`out_of_orderness` is negative"),
            ("\"30s\"", "\"0s\"", "`idle_after` is not positive"),
            ("\"tumbling\"", "\"tumblign\"", "unknown type \"tumblign\""),
            ("offset = \"15m\"", "slide = \"15m\"", "`slide` belongs to type = \"sliding\""),
            ("\"accumulating\"", "\"acumulating\"", "unknown accumulation"),
            ("\"json\"", "\"jsn\"", "unknown format \"jsn\""),
            ("\"json\"", "\"csv\"", "missing `columns` in [source]"),
            ("value = \"delay_min\"\n", "", "missing `value` in [source], which function \"sum\" reads"),
            ("[\"count\", ", "[\"cuont\", ", "unknown function \"cuont\""),
            ("[\"count\", ", "[\"sum\", ", "function \"sum\" is named twice"),
            ("[\"count\", \"sum\", \"min\", \"max\"]", "[]", "`functions` is empty"),
            ("\"delays-hourly\"", "\"delays hourly\"", "' ' cannot stand in a topic"),
            ("\"delays-hourly\"", "\"__consumer_offsets\"", "\"__consumer_offsets\" starts with"),
            ("\"delays-hourly\"", "\"flights\"", "`topic` is \"flights\", which is the source's topic already"),
            ("dlq_topic", "delivery = \"exactly_once\"\ndlq_topic", "unknown delivery \"exactly_once\""),
            ("name = \"departure-delays\"", "name = 7", "`name` is integer, not text"),
            ("[aggregate]", "[aggregate", "unclosed table"),
        ];
        let mut printed = String::new();
        for (from, to, begins) in cases {
            assert!(FULL.contains(from), "{from}");
            let e = JobSpec::parse(&FULL.replacen(from, to, 1), "job.toml").unwrap_err();
            assert_eq!(e.kind, ErrorKind::Invalid, "{e}");
            assert!(e.message.starts_with(begins), "{e}");
            printed.push_str(&format!("{e}\n"));
        }
        insta::assert_snapshot!("refusals", printed);
    }

    #[test]
    fn what_is_legal_but_not_built_says_so() {
        let cases: &[(&str, &str)] = &[
            ("\"tumbling\"", "\"session\""),
            ("\"tumbling\"", "\"sliding\""),
            ("\"tumbling\"", "\"cumulating\""),
            ("\"tumbling\"", "\"global\""),
            ("\"accumulating\"", "\"discarding\""),
            ("\"accumulating\"", "\"retracting\""),
            ("\"json\"", "\"avro\""),
            ("[\"count\", ", "[\"avg\", "),
            ("[\"count\", ", "[\"count_distinct\", "),
            ("idle_after", "max_drift = \"10m\"\nidle_after"),
            ("late_topic", "feature_store = \"redis://127.0.0.1:6379\"\nlate_topic"),
            ("late_topic", "lake = \"file:///var/lake\"\nlate_topic"),
            ("[aggregate]", "[[window.early]]\nevery = \"10s\"\n[aggregate]"),
        ];
        let mut printed = String::new();
        for (from, to) in cases {
            let e = JobSpec::parse(&FULL.replacen(from, to, 1), "job.toml").unwrap_err();
            assert_eq!(e.kind, ErrorKind::NotYetBuilt, "{e}");
            assert!(e.message.ends_with("is not yet built"), "{e}");
            printed.push_str(&format!("{e}\n"));
        }
        insta::assert_snapshot!("not_yet_built", printed);
    }
}
