//! `streamproof serve`: broker and processor for real.

use std::io::IsTerminal;
use std::net::SocketAddr;

use super::args::ServeArgs;
use super::{Refusal, out};
use crate::exit::Exit;
use crate::plans::read_text;
use crate::serve::{DEFAULT_LISTEN, LISTEN_VARIABLE, serve};

pub fn run(args: ServeArgs) -> Result<Exit, Refusal> {
    let listen = match std::env::var(LISTEN_VARIABLE) {
        Err(_) => DEFAULT_LISTEN,
        Ok(text) => text.parse::<SocketAddr>().map_err(|_| {
            Refusal::usage(format!("{LISTEN_VARIABLE}=`{text}` is no address: write one such as {DEFAULT_LISTEN}"))
        })?,
    };
    let job = match &args.job {
        None => None,
        Some(path) => {
            let text = read_text(path).map_err(Refusal::usage)?;
            let job = models::JobSpec::parse(&text, &path.display().to_string());
            Some(job.map_err(|e| Refusal::usage(e.to_string()))?)
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    serve(listen, &args.data, job, args.until_end, out::line)
        .map_err(|failure| Refusal { exit: failure.exit, message: failure.message })
}
