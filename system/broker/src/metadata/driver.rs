//! The metadata on this node: one task that owns the replica of the metadata log, applies what is committed to the
//! published image in the order of the log, and, while this node leads the quorum, runs the controller.
//!
//! ```text
//!   proposals ──► controller ──records──► replica ──► log, other voters
//!                     ▲                      │
//!                     └── committed ◄── image ◄── everything below the high watermark
//! ```
//! The controller lives for one term: from when everything before the term is committed and applied, so that it decides
//! on the state that all nodes will have, until the leadership ends. What is decided but not committed by then may yet
//! be, so whoever asked is told that nobody knows (REQUEST_TIMED_OUT).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::rc::Rc;

use env::clock;
use env::node::{When, crash_point};
use env::sync::{Notify, mpsc, oneshot};
use protocol::ErrorCode;
use protocol::batch;

use super::image::MetadataImage;
use super::records::MetadataRecord;
use super::snapshot::{self, Unreadable};
use crate::controller::machine::{Action, Input, Machine, ProposalId, Settings};
use crate::controller::proposal::{Outcome, Proposal};
use crate::failure::{BrokerError, Failure};
use crate::metrics::Metrics;
use crate::probe::Probe;
use crate::quorum::snapshot as files;
use crate::quorum::{Event, Incoming, Membership, Quorum, Replica};

/// Decisions queued at the controller; further callers wait.
const MAX_QUEUED: usize = 256;
/// What is taken from each queue in a turn, to share one sync.
const MAX_GROUP: usize = 64;
const READ_BYTES: usize = 1 << 20;

type Answer = oneshot::Sender<Result<Outcome, ErrorCode>>;

/// What the handles share with the driver.
#[derive(Debug, Default)]
struct Shared {
    image: RefCell<MetadataImage>,
    /// Exclusive end of what `image` shows.
    applied: Cell<i64>,
    epoch: Cell<i32>,
    leader: Cell<Option<i32>>,
    /// A controller runs here.
    active: Cell<bool>,
    changed: Notify,
}

/// The handle on the metadata: the committed state as this node knows it, and the way to change it.
#[derive(Clone, Debug)]
pub struct Metadata {
    shared: Rc<Shared>,
    proposals: mpsc::Sender<(Proposal, Answer)>,
    quorum: Quorum,
}

impl Metadata {
    /// Opens the log in `dir` and begins to take part in the quorum. With one voter all that is committed is applied on
    /// return and this node is the active controller; with more, nothing is certain before they talked.
    pub async fn open(
        dir: &Path,
        membership: Membership,
        settings: Settings,
        failure: Failure,
        metrics: Metrics,
    ) -> Result<Self, BrokerError> {
        let (me, cluster_id) = (membership.me, membership.cluster_id.clone());
        let (replica, incoming) = Replica::open(dir, membership).await?;
        let shared = Rc::new(Shared::default());
        let (proposals, queue) = mpsc::channel(MAX_QUEUED);
        let quorum = Quorum::new(me, cluster_id, replica.queue());
        let mut driver = Driver {
            settings,
            metrics,
            shared: Rc::clone(&shared),
            controller: None,
            answers: BTreeMap::new(),
            next_id: 0,
            unsaved: 0,
            incoming,
            queue,
            replica,
        };
        driver.begin().await?;
        env::task::spawn(driver.run(failure));
        Ok(Self { shared, proposals, quorum })
    }

    /// The epoch of the quorum and the active controller, as far as this node knows.
    pub fn leader(&self) -> (i32, Option<i32>) {
        (self.shared.epoch.get(), self.shared.leader.get())
    }

    /// Whether this node is the active controller, as far as it knows: one that was cut off takes a while to notice.
    pub fn is_controller(&self) -> bool {
        self.shared.active.get()
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

    /// Decides, commits and publishes, on this node. NOT_CONTROLLER if it is not the active controller;
    /// REQUEST_TIMED_OUT if it ceased to be meanwhile, KAFKA_STORAGE_ERROR if it stops: then nobody knows. Any other
    /// error is a decision against it.
    pub async fn propose(&self, proposal: Proposal) -> Result<Outcome, ErrorCode> {
        let (tx, rx) = oneshot::channel();
        self.proposals.send((proposal, tx)).await.map_err(|_| ErrorCode::KAFKA_STORAGE_ERROR)?;
        rx.await.unwrap_or(Err(ErrorCode::KAFKA_STORAGE_ERROR))
    }

    /// The door for requests about the metadata log itself.
    pub fn quorum(&self) -> &Quorum {
        &self.quorum
    }
}

/// What begins a turn.
enum Wake {
    Incoming(Incoming),
    Proposal(Proposal, Answer),
    Time,
}

struct Driver {
    replica: Replica,
    settings: Settings,
    metrics: Metrics,
    shared: Rc<Shared>,
    /// While this node is the active controller.
    controller: Option<Machine>,
    answers: BTreeMap<ProposalId, Answer>,
    next_id: u64,
    /// Bytes applied since the last snapshot.
    unsaved: u64,
    incoming: mpsc::Receiver<Incoming>,
    queue: mpsc::Receiver<(Proposal, Answer)>,
}

impl Driver {
    async fn begin(&mut self) -> Result<(), BrokerError> {
        if let Some(at) = self.replica.snapshot() {
            self.load(files::path(self.replica.dir(), at), at.offset).await?;
        }
        let (epoch, leader) = self.replica.epoch_and_leader();
        self.shared.epoch.set(epoch);
        self.shared.leader.set(leader);
        self.follow_up().await
    }

