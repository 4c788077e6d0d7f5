//! Where the replicas of new partitions go.
//!
//! Brokers are put in a row that goes through the racks in turn; partition p starts p places down that row, and its other
//! replicas follow, at a distance that grows each time round, each in a rack of its own as long as there are any. So
//! leaders are spread evenly, and so is the load of a broker that dies. A fenced broker is only taken when there are not
//! enough others, and never first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A broker that replicas can go to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    pub broker: i32,
    pub rack: Option<String>,
    pub active: bool,
}

/// There are fewer brokers than replicas, or none that could lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooFew {
    pub registered: usize,
    pub active: usize,
}

/// The replicas of partitions `first..first + count`. `seed` shifts the beginning, so that topics of few partitions do
/// not all lie on the same brokers.
pub fn place(
    candidates: &[Candidate],
    first: i32,
    count: i32,
    replication_factor: usize,
    seed: u64,
) -> Result<Vec<Vec<i32>>, TooFew> {
    let active: Vec<&Candidate> = candidates.iter().filter(|c| c.active).collect();
    let fenced: Vec<&Candidate> = candidates.iter().filter(|c| !c.active).collect();
    if candidates.len() < replication_factor || active.is_empty() {
        return Err(TooFew { registered: candidates.len(), active: active.len() });
    }
    let row = alternate(&active);
    let rest = alternate(&fenced);
    let start = (seed % row.len() as u64) as usize;
    let shift = (seed / row.len() as u64 % row.len() as u64) as usize;
    let partitions = first..first.saturating_add(count);
    Ok(partitions
        .map(|p| {
            let p = p as usize;
            let mut replicas = choose(&row, replication_factor.min(row.len()), start + p, shift + p / row.len());
            let missing = replication_factor - replicas.len();
            replicas.extend((0..missing).map(|i| rest[(start + p + i) % rest.len()].broker));
            replicas
        })
        .collect())
}

/// The brokers with their racks taken in turn.
fn alternate<'a>(candidates: &[&'a Candidate]) -> Vec<&'a Candidate> {
    let mut racks: BTreeMap<&Option<String>, VecDeque<&Candidate>> = BTreeMap::new();
    for c in candidates {
        racks.entry(&c.rack).or_default().push_back(c);
    }
    let mut row = Vec::with_capacity(candidates.len());
    while row.len() < candidates.len() {
        row.extend(racks.values_mut().filter_map(VecDeque::pop_front));
    }
    row
}

fn choose(row: &[&Candidate], count: usize, start: usize, shift: usize) -> Vec<i32> {
    let racks = row.iter().map(|c| &c.rack).collect::<BTreeSet<_>>().len();
    let first = start % row.len();
    let mut chosen = vec![row[first].broker];
    let mut used = BTreeSet::from([&row[first].rack]);
    // Twice round: first each rack once, then whoever is left.
    for k in 0..2 * row.len() {
        if chosen.len() == count {
            break;
        }
        let candidate = row[(first + 1 + (shift + k) % (row.len() - 1)) % row.len()];
        if chosen.contains(&candidate.broker) || (used.contains(&candidate.rack) && used.len() < racks) {
            continue;
        }
        chosen.push(candidate.broker);
        used.insert(&candidate.rack);
    }
    assert_eq!(chosen.len(), count, "twice round meets every broker");
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn brokers(racks: &[Option<&str>]) -> Vec<Candidate> {
        let candidate = |(i, rack): (usize, &Option<&str>)| Candidate {
            broker: i as i32,
            rack: rack.map(str::to_owned),
            active: true,
        };
        racks.iter().enumerate().map(candidate).collect()
    }

    #[test]
    fn leaders_and_followers_are_spread() {
        let placed = place(&brokers(&[None; 3]), 0, 6, 2, 0).unwrap();
        for broker in 0..3 {
            assert_eq!(placed.iter().filter(|r| r[0] == broker).count(), 2, "{placed:?}");
        }
        // The partitions that broker 0 leads have different followers.
        let followers: BTreeSet<i32> = placed.iter().filter(|r| r[0] == 0).map(|r| r[1]).collect();
        assert_eq!(followers.len(), 2, "{placed:?}");
    }

    #[test]
    fn too_few_brokers_are_said() {
        let mut three = brokers(&[None; 3]);
        assert_eq!(place(&three, 0, 1, 4, 0), Err(TooFew { registered: 3, active: 3 }));
        three.iter_mut().for_each(|c| c.active = false);
        assert_eq!(place(&three, 0, 1, 1, 0), Err(TooFew { registered: 3, active: 0 }));
        three[1].active = true;
        assert_eq!(place(&three, 0, 1, 3, 0).unwrap()[0][0], 1, "the one alive leads");
    }

    proptest! {
        #[test]
        fn replicas_are_distinct_and_use_every_rack(
            racks in prop::collection::vec(prop::option::of(0..3u8), 1..8),
            alive in prop::collection::vec(any::<bool>(), 8),
            first in 0..50i32,
            count in 1..20i32,
            rf in 1..5usize,
            seed in any::<u64>(),
        ) {
            let candidates: Vec<Candidate> = racks
                .iter()
                .enumerate()
                .map(|(i, r)| Candidate { broker: i as i32, rack: r.map(|r| r.to_string()), active: alive[i] })
                .collect();
            let active: Vec<&Candidate> = candidates.iter().filter(|c| c.active).collect();
            match place(&candidates, first, count, rf, seed) {
                Err(_) => prop_assert!(candidates.len() < rf || active.is_empty()),
                Ok(placed) => {
                    prop_assert_eq!(placed.len(), count as usize);
                    for replicas in placed {
                        let set: BTreeSet<i32> = replicas.iter().copied().collect();
                        prop_assert_eq!((set.len(), replicas.len()), (rf, rf));
                        prop_assert!(candidates[replicas[0] as usize].active);
                        let of_active: Vec<_> =
                            replicas.iter().map(|r| &candidates[*r as usize]).filter(|c| c.active).collect();
                        prop_assert_eq!(of_active.len(), rf.min(active.len()), "fenced ones only when needed");
                        let used: BTreeSet<_> = of_active.iter().map(|c| &c.rack).collect();
                        let all: BTreeSet<_> = active.iter().map(|c| &c.rack).collect();
                        prop_assert_eq!(used.len(), all.len().min(of_active.len()), "racks");
                    }
                }
            }
        }
    }
}
