//! Tests of the whole: one binary, so that each links once. `CARGO_BIN_EXE_streamproof` is the program under test.

mod book;
mod cli;
mod determinism;
mod golden;
mod plans;
mod planted_bugs;
mod regressions;
mod smoke;
mod tidy;
mod transcripts;
