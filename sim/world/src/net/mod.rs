//! The network between nodes, as TCP shows it to programs.
//!
//! ```text
//!  write -> [window 64 kB] -> wire queue of one direction --(law, blocks)--> receive queue -> read
//!                              head-of-line: only its first segment waits in the agenda
//! ```
//!
//! A direction delivers in order. Its head, when a link is cut or the machine at the end has no power, is sent again
//! after a doubling time-out; everything behind it waits, as in TCP. A segment that reaches an end that is closed or
//! forgotten is answered by a reset. The bytes of a connection that its program dropped are still under way and
//! arrive, because the queue belongs to the machine and not to the handle.

mod conn;
mod faults;
mod link;
mod listener;
mod stream;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Weak;

pub(crate) use conn::{Conn, deliver, node_died, node_exited};
pub(crate) use faults::{Pairs, block, disturb, heal, reset, set_base};
pub use link::LinkLaw;
pub(crate) use link::{Block, Link};
pub use listener::Listener;
pub use stream::Stream;

use crate::life::Node;
use listener::Queue;

/// Bytes of one direction that may be under way or unread.
pub(crate) const WINDOW: usize = 64 * 1024;
/// Connections a listener holds before it drops requests.
pub(crate) const BACKLOG: usize = 128;

#[derive(Debug)]
pub(crate) struct Net {
    by_ip: BTreeMap<IpAddr, u32>,
    listeners: BTreeMap<(u32, u16), Queue>,
    /// By sender, then receiver.
    links: Vec<Vec<Link>>,
    law: LinkLaw,
    loopback: LinkLaw,
    conns: BTreeMap<u64, Weak<RefCell<Conn>>>,
    opened: u64,
}

impl Net {
    pub(crate) fn new(law: LinkLaw, loopback: LinkLaw, world: &Node) -> Self {
        let mut net = Self {
            by_ip: BTreeMap::new(),
            listeners: BTreeMap::new(),
            links: Vec::new(),
            law,
            loopback,
            conns: BTreeMap::new(),
            opened: 0,
        };
        net.add_node(0, world, &[]);
        net
    }

    pub(crate) fn add_node(&mut self, index: u32, node: &Node, others: &[Node]) {
        assert_eq!(index as usize, self.links.len(), "nodes are added in order");
        assert!(!node.ip.is_loopback() && !node.ip.is_unspecified(), "{} cannot be a node's address", node.ip);
        let taken = self.by_ip.insert(node.ip, index);
        assert!(taken.is_none(), "two nodes have the address {}", node.ip);
        let key = |from: u64, to: u64| from.rotate_left(17) ^ to.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for (row, other) in self.links.iter_mut().zip(others) {
            row.push(Link::new(key(other.key, node.key), self.law));
        }
        let mut row: Vec<_> = others.iter().map(|other| Link::new(key(node.key, other.key), self.law)).collect();
        row.push(Link::new(key(node.key, node.key), self.loopback));
        self.links.push(row);
    }

    pub(crate) fn link(&mut self, from: u32, to: u32) -> &mut Link {
        &mut self.links[from as usize][to as usize]
    }

    /// The node that `addr` names when spoken on `from`.
    pub(crate) fn resolve(&self, from: u32, addr: SocketAddr) -> Option<u32> {
        if addr.ip().is_loopback() || addr.ip().is_unspecified() {
            return Some(from);
        }
        self.by_ip.get(&addr.ip()).copied()
    }
}
