//! **nonmonotonic-send.** A producer sent two records to one partition, from one operation or transaction to the next, both were acknowledged, and the later has the
//! lower offset.
//!
//! Allowed for producers without idempotence, whose retries may overtake one another. Not claimed: anything of sends that were
//! not acknowledged with an offset: late bytes of a producer that was given up may land between.

use crate::{Context, Kind, Property, Violations};
use history::Verdict;

pub(crate) const PROPERTY: Property = Property {
    name: "nonmonotonic-send",
    statement: "a producer's records have rising offsets from one operation or transaction to the next",
    source: "Jepsen's Kafka workload, nonmonotonic-send",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let all = context.analysis();
    let mut found = Violations::of(&PROPERTY);
    for send in all.sends().iter().filter(|send| send.after.1 <= send.before.1 && !send.internal) {
        found.add(
            Some(send.after.0),
            "a producer's offsets fall from one operation or transaction to the next",
            all.send_witness(send),
        );
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
            &[ACKS_SWAP, ACK_SHIFTS],
            &[
                (Mutator::Drop, "of what remains the order is the same"),
                (Mutator::Duplicate, "a second copy is duplicate"),
                (Mutator::Unacknowledge, "of what remains the order is the same"),
                (Mutator::Misattribute, "a record taken for another's is inconsistent-offsets"),
            ],
        );
    }
}
