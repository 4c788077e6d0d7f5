//! What a task demands of its sink.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

/// A transaction whose rows are durable and which waits for its checkpoint: pre-committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prepared {
    /// Which of the task's two transactional ids: epoch n uses n % 2.
    pub slot: u8,
    pub producer_id: i64,
    pub producer_epoch: i16,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SinkRecord {
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// The attempt cannot go on. Whether the last operation happened is unknown unless the text says otherwise: recovery
/// finds out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("sink failed to {verb}: {why}")]
pub struct SinkError {
    pub verb: &'static str,
    pub why: String,
}

impl SinkError {
    pub fn new(verb: &'static str, why: impl ToString) -> Self {
        Self { verb, why: why.to_string() }
    }
}

pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, SinkError>> + 'a>>;

/// One task's sink. Calls come in the order of the diagram above; an error ends the writer.
pub trait SinkWriter {
    /// Settles what earlier attempts of the task left: commits `restored` (idempotent: it may have been committed
    /// before) and aborts everything else. Earlier attempts that still live are fenced when it returns.
    fn recover(&mut self, restored: Option<Prepared>) -> Pending<'_, ()>;

    /// Opens epoch `n`. Returns the producer id and epoch of its transaction, (-1, -1) without one.
    fn begin(&mut self, n: u64) -> Pending<'_, (i64, i16)>;

    /// Adds a record to the open epoch; its partition follows from its key, as in Kafka. Returns once it is queued:
    /// waits while too many are unacknowledged.
    fn write<'a>(&'a mut self, topic: &'a str, record: SinkRecord) -> Pending<'a, ()>;

    /// Every record of the open epoch `n` is acknowledged, and the epoch can be committed by any later attempt.
    fn pre_commit(&mut self, n: u64) -> Pending<'_, Option<Prepared>>;

    /// Makes the pre-committed epoch `n` visible. Only after its checkpoint is complete. Runs beside `write`.
    fn commit(&mut self, n: u64) -> Pending<'static, ()>;
}
