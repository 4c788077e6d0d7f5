//! The controller's driver: one task owns the metadata log, appends decisions, syncs and publishes them.
//!
//! The metadata log is always synced before a decision is answered, whatever `flush` says of partitions: losing a
//! partition's tail is a choice, losing the partition is not.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use env::node::{When, crash_point};
use env::sync::{Notify, mpsc, oneshot};
use log::{Log, LogConfig};
use protocol::ErrorCode;
use protocol::batch::{self, BatchBuilder, Limits, Record};

use super::image::MetadataImage;
use super::records::MetadataRecord;
use crate::controller::machine::{Action, Input, Machine, ProposalId, Settings};
use crate::controller::proposal::{Outcome, Proposal};
use crate::failure::{BrokerError, Failure};
use crate::probe::Probe;

/// Decisions queued at the controller; further callers wait.
const MAX_QUEUED: usize = 256;
/// Decisions that share one sync.
const MAX_GROUP: usize = 64;
const READ_BYTES: usize = 1 << 20;
/// Records of the metadata log are small; a batch of more is not ours.
const LIMITS: Limits = Limits { max_decompressed_bytes: 64 << 20 };

type Answer = oneshot::Sender<Result<Outcome, ErrorCode>>;

/// What the handles share with the driver.
#[derive(Debug, Default)]
struct Shared {
    image: RefCell<MetadataImage>,
    /// Exclusive end of what `image` shows.
    applied: Cell<i64>,
    epoch: Cell<i32>,
    changed: Notify,
}

/// The handle on the metadata log: the committed state, and the way to change it.
#[derive(Clone, Debug)]
pub struct Metadata {
    node_id: i32,
    shared: Rc<Shared>,
    proposals: mpsc::Sender<(Proposal, Answer)>,
}

impl Metadata {
    /// Opens and replays the log in `dir`, and starts the controller of this node, the one voter.
    pub async fn open(dir: &Path, settings: Settings, failure: Failure) -> Result<Self, BrokerError> {
        let open = Log::open(dir, LogConfig::default(), env::clock::now()).await;
        let (log, _) = open.map_err(|e| BrokerError::storage(dir.display(), e))?;
        let replayed = replay(&log, dir).await?;
        let end = log.end_offset();
        let epoch = log.leader_epochs().latest().map_or(0, |epoch| epoch + 1);
        let shared = Rc::new(Shared {
            image: RefCell::new(replayed.clone()),
            applied: Cell::new(end),
            epoch: Cell::new(epoch),
            changed: Notify::new(),
        });
        let (proposals, queue) = mpsc::channel(MAX_QUEUED);
        let node_id = settings.node_id;
        let driver = Driver {
            machine: Machine::new(settings, replayed, end, env::clock::now()),
            log,
            shared: Rc::clone(&shared),
            appended: VecDeque::new(),
            answers: BTreeMap::new(),
            next_id: 0,
            queue,
        };
        env::task::spawn(driver.run(failure));
        Ok(Self { node_id, shared, proposals })
    }

    /// The epoch and node of the active controller, as far as this node knows.
    pub fn leader(&self) -> (i32, Option<i32>) {
        (self.shared.epoch.get(), Some(self.node_id))
    }

    /// Exclusive end of the part of the log that [`Metadata::with`] shows.
    pub fn applied(&self) -> i64 {
        self.shared.applied.get()
    }

    /// Ready at the next change of the state or of the controller after this call.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        self.shared.changed.notified()
    }

    /// Looks at the committed state. `f` must not wait.
    pub fn with<T>(&self, f: impl FnOnce(&MetadataImage) -> T) -> T {
        f(&self.shared.image.borrow())
    }

    /// Decides, stores and publishes. An error is a decision against it, or KAFKA_STORAGE_ERROR when the broker stops
    /// meanwhile and nobody knows.
    pub async fn propose(&self, proposal: Proposal) -> Result<Outcome, ErrorCode> {
        let (tx, rx) = oneshot::channel();
        self.proposals.send((proposal, tx)).await.map_err(|_| ErrorCode::KAFKA_STORAGE_ERROR)?;
        rx.await.unwrap_or(Err(ErrorCode::KAFKA_STORAGE_ERROR))
    }
}

