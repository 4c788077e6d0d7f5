//! The nodes of `serve`, each a thread with a single-threaded runtime of its own, as in the simulation.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use broker::{Broker, BrokerConfig, BrokerError};
use client::{Admin, Client, ClientConfig, NewTopic};
use models::JobSpec;
use processor::coordinator::{Coordinator, CoordinatorConfig};
use processor::worker::{self, WorkerConfig};
use scenarios::plan::ProcessorKnobs;
use tokio::sync::oneshot;

use crate::deploy::job_config;
use crate::plans::DEFAULT_PARTITIONS;

/// Workers of the processor.
pub const WORKERS: u32 = 2;

/// What a node tells the main thread.
#[derive(Debug)]
pub enum Event {
    /// The broker answers here.
    BrokerUp(SocketAddr),
    /// The coordinator answers here.
    CoordinatorUp(SocketAddr),
    /// Every window has fired and everything is committed.
    Drained,
    /// The request cannot be carried out; nothing was written.
    Refused(String),
    /// A node ended: as it was asked to, or because it cannot go on.
    Ended(&'static str, Result<(), String>),
    /// From outside: SIGINT or SIGTERM.
    Signal,
}

/// A running node. Dropping it does not stop it; [`Node::stop`] does.
#[derive(Debug)]
pub struct Node {
    pub name: &'static str,
    stop: Option<oneshot::Sender<()>>,
    thread: std::thread::JoinHandle<()>,
}

impl Node {
    fn start<F: Future<Output = Result<(), String>>>(
        name: &'static str,
        events: mpsc::Sender<Event>,
        body: impl FnOnce(mpsc::Sender<Event>, oneshot::Receiver<()>) -> F + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let outcome = env::node::run_real(body(events.clone(), stopped));
            let outcome = outcome.unwrap_or_else(|e| Err(format!("no runtime: {e}")));
            let _ = events.send(Event::Ended(name, outcome));
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
fn client_config(broker: SocketAddr) -> ClientConfig {
    ClientConfig::new(vec![(broker.ip().to_string(), broker.port())])
}

/// # Errors
/// If no thread can be started.
pub fn broker(listen: SocketAddr, data_dir: PathBuf, events: mpsc::Sender<Event>) -> std::io::Result<Node> {
    Node::start("broker", events, move |events, stop| async move {
        let config = BrokerConfig {
            cluster_id: "streamproof-serve".into(),
            listen,
            advertised_host: listen.ip().to_string(),
            data_dir,
            auto_create_topics: true,
            default_partitions: DEFAULT_PARTITIONS as i32,
            offsets_partitions: 4,
            transaction_partitions: 4,
            ..BrokerConfig::default()
        };
        let broker = match Broker::start(config).await {
            Ok(broker) => broker,
            Err(
                e @ (BrokerError::Bind { .. }
                | BrokerError::Held { .. }
                | BrokerError::Version { .. }
                | BrokerError::Foreign { .. }
                | BrokerError::Identity { .. }
                | BrokerError::Meta { .. }
                | BrokerError::Config(_)),
            ) => {
                let _ = events.send(Event::Refused(e.to_string()));
                return Ok(());
            }
            Err(e) => return Err(e.to_string()),
        };
        let _ = events.send(Event::BrokerUp(broker.local_addr()));
        broker.run_until(asked(stop)).await.map_err(|e| e.to_string())
    })
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
    broker: SocketAddr,
    data_dir: PathBuf,
    finish: oneshot::Receiver<()>,
    events: mpsc::Sender<Event>,
) -> std::io::Result<Node> {
    Node::start("coordinator", events, move |events, stop| async move {
        create_source_topic(&job, broker).await?;
        let job = job_config(&job, &knobs(), 500);
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let config = CoordinatorConfig {
            heartbeat_timeout: HEARTBEAT_TIMEOUT,
            ..CoordinatorConfig::new(listen, job, client_config(broker), data_dir, WORKERS as usize)
        };
        let coordinator = Coordinator::start(config).await.map_err(|e| e.to_string())?;
        let _ = events.send(Event::CoordinatorUp(coordinator.local_addr()));
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

/// So that the job sees every partition from the start, whatever a producer's first request would create.
async fn create_source_topic(job: &JobSpec, broker: SocketAddr) -> Result<(), String> {
    let admin = Admin::new(Client::new(client_config(broker)));
    let topic = NewTopic::new(job.source.topic.clone(), DEFAULT_PARTITIONS as i32);
    let failed = |e: &dyn std::fmt::Display| format!("failed to create topic {}: {e}", job.source.topic);
    let results = admin.create_topics(&[topic]).await.map_err(|e| failed(&e))?;
    match results.into_values().find_map(Result::err) {
        Some(code) if code != protocol::ErrorCode::TOPIC_ALREADY_EXISTS => Err(failed(&code)),
        _ => Ok(()),
    }
}

/// # Errors
/// If no thread can be started.
pub fn worker(
    name: &'static str,
    coordinator: SocketAddr,
    broker: SocketAddr,
    events: mpsc::Sender<Event>,
) -> std::io::Result<Node> {
    Node::start(name, events, move |_, stop| async move {
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let config = WorkerConfig {
            heartbeat_interval: HEARTBEAT,
            heartbeat_timeout: HEARTBEAT_TIMEOUT,
            ..WorkerConfig::new(name, coordinator, listen, client_config(broker))
        };
        worker::run(config, asked(stop)).await.map_err(|e| e.to_string())
    })
}
