//! **in-sync-holds.** A broker enters an in-sync set only in a life in which it held all that its leader knew to be
//! committed when it asked the controller to take it in.
//!
//! Source: KIP-903 (a fetch of an earlier broker epoch proves nothing), KIP-841. Under page-cache acknowledgement a broker
//! that loses power comes back with less than it was seen to hold; if it is taken in for what it held, the next election may
//! choose it and lose what was acknowledged.
//!
//! ```text
//! follower, life 1: fetches from 10 ─ loses power ─ life 2, registered: its log ends at 7
//! leader: (committed up to 10) asks for the in-sync set with the follower ─ the controller takes life 2 in   ✗
//! ```
//!
//! Which life the controller takes in is told by the metadata, where registrations and changes stand in one order; what a
//! life held, by its own log events. Judged where the leader epoch stays, since an election has rules of its own.
//!
//! Not claimed: anything of members that were in sync before, or by an election (one-leader, acked-durable); of lives that
//! never said with which epoch they are registered.

use std::collections::{BTreeMap, BTreeSet};

use history::{LogEvent, Observation, Observed, Observer, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "in-sync-holds",
    statement: "a broker enters an in-sync set only in a life that held what was committed",
    source: "KIP-903, KIP-841",
    kind: Kind::Safety,
    check,
};

/// A node of the world, and which of its lives.
type Life = (u32, u32);

type Partition<'a> = (&'a str, i32);

/// A leader's wish, and how things stood.
#[derive(Clone)]
struct Ask<'a> {
    at_ns: u64,
    leader_epoch: i32,
    isr: &'a [i32],
    /// What the leader knew to be committed.
    high: i64,
    /// Where each life's log of the partition ended.
    ends: BTreeMap<Life, i64>,
}

impl Ask<'_> {
    /// That the life that was taken in held a log up to `end` only, or none.
    fn against(&self, at: Partition<'_>, end: Option<i64>) -> Witness {
        let Ask { high, at_ns, .. } = self;
        let held = match end {
            Some(end) => format!("a log up to {end} in that life"),
            None => "no log opened in that life".to_owned(),
        };
        let due = format!("a log up to {high}, committed by {at_ns} ns, when its leader asked");
        Witness::offset(at.0, at.1, end.unwrap_or_default()).expected(due).found(held)
    }
}

/// A state of a partition that was committed.
struct Change<'a> {
    leader_epoch: i32,
    isr: &'a [u32],
    /// The last one before anybody saw the change.
    ask: Option<Ask<'a>>,
}

