//! The assignors of the classic protocol: the leader's member runs one and tells the others. Pure.
//!
//! They decide as Kafka's Java client does, so that members of both kinds can share a group. Of those that claim a partition
//! the one of the newest generation owns it: one that missed a generation may no longer own what it thinks (KAFKA-13419).
//! Where nobody of a newer generation claims it, an older claim counts: its member may have missed nothing but the answer
//! of the last round, and still reads what would be given to another at once (KAFKA-14639). What two members of one
//! generation claim is nobody's.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use protocol::consumer_protocol::{Assignment, Partitions, Subscription};

/// How the leader of a classic group shares out partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assignor {
    /// Topic by topic, neighbouring partitions together.
    Range,
    /// One partition after the other to one member after the other.
    RoundRobin,
    /// Even, and close to what is owned; what moves is given up in one generation and given out in the next (KIP-429).
    CooperativeSticky,
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub instance_id: Option<String>,
    pub subscription: Subscription,
}

type Tp = (String, i32);

impl Assignor {
    /// The protocol's name in JoinGroup.
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Range, Self::RoundRobin, Self::CooperativeSticky].into_iter().find(|a| a.name() == name)
    }

    /// Members keep what they own while a new generation is agreed on.
    pub fn is_cooperative(self) -> bool {
        self == Self::CooperativeSticky
    }

    /// What each member is to read. `topics`: the number of partitions of each topic that exists.
    pub fn assign(
        self,
        members: &BTreeMap<String, Member>,
        topics: &BTreeMap<String, i32>,
    ) -> BTreeMap<String, Assignment> {
        let shares = match self {
            Self::Range => range(members, topics),
            Self::RoundRobin => round_robin(members, topics),
            Self::CooperativeSticky => {
                let owned = owned(members, topics);
                let mut shares = sticky(members, topics, &owned);
                hold_back(&mut shares, &owned);
                shares
            }
        };
        let assignment = |tps: BTreeSet<Tp>| {
            let mut partitions = Partitions::new();
            for (topic, partition) in tps {
                partitions.entry(topic).or_default().push(partition);
            }
            Assignment { partitions, user_data: None }
        };
        shares.into_iter().map(|(id, tps)| (id, assignment(tps))).collect()
    }
}

type Shares = BTreeMap<String, BTreeSet<Tp>>;

fn nothing(members: &BTreeMap<String, Member>) -> Shares {
    members.keys().map(|id| (id.clone(), BTreeSet::new())).collect()
}

/// Static members first, by instance: they keep their place under a new id.
fn in_order(members: &BTreeMap<String, Member>) -> Vec<(&String, &Member)> {
    let mut ordered: Vec<_> = members.iter().collect();
    ordered.sort_by_key(|(id, m)| (m.instance_id.is_none(), m.instance_id.as_ref(), *id));
    ordered
}

fn reads(member: &Member, topic: &str) -> bool {
    member.subscription.topics.iter().any(|t| t == topic)
}

fn range(members: &BTreeMap<String, Member>, topics: &BTreeMap<String, i32>) -> Shares {
    let mut shares = nothing(members);
    for (topic, count) in topics {
        let readers: Vec<_> = in_order(members).into_iter().filter(|(_, m)| reads(m, topic)).collect();
        let n = readers.len() as i32;
        let mut next = 0;
        for (i, (id, _)) in (0..n).zip(&readers) {
            let share = count / n + i32::from(i < count % n);
            if let Some(mine) = shares.get_mut(*id) {
                mine.extend((next..next + share).map(|p| (topic.clone(), p)));
            }
            next += share;
        }
    }
    shares
}

fn round_robin(members: &BTreeMap<String, Member>, topics: &BTreeMap<String, i32>) -> Shares {
    let mut shares = nothing(members);
    let ordered = in_order(members);
    let mut turn = 0;
    for (topic, count) in topics {
        if !ordered.iter().any(|(_, m)| reads(m, topic)) {
            continue;
        }
        for partition in 0..*count {
            while !reads(ordered[turn % ordered.len()].1, topic) {
                turn += 1;
            }
            if let Some(mine) = shares.get_mut(ordered[turn % ordered.len()].0) {
                mine.insert((topic.clone(), partition));
            }
            turn += 1;
        }
    }
    shares
}

