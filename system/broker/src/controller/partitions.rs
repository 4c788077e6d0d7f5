//! In-sync sets as their leaders ask for them, elections on demand, and the directories of replicas.

use std::collections::BTreeSet;

use protocol::{ErrorCode, Uuid};

use super::election::{self, Election, Target};
use super::machine::Machine;
use super::proposal::{IsrChange, IsrState, Outcome};
use crate::metadata::PartitionState;
use crate::metadata::image::NO_LEADER;
use crate::metadata::records::{MetadataRecord, PartitionChange};

fn answer(state: &PartitionState) -> IsrState {
    IsrState {
        leader: state.leader,
        leader_epoch: state.leader_epoch,
        isr: state.isr.clone(),
        partition_epoch: state.partition_epoch,
        recovering: state.recovering,
    }
}

impl Machine {
    pub(super) fn alter_partitions(
        &mut self,
        broker_id: i32,
        broker_epoch: i64,
        changes: Vec<IsrChange>,
    ) -> Result<Outcome, ErrorCode> {
        self.check_epoch(broker_id, broker_epoch)?;
        Ok(Outcome::Altered(changes.iter().map(|c| self.alter_partition(broker_id, c)).collect()))
    }

    fn alter_partition(&mut self, leader: i32, asked: &IsrChange) -> Result<IsrState, ErrorCode> {
        let topic = self.image.topics.get(&asked.topic_id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
        let state = topic.partitions.get(&asked.partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        self.check_isr_change(leader, state, asked)?;
        let is_active = |broker: i32| self.image.is_active(broker);
        let minimum = self.minimum(topic);
        let mut target = Target::of(state, minimum, &is_active);
        target.isr = asked.isr.iter().map(|(broker, _)| *broker).collect();
        target.recovering = asked.recovering;
        let change = election::change(asked.topic_id, asked.partition, state, &target);
        // Also a change to what is there already is one: the leader waits for a partition epoch of its own.
        let change = change.unwrap_or_else(|| PartitionChange::of(asked.topic_id, asked.partition));
        self.push(MetadataRecord::PartitionChange(change));
        let state = self.image.partition(asked.topic_id, asked.partition);
        state.map(answer).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// Only the leader of this very state of the partition may change it, and only to brokers that are what they were
    /// when it saw them in sync: a broker that was fenced or began anew since may lack what it was seen to hold.
    fn check_isr_change(&self, leader: i32, state: &PartitionState, asked: &IsrChange) -> Result<(), ErrorCode> {
        if asked.leader_epoch > state.leader_epoch || asked.partition_epoch > state.partition_epoch {
            // The leader knows a later controller.
            return Err(ErrorCode::NOT_CONTROLLER);
        }
        if asked.leader_epoch < state.leader_epoch {
            return Err(ErrorCode::FENCED_LEADER_EPOCH);
        }
        if leader != state.leader {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        if asked.partition_epoch < state.partition_epoch {
            return Err(ErrorCode::INVALID_UPDATE_VERSION);
        }
        let members: BTreeSet<i32> = asked.isr.iter().map(|(broker, _)| *broker).collect();
        let replicas = members.iter().all(|m| state.replicas.contains(m));
        if members.len() != asked.isr.len() || !members.contains(&leader) || !replicas {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        if asked.recovering && (members.len() > 1 || !state.recovering) {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        let eligible = |(broker, epoch): &(i32, i64)| {
            let known = self.image.brokers.get(broker);
            known.is_some_and(|b| b.is_active() && (*epoch == -1 || *epoch == b.broker_epoch))
        };
        if asked.isr.iter().all(eligible) { Ok(()) } else { Err(ErrorCode::INELIGIBLE_REPLICA) }
    }

    pub(super) fn place(
        &mut self,
        broker_id: i32,
        directory: Uuid,
        partitions: Vec<(Uuid, i32)>,
    ) -> Result<Outcome, ErrorCode> {
        let mut changes = Vec::with_capacity(partitions.len());
        for (topic_id, partition) in partitions {
            let state = self.image.partition(topic_id, partition).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
            let at = state.replicas.iter().position(|r| *r == broker_id);
            let at = at.ok_or(ErrorCode::REPLICA_NOT_AVAILABLE)?;
            let mut directories = state.directories.clone();
            if directories[at] != directory {
                directories[at] = directory;
                let directories = Some(directories);
                changes.push(PartitionChange { directories, ..PartitionChange::of(topic_id, partition) });
            }
        }
        changes.into_iter().for_each(|c| self.push(MetadataRecord::PartitionChange(c)));
        Ok(Outcome::Placed)
    }

    /// Moves leaders back to their preferred replicas.
    pub(super) fn elect_preferred(&mut self) {
        let off = |p: &PartitionState| p.leader != NO_LEADER && p.leader != p.replicas[0];
        let changes = self.changes(off, |_, target| target.election = Election::Preferred);
        changes.into_iter().for_each(|c| self.push(MetadataRecord::PartitionChange(c)));
    }

    pub(super) fn elect_leaders(&mut self, partitions: Option<Vec<(String, i32)>>, unclean: bool) -> Outcome {
        let everything = partitions.is_none();
        let partitions = partitions.unwrap_or_else(|| {
            let of_topic =
                |t: &crate::metadata::TopicState| t.partitions.keys().map(|p| (t.name.clone(), *p)).collect::<Vec<_>>();
            self.image.topics.values().flat_map(of_topic).collect()
        });
        let mut results = Vec::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            let result = self.elect_leader(&topic, partition, unclean);
            // Who asks for all wants to know what was done, not where nothing was to be done.
            if !(everything && result == Err(ErrorCode::ELECTION_NOT_NEEDED)) {
                results.push((topic, partition, result));
            }
        }
        Outcome::Elected(results)
    }

    fn elect_leader(&mut self, topic: &str, partition: i32, unclean: bool) -> Result<(), ErrorCode> {
        let topic = self.image.topic(topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let state = topic.partitions.get(&partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let (needed, failed) = if unclean {
            (state.leader == NO_LEADER, ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE)
        } else {
            (state.leader != state.replicas[0], ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE)
        };
        if !needed {
            return Err(ErrorCode::ELECTION_NOT_NEEDED);
        }
        let is_active = |broker: i32| self.image.is_active(broker);
        let minimum = self.minimum(topic);
        let mut target = Target::of(state, minimum, &is_active);
        target.election = if unclean { Election::Unclean } else { Election::Preferred };
        let preferred = state.replicas[0];
        let change = election::change(topic.topic_id, partition, state, &target);
        let elected = change.as_ref().and_then(|c| c.leader).unwrap_or(NO_LEADER);
        if elected == NO_LEADER || (!unclean && elected != preferred) {
            return Err(failed);
        }
        change.into_iter().for_each(|c| self.push(MetadataRecord::PartitionChange(c)));
        Ok(())
    }
}
