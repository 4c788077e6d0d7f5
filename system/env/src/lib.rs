//! The only door of the system to time, chance, sockets, files, tasks and timers.
//!
//! Two worlds stand behind it, chosen as the process runs: the real one (tokio and files) and the simulated one
//! (`world`, on madsim's executor). Code above this crate cannot tell which, so what is simulated is what serves.
//! In both, a node is single-threaded: futures need not be `Send`, and shared state is `Rc<RefCell<_>>`.

pub mod clock;
pub mod disk;
pub mod net;
pub mod node;
pub mod probe;
pub mod rng;
pub mod task;
pub mod time;

/// Channels and locks whose wake order is deterministic. `watch` and `broadcast` are left out on purpose:
/// tokio's `watch` shards its wake-ups by a per-thread random number.
pub mod sync {
    pub use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
}

/// Asynchronous byte streams, as tokio defines them.
pub mod io {
    pub use std::io::{Error, ErrorKind, Result};
    pub use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf, split};
}

#[doc(hidden)]
pub use tokio as __tokio;

/// Waits for the first of several futures. Branches are polled in the order written, so the choice never depends on
/// tokio's own random number, which is seeded outside the simulation.
#[macro_export]
macro_rules! select {
    ($($body:tt)*) => { $crate::__tokio::select! { biased; $($body)* } };
}
