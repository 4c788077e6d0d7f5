//! JoinGroup: who is in the next generation.

use std::collections::BTreeMap;

use protocol::{ErrorCode, Uuid};

use super::{Group, InitialWait, Join, Joined, Member, NEW_MEMBER_JOIN_TIMEOUT, State, Synced, millis};
use crate::group::machine::{Cx, Reply, RequestId};
use crate::group::timers::Timer;

impl Group {
    pub fn join(&mut self, cx: &mut Cx<'_>, id: RequestId, r: Join, fresh: Uuid) {
        if !self.accepts(&r) {
            return refuse(cx, id, ErrorCode::INCONSISTENT_GROUP_PROTOCOL, &r.member_id);
        }
        if r.member_id.is_empty() { self.join_new(cx, id, r, fresh) } else { self.join_known(cx, id, r) }
    }

    /// Whether the group could go on with the protocols this member offers.
    fn accepts(&self, r: &Join) -> bool {
        if self.members.is_empty() {
            return !r.protocol_type.is_empty() && !r.protocols.is_empty();
        }
        let by_all = |name: &String| self.members.values().all(|m| m.protocols.iter().any(|(n, _)| n == name));
        self.protocol_type.as_ref() == Some(&r.protocol_type) && r.protocols.iter().any(|(name, _)| by_all(name))
    }

    fn join_new(&mut self, cx: &mut Cx<'_>, id: RequestId, r: Join, fresh: Uuid) {
        if let Some(instance) = &r.instance_id {
            let member_id = format!("{instance}-{fresh}");
            if let Some(old) = self.statics.get(instance).cloned() {
                return self.replace_static(cx, id, r, &old, member_id);
            }
            if self.is_full(cx) {
                return refuse(cx, id, ErrorCode::GROUP_MAX_SIZE_REACHED, "");
            }
            return self.add(cx, id, r, member_id);
        }
        if self.is_full(cx) {
            return refuse(cx, id, ErrorCode::GROUP_MAX_SIZE_REACHED, "");
        }
        let member_id = format!("{}-{fresh}", r.client.id);
        if !r.id_required {
            return self.add(cx, id, r, member_id);
        }
        // A client that never learns its id must not become a member that nobody is: it joins again with the id
        // (KIP-394).
        self.pending.insert(member_id.clone());
        cx.set_timer(Timer::Session(member_id.clone()), millis(r.session_timeout_ms));
        refuse(cx, id, ErrorCode::MEMBER_ID_REQUIRED, &member_id);
    }

    fn is_full(&self, cx: &Cx<'_>) -> bool {
        self.members.len() + self.pending.len() >= cx.config.max_size
    }

    fn join_known(&mut self, cx: &mut Cx<'_>, id: RequestId, r: Join) {
        let member_id = r.member_id.clone();
        if r.instance_id.is_none() && self.pending.contains(&member_id) {
            return self.add(cx, id, r, member_id);
        }
        if let Err(error) = self.check_member(&member_id, r.instance_id.as_deref()) {
            return refuse(cx, id, error, &member_id);
        }
        let unchanged = self.members.get(&member_id).is_some_and(|m| m.protocols == r.protocols);
        match self.state {
            State::Empty => refuse(cx, id, ErrorCode::UNKNOWN_MEMBER_ID, &member_id),
            // The answer was lost: here it is again.
            State::Completing if unchanged => {
                let joined = self.joined(&member_id);
                cx.reply(id, Reply::Joined(joined));
            }
            State::Stable if unchanged && self.leader.as_ref() != Some(&member_id) => {
                let joined = Joined { members: Vec::new(), ..self.joined(&member_id) };
                cx.reply(id, Reply::Joined(joined));
                self.heard(cx, &member_id);
            }
            // A leader that joins a stable group wants to assign anew, say because a topic grew.
            State::Preparing | State::Completing | State::Stable => {
                if let Some(m) = self.members.get_mut(&member_id) {
                    let superseded = m.join.replace(id);
                    m.client = r.client;
                    m.session_timeout_ms = r.session_timeout_ms;
                    m.rebalance_timeout_ms = r.rebalance_timeout_ms;
                    m.protocols = r.protocols;
                    cx.cancel_timer(&Timer::Session(member_id.clone()));
                    if let Some(old) = superseded {
                        refuse(cx, old, ErrorCode::REBALANCE_IN_PROGRESS, &member_id);
                    }
                }
                self.rebalance(cx);
            }
        }
    }

