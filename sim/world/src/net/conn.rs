//! A connection: two ends and two directions, and the segments on their way.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;

use super::{BACKLOG, Block};
use crate::FaultId;
use crate::agenda::{Event, Key};
use crate::kernel::{Ctx, Kernel, State};
use crate::trace;

/// Linux gives up after about as long.
const GIVE_UP: u64 = 120_000_000_000;
/// First wait before a connection request is sent again.
const SYN_RTO: u64 = 1_000_000_000;

/// What travels.
#[derive(Debug)]
pub(crate) enum Segment {
    Syn,
    SynAck,
    Data(Bytes),
    /// No more data in this direction.
    Fin,
    Rst,
    /// So many bytes of the other direction were read: the sender may send more.
    Credit(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EndState {
    /// The connector's, until the answer.
    Opening,
    Open,
    /// The program let go of it.
    Closed,
    /// The machine lost power: nobody remembers this end.
    Forgotten,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) ctx: Ctx,
    pub(crate) addr: SocketAddr,
    pub(crate) state: EndState,
    pub(crate) error: Option<io::ErrorKind>,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Reads and writes so far, as coordinates of draws.
    pub(crate) reads: u64,
    pub(crate) writes: u64,
}

/// A segment on the wire, due at a time.
#[derive(Debug)]
struct Flight {
    sent: u64,
    at: u64,
    segment: Segment,
    /// First hold-up, and how often it was sent again since.
    blocked: Option<u64>,
    attempts: u32,
    /// It left the machine and will arrive even if the machine dies.
    on_wire: bool,
}

/// From one end to the other.
#[derive(Debug, Default)]
pub(crate) struct Dir {
    wire: VecDeque<Flight>,
    scheduled: Option<Key>,
    /// Segments so far, as coordinate of draws.
    sent: u64,
    /// Segments leave in order.
    last: u64,
    /// Bytes under way, unread, or read and not yet credited.
    pub(crate) used: usize,
    pub(crate) received: VecDeque<Bytes>,
    pub(crate) unread: usize,
    pub(crate) credit: usize,
    pub(crate) fin_sent: bool,
    pub(crate) fin_received: bool,
}

/// `dirs[n]` goes from `ends[n]` to `ends[1 - n]`; `ends[0]` connected.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: u64,
    /// Coordinate in draws: the how many-th connection of the connecting direction of the link.
    pub(crate) ordinal: u64,
    pub(crate) ends: [End; 2],
    pub(crate) dirs: [Dir; 2],
}

pub(crate) type Shared = Rc<RefCell<Conn>>;

impl End {
    pub(crate) fn new(ctx: Ctx, addr: SocketAddr, state: EndState) -> Self {
        Self { ctx, addr, state, error: None, reader: None, writer: None, reads: 0, writes: 0 }
    }

    pub(crate) fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn fail(&mut self, error: io::ErrorKind) {
        self.error.get_or_insert(error);
        self.wake();
    }
}

impl Conn {
    /// Puts a segment on the wire of direction `dir`.
    pub(crate) fn send(&mut self, k: &Kernel, s: &mut State, this: &Shared, dir: usize, segment: Segment, now: u64) {
        let (from, to) = (self.ends[dir].ctx.node, self.ends[1 - dir].ctx.node);
        let len = if let Segment::Data(data) = &segment { data.len() } else { 0 };
        let d = &mut self.dirs[dir];
        let link = s.net.link(from, to);
        let ids = [link.key, self.ordinal, d.sent << 1 | dir as u64];
        d.sent += 1;
        let passage = link.passage(k.world_seed(), now, ids, len);
        if let Some(fault) = link.disturbed_by() {
            s.effects.add(fault, "segments", 1);
            s.effects.add(fault, "segments_lost", u64::from(passage.lost));
        }
        d.last = d.last.max(passage.at);
        let on_wire = passage.lost == 0;
        d.wire.push_back(Flight { sent: now, at: d.last, segment, blocked: None, attempts: 0, on_wire });
        if d.wire.len() == 1 {
            let at = d.last;
            d.scheduled = Some(s.agenda.insert(k, at, Event::Deliver(Rc::clone(this), dir)));
        }
    }

    /// The program lets go of end `side`: the machine finishes sending, or resets if data was left unread.
    pub(crate) fn close(&mut self, k: &Kernel, s: &mut State, this: &Shared, side: usize, now: u64) {
        let end = &mut self.ends[side];
        if matches!(end.state, EndState::Closed | EndState::Forgotten) {
            return;
        }
        let opening = end.state == EndState::Opening;
        end.state = EndState::Closed;
        end.wake();
        if end.error.is_some() || opening {
            return;
        }
        let incoming = &mut self.dirs[1 - side];
        let unread = std::mem::take(&mut incoming.unread) > 0;
        incoming.received.clear();
        if unread {
            self.send(k, s, this, side, Segment::Rst, now);
        } else if !self.dirs[side].fin_sent {
            self.dirs[side].fin_sent = true;
            self.send(k, s, this, side, Segment::Fin, now);
        }
    }

