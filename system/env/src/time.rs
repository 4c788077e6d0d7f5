//! Timers on the node's monotonic clock. All are cancellable: dropping the future frees the timer.

use std::future::Future;
use std::time::Duration;

use world::port;

use crate::clock::{self, Instant};

/// The deadline passed before the future was ready. Whether the awaited work happened is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed;

impl std::fmt::Display for Elapsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("deadline has elapsed")
    }
}

impl std::error::Error for Elapsed {}

pub async fn sleep(duration: Duration) {
    sleep_until(clock::now() + duration).await;
}

pub async fn sleep_until(deadline: Instant) {
    if port::active() {
        return port::sleep_until(deadline.as_nanos()).await;
    }
    let wait = deadline.saturating_since(clock::now());
    tokio::time::sleep(wait).await;
}

pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(clock::now() + duration, future).await
}

/// Runs `future` until `deadline`; the future is polled first, so one that is ready at the deadline wins.
pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    crate::select! {
        out = future => Ok(out),
        () = sleep_until(deadline) => Err(Elapsed),
    }
}
