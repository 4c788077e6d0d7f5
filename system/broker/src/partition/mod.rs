//! This broker's copy of one partition, which it leads or follows: a handle for everybody, behind it a task that owns
//! the log.
//!
//! | file | one line |
//! |--|--|
//! | `machine`, `messages` | decides: order, flush, acknowledgement, bounds, truncation, roles; what goes in and comes out |
//! | `leader` | what a leader knows of the other replicas; the in-sync set |
//! | `isr` | what is asked of the controller |
//! | `clean` | one pass of the cleaner |
//! | `driver` | does it on the log, with a crash point around each action |
//! | `probe` | tells the harness |
//!
//! Guarantees: appends take effect in the order of their [`Partition::enqueue`]; with acks=all and `flush=fsync` an
//! `Ok` means that the batch is on the disk of every in-sync replica; a reader never sees a record at or past the bound
//! of its isolation, and the bounds of one leadership never go back.

mod clean;
mod driver;
pub mod isr;
pub mod leader;
pub mod machine;
mod messages;
pub mod probe;

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use env::sync::{mpsc, oneshot};
use env::task::AbortOnDrop;
use log::compaction::Cleaned;
use log::{AbortedTransaction, LogConfig, LogError, LogReader, Marker, Offset};
use protocol::batch::{BatchHeader, split};
use protocol::{ErrorCode, Uuid};

pub use log::Origin;

use crate::config::{BrokerConfig, Flush};
use crate::failure::{BrokerError, Failure};
use crate::metrics::{Metrics, TopicTraffic};
use crate::purgatory::{Purgatory, Readable};
use driver::Command;
use isr::AlterPartition;
use leader::{Fetched, Leadership};
pub use machine::HIGH_WATERMARK;
use machine::{Asked, Bounds, Following, Machine, Position, Work};

/// A partition of a topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicPartition {
    pub topic: String,
    pub topic_id: Uuid,
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Settings of one partition.
#[derive(Clone, Debug)]
pub struct PartitionConfig {
    pub log: LogConfig,
    pub flush: Flush,
    pub node_id: i32,
    /// Batches that wait for the log, in bytes; more are refused with NOT_ENOUGH_REPLICAS.
    pub max_queued_bytes: usize,
    /// See [`machine::Settings::lag_max`].
    pub lag_max: Duration,
    /// Of the broker.
    pub metrics: Metrics,
}

impl PartitionConfig {
    pub fn of(config: &BrokerConfig, metrics: Metrics) -> Self {
        let segment_bytes = config.segment_bytes.min(i32::MAX as u32);
        Self {
            log: LogConfig { segment_bytes, ..LogConfig::default() },
            flush: config.flush,
            node_id: config.node_id,
            max_queued_bytes: 2 * config.max_frame_bytes,
            lag_max: Duration::from_millis(config.replica_lag_max_ms),
            metrics,
        }
    }
}

/// Which records a reader may see.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Isolation {
    /// Below the high watermark.
    ReadUncommitted = 0,
    /// Below the last stable offset; the reader leaves out the aborted transactions it is told of.
    ReadCommitted = 1,
    /// Another replica: everything in the leader's log.
    Replica = 2,
}

/// When an append is answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Acks {
    /// Never, as far as the producer is concerned.
    None,
    /// Once it is in the leader's page cache.
    Leader,
    /// Once it is below the high watermark.
    All,
}

/// Where an append went.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Appended {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// -1: records keep the producer's timestamps.
    pub log_append_time_ms: i64,
    pub log_start_offset: Offset,
}

/// The answer to a read. The bounds are those the records were read under.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchData {
    /// Whole batches; the first may begin before the offset asked for.
    pub records: Bytes,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_start_offset: Offset,
    /// Aborted transactions among `records`, for [`Isolation::ReadCommitted`] only.
    pub aborted: Vec<AbortedTransaction>,
    /// Where the log ended.
    pub log_end: Offset,
    /// Counts this copy's roles: that of the read.
    pub(crate) role: u64,
}

impl FetchData {
    /// What the records end before.
    pub fn bound(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable_offset,
            Isolation::Replica => self.log_end,
        }
    }
}

/// A handle; clones are cheap.
#[derive(Clone, Debug)]
pub struct Partition(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    id: Rc<TopicPartition>,
    /// Only looked at: its task alone gives it inputs.
    machine: Rc<RefCell<Machine>>,
    commands: mpsc::UnboundedSender<Command>,
    reader: LogReader,
    purgatory: Purgatory,
    failure: Failure,
    traffic: Rc<TopicTraffic>,
    task: RefCell<Option<AbortOnDrop<()>>>,
}

