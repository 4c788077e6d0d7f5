//! The driver of one partition of `__consumer_offsets`: it loads the groups and offsets from the log, appends what is
//! decided, keeps the groups' deadlines and answers.
//!
//! One task appends; what waits shares a batch and so a sync. Markers of transactions pass through the same queue, so
//! that no offset can be applied after the marker that follows it in the log; so does the look for offsets past their
//! retention, which sees all that was committed before it, and whose tombstones come before all that is after. Groups change before their records are in
//! the log, offsets after: an answer about a group is held until every record of before it is stored. If records of a
//! group may or may not be in the log, or certainly are not, nothing in memory can be trusted: all open requests are
//! answered NOT_COORDINATOR and everything is read anew.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use env::node::{When, crash_point};
use env::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use env::task::AbortOnDrop;
use protocol::{Certainty, ErrorCode, Uuid};

use super::expiry::{Expired, expired};
use super::machine::{Action, Committer, Group, Machine, Now, Reply, Request, RequestId, Topics};
use super::offsets::{Fetched, Input, Offsets, Place, Visible};
use super::records::{self, Kept};
use super::work::{Batch, Work, input, inputs};
pub(crate) use super::work::{Commit, InTransaction};
use crate::context::Context;
use crate::failure::BrokerError;
use crate::ids;
use crate::internal_topics::{Replayed, replay};
use crate::join::join_all;
use crate::partition::machine::Asked;
use crate::partition::{Acks, Origin, Partition, TopicPartition};
use crate::probe::{CoordinatorId, Probe};
use crate::txn::state::ProducerIdEpoch;

/// Commits queued at a shard; further callers wait.
const MAX_QUEUED: usize = 256;
/// Pieces of work appended together.
const MAX_GROUP: usize = 64;
/// Offsets and groups that are forgotten together when they are past their retention; what is queued meanwhile comes first.
const MAX_EXPIRED: usize = 500;

/// Who commits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Author {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub generation: i32,
}

#[derive(Debug)]
struct State {
    groups: Machine,
    offsets: Offsets,
}

pub(crate) struct Shard {
    context: Weak<Context>,
    partition: Partition,
    /// In which this broker coordinates.
    leader_epoch: i32,
    state: RefCell<State>,
    loaded: Cell<bool>,
    /// Commits are bounded by `places`, groups' records by the requests that wait for them.
    queue: mpsc::UnboundedSender<Work>,
    places: Arc<Semaphore>,
    next_request: Cell<u64>,
    answers: RefCell<BTreeMap<RequestId, oneshot::Sender<Reply>>>,
    /// Pieces of groups' records that were queued, and that are in the log.
    queued: Cell<u64>,
    stored: Cell<u64>,
    /// Answers that wait until so many are.
    held: RefCell<VecDeque<(u64, RequestId, Reply)>>,
    fresh_id: RefCell<Box<dyn FnMut() -> Uuid>>,
    deadline_changed: Notify,
    /// [`Work::Expire`] is queued.
    expiring: Cell<bool>,
}

/// The tasks of a shard, which end with it.
pub(crate) struct Running {
    _append: AbortOnDrop<()>,
    _tick: AbortOnDrop<()>,
}

/// The cluster's topics, from the metadata log.
struct ClusterTopics(Rc<Context>);

impl Topics for ClusterTopics {
    fn topic(&self, name: &str) -> Option<(Uuid, i32)> {
        self.0.metadata.with(|image| image.topic(name).map(|t| (t.topic_id, t.partitions.len() as i32)))
    }

    fn name(&self, id: Uuid) -> Option<String> {
        self.0.metadata.with(|image| image.topics.get(&id).map(|t| t.name.clone()))
    }
}

fn now() -> Now {
    Now { instant: env::clock::now(), wall_ms: env::clock::wall_ms() }
}

impl Shard {
    /// Starts to replay the partition; requests are answered COORDINATOR_LOAD_IN_PROGRESS until that is done, which the
    /// receiver tells.
    pub fn start(context: Weak<Context>, partition: Partition) -> (Rc<Self>, Running, oneshot::Receiver<()>) {
        let (queue, work) = mpsc::unbounded_channel();
        let config = context.upgrade().map(|c| c.config.group.clone()).unwrap_or_default();
        let shard = Rc::new(Self {
            context,
            leader_epoch: partition.leader_epoch(),
            partition,
            state: RefCell::new(State { groups: Machine::new(config), offsets: Offsets::default() }),
            loaded: Cell::new(false),
            queue,
            places: Arc::new(Semaphore::new(MAX_QUEUED)),
            next_request: Cell::new(0),
            answers: RefCell::default(),
            queued: Cell::new(0),
            stored: Cell::new(0),
            held: RefCell::default(),
            fresh_id: RefCell::new(Box::new(ids::source("broker.member-id"))),
            deadline_changed: Notify::new(),
            expiring: Cell::new(false),
        });
        let (loaded, wait) = oneshot::channel();
        let _append = env::task::spawn(Rc::clone(&shard).run(work, loaded)).abort_on_drop();
        let _tick = env::task::spawn(Rc::clone(&shard).tick()).abort_on_drop();
        (shard, Running { _append, _tick }, wait)
    }

