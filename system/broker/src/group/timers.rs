//! Deadlines as data: which are due, and when the next one is.

use std::collections::{BTreeMap, BTreeSet};

use env::clock::Instant;

/// What a deadline is for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// Classic: the members that rejoin have until then.
    Join,
    /// Classic: the members of the new generation must have asked for their assignment by then (KAFKA-12890).
    Sync,
    /// The member must have been heard by then.
    Session(String),
    /// Consumer: the member must have given up what it was asked to by then.
    Revoke(String),
}

/// The deadlines of all groups of a coordinator.
#[derive(Debug, Default)]
pub struct Timers {
    at: BTreeMap<(String, Timer), Instant>,
    order: BTreeSet<(Instant, String, Timer)>,
}

impl Timers {
    pub fn set(&mut self, group: &str, timer: Timer, at: Instant) {
        self.cancel(group, &timer);
        self.order.insert((at, group.to_owned(), timer.clone()));
        self.at.insert((group.to_owned(), timer), at);
    }

    pub fn cancel(&mut self, group: &str, timer: &Timer) {
        let key = (group.to_owned(), timer.clone());
        if let Some(at) = self.at.remove(&key) {
            self.order.remove(&(at, key.0, key.1));
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, ..)| *at)
    }

    /// Takes the first deadline at or before `now`.
    pub fn take_due(&mut self, now: Instant) -> Option<(String, Timer)> {
        if self.next()? > now {
            return None;
        }
        let (_, group, timer) = self.order.pop_first()?;
        self.at.remove(&(group.clone(), timer.clone()));
        Some((group, timer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_set_again_is_only_due_once_and_later() {
        let at = Instant::from_nanos;
        let mut timers = Timers::default();
        timers.set("g", Timer::Join, at(10));
        timers.set("g", Timer::Sync, at(15));
        timers.set("g", Timer::Join, at(20));
        assert_eq!(timers.next(), Some(at(15)));
        assert_eq!(timers.take_due(at(14)), None);
        assert_eq!(timers.take_due(at(30)), Some(("g".to_owned(), Timer::Sync)));
        timers.cancel("g", &Timer::Join);
        assert_eq!((timers.take_due(at(30)), timers.next()), (None, None));
    }
}
