//! **no-duplicate.** An operation of an idempotent producer is in the logs at most once.
//!
//! Source: rule 21, KIP-98.
//!
//! Not claimed: anything of producers without idempotence, or that the record is there at all.

use std::collections::BTreeMap;

use history::{LogSource, OpId, OpKind, Verdict};

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
    let sources: std::collections::BTreeSet<&LogSource> =
        context.history.logs.iter().map(|log| &log.source).filter(|s| **s != LogSource::ReadCommitted).collect();
    for source in sources {
        let mut seen: BTreeMap<OpId, (&str, i32, i64)> = BTreeMap::new();
        for log in context.history.logs_from(source) {
            for record in &log.records {
                let Some(id) = context.op_of(record) else { continue };
                let op = &context.history.ops[id.0];
                if !matches!(op.kind, OpKind::Produce { idempotent: true, .. }) {
                    continue;
                }
                let here = (log.topic.as_str(), log.partition, record.offset);
                if let Some((topic, partition, offset)) = seen.insert(id, here) {
                    let witness = format!(
                        "client {} operation {}: {topic}-{partition} offset {offset} and {}-{} offset {} ({source:?})",
                        op.client, op.n, here.0, here.1, here.2
                    );
                    found.add(Some(id), "one record is in the log twice", witness);
                }
            }
        }
    }
    found.verdict()
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
        fixture::rejects(&PROPERTY, &[Mutation::Duplicate, Mutation::Misattribute]);
    }

    #[test]
    fn producers_without_idempotence_may_repeat_themselves() {
        let (mut history, _) = fixture::mutated(&fixture::broker(), Mutation::Duplicate);
        for op in &mut history.ops {
            if let OpKind::Produce { idempotent, .. } = &mut op.kind {
                *idempotent = false;
            }
        }
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }
}
