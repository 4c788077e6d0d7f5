//! The driver of one transaction coordinator: it appends what the machine decides, writes markers, keeps its time-outs
//! and answers.
//!
//! One task appends; all changes that wait share a batch and so a sync. Marker writes run beside it. When an append
//! ends without saying whether its records are in the log, nothing in memory can be trusted: every open request is
//! answered NOT_COORDINATOR and the state is read anew from the log, which alone decides.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use env::node::{When, crash_point};
use env::sync::{mpsc, oneshot};
use env::task::AbortOnDrop;
use protocol::{Certainty, ErrorCode};

use super::machine::{Action, Config, Input, Machine, Now, Reply, Request, RequestId, Token, replay};
use super::markers::{self, TxnMarker};
use super::records;
use super::state::{ProducerIdEpoch, State, TopicPartition, Txn};
use crate::context::Context;
use crate::failure::BrokerError;
use crate::internal_topics::{Replayed, batch_of, replay as replay_log};
use crate::partition::{Acks, Origin, Partition};
use crate::probe::Probe;

/// Changes that share one append.
const MAX_GROUP: usize = 256;
/// Between two tries of an append that was refused, of a replay, or of markers.
const BACKOFF: Duration = Duration::from_millis(100);

struct Persist {
    transactional_id: String,
    token: Token,
    txn: Txn,
}

/// One partition of `__transaction_state` and the coordinator of its ids.
pub(crate) struct Shard {
    context: Weak<Context>,
    partition: Partition,
    /// In which this broker coordinates: the epoch of its markers.
    leader_epoch: i32,
    config: Config,
    machine: RefCell<Machine>,
    /// Bounded by the machine: one change an id at a time.
    persists: mpsc::UnboundedSender<Persist>,
    answers: RefCell<BTreeMap<RequestId, oneshot::Sender<Reply>>>,
    next_request: RefCell<u64>,
    /// Rises with each replay: what was begun before it is void.
    generation: Cell<u64>,
}

impl Shard {
    /// Replays the partition and starts its tasks.
    pub async fn load(
        context: Weak<Context>,
        partition: Partition,
        config: Config,
    ) -> Result<(Rc<Self>, AbortOnDrop<()>), BrokerError> {
        let (persists, queue) = mpsc::unbounded_channel();
        let shard = Rc::new(Self {
            context,
            leader_epoch: partition.leader_epoch(),
            partition,
            machine: RefCell::new(Machine::new(config.clone(), 0)),
            config,
            persists,
            answers: RefCell::default(),
            next_request: RefCell::new(0),
            generation: Cell::new(0),
        });
        shard.reload().await?;
        let task = env::task::spawn(Rc::clone(&shard).run(queue)).abort_on_drop();
        Ok((shard, task))
    }

    /// Decides and, where something must be durable first, waits for it.
    pub async fn request(self: &Rc<Self>, transactional_id: String, request: Request) -> Reply {
        let (tx, rx) = oneshot::channel();
        let id = {
            let mut next = self.next_request.borrow_mut();
            *next += 1;
            RequestId(*next)
        };
        self.answers.borrow_mut().insert(id, tx);
        self.submit(Input::Request { id, transactional_id, request, fresh: None });
        rx.await.unwrap_or(Reply::Error(ErrorCode::NOT_COORDINATOR))
    }

