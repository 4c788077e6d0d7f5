//! From a violation's witness to what it is about: a record, an operation, a window, a decision.
//!
//! A witness names its place in words that this crate also reads (`orders-0 offset 812`, `generation 2 window-0 seq 31`,
//! `record 17 of split 0`). What cannot be read leaves its part of the clue empty, and the story is shorter.

use history::{
    Decision, DecisionEntry, History, LogRecord, LogSource, OpId, OpKind, OpResult, PartitionLog, Violation,
};
use models::record::decode;

use super::judged::{judges, key_groups};

/// What a violation is about, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clue {
    /// The client operation that wrote the record.
    pub op: Option<OpId>,
    /// (topic, partition, offset) of the record, where it is or would be.
    pub record: Option<(String, i32, i64)>,
    /// The partition, if no single record is meant.
    pub partition: Option<(String, i32)>,
    /// (key, start, end).
    pub window: Option<(String, i64, i64)>,
    /// Index of the decision that is wrong.
    pub decision: Option<usize>,
    /// (topic, partition, offset) of what the record is a copy of.
    pub origin: Option<(String, i32, i64)>,
    /// The consumer group, and its generation.
    pub group: Option<String>,
    pub generation: Option<i32>,
    /// The workload's transaction.
    pub txn: Option<u64>,
    /// The id that holds the transaction at its coordinator.
    pub transactional_id: Option<String>,
    /// (producer id, epoch, offset) of the decision that the log of the transaction's coordinators had first.
    pub decided: Option<(i64, i16, i64)>,
}

impl Clue {
    pub fn of(history: &History, violation: Option<&Violation>) -> Clue {
        let Some(violation) = violation else { return Clue::default() };
        let witness = &violation.witness;
        let mut clue = Clue { op: violation.op, ..Clue::default() };
        let place = witness.place.as_deref().unwrap_or_default();
        if let Some((topic, partition, offset)) = record_of(place) {
            clue.partition = Some((topic.clone(), partition));
            clue.record = Some((topic, partition, offset));
        } else {
            clue.partition = partition_of(place);
        }
        clue.decision = decision_of(place).and_then(|(generation, task, seq)| {
            let is = |d: &DecisionEntry| d.generation == generation && d.task == task && d.seq == seq;
            history.decisions.iter().position(is)
        });
        clue.window = witness.key.clone().zip(witness.window).map(|(key, w)| (key, w.start_ms, w.end_ms));
        let source = history.facts.job.as_ref().map(|job| job.source.topic.clone());
        if let (Some((offset, split)), Some(source)) = (split_record(&witness.subject), &source) {
            clue.record = Some((source.clone(), split, offset));
        }
        // A place in the job's output is not the record that it is about.
        if let (Some((topic, ..)), Some(source)) = (&clue.record, &source)
            && topic != source
            && clue.window.is_some()
        {
            clue.record = None;
        }
        if let (None, Some(Decision::Judge { partition, offsets, .. }), Some(source)) =
            (&clue.record, clue.decision.map(|i| &history.decisions[i].decision), &source)
        {
            clue.record = Some((source.clone(), *partition, offsets[1]));
        }
        clue.op = clue.op.or_else(|| operation_of(history, &witness.subject));
        clue.transactional_id = place.strip_prefix("transactional id ").map(str::to_owned);
        clue.decided = witness.expected.as_deref().and_then(decided);
        clue.txn = witness.subject.strip_prefix("transaction ").and_then(number);
        if let Some((group, rest)) = place.strip_prefix("group ").and_then(|rest| rest.split_once(' ')) {
            clue.group = Some(group.to_owned());
            clue.generation = rest.strip_prefix("generation ").and_then(number);
            clue.partition = partition_of(rest).or_else(|| partition_of(&witness.subject));
        }
        clue.origin = record_of(&witness.subject);
        clue.join(history);
        if clue.record.is_none() && clue.op.is_none() {
            clue.suspect(history);
            clue.join(history);
        }
        clue.txn = clue.txn.or_else(|| match clue.op.map(|id| &history.ops[id.0].kind) {
            Some(OpKind::Produce { txn, .. }) => *txn,
            _ => None,
        });
        clue
    }

    /// The partitions that it is about.
    pub fn places(&self) -> Vec<(String, i32)> {
        let mut places: Vec<(String, i32)> = self.partition.iter().cloned().collect();
        let records = [&self.record, &self.origin];
        places.extend(records.into_iter().flatten().map(|(topic, partition, _)| (topic.clone(), *partition)));
        places.sort();
        places.dedup();
        places
    }

