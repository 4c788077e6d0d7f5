//! When a window emits besides its on-time firing, and what the pane is called (rules 14 and 15).

use std::fmt::Debug;

use crate::decision::Op;

pub trait Trigger: Debug {
    /// Whether a record accepted in a window whose closing point has passed fires it again.
    fn refires(&self) -> bool;

    /// The operation of pane `pane`, counted from 0.
    fn op(&self, pane: u32) -> Op;
}

/// On time, and again for each behind record, with the full content: pane 0 inserts, later panes update.
#[derive(Clone, Copy, Debug)]
pub struct Accumulating;

impl Trigger for Accumulating {
    fn refires(&self) -> bool {
        true
    }

    fn op(&self, pane: u32) -> Op {
        if pane == 0 { Op::Insert } else { Op::Update }
    }
}
