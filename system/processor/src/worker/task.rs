//! What source and window tasks have in common: their commands, their reports, their errors.

use std::rc::Rc;

use bytes::Bytes;
use env::sync::mpsc;
use sink::{Pending, Prepared, SinkError};

use super::ROLE;
use crate::checkpoint::{TaskSnapshot, TaskState, UnexpectedBarrier};
use crate::codec::CodecError;
use crate::control::{Generation, ToCoordinator};
use crate::metrics::TaskMetrics;
use crate::shuffle::ShuffleError;

use env::node::{When, crash_point};

/// From the coordinator to one task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Source tasks only.
    Trigger(u64),
    Commit(u64),
    /// Source tasks only.
    Bounds(Vec<(i32, i64)>),
}

#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("channel to {to}: {error}")]
    Send { to: String, error: ShuffleError },
    #[error("channel from {from} broke: {why}")]
    Receive { from: String, why: String },
    #[error(transparent)]
    Barrier(#[from] UnexpectedBarrier),
    #[error(transparent)]
    State(#[from] CodecError),
    #[error("failed to read split {partition}: {why}")]
    Source { partition: i32, why: String },
    #[error("the worker dropped the task")]
    Dropped,
}

/// A message to the coordinator, with its payload.
pub type Report = (ToCoordinator, Bytes);

/// Reports of one task of one attempt.
#[derive(Clone, Debug)]
pub struct Reporter {
    pub generation: Generation,
    pub task: String,
    pub to: mpsc::Sender<Report>,
    pub metrics: Rc<TaskMetrics>,
}

impl Reporter {
    pub async fn opened(&self) -> Result<(), TaskError> {
        let (generation, task) = (self.generation, self.task.clone());
        self.send(ToCoordinator::Opened { generation, task }, Bytes::new()).await
    }

    pub async fn ended(&self) -> Result<(), TaskError> {
        let (generation, task) = (self.generation, self.task.clone());
        self.send(ToCoordinator::Ended { generation, task }, Bytes::new()).await
    }

    pub async fn committed(&self, n: u64) -> Result<(), TaskError> {
        let (generation, task) = (self.generation, self.task.clone());
        self.send(ToCoordinator::Committed { generation, task, n }, Bytes::new()).await
    }

    pub async fn snapshot(&self, n: u64, prepared: Option<Prepared>, state: TaskState) -> Result<(), TaskError> {
        let (generation, task) = (self.generation, self.task.clone());
        let payload = TaskSnapshot { prepared, state }.encode();
        crash_point(ROLE, "snapshot.send", None, When::Before).await;
        self.send(ToCoordinator::Ack { generation, task, n }, payload).await?;
        crash_point(ROLE, "snapshot.send", None, When::After).await;
        Ok(())
    }

    pub async fn failed(&self, reason: String) -> Result<(), TaskError> {
        let (generation, task) = (self.generation, self.task.clone());
        self.send(ToCoordinator::Failed { generation, task, reason }, Bytes::new()).await
    }

    async fn send(&self, message: ToCoordinator, payload: Bytes) -> Result<(), TaskError> {
        self.to.send((message, payload)).await.map_err(|_| TaskError::Dropped)
    }
}

/// The commit in progress, if any. Polling it in a `select!` and dropping that poll loses nothing.
#[derive(Default)]
pub struct Committing(Option<Pending<'static, u64>>);

impl Committing {
    pub fn start(&mut self, commit: Pending<'static, u64>) {
        self.0 = Some(commit);
    }

    /// Waits for the commit; for ever if there is none.
    pub async fn done(&mut self) -> Result<u64, SinkError> {
        match self.0.as_mut() {
            Some(commit) => {
                let result = commit.await;
                self.0 = None;
                result
            }
            None => std::future::pending().await,
        }
    }
}
