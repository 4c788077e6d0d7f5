//! The controller's machine over random histories, against a model of what its decisions mean for data: who holds the
//! acknowledged records of each partition.
//!
//! Records are acknowledged while the in-sync set has its minimum, by all its members. A broker that stops uncleanly
//! keeps any part of its logs, one that loses its disk keeps nothing, and a controller may die with decisions that no
//! majority holds. Whoever leads, is in sync or is eligible must hold all that was acknowledged, unless an election was
//! allowed to lose records.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use env::clock::Instant;
use proptest::prelude::*;
use protocol::{ErrorCode, Uuid};
use streamproof_broker::controller::machine::{Action, Input, Machine, ProposalId, Settings};
use streamproof_broker::controller::proposal::{
    ConfigChange, ConfigOp, Heartbeat, IsrChange, NewPartitions, NewTopic, Outcome, Placement, Proposal, Registration,
    TopicRef,
};
use streamproof_broker::metadata::MetadataImage;
use streamproof_broker::metadata::records::MetadataRecord;

const BROKERS: usize = 4;
const SESSION: Duration = Duration::from_millis(1000);

#[derive(Clone, Debug)]
enum Step {
    Start { broker: usize, how: How },
    Register { broker: usize },
    Heartbeat { broker: usize, want_fence: bool, want_shut_down: bool, behind: bool },
    Wait { ms: u64 },
    CreateTopic { name: u8, partitions: i32, replicas: i16, minimum: i32, unclean: bool },
    DeleteTopic { name: u8 },
    MorePartitions { name: u8 },
    Minimum { name: u8, minimum: i32 },
    Produce { pick: usize },
    Alter { pick: usize, members: u8, stale_epochs: bool, stale_partition: bool },
    Elect { unclean: bool },
    Unregister { broker: usize },
    ProducerIds { broker: usize },
    Commit,
    CommitAll,
    FailOver,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Clean,
    Unclean { keeps: u64 },
    NewDisk,
}

fn step() -> impl Strategy<Value = Step> {
    let broker = 0..BROKERS;
    let how = prop_oneof![
        4 => Just(How::Clean),
        2 => (0..10u64).prop_map(|keeps| How::Unclean { keeps }),
        1 => Just(How::NewDisk),
    ];
    prop_oneof![
        3 => (broker.clone(), how).prop_map(|(broker, how)| Step::Start { broker, how }),
        6 => broker.clone().prop_map(|broker| Step::Register { broker }),
        16 => (broker.clone(), prop::bool::weighted(0.05), prop::bool::weighted(0.1), prop::bool::weighted(0.2))
            .prop_map(|(broker, want_fence, want_shut_down, behind)| {
                Step::Heartbeat { broker, want_fence, want_shut_down, behind }
            }),
        4 => (0..700u64).prop_map(|ms| Step::Wait { ms }),
        4 => (0..4u8, 1..3i32, 1..4i16, 1..4i32, prop::bool::weighted(0.2)).prop_map(
            |(name, partitions, replicas, minimum, unclean)| {
                Step::CreateTopic { name, partitions, replicas, minimum, unclean }
            }
        ),
        1 => (0..4u8).prop_map(|name| Step::DeleteTopic { name }),
        1 => (0..4u8).prop_map(|name| Step::MorePartitions { name }),
        1 => (0..4u8, 1..4i32).prop_map(|(name, minimum)| Step::Minimum { name, minimum }),
        16 => any::<usize>().prop_map(|pick| Step::Produce { pick }),
        12 => (any::<usize>(), any::<u8>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1)).prop_map(
            |(pick, members, stale_epochs, stale_partition)| {
                Step::Alter { pick, members, stale_epochs, stale_partition }
            }
        ),
        1 => prop::bool::weighted(0.3).prop_map(|unclean| Step::Elect { unclean }),
        1 => broker.clone().prop_map(|broker| Step::Unregister { broker }),
        1 => broker.prop_map(|broker| Step::ProducerIds { broker }),
        10 => Just(Step::Commit),
        10 => Just(Step::CommitAll),
        1 => Just(Step::FailOver),
    ]
}

