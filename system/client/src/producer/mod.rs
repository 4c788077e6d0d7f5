//! The producer: records in, deliveries out; idempotent by default, transactional and two-phase by configuration.
//!
//! [`Producer::send`] hands a record over and returns at once, unless the buffer is full; the [`Delivery`] tells what
//! became of it. Records of one partition reach the log in the order they were sent, as far as they are acknowledged.

mod batch;
mod coordination;
mod driver;
mod machine;
mod transaction;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use env::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use env::task::AbortOnDrop;
use protocol::batch::Compression;
pub use protocol::batch::Record;

use crate::backoff::Backoff;
use crate::client::{Client, Lane};
use crate::error::{Outcome, SendError};
use crate::metadata::TopicPartition;

pub use coordination::{Completion, Initialized};
use machine::{Machine, Settings};
use transaction::Transaction;

/// How many replicas must have a batch before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Acks {
    /// The broker does not answer at all; "acknowledged" means handed to the connection.
    None,
    Leader,
    #[default]
    All,
}

impl Acks {
    fn wire(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// Settings of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerConfig {
    pub acks: Acks,
    /// Retries never duplicate or reorder. Needs [`Acks::All`].
    pub idempotent: bool,
    /// Makes the producer transactional; needs `idempotent`.
    pub transactional_id: Option<String>,
    /// Takes part in two-phase commit: its prepared transactions have no time-out (KIP-939).
    pub two_phase: bool,
    /// The coordinator aborts a transaction that is open for longer, unless `two_phase`.
    pub txn_timeout: Duration,
    /// From [`Producer::send`] to the end of retries.
    pub delivery_timeout: Duration,
    /// How long a batch waits for more records.
    pub linger: Duration,
    pub batch_bytes: usize,
    pub request_bytes: usize,
    /// Records waiting or in flight; more make [`Producer::send`] wait.
    pub buffer_bytes: usize,
    /// Requests without a response per broker. With idempotence at most 5: a broker remembers as many batches.
    pub max_in_flight: usize,
    pub compression: Compression,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotent: true,
            transactional_id: None,
            two_phase: false,
            txn_timeout: Duration::from_secs(60),
            delivery_timeout: Duration::from_secs(120),
            linger: Duration::from_millis(5),
            batch_bytes: 64 * 1024,
            request_bytes: 1024 * 1024,
            buffer_bytes: 32 * 1024 * 1024,
            max_in_flight: 5,
            compression: Compression::None,
        }
    }
}

impl ProducerConfig {
    /// A transactional producer with the other settings at their defaults.
    pub fn transactional(id: impl Into<String>) -> Self {
        Self { transactional_id: Some(id.into()), ..Self::default() }
    }
}

/// A producer's identity at a moment: what a checkpoint stores of a prepared transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerIdEpoch {
    pub producer_id: i64,
    pub epoch: i16,
}

/// Where an acknowledged record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordMetadata {
    pub partition: i32,
    /// `None` with [`Acks::None`], and when the broker recognised a duplicate but no longer knew its place.
    pub offset: Option<i64>,
}

/// What will become of a record. It goes on its way whether or not anybody waits here.
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Result<RecordMetadata, SendError>>);

impl Future for Delivery {
    type Output = Result<RecordMetadata, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|result| {
            result.unwrap_or_else(|_| {
                Err(SendError { outcome: Outcome::Unknown, code: None, reason: "producer dropped".into() })
            })
        })
    }
}

/// Who waits for a record, and the room it takes in the buffer.
#[derive(Debug)]
struct Token {
    partition: i32,
    reply: oneshot::Sender<Result<RecordMetadata, SendError>>,
    _room: OwnedSemaphorePermit,
}

/// Clones share the producer; it ends when the last is dropped, and leaves undelivered records `Unknown`.
#[derive(Clone)]
pub struct Producer(Rc<Handle>);

struct Handle {
    shared: Rc<Shared>,
    room: std::sync::Arc<Semaphore>,
    room_max: u32,
    _driver: AbortOnDrop<()>,
}

