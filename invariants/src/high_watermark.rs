//! **high-watermark-monotonic.** The high watermark of a partition never falls.
//!
//! Source: Kafka's replication protocol (KIP-101, KIP-279, KIP-207): what a consumer could read stays readable. Within one
//! life of a broker and one leader epoch it never falls; with `flush=fsync` it counts durable records only, so it does not
//! fall over restarts or failovers either, and the final read is not below it. A follower's own may lag its leader's, and so
//! may what a broker of several finds on its disk after a restart; a new leader may begin with the one that it knew, and the
//! next that it tells is not below the old leader's, since all in-sync members had that much. A follower's own never falls
//! within one life and one leader epoch.
//!
//! Not claimed: anything over restarts under page-cache acknowledgement, or over lost disks.

use std::collections::{BTreeMap, BTreeSet};

use history::{Flush, LogSource, Observation, Observed, Observer, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "high-watermark-monotonic",
    statement: "the high watermark never falls, over restarts too when acknowledged means flushed",
    source: "KIP-101, KIP-279, semantics rule 21",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let mut found = Violations::of(&PROPERTY);
    never_falls(context, &mut found, "high watermark", |what| match what {
        Observed::HighWatermark { topic, partition, leader_epoch, offset } => {
            Some((topic, *partition, *leader_epoch, *offset))
        }
        _ => None,
    });
    followers_never_fall(context, &mut found);
    found.verdict()
}

/// What a follower took from a leader it keeps for as long as it lives and follows in that leader epoch. A fall says that
/// it took what the leader had said of another log than its own, and cut that away afterwards (KAFKA-14704).
fn followers_never_fall(context: &Context<'_>, found: &mut Violations) {
    let mut last: BTreeMap<(&Observer, &str, i32, i32), (i64, &Observation)> = BTreeMap::new();
    for seen in &context.history.observations {
        let Observed::FollowerHighWatermark { topic, partition, leader_epoch, offset } = &seen.what else { continue };
        let slot = (&seen.observer, topic.as_str(), *partition, *leader_epoch);
        if let Some((was, before)) = last.insert(slot, (*offset, seen))
            && was > *offset
        {
            let witness = Witness::partition(topic, *partition)
                .about("a follower's high watermark")
                .expected(format_args!("at least {was}, seen by {} at {} ns", before.observer, before.at_ns))
                .found(format_args!("{offset} at leader epoch {leader_epoch}, at {} ns", seen.at_ns));
            found.add(None, "a follower's high watermark fell in one life and leader epoch", witness);
        }
    }
}

/// Shared with the last stable offset: offsets picked from observations never fall per observer, partition and leader
/// epoch; per node and over everything with `flush=fsync`.
pub(crate) fn never_falls(
    context: &Context<'_>,
    found: &mut Violations,
    name: &str,
    pick: impl Fn(&Observed) -> Option<(&String, i32, i32, i64)>,
) {
    let durable = context.history.facts.flush == Flush::Fsync && !context.history.facts.disks_lost;
    let mut last: BTreeMap<(&Observer, &str, i32, i32), &Observation> = BTreeMap::new();
    let mut ever: BTreeMap<(&str, i32), (i64, &Observation)> = BTreeMap::new();
    let brokers: BTreeSet<u32> = context
        .history
        .observations
        .iter()
        .filter_map(|seen| match (&seen.observer, pick(&seen.what)) {
            (Observer::Node { node, .. }, Some(_)) => Some(*node),
            _ => None,
        })
        .collect();
    let mut begun: BTreeMap<(&str, i32, i32), (i64, &Observer)> = BTreeMap::new();
    for seen in &context.history.observations {
        let Some((topic, partition, leader_epoch, offset)) = pick(&seen.what) else { continue };
        let witness = |before: &Observation| {
            let (was, epoch) = pick(&before.what).map_or((0, 0), |(_, _, epoch, was)| (was, epoch));
            let sight = |at: &Observation, epoch: i32, offset: i64| {
                format!("{offset} at leader epoch {epoch}, seen by {} at {} ns", at.observer, at.at_ns)
            };
            Witness::partition(topic, partition)
                .about(name)
                .expected(format_args!("at least {}", sight(before, epoch, was)))
                .found(sight(seen, leader_epoch, offset))
        };
        let slot = (&seen.observer, topic.as_str(), partition, leader_epoch);
        if let Some(before) = last.insert(slot, seen)
            && pick(&before.what).is_some_and(|(.., was)| was > offset)
        {
            found.add(None, format!("the {name} fell in one life of its observer"), witness(before));
            continue;
        }
        if !matches!(seen.observer, Observer::Node { .. }) {
            continue;
        }
        let begin = *begun.entry((topic, partition, leader_epoch)).or_insert((offset, &seen.observer));
        let newest = ever.get(&(topic.as_str(), partition)).and_then(|(_, before)| pick(&before.what));
        if newest.is_some_and(|(_, _, epoch, _)| leader_epoch < epoch) {
            // A leader that does not know yet that it is none: what it tells is true, and old.
            continue;
        }
        match ever.get(&(topic.as_str(), partition)) {
            Some((was, before)) if *was > offset => {
                let inherited = begin == (offset, &seen.observer)
                    && pick(&before.what).is_some_and(|(_, _, epoch, _)| epoch < leader_epoch)
                    && (brokers.len() > 1 || !same_node(&before.observer, &seen.observer));
                if durable && !inherited {
                    found.add(None, format!("the {name} fell over a restart or failover"), witness(before));
                }
            }
            _ => {
                ever.insert((topic, partition), (offset, seen));
            }
        }
    }
    if !durable {
        return;
    }
    for ((topic, partition), (was, seen)) in ever {
        let Some(log) = context.history.log(&LogSource::ReadUncommitted, topic, partition) else { continue };
        if log.log_end_offset < was {
            let witness = Witness::partition(topic, partition)
                .about(name)
                .expected(format_args!("a log up to {was} at least, seen by {} at {} ns", seen.observer, seen.at_ns))
                .found(format_args!("the final log ends at {}", log.log_end_offset));
            found.add(None, format!("the {name} was past the end of the final log"), witness);
        }
    }
}