    fn add(&mut self, cx: &mut Cx<'_>, id: RequestId, r: Join, member_id: String) {
        self.pending.remove(&member_id);
        if self.members.is_empty() {
            self.protocol_type = Some(r.protocol_type);
        }
        if let Some(instance) = &r.instance_id {
            self.statics.insert(instance.clone(), member_id.clone());
        }
        if let Some(initial) = &mut self.initial {
            initial.joined = true;
        }
        if self.leader.is_none() {
            self.leader = Some(member_id.clone());
        }
        cx.set_timer(Timer::Session(member_id.clone()), NEW_MEMBER_JOIN_TIMEOUT);
        let member = Member {
            instance_id: r.instance_id,
            client: r.client,
            session_timeout_ms: r.session_timeout_ms,
            rebalance_timeout_ms: r.rebalance_timeout_ms,
            protocols: r.protocols,
            assignment: Default::default(),
            join: Some(id),
            sync: None,
        };
        self.members.insert(member_id, member);
        self.rebalance(cx);
    }

    /// A static member came back under a new id: the old id is fenced, and if nothing else changed the group goes on
    /// without a rebalance (KIP-345).
    fn replace_static(&mut self, cx: &mut Cx<'_>, id: RequestId, r: Join, old_id: &str, member_id: String) {
        let Some(mut member) = self.members.remove(old_id) else {
            return refuse(cx, id, ErrorCode::UNKNOWN_MEMBER_ID, "");
        };
        cx.cancel_timer(&Timer::Session(old_id.to_owned()));
        if let Some(join) = member.join.take() {
            refuse(cx, join, ErrorCode::FENCED_INSTANCE_ID, old_id);
        }
        if let Some(sync) = member.sync.take() {
            cx.reply(sync, Reply::Synced(Synced::error(ErrorCode::FENCED_INSTANCE_ID)));
        }
        self.unsynced.remove(old_id);
        let leads = self.leader.as_deref() == Some(old_id);
        if leads {
            self.leader = Some(member_id.clone());
        }
        if let Some(instance) = &r.instance_id {
            self.statics.insert(instance.clone(), member_id.clone());
        }
        let metadata = |protocols: &[(String, bytes::Bytes)], name: &Option<String>| {
            let name = name.as_deref()?;
            protocols.iter().find(|(n, _)| n == name).map(|(_, m)| m.clone())
        };
        let same_metadata = metadata(&member.protocols, &self.protocol) == metadata(&r.protocols, &self.protocol);
        member.client = r.client;
        member.session_timeout_ms = r.session_timeout_ms;
        member.rebalance_timeout_ms = r.rebalance_timeout_ms;
        member.protocols = r.protocols;
        let session_timeout = member.session_timeout();
        self.members.insert(member_id.clone(), member);
        if self.state == State::Stable && same_metadata && self.vote() == self.protocol {
            cx.set_timer(Timer::Session(member_id.clone()), session_timeout);
            self.persist(cx);
            let mut joined = self.joined(&member_id);
            if r.can_skip_assignment {
                joined.skip_assignment = leads;
            } else {
                // An older client would take the leader's part and assign: it is told that somebody else leads.
                joined.members.clear();
                if leads {
                    old_id.clone_into(&mut joined.leader);
                }
            }
            return cx.reply(id, Reply::Joined(joined));
        }
        if let Some(m) = self.members.get_mut(&member_id) {
            m.join = Some(id);
        }
        self.rebalance(cx);
    }

    /// What this member is told of the generation.
    fn joined(&self, member_id: &str) -> Joined {
        let leader = self.leader.clone().unwrap_or_default();
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let all = self.members.iter().map(|(id, m)| (id.clone(), m.instance_id.clone(), m.metadata(protocol)));
        Joined {
            error: ErrorCode::NONE,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            members: if leader == member_id { all.collect() } else { Vec::new() },
            leader,
            member_id: member_id.to_owned(),
            skip_assignment: false,
        }
    }

    /// Somebody came, went or changed.
    pub(super) fn rebalance(&mut self, cx: &mut Cx<'_>) {
        let was = self.state;
        if was == State::Preparing {
            return self.maybe_complete_join(cx);
        }
        if was == State::Completing {
            for m in self.members.values_mut() {
                m.assignment.clear();
            }
            self.interrupt_syncs(cx);
        }
        self.unsynced.clear();
        cx.cancel_timer(&Timer::Sync);
        self.state = State::Preparing;
        let longest = self.longest_rebalance_timeout();
        if was == State::Empty && !cx.config.initial_rebalance_delay.is_zero() {
            self.initial = Some(InitialWait { at_most: cx.now + longest, joined: false });
            cx.set_timer(Timer::Join, cx.config.initial_rebalance_delay.min(longest));
        } else {
            cx.set_timer(Timer::Join, longest);
            self.maybe_complete_join(cx);
        }
    }

