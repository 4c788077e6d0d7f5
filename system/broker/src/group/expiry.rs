//! Which offsets are past their retention (`offsets.retention.minutes`), and which groups end with them, by Kafka's rules
//! (KIP-211, `ClassicGroup.offsetExpirationCondition`, `ConsumerGroup.offsetExpirationCondition`). Pure.
//!
//! | group | its offsets expire |
//! |--|--|
//! | none, or one that no member ever named a protocol of (a simple consumer) | retention after each commit |
//! | classic, Empty | retention after it became so; where that is not known, after each commit |
//! | classic, Stable, of consumers | retention after each commit, but for topics that members subscribe to |
//! | classic, else | never |
//! | of the consumer protocol | retention after each commit, but for topics that members subscribe to |
//!
//! An offset never expires while a transaction is open that may replace it. A group without members and without offsets,
//! pending ones included, ends.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use super::classic::State;
use super::machine::{Group, Machine};
use super::offsets::{Committed, Offsets, Place};

/// What is over in one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expired {
    pub group: String,
    pub places: Vec<Place>,
    /// The group's own records go too.
    pub ends: bool,
}

/// What is over as of `now_ms`, wall clock, in at most `limit` places and groups, in the order of the groups' names; and
/// whether there is more.
pub fn expired(
    groups: &Machine,
    offsets: &Offsets,
    now_ms: i64,
    retention_ms: i64,
    limit: usize,
) -> (Vec<Expired>, bool) {
    let pending = offsets.pending();
    let names: BTreeSet<&String> = groups.groups().map(|(name, _)| name).chain(offsets.groups()).collect();
    let (mut found, mut left) = (Vec::new(), limit);
    for name in names {
        let group = groups.group(name);
        let is_pending = |place: &Place| pending.contains(&(name.as_str(), place));
        let subscribed = OnceCell::new();
        let is_read = |topic: &str| {
            // Asked last: it may have to be read from what the members sent.
            let topics = subscribed.get_or_init(|| group.map_or(Some(BTreeSet::new()), Group::subscribed_topics));
            topics.as_ref().is_none_or(|topics| topics.contains(topic))
        };
        let (mut places, mut stay) = (Vec::new(), pending.iter().any(|(group, _)| group == name));
        for (place, committed) in offsets.of(name) {
            let is_old = since_ms(group, committed).is_some_and(|ms| now_ms.saturating_sub(ms) >= retention_ms);
            if is_old && !is_pending(place) && !is_read(&place.0) {
                places.push(place.clone());
            } else {
                stay = true;
            }
        }
        let ends = !stay && group.is_some_and(has_nobody);
        if places.is_empty() && !ends {
            continue;
        }
        if left == 0 {
            return (found, true);
        }
        let more = places.len() > left;
        places.truncate(left);
        left -= places.len().max(1);
        found.push(Expired { group: name.clone(), places, ends: ends && !more });
        if more {
            return (found, true);
        }
    }
    (found, false)
}

fn has_nobody(group: &Group) -> bool {
    match group {
        Group::Classic(g) => g.is_empty() && g.state() == State::Empty,
        Group::Consumer(g) => g.is_empty(),
    }
}

