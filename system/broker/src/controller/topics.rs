//! Topics, partitions and settings as clients ask for them.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{ErrorCode, Uuid};

use super::configs;
use super::election::{self, Election, Target};
use super::machine::Machine;
use super::placement::{self, Candidate};
use super::proposal::{ConfigChange, ConfigOp, CreatedTopic, NewPartitions, NewTopic, Placement, Refusal, TopicRef};
use crate::internal_topics::is_internal;
use crate::metadata::PartitionState;
use crate::metadata::image::NO_LEADER;
use crate::metadata::records::{MetadataRecord, UNASSIGNED};
use crate::topics::check_name;

fn refuse<T>(error: ErrorCode, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(error, message))
}

impl Machine {
    pub(super) fn create_topic(&mut self, topic: NewTopic, validate_only: bool) -> Result<CreatedTopic, Refusal> {
        let name = &topic.name;
        check_name(name).map_err(|e| Refusal::new(ErrorCode::INVALID_TOPIC_EXCEPTION, e))?;
        if self.image.names.contains_key(name) {
            return refuse(ErrorCode::TOPIC_ALREADY_EXISTS, format!("topic {name} exists"));
        }
        // Kafka's rule: metrics replace '.' by '_'.
        let folded = |n: &str| n.replace('.', "_");
        if let Some(other) = self.image.names.keys().find(|other| folded(other) == folded(name)) {
            let message = format!("topic {name} collides with {other}");
            return refuse(ErrorCode::INVALID_TOPIC_EXCEPTION, message);
        }
        let ops: Vec<_> = topic.configs.iter().map(|(n, v)| (n.clone(), ConfigOp::Set(v.clone()))).collect();
        configs::altered(&BTreeMap::new(), true, &ops)?;
        let (partitions, factor) = match &topic.place {
            Placement::Count { partitions, replication_factor } => (*partitions, *replication_factor),
            Placement::Assigned(replicas) => (replicas.len() as i32, 1),
        };
        let partitions = if partitions == -1 { self.settings.default_partitions } else { partitions };
        let max = self.settings.max_partitions_per_topic;
        if partitions < 1 || partitions > max {
            return refuse(ErrorCode::INVALID_PARTITIONS, format!("partitions must be 1 to {max}"));
        }
        let factor = if factor == -1 { self.settings.default_replication_factor } else { factor };
        let replicas = match topic.place {
            Placement::Count { .. } => self.placed(topic.topic_id, 0, partitions, factor)?,
            Placement::Assigned(replicas) => replicas,
        };
        let first = replicas.first().cloned().unwrap_or_default();
        for replicas in &replicas {
            self.check_assignment(replicas, first.len())?;
        }
        let created = CreatedTopic {
            topic_id: topic.topic_id,
            partitions,
            replication_factor: i16::try_from(first.len()).unwrap_or(i16::MAX),
            configs: topic.configs.clone(),
        };
        if validate_only {
            return Ok(CreatedTopic { topic_id: Uuid::nil(), ..created });
        }
        let (name, topic_id) = (topic.name, topic.topic_id);
        self.push(MetadataRecord::Topic { name: name.clone(), topic_id });
        for (setting, value) in topic.configs {
            self.push(MetadataRecord::Config { topic: name.clone(), name: setting, value: Some(value) });
        }
        for (partition, replicas) in (0..).zip(replicas) {
            let state = self.new_partition(replicas);
            self.push(MetadataRecord::Partition { partition, topic_id, state });
        }
        Ok(created)
    }

    pub(super) fn delete_topic(&mut self, topic: &TopicRef) -> Result<(String, Uuid), Refusal> {
        let found = match topic {
            TopicRef::Name(name) => {
                self.image.topic(name).ok_or(Refusal::from(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))?
            }
            TopicRef::Id(id) => self.image.topics.get(id).ok_or(Refusal::from(ErrorCode::UNKNOWN_TOPIC_ID))?,
        };
        let (name, topic_id) = (found.name.clone(), found.topic_id);
        if is_internal(&name) {
            return refuse(ErrorCode::INVALID_REQUEST, format!("{name} is internal"));
        }
        self.push(MetadataRecord::RemoveTopic { topic_id });
        Ok((name, topic_id))
    }

