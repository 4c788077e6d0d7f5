//! What members of a group did with the guilty partition: who owned it, what they polled of it, and what was committed.

use std::collections::{BTreeMap, BTreeSet};

use history::{Observed, Observer, Op, OpId, OpKind, OpResult, TopicPartition};
use invariants::StaleCommit;

use super::clue::Clue;
use super::names::Names;
use super::told::{Story, Weight};
use super::{Case, StepKind};

/// Polls that are told: around the record, the last ones otherwise.
const MAX_POLLS: usize = 6;
/// Commits and owners that are told; the last ones.
const MAX_OTHERS: usize = 6;

pub(super) fn tell(case: &Case<'_>, names: &Names, clue: &Clue, story: &mut Story) {
    stale_commits(case, names, clue, story);
    let Some(place) = place(case, clue) else { return };
    let offset = [&clue.origin, &clue.record]
        .into_iter()
        .flatten()
        .find(|(t, p, _)| *t == place.topic && *p == place.partition)
        .map(|(.., offset)| *offset);
    let view = View { case, place: &place, offset, clue };
    view.owners(names, story);
    view.polls(story);
    view.commits(names, story);
}

/// Commits that came into the log after the end of the generation in whose name they were made.
fn stale_commits(case: &Case<'_>, names: &Names, clue: &Clue, story: &mut Story) {
    let meant = |group: &str| clue.group.as_ref().is_none_or(|g| g == group);
    let stale = invariants::stale_commits(&case.history.observations).filter(|stale| meant(stale.group));
    for StaleCommit { seen, group, member, generation, newest, .. } in stale.take(MAX_OTHERS) {
        let what = format!(
            "stores a commit of {member} in generation {generation} of group {group}, though generation {newest} is in the \
             log"
        );
        let who = names.observer(&seen.observer);
        story.odd("commit of an earlier generation", StepKind::Broker, seen.at_ns, who, what);
    }
}

/// The partition that a group reads: of the record, or of what it is a copy of.
fn place(case: &Case<'_>, clue: &Clue) -> Option<TopicPartition> {
    let groups: BTreeSet<&str> = case
        .history
        .observations
        .iter()
        .filter_map(|seen| match &seen.what {
            Observed::OffsetCommitted { topic, .. } => Some(topic.as_str()),
            Observed::GroupGeneration { members, .. } => Some(members.first()?.partitions.first()?.topic.as_str()),
            _ => None,
        })
        .collect();
    let read = |topic: &str| groups.contains(topic);
    let records = [&clue.origin, &clue.record].into_iter().flatten();
    let of_record = records.map(|(topic, p, _)| (topic, *p)).find(|(topic, _)| read(topic));
    let of_place = || clue.partition.as_ref().map(|(topic, p)| (topic, *p)).filter(|(topic, _)| read(topic));
    of_record.or_else(of_place).map(|(topic, p)| TopicPartition::new(topic.clone(), p))
}

struct View<'a> {
    case: &'a Case<'a>,
    place: &'a TopicPartition,
    /// Of the record, if it is about one.
    offset: Option<i64>,
    clue: &'a Clue,
}