/// A broker's process and disk.
#[derive(Clone, Debug)]
struct Process {
    incarnation: Uuid,
    directory: Uuid,
    /// What it learned from its registration.
    epoch: Option<i64>,
    /// What it will say it follows.
    previous: i64,
}

#[derive(Clone, Debug, Default)]
struct Data {
    acknowledged: u64,
    held: BTreeMap<i32, u64>,
}

struct Harness {
    machine: Machine,
    now_ms: u64,
    next_id: u64,
    next_uuid: u128,
    /// All that was decided in this term or committed before.
    log: Vec<MetadataRecord>,
    /// Ends of decisions not committed yet.
    ends: Vec<i64>,
    committed: i64,
    image: MetadataImage,
    processes: Vec<Process>,
    data: BTreeMap<(Uuid, i32), Data>,
    asked: BTreeMap<u64, Proposal>,
    /// An unclean election was asked for by hand.
    forced: bool,
    /// The highest producer id handed out.
    producer_ids: i64,
    partition_epochs: BTreeMap<(Uuid, i32), (i32, i32)>,
    broker_epochs: BTreeMap<i32, i64>,
    /// In-sync sets asked for: until the answer, the leader counts these members too (KIP-497).
    maximal: BTreeMap<(Uuid, i32), BTreeSet<i32>>,
}

fn settings() -> Settings {
    Settings {
        node_id: 100,
        session_timeout: SESSION,
        min_insync_replicas: 1,
        default_partitions: 1,
        default_replication_factor: 1,
        max_partitions_per_topic: 5,
        rebalance_after: Duration::from_millis(1500),
    }
}

impl Harness {
    fn new() -> Self {
        let process = |b: usize| Process {
            incarnation: Uuid::from_u128(1 + b as u128),
            directory: Uuid::from_u128(100 + b as u128),
            epoch: None,
            previous: -1,
        };
        Self {
            machine: Machine::new(settings(), MetadataImage::default(), 0, Instant::from_nanos(0)),
            now_ms: 0,
            next_id: 0,
            next_uuid: 1000,
            log: Vec::new(),
            ends: Vec::new(),
            committed: 0,
            image: MetadataImage::default(),
            processes: (0..BROKERS).map(process).collect(),
            data: BTreeMap::new(),
            asked: BTreeMap::new(),
            forced: false,
            producer_ids: 0,
            partition_epochs: BTreeMap::new(),
            broker_epochs: BTreeMap::new(),
            maximal: BTreeMap::new(),
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.now_ms * 1_000_000)
    }

    fn uuid(&mut self) -> Uuid {
        self.next_uuid += 1;
        Uuid::from_u128(self.next_uuid)
    }

    fn propose(&mut self, proposal: Proposal) {
        self.next_id += 1;
        self.asked.insert(self.next_id, proposal.clone());
        self.feed(Input::Propose { id: ProposalId(self.next_id), proposal });
    }

    fn feed(&mut self, input: Input) {
        for action in self.machine.handle(self.now(), input) {
            match action {
                Action::Append { base, records } => {
                    assert_eq!(base, self.log.len() as i64, "the machine knows the end of the log");
                    assert!(!records.is_empty());
                    self.log.extend(records);
                    self.ends.push(self.log.len() as i64);
                    self.check_decided();
                }
                Action::Reply { id, result } => {
                    let asked = self.asked.remove(&id.0).expect("answered once");
                    self.answered(asked, result);
                }
            }
        }
    }

