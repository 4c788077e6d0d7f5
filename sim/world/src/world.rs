//! The hand of whoever runs a world: it adds nodes, does things to them, and reads what no node may know.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use crate::agenda::Event;
use crate::disk::Trouble;
use crate::kernel::{self, Kernel};
use crate::net::{self, Block, LinkLaw, Pairs};
use crate::time::{Sleep, nanos};
use crate::{Config, CrashPoint, DiskLaw, Effect, FaultId, PowerLaw, SimTime, Status};

/// A node of this world, in order of addition, from 1. 0 is the world itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    pub fn index(self) -> u32 {
        self.0
    }
}

/// Control of one world. Clones are the same world.
#[derive(Clone, Debug)]
pub struct World {
    kernel: Rc<Kernel>,
    config: Rc<Config>,
}

/// Faults and laws of the network: see [`World::net`].
#[derive(Debug)]
pub struct NetOf<'a>(&'a World);

/// One node's disk: see [`World::disk`].
#[derive(Debug)]
pub struct DiskOf<'a>(&'a World, u32);

/// One node's clocks: see [`World::clock`].
#[derive(Debug)]
pub struct ClockOf<'a>(&'a World, u32);

impl World {
    pub(crate) fn new(kernel: Rc<Kernel>, config: Config) -> Self {
        Self { kernel, config: Rc::new(config) }
    }

