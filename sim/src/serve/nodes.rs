//! The nodes of `serve`, each a thread with a single-threaded runtime of its own, as in the simulation.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use broker::group::GroupConfig;
use broker::{Broker, BrokerConfig, BrokerError, Flush, Metrics, Observer};
use client::{Admin, Client, ClientConfig, NewTopic};
use models::JobSpec;
use processor::WorkerMetrics;
use processor::coordinator::{Coordinator, CoordinatorConfig};
use processor::worker::{self, WorkerConfig};
use scenarios::plan::ProcessorKnobs;
use tokio::sync::oneshot;

use super::metrics::Sources;
use crate::deploy::job_config;
use crate::plans::DEFAULT_PARTITIONS;

/// Workers of the processor.
pub const WORKERS: u32 = 2;

/// The target of the span that says which node of the process an event is of.
pub const NODE_SPAN: &str = "streamproof::node";

/// What a node tells the main thread.
#[derive(Debug)]
pub enum Event {
    /// The metrics are served here.
    MetricsUp(SocketAddr),
    /// A broker listens here.
    BrokerUp(SocketAddr),
    /// The coordinator answers here.
    CoordinatorUp(SocketAddr),
    /// Every window has fired and everything is committed.
    Drained,
    /// The request cannot be carried out; nothing was written.
    Refused(String),
    /// A node ended: as it was asked to, or because it cannot go on.
    Ended(String, Result<(), String>),
    /// From outside: SIGINT or SIGTERM.
    Signal,
}

/// A running node. Dropping it does not stop it; [`Node::stop`] does.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    stop: Option<oneshot::Sender<()>>,
    thread: std::thread::JoinHandle<()>,
}

impl Node {
    pub(super) fn start<F: Future<Output = Result<(), String>>>(
        name: impl Into<String>,
        events: mpsc::Sender<Event>,
        body: impl FnOnce(mpsc::Sender<Event>, oneshot::Receiver<()>) -> F + Send + 'static,
    ) -> std::io::Result<Self> {
        let name = name.into();
        let (stop, stopped) = oneshot::channel();
        let ends = name.clone();
        let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
            // Entered once, for all that this thread says.
            let _node = tracing::error_span!(target: NODE_SPAN, "node", id = ends).entered();
            let outcome = env::node::run_real(body(events.clone(), stopped));
            let outcome = outcome.unwrap_or_else(|e| Err(format!("no runtime: {e}")));
            let _ = events.send(Event::Ended(ends, outcome));
        })?;
        Ok(Self { name, stop: Some(stop), thread })
    }

    /// Asks it to end; its [`Event::Ended`] follows.
    pub fn stop(&mut self) {
        self.stop.take();
    }

    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Ready once the node is to stop.
async fn asked(stop: oneshot::Receiver<()>) {
    let _ = stop.await;
}

/// Our own clients' configuration.
fn client_config(brokers: &[SocketAddr]) -> ClientConfig {
    ClientConfig::new(brokers.iter().map(|broker| (broker.ip().to_string(), broker.port())).collect())
}

/// The brokers of a cluster: where each listens, by id. One alone has an id of its own choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum(pub BTreeMap<i32, SocketAddr>);

impl Quorum {
    /// As a broker's configuration wants them: none for one alone.
    fn voters(&self) -> BTreeMap<i32, (String, u16)> {
        match self.0.len() {
            1 => BTreeMap::new(),
            _ => self.0.iter().map(|(id, at)| (*id, (at.ip().to_string(), at.port()))).collect(),
        }
    }

    fn replicas(&self) -> i32 {
        self.0.len().min(3) as i32
    }
}

/// After a broker of several stopped by itself (a full disk, a failed fsync) and before it is tried again.
const RESTART: Duration = Duration::from_secs(5);

/// What is chosen for all brokers of a process.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub flush: Flush,
    /// `offsets.retention.minutes`.
    pub offsets_retention: Duration,
}

