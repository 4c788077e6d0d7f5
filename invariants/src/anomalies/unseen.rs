//! **unseen.** A record that was acknowledged and committed was never polled by anybody, though some consumer was assigned its
//! partition and still polled when the plan's bound had passed since healing.
//!
//! The same of each consumer group, whose members share what they read: what one group polled, another has still to poll.
//! A commit of what is not worked on yet loses it to the group when its member dies.
//!
//! Allowed while the run goes on, and for partitions that nobody follows to the end. Not claimed: who of a group got it.

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
    let mut polled = vec![BTreeSet::new(); all.ops.len()];
    let mut last_poll: BTreeMap<u32, u64> = BTreeMap::new();
    for poll in &all.polls {
        let client = poll.op.client;
        if poll.op.invoked_ns >= due_ns {
            last_poll.insert(client, poll.op.n);
        }
        let records = poll.reads.iter().flat_map(|read| &read.records);
        records.filter_map(|r| context.op(r.client, r.n)).for_each(|op| {
            polled[op.0].insert(client);
        });
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
    let mut found = Violations::of(&PROPERTY);
    let by_somebody: BTreeSet<(&str, i32)> =
        followed.values().flat_map(|(_, partitions)| partitions).copied().collect();
    let mut judge = |at: (&str, i32), readers: &str, has_polled: &dyn Fn(&BTreeSet<u32>) -> bool| {
        for record in all.orders.get(&at).into_iter().flat_map(|order| order.seen()) {
            let Some(op) = record.op.filter(|op| all.ops[op.0].is_ok() && !has_polled(&polled[op.0])) else { continue };
            let witness = Witness::offset(at.0, at.1, record.offset)
                .about(all.op_name(op))
                .expected(format_args!("polled by {readers}"))
                .found("polled by none, though the partition was followed to the end");
            found.add(Some(op), "an acknowledged record is never polled", witness);
        }
    };
    for at in by_somebody {
        judge(at, "somebody", &|by| !by.is_empty());
    }
    for group in &facts.groups {
        let is_member = |client: &u32| group.clients.contains(client);
        let members = followed.iter().filter(|(client, _)| is_member(client));
        let followed: BTreeSet<(&str, i32)> = members.flat_map(|(_, (_, partitions))| partitions).copied().collect();
        for at in followed {
            // What nobody polled is told of already.
            judge(at, &format!("a member of {}", group.name), &|by| by.is_empty() || by.iter().any(is_member));
        }
    }
    found.verdict()
}

#[cfg(test)]
mod tests {
    use history::{Group, Op, OpResult};

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

    /// Client 5 follows all that client 2 reads.
    #[test]
    fn each_group_sees_every_record() {
        let mut history = fixture::streams();
        let of = |name: &str, client| Group { name: name.to_owned(), clients: vec![client] };
        history.facts.groups = vec![of("two", 2), of("five", 5)];
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
        let polled = |op: &Op, client| match &op.result {
            OpResult::Polled { reads } if op.client == client => {
                reads.iter().flat_map(|r| &r.records).map(|r| (r.client, r.n)).collect::<Vec<_>>()
            }
            _ => Vec::new(),
        };
        let by_two: BTreeSet<(u32, u64)> = history.ops.iter().flat_map(|op| polled(op, 2)).collect();
        let by_five: Vec<(u32, u64)> = history.ops.iter().flat_map(|op| polled(op, 5)).collect();
        let lost = *by_five.iter().find(|r| by_two.contains(r)).expect("a record that both polled");
        for op in history.ops.iter_mut().filter(|op| op.client == 5) {
            let OpResult::Polled { reads } = &mut op.result else { continue };
            reads.iter_mut().for_each(|read| read.records.retain(|r| (r.client, r.n) != lost));
        }
        let violations = PROPERTY.check(&Context::new(&history)).violations().to_vec();
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert!(violations[0].witness.to_string().contains("a member of five"), "{violations:?}");
        history.facts.groups.clear();
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }
}
