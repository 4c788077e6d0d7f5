//! A number that only rises.

use std::cell::Cell;

/// Shared within one node behind an `Rc`.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, n: u64) {
        // Prometheus takes a fall for a restart, which is what going round is.
        self.0.set(self.0.get().wrapping_add(n));
    }

    pub fn get(&self) -> u64 {
        self.0.get()
    }
}
