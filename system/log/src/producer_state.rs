//! What a log remembers of each producer (KIP-98): its epoch, its last batches, its open transaction.
//!
//! Asking and changing are apart: [`ProducerStates::check`] says what an append would be and changes nothing; the log
//! calls `note_data` and `note_marker` after the bytes are written. State that ran ahead of the log got into snapshots
//! and refused producers after a restart (KAFKA-6683).
//!
//! | batch of a client | answer |
//! |--|--|
//! | epoch below the producer's | `InvalidProducerEpoch` |
//! | one of its last five, by epoch and sequences | `Duplicate` with the first copy's offsets |
//! | next in sequence; sequence 0 of a new producer or epoch | `Append` |
//! | any other sequence, also a first one that is not 0 (KAFKA-14920) | `OutOfOrderSequence` |
//! | not transactional, or of a newer epoch, while its transaction is open here | `InvalidTxnState` |

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use env::clock::Instant;
use protocol::batch::{BatchHeader, NO_SEQUENCE, add_sequence};

use crate::{AbortedTransaction, Offset};

/// Batches remembered of each producer: as many as a client may have in flight.
const REMEMBERED: usize = 5;
/// `coordinator_epoch` before the first marker.
const NO_COORDINATOR_EPOCH: i32 = -1;

/// Who appends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Origin {
    /// A producer: sequences are checked.
    Client,
    /// The broker's own coordinators: they have no sequences.
    Coordinator,
}

/// Which rule binds the epoch of a marker to that of its transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum TransactionVersion {
    /// The marker carries the transaction's own epoch, or a later one when the coordinator fences.
    V1,
    /// KIP-890: each transaction ends with its epoch bumped, and the marker carries the bumped one.
    V2,
}

/// A transaction marker to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Marker {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub commit: bool,
    pub coordinator_epoch: i32,
    pub version: TransactionVersion,
}

/// What appending a batch would be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Append,
    /// The batch is in the log already. It may not be durable yet: acknowledge it as if it had just been appended.
    Duplicate {
        first: Offset,
        last: Offset,
    },
}

/// What appending a marker would be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MarkerVerdict {
    Append,
    /// A marker of this epoch is in the log and nothing is open: the coordinator repeats itself.
    AlreadyWritten,
}

/// Why an append is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProducerError {
    #[error("producer {producer_id} of epoch {epoch} is fenced by epoch {current}")]
    InvalidProducerEpoch { producer_id: i64, epoch: i16, current: i16 },
    #[error("producer {producer_id} of epoch {epoch} sent sequence {sequence}, expected {expected}")]
    OutOfOrderSequence { producer_id: i64, epoch: i16, sequence: i32, expected: i32 },
    #[error("producer {producer_id} of epoch {epoch} has a transaction of epoch {current} open here")]
    InvalidTxnState { producer_id: i64, epoch: i16, current: i16 },
    #[error("transaction coordinator of epoch {epoch} is fenced by epoch {current}")]
    CoordinatorFenced { epoch: i32, current: i32 },
}

/// One remembered batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Batch {
    base_sequence: i32,
    last_sequence: i32,
    first: Offset,
    last: Offset,
}

/// One producer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerEntry {
    epoch: i16,
    /// Oldest first, all of `epoch`.
    batches: VecDeque<Batch>,
    coordinator_epoch: i32,
    txn_first: Option<Offset>,
    /// Its last marker, -1 before any.
    last_marker: Offset,
    touched: Instant,
}

impl ProducerEntry {
    /// The greatest epoch seen in a batch or marker.
    pub fn epoch(&self) -> i16 {
        self.epoch
    }

    /// First offset of the transaction that is open here.
    pub fn open_transaction(&self) -> Option<Offset> {
        self.txn_first
    }

    /// Whether a transaction of this very epoch is open here.
    fn is_open_in(&self, epoch: i16) -> bool {
        self.txn_first.is_some() && self.epoch == epoch
    }

    /// The last sequence of this epoch, if any batch of it is known.
    pub fn last_sequence(&self) -> Option<i32> {
        self.batches.back().map(|b| b.last_sequence)
    }
}

/// The last batch of a producer that a log must keep, so that what is remembered of it can be found there again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LastBatch {
    /// Its last offset. Offsets alone name it: sequences come again in each epoch (KAFKA-8335).
    Data(Offset),
    /// It has sent nothing in its epoch, or nothing with sequences: its marker tells the epoch.
    Marker(Offset),
}

impl LastBatch {
    /// The last offset of the batch: a marker is alone in its own.
    pub fn last_offset(self) -> Offset {
        match self {
            LastBatch::Data(offset) | LastBatch::Marker(offset) => offset,
        }
    }
}

