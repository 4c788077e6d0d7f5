//! What the world will do and when: one ordered map for timers, deliveries and recoveries, and the driver task that
//! serves it.
//!
//! madsim's own timers cannot be cancelled and pile up. Here an entry leaves the map when its owner drops it, and
//! madsim is asked for a wake-up (an *alarm*) only when the next entry is earlier than every alarm outstanding. The
//! alarms therefore form a stack of falling times, whose depth stays below the number of distinct waits nested in
//! one another; a long timer is asked for once, not once a message.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::FaultId;
use crate::kernel::{Ctx, Kernel};
use crate::net::{self, Conn};

/// (time in nanoseconds, order of entry).
pub(crate) type Key = (u64, u64);

#[derive(Debug)]
pub(crate) enum Event {
    Wake(Ctx, Waker),
    Deliver(Rc<RefCell<Conn>>, usize),
    Recover(FaultId),
}

#[derive(Debug)]
pub(crate) struct Agenda {
    entries: BTreeMap<Key, Event>,
    entered: u64,
    alarms: Vec<u64>,
    driver: Option<Waker>,
    limit: u64,
    closed: bool,
}

impl Agenda {
    pub(crate) fn new(limit: u64) -> Self {
        Self { entries: BTreeMap::new(), entered: 0, alarms: Vec::new(), driver: None, limit, closed: false }
    }

    pub(crate) fn insert(&mut self, kernel: &Kernel, at: u64, event: Event) -> Key {
        let key = (at, self.entered);
        self.entered += 1;
        self.entries.insert(key, event);
        self.alarm(kernel, at);
        key
    }

    pub(crate) fn wake_at(&mut self, kernel: &Kernel, at: u64, ctx: Ctx, waker: Waker) -> Key {
        self.insert(kernel, at, Event::Wake(ctx, waker))
    }

    /// False if the entry is gone, that is, has fired.
    pub(crate) fn renew(&mut self, key: Key, waker: &Waker) -> bool {
        match self.entries.get_mut(&key) {
            Some(Event::Wake(_, held)) => {
                if !held.will_wake(waker) {
                    held.clone_from(waker);
                }
                true
            }
            _ => false,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) {
        self.entries.remove(&key);
    }

    /// Wakes every timer of a node, whose clock has changed; those not yet due enter anew.
    pub(crate) fn wake_node(&mut self, node: u32) {
        for event in self.entries.values() {
            if let Event::Wake(ctx, waker) = event
                && ctx.node == node
            {
                waker.wake_by_ref();
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Lets go of everything, and of the driver task.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.entries.clear();
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    fn pop_due(&mut self, now: u64) -> Option<Event> {
        let entry = self.entries.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    fn alarm(&mut self, kernel: &Kernel, at: u64) {
        let at = at.min(self.limit);
        if self.alarms.last().is_some_and(|&earliest| earliest <= at) {
            return;
        }
        // Before the driver's first poll there is nobody to wake; that poll sets the alarm.
        let Some(driver) = &self.driver else { return };
        self.alarms.push(at);
        // A fresh `Sleep` is clamped to 1 ms from now; `reset` is not, so the world has sub-millisecond time.
        let mut sleep = pin!(kernel.time.sleep(Duration::ZERO));
        sleep.as_mut().reset(kernel.instant(at));
        if sleep.poll(&mut Context::from_waker(driver)).is_ready() {
            self.alarms.pop();
            driver.wake_by_ref();
        }
    }
}

/// Serves the agenda until it is closed.
pub(crate) async fn drive(kernel: Rc<Kernel>) {
    poll_fn(|cx| {
        let now = kernel.now();
        {
            let state = &mut *kernel.state.borrow_mut();
            let (agenda, events) = (&mut state.agenda, state.trace.count());
            if agenda.closed {
                return Poll::Ready(());
            }
            if agenda.driver.as_ref().is_none_or(|d| !d.will_wake(cx.waker())) {
                agenda.driver = Some(cx.waker().clone());
            }
            while agenda.alarms.last().is_some_and(|&at| at <= now) {
                agenda.alarms.pop();
            }
            if now >= agenda.limit || events >= kernel.event_limit {
                kernel.reach_limit();
                return Poll::Pending;
            }
        }
        loop {
            let event = kernel.state.borrow_mut().agenda.pop_due(now);
            match event {
                None => break,
                Some(Event::Wake(ctx, waker)) => {
                    kernel.state.borrow_mut().trace.note(now, ctx, "timer", 0, 0);
                    waker.wake();
                }
                Some(Event::Deliver(conn, dir)) => net::deliver(&kernel, &conn, dir, now),
                Some(Event::Recover(fault)) => kernel.recover(fault),
            }
        }
        let agenda = &mut kernel.state.borrow_mut().agenda;
        if let Some((&(at, _), _)) = agenda.entries.first_key_value() {
            agenda.alarm(&kernel, at);
        }
        Poll::Pending
    })
    .await;
}
