//! **G1c** (circular information flow). Committed units each polled what the next one wrote, in a circle: then one of them was
//! read before it was committed.
//!
//! Allowed where a write-write edge is in the circle: Kafka's transactions do not isolate writes, records of concurrent ones
//! lie interleaved in a log. For the same reason G0 is allowed always. G-single and G2 take an anti-dependency too (a unit did
//! not see a write that came after what it read): allowed, since a transaction's polls are no part of what commits
//! atomically. [`census`] counts them all.
//!
//! ```text
//! ww  a unit wrote the record just before another's, among those that read_committed shows
//! wr  a unit polled what another wrote
//! rw  a unit's last record of a partition is just before another's
//! ```

use history::{Verdict, Witness};

use super::scc::Graph;
use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "G1c",
    statement: "no information flows in a circle through what transactions read",
    source: "Jepsen's Kafka workload, G1c; Adya 1999; Elle (VLDB 2020)",
    kind: Kind::Safety,
    check,
};

/// The dependencies of one history.
struct Edges {
    ww: Vec<(usize, usize)>,
    wr: Vec<(usize, usize)>,
    rw: Vec<(usize, usize)>,
}

/// Cycles by the least edges they need: the number of components in which there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// ww only.
    pub g0: usize,
    /// wr only: the one that is never allowed.
    pub g1c: usize,
    /// ww and wr.
    pub g1c_ww: usize,
    /// One rw.
    pub g_single: usize,
    /// More than one rw.
    pub g2: usize,
}

fn check(context: &Context<'_>) -> Verdict {
    let all = context.analysis();
    let mut edges = Edges::of(context);
    let mut found = Violations::of(&PROPERTY);
    let graph = Graph::new(all.units.len(), &mut edges.wr);
    for cycle in graph.cycles() {
        let names: Vec<String> = cycle.iter().take(5).map(|unit| all.name(*unit)).collect();
        let witness = Witness::at(all.name(cycle[0]))
            .about(format_args!("{} units", cycle.len()))
            .expected("no circle of reads")
            .found(format_args!("each reads what another of these wrote: {}", names.join(", ")));
        found.add(Some(all.units[cycle[0]].first), "information flows in a circle", witness);
    }
    found.verdict()
}

/// How often each class occurs, the allowed ones too.
pub(crate) fn census(context: &Context<'_>) -> Census {
    let n = context.analysis().units.len();
    let edges = Edges::of(context);
    let cycles = |parts: &[&[(usize, usize)]]| {
        let graph = Graph::new(n, &mut parts.concat());
        let cycles = graph.cycles();
        (graph, cycles)
    };
    let (_, g0) = cycles(&[&edges.ww]);
    let (_, g1c) = cycles(&[&edges.wr]);
    let (known, both) = cycles(&[&edges.ww, &edges.wr]);
    let (_, every) = cycles(&[&edges.ww, &edges.wr, &edges.rw]);
    let mut census = Census { g0: g0.len(), g1c: g1c.len(), ..Census::default() };
    // A component of both kinds that is more than one of either needs both.
    census.g1c_ww = both.iter().filter(|c| !g0.contains(c) && !g1c.contains(c)).count();
    for component in every.iter().filter(|c| !both.contains(c)) {
        let inside =
            edges.rw.iter().filter(|(a, b)| component.binary_search(a).is_ok() && component.binary_search(b).is_ok());
        // Bounded: which of two allowed classes it is matters less than an answer in time.
        let single = inside.take(100).any(|(a, b)| known.reaches(*b, *a, component));
        *(if single { &mut census.g_single } else { &mut census.g2 }) += 1;
    }
    census
}

impl Edges {
    fn of(context: &Context<'_>) -> Edges {
        let all = context.analysis();
        let mut edges = Edges { ww: Vec::new(), wr: Vec::new(), rw: Vec::new() };
        let stands = |unit: usize| all.units[unit].committed == Some(true);
        for order in all.orders.values() {
            let mut writers = order.seen().filter_map(|r| all.unit(r.op?)).filter(|unit| stands(*unit));
            let Some(mut before) = writers.next() else { continue };
            for unit in writers {
                if unit != before {
                    edges.ww.push((before, unit));
                }
                before = unit;
            }
        }
        for poll in all.polls.iter().filter(|poll| poll.read_committed && stands(poll.unit)) {
            for read in poll.reads {
                let mut before = poll.unit;
                for writer in read.records.iter().filter_map(|r| all.unit(context.op(r.client, r.n)?)) {
                    if writer != before && writer != poll.unit && stands(writer) {
                        edges.wr.push((writer, poll.unit));
                    }
                    before = writer;
                }
                let (Some(order), Some(last)) = (all.order(read), read.records.last()) else { continue };
                let next = order.ranked(order.rank(last.offset, true) + 1, true);
                if let Some(writer) = next.and_then(|r| all.unit(r.op?))
                    && writer != poll.unit
                    && stands(writer)
                {
                    edges.rw.push((poll.unit, writer));
                }
            }
        }
        edges
    }
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
            &[READS_IN_A_CIRCLE],
            &[
                (Mutator::Drop, "fewer reads make no circle"),
                (Mutator::Duplicate, "the same read again makes no circle"),
                (Mutator::Swap, "an exchange within a poll keeps its edges"),
                (Mutator::Shift, "edges are of writers, not offsets"),
                (Mutator::Unacknowledge, "an operation's answer makes no edge"),
            ],
        );
    }

    #[test]
    fn the_allowed_classes_are_counted() {
        let history = fixture::streams();
        let good = census(&Context::new(&history));
        assert_eq!((good.g1c, good.g0 > 0), (0, true), "concurrent transactions write to two partitions: {good:?}");
        let (bad, _) = fixture::mutated(&history, READS_IN_A_CIRCLE);
        assert_eq!(census(&Context::new(&bad)).g1c, 1);
    }
}
