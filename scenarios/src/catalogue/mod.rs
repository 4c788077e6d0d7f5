//! The list of scenarios. Each file tells its story, builds its plans and names what judges them.

mod canary_at_least_once;
mod canary_page_cache;
mod checkpoint_crash;
mod crash_restart;
mod duplicates;
mod flights;
mod idle_partition;
mod power_loss;
mod reordering;
mod smoke;
mod swarm;

pub use flights::{Event, generate as generate_from_events};

use crate::plan::Plan;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub name: &'static str,
    /// Three sentences.
    pub story: &'static str,
    /// Names of the invariants that judge it.
    pub properties: &'static [&'static str],
    /// For a canary: the property that must be violated in at least one of its seeds.
    pub must_fail: Option<&'static str>,
    /// Anomalies that do not count, with the reason.
    pub allowed: &'static [(&'static str, &'static str)],
    /// `sometimes!` labels that a sweep must reach.
    pub rare: &'static [&'static str],
    /// `None` if the plan also needs a job and events from the user: see [`generate_from_events`].
    pub generate: Option<fn(u64) -> Plan>,
}

/// Judge the broker alone.
pub const BROKER_PROPERTIES: &[&str] = &[
    "acked-durable",
    "no-duplicate",
    "producer-order",
    "high-watermark-monotonic",
    "last-stable-offset-monotonic",
    "transaction-atomicity",
    "no-aborted-read",
    "disk-matches-fetch",
    "liveness",
];

/// Judge broker and processor.
pub const ALL_PROPERTIES: &[&str] = &[
    "acked-durable",
    "no-duplicate",
    "producer-order",
    "high-watermark-monotonic",
    "last-stable-offset-monotonic",
    "transaction-atomicity",
    "no-aborted-read",
    "disk-matches-fetch",
    "window-exactly-once",
    "conservation",
    "watermark-monotonic",
    "convergence",
    "liveness",
];

/// All scenarios, in the order in which the main job runs them.
pub fn list() -> &'static [Entry] {
    &[
        smoke::ENTRY,
        crash_restart::ENTRY,
        power_loss::ENTRY,
        duplicates::ENTRY,
        reordering::ENTRY,
        idle_partition::ENTRY,
        checkpoint_crash::ENTRY,
        swarm::ENTRY,
        flights::ENTRY,
        canary_page_cache::ENTRY,
        canary_at_least_once::ENTRY,
    ]
}

pub fn find(name: &str) -> Option<&'static Entry> {
    list().iter().find(|e| e.name == name)
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    #[error("unknown scenario `{0}`")]
    Unknown(String),
    #[error("scenario `{0}` needs a job and its events: give --job and --events")]
    NeedsEvents(&'static str),
}

/// The plan of `seed`: the same for ever within one version of the generators.
///
/// # Errors
/// An unknown scenario, or one that is made from a user's job and events.
pub fn generate(scenario: &str, seed: u64) -> Result<Plan, GenerateError> {
    let entry = find(scenario).ok_or_else(|| GenerateError::Unknown(scenario.to_owned()))?;
    let generate = entry.generate.ok_or(GenerateError::NeedsEvents(entry.name))?;
    let plan = generate(seed);
    debug_assert_eq!(plan.validate(), Ok(()), "scenario {scenario} seed {seed} made an invalid plan");
    Ok(plan)
}