impl Partition {
    /// Recovers the log in `dir` (made if it is missing) and leads it in `leader_epoch`, as the only replica. A fatal
    /// error later on is reported to `failure`.
    pub async fn open(
        id: TopicPartition,
        dir: PathBuf,
        config: PartitionConfig,
        leader_epoch: i32,
        failure: Failure,
    ) -> Result<Self, BrokerError> {
        let replicas = vec![config.node_id];
        let partition = Self::recover(id, dir, config, None, None, failure).await?;
        let latest = partition.0.machine.borrow().epochs().latest();
        if let Some(latest) = latest.filter(|latest| *latest > leader_epoch) {
            let reason = format!("its log is of epoch {latest}, it is led in {leader_epoch}");
            return Err(BrokerError::corrupt(partition.id(), reason));
        }
        let isr = replicas.clone();
        partition.lead(Leadership { leader_epoch, partition_epoch: 0, replicas, isr, min_isr: 1 }).await;
        Ok(partition)
    }

    /// Recovers the log in `dir` (made if it is missing); it has no role yet. `high_watermark` is a lower bound from an
    /// earlier life, `None` if no other node has a copy.
    pub async fn recover(
        id: TopicPartition,
        dir: PathBuf,
        config: PartitionConfig,
        high_watermark: Option<Offset>,
        controller: Option<Rc<dyn AlterPartition>>,
        failure: Failure,
    ) -> Result<Self, BrokerError> {
        driver::open(Rc::new(id), dir, config, high_watermark, controller, failure).await
    }

    pub fn id(&self) -> &TopicPartition {
        &self.0.id
    }

    /// Leads, or takes in what the image says of the leadership; ready once that is in force.
    pub async fn lead(&self, with: Leadership) {
        let (done, taken) = oneshot::channel();
        let _ = self.0.commands.send(Command::Lead(with, done));
        let _ = taken.await;
    }

    /// Follows; ready once that is in force.
    pub async fn follow(&self, with: Following) {
        let (done, taken) = oneshot::channel();
        let _ = self.0.commands.send(Command::Follow(with, done));
        let _ = taken.await;
    }

    pub fn is_leader(&self) -> bool {
        self.0.machine.borrow().leader().is_some()
    }

    /// Looks at what this leader knows of the others.
    pub fn with_leader<T>(&self, f: impl FnOnce(&leader::Leader) -> T) -> Option<T> {
        self.0.machine.borrow().leader().map(f)
    }

    pub fn following(&self) -> Option<Following> {
        self.0.machine.borrow().following()
    }

    /// Transactions that have records here and no marker yet.
    pub fn open_transactions(&self) -> usize {
        self.0.machine.borrow().open_transactions()
    }

    pub(crate) fn traffic(&self) -> &TopicTraffic {
        &self.0.traffic
    }

    /// Of the present role; -1 before there is any.
    pub fn leader_epoch(&self) -> i32 {
        self.0.machine.borrow().leader_epoch()
    }

    /// Whether a request that names `current` as the leader epoch (-1: none) may be served by this leader.
    pub fn check_leader(&self, current: i32) -> Result<(), ErrorCode> {
        self.check_epoch(current)?;
        if self.is_leader() { Ok(()) } else { Err(ErrorCode::NOT_LEADER_OR_FOLLOWER) }
    }

    /// The same for a request that a follower may serve too.
    pub fn check_replica(&self, current: i32) -> Result<(), ErrorCode> {
        self.check_epoch(current)?;
        let has_role = self.is_leader() || self.following().is_some();
        if has_role { Ok(()) } else { Err(ErrorCode::NOT_LEADER_OR_FOLLOWER) }
    }

