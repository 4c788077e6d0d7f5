//! What the log of a compacted topic may lack: for each key the last committed record stays; what it supersedes, what was
//! aborted, and a marker that nothing needs any more may be gone, on one broker earlier than on another.
//!
//! Source: KIP-58, KIP-98 (control records), KIP-534; Kafka's documentation of log compaction.

use std::collections::{BTreeMap, BTreeSet};

use history::{Blob, History, LogRecord, OpKind, OpResult};

use crate::context::RawLog;

/// Of all topics that the facts name as compacted.
#[derive(Default)]
pub(crate) struct Compaction<'a> {
    /// The last committed record of each key in the raw final read.
    latest: BTreeMap<(&'a str, i32), BTreeMap<&'a Blob, i64>>,
    topics: BTreeSet<&'a str>,
    /// Transactions that were told to be committed.
    committed: BTreeSet<u64>,
}

impl<'a> Compaction<'a> {
    pub fn of(history: &'a History, raw: &BTreeMap<(&'a str, i32), RawLog<'a>>) -> Compaction<'a> {
        let topics: BTreeSet<&str> = history.facts.compacted.iter().map(String::as_str).collect();
        if topics.is_empty() {
            return Compaction::default();
        }
        let mut latest: BTreeMap<_, BTreeMap<&Blob, i64>> = BTreeMap::new();
        for (at, raw) in raw.iter().filter(|((topic, _), _)| topics.contains(topic)) {
            let keys = latest.entry(*at).or_default();
            for (record, _) in raw.log.records.iter().zip(&raw.fates).filter(|(_, fate)| fate.is_visible()) {
                if let Some(key) = &record.key {
                    keys.insert(key, record.offset);
                }
            }
        }
        let ends = history.ops.iter().filter_map(|op| match (&op.kind, &op.result) {
            (OpKind::EndTxn { txn, commit: true }, OpResult::Ok { .. }) => Some(*txn),
            _ => None,
        });
        Compaction { latest, topics, committed: ends.collect() }
    }

    pub fn is_compacted(&self, topic: &str) -> bool {
        self.topics.contains(topic)
    }

    /// Whether a record that was written there may be gone: the topic is compacted, and a later one with its key is
    /// committed, or its own transaction is not known to be.
    pub fn may_lack(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        key: Option<&Blob>,
        transaction: Option<u64>,
    ) -> bool {
        self.is_compacted(topic)
            && (transaction.is_some_and(|txn| !self.committed.contains(&txn))
                || key
                    .and_then(|key| self.latest.get(&(topic, partition))?.get(key))
                    .is_some_and(|latest| *latest > offset))
    }

    /// The same of a record that some log has.
    pub fn may_lack_record(&self, topic: &str, partition: i32, record: &LogRecord) -> bool {
        self.is_compacted(topic)
            && (record.control.is_some()
                || self.may_lack(topic, partition, record.offset, record.key.as_ref(), record.op_txn()))
    }
}

#[cfg(test)]
mod tests {
    use history::{History, LogSource, Verdict};

    use crate::{Context, Fate, fixture};

    /// The broker's history with one record fewer in every log, which may be gone or not.
    fn without(may_be_gone: bool, compacted: bool) -> Option<History> {
        let mut history = fixture::broker();
        if compacted {
            history.facts.compacted = history.logs.iter().map(|l| l.topic.clone()).collect();
        }
        let context = Context::new(&history);
        let (at, offset) = context.raw().iter().find_map(|(at, raw)| {
            let found = raw.log.records.iter().zip(&raw.fates).find(|(r, fate)| {
                let same = |other: &history::LogRecord| other.key == r.key && other.offset > r.offset;
                let later = raw.log.records.iter().zip(&raw.fates).any(|(o, fate)| fate.is_visible() && same(o));
                matches!(fate, Fate::Plain | Fate::Committed) && r.key.is_some() && later == may_be_gone
            });
            found.map(|(r, _)| ((at.0.to_owned(), at.1), r.offset))
        })?;
        for log in history.logs.iter_mut().filter(|l| (l.topic.clone(), l.partition) == at) {
            assert!(matches!(
                log.source,
                LogSource::Disk { .. } | LogSource::ReadUncommitted | LogSource::ReadCommitted
            ));
            log.records.retain(|r| r.offset != offset);
        }
        Some(history)
    }

    fn failed(history: &History) -> Vec<&'static str> {
        let all = crate::check_all(history);
        all.into_iter().filter(|(_, v)| matches!(v, Verdict::Fail(_))).map(|(p, _)| p.name).collect()
    }

    #[test]
    fn what_a_later_record_of_its_key_supersedes_may_be_gone() {
        let history = without(true, true).expect("the broker's history has a key twice");
        let judged =
            ["acked-durable", "producer-order", "read-equals-disk", "transaction-atomicity", "no-aborted-read"];
        let failed = failed(&history);
        assert!(!failed.iter().any(|name| judged.contains(name)), "{failed:?}");
    }

    #[test]
    fn the_last_record_of_a_key_must_be_there_and_so_must_all_if_the_topic_is_not_compacted() {
        for (may_be_gone, compacted) in [(false, true), (true, false)] {
            let history = without(may_be_gone, compacted).expect("a record");
            assert!(failed(&history).contains(&"acked-durable"));
        }
    }
}
