//! A program's handle to one end of a connection.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::WINDOW;
use super::conn::{Conn, Dir, End, EndState, Segment, Shared};
use super::listener::ephemeral;
use crate::When;
use crate::kernel::{Ctx, Kernel};

/// One end of a connection. Dropping it closes it, unless its node is dead: then the machine has done so.
#[derive(Debug)]
pub struct Stream {
    kernel: Rc<Kernel>,
    ctx: Ctx,
    conn: Shared,
    side: usize,
}

/// A connection request under way.
#[derive(Debug)]
struct Connect(Option<Stream>);

impl Stream {
    pub(crate) fn new(kernel: Rc<Kernel>, ctx: Ctx, conn: Shared, side: usize) -> Self {
        Self { kernel, ctx, conn, side }
    }

    pub(crate) async fn connect(kernel: &Rc<Kernel>, ctx: Ctx, addr: SocketAddr) -> io::Result<Self> {
        kernel.crash_point("net.connect", When::Before).await;
        let stream = Connect::start(kernel, ctx, addr)?.await?;
        kernel.crash_point("net.connect", When::After).await;
        Ok(stream)
    }

    pub fn peer_addr(&self) -> SocketAddr {
        self.conn.borrow().ends[1 - self.side].addr
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.conn.borrow().ends[self.side].addr
    }

    /// How much of `len` this read or write may take, under the law's chopping.
    fn chop(&self, from: u32, to: u32, what: &str, ids: [u64; 3], len: usize) -> usize {
        let mut state = self.kernel.state.borrow_mut();
        let state = &mut *state;
        let link = state.net.link(from, to);
        let ppm = link.law().chop_ppm;
        if ppm == 0 || len <= 1 {
            return len;
        }
        let ids = [link.key, ids[0], ids[1], ids[2]];
        if !seed::draw(self.kernel.world_seed(), what, &ids).chance(u64::from(ppm), 1_000_000) {
            return len;
        }
        if let Some(fault) = link.disturbed_by() {
            state.effects.add(fault, "chopped", 1);
        }
        let part = seed::draw(self.kernel.world_seed(), "part", &ids).range(1, len as u64);
        usize::try_from(part).unwrap_or(len)
    }
}

impl Connect {
    fn start(kernel: &Rc<Kernel>, ctx: Ctx, addr: SocketAddr) -> io::Result<Self> {
        let now = kernel.now();
        let mut state = kernel.state.borrow_mut();
        let s = &mut *state;
        let Some(to) = s.net.resolve(ctx.node, addr) else { return Err(io::ErrorKind::HostUnreachable.into()) };
        if addr.port() == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let node = &mut s.nodes[ctx.node as usize];
        let port = ephemeral(&mut node.next_port, |_| false)?;
        let local = SocketAddr::new(node.ip, port);
        // Until it is accepted the far end belongs to the machine and to no process.
        let far = Ctx { node: to, incarnation: 0 };
        let link = s.net.link(ctx.node, to);
        let ordinal = link.opened;
        link.opened += 1;
        let id = s.net.opened;
        s.net.opened += 1;
        let conn = Rc::new(RefCell::new(Conn {
            id,
            ordinal,
            ends: [End::new(ctx, local, EndState::Opening), End::new(far, addr, EndState::Opening)],
            dirs: [Dir::default(), Dir::default()],
        }));
        s.net.conns.insert(id, Rc::downgrade(&conn));
        if id.is_multiple_of(64) {
            s.net.conns.retain(|_, conn| conn.strong_count() > 0);
        }
        conn.borrow_mut().send(kernel, s, &conn, 0, Segment::Syn, now);
        Ok(Self(Some(Stream { kernel: Rc::clone(kernel), ctx, conn, side: 0 })))
    }
}

