//! **poll-skip.** A consumer passed over records of its isolation level that the final log has, from one poll to the next.
//!
//! Allowed where its position was set anew between the two: an assignment, a subscription or a rebalance (then the
//! next poll begins at the committed offset, which a subscriber may have committed late, or another member's).
//! Not claimed: anything of records that the final log has no more, or of polls that failed.

use crate::{Context, Kind, Property, Violations};
use history::Verdict;

pub(crate) const PROPERTY: Property = Property {
    name: "poll-skip",
    statement: "a consumer does not skip records from one poll to the next",
    source: "Jepsen's Kafka workload, poll-skip",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let all = context.analysis();
    let mut found = Violations::of(&PROPERTY);
    for step in all.steps().iter().filter(|step| step.delta > 1 && !step.internal) {
        let op = step.skipped.and_then(|r| r.op).or(context.op(step.to.client, step.to.n));
        found.add(
            op.or(Some(step.poll)),
            "a consumer skips a record from one poll to the next",
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
            &[POLL_SKIPS],
            &[
                (Mutator::Duplicate, "again is back: nonmonotonic-poll"),
                (Mutator::Swap, "what is exchanged within a poll is int-poll-skip"),
                (Mutator::Shift, "an offset that is told wrongly may have no record there: inconsistent-offsets"),
                (Mutator::Unacknowledge, "positions have nothing to do with acknowledgement"),
                (Mutator::Misattribute, "who wrote a record does not matter to its offset"),
            ],
        );
    }
}