    pub(super) fn create_partitions(&mut self, new: &NewPartitions, validate_only: bool) -> Result<(), Refusal> {
        let unknown = Refusal::from(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        let topic = self.image.topic(&new.topic).ok_or(unknown)?;
        let (topic_id, have) = (topic.topic_id, topic.partitions.len() as i32);
        let max = self.settings.max_partitions_per_topic;
        if new.total <= have || new.total > max {
            let message = format!("topic {} has {have} partitions, can have {} to {max}", new.topic, have + 1);
            return refuse(ErrorCode::INVALID_PARTITIONS, message);
        }
        let factor = topic.partitions.get(&0).map_or(1, |p| p.replicas.len());
        let count = new.total - have;
        let replicas = if new.assigned.is_empty() {
            self.placed(topic_id, have, count, i16::try_from(factor).unwrap_or(i16::MAX))?
        } else {
            if new.assigned.len() != count as usize {
                let message = format!("{count} new partitions, {} assignments", new.assigned.len());
                return refuse(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message);
            }
            new.assigned.clone()
        };
        for replicas in &replicas {
            self.check_assignment(replicas, factor)?;
        }
        if !validate_only {
            for (partition, replicas) in (have..).zip(replicas) {
                let state = self.new_partition(replicas);
                self.push(MetadataRecord::Partition { partition, topic_id, state });
            }
        }
        Ok(())
    }

    pub(super) fn alter_configs(&mut self, change: &ConfigChange, validate_only: bool) -> Result<(), Refusal> {
        let unknown = Refusal::from(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        let topic = self.image.topic(&change.topic).ok_or(unknown)?;
        let topic_id = topic.topic_id;
        let next = configs::altered(&topic.configs, change.replace, &change.ops)?;
        if validate_only {
            return Ok(());
        }
        let gone: Vec<_> = topic.configs.keys().filter(|n| !next.contains_key(*n)).map(|n| (n.clone(), None)).collect();
        let set: Vec<_> = next.into_iter().filter(|(n, v)| topic.configs.get(n) != Some(v)).collect();
        for (name, value) in gone.into_iter().chain(set.into_iter().map(|(n, v)| (n, Some(v)))) {
            self.push(MetadataRecord::Config { topic: change.topic.clone(), name, value });
        }
        self.follow_settings(topic_id);
        Ok(())
    }

    /// A lower minimum ends what eligibility it does not reach down to, and a permission may give a leader.
    fn follow_settings(&mut self, topic_id: Uuid) {
        let Some(topic) = self.image.topics.get(&topic_id) else { return };
        let (unclean, minimum) = (topic.unclean_leader_election(), self.minimum(topic));
        let is_active = |broker: i32| self.image.is_active(broker);
        let mut changes = Vec::new();
        for (partition, state) in &topic.partitions {
            let mut target = Target::of(state, minimum, &is_active);
            if unclean {
                target.election = Election::Unclean;
            }
            changes.extend(election::change(topic_id, *partition, state, &target));
        }
        changes.into_iter().for_each(|c| self.push(MetadataRecord::PartitionChange(c)));
    }

    fn placed(&self, topic_id: Uuid, first: i32, count: i32, factor: i16) -> Result<Vec<Vec<i32>>, Refusal> {
        let error = ErrorCode::INVALID_REPLICATION_FACTOR;
        let Some(factor) = usize::try_from(factor).ok().filter(|f| *f > 0) else {
            return refuse(error, "replication factor must be at least 1");
        };
        let candidates: Vec<Candidate> = self
            .image
            .brokers
            .iter()
            .map(|(id, b)| Candidate { broker: *id, rack: b.rack.clone(), active: b.is_active() })
            .collect();
        // Ids are random: their low half shifts where the topic begins.
        let seed = topic_id.as_u64_pair().1;
        placement::place(&candidates, first, count, factor, seed).map_err(|few| {
            let message = if few.registered < factor {
                format!("replication factor {factor} is larger than the {} registered brokers", few.registered)
            } else {
                "all brokers are fenced or shutting down".to_owned()
            };
            Refusal::new(error, message)
        })
    }

    fn check_assignment(&self, replicas: &[i32], factor: usize) -> Result<(), Refusal> {
        let invalid = |message: String| refuse(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message);
        if replicas.is_empty() {
            return invalid("a partition needs a replica".to_owned());
        }
        if replicas.len() != factor {
            return invalid(format!("{} replicas where others have {factor}", replicas.len()));
        }
        if replicas.iter().collect::<BTreeSet<_>>().len() != replicas.len() {
            return invalid("a broker is named twice".to_owned());
        }
        if let Some(unknown) = replicas.iter().find(|r| !self.image.brokers.contains_key(*r)) {
            return invalid(format!("broker {unknown} is not registered"));
        }
        if !replicas.iter().any(|r| self.image.is_active(*r)) {
            return invalid("all brokers named are fenced or shutting down".to_owned());
        }
        Ok(())
    }

    fn new_partition(&self, replicas: Vec<i32>) -> PartitionState {
        // Nothing is written yet, so whoever is alive is in sync.
        let isr: Vec<i32> = replicas.iter().copied().filter(|r| self.image.is_active(*r)).collect();
        PartitionState {
            leader: isr.first().copied().unwrap_or(NO_LEADER),
            isr,
            leader_epoch: 0,
            partition_epoch: 0,
            directories: vec![UNASSIGNED; replicas.len()],
            replicas,
            removing: Vec::new(),
            adding: Vec::new(),
            recovering: false,
            elr: Vec::new(),
            last_known_elr: Vec::new(),
        }
    }
}
