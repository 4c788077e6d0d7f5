//! Golden vectors: small cases whose answers were computed by hand from the semantics page (`tests/golden/*.json`).
//!
//! A vector fixes the interleaving: its steps happen one after another, each with all that follows from it, before the
//! next. So one answer is right, for the model ([`Vector::answer`]) and for any other implementation that plays the
//! steps; [`Vector::check`] compares.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::decision::{Change, Input, InputStatus};
use crate::record::decode;
use crate::replay::{Point, PointInput, Windows};
use crate::row::Row;
use crate::spec::{
    Accumulation, Delivery, Format, Function, JobSpec, Sink, Source, WatermarkSpec, WindowKind, WindowSpec,
};
use crate::time::Watermark;
use crate::window::Class;

/// Of the files.
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    pub version: u32,
    /// Rules of the semantics page that it is about.
    pub rules: Vec<String>,
    /// The computation by hand, in words.
    pub why: String,
    pub job: VectorJob,
    /// Splits of the source, all new at the start; one source task and one window task.
    pub splits: i32,
    pub steps: Vec<VectorStep>,
    /// Every row of the run, sorted as results are.
    rows: Vec<serde_json::Value>,
    /// (split, offset).
    late: Vec<(i32, i64)>,
    /// (split, offset, reason).
    dlq: Vec<(i32, i64, String)>,
}

/// What differs from windows of 10 ms without bound, lateness or offset, over fields k, t and v.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VectorJob {
    pub size_ms: i64,
    pub offset_ms: i64,
    pub allowed_lateness_ms: i64,
    pub out_of_orderness_ms: i64,
    pub functions: Vec<Function>,
    pub value: Option<String>,
    pub columns: Option<Vec<String>>,
}

impl Default for VectorJob {
    fn default() -> VectorJob {
        VectorJob {
            size_ms: 10,
            offset_ms: 0,
            allowed_lateness_ms: 0,
            out_of_orderness_ms: 0,
            functions: vec![Function::Count, Function::Sum],
            value: Some("v".into()),
            columns: None,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VectorStep {
    /// The next record of a split (offsets count from 0), waking it if it is idle, then the watermark that it causes.
    Record {
        split: i32,
        /// As JSON, or…
        #[serde(default)]
        value: Option<serde_json::Value>,
        /// …as it stands.
        #[serde(default)]
        raw: Option<String>,
    },
    /// The split becomes idle.
    Idle(i32),
    /// The split ends.
    End(i32),
    /// All state goes through a checkpoint.
    Restart,
    /// What must hold now: W of the window task, and how many rows there have been.
    Expect {
        watermark: Watermark,
        #[serde(default)]
        rows: Option<usize>,
    },
}

/// What an implementation made of the steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// JSON rows in the order of firing.
    pub rows: Vec<String>,
    /// (split, offset) in order.
    pub late: Vec<(i32, i64)>,
    /// (split, offset, reason) in order.
    pub dead: Vec<(i32, i64, String)>,
    /// At each Expect: W of the window task, rows so far.
    pub seen: Vec<(Watermark, usize)>,
}

impl VectorStep {
    /// A record's bytes.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            VectorStep::Record { value: Some(value), .. } => Some(value.to_string().into_bytes()),
            VectorStep::Record { raw: Some(raw), .. } => Some(raw.clone().into_bytes()),
            _ => None,
        }
    }
}

impl Vector {
    /// Reads a vector's file.
    pub fn parse(text: &str) -> Result<Vector, String> {
        let vector: Vector = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if vector.version == VERSION { Ok(vector) } else { Err(format!("version {}, not {VERSION}", vector.version)) }
    }

    pub fn job(&self) -> JobSpec {
        let job = self.job.clone();
        let format = if job.columns.is_some() { Format::Csv } else { Format::Json };
        JobSpec {
            name: "vector".into(),
            source: Source {
                topic: "in".into(),
                format,
                key: "k".into(),
                event_time: "t".into(),
                value: job.value,
                columns: job.columns,
            },
            watermark: WatermarkSpec { out_of_orderness_ms: job.out_of_orderness_ms, idle_after_ms: Some(1_000) },
            window: WindowSpec {
                kind: WindowKind::Tumbling { size_ms: job.size_ms, offset_ms: job.offset_ms },
                allowed_lateness_ms: job.allowed_lateness_ms,
                accumulation: Accumulation::Accumulating,
            },
            aggregate: job.functions,
            sink: Sink {
                topic: "out".into(),
                delivery: Delivery::ExactlyOnce,
                late_topic: "late".into(),
                dlq_topic: "dead".into(),
                decisions_topic: None,
            },
        }
    }