/// All producers of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerStates {
    producers: BTreeMap<i64, ProducerEntry>,
    /// Open transactions: first offset to producer.
    open: BTreeMap<Offset, i64>,
    expiry: Duration,
}

/// A transaction that a marker ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    pub first: Offset,
    pub aborted: Option<AbortedTransaction>,
}

impl ProducerStates {
    pub(crate) fn new(expiry: Duration) -> Self {
        Self { producers: BTreeMap::new(), open: BTreeMap::new(), expiry }
    }

    /// The producer, unless it is unknown or has expired.
    pub fn get(&self, producer_id: i64, now: Instant) -> Option<&ProducerEntry> {
        self.producers.get(&producer_id).filter(|p| !self.expired(p, now))
    }

    /// First offset of the oldest open transaction.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        self.open.keys().next().copied()
    }

    /// Where the producer's open transaction began.
    pub(crate) fn opened_at(&self, producer_id: i64) -> Option<Offset> {
        self.producers.get(&producer_id).and_then(|p| p.txn_first)
    }

    /// Whether a transaction of the producer is open in this epoch of it.
    pub(crate) fn is_open(&self, producer_id: i64, epoch: i16) -> bool {
        self.producers.get(&producer_id).is_some_and(|p| p.is_open_in(epoch))
    }

    /// (first offset, producer id) of every open transaction, oldest first.
    pub fn open_transactions(&self) -> impl Iterator<Item = (Offset, i64)> + '_ {
        self.open.iter().map(|(&o, &p)| (o, p))
    }

    pub(crate) fn expiry(&self) -> Duration {
        self.expiry
    }

    /// The batch that stays of each producer, whatever becomes of its records.
    pub(crate) fn last_batches(&self) -> impl Iterator<Item = (i64, LastBatch)> + '_ {
        self.producers.iter().filter_map(|(&id, p)| {
            let marker = Some(p.last_marker).filter(|at| *at >= 0).map(LastBatch::Marker);
            Some((id, p.batches.back().map(|b| LastBatch::Data(b.last)).or(marker)?))
        })
    }

    pub fn len(&self) -> usize {
        self.producers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Judges a data batch. Changes nothing.
    pub fn check(&self, batch: &BatchHeader, origin: Origin, now: Instant) -> Result<Verdict, ProducerError> {
        if !batch.has_producer_id() {
            return Ok(Verdict::Append);
        }
        let (producer_id, epoch, sequence) = (batch.producer_id, batch.producer_epoch, batch.base_sequence);
        let out_of_order = |expected| Err(ProducerError::OutOfOrderSequence { producer_id, epoch, sequence, expected });
        let Some(known) = self.get(producer_id, now) else {
            return if origin == Origin::Client && sequence != 0 { out_of_order(0) } else { Ok(Verdict::Append) };
        };
        let current = known.epoch;
        if epoch < current {
            return Err(ProducerError::InvalidProducerEpoch { producer_id, epoch, current });
        }
        if epoch == current && sequence != NO_SEQUENCE {
            let same = |b: &&Batch| b.base_sequence == sequence && b.last_sequence == batch.last_sequence();
            if let Some(copy) = known.batches.iter().find(same) {
                return Ok(Verdict::Duplicate { first: copy.first, last: copy.last });
            }
        }
        if known.txn_first.is_some() && (!batch.is_transactional() || epoch > current) {
            return Err(ProducerError::InvalidTxnState { producer_id, epoch, current });
        }
        if origin == Origin::Client {
            let expected = match known.last_sequence() {
                Some(last) if epoch == current => add_sequence(last, 1),
                _ => 0,
            };
            if sequence != expected {
                return out_of_order(expected);
            }
        }
        Ok(Verdict::Append)
    }

    /// Whether a batch that passed [`ProducerStates::check`] may be appended as far as its transaction goes: one that is
    /// not open here is opened only if it is known to be ongoing. `asked` is where the log ended when its coordinator was
    /// asked, and has since answered that it is; a marker from there on may be this very transaction's, and nobody would
    /// end what is opened after it (KAFKA-14884).
    pub fn may_join(&self, batch: &BatchHeader, asked: Option<Offset>) -> bool {
        if !batch.is_transactional() {
            return true;
        }
        let known = self.producers.get(&batch.producer_id);
        known.is_some_and(|p| p.txn_first.is_some())
            || asked.is_some_and(|end| known.is_none_or(|p| p.last_marker < end))
    }

    /// Judges a marker. Changes nothing.
    pub fn check_marker(&self, marker: &Marker) -> Result<MarkerVerdict, ProducerError> {
        let (producer_id, epoch) = (marker.producer_id, marker.producer_epoch);
        let Some(known) = self.producers.get(&producer_id) else {
            return Ok(MarkerVerdict::Append);
        };
        if marker.coordinator_epoch < known.coordinator_epoch {
            return Err(ProducerError::CoordinatorFenced {
                epoch: marker.coordinator_epoch,
                current: known.coordinator_epoch,
            });
        }
        let current = known.epoch;
        if epoch < current {
            return Err(ProducerError::InvalidProducerEpoch { producer_id, epoch, current });
        }
        if marker.version == TransactionVersion::V2 && epoch == current {
            // A V2 marker is one epoch above its transaction, so what is open at its own epoch is the next transaction:
            // the marker is a late copy, and would end a transaction that nobody decided about (KIP-890, case c).
            return match known.txn_first {
                Some(_) => Err(ProducerError::InvalidProducerEpoch { producer_id, epoch, current }),
                None => Ok(MarkerVerdict::AlreadyWritten),
            };
        }
        Ok(MarkerVerdict::Append)
    }

    /// A data batch is in the log, its offsets assigned.
    pub(crate) fn note_data(&mut self, batch: &BatchHeader, now: Instant) {
        if !batch.has_producer_id() {
            return;
        }
        let p = self.touch(batch.producer_id, batch.producer_epoch, now);
        if batch.base_sequence != NO_SEQUENCE {
            if p.batches.len() == REMEMBERED {
                p.batches.pop_front();
            }
            p.batches.push_back(Batch {
                base_sequence: batch.base_sequence,
                last_sequence: batch.last_sequence(),
                first: batch.base_offset,
                last: batch.last_offset(),
            });
        }
        if batch.is_transactional() && p.txn_first.is_none() {
            p.txn_first = Some(batch.base_offset);
            self.open.insert(batch.base_offset, batch.producer_id);
        }
    }

    /// A marker is in the log at `offset`.
    pub(crate) fn note_marker(
        &mut self,
        producer_id: i64,
        epoch: i16,
        coordinator_epoch: i32,
        commit: bool,
        offset: Offset,
        now: Instant,
    ) -> Option<Ended> {
        let p = self.touch(producer_id, epoch, now);
        p.coordinator_epoch = p.coordinator_epoch.max(coordinator_epoch);
        p.last_marker = offset;
        let first = p.txn_first.take()?;
        self.open.remove(&first);
        let aborted = (!commit).then(|| AbortedTransaction {
            producer_id,
            first_offset: first,
            last_offset: offset,
            stable: self.first_unstable_offset().unwrap_or(offset + 1),
        });
        Some(Ended { first, aborted })
    }

    /// Forgets producers that neither wrote since the expiry nor have a transaction open.
    pub(crate) fn expire(&mut self, now: Instant) {
        let expiry = self.expiry;
        self.producers.retain(|_, p| p.txn_first.is_some() || now.saturating_since(p.touched) < expiry);
    }

    fn expired(&self, p: &ProducerEntry, now: Instant) -> bool {
        p.txn_first.is_none() && now.saturating_since(p.touched) >= self.expiry
    }

    fn touch(&mut self, producer_id: i64, epoch: i16, now: Instant) -> &mut ProducerEntry {
        // One that expired is new again: its old sequences must not refuse sequence 0.
        if self.producers.get(&producer_id).is_some_and(|p| self.expired(p, now)) {
            self.producers.remove(&producer_id);
        }
        let p = self.producers.entry(producer_id).or_insert_with(|| ProducerEntry {
            epoch,
            batches: VecDeque::new(),
            coordinator_epoch: NO_COORDINATOR_EPOCH,
            txn_first: None,
            last_marker: -1,
            touched: now,
        });
        p.touched = now;
        if epoch > p.epoch {
            p.epoch = epoch;
            p.batches.clear();
        }
        p
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.producers.len() as u32);
        for (&id, p) in &self.producers {
            out.put_i64_le(id);
            out.put_i16_le(p.epoch);
            out.put_i32_le(p.coordinator_epoch);
            out.put_i64_le(p.txn_first.unwrap_or(-1));
            out.put_i64_le(p.last_marker);
            out.put_u8(p.batches.len() as u8);
            for b in &p.batches {
                out.put_i32_le(b.base_sequence);
                out.put_i32_le(b.last_sequence);
                out.put_i64_le(b.first);
                out.put_i64_le(b.last);
            }
        }
    }

    /// Ages are not stored: a clock may step and a node may be down for long, so every producer counts as just seen. Before
    /// `has_markers` the last marker was not stored either.
    pub(crate) fn decode(mut bytes: Bytes, has_markers: bool, expiry: Duration, now: Instant) -> Option<Self> {
        let mut states = Self::new(expiry);
        let count = bytes.try_get_u32_le().ok()?;
        for _ in 0..count {
            let id = bytes.try_get_i64_le().ok()?;
            let epoch = bytes.try_get_i16_le().ok()?;
            let coordinator_epoch = bytes.try_get_i32_le().ok()?;
            let txn_first = Some(bytes.try_get_i64_le().ok()?).filter(|&o| o >= 0);
            let last_marker = if has_markers { bytes.try_get_i64_le().ok()? } else { -1 };
            let mut batches = VecDeque::new();
            for _ in 0..bytes.try_get_u8().ok()? {
                batches.push_back(Batch {
                    base_sequence: bytes.try_get_i32_le().ok()?,
                    last_sequence: bytes.try_get_i32_le().ok()?,
                    first: bytes.try_get_i64_le().ok()?,
                    last: bytes.try_get_i64_le().ok()?,
                });
            }
            if let Some(first) = txn_first {
                states.open.insert(first, id);
            }
            let entry = ProducerEntry { epoch, batches, coordinator_epoch, txn_first, last_marker, touched: now };
            states.producers.insert(id, entry);
        }
        bytes.is_empty().then_some(states)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    fn states() -> ProducerStates {
        ProducerStates::new(Duration::from_secs(60))
    }

    fn data(epoch: i16, sequence: i32, n: i32, offset: Offset, transactional: bool) -> BatchHeader {
        BatchHeader {
            base_offset: offset,
            batch_length: 49,
            partition_leader_epoch: 0,
            magic: 2,
            crc: 0,
            attributes: if transactional { 0x10 } else { 0 },
            last_offset_delta: n - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence: sequence,
            records_count: n,
        }
    }

    fn check(s: &ProducerStates, b: &BatchHeader) -> Result<Verdict, ProducerError> {
        s.check(b, Origin::Client, NOW)
    }

    fn marker(epoch: i16, version: TransactionVersion) -> Marker {
        Marker { producer_id: 7, producer_epoch: epoch, commit: true, coordinator_epoch: 0, version }
    }

    #[test]
    fn first_sequence_must_be_zero() {
        let mut s = states();
        assert!(matches!(
            check(&s, &data(0, 3, 1, 0, false)),
            Err(ProducerError::OutOfOrderSequence { expected: 0, .. })
        ));
        s.note_data(&data(0, 0, 3, 0, false), NOW);
        assert!(matches!(
            check(&s, &data(1, 3, 1, 3, false)),
            Err(ProducerError::OutOfOrderSequence { expected: 0, .. })
        ));
        assert_eq!(check(&s, &data(1, 0, 1, 3, false)), Ok(Verdict::Append));
    }

    #[test]
    fn five_batches_are_remembered_and_sequences_wrap() {
        let mut s = states();
        s.note_data(&data(0, i32::MAX - 1, 2, 0, false), NOW);
        assert_eq!(check(&s, &data(0, 0, 1, 2, false)), Ok(Verdict::Append), "MAX is followed by 0");
        for i in 0..5 {
            s.note_data(&data(0, i, 1, 2 + Offset::from(i), false), NOW);
        }
        assert_eq!(check(&s, &data(0, 0, 1, 0, false)), Ok(Verdict::Duplicate { first: 2, last: 2 }));
        assert!(check(&s, &data(0, i32::MAX - 1, 2, 0, false)).is_err(), "the sixth last is forgotten, not appended");
        assert!(check(&s, &data(0, 3, 2, 0, false)).is_err(), "same start, other length: not the same batch");
        assert!(check(&s, &data(0, 6, 1, 0, false)).is_err(), "a gap");
    }

    #[test]
    fn fencing() {
        let mut s = states();
        s.note_data(&data(5, 0, 1, 0, false), NOW);
        assert!(matches!(check(&s, &data(4, 0, 1, 1, false)), Err(ProducerError::InvalidProducerEpoch { .. })));
        assert_eq!(check(&s, &data(5, 0, 1, 1, false)), Ok(Verdict::Duplicate { first: 0, last: 0 }));
    }

    #[test]
    fn a_v2_marker_fences_the_transaction_it_ends() {
        let mut s = states();
        s.note_data(&data(0, 0, 2, 10, true), NOW);
        assert_eq!(s.first_unstable_offset(), Some(10));
        assert!(matches!(check(&s, &data(0, 2, 1, 12, false)), Err(ProducerError::InvalidTxnState { .. })));
        assert!(matches!(check(&s, &data(1, 0, 1, 12, true)), Err(ProducerError::InvalidTxnState { .. })));
        let v2 = |e| marker(e, TransactionVersion::V2);
        assert!(matches!(s.check_marker(&v2(0)), Err(ProducerError::InvalidProducerEpoch { .. })));
        assert_eq!(s.check_marker(&v2(1)), Ok(MarkerVerdict::Append));
        let ended = s.note_marker(7, 1, 0, false, 12, NOW).unwrap();
        assert_eq!(ended.aborted.unwrap().first_offset, 10);
        assert_eq!(s.first_unstable_offset(), None);
        // A delayed batch of the ended transaction must not open one that nobody will end (KAFKA-14402).
        assert!(matches!(check(&s, &data(0, 2, 1, 13, true)), Err(ProducerError::InvalidProducerEpoch { .. })));
        assert_eq!(s.check_marker(&v2(1)), Ok(MarkerVerdict::AlreadyWritten));
        // The next transaction, and a late copy of the first one's marker.
        assert_eq!(check(&s, &data(1, 0, 1, 13, true)), Ok(Verdict::Append));
        s.note_data(&data(1, 0, 1, 13, true), NOW);
        assert!(matches!(s.check_marker(&v2(1)), Err(ProducerError::InvalidProducerEpoch { .. })));
    }

    #[test]
    fn v1_markers_keep_the_epoch_and_its_sequences() {
        let mut s = states();
        s.note_data(&data(0, 0, 2, 0, true), NOW);
        assert_eq!(s.check_marker(&marker(0, TransactionVersion::V1)), Ok(MarkerVerdict::Append));
        s.note_marker(7, 0, 3, true, 2, NOW);
        assert_eq!(check(&s, &data(0, 2, 1, 3, true)), Ok(Verdict::Append));
        let stale = Marker { coordinator_epoch: 2, ..marker(0, TransactionVersion::V1) };
        assert!(matches!(s.check_marker(&stale), Err(ProducerError::CoordinatorFenced { .. })));
    }

    #[test]
    fn expiry_spares_open_transactions() {
        let later = NOW + Duration::from_secs(61);
        let mut s = states();
        s.note_data(&data(0, 0, 1, 0, false), NOW);
        assert!(s.get(7, later).is_none());
        assert!(s.check(&data(0, 1, 1, 1, false), Origin::Client, later).is_err());
        assert_eq!(s.check(&data(0, 0, 1, 1, false), Origin::Client, later), Ok(Verdict::Append));
        s.note_data(&data(0, 0, 1, 1, true), later);
        assert_eq!(s.get(7, later).unwrap().last_sequence(), Some(0));
        let much_later = later + Duration::from_secs(3600);
        s.expire(much_later);
        assert_eq!(s.first_unstable_offset(), Some(1));
        assert_eq!(s.check(&data(0, 1, 1, 2, true), Origin::Client, much_later), Ok(Verdict::Append));
    }

    #[test]
    fn snapshot_round_trip() {
        let mut s = states();
        s.note_data(&data(0, 0, 2, 0, true), NOW);
        s.note_data(&data(0, 2, 2, 2, true), NOW);
        let mut out = BytesMut::new();
        s.encode(&mut out);
        let bytes = out.freeze();
        assert_eq!(ProducerStates::decode(bytes.clone(), true, Duration::from_secs(60), NOW), Some(s));
        for cut in 0..bytes.len() {
            assert_eq!(ProducerStates::decode(bytes.slice(..cut), true, Duration::from_secs(60), NOW), None);
        }
    }

    #[test]
    fn a_transaction_is_opened_only_if_no_marker_came_since_it_was_asked_for() {
        let mut s = states();
        assert!(s.may_join(&data(0, 0, 1, 0, false), None), "not transactional");
        assert!(!s.may_join(&data(0, 0, 1, 0, true), None));
        assert!(s.may_join(&data(0, 0, 1, 0, true), Some(0)));
        s.note_data(&data(0, 0, 1, 0, true), NOW);
        assert!(s.is_open(7, 0) && !s.is_open(7, 1));
        assert!(s.may_join(&data(0, 1, 1, 1, true), None), "open already");
        // Asked at 1; the marker is at 1: what the answer was about may have ended.
        s.note_marker(7, 0, 0, true, 1, NOW);
        assert!(!s.may_join(&data(0, 2, 1, 2, true), Some(1)));
        assert!(s.may_join(&data(0, 2, 1, 2, true), Some(2)));
    }
}
