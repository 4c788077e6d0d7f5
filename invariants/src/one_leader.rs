//! **one-leader.** An epoch has one leader: of a partition, and of the metadata quorum; and a leader has all that was
//! committed before it.
//!
//! Source: Raft's election safety and leader completeness (Ongaro and Ousterhout 2014, figure 3) as KRaft and KIP-101 apply
//! them.
//!
//! Not claimed: that there is a leader; that a deposed leader knows (its writes are not acknowledged: acked-durable); what
//! an unclean election keeps (a topic that asks for it has no acknowledged-durable promise either), or of lost disks.

use std::collections::BTreeMap;

use history::{Flush, Observation, Observed, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "one-leader",
    statement: "a leader epoch has one leader, whose log holds all that was committed before",
    source: "Raft, election safety and leader completeness; KIP-101, KIP-595",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let facts = &context.history.facts;
    let kept = facts.flush == Flush::Fsync && !facts.disks_lost;
    let mut found = Violations::of(&PROPERTY);
    let mut leaders: BTreeMap<(&str, i32, i32), (u32, &Observation)> = BTreeMap::new();
    let mut high: BTreeMap<(&str, i32), (i64, i32, &Observation)> = BTreeMap::new();
    let mut voters: BTreeMap<i32, (u32, &Observation)> = BTreeMap::new();
    let mut committed: Option<(i64, &Observation)> = None;
    for seen in &context.history.observations {
        match &seen.what {
            Observed::LeaderElected { topic, partition, leader_epoch, broker, log_end } => {
                let first = leaders.entry((topic, *partition, *leader_epoch)).or_insert((*broker, seen));
                if first.0 != *broker {
                    let witness =
                        Witness::partition(topic, *partition).about(format_args!("leader epoch {leader_epoch}"));
                    let witness = two(witness, "broker", first.0, first.1, *broker, seen);
                    found.add(None, "a leader epoch has two leaders", witness);
                }
                let before = high.get(&(topic.as_str(), *partition)).filter(|(_, epoch, _)| epoch < leader_epoch);
                if let (Some(end), Some((was, epoch, sight))) = (log_end, before)
                    && end < was
                    && kept
                {
                    let witness = Witness::offset(topic, *partition, *end)
                        .about(format_args!("broker {broker} leads epoch {leader_epoch}"))
                        .expected(format_args!("a log up to {was}, committed in epoch {epoch} at {} ns", sight.at_ns))
                        .found(format_args!("a log up to {end}"));
                    found.add(None, "a leader lacks what was committed before it", witness);
                }
            }
            Observed::HighWatermark { topic, partition, leader_epoch, offset } if *leader_epoch >= 0 => {
                let most = high.entry((topic, *partition)).or_insert((*offset, *leader_epoch, seen));
                if most.0 < *offset {
                    *most = (*offset, *leader_epoch, seen);
                }
            }
            Observed::QuorumLeader { epoch, node, log_end } => {
                let first = voters.entry(*epoch).or_insert((*node, seen));
                let at = || Witness::at(format_args!("quorum epoch {epoch}"));
                if first.0 != *node {
                    let witness = two(at(), "node", first.0, first.1, *node, seen);
                    found.add(None, "a quorum epoch has two leaders", witness);
                }
                if let Some((offset, sight)) = committed.filter(|(offset, _)| log_end <= offset)
                    && !facts.disks_lost
                {
                    let witness = at()
                        .about(format_args!("node {node}"))
                        .expected(format_args!("a log with record {offset}, committed by {} ns", sight.at_ns))
                        .found(format_args!("a log up to {log_end}"));
                    found.add(None, "a quorum leader lacks what was committed before it", witness);
                }
            }
            Observed::MetadataCommitted { offset, .. } if committed.is_none_or(|(most, _)| most < *offset) => {
                committed = Some((*offset, seen));
            }
            _ => {}
        }
    }
    found.verdict()
}

fn two(witness: Witness, kind: &str, a: u32, first: &Observation, b: u32, second: &Observation) -> Witness {
    witness
        .expected(format_args!("{kind} {a} alone, seen by {} at {} ns", first.observer, first.at_ns))
        .found(format_args!("{kind} {b}, seen by {} at {} ns", second.observer, second.at_ns))
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
        fixture::rejects_cluster(
            &PROPERTY,
            &[LEADER_SHIFTS_EPOCH, LEADER_MISATTRIBUTES, LEADER_ENDS_EARLY, VOTER_SHIFTS_EPOCH, VOTER_DROPS_TAIL],
            &[
                (Mutator::Duplicate, "the same leader told twice is one leader"),
                (Mutator::Swap, "an exchange of two leaders is a mis-attribution of each"),
                (Mutator::Unacknowledge, "clients' answers tell nothing of leaders"),
            ],
        );
    }

    #[test]
    fn without_fsync_a_leader_may_lack_what_was_readable() {
        let (mut history, _) = fixture::mutated(&fixture::cluster(), LEADER_ENDS_EARLY);
        history.facts.flush = Flush::PageCache;
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }
}
