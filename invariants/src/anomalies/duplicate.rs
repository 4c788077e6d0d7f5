//! **duplicate.** One record is at two offsets, in the final logs or in what consumers got.
//!
//! Allowed for producers without idempotence, which may repeat themselves. A consumer that gets one offset twice is
//! nonmonotonic-poll.

use crate::{Context, Kind, Property, Violations};
use history::{OpId, OpKind, PolledRecord, Verdict, Witness};

pub(crate) const PROPERTY: Property = Property {
    name: "duplicate",
    statement: "a record of an idempotent producer has one offset",
    source: "Jepsen's Kafka workload, duplicate; KIP-98",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let all = context.analysis();
    let mut places: Vec<(OpId, &str, i32, i64)> = Vec::new();
    for ((topic, partition), order) in &all.orders {
        places.extend(order.records.iter().filter_map(|r| Some((r.op?, *topic, *partition, r.offset))));
    }
    for poll in &all.polls {
        for read in poll.reads {
            let op =
                |r: &PolledRecord| Some((context.op(r.client, r.n)?, read.topic.as_str(), read.partition, r.offset));
            places.extend(read.records.iter().filter_map(op));
        }
    }
    places.retain(|(op, ..)| matches!(all.ops[op.0].kind, OpKind::Produce { idempotent: true, .. }));
    places.sort_unstable();
    places.dedup();
    let mut found = Violations::of(&PROPERTY);
    for pair in places.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        let ((op, topic, partition, offset), (.., second)) = (pair[0], pair[1]);
        let witness = Witness::offset(pair[1].1, pair[1].2, second)
            .about(all.op_name(op))
            .expected(format_args!("its record at {topic}-{partition} offset {offset} alone"))
            .found("its record");
        found.add(Some(op), "one record has two offsets", witness);
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
            &[DUPLICATE, POLL_SHIFTS, POLL_MISATTRIBUTES],
            &[
                (Mutator::Drop, "what is absent has no second offset"),
                (
                    Mutator::Swap,
                    "two records that change places in the log have one offset each, unless somebody polled them before",
                ),
                (Mutator::Unacknowledge, "a duplicate is one whatever its producer heard"),
            ],
        );
    }
}
