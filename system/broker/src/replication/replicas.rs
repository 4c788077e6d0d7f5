//! The copies of this broker, made what the metadata image says they are.
//!
//! ```text
//! image changed ──▶ for each partition with this broker among its replicas
//!                     not open     open: directory, log, high watermark of the last life
//!                     leader: me   lead; coordinators of internal topics take over once their log is replayed
//!                     leader: x    follow: fetch from x (coordinators resign first)
//!                     leader: none follow nobody
//!                   for each open one without this broker, or without its topic: stop, and delete it
//! ```
//! One task applies images, one after another and always the newest: what lies between is skipped, which a partition
//! must stand (KAFKA-7164). A copy that was placed, is the only one, and whose directory is gone held data nobody else
//! has: the broker refuses to serve an empty log in its place. With more replicas an empty copy follows; the controller
//! has taken a broker that lost its disk out of every in-sync set.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use env::disk;
use env::node::{When, crash_point};
use env::sync::Notify;
use env::task::AbortOnDrop;
use protocol::{ErrorCode, Uuid};

use super::checkpoint::{Checkpoint, HighWatermarks};
use super::fetcher::{Fetchers, PartitionKey};
use crate::config::BrokerConfig;
use crate::context::Context;
use crate::controller::proposal::{self, IsrChange};
use crate::failure::BrokerError;
use crate::internal_topics::{CONSUMER_OFFSETS, TRANSACTION_STATE, is_internal};
use crate::join::join_all;
use crate::log_settings::LogSettings;
use crate::metadata::{MetadataImage, PartitionState};
use crate::partition::isr::{AlterPartition, Altering, IsrProposal, IsrState};
use crate::partition::leader::Leadership;
use crate::partition::machine::Following;
use crate::partition::{Partition, PartitionConfig, TopicPartition};

/// Between two looks at who lags, and two stores of the high watermarks, at most.
const PERIOD: Duration = Duration::from_secs(5);
/// How long a topic may take to be open where it was created.
const SETTLE: Duration = Duration::from_secs(10);
/// Between two tries to tell the controller where copies are kept.
const PLACE_AGAIN: Duration = Duration::from_millis(100);
/// Begins the name of a directory that is being deleted.
const DELETED: &str = "deleted-";

/// What the image says of one copy here.
#[derive(Clone, Debug)]
struct Wanted {
    topic: String,
    state: PartitionState,
    min_isr: usize,
    segment_bytes: u32,
}

/// One copy that is open.
struct Copy {
    partition: Partition,
    /// (leader epoch, partition epoch, min.insync.replicas, segment.bytes) that it was last told.
    told: (i32, i32, usize, u32),
    /// The in-sync set that it was last told of; empty before there was any.
    isr: Vec<i32>,
    /// The controller knows that it is kept here, so that a directory that is lost would be missed. Until then the only
    /// copy of a partition is not led; one of several need not say it.
    placed: bool,
    /// Coordinators that take over here, for as long as this broker leads.
    coordinator: Option<AbortOnDrop<()>>,
}

pub(crate) struct Replicas {
    context: Weak<Context>,
    data_dir: PathBuf,
    directory_id: Uuid,
    copies: RefCell<BTreeMap<PartitionKey, Copy>>,
    fetchers: RefCell<Fetchers>,
    checkpoint: RefCell<Option<Checkpoint>>,
    /// There is or was a copy that another broker has too.
    replicated: Cell<bool>,
    /// An image has been applied.
    applied: Notify,
    applying: RefCell<Option<AbortOnDrop<()>>>,
    timer: OnceCell<AbortOnDrop<()>>,
}

impl Replicas {
    pub fn new(context: Weak<Context>, data_dir: PathBuf, directory_id: Uuid) -> Rc<Self> {
        Rc::new(Self {
            fetchers: RefCell::new(Fetchers::new(context.clone())),
            context,
            data_dir,
            directory_id,
            copies: RefCell::default(),
            checkpoint: RefCell::default(),
            replicated: Cell::new(false),
            applied: Notify::new(),
            applying: RefCell::default(),
            timer: OnceCell::new(),
        })
    }