/// Who rightly claims what.
fn owned<'a>(members: &'a BTreeMap<String, Member>, topics: &BTreeMap<String, i32>) -> BTreeMap<Tp, &'a str> {
    let mut claims: BTreeMap<Tp, (i32, Option<&str>)> = BTreeMap::new();
    for (id, m) in members {
        let generation = m.subscription.generation;
        for (topic, partitions) in &m.subscription.owned {
            for p in partitions.iter().filter(|p| topics.get(topic).is_some_and(|n| **p < *n)) {
                let claim = claims.entry((topic.clone(), *p)).or_insert((generation, Some(id)));
                match generation.cmp(&claim.0) {
                    Ordering::Greater => *claim = (generation, Some(id)),
                    Ordering::Equal if claim.1 != Some(id) => claim.1 = None,
                    Ordering::Equal | Ordering::Less => {}
                }
            }
        }
    }
    claims.into_iter().filter_map(|(tp, (_, owner))| Some((tp, owner?))).collect()
}

fn sticky(members: &BTreeMap<String, Member>, topics: &BTreeMap<String, i32>, owned: &BTreeMap<Tp, &str>) -> Shares {
    let mut shares = nothing(members);
    let mut readers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for topic in topics.keys() {
        let who = members.iter().filter(|(_, m)| reads(m, topic)).map(|(id, _)| id.as_str());
        readers.insert(topic, who.collect());
    }
    let size = |shares: &Shares, id: &str| shares.get(id).map_or(0, BTreeSet::len);
    let mut free: Vec<(usize, Tp)> = Vec::new();
    for (topic, count) in topics {
        let who = readers.get(topic.as_str()).map(Vec::as_slice).unwrap_or_default();
        for p in 0..*count {
            let tp = (topic.clone(), p);
            match owned.get(&tp) {
                Some(owner) if who.contains(owner) => {
                    shares.entry((*owner).to_owned()).or_default().insert(tp);
                }
                _ if who.is_empty() => {}
                _ => free.push((who.len(), tp)),
            }
        }
    }
    let least = |shares: &Shares, topic: &str| {
        let who = readers.get(topic).into_iter().flatten();
        who.map(|id| (size(shares, id), *id)).min()
    };
    // Those that few can read come first.
    free.sort();
    for (_, tp) in free {
        if let Some((_, id)) = least(&shares, &tp.0) {
            shares.entry(id.to_owned()).or_default().insert(tp);
        }
    }
    // Each move lowers the sum of the squares of the shares, so this ends.
    loop {
        let mut moved = false;
        for (id, mine) in shares.clone() {
            for tp in mine {
                let Some((smallest, to)) = least(&shares, &tp.0) else { continue };
                if size(&shares, &id) >= smallest + 2 {
                    shares.entry(id.clone()).or_default().remove(&tp);
                    shares.entry(to.to_owned()).or_default().insert(tp);
                    moved = true;
                }
            }
        }
        if !moved {
            return shares;
        }
    }
}

