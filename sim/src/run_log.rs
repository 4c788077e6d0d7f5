//! The system's own log of a simulated run, with the world's time and the node in front of each line.

use std::fmt;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Runs `body` with what `filter` lets through on stderr.
pub fn on_stderr<T>(filter: &str, body: impl FnOnce() -> T) -> T {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_timer(Simulated)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .finish();
    tracing::subscriber::with_default(subscriber, body)
}

/// The world's time, whatever the node's clock says; outside of a world nothing.
struct Simulated;

impl FormatTime for Simulated {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let Some(current) = world::port::current() else { return Ok(()) };
        let us = current.now.as_nanos() / 1_000;
        let node = world::port::node_name();
        write!(w, "{:>5}.{:06} s {node:<13}", us / 1_000_000, us % 1_000_000)?;
        // What a dead incarnation's destructors say did not happen.
        if world::port::silenced() { w.write_str(" (dead)") } else { Ok(()) }
    }
}
