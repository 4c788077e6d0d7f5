//! Brokers: registration, heartbeats, fencing, controlled shutdown.
//!
//! ```text
//!             register                 caught up, wants to serve
//!  (unknown) ---------> fenced -----------------------------------> active
//!                         ^  ^                                        |  | wants to stop
//!                         |  +---- session ended, wants to be fenced -+  v
//!                         +------ leads nothing, the others know ---- stopping
//! ```
//! A fenced broker leads nothing. It leaves every in-sync set, and stays eligible (KIP-966) where the set falls below
//! its minimum, unless its log may have lost something: then it is no more than what its leader once was.

use env::clock::Instant;
use protocol::ErrorCode;

use super::election::{self, Damage, Election, Target};
use super::machine::Machine;
use super::proposal::{Heartbeat, HeartbeatReply, Outcome, Registration};
use crate::metadata::image::NO_LEADER;
use crate::metadata::records::{MetadataRecord, PartitionChange, RegisterBroker};
use crate::metadata::{BrokerState, PartitionState};

/// What a broker's change of state means for partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    /// It may lead and be in sync no more.
    Left(Option<Damage>),
    /// It may lead again.
    Joined,
}

impl Machine {
    pub(super) fn check_epoch(&self, broker: i32, epoch: i64) -> Result<&BrokerState, ErrorCode> {
        let current = self.image.brokers.get(&broker).ok_or(ErrorCode::BROKER_ID_NOT_REGISTERED)?;
        if current.broker_epoch == epoch { Ok(current) } else { Err(ErrorCode::STALE_BROKER_EPOCH) }
    }

    pub(super) fn register(&mut self, now: Instant, r: Registration) -> Result<Outcome, ErrorCode> {
        let mut damage = Some(Damage::Disk);
        if let Some(known) = self.image.brokers.get(&r.broker_id) {
            let same_process = known.incarnation_id == r.incarnation_id;
            let same_place = (&known.host, known.port, &known.rack) == (&r.host, r.port, &r.rack);
            if same_process && same_place && known.log_dir == r.log_dir {
                // The answer to its first try was lost.
                return Ok(Outcome::Registered { broker_epoch: known.broker_epoch });
            }
            let same_disk = known.log_dir == r.log_dir;
            let follows = same_disk && known.broker_epoch == r.previous_broker_epoch;
            // Whoever names the epoch it follows holds that one's data directory, so that one is dead. Else this may
            // be another broker of the same id, or the late registration of a process that is long gone.
            if !same_process && !follows && self.liveness.is_alive(r.broker_id, now) {
                return Err(ErrorCode::DUPLICATE_BROKER_REGISTRATION);
            }
            // A broker that names an earlier life than the last one has not read of that one yet; it is no sign of a loss.
            //   1. Broker 1 registers, epoch 70, is in sync, crashes, and the other copies die with it.
            //   2. It comes back with a log of metadata that ends below 70, and says that it follows epoch 40.
            //   3. Taken for the survivor of an unclean stop, the only copy of what was acknowledged could never lead.
            // It reads on and asks again. One that may have lost something names no life at all.
            if same_disk && !same_process && (0..known.broker_epoch).contains(&r.previous_broker_epoch) {
                return Err(ErrorCode::STALE_BROKER_EPOCH);
            }
            damage = match (same_disk, follows || same_process) {
                (false, _) => Some(Damage::Disk),
                (true, false) => Some(Damage::Tail),
                (true, true) => None,
            };
        }
        // As in KRaft: the offset of the registration, so that it only grows.
        let broker_epoch = self.next_offset();
        self.push(MetadataRecord::RegisterBroker(RegisterBroker {
            broker_id: r.broker_id,
            incarnation_id: r.incarnation_id,
            broker_epoch,
            host: r.host,
            port: r.port,
            rack: r.rack,
            fenced: true,
            in_controlled_shutdown: false,
            log_dir: r.log_dir,
        }));
        self.liveness.ended(r.broker_id);
        self.follow(r.broker_id, Change::Left(damage));
        Ok(Outcome::Registered { broker_epoch })
    }