    /// Members that wait for an assignment of a generation that will have none join again.
    fn interrupt_syncs(&mut self, cx: &mut Cx<'_>) {
        let waiting: Vec<_> =
            self.members.iter_mut().filter_map(|(id, m)| Some((id.clone(), m.sync.take()?))).collect();
        for (member_id, sync) in waiting {
            cx.reply(sync, Reply::Synced(Synced::error(ErrorCode::REBALANCE_IN_PROGRESS)));
            self.heard(cx, &member_id);
        }
    }

    fn longest_rebalance_timeout(&self) -> std::time::Duration {
        self.members.values().map(|m| millis(m.rebalance_timeout_ms)).max().unwrap_or_default()
    }

    pub(super) fn maybe_complete_join(&mut self, cx: &mut Cx<'_>) {
        let all_joined = self.pending.is_empty() && self.members.values().all(|m| m.join.is_some());
        if self.state == State::Preparing && self.initial.is_none() && all_joined {
            self.complete_join(cx);
        }
    }

    /// The time to join is up.
    pub(super) fn join_expired(&mut self, cx: &mut Cx<'_>) {
        if let Some(initial) = &mut self.initial
            && initial.joined
            && initial.at_most > cx.now
        {
            initial.joined = false;
            let left = initial.at_most.saturating_since(cx.now);
            return cx.set_timer(Timer::Join, cx.config.initial_rebalance_delay.min(left));
        }
        if self.state == State::Preparing {
            self.complete_join(cx);
        }
    }

    /// The next generation: of those that joined, and of static members that may come back.
    fn complete_join(&mut self, cx: &mut Cx<'_>) {
        self.initial = None;
        cx.cancel_timer(&Timer::Join);
        let gone = |(_, m): &(&String, &Member)| m.join.is_none() && m.instance_id.is_none();
        let gone: Vec<_> = self.members.iter().filter(gone).map(|(id, _)| id.clone()).collect();
        for member_id in gone {
            self.members.remove(&member_id);
            cx.cancel_timer(&Timer::Session(member_id));
        }
        let joined = |m: &Member| m.join.is_some();
        let leader_joined = self.leader.as_ref().and_then(|l| self.members.get(l)).is_some_and(joined);
        if !leader_joined {
            let next = self.members.iter().find(|(_, m)| m.join.is_some()).map(|(id, _)| id.clone());
            if next.is_none() && !self.members.is_empty() {
                // Only static members are left and none has joined: they have another round, until their sessions end.
                let longest = self.longest_rebalance_timeout();
                return cx.set_timer(Timer::Join, longest);
            }
            self.leader = next;
        }
        self.generation =
            self.generation.checked_add(1).unwrap_or_else(|| panic!("generation of {} overflows", cx.group));
        if self.members.is_empty() {
            self.state = State::Empty;
            self.protocol = None;
            return self.persist(cx);
        }
        self.protocol = self.vote();
        self.state = State::Completing;
        self.unsynced = self.members.keys().cloned().collect();
        cx.set_timer(Timer::Sync, self.longest_rebalance_timeout());
        let waiting: Vec<_> =
            self.members.iter_mut().filter_map(|(id, m)| Some((id.clone(), m.join.take()?))).collect();
        for (member_id, join) in waiting {
            let joined = self.joined(&member_id);
            cx.reply(join, Reply::Joined(joined));
            self.heard(cx, &member_id);
        }
    }

    /// The protocol that most members like best, of those that all have; the first by name among equals.
    fn vote(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        let by_all = |name: &str| self.members.values().all(|m| m.protocols.iter().any(|(n, _)| n == name));
        for m in self.members.values() {
            let best = m.protocols.iter().map(|(name, _)| name.as_str()).find(|name| by_all(name));
            if let Some(best) = best {
                *votes.entry(best).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, n)| *n == most).map(|(name, _)| name.to_owned())
    }
}

fn refuse(cx: &mut Cx<'_>, id: RequestId, error: ErrorCode, member_id: &str) {
    cx.reply(id, Reply::Joined(Joined::error(error, member_id)));
}