    /// Applies the image as it is, and from now on every change of it. Call it once, after this broker has registered
    /// and its image shows that.
    pub async fn start(self: &Rc<Self>) -> Result<(), BrokerError> {
        let context = self.context()?;
        self.remove_deleted().await?;
        let checkpoint = Checkpoint::open(&self.data_dir).await;
        let checkpoint = checkpoint.map_err(|e| BrokerError::storage(self.data_dir.display(), e))?;
        self.checkpoint.replace(Some(checkpoint));
        self.apply(&context).await?;
        let me = Rc::clone(self);
        let task = env::task::spawn(async move { me.run().await });
        self.applying.replace(Some(task.abort_on_drop()));
        Ok(())
    }

    async fn run(&self) {
        loop {
            let Some(context) = self.context.upgrade() else { return };
            let changed = context.metadata.changed();
            if let Err(error) = self.apply(&context).await {
                context.failure().report(error);
                return;
            }
            if self.copies.borrow().values().all(|copy| copy.placed) {
                changed.await;
            } else {
                let _ = env::time::timeout(PLACE_AGAIN, changed).await;
            }
        }
    }

    fn context(&self) -> Result<Rc<Context>, BrokerError> {
        self.context.upgrade().ok_or_else(|| BrokerError::storage("the broker", "it is gone"))
    }

    /// Ready once this broker leads whatever it is to lead, of the topic or of all.
    pub async fn settle(&self, context: &Context, topic_id: Option<Uuid>) {
        let me = context.config.node_id;
        loop {
            let applied = self.applied.notified();
            let led: Vec<_> = context.metadata.with(|image| {
                let topics = image.topics.iter().filter(|(id, _)| topic_id.is_none_or(|t| t == **id));
                let partitions = topics.flat_map(|(id, t)| t.partitions.iter().map(|(index, p)| (*id, *index, p)));
                partitions.filter(|(.., p)| p.leader == me).map(|(id, i, p)| ((id, i), p.leader_epoch)).collect()
            });
            if led.into_iter().all(|(key, epoch)| self.leads(key, epoch)) {
                return;
            }
            applied.await;
        }
    }

    /// [`Replicas::settle`], for as long as one who waits for a topic to be created would.
    pub async fn settled(&self, context: &Context, topic_id: Uuid) -> Result<(), ErrorCode> {
        let settling = self.settle(context, Some(topic_id));
        env::time::timeout(SETTLE, settling).await.map_err(|_| ErrorCode::REQUEST_TIMED_OUT)
    }

    /// The copy that is open here, whether or not clients find it already.
    pub fn copy(&self, key: PartitionKey) -> Result<Partition, ErrorCode> {
        let copy = self.copies.borrow().get(&key).map(|copy| copy.partition.clone());
        copy.ok_or(ErrorCode::UNKNOWN_TOPIC_ID)
    }

    /// Every copy that is open here and has a role.
    pub fn copies(&self) -> Vec<Partition> {
        let copies = self.copies.borrow();
        let partitions = copies.values().map(|copy| copy.partition.clone());
        partitions.filter(|p| p.is_leader() || p.following().is_some()).collect()
    }

    fn leads(&self, key: PartitionKey, leader_epoch: i32) -> bool {
        let copies = self.copies.borrow();
        copies.get(&key).is_some_and(|c| c.told.0 >= leader_epoch && c.partition.is_leader())
    }

    /// Stops everything: fetching first, then every copy is flushed and closed, and the high watermarks stored.
    pub async fn stop(&self) -> Result<(), BrokerError> {
        drop(self.applying.take());
        self.fetchers.borrow_mut().stop_all();
        let mut copies = self.copies.take();
        let high_watermarks = high_watermarks(&copies);
        // Coordinators first: one that still reads its log would take the end of it for a failure.
        for (key, copy) in &mut copies {
            drop(copy.coordinator.take());
            if let Some(context) = self.context.upgrade() {
                self.resign(&context, *key, &copy.partition);
            }
        }
        for copy in copies.into_values() {
            copy.partition.close().await?;
        }
        self.store(high_watermarks).await
    }

