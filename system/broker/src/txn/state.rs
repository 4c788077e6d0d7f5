//! One transactional id: who may write under it, and how far its current transaction is.
//!
//! ```text
//!            add partition                EndTxn                 all markers written
//!   Empty ----------------> Ongoing ------------------> PrepareCommit ------------> CompleteCommit
//!     ^                      |    \ EndTxn, time-out,                                  |
//!     | InitProducerId       |     \ InitProducerId                                    | add partition:
//!     +-- from Complete*     |      '----------------> PrepareAbort --------------> CompleteAbort
//!                            '-- InitProducerId(keep prepared): stays, the client's identity moves on (KIP-939)
//! ```
//! Prepare* is the decision: once it is durable the outcome never changes, whoever crashes.
//!
//! Two identities are kept apart. `producer` is what the records of the transaction carry, and in Prepare* what its
//! markers carry; `next` is what the client holds, or will hold, when that differs: after an overflow of the epoch
//! (KIP-890) and over a transaction kept prepared (KIP-939).

use std::collections::BTreeSet;

/// Ids handed to clients stop one short of the largest epoch: the last one is for a marker that fences them.
pub const MAX_CLIENT_EPOCH: i16 = i16::MAX - 1;

/// [`Txn::client_version`] of a client that gets a new epoch at each EndTxn (KIP-890).
pub const CLIENT_BUMPS: i16 = 2;

/// The time-out of a two-phase transaction: none (KIP-939).
pub const NO_TIMEOUT_MS: i32 = i32::MAX;

/// A topic and a partition of it, as coordinators name them.
pub type TopicPartition = (String, i32);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProducerIdEpoch {
    pub producer_id: i64,
    pub epoch: i16,
}

impl ProducerIdEpoch {
    pub const fn new(producer_id: i64, epoch: i16) -> Self {
        Self { producer_id, epoch }
    }

    /// No further epoch can be given to a client under this producer id.
    pub fn is_exhausted(self) -> bool {
        self.epoch >= MAX_CLIENT_EPOCH
    }

    /// The next epoch of the same producer id, at most the largest.
    pub fn bumped(self) -> Self {
        Self { epoch: self.epoch.saturating_add(1), ..self }
    }
}

/// The numbers are Kafka's, as stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(i8)]
pub enum State {
    Empty = 0,
    Ongoing = 1,
    PrepareCommit = 2,
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
}

impl State {
    pub fn from_code(code: i8) -> Option<Self> {
        Some(match code {
            0 => Self::Empty,
            1 => Self::Ongoing,
            2 => Self::PrepareCommit,
            3 => Self::PrepareAbort,
            4 => Self::CompleteCommit,
            5 => Self::CompleteAbort,
            _ => return None,
        })
    }

    /// As Kafka's operators know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    pub fn prepare(commit: bool) -> Self {
        if commit { Self::PrepareCommit } else { Self::PrepareAbort }
    }

    pub fn is_prepare(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }

    /// Whether the last transaction committed, in a state that has one that is decided.
    pub fn outcome(self) -> Option<bool> {
        match self {
            Self::PrepareCommit | Self::CompleteCommit => Some(true),
            Self::PrepareAbort | Self::CompleteAbort => Some(false),
            Self::Empty | Self::Ongoing => None,
        }
    }
}

/// What the transaction log keeps of a transactional id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Txn {
    pub producer: ProducerIdEpoch,
    pub next: Option<ProducerIdEpoch>,
    /// The producer id before the last overflow, -1 if the last transaction saw none.
    pub previous_producer_id: i64,
    pub timeout_ms: i32,
    pub state: State,
    /// Partitions of the transaction: they get its markers.
    pub partitions: BTreeSet<TopicPartition>,
    /// Wall clock of the coordinator.
    pub last_update_ms: i64,
    /// Wall clock of the coordinator, -1 without a transaction.
    pub start_ms: i64,
    /// [`CLIENT_BUMPS`], or 0 for older clients.
    pub client_version: i16,
}

