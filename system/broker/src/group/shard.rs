//! The driver of one partition of `__consumer_offsets`: one task appends commits, waits for them to be stored, and
//! applies them in log order. Markers of transactions pass through the same queue, so that no offset can be applied
//! after the marker that follows it in the log.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use env::node::{When, crash_point};
use env::sync::{mpsc, oneshot};
use env::task::AbortOnDrop;
use protocol::{Certainty, ErrorCode};

use super::machine::{Committed, Fetched, Input, Machine, Place, Visible};
use super::records;
use crate::context::Context;
use crate::failure::BrokerError;
use crate::internal_topics::{Replayed, batch_of, replay};
use crate::join::join_all;
use crate::partition::{Acks, Origin, Partition};
use crate::probe::Probe;
use crate::txn::state::ProducerIdEpoch;

/// Requests queued at a shard; further callers wait.
const MAX_QUEUED: usize = 256;
/// Requests appended together.
const MAX_GROUP: usize = 64;

/// The transaction that a commit belongs to.
#[derive(Clone, Debug)]
pub(crate) struct InTransaction {
    pub transactional_id: String,
    pub producer: ProducerIdEpoch,
}

#[derive(Debug)]
pub(crate) struct Commit {
    pub group: String,
    pub offsets: Vec<(Place, Committed)>,
    pub transaction: Option<InTransaction>,
}

enum Work {
    Commit(Commit, oneshot::Sender<ErrorCode>),
    Ended { producer_id: i64, commit: bool, done: oneshot::Sender<()> },
}

pub(crate) struct Shard {
    context: Weak<Context>,
    partition: Partition,
    machine: RefCell<Machine>,
    queue: mpsc::Sender<Work>,
}

impl Shard {
    /// Replays the partition and starts its task.
    pub async fn load(
        context: Weak<Context>,
        partition: Partition,
    ) -> Result<(Rc<Self>, AbortOnDrop<()>), BrokerError> {
        let (queue, work) = mpsc::channel(MAX_QUEUED);
        let machine = RefCell::new(replayed(&partition).await?);
        let shard = Rc::new(Self { context, partition, machine, queue });
        let task = env::task::spawn(Rc::clone(&shard).run(work)).abort_on_drop();
        Ok((shard, task))
    }

    pub async fn commit(&self, commit: Commit) -> ErrorCode {
        let (tx, rx) = oneshot::channel();
        if self.queue.send(Work::Commit(commit, tx)).await.is_err() {
            return ErrorCode::NOT_COORDINATOR;
        }
        rx.await.unwrap_or(ErrorCode::NOT_COORDINATOR)
    }

    /// Ready once the offsets of the transaction are visible, or dropped.
    pub async fn transaction_ended(&self, producer_id: i64, commit: bool) {
        let (done, rx) = oneshot::channel();
        if self.queue.send(Work::Ended { producer_id, commit, done }).await.is_ok() {
            let _ = rx.await;
        }
    }

    pub fn fetch(&self, group: &str, place: &Place, require_stable: bool) -> Fetched {
        self.machine.borrow().fetch(group, place, require_stable)
    }

    pub fn places(&self, group: &str) -> Vec<Place> {
        self.machine.borrow().places(group)
    }

    async fn run(self: Rc<Self>, mut queue: mpsc::Receiver<Work>) {
        while let Some(first) = queue.recv().await {
            let mut commits = Vec::new();
            let mut ended = None;
            let mut next = Some(first);
            while let Some(work) = next {
                match work {
                    Work::Commit(commit, answer) => commits.push((commit, answer)),
                    Work::Ended { producer_id, commit, done } => {
                        ended = Some((producer_id, commit, done));
                        break;
                    }
                }
                next = if commits.len() < MAX_GROUP { queue.try_recv().ok() } else { None };
            }
            if !commits.is_empty() && !self.append(commits).await {
                match replayed(&self.partition).await {
                    Ok(machine) => *self.machine.borrow_mut() = machine,
                    Err(error) => {
                        if let Some(context) = self.context.upgrade() {
                            context.failure().report(error);
                        }
                        return;
                    }
                }
            }
            if let Some((producer_id, commit, done)) = ended {
                self.apply([Input::Ended { producer_id, commit }]);
                let _ = done.send(());
            }
        }
    }

