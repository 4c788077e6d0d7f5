//! What brokers tell of their cluster, in the vocabulary of `history`: metadata, elections, coordinators.
//!
//! A coordinator that was deposed may tell what it did after its successor has told of later things. Coordinators speak
//! by leader epoch, so what an earlier one says after a later one is left out: it is no sight of the present state.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;

use broker::group::consumer::Current as Part;
use broker::group::records::GroupRecord;
use broker::metadata::records::{MetadataRecord, RegisterBroker};
use broker::probe::{CoordinatorId, Probe};
use broker::txn::state::State;
use bytes::Bytes;
use history::{LoadedMember, LoadedOffset, MemberAssignment, Observed, TopicPartition, TransactionState};
use protocol::Uuid;
use world::Current;
use xxhash_rust::xxh3::Xxh3;

use super::Inner;

/// What the translation has to remember.
#[derive(Default)]
pub(super) struct Cluster {
    /// Broker ids by the world's numbers of nodes.
    pub brokers: BTreeMap<u32, u32>,
    /// The latest epoch heard of each coordinator.
    coordinators: BTreeMap<i32, i32>,
    /// Whose offsets each coordinator holds.
    groups: BTreeMap<String, i32>,
    /// Groups with assignments of the coordinator's own, by its partition.
    assigned: BTreeMap<i32, BTreeSet<String>>,
    /// The latest epoch heard of each transaction's coordinator.
    transactions: BTreeMap<String, i32>,
    /// Topics by id, as metadata names them.
    topics: BTreeMap<Uuid, String>,
}

impl Cluster {
    /// Whether no later coordinator of the partition was heard of.
    fn is_latest(&mut self, id: CoordinatorId) -> bool {
        let latest = self.coordinators.entry(id.partition).or_insert(id.leader_epoch);
        *latest = (*latest).max(id.leader_epoch);
        *latest == id.leader_epoch
    }

    fn partitions(&self, assignment: &broker::group::consumer::Assignment) -> Vec<TopicPartition> {
        let one = |(topic, partitions): (&Uuid, &std::collections::BTreeSet<i32>)| {
            let name = self.topics.get(topic).cloned().unwrap_or_else(|| topic.to_string());
            partitions.iter().map(move |p| TopicPartition::new(name.clone(), *p)).collect::<Vec<_>>()
        };
        assignment.iter().flat_map(one).collect()
    }
}

impl Inner {
    pub(super) fn broker(&mut self, at: Current, probe: Probe) {
        let what = match probe {
            Probe::Metadata { record } => match record {
                MetadataRecord::Topic { name, topic_id } => {
                    self.cluster.topics.insert(topic_id, name);
                    return;
                }
                MetadataRecord::RegisterBroker(RegisterBroker { broker_id, broker_epoch, .. }) => {
                    let Ok(broker) = u32::try_from(broker_id) else { return };
                    Observed::BrokerRegistered { broker, broker_epoch }
                }
                _ => return,
            },
            Probe::Started { node_id, broker_epoch } => {
                let Ok(broker) = u32::try_from(node_id) else { return };
                Observed::BrokerStarted { broker, broker_epoch }
            }
            Probe::MetadataApplied { offset, records, epoch, crc } => {
                for n in 0..records {
                    let mut hash = Xxh3::default();
                    hash.write_u32(crc);
                    hash.write_i32(n);
                    let (offset, hash) = (offset + i64::from(n), hash.finish());
                    self.observed(at, Observed::MetadataCommitted { offset, epoch, hash });
                }
                return;
            }
            Probe::PartitionState { topic, partition, state } => {
                if let Ok(broker) = u32::try_from(state.leader) {
                    let (topic, leader_epoch) = (topic.clone(), state.leader_epoch);
                    let elected = Observed::LeaderElected { topic, partition, leader_epoch, broker, log_end: None };
                    self.observed(at, elected);
                }
                Observed::IsrChanged {
                    topic,
                    partition,
                    leader_epoch: state.leader_epoch,
                    partition_epoch: state.partition_epoch,
                    isr: state.isr.iter().filter_map(|b| u32::try_from(*b).ok()).collect(),
                }
            }
            Probe::LeaderElected { epoch, node, log_end } => {
                let Ok(node) = u32::try_from(node) else { return };
                Observed::QuorumLeader { epoch, node, log_end }
            }
            Probe::Transaction { transactional_id, state, producer, two_phase, coordinator_epoch } => {
                let latest = self.cluster.transactions.entry(transactional_id.clone()).or_insert(coordinator_epoch);
                if coordinator_epoch < *latest {
                    return;
                }
                *latest = coordinator_epoch;
                Observed::TransactionState {
                    transactional_id,
                    producer_id: producer.producer_id,
                    producer_epoch: producer.epoch,
                    coordinator_epoch,
                    state: transaction_state(state, two_phase),
                }
            }
            Probe::OffsetCommitted { group, topic, partition, offset, coordinator, .. } => {
                if !self.cluster.is_latest(coordinator) {
                    return;
                }
                self.cluster.groups.insert(group.clone(), coordinator.partition);
                Observed::OffsetCommitted { group, topic, partition, offset }
            }
            Probe::CommitStored { group, member, generation, coordinator } => {
                if !self.cluster.is_latest(coordinator) {
                    return;
                }
                Observed::CommitStored { group, member, generation }
            }
            Probe::OffsetsLoaded { coordinator, offsets } => {
                if !self.cluster.is_latest(coordinator) {
                    return;
                }
                let groups = self.cluster.groups.iter().filter(|(_, of)| **of == coordinator.partition);
                let groups = groups.map(|(group, _)| group.clone()).collect();
                let loaded = |(group, topic, partition, offset)| LoadedOffset { group, topic, partition, offset };
                Observed::OffsetsLoaded {
                    coordinator: coordinator.partition,
                    coordinator_epoch: coordinator.leader_epoch,
                    groups,
                    offsets: offsets.into_iter().map(loaded).collect(),
                }
            }
            Probe::Group { record, coordinator } => {
                if !self.cluster.is_latest(coordinator) {
                    return;
                }
                match self.group(record, coordinator.partition) {
                    Some(what) => what,
                    None => return,
                }
            }
            Probe::GroupsLoaded { coordinator, members } => {
                if self.cluster.is_latest(coordinator) {
                    self.groups_loaded(at, coordinator.partition, members);
                }
                return;
            }
            Probe::Voted { .. } | Probe::MetadataCommitted { .. } | Probe::CoordinatorReloaded { .. } => return,
        };
        self.observed(at, what);
    }

