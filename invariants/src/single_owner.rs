//! **single-owner.** Within a generation of a group each partition has one owner, and generations never fall.
//!
//! Source: Kafka's group protocol (KIP-62, KIP-429) and KIP-848, in which a partition goes to its next owner only when the
//! last one has given it up. Judged from what coordinators made durable, over failovers too, and from what members say that
//! they own: nothing is given to one while another member of the same generation has it. And from what they read: nothing of a partition from when their application hears that it is to be given up, or
//! is lost, until it hears that it has it again (KAFKA-14196).
//!
//! Not claimed: that every partition has an owner; that a member of an old generation has noticed (it is fenced, which
//! offsets-kept judges).

use std::collections::{BTreeMap, BTreeSet};

use history::{
    LoadedMember, MemberAssignment, Observation, Observed, OpId, OpKind, OpResult, PolledPartition, TopicPartition,
    Verdict, Witness,
};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "single-owner",
    statement: "within a generation of a group a partition has one owner, and generations never fall",
    source: "KIP-62, KIP-429, KIP-848",
    kind: Kind::Safety,
    check,
};

/// What is known of one group.
#[derive(Default)]
struct Group<'a> {
    /// Classic: the last durable generation, and its members.
    generation: Option<(i32, &'a [MemberAssignment], &'a Observation)>,
    /// KIP-848: each member's epoch and partitions, those that it has still to give up included.
    members: BTreeMap<&'a str, (i32, BTreeSet<&'a TopicPartition>)>,
    /// Classic: who is a member of each durable generation.
    durable: BTreeMap<i32, BTreeSet<&'a str>>,
    /// By generation, as its members said.
    told: BTreeMap<i32, BTreeMap<&'a TopicPartition, &'a str>>,
}

fn check(context: &Context<'_>) -> Verdict {
    let mut found = Violations::of(&PROPERTY);
    let mut groups: BTreeMap<&str, Group<'_>> = BTreeMap::new();
    for seen in &context.history.observations {
        match &seen.what {
            Observed::GroupGeneration { group, generation, members } => {
                groups.entry(group).or_default().generation(group, *generation, members, seen, &mut found);
            }
            Observed::GroupMember { group, member, epoch, assigned, revoking } => {
                let owned = assigned.iter().chain(revoking).collect();
                groups.entry(group).or_default().member(group, member, *epoch, owned, &mut found);
            }
            Observed::GroupLoaded { group, members } => {
                groups.entry(group).or_default().loaded(group, members, &mut found);
            }
            Observed::Assigned { group, member, generation, partitions, .. } if *generation >= 0 => {
                groups.entry(group).or_default().told(group, member, *generation, partitions, &mut found);
            }
            Observed::GroupGone { group } => {
                groups.remove(group.as_str());
            }
            _ => {}
        }
    }
    gives(context, &mut found);
    reads(context, &mut found);
    found.verdict()
}

/// What a member says that it has, in order of time: since when, what, and whether it heard that it lost the rest.
type Holdings<'a> = Vec<(u64, &'a [TopicPartition], bool)>;

/// Nothing is given to a member while another of the same generation has it (KIP-429; for eager members it follows from
/// their giving all up before they join). One that hears later that it lost it may have been expelled before, or not: then
/// nobody knows.
fn gives(context: &Context<'_>, found: &mut Violations) {
    let mut holdings: BTreeMap<(&str, &str), Holdings<'_>> = BTreeMap::new();
    for seen in &context.history.observations {
        if let Observed::Assigned { group, member, partitions, lost, .. } = &seen.what {
            holdings.entry((group, member)).or_default().push((seen.at_ns, partitions, *lost));
        }
    }
    for seen in &context.history.observations {
        let Observed::GroupGeneration { group, generation, members } = &seen.what else { continue };
        for owner in members {
            let Some(told) = holdings.get(&(group.as_str(), owner.member.as_str())) else { continue };
            let next = told.partition_point(|(at_ns, ..)| *at_ns <= seen.at_ns);
            let (Some((_, has, _)), Some((_, _, false))) = (next.checked_sub(1).map(|i| &told[i]), told.get(next))
            else {
                continue;
            };
            for other in members.iter().filter(|other| other.member != owner.member) {
                if let Some(partition) = other.partitions.iter().find(|p| has.contains(p)) {
                    let witness = twice(group, *generation, partition, &owner.member, &other.member);
                    found.add(None, "a partition is given to a member while another has it", witness);
                }
            }
        }
    }
}

