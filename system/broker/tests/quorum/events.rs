//! Time, the network and the processes: what happens next, and to whom.

use super::*;

impl World {
    pub(crate) fn new(seed: u64, voters: i32, observers: i32) -> Self {
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

    pub(crate) fn after(&mut self, low_ms: u64, high_ms: u64) -> Instant {
        self.now + Duration::from_micros(self.rng.range(low_ms * 1000, high_ms * 1000))
    }

    pub(crate) fn push(&mut self, at: Instant, event: Event) {
        self.next_event += 1;
        self.queue.insert((at, self.next_event), event);
    }

    /// Runs all that happens until `until`.
    pub(crate) fn run(&mut self, until: Instant) {
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

    pub(crate) fn happen(&mut self, event: Event) {
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

    pub(crate) fn stalled(&self, node: i32) -> Option<Instant> {
        Some(self.nodes[&node].stalled_until).filter(|at| *at > self.now)
    }

    pub(crate) fn start(&mut self, id: i32) {
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

    pub(crate) fn feed(&mut self, id: i32, input: Input) {
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
    pub(crate) fn execute(&mut self, id: i32, actions: Vec<Action>) {
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

    pub(crate) fn reply(&mut self, from: i32, token: Token, answer: Answer) {
        let to = self.tokens.remove(&token).expect("each request is answered once");
        let event = Event::Answer { from, to: to.node, incarnation: to.incarnation, id: to.id, answer };
        self.carry(event);
    }

    pub(crate) fn carry(&mut self, event: Event) {
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
}
