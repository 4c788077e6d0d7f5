//! Which request is owed to whom, one in flight a peer and lane, and when a failed one is tried again.
//!
//! Requests are derived from the role at every call, never queued: what is no longer wanted is not sent.

use std::time::Duration;

use env::clock::Instant;

use super::super::message::Request;
use super::joining::Joining;
use super::{Action, MAX_BACKOFF, Machine, RequestId, Role, mix};

/// Fetches wait at the leader; nothing else may wait behind them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Lane {
    Control,
    Fetch,
}

#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) in_flight: Option<(RequestId, Kind)>,
    pub(super) failures: u32,
    pub(super) not_before: Option<Instant>,
}

/// Why a request was sent: an answer counts only while that is still what is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Poll,
    PreVote,
    Vote,
    Begin,
    End,
    Fetch,
    Probe,
}

impl Machine {
    /// What is to be sent, one request a peer and lane.
    pub(super) fn wanted(&self) -> Vec<(i32, Lane, Kind)> {
        let mut wanted = Vec::new();
        match &self.role {
            Role::Unattached { .. } if self.probes() => wanted.push((self.probe_target(), Lane::Fetch, Kind::Probe)),
            Role::Unattached { .. } => {}
            Role::Follower(following) => {
                if following.downloading.is_none() && self.log.is_flushed() && self.may_fetch() {
                    wanted.push((following.leader, Lane::Fetch, Kind::Fetch));
                }
            }
            Role::Prospective { votes, .. } => {
                let open = self.others().filter(|v| !votes.contains_key(v));
                wanted.extend(open.map(|v| (v, Lane::Control, Kind::PreVote)));
            }
            Role::Candidate { votes, .. } => {
                let open = self.others().filter(|v| !votes.contains_key(v));
                wanted.extend(open.map(|v| (v, Lane::Control, Kind::Vote)));
            }
            Role::Leader(_) => wanted.extend(self.others().map(|v| (v, Lane::Control, Kind::Begin))),
            Role::Resigned { successors, told, .. } => {
                let untold = successors.iter().filter(|v| !told.contains(v));
                wanted.extend(untold.map(|v| (*v, Lane::Control, Kind::End)));
            }
        }
        if let Some(joining) = &self.joining {
            wanted.extend(joining.unheard().map(|v| (v, Lane::Control, Kind::Poll)));
        }
        wanted
    }

    /// When a request of this kind is due, if not at once.
    pub(super) fn wanted_at(&self, kind: Kind, to: i32) -> Option<Instant> {
        match (kind, &self.role) {
            (Kind::Begin, Role::Leader(leading)) => leading.begin_at(to),
            (Kind::Probe, _) => Some(self.probe_at),
            _ => None,
        }
    }

    pub(super) fn send_what_is_wanted(&mut self, now: Instant) {
        for (to, lane, kind) in self.wanted() {
            if self.wanted_at(kind, to).is_some_and(|at| at > now) {
                continue;
            }
            let exchange = self.exchanges.entry((to, lane)).or_default();
            if exchange.in_flight.is_some() || exchange.not_before.is_some_and(|at| at > now) {
                continue;
            }
            self.next_id += 1;
            self.probes += u64::from(kind == Kind::Probe);
            let id = RequestId(self.next_id);
            exchange.in_flight = Some((id, kind));
            let request = self.request_of(kind);
            self.actions.push(Action::Send { to, id, request });
        }
    }

    fn request_of(&self, kind: Kind) -> Request {
        let epoch = self.state.epoch;
        match kind {
            Kind::Poll | Kind::PreVote | Kind::Vote => self.vote_request(kind != Kind::Vote),
            Kind::Begin => Request::Begin { epoch, leader: self.config.me.id },
            Kind::End => {
                let successors = if let Role::Resigned { successors, .. } = &self.role { &successors[..] } else { &[] };
                Request::End { epoch, leader: self.config.me.id, successors: successors.to_vec() }
            }
            Kind::Fetch => self.fetch_request(self.config.fetch_max_wait),
            Kind::Probe => self.fetch_request(Duration::ZERO),
        }
    }

    pub(super) fn take_in_flight(&mut self, peer: i32, id: RequestId) -> Option<(Lane, Kind)> {
        for lane in [Lane::Control, Lane::Fetch] {
            let Some(exchange) = self.exchanges.get_mut(&(peer, lane)) else { continue };
            if let Some((_, kind)) = exchange.in_flight.take_if(|(at, _)| *at == id) {
                return Some((lane, kind));
            }
        }
        None
    }

    pub(super) fn back_off(&mut self, now: Instant, peer: i32, lane: Lane) {
        let exchange = self.exchanges.entry((peer, lane)).or_default();
        let pause = self.config.retry_backoff * (1 << exchange.failures.min(6));
        exchange.failures += 1;
        exchange.not_before = Some(now + pause.min(MAX_BACKOFF));
    }

    /// Whether it asks around for a leader: a voter that stands is told by the leader, or elects one.
    pub(super) fn probes(&self) -> bool {
        !self.stands() && self.may_fetch() && self.others().next().is_some()
    }

    pub(super) fn may_fetch(&self) -> bool {
        self.joining.as_ref().is_none_or(Joining::follows)
    }

    /// Another voter at each try.
    fn probe_target(&self) -> i32 {
        let pending = self.exchanges.iter().find(|(_, e)| matches!(e.in_flight, Some((_, Kind::Probe))));
        if let Some(((peer, _), _)) = pending {
            return *peer;
        }
        let others: Vec<i32> = self.others().collect();
        others[(mix(self.config.chance ^ self.probes) % others.len() as u64) as usize]
    }
}
