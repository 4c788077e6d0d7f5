//! **failed-absent.** What failed for certain has left no record; what no client asked for is not in the log.
//!
//! Source: rule 20. It catches a client that takes a time-out for a failure, and a record attributed to another
//! operation.
//!
//! Not claimed: anything of unknown operations, of records without an operation's headers, or of other topics' copies
//! (the dead-letter and late topics carry the source's headers under other names).

use history::{OpKind, OpResult, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "failed-absent",
    statement: "an operation that failed for certain left no record, and every record has its operation",
    source: "semantics rule 20",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let mut found = Violations::of(&PROPERTY);
    for ((topic, partition), raw) in context.raw() {
        for (record, id) in raw.log.records.iter().zip(&raw.ops) {
            let Some((client, n)) = id.map(|id| context.id_of(id)).or_else(|| record.op()) else { continue };
            let witness = || {
                Witness::offset(topic, *partition, record.offset).about(format_args!("client {client} operation {n}"))
            };
            let Some(id) = *id else {
                let witness = witness().expected("an operation that was invoked").found("none");
                found.add(None, "a record names an operation that was never invoked", witness);
                continue;
            };
            let op = &context.history.ops[id.0];
            match &op.kind {
                OpKind::Produce { topic: t, partition: p, .. } if (t.as_str(), *p) == (*topic, *partition) => {}
                OpKind::Produce { topic, partition, .. } => {
                    let witness = witness().expected(format_args!("in {topic}-{partition}")).found("here");
                    found.add(Some(id), "a record is not where its operation sent it", witness);
                }
                other => {
                    let witness =
                        witness().expected("an operation that sends a record").found(format_args!("{other:?}"));
                    found.add(Some(id), "a record names an operation that sends none", witness);
                }
            }
            if let OpResult::Failed { code } = &op.result {
                let witness = witness().expected(format_args!("no record, for it failed: {code}")).found("its record");
                found.add(Some(id), "an operation that failed for certain left a record", witness);
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
            &[MOVE_PARTITION, UNACKNOWLEDGE, MISATTRIBUTE],
            &[
                (Mutator::Drop, "what is absent left no record"),
                (Mutator::Duplicate, "each copy has its operation, in its place"),
                (Mutator::Swap, "each is in its operation's partition"),
            ],
        );
    }
}
