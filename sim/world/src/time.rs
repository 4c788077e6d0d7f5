//! The world's own time, which no node can read, and futures that wait for it.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::agenda::Key;
use crate::kernel::{Ctx, Kernel};

/// Nanoseconds since the world began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SimTime(u64);

impl SimTime {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    pub const fn as_duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

impl std::ops::Add<Duration> for SimTime {
    type Output = SimTime;

    fn add(self, d: Duration) -> SimTime {
        SimTime(self.0.saturating_add(nanos(d)))
    }
}

impl std::ops::Sub<SimTime> for SimTime {
    type Output = Duration;

    fn sub(self, earlier: SimTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::fmt::Display for SimTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1_000)
    }
}

pub(crate) fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// When a wait ends: at a moment of the world, or of the node's own clock.
#[derive(Clone, Copy, Debug)]
enum Deadline {
    World(u64),
    Node(u64),
}

/// A wait. Dropping it frees its place in the agenda.
#[derive(Debug)]
pub struct Sleep {
    kernel: Rc<Kernel>,
    ctx: Ctx,
    deadline: Deadline,
    key: Option<Key>,
}

impl Sleep {
    pub(crate) fn until_world(kernel: Rc<Kernel>, ctx: Ctx, at: u64) -> Self {
        Self { kernel, ctx, deadline: Deadline::World(at), key: None }
    }

    pub(crate) fn until_node(kernel: Rc<Kernel>, ctx: Ctx, at: u64) -> Self {
        Self { kernel, ctx, deadline: Deadline::Node(at), key: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.kernel.alive(this.ctx) {
            return Poll::Pending;
        }
        let now = this.kernel.now();
        let mut state = this.kernel.state.borrow_mut();
        let state = &mut *state;
        let at = match this.deadline {
            Deadline::World(at) => at,
            // Asked anew at each poll: the clock may have changed its rate meanwhile.
            Deadline::Node(at) => state.nodes[this.ctx.node as usize].clock.world_time(at),
        };
        if at <= now {
            if let Some(key) = this.key.take() {
                state.agenda.remove(key);
            }
            return Poll::Ready(());
        }
        if let Some(key) = this.key {
            if key.0 == at && state.agenda.renew(key, cx.waker()) {
                return Poll::Pending;
            }
            state.agenda.remove(key);
        }
        this.key = Some(state.agenda.wake_at(&this.kernel, at, this.ctx, cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.kernel.state.borrow_mut().agenda.remove(key);
        }
    }
}