fn same_node(a: &Observer, b: &Observer) -> bool {
    matches!((a, b), (Observer::Node { node: a, .. }, Observer::Node { node: b, .. }) if a == b)
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
        fixture::rejects(
            &PROPERTY,
            &[DROP_TAIL, SWAP_HIGH, LOWER_HIGH, MISATTRIBUTE_HIGH],
            &[
                (Mutator::Duplicate, "the same offset again is no fall"),
                (Mutator::Unacknowledge, "clients' answers tell nothing of it"),
            ],
        );
    }

    #[test]
    fn rejects_a_fall_over_a_failover_but_for_what_a_follower_knew() {
        let (history, targets) = fixture::mutated(&fixture::cluster(), HIGH_FALLS_OVER_FAILOVER);
        let verdict = PROPERTY.check(&Context::new(&history));
        assert!(verdict.violations().iter().any(|v| targets[0].is_named_by(v)), "{verdict:?}");
    }

    fn set(history: &mut history::History, i: usize, offset_to: i64) {
        let marks: Vec<usize> = (0..history.observations.len())
            .filter(|i| matches!(history.observations[*i].what, Observed::HighWatermark { partition: 0, .. }))
            .collect();
        if let Observed::HighWatermark { offset, .. } = &mut history.observations[marks[i]].what {
            *offset = offset_to;
        }
    }

    #[test]
    fn rejects_a_fall_in_one_life() {
        let mut history = fixture::broker();
        set(&mut history, 1, 0);
        assert!(!PROPERTY.check(&Context::new(&history)).violations().is_empty());
    }

    #[test]
    fn rejects_a_fall_of_a_follower_in_one_leader_epoch() {
        let mut history = fixture::cluster();
        let of_follower = |seen: &Observation| matches!(seen.what, Observed::FollowerHighWatermark { .. });
        let at = history.observations.iter().rposition(of_follower).unwrap();
        let mut again = history.observations[at].clone();
        history.observations.insert(at + 1, again.clone());
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass, "the same again is no fall");
        if let Observed::FollowerHighWatermark { offset, .. } = &mut again.what {
            *offset -= 1;
        }
        history.observations.insert(at + 1, again);
        assert!(!PROPERTY.check(&Context::new(&history)).violations().is_empty());
    }

    #[test]
    fn rejects_a_fall_over_a_restart_only_if_flushed() {
        let mut history = fixture::broker();
        for seen in history.observations.iter_mut().skip(2) {
            seen.observer = Observer::Node { node: 0, incarnation: 1 };
            if let Observed::HighWatermark { leader_epoch, .. } = &mut seen.what {
                *leader_epoch = 1;
            }
        }
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
        let marks = history.observations.len();
        for seen in history.observations[2..marks].iter_mut() {
            if let Observed::HighWatermark { offset, .. } = &mut seen.what {
                *offset = 0;
            }
        }
        assert!(!PROPERTY.check(&Context::new(&history)).violations().is_empty());
        history.facts.flush = Flush::PageCache;
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }
}
