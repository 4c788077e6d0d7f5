//! The driver of one transaction coordinator: it loads its state from the log, appends what the machine decides, has
//! markers written, keeps its time-outs and answers.
//!
//! ```text
//! start -> replay the log up to the high watermark of this leadership -> serve -> resign
//!            ^                                                             |
//!            '--- an append ended without saying whether its records stay -'
//! ```
//! One task appends; all changes that wait share a batch and so a sync. Marker writes run beside it. While the log is
//! replayed every request is answered COORDINATOR_LOAD_IN_PROGRESS. When an append ends without saying whether its
//! records are in the log, nothing in memory can be trusted: every open request is answered NOT_COORDINATOR and the
//! state is read anew from the log, which alone decides.
//!
//! A coordinator speaks for one leadership of its partition: it ends before the partition is led in another epoch or
//! followed, and what it had queued there is refused then.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use env::node::{When, crash_point};
use env::sync::{mpsc, oneshot};
use env::task::AbortOnDrop;
use protocol::{Certainty, ErrorCode};

use super::machine::{Action, Config, Input, Machine, Now, Reply, Request, RequestId, Token, replay};
use super::marker_sender;
use super::markers::TxnMarker;
use super::records;
use super::state::{State, TopicPartition, Txn};
use crate::context::Context;
use crate::failure::BrokerError;
use crate::internal_topics::{Replayed, TRANSACTION_STATE, batch_of, replay as replay_log};
use crate::partition::{Acks, Origin, Partition};
use crate::probe::Probe;

/// Changes that share one append.
const MAX_GROUP: usize = 256;
/// Between two tries of an append that was refused, or of markers.
const BACKOFF: Duration = Duration::from_millis(100);

struct Persist {
    transactional_id: String,
    token: Token,
    /// `None`: the id is forgotten.
    txn: Option<Txn>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Loading,
    Serving,
    Resigned,
}

/// One partition of `__transaction_state` and the coordinator of its ids.
pub(crate) struct Shard {
    context: Weak<Context>,
    partition: Partition,
    /// In which this broker coordinates: the epoch of its markers.
    leader_epoch: i32,
    config: Config,
    machine: RefCell<Machine>,
    phase: Cell<Phase>,
    /// Bounded by the machine: one change an id at a time.
    persists: mpsc::UnboundedSender<Persist>,
    answers: RefCell<BTreeMap<RequestId, oneshot::Sender<Reply>>>,
    next_request: Cell<u64>,
    /// Rises with each replay and at the end: what was begun before is void.
    generation: Cell<u64>,
}

fn now() -> Now {
    Now { instant: env::clock::now(), wall_ms: env::clock::wall_ms() }
}

impl Shard {
    /// Starts to replay the partition, and serves once that is done, which the receiver tells. The coordinator is
    /// [`Shard::resign`] and the end of the task.
    pub fn start(
        context: Weak<Context>,
        partition: Partition,
        config: Config,
    ) -> (Rc<Self>, AbortOnDrop<()>, oneshot::Receiver<()>) {
        let (persists, queue) = mpsc::unbounded_channel();
        let shard = Rc::new(Self {
            context,
            leader_epoch: partition.leader_epoch(),
            partition,
            machine: RefCell::new(Machine::new(config.clone(), 0)),
            config,
            phase: Cell::new(Phase::Loading),
            persists,
            answers: RefCell::default(),
            next_request: Cell::new(0),
            generation: Cell::new(0),
        });
        let (loaded, wait) = oneshot::channel();
        let task = env::task::spawn(Rc::clone(&shard).run(queue, loaded)).abort_on_drop();
        (shard, task, wait)
    }

    /// Nothing is answered, decided or marked any more.
    pub fn resign(&self) {
        self.phase.set(Phase::Resigned);
        self.forget();
    }

    /// Dropped senders answer NOT_COORDINATOR.
    fn forget(&self) {
        self.generation.set(self.generation.get() + 1);
        self.answers.borrow_mut().clear();
    }

    /// Decides and, where something must be durable first, waits for it.
    pub async fn request(self: &Rc<Self>, transactional_id: String, request: Request) -> Reply {
        if let Err(error) = self.serves() {
            return Reply::Error(error);
        }
        let (tx, rx) = oneshot::channel();
        let id = RequestId(self.next_request.get());
        self.next_request.set(id.0 + 1);
        self.answers.borrow_mut().insert(id, tx);
        self.submit(Input::Request { id, transactional_id, request, fresh: None });
        rx.await.unwrap_or(Reply::Error(ErrorCode::NOT_COORDINATOR))
    }

    /// Reads what is held of the ids.
    pub fn look<T>(&self, f: impl FnOnce(&Machine) -> T) -> Result<T, ErrorCode> {
        self.serves().map(|()| f(&self.machine.borrow()))
    }

