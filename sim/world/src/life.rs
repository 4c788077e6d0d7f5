//! Nodes and their lives: added, crashed, powered off, paused, restarted, wiped.
//!
//! Death is one instant: the incarnation number is taken out of the table of the living first, then sockets are
//! closed as the kernel of the machine would (process crash) or forgotten (power loss), then madsim is told to drop
//! the tasks. Whatever their destructors call finds itself dead.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Waker;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::kernel::{self, Ctx, Kernel, Tagged};
use crate::{Config, FaultId, PowerLaw, net};

/// What a node is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Up,
    /// Stopped as by SIGSTOP: its tasks do not run, its machine still answers at the TCP level.
    Paused,
    /// The process is dead, by a crash or because its main future ended; the machine refuses connections.
    Down,
    /// The machine has no power: nothing answers.
    Off,
}

/// How to bring back a node from what a fault did to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Undo {
    Restart,
    Resume,
    /// Its clocks run true again.
    Drift,
}

type Main = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = ()>>>>;

pub(crate) struct Node {
    pub(crate) name: Rc<str>,
    pub(crate) role: Rc<str>,
    /// Coordinate of the node in draws: a hash of its name, so that adding a node moves no draw of another.
    pub(crate) key: u64,
    pub(crate) ip: IpAddr,
    pub(crate) incarnation: u32,
    pub(crate) status: Status,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    pub(crate) next_port: u16,
    /// Random streams that were begun, by incarnation and purpose.
    pub(crate) streams: BTreeMap<(u32, &'static str), u64>,
    main: Option<Main>,
    pub(crate) madsim: Option<madsim::task::NodeId>,
    /// The main future ended, and the node was not restarted since.
    pub(crate) exited: bool,
    /// This incarnation was asked to stop.
    pub(crate) terminated: bool,
    /// Faults of its clocks, whose readings are counted.
    clock_faults: Vec<FaultId>,
    /// Woken when the status changes.
    watchers: Vec<Waker>,
    /// The fault that paused it, if a pause is on.
    paused_by: Option<FaultId>,
    paused_at: u64,
}

pub(crate) const FIRST_EPHEMERAL: u16 = 32_768;

impl Node {
    pub(crate) fn world(config: &Config) -> Self {
        Self::new(config.world_seed, "world", "world", IpAddr::from([10, 255, 255, 254]), config)
    }

    fn new(seed: u64, name: &str, role: &str, ip: IpAddr, config: &Config) -> Self {
        let key = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
        // Monotonic clocks of two machines have nothing in common; one that were compared would show.
        let origin = seed::draw(seed, "clock-origin", &[key]).range(1, 3_600_000_000_000);
        Self {
            name: name.into(),
            role: role.into(),
            key,
            ip,
            incarnation: 1,
            status: Status::Up,
            clock: Clock::new(origin, config.wall_epoch_ms),
            disk: Disk::new(config.disk),
            next_port: FIRST_EPHEMERAL,
            streams: BTreeMap::new(),
            main: None,
            madsim: None,
            exited: false,
            terminated: false,
            clock_faults: Vec::new(),
            watchers: Vec::new(),
            paused_by: None,
            paused_at: 0,
        }
    }

    pub(crate) fn powered(&self) -> bool {
        self.status != Status::Off
    }

    pub(crate) fn ctx(&self, node: u32) -> Ctx {
        Ctx { node, incarnation: self.incarnation }
    }

    pub(crate) fn watch(&mut self, waker: Waker) {
        self.watchers.push(waker);
    }

