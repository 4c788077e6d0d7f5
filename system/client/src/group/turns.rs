//! One commit after the other, in the order in which they were asked for.
//!
//! Two that are on their way at once can be stored in either order, each being repeated until it is answered; and the
//! later in the log stands:
//!   1. The coordinator does not answer. The commit of offset 22 is given up and tried again; the one of 51 joins it.
//!   2. It serves again, stores 51 and acknowledges it, then stores 22.
//!   3. What was read and committed between 22 and 51 is read again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use env::sync::Notify;

#[derive(Default)]
pub(super) struct Turns {
    next: Cell<u64>,
    /// Not over yet.
    taken: RefCell<BTreeSet<u64>>,
    over: Notify,
}

/// A place in the order; it is over when this is dropped.
pub(super) struct Turn {
    number: u64,
    of: Rc<Turns>,
}

impl Turns {
    pub fn take(self: &Rc<Self>) -> Turn {
        let number = self.next.replace(self.next.get() + 1);
        self.taken.borrow_mut().insert(number);
        Turn { number, of: Rc::clone(self) }
    }
}

impl Turn {
    /// Ready once all that were taken before are over.
    pub async fn come(&self) {
        loop {
            let over = self.of.over.notified();
            if self.of.taken.borrow().first() == Some(&self.number) {
                return;
            }
            over.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.of.taken.borrow_mut().remove(&self.number);
        self.of.over.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn has_come(turn: &Turn) -> bool {
        pin!(turn.come()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_turn_comes_when_all_before_it_are_over_or_given_up() {
        let turns = Rc::new(Turns::default());
        let (first, second, third) = (turns.take(), turns.take(), turns.take());
        assert!(has_come(&first) && !has_come(&second) && !has_come(&third));
        drop(second);
        assert!(!has_come(&third), "the first is not over");
        let mut waiting = pin!(third.come());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert!(waiting.as_mut().poll(&mut context).is_ready(), "who waits is woken");
    }
}
