//! Where fetches wait until there is something to read, and deletions of records until replicas have followed.
//!
//! A waiter is a future that may be dropped at any time: it leaves the purgatory then. Nothing it has "taken" is lost,
//! since it takes nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use env::sync::Notify;
use log::Offset;

use crate::partition::Isolation;
use crate::partition::machine::Bounds;

#[derive(Debug)]
struct Inner {
    bounds: Bounds,
    /// Counts the roles that the replica has had.
    role: u64,
    closed: bool,
    /// By isolation, then by the offset beyond which they wait: those that a bound passes are a prefix.
    waiting: [BTreeMap<(Offset, u64), Waker>; 3],
    next: u64,
}

/// The waiters of one partition, and the bounds they wait for.
#[derive(Clone, Debug)]
pub(crate) struct Purgatory(Rc<RefCell<Inner>>, Rc<Notify>);

impl Purgatory {
    pub fn new(bounds: Bounds) -> Self {
        let waiting = Default::default();
        Self(Rc::new(RefCell::new(Inner { bounds, role: 0, closed: false, waiting, next: 0 })), Rc::default())
    }

    /// All of the same moment.
    pub fn bounds(&self) -> Bounds {
        self.0.borrow().bounds
    }

    pub fn role(&self) -> u64 {
        self.0.borrow().role
    }

    /// Moves the bounds and wakes those they pass, in order of what they wait for.
    pub fn publish(&self, bounds: Bounds) {
        let mut wake = Vec::new();
        let mut inner = self.0.borrow_mut();
        inner.bounds = bounds;
        for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted, Isolation::Replica] {
            let bound = inner.bound(isolation);
            let waiting = &mut inner.waiting[isolation as usize];
            let later = waiting.split_off(&(bound, 0));
            wake.extend(std::mem::replace(waiting, later).into_values());
        }
        drop(inner);
        wake.into_iter().for_each(Waker::wake);
    }

    /// Wakes everybody: the replica has another role, and they must ask elsewhere or anew.
    pub fn role_changed(&self) {
        self.0.borrow_mut().role += 1;
        self.wake_all();
    }

    /// Wakes everybody: nothing more will come.
    pub fn close(&self) {
        self.0.borrow_mut().closed = true;
        self.wake_all();
    }

    /// The log of a replica begins elsewhere.
    pub fn start_moved(&self) {
        self.1.notify_waiters();
    }

    /// Ready with the next [`Purgatory::start_moved`], change of the role, or end after this call.
    pub fn start_moves(&self) -> impl Future<Output = ()> + '_ {
        self.1.notified()
    }

    fn wake_all(&self) {
        self.start_moved();
        let waiting = std::mem::take(&mut self.0.borrow_mut().waiting);
        waiting.into_iter().flat_map(BTreeMap::into_values).for_each(Waker::wake);
    }

    pub fn is_closed(&self) -> bool {
        self.0.borrow().closed
    }

    /// Ready once the bound of `isolation` is past `from`, the role is another than `role`, or nothing more will come.
    pub fn wait(&self, from: Offset, isolation: Isolation, role: u64) -> Readable {
        let id = {
            let mut inner = self.0.borrow_mut();
            inner.next += 1;
            inner.next
        };
        Readable { purgatory: self.clone(), key: (from, id), isolation, role }
    }
}

impl Inner {
    fn bound(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::ReadUncommitted => self.bounds.high_watermark,
            Isolation::ReadCommitted => self.bounds.last_stable_offset,
            Isolation::Replica => self.bounds.log_end,
        }
    }
}

/// See [`Purgatory::wait`].
#[derive(Debug)]
pub struct Readable {
    purgatory: Purgatory,
    key: (Offset, u64),
    isolation: Isolation,
    role: u64,
}

impl Future for Readable {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.purgatory.0.borrow_mut();
        if inner.closed || inner.role != self.role || inner.bound(self.isolation) > self.key.0 {
            return Poll::Ready(());
        }
        inner.waiting[self.isolation as usize].insert(self.key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Readable {
    fn drop(&mut self) {
        self.purgatory.0.borrow_mut().waiting[self.isolation as usize].remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(f: &mut Readable) -> bool {
        Pin::new(f).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn bounds(high_watermark: Offset, last_stable_offset: Offset, log_end: Offset) -> Bounds {
        Bounds { high_watermark, last_stable_offset, log_end }
    }

    #[test]
    fn each_isolation_waits_for_its_own_bound() {
        let p = Purgatory::new(bounds(5, 5, 5));
        let mut dirty = p.wait(5, Isolation::ReadUncommitted, 0);
        let mut stable = p.wait(5, Isolation::ReadCommitted, 0);
        let mut replica = p.wait(5, Isolation::Replica, 0);
        assert!(!ready(&mut dirty) && !ready(&mut stable) && !ready(&mut replica));
        p.publish(bounds(5, 5, 8));
        assert!(ready(&mut replica) && !ready(&mut dirty));
        p.publish(bounds(8, 5, 8));
        assert!(ready(&mut dirty) && !ready(&mut stable));
        p.publish(bounds(8, 8, 8));
        assert!(ready(&mut stable));
        assert!(ready(&mut p.wait(7, Isolation::ReadCommitted, 0)), "ready at once");
        assert!(!ready(&mut p.wait(8, Isolation::ReadCommitted, 0)), "the bound is exclusive");
    }

    #[test]
    fn a_dropped_waiter_leaves_nothing_behind() {
        let p = Purgatory::new(bounds(0, 0, 0));
        let mut w = p.wait(0, Isolation::ReadUncommitted, 0);
        assert!(!ready(&mut w));
        assert_eq!(p.0.borrow().waiting[0].len(), 1);
        drop(w);
        assert_eq!(p.0.borrow().waiting[0].len(), 0);
        let mut w = p.wait(0, Isolation::ReadUncommitted, 0);
        assert!(!ready(&mut w));
        p.close();
        assert!(ready(&mut w));
    }

    #[test]
    fn another_role_wakes_everybody_also_who_comes_late() {
        let p = Purgatory::new(bounds(0, 0, 0));
        let mut w = p.wait(0, Isolation::Replica, p.role());
        assert!(!ready(&mut w));
        p.role_changed();
        assert!(ready(&mut w));
        assert!(ready(&mut p.wait(0, Isolation::Replica, 0)), "read before the change, waits after it");
        assert!(!ready(&mut p.wait(0, Isolation::Replica, p.role())));
    }
}
