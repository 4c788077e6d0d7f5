//! ConsumerGroupHeartbeat: joining, going on, leaving.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{ErrorCode, Uuid};

use super::member::{Current, Member, MemberState};
use super::{
    Assignment, Beat, Group, Heartbeat, LEAVE, LEAVE_FOR_NOW, assignment_of, assignor, is_subset, partitions_of,
};
use crate::group::machine::{Cx, Reply, RequestId};
use crate::group::records::GroupRecord;
use crate::group::timers::Timer;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    New,
    Known,
    /// A static member under a new id.
    Back,
}

impl Group {
    pub fn heartbeat(&mut self, cx: &mut Cx<'_>, id: RequestId, r: Heartbeat, fresh: Uuid) {
        let member_id = if r.member_id.is_empty() { fresh.to_string() } else { r.member_id.clone() };
        let result = match r.epoch {
            LEAVE => self.leave(cx, &r),
            LEAVE_FOR_NOW => self.leave_for_now(cx, &r),
            _ => self.beat(cx, &r, &member_id),
        };
        let beat = result.unwrap_or_else(|error| Beat::error(error, &r.member_id));
        cx.reply(id, Reply::Beat(beat));
    }

    fn beat(&mut self, cx: &mut Cx<'_>, r: &Heartbeat, member_id: &str) -> Result<Beat, ErrorCode> {
        let joins = r.epoch == 0;
        let found = self.find(cx, r, member_id)?;
        let new = found == Found::New;
        if new {
            self.members.insert(member_id.to_owned(), Member::default());
            if let Some(instance) = &r.instance_id {
                self.statics.insert(instance.clone(), member_id.to_owned());
            }
        }
        let changed = self.update(cx, r, member_id, new);
        let hash = self.topics_hash(cx);
        if new || changed || hash != self.metadata_hash {
            self.bump(cx, hash);
        }
        if self.target_epoch < self.epoch {
            self.assign(cx);
        }
        // A member that joins anew may still read what it had: only what it says later frees that.
        let owned = if joins && found == Found::Known { None } else { r.owned.as_ref() };
        self.step(cx, member_id, owned);
        cx.set_timer(Timer::Session(member_id.to_owned()), cx.config.consumer_session_timeout);
        let Some(member) = self.members.get_mut(member_id) else { return Err(ErrorCode::UNKNOWN_MEMBER_ID) };
        if let Some(owned) = &r.owned {
            member.said = Some(owned.clone());
        }
        // Told until it says that it has it, which is the one sign that an answer arrived:
        // 1. A heartbeat is held up. 2. Its member repeats itself on another connection, and is told its assignment.
        // 3. The first one arrives, partitions are free by now, and the answer that tells them reaches nobody.
        // 4. Later heartbeats change nothing: the partitions were never read.
        let unheard = member.said.as_ref() != Some(&member.current.assigned);
        let current = &member.current;
        let full = joins || r.owned.is_some() && r.topics.is_some() && r.rebalance_timeout_ms >= 0;
        Ok(Beat {
            error: ErrorCode::NONE,
            member_id: member_id.to_owned(),
            epoch: current.epoch,
            heartbeat_interval_ms: i32::try_from(cx.config.consumer_heartbeat_interval.as_millis()).unwrap_or(i32::MAX),
            assignment: (full || unheard).then(|| current.assigned.clone()),
        })
    }

