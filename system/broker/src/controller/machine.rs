//! The active controller as a pure machine over the metadata log.
//!
//! A decision is a batch of records. It is taken on the state that all decisions before it lead to, also those still on
//! their way to a majority. It is answered once everything it was taken on is committed: so is a refusal, since what
//! speaks against a proposal may yet be lost. A machine lives for one term of its node's leadership; a new one starts
//! from the log.

use std::collections::VecDeque;
use std::time::Duration;

use env::clock::Instant;
use protocol::ErrorCode;

use super::liveness::Liveness;
pub use super::proposal::ProposalId;
use super::proposal::{Outcome, Proposal};
use crate::config::BrokerConfig;
use crate::metadata::image::{MetadataImage, NO_LEADER, TopicState, Unfit};
use crate::metadata::records::MetadataRecord;

/// What of a broker's configuration the controller decides by; the same on every node of a cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node the controller runs on. Its own broker's session never ends: it is alive as long as this machine is.
    pub node_id: i32,
    pub session_timeout: Duration,
    pub min_insync_replicas: i32,
    pub default_partitions: i32,
    pub default_replication_factor: i16,
    pub max_partitions_per_topic: i32,
    /// How long a partition is led by another than its preferred replica, where that could lead.
    pub rebalance_after: Duration,
}

impl Settings {
    pub fn of(config: &BrokerConfig) -> Self {
        Self {
            node_id: config.node_id,
            session_timeout: Duration::from_millis(config.broker_session_timeout_ms),
            min_insync_replicas: config.min_insync_replicas,
            default_partitions: config.default_partitions,
            default_replication_factor: config.default_replication_factor,
            max_partitions_per_topic: config.max_partitions_per_topic,
            rebalance_after: Duration::from_millis(config.leader_rebalance_ms),
        }
    }
}

#[derive(Clone, Debug)]
pub enum Input {
    Propose {
        id: ProposalId,
        proposal: Proposal,
    },
    /// Everything below `end` is committed.
    Committed {
        end: i64,
    },
    /// [`Machine::next_timeout`] is reached.
    Tick,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Append as one batch; its first record gets the offset `base`.
    Append {
        base: i64,
        records: Vec<MetadataRecord>,
    },
    Reply {
        id: ProposalId,
        result: Result<Outcome, ErrorCode>,
    },
}

#[derive(Debug)]
struct Pending {
    id: ProposalId,
    /// Answered once everything below this is committed.
    end: i64,
    result: Result<Outcome, ErrorCode>,
}

#[derive(Debug)]
pub struct Machine {
    pub(super) settings: Settings,
    /// The state after every decision taken, committed or not.
    pub(super) image: MetadataImage,
    pub(super) liveness: Liveness,
    /// The records of the decision being taken; `image` has them already.
    draft: Vec<MetadataRecord>,
    next_offset: i64,
    committed: i64,
    pending: VecDeque<Pending>,
    /// When leaders go back to preferred replicas; `None` while all are there.
    rebalance_at: Option<Instant>,
}

