//! **G1a** (aborted read). A consumer at `read_committed` got a record whose operation failed for certain, or whose
//! transaction aborted.
//!
//! Never allowed at `read_committed`; at `read_uncommitted` aborted records are meant to be seen, and are not judged. A send of
//! unknown outcome is what the final log says it is.

use history::{OpResult, Verdict, Witness};

use crate::Fate;
use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "G1a",
    statement: "a consumer at read_committed gets nothing that failed or aborted",
    source: "Jepsen's Kafka workload, G1a; Adya 1999",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let all = context.analysis();
    let mut found = Violations::of(&PROPERTY);
    for poll in all.polls.iter().filter(|poll| poll.read_committed) {
        for read in poll.reads {
            for record in &read.records {
                let Some(op) = context.op(record.client, record.n) else { continue };
                let aborted =
                    all.order(read).and_then(|order| order.at(record.offset)).map(|r| r.fate) == Some(Fate::Aborted);
                let undone = all.unit(op).is_some_and(|unit| all.units[unit].committed == Some(false));
                let why = match &all.ops[op.0].result {
                    OpResult::Failed { code } => format!("it failed: {code}"),
                    _ if aborted || undone => "its transaction aborted".to_owned(),
                    _ => continue,
                };
                let witness = Witness::offset(&read.topic, read.partition, record.offset)
                    .about(format_args!("{} polls {}", all.op_name(poll.id), all.op_name(op)))
                    .expected(format_args!("not returned, for {why}"))
                    .found("returned");
                found.add(Some(op), "a consumer got an aborted record", witness);
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
            &[POLL_READS_ABORTED, UNACKNOWLEDGE, FLIP_MARKER],
            &[
                (Mutator::Drop, "what is absent is not read"),
                (Mutator::Duplicate, "a committed record twice is no aborted one"),
                (Mutator::Swap, "a committed record elsewhere is no aborted one"),
                (Mutator::Shift, "a committed record elsewhere is no aborted one"),
            ],
        );
    }
}
