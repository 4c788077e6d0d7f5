//! Quorum machines of one, three and five voters on a network and on disks that do their worst.
//!
//! Messages are dropped, doubled, held for seconds and overtaken; links are cut one way or both; nodes stop between any
//! two actions of a call, keep some of what they had not synced, stall at a sync, or lose their disk. Snapshots are
//! taken and logs cut at the front at any time. Checked all along: one leader an epoch; one vote an epoch and voter,
//! whatever became of its disk; a committed record is never changed, never missing in a later leader; logs that share an
//! epoch and offset share everything before. Once all is healed, a record proposed is committed on every node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use env::clock::Instant;
use protocol::Uuid;
use seed::Rng;
use streamproof_broker::quorum::log_view::LogView;
use streamproof_broker::quorum::machine::{Action, Config, Input, Machine, RequestId, RoleName, Token};
use streamproof_broker::quorum::message::{Answer, Batch, Batches, Fetched, Position, ReplicaKey, Request};
use streamproof_broker::quorum::state::QuorumState;

/// A batch as it lies in a log. Records have no contents of their own: the batch's number is enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    batch: Batch,
    value: u64,
}

/// What outlives a process.
#[derive(Clone, Debug, Default)]
struct Disk {
    directory: u128,
    state: Option<QuorumState>,
    log: Log,
    snapshot: Option<Snapshot>,
}

#[derive(Clone, Debug)]
struct Snapshot {
    at: Position,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, Default)]
struct Log {
    start: i64,
    entries: Vec<Entry>,
    /// Entries that are durable, from the first.
    synced: usize,
}

impl Log {
    fn end(&self) -> i64 {
        self.entries.last().map_or(self.start, |e| e.batch.next)
    }

    fn push(&mut self, entry: Entry) {
        assert_eq!(entry.batch.base, self.end(), "append at the end");
        self.entries.push(entry);
    }

    fn truncate(&mut self, offset: i64) {
        self.entries.retain(|e| e.batch.next <= offset);
        assert_eq!(self.end(), offset, "cut between batches");
        self.synced = self.synced.min(self.entries.len());
    }
}

#[derive(Debug)]
struct Node {
    id: i32,
    incarnation: u64,
    disk: Disk,
    /// Absent while the process is down.
    machine: Option<Machine>,
    stalled_until: Instant,
    /// A snapshot that arrived and is not yet in place.
    fetched: Option<Snapshot>,
    high_watermark: i64,
}

#[derive(Clone, Debug)]
enum Event {
    Request { from: i32, incarnation: u64, to: i32, id: RequestId, request: Request },
    Answer { from: i32, to: i32, incarnation: u64, id: RequestId, answer: Answer },
    Lost { node: i32, incarnation: u64, to: i32, id: RequestId },
    SnapshotArrives { node: i32, incarnation: u64, leader: i32, at: Position },
    Restart { node: i32 },
    Flushed { node: i32, incarnation: u64, end: i64 },
    Nemesis,
    Propose,
}

/// Where the answer to a request goes.
#[derive(Clone, Copy, Debug)]
struct ReturnTo {
    node: i32,
    incarnation: u64,
    id: RequestId,
}

struct World {
    rng: Rng,
    now: Instant,
    voters: BTreeSet<i32>,
    nodes: BTreeMap<i32, Node>,
    queue: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    tokens: BTreeMap<Token, ReturnTo>,
    /// (from, to) that carries nothing.
    cut: BTreeSet<(i32, i32)>,
    healed: bool,
    next_value: u64,
    next_directory: u128,
    // What was observed.
    committed: Vec<Entry>,
    leaders: BTreeMap<i32, i32>,
    votes: BTreeMap<(i32, i32), i32>,
    wipes: u64,
    rejoined: u64,
    snapshots_taken_over: u64,
    cuts: u64,
}

const ELECTION: Duration = Duration::from_millis(1000);
const FETCH: Duration = Duration::from_millis(2000);
const CALL: Duration = Duration::from_millis(1500);