    /// What holds of every decision.
    fn check_decided(&self) {
        let image = self.machine.image();
        for topic in image.topics.values() {
            for (index, p) in &topic.partitions {
                let name = format!("{}-{index}: {p:?}", topic.name);
                assert!(p.leader == -1 || p.isr.contains(&p.leader), "{name}");
                assert!(!p.isr.is_empty() || p.leader == -1, "{name}");
                let may = |b: &i32| image.brokers.get(b).is_some_and(|b| b.is_active());
                assert!(p.isr.iter().all(may), "a fenced or stopping broker is in sync or leads: {name}");
                assert!(!p.elr.iter().any(|r| p.isr.contains(r)), "{name}");
            }
        }
    }

    fn answered(&mut self, asked: Proposal, result: Result<Outcome, ErrorCode>) {
        match (asked, result) {
            (Proposal::RegisterBroker(r), Ok(Outcome::Registered { broker_epoch })) => {
                let p = &mut self.processes[r.broker_id as usize];
                if p.incarnation == r.incarnation_id {
                    p.epoch = Some(broker_epoch);
                }
            }
            (_, Ok(Outcome::ProducerIds { first, count })) => {
                assert!(first >= self.producer_ids, "producer id {first} again");
                self.producer_ids = first + count;
            }
            (Proposal::ElectLeaders { unclean: true, .. }, _) => self.forced = false,
            (Proposal::AlterPartition { changes, .. }, _) => {
                changes.iter().for_each(|c| drop(self.maximal.remove(&(c.topic_id, c.partition))));
            }
            _ => {}
        }
    }

    /// The oldest decision not committed becomes so.
    fn commit(&mut self) {
        if self.ends.is_empty() {
            return;
        }
        let end = self.ends.remove(0);
        let batch: Vec<MetadataRecord> = self.log[self.committed as usize..end as usize].to_vec();
        for record in &batch {
            let before = self.image.clone();
            self.image.apply(record).expect("what was decided fits");
            self.follow(record, &before);
        }
        self.committed = end;
        self.check_data();
        self.feed(Input::Committed { end });
    }

    /// What a committed record means for epochs and data.
    fn follow(&mut self, record: &MetadataRecord, before: &MetadataImage) {
        match record {
            MetadataRecord::RegisterBroker(r) => {
                let last = self.broker_epochs.insert(r.broker_id, r.broker_epoch);
                assert!(last.is_none_or(|last| last < r.broker_epoch), "broker epochs rise");
            }
            MetadataRecord::RemoveTopic { topic_id } => self.data.retain(|(t, _), _| t != topic_id),
            MetadataRecord::Partition { partition, topic_id, state } => {
                let held = state.replicas.iter().map(|r| (*r, 0)).collect();
                self.data.insert((*topic_id, *partition), Data { acknowledged: 0, held });
                let epochs = (state.leader_epoch, state.partition_epoch);
                assert!(self.partition_epochs.insert((*topic_id, *partition), epochs).is_none());
            }
            MetadataRecord::PartitionChange(c) => {
                let key = (c.topic_id, c.partition);
                let was = before.partition(c.topic_id, c.partition).unwrap();
                let is = self.image.partition(c.topic_id, c.partition).unwrap();
                let epochs = self.partition_epochs.get_mut(&key).unwrap();
                assert_eq!(is.partition_epoch, epochs.1 + 1, "the partition epoch rises at each change");
                assert_eq!(is.leader_epoch, epochs.0 + i32::from(was.leader != is.leader), "leader epoch");
                *epochs = (is.leader_epoch, is.partition_epoch);
                if is.leader != was.leader {
                    self.maximal.remove(&key);
                }
                if is.leader == was.leader || is.leader == -1 {
                    return;
                }
                let clean = was.isr.contains(&is.leader) || was.elr.contains(&is.leader);
                if clean && !self.runs_as_registered(is.leader) {
                    // It will never know that it leads.
                    return;
                }
                let data = self.data.get_mut(&key).unwrap();
                let held = data.held[&is.leader];
                if held < data.acknowledged {
                    let allowed = before.topics[&c.topic_id].unclean_leader_election();
                    // The change itself may have emptied the eligible set.
                    let last_leader = was.isr.is_empty() && was.last_known_elr == [is.leader];
                    assert!(allowed || last_leader || self.forced, "records lost by {was:?} -> {is:?}");
                    assert!(is.recovering && is.isr == [is.leader] && is.elr.is_empty());
                }
                // Its log is the partition's log now.
                data.acknowledged = data.acknowledged.min(held);
                for (replica, h) in &mut data.held {
                    if is.isr.contains(replica) {
                        *h = (*h).min(held);
                    }
                }
            }
            _ => {}
        }
    }