    async fn apply(&self, context: &Rc<Context>) -> Result<(), BrokerError> {
        let me = context.config.node_id;
        let wanted = context.metadata.with(|image| wanted(image, me, &context.config));
        let gone: Vec<_> = self.copies.borrow().keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for key in gone {
            self.delete(context, key).await?;
        }
        let missing: Vec<_> = {
            let copies = self.copies.borrow();
            wanted.iter().filter(|(key, _)| !copies.contains_key(key)).map(|(k, w)| (*k, w.clone())).collect()
        };
        self.open(context, missing).await?;
        self.place(context, &wanted).await?;
        // Offsets come before transactions: finishing a transaction decides offsets.
        let mut changed: Vec<_> = wanted.into_iter().filter(|(key, w)| self.is_news(*key, w)).collect();
        changed.sort_by_key(|(_, w)| (w.topic == TRANSACTION_STATE, w.topic != CONSUMER_OFFSETS));
        for (key, wanted) in changed {
            if wanted.state.leader == me {
                self.lead(context, key, &wanted).await?;
            } else {
                self.follow(context, key, &wanted).await;
            }
        }
        self.applied.notify_waiters();
        Ok(())
    }

    fn is_news(&self, key: PartitionKey, wanted: &Wanted) -> bool {
        self.copies.borrow().get(&key).is_some_and(|copy| copy.placed && copy.told != wanted.told())
    }

    async fn open(&self, context: &Rc<Context>, missing: Vec<(PartitionKey, Wanted)>) -> Result<(), BrokerError> {
        let me = context.config.node_id;
        let mut opening = Vec::new();
        for (key, wanted) in missing {
            let id = TopicPartition { topic: wanted.topic.clone(), topic_id: key.0, partition: key.1 };
            let sole = wanted.state.replicas == [me];
            let placed = wanted.state.is_placed(me);
            if !sole {
                self.replicated.set(true);
                self.start_timer(context);
            }
            let high_watermark = self.checkpoint.borrow().as_ref().filter(|_| !sole).map(|c| c.get(key));
            let dir = self.dir(&id);
            opening.push(async move {
                let missing = |e| BrokerError::storage(dir.display(), e);
                if sole && placed && !disk::exists(&dir).await.map_err(missing)? {
                    let reason = "the directory is gone, and with it acknowledged records";
                    return Err(BrokerError::storage(dir.display(), reason));
                }
                claim(&self.data_dir, &dir, &id).await.map_err(missing)?;
                let mut config = PartitionConfig::of(&context.config, context.metrics.clone());
                config.log.segment_bytes = wanted.segment_bytes;
                let controller: Rc<dyn AlterPartition> = Rc::new(Controller(Rc::downgrade(context)));
                let failure = context.failure.clone();
                let partition = Partition::recover(id, dir, config, high_watermark, Some(controller), failure).await?;
                Ok((key, partition, placed || !sole))
            });
        }
        for opened in join_all(opening).await {
            let (key, partition, placed) = opened?;
            // Until it has a role, nothing is served.
            let copy = Copy { partition, told: (-1, -1, 0, 0), isr: Vec::new(), placed, coordinator: None };
            self.copies.borrow_mut().insert(key, copy);
        }
        Ok(())
    }

    /// Tells the controller of copies that no other broker has. What it does not know of yet has no role before the next
    /// try. Roles of others wait meanwhile: without a controller there is no news of them either.
    async fn place(&self, context: &Context, wanted: &BTreeMap<PartitionKey, Wanted>) -> Result<(), BrokerError> {
        let me = context.config.node_id;
        let unplaced: Vec<PartitionKey> = {
            let mut copies = self.copies.borrow_mut();
            let known = |key| wanted.get(key).is_some_and(|w| w.state.is_placed(me) || w.state.replicas.len() > 1);
            copies.iter_mut().filter(|(key, _)| known(key)).for_each(|(_, copy)| copy.placed = true);
            copies.iter().filter(|(_, copy)| !copy.placed).map(|(key, _)| *key).collect()
        };
        if unplaced.is_empty() {
            return Ok(());
        }
        crash_point("broker", "topic.place", None, When::Before).await;
        disk::sync_dir(&self.data_dir).await.map_err(|e| BrokerError::storage(self.data_dir.display(), e))?;
        match context.controller.place(self.directory_id, &unplaced).await {
            Ok(()) => {
                let mut copies = self.copies.borrow_mut();
                for key in &unplaced {
                    copies.get_mut(key).into_iter().for_each(|copy| copy.placed = true);
                }
            }
            Err(error) => tracing::info!(%error, "the controller does not know yet where partitions are kept"),
        }
        crash_point("broker", "topic.place", None, When::After).await;
        Ok(())
    }

