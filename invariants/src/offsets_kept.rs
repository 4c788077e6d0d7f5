//! **offsets-kept.** A committed offset that was acknowledged is there until a later commit replaces it, over failovers of
//! its coordinator too; and none is stored in the name of a generation that is over.
//!
//! Source: semantics rule 20; KIP-98 for offsets in transactions, KIP-447 for their members. Three looks: clients' own
//! answers, as a register per group and partition in which an unknown commit may take effect at any time or never; what a
//! coordinator finds when it loads, against what was durable before, or was committed since; and that no commit comes into
//! the log in the name of a generation that is over there.
//!
//! As in Kafka, a commit that its member sent twice can be heard twice: 1. a commit of offset 33 gets no answer in time;
//! 2. it is sent once more on another connection and acknowledged; 3. the same member commits 49; 4. the bytes of the first
//! connection arrive, and the offset is 33 again. What is between is read twice and nothing is lost.
//!
//! Not claimed: order between concurrent commits; that a client commits forward (it may go back on purpose).

use std::collections::{BTreeMap, BTreeSet};

use history::{Observation, Observed, Op, OpId, OpKind, OpResult, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "offsets-kept",
    statement: "an acknowledged committed offset stays until a later commit, over failovers too, and none is stored in the \
                name of a generation that is over",
    source: "semantics rule 20, KIP-98, KIP-447",
    kind: Kind::Safety,
    check,
};

/// (group, topic, partition).
type Slot<'a> = (&'a str, &'a str, i32);

fn check(context: &Context<'_>) -> Verdict {
    let mut found = Violations::of(&PROPERTY);
    clients(context, &mut found);
    loaded(context, &mut found);
    generations(context, &mut found);
    found.verdict()
}

/// Whether it may have been sent twice.
fn is_repeated(context: &Context<'_>, op: &Op) -> bool {
    let took = op.completed_ns.map(|done| done.saturating_sub(op.invoked_ns));
    context.history.facts.repeats_after_ns.is_some_and(|limit| took.is_none_or(|took| took >= limit))
}

/// A commit that came into the log after the end of the generation in whose name it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleCommit<'a> {
    /// The coordinator's word that it is stored.
    pub seen: &'a Observation,
    pub group: &'a str,
    pub member: &'a str,
    pub generation: i32,
    /// The one that was durable by then, and since when.
    pub newest: i32,
    pub since_ns: u64,
}

/// In order of time. A commit is judged and gets its place in the log in one step, so it is in order there even if its
/// transaction ends later.
pub fn stale_commits(observations: &[Observation]) -> impl Iterator<Item = StaleCommit<'_>> {
    let mut newest: BTreeMap<&str, (i32, u64)> = BTreeMap::new();
    observations.iter().filter_map(move |seen| {
        match &seen.what {
            Observed::GroupGeneration { group, generation, .. } => {
                newest.insert(group, (*generation, seen.at_ns));
            }
            Observed::GroupGone { group } => {
                newest.remove(group.as_str());
            }
            Observed::CommitStored { group, member, generation } if *generation >= 0 => {
                let (newest, since_ns) = newest.get(group.as_str()).copied().filter(|(is, _)| generation < is)?;
                return Some(StaleCommit { seen, group, member, generation: *generation, newest, since_ns });
            }
            _ => {}
        }
        None
    })
}

/// No commit comes into the log after a generation later than its own.
fn generations(context: &Context<'_>, found: &mut Violations) {
    for stale in stale_commits(&context.history.observations) {
        let StaleCommit { group, member, generation, newest, since_ns, .. } = stale;
        let witness = Witness::at(format_args!("group {group} generation {generation}")).about(member);
        let witness = witness.expected(format_args!("ILLEGAL_GENERATION: {newest} is durable since {since_ns} ns"));
        found.add(None, "a commit of an earlier generation is taken", witness.found("its offsets are stored"));
    }
}