    /// The in-sync and the eligible hold what was acknowledged, as far as their processes run as registered.
    fn check_data(&self) {
        for ((topic_id, partition), data) in &self.data {
            let p = self.image.partition(*topic_id, *partition).unwrap();
            for r in p.isr.iter().chain(&p.elr) {
                if self.runs_as_registered(*r) {
                    let held = data.held[r];
                    assert!(held >= data.acknowledged, "{r} holds {held} of {}: {p:?}", data.acknowledged);
                }
            }
        }
    }

    fn runs_as_registered(&self, broker: i32) -> bool {
        let process = &self.processes[broker as usize];
        self.image.brokers.get(&broker).is_some_and(|b| b.incarnation_id == process.incarnation)
    }

    fn pick(&self, pick: usize) -> Option<(Uuid, i32)> {
        let all: Vec<_> = self.data.keys().copied().collect();
        if all.is_empty() { None } else { Some(all[pick % all.len()]) }
    }

    fn tick(&mut self) {
        while self.machine.next_timeout().is_some_and(|at| at <= self.now()) {
            self.feed(Input::Tick);
        }
    }

    /// A broker that would name an earlier life than its last one reads of that one in the log, and names it: until then its
    /// registration is refused.
    fn reads_on(&mut self, broker: usize) {
        let known = self.image.brokers.get(&(broker as i32)).map_or(-1, |b| b.broker_epoch);
        let previous = &mut self.processes[broker].previous;
        if *previous >= 0 {
            *previous = known.max(*previous);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Start { broker, how } => {
                let incarnation = self.uuid();
                let fresh = self.uuid();
                let p = &mut self.processes[broker];
                p.incarnation = incarnation;
                let epoch = p.epoch.take();
                match how {
                    How::Clean => p.previous = epoch.unwrap_or(p.previous),
                    How::Unclean { keeps } => {
                        p.previous = -1;
                        for data in self.data.values_mut() {
                            data.held.entry(broker as i32).and_modify(|h| *h = (*h).min(keeps));
                        }
                    }
                    How::NewDisk => {
                        p.previous = -1;
                        p.directory = fresh;
                        for data in self.data.values_mut() {
                            data.held.entry(broker as i32).and_modify(|h| *h = 0);
                        }
                    }
                }
            }
            Step::Register { broker } => {
                let p = &self.processes[broker];
                let registration = Registration {
                    broker_id: broker as i32,
                    incarnation_id: p.incarnation,
                    host: "h".into(),
                    port: broker as u16,
                    rack: Some((broker % 2).to_string()),
                    log_dir: p.directory,
                    previous_broker_epoch: p.previous,
                };
                self.propose(Proposal::RegisterBroker(registration));
            }
            Step::Heartbeat { broker, want_fence, want_shut_down, behind } => {
                let Some(broker_epoch) = self.processes[broker].epoch else { return };
                let metadata_offset = if behind { broker_epoch - 1 } else { self.committed - 1 };
                let broker_id = broker as i32;
                let heartbeat = Heartbeat { broker_id, broker_epoch, metadata_offset, want_fence, want_shut_down };
                self.propose(Proposal::Heartbeat(heartbeat));
            }
            Step::Wait { ms } => {
                self.now_ms += ms;
                self.tick();
            }
            Step::CreateTopic { name, partitions, replicas, minimum, unclean } => {
                let mut configs = BTreeMap::from([("min.insync.replicas".to_owned(), minimum.to_string())]);
                if unclean {
                    configs.insert("unclean.leader.election.enable".to_owned(), "true".to_owned());
                }
                let place = Placement::Count { partitions, replication_factor: replicas };
                let topic = NewTopic { name: format!("t{name}"), topic_id: self.uuid(), place, configs };
                self.propose(Proposal::CreateTopics { topics: vec![topic], validate_only: false });
            }
            Step::DeleteTopic { name } => {
                self.propose(Proposal::DeleteTopics { topics: vec![TopicRef::Name(format!("t{name}"))] });
            }
            Step::MorePartitions { name } => {
                let topic = format!("t{name}");
                let total = self.image.topic(&topic).map_or(1, |t| t.partitions.len() as i32 + 1);
                let topics = vec![NewPartitions { topic, total, assigned: Vec::new() }];
                self.propose(Proposal::CreatePartitions { topics, validate_only: false });
            }
            Step::Minimum { name, minimum } => {
                let ops = vec![("min.insync.replicas".to_owned(), ConfigOp::Set(minimum.to_string()))];
                let change = ConfigChange { topic: format!("t{name}"), replace: false, ops };
                self.propose(Proposal::AlterConfigs { changes: vec![change], validate_only: false });
            }
            Step::Produce { pick } => self.produce(pick),
            Step::Alter { pick, members, stale_epochs, stale_partition } => {
                self.alter(pick, members, stale_epochs, stale_partition);
            }
            Step::Elect { unclean } => {
                // One decision at a time, so that the model knows which change it was.
                while !self.ends.is_empty() {
                    self.commit();
                }
                self.forced = unclean;
                self.propose(Proposal::ElectLeaders { partitions: None, unclean });
                while !self.ends.is_empty() {
                    self.commit();
                }
                assert!(!self.forced);
            }
            Step::Unregister { broker } => {
                // An administrator does so once the broker is known to be gone for good.
                self.propose(Proposal::UnregisterBroker { broker_id: broker as i32 });
            }
            Step::ProducerIds { broker } => {
                let broker_epoch = self.processes[broker].epoch.unwrap_or(-1);
                let broker_id = broker as i32;
                self.propose(Proposal::AllocateProducerIds { broker_id, broker_epoch, count: 10 });
            }
            Step::Commit => self.commit(),
            Step::CommitAll => {
                while !self.ends.is_empty() {
                    self.commit();
                }
            }
            Step::FailOver => {
                self.log.truncate(self.committed as usize);
                self.ends.clear();
                self.asked.clear();
                self.machine = Machine::new(settings(), self.image.clone(), self.committed, self.now());
            }
        }
    }

