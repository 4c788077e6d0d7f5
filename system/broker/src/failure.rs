//! Why a broker cannot start or had to stop, and the one place where a fatal error is reported.
//!
//! A storage error is never worked around: after a failed fsync nobody knows what is on the disk, so the broker stops
//! and the next start recovers from what the log really holds.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use env::sync::Notify;

/// Why a broker could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("failed to listen on {addr}: {source}")]
    Bind { addr: SocketAddr, source: io::Error },
    #[error("data directory {} is held by another process", dir.display())]
    Held { dir: PathBuf },
    #[error("data directory {} has format {found}, this broker reads format {expected}", dir.display())]
    Version { dir: PathBuf, found: String, expected: u32 },
    #[error("data directory {} is not empty and holds no broker's data: {found} is in it", dir.display())]
    Foreign { dir: PathBuf, found: String },
    #[error("data directory {} belongs to {what} {found}, not to {expected}", dir.display())]
    Identity { dir: PathBuf, what: &'static str, found: String, expected: String },
    #[error("data directory {} has a broken meta.properties: {reason}", dir.display())]
    Meta { dir: PathBuf, reason: String },
    #[error("storage failed at {context}: {reason}")]
    Storage { context: String, reason: String },
    #[error("{context} is corrupt: {reason}")]
    Corrupt { context: String, reason: String },
    #[error("configuration: {0}")]
    Config(String),
    /// The broker had to stop; whoever was told first has the error itself.
    #[error("{0}")]
    Stopped(String),
}

impl BrokerError {
    /// A failed operation on the file or directory named by `context`.
    pub fn storage(context: impl ToString, reason: impl ToString) -> Self {
        Self::Storage { context: context.to_string(), reason: reason.to_string() }
    }

    /// Stored bytes that no crash of this broker can have left.
    pub fn corrupt(context: impl ToString, reason: impl ToString) -> Self {
        Self::Corrupt { context: context.to_string(), reason: reason.to_string() }
    }
}

/// Where every part of a broker reports what it cannot survive. The first report wins.
#[derive(Clone, Debug, Default)]
pub struct Failure(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    error: RefCell<Option<Rc<BrokerError>>>,
    reported: Notify,
}

impl Failure {
    /// Stops the broker with `error`, unless it is stopping already.
    pub fn report(&self, error: BrokerError) {
        let mut slot = self.0.error.borrow_mut();
        if slot.is_none() {
            tracing::error!(%error, "broker stops");
            *slot = Some(Rc::new(error));
            self.0.reported.notify_waiters();
        }
    }

    pub fn error(&self) -> Option<Rc<BrokerError>> {
        self.0.error.borrow().clone()
    }

    /// Ready once an error was reported.
    pub async fn failed(&self) -> Rc<BrokerError> {
        loop {
            let reported = self.0.reported.notified();
            if let Some(error) = self.error() {
                return error;
            }
            reported.await;
        }
    }
}