impl Future for Connect {
    type Output = io::Result<Stream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(stream) = &self.0 else { return Poll::Pending };
        if !stream.kernel.alive(stream.ctx) {
            return Poll::Pending;
        }
        let mut conn = stream.conn.borrow_mut();
        let end = &mut conn.ends[0];
        let out = if let Some(error) = end.error {
            end.state = EndState::Closed;
            Err(error.into())
        } else if end.state == EndState::Opening {
            end.reader = Some(cx.waker().clone());
            return Poll::Pending;
        } else {
            Ok(())
        };
        drop(conn);
        match (out, self.0.take()) {
            (Ok(()), Some(stream)) => Poll::Ready(Ok(stream)),
            (Err(e), _) => Poll::Ready(Err(e)),
            (Ok(()), None) => Poll::Pending,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &*self;
        let (here, there) = (this.side, 1 - this.side);
        let ready = this.kernel.armed.get() && this.conn.borrow().dirs[there].unread > 0;
        if !this.kernel.alive(this.ctx) || (ready && !this.kernel.reach("net.read", When::Before)) {
            return Poll::Pending;
        }
        let mut conn = this.conn.borrow_mut();
        let c = &mut *conn;
        let end = &mut c.ends[here];
        let d = &mut c.dirs[there];
        if d.unread > 0 {
            let from = c.ends[there].ctx.node;
            let want = d.unread.min(buf.remaining());
            c.ends[here].reads += 1;
            let ids = [c.ordinal, here as u64, c.ends[here].reads];
            let mut left = this.chop(from, this.ctx.node, "chop-read", ids, want);
            let taken = left;
            while left > 0 {
                let Some(front) = d.received.front_mut() else { break };
                let n = left.min(front.len());
                buf.put_slice(&front[..n]);
                front.advance(n);
                if front.is_empty() {
                    d.received.pop_front();
                }
                left -= n;
            }
            d.unread -= taken;
            d.credit += taken;
            // The window opens in large steps; all that is used gets read at last, so a blocked writer is let go.
            if d.credit >= WINDOW / 2 {
                let credit = std::mem::take(&mut d.credit);
                let (k, now) = (&this.kernel, this.kernel.now());
                c.send(k, &mut k.state.borrow_mut(), &this.conn, here, Segment::Credit(credit), now);
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = end.error {
            return Poll::Ready(Err(error.into()));
        }
        if d.fin_received || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        renew(&mut end.reader, cx);
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &*self;
        let (here, there) = (this.side, 1 - this.side);
        let ready = this.kernel.armed.get() && this.conn.borrow().dirs[here].used < WINDOW;
        if !this.kernel.alive(this.ctx) || (ready && !this.kernel.reach("net.write", When::Before)) {
            return Poll::Pending;
        }
        let mut conn = this.conn.borrow_mut();
        let c = &mut *conn;
        let end = &mut c.ends[here];
        if let Some(error) = end.error {
            return Poll::Ready(Err(error.into()));
        }
        if c.dirs[here].fin_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let free = WINDOW - c.dirs[here].used;
        if free == 0 {
            renew(&mut end.writer, cx);
            return Poll::Pending;
        }
        end.writes += 1;
        let ids = [c.ordinal, 2 + here as u64, end.writes];
        let to = c.ends[there].ctx.node;
        let n = this.chop(this.ctx.node, to, "chop-write", ids, data.len().min(free));
        c.dirs[here].used += n;
        let k = &this.kernel;
        let now = k.now();
        c.send(k, &mut k.state.borrow_mut(), &this.conn, here, Segment::Data(Bytes::copy_from_slice(&data[..n])), now);
        drop(conn);
        if k.armed.get() && !k.reach("net.write", When::After) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(n))
    }

    /// Nothing waits here: what was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.kernel.alive(self.ctx) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &*self;
        if !this.kernel.alive(this.ctx) {
            return Poll::Pending;
        }
        let mut c = this.conn.borrow_mut();
        if c.ends[this.side].error.is_some() {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        if !c.dirs[this.side].fin_sent {
            c.dirs[this.side].fin_sent = true;
            let k = &this.kernel;
            let now = k.now();
            c.send(k, &mut k.state.borrow_mut(), &this.conn, this.side, Segment::Fin, now);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.kernel.alive(self.ctx) {
            let now = self.kernel.now();
            let mut conn = self.conn.borrow_mut();
            conn.close(&self.kernel, &mut self.kernel.state.borrow_mut(), &self.conn, self.side, now);
        }
    }
}

fn renew(slot: &mut Option<std::task::Waker>, cx: &Context<'_>) {
    match slot {
        Some(held) if held.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}
