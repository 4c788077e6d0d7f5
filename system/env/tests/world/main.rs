//! The simulated world as nodes see it through `env`, and as its runner does through `world`.

extern crate streamproof_env as env;

mod life;
mod support;