    async fn lead(&self, context: &Rc<Context>, key: PartitionKey, wanted: &Wanted) -> Result<(), BrokerError> {
        let Some(partition) = self.told(context, key, wanted) else { return Ok(()) };
        self.fetchers.borrow_mut().stop(key);
        let before = partition.is_leader().then(|| partition.leader_epoch());
        let PartitionState { leader_epoch, partition_epoch, replicas, isr, .. } = wanted.state.clone();
        let coordinates = is_internal(&wanted.topic);
        if coordinates && before != Some(leader_epoch) {
            // A marker that came in between would be in the log and unknown to the coordinator that reads it.
            unregister(context, partition.id());
            // The same broker goes on in another epoch: markers carry that, and the log is read anew. Nothing of the
            // earlier coordinator is appended after the change.
            self.resign(context, key, &partition);
        }
        let sole = replicas.len() == 1;
        partition.lead(Leadership { leader_epoch, partition_epoch, replicas, isr, min_isr: wanted.min_isr }).await;
        if partition.leader_epoch() != leader_epoch {
            if sole {
                let reason = format!("its log is of a later epoch than {leader_epoch}, in which it is led");
                return Err(BrokerError::corrupt(partition.id(), reason));
            }
            // The image is older than its log: the next one says more.
            return Ok(());
        }
        if before == Some(leader_epoch) {
            return Ok(());
        }
        if !coordinates {
            register(context, partition);
            return Ok(());
        }
        let taking_over = take_over(Rc::clone(context), partition);
        if sole {
            taking_over.await;
            return Ok(());
        }
        // Its log can only be read once the in-sync set has fetched in this epoch.
        let task = env::task::spawn(taking_over);
        if let Some(copy) = self.copies.borrow_mut().get_mut(&key) {
            copy.coordinator = Some(task.abort_on_drop());
        }
        Ok(())
    }

    async fn follow(&self, context: &Rc<Context>, key: PartitionKey, wanted: &Wanted) {
        let Some(partition) = self.told(context, key, wanted) else { return };
        if partition.is_leader() {
            self.resign(context, key, &partition);
        }
        let PartitionState { leader, leader_epoch, partition_epoch, .. } = wanted.state;
        let leader = Some(leader).filter(|id| *id >= 0);
        partition.follow(Following { leader_epoch, partition_epoch, leader }).await;
        register(context, partition.clone());
        let mut fetchers = self.fetchers.borrow_mut();
        match leader {
            Some(leader) if partition.leader_epoch() == leader_epoch => {
                fetchers.follow(leader, key, partition, leader_epoch);
            }
            _ => fetchers.stop(key),
        }
    }

    /// Notes what the copy is told now.
    fn told(&self, context: &Context, key: PartitionKey, wanted: &Wanted) -> Option<Partition> {
        let mut copies = self.copies.borrow_mut();
        let copy = copies.get_mut(&key)?;
        if copy.told.3 != wanted.segment_bytes {
            copy.partition.set_segment_bytes(wanted.segment_bytes);
        }
        copy.told = wanted.told();
        let before = std::mem::replace(&mut copy.isr, wanted.state.isr.clone());
        if wanted.state.leader == context.config.node_id && !before.is_empty() && before != copy.isr {
            context.metrics.replication.isr_changed(&before, &copy.isr);
            let (node, topic, partition) = (context.config.node_id, &wanted.topic, key.1);
            let epoch = wanted.state.leader_epoch;
            tracing::info!(node, topic, partition, epoch, ?before, isr = ?copy.isr, "in-sync set changed");
        }
        Some(copy.partition.clone())
    }

