//! The consumer offsets of one partition of `__consumer_offsets`, as a pure machine over that partition's log.
//!
//! An offset committed inside a transaction is pending until the transaction's marker: a commit makes it visible, an
//! abort drops it. Among offsets of one place the one later in the log wins, so a transactional offset that an ordinary
//! commit overtook before its marker does not come back.

use std::collections::{BTreeMap, BTreeSet};

/// A topic and a partition of it that a group reads.
pub type Place = (String, i32);

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    pub offset: i64,
    /// -1 if the consumer did not say.
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_ms: i64,
}

/// A commit, and where its record is in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    at: i64,
    /// `None`: forgotten.
    committed: Option<Committed>,
}

#[derive(Clone, Debug)]
pub enum Input {
    /// A record of an ordinary commit is in the log at `at`.
    Committed { at: i64, group: String, place: Place, committed: Option<Committed> },
    /// A record of a transaction is in the log at `at`.
    Pending { at: i64, producer_id: i64, group: String, place: Place, committed: Option<Committed> },
    /// The transaction's marker is in the log at `at`, or before and nothing of that transaction is from `at` on. Told
    /// late, it says nothing of offsets that the same producer's next transaction put behind it.
    Ended { producer_id: i64, commit: bool, at: i64 },
}

/// An offset that became visible, or was deleted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Visible {
    pub group: String,
    pub place: Place,
    pub offset: Option<i64>,
    pub producer_id: Option<i64>,
}

/// What a group committed for one place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fetched {
    None,
    Offset(Committed),
    /// A transaction that may change it is open.
    Unstable,
}

#[derive(Debug, Default)]
pub struct Offsets {
    groups: BTreeMap<String, BTreeMap<Place, Entry>>,
    pending: BTreeMap<i64, BTreeMap<(String, Place), Entry>>,
}

impl Offsets {
    pub fn handle(&mut self, input: Input) -> Vec<Visible> {
        match input {
            Input::Committed { at, group, place, committed } => {
                self.set(group, place, Entry { at, committed }, None).into_iter().collect()
            }
            Input::Pending { at, producer_id, group, place, committed } => {
                self.pending.entry(producer_id).or_default().insert((group, place), Entry { at, committed });
                Vec::new()
            }
            Input::Ended { producer_id, commit, at } => {
                let pending = self.pending.remove(&producer_id).unwrap_or_default();
                let (pending, later): (BTreeMap<_, _>, _) = pending.into_iter().partition(|(_, e)| e.at < at);
                if !later.is_empty() {
                    self.pending.insert(producer_id, later);
                }
                if !commit {
                    return Vec::new();
                }
                let decided = pending.into_iter();
                decided.filter_map(|((group, place), entry)| self.set(group, place, entry, Some(producer_id))).collect()
            }
        }
    }

    pub fn fetch(&self, group: &str, place: &Place, require_stable: bool) -> Fetched {
        let key = (group.to_owned(), place.clone());
        if require_stable && self.pending.values().any(|p| p.contains_key(&key)) {
            return Fetched::Unstable;
        }
        match self.groups.get(group).and_then(|g| g.get(place)).and_then(|e| e.committed.clone()) {
            Some(committed) => Fetched::Offset(committed),
            None => Fetched::None,
        }
    }

    /// Every offset that is visible: group, place, offset.
    pub fn committed(&self) -> impl Iterator<Item = (&String, &Place, i64)> {
        let places = self.groups.iter().flat_map(|(group, places)| places.iter().map(move |(p, e)| (group, p, e)));
        places.filter_map(|(group, place, entry)| Some((group, place, entry.committed.as_ref()?.offset)))
    }

    /// The groups that have an offset.
    pub fn groups(&self) -> impl Iterator<Item = &String> {
        let some = |places: &BTreeMap<Place, Entry>| places.values().any(|e| e.committed.is_some());
        self.groups.iter().filter(move |(_, places)| some(places)).map(|(group, _)| group)
    }

    /// Every offset that is visible now: group, topic, partition, offset.
    pub fn visible(&self) -> impl Iterator<Item = (&String, &Place, i64)> {
        self.groups.iter().flat_map(|(group, places)| {
            places.iter().filter_map(move |(place, e)| Some((group, place, e.committed.as_ref()?.offset)))
        })
    }

    /// The offsets of a group that are visible.
    pub fn of(&self, group: &str) -> impl Iterator<Item = (&Place, &Committed)> {
        let places = self.groups.get(group).into_iter().flatten();
        places.filter_map(|(place, entry)| Some((place, entry.committed.as_ref()?)))
    }

    /// Group and place of every offset that an open transaction may yet make visible.
    pub fn pending(&self) -> BTreeSet<(&str, &Place)> {
        self.pending.values().flat_map(BTreeMap::keys).map(|(group, place)| (group.as_str(), place)).collect()
    }

