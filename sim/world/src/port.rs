//! The simulated half of `env`: what the code of a node may ask of the world it runs in. Every call acts for the node
//! and incarnation whose task is being polled; for a dead one it does nothing and, if asynchronous, never returns.
//!
//! Only `env` uses this. All functions but [`active`], [`current`] and [`silenced`] panic outside a world.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::disk;
use crate::kernel::{self, Current, Kernel, Tagged, WORLD};
use crate::{SimTime, When};

pub use crate::disk::{File, Lock};
pub use crate::kernel::active;
pub use crate::net::{Listener, Stream};
pub use crate::time::Sleep;

fn kernel() -> Rc<Kernel> {
    kernel::current().expect("this thread runs no world")
}

/// Which node runs, and the world's time; absent outside a world.
pub fn current() -> Option<Current> {
    kernel::with(|k| {
        let ctx = kernel::ctx();
        Current { node: ctx.node, incarnation: ctx.incarnation, now: SimTime::from_nanos(k.now()) }
    })
}

/// True in a world if the running code belongs to a dead incarnation (a destructor, or what follows a crash point in
/// the same poll): nothing it says counts.
pub fn silenced() -> bool {
    kernel::with(|k| !k.alive(kernel::ctx())).unwrap_or(false)
}

/// Name of the current node.
pub fn node_name() -> String {
    kernel().state.borrow().nodes[kernel::ctx().node as usize].name.to_string()
}

/// The node's monotonic clock, in nanoseconds.
pub fn clock_now() -> u64 {
    kernel::with(|k| k.read_clock(kernel::ctx(), |clock, now| clock.node_time(now))).expect("this thread runs no world")
}

/// The node's wall clock, in milliseconds since 1970.
pub fn wall_ms() -> i64 {
    kernel::with(|k| k.read_clock(kernel::ctx(), |clock, now| clock.wall_ms(now))).expect("this thread runs no world")
}

/// Waits until the node's monotonic clock reads `nanos`.
pub fn sleep_until(nanos: u64) -> Sleep {
    Sleep::until_node(kernel(), kernel::ctx(), nanos)
}

/// A stream at (world seed, node, incarnation, purpose, how many there were of these before).
///
/// 1. A group's coordinator names a member `a-1`.
/// 2. Its partition moves away and comes back, in the same process.
/// 3. The member dies; its next life is named by the coordinator's second, which must not draw `a-1` once more.
pub fn rng(purpose: &'static str) -> seed::Rng {
    let k = kernel();
    let ctx = kernel::ctx();
    let mut state = k.state.borrow_mut();
    let node = &mut state.nodes[ctx.node as usize];
    let before = node.streams.entry((ctx.incarnation, purpose)).or_default();
    let mut place = vec![node.key, u64::from(ctx.incarnation)];
    if *before > 0 {
        // The first has no number, so that stored plans go on as they did.
        place.push(*before);
    }
    *before += 1;
    seed::stream(k.world_seed(), purpose, &place)
}

/// A crash point of a driver loop.
pub async fn crash_point(role: &'static str, label: &'static str, partition: Option<i32>, when: When) {
    // No reference is counted unless one is armed: this is called around every action of every machine.
    let quick = kernel::with(|k| !k.armed.get() && k.alive(kernel::ctx())).unwrap_or(true);
    if !quick {
        kernel().crash_point_as(role, label, partition, when).await;
    }
}

/// A spawned task.
#[derive(Debug)]
pub struct Task<T>(Option<madsim::task::JoinHandle<T>>);

/// Spawns on the current node. A dead one spawns nothing, and its handle is never ready.
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let k = kernel();
    let ctx = kernel::ctx();
    if !k.alive(ctx) {
        return Task(None);
    }
    let task = madsim::task::spawn_local(Tagged::new(Rc::clone(&k), ctx, future));
    if ctx.node == WORLD.node {
        // madsim cannot kill the node these run on; the end of the world aborts them.
        k.keep_world_task(task.abort_handle());
    }
    Task(Some(task))
}

impl<T> Task<T> {
    pub fn abort(&self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }

    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_some_and(madsim::task::JoinHandle::is_finished)
    }
}

impl<T> Future for Task<T> {
    /// Absent if it was aborted.
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        match &mut self.0 {
            Some(task) => Pin::new(task).poll(cx).map(Result::ok),
            None => Poll::Pending,
        }
    }
}

/// Listens on the current node.
pub async fn listen(addr: SocketAddr) -> io::Result<Listener> {
    let (k, ctx) = (kernel(), kernel::ctx());
    k.crash_point("net.listen", When::Before).await;
    Listener::bind(&k, ctx, addr)
}

pub async fn connect(addr: SocketAddr) -> io::Result<Stream> {
    Stream::connect(&kernel(), kernel::ctx(), addr).await
}

/// Nodes are found by name, by literal address, and `localhost` is the node itself.
pub async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let (k, ctx) = (kernel(), kernel::ctx());
    k.stay_dead(ctx).await;
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let state = k.state.borrow();
    let node = match host {
        "localhost" => Some(&state.nodes[ctx.node as usize]),
        name => state.nodes.iter().find(|n| &*n.name == name),
    };
    match node {
        Some(node) => Ok(vec![SocketAddr::new(node.ip, port)]),
        None => Err(io::Error::new(io::ErrorKind::NotFound, format!("no node is named {host}"))),
    }
}

pub async fn open(path: &Path, create: bool, new: bool) -> io::Result<File> {
    File::open(&kernel(), kernel::ctx(), path, create, new).await
}

pub async fn read(path: &Path) -> io::Result<Bytes> {
    disk::read_all(&kernel(), kernel::ctx(), path).await
}

pub async fn create_dir_all(path: &Path) -> io::Result<()> {
    disk::create_dir_all(&kernel(), kernel::ctx(), path).await
}

/// (name, is a directory), sorted by name.
pub async fn read_dir(path: &Path) -> io::Result<Vec<(String, bool)>> {
    disk::read_dir(&kernel(), kernel::ctx(), path).await
}

pub async fn exists(path: &Path) -> io::Result<bool> {
    disk::exists(&kernel(), kernel::ctx(), path).await
}

pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    disk::rename(&kernel(), kernel::ctx(), from, to).await
}

pub async fn remove_file(path: &Path) -> io::Result<()> {
    disk::remove_file(&kernel(), kernel::ctx(), path).await
}

pub async fn remove_dir_all(path: &Path) -> io::Result<()> {
    disk::remove_dir_all(&kernel(), kernel::ctx(), path).await
}

pub async fn sync_dir(path: &Path) -> io::Result<()> {
    disk::sync_dir(&kernel(), kernel::ctx(), path).await
}

pub async fn lock(path: &Path) -> io::Result<Lock> {
    Lock::acquire(&kernel(), kernel::ctx(), path).await
}