/// What the handle and the driver have in common.
struct Shared {
    client: Client,
    config: ProducerConfig,
    lane: Lane,
    machine: RefCell<Machine<Token>>,
    /// There is something for the driver to look at.
    wake: Notify,
    /// Batches were completed.
    progress: Notify,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.client.close_lane(self.shared.lane);
    }
}

impl Producer {
    /// Starts the producer. Contradictory settings are a bug of the caller.
    pub fn new(client: Client, config: ProducerConfig) -> Self {
        assert!(!config.idempotent || config.acks == Acks::All, "an idempotent producer needs acks=all");
        assert!(config.transactional_id.is_none() || config.idempotent, "a transactional producer is idempotent");
        assert!(!config.two_phase || config.transactional_id.is_some(), "two_phase needs a transactional id");
        let max_in_flight = config.max_in_flight.max(1);
        let settings = Settings {
            idempotent: config.idempotent,
            linger: config.linger,
            batch_bytes: config.batch_bytes,
            request_bytes: config.request_bytes,
            max_in_flight: if config.idempotent { max_in_flight.min(5) } else { max_in_flight },
            delivery_timeout: config.delivery_timeout,
            backoff: Backoff { initial: client.config().retry_backoff, max: client.config().retry_backoff_max },
            compression: config.compression,
        };
        let txn = config.transactional_id.is_some().then(Transaction::new);
        let room_max = u32::try_from(config.buffer_bytes).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32).max(1);
        let shared = Rc::new(Shared {
            lane: client.new_lane(),
            client,
            config,
            machine: RefCell::new(Machine::new(settings, txn)),
            wake: Notify::new(),
            progress: Notify::new(),
        });
        let (events, inbox) = mpsc::unbounded_channel();
        let driver = env::task::spawn(driver::run(Rc::clone(&shared), events, inbox)).abort_on_drop();
        let room = std::sync::Arc::new(Semaphore::new(room_max as usize));
        Self(Rc::new(Handle { shared, room, room_max, _driver: driver }))
    }

    /// Hands a record over, waiting while the buffer is full. Dropping this future before it is ready sends nothing.
    pub async fn send(&self, topic: &str, partition: i32, record: Record) -> Delivery {
        let shared = &self.0.shared;
        let (reply, delivery) = oneshot::channel();
        let cost = u32::try_from(cost(&record)).unwrap_or(u32::MAX).clamp(1, self.0.room_max);
        let Ok(room) = std::sync::Arc::clone(&self.0.room).acquire_many_owned(cost).await else {
            let _ = reply.send(Err(SendError::failed("producer is closed")));
            return Delivery(delivery);
        };
        shared.client.want_topics([topic]);
        let tp = TopicPartition::new(topic, partition);
        let token = Token { partition, reply, _room: room };
        let refused = shared.machine.borrow_mut().enqueue(env::clock::now(), &tp, &record, token);
        match refused {
            Ok(()) => shared.wake.notify_one(),
            Err((token, error)) => {
                let _ = token.reply.send(Err(error));
            }
        }
        Delivery(delivery)
    }

    /// Waits until every record handed over before has been acknowledged or given up.
    pub async fn flush(&self) {
        let shared = &self.0.shared;
        let before = shared.machine.borrow_mut().flush();
        shared.wake.notify_one();
        loop {
            let progress = shared.progress.notified();
            if shared.machine.borrow().is_flushed(before) {
                return;
            }
            progress.await;
        }
    }

    /// The identity that the next batch will carry, once there is one: after [`Producer::begin`], that of the
    /// transaction in progress.
    pub fn current(&self) -> Option<ProducerIdEpoch> {
        self.0.shared.machine.borrow().identity()
    }
}

/// Bytes that a record takes in the buffer, about.
fn cost(record: &Record) -> usize {
    const OVERHEAD: usize = 64;
    let len = |b: &Option<bytes::Bytes>| b.as_ref().map_or(0, |b| b.len());
    let headers: usize = record.headers.iter().map(|(k, v)| k.len() + len(v) + 8).sum();
    OVERHEAD + len(&record.key) + len(&record.value) + headers
}
