//! The controller's decisions about topics, brokers and producer ids, as a pure machine over the metadata log.
//!
//! A decision is a batch of records. It is taken on the state that all decisions before it lead to, also those still on
//! their way to the disk; it is answered and applied to the published image once a majority of the voters holds it. With
//! one voter that is this node's own disk; a quorum adds inputs (votes, fetches), no other rule.

use std::collections::{BTreeMap, VecDeque};

use protocol::{ErrorCode, Uuid};

use super::image::{MetadataImage, Unfit};
use super::records::{MetadataRecord, UNASSIGNED};

/// Names a proposal until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProposalId(pub u64);

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewTopic {
    pub name: String,
    pub topic_id: Uuid,
    pub partitions: i32,
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proposal {
    /// A broker (re)starts: it gets a new broker epoch, and the partitions it alone can lead get a new leader epoch.
    RegisterBroker {
        broker_id: i32,
        incarnation_id: Uuid,
        host: String,
        port: u16,
        log_dir: Uuid,
    },
    CreateTopic(NewTopic),
    /// The broker opened its copies of these partitions: from now on a missing one is a loss.
    Place {
        broker_id: i32,
        directory: Uuid,
        partitions: Vec<(Uuid, i32)>,
    },
    AllocateProducerIds {
        broker_id: i32,
        broker_epoch: i64,
        count: i64,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Registered { broker_epoch: i64 },
    Created { topic_id: Uuid },
    Placed,
    ProducerIds { first: i64, count: i64 },
}

#[derive(Clone, Debug)]
pub enum Input {
    Propose {
        id: ProposalId,
        proposal: Proposal,
    },
    /// `voter` holds everything below `end` durably.
    Durable {
        voter: i32,
        end: i64,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Append as one batch; its first record gets the offset `base`.
    Append {
        base: i64,
        records: Vec<MetadataRecord>,
    },
    /// Committed: publish.
    Apply {
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
    end: i64,
    records: Vec<MetadataRecord>,
    outcome: Outcome,
}

#[derive(Debug)]
pub struct Machine {
    /// What each voter holds durably.
    voters: BTreeMap<i32, i64>,
    next_offset: i64,
    high_watermark: i64,
    /// The state after every decision taken, committed or not.
    image: MetadataImage,
    pending: VecDeque<Pending>,
}

impl Machine {
    /// The controller after replaying a log that ends at `end`.
    pub fn new(voters: impl IntoIterator<Item = i32>, image: MetadataImage, end: i64) -> Self {
        let voters = voters.into_iter().map(|v| (v, end)).collect();
        Self { voters, next_offset: end, high_watermark: end, image, pending: VecDeque::new() }
    }

    pub fn handle(&mut self, input: Input) -> Vec<Action> {
        match input {
            Input::Propose { id, proposal } => match self.decide(proposal) {
                Err(error) => vec![Action::Reply { id, result: Err(error) }],
                Ok((records, outcome)) => {
                    let base = self.next_offset;
                    for record in &records {
                        let applied = self.image.apply(record);
                        assert_eq!(applied, Ok::<(), Unfit>(()), "a decision fits the state it was taken on");
                    }
                    self.next_offset += records.len() as i64;
                    self.pending.push_back(Pending { id, end: self.next_offset, records: records.clone(), outcome });
                    vec![Action::Append { base, records }]
                }
            },
            Input::Durable { voter, end } => {
                if let Some(held) = self.voters.get_mut(&voter) {
                    assert!(*held <= end, "voter {voter} went back from {held} to {end}");
                    *held = end;
                }
                self.commit()
            }
        }
    }

    /// What a majority holds is committed.
    fn commit(&mut self) -> Vec<Action> {
        let mut held: Vec<i64> = self.voters.values().copied().collect();
        held.sort_unstable();
        let majority = held[(held.len() - 1) / 2];
        self.high_watermark = self.high_watermark.max(majority);
        let mut actions = Vec::new();
        while let Some(p) = self.pending.pop_front_if(|p| p.end <= self.high_watermark) {
            actions.push(Action::Apply { records: p.records });
            actions.push(Action::Reply { id: p.id, result: Ok(p.outcome) });
        }
        actions
    }

    fn decide(&self, proposal: Proposal) -> Result<(Vec<MetadataRecord>, Outcome), ErrorCode> {
        match proposal {
            Proposal::RegisterBroker { broker_id, incarnation_id, host, port, log_dir } => {
                // As in KRaft: the offset of the registration, so that it only grows.
                let broker_epoch = self.next_offset;
                let mut records = vec![MetadataRecord::RegisterBroker {
                    broker_id,
                    incarnation_id,
                    broker_epoch,
                    host,
                    port,
                    log_dir,
                }];
                for (topic_id, topic) in &self.image.topics {
                    for (partition, state) in &topic.partitions {
                        if state.isr == [broker_id] {
                            records.push(MetadataRecord::PartitionChange {
                                partition: *partition,
                                topic_id: *topic_id,
                                isr: None,
                                leader: Some(broker_id),
                                directories: None,
                            });
                        }
                    }
                }
                Ok((records, Outcome::Registered { broker_epoch }))
            }
            Proposal::CreateTopic(topic) => {
                if self.image.names.contains_key(&topic.name) {
                    return Err(ErrorCode::TOPIC_ALREADY_EXISTS);
                }
                // One replica each: the first registered broker. Placement over several comes with replication.
                let Some(broker) = self.image.brokers.keys().next().copied() else {
                    return Err(ErrorCode::INVALID_REPLICATION_FACTOR);
                };
                let topic_id = topic.topic_id;
                let mut records = vec![MetadataRecord::Topic { name: topic.name.clone(), topic_id }];
                records.extend(topic.configs.into_iter().map(|(name, value)| MetadataRecord::Config {
                    topic: topic.name.clone(),
                    name,
                    value: Some(value),
                }));
                records.extend((0..topic.partitions).map(|partition| MetadataRecord::Partition {
                    partition,
                    topic_id,
                    replicas: vec![broker],
                    isr: vec![broker],
                    leader: broker,
                    leader_epoch: 0,
                    partition_epoch: 0,
                    directories: vec![UNASSIGNED],
                }));
                Ok((records, Outcome::Created { topic_id }))
            }
            Proposal::Place { broker_id, directory, partitions } => {
                let mut records = Vec::with_capacity(partitions.len());
                for (topic_id, partition) in partitions {
                    let state = self.image.topics.get(&topic_id).and_then(|t| t.partitions.get(&partition));
                    let state = state.ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
                    let at = state.replicas.iter().position(|r| *r == broker_id);
                    let at = at.ok_or(ErrorCode::REPLICA_NOT_AVAILABLE)?;
                    let mut directories = state.directories.clone();
                    directories[at] = directory;
                    records.push(MetadataRecord::PartitionChange {
                        partition,
                        topic_id,
                        isr: None,
                        leader: None,
                        directories: Some(directories),
                    });
                }
                Ok((records, Outcome::Placed))
            }
            Proposal::AllocateProducerIds { broker_id, broker_epoch, count } => {
                let current = self.image.brokers.get(&broker_id).ok_or(ErrorCode::BROKER_ID_NOT_REGISTERED)?;
                if current.broker_epoch != broker_epoch {
                    return Err(ErrorCode::STALE_BROKER_EPOCH);
                }
                let first = self.image.next_producer_id;
                let next_producer_id = first.checked_add(count).ok_or(ErrorCode::UNKNOWN_SERVER_ERROR)?;
                let record = MetadataRecord::ProducerIds { broker_id, broker_epoch, next_producer_id };
                Ok((vec![record], Outcome::ProducerIds { first, count }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(m: &mut Machine, id: u64) -> Vec<Action> {
        let proposal = Proposal::RegisterBroker {
            broker_id: 1,
            incarnation_id: Uuid::from_u128(1),
            host: "h".into(),
            port: 1,
            log_dir: Uuid::from_u128(2),
        };
        m.handle(Input::Propose { id: ProposalId(id), proposal })
    }

    fn create(m: &mut Machine, id: u64, name: &str, topic_id: u128) -> Vec<Action> {
        let topic = NewTopic {
            name: name.into(),
            topic_id: Uuid::from_u128(topic_id),
            partitions: 2,
            configs: BTreeMap::new(),
        };
        m.handle(Input::Propose { id: ProposalId(id), proposal: Proposal::CreateTopic(topic) })
    }

    fn replies(actions: &[Action]) -> Vec<u64> {
        let id = |a: &Action| if let Action::Reply { id, .. } = a { Some(id.0) } else { None };
        actions.iter().filter_map(id).collect()
    }

    #[test]
    fn nothing_is_answered_before_it_is_durable() {
        let mut m = Machine::new([1], MetadataImage::default(), 0);
        assert!(replies(&register(&mut m, 1)).is_empty());
        assert!(replies(&create(&mut m, 2, "t", 9)).is_empty());
        assert_eq!(replies(&m.handle(Input::Durable { voter: 1, end: 1 })), [1]);
        assert_eq!(replies(&m.handle(Input::Durable { voter: 1, end: 3 })), Vec::<u64>::new());
        assert_eq!(replies(&m.handle(Input::Durable { voter: 1, end: 4 })), [2]);
    }

    #[test]
    fn a_decision_sees_those_still_on_their_way() {
        let mut m = Machine::new([1], MetadataImage::default(), 0);
        register(&mut m, 1);
        create(&mut m, 2, "t", 9);
        let again = create(&mut m, 3, "t", 10);
        assert_eq!(again, [Action::Reply { id: ProposalId(3), result: Err(ErrorCode::TOPIC_ALREADY_EXISTS) }]);
    }

    #[test]
    fn three_voters_commit_by_majority() {
        let mut m = Machine::new([1, 2, 3], MetadataImage::default(), 0);
        register(&mut m, 1);
        assert!(m.handle(Input::Durable { voter: 1, end: 1 }).is_empty());
        assert_eq!(replies(&m.handle(Input::Durable { voter: 3, end: 1 })), [1]);
    }

    #[test]
    fn a_restart_raises_broker_and_leader_epochs() {
        let mut m = Machine::new([1], MetadataImage::default(), 0);
        register(&mut m, 1);
        create(&mut m, 2, "t", 9);
        let end = m.next_offset;
        let mut m = Machine::new([1], m.image.clone(), end);
        register(&mut m, 1);
        let image = &m.image;
        assert_eq!(image.brokers[&1].broker_epoch, end);
        assert!(image.topic("t").unwrap().partitions.values().all(|p| p.leader_epoch == 1 && p.partition_epoch == 1));
    }

    #[test]
    fn producer_id_blocks_never_overlap_and_need_the_current_broker_epoch() {
        let mut m = Machine::new([1], MetadataImage::default(), 0);
        register(&mut m, 1);
        let allocate = |m: &mut Machine, broker_epoch| {
            let proposal = Proposal::AllocateProducerIds { broker_id: 1, broker_epoch, count: 10 };
            m.handle(Input::Propose { id: ProposalId(9), proposal })
        };
        let first = allocate(&mut m, 0);
        let second = allocate(&mut m, 0);
        let next = |actions: &[Action]| match actions {
            [Action::Append { records, .. }] => match records[..] {
                [MetadataRecord::ProducerIds { next_producer_id, .. }] => next_producer_id,
                _ => panic!("{records:?}"),
            },
            _ => panic!("{actions:?}"),
        };
        assert_eq!((next(&first), next(&second)), (10, 20));
        let stale = allocate(&mut m, 7);
        assert_eq!(stale, [Action::Reply { id: ProposalId(9), result: Err(ErrorCode::STALE_BROKER_EPOCH) }]);
    }
}