impl Machine {
    /// The controller at the beginning of a term: `image` is what the log below `next_offset` leads to.
    pub fn new(settings: Settings, image: MetadataImage, next_offset: i64, now: Instant) -> Self {
        let unfenced = image.brokers.iter().filter(|(_, b)| !b.fenced).map(|(id, _)| *id);
        let liveness = Liveness::new(settings.session_timeout, unfenced, now);
        let mut machine = Self {
            settings,
            image,
            liveness,
            draft: Vec::new(),
            next_offset,
            committed: next_offset,
            pending: VecDeque::new(),
            rebalance_at: None,
        };
        machine.watch_balance(now);
        machine
    }

    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Propose { id, proposal } => {
                let result = self.decide(now, proposal);
                assert!(result.is_ok() || self.draft.is_empty(), "a refusal decides nothing");
                actions.extend(self.append(now));
                self.pending.push_back(Pending { id, end: self.next_offset, result });
            }
            Input::Committed { end } => {
                assert!(self.committed <= end && end <= self.next_offset, "committed {end} of {}", self.next_offset);
                self.committed = end;
            }
            Input::Tick => {
                self.end_sessions(now);
                if self.rebalance_at.is_some_and(|at| at <= now) {
                    self.rebalance_at = None;
                    self.elect_preferred();
                }
                actions.extend(self.append(now));
            }
        }
        while let Some(p) = self.pending.pop_front_if(|p| p.end <= self.committed) {
            actions.push(Action::Reply { id: p.id, result: p.result });
        }
        actions
    }

    /// When to hand in [`Input::Tick`].
    pub fn next_timeout(&self) -> Option<Instant> {
        [self.liveness.next_expiry(self.settings.node_id), self.rebalance_at].into_iter().flatten().min()
    }

    /// The state after every decision taken, committed or not.
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// The offset of the next record.
    pub fn next_offset(&self) -> i64 {
        self.next_offset + self.draft.len() as i64
    }

    /// The topic's `min.insync.replicas`.
    pub(super) fn minimum(&self, topic: &TopicState) -> i32 {
        topic.min_insync_replicas(self.settings.min_insync_replicas)
    }

    /// One more record of the decision being taken.
    pub(super) fn push(&mut self, record: MetadataRecord) {
        let applied = self.image.apply(&record);
        assert_eq!(applied, Ok::<(), Unfit>(()), "a decision fits the state it was taken on");
        self.draft.push(record);
    }

    fn append(&mut self, now: Instant) -> Option<Action> {
        if self.draft.is_empty() {
            return None;
        }
        let base = self.next_offset;
        let records = std::mem::take(&mut self.draft);
        self.next_offset += records.len() as i64;
        self.watch_balance(now);
        Some(Action::Append { base, records })
    }

    fn watch_balance(&mut self, now: Instant) {
        let off_balance = |image: &MetadataImage| {
            image.topics.values().flat_map(|t| t.partitions.values()).any(|p| {
                let preferred = p.replicas[0];
                p.leader != preferred
                    && p.leader != NO_LEADER
                    && p.isr.contains(&preferred)
                    && image.is_active(preferred)
            })
        };
        if !off_balance(&self.image) {
            self.rebalance_at = None;
        } else if self.rebalance_at.is_none() {
            self.rebalance_at = Some(now + self.settings.rebalance_after);
        }
    }

    fn decide(&mut self, now: Instant, proposal: Proposal) -> Result<Outcome, ErrorCode> {
        match proposal {
            Proposal::RegisterBroker(registration) => self.register(now, registration),
            Proposal::UnregisterBroker { broker_id } => self.unregister(now, broker_id),
            Proposal::Heartbeat(heartbeat) => self.heartbeat(now, &heartbeat),
            Proposal::AlterPartition { broker_id, broker_epoch, changes } => {
                self.alter_partitions(broker_id, broker_epoch, changes)
            }
            Proposal::Place { broker_id, broker_epoch, directory, partitions } => {
                self.check_epoch(broker_id, broker_epoch)?;
                self.place(broker_id, directory, partitions)
            }
            Proposal::AllocateProducerIds { broker_id, broker_epoch, count } => {
                self.allocate_producer_ids(broker_id, broker_epoch, count)
            }
            Proposal::CreateTopics { topics, validate_only } => {
                Ok(Outcome::CreatedTopics(topics.into_iter().map(|t| self.create_topic(t, validate_only)).collect()))
            }
            Proposal::DeleteTopics { topics } => {
                Ok(Outcome::DeletedTopics(topics.into_iter().map(|t| self.delete_topic(&t)).collect()))
            }
            Proposal::CreatePartitions { topics, validate_only } => {
                let created = topics.into_iter().map(|t| self.create_partitions(&t, validate_only));
                Ok(Outcome::CreatedPartitions(created.collect()))
            }
            Proposal::AlterConfigs { changes, validate_only } => {
                let altered = changes.into_iter().map(|c| self.alter_configs(&c, validate_only));
                Ok(Outcome::AlteredConfigs(altered.collect()))
            }
            Proposal::ElectLeaders { partitions, unclean } => Ok(self.elect_leaders(partitions, unclean)),
        }
    }

    fn allocate_producer_ids(&mut self, broker_id: i32, broker_epoch: i64, count: i64) -> Result<Outcome, ErrorCode> {
        self.check_epoch(broker_id, broker_epoch)?;
        let first = self.image.next_producer_id;
        let next_producer_id = first.checked_add(count).ok_or(ErrorCode::UNKNOWN_SERVER_ERROR)?;
        self.push(MetadataRecord::ProducerIds { broker_id, broker_epoch, next_producer_id });
        Ok(Outcome::ProducerIds { first, count })
    }
}
