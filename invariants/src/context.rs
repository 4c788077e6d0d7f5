//! A history made ready for checks: operations by the ids that records carry, logs by partition, and the fate of every
//! transactional record, worked out from the log's own markers.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use history::{Control, History, LogRecord, LogSource, OpId, PartitionLog};
use models::replay::Replay;

use crate::anomalies::Analysis;
use crate::compaction::Compaction;
use crate::evidence::Evidence;

/// Shared by all checks of one history.
pub struct Context<'a> {
    pub history: &'a History,
    /// Sorted.
    ops: Vec<((u32, u64), OpId)>,
    raw: BTreeMap<(&'a str, i32), RawLog<'a>>,
    compaction: Compaction<'a>,
    analysis: OnceCell<Analysis<'a>>,
    evidence: OnceCell<Option<Result<(Evidence<'a>, Replay), String>>>,
}

/// A raw final read, with the fate of each of its records.
pub(crate) struct RawLog<'a> {
    pub log: &'a PartitionLog,
    pub fates: Vec<Fate>,
    /// The operation that wrote each.
    pub ops: Vec<Option<OpId>>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// In no transaction.
    Plain,
    Committed,
    Aborted,
    /// Its transaction has no marker.
    Open,
    /// A control record.
    Marker,
}

impl Fate {
    /// Whether `read_committed` shows it.
    pub fn is_visible(self) -> bool {
        matches!(self, Fate::Plain | Fate::Committed)
    }
}

impl<'a> Context<'a> {
    pub fn new(history: &'a History) -> Context<'a> {
        let mut ops: Vec<_> = history.ops.iter().enumerate().map(|(i, op)| ((op.client, op.n), OpId(i))).collect();
        ops.sort_unstable();
        let mut context = Context {
            history,
            ops,
            raw: BTreeMap::new(),
            compaction: Compaction::default(),
            analysis: OnceCell::new(),
            evidence: OnceCell::new(),
        };
        for log in history.logs_from(&LogSource::ReadUncommitted) {
            let ops = log.records.iter().map(|r| context.op_of(r)).collect();
            let raw = RawLog { log, fates: fates(&log.records), ops };
            context.raw.insert((&log.topic, log.partition), raw);
        }
        context.compaction = Compaction::of(history, &context.raw);
        context
    }

    /// The raw final read of a partition, with what became of each of its records.
    pub fn log(&self, topic: &str, partition: i32) -> Option<(&'a PartitionLog, &[Fate])> {
        let (_, raw) = self.raw.iter().find(|((t, p), _)| *t == topic && *p == partition)?;
        Some((raw.log, &raw.fates))
    }

    pub(crate) fn op(&self, client: u32, n: u64) -> Option<OpId> {
        self.ops.binary_search_by_key(&(client, n), |(id, _)| *id).ok().map(|i| self.ops[i].1)
    }

    /// Its client and number.
    pub(crate) fn id_of(&self, id: OpId) -> (u32, u64) {
        let op = &self.history.ops[id.0];
        (op.client, op.n)
    }

    /// Its client and number, for people.
    pub(crate) fn name_of(&self, id: OpId) -> String {
        let (client, n) = self.id_of(id);
        format!("client {client} operation {n}")
    }

    /// The operation that wrote a record.
    pub(crate) fn op_of(&self, record: &LogRecord) -> Option<OpId> {
        record.op().and_then(|(client, n)| self.op(client, n))
    }

    /// Raw final reads by topic and partition.
    pub(crate) fn raw(&self) -> &BTreeMap<(&'a str, i32), RawLog<'a>> {
        &self.raw
    }

    /// What compacted topics may lack.
    pub(crate) fn compaction(&self) -> &Compaction<'a> {
        &self.compaction
    }

    pub(crate) fn raw_topic(&self, topic: &str) -> impl Iterator<Item = (i32, &RawLog<'a>)> {
        self.raw.iter().filter(move |((t, _), _)| *t == topic).map(|((_, p), raw)| (*p, raw))
    }

    /// What the anomaly classes look at.
    pub(crate) fn analysis(&self) -> &Analysis<'a> {
        self.analysis.get_or_init(|| Analysis::new(self))
    }

    /// The job's evidence and its replay; `None` if no job ran, an error if the history lacks what it needs.
    pub(crate) fn evidence(&self) -> Option<Result<&(Evidence<'a>, Replay), &str>> {
        let made = self.evidence.get_or_init(|| {
            let job = self.history.facts.job.as_ref()?;
            Some(Evidence::from_history(self, job).map(|evidence| {
                let replay = evidence.replay();
                (evidence, replay)
            }))
        });
        made.as_ref().map(|made| made.as_ref().map_err(String::as_str))
    }
}

/// A producer's transactional records belong to the next marker of the same producer id.
fn fates(records: &[LogRecord]) -> Vec<Fate> {
    let mut fates = Vec::with_capacity(records.len());
    let mut open: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (i, record) in records.iter().enumerate() {
        match record.control {
            Some(control) => {
                let fate = match control {
                    Control::Commit => Some(Fate::Committed),
                    Control::Abort => Some(Fate::Aborted),
                    Control::Quorum => None,
                };
                if let Some(fate) = fate {
                    for earlier in open.remove(&record.producer_id).unwrap_or_default() {
                        fates[earlier] = fate;
                    }
                }
                fates.push(Fate::Marker);
            }
            None if record.transactional => {
                open.entry(record.producer_id).or_default().push(i);
                fates.push(Fate::Open);
            }
            None => fates.push(Fate::Plain),
        }
    }
    fates
}