    /// Of every group that has members, or had some the last time.
    fn groups_loaded(&mut self, at: Current, coordinator: i32, members: Vec<(String, String, Part)>) {
        let known = self.cluster.assigned.entry(coordinator).or_default();
        known.extend(members.iter().map(|(group, ..)| group.clone()));
        for group in known.clone() {
            let of_group = members.iter().filter(|(name, ..)| *name == group);
            let loaded = of_group.map(|(_, member, part)| LoadedMember {
                member: member.clone(),
                epoch: part.epoch,
                assigned: self.cluster.partitions(&part.assigned),
                revoking: self.cluster.partitions(&part.pending_revocation),
            });
            let members = loaded.collect();
            self.observed(at, Observed::GroupLoaded { group, members });
        }
    }

    fn group(&mut self, record: GroupRecord, coordinator: i32) -> Option<Observed> {
        match record {
            GroupRecord::Classic { group, value: None } | GroupRecord::Epoch { group, value: None } => {
                Some(Observed::GroupGone { group })
            }
            GroupRecord::Classic { group, value: Some(value) } => {
                let members = value.members.into_iter();
                let members =
                    members.map(|m| MemberAssignment { partitions: assigned(&m.assignment), member: m.member_id });
                Some(Observed::GroupGeneration { group, generation: value.generation, members: members.collect() })
            }
            GroupRecord::Current { group, member_id, value } => {
                self.cluster.assigned.entry(coordinator).or_default().insert(group.clone());
                let (epoch, assigned, revoking) = match &value {
                    Some(current) => (
                        current.epoch,
                        self.cluster.partitions(&current.assigned),
                        self.cluster.partitions(&current.pending_revocation),
                    ),
                    None => (0, Vec::new(), Vec::new()),
                };
                Some(Observed::GroupMember { group, member: member_id, epoch, assigned, revoking })
            }
            GroupRecord::Epoch { .. }
            | GroupRecord::Member { .. }
            | GroupRecord::TargetEpoch { .. }
            | GroupRecord::Target { .. } => None,
        }
    }
}

/// The partitions in an assignment of the classic consumer protocol; none in one that is empty or of another protocol.
fn assigned(bytes: &Bytes) -> Vec<TopicPartition> {
    let Ok(assignment) = protocol::consumer_protocol::Assignment::decode(bytes.clone()) else { return Vec::new() };
    let of = |(topic, partitions): (String, Vec<i32>)| {
        partitions.into_iter().map(move |p| TopicPartition::new(topic.clone(), p)).collect::<Vec<_>>()
    };
    assignment.partitions.into_iter().flat_map(of).collect()
}

fn transaction_state(state: State, two_phase: bool) -> TransactionState {
    match state {
        State::Empty => TransactionState::Empty,
        State::Ongoing if two_phase => TransactionState::Prepared,
        State::Ongoing => TransactionState::Ongoing,
        State::PrepareCommit => TransactionState::PrepareCommit,
        State::PrepareAbort => TransactionState::PrepareAbort,
        State::CompleteCommit => TransactionState::CompleteCommit,
        State::CompleteAbort => TransactionState::CompleteAbort,
    }
}