fn check(context: &Context<'_>) -> Verdict {
    let observations = &context.history.observations;
    let lives = lives(observations);
    let mut found = Violations::of(&PROPERTY);
    let mut told: BTreeSet<(Partition<'_>, i32, u32)> = BTreeSet::new();
    let mut logs: BTreeMap<Partition<'_>, Logs> = BTreeMap::new();
    let mut asks: BTreeMap<Partition<'_>, Ask<'_>> = BTreeMap::new();
    let mut changes: BTreeMap<(Partition<'_>, i32), Change<'_>> = BTreeMap::new();
    // As each node has applied the metadata so far.
    let mut registered: BTreeMap<Life, BTreeMap<u32, i64>> = BTreeMap::new();
    for seen in observations {
        let Some(life) = life(seen) else { continue };
        match &seen.what {
            Observed::HighWatermark { topic, partition, offset, .. }
            | Observed::FollowerHighWatermark { topic, partition, offset, .. } => {
                logs.entry((topic, *partition)).or_default().high.insert(life, *offset);
            }
            Observed::Log { topic, partition, event: LogEvent::IsrAsked { leader_epoch, isr } } => {
                let at = (topic.as_str(), *partition);
                let log = logs.entry(at).or_default();
                if let Some(high) = log.high.get(&life).copied() {
                    let ends = log.ends.clone();
                    asks.insert(at, Ask { at_ns: seen.at_ns, leader_epoch: *leader_epoch, isr, high, ends });
                }
            }
            Observed::Log { topic, partition, event } => {
                logs.entry((topic, *partition)).or_default().take(life, event);
            }
            Observed::BrokerRegistered { broker, broker_epoch } => {
                registered.entry(life).or_default().insert(*broker, *broker_epoch);
            }
            Observed::IsrChanged { topic, partition, leader_epoch, partition_epoch, isr } => {
                let at = (topic.as_str(), *partition);
                let ask = || asks.get(&at).filter(|ask| ask.leader_epoch == *leader_epoch).cloned();
                let change = || Change { leader_epoch: *leader_epoch, isr, ask: ask() };
                changes.entry((at, *partition_epoch)).or_insert_with(change);
                let change = &changes[&(at, *partition_epoch)];
                let before = changes.get(&(at, partition_epoch - 1)).filter(|b| b.leader_epoch == *leader_epoch);
                let (Some(before), Some(ask)) = (before, &change.ask) else { continue };
                for broker in change.isr.iter().filter(|b| !before.isr.contains(b)) {
                    let asked = i32::try_from(*broker).is_ok_and(|b| ask.isr.contains(&b));
                    let epoch = registered.get(&life).and_then(|of| of.get(broker));
                    let (true, Some(epoch)) = (asked, epoch) else { continue };
                    let Some(entered) = lives.get(&(*broker, *epoch)) else { continue };
                    let end = ask.ends.get(entered).copied();
                    if end.is_none_or(|end| end < ask.high) && told.insert((at, *partition_epoch, *broker)) {
                        let who = format!(
                            "broker {broker}, registered with epoch {epoch}, enters with partition epoch {partition_epoch}"
                        );
                        let message = "a broker entered the in-sync set without what is committed";
                        found.add(None, message, ask.against(at, end).about(who));
                    }
                }
            }
            _ => {}
        }
    }
    found.verdict()
}

/// A node's sight; clients tell nothing here.
fn life(seen: &Observation) -> Option<Life> {
    match seen.observer {
        Observer::Node { node, incarnation } => Some((node, incarnation)),
        Observer::Client { .. } => None,
    }
}

/// By broker and broker epoch.
fn lives(observations: &[Observation]) -> BTreeMap<(u32, i64), Life> {
    let of = |seen: &Observation| match seen.what {
        Observed::BrokerStarted { broker, broker_epoch } => Some(((broker, broker_epoch), life(seen)?)),
        _ => None,
    };
    observations.iter().filter_map(of).collect()
}

/// What is known of one partition's copies, by life.
#[derive(Default)]
struct Logs {
    ends: BTreeMap<Life, i64>,
    /// What each knows to be committed.
    high: BTreeMap<Life, i64>,
}

impl Logs {
    fn take(&mut self, life: Life, event: &LogEvent) {
        let end = match event {
            LogEvent::Opened { end, .. } | LogEvent::Followed { end, .. } => *end,
            LogEvent::Replicated { last, .. } => last + 1,
            LogEvent::Truncated { to: end, .. } | LogEvent::Reset { offset: end } => {
                if let Some(high) = self.high.get_mut(&life) {
                    *high = (*high).min(*end);
                }
                *end
            }
            _ => return,
        };
        self.ends.insert(life, end);
    }
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
        fixture::rejects_cluster(
            &PROPERTY,
            &[REJOIN_DROPS_TAIL, REJOIN_SWAPS_ASK, REJOIN_SHIFTS_ASK, REJOIN_MISATTRIBUTES],
            &[
                (Mutator::Duplicate, "a log event told twice leaves the log where it was"),
                (Mutator::Unacknowledge, "clients' answers tell nothing of replicas"),
            ],
        );
    }

    #[test]
    fn an_election_has_rules_of_its_own() {
        let (mut history, _) = fixture::mutated(&fixture::cluster(), REJOIN_DROPS_TAIL);
        for seen in &mut history.observations {
            if let Observed::IsrChanged { leader_epoch, partition_epoch: 2, .. } = &mut seen.what {
                *leader_epoch = 2;
            }
        }
        assert_eq!(PROPERTY.check(&Context::new(&history)), Verdict::Pass);
    }
}
