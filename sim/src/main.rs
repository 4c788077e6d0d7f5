//! The binary `streamproof`: see [`streamproof::cli`].

fn main() -> std::process::ExitCode {
    streamproof::cli::main()
}