/// Broker `id` of `quorum`. One of several is started again when it stops by itself: the others serve meanwhile.
///
/// # Errors
/// If no thread can be started.
pub fn broker(
    id: i32,
    quorum: Quorum,
    settings: Settings,
    data_dir: PathBuf,
    sources: &Sources,
    events: mpsc::Sender<Event>,
) -> std::io::Result<Node> {
    let name = if quorum.0.len() == 1 { "broker".to_owned() } else { format!("broker-{id}") };
    let questions = sources.register(&name);
    Node::start(name.clone(), events, move |events, stop| async move {
        let listen = quorum.0[&id];
        let replicas = quorum.replicas();
        let config = BrokerConfig {
            node_id: id,
            cluster_id: "streamproof-serve".into(),
            listen,
            advertised_host: listen.ip().to_string(),
            voters: quorum.voters(),
            default_replication_factor: replicas as i16,
            min_insync_replicas: replicas / 2 + 1,
            data_dir,
            flush: settings.flush,
            auto_create_topics: true,
            default_partitions: DEFAULT_PARTITIONS as i32,
            offsets_partitions: 4,
            transaction_partitions: 4,
            group: GroupConfig { offsets_retention: settings.offsets_retention, ..GroupConfig::default() },
            ..BrokerConfig::default()
        };
        let stopping = Cell::new(false);
        let mut stop = std::pin::pin!(async {
            asked(stop).await;
            stopping.set(true);
        });
        // They count on when the broker is started again.
        let metrics = Metrics::default();
        let observed: Rc<RefCell<Option<Observer>>> = Rc::default();
        let (counted, now) = (metrics.clone(), Rc::clone(&observed));
        let answering = questions.answer(async move || {
            let observer = now.borrow().clone();
            match observer {
                Some(observer) => observer.snapshot().await,
                None => counted.snapshot(),
            }
        });
        let _answering = env::task::spawn(answering).abort_on_drop();
        for start in 0.. {
            let broker = match Broker::start_measured(config.clone(), metrics.clone()).await {
                Ok(broker) => broker,
                Err(
                    e @ (BrokerError::Bind { .. }
                    | BrokerError::Held { .. }
                    | BrokerError::Version { .. }
                    | BrokerError::Foreign { .. }
                    | BrokerError::Identity { .. }
                    | BrokerError::Meta { .. }
                    | BrokerError::Config(_)),
                ) if start == 0 => {
                    let _ = events.send(Event::Refused(e.to_string()));
                    return Ok(());
                }
                Err(e) => match rest(&config, &name, &e.to_string(), stop.as_mut()).await {
                    Ok(()) => continue,
                    Err(outcome) => return outcome,
                },
            };
            observed.replace(Some(broker.observer()));
            if start == 0 {
                let _ = events.send(Event::BrokerUp(broker.local_addr()));
            }
            // Whether it ended by itself is told by its error: asked to stop, it ends in peace.
            match broker.run_until(stop.as_mut()).await {
                Ok(()) => return Ok(()),
                // It was told to stop and could not do so in peace.
                Err(e) if stopping.get() => return Err(e.to_string()),
                Err(e) => match rest(&config, &name, &e.to_string(), stop.as_mut()).await {
                    Ok(()) => {}
                    Err(outcome) => return outcome,
                },
            }
        }
        Ok(())
    })
}

/// After a broker stopped by itself: `Ok` when it is to be started again, else how the node ends.
async fn rest(
    config: &BrokerConfig,
    name: &str,
    why: &str,
    stop: impl Future<Output = ()>,
) -> Result<(), Result<(), String>> {
    if config.is_alone() {
        return Err(Err(why.to_owned()));
    }
    eprintln!("{name} stopped: {why}; it is started again in {} s", RESTART.as_secs());
    env::select! {
        () = stop => Err(Ok(())),
        () = env::time::sleep(RESTART) => Ok(()),
    }
}

const HEARTBEAT: Duration = Duration::from_millis(500);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything the processor can be tuned by, for a job that runs for real.
fn knobs() -> ProcessorKnobs {
    ProcessorKnobs {
        source_tasks: WORKERS,
        window_tasks: WORKERS,
        key_groups: 128,
        checkpoint_interval_ms: 1_000,
        checkpoint_timeout_ms: 30_000,
        heartbeat_interval_ms: 500,
        heartbeat_timeout_ms: 10_000,
        restart_backoff_min_ms: 200,
        restart_backoff_max_ms: 10_000,
        restart_reset_ms: 30_000,
        transaction_timeout_ms: 60_000,
        checkpoints_retained: 3,
        chunk_records: 64,
        channel_capacity: 64,
        fetch_timeout_ms: 5_000,
        sink_partitions: 2,
    }
}

