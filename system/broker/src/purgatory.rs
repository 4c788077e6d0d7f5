//! Where fetches wait until there is something to read.
//!
//! A waiter is a future that may be dropped at any time: it leaves the purgatory then. Nothing it has "taken" is lost,
//! since it takes nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use log::Offset;

use crate::partition::Isolation;

#[derive(Debug)]
struct Inner {
    high_watermark: Offset,
    last_stable_offset: Offset,
    closed: bool,
    /// By isolation, then by the offset beyond which they wait: those that a bound passes are a prefix.
    waiting: [BTreeMap<(Offset, u64), Waker>; 2],
    next: u64,
}

/// The waiters of one partition, and the bounds they wait for.
#[derive(Clone, Debug)]
pub(crate) struct Purgatory(Rc<RefCell<Inner>>);

impl Purgatory {
    pub fn new(high_watermark: Offset, last_stable_offset: Offset) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            high_watermark,
            last_stable_offset,
            closed: false,
            waiting: [BTreeMap::new(), BTreeMap::new()],
            next: 0,
        })))
    }

    /// (high watermark, last stable offset) as of the same moment.
    pub fn bounds(&self) -> (Offset, Offset) {
        let inner = self.0.borrow();
        (inner.high_watermark, inner.last_stable_offset)
    }

    /// Moves the bounds and wakes those they pass, in order of what they wait for.
    pub fn publish(&self, high_watermark: Offset, last_stable_offset: Offset) {
        let mut wake = Vec::new();
        let mut inner = self.0.borrow_mut();
        inner.high_watermark = high_watermark;
        inner.last_stable_offset = last_stable_offset;
        for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
            let bound = inner.bound(isolation);
            let waiting = &mut inner.waiting[isolation as usize];
            let later = waiting.split_off(&(bound, 0));
            wake.extend(std::mem::replace(waiting, later).into_values());
        }
        drop(inner);
        wake.into_iter().for_each(Waker::wake);
    }

    /// Wakes everybody: nothing more will come.
    pub fn close(&self) {
        let mut inner = self.0.borrow_mut();
        inner.closed = true;
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        waiting.into_iter().flat_map(BTreeMap::into_values).for_each(Waker::wake);
    }

    pub fn is_closed(&self) -> bool {
        self.0.borrow().closed
    }

    /// Ready once the bound of `isolation` is past `from`, or nothing more will come.
    pub fn wait(&self, from: Offset, isolation: Isolation) -> Readable {
        let id = {
            let mut inner = self.0.borrow_mut();
            inner.next += 1;
            inner.next
        };
        Readable { purgatory: self.clone(), key: (from, id), isolation }
    }
}

impl Inner {
    fn bound(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable_offset,
        }
    }
}

/// See [`Purgatory::wait`].
#[derive(Debug)]
pub struct Readable {
    purgatory: Purgatory,
    key: (Offset, u64),
    isolation: Isolation,
}

impl Future for Readable {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.purgatory.0.borrow_mut();
        if inner.closed || inner.bound(self.isolation) > self.key.0 {
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

    #[test]
    fn each_isolation_waits_for_its_own_bound() {
        let p = Purgatory::new(5, 5);
        let mut dirty = p.wait(5, Isolation::ReadUncommitted);
        let mut stable = p.wait(5, Isolation::ReadCommitted);
        assert!(!ready(&mut dirty) && !ready(&mut stable));
        p.publish(8, 5);
        assert!(ready(&mut dirty) && !ready(&mut stable));
        p.publish(8, 8);
        assert!(ready(&mut stable));
        assert!(ready(&mut p.wait(7, Isolation::ReadCommitted)), "ready at once");
        assert!(!ready(&mut p.wait(8, Isolation::ReadCommitted)), "the bound is exclusive");
    }

    #[test]
    fn a_dropped_waiter_leaves_nothing_behind() {
        let p = Purgatory::new(0, 0);
        let mut w = p.wait(0, Isolation::ReadUncommitted);
        assert!(!ready(&mut w));
        assert_eq!(p.0.borrow().waiting[0].len(), 1);
        drop(w);
        assert_eq!(p.0.borrow().waiting[0].len(), 0);
        let mut w = p.wait(0, Isolation::ReadUncommitted);
        assert!(!ready(&mut w));
        p.close();
        assert!(ready(&mut w));
    }
}
