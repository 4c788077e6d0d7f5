//! How long to wait before the next attempt: exponential, reset by an attempt that ran well for a while.

use std::time::Duration;

use env::clock::Instant;

use crate::job::RestartConfig;

#[derive(Clone, Debug)]
pub struct Backoff {
    config: RestartConfig,
    failures: u32,
    running_since: Option<Instant>,
}

impl Backoff {
    pub fn new(config: RestartConfig) -> Self {
        Self { config, failures: 0, running_since: None }
    }

    /// Every task of the attempt runs.
    pub fn running(&mut self, now: Instant) {
        self.running_since = Some(now);
    }

    /// The attempt failed; returns how long to wait.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let well = Duration::from_millis(self.config.reset_after_ms);
        if self.running_since.take().is_some_and(|since| now.saturating_since(since) >= well) {
            self.failures = 0;
        }
        let factor = 1u64 << self.failures.min(32);
        self.failures = self.failures.saturating_add(1);
        let ms = self.config.initial_backoff_ms.saturating_mul(factor).min(self.config.max_backoff_ms);
        Duration::from_millis(ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_limit_and_resets() {
        let mut b = Backoff::new(RestartConfig { initial_backoff_ms: 100, max_backoff_ms: 500, reset_after_ms: 1000 });
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let waits: Vec<_> = (0..4).map(|_| b.failed(at(0)).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 500]);
        b.running(at(0));
        assert_eq!(b.failed(at(999)).as_millis(), 500);
        b.running(at(2000));
        assert_eq!(b.failed(at(3000)).as_millis(), 100);
        for _ in 0..100 {
            b.failed(at(0));
        }
    }
}