    /// A record is acknowledged if the leader and all in sync run as the leader knows them, and are enough.
    fn produce(&mut self, pick: usize) {
        let Some((topic_id, partition)) = self.pick(pick) else { return };
        let topic = &self.image.topics[&topic_id];
        let p = &topic.partitions[&partition];
        let minimum = topic.min_insync_replicas(1).min(p.replicas.len() as i32) as usize;
        let mut isr: BTreeSet<i32> = p.isr.iter().copied().collect();
        isr.extend(self.maximal.get(&(topic_id, partition)).into_iter().flatten());
        if p.leader == -1 || p.isr.len() < minimum || !isr.iter().all(|r| self.runs_as_registered(*r)) {
            return;
        }
        let data = self.data.get_mut(&(topic_id, partition)).unwrap();
        data.acknowledged += 1;
        for r in isr {
            data.held.insert(r, data.acknowledged);
        }
    }

    /// The leader asks for the members it sees in sync.
    fn alter(&mut self, pick: usize, members: u8, stale_epochs: bool, stale_partition: bool) {
        let Some((topic_id, partition)) = self.pick(pick) else { return };
        let p = self.image.partition(topic_id, partition).unwrap().clone();
        if p.leader == -1 || !self.runs_as_registered(p.leader) || self.maximal.contains_key(&(topic_id, partition)) {
            return;
        }
        let Some(broker_epoch) = self.processes[p.leader as usize].epoch else { return };
        let data = self.data.get_mut(&(topic_id, partition)).unwrap();
        let full = data.held[&p.leader];
        let mut isr = Vec::new();
        for (i, r) in p.replicas.iter().enumerate() {
            if *r != p.leader && members & (1 << i) == 0 {
                continue;
            }
            let process = &self.processes[*r as usize];
            let Some(epoch) = process.epoch.or(Some(process.previous)) else { continue };
            let registered = self.image.brokers.get(r).is_some_and(|b| b.incarnation_id == process.incarnation);
            if registered && process.epoch.is_some() && !stale_epochs {
                // It was seen at the leader's end.
                data.held.insert(*r, full);
                isr.push((*r, epoch));
            } else if stale_epochs && epoch >= 0 && self.image.brokers.get(r).is_some_and(|b| b.broker_epoch > epoch) {
                // A fetch of an earlier incarnation, on its way for long.
                isr.push((*r, epoch));
            } else if *r == p.leader {
                isr.push((*r, broker_epoch));
            }
        }
        self.maximal.insert((topic_id, partition), isr.iter().map(|(r, _)| *r).collect());
        let change = IsrChange {
            topic_id,
            partition,
            leader_epoch: p.leader_epoch,
            partition_epoch: p.partition_epoch - i32::from(stale_partition),
            isr,
            recovering: false,
        };
        self.propose(Proposal::AlterPartition { broker_id: p.leader, broker_epoch, changes: vec![change] });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn leaders_and_in_sync_sets_hold_what_was_acknowledged(steps in prop::collection::vec(step(), 1..250)) {
        let mut h = Harness::new();
        // Most histories begin with a cluster.
        for broker in 0..BROKERS {
            h.step(Step::Register { broker });
            h.step(Step::CommitAll);
            h.step(Step::Heartbeat { broker, want_fence: false, want_shut_down: false, behind: false });
        }
        h.step(Step::CreateTopic { name: 0, partitions: 2, replicas: 3, minimum: 2, unclean: false });
        h.step(Step::CommitAll);
        for s in steps {
            h.step(s);
        }
        h.step(Step::CommitAll);
        prop_assert!(h.asked.is_empty(), "all is answered once all is committed");
        prop_assert_eq!(h.machine.image(), &h.image);
        // A snapshot is the same state.
        let mut copy = MetadataImage::default();
        for record in h.image.to_records() {
            let bytes = record.encode();
            copy.apply(&MetadataRecord::decode(&bytes).unwrap()).unwrap();
        }
        prop_assert_eq!(&copy, &h.image);
    }

    #[test]
    fn once_all_are_back_every_partition_that_may_has_a_leader(steps in prop::collection::vec(step(), 1..150)) {
        let mut h = Harness::new();
        for s in steps {
            h.step(s);
        }
        h.step(Step::CommitAll);
        for _ in 0..4 {
            h.step(Step::Wait { ms: 400 });
            h.step(Step::CommitAll);
        }
        for broker in 0..BROKERS {
            h.step(Step::Start { broker, how: How::Clean });
            h.reads_on(broker);
            h.step(Step::Register { broker });
            h.step(Step::CommitAll);
        }
        for broker in 0..BROKERS {
            h.step(Step::Heartbeat { broker, want_fence: false, want_shut_down: false, behind: false });
        }
        h.step(Step::CommitAll);
        for (id, b) in &h.image.brokers {
            prop_assert!(b.is_active(), "broker {} is {:?}", id, b);
        }
        let image = h.image.clone();
        for topic in image.topics.values() {
            for p in topic.partitions.values() {
                let may: BTreeSet<i32> = p.isr.iter().chain(&p.elr).chain(&p.last_known_elr).copied().collect();
                prop_assert!(p.leader != -1 || (may.is_empty() && !topic.unclean_leader_election()), "{:?}", p);
            }
        }
    }
}
