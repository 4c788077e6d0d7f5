//! One batch on its way: records waiting, then bytes that stay the same over all attempts.

use bytes::Bytes;
use env::clock::Instant;
use protocol::batch::{BatchBuilder, Compression, Record};

use super::ProducerIdEpoch;
use crate::error::{Outcome, SendError};

/// A batch of one partition. `T` stands for whoever waits for a record.
#[derive(Debug)]
pub(super) struct Batch<T> {
    /// Rises with creation over all partitions of the producer; within a partition it is the order of sequences.
    pub id: u64,
    pub tokens: Vec<T>,
    pub created: Instant,
    /// Takes no more records.
    pub closed: bool,
    pub attempts: u32,
    /// A lower batch of the partition was unanswered when this attempt was sent.
    pub behind: bool,
    /// Some attempt may have been appended.
    pub unknown: bool,
    /// Base sequence and bytes, from the first attempt on.
    sealed: Option<(i32, Bytes)>,
    builder: BatchBuilder,
}

impl<T> Batch<T> {
    pub fn new(id: u64, created: Instant, compression: Compression, transactional: bool) -> Self {
        let builder = BatchBuilder::new().compression(compression);
        Self {
            id,
            tokens: Vec::new(),
            created,
            closed: false,
            attempts: 0,
            behind: false,
            unknown: false,
            sealed: None,
            builder: if transactional { builder.transactional() } else { builder },
        }
    }

    /// Whether one more record keeps the batch within `max_bytes`. An empty batch takes any record.
    pub fn fits(&self, record: &Record, max_bytes: usize) -> bool {
        !self.closed && (self.builder.is_empty() || self.len() + self.builder.cost(record) <= max_bytes)
    }

    pub fn push(&mut self, record: &Record, token: T) {
        self.builder.push(record);
        self.tokens.push(token);
    }

    /// Bytes before compression.
    pub fn len(&self) -> usize {
        self.builder.len()
    }

    pub fn count(&self) -> i32 {
        self.builder.count()
    }

    /// It has been attempted, and holds its place in the partition's sequence.
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    pub fn base_sequence(&self) -> Option<i32> {
        self.sealed.as_ref().map(|(sequence, _)| *sequence)
    }

    /// The bytes of the next attempt. Identity and sequence are those of the first one, for ever.
    pub fn seal(&mut self, identity: Option<ProducerIdEpoch>, sequence: i32) -> Bytes {
        let builder = &mut self.builder;
        let (_, bytes) = self.sealed.get_or_insert_with(|| {
            if let Some(id) = identity {
                builder.set_producer(id.producer_id, id.epoch, sequence);
            }
            (sequence, builder.build())
        });
        self.closed = true;
        bytes.clone()
    }

    /// The error that ends this batch, given what the last attempt said of itself.
    pub fn error(&self, last: SendError) -> SendError {
        let earlier = if self.unknown { Outcome::Unknown } else { Outcome::Failed };
        SendError { outcome: last.outcome.and(earlier), ..last }
    }
}