impl World {
    fn new(seed: u64, voters: i32, observers: i32) -> Self {
        let mut world = Self {
            rng: seed::stream(seed, "quorum", &[voters as u64]),
            now: Instant::from_nanos(1),
            voters: (1..=voters).collect(),
            nodes: BTreeMap::new(),
            queue: BTreeMap::new(),
            next_event: 0,
            tokens: BTreeMap::new(),
            cut: BTreeSet::new(),
            healed: false,
            next_value: 0,
            next_directory: 0,
            committed: Vec::new(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            wipes: 0,
            rejoined: 0,
            snapshots_taken_over: 0,
            cuts: 0,
        };
        for id in 1..=voters + observers {
            world.next_directory += 1;
            let node = Node {
                id,
                incarnation: 0,
                disk: Disk { directory: world.next_directory, ..Disk::default() },
                machine: None,
                stalled_until: world.now,
                fetched: None,
                high_watermark: 0,
            };
            world.nodes.insert(id, node);
            let at = world.after(0, 300);
            world.push(at, Event::Restart { node: id });
        }
        world
    }

    fn after(&mut self, low_ms: u64, high_ms: u64) -> Instant {
        self.now + Duration::from_micros(self.rng.range(low_ms * 1000, high_ms * 1000))
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.next_event += 1;
        self.queue.insert((at, self.next_event), event);
    }

    /// Runs all that happens until `until`.
    fn run(&mut self, until: Instant) {
        loop {
            let timer = self.nodes.values().filter_map(|n| {
                let due = n.machine.as_ref()?.next_timeout()?;
                Some((due.max(n.stalled_until), n.id))
            });
            let timer = timer.min();
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timer_first = match (timer, next) {
                (Some((t, _)), Some(e)) => t <= e,
                (Some(_), None) => true,
                (None, _) => false,
            };
            let at = if timer_first { timer.map(|t| t.0) } else { next };
            let Some(at) = at.filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            if timer_first {
                let id = timer.expect("there is one").1;
                // A machine that asks to be called at a time that has come, and then again, would hang the driver.
                self.feed(id, Input::Tick);
                let again = self.nodes[&id].machine.as_ref().and_then(Machine::next_timeout);
                assert!(again.is_none_or(|t| t > self.now), "node {id}: a tick at {:?} left {again:?}", self.now);
            } else if let Some((_, event)) = self.queue.pop_first() {
                self.happen(event);
            }
        }
        self.now = until;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Request { from, incarnation, to, id, request } => {
                if self.cut.contains(&(from, to)) {
                    return;
                }
                if let Some(at) = self.stalled(to) {
                    return self.push(at, Event::Request { from, incarnation, to, id, request });
                }
                self.next_event += 1;
                let token = Token(self.next_event);
                self.tokens.insert(token, ReturnTo { node: from, incarnation, id });
                self.feed(to, Input::Request { token, request });
            }
            Event::Answer { from, to, incarnation, id, answer } => {
                if self.cut.contains(&(from, to)) || self.nodes[&to].incarnation != incarnation {
                    return;
                }
                if let Some(at) = self.stalled(to) {
                    return self.push(at, Event::Answer { from, to, incarnation, id, answer });
                }
                self.feed(to, Input::Answer { from, id, answer });
            }
            Event::Lost { node, incarnation, to, id } => {
                if self.nodes[&node].incarnation == incarnation {
                    if let Some(at) = self.stalled(node) {
                        return self.push(at, Event::Lost { node, incarnation, to, id });
                    }
                    self.feed(node, Input::Failed { to, id });
                }
            }
            Event::Flushed { node, incarnation, end } => {
                if self.nodes[&node].incarnation == incarnation {
                    self.flushed(node, end);
                }
            }
            Event::SnapshotArrives { node, incarnation, leader, at } => {
                if self.nodes[&node].incarnation != incarnation {
                    return;
                }
                let up = self.nodes[&leader].machine.is_some() && !self.cut.contains(&(leader, node));
                let held = self.nodes[&leader].disk.snapshot.clone().filter(|s| up && s.at == at);
                let input = match held {
                    Some(snapshot) => {
                        self.nodes.get_mut(&node).expect("a node").fetched = Some(snapshot);
                        Input::SnapshotFetched { at }
                    }
                    None => Input::SnapshotFailed,
                };
                self.feed(node, input);
            }
            Event::Restart { node } => self.start(node),
            Event::Nemesis => self.nemesis(),
            Event::Propose => {
                let leading = |n: &&Node| n.machine.as_ref().is_some_and(|m| m.appendable().is_some());
                let leaders: Vec<i32> = self.nodes.values().filter(leading).map(|n| n.id).collect();
                for id in leaders {
                    if self.stalled(id).is_none() {
                        self.next_value += 1;
                        let batch = Bytes::copy_from_slice(&self.next_value.to_be_bytes());
                        let records = self.rng.range_i64(1, 3);
                        self.feed(id, Input::Append { batch, records });
                    }
                }
                let at = self.after(20, 400);
                self.push(at, Event::Propose);
            }
        }
    }