    /// See [`Machine::is_ongoing`].
    pub fn is_ongoing<'a>(
        &self,
        transactional_id: &str,
        producer: ProducerIdEpoch,
        partitions: impl Iterator<Item = &'a TopicPartition>,
    ) -> bool {
        self.machine.borrow().is_ongoing(transactional_id, producer, partitions)
    }

    fn now() -> Now {
        Now { instant: env::clock::now(), wall_ms: env::clock::wall_ms() }
    }

    fn submit(self: &Rc<Self>, input: Input) {
        let actions = self.machine.borrow_mut().handle(Self::now(), input);
        self.execute(actions);
    }

    fn execute(self: &Rc<Self>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Persist { transactional_id, token, txn } => {
                    let _ = self.persists.send(Persist { transactional_id, token, txn });
                }
                Action::WriteMarkers { transactional_id, token, producer, commit, partitions } => {
                    let bumps = self.machine.borrow().txn(&transactional_id).is_some_and(|t| t.client_version >= 2);
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
                    env::task::spawn(async move {
                        let Some(context) = shard.context.upgrade() else { return };
                        match context.producer_ids().next().await {
                            Ok(fresh) => {
                                let fresh = Some(fresh);
                                shard.submit(Input::Request { id, transactional_id, request, fresh });
                            }
                            Err(_) => {
                                let reply = Reply::Error(ErrorCode::COORDINATOR_NOT_AVAILABLE);
                                shard.execute(vec![Action::Reply { id, reply }]);
                            }
                        }
                    });
                }
            }
        }
    }

    async fn run(self: Rc<Self>, mut queue: mpsc::UnboundedReceiver<Persist>) {
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
                        env::probe::probe(|| Probe::Transaction {
                            transactional_id: p.transactional_id.clone(),
                            state: p.txn.state,
                            producer: p.txn.producer,
                        });
                        self.submit(Input::Persisted { transactional_id: p.transactional_id, token: p.token });
                    }
                }
                Err(error) if error.certainty() == Certainty::Failed => {
                    tracing::warn!(%error, "transaction state was refused");
                    env::time::sleep(BACKOFF).await;
                    for p in group {
                        let (transactional_id, token) = (p.transactional_id, p.token);
                        let error = ErrorCode::COORDINATOR_NOT_AVAILABLE;
                        self.submit(Input::NotPersisted { transactional_id, token, error });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "transaction state is unknown, reading it anew");
                    env::sometimes!(true, "a transaction coordinator reads its state anew");
                    while queue.try_recv().is_ok() {}
                    if let Err(error) = self.reload().await {
                        // A deposed one is done here: the next leader's coordinator reads the log.
                        let leads = self.partition.is_leader() && self.partition.leader_epoch() == self.leader_epoch;
                        if let Some(context) = self.context.upgrade().filter(|_| leads) {
                            context.failure().report(error);
                        }
                        return;
                    }
                    let partition = self.partition.id().partition;
                    env::probe::probe(|| Probe::CoordinatorReloaded { partition });
                }
            }
        }
    }

    async fn append(&self, group: &[Persist]) -> Result<(), ErrorCode> {
        let records =
            group.iter().map(|p| (records::encode_key(&p.transactional_id), Some(records::encode_value(&p.txn))));
        let batch = batch_of(records, env::clock::wall_ms()).build();
        let partition = Some(self.partition.id().partition);
        let completes = |p: &Persist| matches!(p.txn.state, State::CompleteCommit | State::CompleteAbort);
        let label = if group.iter().any(completes) { "txn.complete" } else { "txn.persist" };
        crash_point("broker", label, partition, When::Before).await;
        self.partition.append(batch, Origin::Coordinator, Acks::All).await?;
        crash_point("broker", label, partition, When::After).await;
        Ok(())
    }

    /// Forgets everything and takes the log's word.
    async fn reload(self: &Rc<Self>) -> Result<(), BrokerError> {
        self.generation.set(self.generation.get() + 1);
        // Dropped senders answer NOT_COORDINATOR.
        self.answers.borrow_mut().clear();
        let next_token = self.machine.borrow().next_token();
        *self.machine.borrow_mut() = Machine::new(self.config.clone(), next_token);
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
        let actions = self.machine.borrow_mut().load(Self::now(), replay(found));
        self.execute(actions);
        Ok(())
    }

    /// Until every partition has its marker. False if another coordinator, or a replay, took over.
    async fn write_markers(
        &self,
        transactional_id: &str,
        marker: TxnMarker,
        mut partitions: Vec<TopicPartition>,
    ) -> bool {
        let generation = self.generation.get();
        while !partitions.is_empty() {
            let Some(context) = self.context.upgrade() else { return false };
            if self.generation.get() != generation {
                return false;
            }
            let results = markers::send(&context, marker, &partitions).await;
            partitions.clear();
            for (partition, error) in results {
                match error {
                    ErrorCode::NONE => {}
                    ErrorCode::TRANSACTION_COORDINATOR_FENCED | ErrorCode::INVALID_PRODUCER_EPOCH => {
                        let (topic, index) = &partition;
                        tracing::error!(transactional_id, topic, index, %error, "marker refused");
                        return false;
                    }
                    // Unknown or for now: a marker may be written twice, never left out.
                    _ => partitions.push(partition),
                }
            }
            if !partitions.is_empty() {
                env::time::sleep(BACKOFF).await;
            }
        }
        true
    }
}
