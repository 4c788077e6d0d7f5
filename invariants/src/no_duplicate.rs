//! **no-duplicate.** An operation of an idempotent producer is in the logs at most once.
//!
//! Source: rule 21, KIP-98.
//!
//! Not claimed: anything of producers without idempotence, or that the record is there at all.

use std::collections::BTreeSet;

use history::{LogSource, OpKind, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "no-duplicate",
    statement: "a record of an idempotent producer is in the log at most once",
    source: "semantics rule 21, KIP-98",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let mut found = Violations::of(&PROPERTY);
    let sources: BTreeSet<&LogSource> =
        context.history.logs.iter().map(|log| &log.source).filter(|s| **s != LogSource::ReadCommitted).collect();
    for source in sources {
        let mut places = Vec::new();
        for log in context.history.logs_from(source) {
            // Of the final read they are known already; a disk's records name theirs again.
            let known =
                context.raw().get(&(log.topic.as_str(), log.partition)).filter(|raw| std::ptr::eq(raw.log, log));
            for (i, record) in log.records.iter().enumerate() {
                let id = known.map_or_else(|| context.op_of(record), |raw| raw.ops[i]);
                let Some(id) = id else { continue };
                if matches!(context.history.ops[id.0].kind, OpKind::Produce { idempotent: true, .. }) {
                    places.push((id, log.topic.as_str(), log.partition, record.offset));
                }
            }
        }
        places.sort_unstable();
        for pair in places.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            if first.0 == second.0 {
                let witness = Witness::offset(second.1, second.2, second.3)
                    .about(format_args!("{}, in {source:?}", context.name_of(first.0)))
                    .expected(format_args!("its record once, at {}-{} offset {}", first.1, first.2, first.3))
                    .found("its record again");
                found.add(Some(first.0), "one record is in the log twice", witness);
            }
        }
    }
    found.verdict()
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
            &[DUPLICATE, MISATTRIBUTE],
            &[
                (Mutator::Drop, "what is absent is not there twice"),
                (Mutator::Swap, "each is there once"),
                (Mutator::Shift, "each is there once"),
                (Mutator::Unacknowledge, "what failed must be absent: failed-absent's"),
            ],
        );
    }

    #[test]
    fn producers_without_idempotence_may_repeat_themselves() {
        let (mut history, _) = fixture::mutated(&fixture::broker(), DUPLICATE);
        for op in &mut history.ops {
            if let OpKind::Produce { idempotent, .. } = &mut op.kind {
                *idempotent = false;
            }
        }
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }
}