async fn replay(log: &Log, dir: &Path) -> Result<MetadataImage, BrokerError> {
    let mut image = MetadataImage::default();
    let mut next = log.start_offset();
    let end = log.end_offset();
    while next < end {
        let bytes =
            log.reader().read(next, READ_BYTES, end).await.map_err(|e| BrokerError::storage(dir.display(), e))?;
        for item in batch::split(bytes) {
            let (header, bytes) = item.map_err(|e| BrokerError::corrupt(dir.display(), e))?;
            next = header.next_offset();
            if header.is_control() {
                continue;
            }
            let records = batch::decode_records(&bytes, &LIMITS);
            for record in records.map_err(|e| BrokerError::corrupt(dir.display(), e))? {
                let value = record.value.unwrap_or_default();
                let decoded = MetadataRecord::decode(&value);
                let decoded = decoded.map_err(|e| BrokerError::corrupt(dir.display(), e))?;
                image.apply(&decoded).map_err(|e| BrokerError::corrupt(dir.display(), e))?;
            }
        }
    }
    Ok(image)
}

fn encode(records: &[MetadataRecord], timestamp: i64) -> Bytes {
    let mut builder = BatchBuilder::new();
    for record in records {
        builder.push(&Record { timestamp, value: Some(record.encode()), ..Record::default() });
    }
    builder.build()
}

#[derive(Debug)]
struct Driver {
    machine: Machine,
    log: Log,
    shared: Rc<Shared>,
    /// Batches on their way to the disk.
    appended: VecDeque<Vec<MetadataRecord>>,
    answers: BTreeMap<ProposalId, Answer>,
    next_id: u64,
    queue: mpsc::Receiver<(Proposal, Answer)>,
}

impl Driver {
    /// Runs until the last handle is gone or the disk fails.
    async fn run(mut self, failure: Failure) {
        loop {
            let deadline = self.machine.next_timeout();
            let done = match deadline {
                None => match self.queue.recv().await {
                    Some(first) => self.group(Some(first)).await,
                    None => return,
                },
                Some(deadline) => env::select! {
                    first = self.queue.recv() => match first {
                        Some(first) => self.group(Some(first)).await,
                        None => return,
                    },
                    () = env::time::sleep_until(deadline) => self.group(None).await,
                },
            };
            if let Err(error) = done {
                failure.report(error);
                return;
            }
        }
    }

    /// Decides what is due or queued, with one sync for all of it.
    async fn group(&mut self, mut next: Option<(Proposal, Answer)>) -> Result<(), BrokerError> {
        if self.machine.next_timeout().is_some_and(|at| at <= env::clock::now()) {
            let actions = self.machine.handle(env::clock::now(), Input::Tick);
            self.execute(actions).await?;
        }
        let mut taken = 0;
        while let Some((proposal, answer)) = next {
            self.next_id += 1;
            let id = ProposalId(self.next_id);
            self.answers.insert(id, answer);
            let actions = self.machine.handle(env::clock::now(), Input::Propose { id, proposal });
            self.execute(actions).await?;
            taken += 1;
            next = if taken < MAX_GROUP { self.queue.try_recv().ok() } else { None };
        }
        if self.appended.is_empty() {
            return Ok(());
        }
        let sync = self.log.flusher().await;
        let end = self.log.flushed(sync).await.map_err(|e| BrokerError::storage("the metadata log", e))?;
        crash_point("broker", "metadata.apply", None, When::Before).await;
        for record in std::mem::take(&mut self.appended).into_iter().flatten() {
            let applied = self.shared.image.borrow_mut().apply(&record);
            applied.map_err(|e| BrokerError::corrupt("the metadata log", e))?;
            env::probe::probe(|| Probe::Metadata { record: record.clone() });
        }
        self.shared.applied.set(end);
        self.shared.changed.notify_waiters();
        let actions = self.machine.handle(env::clock::now(), Input::Committed { end });
        self.execute(actions).await
    }

    async fn execute(&mut self, actions: Vec<Action>) -> Result<(), BrokerError> {
        for action in actions {
            match action {
                Action::Append { base, records } => {
                    crash_point("broker", "metadata.append", None, When::Before).await;
                    let batch = encode(&records, env::clock::wall_ms());
                    let appended = self.log.append(batch, self.shared.epoch.get(), env::clock::now()).await;
                    let appended = appended.map_err(|e| BrokerError::storage("the metadata log", e))?;
                    assert_eq!(appended.first, base, "the controller knows the end of its log");
                    self.appended.push_back(records);
                    crash_point("broker", "metadata.append", None, When::After).await;
                }
                Action::Reply { id, result } => {
                    if let Some(answer) = self.answers.remove(&id) {
                        // Whoever asked may be gone; the decision stands.
                        let _ = answer.send(result);
                    }
                }
            }
        }
        Ok(())
    }
}
