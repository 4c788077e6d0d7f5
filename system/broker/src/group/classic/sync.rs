//! SyncGroup, Heartbeat and LeaveGroup: members of a generation.

use bytes::Bytes;
use protocol::ErrorCode;

use super::{Group, Leaving, State, Sync, Synced, Who};
use crate::group::machine::{Cx, Reply, RequestId};
use crate::group::timers::Timer;

impl Group {
    pub fn sync(&mut self, cx: &mut Cx<'_>, id: RequestId, r: Sync) {
        let differs = |theirs: &Option<String>, ours: &Option<String>| theirs.is_some() && theirs != ours;
        let error = match self.check(&r.who) {
            Err(error) => error,
            Ok(()) if differs(&r.protocol_type, &self.protocol_type) || differs(&r.protocol, &self.protocol) => {
                ErrorCode::INCONSISTENT_GROUP_PROTOCOL
            }
            Ok(()) => match self.state {
                State::Empty => ErrorCode::UNKNOWN_MEMBER_ID,
                State::Preparing => ErrorCode::REBALANCE_IN_PROGRESS,
                State::Completing | State::Stable => ErrorCode::NONE,
            },
        };
        if !error.is_ok() {
            return cx.reply(id, Reply::Synced(Synced::error(error)));
        }
        let member_id = r.who.member_id;
        self.unsynced.remove(&member_id);
        if self.unsynced.is_empty() {
            cx.cancel_timer(&Timer::Sync);
        }
        if self.state == State::Stable {
            let synced = self.synced(&member_id);
            cx.reply(id, Reply::Synced(synced));
            return self.heard(cx, &member_id);
        }
        let leads = self.leader.as_ref() == Some(&member_id);
        let superseded = self.members.get_mut(&member_id).and_then(|m| m.sync.replace(id));
        cx.cancel_timer(&Timer::Session(member_id));
        if let Some(old) = superseded {
            cx.reply(old, Reply::Synced(Synced::error(ErrorCode::REBALANCE_IN_PROGRESS)));
        }
        if leads {
            self.assign(cx, r.assignments);
        }
    }

    /// The leader's assignment makes the generation. It is on its way to the log before any member hears of it.
    fn assign(&mut self, cx: &mut Cx<'_>, mut assignments: std::collections::BTreeMap<String, Bytes>) {
        for (member_id, m) in &mut self.members {
            m.assignment = assignments.remove(member_id).unwrap_or_default();
        }
        self.state = State::Stable;
        self.persist(cx);
        let waiting: Vec<_> =
            self.members.iter_mut().filter_map(|(id, m)| Some((id.clone(), m.sync.take()?))).collect();
        for (member_id, sync) in waiting {
            let synced = self.synced(&member_id);
            cx.reply(sync, Reply::Synced(synced));
            self.heard(cx, &member_id);
        }
    }

    fn synced(&self, member_id: &str) -> Synced {
        Synced {
            error: ErrorCode::NONE,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(member_id).map(|m| m.assignment.clone()).unwrap_or_default(),
        }
    }

    pub fn heartbeat(&mut self, cx: &mut Cx<'_>, id: RequestId, who: &Who) {
        let error = match self.check(who) {
            Err(error) => error,
            Ok(()) => {
                self.heard(cx, &who.member_id);
                match self.state {
                    State::Empty => ErrorCode::UNKNOWN_MEMBER_ID,
                    State::Preparing => ErrorCode::REBALANCE_IN_PROGRESS,
                    State::Completing | State::Stable => ErrorCode::NONE,
                }
            }
        };
        cx.reply(id, Reply::Heartbeat(error));
    }

    /// A member of this very generation.
    fn check(&self, who: &Who) -> Result<(), ErrorCode> {
        self.check_member(&who.member_id, who.instance_id.as_deref())?;
        if who.generation == self.generation { Ok(()) } else { Err(ErrorCode::ILLEGAL_GENERATION) }
    }

    pub fn leave(&mut self, cx: &mut Cx<'_>, id: RequestId, leaving: &[Leaving]) {
        let mut answers = Vec::with_capacity(leaving.len());
        let mut left = false;
        for Leaving { member_id, instance_id } in leaving {
            let named = match instance_id {
                None if self.pending.remove(member_id) => {
                    cx.cancel_timer(&Timer::Session(member_id.clone()));
                    answers.push(ErrorCode::NONE);
                    continue;
                }
                // An operator removes a static member without knowing its id.
                Some(instance) if member_id.is_empty() => {
                    self.statics.get(instance).cloned().ok_or(ErrorCode::UNKNOWN_MEMBER_ID)
                }
                instance => self.check_member(member_id, instance.as_deref()).map(|()| member_id.clone()),
            };
            answers.push(match named {
                Ok(member_id) => {
                    self.remove(cx, &member_id);
                    left = true;
                    ErrorCode::NONE
                }
                Err(error) => error,
            });
        }
        cx.reply(id, Reply::Left(answers));
        if left {
            self.somebody_left(cx);
        } else {
            // Nobody waits for a client that was given an id and goes again.
            self.maybe_complete_join(cx);
        }
    }
}