    fn stalled(&self, node: i32) -> Option<Instant> {
        Some(self.nodes[&node].stalled_until).filter(|at| *at > self.now)
    }

    fn start(&mut self, id: i32) {
        let node = self.nodes.get_mut(&id).expect("a node");
        if node.machine.is_some() {
            return;
        }
        node.incarnation += 1;
        node.stalled_until = self.now;
        node.fetched = None;
        let log = &mut node.disk.log;
        log.synced = log.entries.len();
        let mut epochs: Vec<(i32, i64)> = Vec::new();
        for entry in &log.entries {
            if epochs.last().is_none_or(|e| e.0 < entry.batch.epoch) {
                epochs.push((entry.batch.epoch, entry.batch.base));
            }
        }
        let snapshot = node.disk.snapshot.as_ref().map(|s| s.at);
        let view = LogView::new(log.start, snapshot, epochs, log.end());
        node.high_watermark = snapshot.map_or(0, |s| s.offset);
        let config = Config {
            me: ReplicaKey { id, directory: Uuid::from_u128(node.disk.directory) },
            voters: self.voters.clone(),
            election_timeout: ELECTION,
            fetch_timeout: FETCH,
            fetch_max_wait: Duration::from_millis(500),
            retry_backoff: Duration::from_millis(100),
            chance: self.rng.u64(),
        };
        let (machine, actions) = Machine::start(self.now, config, node.disk.state, view);
        node.machine = Some(machine);
        self.execute(id, actions);
    }

