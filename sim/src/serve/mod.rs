//! The same broker and processor for real: on loopback sockets and files, a thread a node.
//!
//! ```text
//!   start ──▶ listening ──signal──▶ end offsets fixed and durable ──▶ drained ──signal──▶ stopped, exit 0
//!               │ without --until-end: signal ──▶ stopped, exit 0
//!               └ kill -9 anywhere ──▶ start again on the same data: goes on where it was, also in mid-drain
//! ```
//! The brokers stay readable after `drained`. A node that panics, or ends unasked, ends the process with an error; one of
//! several brokers that stops by itself is started again.

mod data;
mod metrics;
mod nodes;

pub use nodes::{NODE_SPAN, Settings};

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use models::JobSpec;
use tokio::sync::oneshot;

use self::metrics::Sources;
use crate::exit::Exit;
use data::DataDir;
use nodes::{Event, Node, Quorum};

/// Where the broker listens if the environment does not say.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9092);
/// Environment variable with another address.
pub const LISTEN_VARIABLE: &str = "STREAMPROOF_LISTEN";

/// How long a node may take to end once asked.
const STOP: Duration = Duration::from_secs(20);

/// The id of a broker that is alone.
const ALONE: i32 = 1;

/// Which brokers run in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brokers {
    /// So many (1, 3 or 5), with ids from 0, at `listen` and the ports after it.
    Here { count: u16, listen: SocketAddr },
    /// One of several, each in a process of its own; where all of them listen, by id.
    OneOf { id: i32, quorum: BTreeMap<i32, SocketAddr> },
}

impl Brokers {
    /// Where each broker of the cluster listens, by id.
    fn quorum(&self) -> Result<Quorum, Failure> {
        match self {
            Brokers::Here { count: 1, listen } => Ok(Quorum(BTreeMap::from([(ALONE, *listen)]))),
            Brokers::Here { count, listen } => (0..*count)
                .map(|id| match listen.port().checked_add(id) {
                    Some(port) if listen.port() > 0 => Ok((i32::from(id), SocketAddr::new(listen.ip(), port))),
                    _ => Err(Failure::refused(format!(
                        "{count} brokers need {count} ports from {listen}: {LISTEN_VARIABLE} names another first one"
                    ))),
                })
                .collect::<Result<_, _>>()
                .map(Quorum),
            Brokers::OneOf { quorum, .. } => Ok(Quorum(quorum.clone())),
        }
    }

    /// The ids of those that run here.
    fn here(&self, quorum: &Quorum) -> Vec<i32> {
        match self {
            Brokers::Here { .. } => quorum.0.keys().copied().collect(),
            Brokers::OneOf { id, .. } => vec![*id],
        }
    }
}

/// Why it did not serve, or stopped.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    fn refused(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }
}

/// Serves until told to stop, and all of its nodes' metrics at `metrics`, if anywhere. `say` prints a line on stdout.
///
/// # Errors
/// A refusal (nothing was written), or a node that cannot go on.
pub fn serve(
    brokers: &Brokers,
    settings: Settings,
    data: &Path,
    job: Option<JobSpec>,
    until_end: bool,
    metrics: Option<SocketAddr>,
    say: impl Fn(&str),
) -> Result<Exit, Failure> {
    let quorum = brokers.quorum()?;
    let here = brokers.here(&quorum);
    for id in &here {
        check_free(quorum.0[id], &format!(" ({LISTEN_VARIABLE} names another one)"))?;
    }
    if let Some(at) = metrics {
        check_free(at, " (--metrics)")?;
    }
    let data = DataDir::open(data, job.as_ref(), here.len()).map_err(Failure::refused)?;
    let (send, events) = mpsc::channel();
    signals(send.clone()).map_err(|e| Failure::failed(format!("failed to listen for signals: {e}")))?;
    die_with_any_thread();
    let mut service = Service {
        quorum,
        here,
        settings,
        metrics,
        sources: Sources::default(),
        nodes: Vec::new(),
        finish: None,
        drained: false,
        signals: 0,
        until_end,
    };
    let outcome = service.run(&data, job, &send, &events, &say);
    let stopped = service.stop(&events);
    outcome.and_then(|exit| stopped.map(|()| exit))
}

/// So that a port in use is known before a directory is made. The broker's own bind is the one that counts.
fn check_free(listen: SocketAddr, remedy: &str) -> Result<(), Failure> {
    TcpListener::bind(listen).map(drop).map_err(|e| {
        let why =
            if e.kind() == std::io::ErrorKind::AddrInUse { "the address is in use".into() } else { e.to_string() };
        Failure::refused(format!("failed to listen on {listen}: {why}{remedy}"))
    })
}

/// A panic in a task is caught by its runtime, and the node would limp on: end the process instead, at once.
fn die_with_any_thread() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        let thread = std::thread::current();
        eprintln!("error: {} panicked; the data directory is as after kill -9", thread.name().unwrap_or("a thread"));
        std::process::exit(i32::from(Exit::Panicked.code()));
    }));
}