    /// Nothing is answered or changed any more.
    pub fn resign(&self) {
        self.loaded.set(false);
        self.answers.borrow_mut().clear();
        self.held.borrow_mut().clear();
    }

    fn ready(&self) -> Result<Rc<Context>, ErrorCode> {
        if !self.loaded.get() {
            return Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
        }
        self.context.upgrade().ok_or(ErrorCode::NOT_COORDINATOR)
    }

    /// Decides at once; the answer comes when what it tells is stored, and when the other members let it.
    pub fn request(&self, group: &str, request: Request) -> impl Future<Output = Result<Reply, ErrorCode>> + use<> {
        let asked = self.ready().map(|context| {
            let (answer, rx) = oneshot::channel();
            let id = RequestId(self.next_request.get());
            self.next_request.set(id.0 + 1);
            self.answers.borrow_mut().insert(id, answer);
            let fresh = (self.fresh_id.borrow_mut())();
            let topics = ClusterTopics(context);
            self.act(|state| state.groups.handle(now(), &topics, group, id, request, fresh));
            rx
        });
        async move { asked?.await.map_err(|_| ErrorCode::NOT_COORDINATOR) }
    }

    /// Changes the groups and sets off what follows.
    fn act(&self, f: impl FnOnce(&mut State) -> Vec<Action>) {
        let (actions, earlier) = {
            let mut state = self.state.borrow_mut();
            let before = state.groups.next_timeout();
            let actions = f(&mut state);
            let after = state.groups.next_timeout();
            (actions, after.is_some_and(|after| before.is_none_or(|before| after < before)))
        };
        if earlier {
            self.deadline_changed.notify_one();
        }
        let mut records = Vec::new();
        let mut replies = Vec::new();
        for action in actions {
            match action {
                Action::Persist(record) => records.push(record),
                Action::Reply { id, reply } => replies.push((id, reply)),
            }
        }
        if !records.is_empty() {
            self.queued.set(self.queued.get() + 1);
            let _ = self.queue.send(Work::Groups(records));
        }
        let after = self.queued.get();
        self.held.borrow_mut().extend(replies.into_iter().map(|(id, reply)| (after, id, reply)));
        self.release();
    }

    /// Lets go the answers whose records are stored.
    fn release(&self) {
        let stored = self.stored.get();
        loop {
            let mut held = self.held.borrow_mut();
            if held.front().is_none_or(|(after, ..)| *after > stored) {
                return;
            }
            let Some((_, id, reply)) = held.pop_front() else { return };
            drop(held);
            if let Some(answer) = self.answers.borrow_mut().remove(&id) {
                let _ = answer.send(reply);
            }
        }
    }