/// Members read what they were told that they have.
fn reads(context: &Context<'_>, found: &mut Violations) {
    let mut told: BTreeMap<u32, BTreeSet<(&str, i32)>> = BTreeMap::new();
    for (i, op) in context.history.ops.iter().enumerate() {
        match (&op.kind, &op.result) {
            (OpKind::Subscribe { .. }, _) => {
                told.insert(op.client, BTreeSet::new());
            }
            (OpKind::Rebalance { assigned }, _) => {
                told.insert(op.client, assigned.iter().map(|p| (p.topic.as_str(), p.partition)).collect());
            }
            (OpKind::Poll { .. }, OpResult::Polled { reads }) => {
                let Some(has) = told.get(&op.client) else { continue };
                let stray = |r: &&PolledPartition| !has.contains(&(r.topic.as_str(), r.partition));
                for read in reads.iter().filter(stray) {
                    let Some(record) = read.records.first() else { continue };
                    let witness = Witness::offset(&read.topic, read.partition, record.offset);
                    let witness = witness.expected(format_args!("no record for client {}", op.client));
                    found.add(
                        Some(OpId(i)),
                        "a member reads a partition that it does not have",
                        witness.found("this one"),
                    );
                }
            }
            _ => {}
        }
    }
}

fn at(group: &str, generation: i32) -> Witness {
    Witness::at(format_args!("group {group} generation {generation}"))
}

fn twice(group: &str, generation: i32, partition: &TopicPartition, owner: &str, second: &str) -> Witness {
    let witness = at(group, generation).about(partition).expected(format_args!("owner {owner} alone"));
    witness.found(format_args!("owner {second} too"))
}

impl<'a> Group<'a> {
    fn generation(
        &mut self,
        group: &str,
        generation: i32,
        members: &'a [MemberAssignment],
        seen: &'a Observation,
        found: &mut Violations,
    ) {
        let mut owners: BTreeMap<&TopicPartition, &str> = BTreeMap::new();
        for member in members {
            for partition in &member.partitions {
                if let Some(first) = owners.insert(partition, &member.member) {
                    let witness = twice(group, generation, partition, first, &member.member);
                    found.add(None, "a partition has two owners in a generation", witness);
                }
            }
        }
        match self.generation {
            Some((was, ..)) if generation < was => {
                let witness =
                    at(group, generation).expected(format_args!("generation {was} or later")).found(generation);
                found.add(None, "a group's generation falls", witness);
            }
            // Members of a generation without assignments have joined and wait for their leader.
            Some((was, before, first)) if generation == was && owns(before) && !is_same(before, members) => {
                let witness = at(group, generation)
                    .expected(format_args!("{}, durable at {} ns", list(before), first.at_ns))
                    .found(list(members));
                found.add(None, "a generation has two assignments", witness);
            }
            _ => {}
        }
        self.durable.entry(generation).or_default().extend(members.iter().map(|m| m.member.as_str()));
        if self.generation.is_none_or(|(was, ..)| was <= generation) {
            self.generation = Some((generation, members, seen));
        }
    }

    fn member(
        &mut self,
        group: &str,
        member: &'a str,
        epoch: i32,
        owned: BTreeSet<&'a TopicPartition>,
        found: &mut Violations,
    ) {
        for (other, (_, theirs)) in self.members.iter().filter(|(other, _)| **other != member) {
            if let Some(partition) = owned.intersection(theirs).next() {
                let witness = twice(group, epoch, partition, other, member);
                found.add(None, "a partition is given to a member before its owner gave it up", witness);
            }
        }
        if owned.is_empty() {
            self.members.remove(member);
            return;
        }
        // A static member that is away for a while has epoch -2 (KIP-848): its partitions wait for it.
        if let Some((was, _)) = self.members.insert(member, (epoch, owned))
            && (0..was).contains(&epoch)
        {
            let witness = at(group, epoch).about(member).expected(format_args!("epoch {was} or later")).found(epoch);
            found.add(None, "a member's epoch falls", witness);
        }
    }

