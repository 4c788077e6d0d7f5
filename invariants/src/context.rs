//! A history made ready for checks: operations by the ids that records carry, logs by partition, and the fate of every
//! transactional record, worked out from the log's own markers.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use history::{Control, History, LogRecord, LogSource, OpId, PartitionLog};
use models::replay::Replay;

use crate::evidence::Evidence;

/// Shared by all checks of one history.
pub struct Context<'a> {
    pub history: &'a History,
    ops: BTreeMap<(u32, u64), OpId>,
    raw: BTreeMap<(&'a str, i32), RawLog<'a>>,
    evidence: OnceCell<Option<Result<(Evidence, Replay), String>>>,
}

/// A raw final read, with the fate of each of its records.
pub(crate) struct RawLog<'a> {
    pub log: &'a PartitionLog,
    pub fates: Vec<Fate>,
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
        let ops = history.ops.iter().enumerate().map(|(i, op)| ((op.client, op.n), OpId(i))).collect();
        let raw = history
            .logs_from(&LogSource::ReadUncommitted)
            .map(|log| ((log.topic.as_str(), log.partition), RawLog { log, fates: fates(&log.records) }))
            .collect();
        Context { history, ops, raw, evidence: OnceCell::new() }
    }

    pub(crate) fn op(&self, client: u32, n: u64) -> Option<OpId> {
        self.ops.get(&(client, n)).copied()
    }

    /// The operation that wrote a record.
    pub(crate) fn op_of(&self, record: &LogRecord) -> Option<OpId> {
        record.op().and_then(|(client, n)| self.op(client, n))
    }

    /// Raw final reads by topic and partition.
    pub(crate) fn raw(&self) -> &BTreeMap<(&'a str, i32), RawLog<'a>> {
        &self.raw
    }

    pub(crate) fn raw_topic(&self, topic: &str) -> impl Iterator<Item = (i32, &RawLog<'a>)> {
        self.raw.iter().filter(move |((t, _), _)| *t == topic).map(|((_, p), raw)| (*p, raw))
    }

    /// The job's evidence and its replay; `None` if no job ran, an error if the history lacks what it needs.
    pub(crate) fn evidence(&self) -> Option<Result<&(Evidence, Replay), &str>> {
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
                    Control::Commit => Fate::Committed,
                    Control::Abort => Fate::Aborted,
                };
                for earlier in open.remove(&record.producer_id).unwrap_or_default() {
                    fates[earlier] = fate;
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