    /// Stores offsets if their author may commit them. The check and the place in the log's order are one step: no later
    /// generation's records can come before a commit that was checked against an earlier one.
    pub async fn commit(&self, commit: Commit, author: &Author) -> ErrorCode {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return ErrorCode::NOT_COORDINATOR };
        let context = match self.ready() {
            Ok(context) => context,
            Err(error) => return error,
        };
        let who = Committer {
            member_id: &author.member_id,
            instance_id: author.instance_id.as_deref(),
            generation: author.generation,
            in_transaction: commit.transaction.is_some(),
        };
        let topics = ClusterTopics(context);
        let mut checked = Ok(());
        let places = commit.offsets.iter().map(|(place, _)| place);
        self.act(|state| {
            checked = state.groups.check_commit(now(), &topics, &commit.group, who, places);
            Vec::new()
        });
        match checked {
            Ok(()) => self.store(commit, Some(author.clone()), place).await,
            Err(error) => error,
        }
    }

    /// Forgets those offsets that `which` names, looking at the group in the same step.
    pub async fn forget(
        &self,
        group: &str,
        which: impl FnOnce(&Machine, &Offsets) -> Result<Vec<Place>, ErrorCode>,
    ) -> ErrorCode {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return ErrorCode::NOT_COORDINATOR };
        let places = match self.look(|groups, offsets, _| which(groups, offsets)) {
            Ok(Ok(places)) => places,
            Ok(Err(error)) | Err(error) => return error,
        };
        if places.is_empty() {
            return ErrorCode::NONE;
        }
        let offsets = places.into_iter().map(|p| (p, None)).collect();
        self.store(Commit { group: group.to_owned(), offsets, transaction: None }, None, place).await
    }

    /// Deletes an empty group with its offsets.
    pub async fn delete(&self, group: &str) -> ErrorCode {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return ErrorCode::NOT_COORDINATOR };
        let found = self.look(|groups, offsets, _| (groups.group(group).map(Group::is_empty), offsets.places(group)));
        let (empty, places) = match found {
            Ok(found) => found,
            Err(error) => return error,
        };
        match empty {
            Some(false) => return ErrorCode::NON_EMPTY_GROUP,
            None if places.is_empty() => return ErrorCode::GROUP_ID_NOT_FOUND,
            Some(true) | None => {}
        }
        // Both in one step: nobody can join in between.
        let deleted = empty.is_some().then(|| self.request(group, Request::Delete));
        let offsets: Vec<_> = places.into_iter().map(|p| (p, None)).collect();
        let commit = Commit { group: group.to_owned(), offsets, transaction: None };
        let forgotten = (!commit.offsets.is_empty()).then(|| self.store(commit, None, place));
        if let Some(deleted) = deleted {
            match deleted.await {
                Ok(Reply::Deleted(ErrorCode::NONE)) => {}
                Ok(Reply::Deleted(error)) | Err(error) => return error,
                Ok(_) => return ErrorCode::UNKNOWN_SERVER_ERROR,
            }
        }
        match forgotten {
            Some(forgotten) => forgotten.await,
            None => ErrorCode::NONE,
        }
    }

    fn store(
        &self,
        commit: Commit,
        author: Option<Author>,
        place: OwnedSemaphorePermit,
    ) -> impl Future<Output = ErrorCode> + use<> {
        let (tx, rx) = oneshot::channel();
        let _ = self.queue.send(Work::Commit { commit, author, answer: tx, _place: place });
        async move { rx.await.unwrap_or(ErrorCode::NOT_COORDINATOR) }
    }

    /// What to hand in with a commit of this producer's transaction; see [`Partition::ask`].
    pub fn ask(&self, producer: ProducerIdEpoch) -> Option<Asked> {
        self.partition.ask(producer.producer_id, producer.epoch)
    }

    /// Ready once the offsets of the transaction that are below `at`, where its marker is, are visible, or dropped.
    pub async fn transaction_ended(&self, producer_id: i64, commit: bool, at: i64) {
        let (done, rx) = oneshot::channel();
        if self.queue.send(Work::Ended { producer_id, commit, at, done }).is_ok() {
            let _ = rx.await;
        }
    }

    /// Looks at the groups and offsets. What it sees of groups may not be stored yet.
    pub fn look<T>(&self, f: impl FnOnce(&Machine, &Offsets, &dyn Topics) -> T) -> Result<T, ErrorCode> {
        let topics = ClusterTopics(self.ready()?);
        let state = self.state.borrow();
        Ok(f(&state.groups, &state.offsets, &topics))
    }

    pub fn fetch(&self, group: &str, place: &Place, require_stable: bool) -> Fetched {
        self.state.borrow().offsets.fetch(group, place, require_stable)
    }

    async fn tick(self: Rc<Self>) {
        let Some(context) = self.context.upgrade() else { return };
        let check_interval = context.config.group.offsets_retention_check_interval;
        drop(context);
        let mut check = env::clock::now() + check_interval;
        loop {
            // While the log is read anew the old state's deadlines mean nothing.
            let deadline = if self.loaded.get() { self.state.borrow().groups.next_timeout() } else { None };
            env::select! {
                () = self.deadline_changed.notified() => {}
                () = env::time::sleep_until(deadline.map_or(check, |at| at.min(check))) => {
                    let Some(context) = self.context.upgrade() else { return };
                    let now = now();
                    // 1. The deadline of a group is waited for. 2. An append is unknown: what is in memory is given up, and
                    // the log is read. 3. The deadline comes. What followed would be of the state that was given up, in the
                    // log after what the new one was read from: an earlier generation comes after it.
                    if self.loaded.get() && deadline.is_some_and(|at| at <= now.instant) {
                        let topics = ClusterTopics(context);
                        self.act(|state| state.groups.tick(now, &topics));
                    }
                    if check <= now.instant {
                        self.expire();
                        check = now.instant + check_interval;
                    }
                }
            }
        }
    }

    fn expire(&self) {
        if !self.expiring.replace(true) {
            let _ = self.queue.send(Work::Expire);
        }
    }

    /// The tombstones of offsets past their retention, to be appended before anything that is still queued. Groups that
    /// end with them do so at once, and their records follow.
    fn expired(&self) -> Vec<Work> {
        self.expiring.set(false);
        // Groups whose change is not in the log yet may not be what they seem: another time.
        let settled = self.queued.get() == self.stored.get();
        let Some(context) = self.ready().ok().filter(|_| settled) else { return Vec::new() };
        let retention_ms = i64::try_from(context.config.group.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        let (found, more) = {
            let state = self.state.borrow();
            expired(&state.groups, &state.offsets, now().wall_ms, retention_ms, MAX_EXPIRED)
        };
        let mut work = Vec::new();
        for Expired { group, places, ends } in found {
            let TopicPartition { topic, partition, .. } = self.partition.id();
            tracing::debug!(topic, partition, group, offsets = places.len(), ends, "past the retention of offsets");
            env::sometimes!(ends, "a group ends with its last offset");
            if ends {
                // Decided at once; nobody waits for the answer.
                drop(self.request(&group, Request::Delete));
            }
            if !places.is_empty() {
                let offsets = places.into_iter().map(|place| (place, None)).collect();
                work.push(Work::Expired(Commit { group, offsets, transaction: None }));
            }
        }
        if more {
            self.expire();
        }
        work
    }

    async fn run(self: Rc<Self>, mut queue: mpsc::UnboundedReceiver<Work>, loaded: oneshot::Sender<()>) {
        if let Err(error) = self.load().await {
            return self.failed(error);
        }
        let _ = loaded.send(());
        let mut put_off = None;
        loop {
            let Some(first) = (match put_off.take() {
                Some(work) => Some(work),
                None => queue.recv().await,
            }) else {
                return;
            };
            let mut work = Vec::new();
            let mut ended = None;
            let mut next = Some(first);
            while let Some(one) = next {
                match one {
                    Work::Ended { producer_id, commit, at, done } => {
                        ended = Some((Input::Ended { producer_id, commit, at }, done));
                        break;
                    }
                    // It must see what is before it: that is appended first.
                    Work::Expire if !work.is_empty() => {
                        put_off = Some(one);
                        break;
                    }
                    Work::Expire => work.extend(self.expired()),
                    one => work.push(one),
                }
                next = if work.len() < MAX_GROUP { queue.try_recv().ok() } else { None };
            }
            let mut endings: Vec<_> = Vec::new();
            if !work.is_empty() && !self.append(work).await {
                let TopicPartition { topic, partition, .. } = self.partition.id();
                let epoch = self.leader_epoch;
                tracing::warn!(topic, partition, epoch, "the group coordinator reads its state anew");
                env::sometimes!(true, "a group coordinator reads its state anew");
                self.loaded.set(false);
                // Dropped senders answer NOT_COORDINATOR. Endings stay: their markers are in the log.
                self.answers.borrow_mut().clear();
                self.held.borrow_mut().clear();
                endings.extend(ended.take());
                while let Ok(one) = queue.try_recv() {
                    if let Work::Ended { producer_id, commit, at, done } = one {
                        endings.push((Input::Ended { producer_id, commit, at }, done));
                    }
                }
                if let Err(error) = self.load().await {
                    return self.failed(error);
                }
                let partition = self.partition.id().partition;
                env::probe::probe(|| Probe::CoordinatorReloaded { partition });
            }
            for (ending, done) in endings.into_iter().chain(ended) {
                self.apply([ending]);
                let _ = done.send(());
            }
        }
    }

    /// A deposed one is done here: the next leader's coordinator reads the log.
    fn failed(&self, error: BrokerError) {
        let leads = self.partition.is_leader() && self.partition.leader_epoch() == self.leader_epoch;
        if let Some(context) = self.context.upgrade().filter(|_| leads) {
            context.failure().report(error);
        }
    }

    /// Appends and applies in order. False if the groups in memory are not those of the log.
    async fn append(&self, work: Vec<Work>) -> bool {
        let index = self.partition.id().partition;
        let batches = Batch::of(work);
        let label = if batches.iter().any(Batch::tells_of_groups) { "groups.append" } else { "offsets.append" };
        crash_point("broker", label, Some(index), When::Before).await;
        let appends = batches.iter().map(|batch| {
            let asked = batch.transaction.and_then(|t| t.asked);
            let bytes = batch.encode();
            async move { self.partition.enqueue(bytes, Origin::Coordinator, Acks::All, asked)?.await }
        });
        let results = join_all(appends).await;
        crash_point("broker", label, Some(index), When::After).await;
        let mut known = true;
        for (batch, result) in batches.into_iter().zip(results) {
            if let Err(error) = &result {
                known &= error.certainty() == Certainty::Failed && !batch.tells_of_groups();
            }
            let base = result.map(|appended| appended.base_offset);
            self.finish(batch, base, known);
        }
        known
    }

    /// The batch is in the log at `base`, or was refused.
    fn finish(&self, batch: Batch, base: Result<i64, ErrorCode>, known: bool) {
        let producer_id = batch.transaction.map(|t| t.producer.producer_id);
        let mut at = base.unwrap_or(0);
        for one in batch.work {
            match one {
                Work::Commit { commit, author, answer, .. } => {
                    let len = commit.offsets.len() as i64;
                    if base.is_ok() {
                        if let Some(Author { member_id: member, generation, .. }) = author {
                            let (coordinator, group) = (self.id(), commit.group.clone());
                            env::probe::probe(|| Probe::CommitStored { group, member, generation, coordinator });
                        }
                        self.apply(inputs(commit, at, producer_id));
                    }
                    at += len;
                    let _ = answer.send(base.err().unwrap_or_default());
                }
                Work::Expired(commit) => {
                    let len = commit.offsets.len() as i64;
                    if base.is_ok() {
                        self.apply(inputs(commit, at, producer_id));
                    }
                    at += len;
                }
                Work::Groups(records) => {
                    at += records.len() as i64;
                    // After a gap in the log the rest of it may not be told either.
                    if base.is_ok() && known {
                        self.stored.set(self.stored.get() + 1);
                        for record in records {
                            let coordinator = self.id();
                            env::probe::probe(|| Probe::Group { record, coordinator });
                        }
                        self.release();
                    }
                }
                Work::Expire | Work::Ended { .. } => {}
            }
        }
    }

    fn apply(&self, inputs: impl IntoIterator<Item = Input>) {
        for input in inputs {
            let visible = self.state.borrow_mut().offsets.handle(input);
            for Visible { group, place: (topic, partition), offset, producer_id } in visible {
                let coordinator = self.id();
                env::probe::probe(|| Probe::OffsetCommitted {
                    group,
                    topic,
                    partition,
                    offset,
                    producer_id,
                    coordinator,
                });
            }
        }
    }

    /// As others know this coordinator.
    fn id(&self) -> CoordinatorId {
        CoordinatorId { partition: self.partition.id().partition, leader_epoch: self.leader_epoch }
    }

    /// Forgets everything and takes the log's word.
    async fn load(&self) -> Result<(), BrokerError> {
        let config = self.context.upgrade().map(|c| c.config.group.clone()).unwrap_or_default();
        let mut groups = Machine::new(config);
        let mut offsets = Offsets::default();
        let mut bad = None;
        replay(&self.partition, |item| match item {
            Replayed::Marker { at, producer_id, commit } => {
                offsets.handle(Input::Ended { producer_id, commit, at });
            }
            Replayed::Records { header, records } => {
                let producer_id = header.is_transactional().then_some(header.producer_id);
                for record in records {
                    match records::decode(&record) {
                        Ok(Kept::Offset { group, place, committed }) => {
                            offsets.handle(input(record.offset, producer_id, group, place, committed));
                        }
                        Ok(Kept::Group(of_group)) => groups.replay(of_group),
                        Ok(Kept::Skipped) => {}
                        Err(e) => bad = Some((record.offset, e)),
                    }
                }
            }
        })
        .await?;
        if let Some((offset, e)) = bad {
            return Err(BrokerError::corrupt(format!("{} at offset {offset}", self.partition.id()), e));
        }
        let Some(context) = self.context.upgrade() else { return Ok(()) };
        groups.loaded(now(), &ClusterTopics(context));
        let offset = |(group, (topic, partition), offset): (&String, &Place, i64)| {
            (group.clone(), topic.clone(), *partition, offset)
        };
        let coordinator = self.id();
        env::probe::probe(|| Probe::OffsetsLoaded { coordinator, offsets: offsets.visible().map(offset).collect() });
        env::probe::probe(|| Probe::GroupsLoaded { coordinator, members: groups.assigned().collect() });
        *self.state.borrow_mut() = State { groups, offsets };
        self.stored.set(self.queued.get());
        self.expiring.set(false);
        self.loaded.set(true);
        self.deadline_changed.notify_one();
        Ok(())
    }
}
