//! Whether windows of one key flow together (rule 10).

use std::fmt::Debug;

use super::Window;

/// Where a record's window goes among the live windows of its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The window the record is accepted in.
    pub window: Window,
    /// Live windows that become part of it, other than itself.
    pub absorbed: Vec<Window>,
}

pub trait Merge: Debug {
    /// `live`: the key's windows in order of start.
    fn place(&self, assigned: Window, live: &mut dyn Iterator<Item = Window>) -> Placement;
}

/// Aligned windows stay apart.
#[derive(Clone, Copy, Debug)]
pub struct Apart;

impl Merge for Apart {
    fn place(&self, assigned: Window, _live: &mut dyn Iterator<Item = Window>) -> Placement {
        Placement { window: assigned, absorbed: Vec::new() }
    }
}
