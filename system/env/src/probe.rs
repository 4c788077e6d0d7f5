//! What the system tells about itself. A probe is a synchronous push to a thread-local listener: no await, no draw,
//! no clock read of the node, no task. When nobody listens it costs one thread-local check and its argument is not
//! built.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};

/// Anything a system crate reports: its own enum, `Hash + Debug + 'static`. The harness downcasts it.
pub trait Probe: Any + Debug {
    fn hash_into(&self, hasher: &mut dyn Hasher);
    fn as_any(&self) -> &dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<T: Any + Debug + Hash> Probe for T {
    fn hash_into(&self, mut hasher: &mut dyn Hasher) {
        self.hash(&mut hasher);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

type Listener = Box<dyn FnMut(Box<dyn Probe>)>;

thread_local! {
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
    /// Whether there is one: a plain load for the many times there is none.
    static HEARD: Cell<bool> = const { Cell::new(false) };
}

/// Installs the listener of this thread and returns the one it replaces. It must not report probes itself.
pub fn listen(listener: Option<Listener>) -> Option<Listener> {
    HEARD.with(|h| h.set(listener.is_some()));
    LISTENER.with(|l| l.replace(listener))
}

/// Reports `probe()` if anybody listens on this thread. What a dead node says is not heard.
#[inline]
pub fn probe<P: Probe>(probe: impl FnOnce() -> P) {
    if HEARD.with(Cell::get) {
        tell(probe);
    }
}

#[cold]
fn tell<P: Probe>(probe: impl FnOnce() -> P) {
    if world::port::silenced() {
        return;
    }
    let probe = Box::new(probe());
    LISTENER.with(|l| {
        if let Some(listener) = l.borrow_mut().as_mut() {
            listener(probe);
        }
    });
}

/// A rare state that a sweep should reach, registered where it is written.
#[derive(Debug)]
pub struct Mark {
    pub label: &'static str,
    pub file: &'static str,
    pub line: u32,
}

inventory::collect!(Mark);

/// Reported each time a [`sometimes!`](crate::sometimes) condition holds.
#[derive(Debug, Hash, Clone, Copy, PartialEq, Eq)]
pub struct Reached(pub &'static str);

/// All marks linked into this binary, sorted by label.
pub fn marks() -> Vec<&'static Mark> {
    let mut all: Vec<_> = inventory::iter::<Mark>.into_iter().collect();
    all.sort_by_key(|m| m.label);
    all
}

#[doc(hidden)]
pub use inventory as __inventory;

/// States that `condition` should hold sometimes, over a sweep: `sometimes!(leader.is_none(), "partition without a leader")`.
#[macro_export]
macro_rules! sometimes {
    ($condition:expr, $label:literal) => {{
        $crate::probe::__inventory::submit! {
            $crate::probe::Mark { label: $label, file: file!(), line: line!() }
        }
        if $condition {
            $crate::probe::probe(|| $crate::probe::Reached($label));
        }
    }};
}
