//! What can be cut from a plan, one kind a file. Each function tries all cuts of its kind and keeps those that the search
//! accepts; none decides anything itself.
//!
//! A cut removes or simplifies and never adds: no candidate has a setting that the generators do not draw. Budgets for
//! liveness, quiet and drain are left alone, since a shorter one is a failure of its own making; so are `flush` and the
//! job, which say what is promised.

pub mod faults;
pub mod knobs;
pub mod records;
pub mod shape;
pub mod time;
