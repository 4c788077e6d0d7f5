//! A worker node: registers with the coordinator and runs the tasks it is given, one attempt at a time.
//!
//! An attempt ends here when the coordinator says so, or when the coordinator is not heard of for a while: then nothing
//! of it runs on before the worker registers again. What an attempt that was cut off still wrote is fenced by the next
//! one's transactional ids.

mod attempt;
mod ends;
mod output;
mod source_task;
mod task;
mod window_task;

use std::net::SocketAddr;
use std::time::Duration;

use client::{Client, ClientConfig};
use env::net::{TcpStream, WriteHalf};
use env::node::{When, crash_point};
use env::sync::mpsc;
use serde::Serialize;

use attempt::Attempt;
use task::{Command, Report};

use crate::control::{self, FrameError, ToCoordinator, ToWorker};
use crate::metrics::WorkerMetrics;
use crate::shuffle::Server;

const ROLE: &str = "worker";

/// Reports of tasks waiting for the connection to the coordinator.
const REPORTS: usize = 64;

#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Unique among the job's workers, the same over restarts.
    pub name: String,
    pub coordinator: SocketAddr,
    /// Where channels of other workers' tasks arrive.
    pub listen: SocketAddr,
    /// How others reach `listen`, if not by its own address.
    pub advertised: Option<SocketAddr>,
    pub client: ClientConfig,
    pub heartbeat_interval: Duration,
    /// Silence of the coordinator after which the worker gives its attempt up.
    pub heartbeat_timeout: Duration,
    pub connect_timeout: Duration,
    /// Between attempts to reach the coordinator.
    pub reconnect_backoff: Duration,
}

