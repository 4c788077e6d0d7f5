//! How long to wait before the next attempt: exponential, bounded, with jitter.

use std::time::Duration;

/// Waits of one sequence of retries. Pure: chance comes in as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub initial: Duration,
    pub max: Duration,
}

impl Backoff {
    /// The wait after failed attempt number `attempt` (from 0), before jitter.
    pub fn base(&self, attempt: u32) -> Duration {
        self.initial.saturating_mul(1 << attempt.min(16)).min(self.max)
    }

    /// The same with jitter of up to a fifth either way, from a uniform `chance`.
    pub fn jittered(&self, attempt: u32, chance: u32) -> Duration {
        let base = self.base(attempt);
        // 80 % to 120 % in steps of 1/1024.
        base * (820 + (chance % 410)) / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_its_maximum() {
        let b = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(1) };
        let ms: Vec<_> = (0..6).map(|n| b.base(n).as_millis()).collect();
        assert_eq!(ms, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(b.base(u32::MAX), b.max);
        for chance in [0, 1, 409, 410, u32::MAX] {
            let j = b.jittered(0, chance).as_millis();
            assert!((80..=120).contains(&j), "{j}");
        }
    }
}
