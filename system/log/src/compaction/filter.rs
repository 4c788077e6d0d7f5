//! What becomes of each batch: kept as it is, kept with fewer records, or gone. Pure; batches come in order from the log's
//! start.
//!
//! | what | stays |
//! |--|--|
//! | a record with a key | unless the map knows a later one of the key |
//! | a record without a key | always: nothing replaces it |
//! | a tombstone | until its batch's delete horizon; a batch gets one the first time it is cleaned (KIP-534) |
//! | a record of an aborted transaction | never |
//! | a transaction's marker | while a batch of its transaction is there; from then on until its delete horizon |
//! | the header of a producer's last batch, or its last marker | always: retries are told by it (KAFKA-5490) |
//! | the header of a leader epoch's first batch | always: logs are compared by where epochs begin |
//! | what lies past the map | always |
//!
//! Control records are no user's: their keys are never looked up in the map (KAFKA-14055).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::batch::{BatchError, BatchHeader, Limits, decode_records, retain};

use super::CleanerConfig;
use super::offset_map::OffsetMap;
use crate::log::marker_of;
use crate::producer_state::LastBatch;
use crate::{AbortedTransaction, Offset};

/// What to do with one batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    Rewrite(Bytes),
    Drop,
}

/// What a pass knows beforehand.
#[derive(Debug)]
pub(crate) struct Facts {
    pub map: OffsetMap,
    /// The map holds the dirty records below this.
    pub map_end: Offset,
    /// (first offset, marker) by producer, in order.
    pub aborted: BTreeMap<i64, Vec<(Offset, Offset)>>,
    /// Of each producer that is remembered.
    pub last_batches: BTreeMap<i64, LastBatch>,
    pub now_ms: i64,
    pub delete_retention_ms: i64,
}

#[derive(Debug)]
pub(crate) struct Filter {
    facts: Facts,
    /// Producers with a transactional batch since their last marker.
    unmarked: BTreeSet<i64>,
    epoch: Option<i32>,
}

/// The aborted transactions by producer.
pub(crate) fn by_producer(aborted: &[AbortedTransaction]) -> BTreeMap<i64, Vec<(Offset, Offset)>> {
    let mut by: BTreeMap<i64, Vec<(Offset, Offset)>> = BTreeMap::new();
    for t in aborted {
        by.entry(t.producer_id).or_default().push((t.first_offset, t.last_offset));
    }
    by.values_mut().for_each(|v| v.sort_unstable());
    by
}

/// Whether the batch's records are of a transaction that was aborted.
pub(crate) fn is_aborted(aborted: &BTreeMap<i64, Vec<(Offset, Offset)>>, header: &BatchHeader) -> bool {
    let Some(of_producer) = aborted.get(&header.producer_id).filter(|_| header.is_transactional()) else {
        return false;
    };
    let before = of_producer.partition_point(|(first, _)| *first <= header.base_offset);
    before.checked_sub(1).is_some_and(|at| header.base_offset < of_producer[at].1)
}

impl Facts {
    pub fn delete_horizon_ms(&self) -> i64 {
        self.now_ms.saturating_add(self.delete_retention_ms)
    }
}

impl Filter {
    pub fn new(facts: Facts) -> Self {
        Self { facts, unmarked: BTreeSet::new(), epoch: None }
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    pub fn judge(&mut self, header: &BatchHeader, bytes: &Bytes) -> Result<Fate, String> {
        if header.base_offset >= self.facts.map_end {
            return Ok(Fate::Keep);
        }
        let begins_epoch = self.epoch.replace(header.partition_leader_epoch) != Some(header.partition_leader_epoch);
        let fate = if header.is_control() { self.control(header, bytes)? } else { self.data(header, bytes)? };
        Ok(match fate {
            Fate::Drop if begins_epoch => emptied(header).map_err(|e| e.to_string())?,
            fate => fate,
        })
    }

    fn control(&mut self, header: &BatchHeader, bytes: &Bytes) -> Result<Fate, String> {
        if marker_of(header, bytes)?.is_none() {
            return Ok(if header.records_count == 0 { Fate::Drop } else { Fate::Keep });
        }
        let has_batches = self.unmarked.remove(&header.producer_id);
        let last = self.facts.last_batches.get(&header.producer_id) == Some(&LastBatch::Marker(header.base_offset));
        if has_batches || last {
            return Ok(Fate::Keep);
        }
        match header.delete_horizon_ms() {
            None => {
                let records = decode_records(bytes, &Limits::default()).map_err(|e| e.to_string())?;
                let horizon = Some(self.facts.delete_horizon_ms());
                retain(header, &records, horizon).map(Fate::Rewrite).map_err(|e| e.to_string())
            }
            Some(horizon) if self.facts.now_ms < horizon => Ok(Fate::Keep),
            Some(_) => Ok(Fate::Drop),
        }
    }

    fn data(&mut self, header: &BatchHeader, bytes: &Bytes) -> Result<Fate, String> {
        if header.is_transactional() {
            self.unmarked.insert(header.producer_id);
        }
        let last = self.facts.last_batches.get(&header.producer_id) == Some(&LastBatch::Data(header.last_offset()));
        let emptied = |header| {
            let keep = |e: BatchError| e.to_string();
            if last { emptied(header).map_err(keep) } else { Ok(Fate::Drop) }
        };
        if is_aborted(&self.facts.aborted, header) {
            return emptied(header);
        }
        let mut records = decode_records(bytes, &Limits::default()).map_err(|e| e.to_string())?;
        let before = records.len();
        let horizon = header.delete_horizon_ms();
        let expired = horizon.is_some_and(|at| self.facts.now_ms >= at);
        let mut tombstones = false;
        records.retain(|r| {
            let Some(key) = &r.key else { return true };
            let tombstone = r.value.is_none();
            let goes = self.facts.map.supersedes(key, r.offset) || (tombstone && expired);
            tombstones |= tombstone && !goes;
            !goes
        });
        if records.is_empty() {
            return emptied(header);
        }
        let marks = tombstones && horizon.is_none();
        if records.len() == before && !marks {
            return Ok(Fate::Keep);
        }
        // A horizon says nothing once there is no tombstone left.
        let horizon = if marks { Some(self.facts.delete_horizon_ms()) } else { horizon.filter(|_| tombstones) };
        retain(header, &records, horizon).map(Fate::Rewrite).map_err(|e| e.to_string())
    }
}

/// The batch without its records.
fn emptied(header: &BatchHeader) -> Result<Fate, BatchError> {
    if header.records_count == 0 { Ok(Fate::Keep) } else { retain(header, &[], None).map(Fate::Rewrite) }
}

impl CleanerConfig {
    pub(crate) fn delete_retention(&self) -> i64 {
        i64::try_from(self.delete_retention_ms).unwrap_or(i64::MAX)
    }
}
