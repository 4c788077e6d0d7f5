//! How scenarios are run: everything between a plan and its verdict, and the command line over it.

pub mod determinism;
pub mod disk_image;
pub mod runner;
