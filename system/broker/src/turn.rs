//! The order of requests on one connection.
//!
//! Requests of a connection take effect in the order they came: the next one is handled when the one before has
//! dropped its [`Turn`], at the latest when it is answered. A handler that has fixed its place in that order (a produce
//! whose appends are queued at their partitions) drops it early, so that pipelined requests share one fsync.

use env::sync::oneshot;

/// The right to take effect now. Dropping it passes it on.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code, reason = "held for its Drop")] oneshot::Sender<()>);

/// Ready once the turn was dropped.
#[derive(Debug)]
pub(crate) struct Passed(oneshot::Receiver<()>);

impl Turn {
    pub(crate) fn new() -> (Turn, Passed) {
        let (tx, rx) = oneshot::channel();
        (Turn(tx), Passed(rx))
    }
}

impl Passed {
    pub(crate) async fn passed(&mut self) {
        let _ = (&mut self.0).await;
    }
}
