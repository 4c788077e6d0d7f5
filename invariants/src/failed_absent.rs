//! **failed-absent.** What failed for certain has left no record; what no client asked for is not in the log.
//!
//! Source: rule 20. It catches a client that takes a time-out for a failure, and a record attributed to another
//! operation.
//!
//! Not claimed: anything of unknown operations, of records without an operation's headers, or of other topics' copies
//! (the dead-letter and late topics carry the source's headers under other names).

use history::{OpKind, Verdict};

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
            let Some((client, n)) = record.op() else { continue };
            let place = || format!("{topic}-{partition} offset {}, client {client} operation {n}", record.offset);
            let Some(id) = *id else {
                found.add(None, "a record names an operation that was never invoked", place());
                continue;
            };
            let op = &context.history.ops[id.0];
            match &op.kind {
                OpKind::Produce { topic: t, partition: p, .. } if (t.as_str(), *p) == (*topic, *partition) => {}
                _ => found.add(Some(id), "a record is not where its operation sent it", place()),
            }
            if op.is_failed() {
                found.add(Some(id), "an operation that failed for certain left a record", place());
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
        fixture::rejects(&PROPERTY, &[Mutation::Unacknowledge, Mutation::Misattribute, Mutation::MovePartition]);
    }
}
