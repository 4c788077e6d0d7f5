//! Votes asked for and given, and how an epoch ends.
//!
//! | role | pre-vote from an up-to-date voter | vote of this epoch from an up-to-date voter |
//! |--|--|--|
//! | Unattached, Prospective | yes | if it voted for nobody, or for the same replica, and knows no leader |
//! | Follower | if it never fetched from the leader | no |
//! | Candidate, Resigned | yes | no: it voted for itself |
//! | Leader | no | no |
//!
//! In epoch 0, before the first election, a candidate needs the pre-votes of all voters: see `joining`.

use std::collections::BTreeMap;

use env::clock::Instant;
use protocol::ErrorCode;

use super::{Action, Kind, Lane, Machine, Role, Token};
use crate::quorum::message::{Answer, Header, Request, Vote};
use crate::quorum::state::QuorumState;

impl Machine {
    /// The first wait of a voter that may vote. An only voter has nobody to wait for.
    pub(super) fn begin_waiting(&mut self, now: Instant) {
        if self.config.voters.len() == 1 {
            self.stand(now);
            return;
        }
        self.role = Role::Unattached { election: Some(self.election_deadline(now)) };
    }

    pub(super) fn election_deadline(&mut self, now: Instant) -> Instant {
        // Nobody leads in epoch 0, so there is nobody to wait for.
        let wait = if self.state.epoch == 0 { self.config.retry_backoff } else { self.config.election_timeout };
        now + self.between_one_and_two(wait)
    }

    /// Asks whether others would vote for this replica, without an effect on them.
    pub(super) fn prospect(&mut self, now: Instant) {
        if self.config.voters.len() == 1 {
            self.stand(now);
            return;
        }
        self.leave_role(now);
        let wait = self.between_one_and_two(self.config.election_timeout);
        let votes = BTreeMap::from([(self.config.me.id, true)]);
        self.role = Role::Prospective { votes, deadline: now + wait };
    }

    /// No majority would have voted: back to the leader, which may have been unreachable for a while, or to waiting.
    pub(super) fn give_up_prospect(&mut self, now: Instant) {
        self.leave_role(now);
        match self.leader.filter(|l| *l != self.config.me.id) {
            Some(leader) => self.follow(now, leader),
            None => self.role = Role::Unattached { election: Some(self.election_deadline(now)) },
        }
    }

    /// Opens a new epoch and asks for its votes.
    fn stand(&mut self, now: Instant) {
        self.leave_role(now);
        let me = self.config.me;
        self.state = QuorumState { epoch: self.state.epoch + 1, voted: Some(me), ..self.state };
        self.leader = None;
        self.actions.push(Action::Store(self.state));
        self.actions.push(Action::LeaderChanged { epoch: self.state.epoch, leader: None });
        let wait = self.between_one_and_two(self.config.election_timeout);
        self.role = Role::Candidate { votes: BTreeMap::from([(me.id, true)]), deadline: now + wait };
        self.count_votes(now);
    }

    pub(super) fn vote_request(&self, pre_vote: bool) -> Request {
        Request::Vote(Vote { epoch: self.state.epoch, candidate: self.config.me, end: self.log.end(), pre_vote })
    }

    pub(super) fn on_vote(&mut self, now: Instant, token: Token, vote: &Vote) {
        let known = self.config.voters.contains(&vote.candidate.id) && vote.candidate.id != self.config.me.id;
        let (error, granted) = if !self.is_voter() || !known {
            (ErrorCode::INCONSISTENT_VOTER_SET, false)
        } else if vote.epoch < self.state.epoch {
            (ErrorCode::FENCED_LEADER_EPOCH, false)
        } else {
            self.observe(now, vote.epoch, None);
            let granted = self.grants(vote);
            if granted && !vote.pre_vote && self.state.voted.is_none() {
                self.state.voted = Some(vote.candidate);
                self.actions.push(Action::Store(self.state));
                // The candidate has at least as good a chance as this replica.
                self.role = Role::Unattached { election: Some(self.election_deadline(now)) };
                self.exchanges.clear();
            }
            (ErrorCode::NONE, granted)
        };
        self.actions.push(Action::Reply { token, answer: Answer::Vote { header: self.header(error), granted } });
    }

    fn grants(&self, vote: &Vote) -> bool {
        if self.joining.is_some() || vote.end < self.log.end() {
            return false;
        }
        match (&self.role, vote.pre_vote) {
            (Role::Follower(following), true) => !following.has_fetched,
            (Role::Leader(_), _) => false,
            (_, true) => true,
            (Role::Unattached { .. } | Role::Prospective { .. }, false) => match self.state.voted {
                Some(voted) => voted == vote.candidate,
                None => self.leader.is_none(),
            },
            (_, false) => false,
        }
    }