    fn serves(&self) -> Result<(), ErrorCode> {
        match self.phase.get() {
            // Its image may know a topic that the next coordinator's does not know yet: that one would take the
            // partition's topic for deleted and leave the transaction open there.
            _ if !self.coordinates() => Err(ErrorCode::NOT_COORDINATOR),
            Phase::Resigned => Err(ErrorCode::NOT_COORDINATOR),
            Phase::Loading => Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
            Phase::Serving => Ok(()),
        }
    }

    /// Whether the image still has this leadership of the partition.
    fn coordinates(&self) -> bool {
        let index = self.partition.id().partition;
        let context = self.context.upgrade();
        let epoch = context.and_then(|c| {
            c.metadata.with(|image| Some(image.topic(TRANSACTION_STATE)?.partitions.get(&index)?.leader_epoch))
        });
        epoch == Some(self.leader_epoch)
    }

    fn submit(self: &Rc<Self>, input: Input) {
        let actions = self.machine.borrow_mut().handle(now(), input);
        self.execute(actions);
    }

    fn execute(self: &Rc<Self>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Persist { transactional_id, token, txn } => {
                    let _ = self.persists.send(Persist { transactional_id, token, txn: Some(txn) });
                }
                Action::Forget { transactional_id, token } => {
                    let _ = self.persists.send(Persist { transactional_id, token, txn: None });
                }
                Action::WriteMarkers { transactional_id, token, producer, commit, bumps, partitions } => {
                    let marker = TxnMarker { producer, commit, coordinator_epoch: self.leader_epoch, bumps };
                    let shard = Rc::clone(self);
                    env::task::spawn(async move {
                        if shard.write_markers(&transactional_id, marker, partitions).await {
                            shard.submit(Input::MarkersWritten { transactional_id, token });
                        }
                    });
                }
                Action::Reply { id, reply } => {
                    if let Some(answer) = self.answers.borrow_mut().remove(&id) {
                        let _ = answer.send(reply);
                    }
                }
                Action::AllocateProducerId { id, transactional_id, request } => {
                    let shard = Rc::clone(self);
                    env::task::spawn(async move { shard.allocate(id, transactional_id, request).await });
                }
            }
        }
    }

    async fn allocate(self: Rc<Self>, id: RequestId, transactional_id: String, request: Request) {
        let generation = self.generation.get();
        let Some(context) = self.context.upgrade() else { return };
        let fresh = context.producer_ids().next().await;
        if self.generation.get() != generation {
            // Its client has been told to ask again, and may have: done now as well, it would fence that one.
            return;
        }
        match fresh {
            Ok(fresh) => {
                let fresh = Some(fresh);
                self.submit(Input::Request { id, transactional_id, request, fresh });
            }
            Err(error) => self.execute(vec![Action::Reply { id, reply: Reply::Error(error) }]),
        }
    }

    async fn run(self: Rc<Self>, mut queue: mpsc::UnboundedReceiver<Persist>, loaded: oneshot::Sender<()>) {
        if let Err(error) = self.load().await {
            return self.failed(error);
        }
        let _ = loaded.send(());
        loop {
            self.serve(&mut queue).await;
            env::sometimes!(true, "a transaction coordinator reads its state anew");
            self.phase.set(Phase::Loading);
            self.forget();
            while queue.try_recv().is_ok() {}
            if let Err(error) = self.load().await {
                return self.failed(error);
            }
            let partition = self.partition.id().partition;
            env::probe::probe(|| Probe::CoordinatorReloaded { partition });
        }
    }

    /// A deposed one is done here: the next leader's coordinator reads the log.
    fn failed(&self, error: BrokerError) {
        let leads = self.partition.is_leader() && self.partition.leader_epoch() == self.leader_epoch;
        if let Some(context) = self.context.upgrade().filter(|_| leads) {
            context.failure().report(error);
        }
    }

    /// Until it is not known whether a change is in the log.
    async fn serve(self: &Rc<Self>, queue: &mut mpsc::UnboundedReceiver<Persist>) {
        loop {
            let deadline = self.machine.borrow().next_timeout();
            let first = match deadline {
                None => queue.recv().await,
                Some(deadline) => env::select! {
                    p = queue.recv() => p,
                    () = env::time::sleep_until(deadline) => {
                        self.submit(Input::Tick);
                        continue;
                    }
                },
            };
            // The shard holds the other end itself.
            let Some(first) = first else { return };
            let mut group = vec![first];
            while group.len() < MAX_GROUP
                && let Ok(next) = queue.try_recv()
            {
                group.push(next);
            }
            match self.append(&group).await {
                Ok(()) => {
                    for p in group {
                        if let Some(txn) = &p.txn {
                            self.tell(&p.transactional_id, txn);
                        }
                        self.submit(Input::Persisted { transactional_id: p.transactional_id, token: p.token });
                    }
                }
                Err(error) if error.certainty() == Certainty::Failed => {
                    let (partition, epoch) = (self.partition.id().partition, self.leader_epoch);
                    tracing::warn!(topic = TRANSACTION_STATE, partition, epoch, %error, "transaction state was refused");
                    env::time::sleep(BACKOFF).await;
                    for p in group {
                        let (transactional_id, token) = (p.transactional_id, p.token);
                        let error = ErrorCode::COORDINATOR_NOT_AVAILABLE;
                        self.submit(Input::NotPersisted { transactional_id, token, error });
                    }
                }
                Err(error) => {
                    let (partition, epoch) = (self.partition.id().partition, self.leader_epoch);
                    let topic = TRANSACTION_STATE;
                    tracing::warn!(topic, partition, epoch, %error, "transaction state is unknown, reading it anew");
                    return;
                }
            }
        }
    }

    async fn append(&self, group: &[Persist]) -> Result<(), ErrorCode> {
        let records =
            group.iter().map(|p| (records::encode_key(&p.transactional_id), p.txn.as_ref().map(records::encode_value)));
        let batch = batch_of(records, env::clock::wall_ms()).build();
        let partition = Some(self.partition.id().partition);
        let ended = |txn: &Txn| matches!(txn.state, State::CompleteCommit | State::CompleteAbort);
        let completes = |p: &Persist| p.txn.as_ref().is_some_and(ended);
        let label = if group.iter().any(completes) { "txn.complete" } else { "txn.persist" };
        crash_point("broker", label, partition, When::Before).await;
        self.partition.append(batch, Origin::Coordinator, Acks::All).await?;
        crash_point("broker", label, partition, When::After).await;
        Ok(())
    }

    fn tell(&self, transactional_id: &str, txn: &Txn) {
        env::probe::probe(|| Probe::Transaction {
            transactional_id: transactional_id.to_owned(),
            state: txn.state,
            producer: txn.producer,
            two_phase: !txn.has_timeout(),
            coordinator_epoch: self.leader_epoch,
        });
    }

    /// Takes the log's word for everything.
    async fn load(self: &Rc<Self>) -> Result<(), BrokerError> {
        let mut found = Vec::new();
        let mut bad = None;
        replay_log(&self.partition, |item| {
            let Replayed::Records { records, .. } = item else { return };
            for record in records {
                let key = records::decode_key(record.key.as_deref().unwrap_or_default());
                let value = record.value.as_deref().map(records::decode_value).transpose();
                match (key, value) {
                    (Ok(key), Ok(value)) => found.push((key, value)),
                    (Err(e), _) | (_, Err(e)) => bad = Some((record.offset, e)),
                }
            }
        })
        .await?;
        if let Some((offset, error)) = bad {
            return Err(BrokerError::corrupt(format!("{} at offset {offset}", self.partition.id()), error));
        }
        // Tokens go on, so that no answer to the state before is taken for one of this.
        let next_token = self.machine.borrow().next_token();
        let mut machine = Machine::new(self.config.clone(), next_token);
        let loaded = replay(found);
        // What was stored and never told is told now: an append may have ended without an answer.
        loaded.iter().for_each(|(id, txn)| self.tell(id, txn));
        let actions = machine.load(now(), loaded);
        *self.machine.borrow_mut() = machine;
        self.phase.set(Phase::Serving);
        self.execute(actions);
        Ok(())
    }

    /// Until every partition has its marker. False if the state was read anew, or this coordinator has resigned.
    ///
    /// A partition that knows a later coordinator refuses the marker (TRANSACTION_COORDINATOR_FENCED, or
    /// INVALID_PRODUCER_EPOCH if that one has moved the producer on). This one has been deposed then and will soon know.
    async fn write_markers(
        &self,
        transactional_id: &str,
        marker: TxnMarker,
        mut partitions: Vec<TopicPartition>,
    ) -> bool {
        let generation = self.generation.get();
        loop {
            let Some(context) = self.context.upgrade() else { return false };
            let left = marker_sender::send(&context, marker, &partitions).await;
            if self.generation.get() != generation {
                return false;
            }
            for ((topic, index), error) in &left {
                let fenced =
                    matches!(*error, ErrorCode::TRANSACTION_COORDINATOR_FENCED | ErrorCode::INVALID_PRODUCER_EPOCH);
                env::sometimes!(fenced, "a deposed transaction coordinator's marker is refused");
                tracing::debug!(transactional_id, topic, partition = index, %error, "no marker yet");
            }
            if left.is_empty() {
                return true;
            }
            partitions = left.into_iter().map(|(at, _)| at).collect();
            drop(context);
            env::time::sleep(BACKOFF).await;
            if self.generation.get() != generation {
                return false;
            }
        }
    }
}
