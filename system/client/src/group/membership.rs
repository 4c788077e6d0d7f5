//! Being a member of a group: what both protocols share. Pure.
//!
//! A membership decides what the application may read. It asks for three changes: *revoke* (the application says when it
//! is done with these partitions; until then they stay its own), *take* (these are its own from now on), *lost* (these
//! belong to somebody else already, or may: it must stop, and cannot commit).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use env::clock::Instant;
use protocol::ErrorCode;

use super::assignor::{Assignor, Member};
use crate::backoff::Backoff;
use crate::metadata::TopicPartition;

pub(super) type Partitions = BTreeSet<TopicPartition>;

/// Names a call, so that an answer that comes late is not taken for one to a later call (KAFKA-9823).
pub(super) type CallId = u64;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub instance_id: Option<String>,
    pub topics: Vec<String>,
    pub session_timeout: Duration,
    /// The longest that the others wait for it: after that they share what it has, though it sends heartbeats.
    pub rebalance_timeout: Duration,
    pub heartbeat_interval: Duration,
    /// Classic: best first.
    pub assignors: Vec<Assignor>,
    pub rack: Option<String>,
    pub backoff: Backoff,
}

/// A call to the group's coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Join {
        member_id: String,
        /// Name and metadata, best first.
        protocols: Vec<(&'static str, Bytes)>,
    },
    Sync {
        member_id: String,
        generation: i32,
        protocol: String,
        assignments: Vec<(String, Bytes)>,
    },
    Heartbeat {
        member_id: String,
        generation: i32,
    },
    ConsumerHeartbeat {
        member_id: String,
        epoch: i32,
        /// With all that the member says of itself.
        full: bool,
        owned: Partitions,
    },
    Leave {
        member_id: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Joined {
        generation: i32,
        protocol: String,
        member_id: String,
        leads: bool,
        skip_assignment: bool,
        /// For the leader.
        members: Vec<(String, Option<String>, Bytes)>,
    },
    Synced(Bytes),
    Beat,
    /// The consumer protocol's heartbeat.
    Told {
        epoch: i32,
        interval: Duration,
        assigned: Option<Partitions>,
        /// Some topics of the assignment are not known here yet.
        incomplete: bool,
    },
    Left,
}

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub code: Option<ErrorCode>,
    pub reason: Cow<'static, str>,
    /// With a first JoinGroup: the id to join with.
    pub member_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    Answer {
        call: CallId,
        result: Result<Answer, Refused>,
    },
    /// The leader's assignor ran.
    Shared {
        call: CallId,
        assignments: Vec<(String, Bytes)>,
    },
    /// The application is done with what was to be revoked.
    Revoked,
    /// The application has not polled for too long.
    Absent,
    /// It polls again.
    Present,
    /// A topic has another number of partitions than when it was shared out.
    TopicsChanged,
    Leave,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Call {
        id: CallId,
        call: Call,
    },
    /// Run the assignor over these members.
    Share {
        id: CallId,
        assignor: Assignor,
        members: BTreeMap<String, Member>,
    },
    Revoke(Partitions),
    Take(Partitions),
    Lost(Partitions),
}

/// Who commits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Identity {
    pub member_id: String,
    /// Generation or member epoch; -1 if none.
    pub generation: i32,
}

/// It cannot be a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fatal {
    pub code: Option<ErrorCode>,
    pub reason: Cow<'static, str>,
}

impl From<&Refused> for Fatal {
    fn from(r: &Refused) -> Self {
        Self { code: r.code, reason: r.reason.clone() }
    }
}

#[derive(Debug)]
pub(super) enum Membership {
    Classic(super::classic::Classic),
    Consumer(super::modern::Modern),
}

impl Membership {
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Action> {
        match self {
            Self::Classic(m) => m.handle(now, input),
            Self::Consumer(m) => m.handle(now, input),
        }
    }

    /// What is due.
    pub fn poll(&mut self, now: Instant) -> Vec<Action> {
        match self {
            Self::Classic(m) => m.poll(now),
            Self::Consumer(m) => m.poll(now),
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Classic(m) => m.next_timeout(),
            Self::Consumer(m) => m.next_timeout(),
        }
    }

    pub fn owned(&self) -> &Partitions {
        match self {
            Self::Classic(m) => m.owned(),
            Self::Consumer(m) => m.owned(),
        }
    }

    pub fn identity(&self) -> Identity {
        match self {
            Self::Classic(m) => m.identity(),
            Self::Consumer(m) => m.identity(),
        }
    }

    pub fn fatal(&self) -> Option<&Fatal> {
        match self {
            Self::Classic(m) => m.fatal(),
            Self::Consumer(m) => m.fatal(),
        }
    }

    pub fn has_left(&self) -> bool {
        match self {
            Self::Classic(m) => m.has_left(),
            Self::Consumer(m) => m.has_left(),
        }
    }
}