/// Each answer to a fetch is a commit's offset that no acknowledged commit is sure to have replaced.
fn clients(context: &Context<'_>, found: &mut Violations) {
    let ops = &context.history.ops;
    let mut commits: BTreeMap<Slot<'_>, Vec<(OpId, &Op, i64)>> = BTreeMap::new();
    for (i, op) in ops.iter().enumerate() {
        if let OpKind::CommitOffset { group, topic, partition, offset } = &op.kind {
            commits.entry((group, topic, *partition)).or_default().push((OpId(i), op, *offset));
        }
    }
    // Offsets that transactions committed have no operation of their own: they count as unknown ones.
    let mut others: BTreeMap<Slot<'_>, Vec<i64>> = BTreeMap::new();
    for seen in &context.history.observations {
        if let Observed::OffsetCommitted { group, topic, partition, offset: Some(offset) } = &seen.what {
            others.entry((group, topic, *partition)).or_default().push(*offset);
        }
    }
    for (i, op) in ops.iter().enumerate() {
        let OpKind::FetchOffset { group, topic, partition } = &op.kind else { continue };
        let (OpResult::Ok { offset }, Some(answered)) = (&op.result, op.completed_ns) else { continue };
        let slot = (group.as_str(), topic.as_str(), *partition);
        let all = commits.get(&slot).map_or(&[][..], Vec::as_slice);
        // The acknowledged commit that began last among those that ended before the fetch began: it replaced whatever
        // ended before it began.
        let known = all.iter().filter(|(_, c, _)| c.is_ok() && c.completed_ns.is_some_and(|ns| ns <= op.invoked_ns));
        let newest = known.max_by_key(|(_, c, _)| c.invoked_ns);
        let may_stand = |c: &Op| match (c.is_ok(), c.completed_ns, newest) {
            _ if c.is_failed() => false,
            (true, Some(done), Some((_, newest, _))) => done >= newest.invoked_ns || is_repeated(context, c),
            _ => true,
        };
        let explained = match offset {
            None => newest.is_none(),
            Some(offset) => {
                let written = all.iter().any(|(_, c, o)| o == offset && c.invoked_ns <= answered && may_stand(c));
                let known = all.iter().any(|(_, _, o)| o == offset);
                written || (!known && others.get(&slot).is_some_and(|all| all.contains(offset)))
            }
        };
        if !explained {
            let failed = all.iter().find(|(_, c, o)| c.is_failed() && Some(*o) == *offset).map(|(id, ..)| *id);
            let is = offset.map_or("none".to_owned(), |offset| format!("offset {offset}"));
            let due = match newest {
                Some((id, _, offset)) => format!("offset {offset} of {}, or a later commit's", context.name_of(*id)),
                None => "none, or an offset that was committed".to_owned(),
            };
            let witness = Witness::at(format_args!("group {group} {topic}-{partition}"));
            let witness = witness.about(context.name_of(OpId(i))).expected(due).found(is);
            let op = failed.or(newest.map(|(id, ..)| *id)).unwrap_or(OpId(i));
            found.add(Some(op), "a fetched offset is not the committed one", witness);
        }
    }
}

