//! `streamproof serve`: broker and processor for real.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;

use broker::Flush;

use super::args::{FlushArg, ServeArgs};
use super::{Refusal, out};
use crate::exit::Exit;
use crate::plans::read_text;
use crate::serve::{Brokers, DEFAULT_LISTEN, LISTEN_VARIABLE, serve};

pub fn run(args: ServeArgs) -> Result<Exit, Refusal> {
    let listen = match std::env::var(LISTEN_VARIABLE) {
        Err(_) => DEFAULT_LISTEN,
        Ok(text) => text.parse::<SocketAddr>().map_err(|_| {
            Refusal::usage(format!("{LISTEN_VARIABLE}=`{text}` is no address: write one such as {DEFAULT_LISTEN}"))
        })?,
    };
    let brokers = brokers(&args, listen)?;
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
    let flush = match args.flush {
        FlushArg::Fsync => Flush::Fsync,
        FlushArg::PageCache => Flush::PageCache,
    };
    serve(&brokers, flush, &args.data, job, args.until_end, out::line)
        .map_err(|failure| Refusal { exit: failure.exit, message: failure.message })
}

/// What the flags say of brokers.
fn brokers(args: &ServeArgs, listen: SocketAddr) -> Result<Brokers, Refusal> {
    let Some(id) = args.broker_id else { return Ok(Brokers::Here { count: args.brokers, listen }) };
    let quorum: BTreeMap<i32, SocketAddr> = args.quorum.iter().copied().collect();
    if quorum.len() != args.quorum.len() || ![1, 3, 5].contains(&quorum.len()) {
        return Err(Refusal::usage("--quorum names 1, 3 or 5 brokers, each with an id of its own"));
    }
    if !quorum.contains_key(&id) {
        return Err(Refusal::usage(format!("--broker-id {id} is not in --quorum")));
    }
    Ok(Brokers::OneOf { id, quorum })
}