    /// The machine of `side` lost power: what had not left it is lost.
    fn forget(&mut self, s: &mut State, side: usize) {
        self.ends[side].state = EndState::Forgotten;
        let keep = self.dirs[side].wire.iter().take_while(|f| f.on_wire).count();
        self.dirs[side].wire.truncate(keep);
        if keep == 0 {
            self.unschedule(s, side);
        }
        self.dirs[1 - side].received.clear();
        self.dirs[1 - side].unread = 0;
    }

    /// Both ends hear of a reset now.
    pub(crate) fn break_off(&mut self, s: &mut State) {
        for side in [0, 1] {
            self.dirs[side].wire.clear();
            self.unschedule(s, side);
            if matches!(self.ends[side].state, EndState::Open | EndState::Opening) {
                self.ends[side].fail(io::ErrorKind::ConnectionReset);
            }
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        let gone = |e: &End| matches!(e.state, EndState::Closed | EndState::Forgotten) || e.error.is_some();
        self.ends.iter().all(gone)
    }

    fn unschedule(&mut self, s: &mut State, dir: usize) {
        if let Some(key) = self.dirs[dir].scheduled.take() {
            s.agenda.remove(key);
        }
    }

    /// What a hold kept comes at once.
    pub(crate) fn release(&mut self, k: &Kernel, s: &mut State, this: &Shared, dir: usize, now: u64) -> u64 {
        if self.dirs[dir].scheduled.is_some() || self.dirs[dir].wire.is_empty() {
            return 0;
        }
        let key = s.agenda.insert(k, now, Event::Deliver(Rc::clone(this), dir));
        let d = &mut self.dirs[dir];
        d.scheduled = Some(key);
        d.wire[0].at = now;
        d.wire.iter().filter(|f| f.at <= now).count() as u64
    }
}

/// Serves the wire of one direction: all that is due arrives, unless something stands in the way of its head.
pub(crate) fn deliver(k: &Kernel, this: &Shared, dir: usize, now: u64) {
    let mut state = k.state.borrow_mut();
    let s = &mut *state;
    let mut conn = this.borrow_mut();
    let conn = &mut *conn;
    conn.dirs[dir].scheduled = None;
    let (from, to) = (conn.ends[dir].ctx.node, conn.ends[1 - dir].ctx.node);
    while let Some(head) = conn.dirs[dir].wire.front_mut() {
        let mut again = (head.at > now).then_some(head.at);
        if again.is_none() {
            let is_syn = matches!(head.segment, Segment::Syn);
            let link = s.net.link(from, to);
            let rto = if is_syn { SYN_RTO << head.attempts.min(6) } else { link.law().rto(head.attempts) };
            let block = link.blocks.iter().copied().find(|(_, b)| match b {
                Block::Cut | Block::Hold => true,
                Block::Hang => is_syn,
                Block::Refuse => false,
            });
            if let Some((fault, block)) = block {
                if head.attempts == 0 {
                    s.effects.add(fault, if is_syn { "connects_held" } else { "segments_held" }, 1);
                    if let Segment::Data(data) = &head.segment {
                        s.effects.add(fault, "bytes_held", data.len() as u64);
                    }
                }
                if block == Block::Hold {
                    head.attempts += 1;
                    return;
                }
                again = Some(now + rto);
            } else if !s.nodes[to as usize].powered() {
                again = Some(now + rto);
            }
            if again.is_some() {
                head.attempts += 1;
                head.on_wire = false;
                if now - *head.blocked.get_or_insert(now) > GIVE_UP {
                    conn.dirs[dir].wire.clear();
                    conn.ends[dir].fail(io::ErrorKind::TimedOut);
                    return;
                }
            }
        }
        if let Some(at) = again {
            head.at = at;
            let key = s.agenda.insert(k, at, Event::Deliver(Rc::clone(this), dir));
            conn.dirs[dir].scheduled = Some(key);
            return;
        }
        let Some(flight) = conn.dirs[dir].wire.pop_front() else { return };
        if let Segment::Data(data) = &flight.segment {
            s.story.message(flight.sent, now, from, to, data.len());
        }
        arrive(k, s, this, conn, dir, flight.segment, now);
    }
}

fn arrive(k: &Kernel, s: &mut State, this: &Shared, conn: &mut Conn, dir: usize, segment: Segment, now: u64) {
    let end = &mut conn.ends[1 - dir];
    let id = conn.id;
    let (kind, detail) = match &segment {
        Segment::Syn => ("syn", 0),
        Segment::SynAck => ("synack", 0),
        Segment::Data(data) => ("data", trace::content(data)),
        Segment::Fin => ("fin", 0),
        Segment::Rst => ("rst", 0),
        Segment::Credit(n) => ("credit", *n as u64),
    };
    s.trace.note(now, end.ctx, kind, id << 1 | dir as u64, detail);
    match segment {
        Segment::Syn => arrive_syn(k, s, this, conn, now),
        Segment::Rst => {
            if matches!(end.state, EndState::Open | EndState::Opening) {
                let refused = end.state == EndState::Opening;
                end.fail(if refused { io::ErrorKind::ConnectionRefused } else { io::ErrorKind::ConnectionReset });
            }
            // The sender of a reset hears nothing more.
            conn.dirs[1 - dir].wire.clear();
            conn.unschedule(s, 1 - dir);
        }
        // Half-open: a machine that was restarted since, or a program that let go, knows no such connection.
        _ if end.state == EndState::Forgotten => conn.send(k, s, this, 1 - dir, Segment::Rst, now),
        Segment::SynAck => match end.state {
            EndState::Opening => {
                end.state = EndState::Open;
                end.wake();
            }
            _ => conn.send(k, s, this, 1 - dir, Segment::Rst, now),
        },
        Segment::Data(data) => {
            if end.state == EndState::Closed {
                conn.send(k, s, this, 1 - dir, Segment::Rst, now);
            } else if end.error.is_none() {
                let d = &mut conn.dirs[dir];
                d.unread += data.len();
                d.received.push_back(data);
                if let Some(reader) = end.reader.take() {
                    reader.wake();
                }
            }
        }
        Segment::Fin => {
            conn.dirs[dir].fin_received = true;
            if let Some(reader) = end.reader.take() {
                reader.wake();
            }
        }
        Segment::Credit(n) => {
            let d = &mut conn.dirs[1 - dir];
            debug_assert!(n <= d.used, "credit of {n} for {} bytes", d.used);
            d.used -= n;
            if let Some(writer) = end.writer.take() {
                writer.wake();
            }
        }
    }
}

fn arrive_syn(k: &Kernel, s: &mut State, this: &Shared, conn: &mut Conn, now: u64) {
    let (from, to) = (conn.ends[0].ctx.node, conn.ends[1].ctx.node);
    let refuse = s.net.link(from, to).blocks.iter().find(|b| b.1 == Block::Refuse).map(|b| b.0);
    if let Some(fault) = refuse {
        s.effects.add(fault, "connects_refused", 1);
    }
    let key = (to, conn.ends[1].addr.port());
    match s.net.listeners.get_mut(&key) {
        Some(queue) if refuse.is_none() => {
            if queue.waiting.len() >= BACKLOG {
                // Dropped; the connector tries again.
                let flight = Flight {
                    sent: now,
                    at: now + SYN_RTO,
                    segment: Segment::Syn,
                    blocked: None,
                    attempts: 1,
                    on_wire: false,
                };
                conn.dirs[0].wire.push_front(flight);
                return;
            }
            conn.ends[1].ctx = queue.ctx;
            conn.ends[1].state = EndState::Open;
            queue.waiting.push_back(Rc::clone(this));
            queue.wake();
            conn.send(k, s, this, 1, Segment::SynAck, now);
        }
        _ => {
            conn.ends[1].state = EndState::Closed;
            conn.send(k, s, this, 1, Segment::Rst, now);
        }
    }
}

/// All connections with an end on `node`, in order of opening, and which end.
fn of_node(s: &mut State, node: u32) -> Vec<(Shared, usize)> {
    let mut found = Vec::new();
    s.net.conns.retain(|_, weak| {
        let Some(conn) = weak.upgrade() else { return false };
        let c = conn.borrow();
        for side in [0, 1] {
            // While nobody has answered, the far end is no process's.
            let asked = side == 1 && c.ends[1].state == EndState::Opening;
            if c.ends[side].ctx.node == node && !asked {
                found.push((Rc::clone(&conn), side));
            }
        }
        true
    });
    found
}

/// Closes the sockets of a process that died, or forgets them with its machine.
pub(crate) fn node_died(k: &Kernel, node: u32, power: bool, fault: FaultId, now: u64) {
    let mut state = k.state.borrow_mut();
    let s = &mut *state;
    s.net.listeners.retain(|&(n, _), _| n != node);
    for (conn, side) in of_node(s, node) {
        let mut c = conn.borrow_mut();
        if matches!(c.ends[side].state, EndState::Open | EndState::Opening) && c.ends[side].error.is_none() {
            s.effects.add(fault, if power { "connections_left_half_open" } else { "connections_closed" }, 1);
        }
        if power {
            c.forget(s, side);
        } else {
            c.close(k, s, &conn, side, now);
        }
    }
}

/// As after a crash, but no fault did it.
pub(crate) fn node_exited(k: &Kernel, node: u32, now: u64) {
    let mut state = k.state.borrow_mut();
    let s = &mut *state;
    s.net.listeners.retain(|&(n, _), _| n != node);
    for (conn, side) in of_node(s, node) {
        conn.borrow_mut().close(k, s, &conn, side, now);
    }
}
