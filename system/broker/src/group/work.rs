//! What waits at a coordinator's log, and what of it is appended together.

use bytes::Bytes;
use env::sync::{OwnedSemaphorePermit, oneshot};
use protocol::ErrorCode;

use super::offsets::{Committed, Input, Place};
use super::records::{self, GroupRecord};
use super::shard::Author;
use crate::internal_topics::batch_of;
use crate::partition::machine::Asked;
use crate::txn::state::ProducerIdEpoch;

/// Records that share a batch, in bytes; a larger piece of work has a batch of its own.
const MAX_BATCH_BYTES: usize = 256 << 10;

/// The transaction that a commit belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InTransaction {
    pub producer: ProducerIdEpoch,
    /// Its coordinator said since that it is ongoing; `None` if it is open in this log anyway.
    pub asked: Option<Asked>,
}

/// Offsets to store; `None` forgets.
#[derive(Debug)]
pub(crate) struct Commit {
    pub group: String,
    pub offsets: Vec<(Place, Option<Committed>)>,
    pub transaction: Option<InTransaction>,
}

pub(super) enum Work {
    Commit {
        commit: Commit,
        /// In whose name; nobody's if it forgets.
        author: Option<Author>,
        answer: oneshot::Sender<ErrorCode>,
        _place: OwnedSemaphorePermit,
    },
    Groups(Vec<GroupRecord>),
    /// Look for what is past its retention.
    Expire,
    /// What was found.
    Expired(Commit),
    Ended {
        producer_id: i64,
        commit: bool,
        at: i64,
        done: oneshot::Sender<()>,
    },
}

/// What is appended as one: a commit of a transaction, or anything else that comes together.
pub(super) struct Batch {
    pub transaction: Option<InTransaction>,
    pub work: Vec<Work>,
    records: Vec<(Bytes, Option<Bytes>)>,
}

impl Batch {
    /// In the order of the work.
    pub fn of(work: Vec<Work>) -> Vec<Self> {
        let mut batches: Vec<Self> = Vec::new();
        let mut bytes = 0;
        for one in work {
            let transaction = match &one {
                Work::Commit { commit, .. } => commit.transaction,
                Work::Groups(_) | Work::Expire | Work::Expired(_) | Work::Ended { .. } => None,
            };
            let records: Vec<_> = match &one {
                Work::Commit { commit, .. } | Work::Expired(commit) => {
                    let record = |(place, value): &(Place, Option<Committed>)| {
                        (
                            records::offset::encode_key(&commit.group, place),
                            value.as_ref().map(records::offset::encode_value),
                        )
                    };
                    commit.offsets.iter().map(record).collect()
                }
                Work::Groups(records) => records.iter().map(GroupRecord::encode).collect(),
                Work::Expire | Work::Ended { .. } => Vec::new(),
            };
            let more: usize = records.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Bytes::len)).sum();
            match batches.last_mut() {
                Some(last)
                    if transaction.is_none() && last.transaction.is_none() && bytes + more <= MAX_BATCH_BYTES =>
                {
                    bytes += more;
                    last.records.extend(records);
                    last.work.push(one);
                }
                _ => {
                    bytes = more;
                    batches.push(Self { transaction, work: vec![one], records });
                }
            }
        }
        batches
    }

    pub fn tells_of_groups(&self) -> bool {
        self.work.iter().any(|one| matches!(one, Work::Groups(_)))
    }

    pub fn encode(&self) -> Bytes {
        let builder = batch_of(self.records.iter().cloned(), env::clock::wall_ms());
        match &self.transaction {
            None => builder.build(),
            Some(t) => builder.producer(t.producer.producer_id, t.producer.epoch, -1).transactional().build(),
        }
    }
}

/// What a commit that is in the log at `base` says of offsets.
pub(super) fn inputs(commit: Commit, base: i64, producer_id: Option<i64>) -> Vec<Input> {
    let Commit { group, offsets, .. } = commit;
    let input = |(at, (place, committed))| input(at, producer_id, group.clone(), place, committed);
    (base..).zip(offsets).map(input).collect()
}

pub(super) fn input(
    at: i64,
    producer_id: Option<i64>,
    group: String,
    place: Place,
    committed: Option<Committed>,
) -> Input {
    match producer_id {
        None => Input::Committed { at, group, place, committed },
        Some(producer_id) => Input::Pending { at, producer_id, group, place, committed },
    }
}
