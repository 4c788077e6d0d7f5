//! Three replicas of one partition as machines alone, under seeded disasters: messages dropped and reordered, nodes
//! crashed and cut off, unsynced tails lost, a controller that elects from the in-sync set and the eligible leader
//! replicas. What must hold at every step:
//!
//! - an acknowledged record is in the log of every leader that is elected, and in the end in every log;
//! - any two logs agree below the high watermarks that their nodes know;
//! - a node's high watermark does not go back within its life, and it never truncates below it.
//!
//! In the end, healed, everything converges: equal logs, all of it committed, the in-sync set whole.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use env::clock::Instant;
use log::{LeaderEpochs, Marker, Offset, TransactionVersion};
use protocol::{ErrorCode, Uuid};
use streamproof_broker::Flush;
use streamproof_broker::partition::Acks;
use streamproof_broker::partition::isr::{IsrProposal, IsrState};
use streamproof_broker::partition::leader::{Ask, Fetched, Leadership};
use streamproof_broker::partition::machine::{
    Action, Following, Input, Machine, Outcome, Position, Settings, Start, Token, Work,
};

const NODES: [i32; 3] = [1, 2, 3];
const LAG: Duration = Duration::from_secs(5);

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn node(&mut self) -> i32 {
        NODES[self.below(3)]
    }
}

/// One record: who wrote it, and which it is.
type Rec = (i32, i64);

fn encode(records: &[Rec]) -> Bytes {
    let mut out = BytesMut::new();
    for (epoch, id) in records {
        out.put_i32(*epoch);
        out.put_i64(*id);
    }
    out.freeze()
}

fn decode(mut bytes: Bytes) -> Vec<Rec> {
    let mut records = Vec::new();
    while bytes.has_remaining() {
        records.push((bytes.get_i32(), bytes.get_i64()));
    }
    records
}

#[derive(Clone, Debug)]
enum Answer {
    Records { records: Vec<Rec>, high_watermark: Offset },
    Diverging(i32, Offset),
    Refused,
}

#[derive(Clone, Debug)]
enum Message {
    Image(State),
    Fetch { replica: i32, broker_epoch: i64, leader_epoch: i32, position: Position },
    Fetched { leader_epoch: i32, position: Position, answer: Answer },
    Alter { from: i32, life: u32, attempt: u64, proposal: IsrProposal },
    Altered { life: u32, attempt: u64, result: Result<IsrState, ErrorCode> },
}

/// The controller's view of the partition and the brokers; sent whole.
#[derive(Clone, Debug)]
struct State {
    version: u64,
    leader: Option<i32>,
    leader_epoch: i32,
    partition_epoch: i32,
    isr: BTreeSet<i32>,
    elr: BTreeSet<i32>,
    /// Broker epoch and whether it is fenced.
    brokers: BTreeMap<i32, (i64, bool)>,
}

struct Node {
    id: i32,
    machine: Option<Machine>,
    life: u32,
    log: Vec<Rec>,
    flushed: usize,
    syncing: Option<usize>,
    checkpoint: Offset,
    image: u64,
    broker_epoch: i64,
    brokers: BTreeMap<i32, (i64, bool)>,
    /// The fetcher: where it would fetch from, and from whom.
    position: Option<(i32, i32, Position)>,
    next_token: Token,
    appends: BTreeMap<Token, i64>,
    high_watermark: Offset,
}

struct World {
    seed: u64,
    flush: Flush,
    min_isr: usize,
    rng: Rng,
    now: Instant,
    nodes: BTreeMap<i32, Node>,
    controller: State,
    /// (to, message); 0 is the controller.
    network: Vec<(i32, Message)>,
    isolated: BTreeSet<i32>,
    next_id: i64,
    acked: BTreeMap<Offset, i64>,
    seen: BTreeMap<&'static str, u32>,
    healed: bool,
}

