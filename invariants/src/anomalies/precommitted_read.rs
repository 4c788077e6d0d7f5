//! **precommitted-read.** A transaction polled a record that it had itself sent. Elsewhere a transaction sees its own writes;
//! in Kafka a consumer at `read_committed` gets nothing of an open transaction, its own included.
//!
//! Never allowed at `read_committed`; not judged at `read_uncommitted`.

use crate::{Context, Kind, Property, Violations};
use history::{Verdict, Witness};

pub(crate) const PROPERTY: Property = Property {
    name: "precommitted-read",
    statement: "no transaction reads at read_committed what it has itself written",
    source: "Jepsen's Kafka workload, precommitted-read",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let all = context.analysis();
    let mut found = Violations::of(&PROPERTY);
    for poll in all.polls.iter().filter(|poll| poll.read_committed && all.units[poll.unit].txn.is_some()) {
        for read in poll.reads {
            for record in &read.records {
                let Some(op) = context.op(record.client, record.n) else { continue };
                if all.unit(op) == Some(poll.unit) {
                    let witness = Witness::offset(&read.topic, read.partition, record.offset)
                        .about(all.name(poll.unit))
                        .expected("nothing of its own before it commits")
                        .found(format_args!("the record of {}", all.op_name(op)));
                    found.add(Some(op), "a transaction polled its own record", witness);
                }
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
        fixture::rejects_streams(
            &PROPERTY,
            &[POLL_READS_OWN],
            &[
                (Mutator::Drop, "it needs a record that was read"),
                (Mutator::Duplicate, "another's record twice is not its own"),
                (Mutator::Swap, "another's record elsewhere is not its own"),
                (Mutator::Shift, "another's record elsewhere is not its own"),
                (Mutator::Unacknowledge, "whether it was acknowledged does not matter"),
            ],
        );
    }
}
