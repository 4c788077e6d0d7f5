//! The state of one world, and which node the running code belongs to. All of it lives on the world's own thread.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use madsim::time::TimeHandle;

use crate::agenda::Agenda;
use crate::crash_point::Points;
use crate::effect::Effects;
use crate::life::{Node, Undo};
use crate::net::Net;
use crate::story::Recorder;
use crate::tail::Turn;
use crate::trace::Trace;
use crate::{Config, FaultId, SimTime};

/// Which incarnation of which node. Node 0 is the world itself: the caller of `on_seed` and the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ctx {
    pub node: u32,
    pub incarnation: u32,
}

pub(crate) const WORLD: Ctx = Ctx { node: 0, incarnation: 1 };

/// Where and when code runs, for a recorder: reading it moves no clock and draws nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Current {
    /// Index of the node in order of addition; 0 is the world itself.
    pub node: u32,
    /// Counts from 1.
    pub incarnation: u32,
    pub now: SimTime,
}

thread_local! {
    static KERNEL: RefCell<Option<Rc<Kernel>>> = const { RefCell::new(None) };
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static CURRENT: Cell<Ctx> = const { Cell::new(WORLD) };
    /// Whose code panicked first.
    static FAILING: Cell<Option<Ctx>> = const { Cell::new(None) };
}

pub(crate) struct Kernel {
    /// Of the plan; draws ask [`Kernel::world_seed`].
    pub(crate) first_world_seed: u64,
    turn: Option<Turn>,
    pub(crate) time: TimeHandle,
    pub(crate) runtime: madsim::runtime::Handle,
    origin: std::time::Instant,
    limit: u64,
    pub(crate) event_limit: u64,
    /// The live incarnation of each node; 0 when it has none.
    live: RefCell<Vec<u32>>,
    pub(crate) state: RefCell<State>,
    /// Whether any crash point is armed, so that unarmed runs pay one load a call.
    pub(crate) armed: Cell<bool>,
    pub(crate) limit_reached: Cell<bool>,
    polls: Cell<u32>,
    main: RefCell<Option<Waker>>,
    /// Tasks spawned by the world's own code.
    world_tasks: RefCell<Vec<madsim::task::AbortHandle>>,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("world_seed", &self.first_world_seed).finish_non_exhaustive()
    }
}

pub(crate) struct State {
    pub(crate) agenda: Agenda,
    pub(crate) nodes: Vec<Node>,
    pub(crate) net: Net,
    pub(crate) points: Points,
    /// Nodes that faults have taken out.
    pub(crate) undo: Vec<(FaultId, u32, Undo)>,
    pub(crate) effects: Effects,
    pub(crate) trace: Trace,
    pub(crate) story: Recorder,
}

impl Kernel {
    /// Must be called in a task of the runtime.
    pub(crate) fn new(config: &Config) -> Rc<Self> {
        let time = TimeHandle::current();
        let elapsed = time.elapsed();
        let limit = crate::time::nanos(config.sim_limit);
        let world = Node::world(config);
        Rc::new(Self {
            first_world_seed: config.world_seed,
            turn: config.tail.map(Turn::new),
            origin: time.now_instant() - elapsed,
            runtime: madsim::runtime::Handle::current(),
            time,
            limit,
            event_limit: config.event_limit,
            live: RefCell::new(vec![WORLD.incarnation]),
            state: RefCell::new(State {
                agenda: Agenda::new(limit),
                net: Net::new(config.law, config.loopback, &world),
                nodes: vec![world],
                points: Points::default(),
                undo: Vec::new(),
                effects: Effects::default(),
                trace: Trace::new(config.keep_trace),
                story: Recorder::new(config.keep_story),
            }),
            armed: Cell::new(false),
            limit_reached: Cell::new(false),
            polls: Cell::new(0),
            main: RefCell::new(None),
            world_tasks: RefCell::new(Vec::new()),
        })
    }

    pub(crate) fn now(&self) -> u64 {
        crate::time::nanos(self.time.elapsed())
    }

    /// The seed of this instant's draws.
    pub(crate) fn world_seed(&self) -> u64 {
        match &self.turn {
            Some(turn) => turn.world_seed(self.now()).unwrap_or(self.first_world_seed),
            None => self.first_world_seed,
        }
    }

    pub(crate) fn instant(&self, at: u64) -> std::time::Instant {
        self.origin + std::time::Duration::from_nanos(at)
    }

    pub(crate) fn alive(&self, ctx: Ctx) -> bool {
        self.live.borrow().get(ctx.node as usize) == Some(&ctx.incarnation)
    }

    pub(crate) fn set_live(&self, node: u32, incarnation: u32) {
        let mut live = self.live.borrow_mut();
        let n = node as usize;
        if live.len() <= n {
            live.resize(n + 1, 0);
        }
        live[n] = incarnation;
    }

