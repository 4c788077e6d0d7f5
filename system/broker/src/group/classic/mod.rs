//! A group of the classic protocol: the members agree on a generation by joining, their leader assigns, and all ask for
//! their part of it.
//!
//! ```text
//!   Empty --join--> Preparing --all joined, or time is up--> Completing --the leader's assignment--> Stable
//!                      ^  '--nobody left--> Empty                 |                                    |
//!                      '---- a member comes, goes, changes, or does not ask for its part in time ------'
//! ```
//!
//! What an assignment says is the clients' own business: it is bytes here. Since there is one leader a generation and one
//! assignment by it, a partition has one owner a generation if the leader's assignor is right.
//!
//! Sources: Kafka's group coordinator, KIP-62 (rebalance time-out), KIP-345 (static members), KIP-394 (member ids before
//! joining), KAFKA-12890 (a deadline for SyncGroup).

mod expiry;
mod join;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use env::clock::Instant;
use protocol::ErrorCode;

use super::machine::{Client, Committer, Cx, RequestId};
use super::records::{GroupRecord, StoredClassic, StoredMember};
use super::timers::Timer;

/// A new member waits at most this long in a rebalance, whatever it asked for.
const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(5 * 60);

#[derive(Clone, Debug)]
pub struct Join {
    /// Empty: the coordinator gives one.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client: Client,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// Name and metadata, best first.
    pub protocols: Vec<(String, Bytes)>,
    /// The client can join again with the id it is given (JoinGroup v4 and later, KIP-394).
    pub id_required: bool,
    /// The client knows `skip_assignment` (JoinGroup v9).
    pub can_skip_assignment: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Joined {
    pub error: ErrorCode,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: String,
    pub member_id: String,
    pub skip_assignment: bool,
    /// Id, instance id and metadata of every member; only the leader is told.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

impl Joined {
    pub fn error(error: ErrorCode, member_id: &str) -> Self {
        Self { error, generation: -1, member_id: member_id.to_owned(), ..Self::default() }
    }
}

/// A member, as it names itself, and the generation it takes itself to be in.
#[derive(Clone, Debug)]
pub struct Who {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub generation: i32,
}

#[derive(Clone, Debug)]
pub struct Sync {
    pub who: Who,
    /// `None` if the client does not say.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// From the leader: what each member gets.
    pub assignments: BTreeMap<String, Bytes>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Synced {
    pub error: ErrorCode,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

impl Synced {
    pub fn error(error: ErrorCode) -> Self {
        Self { error, ..Self::default() }
    }
}

/// A member that is to leave; a static one may be named by its instance alone.
#[derive(Clone, Debug)]
pub struct Leaving {
    pub member_id: String,
    pub instance_id: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Empty,
    Preparing,
    Completing,
    Stable,
}

impl State {
    /// As Kafka's tools show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing => "PreparingRebalance",
            Self::Completing => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

#[derive(Debug)]
pub struct Member {
    pub instance_id: Option<String>,
    pub client: Client,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    /// Its JoinGroup that waits for the others.
    join: Option<RequestId>,
    /// Its SyncGroup that waits for the leader's.
    sync: Option<RequestId>,
}

impl Member {
    /// Its metadata for a protocol.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, m)| m.clone()).unwrap_or_default()
    }

    fn session_timeout(&self) -> Duration {
        millis(self.session_timeout_ms)
    }
}

/// Negative is none.
fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// The wait of an empty group for more members than the first.
#[derive(Clone, Copy, Debug)]
struct InitialWait {
    /// It is extended by each new member, up to here.
    at_most: Instant,
    joined: bool,
}

#[derive(Debug)]
pub struct Group {
    state: State,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Instance id to member id.
    statics: BTreeMap<String, String>,
    /// Ids given to clients that have not joined with them yet.
    pending: BTreeSet<String>,
    /// Members of this generation that have not asked for their assignment.
    unsynced: BTreeSet<String>,
    initial: Option<InitialWait>,
    /// A record of it is in the log, or on its way.
    stored: bool,
    /// Of that record, wall clock; `None` if it does not say.
    stored_ms: Option<i64>,
}

impl Group {
    /// An empty group whose next generation is one more.
    pub fn new(generation: i32) -> Self {
        Self {
            state: State::Empty,
            generation,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            initial: None,
            stored: false,
            stored_ms: None,
        }
    }

    pub fn load(stored: StoredClassic) -> Self {
        let mut group = Self { stored: true, ..Self::new(stored.generation) };
        group.protocol_type = Some(stored.protocol_type).filter(|t| !t.is_empty());
        group.protocol = stored.protocol;
        group.leader = stored.leader;
        group.stored_ms = Some(stored.state_timestamp_ms).filter(|ms| *ms >= 0);
        group.state = if stored.members.is_empty() { State::Empty } else { State::Stable };
        for m in stored.members {
            if let Some(instance) = &m.instance_id {
                group.statics.insert(instance.clone(), m.member_id.clone());
            }
            let protocols = group.protocol.iter().map(|p| (p.clone(), m.subscription.clone())).collect();
            let member = Member {
                instance_id: m.instance_id,
                client: m.client,
                session_timeout_ms: m.session_timeout_ms,
                rebalance_timeout_ms: m.rebalance_timeout_ms,
                protocols,
                assignment: m.assignment,
                join: None,
                sync: None,
            };
            group.members.insert(m.member_id, member);
        }
        group
    }

    pub fn loaded(&mut self, cx: &mut Cx<'_>) {
        for (id, member) in &self.members {
            cx.set_timer(Timer::Session(id.clone()), member.session_timeout());
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    pub fn members(&self) -> &BTreeMap<String, Member> {
        &self.members
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// Since when it has been Empty, by the wall clock, if it is and its record says so.
    pub fn empty_since_ms(&self) -> Option<i64> {
        self.stored_ms.filter(|_| self.state == State::Empty)
    }

    /// Nothing would be lost with it.
    pub fn is_void(&self) -> bool {
        self.is_empty() && !self.stored && self.state == State::Empty
    }

    pub fn delete(&mut self, cx: &mut Cx<'_>) -> ErrorCode {
        if !self.is_empty() || self.state != State::Empty {
            return ErrorCode::NON_EMPTY_GROUP;
        }
        if self.stored {
            cx.persist(GroupRecord::Classic { group: cx.group.to_owned(), value: None });
            self.stored = false;
        }
        ErrorCode::NONE
    }

    /// Whether these offsets may be committed. A member that commits is alive.
    pub fn check_commit(&mut self, cx: &mut Cx<'_>, who: Committer<'_>) -> Result<(), ErrorCode> {
        if who.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if who.is_nobody() {
            // A consumer that is no member has nothing to commit here while there are members. TxnOffsetCommit of
            // before KIP-447 names nobody, and the transactional id fences.
            return if who.in_transaction { Ok(()) } else { Err(ErrorCode::UNKNOWN_MEMBER_ID) };
        }
        self.check_member(who.member_id, who.instance_id)?;
        if who.generation != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        if self.state == State::Completing && !who.in_transaction {
            return Err(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        self.heard(cx, who.member_id);
        Ok(())
    }

    /// Whether this is a member; a static one must be the one that holds the instance now.
    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance_id {
            return match self.statics.get(instance) {
                None => Err(ErrorCode::UNKNOWN_MEMBER_ID),
                Some(current) if current != member_id => Err(ErrorCode::FENCED_INSTANCE_ID),
                Some(_) => Ok(()),
            };
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UNKNOWN_MEMBER_ID) }
    }

    /// A sign of life.
    fn heard(&mut self, cx: &mut Cx<'_>, member_id: &str) {
        // One that waits for others is not counted as silent.
        if let Some(m) = self.members.get(member_id)
            && m.join.is_none()
            && m.sync.is_none()
        {
            cx.set_timer(Timer::Session(member_id.to_owned()), m.session_timeout());
        }
    }

    fn persist(&mut self, cx: &mut Cx<'_>) {
        let protocol = self.protocol.as_deref();
        let member = |(id, m): (&String, &Member)| StoredMember {
            member_id: id.clone(),
            instance_id: m.instance_id.clone(),
            client: m.client.clone(),
            rebalance_timeout_ms: m.rebalance_timeout_ms,
            session_timeout_ms: m.session_timeout_ms,
            subscription: protocol.map(|p| m.metadata(p)).unwrap_or_default(),
            assignment: m.assignment.clone(),
        };
        let stored = StoredClassic {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_timestamp_ms: cx.wall_ms,
            members: self.members.iter().map(member).collect(),
        };
        (self.stored, self.stored_ms) = (true, Some(cx.wall_ms));
        cx.persist(GroupRecord::Classic { group: cx.group.to_owned(), value: Some(stored) });
    }
}