    fn feed(&mut self, id: i32, input: Input) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("a node");
        let Some(machine) = &mut node.machine else { return };
        let was_joining = !machine.state().voting;
        let actions = machine.handle(now, input);
        if was_joining && machine.state().voting && machine.epoch() > 0 {
            self.rejoined += 1;
        }
        self.execute(id, actions);
    }

    /// Executes actions in order, maybe not to the end.
    fn execute(&mut self, id: i32, actions: Vec<Action>) {
        let dies = !self.healed && self.rng.chance(1, 600);
        let mut left = if dies { self.rng.range(0, actions.len() as u64) } else { u64::MAX };
        let mut actions: VecDeque<Action> = actions.into();
        while let Some(action) = actions.pop_front() {
            if left == 0 {
                return self.crash(id, false);
            }
            left -= 1;
            self.act(id, action);
        }
        if dies {
            self.crash(id, false);
        }
    }

    fn act(&mut self, id: i32, action: Action) {
        let node = self.nodes.get_mut(&id).expect("a node");
        match action {
            Action::Store(state) => {
                if let Some(old) = node.disk.state {
                    assert!(old.epoch <= state.epoch, "node {id} went back from {old:?} to {state:?}");
                }
                if let Some(voted) = state.voted {
                    let other = self.votes.insert((state.epoch, id), voted.id);
                    assert!(other.is_none_or(|o| o == voted.id), "node {id} voted twice in {}", state.epoch);
                }
                node.disk.state = Some(state);
            }
            Action::AppendLeaderChange { base, epoch, granting } => {
                assert!(granting.len() > self.voters.len() / 2, "elected by {granting:?}");
                let other = self.leaders.insert(epoch, id);
                assert!(other.is_none(), "epoch {epoch} is led by {id} and {other:?}");
                self.next_value += 1;
                let value = self.next_value;
                node.disk.log.push(Entry { batch: Batch { base, next: base + 1, epoch }, value });
                self.is_complete(id, epoch);
            }
            Action::Append { base, epoch, batch } => {
                let value = u64::from_be_bytes(batch[..].try_into().expect("8 bytes"));
                let next = node.machine.as_ref().expect("it is up").log().end_offset();
                node.disk.log.push(Entry { batch: Batch { base, next, epoch }, value });
            }
            Action::AppendFetched(batches) => {
                for (batch, value) in batches.headers.iter().zip(batches.bytes.chunks(8)) {
                    let value = u64::from_be_bytes(value.try_into().expect("8 bytes"));
                    node.disk.log.push(Entry { batch: *batch, value });
                }
            }
            Action::Truncate { offset } => {
                self.cuts += 1;
                node.disk.log.truncate(offset);
            }
            Action::Flush => {
                let end = node.disk.log.end();
                let slow = !self.healed && self.rng.chance(1, 5);
                if slow {
                    let at = self.after(1, 2500);
                    let node = self.nodes.get_mut(&id).expect("a node");
                    node.stalled_until = at + Duration::from_nanos(1);
                    let incarnation = node.incarnation;
                    self.push(at, Event::Flushed { node: id, incarnation, end });
                } else {
                    self.flushed(id, end);
                }
            }
            Action::Send { to, id: request_id, request } => {
                let incarnation = node.incarnation;
                let lost = self.now + CALL;
                self.push(lost, Event::Lost { node: id, incarnation, to, id: request_id });
                let event = Event::Request { from: id, incarnation, to, id: request_id, request };
                self.carry(event);
            }
            Action::Reply { token, answer } => self.reply(id, token, answer),
            Action::Serve { token, header, high_watermark, from, upper } => {
                let log = &node.disk.log;
                let all = log.entries.iter().filter(|e| e.batch.next > from && e.batch.next <= upper);
                let entries: Vec<Entry> = all.take(4).copied().collect();
                assert!(!entries.is_empty(), "a fetch that is served gets something");
                let mut bytes = Vec::new();
                entries.iter().for_each(|e| bytes.extend_from_slice(&e.value.to_be_bytes()));
                let headers = entries.iter().map(|e| e.batch).collect();
                let fetched = Fetched::Batches(Batches { headers, bytes: bytes.into() });
                self.reply(id, token, Answer::Fetch { header, high_watermark, fetched });
            }
            Action::Committed { high_watermark } => {
                assert!(node.high_watermark <= high_watermark, "high watermark of {id} went back");
                let held = node.disk.snapshot.as_ref().map_or(0, |s| s.at.offset);
                let from = node.high_watermark.max(held.min(high_watermark));
                let end =
                    node.disk.log.entries[..node.disk.log.synced].last().map_or(node.disk.log.start, |e| e.batch.next);
                assert!(high_watermark <= end, "node {id} calls {high_watermark} committed, it has {end} durably");
                node.high_watermark = high_watermark;
                let log = node.disk.log.entries.iter();
                let new: Vec<Entry> =
                    log.filter(|e| e.batch.base >= from && e.batch.next <= high_watermark).copied().collect();
                let reached = new.last().map_or(from, |e| e.batch.next);
                assert_eq!(reached, high_watermark, "node {id}: a high watermark between batches");
                new.into_iter().for_each(|e| self.commit(id, e));
            }
            Action::LeaderChanged { .. } => {}
            Action::FetchSnapshot { leader, at, .. } => {
                let incarnation = node.incarnation;
                let when = self.after(1, 800);
                self.push(when, Event::SnapshotArrives { node: id, incarnation, leader, at });
            }
            Action::InstallSnapshot { at } => {
                let snapshot = node.fetched.take().expect("the snapshot that arrived");
                assert_eq!(snapshot.at, at);
                node.disk.log = Log { start: at.offset, ..Log::default() };
                let entries = snapshot.entries.clone();
                node.disk.snapshot = Some(snapshot);
                self.snapshots_taken_over += 1;
                assert_eq!(self.committed[..entries.len()], entries[..], "a snapshot of what is committed");
            }
        }
    }

    fn flushed(&mut self, id: i32, end: i64) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.disk.log.synced = node.disk.log.entries.iter().filter(|e| e.batch.next <= end).count();
        node.stalled_until = node.stalled_until.min(self.now);
        self.feed(id, Input::Flushed { end });
    }

    fn commit(&mut self, id: i32, entry: Entry) {
        let known = self.committed.iter().rev().find(|e| e.batch.base <= entry.batch.base);
        match known {
            Some(known) if known.batch.next > entry.batch.base => {
                assert_eq!(*known, entry, "node {id} committed something else than another did");
            }
            _ => {
                let end = self.committed.last().map_or(0, |e| e.batch.next);
                assert_eq!(entry.batch.base, end, "node {id} skipped committed records");
                self.committed.push(entry);
            }
        }
    }

    /// A new leader holds everything that was ever committed.
    fn is_complete(&self, id: i32, epoch: i32) {
        let node = &self.nodes[&id];
        for committed in self.committed.iter().filter(|e| e.batch.base >= node.disk.log.start) {
            assert!(node.disk.log.entries.contains(committed), "leader {id} of {epoch} lacks {committed:?}");
        }
        assert!(node.disk.log.start <= self.committed.last().map_or(0, |e| e.batch.next));
    }

    fn logs_match(&self) {
        for a in self.nodes.values() {
            for b in self.nodes.values().filter(|b| b.id > a.id) {
                let from = a.disk.log.start.max(b.disk.log.start);
                let of = |n: &Node| -> Vec<Entry> {
                    n.disk.log.entries.iter().filter(|e| e.batch.base >= from).copied().collect()
                };
                let (x, y) = (of(a), of(b));
                let shared = (0..x.len().min(y.len())).rev().find(|&i| x[i].batch == y[i].batch);
                if let Some(last) = shared {
                    assert_eq!(x[..=last], y[..=last], "logs of {} and {} differ below a shared batch", a.id, b.id);
                }
            }
        }
    }

    fn reply(&mut self, from: i32, token: Token, answer: Answer) {
        let to = self.tokens.remove(&token).expect("each request is answered once");
        let event = Event::Answer { from, to: to.node, incarnation: to.incarnation, id: to.id, answer };
        self.carry(event);
    }

    fn carry(&mut self, event: Event) {
        if self.healed {
            let at = self.after(1, 5);
            return self.push(at, event);
        }
        if self.rng.chance(1, 25) {
            return;
        }
        let copies = if self.rng.chance(1, 20) { 2 } else { 1 };
        for _ in 0..copies {
            let at = match self.rng.range(0, 19) {
                0 => self.after(100, 8000),
                1..4 => self.after(10, 900),
                _ => self.after(1, 20),
            };
            self.push(at, event.clone());
        }
    }

    fn crash(&mut self, id: i32, wipe: bool) {
        let again = if self.healed { self.after(1, 100) } else { self.after(10, 6000) };
        let node = self.nodes.get_mut(&id).expect("a node");
        if node.machine.take().is_none() && !wipe {
            return;
        }
        if wipe {
            self.wipes += 1;
            self.next_directory += 1;
            node.disk = Disk { directory: self.next_directory, ..Disk::default() };
            node.high_watermark = 0;
        } else {
            let log = &mut node.disk.log;
            let kept = self.rng.range(log.synced as u64, log.entries.len() as u64);
            log.entries.truncate(kept as usize);
        }
        self.push(again, Event::Restart { node: id });
    }

    fn nemesis(&mut self) {
        let ids: Vec<i32> = self.nodes.keys().copied().collect();
        let id = *self.rng.choose(&ids);
        match self.rng.range(0, 13) {
            0..2 => self.crash(id, false),
            2 => {
                // A quorum bears the loss of a minority of its disks at a time.
                let without =
                    |n: &&Node| self.voters.contains(&n.id) && (n.id == id || !n.disk.state.is_some_and(|s| s.voting));
                let lost = self.nodes.values().filter(without).count();
                if self.voters.len() == 1 && id == 1 {
                    // Its only disk: nobody would remember.
                } else if !self.voters.contains(&id) || lost <= (self.voters.len() - 1) / 2 {
                    self.crash(id, true);
                }
            }
            3 => {
                for other in ids {
                    self.cut.insert((id, other));
                    if self.rng.chance(1, 2) {
                        self.cut.insert((other, id));
                    }
                }
            }
            4 => {
                let other = *self.rng.choose(&ids);
                self.cut.insert((id, other));
            }
            5 => {
                let side: BTreeSet<i32> = ids.iter().copied().filter(|_| self.rng.chance(1, 2)).collect();
                for a in &ids {
                    for b in ids.iter().filter(|b| side.contains(a) != side.contains(b)) {
                        self.cut.insert((*a, *b));
                    }
                }
            }
            6..9 => self.cut.clear(),
            9 => self.feed_unless_stalled(id, Input::Resign),
            10..13 => self.snapshot(id),
            _ => {
                let leader =
                    self.nodes.values().find(|n| n.machine.as_ref().is_some_and(|m| m.role() == RoleName::Leader));
                if let Some(id) = leader.map(|n| n.id) {
                    self.crash(id, false);
                }
            }
        }
        self.logs_match();
        let at = self.after(100, 3000);
        self.push(at, Event::Nemesis);
    }

    fn feed_unless_stalled(&mut self, id: i32, input: Input) {
        if self.stalled(id).is_none() {
            self.feed(id, input);
        }
    }

    /// The node takes a snapshot of what it knows to be committed, and may cut its log.
    fn snapshot(&mut self, id: i32) {
        if self.stalled(id).is_some() {
            return;
        }
        let node = self.nodes.get_mut(&id).expect("a node");
        let Some(machine) = &node.machine else { return };
        let at = Position { offset: node.high_watermark, epoch: machine.log().epoch_below(node.high_watermark) };
        if node.disk.snapshot.as_ref().map_or(0, |s| s.at.offset) >= at.offset {
            return;
        }
        let entries: Vec<Entry> = self.committed.iter().take_while(|e| e.batch.next <= at.offset).copied().collect();
        node.disk.snapshot = Some(Snapshot { at, entries });
        self.feed(id, Input::Snapshotted { at });
        let node = self.nodes.get_mut(&id).expect("a node");
        if node.machine.is_none() || self.rng.chance(1, 3) {
            return;
        }
        let log = &mut node.disk.log;
        let whole = log.entries[..log.synced].iter().filter(|e| e.batch.next <= at.offset).count();
        let gone = self.rng.range(0, whole as u64) as usize;
        if let Some(last) = gone.checked_sub(1) {
            log.start = log.entries[last].batch.next;
            log.entries.drain(..gone);
            log.synced -= gone;
            let start = log.start;
            self.feed(id, Input::Prefix { start });
        }
    }

    /// Everything works again; whoever is down comes up.
    fn heal(&mut self) {
        self.healed = true;
        self.cut.clear();
        self.queue.retain(|_, e| !matches!(e, Event::Nemesis | Event::Restart { .. }));
        let ids: Vec<i32> = self.nodes.keys().copied().collect();
        ids.into_iter().for_each(|id| self.start(id));
    }
}

