//! When a voter without a past may vote.
//!
//! An empty disk is either the first start of a new quorum or the end of an old replica, which may have voted in epochs
//! and acknowledged records that the new one knows nothing of. With fixed voter ids nobody else can tell either, so a
//! voter without a stored `voting` neither votes nor stands, and joins so:
//!
//! 1. It asks every *other voter* for its epoch, with a pre-vote that nobody needs to grant. All must answer. The
//!    greatest answer is the floor. Until then it fetches nothing.
//! 2. Floor 0, its own log empty and its own epoch 0: nothing was ever elected. It may vote.
//! 3. Else it enters the floor's epoch and follows, as an observer does, until a leader has answered a fetch with "you
//!    have everything". Then it may vote, in later epochs.
//!
//! Why that is enough. Its predecessor had voted in an epoch only for a candidate that was durably in that epoch, and
//! acknowledged records only to a leader that was; both are other voters, or itself and then that voter had voted for
//! it. So no promise was made in an epoch above the floor: it votes above, and cannot vote twice. What was committed
//! with the predecessor's acknowledgement is in the log of the leader of step 3: either that leader took the
//! acknowledgement itself, or it was elected later, by replicas (the predecessor among them while it lived, the new one
//! never) of which one held the record. So the new replica holds it before it can elect anyone who does not.
//! From step 3 on its fetches count for the high watermark: what it holds is durable, and until it votes it helps nobody
//! without the record to be elected. Not before, or this happens (seed 1342 of the quorum test):
//! 1. A leads epoch 1 and is cut off. C votes for B in epoch 2, and B commits record x with C's acknowledgement.
//! 2. C loses its disk. The new C hears of A first, follows it, and acknowledges A's record y at the offset of x.
//! 3. A, with C a majority, commits y in epoch 1. The old C would have refused: it was in epoch 2.
//!
//! Why all, and not a majority: a minority that is out of reach may hold the predecessor's vote of an epoch yet unheard
//! of, and win that epoch with it while the new replica gives the same vote to another.
//!
//! In epoch 0 a candidate needs the pre-vote of *all*, and a voter that has not done step 2 grants none. Else the first
//! election could be over before the last voter has done step 2, and then, of two voters that have, losing one would
//! leave no majority that may vote.
//!
//! More lost disks than the quorum can bear leave it without a majority: it stands still and does not forget.

use std::collections::{BTreeMap, BTreeSet};

use env::clock::Instant;
use protocol::ErrorCode;

use super::{Action, Config, Lane, Machine, RequestId, Role};
use crate::quorum::message::Header;
use crate::quorum::state::QuorumState;

#[derive(Debug)]
pub(super) struct Joining {
    others: BTreeSet<i32>,
    heard: BTreeMap<i32, i32>,
    /// Known once all were heard: the greatest epoch, and the last request sent before that.
    floor: Option<(i32, RequestId)>,
}

impl Joining {
    pub fn new(config: &Config) -> Self {
        let mut others = config.voters.clone();
        others.remove(&config.me.id);
        Self { others, heard: BTreeMap::new(), floor: None }
    }

    /// Whether it may fetch: its predecessor made no promise in a later epoch.
    pub fn follows(&self) -> bool {
        self.floor.is_some()
    }

    pub fn unheard(&self) -> impl Iterator<Item = i32> {
        self.others.iter().copied().filter(|v| !self.heard.contains_key(v))
    }
}

impl Machine {
    pub(super) fn on_polled(&mut self, now: Instant, from: i32, header: Header) {
        let tells = header.error.is_ok() || header.error == ErrorCode::FENCED_LEADER_EPOCH;
        let Some(joining) = self.joining.as_mut().filter(|_| tells) else {
            self.back_off(now, from, Lane::Control);
            return;
        };
        joining.heard.insert(from, header.epoch);
        self.joined_if_all_are_heard(now);
    }

    pub(super) fn joined_if_all_are_heard(&mut self, now: Instant) {
        let Some(joining) = &mut self.joining else { return };
        if joining.floor.is_some() || joining.heard.len() < joining.others.len() {
            return;
        }
        let floor = joining.heard.values().copied().max().unwrap_or(0);
        joining.floor = Some((floor, RequestId(self.next_id)));
        let alone = joining.others.is_empty();
        // As far as its predecessor may have gone.
        self.observe(now, floor, None);
        if alone || (floor == 0 && self.state.epoch == 0 && self.log.end_offset() == 0) {
            self.joined(now);
        }
    }

    /// A leader of the present epoch answered request `id`: this replica holds all that it holds.
    pub(super) fn caught_up(&mut self, now: Instant, id: RequestId) {
        let Some(Joining { floor: Some((floor, before)), .. }) = &self.joining else { return };
        assert!(self.state.epoch >= *floor, "epoch {} after the floor {floor}", self.state.epoch);
        if id > *before {
            env::sometimes!(true, "quorum: a voter that lost its disk votes again");
            self.joined(now);
        }
    }

    fn joined(&mut self, now: Instant) {
        self.joining = None;
        self.state = QuorumState { voting: true, ..self.state };
        self.actions.push(Action::Store(self.state));
        if matches!(self.role, Role::Unattached { .. }) {
            self.begin_waiting(now);
        }
    }
}
