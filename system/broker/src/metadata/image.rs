//! The state that the metadata log replays to. Every node builds it from the same records, so all agree at the same
//! offset; a record that does not fit is refused, since a controller decides on this very state.

use std::collections::{BTreeMap, BTreeSet};

use protocol::Uuid;

use super::records::{MetadataRecord, PartitionChange, RegisterBroker, UNASSIGNED};

/// The leader of a partition that has none.
pub const NO_LEADER: i32 = -1;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PartitionState {
    /// The first is the preferred leader.
    pub replicas: Vec<i32>,
    /// Empty only without a leader.
    pub isr: Vec<i32>,
    /// -1 without a leader.
    pub leader: i32,
    /// One more at each change of the leader.
    pub leader_epoch: i32,
    /// One more at each change.
    pub partition_epoch: i32,
    /// One per replica: where it keeps the partition, or [`UNASSIGNED`].
    pub directories: Vec<Uuid>,
    /// Replicas on their way out.
    pub removing: Vec<i32>,
    /// Replicas on their way in.
    pub adding: Vec<i32>,
    /// The leader was elected from outside the in-sync and eligible sets and has not said since that it recovered
    /// (KIP-704).
    pub recovering: bool,
    /// Eligible leader replicas (KIP-966): not in sync, yet holding everything below the high watermark, since that did
    /// not move while the in-sync set was below its minimum. Disjoint from `isr`.
    pub elr: Vec<i32>,
    /// The last leader, once neither an in-sync nor an eligible replica is left.
    pub last_known_elr: Vec<i32>,
}

impl PartitionState {
    /// Whether `broker` once said that its copy is open, so that a missing directory is a loss.
    pub fn is_placed(&self, broker: i32) -> bool {
        let place = self.replicas.iter().position(|r| *r == broker);
        place.and_then(|i| self.directories.get(i)).is_some_and(|d| *d != UNASSIGNED)
    }

    /// Changes the partition. The state is not to be used after an error.
    fn change(&mut self, change: &PartitionChange) -> Result<(), String> {
        let set = |to: &mut Vec<i32>, from: &Option<Vec<i32>>| {
            if let Some(from) = from {
                to.clone_from(from);
            }
        };
        set(&mut self.replicas, &change.replicas);
        set(&mut self.isr, &change.isr);
        set(&mut self.removing, &change.removing);
        set(&mut self.adding, &change.adding);
        set(&mut self.elr, &change.elr);
        set(&mut self.last_known_elr, &change.last_known_elr);
        if let Some(leader) = change.leader {
            self.leader = leader;
            self.leader_epoch += 1;
        }
        if let Some(recovering) = change.recovering {
            self.recovering = recovering;
        }
        if let Some(directories) = &change.directories {
            self.directories.clone_from(directories);
        }
        self.partition_epoch += 1;
        self.check()
    }

