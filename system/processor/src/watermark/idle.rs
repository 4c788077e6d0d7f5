//! When a split is idle (rule 5): two empty fetches at the end of readable data, `idle_after` apart, with nothing else
//! between them.
//!
//! ```text
//!     fetch 1 ──sent────arrives(empty)          fetch k ──sent────arrives(empty)
//!                          │◀──── idle_after or more ────▶│
//! ```
//! Only the time between the arrival of the first and the sending of the last counts: time spent in a fetch, in a
//! failing fetch, in back-pressure or in a pause proves nothing about the split.

use std::time::Duration;

use env::clock::Instant;

/// What one fetch said about the split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fetch {
    /// It succeeded, moved nothing, and the position is the end of readable data with no transaction open there.
    EmptyAtEnd { sent: Instant, arrived: Instant },
    /// Records, a moved position, an error, or an open transaction: the split is not known to be silent.
    Other,
}

#[derive(Clone, Debug)]
pub struct IdleDetector {
    /// None: idleness is never detected.
    idle_after: Option<Duration>,
    /// An answer older than this says nothing about the split as it is now (the node may have been paused).
    fetch_timeout: Duration,
    first_empty: Option<Instant>,
}

impl IdleDetector {
    pub fn new(idle_after: Option<Duration>, fetch_timeout: Duration) -> Self {
        Self { idle_after, fetch_timeout, first_empty: None }
    }

    /// Takes one fetch, in the order of arrival, at `now`. True if the split has proved idle by it.
    pub fn observe(&mut self, now: Instant, fetch: Fetch) -> bool {
        let Fetch::EmptyAtEnd { sent, arrived } = fetch else {
            self.first_empty = None;
            return false;
        };
        if now.saturating_since(sent) > self.fetch_timeout {
            self.first_empty = None;
            return false;
        }
        let Some(first) = self.first_empty else {
            self.first_empty = Some(arrived);
            return false;
        };
        self.idle_after.is_some_and(|after| sent >= first && sent.saturating_since(first) >= after)
    }

    /// Starts anew: the split was read, or restored.
    pub fn reset(&mut self) {
        self.first_empty = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn empty(sent: u64, arrived: u64) -> Fetch {
        Fetch::EmptyAtEnd { sent: at(sent), arrived: at(arrived) }
    }

    fn detector() -> IdleDetector {
        IdleDetector::new(Some(Duration::from_millis(1000)), Duration::from_secs(5))
    }

    #[test]
    fn fetch_time_is_not_idleness() {
        let mut d = detector();
        assert!(!d.observe(at(2000), empty(0, 2000)), "one long fetch");
        assert!(!d.observe(at(4000), empty(2999, 4000)));
        assert!(d.observe(at(4001), empty(3000, 4001)));
    }

    #[test]
    fn anything_else_between_starts_anew() {
        let mut d = detector();
        d.observe(at(0), empty(0, 0));
        d.observe(at(900), Fetch::Other);
        assert!(!d.observe(at(1500), empty(1500, 1500)));
        assert!(!d.observe(at(2499), empty(2499, 2499)));
        assert!(d.observe(at(2500), empty(2500, 2500)));
    }

    #[test]
    fn a_stale_answer_proves_nothing() {
        let mut d = detector();
        d.observe(at(0), empty(0, 0));
        assert!(!d.observe(at(7000), empty(1500, 1600)), "the node was paused after it arrived");
        assert!(!d.observe(at(7100), empty(7050, 7100)));
    }

    #[test]
    fn without_a_limit_no_split_is_idle() {
        let mut d = IdleDetector::new(None, Duration::from_secs(5));
        d.observe(at(0), empty(0, 0));
        assert!(!d.observe(at(1_000_000), empty(1_000_000, 1_000_000)));
    }
}
