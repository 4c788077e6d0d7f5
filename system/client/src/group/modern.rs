//! Membership by the consumer protocol (KIP-848): one heartbeat carries everything, the coordinator assigns. Pure.
//!
//! What the coordinator assigns is free: others have given it up. What it assigns no longer, this member gives up before
//! it says that it owns it no longer, and only then does the coordinator give it to others.

use env::clock::Instant;
use protocol::{ErrorCode, Uuid};

use super::membership::{Action, Answer, Call, CallId, Fatal, Identity, Input, Partitions, Refused, Settings};

/// The epochs that a member leaves with: for good, and for now.
const LEAVE: i32 = -1;
const LEAVE_FOR_NOW: i32 = -2;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Member,
    /// The application does not poll: out until it does.
    Absent,
    Leaving(CallId),
    Left,
    Dead(Fatal),
}

#[derive(Debug)]
pub(super) struct Modern {
    settings: Settings,
    phase: Phase,
    /// Its own choice. It takes another one after it left, since its leaving may be heard after its coming back.
    member_id: Uuid,
    epoch: i32,
    owned: Partitions,
    /// What the coordinator last assigned.
    target: Partitions,
    /// What the application is to be done with; it is still its own.
    revoking: Partitions,
    /// The coordinator takes it for gone if it has not heard by then that it gave up what it was told to.
    revoke_by: Option<Instant>,
    /// The call in flight says so.
    confirms: bool,
    next_call: CallId,
    in_flight: Option<CallId>,
    sent_at: Instant,
    heartbeat_at: Instant,
    alive_at: Instant,
    /// The coordinator may not know what this member last said.
    tell_all: bool,
    failures: u32,
}

impl Modern {
    pub fn new(now: Instant, settings: Settings, member_id: Uuid) -> Self {
        Self {
            settings,
            phase: Phase::Member,
            member_id,
            epoch: 0,
            owned: Partitions::new(),
            target: Partitions::new(),
            revoking: Partitions::new(),
            revoke_by: None,
            confirms: false,
            next_call: 0,
            in_flight: None,
            sent_at: now,
            heartbeat_at: now,
            alive_at: now,
            tell_all: true,
            failures: 0,
        }
    }

    pub fn owned(&self) -> &Partitions {
        &self.owned
    }

