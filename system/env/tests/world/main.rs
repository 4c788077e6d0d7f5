//! The simulated world as nodes see it through `env`, and as its runner does through `world`.

extern crate streamproof_env as env;

mod clock;
mod crash_point;
mod determinism;
mod disk;
mod draws;
mod life;
mod net;
mod support;
mod timers;
mod wal;
