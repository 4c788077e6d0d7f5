//! The simulated world: nodes, network, disks, clocks and timers on madsim's executor. It knows no system.
//!
//! One door leads in: [`on_seed`] runs a future with a [`World`] on a thread of its own. Code of a node never sees
//! this crate; it calls `env`, whose simulated half is [`port`].
//!
//! Three rules hold everywhere:
//! - Every draw is [`seed::draw`] at coordinates of its own (node, link, connection, message), so taking one fault out
//!   leaves all other draws as they were. madsim's generator orders ready tasks and nothing else.
//! - A node dies at one instant. Every handle carries its incarnation, and an operation of a dead one has no effect,
//!   be it in a task not yet polled or in a destructor.
//! - Each fault counts what it did ([`Effect`]), so that one which did not bite can be named.

#[cfg(not(madsim))]
compile_error!(
    "streamproof must be built with `--cfg madsim`, which .cargo/config.toml sets. A RUSTFLAGS (or CARGO_ENCODED_RUSTFLAGS) \
     variable replaces that setting: unset it, or add `--cfg madsim` to it. If you depend on these crates from another \
     workspace, copy the flags from streamproof's .cargo/config.toml."
);

mod agenda;
mod clock;
mod crash_point;
mod disk;
mod effect;
mod kernel;
mod life;
mod net;
mod on_seed;
pub mod port;
mod story;
mod tail;
mod time;
mod trace;
mod world;

pub use crash_point::{CrashPoint, Target, Then, When};
pub use disk::{DiskLaw, PowerLaw};
pub use effect::{Effect, FaultId};
pub use kernel::Current;
pub use life::Status;
pub use net::LinkLaw;
pub use on_seed::{Config, Failed, Finished, Run, Why, on_seed};
pub use story::{Life, Message, Story};
pub use tail::Tail;
pub use time::SimTime;
pub use trace::TraceEvent;
pub use world::{ClockOf, DiskOf, NetOf, NodeId, World};