fn survive(seed: u64, voters: i32, observers: i32) -> World {
    let mut world = World::new(seed, voters, observers);
    world.push(Instant::from_nanos(1_000_000_000), Event::Propose);
    world.push(Instant::from_nanos(500_000_000), Event::Nemesis);
    let faults = Duration::from_secs(world.rng.range(5, 60));
    world.run(Instant::from_nanos(0) + faults);
    world.heal();
    world.run(world.now + Duration::from_secs(25));
    let reached = world.committed.last().map_or(0, |e| e.batch.next);
    world.run(world.now + Duration::from_secs(5));
    let end = world.committed.last().map_or(0, |e| e.batch.next);
    assert!(end > reached, "nothing was committed after healing: {:#?}", states(&world));
    for node in world.nodes.values() {
        assert!(
            node.high_watermark >= reached,
            "node {} stays at {}: {:#?}",
            node.id,
            node.high_watermark,
            states(&world)
        );
        let joined = node.machine.as_ref().is_some_and(|m| m.state().voting);
        assert!(joined || !world.voters.contains(&node.id), "voter {} never joined: {:#?}", node.id, states(&world));
    }
    world.logs_match();
    world
}

fn states(world: &World) -> Vec<String> {
    let of = |n: &Node| {
        let machine = n.machine.as_ref();
        let role = machine.map(|m| (m.role(), m.state(), m.leader(), m.high_watermark(), m.log().end()));
        format!("{}: {role:?} next {:?} now {:?}", n.id, machine.and_then(Machine::next_timeout), world.now)
    };
    world.nodes.values().map(of).collect()
}

