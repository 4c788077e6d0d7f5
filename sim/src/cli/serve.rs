//! `streamproof serve`: broker and processor for real.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

use broker::Flush;
use tracing_subscriber::EnvFilter;

use super::args::{FlushArg, Format, ServeArgs};
use super::{Refusal, out};
use crate::exit::Exit;
use crate::plans::read_text;
use crate::serve::{Brokers, DEFAULT_LISTEN, LISTEN_VARIABLE, NODE_SPAN, Settings, serve};

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
    log(args.log.as_deref(), args.log_format);
    let flush = match args.flush {
        FlushArg::Fsync => Flush::Fsync,
        FlushArg::PageCache => Flush::PageCache,
    };
    let offsets_retention = Duration::from_secs(60 * u64::from(args.offsets_retention_minutes));
    let settings = Settings { flush, offsets_retention };
    serve(&brokers, settings, &args.data, job, args.until_end, args.metrics, out::line)
        .map_err(|failure| Refusal { exit: failure.exit, message: failure.message })
}

/// Logs on stderr from now on. The span `node` says which node of the process an event is of.
fn log(filter: Option<&str>, format: Format) {
    let filter = match filter {
        Some(filter) => EnvFilter::new(filter),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
    };
    // Whatever is filtered, it is known of which node the rest is.
    let filter = match format!("{NODE_SPAN}=error").parse() {
        Ok(span) => filter.add_directive(span),
        Err(_) => filter,
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        Format::Json => log.json().with_current_span(true).with_span_list(false).flatten_event(false).init(),
    }
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