/// A coordinator that loads finds what was durable before.
fn loaded(context: &Context<'_>, found: &mut Violations) {
    if context.history.facts.disks_lost {
        return;
    }
    let mut durable: BTreeMap<Slot<'_>, (i64, u64)> = BTreeMap::new();
    let mut before: BTreeMap<Slot<'_>, BTreeSet<i64>> = BTreeMap::new();
    let mut commits: BTreeMap<Slot<'_>, Vec<(&Op, i64)>> = BTreeMap::new();
    for op in &context.history.ops {
        if let OpKind::CommitOffset { group, topic, partition, offset } = &op.kind {
            commits.entry((group, topic, *partition)).or_default().push((op, *offset));
        }
    }
    for seen in &context.history.observations {
        match &seen.what {
            Observed::OffsetCommitted { group, topic, partition, offset } => {
                let slot = (group.as_str(), topic.as_str(), *partition);
                match offset {
                    Some(offset) => {
                        before.entry(slot).or_default().insert(*offset);
                        durable.insert(slot, (*offset, seen.at_ns))
                    }
                    None => durable.remove(&slot),
                };
            }
            Observed::OffsetsLoaded { coordinator, coordinator_epoch, groups, offsets } => {
                let held: BTreeMap<Slot<'_>, i64> =
                    offsets.iter().map(|o| ((&*o.group, &*o.topic, o.partition), o.offset)).collect();
                for (slot, (due, since)) in durable.iter().filter(|((group, ..), _)| groups.iter().any(|g| g == group))
                {
                    let is = held.get(slot);
                    // A coordinator may die between storing a commit and telling of it: what replaced the last one told is
                    // a commit that was under way since. Members that commit by themselves have no operations: of
                    // theirs only what was replaced before is known not to be it.
                    let replaced = is.is_some_and(|is| match commits.get(slot) {
                        Some(commits) => commits.iter().any(|(op, offset)| {
                            let under_way = op.completed_ns.is_none_or(|done| done >= *since)
                                || op.is_unknown()
                                || is_repeated(context, op);
                            offset == is && !op.is_failed() && op.invoked_ns <= seen.at_ns && under_way
                        }),
                        None => !before.get(slot).is_some_and(|before| before.contains(is)),
                    });
                    if is != Some(due) && !replaced {
                        let (group, topic, partition) = slot;
                        let is = is.map_or("none".to_owned(), |offset| format!("offset {offset}"));
                        let witness = Witness::at(format_args!("group {group} {topic}-{partition}"))
                            .about(format_args!("coordinator {coordinator}, loaded in epoch {coordinator_epoch}"))
                            .expected(format_args!("offset {due}, durable since {since} ns"))
                            .found(is);
                        found.add(None, "a coordinator loads another offset than was committed", witness);
                    }
                }
            }
            Observed::GroupGone { group } => durable.retain(|(g, ..), _| g != group),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use history::{LoadedOffset, Observation, Observer};

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
            &[
                OFFSET_DROPS,
                OFFSETS_SWAP,
                OFFSET_SHIFTS,
                OFFSET_UNACKNOWLEDGES,
                OFFSET_MISATTRIBUTES,
                COMMIT_SHIFTS_GENERATION,
                LOADED_DROPS,
                LOADED_SHIFTS,
            ],
            &[(Mutator::Duplicate, "the same offset committed again is the same offset")],
        );
    }

    /// Commits of these offsets by one member, each with its answer and how long that took; then a fetch finds `found`, and
    /// so does a coordinator that loads.
    fn verdicts(commits: &[(i64, OpResult, u64)], found: i64) -> [Verdict; 2] {
        let (group, topic, partition) = ("g".to_owned(), "data".to_owned(), 0);
        let mut asked = fixture::broker();
        let mut at_ns = 10;
        for (n, (offset, result, took_ns)) in (1..).zip(commits) {
            let (group, topic, offset) = (group.clone(), topic.clone(), *offset);
            let id = asked.invoke(9, n, at_ns, OpKind::CommitOffset { group, topic, partition, offset });
            at_ns += took_ns;
            asked.complete(id, at_ns, result.clone());
            at_ns += 1;
        }
        let mut loaded = asked.clone();
        let id =
            asked.invoke(9, 99, at_ns, OpKind::FetchOffset { group: group.clone(), topic: topic.clone(), partition });
        asked.complete(id, at_ns + 5, OpResult::Ok { offset: Some(found) });

        let newest =
            commits.iter().rfind(|(_, result, _)| matches!(result, OpResult::Ok { .. })).expect("one is known");
        let (coordinator, coordinator_epoch, groups) = (0, 1, vec![group.clone()]);
        let offsets = vec![LoadedOffset { group: group.clone(), topic: topic.clone(), partition, offset: found }];
        let observer = Observer::Node { node: 0, incarnation: 0 };
        for what in [
            Observed::OffsetCommitted { group, topic, partition, offset: Some(newest.0) },
            Observed::OffsetsLoaded { coordinator, coordinator_epoch, groups, offsets },
        ] {
            loaded.observations.push(Observation { at_ns, observer: observer.clone(), what });
        }
        [asked, loaded].map(|history| PROPERTY.check(&Context::new(&history)))
    }

    #[test]
    fn an_unknown_commit_may_take_effect_or_not() {
        let commits = [(5, OpResult::Ok { offset: None }, 5), (6, OpResult::Unknown { reason: None }, 5)];
        for found in [5, 6] {
            assert_eq!(verdicts(&commits, found), [Verdict::Pass, Verdict::Pass]);
        }
    }

    /// Regression: a plan of rebalance_storm; its run failed here though nothing was lost.
    #[test]
    fn a_commit_that_was_sent_twice_may_be_heard_twice() {
        let ok = || OpResult::Ok { offset: None };
        let limit = fixture::broker().facts.repeats_after_ns.expect("a limit");
        assert_eq!(verdicts(&[(33, ok(), limit), (49, ok(), 5)], 33), [Verdict::Pass, Verdict::Pass]);
        for verdict in verdicts(&[(33, ok(), limit - 1), (49, ok(), 5)], 33) {
            assert!(matches!(verdict, Verdict::Fail(_)), "{verdict:?}");
        }
    }
}