fn sweep(voters: i32, observers: i32, seeds: u64) {
    let first: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(seeds);
    let (mut leaders, mut rejoined, mut taken, mut cuts) = (0, 0, 0, 0);
    for seed in first..first + seeds {
        let world = std::panic::catch_unwind(|| survive(seed, voters, observers));
        let Ok(world) = world else { panic!("seed {seed} of {voters} voters failed") };
        leaders += world.leaders.len();
        rejoined += world.rejoined;
        taken += world.snapshots_taken_over;
        cuts += world.cuts;
    }
    println!(
        "{voters} voters: {leaders} leaders, {cuts} cuts, {rejoined} voters rejoined, {taken} snapshots taken over"
    );
    if voters > 1 {
        assert!(leaders as u64 > seeds && cuts > 0 && rejoined > 0 && taken > 0, "the sweep reaches what it is for");
    }
}

#[test]
fn quorum_of_three_keeps_what_it_committed() {
    sweep(3, 1, 150);
}

#[test]
fn quorum_of_five_keeps_what_it_committed() {
    sweep(5, 1, 60);
}

#[test]
fn quorum_of_one_keeps_what_it_committed() {
    sweep(1, 2, 60);
}

#[test]
fn an_only_voter_leads_at_once() {
    let mut world = World::new(1, 1, 0);
    world.healed = true;
    world.start(1);
    let machine = world.nodes[&1].machine.as_ref().expect("it is up");
    assert_eq!((machine.role(), machine.epoch(), machine.appendable()), (RoleName::Leader, 1, Some(1)));
}

