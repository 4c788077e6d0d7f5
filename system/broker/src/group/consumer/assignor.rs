//! The server-side assignors: partitions to members.

use std::collections::{BTreeMap, BTreeSet};

use protocol::Uuid;

use super::{Assignment, assignment_of, partitions_of};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// As even as the subscriptions allow, and as close to the assignment before as that allows.
    Uniform,
    /// Topic by topic, neighbouring partitions together: members that read the same topics get the same partitions of
    /// each.
    Range,
}

/// What a member can be given.
#[derive(Clone, Debug, Default)]
pub struct Subscriber {
    pub instance_id: Option<String>,
    /// Topics that exist.
    pub topics: BTreeSet<Uuid>,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Uniform, Self::Range];

    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }

    /// Every member has an entry; every partition of a topic that somebody subscribed to has exactly one owner, who
    /// subscribed to it.
    pub fn assign(
        self,
        members: &BTreeMap<String, Subscriber>,
        topics: &BTreeMap<Uuid, i32>,
        before: &BTreeMap<String, Assignment>,
    ) -> BTreeMap<String, Assignment> {
        match self {
            Self::Uniform => uniform(members, topics, before),
            Self::Range => range(members, topics),
        }
    }
}

fn range(members: &BTreeMap<String, Subscriber>, topics: &BTreeMap<Uuid, i32>) -> BTreeMap<String, Assignment> {
    let mut assigned: BTreeMap<String, Assignment> = members.keys().map(|id| (id.clone(), Assignment::new())).collect();
    for (topic, partitions) in topics {
        let mut readers: Vec<_> = members.iter().filter(|(_, m)| m.topics.contains(topic)).collect();
        // A static member keeps its place under a new id.
        readers.sort_by_key(|(id, m)| (m.instance_id.is_none(), m.instance_id.as_ref(), *id));
        let (count, readers_count) = (*partitions as usize, readers.len());
        if readers_count == 0 {
            continue;
        }
        let (each, extra) = (count / readers_count, count % readers_count);
        let mut next = 0i32;
        for (i, (id, _)) in readers.into_iter().enumerate() {
            let n = (each + usize::from(i < extra)) as i32;
            if n > 0
                && let Some(a) = assigned.get_mut(id)
            {
                a.insert(*topic, (next..next + n).collect());
            }
            next += n;
        }
    }
    assigned
}