    /// Runs until the last handle is gone or the disk fails.
    async fn run(mut self, failure: Failure) {
        while let Some(wake) = self.wake().await {
            if let Err(error) = self.turn(wake).await {
                failure.report(error);
                return;
            }
        }
    }

    async fn wake(&mut self) -> Option<Wake> {
        let decision = self.controller.as_ref().and_then(Machine::next_timeout);
        let deadline = self.replica.next_timeout().into_iter().chain(decision).min();
        let time = async {
            match deadline {
                Some(deadline) => env::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        env::select! {
            incoming = self.incoming.recv() => incoming.map(Wake::Incoming),
            proposal = self.queue.recv() => proposal.map(|(proposal, answer)| Wake::Proposal(proposal, answer)),
            () = time => Some(Wake::Time),
        }
    }

    /// Takes what is there, with one sync for all of it.
    async fn turn(&mut self, wake: Wake) -> Result<(), BrokerError> {
        match wake {
            Wake::Incoming(incoming) => self.replica.take(incoming).await?,
            Wake::Proposal(proposal, answer) => self.decide(proposal, answer).await?,
            Wake::Time => {}
        }
        for _ in 0..MAX_GROUP {
            let Ok(incoming) = self.incoming.try_recv() else { break };
            self.replica.take(incoming).await?;
        }
        for _ in 0..MAX_GROUP {
            let Ok((proposal, answer)) = self.queue.try_recv() else { break };
            self.decide(proposal, answer).await?;
        }
        let now = clock::now();
        if self.replica.next_timeout().is_some_and(|at| at <= now) {
            self.replica.tick().await?;
        }
        if self.controller.as_ref().and_then(Machine::next_timeout).is_some_and(|at| at <= now) {
            self.control(Input::Tick).await?;
        }
        self.follow_up().await
    }

    async fn decide(&mut self, proposal: Proposal, answer: Answer) -> Result<(), BrokerError> {
        if self.controller.is_none() {
            // Whoever asked may be gone; here and below, what was decided stands.
            let _ = answer.send(Err(ErrorCode::NOT_CONTROLLER));
            return Ok(());
        }
        self.next_id += 1;
        let id = ProposalId(self.next_id);
        self.answers.insert(id, answer);
        self.control(Input::Propose { id, proposal }).await
    }

    async fn control(&mut self, input: Input) -> Result<(), BrokerError> {
        let Some(controller) = &mut self.controller else { return Ok(()) };
        for action in controller.handle(clock::now(), input) {
            match action {
                Action::Append { base, records } => {
                    // A leader that just noticed that it is none takes nothing; the answers follow with the news.
                    let Some((_, next)) = self.replica.active() else { continue };
                    assert_eq!(next, base, "the controller knows the end of the log");
                    let batch = snapshot::encode(&records, clock::wall_ms());
                    self.replica.append(batch, records.len() as i64).await?;
                }
                Action::Reply { id, result } => {
                    if let Some(answer) = self.answers.remove(&id) {
                        let _ = answer.send(result);
                    }
                }
            }
        }
        Ok(())
    }

    /// Syncs, and sees to all that comes of it.
    async fn follow_up(&mut self) -> Result<(), BrokerError> {
        loop {
            self.replica.settle().await?;
            let Some(event) = self.replica.next_event() else {
                if self.controller.is_none() && self.take_over() {
                    continue;
                }
                break;
            };
            match event {
                Event::Committed { high_watermark } => {
                    self.apply(high_watermark).await?;
                    self.shared.changed.notify_waiters();
                    self.control(Input::Committed { end: high_watermark }).await?;
                    self.save_if_due().await?;
                }
                Event::LeaderChanged { epoch, leader } => {
                    self.step_down();
                    self.metrics.elections.quorum_changes.inc();
                    self.shared.epoch.set(epoch);
                    self.shared.leader.set(leader);
                    self.shared.changed.notify_waiters();
                }
                Event::Installed { at } => {
                    self.load(files::path(self.replica.dir(), at), at.offset).await?;
                    self.shared.changed.notify_waiters();
                }
            }
        }
        Ok(())
    }

    /// Becomes the active controller, if this node leads and everything before its term is applied.
    fn take_over(&mut self) -> bool {
        let Some((epoch, next)) = self.replica.active() else { return false };
        let applied = self.shared.applied.get();
        assert_eq!(applied, next, "a term begins on everything before it");
        let image = self.shared.image.borrow().clone();
        tracing::info!(node = self.settings.node_id, epoch, offset = next, "active controller");
        self.metrics.elections.terms.inc();
        self.shared.active.set(true);
        self.controller = Some(Machine::new(self.settings.clone(), image, next, clock::now()));
        true
    }

    fn step_down(&mut self) {
        self.controller = None;
        self.shared.active.set(false);
        for answer in std::mem::take(&mut self.answers).into_values() {
            env::sometimes!(true, "controller: a decision whose leader lost the quorum");
            let _ = answer.send(Err(ErrorCode::REQUEST_TIMED_OUT));
        }
    }

    /// Applies what is committed and was not yet.
    async fn apply(&mut self, high_watermark: i64) -> Result<(), BrokerError> {
        crash_point("controller", "metadata.apply", None, When::Before).await;
        let mut next = self.shared.applied.get();
        while next < high_watermark {
            let read = self.replica.log().reader().read(next, READ_BYTES, high_watermark).await;
            let bytes = read.map_err(|e| BrokerError::storage("the metadata log", e))?;
            assert!(!bytes.is_empty(), "the log is there up to the high watermark {high_watermark}, not from {next}");
            for part in batch::split(bytes) {
                let (header, batch) = part.map_err(unreadable)?;
                assert_eq!(header.base_offset, next, "the log is applied without a gap");
                next = header.next_offset();
                self.unsaved += header.total_len() as u64;
                env::probe::probe(|| Probe::MetadataApplied {
                    offset: header.base_offset,
                    records: header.last_offset_delta + 1,
                    epoch: header.partition_leader_epoch,
                    crc: header.crc,
                });
                if !header.is_control() {
                    let mut image = self.shared.image.borrow_mut();
                    let controls = self.controller.is_some();
                    let note = |record, image: &MetadataImage| {
                        if controls {
                            self.metrics.elections.committed(&record);
                        }
                        tell(record, image);
                    };
                    snapshot::apply(&batch, &mut image, note).map_err(unreadable)?;
                }
            }
        }
        self.shared.applied.set(next);
        Ok(())
    }

    /// Takes a snapshot if enough was applied since the last one.
    async fn save_if_due(&mut self) -> Result<(), BrokerError> {
        let at = self.replica.committed();
        if self.unsaved < self.replica.snapshot_bytes() || at.offset != self.shared.applied.get() {
            return Ok(());
        }
        self.unsaved = 0;
        let dir = self.replica.dir().to_owned();
        let contents = snapshot::write(&self.shared.image.borrow(), clock::wall_ms());
        let storage = |e| BrokerError::storage("a snapshot of the metadata", e);
        crash_point("controller", "quorum.snapshot", None, When::Before).await;
        files::store(&dir, at, contents).await.map_err(storage)?;
        crash_point("controller", "quorum.snapshot", None, When::After).await;
        self.replica.snapshotted(at).await?;
        files::remove_older(&dir, at).await.map_err(storage)
    }

    /// Begins anew with a snapshot.
    async fn load(&mut self, path: std::path::PathBuf, end: i64) -> Result<(), BrokerError> {
        let bytes = env::disk::read(&path).await.map_err(|e| BrokerError::storage(path.display(), e))?;
        let image = snapshot::read(bytes).map_err(|e| BrokerError::corrupt(path.display(), e))?;
        *self.shared.image.borrow_mut() = image;
        self.shared.applied.set(end);
        self.unsaved = 0;
        Ok(())
    }
}

/// Tells the harness of a record and what it made of a partition.
fn tell(record: MetadataRecord, image: &MetadataImage) {
    let of = match &record {
        MetadataRecord::Partition { topic_id, partition, .. } => Some((*topic_id, *partition)),
        MetadataRecord::PartitionChange(change) => Some((change.topic_id, change.partition)),
        _ => None,
    };
    if let Some((topic_id, partition)) = of
        && let (Some(topic), Some(state)) = (image.topics.get(&topic_id), image.partition(topic_id, partition))
    {
        env::probe::probe(|| Probe::PartitionState { topic: topic.name.clone(), partition, state: state.clone() });
    }
    env::probe::probe(|| Probe::Metadata { record });
}

fn unreadable(error: impl Into<Unreadable>) -> BrokerError {
    BrokerError::corrupt("the metadata log", error.into())
}
