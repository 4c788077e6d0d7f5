//! **unseen.** A record that was acknowledged and committed was never polled by anybody, though some consumer was assigned its
//! partition and still polled when the plan's bound had passed since healing.
//!
//! Allowed while the run goes on, and for partitions that nobody follows to the end. Not claimed: who got it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Context, Kind, Property, Violations};
use history::{OpKind, Verdict, Witness};

pub(crate) const PROPERTY: Property = Property {
    name: "unseen",
    statement: "what was acknowledged is polled in the end by those who follow its partition",
    source: "Jepsen's Kafka workload, unseen",
    kind: Kind::Liveness,
    check,
};

/// (topic, partition).
type Partitions<'a> = Vec<(&'a str, i32)>;

fn check(context: &Context<'_>) -> Verdict {
    let facts = &context.history.facts;
    let Some(due_ns) = facts.healed_ns.map(|healed| healed.saturating_add(facts.bound_ns)) else {
        return Verdict::Pass;
    };
    let all = context.analysis();
    let mut polled = vec![false; all.ops.len()];
    let mut last_poll: BTreeMap<u32, u64> = BTreeMap::new();
    for poll in &all.polls {
        if poll.op.invoked_ns >= due_ns {
            last_poll.insert(poll.op.client, poll.op.n);
        }
        let records = poll.reads.iter().flat_map(|read| &read.records);
        records.filter_map(|r| context.op(r.client, r.n)).for_each(|op| polled[op.0] = true);
    }
    // The last assignment of each client that polls to the end.
    let mut followed: BTreeMap<u32, (u64, Partitions<'_>)> = BTreeMap::new();
    for op in all.ops {
        let partitions: Partitions<'_> = match &op.kind {
            OpKind::Assign { partitions } => partitions.iter().map(|(p, _)| (p.topic.as_str(), p.partition)).collect(),
            OpKind::Rebalance { assigned } => assigned.iter().map(|p| (p.topic.as_str(), p.partition)).collect(),
            _ => continue,
        };
        if last_poll.get(&op.client).is_some_and(|last| op.n < *last) {
            let newest = followed.entry(op.client).or_default();
            if newest.0 <= op.n {
                *newest = (op.n, partitions);
            }
        }
    }
    let followed: BTreeSet<(&str, i32)> = followed.into_values().flat_map(|(_, partitions)| partitions).collect();
    let mut found = Violations::of(&PROPERTY);
    for at in followed {
        for record in all.orders.get(&at).into_iter().flat_map(|order| order.seen()) {
            let Some(op) = record.op.filter(|op| all.ops[op.0].is_ok() && !polled[op.0]) else { continue };
            let witness = Witness::offset(at.0, at.1, record.offset)
                .about(all.op_name(op))
                .expected("polled by somebody")
                .found("polled by nobody, though the partition was followed to the end");
            found.add(Some(op), "an acknowledged record is never polled", witness);
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
            &[POLL_ENDS_EARLY],
            &[
                (Mutator::Duplicate, "what is polled twice is seen"),
                (Mutator::Swap, "what is polled in another order is seen"),
                (Mutator::Shift, "an offset that is told wrongly is inconsistent-offsets"),
                (Mutator::Unacknowledge, "what was not acknowledged need not be seen"),
                (Mutator::Misattribute, "a record taken for another is inconsistent-offsets"),
            ],
        );
    }
}
