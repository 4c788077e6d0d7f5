//! Listens to probes and keeps the history.
//!
//! A probe is stamped with (world time, node, incarnation), hashed into P and, where it means something to a check,
//! translated into `history`. Recording reads no clock of a node, draws nothing and wakes nobody, so W does not depend on
//! it. The workload's operations go through [`Recording::invoke`] and [`Recording::complete`] whether or not anybody
//! listens: they are the clients' memory and survive a client's crash.

mod cluster;
mod translate;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::rc::Rc;

use env::probe::Reached;
use history::{DecisionEntry, Observation, Observed, Observer, Op, OpId, OpKind, OpResult};
use xxhash_rust::xxh3::Xxh3;

/// What is recorded of one run. Clones are the same recording.
#[derive(Clone, Default)]
pub struct Recording(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    hasher: Buffered,
    probes: u64,
    ops: Vec<Op>,
    observations: Vec<Observation>,
    decisions: Vec<DecisionEntry>,
    reached: BTreeSet<&'static str>,
    facts: ProbeFacts,
    leader_epochs: LeaderEpochs,
    leaderships: Leaderships,
    cluster: cluster::Cluster,
}

/// Of each partition's present leader, by node, topic, partition.
type LeaderEpochs = BTreeMap<u32, BTreeMap<String, BTreeMap<i32, i32>>>;

/// Of partitions that a node leads, in the epoch that it does: by node and its life, topic, partition.
type Leaderships = BTreeMap<(u32, u32), BTreeMap<(String, i32), i32>>;

/// A hash over many short writes. It is that of their bytes in a row, so they are gathered first.
#[derive(Default)]
struct Buffered {
    hash: Xxh3,
    bytes: Vec<u8>,
}

impl Buffered {
    const FULL: usize = 8 * 1024;
}

impl Hasher for Buffered {
    fn write(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > Self::FULL {
            self.hash.update(&self.bytes);
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Of what was gathered and hashed so far.
    fn finish(&self) -> u64 {
        let mut hash = self.hash.clone();
        hash.update(&self.bytes);
        hash.digest()
    }
}

/// What probes said about the run as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeFacts {
    /// Epochs whose checkpoint was committed by all tasks.
    pub committed: BTreeSet<u64>,
    /// An attempt started from a checkpoint in which some split had been read.
    pub restored_non_empty: bool,
    /// Why attempts failed and nodes stopped, in order: for people.
    pub notes: Vec<String>,
}

/// The parts of a history that come from a recording.
#[derive(Default)]
pub struct Recorded {
    pub ops: Vec<Op>,
    pub observations: Vec<Observation>,
    pub decisions: Vec<DecisionEntry>,
    pub reached: BTreeSet<String>,
    pub facts: ProbeFacts,
    /// P.
    pub probe_hash: u64,
    pub probes: u64,
}

impl Recorded {
    /// Adds the ends of the lives of those that told something, each after the last that it told.
    pub fn died(&mut self, lives: &[world::Life]) {
        let told: BTreeSet<Observer> = self.observations.iter().map(|seen| seen.observer.clone()).collect();
        let mut seen: BTreeSet<Observer> = BTreeSet::new();
        for life in lives.iter().filter(|life| life.is_death()) {
            let observer = Observer::Node { node: life.node, incarnation: life.incarnation };
            // A node that is down may lose power too.
            if told.contains(&observer) && seen.insert(observer.clone()) {
                self.observations.push(Observation { at_ns: life.at.as_nanos(), observer, what: Observed::Died });
            }
        }
        // Stable: what was told at the instant of a death was told before it.
        self.observations.sort_by_key(|seen| seen.at_ns);
    }
}

impl Recording {
    /// Makes this recording the listener of the calling thread.
    pub fn listen(&self) {
        let inner = Rc::clone(&self.0);
        env::probe::listen(Some(Box::new(move |probe| {
            let Some(at) = world::port::current() else { return };
            let mut inner = inner.borrow_mut();
            let inner = &mut *inner;
            inner.hasher.write_u64(at.now.as_nanos());
            inner.hasher.write_u64(u64::from(at.node) << 32 | u64::from(at.incarnation));
            probe.hash_into(&mut inner.hasher);
            inner.probes += 1;
            let any = probe.into_any();
            let any = match any.downcast::<Reached>() {
                Ok(reached) => {
                    inner.reached.insert(reached.0);
                    return;
                }
                Err(any) => any,
            };
            let any = match any.downcast::<processor::probe::Probe>() {
                Ok(probe) => return inner.processor(at, *probe),
                Err(any) => any,
            };
            let any = match any.downcast::<broker::partition::probe::PartitionProbe>() {
                Ok(probe) => return inner.partition(at, &probe),
                Err(any) => any,
            };
            if let Ok(probe) = any.downcast::<broker::probe::Probe>() {
                inner.broker(at, *probe);
            }
        })));
    }

    /// Ends listening on the calling thread.
    pub fn deafen(&self) {
        env::probe::listen(None);
    }

    /// Tells which broker, by its id, the world's node is.
    pub fn is_broker(&self, node: u32, id: u32) {
        self.0.borrow_mut().cluster.brokers.insert(node, id);
    }

    pub fn invoke(&self, client: u32, n: u64, kind: OpKind) -> OpId {
        let mut inner = self.0.borrow_mut();
        inner.ops.push(Op {
            client,
            n,
            kind,
            invoked_ns: now_ns(),
            completed_ns: None,
            result: OpResult::Unknown { reason: None },
        });
        OpId(inner.ops.len() - 1)
    }

    pub fn complete(&self, op: OpId, result: OpResult) {
        let op = &mut self.0.borrow_mut().ops[op.0];
        assert!(op.completed_ns.is_none(), "operation {}/{} completed twice", op.client, op.n);
        op.completed_ns = Some(now_ns());
        op.result = result;
    }

    /// Something a workload client saw.
    pub fn observe(&self, client: u32, what: Observed) {
        let observation = Observation { at_ns: now_ns(), observer: Observer::Client { client }, what };
        self.0.borrow_mut().observations.push(observation);
    }

    pub fn note(&self, text: String) {
        self.0.borrow_mut().facts.notes.push(text);
    }

    /// Epochs committed so far.
    pub fn committed(&self) -> usize {
        self.0.borrow().facts.committed.len()
    }

    /// Takes all that was recorded, and leaves the recording empty.
    pub fn take(&self) -> Recorded {
        let inner = std::mem::take(&mut *self.0.borrow_mut());
        Recorded {
            ops: inner.ops,
            observations: inner.observations,
            decisions: inner.decisions,
            reached: inner.reached.into_iter().map(str::to_owned).collect(),
            facts: inner.facts,
            probe_hash: inner.hasher.finish(),
            probes: inner.probes,
        }
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").finish_non_exhaustive()
    }
}

fn now_ns() -> u64 {
    world::port::current().map_or(0, |c| c.now.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathered_writes_hash_as_single_ones() {
        let (mut gathered, mut single) = (Buffered::default(), Xxh3::default());
        for n in 0..3_000u64 {
            gathered.write_u64(n);
            single.write_u64(n);
            gathered.write(&vec![7; n as usize % 40]);
            single.write(&vec![7; n as usize % 40]);
        }
        gathered.write(&[1; 3 * Buffered::FULL]);
        single.write(&[1; 3 * Buffered::FULL]);
        assert_eq!(gathered.finish(), single.finish());
    }
}