fn epochs_of(log: &[Rec]) -> LeaderEpochs {
    let mut epochs = LeaderEpochs::default();
    for (offset, (epoch, _)) in (0..).zip(log) {
        epochs.note(*epoch, offset);
    }
    epochs
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let flush = if rng.chance(70) { Flush::Fsync } else { Flush::PageCache };
        let min_isr = 1 + rng.below(2);
        let controller = State {
            version: 0,
            leader: Some(1),
            leader_epoch: 0,
            partition_epoch: 0,
            isr: NODES.into(),
            elr: BTreeSet::new(),
            brokers: BTreeMap::new(),
        };
        let mut world = Self {
            seed,
            flush,
            min_isr,
            rng,
            now: Instant::from_nanos(1_000_000_000_000),
            nodes: BTreeMap::new(),
            controller,
            network: Vec::new(),
            isolated: BTreeSet::new(),
            next_id: 0,
            acked: BTreeMap::new(),
            seen: BTreeMap::new(),
            healed: false,
        };
        for id in NODES {
            let node = Node {
                id,
                machine: None,
                life: 0,
                log: Vec::new(),
                flushed: 0,
                syncing: None,
                checkpoint: 0,
                image: 0,
                broker_epoch: 0,
                brokers: BTreeMap::new(),
                position: None,
                next_token: 0,
                appends: BTreeMap::new(),
                high_watermark: 0,
            };
            world.nodes.insert(id, node);
            world.start(id);
        }
        world
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn send(&mut self, to: i32, message: Message) {
        self.network.push((to, message));
    }

    // The controller.

    fn publish(&mut self) {
        self.controller.version += 1;
        for id in NODES {
            self.send(id, Message::Image(self.controller.clone()));
        }
    }

    fn alive(&self, id: &i32) -> bool {
        self.controller.brokers.get(id).is_some_and(|(_, fenced)| !fenced)
    }

    /// Takes `gone` out and elects, as KIP-966 does.
    fn remove(&mut self, gone: i32) {
        let before = self.controller.isr.clone();
        let mut isr = before.clone();
        isr.remove(&gone);
        if !isr.is_empty() && isr != before {
            self.change_isr(isr);
        }
        let candidates = self.controller.isr.iter().chain(&self.controller.elr).copied().find(|id| self.alive(id));
        let c = &mut self.controller;
        if c.leader == Some(gone) || c.leader.is_none() {
            c.leader_epoch += 1;
            c.partition_epoch += 1;
            c.leader = candidates;
            if let Some(leader) = candidates {
                if !c.isr.contains(&leader) {
                    c.isr = [leader].into();
                    c.elr.remove(&leader);
                    self.saw("elected from the eligible leader replicas");
                }
                self.saw("elected");
                self.check_elected(leader);
            }
        }
        self.publish();
    }

    fn change_isr(&mut self, isr: BTreeSet<i32>) {
        let c = &mut self.controller;
        c.elr = match isr.len() >= self.min_isr {
            true => BTreeSet::new(),
            false => c.isr.union(&c.elr).copied().filter(|id| !isr.contains(id)).collect(),
        };
        c.isr = isr;
        c.partition_epoch += 1;
    }

    fn register(&mut self, id: i32) {
        let epoch = self.controller.brokers.get(&id).map_or(10, |(epoch, _)| epoch + 1);
        self.controller.brokers.insert(id, (epoch, true));
        if let Some(node) = self.nodes.get_mut(&id) {
            node.broker_epoch = epoch;
        }
        if self.controller.version > 0 {
            self.remove(id);
        }
        self.controller.brokers.insert(id, (epoch, false));
        let c = &mut self.controller;
        if c.leader.is_none() && (c.isr.contains(&id) || c.elr.contains(&id)) {
            c.leader = Some(id);
            c.leader_epoch += 1;
            c.partition_epoch += 1;
            if !c.isr.contains(&id) {
                c.isr = [id].into();
                c.elr.remove(&id);
            }
            self.check_elected(id);
        }
        self.publish();
    }

    fn alter(&mut self, from: i32, proposal: &IsrProposal) -> Result<IsrState, ErrorCode> {
        let isr: BTreeSet<i32> = proposal.isr.iter().map(|(id, _)| *id).collect();
        if self.controller.leader != Some(from) || self.controller.leader_epoch != proposal.leader_epoch {
            return Err(ErrorCode::FENCED_LEADER_EPOCH);
        }
        if self.controller.partition_epoch != proposal.partition_epoch {
            self.saw("a stale proposal was refused");
            return Err(ErrorCode::INVALID_UPDATE_VERSION);
        }
        let eligible = |(id, epoch): &(i32, i64)| {
            let (known, fenced) = self.controller.brokers[id];
            !fenced && (*epoch == -1 || *epoch == known)
        };
        if !proposal.isr.iter().all(eligible) {
            self.saw("an ineligible replica was refused");
            return Err(ErrorCode::INELIGIBLE_REPLICA);
        }
        self.saw(if isr.len() > self.controller.isr.len() { "expanded" } else { "shrunk" });
        self.change_isr(isr);
        self.publish();
        Ok(IsrState {
            leader: from,
            leader_epoch: self.controller.leader_epoch,
            isr: self.controller.isr.iter().copied().collect(),
            partition_epoch: self.controller.partition_epoch,
        })
    }

    fn check_elected(&self, leader: i32) {
        let log = &self.nodes[&leader].log;
        for (&offset, &id) in &self.acked {
            let found = log.get(offset as usize).map(|(_, id)| *id);
            assert_eq!(found, Some(id), "seed {}: leader {leader} lacks acknowledged offset {offset}", self.seed);
        }
    }

    // The nodes.

    fn start(&mut self, id: i32) {
        self.register(id);
        let lag_max = LAG;
        let settings = Settings { node: id, flush: self.flush, max_queued_bytes: 1 << 20, lag_max };
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let end = node.log.len() as Offset;
        // Recovery makes durable all that it found.
        node.flushed = node.log.len();
        let high_watermark = node.checkpoint.min(end);
        let (open, ended) = (Vec::new(), Vec::new());
        let start = Start { log_start: 0, end, high_watermark, open, ended, epochs: epochs_of(&node.log) };
        node.machine = Some(Machine::new(settings, start));
        node.life += 1;
        node.syncing = None;
        node.position = None;
        node.appends.clear();
        node.high_watermark = high_watermark;
        // An image as of now; what is on its way is older.
        node.image = 0;
        self.network.retain(|(to, m)| *to != id || !matches!(m, Message::Image(_)));
        let state = self.controller.clone();
        self.image(id, state);
    }

    fn crash(&mut self, id: i32) {
        let power = self.flush == Flush::Fsync && self.rng.chance(60);
        let keep = self.rng.next();
        let mut lost = false;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.machine.take().is_none() {
            return;
        }
        if power {
            let unsynced = node.log.len() - node.flushed;
            let kept = (keep % (unsynced as u64 + 1)) as usize;
            node.log.truncate(node.flushed + kept);
            lost = unsynced > kept;
        }
        node.high_watermark = node.checkpoint.min(node.log.len() as Offset);
        self.saw("crash");
        if lost {
            self.saw("an unsynced tail was lost");
        }
    }

    fn image(&mut self, id: i32, state: State) {
        let min_isr = self.min_isr;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.machine.is_none() || state.version < node.image {
            return;
        }
        node.image = state.version;
        node.brokers = state.brokers.clone();
        let input = if state.leader == Some(id) {
            Input::Lead(Leadership {
                leader_epoch: state.leader_epoch,
                partition_epoch: state.partition_epoch,
                replicas: NODES.into(),
                isr: state.isr.iter().copied().collect(),
                min_isr,
            })
        } else {
            let State { leader, leader_epoch, partition_epoch, .. } = state;
            Input::Follow(Following { leader_epoch, partition_epoch, leader })
        };
        self.feed(id, input);
    }

    fn feed(&mut self, id: i32, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let now = self.now;
            let Some(machine) = self.nodes.get_mut(&id).and_then(|n| n.machine.as_mut()) else { return };
            for action in machine.handle(now, input) {
                inputs.extend(self.act(id, action));
            }
        }
        self.check();
    }

    fn act(&mut self, id: i32, action: Action) -> Option<Input> {
        let node = self.nodes.get_mut(&id)?;
        match action {
            Action::Append { token, work, leader_epoch } => {
                let Work::Marker(marker) = work else { panic!("{work:?}") };
                let first = node.log.len() as Offset;
                let new = node.log.last().is_none_or(|(epoch, _)| *epoch != leader_epoch);
                node.log.push((leader_epoch, marker.producer_id));
                let epochs = if new { vec![(leader_epoch, first)] } else { Vec::new() };
                let outcome = Outcome::Done { first, last: first, epochs, transactions: Vec::new() };
                return Some(Input::Appended { token, outcome });
            }
            Action::Replicate { token, records } => {
                let first = node.log.len() as Offset;
                let mut epochs = Vec::new();
                for record in decode(records) {
                    if node.log.last().is_none_or(|(epoch, _)| *epoch != record.0) {
                        epochs.push((record.0, node.log.len() as Offset));
                    }
                    node.log.push(record);
                }
                let last = node.log.len() as Offset - 1;
                let outcome = Outcome::Done { first, last, epochs, transactions: Vec::new() };
                return Some(Input::Appended { token, outcome });
            }
            Action::Truncate { token, offset } => {
                assert!(offset >= node.high_watermark, "seed {}: truncated below the high watermark", self.seed);
                node.log.truncate(offset as usize);
                node.flushed = node.log.len();
                let (end, high_watermark) = (offset, node.high_watermark);
                let (open, ended) = (Vec::new(), Vec::new());
                let log = Start { log_start: 0, end, high_watermark, open, ended, epochs: epochs_of(&node.log) };
                self.saw("truncated");
                return Some(Input::Truncated { token, log: Some(log) });
            }
            Action::Flush => node.syncing = Some(node.log.len()),
            Action::Publish(bounds) => {
                assert!(bounds.high_watermark >= node.high_watermark, "seed {}: high watermark back", self.seed);
                node.high_watermark = bounds.high_watermark;
            }
            Action::Reply { token, result } => {
                let Some(record) = node.appends.remove(&token) else { panic!("answered twice") };
                if let Ok(done) = result {
                    let held = node.log.get(done.base_offset as usize).map(|(_, id)| *id);
                    assert_eq!(held, Some(record));
                    self.acked.insert(done.base_offset, record);
                    self.saw("acknowledged");
                } else if result == Err(ErrorCode::NOT_LEADER_OR_FOLLOWER) {
                    self.saw("refused by a deposed leader");
                }
            }
            Action::Position { result, .. } => {
                let following = node.machine.as_ref().and_then(Machine::following);
                if let (Ok(position), Some(Following { leader_epoch, leader: Some(leader), .. })) = (result, following)
                {
                    node.position = Some((leader, leader_epoch, position));
                }
            }
            Action::AlterIsr(Ask { attempt, leader_epoch, partition_epoch, isr, .. }) => {
                let topic_id = Uuid::nil();
                let proposal = IsrProposal { topic_id, partition: 0, leader_epoch, partition_epoch, isr };
                let (from, life) = (id, node.life);
                self.send(0, Message::Alter { from, life, attempt, proposal });
            }
            Action::RoleChanged => {
                node.position = None;
                let following = node.machine.as_ref().and_then(Machine::following);
                if let Some(Following { leader_epoch, .. }) = following {
                    node.next_token += 1;
                    let (token, records) = (node.next_token, Bytes::new());
                    return Some(Input::Replicate { token, leader_epoch, records, high_watermark: 0 });
                }
            }
            Action::FollowerStartMoved => {}
            Action::Reset { .. }
            | Action::StartAt { .. }
            | Action::NotDeleted { .. }
            | Action::Fail
            | Action::Closed => panic!("{action:?}"),
        }
        None
    }

    fn produce(&mut self, id: i32) {
        self.next_id += 1;
        let producer_id = self.next_id;
        let Some(node) = self.nodes.get_mut(&id).filter(|n| n.machine.is_some()) else { return };
        node.next_token += 1;
        let token = node.next_token;
        node.appends.insert(token, producer_id);
        let version = TransactionVersion::V2;
        let marker = Marker { producer_id, producer_epoch: 0, commit: true, coordinator_epoch: 0, version };
        self.feed(id, Input::Append { token, work: Work::Marker(marker), acks: Acks::All });
    }

    fn fetch(&mut self, id: i32) {
        let Some(node) = self.nodes.get_mut(&id).filter(|n| n.machine.is_some()) else { return };
        let broker_epoch = node.broker_epoch;
        // A fetch that got no answer is sent again: the position is kept until an answer moves it.
        if let Some((leader, leader_epoch, position)) = node.position {
            self.send(leader, Message::Fetch { replica: id, broker_epoch, leader_epoch, position });
        }
    }

    fn sync(&mut self, id: i32) {
        let Some(node) = self.nodes.get_mut(&id).filter(|n| n.machine.is_some()) else { return };
        if let Some(to) = node.syncing.take() {
            node.flushed = node.flushed.max(to);
            self.feed(id, Input::Flushed(to as Offset));
        }
    }

    fn deliver(&mut self, to: i32, message: Message) {
        match message {
            Message::Image(state) => self.image(to, state),
            Message::Alter { from, life, attempt, proposal } => {
                let result = self.alter(from, &proposal);
                self.send(from, Message::Altered { life, attempt, result });
            }
            Message::Altered { life, attempt, result } => {
                if self.nodes[&to].life == life {
                    self.feed(to, Input::IsrAnswered { attempt, result });
                }
            }
            Message::Fetch { replica, broker_epoch, leader_epoch, position } => {
                let limit = 1 + self.rng.below(4);
                let node = &self.nodes[&to];
                let Some(machine) = &node.machine else { return };
                let answer = serve(node, machine, leader_epoch, position, limit);
                if matches!(answer, Answer::Records { .. }) {
                    let known = node.brokers.get(&replica);
                    let eligible_epoch = known.filter(|(_, fenced)| !fenced).map(|(epoch, _)| *epoch);
                    let (from, end) = (position.end, machine.log_end_offset());
                    let log_start = 0;
                    let fetch = Fetched { replica, broker_epoch, eligible_epoch, leader_epoch, from, end, log_start };
                    self.feed(to, Input::Fetched(fetch));
                }
                self.send(replica, Message::Fetched { leader_epoch, position, answer });
            }
            Message::Fetched { leader_epoch, position, answer } => {
                let Some(node) = self.nodes.get_mut(&to).filter(|n| n.machine.is_some()) else { return };
                // A late answer to a question that was asked again counts only if it still is the question.
                if !node.position.is_some_and(|(_, e, p)| e == leader_epoch && p == position) {
                    return;
                }
                node.next_token += 1;
                let token = node.next_token;
                let input = match answer {
                    Answer::Records { records, high_watermark } => {
                        Input::Replicate { token, leader_epoch, records: encode(&records), high_watermark }
                    }
                    Answer::Diverging(epoch, end) => Input::Truncate { token, leader_epoch, diverging: (epoch, end) },
                    Answer::Refused => return,
                };
                node.position = None;
                self.feed(to, input);
            }
        }
    }

    // The run.

    fn step(&mut self) {
        let id = self.rng.node();
        match self.rng.below(100) {
            0..15 => self.produce(id),
            15..30 => self.fetch(id),
            30..42 => self.sync(id),
            42..80 if !self.network.is_empty() => {
                let at = self.rng.below(self.network.len());
                // Images arrive in order, everything else in any.
                let (to, message) = self.network.remove(at);
                self.arrive(to, message);
            }
            80..84 => {
                let ms = self.rng.below(1500) as u64;
                self.now += Duration::from_millis(ms);
                self.feed(id, Input::Tick);
            }
            84 if self.rng.chance(40) => self.crash(id),
            85 if self.rng.chance(40) => {
                self.isolated.insert(id);
                self.saw("isolated");
            }
            86 => {
                self.isolated.remove(&id);
            }
            // The session of a node that is gone, or cannot be heard, ends.
            87..89 => {
                let silent = self.isolated.contains(&id) || self.nodes[&id].machine.is_none();
                if silent && self.alive(&id) {
                    let epoch = self.controller.brokers[&id].0;
                    self.controller.brokers.insert(id, (epoch, true));
                    self.remove(id);
                }
            }
            89..92 if !self.isolated.contains(&id) => {
                if self.nodes[&id].machine.is_none() {
                    self.start(id);
                } else if !self.alive(&id) {
                    // It is heard again: the same life, unfenced.
                    let epoch = self.controller.brokers[&id].0;
                    self.controller.brokers.insert(id, (epoch, false));
                    if self.controller.leader.is_none() {
                        self.remove(0);
                    }
                    self.publish();
                }
            }
            92..95 => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.checkpoint = node.high_watermark;
                }
            }
            _ => {}
        }
    }

    fn arrive(&mut self, to: i32, message: Message) {
        let source = match &message {
            Message::Fetch { replica, .. } => *replica,
            Message::Alter { from, .. } => *from,
            _ => 0,
        };
        let cut = self.isolated.contains(&to) || self.isolated.contains(&source);
        let lost = cut || (!self.healed && self.rng.chance(10));
        match message {
            // What the controller publishes comes sooner or later, at least as part of a later state.
            Message::Image(_) if cut => self.network.push((to, message)),
            Message::Altered { life, attempt, .. } if lost => {
                let result = Err(ErrorCode::REQUEST_TIMED_OUT);
                self.deliver(to, Message::Altered { life, attempt, result });
            }
            Message::Alter { from, life, attempt, .. } if lost => {
                let result = Err(ErrorCode::REQUEST_TIMED_OUT);
                self.deliver(from, Message::Altered { life, attempt, result });
            }
            message if lost && !matches!(message, Message::Image(_)) => self.saw("lost message"),
            message => {
                if !self.healed && matches!(message, Message::Fetch { .. }) && self.rng.chance(10) {
                    // On an abandoned connection it may arrive again, late.
                    self.network.push((to, message.clone()));
                }
                self.deliver(to, message);
            }
        }
    }

    fn check(&self) {
        for a in self.nodes.values() {
            for b in self.nodes.values().filter(|b| b.id > a.id) {
                let agreed = a.high_watermark.min(b.high_watermark) as usize;
                assert!(
                    a.log.get(..agreed) == b.log.get(..agreed),
                    "seed {}: {} and {} differ below {agreed}:\n{:?}\n{:?}",
                    self.seed,
                    a.id,
                    b.id,
                    a.log,
                    b.log
                );
            }
        }
    }

    fn heal(&mut self) {
        self.healed = true;
        self.isolated.clear();
        for id in NODES {
            if self.nodes[&id].machine.is_none() {
                self.start(id);
            }
            let epoch = self.controller.brokers[&id].0;
            self.controller.brokers.insert(id, (epoch, false));
        }
        if self.controller.leader.is_none() {
            self.remove(0);
        }
        self.publish();
        for _ in 0..400 {
            for id in NODES {
                self.fetch(id);
                self.sync(id);
                self.feed(id, Input::Tick);
            }
            for (to, message) in std::mem::take(&mut self.network) {
                self.deliver(to, message);
            }
            self.now += Duration::from_millis(100);
        }
        let Some(leader) = self.controller.leader else { panic!("seed {}: no leader", self.seed) };
        let log = &self.nodes[&leader].log;
        for node in self.nodes.values() {
            assert_eq!(node.log, *log, "seed {}: log of {}", self.seed, node.id);
            assert_eq!(node.high_watermark, log.len() as Offset, "seed {}: high watermark of {}", self.seed, node.id);
        }
        assert_eq!(self.controller.isr.len(), 3, "seed {}: in-sync set", self.seed);
        self.check_elected(leader);
    }
}