fn uniform(
    members: &BTreeMap<String, Subscriber>,
    topics: &BTreeMap<Uuid, i32>,
    before: &BTreeMap<String, Assignment>,
) -> BTreeMap<String, Assignment> {
    let mut owner: BTreeMap<(Uuid, i32), &str> = BTreeMap::new();
    let mut load: BTreeMap<&str, usize> = members.keys().map(|id| (id.as_str(), 0)).collect();
    for (id, m) in members {
        for p in before.get(id).into_iter().flat_map(partitions_of) {
            let exists = topics.get(&p.0).is_some_and(|n| p.1 < *n) && m.topics.contains(&p.0);
            if exists && !owner.contains_key(&p) {
                owner.insert(p, id);
                *load.entry(id).or_default() += 1;
            }
        }
    }
    let readers =
        |topic: Uuid| members.iter().filter(move |(_, m)| m.topics.contains(&topic)).map(|(id, _)| id.as_str());
    let least = |topic: Uuid, load: &BTreeMap<&str, usize>| {
        readers(topic).map(|id| (load.get(id).copied().unwrap_or(0), id)).min()
    };
    // Those that few can read come first.
    let mut free: Vec<_> = topics
        .iter()
        .flat_map(|(topic, n)| (0..*n).map(|p| (*topic, p)))
        .filter(|p| !owner.contains_key(p))
        .map(|p| (readers(p.0).count(), p))
        .collect();
    free.sort_unstable();
    for (_, p) in free {
        if let Some((_, id)) = least(p.0, &load) {
            owner.insert(p, id);
            *load.entry(id).or_default() += 1;
        }
    }
    // Each move lowers the sum of the squares of the loads, so this ends.
    loop {
        let mut moved = false;
        for (p, id) in &mut owner {
            let Some((least, to)) = least(p.0, &load) else { continue };
            let mine = load.get(*id).copied().unwrap_or(0);
            if mine >= least + 2 {
                *load.entry(id).or_default() -= 1;
                *load.entry(to).or_default() += 1;
                *id = to;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let part = |id: &String| assignment_of(owner.iter().filter(|(_, o)| **o == id).map(|(p, _)| *p));
    members.keys().map(|id| (id.clone(), part(id))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn members(subscriptions: &[&[u128]]) -> BTreeMap<String, Subscriber> {
        let subscriber =
            |topics: &&[u128]| Subscriber { instance_id: None, topics: topics.iter().map(|t| topic(*t)).collect() };
        subscriptions.iter().enumerate().map(|(i, s)| (format!("m{i}"), subscriber(s))).collect()
    }

    #[test]
    fn range_gives_neighbours_and_the_first_get_more() {
        let topics = BTreeMap::from([(topic(1), 5), (topic(2), 1)]);
        let assigned = Kind::Range.assign(&members(&[&[1, 2], &[1, 2]]), &topics, &BTreeMap::new());
        assert_eq!(assigned["m0"], assignment_of([(topic(1), 0), (topic(1), 1), (topic(1), 2), (topic(2), 0)]));
        assert_eq!(assigned["m1"], assignment_of([(topic(1), 3), (topic(1), 4)]));
    }

    #[test]
    fn uniform_moves_no_more_than_it_must() {
        let topics = BTreeMap::from([(topic(1), 6)]);
        let two = Kind::Uniform.assign(&members(&[&[1], &[1]]), &topics, &BTreeMap::new());
        let three = Kind::Uniform.assign(&members(&[&[1], &[1], &[1]]), &topics, &two);
        assert!(three.values().all(|a| partitions_of(a).count() == 2));
        for id in ["m0", "m1"] {
            assert!(super::super::is_subset(&three[id], &two[id]));
        }
    }

    proptest! {
        #[test]
        fn every_partition_has_one_owner_who_reads_it(
            sizes in proptest::collection::vec(0i32..9, 1..5),
            subscriptions in proptest::collection::vec(proptest::collection::btree_set(0usize..5, 0..5), 1..6),
            range in any::<bool>(),
            left in 0usize..6,
        ) {
            let topics: BTreeMap<_, _> = sizes.iter().enumerate().map(|(i, n)| (topic(i as u128), *n)).collect();
            let mut members: BTreeMap<_, _> = subscriptions.iter().enumerate().map(|(i, s)| {
                let topics = s.iter().map(|t| topic(*t as u128)).filter(|t| topics.contains_key(t)).collect();
                (format!("m{i}"), Subscriber { instance_id: (i % 2 == 0).then(|| format!("i{}", 9 - i)), topics })
            }).collect();
            let kind = if range { Kind::Range } else { Kind::Uniform };
            let mut before = BTreeMap::new();
            for round in 0..2 {
                if round == 1 {
                    members.remove(&format!("m{left}"));
                }
                let assigned = kind.assign(&members, &topics, &before);
                prop_assert_eq!(assigned.len(), members.len());
                let mut owners = BTreeSet::new();
                for (id, a) in &assigned {
                    for p in partitions_of(a) {
                        prop_assert!(members[id].topics.contains(&p.0) && p.1 < topics[&p.0]);
                        prop_assert!(owners.insert(p), "two owners of {:?}", p);
                    }
                }
                let readable: usize = topics
                    .iter()
                    .filter(|(t, _)| members.values().any(|m| m.topics.contains(t)))
                    .map(|(_, n)| *n as usize)
                    .sum();
                prop_assert_eq!(owners.len(), readable);
                before = assigned;
            }
        }
    }
}