    /// Appends and applies in order. False if it is unknown what the log holds.
    async fn append(&self, commits: Vec<(Commit, oneshot::Sender<ErrorCode>)>) -> bool {
        let Some(context) = self.context.upgrade() else { return true };
        let index = self.partition.id().partition;
        crash_point("broker", "offsets.append", Some(index), When::Before).await;
        let appends = commits.iter().map(|(commit, _)| {
            // In the same breath as the append is queued: no marker can come between.
            let allowed = commit.transaction.as_ref().is_none_or(|t| {
                let ProducerIdEpoch { producer_id, epoch } = t.producer;
                let topic = crate::internal_topics::CONSUMER_OFFSETS;
                context.txn().is_ongoing(&t.transactional_id, producer_id, epoch, topic, index)
            });
            let batch = encode(commit);
            async move {
                if !allowed {
                    return Err(ErrorCode::INVALID_TXN_STATE);
                }
                self.partition.append(batch, Origin::Coordinator, Acks::All).await
            }
        });
        let results = join_all(appends).await;
        crash_point("broker", "offsets.append", Some(index), When::After).await;
        let mut known = true;
        for ((commit, answer), result) in commits.into_iter().zip(results) {
            let code = match result {
                Ok(appended) => {
                    self.apply(inputs(commit, appended.base_offset));
                    ErrorCode::NONE
                }
                Err(error) => {
                    known &= error.certainty() == Certainty::Failed;
                    error
                }
            };
            let _ = answer.send(code);
        }
        known
    }

    fn apply(&self, inputs: impl IntoIterator<Item = Input>) {
        for input in inputs {
            let visible = self.machine.borrow_mut().handle(input);
            for Visible { group, place: (topic, partition), offset, producer_id } in visible {
                env::probe::probe(|| Probe::OffsetCommitted { group, topic, partition, offset, producer_id });
            }
        }
    }
}

fn encode(commit: &Commit) -> Bytes {
    let records = commit
        .offsets
        .iter()
        .map(|(place, committed)| (records::encode_key(&commit.group, place), Some(records::encode_value(committed))));
    let builder = batch_of(records, env::clock::wall_ms());
    match &commit.transaction {
        None => builder.build(),
        Some(t) => builder.producer(t.producer.producer_id, t.producer.epoch, -1).transactional().build(),
    }
}

fn inputs(commit: Commit, base: i64) -> Vec<Input> {
    let Commit { group, offsets, transaction } = commit;
    let producer_id = transaction.map(|t| t.producer.producer_id);
    let input = |(at, (place, committed))| input_of(at, producer_id, group.clone(), place, Some(committed));
    (base..).zip(offsets).map(input).collect()
}

fn input_of(at: i64, producer_id: Option<i64>, group: String, place: Place, committed: Option<Committed>) -> Input {
    match producer_id {
        None => Input::Committed { at, group, place, committed },
        Some(producer_id) => Input::Pending { at, producer_id, group, place, committed },
    }
}

async fn replayed(partition: &Partition) -> Result<Machine, BrokerError> {
    let mut machine = Machine::default();
    let mut bad = None;
    replay(partition, |item| match item {
        Replayed::Marker { producer_id, commit, .. } => {
            machine.handle(Input::Ended { producer_id, commit });
        }
        Replayed::Records { header, records } => {
            let producer_id = header.is_transactional().then_some(header.producer_id);
            for record in records {
                let key = records::decode_key(record.key.as_deref().unwrap_or_default());
                let value = record.value.as_deref().map(records::decode_value).transpose();
                match (key, value) {
                    (Ok(Some((group, place))), Ok(value)) => {
                        machine.handle(input_of(record.offset, producer_id, group, place, value));
                    }
                    (Ok(None), _) => {}
                    (Err(e), _) | (_, Err(e)) => bad = Some((record.offset, e)),
                }
            }
        }
    })
    .await?;
    match bad {
        Some((offset, e)) => Err(BrokerError::corrupt(format!("{} at offset {offset}", partition.id()), e)),
        None => Ok(machine),
    }
}
