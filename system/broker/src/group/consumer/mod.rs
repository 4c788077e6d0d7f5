//! A group of the consumer protocol (KIP-848): the coordinator assigns, and each member moves towards its part by itself.
//!
//! Three epochs: the *group's* rises when members, subscriptions or topics change; the *target assignment's* follows when
//! it is computed anew; a *member's* follows when it may have all of its target that others have let go of. A member that
//! has to give up partitions keeps its epoch until it says that it no longer owns them. A partition is given out only
//! when no member is assigned it or still has to give it up, so it never has two owners.
//!
//! ```text
//!   Stable --target without some of its partitions--> UnrevokedPartitions --it says it gave them up--.
//!     ^ \                                                                                           v
//!     |  '--target with partitions of others---------> UnreleasedPartitions <------------(its new epoch)
//!     '------------------- all of its target is its own -----------'
//! ```

pub mod assignor;
mod heartbeat;
mod member;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use protocol::{ErrorCode, Uuid};

use super::machine::{Client, Committer, Cx, Topics};
use super::offsets::Place;
use super::records::GroupRecord;
use super::timers::Timer;
pub use member::{Current, Member, MemberMetadata, MemberState};

/// Partitions by topic id; no topic without partitions.
pub type Assignment = BTreeMap<Uuid, BTreeSet<i32>>;

/// The epoch that a member leaves with.
pub const LEAVE: i32 = -1;
/// The epoch that a static member leaves with that will be back.
pub const LEAVE_FOR_NOW: i32 = -2;

#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    pub member_id: String,
    pub epoch: i32,
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub client: Client,
    /// -1: as before.
    pub rebalance_timeout_ms: i32,
    /// `None`: as before, here and below.
    pub topics: Option<BTreeSet<String>>,
    pub assignor: Option<String>,
    pub owned: Option<Assignment>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Beat {
    pub error: ErrorCode,
    pub member_id: String,
    pub epoch: i32,
    pub heartbeat_interval_ms: i32,
    /// `None`: as before.
    pub assignment: Option<Assignment>,
}

impl Beat {
    pub fn error(error: ErrorCode, member_id: &str) -> Self {
        Self { error, member_id: member_id.to_owned(), ..Self::default() }
    }
}

#[derive(Debug, Default)]
pub struct Group {
    epoch: i32,
    /// Of the subscribed topics: a change means a new epoch.
    metadata_hash: u64,
    members: BTreeMap<String, Member>,
    /// Instance id to member id.
    statics: BTreeMap<String, String>,
    target_epoch: i32,
    target: BTreeMap<String, Assignment>,
    /// Who is assigned each partition, or has yet to give it up.
    owners: BTreeMap<(Uuid, i32), String>,
}

impl Group {
    /// An empty group whose next epoch is one more.
    pub fn new(epoch: i32) -> Self {
        Self { epoch, target_epoch: epoch, ..Self::default() }
    }

    /// Applies a record of the log; true if it ended the group.
    pub fn replay(&mut self, record: GroupRecord) -> bool {
        match record {
            GroupRecord::Classic { .. } => {}
            GroupRecord::Epoch { value, .. } => match value {
                Some((epoch, hash)) => {
                    self.epoch = epoch;
                    self.metadata_hash = hash;
                }
                None => return true,
            },
            GroupRecord::TargetEpoch { epoch, .. } => self.target_epoch = epoch.unwrap_or_default(),
            GroupRecord::Member { member_id, value, .. } => match value {
                Some(metadata) => {
                    if let Some(instance) = &metadata.instance_id {
                        self.statics.insert(instance.clone(), member_id.clone());
                    }
                    self.members.entry(member_id).or_default().metadata = metadata;
                }
                None => {
                    self.members.remove(&member_id);
                    self.statics.retain(|_, current| *current != member_id);
                    self.owners.retain(|_, owner| *owner != member_id);
                }
            },
            GroupRecord::Target { member_id, value, .. } => match value {
                Some(target) => {
                    self.target.insert(member_id, target);
                }
                None => {
                    self.target.remove(&member_id);
                }
            },
            GroupRecord::Current { member_id, value, .. } => {
                self.owners.retain(|_, owner| *owner != member_id);
                // Its metadata may be gone already: then so is the member.
                if let Some(current) = value
                    && let Some(member) = self.members.get_mut(&member_id)
                {
                    member.current = current;
                    let partitions: Vec<_> = member.current.partitions().collect();
                    self.owners.extend(partitions.into_iter().map(|p| (p, member_id.clone())));
                }
            }
        }
        false
    }