impl Txn {
    pub fn new(producer: ProducerIdEpoch, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer,
            next: None,
            previous_producer_id: -1,
            timeout_ms,
            state: State::Empty,
            partitions: BTreeSet::new(),
            last_update_ms: now_ms,
            start_ms: -1,
            client_version: 0,
        }
    }

    /// The identity that the client must show.
    pub fn client(&self) -> ProducerIdEpoch {
        self.next.unwrap_or(self.producer)
    }

    /// A transaction kept prepared over a restart of its client: it can only be ended.
    pub fn is_kept(&self) -> bool {
        self.state == State::Ongoing && self.next.is_some()
    }

    pub fn has_timeout(&self) -> bool {
        self.timeout_ms != NO_TIMEOUT_MS
    }

    /// Whether `id` ended the transaction that is decided here and now repeats itself, its answer lost: the epoch is
    /// the one before this, or the last one of the producer id before an overflow.
    pub fn is_retry_of_end(&self, id: ProducerIdEpoch) -> bool {
        let client = self.client();
        if id.producer_id == client.producer_id {
            return id.epoch.checked_add(1) == Some(client.epoch);
        }
        let previous = if self.state.is_prepare() { self.producer.producer_id } else { self.previous_producer_id };
        client.epoch == 0 && id.producer_id == previous && id.epoch == MAX_CLIENT_EPOCH
    }

    /// The decision to end the transaction. `after` is what the client holds afterwards.
    ///
    /// The markers get an epoch above that of every record of the transaction if the client moves on to another
    /// identity: a record of it that arrives after them is refused, so it can neither hang nor join a later
    /// transaction (KIP-890).
    pub fn prepared(&self, commit: bool, after: ProducerIdEpoch, now_ms: i64) -> Txn {
        let client = self.client();
        let marker = if after == self.producer {
            self.producer
        } else if after.producer_id == self.producer.producer_id {
            after
        } else if client.producer_id == self.producer.producer_id {
            client.bumped()
        } else {
            self.producer.bumped()
        };
        Txn {
            producer: marker,
            next: (after != marker).then_some(after),
            state: State::prepare(commit),
            last_update_ms: now_ms,
            ..self.clone()
        }
    }

    /// All markers are written.
    pub fn completed(&self, now_ms: i64) -> Txn {
        let client = self.client();
        let changed = client.producer_id != self.producer.producer_id;
        Txn {
            producer: client,
            next: None,
            previous_producer_id: if changed { self.producer.producer_id } else { -1 },
            state: if self.state == State::PrepareCommit { State::CompleteCommit } else { State::CompleteAbort },
            partitions: BTreeSet::new(),
            last_update_ms: now_ms,
            start_ms: -1,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ongoing(id: i64, epoch: i16) -> Txn {
        Txn { state: State::Ongoing, start_ms: 5, ..Txn::new(ProducerIdEpoch::new(id, epoch), 1000, 5) }
    }

    #[test]
    fn a_bumped_end_fences_by_its_markers() {
        let prepared = ongoing(7, 3).prepared(true, ProducerIdEpoch::new(7, 4), 6);
        assert_eq!((prepared.producer, prepared.next), (ProducerIdEpoch::new(7, 4), None));
        let done = prepared.completed(7);
        assert_eq!((done.producer, done.state, done.start_ms), (ProducerIdEpoch::new(7, 4), State::CompleteCommit, -1));
        assert!(done.is_retry_of_end(ProducerIdEpoch::new(7, 3)));
        assert!(!done.is_retry_of_end(ProducerIdEpoch::new(7, 2)));
    }

    #[test]
    fn an_overflow_marks_with_the_last_epoch_and_goes_on_with_a_new_id() {
        let last = ProducerIdEpoch::new(7, MAX_CLIENT_EPOCH);
        let prepared = ongoing(7, MAX_CLIENT_EPOCH).prepared(false, ProducerIdEpoch::new(8, 0), 6);
        assert_eq!(prepared.producer, ProducerIdEpoch::new(7, i16::MAX));
        assert!(prepared.is_retry_of_end(last));
        let done = prepared.completed(7);
        assert_eq!((done.producer, done.previous_producer_id), (ProducerIdEpoch::new(8, 0), 7));
        assert!(done.is_retry_of_end(last));
    }

    #[test]
    fn a_kept_transaction_ends_above_both_epochs() {
        let mut kept = ongoing(7, 3);
        kept.next = Some(ProducerIdEpoch::new(7, 5));
        let prepared = kept.prepared(true, ProducerIdEpoch::new(7, 6), 6);
        assert_eq!((prepared.producer, prepared.next), (ProducerIdEpoch::new(7, 6), None));

        kept.next = Some(ProducerIdEpoch::new(9, 0));
        let prepared = kept.prepared(true, ProducerIdEpoch::new(9, 1), 6);
        assert_eq!((prepared.producer, prepared.next), (ProducerIdEpoch::new(7, 4), Some(ProducerIdEpoch::new(9, 1))));
    }
}