impl WorkerConfig {
    pub fn new(name: &str, coordinator: SocketAddr, listen: SocketAddr, client: ClientConfig) -> Self {
        Self {
            name: name.to_owned(),
            coordinator,
            listen,
            advertised: None,
            client,
            heartbeat_interval: Duration::from_secs(1),
            heartbeat_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            reconnect_backoff: Duration::from_millis(500),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("failed to listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: env::io::Error },
}

/// Runs the worker until `shutdown` is ready.
pub async fn run(config: WorkerConfig, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
    run_measured(config, WorkerMetrics::default(), shutdown).await
}

/// [`run`] that counts in `metrics`.
pub async fn run_measured(
    config: WorkerConfig,
    metrics: WorkerMetrics,
    shutdown: impl Future<Output = ()>,
) -> Result<(), WorkerError> {
    let addr = config.listen;
    let server = Server::bind(addr, config.connect_timeout).await;
    let server = server.map_err(|source| WorkerError::Listen { addr, source })?;
    let client = Client::new(config.client.clone());
    let mut worker = Worker { config, server, client, metrics, attempt: None };
    env::select! {
        () = shutdown => {}
        () = worker.serve() => {}
    }
    worker.cancel().await;
    Ok(())
}

struct Worker {
    config: WorkerConfig,
    server: Server,
    client: Client,
    metrics: WorkerMetrics,
    attempt: Option<Attempt>,
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("failed to connect: {0}")]
    Connect(env::io::Error),
    #[error("no connection in time")]
    Timeout,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("nothing heard for too long")]
    Silent,
    #[error("the coordinator deployed what cannot be read: {0}")]
    Deploy(#[from] crate::codec::CodecError),
}

impl Worker {
    async fn serve(&mut self) {
        loop {
            if let Err(error) = self.session().await {
                tracing::info!(worker = self.config.name, %error, "lost the coordinator");
            }
            env::sometimes!(self.attempt.is_some(), "a worker gave up its attempt because it lost the coordinator");
            self.cancel().await;
            env::time::sleep(self.config.reconnect_backoff).await;
        }
    }

    async fn cancel(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.cancel(&self.server).await;
        }
    }

    /// One connection to the coordinator, from registration to its loss.
    async fn session(&mut self) -> Result<(), SessionError> {
        let timeout = self.config.connect_timeout;
        let connected = env::time::timeout(timeout, TcpStream::connect(self.config.coordinator)).await;
        let stream = connected.map_err(|_| SessionError::Timeout)?.map_err(SessionError::Connect)?;
        let (mut from, mut to) = stream.into_split();
        let shuffle = self.config.advertised.unwrap_or(self.server.local_addr());
        let register = ToCoordinator::Register { worker: self.config.name.clone(), shuffle };
        self.say(&mut to, &register, &[]).await?;

        // Frames are read by a task of their own: reading one cannot be broken off half way.
        let (heard, mut inbox) = mpsc::channel(16);
        let silence = self.config.heartbeat_timeout;
        let _reading = env::task::spawn(async move {
            loop {
                let next = env::time::timeout(silence, control::read_message::<ToWorker, _>(&mut from)).await;
                let next = next.map_err(|_| SessionError::Silent).and_then(|r| r.map_err(SessionError::Frame));
                let is_last = next.is_err();
                if heard.send(next).await.is_err() || is_last {
                    return;
                }
            }
        })
        .abort_on_drop();

        let (reports_to, mut reports) = mpsc::channel::<Report>(REPORTS);
        let mut beat = env::clock::now() + self.config.heartbeat_interval;
        loop {
            env::select! {
                next = inbox.recv() => {
                    let (message, payload) = next.unwrap_or(Err(SessionError::Silent))?;
                    self.handle(message, payload, &mut to, &reports_to).await?;
                }
                report = reports.recv() => {
                    if let Some((message, payload)) = report {
                        self.say(&mut to, &message, &payload).await?;
                    }
                }
                () = env::time::sleep_until(beat) => {
                    beat = env::clock::now() + self.config.heartbeat_interval;
                    self.say(&mut to, &ToCoordinator::Heartbeat, &[]).await?;
                }
            }
        }
    }

    async fn say<M: Serialize>(&self, to: &mut WriteHalf, message: &M, payload: &[u8]) -> Result<(), SessionError> {
        let written = env::time::timeout(self.config.heartbeat_timeout, control::write_message(to, message, payload));
        written.await.map_err(|_| SessionError::Timeout)??;
        Ok(())
    }

    async fn handle(
        &mut self,
        message: ToWorker,
        payload: bytes::Bytes,
        to: &mut WriteHalf,
        reports: &mpsc::Sender<Report>,
    ) -> Result<(), SessionError> {
        let current = self.attempt.as_ref().map(|a| a.generation);
        match message {
            ToWorker::Welcome | ToWorker::Heartbeat => {}
            ToWorker::Deploy(deploy) => {
                self.cancel().await;
                crash_point(ROLE, "deploy", None, When::Before).await;
                let attempt = Attempt::deploy(*deploy, payload, &self.server)?;
                let generation = attempt.generation;
                self.attempt = Some(attempt);
                self.say(to, &ToCoordinator::Deployed { generation }, &[]).await?;
                crash_point(ROLE, "deploy", None, When::After).await;
            }
            ToWorker::Start { generation, windows } if current == Some(generation) => {
                if let Some(attempt) = &mut self.attempt {
                    let timeout = self.config.connect_timeout;
                    attempt.start(&windows, &self.server, &self.client, reports, timeout, &self.metrics);
                }
            }
            ToWorker::Trigger { generation, n } => self.command(generation, Command::Trigger(n)),
            ToWorker::Commit { generation, n } => self.command(generation, Command::Commit(n)),
            ToWorker::Bounds { generation, ends } => self.command(generation, Command::Bounds(ends)),
            ToWorker::Cancel { generation } => {
                if current == Some(generation) {
                    self.cancel().await;
                }
                self.say(to, &ToCoordinator::Cancelled { generation }, &[]).await?;
            }
            ToWorker::Start { .. } => {
                env::sometimes!(true, "a message of an older attempt reached a worker");
            }
        }
        Ok(())
    }

    fn command(&mut self, generation: control::Generation, command: Command) {
        if let Some(attempt) = self.attempt.as_mut().filter(|a| a.generation == generation)
            && !attempt.command(&command)
        {
            // A task that ended has said so; one that hangs is the checkpoint time-out's business.
            tracing::info!(generation, ?command, "a task does not take its command");
        }
    }
}
