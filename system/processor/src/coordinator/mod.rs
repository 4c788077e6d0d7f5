//! The coordinator: one node of a job. It registers workers, deploys attempts, takes checkpoints onto its own disk and
//! has them committed, restarts after failures, and drains.
//!
//! [`Machine`] decides; [`Coordinator`] carries out. What must outlive a crash (generation, end offsets, checkpoints,
//! "drained") is durable before it is used.

mod connection;
mod driver;
mod machine;
mod meta;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use client::ClientConfig;

pub use machine::{Action, Input, Machine, Preparation};

use crate::job::{JobConfig, JobError};

#[derive(Clone, Debug)]
pub struct CoordinatorConfig {
    pub listen: SocketAddr,
    pub job: JobConfig,
    pub client: ClientConfig,
    /// Generation, end offsets and checkpoints live here; locked while the coordinator runs.
    pub data_dir: PathBuf,
    /// An attempt starts when so many are registered, and uses all that are.
    pub workers: usize,
    /// Silence of a worker after which it counts as lost.
    pub heartbeat_timeout: Duration,
}

impl CoordinatorConfig {
    pub fn new(listen: SocketAddr, job: JobConfig, client: ClientConfig, data_dir: PathBuf, workers: usize) -> Self {
        Self { listen, job, client, data_dir, workers, heartbeat_timeout: Duration::from_secs(5) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    #[error(transparent)]
    Job(#[from] JobError),
    #[error("failed to listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: env::io::Error },
    #[error("failed to use {path}: {why}")]
    Data { path: PathBuf, why: String },
    #[error("the data directory {0} is held by another process")]
    Locked(PathBuf),
    #[error("failed to read the source's end offsets: {0}")]
    EndOffsets(String),
    #[error("the coordinator has stopped: {0}")]
    Stopped(String),
}

/// A running coordinator. Clones share it; it stops when the last is dropped.
#[derive(Clone)]
pub struct Coordinator(Rc<driver::Handle>);

impl Coordinator {
    /// Binds, locks the data directory and starts. Nothing of the directory is changed if it is refused.
    pub async fn start(config: CoordinatorConfig) -> Result<Self, CoordinatorError> {
        Ok(Self(Rc::new(driver::start(config).await?)))
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// What it counts, now.
    pub fn metrics(&self) -> metrics::Snapshot {
        self.0.metrics()
    }

    /// Bounds the input: every partition is read up to its end offset (exclusive), then all windows fire and all is
    /// committed. `None`: the log ends of this moment. Returns the offsets that hold, durable: those of the first call.
    pub async fn finish(&self, ends: Option<BTreeMap<i32, i64>>) -> Result<BTreeMap<i32, i64>, CoordinatorError> {
        self.0.finish(ends).await
    }

    /// Waits until all bounded input is processed and committed.
    pub async fn drained(&self) -> Result<(), CoordinatorError> {
        self.0.drained().await
    }

    /// Runs until `shutdown` is ready or the coordinator cannot go on.
    pub async fn run_until(&self, shutdown: impl Future<Output = ()>) -> Result<(), CoordinatorError> {
        env::select! {
            () = shutdown => Ok(()),
            error = self.0.stopped() => Err(error),
        }
    }
}
