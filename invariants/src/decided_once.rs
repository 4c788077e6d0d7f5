//! **decided-once.** A transaction is decided once, whoever coordinates it: its log holds one decision for each epoch of a
//! producer, and no epoch after a later one.
//!
//! Source: KIP-98 (a transaction in PrepareCommit or PrepareAbort has its outcome) and KIP-890 (each has an epoch of its
//! own). A coordinator that takes an append of unknown outcome for one that failed decides a second time, and its clients
//! cannot see it: they repeat themselves, or they do not know how the transaction ended.
//! Judged from `__transaction_state` on each disk, as it lies there; compaction takes away what a later record of the id
//! supersedes, and makes no second decision of one.
//!
//! Not claimed: anything of clients from before KIP-890, whose transactions share an epoch; that a decision is carried out
//! (transactions-end, transaction-atomicity).

use std::collections::BTreeMap;

use history::{LogRecord, LogSource, PartitionLog, TransactionState, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "decided-once",
    statement: "each transaction has one decision in the log of its coordinators",
    source: "KIP-98, KIP-890",
    kind: Kind::Safety,
    check,
};

/// The topic of transaction coordinators.
const TOPIC: &str = "__transaction_state";

fn check(context: &Context<'_>) -> Verdict {
    let mut found = Violations::of(&PROPERTY);
    for log in &context.history.logs {
        if let LogSource::Disk { node } = log.source
            && log.topic == TOPIC
        {
            judge(node, log, &mut found);
        }
    }
    found.verdict()
}

fn judge(node: u32, log: &PartitionLog, found: &mut Violations) {
    let mut newest: BTreeMap<(String, i64), (i16, i64)> = BTreeMap::new();
    let mut decisions: BTreeMap<(String, i64, i16), (TransactionState, i64)> = BTreeMap::new();
    for record in log.records.iter().filter(|r| r.control.is_none()) {
        let (Some(key), Some(value)) = (&record.key, &record.value) else { continue };
        let Some((id, entry)) = key_of(key).zip(value_of(value)) else {
            let witness = Witness::offset(TOPIC, log.partition, record.offset)
                .about(format_args!("the disk of broker {node}"))
                .expected("a TransactionLogKey and a TransactionLogValue")
                .found(format_args!("{key:?}: {value:?}"));
            found.add(None, "the transaction log has a record that is none", witness);
            continue;
        };
        let at = || {
            Witness::at(format_args!("transactional id {id}"))
                .about(format_args!("{TOPIC}-{} on the disk of broker {node}", log.partition))
        };
        let Entry { producer, epoch, state } = entry;
        let last = newest.entry((id.clone(), producer)).or_insert((epoch, record.offset));
        if epoch < last.0 {
            let witness = at()
                .expected(format_args!("producer {producer} in epoch {} or later, as at offset {}", last.0, last.1))
                .found(format_args!("epoch {epoch} at {}", place(record, state)));
            found.add(None, "the transaction log goes back to an earlier epoch", witness);
        }
        *last = (*last).max((epoch, record.offset));
        if !is_decision(state) {
            continue;
        }
        match decisions.get(&(id.clone(), producer, epoch)) {
            None => {
                decisions.insert((id.clone(), producer, epoch), (state, record.offset));
            }
            Some((first, offset)) => {
                let witness = at()
                    .expected(format_args!("one decision of producer {producer} epoch {epoch}: {first:?} at {offset}"))
                    .found(format_args!("another at {}", place(record, state)));
                found.add(None, "a transaction is decided twice", witness);
            }
        }
    }
}

fn place(record: &LogRecord, state: TransactionState) -> String {
    format!("offset {}, {state:?}, leader epoch {}", record.offset, record.leader_epoch)
}

/// The begin of a TransactionLogValue: what all of its versions have.
struct Entry {
    producer: i64,
    epoch: i16,
    state: TransactionState,
}

fn is_decision(state: TransactionState) -> bool {
    matches!(state, TransactionState::PrepareCommit | TransactionState::PrepareAbort)
}

/// TransactionLogKey: version, transactional id.
fn key_of(bytes: &[u8]) -> Option<String> {
    let (version, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let id = std::str::from_utf8(rest).ok()?;
    let whole = i16::from_be_bytes(*version) == 0 && usize::try_from(i16::from_be_bytes(*length)) == Ok(id.len());
    whole.then(|| id.to_owned())
}

/// TransactionLogValue: version, producer id, producer epoch, time-out, state by its number.
fn value_of(bytes: &[u8]) -> Option<Entry> {
    let (version, rest) = bytes.split_first_chunk()?;
    let (producer, rest) = rest.split_first_chunk()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let (_timeout_ms, rest) = rest.split_first_chunk::<4>()?;
    let state = match rest.first()? {
        0 => TransactionState::Empty,
        1 => TransactionState::Ongoing,
        2 => TransactionState::PrepareCommit,
        3 => TransactionState::PrepareAbort,
        4 => TransactionState::CompleteCommit,
        5 => TransactionState::CompleteAbort,
        6 => TransactionState::Dead,
        _ => return None,
    };
    let known = (0..=1).contains(&i16::from_be_bytes(*version));
    let (producer, epoch) = (i64::from_be_bytes(*producer), i16::from_be_bytes(*epoch));
    known.then_some(Entry { producer, epoch, state })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::mutate::*;
    use crate::fixture::{self, Mutator};

    #[test]
    fn accepts_good_histories() {
        fixture::accepts(&PROPERTY);
    }

    #[test]
    fn rejects_what_breaks_it() {
        fixture::rejects_cluster(
            &PROPERTY,
            &[TXN_DECIDES_TWICE, TXN_DECISIONS_SWAP, TXN_LOG_SHIFTS_EPOCH, TXN_DECISION_MISATTRIBUTES, TXN_LOG_GARBLES],
            &[
                (Mutator::Drop, "compaction takes what a later record of the id supersedes"),
                (Mutator::Unacknowledge, "a decision is its coordinator's, whatever the client heard"),
            ],
        );
    }
}