    /// Adds a machine and starts its process. `main` is called again at each restart; when its future ends, the
    /// process has exited.
    pub fn add_node<F, Fut>(&self, name: &str, role: &str, ip: IpAddr, main: F) -> NodeId
    where
        F: Fn() -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        NodeId(self.kernel.add_node(name, role, ip, main, &self.config))
    }

    /// Kills the process: the page cache is kept, the machine closes its sockets.
    pub fn crash(&self, node: NodeId) -> FaultId {
        let fault = self.begin("crash", node);
        self.kernel.kill(node.0, None, fault);
        fault
    }

    /// Asks the process to stop, as SIGTERM does. It hears of it by [`World::terminated`].
    pub fn terminate(&self, node: NodeId) -> FaultId {
        let fault = self.begin("stop", node);
        self.kernel.terminate(node.0, fault);
        fault
    }

    /// Ready once the running incarnation of the node was asked to stop.
    pub async fn terminated(&self, node: NodeId) {
        poll_fn(|cx| {
            let mut state = self.kernel.state.borrow_mut();
            let node = &mut state.nodes[node.0 as usize];
            if node.terminated {
                return Poll::Ready(());
            }
            node.watch(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Takes the machine's power: unsynced changes go by `law`, peers are left half-open.
    pub fn power_loss(&self, node: NodeId, law: PowerLaw) -> FaultId {
        let fault = self.begin("power-loss", node);
        self.kernel.kill(node.0, Some(law), fault);
        fault
    }

    /// Starts a new incarnation. Nothing happens to a node that is up.
    pub fn restart(&self, node: NodeId) {
        self.kernel.restart(node.0);
    }

    /// Stops the process without killing it. Time goes on for it.
    pub fn pause(&self, node: NodeId) -> FaultId {
        let fault = self.begin("pause", node);
        self.kernel.pause(node.0, fault);
        fault
    }

    pub fn resume(&self, node: NodeId) {
        self.kernel.resume(node.0);
    }

    /// Empties the disk of a node that is down.
    pub fn wipe(&self, node: NodeId) -> FaultId {
        let fault = self.begin("wipe", node);
        self.kernel.wipe(node.0, fault);
        fault
    }

    /// Arms a crash point. It fires once.
    pub fn arm(&self, point: CrashPoint) -> FaultId {
        let now = self.kernel.now();
        let mut state = self.kernel.state.borrow_mut();
        let fault = state.effects.begin(point.then.kind(), point.target.describe(), now);
        state.points.arm(fault, point);
        self.kernel.armed.set(true);
        fault
    }

    /// Undoes a fault: heals links and disks, disarms a crash point, and brings back the node it took.
    pub fn heal(&self, fault: FaultId) {
        {
            let mut state = self.kernel.state.borrow_mut();
            state.points.disarm(fault);
            self.kernel.armed.set(state.points.any());
        }
        self.kernel.recover(fault);
    }

    /// Heals every fault: links and disks are well, crash points disarmed, clocks run true (a stepped one stays so),
    /// and every node whose process did not exit by itself is up.
    pub fn heal_all(&self) {
        let faults: Vec<_> = {
            let state = self.kernel.state.borrow();
            state.effects.0.iter().filter(|e| e.ended.is_none()).map(|e| e.id).collect()
        };
        for fault in faults {
            self.heal(fault);
        }
        for node in self.nodes() {
            match self.status(node) {
                Status::Paused => self.resume(node),
                Status::Down | Status::Off if !self.exited(node) => self.restart(node),
                _ => {}
            }
        }
    }

    pub fn net(&self) -> NetOf<'_> {
        NetOf(self)
    }

    pub fn disk(&self, node: NodeId) -> DiskOf<'_> {
        DiskOf(self, node.0)
    }

    pub fn clock(&self, node: NodeId) -> ClockOf<'_> {
        ClockOf(self, node.0)
    }

    pub fn now(&self) -> SimTime {
        SimTime::from_nanos(self.kernel.now())
    }

    /// Waits on the world's own time.
    pub async fn sleep(&self, d: Duration) {
        self.sleep_until(self.now() + d).await;
    }

    pub async fn sleep_until(&self, at: SimTime) {
        Sleep::until_world(Rc::clone(&self.kernel), kernel::ctx(), at.as_nanos()).await;
    }

    /// Every node in order of addition.
    pub fn nodes(&self) -> Vec<NodeId> {
        let n = self.kernel.state.borrow().nodes.len();
        (1..n).map(|i| NodeId(i as u32)).collect()
    }

    pub fn node(&self, name: &str) -> Option<NodeId> {
        let state = self.kernel.state.borrow();
        let at = state.nodes.iter().skip(1).position(|n| &*n.name == name)?;
        Some(NodeId(at as u32 + 1))
    }

    /// Of any index a recorder got from [`crate::Current`]; 0 is `world`.
    pub fn name_of(&self, index: u32) -> String {
        self.kernel.state.borrow().nodes[index as usize].name.to_string()
    }

    pub fn name(&self, node: NodeId) -> String {
        self.name_of(node.0)
    }

    pub fn role(&self, node: NodeId) -> String {
        self.kernel.state.borrow().nodes[node.0 as usize].role.to_string()
    }

    pub fn status(&self, node: NodeId) -> Status {
        self.kernel.state.borrow().nodes[node.0 as usize].status
    }

    /// True if the process is down because its main future ended.
    pub fn exited(&self, node: NodeId) -> bool {
        self.kernel.state.borrow().nodes[node.0 as usize].exited
    }

    /// Counts from 1, up by one at each restart.
    pub fn incarnation(&self, node: NodeId) -> u32 {
        self.kernel.state.borrow().nodes[node.0 as usize].incarnation
    }

    /// Waits until `f` holds of the node's status.
    pub async fn wait(&self, node: NodeId, f: impl Fn(Status) -> bool) -> Status {
        poll_fn(|cx| {
            let mut state = self.kernel.state.borrow_mut();
            let node = &mut state.nodes[node.0 as usize];
            if f(node.status) {
                return Poll::Ready(node.status);
            }
            node.watch(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// What a fault did so far.
    pub fn effect(&self, fault: FaultId) -> Effect {
        self.kernel.state.borrow().effects.0[fault.index()].clone()
    }

    /// What every fault did so far, in order of beginning.
    pub fn effects(&self) -> Vec<Effect> {
        self.kernel.state.borrow().effects.0.clone()
    }

    /// W so far, and how many events are in it.
    pub fn trace_hash(&self) -> (u64, u64) {
        let state = self.kernel.state.borrow();
        (state.trace.hash(), state.trace.count())
    }

    /// Entries in the agenda: timers, deliveries and recoveries to come.
    pub fn pending(&self) -> usize {
        self.kernel.state.borrow().agenda.len()
    }

    fn begin(&self, kind: &'static str, node: NodeId) -> FaultId {
        let now = self.kernel.now();
        let subject = self.name(node);
        self.kernel.state.borrow_mut().effects.begin(kind, subject, now)
    }

    /// `arrow` says which way between the two sides.
    fn begin_link(&self, kind: &'static str, from: &[NodeId], arrow: &str, to: &[NodeId]) -> FaultId {
        let now = self.kernel.now();
        let side = |nodes: &[NodeId]| nodes.iter().map(|n| self.name(*n)).collect::<Vec<_>>().join(", ");
        let subject = format!("{} {arrow} {}", side(from), side(to));
        self.kernel.state.borrow_mut().effects.begin(kind, subject, now)
    }
}

const ONE_WAY: &str = "->";
const BOTH_WAYS: &str = "<->";

/// Every direction from a node of `from` to another of `to`.
fn one_way(from: &[NodeId], to: &[NodeId]) -> Pairs {
    from.iter().flat_map(|a| to.iter().filter(move |b| a != *b).map(move |b| (a.0, b.0))).collect()
}

fn both_ways(a: &[NodeId], b: &[NodeId]) -> Pairs {
    let mut pairs = one_way(a, b);
    pairs.extend(one_way(b, a));
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

impl NetOf<'_> {
    /// The law of these directions from now on; not a fault.
    pub fn set_law(&self, from: &[NodeId], to: &[NodeId], law: LinkLaw) {
        net::set_base(&self.0.kernel, &one_way(from, to), law);
    }

    /// Another law over these directions until healed.
    pub fn disturb(&self, from: &[NodeId], to: &[NodeId], law: LinkLaw) -> FaultId {
        let pairs = one_way(from, to);
        let fault = self.0.begin_link("link-law", from, ONE_WAY, to);
        net::disturb(&self.0.kernel, &pairs, fault, law);
        fault
    }

    /// Nothing gets from `from` to `to`; senders retransmit.
    pub fn cut(&self, from: &[NodeId], to: &[NodeId]) -> FaultId {
        self.block("cut", (from, ONE_WAY, to), Block::Cut)
    }

    /// As [`Self::cut`], both ways.
    pub fn partition(&self, a: &[NodeId], b: &[NodeId]) -> FaultId {
        self.block("partition", (a, BOTH_WAYS, b), Block::Cut)
    }

    /// Keeps everything from `from` to `to`, and lets it come in one burst when healed.
    pub fn hold(&self, from: &[NodeId], to: &[NodeId]) -> FaultId {
        self.block("hold", (from, ONE_WAY, to), Block::Hold)
    }

    /// New connections from `from` to `to` hang.
    pub fn hang_connects(&self, from: &[NodeId], to: &[NodeId]) -> FaultId {
        self.block("connect-hang", (from, ONE_WAY, to), Block::Hang)
    }

    /// New connections from `from` to `to` are refused.
    pub fn refuse_connects(&self, from: &[NodeId], to: &[NodeId]) -> FaultId {
        self.block("connect-refused", (from, ONE_WAY, to), Block::Refuse)
    }

    /// Resets every connection between these nodes now.
    pub fn reset(&self, a: &[NodeId], b: &[NodeId]) -> FaultId {
        let pairs = both_ways(a, b);
        let fault = self.0.begin_link("reset", a, BOTH_WAYS, b);
        net::reset(&self.0.kernel, &pairs, fault);
        let now = self.0.kernel.now();
        self.0.kernel.state.borrow_mut().effects.end(fault, now);
        fault
    }

    fn block(&self, kind: &'static str, (a, arrow, b): (&[NodeId], &'static str, &[NodeId]), block: Block) -> FaultId {
        let pairs = if arrow == BOTH_WAYS { both_ways(a, b) } else { one_way(a, b) };
        let fault = self.0.begin_link(kind, a, arrow, b);
        net::block(&self.0.kernel, &pairs, fault, block);
        fault
    }
}

impl DiskOf<'_> {
    /// All files as a program on the node would read them now. Takes no simulated time.
    pub fn image(&self) -> BTreeMap<PathBuf, Bytes> {
        self.0.kernel.state.borrow().nodes[self.1 as usize].disk.image()
    }

    /// The law from now on; not a fault.
    pub fn set_law(&self, law: DiskLaw) {
        self.0.kernel.state.borrow_mut().nodes[self.1 as usize].disk.law = law;
    }

    /// Another law until healed.
    pub fn disturb(&self, law: DiskLaw) -> FaultId {
        self.trouble("disk-law", Trouble::Law(law))
    }

    /// The next `n` file syncs fail and drop what they were to make durable.
    pub fn fail_syncs(&self, n: u64) -> FaultId {
        self.trouble("fsync-error", Trouble::SyncErrors(n))
    }

    /// Writes that would take the disk past `bytes` fail with `StorageFull`, until healed.
    pub fn fill_up(&self, bytes: u64) -> FaultId {
        self.trouble("disk-full", Trouble::Capacity(bytes))
    }

    /// As [`Self::fill_up`] at what is used now.
    pub fn full_now(&self) -> FaultId {
        let used = self.0.kernel.state.borrow().nodes[self.1 as usize].disk.used();
        self.fill_up(used)
    }

    /// No operation returns for so long.
    pub fn stall(&self, d: Duration) -> FaultId {
        let until = self.0.kernel.now().saturating_add(nanos(d));
        let fault = self.trouble("disk-stall", Trouble::Stall(until));
        let kernel = &self.0.kernel;
        kernel.state.borrow_mut().agenda.insert(kernel, until, Event::Recover(fault));
        fault
    }

    fn trouble(&self, kind: &'static str, trouble: Trouble) -> FaultId {
        let fault = self.0.begin(kind, NodeId(self.1));
        self.0.kernel.state.borrow_mut().nodes[self.1 as usize].disk.troubles.push((fault, trouble));
        fault
    }
}

impl ClockOf<'_> {
    /// Moves the node's wall clock once. Its monotonic clock never steps.
    pub fn step(&self, by: Duration, forward: bool) -> FaultId {
        let fault = self.0.begin("clock-step", NodeId(self.1));
        let nanos = by.as_nanos() as i128;
        self.0.kernel.step_clock(self.1, if forward { nanos } else { -nanos }, fault);
        fault
    }

    /// Sets the wall clock's distance from true time, in milliseconds. Like a step, but absolute.
    pub fn set_offset(&self, ms: i64) -> FaultId {
        let fault = self.0.begin("clock-offset", NodeId(self.1));
        self.0.kernel.offset_clock(self.1, ms, fault);
        fault
    }

    /// Both clocks of the node run `ppm` millionths fast, or, negative, slow, until healed.
    pub fn drift(&self, ppm: i64) -> FaultId {
        let fault = self.0.begin("clock-drift", NodeId(self.1));
        self.0.kernel.drift_clock(self.1, ppm, fault);
        fault
    }
}
