//! Membership by the classic protocol: join, let the leader share out, take one's part, send heartbeats. Pure.
//!
//! ```text
//!   eager         revoke all -> Join -> (leader: share) -> Sync -> take all
//!   cooperative   Join, still reading -> (leader: share) -> Sync -> revoke what moves -> take what is new -> Join again
//! ```

use std::collections::BTreeMap;

use env::clock::Instant;
use protocol::ErrorCode;
use protocol::consumer_protocol::{Assignment, Subscription};

use super::assignor::{Assignor, Member};
use super::membership::{Action, Answer, Call, CallId, Fatal, Identity, Input, Partitions, Refused, Settings};
use crate::metadata::TopicPartition;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Out of the generation, to join at this time.
    Unjoined(Instant),
    Joining(CallId),
    /// This member leads, and its assignor runs.
    Sharing {
        call: CallId,
        protocol: String,
    },
    Syncing(CallId),
    /// It has its assignment, but so long after it asked that its session may be over: a heartbeat tells.
    Confirming(bytes::Bytes),
    Stable,
    /// The application is to be done with some partitions; then join, or take the rest of the assignment.
    Revoking {
        then: Option<Partitions>,
    },
    /// The application does not poll: out until it does.
    Absent,
    Leaving(CallId),
    Left,
    Dead(Fatal),
}

#[derive(Debug)]
pub(super) struct Classic {
    settings: Settings,
    phase: Phase,
    member_id: String,
    generation: i32,
    /// It is this generation's leader.
    leads: bool,
    /// Every assignor it offers is cooperative; one that is not needs all members to give up all.
    cooperative: bool,
    owned: Partitions,
    /// What is being revoked; it is still its own.
    revoking: Partitions,
    /// What it said that it owned as it asked to join: whoever assigns waits for it to give that up.
    claimed: Partitions,
    next_call: CallId,
    heartbeat: Option<CallId>,
    heartbeat_sent_at: Instant,
    /// When it last asked to join or for its assignment.
    asked_at: Instant,
    heartbeat_at: Instant,
    /// When the coordinator last counted it as alive, for certain.
    alive_at: Instant,
    /// The others have begun a rebalance, and wait for it no longer than this.
    join_by: Option<Instant>,
    failures: u32,
}

impl Classic {
    pub fn new(now: Instant, settings: Settings) -> Self {
        let cooperative = settings.assignors.iter().all(|a| a.is_cooperative());
        Self {
            settings,
            phase: Phase::Unjoined(now),
            member_id: String::new(),
            generation: -1,
            leads: false,
            cooperative,
            owned: Partitions::new(),
            revoking: Partitions::new(),
            claimed: Partitions::new(),
            next_call: 0,
            heartbeat: None,
            heartbeat_sent_at: now,
            asked_at: now,
            heartbeat_at: now,
            alive_at: now,
            join_by: None,
            failures: 0,
        }
    }

    pub fn owned(&self) -> &Partitions {
        &self.owned
    }

    pub fn identity(&self) -> Identity {
        Identity { member_id: self.member_id.clone(), generation: self.generation }
    }

    pub fn fatal(&self) -> Option<&Fatal> {
        match &self.phase {
            Phase::Dead(fatal) => Some(fatal),
            _ => None,
        }
    }

    pub fn has_left(&self) -> bool {
        matches!(self.phase, Phase::Left | Phase::Dead(_))
    }

    /// Heartbeats keep it alive in the generation.
    fn beats(&self) -> bool {
        matches!(self.phase, Phase::Confirming(_) | Phase::Stable | Phase::Revoking { .. }) && self.generation >= 0
    }

    /// After this it may be out, whatever it thinks.
    fn expires_at(&self) -> Option<Instant> {
        let silent = self.alive_at + self.settings.session_timeout;
        (!self.owned.is_empty()).then(|| self.join_by.map_or(silent, |late| late.min(silent)))
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let join = if let Phase::Unjoined(at) = self.phase { Some(at) } else { None };
        let heartbeat = (self.beats() && self.heartbeat.is_none()).then_some(self.heartbeat_at);
        [join, heartbeat, self.expires_at()].into_iter().flatten().min()
    }