    pub fn identity(&self) -> Identity {
        let generation = if self.epoch > 0 { self.epoch } else { -1 };
        Identity { member_id: self.member_id.to_string(), generation }
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

    /// After this it may be out, whatever it thinks.
    fn expires_at(&self) -> Option<Instant> {
        let silent = (!self.owned.is_empty()).then(|| self.alive_at + self.settings.session_timeout);
        silent.into_iter().chain(self.revoke_by).min()
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let heartbeat = (self.phase == Phase::Member && self.in_flight.is_none()).then_some(self.heartbeat_at);
        [heartbeat, self.expires_at()].into_iter().flatten().min()
    }

    pub fn poll(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.expires_at().is_some_and(|at| at <= now) {
            env::sometimes!(true, "a group member takes itself for out");
            self.start_over(now, &mut actions);
        }
        if self.phase == Phase::Member && self.in_flight.is_none() && self.heartbeat_at <= now {
            let call = Call::ConsumerHeartbeat {
                member_id: self.member_id.to_string(),
                epoch: self.epoch,
                full: self.tell_all || self.epoch == 0,
                owned: self.owned.clone(),
            };
            self.in_flight = Some(self.call(call, &mut actions));
            self.sent_at = now;
            self.confirms = self.tell_all && self.revoking.is_empty();
            self.tell_all = false;
        }
        actions
    }

    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Answer { call, result } => self.answered(now, call, result, &mut actions),
            Input::Revoked => {
                for tp in std::mem::take(&mut self.revoking) {
                    self.owned.remove(&tp);
                }
                self.reconcile(&mut actions);
                // The coordinator waits for this word.
                self.tell_all = true;
                self.heartbeat_at = now;
            }
            Input::Absent => {
                if self.phase == Phase::Member {
                    self.lose(&mut actions);
                    self.go(&mut actions);
                    self.phase = Phase::Absent;
                }
            }
            Input::Present => {
                if self.phase == Phase::Absent {
                    self.phase = Phase::Member;
                    self.heartbeat_at = now;
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
            Input::Shared { .. } | Input::TopicsChanged => {}
        }
        actions
    }

    fn call(&mut self, call: Call, actions: &mut Vec<Action>) -> CallId {
        self.next_call += 1;
        actions.push(Action::Call { id: self.next_call, call });
        self.next_call
    }

    fn go(&mut self, actions: &mut Vec<Action>) -> Option<CallId> {
        let joined = std::mem::take(&mut self.epoch) > 0 || self.in_flight.is_some();
        self.in_flight = None;
        self.tell_all = true;
        if !joined {
            return None;
        }
        let epoch = if self.settings.instance_id.is_some() { LEAVE_FOR_NOW } else { LEAVE };
        let call = Call::ConsumerHeartbeat {
            member_id: self.member_id.to_string(),
            epoch,
            full: false,
            owned: Partitions::new(),
        };
        self.member_id = Uuid::from_u128(self.member_id.as_u128().wrapping_add(1));
        Some(self.call(call, actions))
    }

    fn lose(&mut self, actions: &mut Vec<Action>) {
        self.revoking.clear();
        self.revoke_by = None;
        self.target.clear();
        let lost = std::mem::take(&mut self.owned);
        if !lost.is_empty() {
            actions.push(Action::Lost(lost));
        }
    }

    /// Without any partition, as somebody else: what the coordinator still counts as this member may end at any time,
    /// and must not take with it what it is given from now on.
    fn start_over(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.lose(actions);
        self.go(actions);
        self.heartbeat_at = now;
    }

    fn answered(&mut self, now: Instant, call: CallId, result: Result<Answer, Refused>, actions: &mut Vec<Action>) {
        if self.phase == Phase::Leaving(call) {
            self.phase = Phase::Left;
            return;
        }
        if self.in_flight != Some(call) {
            return;
        }
        self.in_flight = None;
        match result {
            Ok(Answer::Told { epoch, interval, assigned, incomplete }) => {
                self.failures = 0;
                // The coordinator heard it no earlier than it was sent.
                self.alive_at = self.sent_at;
                self.epoch = epoch;
                self.heartbeat_at = now + interval;
                if self.confirms {
                    self.revoke_by = None;
                }
                if let Some(assigned) = assigned {
                    self.target = assigned;
                    if self.revoking.is_empty() {
                        self.reconcile(actions);
                    }
                }
                if incomplete {
                    self.tell_all = true;
                    self.heartbeat_at = now + self.settings.backoff.max.min(interval);
                }
            }
            Ok(_) => self.heartbeat_at = now + self.settings.heartbeat_interval,
            Err(refused) => self.refused(now, &refused, actions),
        }
    }

    /// The next change on the way to the target.
    fn reconcile(&mut self, actions: &mut Vec<Action>) {
        let revoked: Partitions = self.owned.difference(&self.target).cloned().collect();
        if !revoked.is_empty() {
            self.revoking.clone_from(&revoked);
            self.revoke_by = Some(self.sent_at + self.settings.rebalance_timeout);
            return actions.push(Action::Revoke(revoked));
        }
        let added: Partitions = self.target.difference(&self.owned).cloned().collect();
        if !added.is_empty() {
            self.owned.clone_from(&self.target);
            self.tell_all = true;
            actions.push(Action::Take(added));
        }
    }

    fn refused(&mut self, now: Instant, refused: &Refused, actions: &mut Vec<Action>) {
        self.tell_all = true;
        match refused.code {
            Some(ErrorCode::FENCED_MEMBER_EPOCH | ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND) => {
                env::sometimes!(self.epoch > 0, "a group member is fenced");
                let again = self.epoch == 0;
                self.start_over(now, actions);
                if again {
                    self.wait(now);
                }
            }
            // The instance's earlier process is still counted as a member: until it is not.
            Some(ErrorCode::UNRELEASED_INSTANCE_ID) => self.wait(now),
            Some(code) if !code.retriable() && code != ErrorCode::UNKNOWN_SERVER_ERROR => {
                self.lose(actions);
                self.phase = Phase::Dead(refused.into());
            }
            _ => self.wait(now),
        }
    }

    fn wait(&mut self, now: Instant) {
        self.heartbeat_at = now + self.settings.backoff.base(self.failures);
        self.failures = self.failures.saturating_add(1);
    }
}