    /// Every place the group has an offset for, also one still pending.
    pub fn places(&self, group: &str) -> Vec<Place> {
        let visible = self.groups.get(group).into_iter().flatten();
        let mut places: Vec<Place> =
            visible.filter(|(_, e)| e.committed.is_some()).map(|(place, _)| place.clone()).collect();
        let pending = self.pending.values().flat_map(|p| p.keys());
        places.extend(pending.filter(|(g, _)| g == group).map(|(_, place)| place.clone()));
        places.sort();
        places.dedup();
        places
    }

    fn set(&mut self, group: String, place: Place, entry: Entry, producer_id: Option<i64>) -> Option<Visible> {
        let places = self.groups.entry(group.clone()).or_default();
        if places.get(&place).is_some_and(|e| e.at > entry.at) {
            return None;
        }
        let offset = entry.committed.as_ref().map(|c| c.offset);
        let key = (group, place);
        if offset.is_none() && !self.pending.values().any(|p| p.contains_key(&key)) {
            // Only for what is before it in the log and not decided would it be worth remembering.
            places.remove(&key.1);
            let empty = places.is_empty();
            if empty {
                self.groups.remove(&key.0);
            }
        } else {
            places.insert(key.1.clone(), entry);
        }
        let (group, place) = key;
        Some(Visible { group, place, offset, producer_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(offset: i64) -> Option<Committed> {
        Some(Committed { offset, leader_epoch: -1, metadata: String::new(), commit_ms: 0 })
    }

    fn pending(m: &mut Offsets, at: i64, producer_id: i64, to: i64) {
        let place = ("t".to_owned(), 0);
        m.handle(Input::Pending { at, producer_id, group: "g".into(), place, committed: offset(to) });
    }

    fn committed(m: &mut Offsets, at: i64, to: i64) {
        let place = ("t".to_owned(), 0);
        m.handle(Input::Committed { at, group: "g".into(), place, committed: offset(to) });
    }

    fn get(m: &Offsets, stable: bool) -> Option<i64> {
        match m.fetch("g", &("t".to_owned(), 0), stable) {
            Fetched::None => None,
            Fetched::Offset(c) => Some(c.offset),
            Fetched::Unstable => Some(-2),
        }
    }

    #[test]
    fn a_pending_offset_is_seen_only_after_its_commit_marker() {
        let mut m = Offsets::default();
        pending(&mut m, 0, 7, 10);
        assert_eq!((get(&m, false), get(&m, true)), (None, Some(-2)));
        m.handle(Input::Ended { producer_id: 8, commit: true, at: 1 });
        assert_eq!(get(&m, false), None);
        m.handle(Input::Ended { producer_id: 7, commit: true, at: 2 });
        assert_eq!((get(&m, false), get(&m, true)), (Some(10), Some(10)));
    }

    #[test]
    fn an_aborted_offset_is_never_seen() {
        let mut m = Offsets::default();
        committed(&mut m, 0, 5);
        pending(&mut m, 1, 7, 10);
        m.handle(Input::Ended { producer_id: 7, commit: false, at: 2 });
        m.handle(Input::Ended { producer_id: 7, commit: true, at: 3 });
        assert_eq!(get(&m, true), Some(5));
    }

    #[test]
    fn the_later_in_the_log_wins_whenever_it_is_decided() {
        let mut m = Offsets::default();
        pending(&mut m, 0, 7, 10);
        committed(&mut m, 1, 20);
        m.handle(Input::Ended { producer_id: 7, commit: true, at: 2 });
        assert_eq!(get(&m, true), Some(20));
    }

    #[test]
    fn a_forgotten_offset_leaves_nothing_but_what_an_undecided_one_must_not_undo() {
        let mut m = Offsets::default();
        let forget = |m: &mut Offsets, at: i64| {
            let place = ("t".to_owned(), 0);
            m.handle(Input::Committed { at, group: "g".into(), place, committed: None })
        };
        committed(&mut m, 0, 5);
        assert_eq!(forget(&mut m, 1).len(), 1);
        assert!(m.groups.is_empty());
        pending(&mut m, 2, 7, 10);
        forget(&mut m, 3);
        m.handle(Input::Ended { producer_id: 7, commit: true, at: 4 });
        assert_eq!(get(&m, true), None, "it was forgotten after");
        committed(&mut m, 5, 20);
        assert_eq!(get(&m, true), Some(20));
    }

    #[test]
    fn an_ending_that_is_told_late_leaves_the_next_transaction_alone() {
        let mut m = Offsets::default();
        pending(&mut m, 0, 7, 10);
        m.handle(Input::Ended { producer_id: 7, commit: true, at: 1 });
        pending(&mut m, 2, 7, 20);
        // A second copy of the first transaction's marker was answered "already there".
        m.handle(Input::Ended { producer_id: 7, commit: true, at: 2 });
        assert_eq!((get(&m, false), get(&m, true)), (Some(10), Some(-2)));
        m.handle(Input::Ended { producer_id: 7, commit: false, at: 3 });
        assert_eq!(get(&m, true), Some(10));
    }
}
