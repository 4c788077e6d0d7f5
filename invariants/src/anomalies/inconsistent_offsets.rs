//! **inconsistent-offsets.** Two sights of one offset of a partition are different records: its producer was told that its
//! record is there, or a consumer got it there, and the final log or another sight has another one.
//!
//! Never allowed. Not claimed: that offsets have no gaps (markers take some), or anything below a log's start.

use crate::{Context, Kind, Property, Violations};
use history::{OpId, OpKind, OpResult, Verdict, Witness};

pub(crate) const PROPERTY: Property = Property {
    name: "inconsistent-offsets",
    statement: "an offset holds one record: for its producer, for each consumer and in the final log",
    source: "Jepsen's Kafka workload, inconsistent-offsets",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let all = context.analysis();
    let mut found = Violations::of(&PROPERTY);
    // (topic, partition, offset, writer) by who saw it; the log first.
    let mut sights: Vec<(&str, i32, i64, u8, OpId, OpId)> = Vec::new();
    for ((topic, partition), order) in &all.orders {
        let sight = |r: &super::analysis::Placed| r.op.map(|op| (*topic, *partition, r.offset, 0, op, op));
        sights.extend(order.records.iter().filter_map(sight));
    }
    for (i, op) in all.ops.iter().enumerate() {
        if let (OpKind::Produce { topic, partition, .. }, OpResult::Ok { offset: Some(offset) }) =
            (&op.kind, &op.result)
        {
            sights.push((topic, *partition, *offset, 1, OpId(i), OpId(i)));
        }
    }
    for poll in &all.polls {
        for read in poll.reads {
            let sight = |r: &history::PolledRecord| {
                Some((read.topic.as_str(), read.partition, r.offset, 2, context.op(r.client, r.n)?, poll.id))
            };
            sights.extend(read.records.iter().filter_map(sight));
        }
    }
    // A producer that was told one offset while its record is at another.
    let mut logged: Vec<(OpId, i64)> = sights.iter().filter(|s| s.3 == 0).map(|s| (s.4, s.2)).collect();
    logged.sort_unstable();
    for (topic, partition, told, _, op, _) in sights.iter().filter(|s| s.3 == 1) {
        let at = &logged[logged.partition_point(|(o, _)| o < op)..logged.partition_point(|(o, _)| o <= op)];
        if let Some((_, is)) = at.first()
            && !at.contains(&(*op, *told))
        {
            let witness = Witness::offset(topic, *partition, *told).about(all.op_name(*op));
            let witness = witness.expected("its record, as its producer was told").found(format_args!("it is at {is}"));
            found.add(Some(*op), "a record is at another offset than its producer was told", witness);
        }
    }
    sights.sort_unstable();
    for pair in sights.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if (a.0, a.1, a.2) == (b.0, b.1, b.2) && a.4 != b.4 {
            let by = match b.3 {
                0 => "in the final log".to_owned(),
                1 => "as its producer was told".to_owned(),
                _ => format!("polled by {}", all.op_name(b.5)),
            };
            let witness = Witness::offset(a.0, a.1, a.2)
                .expected(format_args!("the record of {}", all.op_name(a.4)))
                .found(format_args!("that of {}, {by}", all.op_name(b.4)));
            found.add(Some(b.4), "one offset holds two records", witness);
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
            &[SWAP, SHIFT, MISATTRIBUTE, POLL_SHIFTS, POLL_MISATTRIBUTES],
            &[
                (Mutator::Drop, "what is absent disagrees with nothing"),
                (Mutator::Duplicate, "a second copy has an offset of its own: duplicate"),
                (Mutator::Unacknowledge, "what was not acknowledged was told no offset"),
            ],
        );
    }
}
