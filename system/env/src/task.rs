//! Tasks of a node. A task ends with its node; none needs to be `Send`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use world::port;

/// A handle to a spawned task. Dropping it detaches the task; see [`JoinHandle::abort_on_drop`].
#[derive(Debug)]
pub struct JoinHandle<T>(Inner<T>);

#[derive(Debug)]
enum Inner<T> {
    Real(tokio::task::JoinHandle<T>),
    Sim(port::Task<T>),
}

/// The task was aborted, or its node died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aborted;

impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("task was aborted")
    }
}

impl std::error::Error for Aborted {}

/// Spawns a task on the current node.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    JoinHandle(if port::active() {
        Inner::Sim(port::spawn(future))
    } else {
        Inner::Real(tokio::task::spawn_local(future))
    })
}

/// Lets other ready tasks of the node run.
pub async fn yield_now() {
    tokio::task::yield_now().await;
}

impl<T> JoinHandle<T> {
    /// Drops the task's future at its next turn, unless it has finished by then.
    pub fn abort(&self) {
        match &self.0 {
            Inner::Real(task) => task.abort(),
            Inner::Sim(task) => task.abort(),
        }
    }

    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Inner::Real(task) => task.is_finished(),
            Inner::Sim(task) => task.is_finished(),
        }
    }

    pub fn abort_on_drop(self) -> AbortOnDrop<T> {
        AbortOnDrop(self)
    }
}

impl<T> Future for JoinHandle<T> {
    /// A panic of the task goes on in whoever awaits it; in the simulation it ends the run at once.
    type Output = Result<T, Aborted>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Inner::Real(task) => match Pin::new(task).poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(v)) => Poll::Ready(Ok(v)),
                Poll::Ready(Err(e)) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                Poll::Ready(Err(_)) => Poll::Ready(Err(Aborted)),
            },
            Inner::Sim(task) => Pin::new(task).poll(cx).map(|out| out.ok_or(Aborted)),
        }
    }
}

/// A task that is aborted when this handle is dropped.
#[derive(Debug)]
pub struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, Aborted>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}
