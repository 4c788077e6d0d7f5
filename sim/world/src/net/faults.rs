//! Faults of the network, laid over links and taken off again by name.

use super::conn::Shared;
use super::{Block, LinkLaw};
use crate::FaultId;
use crate::kernel::{Kernel, State};

/// Directions of links: (from, to).
pub(crate) type Pairs = Vec<(u32, u32)>;

pub(crate) fn block(k: &Kernel, pairs: &Pairs, fault: FaultId, block: Block) {
    let mut state = k.state.borrow_mut();
    for &(from, to) in pairs {
        state.net.link(from, to).blocks.push((fault, block));
    }
}

pub(crate) fn disturb(k: &Kernel, pairs: &Pairs, fault: FaultId, law: LinkLaw) {
    let mut state = k.state.borrow_mut();
    for &(from, to) in pairs {
        state.net.link(from, to).overlay(fault, law);
    }
}

pub(crate) fn set_base(k: &Kernel, pairs: &Pairs, law: LinkLaw) {
    let mut state = k.state.borrow_mut();
    for &(from, to) in pairs {
        state.net.link(from, to).set_base(law);
    }
}

/// Takes a fault off every link; what a hold kept comes now. Cut segments come with their sender's next time-out.
pub(crate) fn heal(k: &Kernel, fault: FaultId) {
    let now = k.now();
    let mut state = k.state.borrow_mut();
    let s = &mut *state;
    let mut held = false;
    for row in &mut s.net.links {
        for link in row {
            held |= link.blocks.iter().any(|&(f, b)| f == fault && b == Block::Hold);
            link.clear(fault);
        }
    }
    if held {
        for conn in live(s) {
            let mut c = conn.borrow_mut();
            for dir in [0, 1] {
                let burst = c.release(k, s, &conn, dir, now);
                s.effects.add(fault, "segments_in_burst", burst);
            }
        }
    }
    s.effects.end(fault, now);
}

/// Resets every connection between the pairs, at both ends at once.
pub(crate) fn reset(k: &Kernel, pairs: &Pairs, fault: FaultId) {
    let mut state = k.state.borrow_mut();
    let s = &mut *state;
    for conn in live(s) {
        let mut c = conn.borrow_mut();
        let (a, b) = (c.ends[0].ctx.node, c.ends[1].ctx.node);
        if !c.is_over() && (pairs.contains(&(a, b)) || pairs.contains(&(b, a))) {
            c.break_off(s);
            s.effects.add(fault, "connections_reset", 1);
        }
    }
}

fn live(s: &mut State) -> Vec<Shared> {
    s.net.conns.values().filter_map(std::rc::Weak::upgrade).collect()
}