    /// The log's word replaces what was told: a coordinator that died may have stored more than it told.
    fn loaded(&mut self, group: &str, members: &'a [LoadedMember], found: &mut Violations) {
        let before = std::mem::take(&mut self.members);
        for m in members {
            let owned = m.assigned.iter().chain(&m.revoking).collect();
            if let Some((was, _)) = before.get(m.member.as_str())
                && (0..*was).contains(&m.epoch)
            {
                let witness = at(group, m.epoch).about(&m.member);
                let witness = witness.expected(format_args!("epoch {was} or later")).found(m.epoch);
                found.add(None, "a coordinator loads an earlier epoch of a member", witness);
            }
            self.member(group, &m.member, m.epoch, owned, found);
        }
    }

    fn told(
        &mut self,
        group: &str,
        member: &'a str,
        generation: i32,
        partitions: &'a [TopicPartition],
        found: &mut Violations,
    ) {
        // 1. A member is given a partition, and asks where to begin. 2. A new round begins; JoinGroup's answer names its
        // generation. 3. Now the member says what it has, by that number. 4. The round never ends, since its coordinator
        // dies, and the next coordinator's round has the same number: it is another generation, without that member.
        if !self.durable.get(&generation).is_some_and(|members| members.contains(member)) {
            return;
        }
        let owners = self.told.entry(generation).or_default();
        for partition in partitions {
            let first = *owners.entry(partition).or_insert(member);
            if first != member && !came_back(first, member) {
                let witness = twice(group, generation, partition, first, member);
                found.add(None, "two members say that they own a partition in one generation", witness);
            }
        }
    }
}

/// Whether they are two lives of one static member, which keeps its place by another name (KIP-345): the instance's, a
/// hyphen and a UUID.
fn came_back(was: &str, is: &str) -> bool {
    const UUID: usize = 36;
    let instance = |member: &str| {
        let end = member.len().checked_sub(UUID).filter(|end| *end > 0)?;
        member.get(..end).map(str::to_owned)
    };
    instance(was).is_some() && instance(was) == instance(is)
}

/// Whether the two assignments are one, but for static members that came back.
fn is_same(before: &[MemberAssignment], now: &[MemberAssignment]) -> bool {
    let same = |was: &MemberAssignment, is: &MemberAssignment| {
        was.partitions == is.partitions && came_back(&was.member, &is.member)
    };
    let is_there = |m: &MemberAssignment| now.contains(m) || now.iter().any(|n| same(m, n));
    before.len() == now.len() && before.iter().all(is_there)
}

fn owns(members: &[MemberAssignment]) -> bool {
    members.iter().any(|m| !m.partitions.is_empty())
}