    fn check(&self) -> Result<(), String> {
        let distinct = |set: &[i32]| set.iter().collect::<BTreeSet<_>>().len() == set.len();
        let replicas = |set: &[i32]| distinct(set) && set.iter().all(|r| self.replicas.contains(r));
        let ok = |rule: bool, what: &str| if rule { Ok(()) } else { Err(format!("{what}: {self:?}")) };
        ok(distinct(&self.replicas) && !self.replicas.is_empty(), "replicas are distinct, at least one")?;
        ok(self.directories.len() == self.replicas.len(), "a directory for each replica")?;
        ok(replicas(&self.isr), "the in-sync set is of replicas")?;
        ok(
            replicas(&self.elr) && !self.elr.iter().any(|r| self.isr.contains(r)),
            "an eligible replica is not in sync",
        )?;
        ok(self.leader == NO_LEADER || self.isr.contains(&self.leader), "the leader is in sync")?;
        ok(self.leader_epoch <= self.partition_epoch, "the partition epoch rises with the leader epoch")
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicState {
    pub name: String,
    pub topic_id: Uuid,
    /// Numbered from 0 without gaps.
    pub partitions: BTreeMap<i32, PartitionState>,
    pub configs: BTreeMap<String, String>,
}

impl TopicState {
    /// The topic's `min.insync.replicas`, or `default`. Of a partition with fewer replicas, as many as it has count.
    pub fn min_insync_replicas(&self, default: i32) -> i32 {
        self.configs.get("min.insync.replicas").and_then(|v| v.parse().ok()).unwrap_or(default)
    }

    /// Whether a replica that may lack acknowledged records may lead when no other can.
    pub fn unclean_leader_election(&self) -> bool {
        self.configs.get("unclean.leader.election.enable").is_some_and(|v| v == "true")
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerState {
    pub incarnation_id: Uuid,
    pub broker_epoch: i64,
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
    /// It leads nothing and is in no in-sync set that has another member.
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
    pub log_dir: Uuid,
}

impl BrokerState {
    /// It may lead and be in sync.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }
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

    pub fn partition(&self, topic_id: Uuid, partition: i32) -> Option<&PartitionState> {
        self.topics.get(&topic_id)?.partitions.get(&partition)
    }

    /// Whether the broker is registered, neither fenced nor shutting down.
    pub fn is_active(&self, broker: i32) -> bool {
        self.brokers.get(&broker).is_some_and(BrokerState::is_active)
    }

    /// Applies the next record of the log.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), Unfit> {
        match record {
            MetadataRecord::RegisterBroker(r) => self.register(r),
            MetadataRecord::UnregisterBroker { broker_id, broker_epoch } => {
                self.registered(*broker_id, *broker_epoch)?;
                self.brokers.remove(broker_id);
                Ok(())
            }
            MetadataRecord::BrokerRegistrationChange { broker_id, broker_epoch, fenced, in_controlled_shutdown } => {
                let broker = self.registered(*broker_id, *broker_epoch)?;
                broker.fenced = fenced.unwrap_or(broker.fenced);
                broker.in_controlled_shutdown |= in_controlled_shutdown;
                Ok(())
            }
            MetadataRecord::Topic { name, topic_id } => self.add_topic(name, *topic_id),
            MetadataRecord::RemoveTopic { topic_id } => {
                let topic = self.topics.remove(topic_id).ok_or_else(|| Unfit(format!("no topic {topic_id}")))?;
                self.names.remove(&topic.name);
                Ok(())
            }
            MetadataRecord::Partition { partition, topic_id, state } => {
                let topic = self.topics.get_mut(topic_id).ok_or_else(|| Unfit(format!("no topic {topic_id}")))?;
                state.check().map_err(|e| Unfit(format!("partition {partition} of {}: {e}", topic.name)))?;
                if *partition != topic.partitions.len() as i32 {
                    return Err(Unfit(format!("partition {partition} of {} is not the next", topic.name)));
                }
                topic.partitions.insert(*partition, state.clone());
                Ok(())
            }
            MetadataRecord::PartitionChange(change) => {
                let PartitionChange { topic_id, partition, .. } = change;
                let state = self.topics.get_mut(topic_id).and_then(|t| t.partitions.get_mut(partition));
                let state = state.ok_or_else(|| Unfit(format!("no partition {partition} of {topic_id}")))?;
                state.change(change).map_err(|e| Unfit(format!("partition {partition} of {topic_id}: {e}")))
            }
            MetadataRecord::Config { topic, name, value } => {
                let state = self.names.get(topic).and_then(|id| self.topics.get_mut(id));
                let state = state.ok_or_else(|| Unfit(format!("no topic {topic}")))?;
                match value {
                    Some(value) => state.configs.insert(name.clone(), value.clone()),
                    None => state.configs.remove(name),
                };
                Ok(())
            }
            MetadataRecord::ProducerIds { next_producer_id, .. } => {
                if *next_producer_id < self.next_producer_id {
                    let next = self.next_producer_id;
                    return Err(Unfit(format!("next producer id {next_producer_id} after {next}")));
                }
                self.next_producer_id = *next_producer_id;
                Ok(())
            }
            MetadataRecord::NoOp => Ok(()),
        }
    }

    /// Records that lead from nothing to this state: a snapshot.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for (broker_id, b) in &self.brokers {
            records.push(MetadataRecord::RegisterBroker(RegisterBroker {
                broker_id: *broker_id,
                incarnation_id: b.incarnation_id,
                broker_epoch: b.broker_epoch,
                host: b.host.clone(),
                port: b.port,
                rack: b.rack.clone(),
                fenced: b.fenced,
                in_controlled_shutdown: b.in_controlled_shutdown,
                log_dir: b.log_dir,
            }));
        }
        for (topic_id, t) in &self.topics {
            records.push(MetadataRecord::Topic { name: t.name.clone(), topic_id: *topic_id });
            for (name, value) in &t.configs {
                let (topic, name) = (t.name.clone(), name.clone());
                records.push(MetadataRecord::Config { topic, name, value: Some(value.clone()) });
            }
            for (partition, state) in &t.partitions {
                let (partition, topic_id) = (*partition, *topic_id);
                records.push(MetadataRecord::Partition { partition, topic_id, state: state.clone() });
            }
        }
        if self.next_producer_id > 0 {
            let next_producer_id = self.next_producer_id;
            records.push(MetadataRecord::ProducerIds { broker_id: -1, broker_epoch: -1, next_producer_id });
        }
        records
    }

    fn register(&mut self, r: &RegisterBroker) -> Result<(), Unfit> {
        let previous = self.brokers.get(&r.broker_id).map_or(-1, |b| b.broker_epoch);
        if r.broker_epoch <= previous {
            return Err(Unfit(format!("broker epoch {} after {previous}", r.broker_epoch)));
        }
        let state = BrokerState {
            incarnation_id: r.incarnation_id,
            broker_epoch: r.broker_epoch,
            host: r.host.clone(),
            port: r.port,
            rack: r.rack.clone(),
            fenced: r.fenced,
            in_controlled_shutdown: r.in_controlled_shutdown,
            log_dir: r.log_dir,
        };
        self.brokers.insert(r.broker_id, state);
        Ok(())
    }

    fn registered(&mut self, broker_id: i32, broker_epoch: i64) -> Result<&mut BrokerState, Unfit> {
        let broker = self.brokers.get_mut(&broker_id).filter(|b| b.broker_epoch == broker_epoch);
        broker.ok_or_else(|| Unfit(format!("broker {broker_id} has no epoch {broker_epoch}")))
    }

    fn add_topic(&mut self, name: &str, topic_id: Uuid) -> Result<(), Unfit> {
        if self.names.contains_key(name) || self.topics.contains_key(&topic_id) {
            return Err(Unfit(format!("topic {name} exists")));
        }
        self.names.insert(name.to_owned(), topic_id);
        let (partitions, configs) = (BTreeMap::new(), BTreeMap::new());
        self.topics.insert(topic_id, TopicState { name: name.to_owned(), topic_id, partitions, configs });
        Ok(())
    }
}