/// Since when the offset counts as unused; `None`: it does not.
fn since_ms(group: Option<&Group>, committed: &Committed) -> Option<i64> {
    let Some(Group::Classic(group)) = group else {
        return Some(committed.commit_ms);
    };
    if group.protocol_type().is_none() {
        return Some(committed.commit_ms);
    }
    match group.state() {
        State::Empty => Some(group.empty_since_ms().unwrap_or(committed.commit_ms)),
        State::Stable => Some(committed.commit_ms),
        State::Preparing | State::Completing => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use protocol::Uuid;

    use super::*;
    use crate::group::consumer::MemberMetadata;
    use crate::group::machine::{Client, GroupConfig};
    use crate::group::offsets::Input;
    use crate::group::records::{GroupRecord, StoredClassic, StoredMember};

    const RETENTION_MS: i64 = 1_000;

    struct State {
        groups: Machine,
        offsets: Offsets,
        at: i64,
    }

    impl State {
        fn new() -> Self {
            Self { groups: Machine::new(GroupConfig::default()), offsets: Offsets::default(), at: 0 }
        }

        fn committed(commit_ms: i64) -> Option<Committed> {
            Some(Committed { offset: 5, leader_epoch: -1, metadata: String::new(), commit_ms })
        }

        fn commit(&mut self, group: &str, topic: &str, commit_ms: i64) {
            self.at += 1;
            let place = (topic.to_owned(), 0);
            let committed = Self::committed(commit_ms);
            self.offsets.handle(Input::Committed { at: self.at, group: group.into(), place, committed });
        }

        fn pend(&mut self, group: &str, topic: &str) {
            self.at += 1;
            let place = (topic.to_owned(), 0);
            let (group, committed) = (group.to_owned(), Self::committed(0));
            self.offsets.handle(Input::Pending { at: self.at, producer_id: 7, group, place, committed });
        }

        /// A group as its record tells of it, with a member that subscribes to `topic`.
        fn classic(&mut self, group: &str, protocol_type: &str, since_ms: i64, topic: Option<&str>) {
            let member = |topic: &str| {
                let mut subscription = vec![0, 0, 0, 0, 0, 1];
                subscription.extend((topic.len() as i16).to_be_bytes());
                subscription.extend(topic.as_bytes());
                subscription.extend((-1i32).to_be_bytes());
                StoredMember {
                    member_id: "m".into(),
                    instance_id: None,
                    client: Client::default(),
                    rebalance_timeout_ms: 1,
                    session_timeout_ms: 1,
                    subscription: subscription.into(),
                    assignment: Bytes::new(),
                }
            };
            let stored = StoredClassic {
                protocol_type: protocol_type.into(),
                generation: 1,
                protocol: topic.map(|_| "range".into()),
                leader: None,
                state_timestamp_ms: since_ms,
                members: topic.map(member).into_iter().collect(),
            };
            self.groups.replay(GroupRecord::Classic { group: group.into(), value: Some(stored) });
        }

        fn consumer(&mut self, group: &str, topic: Option<&str>) {
            self.groups.replay(GroupRecord::Epoch { group: group.into(), value: Some((3, 0)) });
            if let Some(topic) = topic {
                let value = MemberMetadata { topics: BTreeSet::from([topic.to_owned()]), ..MemberMetadata::default() };
                let (group, member_id) = (group.to_owned(), Uuid::from_u128(1).to_string());
                self.groups.replay(GroupRecord::Member { group, member_id, value: Some(value) });
            }
        }

        fn over(&self, now_ms: i64) -> BTreeMap<String, (Vec<String>, bool)> {
            let (found, more) = expired(&self.groups, &self.offsets, now_ms, RETENTION_MS, 100);
            assert!(!more);
            let topics = |places: Vec<Place>| places.into_iter().map(|(topic, _)| topic).collect();
            found.into_iter().map(|e| (e.group, (topics(e.places), e.ends))).collect()
        }
    }

    fn of(group: &str, topics: &[&str], ends: bool) -> BTreeMap<String, (Vec<String>, bool)> {
        BTreeMap::from([(group.to_owned(), (topics.iter().map(|t| (*t).to_owned()).collect(), ends))])
    }

    #[test]
    fn a_simple_consumers_offsets_expire_by_their_commits() {
        let mut s = State::new();
        s.commit("g", "a", 100);
        s.commit("g", "b", 200);
        assert_eq!(s.over(1_099), BTreeMap::new());
        assert_eq!(s.over(1_100), of("g", &["a"], false));
        assert_eq!(s.over(1_200), of("g", &["a", "b"], false), "there is no group that could end");
    }

    #[test]
    fn an_empty_groups_offsets_expire_all_at_once_and_the_group_with_them() {
        let mut s = State::new();
        s.commit("g", "a", 100);
        s.commit("g", "b", 5_500);
        s.classic("g", "consumer", 5_000, None);
        assert_eq!(s.over(5_999), BTreeMap::new());
        assert_eq!(s.over(6_000), of("g", &["a", "b"], true));
        let mut s = State::new();
        s.commit("g", "a", 100);
        s.classic("g", "consumer", -1, None);
        assert_eq!(s.over(1_099), BTreeMap::new(), "an old record does not say since when");
        assert_eq!(s.over(1_100), of("g", &["a"], true));
        let mut s = State::new();
        s.classic("g", "", 5_000, None);
        s.commit("g", "a", 100);
        assert_eq!(s.over(1_100), of("g", &["a"], true), "of no protocol: by its commits");
    }

    #[test]
    fn a_group_with_members_keeps_what_they_subscribe_to() {
        let mut s = State::new();
        s.classic("g", "consumer", 0, Some("a"));
        s.commit("g", "a", 100);
        s.commit("g", "b", 100);
        assert_eq!(s.over(9_999), of("g", &["b"], false));
        let mut s = State::new();
        s.classic("g", "connect", 0, Some("a"));
        s.commit("g", "b", 100);
        assert_eq!(s.over(9_999), BTreeMap::new(), "nobody knows what its members read");
        let mut s = State::new();
        s.consumer("g", Some("a"));
        s.commit("g", "a", 100);
        s.commit("g", "b", 100);
        assert_eq!(s.over(9_999), of("g", &["b"], false));
        let mut s = State::new();
        s.consumer("g", None);
        s.commit("g", "a", 100);
        assert_eq!(s.over(1_099), BTreeMap::new());
        assert_eq!(s.over(1_100), of("g", &["a"], true));
    }

    #[test]
    fn what_a_transaction_may_replace_stays_and_so_does_its_group() {
        let mut s = State::new();
        s.classic("g", "consumer", 0, None);
        s.commit("g", "a", 0);
        s.commit("g", "b", 0);
        s.pend("g", "a");
        assert_eq!(s.over(9_999), of("g", &["b"], false));
        s.offsets.handle(Input::Ended { producer_id: 7, commit: false, at: 99 });
        assert_eq!(s.over(9_999), of("g", &["a", "b"], true));
        let mut s = State::new();
        s.classic("g", "consumer", 0, None);
        s.pend("g", "a");
        assert_eq!(s.over(9_999), BTreeMap::new());
    }

    #[test]
    fn a_group_with_nothing_left_ends_at_once() {
        let mut s = State::new();
        s.classic("g", "consumer", 5_000, None);
        assert_eq!(s.over(5_000), of("g", &[], true));
        let mut s = State::new();
        s.classic("g", "consumer", 0, Some("a"));
        s.consumer("h", Some("a"));
        assert_eq!(s.over(9_999), BTreeMap::new(), "not with members");
    }

    #[test]
    fn the_rest_is_for_the_next_time() {
        let mut s = State::new();
        for group in ["e", "f", "g"] {
            s.classic(group, "consumer", 0, None);
            s.commit(group, "a", 0);
            s.commit(group, "b", 0);
        }
        let (found, more) = expired(&s.groups, &s.offsets, 9_999, RETENTION_MS, 3);
        let shape: Vec<_> = found.iter().map(|e| (e.group.as_str(), e.places.len(), e.ends)).collect();
        assert_eq!((shape, more), (vec![("e", 2, true), ("f", 1, false)], true));
        let (found, more) = expired(&s.groups, &s.offsets, 9_999, RETENTION_MS, 4);
        assert_eq!((found.len(), found.iter().all(|e| e.ends), more), (2, true, true));
        assert!(!expired(&s.groups, &s.offsets, 9_999, RETENTION_MS, 6).1);
    }
}