    /// Its coordinator, if it has one, ends.
    fn resign(&self, context: &Context, key: PartitionKey, partition: &Partition) {
        let taking_over = self.copies.borrow_mut().get_mut(&key).and_then(|copy| copy.coordinator.take());
        drop(taking_over);
        let id = partition.id();
        match id.topic.as_str() {
            CONSUMER_OFFSETS => context.groups().resign(id.partition),
            TRANSACTION_STATE => context.txn().resign(id.partition),
            _ => {}
        }
    }

    /// The topic is gone, or the partition has moved elsewhere.
    async fn delete(&self, context: &Context, key: PartitionKey) -> Result<(), BrokerError> {
        self.fetchers.borrow_mut().stop(key);
        let Some(copy) = self.copies.borrow_mut().remove(&key) else { return Ok(()) };
        drop(copy.coordinator);
        let partition = copy.partition;
        self.resign(context, key, &partition);
        let id = partition.id().clone();
        unregister(context, &id);
        partition.close().await?;
        // Renamed first: a topic of the same name may be created before all of it is gone.
        let (from, to) = (self.dir(&id), self.data_dir.join(format!("{DELETED}{}-{}", id.topic_id.simple(), key.1)));
        let failed = |e| BrokerError::storage(from.display(), e);
        disk::rename(&from, &to).await.map_err(failed)?;
        disk::sync_dir(&self.data_dir).await.map_err(failed)?;
        disk::remove_dir_all(&to).await.map_err(failed)
    }

    /// What a crash left of deletions.
    async fn remove_deleted(&self) -> Result<(), BrokerError> {
        let failed = |e| BrokerError::storage(self.data_dir.display(), e);
        for entry in disk::read_dir(&self.data_dir).await.map_err(failed)? {
            if entry.name.starts_with(DELETED) {
                disk::remove_dir_all(self.data_dir.join(&entry.name)).await.map_err(failed)?;
            }
        }
        Ok(())
    }

    fn dir(&self, id: &TopicPartition) -> PathBuf {
        dir(&self.data_dir, &id.topic, id.partition)
    }

    /// Looks at who lags, and stores the high watermarks, from time to time.
    fn start_timer(&self, context: &Rc<Context>) {
        self.timer.get_or_init(|| {
            let lag = Duration::from_millis(context.config.replica_lag_max_ms);
            let period = PERIOD.min(lag / 2).max(Duration::from_millis(100));
            let context = Rc::downgrade(context);
            env::task::spawn(async move {
                loop {
                    env::time::sleep(period).await;
                    let Some(context) = context.upgrade() else { return };
                    if let Err(error) = context.replicas.tick().await {
                        context.failure().report(error);
                        return;
                    }
                }
            })
            .abort_on_drop()
        });
    }

    async fn tick(&self) -> Result<(), BrokerError> {
        let high_watermarks = {
            let copies = self.copies.borrow();
            copies.values().filter(|c| c.partition.is_leader()).for_each(|c| c.partition.tick());
            high_watermarks(&copies)
        };
        self.store(high_watermarks).await
    }

    async fn store(&self, high_watermarks: HighWatermarks) -> Result<(), BrokerError> {
        if !self.replicated.get() {
            return Ok(());
        }
        // Absent while another store runs, which the next tick makes up for.
        let Some(mut checkpoint) = self.checkpoint.take() else { return Ok(()) };
        let stored = checkpoint.store(high_watermarks).await;
        self.checkpoint.replace(Some(checkpoint));
        match stored {
            // Earlier high watermarks are lower bounds as well.
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                tracing::warn!(%error, "the high watermarks are not stored");
                Ok(())
            }
            stored => stored.map_err(|e| BrokerError::storage(self.data_dir.display(), e)),
        }
    }
}