/// What a leader answers, as the fetch handler does it.
fn serve(node: &Node, machine: &Machine, leader_epoch: i32, position: Position, limit: usize) -> Answer {
    if machine.leader().is_none() || machine.leader_epoch() != leader_epoch {
        return Answer::Refused;
    }
    if let Some(last) = position.last_epoch {
        match machine.end_offset_for_epoch(last) {
            Some((epoch, end)) if epoch < last || end < position.end => return Answer::Diverging(epoch, end),
            Some(_) => {}
            None => return Answer::Refused,
        }
    }
    let from = position.end as usize;
    let to = node.log.len().min(from + limit);
    Answer::Records { records: node.log[from..to].to_vec(), high_watermark: machine.high_watermark() }
}

#[test]
fn acknowledged_records_survive_and_replicas_converge() {
    let mut seen: BTreeMap<&'static str, u32> = BTreeMap::new();
    let seeds = std::env::var("REPLICAS_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(400);
    for seed in 0..seeds {
        let mut world = World::new(seed);
        for _ in 0..1500 {
            world.step();
        }
        world.heal();
        for (what, n) in world.seen {
            *seen.entry(what).or_default() += n;
        }
    }
    let expected = [
        "acknowledged",
        "an ineligible replica was refused",
        "a stale proposal was refused",
        "an unsynced tail was lost",
        "elected from the eligible leader replicas",
        "expanded",
        "refused by a deposed leader",
        "shrunk",
        "truncated",
    ];
    for what in expected {
        assert!(seen.get(what).is_some_and(|n| *n >= 5), "{what} was hardly seen: {seen:?}");
    }
}