fn list(members: &[MemberAssignment]) -> String {
    let one = |m: &MemberAssignment| {
        let partitions: Vec<String> = m.partitions.iter().map(ToString::to_string).collect();
        format!("{} owns {}", m.member, partitions.join(" "))
    };
    members.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use history::{Op, PolledRecord};

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
                OWNER_DUPLICATES,
                OWNER_MISATTRIBUTES,
                OWNER_SHIFTS_GENERATION,
                OWNERS_SWAP,
                OWNER_GIVES_TOO_EARLY,
                OWNER_TOLD_TWICE,
            ],
            &[(Mutator::Unacknowledge, "it looks at what is durable, not at answers")],
        );
    }

    #[test]
    fn what_moves_is_given_up_first() {
        let p = |n| vec![TopicPartition::new("data", n)];
        let verdict = |steps: Vec<Observed>| {
            let mut history = fixture::cluster();
            let last = history.observations.last().expect("observations").clone();
            for (n, what) in (1..).zip(steps) {
                history.observations.push(Observation { at_ns: last.at_ns + n, what, ..last.clone() });
            }
            PROPERTY.check(&Context::new(&history))
        };
        let told = |member: &str, generation, partitions, lost| Observed::Assigned {
            group: "moves".to_owned(),
            member: member.to_owned(),
            generation,
            partitions,
            lost,
        };
        let given = |generation, a, b| {
            let of = |member: &str, partitions| MemberAssignment { member: member.to_owned(), partitions };
            Observed::GroupGeneration { group: "moves".to_owned(), generation, members: vec![of("a", a), of("b", b)] }
        };
        let held_back = || {
            vec![
                given(1, p(0), vec![]),
                told("a", 1, p(0), false),
                given(2, vec![], vec![]),
                told("a", 2, vec![], false),
                given(3, vec![], p(0)),
                told("b", 3, p(0), false),
            ]
        };
        assert_eq!(verdict(held_back()), Verdict::Pass);
        let mut at_once = held_back();
        at_once[2] = given(2, vec![], p(0));
        assert!(matches!(verdict(at_once.clone()), Verdict::Fail(_)));
        at_once[3] = told("a", -1, vec![], true);
        assert_eq!(verdict(at_once), Verdict::Pass, "it was lost, perhaps before");

        let mut both = held_back();
        both.push(told("a", 3, p(0), false));
        assert!(matches!(verdict(both.clone()), Verdict::Fail(_)));
        let of_another_round = told("c", 3, p(0), false);
        both.pop();
        both.push(of_another_round);
        assert_eq!(verdict(both), Verdict::Pass, "the round that it joined never ended");
    }

    #[test]
    fn a_static_member_comes_back_by_another_name_of_its_own() {
        let p = |n| vec![TopicPartition::new("data", n)];
        let of = |member: String, n| MemberAssignment { member, partitions: p(n) };
        let uuid = |n: u8| format!("{n:08x}-0000-0000-0000-000000000000");
        let before = [of(format!("one-{}", uuid(1)), 0), of(format!("two-{}", uuid(2)), 1)];
        let back = [before[0].clone(), of(format!("two-{}", uuid(3)), 1)];
        assert!(is_same(&before, &back));
        let stranger = [before[0].clone(), of(format!("three-{}", uuid(3)), 1)];
        assert!(!is_same(&before, &stranger));
        let swapped = [of(before[0].member.clone(), 1), of(before[1].member.clone(), 0)];
        assert!(!is_same(&before, &swapped));
        let dynamic = [before[0].clone(), of(uuid(3), 1)];
        assert!(!is_same(&dynamic, &[before[0].clone(), of(uuid(4), 1)]));
    }

    #[test]
    fn a_member_reads_what_it_has() {
        let p = |n| TopicPartition::new("data", n);
        let records = vec![PolledRecord { offset: 3, client: 0, n: 0 }];
        let poll = |n| {
            let reads = vec![PolledPartition { topic: "data".to_owned(), partition: n, records: records.clone() }];
            (OpKind::Poll { read_committed: true, txn: None }, OpResult::Polled { reads })
        };
        let told = |assigned| (OpKind::Rebalance { assigned }, OpResult::Ok { offset: None });
        let subscribe = || (OpKind::Subscribe { topics: vec!["data".to_owned()] }, OpResult::Ok { offset: None });
        let verdict = |steps: Vec<(OpKind, OpResult)>| {
            let mut history = fixture::cluster();
            for (n, (kind, result)) in (0..).zip(steps) {
                history.ops.push(Op { client: 99, n, kind, invoked_ns: n, completed_ns: Some(n), result });
            }
            PROPERTY.check(&Context::new(&history))
        };
        let good = vec![subscribe(), told(vec![p(0), p(1)]), poll(1), poll(0), told(vec![p(0)]), poll(0)];
        assert_eq!(verdict(good), Verdict::Pass);
        assert_eq!(verdict(vec![poll(1)]), Verdict::Pass, "a reader that is no member");
        for bad in [
            vec![subscribe(), poll(1)],
            vec![subscribe(), told(vec![p(0), p(1)]), told(vec![p(0)]), poll(1)],
            vec![subscribe(), told(vec![p(1)]), subscribe(), poll(1)],
        ] {
            assert!(matches!(verdict(bad), Verdict::Fail(_)));
        }
    }

    /// KIP-848 epochs do not mean one owner at a time over the whole of an epoch.
    #[test]
    fn a_partition_may_move_once_it_is_given_up() {
        let mut history = fixture::cluster();
        let p = TopicPartition::new("data", 7);
        let step = |member: &str, epoch, assigned: bool, revoking: bool| {
            let of = |yes: bool| if yes { vec![p.clone()] } else { Vec::new() };
            let (group, member) = ("moves".to_owned(), member.to_owned());
            Observed::GroupMember { group, member, epoch, assigned: of(assigned), revoking: of(revoking) }
        };
        let last = history.observations.last().expect("observations").clone();
        for what in [
            step("a", 1, true, false),
            step("a", 2, false, true),
            step("a", 2, false, false),
            step("b", 2, true, false),
        ] {
            history.observations.push(Observation { what, ..last.clone() });
        }
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }
}
