//! Which node this code runs on, crash points, and the way to start a node in the real world.

use std::future::Future;

use world::port;
pub use world::{Current, When};

/// Which node and incarnation runs, and true time, for a recorder to stamp what it hears with. Moves no clock. Absent
/// in the real world.
pub fn current() -> Option<Current> {
    port::current()
}

/// Index of this node in the simulated world, from 1; 0 in the real world.
pub fn id() -> u32 {
    port::current().map_or(0, |c| c.node)
}

/// Counts from 1, up by one at each restart of the process; 1 in the real world.
pub fn incarnation() -> u32 {
    port::current().map_or(1, |c| c.incarnation)
}

/// The node's name in the simulated world; in the real world `node`.
pub fn name() -> String {
    if port::active() { port::node_name() } else { "node".to_owned() }
}

/// A place where the world may kill, cut or pause this node: called by driver loops around each action, never by
/// machines. `role` names the kind of node, `label` the action. In the real world this is nothing.
pub async fn crash_point(role: &'static str, label: &'static str, partition: Option<i32>, when: When) {
    if port::active() {
        port::crash_point(role, label, partition, when).await;
    }
}

/// Runs one node of the real world on the calling thread: a single-threaded runtime and its local tasks, until
/// `future` is ready.
pub fn run_real<F: Future>(future: F) -> std::io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    Ok(local.block_on(&runtime, future))
}