#[test]
fn a_leader_hands_over_without_a_time_out() {
    let mut world = World::new(7, 3, 0);
    world.healed = true;
    world.run(Instant::from_nanos(6_000_000_000));
    let leading = |w: &World| {
        w.nodes.values().find(|n| n.machine.as_ref().is_some_and(|m| m.role() == RoleName::Leader)).map(|n| n.id)
    };
    let first = leading(&world).expect("three fresh voters elect one");
    let epoch = world.nodes[&first].machine.as_ref().expect("it is up").epoch();
    world.feed(first, Input::Resign);
    world.run(world.now + Duration::from_millis(200));
    let second = leading(&world).expect("a successor leads");
    assert_ne!(first, second);
    assert_eq!(world.nodes[&second].machine.as_ref().expect("it is up").epoch(), epoch + 1);
}

#[test]
fn a_leader_that_hears_from_no_majority_resigns() {
    let mut world = World::new(9, 3, 0);
    world.healed = true;
    world.run(Instant::from_nanos(6_000_000_000));
    let leader = *world.leaders.last_key_value().expect("a leader").1;
    for other in (1..=3).filter(|o| *o != leader) {
        world.cut.insert((other, leader));
    }
    world.run(world.now + FETCH * 2);
    let role = world.nodes[&leader].machine.as_ref().expect("it is up").role();
    assert_ne!(role, RoleName::Leader);
    assert!(world.leaders.last_key_value().is_some_and(|(_, l)| *l != leader), "the others elected one of them");
}
