//! Another end for the same beginning: from an instant on, a world draws otherwise.
//!
//! Up to the instant the run is, event by event, what it is without a tail. Then the scheduler's generator is moved on, so
//! that ready tasks run in another order; with a world seed, latencies, losses, sync times and what a power loss tears are
//! drawn anew as well. Streams that a node opened before (`env::rng`) go on as they were, and so do faults of the plan: a
//! tail asks what else could have come of the same disasters.

use std::cell::Cell;
use std::time::Duration;

/// Where the tail begins, and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Since the world began.
    pub at: Duration,
    /// Tails of different numbers have different schedules.
    pub schedule: u64,
    /// Instead of the plan's, for draws from `at` on.
    pub world_seed: Option<u64>,
}

/// The tail of a running world.
#[derive(Debug)]
pub(crate) struct Turn {
    at: u64,
    tail: Tail,
    taken: Cell<bool>,
}

/// Draws that are skipped, at most: a number of its own for nearly every tail, at no cost.
const MAX_SKIPPED: u64 = 4096;

impl Turn {
    pub(crate) fn new(tail: Tail) -> Self {
        Self { at: crate::time::nanos(tail.at), tail, taken: Cell::new(false) }
    }

    pub(crate) fn world_seed(&self, now: u64) -> Option<u64> {
        self.tail.world_seed.filter(|_| now >= self.at)
    }

    /// Called before each step of a task.
    pub(crate) fn take(&self, now: u64) {
        if now < self.at || self.taken.replace(true) {
            return;
        }
        let mut rng = madsim::rand::thread_rng();
        let skipped = seed::draw(self.tail.schedule, "skipped draws", &[]).range(1, MAX_SKIPPED);
        for _ in 0..skipped {
            madsim::rand::RngCore::next_u64(&mut rng);
        }
    }
}