    /// The model's answer.
    pub fn answer(&self) -> Answer {
        let job = self.job();
        let inputs = (0..self.splits).map(|p| (Input::Split(p), PointInput::NEW)).collect();
        let channel = Input::Channel("source-0".into());
        let mut run = Run {
            source: Point::new(Watermark::MIN, inputs),
            task: Point::new(Watermark::MIN, BTreeMap::from([(channel.clone(), PointInput::NEW)])),
            windows: Windows::default(),
            highs: BTreeMap::new(),
            next: BTreeMap::new(),
            channel,
            answer: Answer::default(),
            job,
        };
        for step in &self.steps {
            run.step(step);
        }
        run.answer
    }

    /// Whether an answer is the one computed by hand.
    pub fn check(&self, answer: &Answer) -> Result<(), String> {
        let expected: Result<Vec<Row>, String> = self.rows.iter().map(|row| self.row(&row.to_string())).collect();
        let mut expected = expected?;
        let found: Result<Vec<Row>, String> = answer.rows.iter().map(|row| self.row(row)).collect();
        let mut found = found?;
        let order = |row: &Row| (row.key.clone(), row.window_start, row.window_end, row.pane);
        expected.sort_by_key(order);
        found.sort_by_key(order);
        differ("rows", &expected, &found)?;
        let mut late = answer.late.clone();
        late.sort_unstable();
        differ("late", &self.late, &late)?;
        differ("dead letters", &self.dlq, &answer.dead)?;
        let expects = self.steps.iter().enumerate().filter_map(|(i, step)| match step {
            VectorStep::Expect { watermark, rows } => Some((i, *watermark, *rows)),
            _ => None,
        });
        for ((i, watermark, rows), (seen, count)) in expects.zip(&answer.seen) {
            differ(&format!("W at step {i}"), &watermark, seen)?;
            differ(&format!("rows at step {i}"), &rows.unwrap_or(*count), count)?;
        }
        Ok(())
    }

    fn row(&self, text: &str) -> Result<Row, String> {
        Row::parse(text.as_bytes(), &self.job.functions).map_err(|e| format!("{e}: {text}"))
    }
}

fn differ<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{what}: expected {expected:#?}, found {found:#?}")) }
}

struct Run {
    job: JobSpec,
    source: Point,
    task: Point,
    windows: Windows,
    /// max T per split.
    highs: BTreeMap<i32, i64>,
    next: BTreeMap<i32, i64>,
    channel: Input,
    answer: Answer,
}

impl Run {
    fn step(&mut self, step: &VectorStep) {
        match step {
            VectorStep::Record { split, .. } => self.record(*split, step.bytes().as_deref()),
            VectorStep::Idle(split) => self.change(*split, Change::Idle),
            VectorStep::End(split) => self.change(*split, Change::End),
            // The model's state is its checkpoint.
            VectorStep::Restart => {}
            VectorStep::Expect { .. } => self.answer.seen.push((self.task.watermark, self.answer.rows.len())),
        }
    }

    fn record(&mut self, split: i32, bytes: Option<&[u8]>) {
        let next = self.next.entry(split).or_insert(0);
        let offset = *next;
        *next += 1;
        if self.source.inputs[&Input::Split(split)].status == InputStatus::Idle {
            self.change(split, Change::Active);
        }
        let event = match decode(&self.job.source, bytes) {
            Ok(event) => event,
            Err(reason) => {
                self.answer.dead.push((split, offset, reason.to_string()));
                return;
            }
        };
        let judged = self.windows.judge(&self.job, 1, (split, offset), &event, self.task.watermark);
        if judged.class == Class::Late {
            self.answer.late.push((split, offset));
        }
        self.answer.rows.extend(judged.fired.map(|row| row.to_string()));
        let high = self.highs.entry(split).or_insert(event.event_time);
        *high = (*high).max(event.event_time);
        let w = Watermark(*high - self.job.watermark.out_of_orderness_ms - 1);
        if w > self.source.inputs[&Input::Split(split)].watermark {
            self.change(split, Change::Watermark(w));
        }
    }

    fn change(&mut self, split: i32, change: Change) {
        for output in self.source.advance(&Input::Split(split), change).outputs {
            let before = self.task.watermark;
            self.task.advance(&self.channel, output);
            let rows = self.windows.advance(&self.job, before, self.task.watermark);
            self.answer.rows.extend(rows.iter().map(Row::to_string));
        }
    }
}
