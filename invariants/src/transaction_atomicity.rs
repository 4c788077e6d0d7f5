//! **transaction-atomicity.** A committed transaction shows all of its records, an aborted one none; one whose end is
//! unknown does one or the other.
//!
//! Source: KIP-98, KIP-890. Judged from the raw log's own markers.
//!
//! Not claimed: that a transaction ends at all (convergence); that `read_committed` agrees with the markers
//! (no-aborted-read); anything of consumer offsets in transactions.

use std::collections::BTreeMap;

use history::{OpId, OpKind, OpResult, Verdict, Witness};

use crate::{Context, Fate, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "transaction-atomicity",
    statement: "a transaction's records are visible all or none, as its end was told",
    source: "KIP-98, KIP-890",
    kind: Kind::Safety,
    check,
};

#[derive(Default)]
struct Txn<'a> {
    /// Ends asked for: (operation, commit).
    ends: Vec<(OpId, bool)>,
    /// Acknowledged records.
    acknowledged: Vec<OpId>,
    /// Each record in the logs.
    records: Vec<Placed<'a>>,
}

#[derive(Clone, Copy)]
struct Placed<'a> {
    fate: Fate,
    writer: Option<OpId>,
    topic: &'a str,
    partition: i32,
    offset: i64,
}

impl<'a> Txn<'a> {
    fn any(&self, fate: Fate) -> Option<Placed<'a>> {
        self.records.iter().find(|r| r.fate == fate).copied()
    }
}

impl Placed<'_> {
    fn witness(&self, txn: u64) -> Witness {
        Witness::offset(self.topic, self.partition, self.offset)
            .about(format_args!("transaction {txn}"))
            .found(format_args!("{:?}", self.fate))
    }
}

fn check(context: &Context<'_>) -> Verdict {
    let ops = &context.history.ops;
    let mut txns: BTreeMap<u64, Txn<'_>> = BTreeMap::new();
    for (i, op) in ops.iter().enumerate() {
        match &op.kind {
            OpKind::EndTxn { txn, commit } => txns.entry(*txn).or_default().ends.push((OpId(i), *commit)),
            OpKind::Produce { txn: Some(txn), topic, partition, .. } if op.is_ok() => {
                if !context.raw().contains_key(&(topic.as_str(), *partition)) {
                    return Verdict::unknown(format!("no final read of {topic}-{partition}"));
                }
                txns.entry(*txn).or_default().acknowledged.push(OpId(i));
            }
            _ => {}
        }
    }
    for ((topic, partition), raw) in context.raw() {
        for ((record, fate), writer) in raw.log.records.iter().zip(&raw.fates).zip(&raw.ops) {
            if let Some(txn) = record.op_txn() {
                let (fate, writer, offset) = (*fate, *writer, record.offset);
                let placed = Placed { fate, writer, topic, partition: *partition, offset };
                txns.entry(txn).or_default().records.push(placed);
            }
        }
    }
    let mut found = Violations::of(&PROPERTY);
    for (id, txn) in &txns {
        judge(context, &mut found, *id, txn);
    }
    found.verdict()
}

/// Its record may be gone: a later one has the key, or the log has given up what is that old.
fn may_be_gone(context: &Context<'_>, op: OpId) -> bool {
    let op = &context.history.ops[op.0];
    match (&op.kind, &op.result) {
        (OpKind::Produce { topic, partition, key, .. }, OpResult::Ok { offset: Some(offset) }) => {
            let raw = context.raw().get(&(topic.as_str(), *partition));
            raw.is_some_and(|raw| *offset < raw.log.log_start_offset)
                || context.compaction().may_lack(topic, *partition, *offset, key.as_ref(), None)
        }
        _ => false,
    }
}

fn judge(context: &Context<'_>, found: &mut Violations, id: u64, txn: &Txn<'_>) {
    let result = |op: OpId| &context.history.ops[op.0].result;
    let committed = txn.ends.iter().find(|(op, commit)| *commit && matches!(result(*op), OpResult::Ok { .. }));
    let aborted = txn.ends.iter().find(|(op, commit)| !commit && matches!(result(*op), OpResult::Ok { .. }));
    let may_commit = txn.ends.iter().any(|(op, commit)| *commit && !matches!(result(*op), OpResult::Failed { .. }));
    if let Some(plain) = txn.any(Fate::Plain) {
        let witness = plain.witness(id).expected("a record of a transaction");
        found.add(plain.writer, "a transaction's record is in no transaction", witness);
    }
    if let Some((end, _)) = committed {
        if let Some(hidden) = txn.any(Fate::Aborted).or(txn.any(Fate::Open)) {
            let witness = hidden.witness(id).expected(format_args!("Committed, as {} was told", context.name_of(*end)));
            found.add(hidden.writer.or(Some(*end)), "a committed transaction hides a record", witness);
        }
        let mut written: Vec<OpId> = txn.records.iter().filter_map(|r| r.writer).collect();
        written.sort_unstable();
        for op in txn.acknowledged.iter().filter(|op| written.binary_search(op).is_err() && !may_be_gone(context, **op))
        {
            let witness = Witness::default().about(format_args!("transaction {id}, {}", context.name_of(*op)));
            let witness = witness.expected("its acknowledged record").found("none");
            found.add(Some(*op), "a committed transaction lacks an acknowledged record", witness);
        }
    }
    if let Some((end, _)) = aborted
        && let Some(shown) = txn.any(Fate::Committed)
    {
        let witness = shown.witness(id).expected(format_args!("Aborted, as {} was told", context.name_of(*end)));
        found.add(shown.writer.or(Some(*end)), "an aborted transaction shows a record", witness);
    }
    if !may_commit && let Some(shown) = txn.any(Fate::Committed) {
        // The commit that is said to have failed, where there is one.
        let failed = txn.ends.iter().find(|(_, commit)| *commit).map(|(op, _)| *op);
        let expected = match failed {
            Some(end) => format!("not Committed, for {} failed", context.name_of(end)),
            None => "not Committed, for nobody asked for it".to_owned(),
        };
        let witness = shown.witness(id).expected(expected);
        found.add(failed.or(shown.writer), "a transaction that was never committed shows a record", witness);
    }
    if let (Some(visible), Some(hidden)) = (txn.any(Fate::Committed), txn.any(Fate::Aborted)) {
        let Placed { topic, partition, offset, .. } = visible;
        let witness = hidden.witness(id).expected(format_args!("Committed, as at {topic}-{partition} offset {offset}"));
        found.add(hidden.writer.or(visible.writer), "a transaction is visible in part", witness);
    }
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
        fixture::rejects(
            &PROPERTY,
            &[
                DROP_COMMITTED,
                SWAP_MARKERS,
                SHIFT_MARKER,
                UNACKNOWLEDGE_COMMIT,
                MISATTRIBUTE_TXN,
                FLIP_MARKER,
                LEAVE_TRANSACTION,
            ],
            &[(Mutator::Duplicate, "a record twice is visible all the same: no-duplicate's")],
        );
    }

    #[test]
    fn an_unknown_end_may_go_either_way_but_not_both() {
        let mut history = fixture::broker();
        for op in &mut history.ops {
            if matches!(op.kind, OpKind::EndTxn { .. }) {
                op.result = OpResult::Unknown { reason: None };
            }
        }
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }
}
