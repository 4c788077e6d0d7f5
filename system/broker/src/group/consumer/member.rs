//! A member's current assignment, and its next step towards the target.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::Uuid;

use super::{Assignment, assignment_of, partitions_of};
use crate::group::machine::Client;

/// Where a member is on its way to its target. The numbers are those of Kafka's records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum MemberState {
    /// Nothing to give up and nothing to wait for.
    #[default]
    Stable = 0,
    /// It has partitions to give up first.
    Unrevoked = 1,
    /// Others have yet to give up partitions of its target.
    Unreleased = 2,
}

impl MemberState {
    pub fn from_code(code: i8) -> Option<Self> {
        [Self::Stable, Self::Unrevoked, Self::Unreleased].into_iter().find(|s| *s as i8 == code)
    }
}

/// What a member says of itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct MemberMetadata {
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub client: Client,
    pub topics: BTreeSet<String>,
    pub rebalance_timeout_ms: i32,
    pub assignor: Option<String>,
}

/// What a member has.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Current {
    pub epoch: i32,
    /// The one before: a member whose answer was lost still has it.
    pub previous_epoch: i32,
    pub state: MemberState,
    pub assigned: Assignment,
    pub pending_revocation: Assignment,
    /// Since which of its epochs it has had each of these without a break (KIP-1251). One that is missing, as in what
    /// was written before there was this, it has had since `epoch`.
    pub since: BTreeMap<(Uuid, i32), i32>,
}

impl Current {
    /// All that it may still read from.
    pub fn partitions(&self) -> impl Iterator<Item = (Uuid, i32)> + '_ {
        partitions_of(&self.assigned).chain(partitions_of(&self.pending_revocation))
    }

    /// Whether it may commit an offset of this partition in an `epoch` before its present one, of which it may not have
    /// heard: it had the partition then, and has had it ever since.
    pub fn may_commit(&self, partition: (Uuid, i32), epoch: i32) -> bool {
        epoch < self.epoch
            && self.partitions().any(|p| p == partition)
            && self.since.get(&partition).is_some_and(|since| *since <= epoch)
    }

    /// `since` of partitions that it goes on having.
    fn since_of<'a>(
        &'a self,
        partitions: impl Iterator<Item = (Uuid, i32)> + 'a,
    ) -> impl Iterator<Item = ((Uuid, i32), i32)> + 'a {
        partitions.map(|p| (p, self.since.get(&p).copied().unwrap_or(self.epoch)))
    }

    /// The next step towards `target`. `owned` is what the member says it reads from, if it says so; `is_free` tells
    /// whether nobody else has the partition.
    pub fn step(
        &self,
        target_epoch: i32,
        target: &Assignment,
        owned: Option<&Assignment>,
        is_free: impl Fn(&(Uuid, i32)) -> bool,
    ) -> Self {
        let still_owns = |revoked: &Assignment, kept: &Assignment| match owned {
            // It did not say: it may.
            None => true,
            // A word from before it took what it keeps says nothing of what it gave up since: it may come late.
            Some(owned) => {
                let owns = |(t, p): (Uuid, i32)| owned.get(&t).is_some_and(|o| o.contains(&p));
                partitions_of(revoked).any(owns) || !partitions_of(kept).all(owns)
            }
        };
        match self.state {
            MemberState::Stable if self.epoch == target_epoch => return self.clone(),
            MemberState::Unrevoked if still_owns(&self.pending_revocation, &self.assigned) => return self.clone(),
            MemberState::Stable | MemberState::Unrevoked | MemberState::Unreleased => {}
        }
        let in_target = |(t, p): &(Uuid, i32)| target.get(t).is_some_and(|ps| ps.contains(p));
        let (keep, drop): (Vec<_>, Vec<_>) = partitions_of(&self.assigned).partition(in_target);
        let (kept, pending_revocation) = (assignment_of(keep.iter().copied()), assignment_of(drop));
        if !pending_revocation.is_empty() && still_owns(&pending_revocation, &kept) {
            let since = self.since_of(self.partitions()).collect();
            return Self { state: MemberState::Unrevoked, assigned: kept, pending_revocation, since, ..self.clone() };
        }
        let (free, taken): (Vec<_>, Vec<_>) =
            partitions_of(target).filter(|p| !keep.contains(p)).partition(|p| is_free(p));
        let state = if taken.is_empty() { MemberState::Stable } else { MemberState::Unreleased };
        // What it gave up and gets back is new to it: a commit from before may still be on its way.
        let kept = self.since_of(keep.iter().copied());
        let since = kept.chain(free.iter().map(|p| (*p, target_epoch))).collect();
        let previous_epoch = if self.epoch == target_epoch { self.previous_epoch } else { self.epoch };
        Self {
            epoch: target_epoch,
            previous_epoch,
            state,
            assigned: assignment_of(keep.into_iter().chain(free)),
            pending_revocation: Assignment::new(),
            since,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Member {
    pub metadata: MemberMetadata,
    pub current: Current,
    /// What it said last that it has; unknown after the log was read.
    pub said: Option<Assignment>,
}

impl Member {
    pub fn is_reconciled(&self, target_epoch: i32) -> bool {
        self.current.state == MemberState::Stable && self.current.epoch == target_epoch
    }

    pub fn rebalance_timeout(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.metadata.rebalance_timeout_ms).unwrap_or(0))
    }
}
