//! What voters and observers say to each other, free of any wire format: Vote (with pre-vote, KIP-996),
//! BeginQuorumEpoch, EndQuorumEpoch and Fetch (KIP-595).

use std::time::Duration;

use bytes::Bytes;
use protocol::{ErrorCode, Uuid};

/// One copy of the log: a node and the directory it keeps it in. A node that lost its disk is another replica (KIP-853).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplicaKey {
    pub id: i32,
    pub directory: Uuid,
}

/// A place in the log: everything below `offset`, the last record of it written in `epoch`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Position {
    pub offset: i64,
    pub epoch: i32,
}

/// Two logs compared: the later last epoch wins, then the longer log (Raft 5.4.1).
impl Ord for Position {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.epoch, self.offset).cmp(&(other.epoch, other.offset))
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    Vote(Vote),
    /// The sender leads `epoch`.
    Begin {
        epoch: i32,
        leader: i32,
    },
    /// The sender led `epoch` and stops; `successors` are the other voters, the one with the longest log first.
    End {
        epoch: i32,
        leader: i32,
        successors: Vec<i32>,
    },
    Fetch(Fetch),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vote {
    /// The epoch to be elected in; with `pre_vote` the sender's present one.
    pub epoch: i32,
    pub candidate: ReplicaKey,
    /// The end of the candidate's log.
    pub end: Position,
    pub pre_vote: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    pub epoch: i32,
    pub replica: ReplicaKey,
    /// The end of the fetcher's log, all of it durable.
    pub from: Position,
    pub max_wait: Duration,
}

/// What every answer says: the outcome, and what the sender knows of the quorum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub error: ErrorCode,
    pub epoch: i32,
    pub leader: Option<i32>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Vote { header: Header, granted: bool },
    Begin { header: Header },
    End { header: Header },
    Fetch { header: Header, high_watermark: i64, fetched: Fetched },
}

impl Answer {
    pub fn header(&self) -> Header {
        match self {
            Self::Vote { header, .. } | Self::Begin { header } | Self::End { header } | Self::Fetch { header, .. } => {
                *header
            }
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fetched {
    /// From the position asked for; none if the fetcher has all.
    Batches(Batches),
    /// The logs part: the leader's last offset of the greatest epoch at or below the one asked for.
    Diverging(Position),
    /// The log no longer goes back to what was asked for: take this snapshot.
    Snapshot(Position),
}

/// Whole batches, in the order of the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batches {
    pub headers: Vec<Batch>,
    pub bytes: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batch {
    pub base: i64,
    pub next: i64,
    pub epoch: i32,
}
