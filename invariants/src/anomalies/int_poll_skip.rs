//! **int-poll-skip.** A consumer passed over records of its isolation level that the final log has, within one transaction or poll.
//!
//! Allowed over an assignment or rebalance in the middle of a transaction, which sets the position anew.
//! Not claimed: anything of records that the final log has no more, or of polls that failed.

use crate::{Context, Kind, Property, Violations};
use history::Verdict;

pub(crate) const PROPERTY: Property = Property {
    name: "int-poll-skip",
    statement: "a consumer does not skip records within one transaction or poll",
    source: "Jepsen's Kafka workload, int-poll-skip",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let all = context.analysis();
    let mut found = Violations::of(&PROPERTY);
    for step in all.steps().iter().filter(|step| step.delta > 1 && step.internal) {
        let op = step.skipped.and_then(|r| r.op).or(context.op(step.to.client, step.to.n));
        found.add(
            op.or(Some(step.poll)),
            "a consumer skips a record within one transaction or poll",
            all.step_witness(step),
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
            &[INT_POLL_SKIPS, INT_POLL_SWAPS],
            &[
                (Mutator::Duplicate, "again is back: int-nonmonotonic-poll"),
                (Mutator::Shift, "an offset that is told wrongly may have no record there: inconsistent-offsets"),
                (Mutator::Unacknowledge, "positions have nothing to do with acknowledgement"),
                (Mutator::Misattribute, "who wrote a record does not matter to its offset"),
            ],
        );
    }
}