    fn check_epoch(&self, current: i32) -> Result<(), ErrorCode> {
        if current == -1 {
            return Ok(());
        }
        match current.cmp(&self.leader_epoch()) {
            std::cmp::Ordering::Less => Err(ErrorCode::FENCED_LEADER_EPOCH),
            std::cmp::Ordering::Greater => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }

    /// Appends what the leader of `leader_epoch` answered to a fetch from this log's end. The position to fetch from
    /// next, once all below it is secured; FENCED_LEADER_EPOCH once another role has begun.
    pub async fn replicate(
        &self,
        leader_epoch: i32,
        records: Bytes,
        high_watermark: Offset,
    ) -> Result<Position, ErrorCode> {
        let (reply, answer) = oneshot::channel();
        let _ = self.0.commands.send(Command::Replicate { leader_epoch, records, high_watermark, reply });
        answer.await.unwrap_or(Err(ErrorCode::KAFKA_STORAGE_ERROR))
    }

    /// Cuts away what the leader of `leader_epoch` says it does not have; see [`Partition::replicate`].
    pub async fn truncate(&self, leader_epoch: i32, diverging: (i32, Offset)) -> Result<Position, ErrorCode> {
        let (reply, answer) = oneshot::channel();
        let _ = self.0.commands.send(Command::Truncate { leader_epoch, diverging, reply });
        answer.await.unwrap_or(Err(ErrorCode::KAFKA_STORAGE_ERROR))
    }

    /// Gives up this log for one that begins, and for now ends, at `offset`, where the log of the leader of `leader_epoch`
    /// begins; see [`Partition::replicate`].
    pub async fn reset(&self, leader_epoch: i32, offset: Offset) -> Result<Position, ErrorCode> {
        let (reply, answer) = oneshot::channel();
        let _ = self.0.commands.send(Command::Reset { leader_epoch, offset, reply });
        answer.await.unwrap_or(Err(ErrorCode::KAFKA_STORAGE_ERROR))
    }

    /// Reads the log past all bounds; what is to be cleaned or given up is decided from it.
    pub fn reader(&self) -> &LogReader {
        &self.0.reader
    }

    /// Rolls segments at this many bytes from the next append on.
    pub fn set_segment_bytes(&self, segment_bytes: u32) {
        let _ = self.0.commands.send(Command::SetSegmentBytes(segment_bytes));
    }

    /// As the leader: gives up what lies below `offset`, or below the high watermark if it is [`HIGH_WATERMARK`]. The offset
    /// that this was, once it is durable here; other replicas follow with their fetches, see [`Partition::low_watermark`].
    pub async fn delete_records(&self, offset: Offset) -> Result<Offset, ErrorCode> {
        let (reply, answer) = oneshot::channel();
        let _ = self.0.commands.send(Command::DeleteRecords { offset, reply });
        answer.await.unwrap_or(Err(ErrorCode::KAFKA_STORAGE_ERROR))
    }

    /// As the leader: what lies below is given up here and on every other replica that `is_live`, durably. `None` if one
    /// of them has not fetched from this leader yet.
    pub fn low_watermark(&self, is_live: impl Fn(i32) -> bool) -> Result<Option<Offset>, ErrorCode> {
        let machine = self.0.machine.borrow();
        let leader = machine.leader().filter(|_| !self.is_closed()).ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)?;
        Ok(leader.low_watermark(machine.log_start_offset(), is_live))
    }

