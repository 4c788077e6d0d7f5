//! The state that the metadata log replays to.

use std::collections::BTreeMap;

use protocol::Uuid;

use super::records::{MetadataRecord, UNASSIGNED};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionState {
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    /// -1 without a leader.
    pub leader: i32,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    pub directories: Vec<Uuid>,
}

impl PartitionState {
    /// Whether `broker` once said that its copy is open, so that a missing directory is a loss.
    pub fn is_placed(&self, broker: i32) -> bool {
        let place = self.replicas.iter().position(|r| *r == broker);
        place.and_then(|i| self.directories.get(i)).is_some_and(|d| *d != UNASSIGNED)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicState {
    pub name: String,
    pub topic_id: Uuid,
    pub partitions: BTreeMap<i32, PartitionState>,
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerState {
    pub incarnation_id: Uuid,
    pub broker_epoch: i64,
    pub host: String,
    pub port: u16,
    pub log_dir: Uuid,
}

/// A record that does not fit the state it is applied to: the log is not one that a controller wrote.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetadataImage {
    pub brokers: BTreeMap<i32, BrokerState>,
    pub topics: BTreeMap<Uuid, TopicState>,
    pub names: BTreeMap<String, Uuid>,
    /// The first producer id not handed to any broker.
    pub next_producer_id: i64,
}

impl MetadataImage {
    pub fn topic(&self, name: &str) -> Option<&TopicState> {
        self.names.get(name).and_then(|id| self.topics.get(id))
    }

    /// Applies the next record of the log.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), Unfit> {
        match record {
            MetadataRecord::RegisterBroker { broker_id, incarnation_id, broker_epoch, host, port, log_dir } => {
                let previous = self.brokers.get(broker_id).map_or(-1, |b| b.broker_epoch);
                if *broker_epoch <= previous {
                    return Err(Unfit(format!("broker epoch {broker_epoch} after {previous}")));
                }
                let state = BrokerState {
                    incarnation_id: *incarnation_id,
                    broker_epoch: *broker_epoch,
                    host: host.clone(),
                    port: *port,
                    log_dir: *log_dir,
                };
                self.brokers.insert(*broker_id, state);
            }
            MetadataRecord::Topic { name, topic_id } => {
                if self.names.contains_key(name) || self.topics.contains_key(topic_id) {
                    return Err(Unfit(format!("topic {name} exists")));
                }
                self.names.insert(name.clone(), *topic_id);
                let topic = TopicState {
                    name: name.clone(),
                    topic_id: *topic_id,
                    partitions: BTreeMap::new(),
                    configs: BTreeMap::new(),
                };
                self.topics.insert(*topic_id, topic);
            }
            MetadataRecord::Partition {
                partition,
                topic_id,
                replicas,
                isr,
                leader,
                leader_epoch,
                partition_epoch,
                directories,
            } => {
                let topic = self.topics.get_mut(topic_id).ok_or_else(|| Unfit(format!("no topic {topic_id}")))?;
                if directories.len() != replicas.len() || isr.iter().any(|r| !replicas.contains(r)) {
                    return Err(Unfit(format!("partition {partition} of {} is inconsistent", topic.name)));
                }
                let state = PartitionState {
                    replicas: replicas.clone(),
                    isr: isr.clone(),
                    leader: *leader,
                    leader_epoch: *leader_epoch,
                    partition_epoch: *partition_epoch,
                    directories: directories.clone(),
                };
                if topic.partitions.insert(*partition, state).is_some() {
                    return Err(Unfit(format!("partition {partition} of {} exists", topic.name)));
                }
            }
            MetadataRecord::Config { topic, name, value } => {
                let id = self.names.get(topic).ok_or_else(|| Unfit(format!("no topic {topic}")))?;
                let topic = self.topics.get_mut(id).ok_or_else(|| Unfit(format!("no topic {topic}")))?;
                match value {
                    Some(value) => topic.configs.insert(name.clone(), value.clone()),
                    None => topic.configs.remove(name),
                };
            }
            MetadataRecord::PartitionChange { partition, topic_id, isr, leader, directories } => {
                let state = self
                    .topics
                    .get_mut(topic_id)
                    .and_then(|t| t.partitions.get_mut(partition))
                    .ok_or_else(|| Unfit(format!("no partition {partition} of {topic_id}")))?;
                if let Some(isr) = isr {
                    state.isr.clone_from(isr);
                }
                if let Some(leader) = leader {
                    state.leader = *leader;
                    state.leader_epoch += 1;
                }
                if let Some(directories) = directories {
                    if directories.len() != state.replicas.len() {
                        return Err(Unfit(format!("partition {partition} of {topic_id}: directories do not match")));
                    }
                    state.directories.clone_from(directories);
                }
                state.partition_epoch += 1;
            }
            MetadataRecord::ProducerIds { next_producer_id, .. } => {
                if *next_producer_id < self.next_producer_id {
                    let next = self.next_producer_id;
                    return Err(Unfit(format!("next producer id {next_producer_id} after {next}")));
                }
                self.next_producer_id = *next_producer_id;
            }
        }
        Ok(())
    }
}
