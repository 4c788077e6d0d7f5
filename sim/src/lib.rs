//! How scenarios are run: everything between a plan and its verdict, and the command line over it.
//!
//! The binary `streamproof` is a thin `main` over [`cli`].

pub mod audit;
pub mod bugs;
pub mod build_info;
pub mod canary;
pub mod capsule;
pub mod check;
pub mod cli;
pub mod clients;
pub mod deploy;
pub mod determinism;
pub mod disk_image;
pub mod exit;
pub mod explain;
pub mod interrupt;
pub mod lesson;
pub mod plans;
pub mod recorder;
pub mod regressions;
pub mod run_log;
pub mod runner;
pub mod selection;
pub mod serve;
pub mod shrink;
pub mod store;
pub mod supervisor;
pub mod sweep;
pub mod task;
pub mod worker;
