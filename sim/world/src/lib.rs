//! The simulated world: network, disk, clock, timers and nodes, as plugins of madsim's executor. It knows no system.

#[cfg(not(madsim))]
compile_error!(
    "streamproof must be built with `--cfg madsim`, which .cargo/config.toml sets. A RUSTFLAGS (or CARGO_ENCODED_RUSTFLAGS) \
     variable replaces that setting: unset it, or add `--cfg madsim` to it. If you depend on these crates from another \
     workspace, copy the flags from streamproof's .cargo/config.toml."
);
