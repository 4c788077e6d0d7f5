//! **producer-order.** A partition holds a producer's records in the order in which it sent them, and the sequence
//! numbers of each of its epochs start at 0 and rise by one.
//!
//! Source: rule 21, KIP-98. One producer at a time writes for a client; a client that starts another producer (another
//! producer id) may have late bytes of the old one land between.
//!
//! Not claimed: order between partitions, between clients or between producer ids; sequences where the log's start has
//! moved.

use std::collections::BTreeMap;

use history::{OpId, OpKind, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "producer-order",
    statement: "a partition holds a producer's records in sending order, its sequence numbers without a gap",
    source: "semantics rule 21, KIP-98",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let mut found = Violations::of(&PROPERTY);
    for ((topic, partition), raw) in context.raw() {
        let mut sent: BTreeMap<(u32, i64), (u64, i64)> = BTreeMap::new();
        let mut sequences: BTreeMap<(i64, i16), (i32, i64)> = BTreeMap::new();
        for (record, id) in raw.log.records.iter().zip(&raw.ops) {
            if record.control.is_some() || record.producer_id < 0 {
                continue;
            }
            let id = *id;
            let mut skipped = None;
            if is_idempotent(context, id)
                && let Some((client, n)) = id.map(|id| context.id_of(id))
                && let Some((before, offset)) = sent.insert((client, record.producer_id), (n, record.offset))
            {
                skipped = (before + 1..n)
                    .find_map(|n| context.op(client, n).filter(|id| sent_to(context, *id, topic, *partition)));
                if before > n {
                    let witness = Witness::offset(topic, *partition, record.offset)
                        .about(format_args!("client {client}, producer {}", record.producer_id))
                        .expected(format_args!("operation {n} before operation {before}, which is at offset {offset}"))
                        .found(format_args!("operation {n} at offset {}", record.offset));
                    // Either of the two may be the one out of place.
                    found.add(id, "a producer's record comes after a later one", witness.clone());
                    found.add(context.op(client, before), "a producer's record comes before an earlier one", witness);
                }
            }
            let slot = (record.producer_id, record.producer_epoch);
            let due = match sequences.get(&slot) {
                Some((last, _)) => Some(if *last == i32::MAX { 0 } else { last + 1 }),
                None if raw.log.log_start_offset == 0 => Some(0),
                None => None,
            };
            // A batch that lost records keeps its sequence, and one that lost all of them may be gone.
            let compacted = context.compaction().is_compacted(topic);
            if let Some(due) = due.filter(|due| *due != record.sequence && !(compacted && *due < record.sequence)) {
                let witness = Witness::offset(topic, *partition, record.offset)
                    .about(format_args!("producer {} epoch {}", slot.0, slot.1))
                    .expected(format_args!("sequence {due}"))
                    .found(format_args!("sequence {}", record.sequence));
                found.add(skipped.or(id), "a producer's sequence numbers have a gap", witness);
            }
            sequences.insert(slot, (record.sequence, record.offset));
        }
    }
    found.verdict()
}

/// Whether an operation sent an acknowledged record to this partition.
fn sent_to(context: &Context<'_>, id: OpId, topic: &str, partition: i32) -> bool {
    let op = &context.history.ops[id.0];
    op.is_ok() && matches!(&op.kind, OpKind::Produce { topic: t, partition: p, .. } if t == topic && *p == partition)
}

fn is_idempotent(context: &Context<'_>, id: Option<OpId>) -> bool {
    id.is_some_and(|id| matches!(context.history.ops[id.0].kind, OpKind::Produce { idempotent: true, .. }))
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
            &[DROP, DUPLICATE, SWAP, MISATTRIBUTE],
            &[
                (Mutator::Shift, "the order is the same, and offsets may have gaps"),
                (Mutator::Unacknowledge, "order is of records, whatever their clients heard"),
            ],
        );
    }
}