    pub(super) fn unregister(&mut self, now: Instant, broker_id: i32) -> Result<Outcome, ErrorCode> {
        let broker = self.image.brokers.get(&broker_id).ok_or(ErrorCode::BROKER_ID_NOT_REGISTERED)?;
        if !broker.fenced && self.liveness.is_alive(broker_id, now) {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        let broker_epoch = broker.broker_epoch;
        self.push(MetadataRecord::UnregisterBroker { broker_id, broker_epoch });
        self.liveness.ended(broker_id);
        self.follow(broker_id, Change::Left(None));
        Ok(Outcome::Unregistered)
    }

    pub(super) fn heartbeat(&mut self, now: Instant, h: &Heartbeat) -> Result<Outcome, ErrorCode> {
        let broker = self.check_epoch(h.broker_id, h.broker_epoch)?;
        let (fenced, stopping) = (broker.fenced, broker.in_controlled_shutdown);
        // A registration's epoch is its offset.
        let is_caught_up = h.metadata_offset >= h.broker_epoch;
        let mut should_shut_down = false;
        if fenced {
            should_shut_down = h.want_shut_down;
            if !h.want_fence && !h.want_shut_down && !stopping && is_caught_up {
                self.change_registration(h.broker_id, Some(false), false);
                self.liveness.heard(h.broker_id, h.metadata_offset, now);
                self.follow(h.broker_id, Change::Joined);
            }
        } else {
            self.liveness.heard(h.broker_id, h.metadata_offset, now);
            if h.want_shut_down && !h.want_fence {
                if !stopping {
                    self.change_registration(h.broker_id, None, true);
                }
                if !self.liveness.is_moved(h.broker_id) {
                    self.follow(h.broker_id, Change::Left(None));
                    self.liveness.moved(h.broker_id, self.next_offset());
                }
                should_shut_down = self.liveness.others_know(h.broker_id);
            }
            if h.want_fence || should_shut_down {
                should_shut_down |= h.want_shut_down;
                self.fence(h.broker_id);
            }
        }
        let is_fenced = self.image.brokers.get(&h.broker_id).is_none_or(|b| b.fenced);
        Ok(Outcome::Heartbeat(HeartbeatReply { is_caught_up, is_fenced, should_shut_down }))
    }

    /// Fences whoever was not heard of for a session.
    pub(super) fn end_sessions(&mut self, now: Instant) {
        let Some(due) = self.liveness.next_expiry(self.settings.node_id).filter(|due| *due <= now) else { return };
        let late = now.saturating_since(due) > self.settings.session_timeout / 2;
        env::sometimes!(late, "a controller slept through the sessions of its brokers");
        if late {
            // It was this node that stood still: heartbeats may lie unread in its sockets.
            self.liveness.renew(now);
            return;
        }
        let expired = self.liveness.expired(now, self.settings.node_id);
        env::sometimes!(!expired.is_empty(), "a broker's session ended");
        // First all of them, so that no partition goes from one dead broker to the next.
        for broker in &expired {
            self.change_registration(*broker, Some(true), false);
            self.liveness.ended(*broker);
        }
        expired.into_iter().for_each(|broker| self.follow(broker, Change::Left(None)));
    }

    fn fence(&mut self, broker: i32) {
        self.change_registration(broker, Some(true), false);
        self.liveness.ended(broker);
        self.follow(broker, Change::Left(None));
    }

    fn change_registration(&mut self, broker_id: i32, fenced: Option<bool>, in_controlled_shutdown: bool) {
        let Some(broker_epoch) = self.image.brokers.get(&broker_id).map(|b| b.broker_epoch) else { return };
        self.push(MetadataRecord::BrokerRegistrationChange { broker_id, broker_epoch, fenced, in_controlled_shutdown });
    }

    /// Brings the broker's partitions to what its change of state leads to.
    fn follow(&mut self, broker: i32, change: Change) {
        let concerns = |p: &PartitionState| match change {
            Change::Joined => p.leader == NO_LEADER && p.replicas.contains(&broker),
            Change::Left(None) => p.leader == broker || p.isr.contains(&broker),
            Change::Left(Some(_)) => p.replicas.contains(&broker),
        };
        let changes = self.changes(concerns, |_, target| {
            if let Change::Left(damage) = change {
                target.isr.retain(|r| *r != broker);
                target.damaged = damage.map(|d| (broker, d));
            }
        });
        changes.into_iter().for_each(|c| self.push(MetadataRecord::PartitionChange(c)));
    }

    /// The changes of all partitions that `concerns`, each to its state as `aim` alters it, elected as the topic allows.
    pub(super) fn changes(
        &self,
        concerns: impl Fn(&PartitionState) -> bool,
        aim: impl Fn(&PartitionState, &mut Target<'_>),
    ) -> Vec<PartitionChange> {
        let is_active = |broker: i32| self.image.is_active(broker);
        let mut changes = Vec::new();
        for (topic_id, topic) in &self.image.topics {
            let minimum = self.minimum(topic);
            let unclean = topic.unclean_leader_election();
            for (partition, state) in topic.partitions.iter().filter(|(_, p)| concerns(p)) {
                let mut target = Target::of(state, minimum, &is_active);
                target.election = if unclean { Election::Unclean } else { Election::Online };
                aim(state, &mut target);
                changes.extend(election::change(*topic_id, *partition, state, &target));
            }
        }
        changes
    }
}
