//! Members that are gone, and deadlines.

use protocol::ErrorCode;

use super::{Group, Joined, State, Synced};
use crate::group::machine::{Cx, Reply};
use crate::group::timers::Timer;

impl Group {
    pub fn expired(&mut self, cx: &mut Cx<'_>, timer: &Timer) {
        match timer {
            Timer::Join => self.join_expired(cx),
            Timer::Sync => {
                if !matches!(self.state, State::Completing | State::Stable) {
                    return;
                }
                // Whoever did not ask for its part does not read it: without them, once more.
                for member_id in std::mem::take(&mut self.unsynced) {
                    self.remove(cx, &member_id);
                }
                self.somebody_left(cx);
            }
            Timer::Session(member_id) => {
                if self.pending.remove(member_id) {
                    self.maybe_complete_join(cx);
                } else {
                    self.remove(cx, member_id);
                    self.somebody_left(cx);
                }
            }
            Timer::Revoke(_) => {}
        }
    }

    /// Takes a member out; what it waits for is answered.
    pub(super) fn remove(&mut self, cx: &mut Cx<'_>, member_id: &str) {
        let Some(member) = self.members.remove(member_id) else { return };
        cx.cancel_timer(&Timer::Session(member_id.to_owned()));
        if let Some(join) = member.join {
            cx.reply(join, Reply::Joined(Joined::error(ErrorCode::UNKNOWN_MEMBER_ID, member_id)));
        }
        if let Some(sync) = member.sync {
            cx.reply(sync, Reply::Synced(Synced::error(ErrorCode::UNKNOWN_MEMBER_ID)));
        }
        if let Some(instance) = &member.instance_id
            && self.statics.get(instance).is_some_and(|current| current == member_id)
        {
            self.statics.remove(instance);
        }
        self.unsynced.remove(member_id);
        if self.leader.as_deref() == Some(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// The members that are left share what is free now.
    pub(super) fn somebody_left(&mut self, cx: &mut Cx<'_>) {
        match self.state {
            State::Empty => {}
            State::Preparing => self.maybe_complete_join(cx),
            State::Completing | State::Stable => self.rebalance(cx),
        }
    }
}
