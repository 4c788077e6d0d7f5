//! Listening: a queue of connections that arrived, bounded by the backlog.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::conn::{EndState, Segment, Shared};
use super::stream::Stream;
use crate::When;
use crate::kernel::{Ctx, Kernel};
use crate::life::FIRST_EPHEMERAL;

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) ctx: Ctx,
    pub(crate) waiting: VecDeque<Shared>,
    acceptors: Vec<Waker>,
}

impl Queue {
    pub(crate) fn wake(&mut self) {
        for waker in self.acceptors.drain(..) {
            waker.wake();
        }
    }
}

/// A listening socket of a node.
#[derive(Debug)]
pub struct Listener {
    kernel: Rc<Kernel>,
    ctx: Ctx,
    addr: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(kernel: &Rc<Kernel>, ctx: Ctx, mut addr: SocketAddr) -> io::Result<Self> {
        let mut state = kernel.state.borrow_mut();
        let state = &mut *state;
        let node = &mut state.nodes[ctx.node as usize];
        if addr.ip() != node.ip && state.net.resolve(ctx.node, addr) != Some(ctx.node) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        if addr.ip().is_unspecified() {
            addr.set_ip(node.ip);
        }
        if addr.port() == 0 {
            addr.set_port(ephemeral(&mut node.next_port, |port| state.net.listeners.contains_key(&(ctx.node, port)))?);
        }
        let key = (ctx.node, addr.port());
        if state.net.listeners.contains_key(&key) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.net.listeners.insert(key, Queue { ctx, waiting: VecDeque::new(), acceptors: Vec::new() });
        state.trace.note(kernel.now(), ctx, "listen", u64::from(addr.port()), 0);
        Ok(Self { kernel: Rc::clone(kernel), ctx, addr })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (k, ctx) = (&self.kernel, self.ctx);
        k.crash_point("net.accept", When::Before).await;
        let conn = poll_fn(|cx| {
            if !k.alive(ctx) {
                return Poll::Pending;
            }
            let mut state = k.state.borrow_mut();
            let Some(queue) = state.net.listeners.get_mut(&(ctx.node, self.addr.port())) else {
                return Poll::Pending;
            };
            match queue.waiting.pop_front() {
                Some(conn) => Poll::Ready(conn),
                None => {
                    if queue.acceptors.iter().all(|w| !w.will_wake(cx.waker())) {
                        queue.acceptors.push(cx.waker().clone());
                    }
                    Poll::Pending
                }
            }
        })
        .await;
        let peer = conn.borrow().ends[0].addr;
        // The stream exists before the crash point, so that a death there closes it with the rest.
        let stream = Stream::new(Rc::clone(k), ctx, conn, 1);
        k.crash_point("net.accept", When::After).await;
        Ok((stream, peer))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if !self.kernel.alive(self.ctx) {
            return;
        }
        let now = self.kernel.now();
        let mut state = self.kernel.state.borrow_mut();
        let s = &mut *state;
        let Some(queue) = s.net.listeners.remove(&(self.ctx.node, self.addr.port())) else { return };
        // Nobody will accept these.
        for conn in queue.waiting {
            let mut c = conn.borrow_mut();
            c.ends[1].state = EndState::Closed;
            c.send(&self.kernel, s, &conn, 1, Segment::Rst, now);
        }
    }
}

/// The next free port from `next` on, counting round.
pub(crate) fn ephemeral(next: &mut u16, taken: impl Fn(u16) -> bool) -> io::Result<u16> {
    for _ in FIRST_EPHEMERAL..=u16::MAX {
        let port = *next;
        *next = next.checked_add(1).unwrap_or(FIRST_EPHEMERAL);
        if !taken(port) {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
