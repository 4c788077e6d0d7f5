//! Whether a plan runs the same every time: twice in one process interleaved on two threads, with the recorder full and
//! off, with logging at trace and off.
//!
//! Compares W always, and P wherever it is kept. The child process is the caller's part (`cli`): it compares
//! [`Hashes`] of its own run with those returned here.

pub mod pingpong;

use scenarios::Plan;
use serde::{Deserialize, Serialize};

use crate::runner::{Recorder, RunOptions, run};

/// What must be equal in every repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    pub world: u64,
    /// `None` with the recorder off, and then not compared.
    pub probe: Option<u64>,
}

/// Two runs of one plan that were not the same run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// Which variant differed from the first run: `repeat`, `recorder off`, `logging at trace`, `child process`.
    pub variant: String,
    pub expected: Hashes,
    pub found: Hashes,
    /// The first event of the world that differs, if W does: (index, of the first run, of the other).
    pub first: Option<(u64, Option<String>, Option<String>)>,
}

impl std::fmt::Display for Divergence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: W {:016x} became {:016x}", self.variant, self.expected.world, self.found.world)?;
        if let (Some(a), Some(b)) = (self.expected.probe, self.found.probe) {
            write!(f, ", P {a:016x} became {b:016x}")?;
        }
        if let Some((index, a, b)) = &self.first {
            let text = |e: &Option<String>| e.clone().unwrap_or_else(|| "(the run had ended)".into());
            write!(f, "\nfirst divergent event, number {index}:\n  {}\n  {}", text(a), text(b))?;
        }
        Ok(())
    }
}

/// One run, as far as repeats are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub hashes: Hashes,
    /// The world's events, if asked for.
    pub trace: Vec<String>,
}

/// Runs `plan` in all variants that one process can. `Ok` holds the hashes that a child process must find as well.
///
/// # Errors
/// The first variant that differs.
pub fn check(plan: &Plan) -> Result<Hashes, Box<Divergence>> {
    check_with(&|options| {
        let result = run(plan, options);
        let hashes = Hashes { world: result.world_hash, probe: result.probe_hash };
        Sample { hashes, trace: result.trace }
    })
}

/// The same over the ping-pong system, which needs nothing but the world.
///
/// # Errors
/// As [`check`].
pub fn check_pingpong(seed: u64) -> Result<Hashes, Box<Divergence>> {
    check_with(&|options| pingpong::play(seed, options))
}

type Runner<'a> = dyn Fn(&RunOptions) -> Sample + Sync + 'a;

fn check_with(run: &Runner<'_>) -> Result<Hashes, Box<Divergence>> {
    let full = RunOptions::default();
    let off = RunOptions { recorder: Recorder::Off, ..RunOptions::default() };
    // Two at a time, so that whatever the threads of a process share gets its chance to leak from one to the other.
    let (first, repeat) = both(|| run(&full), || run(&full));
    let (quiet, traced) = both(|| run(&off), || with_logging(|| run(&full)));
    let expected = first.hashes;
    for (variant, found) in [("repeat", repeat), ("recorder off", quiet), ("logging at trace", traced)] {
        let found = found.hashes;
        let probes_differ = expected.probe.zip(found.probe).is_some_and(|(a, b)| a != b);
        if found.world != expected.world || probes_differ {
            let first = first_difference(run, variant);
            return Err(Box::new(Divergence { variant: variant.into(), expected, found, first }));
        }
    }
    Ok(expected)
}

fn both<T: Send>(a: impl FnOnce() -> T + Send, b: impl FnOnce() -> T + Send) -> (T, T) {
    std::thread::scope(|scope| {
        let other = scope.spawn(b);
        let one = a();
        (one, other.join().expect("run() catches the panics of its own thread"))
    })
}

/// Runs with a subscriber that formats every event and span at trace, and throws the text away.
fn with_logging<T>(body: impl FnOnce() -> T) -> T {
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(std::io::sink).finish();
    tracing::subscriber::with_default(subscriber, body)
}

/// The first event in which two runs part: its number, and what each has there.
type First = Option<(u64, Option<String>, Option<String>)>;

/// Runs the first run and `variant` again with the trace kept, and finds where they part.
fn first_difference(run: &Runner<'_>, variant: &str) -> First {
    let kept = RunOptions { keep_trace: true, ..RunOptions::default() };
    let (a, b) = both(
        || run(&kept),
        || match variant {
            "recorder off" => run(&RunOptions { recorder: Recorder::Off, ..kept.clone() }),
            "logging at trace" => with_logging(|| run(&kept)),
            _ => run(&kept),
        },
    );
    let index = (0..a.trace.len().max(b.trace.len())).find(|&i| a.trace.get(i) != b.trace.get(i))?;
    Some((index as u64, a.trace.get(index).cloned(), b.trace.get(index).cloned()))
}