    pub fn loaded(&mut self, cx: &mut Cx<'_>) {
        for (id, m) in &self.members {
            cx.set_timer(Timer::Session(id.clone()), cx.config.consumer_session_timeout);
            if m.current.state == MemberState::Unrevoked {
                cx.set_timer(Timer::Revoke(id.clone()), m.rebalance_timeout());
            }
        }
    }

    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    pub fn target_epoch(&self) -> i32 {
        self.target_epoch
    }

    pub fn target(&self, member_id: &str) -> Option<&Assignment> {
        self.target.get(member_id)
    }

    pub fn members(&self) -> &BTreeMap<String, Member> {
        &self.members
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Nothing would be lost with it.
    pub fn is_void(&self) -> bool {
        self.members.is_empty() && self.epoch == 0
    }

    /// As Kafka's tools show it.
    pub fn state_name(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.values().all(|m| m.is_reconciled(self.target_epoch)) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// The assignor in use: the one most members ask for, else the default.
    pub fn assignor(&self) -> assignor::Kind {
        let mut votes = BTreeMap::new();
        for name in self.members.values().filter_map(|m| m.metadata.assignor.as_deref()) {
            if let Some(kind) = assignor::Kind::parse(name) {
                *votes.entry(kind).or_insert(0) += 1;
            }
        }
        let most = votes.values().copied().max().unwrap_or_default();
        votes.into_iter().find(|(_, n)| *n == most).map_or(assignor::Kind::Uniform, |(kind, _)| kind)
    }

    /// The records that end an empty group.
    pub fn tombstones(&self, group: &str) -> Vec<GroupRecord> {
        debug_assert!(self.members.is_empty(), "only an empty group ends");
        let group = || group.to_owned();
        vec![
            GroupRecord::TargetEpoch { group: group(), epoch: None },
            GroupRecord::Epoch { group: group(), value: None },
        ]
    }

    pub fn delete(&mut self, cx: &mut Cx<'_>) -> ErrorCode {
        if !self.members.is_empty() {
            return ErrorCode::NON_EMPTY_GROUP;
        }
        for record in self.tombstones(cx.group) {
            cx.persist(record);
        }
        *self = Self::default();
        ErrorCode::NONE
    }

    /// Whether offsets of these places may be committed (KIP-1251). A member that has moved on and was not told yet is
    /// no zombie: its client would not try again until it has more to commit, which may be never.
    pub fn check_commit<'a>(
        &self,
        topics: &dyn Topics,
        who: Committer<'_>,
        mut places: impl Iterator<Item = &'a Place>,
    ) -> Result<(), ErrorCode> {
        if who.generation < 0 && self.members.is_empty() || who.in_transaction && who.is_nobody() {
            return Ok(());
        }
        // TxnOffsetCommit has no code of its own for a stale epoch.
        let stale = if who.in_transaction { ErrorCode::ILLEGAL_GENERATION } else { ErrorCode::STALE_MEMBER_EPOCH };
        let current = &self.member(who.member_id)?.current;
        let may = |(topic, partition): &Place| {
            let partition = topics.topic(topic).map(|(id, _)| (id, *partition));
            partition.is_some_and(|p| current.may_commit(p, who.generation))
        };
        if current.epoch == who.generation || places.all(may) { Ok(()) } else { Err(stale) }
    }

    fn member(&self, member_id: &str) -> Result<&Member, ErrorCode> {
        self.members.get(member_id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)
    }

    /// The member is known and has this epoch.
    pub fn check_epoch(&self, member_id: &str, epoch: i32, stale: ErrorCode) -> Result<(), ErrorCode> {
        let member = self.member(member_id)?;
        if member.current.epoch == epoch { Ok(()) } else { Err(stale) }
    }
}

/// Whether every partition of `a` is in `b`.
fn is_subset(a: &Assignment, b: &Assignment) -> bool {
    a.iter().all(|(topic, partitions)| b.get(topic).is_some_and(|p| partitions.is_subset(p)))
}

fn partitions_of(a: &Assignment) -> impl Iterator<Item = (Uuid, i32)> + '_ {
    a.iter().flat_map(|(topic, partitions)| partitions.iter().map(|p| (*topic, *p)))
}

fn assignment_of(partitions: impl IntoIterator<Item = (Uuid, i32)>) -> Assignment {
    let mut a = Assignment::new();
    for (topic, partition) in partitions {
        a.entry(topic).or_default().insert(partition);
    }
    a
}