    pub(super) fn on_vote_answer(&mut self, now: Instant, from: i32, kind: Kind, header: Header, granted: bool) {
        let votes = match (&mut self.role, kind) {
            (Role::Prospective { votes, .. }, Kind::PreVote) | (Role::Candidate { votes, .. }, Kind::Vote) => votes,
            _ => return,
        };
        // A later epoch took this replica out of its role before.
        if header.epoch != self.state.epoch || !header.error.is_ok() {
            self.back_off(now, from, Lane::Control);
            return;
        }
        // Before the first election a no is a "not yet".
        if !granted && kind == Kind::PreVote && self.state.epoch == 0 {
            self.back_off(now, from, Lane::Control);
            return;
        }
        votes.insert(from, granted);
        self.count_votes(now);
    }

    fn count_votes(&mut self, now: Instant) {
        let majority = self.majority();
        match &self.role {
            Role::Prospective { votes, .. } => {
                let needed = if self.state.epoch == 0 { self.config.voters.len() } else { majority };
                if votes.values().filter(|v| **v).count() >= needed {
                    self.stand(now);
                }
            }
            Role::Candidate { votes, .. } => {
                let granting: Vec<i32> = votes.iter().filter(|(_, v)| **v).map(|(id, _)| *id).collect();
                if granting.len() >= majority {
                    self.lead(now, granting);
                } else if votes.len() - granting.len() > self.config.voters.len() - majority {
                    // Lost. Not at once again: the others may have votes of their own to count.
                    let wait = self.between_one_and_two(self.config.election_timeout / 4);
                    if let Role::Candidate { deadline, .. } = &mut self.role {
                        *deadline = (*deadline).min(now + wait);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_begin(&mut self, now: Instant, token: Token, epoch: i32, leader: i32) {
        let error = if !self.may_lead(epoch, leader) {
            ErrorCode::INCONSISTENT_VOTER_SET
        } else if epoch < self.state.epoch {
            ErrorCode::FENCED_LEADER_EPOCH
        } else {
            self.observe(now, epoch, Some(leader));
            if matches!(self.role, Role::Prospective { .. }) && self.leader() == Some(leader) {
                self.give_up_prospect(now);
            }
            ErrorCode::NONE
        };
        self.actions.push(Action::Reply { token, answer: Answer::Begin { header: self.header(error) } });
    }

    /// The leader goes. The first of its successors stands at once, the others a little later if that fails.
    pub(super) fn on_end(&mut self, now: Instant, token: Token, epoch: i32, leader: i32, successors: &[i32]) {
        let error = if !self.may_lead(epoch, leader) {
            ErrorCode::INCONSISTENT_VOTER_SET
        } else if epoch < self.state.epoch {
            ErrorCode::FENCED_LEADER_EPOCH
        } else {
            self.observe(now, epoch, Some(leader));
            let place = successors.iter().position(|s| *s == self.config.me.id).unwrap_or(successors.len());
            let wait = match place {
                0 => std::time::Duration::ZERO,
                _ => self.between_one_and_two(self.config.election_timeout / 4) * place as u32,
            };
            let stands = self.stands();
            if let Role::Follower(following) = &mut self.role
                && following.leader == leader
                && stands
            {
                following.has_fetched = false;
                following.deadline = following.deadline.min(now + wait);
            }
            ErrorCode::NONE
        };
        self.actions.push(Action::Reply { token, answer: Answer::End { header: self.header(error) } });
    }

    /// Stops leading in good order: the others are told, so that they need not wait for a time-out.
    pub(super) fn hand_over(&mut self, now: Instant) {
        let Role::Leader(leading) = &self.role else { return };
        let mut successors: Vec<(i64, i32)> = self.others().map(|v| (-leading.end_of(v), v)).collect();
        successors.sort_unstable();
        self.resign(now, successors.into_iter().map(|(_, v)| v).collect());
    }

    pub(super) fn resign(&mut self, now: Instant, successors: Vec<i32>) {
        self.leave_role(now);
        let wait = self.between_one_and_two(self.config.election_timeout);
        self.role = Role::Resigned { deadline: now + wait, successors, told: Default::default() };
        let epoch = self.state.epoch;
        self.actions.push(Action::LeaderChanged { epoch, leader: None });
    }

    pub(super) fn on_ended(&mut self, from: i32) {
        if let Role::Resigned { told, .. } = &mut self.role {
            told.insert(from);
        }
    }
}
