//! What each fault did. A fault that was switched on but touched nothing did not bite, and says so by its counts.

use std::collections::BTreeMap;

use crate::SimTime;

/// Names one fault of a world, in the order they were switched on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FaultId(pub(crate) u32);

impl FaultId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A fault and its effects so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effect {
    pub id: FaultId,
    /// `crash`, `power-loss`, `cut`, `fsync-error`, …
    pub kind: &'static str,
    /// What it was done to, with roles resolved: `broker-1`, `client-0 -> broker-1`, `broker-0, client-1 <-> broker-1, broker-2`.
    pub subject: String,
    /// Of a fault that waits for its victim (a crash point, a failing sync, a full disk): when it first met one, or when it
    /// was switched on if it has met none.
    pub began: SimTime,
    pub ended: Option<SimTime>,
    /// What it did, by name: `segments_held`, `writes_lost`, `connections_reset`, …
    pub counts: BTreeMap<&'static str, u64>,
}

impl Effect {
    /// True if it changed anything.
    pub fn bit(&self) -> bool {
        self.counts.values().any(|&n| n > 0)
    }

    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Effects(pub(crate) Vec<Effect>);

impl Effects {
    pub(crate) fn begin(&mut self, kind: &'static str, subject: String, now: u64) -> FaultId {
        let id = FaultId(u32::try_from(self.0.len()).expect("fewer than 2^32 faults"));
        let began = SimTime::from_nanos(now);
        self.0.push(Effect { id, kind, subject, began, ended: None, counts: BTreeMap::new() });
        id
    }

    pub(crate) fn add(&mut self, id: FaultId, name: &'static str, n: u64) {
        if n > 0 {
            *self.0[id.index()].counts.entry(name).or_default() += n;
        }
    }

    /// As [`Self::add`], for a fault that waits for its victim: until now it was only switched on.
    pub(crate) fn meet(&mut self, id: FaultId, name: &'static str, n: u64, now: u64) {
        let effect = &mut self.0[id.index()];
        if n > 0 && !effect.bit() {
            effect.began = SimTime::from_nanos(now);
        }
        self.add(id, name, n);
    }

    pub(crate) fn end(&mut self, id: FaultId, now: u64) {
        self.0[id.index()].ended.get_or_insert(SimTime::from_nanos(now));
    }
}
