//! Which node this code runs on, crash points, and the way to start a node in the real world.

use std::future::Future;

/// Before or after the action of a crash point.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum When {
    Before,
    After,
}

/// A place where the world may kill, cut or pause this node: called by driver loops around each action, never by
/// machines. `role` names the kind of node, `label` the action. In the real world this is nothing.
pub async fn crash_point(_role: &'static str, _label: &'static str, _partition: Option<i32>, _when: When) {}

/// Runs one node of the real world on the calling thread: a single-threaded runtime and its local tasks, until
/// `future` is ready.
pub fn run_real<F: Future>(future: F) -> std::io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    Ok(local.block_on(&runtime, future))
}
