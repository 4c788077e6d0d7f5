//! What goes into a partition's machine, what comes out of it, and what it is set up with.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use log::{LeaderEpochs, Marker, Offset, Origin, TxnChange};
use protocol::ErrorCode;
use protocol::batch::BatchHeader;

use super::isr::IsrState;
use super::leader::{Ask, Fetched, Leadership};
use super::{Acks, Appended};
use crate::config::Flush;

/// Names an append from its arrival to its reply.
pub type Token = u64;

/// In the place of an offset to delete records before: the high watermark, whatever it is.
pub const HIGH_WATERMARK: Offset = -1;

/// A moment of a leadership after which the coordinator of a transaction was asked whether it is ongoing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub leader_epoch: i32,
    /// Where the log ended.
    pub end: Offset,
}

/// Something to append. `asked`: the coordinator said since that the batch's transaction is ongoing; without it a
/// transactional batch only goes to a transaction that is open here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    Data { header: BatchHeader, records: Bytes, origin: Origin, asked: Option<Asked> },
    Marker(Marker),
}

impl Work {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Work::Data { records, .. } => records.len(),
            Work::Marker(_) => 128,
        }
    }
}

/// What came of an [`Action::Append`] or an [`Action::Replicate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done {
        first: Offset,
        last: Offset,
        /// (leader epoch, first offset) of the epochs that begin with it.
        epochs: Vec<(i32, Offset)>,
        transactions: Vec<TxnChange>,
    },
    /// In the log already, at these offsets.
    Duplicate { first: Offset, last: Offset },
    /// The marker is in the log already.
    MarkerThere,
    /// Certainly not appended.
    Refused(ErrorCode),
    /// The log is not usable any more; whether it was appended is unknown.
    Failed,
}

/// Whom this node follows, as the controller committed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Following {
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    /// `None` while the partition has no leader.
    pub leader: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Lead from now on, or the in-sync set changed meanwhile.
    Lead(Leadership),
    Follow(Following),
    Append {
        token: Token,
        work: Work,
        acks: Acks,
    },
    Appended {
        token: Token,
        outcome: Outcome,
    },
    /// What the leader of `leader_epoch` answered to a fetch from this log's end: whole batches, perhaps none.
    Replicate {
        token: Token,
        leader_epoch: i32,
        records: Bytes,
        /// The leader's.
        high_watermark: Offset,
    },
    /// The leader of `leader_epoch` holds other records from here on: the greatest of its epochs that is at or below the
    /// one asked for, and where that ends (KIP-320).
    Truncate {
        token: Token,
        leader_epoch: i32,
        diverging: (i32, Offset),
    },
    /// The log of the leader of `leader_epoch` begins at `offset`, past this one's end.
    Reset {
        token: Token,
        leader_epoch: i32,
        offset: Offset,
    },
    /// Of an [`Action::Truncate`] or an [`Action::Reset`]. `None` if the log failed.
    Truncated {
        token: Token,
        log: Option<Start>,
    },
    /// A follower fetched from this leader.
    Fetched(Fetched),
    /// The controller's answer to an [`Action::AlterIsr`].
    IsrAnswered {
        attempt: u64,
        result: Result<IsrState, ErrorCode>,
    },
    /// Time to look for members that do not keep up.
    Tick,
    /// Give up what lies below `offset`, or below the high watermark if it is [`HIGH_WATERMARK`] (DeleteRecords, KIP-107).
    DeleteRecords {
        token: Token,
        offset: Offset,
    },
    /// The log begins at this offset from now on; what was below is gone.
    StartMoved(Offset),
    /// The log failed outside of what this machine asked of it.
    LogFailed,
    /// A flush ended: everything below is durable here.
    Flushed(Offset),
    FlushFailed,
    Close,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Append it and answer with [`Input::Appended`]. No other is given before that, nor are the next two.
    Append {
        token: Token,
        work: Work,
        leader_epoch: i32,
    },
    /// Append the leader's batches as they are and answer with [`Input::Appended`].
    Replicate {
        token: Token,
        records: Bytes,
    },
    /// Cut the log at `offset`, durably, and answer with [`Input::Truncated`].
    Truncate {
        token: Token,
        offset: Offset,
    },
    /// Give the log up for an empty one that begins at `offset`, durably, and answer with [`Input::Truncated`].
    Reset {
        token: Token,
        offset: Offset,
    },
    /// Begin to sync; answer with [`Input::Flushed`] or [`Input::FlushFailed`]. No other is given before that.
    Flush,
    /// Let readers see these bounds. Always before the replies that they allow.
    Publish(Bounds),
    Reply {
        token: Token,
        result: Result<Appended, ErrorCode>,
    },
    /// The answer to [`Input::Replicate`] and [`Input::Truncate`]: where to fetch from next.
    Position {
        token: Token,
        result: Result<Position, ErrorCode>,
    },
    /// Let the log begin at `offset`, durably, tell of it with [`Input::StartMoved`], and answer
    /// [`Input::DeleteRecords`] with that offset.
    StartAt {
        token: Token,
        offset: Offset,
    },
    /// Nothing is given up: the answer to [`Input::DeleteRecords`].
    NotDeleted {
        token: Token,
        error: ErrorCode,
    },
    /// A follower's log begins elsewhere than this leader knew: whoever waits for the low watermark looks again.
    FollowerStartMoved,
    /// Ask the controller for this in-sync set.
    AlterIsr(Ask),
    /// The role changed: tell whoever waits for the earlier one.
    RoleChanged,
    /// The log failed: tell the broker.
    Fail,
    /// All is done and durable; nothing will follow.
    Closed,
}

/// What readers may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// One past the last offset that the whole in-sync set has secured, as far as this replica knows.
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    /// For followers, which read past the high watermark.
    pub log_end: Offset,
}

/// Where a follower's log ends, all of it secured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    pub end: Offset,
    /// Of its last batch; `None` if the log is empty.
    pub last_epoch: Option<i32>,
}

/// The state of the log that a machine starts from, or goes on from after a truncation: all of it durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub log_start: Offset,
    pub end: Offset,
    /// A lower bound, from an earlier life or this one.
    pub high_watermark: Offset,
    /// First offsets of open transactions.
    pub open: Vec<Offset>,
    /// (first offset, marker) of transactions whose marker is at or past the high watermark.
    pub ended: Vec<(Offset, Offset)>,
    pub epochs: LeaderEpochs,
}

impl Start {
    pub(super) fn transactions(&self) -> BTreeMap<Offset, Option<Offset>> {
        let open = self.open.iter().map(|first| (*first, None));
        let ended = self.ended.iter().filter(|(_, marker)| *marker >= self.high_watermark);
        open.chain(ended.map(|(first, marker)| (*first, Some(*marker)))).collect()
    }
}

/// Settings of one partition's machine.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub node: i32,
    pub flush: Flush,
    pub max_queued_bytes: usize,
    /// A follower that has not had all there was for this long leaves the in-sync set (`replica.lag.time.max.ms`).
    pub lag_max: Duration,
}
