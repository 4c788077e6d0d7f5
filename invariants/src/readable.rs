//! When offsets of a topic became readable, from the brokers' own sights, and to the readers of which leader.
//!
//! A leader that was deposed and does not know it answers reads by what it has, for as long as nobody tells it: KIP-207
//! and KIP-320 keep a reader from going back to it, not from being with it still. So there is one answer for all, the
//! [earliest sight](Readable::since), and one for the readers of each leader: what it or a leader before it had told. The
//! two are the same for the newest.

use std::collections::{BTreeMap, BTreeSet};

use history::{Observed, Observer};

use crate::Context;

/// Times and the offsets below which all was readable from then on, where they rose.
type Steps = Vec<(u64, i64)>;

/// By partition and leader epoch.
type Rises = BTreeMap<i32, BTreeMap<i32, Steps>>;

/// A broker took itself for the leader.
struct Reign {
    leader_epoch: i32,
    from_ns: u64,
    until_ns: Option<u64>,
}

pub(crate) struct Readable {
    /// By last stable offsets: at `read_committed`.
    stable: Rises,
    /// By high watermarks.
    high: Rises,
    reigns: BTreeMap<i32, Vec<Reign>>,
}

/// What the readers of one leader could know: nothing of later ones.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    of: &'a Readable,
    partition: i32,
    leader_epoch: i32,
}

impl Readable {
    pub fn of(context: &Context<'_>, topic: &str) -> Readable {
        let mut readable = Readable { stable: BTreeMap::new(), high: BTreeMap::new(), reigns: BTreeMap::new() };
        // Of each life, what it leads: the reign's place among those of its partition.
        let mut leading: BTreeMap<&Observer, BTreeMap<i32, usize>> = BTreeMap::new();
        for seen in &context.history.observations {
            let Observer::Node { .. } = seen.observer else { continue };
            match &seen.what {
                Observed::LastStableOffset { topic: t, partition, leader_epoch, offset } if t == topic => {
                    rise(&mut readable.stable, *partition, *leader_epoch, seen.at_ns, *offset);
                }
                Observed::HighWatermark { topic: t, partition, leader_epoch, offset } if t == topic => {
                    rise(&mut readable.high, *partition, *leader_epoch, seen.at_ns, *offset);
                }
                // By itself.
                Observed::LeaderElected { topic: t, partition, leader_epoch, log_end: Some(_), .. } if t == topic => {
                    let reigns = readable.reigns.entry(*partition).or_default();
                    leading.entry(&seen.observer).or_default().insert(*partition, reigns.len());
                    reigns.push(Reign { leader_epoch: *leader_epoch, from_ns: seen.at_ns, until_ns: None });
                }
                Observed::LeadershipEnded { topic: t, partition, leader_epoch } if t == topic => {
                    let place = leading.get(&seen.observer).and_then(|led| led.get(partition));
                    let reign = place.and_then(|at| readable.reigns.get_mut(partition)?.get_mut(*at));
                    if let Some(reign) = reign.filter(|reign| reign.leader_epoch == *leader_epoch) {
                        reign.until_ns.get_or_insert(seen.at_ns);
                    }
                }
                Observed::Died => {
                    for (partition, at) in leading.remove(&seen.observer).unwrap_or_default() {
                        let reign = readable.reigns.get_mut(&partition).and_then(|reigns| reigns.get_mut(at));
                        if let Some(reign) = reign {
                            reign.until_ns.get_or_insert(seen.at_ns);
                        }
                    }
                }
                _ => {}
            }
        }
        readable
    }

    pub fn knows(&self, partition: i32) -> bool {
        self.stable.contains_key(&partition)
    }

    /// First sight of a last stable offset past `offset`.
    pub fn since(&self, partition: i32, offset: i64) -> Option<u64> {
        self.newest(partition).since(offset)
    }

    /// The last stable offset as of a time; 0 before the first sight.
    pub fn stable_end(&self, partition: i32, at_ns: u64) -> i64 {
        end_at(&self.stable, partition, at_ns)
    }

    pub fn high_end(&self, partition: i32, at_ns: u64) -> i64 {
        end_at(&self.high, partition, at_ns)
    }

    /// What all leaders told.
    pub fn newest(&self, partition: i32) -> View<'_> {
        View { of: self, partition, leader_epoch: i32::MAX }
    }

    /// That of the newest leader, then those of others which took themselves for the leader in `[from, to]`.
    pub fn views(&self, partition: i32, from_ns: u64, to_ns: u64) -> Vec<View<'_>> {
        let reigns = self.reigns.get(&partition).map_or(&[][..], Vec::as_slice);
        let then = reigns
            .iter()
            .filter(|r| r.from_ns <= to_ns && r.until_ns.is_none_or(|until| until >= from_ns))
            .map(|r| r.leader_epoch);
        let epochs: BTreeSet<i32> = then.chain([i32::MAX]).collect();
        epochs.into_iter().rev().map(|leader_epoch| View { of: self, partition, leader_epoch }).collect()
    }
}

impl View<'_> {
    /// First sight of a last stable offset past `offset`.
    pub fn since(&self, offset: i64) -> Option<u64> {
        self.first_past(&self.of.stable, offset)
    }

    /// First sight of a high watermark past `offset`.
    pub fn high_since(&self, offset: i64) -> Option<u64> {
        self.first_past(&self.of.high, offset)
    }

    fn first_past(&self, rises: &Rises, offset: i64) -> Option<u64> {
        let epochs = rises.get(&self.partition)?.range(..=self.leader_epoch);
        let first = |(_, steps): (&i32, &Steps)| {
            let i = steps.partition_point(|(_, end)| *end <= offset);
            steps.get(i).map(|(at, _)| *at)
        };
        epochs.filter_map(first).min()
    }
}

fn rise(rises: &mut Rises, partition: i32, leader_epoch: i32, at_ns: u64, offset: i64) {
    let steps = rises.entry(partition).or_default().entry(leader_epoch).or_default();
    if steps.last().is_none_or(|(_, was)| *was < offset) {
        steps.push((at_ns, offset));
    }
}

fn end_at(rises: &Rises, partition: i32, at_ns: u64) -> i64 {
    let as_of = |steps: &Steps| {
        let i = steps.partition_point(|(at, _)| *at <= at_ns);
        i.checked_sub(1).map_or(0, |i| steps[i].1)
    };
    rises.get(&partition).into_iter().flat_map(BTreeMap::values).map(as_of).max().unwrap_or(0)
}