    /// From here on nothing any node does has an effect.
    pub(crate) fn close(&self) {
        self.live.borrow_mut().fill(0);
        self.state.borrow_mut().agenda.close();
    }

    pub(crate) fn keep_world_task(&self, task: madsim::task::AbortHandle) {
        let mut tasks = self.world_tasks.borrow_mut();
        if tasks.len() >= 1024 && tasks.len().is_power_of_two() {
            tasks.retain(|t| !t.is_finished());
        }
        tasks.push(task);
    }

    /// Tells madsim to drop every task; they go at its next step.
    pub(crate) fn drop_tasks(&self) {
        let nodes: Vec<_> = self.state.borrow().nodes.iter().filter_map(|n| n.madsim).collect();
        nodes.into_iter().for_each(|id| self.runtime.kill(id));
        self.world_tasks.borrow_mut().drain(..).for_each(|task| task.abort());
    }

    pub(crate) fn set_main(&self, waker: &Waker) {
        let mut main = self.main.borrow_mut();
        if main.as_ref().is_none_or(|m| !m.will_wake(waker)) {
            *main = Some(waker.clone());
        }
    }

    pub(crate) fn reach_limit(&self) {
        self.limit_reached.set(true);
        if let Some(main) = &*self.main.borrow() {
            main.wake_by_ref();
        }
    }

    /// A loop that never waits lets no timer of the driver run: it is stopped from within a poll.
    fn check_limit(&self) {
        let polls = self.polls.get().wrapping_add(1);
        self.polls.set(polls);
        if polls.is_multiple_of(4096) && self.now() > self.limit {
            self.limit_reached.set(true);
            panic!("simulated time limit passed by a task that does not wait");
        }
    }

    pub(crate) fn effect(&self, id: FaultId, name: &'static str, n: u64) {
        self.state.borrow_mut().effects.add(id, name, n);
    }

    /// As [`Self::effect`], for a fault that waits for its victim.
    pub(crate) fn effect_met(&self, id: FaultId, name: &'static str, n: u64) {
        let now = self.now();
        self.state.borrow_mut().effects.meet(id, name, n, now);
    }
}

/// The kernel of this thread, if it runs a world.
pub(crate) fn current() -> Option<Rc<Kernel>> {
    if !active() {
        return None;
    }
    KERNEL.with(|k| k.borrow().clone())
}

/// True on a thread that runs a world.
#[inline]
pub fn active() -> bool {
    ACTIVE.with(Cell::get)
}

/// Calls `f` with this thread's kernel, without counting a reference.
pub(crate) fn with<T>(f: impl FnOnce(&Rc<Kernel>) -> T) -> Option<T> {
    if !active() {
        return None;
    }
    KERNEL.with(|k| k.borrow().as_ref().map(f))
}

pub(crate) fn install(kernel: Option<Rc<Kernel>>) {
    ACTIVE.with(|a| a.set(kernel.is_some()));
    // The old one is dropped outside the borrow: its destructors may ask for the current kernel.
    let old = KERNEL.with(|k| k.replace(kernel));
    drop(old);
}

/// Called where a panic begins, while its context is still current.
pub(crate) fn note_failing() {
    FAILING.with(|f| f.set(f.get().or(Some(ctx()))));
}

pub(crate) fn take_failing() -> Option<Ctx> {
    FAILING.with(Cell::take)
}

pub(crate) fn ctx() -> Ctx {
    CURRENT.with(Cell::get)
}

/// Restores the context on drop.
pub(crate) struct Entered(Ctx);

pub(crate) fn enter(ctx: Ctx) -> Entered {
    Entered(CURRENT.with(|c| c.replace(ctx)))
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|c| c.set(self.0));
    }
}

/// A task of one incarnation: polled and dropped in its context, and not polled at all once the incarnation is dead.
pub(crate) struct Tagged<F> {
    kernel: Rc<Kernel>,
    ctx: Ctx,
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Tagged<F> {
    pub(crate) fn new(kernel: Rc<Kernel>, ctx: Ctx, future: F) -> Self {
        Self { kernel, ctx, future: Some(Box::pin(future)) }
    }
}

impl<F: Future> Future for Tagged<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if !this.kernel.alive(this.ctx) {
            return Poll::Pending;
        }
        if let Some(turn) = &this.kernel.turn {
            turn.take(this.kernel.now());
        }
        this.kernel.check_limit();
        let _entered = enter(this.ctx);
        let Some(future) = &mut this.future else { return Poll::Pending };
        match future.as_mut().poll(cx) {
            // A task that finished in the poll in which its node died has finished for nobody.
            Poll::Ready(_) if !this.kernel.alive(this.ctx) => Poll::Pending,
            Poll::Ready(out) => {
                this.future = None;
                Poll::Ready(out)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<F> Drop for Tagged<F> {
    fn drop(&mut self) {
        let _entered = enter(self.ctx);
        self.future = None;
    }
}