    /// Finds the record of the operation, or the operation of the record.
    fn join(&mut self, history: &History) {
        if let Some((topic, partition, offset)) = &self.record
            && self.op.is_none()
        {
            let found = history.log(&LogSource::ReadUncommitted, topic, *partition);
            let id = found.and_then(|log| at(log, *offset)).and_then(LogRecord::op);
            self.op = id.and_then(|id| history.ops.iter().position(|op| (op.client, op.n) == id)).map(OpId);
        }
        let Some(op) = self.op.map(|id| &history.ops[id.0]) else { return };
        if self.record.is_some() {
            return;
        }
        let OpKind::Produce { topic, partition, .. } = &op.kind else { return };
        self.partition.get_or_insert_with(|| (topic.clone(), *partition));
        let acked = match op.result {
            OpResult::Ok { offset } => offset,
            _ => None,
        };
        let logs = history.logs.iter().filter(|log| log.topic == *topic && log.partition == *partition);
        let written =
            || logs.flat_map(|log| &log.records).find(|r| r.op() == Some((op.client, op.n))).map(|r| r.offset);
        self.record = acked.or_else(written).map(|offset| (topic.clone(), *partition, offset));
    }

    /// Of a window only: the record in it that was judged otherwise than once, or else the last one.
    fn suspect(&mut self, history: &History) {
        let (Some((key, start, end)), Some(job)) = (&self.window, &history.facts.job) else { return };
        let groups = key_groups(history);
        let mut best = None;
        for log in history.logs_from(&LogSource::ReadUncommitted).filter(|log| log.topic == job.source.topic) {
            for record in log.records.iter().filter(|r| r.control.is_none()) {
                let Ok(event) = decode(&job.source, record.value.as_deref()) else { continue };
                if event.key != *key || event.event_time < *start || event.event_time >= *end {
                    continue;
                }
                let judged = |d: &&DecisionEntry| judges(&d.decision, log.partition, record.offset, key, groups);
                let odd = history.decisions.iter().filter(judged).count() != 1;
                let rank = (odd, event.event_time);
                if best.as_ref().is_none_or(|(was, _)| *was < rank) {
                    best = Some((rank, (log.topic.clone(), log.partition, record.offset)));
                }
            }
        }
        self.record = best.map(|(_, record)| record);
    }
}

/// The record at an offset.
pub fn at(log: &PartitionLog, offset: i64) -> Option<&LogRecord> {
    log.records.binary_search_by_key(&offset, |r| r.offset).ok().map(|i| &log.records[i])
}

/// `one decision of producer 0 epoch 2: PrepareAbort at 3`
fn decided(expected: &str) -> Option<(i64, i16, i64)> {
    let (producer, rest) = expected.strip_prefix("one decision of producer ")?.split_once(" epoch ")?;
    let (epoch, rest) = rest.split_once(": ")?;
    let (_, offset) = rest.rsplit_once(" at ")?;
    Some((producer.parse().ok()?, epoch.parse().ok()?, offset.parse().ok()?))
}

/// `orders-0 offset 812`.
pub(super) fn record_of(place: &str) -> Option<(String, i32, i64)> {
    let (partition, offset) = place.split_once(" offset ")?;
    let (topic, partition) = partition_of(partition)?;
    Some((topic, partition, number(offset)?))
}

/// `orders-0`.
fn partition_of(place: &str) -> Option<(String, i32)> {
    let (topic, partition) = place.rsplit_once('-')?;
    if topic.contains(' ') {
        return None;
    }
    Some((topic.to_owned(), partition.parse().ok()?))
}

/// `generation 2 window-0 seq 31`.
fn decision_of(place: &str) -> Option<(u64, &str, u64)> {
    let (generation, rest) = place.strip_prefix("generation ")?.split_once(' ')?;
    let (task, seq) = rest.split_once(" seq ")?;
    Some((generation.parse().ok()?, task, number(seq)?))
}

/// `record 17 of split 0`: (offset, split).
fn split_record(subject: &str) -> Option<(i64, i32)> {
    let (offset, split) = subject.strip_prefix("record ")?.split_once(" of split ")?;
    Some((offset.parse().ok()?, number(split)?))
}

/// `client 2 operation 17`.
fn operation_of(history: &History, subject: &str) -> Option<OpId> {
    let rest = &subject[subject.find("client ")? + "client ".len()..];
    let (client, n) = rest.split_once(" operation ")?;
    let id = (client.parse::<u32>().ok()?, number::<u64>(n)?);
    history.ops.iter().position(|op| (op.client, op.n) == id).map(OpId)
}

/// The number that a text begins with.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_witnesses_write_them() {
        assert_eq!(decided("one decision of producer 7 epoch 2: PrepareAbort at 3"), Some((7, 2, 3)));
        assert_eq!(record_of("my-orders-0 offset 812"), Some(("my-orders".into(), 0, 812)));
        assert_eq!(partition_of("orders-3"), Some(("orders".into(), 3)));
        assert_eq!(decision_of("generation 2 window-0 seq 31"), Some((2, "window-0", 31)));
        assert_eq!(split_record("record 17 of split 0"), Some((17, 0)));
        for nothing in ["", "rows.jsonl line 4", "generation 2", "orders", "the whole run-"] {
            assert_eq!(record_of(nothing), None, "{nothing}");
            assert_eq!(decision_of(nothing), None, "{nothing}");
            assert_eq!(split_record(nothing), None, "{nothing}");
        }
    }
}