    pub fn poll(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.expires_at().is_some_and(|at| at <= now) {
            env::sometimes!(true, "a group member takes itself for out");
            self.lose(&mut actions);
            if self.beats() {
                self.rejoin(now, &mut actions);
            }
        }
        if let Phase::Unjoined(at) = self.phase
            && at <= now
        {
            self.join(now, &mut actions);
        }
        if self.beats() && self.heartbeat.is_none() && self.heartbeat_at <= now {
            let call = Call::Heartbeat { member_id: self.member_id.clone(), generation: self.generation };
            self.heartbeat = Some(self.call(call, &mut actions));
            self.heartbeat_sent_at = now;
        }
        actions
    }

    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Answer { call, result } => self.answered(now, call, result, &mut actions),
            Input::Shared { call, assignments } => {
                if let Phase::Sharing { call: expected, protocol } = &self.phase
                    && *expected == call
                {
                    let protocol = protocol.clone();
                    self.sync(now, protocol, assignments, &mut actions);
                }
            }
            Input::Revoked => self.revoked(now, &mut actions),
            Input::TopicsChanged => {
                // Only the leader's count counts.
                if self.phase == Phase::Stable && self.leads {
                    self.rejoin(now, &mut actions);
                }
            }
            Input::Absent => {
                if !matches!(self.phase, Phase::Leaving(_) | Phase::Left | Phase::Dead(_) | Phase::Absent) {
                    self.lose(&mut actions);
                    self.go(&mut actions);
                    self.phase = Phase::Absent;
                }
            }
            Input::Present => {
                if self.phase == Phase::Absent {
                    self.phase = Phase::Unjoined(now);
                }
            }
            Input::Leave => {
                if !self.has_left() {
                    self.lose(&mut actions);
                    self.phase = match self.go(&mut actions) {
                        Some(call) => Phase::Leaving(call),
                        None => Phase::Left,
                    };
                }
            }
        }
        actions
    }

    fn call(&mut self, call: Call, actions: &mut Vec<Action>) -> CallId {
        self.next_call += 1;
        actions.push(Action::Call { id: self.next_call, call });
        self.next_call
    }

    /// Tells the coordinator; a static member is expected back and says nothing.
    fn go(&mut self, actions: &mut Vec<Action>) -> Option<CallId> {
        self.heartbeat = None;
        let member_id = std::mem::take(&mut self.member_id);
        self.generation = -1;
        if member_id.is_empty() || self.settings.instance_id.is_some() {
            return None;
        }
        Some(self.call(Call::Leave { member_id }, actions))
    }

    fn lose(&mut self, actions: &mut Vec<Action>) {
        self.revoking.clear();
        if let Phase::Revoking { .. } = self.phase {
            // The application has nothing to answer for any more.
            self.phase = Phase::Stable;
        }
        let lost = std::mem::take(&mut self.owned);
        if !lost.is_empty() {
            actions.push(Action::Lost(lost));
        }
    }

    /// Out of this generation and into the next; eager members give up all first.
    fn rejoin(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.heartbeat = None;
        if self.cooperative || self.owned.is_empty() {
            self.phase = Phase::Unjoined(now);
            return self.join(now, actions);
        }
        self.revoking = self.owned.clone();
        actions.push(Action::Revoke(self.owned.clone()));
        self.phase = Phase::Revoking { then: None };
        // The rebalance goes on without it if it takes too long, but not because it is silent.
        self.heartbeat_at = now + self.settings.heartbeat_interval;
    }

    fn join(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.join_by = None;
        self.asked_at = now;
        let mut owned: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for tp in &self.owned {
            owned.entry(tp.topic.clone()).or_default().push(tp.partition);
        }
        let subscription = Subscription {
            topics: self.settings.topics.clone(),
            user_data: None,
            owned,
            // What it owned in a generation that it lost says nothing.
            generation: if self.owned.is_empty() { -1 } else { self.generation },
            rack: self.settings.rack.clone(),
        };
        self.claimed.clone_from(&self.owned);
        let metadata = subscription.encode();
        let protocols = self.settings.assignors.iter().map(|a| (a.name(), metadata.clone())).collect();
        let call = Call::Join { member_id: self.member_id.clone(), protocols };
        self.phase = Phase::Joining(self.call(call, actions));
    }

    fn sync(
        &mut self,
        now: Instant,
        protocol: String,
        assignments: Vec<(String, bytes::Bytes)>,
        actions: &mut Vec<Action>,
    ) {
        self.asked_at = now;
        let (member_id, generation) = (self.member_id.clone(), self.generation);
        let call = Call::Sync { member_id, generation, protocol, assignments };
        self.phase = Phase::Syncing(self.call(call, actions));
    }

    fn answered(&mut self, now: Instant, call: CallId, result: Result<Answer, Refused>, actions: &mut Vec<Action>) {
        if self.heartbeat == Some(call) {
            self.heartbeat = None;
            self.heartbeat_at = now + self.settings.heartbeat_interval;
            match result {
                // The coordinator heard it no earlier than it was sent.
                Ok(_) => {
                    self.alive_at = self.heartbeat_sent_at;
                    if let Phase::Confirming(assignment) = &self.phase {
                        let assignment = assignment.clone();
                        self.synced(now, assignment, actions);
                    }
                }
                Err(refused) => self.refused(now, &refused, actions),
            }
            return;
        }
        match &self.phase {
            Phase::Joining(expected) | Phase::Syncing(expected) if *expected == call => {}
            Phase::Leaving(expected) if *expected == call => {
                self.phase = Phase::Left;
                return;
            }
            // An answer to a call of an earlier round.
            _ => return,
        }
        match result {
            Ok(answer) => {
                self.failures = 0;
                // Its session began when the answer was made; that was after it asked.
                self.alive_at = self.alive_at.max(self.asked_at);
                self.heartbeat_at = now + self.settings.heartbeat_interval;
                match answer {
                    Answer::Joined { generation, protocol, member_id, leads, skip_assignment, members } => {
                        self.member_id = member_id;
                        self.generation = generation;
                        self.leads = leads;
                        match Assignor::parse(&protocol) {
                            Some(assignor) if leads && !skip_assignment => {
                                self.share(assignor, protocol, members, actions)
                            }
                            _ => self.sync(now, protocol, Vec::new(), actions),
                        }
                    }
                    Answer::Synced(bytes) => {
                        if now.saturating_since(self.alive_at) < self.settings.session_timeout / 2 {
                            self.synced(now, bytes, actions);
                        } else {
                            self.phase = Phase::Confirming(bytes);
                            self.heartbeat_at = now;
                        }
                    }
                    Answer::Beat | Answer::Told { .. } | Answer::Left => {}
                }
            }
            Err(refused) => self.refused(now, &refused, actions),
        }
    }

    fn share(
        &mut self,
        assignor: Assignor,
        protocol: String,
        members: Vec<(String, Option<String>, bytes::Bytes)>,
        actions: &mut Vec<Action>,
    ) {
        let members = members.into_iter().map(|(id, instance_id, metadata)| {
            // A member whose words cannot be read gets nothing.
            let subscription = Subscription::decode(metadata).unwrap_or_default();
            (id, Member { instance_id, subscription })
        });
        let members = members.collect();
        self.next_call += 1;
        self.phase = Phase::Sharing { call: self.next_call, protocol };
        actions.push(Action::Share { id: self.next_call, assignor, members });
    }

    fn synced(&mut self, now: Instant, bytes: bytes::Bytes, actions: &mut Vec<Action>) {
        let assignment = if bytes.is_empty() { Ok(Assignment::default()) } else { Assignment::decode(bytes) };
        let assignment = match assignment {
            Ok(assignment) => assignment,
            Err(e) => {
                let reason = format!("the leader's assignment cannot be read: {e}").into();
                return self.refused(now, &Refused { code: None, reason, member_id: None }, actions);
            }
        };
        let mut next = Partitions::new();
        for (topic, partitions) in assignment.partitions {
            next.extend(partitions.into_iter().map(|p| TopicPartition::new(topic.as_str(), p)));
        }
        let revoked: Partitions = self.owned.difference(&next).cloned().collect();
        if revoked.is_empty() {
            self.phase = Phase::Stable;
            // 1. It joins and names what it owns. 2. Its session ends before the answers come, for all it knows: it gives
            // everything up. 3. It is assigned a part of what it named; the rest is held back until it joins without it.
            let held_back = self.claimed.difference(&next).next().is_some();
            self.take(next, actions);
            if held_back {
                env::sometimes!(true, "a group member lost what it named as it joined");
                self.phase = Phase::Unjoined(now);
                self.heartbeat = None;
                self.join(now, actions);
            }
            return;
        }
        self.revoking.clone_from(&revoked);
        self.phase = Phase::Revoking { then: Some(next) };
        actions.push(Action::Revoke(revoked));
    }

    fn take(&mut self, next: Partitions, actions: &mut Vec<Action>) {
        let added: Partitions = next.difference(&self.owned).cloned().collect();
        self.owned = next;
        actions.push(Action::Take(added));
    }

    fn revoked(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Revoking { then } = &self.phase else { return };
        let then = then.clone();
        for tp in std::mem::take(&mut self.revoking) {
            self.owned.remove(&tp);
        }
        if let Some(next) = then {
            self.take(next, actions);
        }
        // Either it has not joined yet, or what it gave up is to be given out.
        self.phase = Phase::Unjoined(now);
        self.heartbeat = None;
        self.join(now, actions);
    }

    fn refused(&mut self, now: Instant, refused: &Refused, actions: &mut Vec<Action>) {
        let later = now + self.settings.backoff.base(self.failures);
        let beats = self.beats();
        match refused.code {
            Some(ErrorCode::MEMBER_ID_REQUIRED) => {
                self.member_id = refused.member_id.clone().unwrap_or_default();
                self.phase = Phase::Unjoined(now);
                self.join(now, actions);
            }
            // The generation ends: on to the next.
            Some(ErrorCode::REBALANCE_IN_PROGRESS) => {
                // The rebalance began after the heartbeat before.
                let began = self.alive_at;
                if beats {
                    self.alive_at = self.heartbeat_sent_at;
                }
                self.join_by = self.join_by.or(Some(began + self.settings.rebalance_timeout));
                // While the application is asked to give something up, the next join is on its way already.
                if !matches!(self.phase, Phase::Revoking { .. }) {
                    self.rejoin(now, actions);
                }
            }
            Some(ErrorCode::UNKNOWN_MEMBER_ID) => {
                self.member_id.clear();
                self.generation = -1;
                self.lose(actions);
                self.phase = Phase::Unjoined(now);
            }
            Some(ErrorCode::ILLEGAL_GENERATION) => {
                // The others went on without it.
                self.generation = -1;
                self.lose(actions);
                self.phase = Phase::Unjoined(now);
            }
            Some(code) if !code.retriable() && code != ErrorCode::UNKNOWN_SERVER_ERROR => {
                self.lose(actions);
                self.phase = Phase::Dead(refused.into());
            }
            // No answer, or one that asks for patience: again, until the session is over.
            _ => {
                self.failures = self.failures.saturating_add(1);
                if beats {
                    self.heartbeat_at = later;
                } else {
                    self.phase = Phase::Unjoined(later);
                }
            }
        }
    }
}