    /// Ready once a replica's log begins elsewhere, or the role changes, after this call.
    pub fn low_watermark_moves(&self) -> impl Future<Output = ()> + '_ {
        self.0.purgatory.start_moves()
    }

    /// Lets the log begin at `offset`, or at the high watermark if that is lower. Where it begins then.
    pub async fn start_at(&self, offset: Offset) -> Result<Offset, ErrorCode> {
        let (reply, answer) = oneshot::channel();
        let _ = self.0.commands.send(Command::StartAt { offset, reply });
        answer.await.unwrap_or(Err(ErrorCode::KAFKA_STORAGE_ERROR))
    }

    /// Puts what a cleaner wrote in its place. False if it is not of the log as it is now, or the disk is full.
    pub async fn swap(&self, cleaned: Cleaned) -> Result<bool, ErrorCode> {
        let (reply, answer) = oneshot::channel();
        let _ = self.0.commands.send(Command::Swap { cleaned: Box::new(cleaned), reply });
        answer.await.unwrap_or(Err(ErrorCode::KAFKA_STORAGE_ERROR))
    }

    /// A cleaner's pass that reached up to `offset` is over.
    pub async fn cleaned_to(&self, offset: Offset) -> Result<(), ErrorCode> {
        let (reply, answer) = oneshot::channel();
        let _ = self.0.commands.send(Command::CleanedTo { offset, reply });
        answer.await.unwrap_or(Err(ErrorCode::KAFKA_STORAGE_ERROR))
    }

    /// A follower fetched from here.
    pub fn fetched(&self, fetch: Fetched) {
        let _ = self.0.commands.send(Command::Fetched(fetch));
    }

    /// Looks for members of the in-sync set that do not keep up.
    pub fn tick(&self) {
        let _ = self.0.commands.send(Command::Tick);
    }

    /// What to hand in with a transactional batch of this producer, once its coordinator, asked after this call, has said
    /// that the transaction is ongoing. `None`: it is open here, nobody need be asked.
    pub fn ask(&self, producer_id: i64, producer_epoch: i16) -> Option<Asked> {
        if self.0.reader.is_open(producer_id, producer_epoch) {
            return None;
        }
        Some(Asked { leader_epoch: self.leader_epoch(), end: self.log_end_offset() })
    }

    /// Queues one batch, which gets its offsets from the log. This call fixes its place in the order. `asked` as for
    /// [`Work::Data`]; TRANSACTION_ABORTABLE if the batch's transaction ended meanwhile.
    pub fn enqueue(
        &self,
        records: Bytes,
        origin: Origin,
        acks: Acks,
        asked: Option<Asked>,
    ) -> Result<PendingAppend, ErrorCode> {
        let header = BatchHeader::parse(&records).map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
        if header.total_len() != records.len() {
            return Err(ErrorCode::INVALID_RECORD);
        }
        Ok(self.submit(Work::Data { header, records, origin, asked }, acks))
    }

    /// [`Partition::enqueue`] of what opens no transaction, at the first poll, and its answer.
    pub async fn append(&self, records: Bytes, origin: Origin, acks: Acks) -> Result<Appended, ErrorCode> {
        self.enqueue(records, origin, acks, None)?.await
    }

    /// Ends a transaction here; answers once the marker is below the high watermark. One that is there already is not
    /// written again.
    pub async fn append_marker(&self, marker: Marker) -> Result<Offset, ErrorCode> {
        Ok(self.submit(Work::Marker(marker), Acks::All).await?.base_offset)
    }

    fn submit(&self, work: Work, acks: Acks) -> PendingAppend {
        let (reply, answer) = oneshot::channel();
        // A send fails only if the task is gone; the dropped reply says so.
        let _ = self.0.commands.send(Command::Append { work, acks, reply });
        PendingAppend(answer)
    }

    /// The bounds, and no records.
    pub(crate) fn nothing(&self) -> FetchData {
        let Bounds { high_watermark, .. } = self.0.purgatory.bounds();
        FetchData {
            records: Bytes::new(),
            high_watermark,
            last_stable_offset: self.last_stable_offset(),
            log_start_offset: self.log_start_offset(),
            aborted: Vec::new(),
            log_end: self.log_end_offset(),
            role: self.0.purgatory.role(),
        }
    }

    /// As a leader: the high watermark is that of this leadership. Until then an older one is all that is known, and an
    /// offset that was committed may lie past it (KIP-207).
    pub fn knows_high_watermark(&self) -> bool {
        let machine = self.0.machine.borrow();
        machine.leader().is_none_or(|leader| machine.high_watermark() >= leader.epoch_start)
    }

    /// Reads from `from`, at most `max_bytes` unless the first batch alone is larger. Empty if there is nothing yet.
    pub async fn read(&self, from: Offset, max_bytes: usize, isolation: Isolation) -> Result<FetchData, ErrorCode> {
        // Both bounds are taken once: a second look could see a later marker's effect without its transaction.
        let data = self.nothing();
        let upper = data.bound(isolation);
        let records = self.0.reader.read(from, max_bytes, upper).await.map_err(|e| self.read_error(e))?;
        if self.0.purgatory.role() != data.role {
            // The log may have been truncated and written anew in between: what was read may be of another leader's
            // log than the one that the request was checked against.
            env::sometimes!(true, "partition: the role changed during a read");
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        let mut aborted = Vec::new();
        if isolation == Isolation::ReadCommitted && !records.is_empty() {
            aborted = self.0.reader.aborted_transactions(from, upper);
            if !aborted.is_empty() {
                let end = split(records.clone()).flatten().last().map_or(from, |(header, _)| header.next_offset());
                aborted.retain(|t| t.first_offset < end);
            }
        }
        Ok(FetchData { records, aborted, ..data })
    }

    /// Ready once there is something to read past `from`, never will be, or the role changes. May be dropped at any time.
    pub fn wait_readable(&self, from: Offset, isolation: Isolation) -> Readable {
        self.0.purgatory.wait(from, isolation, self.0.purgatory.role())
    }

    /// The same after a read that found nothing: also ready if the role has changed since.
    pub(crate) fn wait_after(&self, data: &FetchData, from: Offset, isolation: Isolation) -> Readable {
        self.0.purgatory.wait(data.bound(isolation).max(from), isolation, data.role)
    }

    /// One past the last offset that every in-sync replica has secured.
    pub fn high_watermark(&self) -> Offset {
        self.0.purgatory.bounds().high_watermark
    }

    /// First offset of the oldest open transaction, or the high watermark: read_committed sees what is below. Not below the
    /// log's start, which may have passed the beginning of the transaction (DeleteRecords): nobody can read from there.
    pub fn last_stable_offset(&self) -> Offset {
        let Bounds { high_watermark, last_stable_offset, .. } = self.0.purgatory.bounds();
        last_stable_offset.max(self.log_start_offset().min(high_watermark))
    }

    /// The exclusive bound of what a reader sees.
    pub fn readable_end(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark(),
            Isolation::ReadCommitted => self.last_stable_offset(),
            Isolation::Replica => self.log_end_offset(),
        }
    }

    pub fn log_end_offset(&self) -> Offset {
        self.0.reader.end_offset()
    }

    pub fn log_start_offset(&self) -> Offset {
        self.0.reader.start_offset()
    }

    /// Where the log begins also after the worst crash.
    pub fn secured_start_offset(&self) -> Offset {
        self.0.machine.borrow().log_start_offset()
    }

    /// (timestamp, offset) of the first record that a reader sees with a timestamp of at least `timestamp`
    /// milliseconds.
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
        isolation: Isolation,
    ) -> Result<Option<(i64, Offset)>, ErrorCode> {
        // Bounded by what the isolation shows (KAFKA-5522).
        let upper = self.readable_end(isolation);
        self.0.reader.offset_for_timestamp(timestamp, upper).await.map_err(|e| self.read_error(e))
    }

    /// (timestamp, offset) of the record with the greatest timestamp that a reader sees, the first of equals.
    pub async fn offset_of_max_timestamp(&self, isolation: Isolation) -> Result<Option<(i64, Offset)>, ErrorCode> {
        let upper = self.readable_end(isolation);
        self.0.reader.offset_of_max_timestamp(upper).await.map_err(|e| self.read_error(e))
    }

    /// As a leader: the greatest leader epoch at or below `epoch`, and where it ends.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, Offset)> {
        self.0.machine.borrow().end_offset_for_epoch(epoch)
    }

    /// The leader epoch that wrote `offset`.
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<i32> {
        self.0.reader.epoch_for_offset(offset)
    }

    /// Nothing more will come to be read: it was closed, or its log failed.
    pub fn is_closed(&self) -> bool {
        self.0.purgatory.is_closed()
    }

    /// Refuses further appends, finishes those queued, flushes, and ends. A second call does nothing.
    pub async fn close(&self) -> Result<(), BrokerError> {
        let Some(task) = self.0.task.borrow_mut().take() else { return Ok(()) };
        let _ = self.0.commands.send(Command::Close);
        let _ = task.await;
        if self.0.failure.error().is_some() {
            return Err(BrokerError::storage(self.id(), "the log failed before it was closed"));
        }
        Ok(())
    }

    fn read_error(&self, error: LogError) -> ErrorCode {
        match error {
            LogError::OutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
            LogError::Corrupt { .. } | LogError::Storage { .. } => {
                // A page that was durable and is not what was written: serving on would hide it.
                self.0.failure.report(BrokerError::storage(self.id(), error));
                ErrorCode::KAFKA_STORAGE_ERROR
            }
            _ => ErrorCode::KAFKA_STORAGE_ERROR,
        }
    }
}

/// An append in its place in the order; ready with its answer. Dropping it does not undo the append.
#[derive(Debug)]
pub struct PendingAppend(oneshot::Receiver<Result<Appended, ErrorCode>>);

impl Future for PendingAppend {
    type Output = Result<Appended, ErrorCode>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A reply that was dropped: the task ended with the append on its way, so nobody knows.
        Pin::new(&mut self.0).poll(cx).map(|r| r.unwrap_or(Err(ErrorCode::KAFKA_STORAGE_ERROR)))
    }
}