/// What one member still owns is not given to another: the owner gives it up, and the next generation gives it out.
fn hold_back(shares: &mut Shares, owned: &BTreeMap<Tp, &str>) {
    for (id, mine) in shares {
        mine.retain(|tp| owned.get(tp).is_none_or(|owner| owner == id));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(topics: &[&str], generation: i32, owned: &[(&str, &[i32])]) -> Member {
        Member {
            instance_id: None,
            subscription: Subscription {
                topics: topics.iter().map(|t| (*t).to_owned()).collect(),
                generation,
                owned: owned.iter().map(|(t, p)| ((*t).to_owned(), p.to_vec())).collect(),
                ..Subscription::default()
            },
        }
    }

    fn topics(counts: &[(&str, i32)]) -> BTreeMap<String, i32> {
        counts.iter().map(|(t, n)| ((*t).to_owned(), *n)).collect()
    }

    fn of<'a>(assigned: &'a BTreeMap<String, Assignment>, id: &str, topic: &str) -> &'a [i32] {
        assigned[id].partitions.get(topic).map(Vec::as_slice).unwrap_or_default()
    }

    fn two(a: Member, b: Member) -> BTreeMap<String, Member> {
        BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)])
    }

    #[test]
    fn range_and_round_robin() {
        let members = two(member(&["t", "u"], -1, &[]), member(&["t", "u"], -1, &[]));
        let topics = topics(&[("t", 3), ("u", 3)]);
        let assigned = Assignor::Range.assign(&members, &topics);
        assert_eq!((of(&assigned, "a", "t"), of(&assigned, "b", "t")), (&[0, 1][..], &[2][..]));
        assert_eq!((of(&assigned, "a", "u"), of(&assigned, "b", "u")), (&[0, 1][..], &[2][..]));
        let assigned = Assignor::RoundRobin.assign(&members, &topics);
        assert_eq!((of(&assigned, "a", "t"), of(&assigned, "b", "t")), (&[0, 2][..], &[1][..]));
        assert_eq!((of(&assigned, "a", "u"), of(&assigned, "b", "u")), (&[1][..], &[0, 2][..]));
    }

    #[test]
    fn what_moves_is_given_out_one_generation_later() {
        let topics = topics(&[("t", 4)]);
        let first = two(member(&["t"], 3, &[("t", &[0, 1, 2, 3])]), member(&["t"], -1, &[]));
        let assigned = Assignor::CooperativeSticky.assign(&first, &topics);
        assert_eq!((of(&assigned, "a", "t").len(), of(&assigned, "b", "t").len()), (2, 0));
        let kept = of(&assigned, "a", "t").to_vec();
        let second = two(member(&["t"], 4, &[("t", &kept)]), member(&["t"], 4, &[]));
        let assigned = Assignor::CooperativeSticky.assign(&second, &topics);
        assert_eq!((of(&assigned, "a", "t"), of(&assigned, "b", "t").len()), (&kept[..], 2));
    }

    #[test]
    fn stale_and_double_claims_count_for_nothing() {
        let topics = topics(&[("t", 2)]);
        // b missed a generation and still thinks it owns 0.
        let stale = two(member(&["t"], 5, &[("t", &[0])]), member(&["t"], 4, &[("t", &[0])]));
        let assigned = Assignor::CooperativeSticky.assign(&stale, &topics);
        assert_eq!((of(&assigned, "a", "t"), of(&assigned, "b", "t")), (&[0][..], &[1][..]));
        // b missed the last round's answer, and nobody newer says that 1 is its own.
        let late = two(member(&["t"], 5, &[("t", &[0])]), member(&["t"], 4, &[("t", &[1])]));
        let assigned = Assignor::CooperativeSticky.assign(&late, &topics);
        assert_eq!((of(&assigned, "a", "t"), of(&assigned, "b", "t")), (&[0][..], &[1][..]));
        let moves = BTreeMap::from([
            ("a".to_owned(), member(&["t"], 5, &[])),
            ("b".to_owned(), member(&["t"], 4, &[("t", &[0, 1])])),
        ]);
        let assigned = Assignor::CooperativeSticky.assign(&moves, &topics);
        assert_eq!((of(&assigned, "a", "t").len(), of(&assigned, "b", "t").len()), (0, 1), "what moves is held back");
        let double = two(member(&["t"], 5, &[("t", &[0])]), member(&["t"], 5, &[("t", &[0])]));
        let assigned = Assignor::CooperativeSticky.assign(&double, &topics);
        assert_eq!(of(&assigned, "a", "t").len() + of(&assigned, "b", "t").len(), 2);
    }

    proptest! {
        #[test]
        fn every_partition_has_at_most_one_reader_and_in_the_end_one(
            counts in proptest::collection::vec(0i32..7, 1..4),
            subscriptions in proptest::collection::vec(proptest::collection::btree_set(0usize..4, 1..4), 1..5),
            which in 0usize..3,
        ) {
            let kind = [Assignor::Range, Assignor::RoundRobin, Assignor::CooperativeSticky][which];
            let topics: BTreeMap<_, _> = counts.iter().enumerate().map(|(i, n)| (format!("t{i}"), *n)).collect();
            let mut members: BTreeMap<_, _> = subscriptions.iter().enumerate().map(|(i, s)| {
                let names: Vec<_> = s.iter().map(|t| format!("t{t}")).collect();
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                (format!("m{i}"), member(&names, -1, &[]))
            }).collect();
            for round in 0..4 {
                let assigned = kind.assign(&members, &topics);
                let mut seen = BTreeSet::new();
                for (id, a) in &assigned {
                    for (topic, partitions) in &a.partitions {
                        prop_assert!(reads(&members[id], topic));
                        for p in partitions {
                            prop_assert!(*p < topics[topic] && seen.insert((topic.clone(), *p)));
                        }
                    }
                }
                let readable: i32 =
                    topics.iter().filter(|(t, _)| members.values().any(|m| reads(m, t))).map(|(_, n)| n).sum();
                prop_assert!(seen.len() as i32 == readable || kind.is_cooperative() && round == 2);
                for (id, m) in &mut members {
                    m.subscription.owned = assigned[id].partitions.clone();
                    m.subscription.generation = round;
                }
                if round == 1 {
                    // One leaves, one comes: some partitions move in the next round, and are there in the one after.
                    members.remove("m0");
                    members.insert("n".to_owned(), member(&["t0"], -1, &[]));
                }
            }
        }
    }
}