    fn changed(&mut self) {
        for waker in self.watchers.drain(..) {
            waker.wake();
        }
    }
}

impl Kernel {
    pub(crate) fn add_node<F, Fut>(self: &Rc<Self>, name: &str, role: &str, ip: IpAddr, main: F, config: &Config) -> u32
    where
        F: Fn() -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let index = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            assert!(state.nodes.iter().all(|n| &*n.name != name), "two nodes are named {name}");
            let index = u32::try_from(state.nodes.len()).expect("fewer than 2^32 nodes");
            let mut node = Node::new(self.first_world_seed, name, role, ip, config);
            node.main = Some(Rc::new(move || Box::pin(main())));
            state.net.add_node(index, &node, &state.nodes);
            state.nodes.push(node);
            index
        };
        self.set_live(index, 1);
        let handle = self.runtime.create_node().name(name).init(move || start(index)).build();
        self.state.borrow_mut().nodes[index as usize].madsim = Some(handle.id());
        index
    }

    /// Kills the process. `power` also takes the machine down, with the law for what its disk had not synced.
    /// A node that is down already only loses power. False if it changed nothing.
    pub(crate) fn kill(&self, index: u32, power: Option<PowerLaw>, fault: FaultId) -> bool {
        assert_ne!(index, 0, "the world itself cannot be killed");
        let now = self.now();
        let madsim = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let node = &mut state.nodes[index as usize];
            let was = node.status;
            if was == Status::Off || (was == Status::Down && power.is_none()) {
                return false;
            }
            self.set_live(index, 0);
            node.status = if power.is_some() { Status::Off } else { Status::Down };
            let ctx = node.ctx(index);
            let kind = if power.is_some() { "power-loss" } else { "crash" };
            state.trace.note(now, ctx, kind, 0, 0);
            state.story.life(now, ctx, kind);
            if matches!(was, Status::Up | Status::Paused) {
                state.effects.add(fault, "processes_killed", 1);
            }
            if let Some(by) = node.paused_by.take() {
                state.effects.end(by, now);
            }
            node.disk.process_died();
            if let Some(law) = power {
                let (key, incarnation) = (node.key, u64::from(node.incarnation));
                for (name, n) in node.disk.power_loss(law, self.world_seed(), &[key, incarnation]) {
                    state.effects.add(fault, name, n);
                }
            }
            node.changed();
            node.madsim
        };
        net::node_died(self, index, power.is_some(), fault, now);
        self.state.borrow_mut().undo.push((fault, index, Undo::Restart));
        // Outside the borrow: dropping parked tasks runs destructors, which find themselves dead.
        if let Some(id) = madsim {
            self.runtime.kill(id);
        }
        true
    }

    pub(crate) fn restart(&self, index: u32) {
        let (madsim, status) = {
            let state = self.state.borrow();
            let node = &state.nodes[index as usize];
            (node.madsim, node.status)
        };
        if matches!(status, Status::Up | Status::Paused) {
            return;
        }
        let now = self.now();
        let incarnation = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let node = &mut state.nodes[index as usize];
            node.incarnation += 1;
            node.status = Status::Up;
            node.exited = false;
            node.terminated = false;
            node.changed();
            let ctx = node.ctx(index);
            state.trace.note(now, ctx, "restart", 0, 0);
            state.story.life(now, ctx, "restart");
            state.undo.retain(|&(fault, on, how)| {
                let over = on == index && how == Undo::Restart;
                if over {
                    state.effects.end(fault, now);
                }
                !over
            });
            ctx.incarnation
        };
        self.set_live(index, incarnation);
        if let Some(id) = madsim {
            self.runtime.restart(id);
        }
    }

    /// Asks the process to stop; what it makes of it is up to its main future.
    pub(crate) fn terminate(&self, index: u32, fault: FaultId) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let now = self.now();
        let node = &mut state.nodes[index as usize];
        if matches!(node.status, Status::Up | Status::Paused) && !node.terminated {
            node.terminated = true;
            node.changed();
            let ctx = node.ctx(index);
            state.trace.note(now, ctx, "terminate", 0, 0);
            state.effects.add(fault, "processes_asked_to_stop", 1);
        }
        state.effects.end(fault, now);
    }

    pub(crate) fn pause(&self, index: u32, fault: FaultId) -> bool {
        let mut state = self.state.borrow_mut();
        let now = self.now();
        let node = &mut state.nodes[index as usize];
        if node.status != Status::Up {
            return false;
        }
        node.status = Status::Paused;
        node.paused_by = Some(fault);
        node.paused_at = now;
        node.changed();
        let (ctx, madsim) = (node.ctx(index), node.madsim);
        state.trace.note(now, ctx, "pause", 0, 0);
        state.story.life(now, ctx, "pause");
        state.undo.push((fault, index, Undo::Resume));
        drop(state);
        if let Some(id) = madsim {
            self.runtime.pause(id);
        }
        true
    }

    pub(crate) fn resume(&self, index: u32) {
        let mut borrowed = self.state.borrow_mut();
        let state = &mut *borrowed;
        let now = self.now();
        let node = &mut state.nodes[index as usize];
        if node.status != Status::Paused {
            return;
        }
        node.status = Status::Up;
        node.changed();
        if let Some(by) = node.paused_by.take() {
            state.effects.add(by, "paused_ms", (now - node.paused_at) / 1_000_000);
            state.effects.end(by, now);
        }
        let (ctx, madsim) = (node.ctx(index), node.madsim);
        state.trace.note(now, ctx, "resume", 0, 0);
        state.story.life(now, ctx, "resume");
        // The runtime logs what it does, and whoever writes the log asks for the time and the node.
        drop(borrowed);
        if let Some(id) = madsim {
            self.runtime.resume(id);
        }
    }

    /// Empties the disk of a node that is not running.
    pub(crate) fn wipe(&self, index: u32, fault: FaultId) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let node = &mut state.nodes[index as usize];
        assert!(
            matches!(node.status, Status::Down | Status::Off),
            "{} must be down before its disk is wiped",
            node.name
        );
        let files = node.disk.wipe();
        state.effects.add(fault, "files_wiped", files);
        state.trace.note(self.now(), node.ctx(index), "wipe", files, 0);
    }

    /// Undoes what a crash point or a timed fault did.
    pub(crate) fn recover(&self, fault: FaultId) {
        let undo = {
            let mut state = self.state.borrow_mut();
            let at = state.undo.iter().position(|u| u.0 == fault);
            at.map(|at| state.undo.remove(at))
        };
        match undo {
            Some((_, node, Undo::Restart)) => self.restart(node),
            Some((_, node, Undo::Resume)) => self.resume(node),
            Some((_, node, Undo::Drift)) => self.change_clock(node, fault, |clock, now| clock.set_drift(now, 0)),
            None => {}
        }
        for node in &mut self.state.borrow_mut().nodes {
            node.clock_faults.retain(|&f| f != fault);
            node.disk.heal(fault);
        }
        net::heal(self, fault);
    }
}

