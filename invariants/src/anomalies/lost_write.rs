//! **lost-write.** A record that was acknowledged with acks=all, or that a consumer got at `read_committed`, is not in the
//! final log. Jepsen infers it from a later record's having been polled; here the final read decides.
//!
//! Never allowed. Not claimed: anything of acks 0 and 1, below a log's start, or of the transaction a record is in: a record
//! of an aborted transaction is not lost but undone.

use crate::{Context, Kind, Property, Violations};
use history::{OpId, OpKind, OpResult, Verdict, Witness};

pub(crate) const PROPERTY: Property = Property {
    name: "lost-write",
    statement: "what was acknowledged, or polled at read_committed, is in the final log",
    source: "Jepsen's Kafka workload, lost-write",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let all = context.analysis();
    let mut found = Violations::of(&PROPERTY);
    let mut present = vec![false; all.ops.len()];
    for order in all.orders.values() {
        order.records.iter().filter_map(|r| r.op).for_each(|op| present[op.0] = true);
    }
    let known: Vec<&str> = all.orders.keys().map(|(topic, _)| *topic).collect();
    for (i, op) in all.ops.iter().enumerate().filter(|(i, _)| !present[*i]) {
        let OpKind::Produce { topic, partition, acks: -1, .. } = &op.kind else { continue };
        let OpResult::Ok { offset } = op.result else { continue };
        let order = all.orders.get(&(topic.as_str(), *partition));
        let gone = order.is_some_and(|order| offset.is_some_and(|offset| offset < order.start));
        if gone || !known.contains(&topic.as_str()) {
            continue;
        }
        let place = match offset {
            Some(offset) => Witness::offset(topic, *partition, offset),
            None => Witness::partition(topic, *partition),
        };
        let witness = place.about(all.op_name(OpId(i))).expected("its acknowledged record").found("none");
        found.add(Some(OpId(i)), "an acknowledged record is lost", witness);
    }
    for poll in all.polls.iter().filter(|poll| poll.read_committed) {
        for read in poll.reads {
            let Some(order) = all.order(read) else { continue };
            for record in read.records.iter().filter(|r| r.offset >= order.start && order.at(r.offset).is_none()) {
                let witness = Witness::offset(&read.topic, read.partition, record.offset)
                    .about(all.op_name(poll.id))
                    .expected(format_args!("the record of client {} operation {} that it got", record.client, record.n))
                    .found("none");
                let op = context.op(record.client, record.n).unwrap_or(poll.id);
                found.add(Some(op), "a record that was read is lost", witness);
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
            &[DROP, MISATTRIBUTE],
            &[
                (Mutator::Duplicate, "what is there twice is not lost"),
                (Mutator::Swap, "what is elsewhere is there: inconsistent-offsets"),
                (Mutator::Shift, "what is elsewhere is there: inconsistent-offsets"),
                (Mutator::Unacknowledge, "what was not acknowledged may be lost, if nobody read it"),
            ],
        );
    }
}
