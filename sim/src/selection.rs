//! Which seeds a run has, and in which order.
//!
//! Plans that were kept come first, each as its own tasks; then lanes, each a source with a range of seeds. Without a time
//! limit the lanes follow each other. With one they take turns, so that whatever is over when the time is up, every
//! scenario had its share:
//!
//! ```text
//! kept --> lane A: seeds 0 1 2 | 3 4 5 | …      three seeds a turn
//!          lane B: seeds 0     | 1     | …      one seed a turn
//!          order:  A0 A1 A2 B0 A3 A4 A5 B1 …
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::task::{Source, Task};

/// A part of a sweep that is shared out over several machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// From 1.
    pub index: u64,
    pub of: u64,
}

impl Shard {
    /// The part of `count` things in a row that is this shard's: where it begins, and how many. The parts of all shards
    /// follow each other, overlap nowhere and leave nothing out; they differ by at most one.
    fn part(self, count: u64) -> (u64, u64) {
        // Below `count`, since index <= of.
        let bound = |n: u64| (u128::from(count) * u128::from(n) / u128::from(self.of)) as u64;
        let begin = bound(self.index - 1);
        (begin, bound(self.index) - begin)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((index, of)) if 1 <= index && index <= of && of <= 1_000_000 => Ok(Self { index, of }),
            _ => Err("write a shard as INDEX/COUNT, from 1/4 to 4/4".into()),
        }
    }
}

/// Seeds of one source.
#[derive(Clone, Debug)]
pub struct Lane {
    pub source: Source,
    pub first: u64,
    pub count: u64,
    /// Seeds in each of its turns, at least 1.
    pub share: u64,
}

impl Lane {
    /// The last seed, if there is any.
    pub fn last(&self) -> Option<u64> {
        self.count.checked_sub(1).map(|more| self.first.saturating_add(more))
    }
}

/// All of a run.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Stored plans, before all else.
    pub kept: Vec<Task>,
    pub lanes: Vec<Lane>,
    /// Fault families that the lanes keep; `None` keeps them all.
    pub faults: Option<BTreeSet<String>>,
    /// Whether the lanes take turns.
    pub turns: bool,
}

impl Selection {
    /// Keeps one shard: of each lane, and of what was kept, the part that is its own.
    pub fn shard(&mut self, shard: Shard) {
        let (begin, count) = shard.part(self.kept.len() as u64);
        self.kept = self.kept.drain(..).skip(begin as usize).take(count as usize).collect();
        for lane in &mut self.lanes {
            let (begin, count) = shard.part(lane.count);
            (lane.first, lane.count) = (lane.first.saturating_add(begin), count);
        }
        self.lanes.retain(|lane| lane.count > 0);
    }

    /// How many tasks there are.
    pub fn total(&self) -> u64 {
        self.lanes.iter().fold(self.kept.len() as u64, |sum, lane| sum.saturating_add(lane.count))
    }

    /// How many tasks there are by their names in reports.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let name = |lane: &Lane| Task { source: lane.source.clone(), seed: 0, faults: None }.scenario().to_owned();
        let lanes = self.lanes.iter().map(|lane| (name(lane), lane.count));
        for (name, count) in self.kept.iter().map(|task| (task.scenario().to_owned(), 1)).chain(lanes) {
            let sum = counts.entry(name).or_default();
            *sum = sum.saturating_add(count);
        }
        counts
    }

    pub fn tasks(self) -> impl Iterator<Item = Task> + Send {
        let turns = Turns { left: 0, at: self.lanes.len().saturating_sub(1), in_turn: self.turns, lanes: self.lanes };
        let faults = self.faults;
        self.kept.into_iter().chain(turns.map(move |(source, seed)| Task { source, seed, faults: faults.clone() }))
    }
}

/// The lanes' seeds in order.
struct Turns {
    lanes: Vec<Lane>,
    in_turn: bool,
    /// The lane whose turn it is, and how many seeds that still has.
    at: usize,
    left: u64,
}

impl Iterator for Turns {
    type Item = (Source, u64);

    fn next(&mut self) -> Option<Self::Item> {
        for _ in 0..=self.lanes.len() {
            let lane = self.lanes.get_mut(self.at)?;
            if self.left > 0 && lane.count > 0 {
                let seed = lane.first;
                self.left -= 1;
                lane.count -= 1;
                lane.first = lane.first.saturating_add(1);
                return Some((lane.source.clone(), seed));
            }
            self.at = (self.at + 1) % self.lanes.len();
            self.left = if self.in_turn { self.lanes[self.at].share } else { u64::MAX };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(name: &str, first: u64, count: u64, share: u64) -> Lane {
        Lane { source: Source::Scenario(name.into()), first, count, share }
    }

    fn names(selection: Selection) -> Vec<String> {
        selection.tasks().map(|task| format!("{}{}", task.scenario(), task.seed)).collect()
    }

    #[test]
    fn lanes_follow_each_other_or_take_turns() {
        let lanes = vec![lane("a", 0, 5, 3), lane("b", 7, 3, 1)];
        let all = Selection { lanes: lanes.clone(), ..Selection::default() };
        assert_eq!(all.total(), 8);
        assert_eq!(all.counts(), BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 3)]));
        assert_eq!(names(all), ["a0", "a1", "a2", "a3", "a4", "b7", "b8", "b9"]);
        let turns = Selection { lanes, turns: true, ..Selection::default() };
        assert_eq!(names(turns), ["a0", "a1", "a2", "b7", "a3", "a4", "b8", "b9"]);
        assert!(names(Selection::default()).is_empty());
    }

    #[test]
    fn the_last_seed_of_all_is_reached_once() {
        let all = Selection { lanes: vec![lane("a", u64::MAX - 1, 2, 1)], ..Selection::default() };
        assert_eq!(names(all), [format!("a{}", u64::MAX - 1), format!("a{}", u64::MAX)]);
    }

    #[test]
    fn shards_leave_nothing_out_and_overlap_nowhere() {
        let whole = Selection { lanes: vec![lane("a", 100, 10, 1), lane("b", 0, 2, 1)], ..Selection::default() };
        let mut all = Vec::new();
        for index in 1..=4 {
            let mut part = whole.clone();
            part.shard(Shard { index, of: 4 });
            assert!((2..=4).contains(&part.total()), "{part:?}");
            all.extend(names(part));
        }
        all.sort();
        let mut expected = names(whole);
        expected.sort();
        assert_eq!(all, expected);
        assert_eq!(Shard { index: 3, of: 3 }.part(u64::MAX), (12_297_829_382_473_034_410, 6_148_914_691_236_517_205));
    }

    #[test]
    fn shards_are_written_from_one() {
        assert_eq!("3/20".parse(), Ok(Shard { index: 3, of: 20 }));
        assert_eq!(Shard { index: 3, of: 20 }.to_string(), "3/20");
        for nonsense in ["", "0/4", "5/4", "1", "1/0", "1/2/3", "-1/2", "a/b", "1/1000001"] {
            assert!(nonsense.parse::<Shard>().is_err(), "{nonsense}");
        }
    }
}
