//! What to run: a seed becomes a [`Plan`], and a plan is all that a run needs.
//!
//! Guarantees: [`generate`] is a pure function of (scenario, seed); every plan it gives is valid; a plan survives JSON
//! unchanged. Leaves to others: building the nodes (`sim::deploy`), running (`sim::runner`) and judging (`invariants`).

pub mod catalogue;
pub mod generate;
pub mod plan;

pub use catalogue::{Entry, GenerateError, find, generate, generate_from_events, generate_with, list};
pub use generate::{Families, all_families};
pub use plan::Family;
pub use plan::{Plan, PlanError};
