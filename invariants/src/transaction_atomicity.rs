//! **transaction-atomicity.** A committed transaction shows all of its records, an aborted one none; one whose end is
//! unknown does one or the other.
//!
//! Source: KIP-98, KIP-890. Judged from the raw log's own markers.
//!
//! Not claimed: that a transaction ends at all (convergence); that `read_committed` agrees with the markers
//! (no-aborted-read); anything of consumer offsets in transactions.

use std::collections::BTreeMap;

use history::{OpId, OpKind, OpResult, Verdict};

use crate::{Context, Fate, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "transaction-atomicity",
    statement: "a transaction's records are visible all or none, as its end was told",
    source: "KIP-98, KIP-890",
    kind: Kind::Safety,
    check,
};

#[derive(Default)]
struct Txn {
    /// Ends asked for: (operation, commit).
    ends: Vec<(OpId, bool)>,
    /// Acknowledged records.
    acknowledged: Vec<OpId>,
    /// (fate, writer, place) of each record in the logs.
    records: Vec<(Fate, Option<OpId>, String)>,
}

impl Txn {
    fn any(&self, fate: Fate) -> Option<&(Fate, Option<OpId>, String)> {
        self.records.iter().find(|(f, ..)| *f == fate)
    }
}

fn check(context: &Context<'_>) -> Verdict {
    let ops = &context.history.ops;
    let mut txns: BTreeMap<u64, Txn> = BTreeMap::new();
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
        for (record, fate) in raw.log.records.iter().zip(&raw.fates) {
            if let Some(txn) = record.op_txn() {
                let place = format!("{topic}-{partition} offset {}", record.offset);
                txns.entry(txn).or_default().records.push((*fate, context.op_of(record), place));
            }
        }
    }
    let mut found = Violations::of(&PROPERTY);
    for (id, txn) in &txns {
        judge(context, &mut found, *id, txn);
    }
    found.verdict()
}

fn judge(context: &Context<'_>, found: &mut Violations, id: u64, txn: &Txn) {
    let result = |op: OpId| &context.history.ops[op.0].result;
    let committed = txn.ends.iter().find(|(op, commit)| *commit && matches!(result(*op), OpResult::Ok { .. }));
    let aborted = txn.ends.iter().find(|(op, commit)| !commit && matches!(result(*op), OpResult::Ok { .. }));
    let may_commit = txn.ends.iter().any(|(op, commit)| *commit && !matches!(result(*op), OpResult::Failed { .. }));
    let shown = |record: &(Fate, Option<OpId>, String)| format!("transaction {id}, {}: {:?}", record.2, record.0);
    if let Some((fate, op, place)) = txn.any(Fate::Plain) {
        let witness = format!("transaction {id}, {place}: {fate:?}");
        found.add(*op, "a transaction's record is in no transaction", witness);
    }
    if let Some((end, _)) = committed {
        if let Some(record) = txn.any(Fate::Aborted).or(txn.any(Fate::Open)) {
            found.add(record.1.or(Some(*end)), "a committed transaction hides a record", shown(record));
        }
        for op in &txn.acknowledged {
            if !txn.records.iter().any(|(_, writer, _)| *writer == Some(*op)) {
                let witness = format!("transaction {id}, operation {}", context.history.ops[op.0].n);
                found.add(Some(*op), "a committed transaction lacks an acknowledged record", witness);
            }
        }
    }
    if let Some((end, _)) = aborted
        && let Some(record) = txn.any(Fate::Committed)
    {
        found.add(record.1.or(Some(*end)), "an aborted transaction shows a record", shown(record));
    }
    if !may_commit && let Some(record) = txn.any(Fate::Committed) {
        found.add(record.1, "a transaction that was never committed shows a record", shown(record));
    }
    if let (Some(visible), Some(hidden)) = (txn.any(Fate::Committed), txn.any(Fate::Aborted)) {
        let witness = format!("transaction {id}: {} committed, {} aborted", visible.2, hidden.2);
        found.add(hidden.1.or(visible.1), "a transaction is visible in part", witness);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, Mutation};

    #[test]
    fn accepts_good_histories() {
        fixture::accepts(&PROPERTY);
    }

    #[test]
    fn rejects_what_breaks_it() {
        fixture::rejects(
            &PROPERTY,
            &[Mutation::DropCommitted, Mutation::FlipMarker, Mutation::LeaveTransaction, Mutation::MisattributeTxn],
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