impl Kernel {
    pub(crate) fn read_clock<T>(&self, ctx: Ctx, f: impl FnOnce(&Clock, u64) -> T) -> T {
        let now = self.now();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let node = &state.nodes[ctx.node as usize];
        for &fault in &node.clock_faults {
            state.effects.add(fault, "readings", 1);
        }
        f(&node.clock, now)
    }

    pub(crate) fn step_clock(&self, index: u32, nanos: i128, fault: FaultId) {
        self.change_clock(index, fault, |clock, _| clock.step_wall(nanos));
    }

    /// `ms`: the wall clock's distance from that of the world.
    pub(crate) fn offset_clock(&self, index: u32, ms: i64, fault: FaultId) {
        let now = self.now();
        let true_ms = self.state.borrow().nodes[0].clock.wall_ms(now);
        self.change_clock(index, fault, |clock, now| {
            let nanos = i128::from(true_ms + ms - clock.wall_ms(now)) * 1_000_000;
            clock.step_wall(nanos);
        });
    }

    pub(crate) fn drift_clock(&self, index: u32, ppm: i64, fault: FaultId) {
        self.state.borrow_mut().undo.push((fault, index, Undo::Drift));
        self.change_clock(index, fault, |clock, now| clock.set_drift(now, ppm));
    }

    fn change_clock(&self, index: u32, fault: FaultId, f: impl FnOnce(&mut Clock, u64)) {
        let now = self.now();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let node = &mut state.nodes[index as usize];
        f(&mut node.clock, now);
        if !node.clock_faults.contains(&fault) {
            node.clock_faults.push(fault);
        }
        state.agenda.wake_node(index);
        state.trace.note(now, node.ctx(index), "clock", node.clock.node_time(now), node.clock.wall_ms(now) as u64);
    }
}

/// Called by madsim in the node's first task, at build and at each restart.
async fn start(index: u32) {
    let Some(kernel) = kernel::current() else { return };
    let (ctx, main) = {
        let state = kernel.state.borrow();
        let node = &state.nodes[index as usize];
        (node.ctx(index), node.main.clone())
    };
    let Some(main) = main else { return };
    // `main()` itself runs in the node's context too.
    Tagged::new(Rc::clone(&kernel), ctx, async move { main().await }).await;
    exited(&kernel, ctx);
}

/// The process ended by itself: its sockets are closed by its machine.
fn exited(kernel: &Rc<Kernel>, ctx: Ctx) {
    let now = kernel.now();
    {
        let mut state = kernel.state.borrow_mut();
        let state = &mut *state;
        let node = &mut state.nodes[ctx.node as usize];
        kernel.set_live(ctx.node, 0);
        node.status = Status::Down;
        node.exited = true;
        node.disk.process_died();
        node.changed();
        state.trace.note(now, ctx, "exit", 0, 0);
        state.story.life(now, ctx, "exit");
    }
    net::node_exited(kernel, ctx.node, now);
}