impl View<'_> {
    /// To whom coordinators gave the partition, and who said that it has it.
    fn owners(&self, names: &Names, story: &mut Story) {
        let place = self.place;
        let mut owner: BTreeMap<&str, String> = BTreeMap::new();
        let meant = |group: &str| self.clue.group.as_ref().is_none_or(|g| g == group);
        // By group and member: who says that it has the partition.
        let mut has: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        let mut told = Vec::new();
        for seen in &self.case.history.observations {
            let who = names.observer(&seen.observer);
            match &seen.what {
                Observed::GroupGeneration { group, generation, members } if meant(group) => {
                    let Some(next) = members.iter().find(|m| m.partitions.contains(place)) else { continue };
                    let was = owner.insert(group, next.member.clone());
                    let what = format!("generation {generation} of group {group} gives {place} to {}", next.member);
                    let still = has.iter().find(|((g, m), _)| g == group && *m != next.member);
                    // One that is no member any more is not asked.
                    let still = still.filter(|((_, m), _)| members.iter().any(|other| other.member == *m));
                    match still {
                        Some((_, client)) => {
                            let what = format!("{what}, though client-{client} has not given it up");
                            story.odd("given twice", StepKind::Broker, seen.at_ns, who, what);
                        }
                        None if was.as_ref() == Some(&next.member) => {}
                        None => told.push((seen.at_ns, StepKind::Broker, who, what)),
                    }
                }
                Observed::GroupMember { group, member, epoch, assigned, .. }
                    if assigned.contains(place)
                        && meant(group)
                        && owner.insert(group, member.clone()).as_ref() != Some(member) =>
                {
                    let what = format!("epoch {epoch} of group {group} gives {place} to {member}");
                    told.push((seen.at_ns, StepKind::Broker, who, what));
                }
                Observed::Assigned { group, member, generation, partitions, lost } if meant(group) => {
                    let Observer::Client { client } = seen.observer else { continue };
                    let key = (group.as_str(), member.as_str());
                    let change = match (has.contains_key(&key), partitions.contains(place)) {
                        (false, true) => {
                            has.insert(key, client);
                            format!("owns {place} in generation {generation} of group {group}")
                        }
                        (true, false) => {
                            has.remove(&key);
                            let verb = if *lost { "has lost" } else { "gives up" };
                            format!("{verb} {place} of group {group}")
                        }
                        _ => continue,
                    };
                    told.push((seen.at_ns, StepKind::Client, who, change));
                }
                _ => {}
            }
        }
        let surplus = told.len().saturating_sub(MAX_OTHERS);
        for (at_ns, kind, who, what) in told.into_iter().skip(surplus) {
            story.tell(Weight::Near, kind, at_ns, who, what);
        }
    }

    /// The first and last offset that a poll brought of the partition.
    fn brought(&self, op: &Op) -> Option<(i64, i64)> {
        let OpResult::Polled { reads } = &op.result else { return None };
        let here = reads.iter().filter(|r| r.topic == self.place.topic && r.partition == self.place.partition);
        let offsets: Vec<i64> = here.flat_map(|r| &r.records).map(|r| r.offset).collect();
        Some((*offsets.first()?, *offsets.last()?))
    }

    /// Members' polls of the partition, with the ends of the transactions that they were in.
    fn polls(&self, story: &mut Story) {
        let ops = &self.case.history.ops;
        let place = self.place;
        let mut owned: BTreeMap<u32, bool> = BTreeMap::new();
        // Of each client: what its last poll brought, and in which transaction.
        let mut last: BTreeMap<u32, (i64, i64, Option<u64>)> = BTreeMap::new();
        let mut told: Vec<(OpId, Option<u64>, bool)> = Vec::new();
        // What was polled in transactions, by whom, and in which.
        let mut in_txns: Vec<(u32, i64, i64, u64)> = Vec::new();
        let members: BTreeSet<u32> =
            ops.iter().filter(|op| matches!(op.kind, OpKind::Subscribe { .. })).map(|op| op.client).collect();
        for (i, op) in ops.iter().enumerate().filter(|(_, op)| members.contains(&op.client)) {
            match &op.kind {
                OpKind::Subscribe { .. } => {
                    owned.insert(op.client, false);
                    last.remove(&op.client);
                }
                OpKind::Rebalance { assigned } => {
                    owned.insert(op.client, assigned.contains(place));
                    if !assigned.contains(place) {
                        last.remove(&op.client);
                    }
                }
                OpKind::Poll { txn, .. } => {
                    let (Some((from, to)), Some(at_ns)) = (self.brought(op), op.completed_ns) else { continue };
                    let before = last.insert(op.client, (from, to, *txn));
                    // One that was never committed may have timed out.
                    let again = txn.and_then(|txn| {
                        let same = |(_, f, t, earlier): &&(u32, i64, i64, u64)| {
                            *f <= to && *t >= from && *earlier != txn && self.ended(*earlier) == Some(true)
                        };
                        let again = in_txns.iter().find(same).copied();
                        in_txns.push((op.client, from, to, txn));
                        again
                    });
                    let in_txn = txn.map_or(String::new(), |txn| format!(" in transaction {txn}"));
                    let polls = format!("polls {place} offsets {from} to {to}{in_txn}");
                    let who = format!("client-{}", op.client);
                    let holds = self.offset.is_some_and(|o| (from..=to).contains(&o));
                    if owned.get(&op.client) == Some(&false) {
                        let what = format!("{polls}, though it had given {place} up");
                        story.odd("polls", StepKind::Client, at_ns, &who, what);
                        continue;
                    }
                    if let Some((first, _, Some(earlier))) = before
                        && self.ended(earlier) == Some(false)
                        && from > first
                    {
                        let what = format!("{polls}, though it aborted transaction {earlier}, which began at {first}");
                        story.odd("goes on after abort", StepKind::Client, at_ns, &who, what);
                        continue;
                    }
                    if let Some((client, .., earlier)) = again {
                        let done = self.end_of(earlier).is_some_and(|e| e.completed_ns.is_some_and(|ns| ns <= at_ns));
                        let state = if done { "was committed" } else { "is open" };
                        let what =
                            format!("{polls}, though transaction {earlier} of client-{client}, with the same, {state}");
                        story.odd("polls again", StepKind::Client, at_ns, &who, what);
                        continue;
                    }
                    told.push((OpId(i), *txn, holds));
                }
                OpKind::CommitOffset { group, topic, partition, offset } => {
                    if *topic != place.topic || *partition != place.partition {
                        continue;
                    }
                    let Some((first, _, Some(earlier))) = last.get(&op.client).copied() else { continue };
                    let over = self.end_of(earlier).is_some_and(|end| end.invoked_ns < op.invoked_ns);
                    if over && self.ended(earlier) == Some(false) && *offset > first {
                        let what = format!(
                            "commits offset {offset} of group {group} for {place}, though it aborted transaction \
                             {earlier}, which began at {first}"
                        );
                        let who = format!("client-{}", op.client);
                        story.odd("goes on after abort", StepKind::Client, op.invoked_ns, who, what);
                    }
                }
                _ => {}
            }
        }
        let shown: Vec<_> = match told.iter().any(|(.., holds)| *holds) {
            true => told.into_iter().filter(|(.., holds)| *holds).take(MAX_POLLS).collect(),
            false => {
                let surplus = told.len().saturating_sub(MAX_POLLS);
                told.into_iter().skip(surplus).collect()
            }
        };
        for (OpId(i), txn, holds) in shown {
            let op = &ops[i];
            let (Some((from, to)), Some(at_ns)) = (self.brought(op), op.completed_ns) else { continue };
            let weight = if holds { Weight::Own } else { Weight::Near };
            let in_txn = txn.map_or(String::new(), |txn| format!(" in transaction {txn}"));
            let what = format!("polls {place} offsets {from} to {to}{in_txn}");
            story.tell(weight, StepKind::Client, at_ns, format!("client-{}", op.client), what);
            if let Some(end) = txn.and_then(|txn| self.end_of(txn))
                && let OpKind::EndTxn { txn, commit } = end.kind
            {
                let verb = if commit { "commits" } else { "aborts" };
                let what = format!("{verb} transaction {txn}");
                story.tell(weight, StepKind::Client, end.invoked_ns, format!("client-{}", end.client), what);
            }
        }
    }

    fn end_of(&self, wanted: u64) -> Option<&Op> {
        self.case.history.ops.iter().find(|op| matches!(op.kind, OpKind::EndTxn { txn, .. } if txn == wanted))
    }

    /// Whether the transaction was committed; nothing if nobody knows.
    fn ended(&self, txn: u64) -> Option<bool> {
        let end = self.end_of(txn)?;
        match end.kind {
            OpKind::EndTxn { commit, .. } if end.is_ok() => Some(commit),
            _ => None,
        }
    }

    /// Offsets that were committed for the partition.
    fn commits(&self, names: &Names, story: &mut Story) {
        let place = self.place;
        let mut stored: BTreeMap<&str, i64> = BTreeMap::new();
        let mut told = Vec::new();
        for seen in &self.case.history.observations {
            let Observed::OffsetCommitted { group, topic, partition, offset: Some(offset) } = &seen.what else {
                continue;
            };
            if *topic != place.topic || *partition != place.partition {
                continue;
            }
            let who = names.observer(&seen.observer);
            let what = format!("stores offset {offset} of group {group} for {place}");
            let was = stored.insert(group, *offset);
            if let Some(was) = was.filter(|was| offset < was) {
                let what = format!("{what}, though {was} was stored before");
                story.odd("stored offset falls", StepKind::Broker, seen.at_ns, who, what);
            } else if let Some((owner, from)) = self.overtaken(group, *offset, seen.at_ns) {
                let what = format!("{what}, as another asked, though client-{owner} has it and was given {from}");
                story.odd("stored for another", StepKind::Broker, seen.at_ns, who, what);
            } else if let Some(record) = self.offset.filter(|o| o < offset && was.is_none_or(|was| was <= *o)) {
                if self.polled_by(group, record, seen.at_ns) {
                    story.tell(Weight::Own, StepKind::Broker, seen.at_ns, who, what);
                } else {
                    let what = format!("{what}, though no member had worked on {record}");
                    story.odd("not polled", StepKind::Broker, seen.at_ns, who, what);
                }
            } else {
                told.push((seen.at_ns, who, what));
            }
        }
        if self.offset.is_none() {
            let surplus = told.len().saturating_sub(MAX_OTHERS);
            for (at_ns, who, what) in told.into_iter().skip(surplus) {
                story.tell(Weight::Near, StepKind::Broker, at_ns, who, what);
            }
        }
        self.late_commits(story);
    }

    /// Who owns the partition by then, and read on below an offset that is stored though it did not commit it: whom it was
    /// given to after the one that did.
    fn overtaken(&self, group: &str, stored: i64, at_ns: u64) -> Option<(u32, i64)> {
        let history = self.case.history;
        let owner = history.observations.iter().rev().filter(|seen| seen.at_ns <= at_ns).find_map(|seen| {
            match (&seen.what, &seen.observer) {
                (Observed::Assigned { group: g, partitions, .. }, Observer::Client { client })
                    if g == group && partitions.contains(self.place) =>
                {
                    Some((*client, seen.at_ns))
                }
                _ => None,
            }
        });
        let (owner, since) = owner?;
        let own = |op: &&Op| op.client == owner && op.invoked_ns >= since && op.invoked_ns <= at_ns;
        // What it commits in a transaction is stored when that is committed.
        let is_it = |op: &Op| match &op.kind {
            OpKind::CommitOffset { group: g, topic, partition, offset } => {
                let here = *topic == self.place.topic && *partition == self.place.partition;
                here && g == group && *offset == stored && !self.in_open_transaction(op, at_ns)
            }
            _ => false,
        };
        if history.ops.iter().filter(own).any(is_it) {
            return None;
        }
        // One that commits by itself has no operation for it.
        if !history.ops.iter().any(|op| op.client == owner && matches!(op.kind, OpKind::CommitOffset { .. })) {
            return None;
        }
        let polled = |op: &Op| op.completed_ns.filter(|done| *done <= at_ns).and_then(|_| self.brought(op));
        let first = history.ops.iter().filter(own).filter_map(polled).map(|(from, _)| from).min()?;
        (first < stored).then_some((owner, first))
    }

    /// Whether the operation is of a transaction that its client had not begun to end by then.
    fn in_open_transaction(&self, op: &Op, at_ns: u64) -> bool {
        let ops = &self.case.history.ops;
        let later = |other: &&Op| other.client == op.client && other.invoked_ns >= op.invoked_ns;
        let end = ops.iter().filter(later).find(|other| matches!(other.kind, OpKind::EndTxn { .. }));
        end.is_some_and(|end| end.invoked_ns > at_ns)
    }

    /// Whether a poll of a member that was over by then had brought the record.
    fn polled_by(&self, group: &str, record: i64, at_ns: u64) -> bool {
        let history = self.case.history;
        let group = history.facts.groups.iter().find(|g| g.name == group);
        let is_member = |op: &&Op| group.is_none_or(|g| g.clients.contains(&op.client));
        let polls = history.ops.iter().filter(is_member).filter(|op| op.completed_ns.is_some_and(|done| done <= at_ns));
        polls.filter_map(|op| self.brought(op)).any(|(from, to)| (from..=to).contains(&record))
    }

    /// Commits that were acknowledged to a member of an earlier generation than the group's.
    fn late_commits(&self, story: &mut Story) {
        let history = self.case.history;
        for op in &history.ops {
            let OpKind::CommitOffset { group, topic, partition, offset } = &op.kind else { continue };
            let Some(done) = op.completed_ns.filter(|_| op.is_ok()) else { continue };
            if *topic != self.place.topic || *partition != self.place.partition {
                continue;
            }
            let client = Observer::Client { client: op.client };
            let before = || history.observations.iter().rev().filter(|seen| seen.at_ns <= op.invoked_ns);
            let own = before().find_map(|seen| match &seen.what {
                Observed::Assigned { group: g, member, generation, .. } if g == group && seen.observer == client => {
                    Some((member, *generation))
                }
                _ => None,
            });
            let newest = before().find_map(|seen| match &seen.what {
                Observed::GroupGeneration { group: g, generation, members } if g == group => {
                    let owner = members.iter().find(|m| m.partitions.contains(self.place));
                    Some((owner.map(|m| &m.member), *generation))
                }
                _ => None,
            });
            // A member whose partitions stay says nothing of a new generation.
            if let (Some((member, own)), Some((owner, groups))) = (own, newest)
                && own < groups
                && owner != Some(member)
            {
                let what = format!(
                    "hears that offset {offset} of {} is committed in its generation {own} of group {group}, though \
                     generation {groups} has given it to another",
                    self.place
                );
                story.odd("late commit", StepKind::Client, done, format!("client-{}", op.client), what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use history::{MemberAssignment, PolledPartition, PolledRecord};

    use super::super::fixture::Scene;
    use super::*;

    fn here() -> TopicPartition {
        TopicPartition::new("events", 0)
    }

    fn generation(scene: &mut Scene, generation: i32, owner: &str, others: &[&str]) {
        let mut members = vec![MemberAssignment { member: owner.into(), partitions: vec![here()] }];
        members.extend(others.iter().map(|m| MemberAssignment { member: (*m).into(), partitions: Vec::new() }));
        scene.see(0, Observed::GroupGeneration { group: "g".into(), generation, members });
    }

    fn assigned(scene: &mut Scene, client: u32, generation: i32, partitions: Vec<TopicPartition>) {
        let (group, member) = ("g".into(), format!("m{client}"));
        scene.hear(
            client,
            Observed::Assigned { group, member, generation, partitions: partitions.clone(), lost: false },
        );
        scene.op(client, OpKind::Rebalance { assigned: partitions }, OpResult::Ok { offset: None });
    }

    fn poll(scene: &mut Scene, client: u32, offsets: std::ops::Range<i64>, txn: Option<u64>) {
        let records = offsets.map(|offset| PolledRecord { offset, client: 9, n: offset as u64 }).collect();
        let reads = vec![PolledPartition { topic: "events".into(), partition: 0, records }];
        scene.op(client, OpKind::Poll { read_committed: true, txn }, OpResult::Polled { reads });
    }

    fn end(scene: &mut Scene, client: u32, txn: u64, commit: bool) {
        scene.op(client, OpKind::EndTxn { txn, commit }, OpResult::Ok { offset: None });
    }

    fn stored(scene: &mut Scene, offset: i64) {
        let (group, topic, offset) = ("g".into(), "events".into(), Some(offset));
        scene.see(0, Observed::OffsetCommitted { group, topic, partition: 0, offset });
    }

    /// Client 1 owns the partition in generation 1.
    fn owned() -> Scene {
        let mut scene = Scene::new();
        scene.clue.record = Some(("events".into(), 0, 2));
        for client in [1, 2] {
            scene.op(client, OpKind::Subscribe { topics: vec!["events".into()] }, OpResult::Ok { offset: None });
        }
        generation(&mut scene, 1, "m1", &["m2"]);
        assigned(&mut scene, 1, 1, vec![here()]);
        scene
    }

    #[test]
    fn a_partition_changes_hands_in_turn() {
        let mut scene = owned();
        poll(&mut scene, 1, 0..3, Some(11));
        end(&mut scene, 1, 11, true);
        stored(&mut scene, 3);
        assigned(&mut scene, 1, 1, Vec::new());
        generation(&mut scene, 2, "m2", &["m1"]);
        assigned(&mut scene, 2, 2, vec![here()]);
        poll(&mut scene, 2, 3..5, Some(21));
        assert_eq!(scene.odd(tell), [""; 0]);
        assert_eq!(
            scene.all(tell),
            [
                "broker-0: generation 1 of group g gives events-0 to m1",
                "client-1: owns events-0 in generation 1 of group g",
                "client-1: gives up events-0 of group g",
                "broker-0: generation 2 of group g gives events-0 to m2",
                "client-2: owns events-0 in generation 2 of group g",
                "client-1: polls events-0 offsets 0 to 2 in transaction 11",
                "client-1: commits transaction 11",
                "broker-0: stores offset 3 of group g for events-0",
            ]
        );
    }

    #[test]
    fn a_partition_given_twice_and_polls_of_what_was_given_up_are_named() {
        let mut scene = owned();
        generation(&mut scene, 2, "m2", &["m1"]);
        assigned(&mut scene, 1, 2, Vec::new());
        poll(&mut scene, 1, 0..2, None);
        assert_eq!(
            scene.odd(tell),
            [
                "broker-0: generation 2 of group g gives events-0 to m2, though client-1 has not given it up",
                "client-1: polls events-0 offsets 0 to 1, though it had given events-0 up",
            ]
        );
    }

    #[test]
    fn polls_past_what_was_aborted_and_of_what_is_open_are_named() {
        let mut scene = owned();
        poll(&mut scene, 1, 0..3, Some(11));
        end(&mut scene, 1, 11, false);
        poll(&mut scene, 1, 3..5, Some(12));
        assigned(&mut scene, 2, 2, vec![here()]);
        poll(&mut scene, 2, 3..4, Some(21));
        end(&mut scene, 1, 12, true);
        assert_eq!(
            scene.odd(tell),
            [
                "client-1: polls events-0 offsets 3 to 4 in transaction 12, though it aborted transaction 11, which \
                 began at 0",
                "client-2: polls events-0 offsets 3 to 3 in transaction 21, though transaction 12 of client-1, with \
                 the same, is open",
            ]
        );
    }

    fn commit(scene: &mut Scene, client: u32, offset: i64) {
        let (group, topic) = ("g".to_owned(), "events".to_owned());
        scene.op(client, OpKind::CommitOffset { group, topic, partition: 0, offset }, OpResult::Ok { offset: None });
    }

    #[test]
    fn a_commit_past_what_was_aborted_is_named() {
        let mut scene = owned();
        poll(&mut scene, 1, 0..3, Some(11));
        commit(&mut scene, 1, 3);
        end(&mut scene, 1, 11, false);
        poll(&mut scene, 1, 0..3, Some(12));
        commit(&mut scene, 1, 3);
        end(&mut scene, 1, 12, true);
        stored(&mut scene, 3);
        assert_eq!(scene.odd(tell), [""; 0]);
        poll(&mut scene, 1, 3..5, Some(13));
        end(&mut scene, 1, 13, false);
        commit(&mut scene, 1, 5);
        assert_eq!(
            scene.odd(tell),
            ["client-1: commits offset 5 of group g for events-0, though it aborted transaction 13, which began at 3"]
        );
    }

    #[test]
    fn an_offset_stored_for_another_than_the_owner_is_named() {
        let mut scene = owned();
        poll(&mut scene, 1, 0..3, Some(11));
        commit(&mut scene, 1, 3);
        assigned(&mut scene, 1, 1, Vec::new());
        generation(&mut scene, 2, "m2", &["m1"]);
        assigned(&mut scene, 2, 2, vec![here()]);
        poll(&mut scene, 2, 0..3, Some(21));
        commit(&mut scene, 2, 3);
        stored(&mut scene, 3);
        end(&mut scene, 2, 21, true);
        let named = "broker-0: stores offset 3 of group g for events-0, as another asked, though client-2 has it and \
                     was given 0";
        assert!(scene.odd(tell).contains(&named.to_owned()), "{:?}", scene.odd(tell));
        assert_eq!(scene.odd(tell).iter().filter(|odd| odd.contains("as another asked")).count(), 1);
    }

    #[test]
    fn a_commit_of_an_earlier_generation_is_named() {
        let mut scene = owned();
        let commit = |scene: &mut Scene, generation| {
            scene.see(0, Observed::CommitStored { group: "g".into(), member: "m1".into(), generation });
        };
        commit(&mut scene, 1);
        generation(&mut scene, 2, "m1", &["m2"]);
        commit(&mut scene, 2);
        commit(&mut scene, -1);
        assert_eq!(scene.odd(tell), [""; 0]);
        commit(&mut scene, 1);
        assert_eq!(
            scene.odd(tell),
            ["broker-0: stores a commit of m1 in generation 1 of group g, though generation 2 is in the log"]
        );
    }

    #[test]
    fn commits_of_what_nobody_worked_on_and_from_the_past_are_named() {
        let mut scene = owned();
        stored(&mut scene, 3);
        generation(&mut scene, 2, "m2", &[]);
        let (group, topic) = ("g".to_owned(), "events".to_owned());
        scene.op(1, OpKind::CommitOffset { group, topic, partition: 0, offset: 1 }, OpResult::Ok { offset: None });
        stored(&mut scene, 1);
        assert_eq!(
            scene.odd(tell),
            [
                "broker-0: stores offset 3 of group g for events-0, though no member had worked on 2",
                "broker-0: stores offset 1 of group g for events-0, though 3 was stored before",
                "client-1: hears that offset 1 of events-0 is committed in its generation 1 of group g, though \
                 generation 2 has \
             given it to another",
            ]
        );
    }
}