    /// Finds the member, in a state that the request fits to. A static member that left for now is replaced by the one
    /// that comes back.
    fn find(&mut self, cx: &mut Cx<'_>, r: &Heartbeat, member_id: &str) -> Result<Found, ErrorCode> {
        if let Some(instance) = &r.instance_id
            && let Some(holder) = self.statics.get(instance).cloned()
            && holder != member_id
        {
            if r.epoch != 0 {
                return Err(ErrorCode::FENCED_INSTANCE_ID);
            }
            if self.members.get(&holder).is_some_and(|m| m.current.epoch != LEAVE_FOR_NOW) {
                return Err(ErrorCode::UNRELEASED_INSTANCE_ID);
            }
            self.replace_static(cx, &holder, instance, member_id);
            return Ok(Found::Back);
        }
        let Some(member) = self.members.get(member_id) else {
            if r.epoch != 0 {
                return Err(ErrorCode::UNKNOWN_MEMBER_ID);
            }
            return if self.members.len() >= cx.config.max_size {
                Err(ErrorCode::GROUP_MAX_SIZE_REACHED)
            } else {
                Ok(Found::New)
            };
        };
        if member.metadata.instance_id != r.instance_id && (r.epoch == 0 || r.instance_id.is_some()) {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        let Current { epoch, previous_epoch, assigned, .. } = &member.current;
        let lost_answer =
            r.epoch == *previous_epoch && r.owned.as_ref().is_some_and(|owned| is_subset(owned, assigned));
        if r.epoch == 0 || r.epoch == *epoch || lost_answer && r.epoch < *epoch {
            Ok(Found::Known)
        } else {
            Err(ErrorCode::FENCED_MEMBER_EPOCH)
        }
    }

    /// The new member takes over all that the old one had. The old one gave up its partitions as it left.
    fn replace_static(&mut self, cx: &mut Cx<'_>, old: &str, instance: &str, member_id: &str) {
        let Some(mut member) = self.members.remove(old) else { return };
        let target = self.target.remove(old).unwrap_or_default();
        cx.cancel_timer(&Timer::Session(old.to_owned()));
        self.tombstones_of(cx, old);
        member.current.epoch = 0;
        member.current.previous_epoch = 0;
        // What is no longer meant for it is free at once.
        member.current.assigned = assignment_of(
            partitions_of(&member.current.assigned)
                .filter(|(topic, p)| target.get(topic).is_some_and(|partitions| partitions.contains(p))),
        );
        // Nobody has committed in an epoch of the new one.
        member.current.since = partitions_of(&member.current.assigned).map(|p| (p, 0)).collect();
        self.owners.retain(|_, owner| owner != old);
        self.owners.extend(partitions_of(&member.current.assigned).map(|p| (p, member_id.to_owned())));
        self.statics.insert(instance.to_owned(), member_id.to_owned());
        let group = cx.group.to_owned();
        let metadata = member.metadata.clone();
        self.members.insert(member_id.to_owned(), member);
        self.target.insert(member_id.to_owned(), target.clone());
        let member_id = member_id.to_owned();
        cx.persist(GroupRecord::Member { group: group.clone(), member_id: member_id.clone(), value: Some(metadata) });
        cx.persist(GroupRecord::Target { group, member_id, value: Some(target) });
    }

    /// Takes over what the member says of itself; whether its subscription changed.
    fn update(&mut self, cx: &mut Cx<'_>, r: &Heartbeat, member_id: &str, new: bool) -> bool {
        let Some(member) = self.members.get_mut(member_id) else { return false };
        let mut next = member.metadata.clone();
        next.client = r.client.clone();
        if r.epoch == 0 {
            next.instance_id.clone_from(&r.instance_id);
        }
        if r.rack_id.is_some() || r.epoch == 0 {
            next.rack_id.clone_from(&r.rack_id);
        }
        if r.rebalance_timeout_ms >= 0 {
            next.rebalance_timeout_ms = r.rebalance_timeout_ms;
        }
        if let Some(topics) = &r.topics {
            next.topics.clone_from(topics);
        }
        if r.assignor.is_some() || r.epoch == 0 {
            next.assignor.clone_from(&r.assignor);
        }
        if next == member.metadata && !new {
            return false;
        }
        let subscribed = next.topics != member.metadata.topics || next.assignor != member.metadata.assignor;
        member.metadata = next.clone();
        let group = cx.group.to_owned();
        cx.persist(GroupRecord::Member { group, member_id: member_id.to_owned(), value: Some(next) });
        subscribed
    }

    fn bump(&mut self, cx: &mut Cx<'_>, hash: u64) {
        self.epoch = self.epoch.checked_add(1).unwrap_or_else(|| panic!("epoch of {} overflows", cx.group));
        self.metadata_hash = hash;
        cx.persist(GroupRecord::Epoch { group: cx.group.to_owned(), value: Some((self.epoch, hash)) });
    }

    /// A hash (FNV-1a) of what the members could read: 0 if nothing.
    fn topics_hash(&self, cx: &Cx<'_>) -> u64 {
        let names: BTreeSet<&String> = self.members.values().flat_map(|m| &m.metadata.topics).collect();
        let mut hash = 0;
        for name in names {
            let Some((id, partitions)) = cx.topics.topic(name) else { continue };
            if hash == 0 {
                hash = 0xcbf2_9ce4_8422_2325_u64;
            }
            for byte in id.as_bytes().iter().copied().chain(partitions.to_be_bytes()) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        hash
    }

    /// The target assignment of this epoch.
    fn assign(&mut self, cx: &mut Cx<'_>) {
        let mut topics: BTreeMap<Uuid, i32> = BTreeMap::new();
        let mut subscribers = BTreeMap::new();
        for (id, m) in &self.members {
            let found = m.metadata.topics.iter().filter_map(|name| cx.topics.topic(name));
            let subscribed: BTreeSet<Uuid> = found
                .map(|(topic, partitions)| {
                    topics.insert(topic, partitions);
                    topic
                })
                .collect();
            let subscriber = assignor::Subscriber { instance_id: m.metadata.instance_id.clone(), topics: subscribed };
            subscribers.insert(id.clone(), subscriber);
        }
        let next = self.assignor().assign(&subscribers, &topics, &self.target);
        let group = || cx.group.to_owned();
        let mut records = Vec::new();
        for (member_id, target) in &next {
            if self.target.get(member_id) != Some(target) {
                let (member_id, value) = (member_id.clone(), Some(target.clone()));
                records.push(GroupRecord::Target { group: group(), member_id, value });
            }
        }
        records.push(GroupRecord::TargetEpoch { group: group(), epoch: Some(self.epoch) });
        for record in records {
            cx.persist(record);
        }
        self.target = next;
        self.target_epoch = self.epoch;
    }

    /// The member's next step towards its target.
    fn step(&mut self, cx: &mut Cx<'_>, member_id: &str, owned: Option<&Assignment>) {
        let none = Assignment::new();
        let target = self.target.get(member_id).unwrap_or(&none);
        let before = &self.members[member_id].current;
        let is_free = |p: &(Uuid, i32)| self.owners.get(p).is_none_or(|owner| owner == member_id);
        let next = before.step(self.target_epoch, target, owned, is_free);
        let current = self.members[member_id].current.clone();
        if next == current {
            return;
        }
        assert!(next.epoch >= current.epoch, "epoch of member {member_id} falls");
        if next.state == MemberState::Unrevoked {
            let timeout = self.members[member_id].rebalance_timeout();
            cx.set_timer(Timer::Revoke(member_id.to_owned()), timeout);
        } else {
            cx.cancel_timer(&Timer::Revoke(member_id.to_owned()));
        }
        self.set_current(cx, member_id, next);
    }

    fn set_current(&mut self, cx: &mut Cx<'_>, member_id: &str, next: Current) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        for p in member.current.partitions() {
            self.owners.remove(&p);
        }
        for p in next.partitions() {
            let other = self.owners.insert(p, member_id.to_owned());
            assert!(other.is_none(), "{p:?} of {} would have two owners: {other:?}, {member_id}", cx.group);
        }
        member.current = next.clone();
        let (group, member_id) = (cx.group.to_owned(), member_id.to_owned());
        cx.persist(GroupRecord::Current { group, member_id, value: Some(next) });
    }

    fn leave(&mut self, cx: &mut Cx<'_>, r: &Heartbeat) -> Result<Beat, ErrorCode> {
        let member_id = self.leaving(r)?;
        self.remove(cx, &member_id);
        Ok(Beat { member_id, epoch: LEAVE, ..Beat::default() })
    }

    /// The static member gives up what it reads but keeps its target: it is expected back until its session ends.
    fn leave_for_now(&mut self, cx: &mut Cx<'_>, r: &Heartbeat) -> Result<Beat, ErrorCode> {
        if r.instance_id.is_none() {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        let member_id = self.leaving(r)?;
        cx.cancel_timer(&Timer::Revoke(member_id.clone()));
        let before = self.members[&member_id].current.clone();
        // Its target is not given to others meanwhile, so what it is assigned stays its own.
        let next = Current {
            epoch: LEAVE_FOR_NOW,
            previous_epoch: before.epoch,
            state: MemberState::Stable,
            pending_revocation: Assignment::new(),
            ..before
        };
        self.set_current(cx, &member_id, next);
        Ok(Beat { member_id, epoch: LEAVE_FOR_NOW, ..Beat::default() })
    }

    fn leaving(&self, r: &Heartbeat) -> Result<String, ErrorCode> {
        match &r.instance_id {
            None => {}
            Some(instance) => match self.statics.get(instance) {
                None => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
                Some(holder) if *holder != r.member_id => return Err(ErrorCode::FENCED_INSTANCE_ID),
                Some(_) => {}
            },
        }
        if self.members.contains_key(&r.member_id) {
            Ok(r.member_id.clone())
        } else {
            Err(ErrorCode::UNKNOWN_MEMBER_ID)
        }
    }

    /// Takes a member out; the others share its part from the next epoch on.
    fn remove(&mut self, cx: &mut Cx<'_>, member_id: &str) {
        let Some(member) = self.members.remove(member_id) else { return };
        cx.cancel_timer(&Timer::Session(member_id.to_owned()));
        cx.cancel_timer(&Timer::Revoke(member_id.to_owned()));
        if let Some(instance) = &member.metadata.instance_id
            && self.statics.get(instance).is_some_and(|holder| holder == member_id)
        {
            self.statics.remove(instance);
        }
        self.target.remove(member_id);
        self.owners.retain(|_, owner| owner != member_id);
        self.tombstones_of(cx, member_id);
        let hash = self.topics_hash(cx);
        self.bump(cx, hash);
    }

    fn tombstones_of(&self, cx: &mut Cx<'_>, member_id: &str) {
        let (group, member) = (|| cx.group.to_owned(), || member_id.to_owned());
        let records = [
            GroupRecord::Current { group: group(), member_id: member(), value: None },
            GroupRecord::Target { group: group(), member_id: member(), value: None },
            GroupRecord::Member { group: group(), member_id: member(), value: None },
        ];
        for record in records {
            cx.persist(record);
        }
    }

    pub fn expired(&mut self, cx: &mut Cx<'_>, timer: &Timer) {
        // Either way it does not do its part, and is out.
        if let Timer::Session(member_id) | Timer::Revoke(member_id) = timer {
            self.remove(cx, member_id);
        }
    }
}
