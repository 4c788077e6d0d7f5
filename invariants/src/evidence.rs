//! What the processor's properties judge: a job, its committed input, what it published, and what it decided.
//!
//! Made from a history here, or by the command line from files or a live cluster's topics.

use std::borrow::Cow;
use std::collections::BTreeMap;

use history::{Blob, DecisionEntry, Header, OpId};
use models::JobSpec;
use models::record::{Event, Reason, decode};
use models::replay::{Replay, SplitLog, SplitLogs, SplitRecord, replay};

use models::row::{Row, RowError};

use crate::Context;
use crate::chain::{Chain, Marker};

/// Everything that a run of one job left.
#[derive(Debug, Clone)]
pub struct Evidence<'a> {
    pub job: JobSpec,
    /// Committed records of the source topic, by partition, in order of offset.
    pub(crate) input: BTreeMap<i32, Vec<SourceRecord>>,
    /// Committed records of the sink topic; fixed once made.
    rows: Vec<Published>,
    /// Committed records of the late topic; `None` if they are not at hand.
    pub late: Option<Vec<Published>>,
    /// Committed records of the dead-letter topic; `None` if they are not at hand.
    pub dead: Option<Vec<Published>>,
    /// `None`: a foreign engine, or a job that logs none.
    pub decisions: Option<Cow<'a, [DecisionEntry]>>,
    /// Records of the epochs topic with their transactions' fate; `None`: the barriers of the decisions, which a
    /// `read_committed` reader got, stand for them.
    pub markers: Option<Vec<Marker>>,
    /// The tasks that each attempt has; empty: those that opened in it.
    pub tasks: Vec<String>,
    /// Whether the input was closed and the job drained: every window must have fired.
    pub drained: bool,
    splits: SplitLogs,
    parsed: Vec<(Result<Row, RowError>, String)>,
}

/// A record of the source topic, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRecord {
    pub offset: i64,
    pub key: Option<Blob>,
    pub value: Option<Blob>,
    pub decoded: Result<Event, Reason>,
    /// The client operation that wrote it.
    pub op: Option<OpId>,
}

/// A record that the job published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where it is: "topic-partition offset", or a file's line.
    pub place: String,
    pub key: Option<Blob>,
    pub value: Option<Blob>,
    pub headers: Vec<Header>,
}

impl<'a> Evidence<'a> {
    /// Evidence with the input and output only; the other fields may be set afterwards.
    pub fn new(job: JobSpec, input: BTreeMap<i32, Vec<SourceRecord>>, rows: Vec<Published>) -> Evidence<'a> {
        let split = |records: &Vec<SourceRecord>| {
            SplitLog::new(
                records.iter().map(|r| SplitRecord { offset: r.offset, decoded: r.decoded.clone() }).collect(),
            )
        };
        let parse = |p: &Published| Row::parse(p.value.as_deref().unwrap_or_default(), &job.aggregate);
        let parsed = rows.iter().map(|p| (parse(p), p.place.clone())).collect();
        let splits = input.iter().map(|(p, records)| (*p, split(records))).collect();
        Evidence {
            job,
            input,
            rows,
            late: None,
            dead: None,
            decisions: None,
            markers: None,
            tasks: Vec::new(),
            drained: false,
            splits,
            parsed,
        }
    }

    pub(crate) fn from_history(context: &Context<'a>, job: &JobSpec) -> Result<Evidence<'a>, String> {
        let facts = &context.history.facts;
        let mut input = BTreeMap::new();
        for (partition, raw) in context.raw_topic(&job.source.topic) {
            if !raw.log.records.is_sorted_by(|a, b| a.offset < b.offset) {
                return Err(format!("the final read of {}-{partition} is not in order of offset", job.source.topic));
            }
            let visible = (0..raw.log.records.len()).filter(|i| raw.fates[*i].is_visible());
            let records = visible
                .map(|i| {
                    let r = &raw.log.records[i];
                    SourceRecord::decode(job, r.offset, r.key.clone(), r.value.clone(), raw.ops[i])
                })
                .collect();
            input.insert(partition, records);
        }
        if input.is_empty() {
            return Err(format!("no final read of the source topic {}", job.source.topic));
        }
        let published = |topic: &str| -> Result<Vec<Published>, String> {
            let mut all = Vec::new();
            let mut any = false;
            for (partition, raw) in context.raw_topic(topic) {
                any = true;
                for (record, _) in raw.log.records.iter().zip(&raw.fates).filter(|(_, fate)| fate.is_visible()) {
                    all.push(Published {
                        place: format!("{topic}-{partition} offset {}", record.offset),
                        key: record.key.clone(),
                        value: record.value.clone(),
                        headers: record.headers.clone(),
                    });
                }
            }
            if any { Ok(all) } else { Err(format!("no final read of topic {topic}")) }
        };
        let rows = published(&job.sink.topic)?;
        let mut evidence = Evidence::new(job.clone(), input, rows);
        evidence.late = Some(published(&job.sink.late_topic)?);
        evidence.dead = Some(published(&job.sink.dlq_topic)?);
        evidence.decisions = Some(Cow::Borrowed(&context.history.decisions));
        evidence.markers = Some(Marker::from_topic(context, &job.epochs_topic())?);
        evidence.tasks = facts.tasks.clone();
        evidence.drained = facts.drained;
        Ok(evidence)
    }

    pub(crate) fn chain(&self) -> Chain {
        let decisions = self.decisions.as_deref().unwrap_or_default();
        match &self.markers {
            Some(markers) => Chain::of_markers(markers, decisions, &self.tasks),
            None => Chain::of_barriers(decisions),
        }
    }

    pub(crate) fn replay(&self) -> Replay {
        let decisions = self.decisions.as_deref().unwrap_or_default();
        replay(&self.job, &self.splits, decisions, &self.chain().epochs)
    }

    /// The rows, each with its place.
    pub(crate) fn parsed_rows(&self) -> impl Iterator<Item = (&Result<Row, RowError>, &str)> {
        self.parsed.iter().map(|(row, place)| (row, place.as_str()))
    }

    pub(crate) fn rows(&self) -> &[Published] {
        &self.rows
    }

    pub(crate) fn splits(&self) -> &SplitLogs {
        &self.splits
    }

    pub(crate) fn source(&self, partition: i32, offset: i64) -> Option<&SourceRecord> {
        let records = self.input.get(&partition)?;
        records.binary_search_by_key(&offset, |r| r.offset).ok().map(|i| &records[i])
    }
}

impl SourceRecord {
    pub fn decode(
        job: &JobSpec,
        offset: i64,
        key: Option<Blob>,
        value: Option<Blob>,
        op: Option<OpId>,
    ) -> SourceRecord {
        let decoded = decode(&job.source, value.as_deref());
        SourceRecord { offset, key, value, decoded, op }
    }
}

impl Published {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|h| h.key == *name)?.value.as_ref()?.as_str()
    }

    /// (partition, offset) of the source record that a late or dead-letter record names.
    pub(crate) fn source(&self) -> Option<(i32, i64)> {
        Some((self.header("source.partition")?.parse().ok()?, self.header("source.offset")?.parse().ok()?))
    }
}