/// The coordinator; `finish` closes the input at its end of that moment.
///
/// # Errors
/// If no thread can be started.
pub fn coordinator(
    job: JobSpec,
    brokers: Vec<SocketAddr>,
    data_dir: PathBuf,
    finish: oneshot::Receiver<()>,
    sources: &Sources,
    events: mpsc::Sender<Event>,
) -> std::io::Result<Node> {
    let questions = sources.register("coordinator");
    Node::start("coordinator", events, move |events, stop| async move {
        create_source_topic(&job, &brokers).await?;
        let job = job_config(&job, &knobs(), 500);
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let config = CoordinatorConfig {
            heartbeat_timeout: HEARTBEAT_TIMEOUT,
            ..CoordinatorConfig::new(listen, job, client_config(&brokers), data_dir, WORKERS as usize)
        };
        let coordinator = Coordinator::start(config).await.map_err(|e| e.to_string())?;
        let _ = events.send(Event::CoordinatorUp(coordinator.local_addr()));
        let handle = coordinator.clone();
        let _answering = env::task::spawn(questions.answer(async move || handle.metrics())).abort_on_drop();
        let handle = coordinator.clone();
        let watch = events.clone();
        // Also after a restart in mid-drain, when nobody asks to finish again.
        let drained = env::task::spawn(async move {
            if handle.drained().await.is_ok() {
                let _ = watch.send(Event::Drained);
            }
        });
        let handle = coordinator.clone();
        let finishing = env::task::spawn(async move {
            if finish.await.is_err() {
                return; // the main thread is ending
            }
            while let Err(e) = handle.finish(None).await {
                tracing::warn!(error = %e, "failed to close the input, trying again");
                env::time::sleep(Duration::from_millis(500)).await;
            }
        });
        let outcome = coordinator.run_until(asked(stop)).await.map_err(|e| e.to_string());
        drained.abort();
        finishing.abort();
        outcome
    })
}

/// So that the job sees every partition from the start, whatever a producer's first request would create. Several brokers
/// take a moment to find each other; until then there is nobody to create it, or too few to keep its copies.
async fn create_source_topic(job: &JobSpec, brokers: &[SocketAddr]) -> Result<(), String> {
    let admin = Admin::new(Client::new(client_config(brokers)));
    let topic = NewTopic::new(job.source.topic.clone(), DEFAULT_PARTITIONS as i32);
    let mut tries = 0;
    loop {
        let why = match admin.create_topics(std::slice::from_ref(&topic)).await {
            Ok(results) => match results.into_values().find_map(Result::err) {
                None | Some(protocol::ErrorCode::TOPIC_ALREADY_EXISTS) => return Ok(()),
                Some(code) => code.to_string(),
            },
            Err(e) => e.to_string(),
        };
        tries += 1;
        if tries == FORMING_TRIES || brokers.len() == 1 {
            return Err(format!("failed to create topic {}: {why}", job.source.topic));
        }
        env::time::sleep(FORMING_PAUSE).await;
    }
}

/// How often, and how far apart, a topic is asked for while a cluster forms: about half a minute.
const FORMING_TRIES: u32 = 60;
const FORMING_PAUSE: Duration = Duration::from_millis(500);

/// # Errors
/// If no thread can be started.
pub fn worker(
    name: &'static str,
    coordinator: SocketAddr,
    brokers: Vec<SocketAddr>,
    sources: &Sources,
    events: mpsc::Sender<Event>,
) -> std::io::Result<Node> {
    let questions = sources.register(name);
    Node::start(name, events, move |_, stop| async move {
        let metrics = WorkerMetrics::default();
        let counted = metrics.clone();
        let _answering = env::task::spawn(questions.answer(async move || counted.snapshot())).abort_on_drop();
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let config = WorkerConfig {
            heartbeat_interval: HEARTBEAT,
            heartbeat_timeout: HEARTBEAT_TIMEOUT,
            ..WorkerConfig::new(name, coordinator, listen, client_config(&brokers))
        };
        worker::run_measured(config, metrics, asked(stop)).await.map_err(|e| e.to_string())
    })
}