fn signals(events: mpsc::Sender<Event>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (ready, installed) = mpsc::channel();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let installed = tokio::runtime::Builder::new_current_thread().enable_io().build().and_then(|runtime| {
            let guard = runtime.enter();
            let both = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            drop(guard);
            Ok((runtime, both))
        });
        let (runtime, (mut interrupt, mut terminate)) = match installed {
            Ok(all) => all,
            Err(e) => return drop(ready.send(Err(e))),
        };
        let _ = ready.send(Ok(()));
        runtime.block_on(async {
            loop {
                env::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if events.send(Event::Signal).is_err() {
                    break;
                }
            }
        });
    })?;
    installed.recv().map_err(std::io::Error::other)?
}

struct Service {
    quorum: Quorum,
    /// The ids of the brokers that run in this process.
    here: Vec<i32>,
    settings: Settings,
    /// Where the metrics of all nodes are to be served.
    metrics: Option<SocketAddr>,
    sources: Sources,
    /// In the order they were started.
    nodes: Vec<Node>,
    finish: Option<oneshot::Sender<()>>,
    drained: bool,
    signals: u32,
    until_end: bool,
}

impl Service {
    fn run(
        &mut self,
        data: &DataDir,
        job: Option<JobSpec>,
        send: &mpsc::Sender<Event>,
        events: &Receiver<Event>,
        say: &impl Fn(&str),
    ) -> Result<Exit, Failure> {
        let no_thread = |e: std::io::Error| Failure::failed(format!("failed to start a thread: {e}"));
        if let Some(at) = self.metrics {
            // First, so that a cluster can be watched while it forms and until it has stopped.
            self.nodes.push(metrics::endpoint(at, self.sources.clone(), send.clone()).map_err(no_thread)?);
        }
        for id in &self.here {
            let dir = if self.here.len() == 1 { data.broker() } else { data.broker_of(*id) };
            let node = nodes::broker(*id, self.quorum.clone(), self.settings, dir, &self.sources, send.clone());
            self.nodes.push(node.map_err(no_thread)?);
        }
        let mut brokers = Vec::new();
        loop {
            // The channel cannot close: `send` is ours.
            let Ok(event) = events.recv() else { return Ok(Exit::Pass) };
            match event {
                Event::MetricsUp(addr) => say(&format!("metrics on http://{addr}/metrics")),
                Event::BrokerUp(addr) => {
                    brokers.push(addr);
                    if brokers.len() < self.here.len() {
                        continue;
                    }
                    brokers.sort_unstable();
                    let all: Vec<String> = brokers.iter().map(ToString::to_string).collect();
                    say(&format!("listening on {}", all.join(",")));
                    if let Some(job) = &job {
                        let (finish, asked) = oneshot::channel();
                        self.finish = Some(finish);
                        // A signal that came before there was anybody to tell.
                        if self.until_end && self.signals > 0 {
                            self.close_input();
                        }
                        let (job, dir, sources) = (job.clone(), data.coordinator(), &self.sources);
                        let node = nodes::coordinator(job, brokers.clone(), dir, asked, sources, send.clone());
                        self.nodes.push(node.map_err(no_thread)?);
                    }
                }
                Event::CoordinatorUp(addr) => {
                    for name in ["worker-0", "worker-1"] {
                        let worker = nodes::worker(name, addr, brokers.clone(), &self.sources, send.clone());
                        self.nodes.push(worker.map_err(no_thread)?);
                    }
                }
                Event::Drained => {
                    self.drained = true;
                    say("drained");
                }
                Event::Signal => {
                    self.signals += 1;
                    if !self.until_end || self.drained {
                        return Ok(Exit::Pass);
                    }
                    if self.signals > 1 {
                        eprintln!("stopped before the job was drained; start it again on the same data to go on");
                        return Ok(Exit::Interrupted);
                    }
                    eprintln!("draining; a second signal stops at once");
                    self.close_input();
                }
                Event::Refused(message) => return Err(Failure::refused(message)),
                Event::Ended(name, outcome) => {
                    let why = outcome.err().unwrap_or_else(|| "it ended unasked".into());
                    return Err(Failure::failed(format!("{name} stopped: {why}")));
                }
            }
        }
    }

    fn close_input(&mut self) {
        if let Some(finish) = self.finish.take() {
            let _ = finish.send(());
        }
    }

    /// Stops the nodes, the last one started first, so that each finds its servers up while it ends.
    fn stop(&mut self, events: &Receiver<Event>) -> Result<(), Failure> {
        let mut failure = None;
        for node in self.nodes.iter_mut().rev() {
            let deadline = Instant::now() + STOP;
            node.stop();
            while !node.is_finished() {
                match events.recv_timeout(Duration::from_millis(20)) {
                    Ok(Event::Ended(name, Err(e))) => failure = failure.or(Some(format!("{name} stopped: {e}"))),
                    Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if Instant::now() > deadline {
                    let message = format!("{} did not stop within {} s", node.name, STOP.as_secs());
                    return Err(Failure::failed(message));
                }
            }
        }
        failure.map_or(Ok(()), |message| Err(Failure::failed(message)))
    }
}