impl Wanted {
    fn told(&self) -> (i32, i32, usize, u32) {
        (self.state.leader_epoch, self.state.partition_epoch, self.min_isr, self.segment_bytes)
    }
}

fn wanted(image: &MetadataImage, me: i32, config: &BrokerConfig) -> BTreeMap<PartitionKey, Wanted> {
    let mut wanted = BTreeMap::new();
    for (topic_id, topic) in &image.topics {
        let min_isr = usize::try_from(topic.min_insync_replicas(config.min_insync_replicas)).unwrap_or(1);
        let segment_bytes = LogSettings::of(&topic.name, &topic.configs, config).segment_bytes;
        for (index, state) in topic.partitions.iter().filter(|(_, p)| p.replicas.contains(&me)) {
            let here = Wanted { topic: topic.name.clone(), state: state.clone(), min_isr, segment_bytes };
            wanted.insert((*topic_id, *index), here);
        }
    }
    wanted
}

fn high_watermarks(copies: &BTreeMap<PartitionKey, Copy>) -> HighWatermarks {
    copies.iter().map(|(key, copy)| (*key, copy.partition.high_watermark())).collect()
}

pub(super) fn dir(data_dir: &Path, topic: &str, partition: i32) -> PathBuf {
    data_dir.join(format!("{topic}-{partition}"))
}

/// Makes the directory that of this topic. One of an earlier topic of the same name goes: its deletion was decided
/// while this broker was down.
async fn claim(data_dir: &Path, dir: &Path, id: &TopicPartition) -> std::io::Result<()> {
    let file = dir.join("partition.metadata");
    let ours = Bytes::from(format!("version: 0\ntopic_id: {}\n", id.topic_id));
    match disk::read(&file).await {
        Ok(found) if found == ours => return Ok(()),
        Ok(found) if found.ends_with(b"\n") => {
            tracing::info!(dir = %dir.display(), "removing the log of a deleted topic");
            let gone = data_dir.join(format!("{DELETED}{}-{}", id.topic_id.simple(), id.partition));
            disk::rename(dir, &gone).await?;
            disk::sync_dir(data_dir).await?;
            disk::remove_dir_all(&gone).await?;
        }
        // Damaged: no reason to delete a log.
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    disk::create_dir_all(dir).await?;
    disk::replace(&file, ours).await
}

/// Lets requests find it.
fn register(context: &Context, partition: Partition) {
    let (topic, index) = (partition.id().topic.clone(), partition.id().partition);
    context.partitions.borrow_mut().entry(topic).or_default().insert(index, partition);
}

fn unregister(context: &Context, id: &TopicPartition) {
    let mut partitions = context.partitions.borrow_mut();
    if let Some(open) = partitions.get_mut(&id.topic) {
        open.remove(&id.partition);
        if open.is_empty() {
            partitions.remove(&id.topic);
        }
    }
}

/// The coordinators read their log; only then requests find the partition: a marker that came in between would be in the
/// log and unknown to its coordinator.
async fn take_over(context: Rc<Context>, partition: Partition) {
    if partition.id().topic == CONSUMER_OFFSETS {
        context.groups().lead(partition.clone()).await;
    } else {
        context.txn().lead(partition.clone()).await;
    }
    register(&context, partition);
}

/// The way to the controller, as partitions know it.
struct Controller(Weak<Context>);

impl AlterPartition for Controller {
    fn alter(&self, proposal: IsrProposal) -> Altering {
        let context = self.0.clone();
        Box::pin(async move {
            let context = context.upgrade().ok_or(ErrorCode::NOT_CONTROLLER)?;
            let IsrProposal { topic_id, partition, leader_epoch, partition_epoch, isr } = proposal;
            let change = IsrChange { topic_id, partition, leader_epoch, partition_epoch, isr, recovering: false };
            let state = context.controller.alter_partition(change).await;
            let state = state.inspect_err(|_| context.metrics.replication.failed_updates.inc())?;
            let proposal::IsrState { leader, leader_epoch, isr, partition_epoch, .. } = state;
            Ok(IsrState { leader, leader_epoch, isr, partition_epoch })
        })
    }
}
