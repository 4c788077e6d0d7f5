//! The coordinator's driver: one loop that feeds the machine and does what it says, in order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use client::{Admin, Client, Isolation, NewTopic, OffsetSpec, TopicPartition};
use env::disk::DirLock;
use env::net::TcpListener;
use env::node::{When, crash_point};
use env::sync::{Notify, mpsc, oneshot};
use env::task::AbortOnDrop;

use super::connection::{self, Outbox};
use super::machine::{Action, Input, Machine, Preparation};
use super::meta::{Meta, MetaFile};
use super::{CoordinatorConfig, CoordinatorError};
use crate::checkpoint::{Checkpoint, CheckpointStore, DiskStore};
use crate::control::{Generation, ToWorker};
use crate::job::JobConfig;
use crate::metrics::JobMetrics;
use crate::task_set::TaskSet;

const ROLE: &str = "coordinator";

/// Inputs waiting for the loop.
const EVENTS: usize = 256;

type Ends = BTreeMap<i32, i64>;

pub(super) enum Event {
    Registered {
        connection: u64,
        worker: String,
        shuffle: SocketAddr,
        outbox: Outbox,
    },
    /// From a connection, if it is still the worker's, or from the driver itself.
    Input {
        connection: Option<u64>,
        input: Input,
    },
    Finish {
        ends: Ends,
        reply: oneshot::Sender<Ends>,
    },
}

/// What is known outside of the loop.
#[derive(Default)]
struct Status {
    end_offsets: Option<Ends>,
    drained: bool,
    /// Why the loop ended.
    stopped: Option<String>,
}

#[derive(Default)]
struct Shared {
    status: RefCell<Status>,
    changed: Notify,
}

impl Shared {
    fn set(&self, f: impl FnOnce(&mut Status)) {
        f(&mut self.status.borrow_mut());
        self.changed.notify_waiters();
    }
}

pub(super) struct Handle {
    pub addr: SocketAddr,
    client: Client,
    job: String,
    topic: String,
    events: mpsc::Sender<Event>,
    shared: Rc<Shared>,
    metrics: Rc<JobMetrics>,
    _tasks: [AbortOnDrop<()>; 2],
}

pub(super) async fn start(config: CoordinatorConfig) -> Result<Handle, CoordinatorError> {
    config.job.validate()?;
    let data = |why: env::io::Error| CoordinatorError::Data { path: config.data_dir.clone(), why: why.to_string() };
    env::disk::create_dir_all(&config.data_dir).await.map_err(data)?;
    env::disk::sync_ancestors(&config.data_dir).await.map_err(data)?;
    let lock = DirLock::acquire(&config.data_dir).await.map_err(|e| match e.kind() {
        env::io::ErrorKind::WouldBlock => CoordinatorError::Locked(config.data_dir.clone()),
        _ => data(e),
    })?;
    // What the last life renamed and did not live to sync is read from now on: it must stay.
    env::disk::sync_dir(&config.data_dir).await.map_err(data)?;
    let meta = MetaFile::open(config.data_dir.join("coordinator.json"), &config.job.name).await?;
    let store = DiskStore::open(config.data_dir.join("checkpoints")).await;
    let store = store.map_err(|e| CoordinatorError::Data { path: config.data_dir.clone(), why: e.to_string() })?;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.map_err(|source| CoordinatorError::Listen { addr: config.listen, source })?;
    let addr = listener.local_addr().map_err(|source| CoordinatorError::Listen { addr: config.listen, source })?;
    let client = Client::new(config.client.clone());
    let ends = meta.meta.end_offsets.clone().map(|ends| ends.into_iter().collect());
    let shared = Rc::new(Shared::default());
    shared.set(|s| {
        s.end_offsets = ends;
        s.drained = meta.meta.drained;
    });
    let (events, inbox) = mpsc::channel(EVENTS);
    let m = &meta.meta;
    let machine = Machine::new(config.job.clone(), config.workers, m.generation, m.end_offsets.clone(), m.drained);
    let topic = config.job.source.topic.clone();
    let job = config.job.name.clone();
    let metrics = Rc::new(JobMetrics::default());
    if m.drained {
        metrics.already_drained();
    }
    let driver = Driver {
        job: Rc::new(config.job),
        client: client.clone(),
        machine,
        meta,
        store: Rc::new(store),
        events: events.clone(),
        workers: BTreeMap::new(),
        preparing: None,
        shared: Rc::clone(&shared),
        metrics: Rc::clone(&metrics),
        _lock: lock,
    };
    let accepting = env::task::spawn(accept(listener, config.heartbeat_timeout, events.clone())).abort_on_drop();
    let looping = env::task::spawn(driver.run(inbox)).abort_on_drop();
    Ok(Handle { addr, client, job, topic, events, shared, metrics, _tasks: [accepting, looping] })
}

impl Handle {
    pub fn metrics(&self) -> metrics::Snapshot {
        let mut out = metrics::Snapshot::default();
        self.metrics.measure(&self.job, &mut out);
        out
    }

    pub async fn finish(&self, ends: Option<Ends>) -> Result<Ends, CoordinatorError> {
        if let Some(fixed) = self.shared.status.borrow().end_offsets.clone() {
            return Ok(fixed);
        }
        let ends = match ends {
            Some(ends) => ends,
            None => log_ends(&self.client, &self.topic).await.map_err(CoordinatorError::EndOffsets)?,
        };
        let (reply, fixed) = oneshot::channel();
        let asked = self.events.send(Event::Finish { ends, reply }).await;
        match (asked, fixed.await) {
            (Ok(()), Ok(fixed)) => Ok(fixed),
            _ => Err(self.stopped().await),
        }
    }

    pub async fn drained(&self) -> Result<(), CoordinatorError> {
        loop {
            let changed = self.shared.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Registered before the look: a change in between is not missed.
            changed.as_mut().enable();
            {
                let status = self.shared.status.borrow();
                if status.drained {
                    return Ok(());
                }
                if let Some(why) = &status.stopped {
                    return Err(CoordinatorError::Stopped(why.clone()));
                }
            }
            changed.await;
        }
    }

    /// Waits until the loop has ended by itself.
    pub async fn stopped(&self) -> CoordinatorError {
        loop {
            let changed = self.shared.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if let Some(why) = self.shared.status.borrow().stopped.clone() {
                return CoordinatorError::Stopped(why);
            }
            changed.await;
        }
    }
}

async fn accept(listener: TcpListener, silence: Duration, events: mpsc::Sender<Event>) {
    let mut connections = TaskSet::default();
    let mut id = 0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                id += 1;
                connections.spawn(connection::serve(id, stream, silence, events.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a worker");
                env::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Driver {
    job: Rc<JobConfig>,
    client: Client,
    machine: Machine,
    meta: MetaFile,
    store: Rc<dyn CheckpointStore>,
    events: mpsc::Sender<Event>,
    /// The newest connection of each worker.
    workers: BTreeMap<String, (u64, Outbox)>,
    preparing: Option<AbortOnDrop<()>>,
    shared: Rc<Shared>,
    metrics: Rc<JobMetrics>,
    _lock: DirLock,
}

impl Driver {
    async fn run(mut self, mut inbox: mpsc::Receiver<Event>) {
        let why = loop {
            let timeout = self.machine.next_timeout();
            let event = env::select! {
                event = inbox.recv() => event,
                () = at(timeout) => Some(Event::Input { connection: None, input: Input::Tick }),
            };
            let Some(event) = event else { break "nobody uses it any more".to_owned() };
            if let Err(error) = self.event(event).await {
                break error.to_string();
            }
        };
        tracing::error!(why, "the coordinator stops");
        self.shared.set(|s| s.stopped = Some(why));
    }

    async fn event(&mut self, event: Event) -> Result<(), CoordinatorError> {
        let input = match event {
            Event::Registered { connection, worker, shuffle, outbox } => {
                // Connections of one worker may be read in another order than they came: 1. a connection is held up;
                // 2. the worker gives it up and makes another, which registers; 3. the first one's bytes arrive.
                if self.workers.get(&worker).is_some_and(|(newest, _)| *newest > connection) {
                    env::sometimes!(true, "an abandoned connection registered late");
                    return Ok(());
                }
                self.workers.insert(worker.clone(), (connection, outbox));
                let registered = crate::probe::Probe::WorkerRegistered { worker: worker.clone(), connection };
                registered.log();
                env::probe::probe(|| registered);
                Input::Registered { worker, shuffle }
            }
            Event::Input { connection, input } => {
                if let (Some(connection), Input::Lost { worker } | Input::Message { worker, .. }) = (connection, &input)
                {
                    if self.workers.get(worker).is_none_or(|(newest, _)| *newest != connection) {
                        return Ok(());
                    }
                    if matches!(input, Input::Lost { .. }) {
                        self.workers.remove(worker);
                    }
                }
                input
            }
            Event::Finish { ends, reply } => return self.finish(ends, reply).await,
        };
        self.handle(input).await
    }

    async fn handle(&mut self, input: Input) -> Result<(), CoordinatorError> {
        self.metrics.workers(self.workers.len());
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for action in self.machine.handle(env::clock::now(), input) {
                match action {
                    Action::Prepare { generation } => self.prepare(generation).await?,
                    Action::Send { worker, message, payload } => {
                        let label = label(&message);
                        crash_point(ROLE, label, None, When::Before).await;
                        self.send(&worker, message, payload).await;
                        crash_point(ROLE, label, None, When::After).await;
                    }
                    Action::Store(checkpoint) => {
                        crash_point(ROLE, "checkpoint.store", None, When::Before).await;
                        let n = checkpoint.n;
                        let result = self.store(&checkpoint).await;
                        crash_point(ROLE, "checkpoint.store", None, When::After).await;
                        inputs.push(Input::Stored { n, result: Ok(result?) });
                    }
                    Action::MarkDrained { .. } => {
                        self.meta.save(Meta { drained: true, ..self.meta.meta.clone() }).await?;
                        self.shared.set(|s| s.drained = true);
                    }
                    Action::Report(probe) => {
                        self.metrics.note(&probe);
                        probe.log();
                        env::probe::probe(|| probe);
                    }
                }
            }
        }
        Ok(())
    }

    async fn send(&mut self, worker: &str, message: ToWorker, payload: Bytes) {
        let Some((connection, outbox)) = self.workers.get(worker) else { return };
        if outbox.try_send((message, payload)).is_err() {
            // Its connection is gone or stuck: it counts as lost.
            let connection = Some(*connection);
            let input = Input::Lost { worker: worker.to_owned() };
            let events = self.events.clone();
            // Not awaited here: this loop is the only one that empties the queue.
            env::task::spawn(async move {
                let _ = events.send(Event::Input { connection, input }).await;
            });
        }
    }

    /// Durable, or the coordinator stops: whether a failed put happened is known only after a restart, and the next
    /// attempt must not start from an older checkpoint while a newer one may be there.
    async fn store(&self, checkpoint: &Checkpoint) -> Result<(), CoordinatorError> {
        let stop = |e: &dyn std::fmt::Display| CoordinatorError::Stopped(e.to_string());
        let bytes = checkpoint.encode();
        self.metrics.stored(bytes.len());
        self.store.put(checkpoint.n, bytes).await.map_err(|e| stop(&e))?;
        let all = self.store.list().await.map_err(|e| stop(&e))?;
        for old in all.iter().rev().skip(self.job.checkpoint.retained) {
            // An old one too many does no harm.
            if let Err(error) = self.store.delete(*old).await {
                tracing::warn!(%error, "an old checkpoint stays");
            }
        }
        Ok(())
    }

    async fn prepare(&mut self, generation: Generation) -> Result<(), CoordinatorError> {
        crash_point(ROLE, "generation.store", None, When::Before).await;
        self.meta.save(Meta { generation, ..self.meta.meta.clone() }).await?;
        crash_point(ROLE, "generation.store", None, When::After).await;
        let (job, client) = (Rc::clone(&self.job), self.client.clone());
        let (store, events) = (Rc::clone(&self.store), self.events.clone());
        let preparing = env::task::spawn(async move {
            let result = prepare(&job, client, store.as_ref()).await;
            let input = Input::Prepared { generation, result };
            let _ = events.send(Event::Input { connection: None, input }).await;
        });
        self.preparing = Some(preparing.abort_on_drop());
        Ok(())
    }

    async fn finish(&mut self, ends: Ends, reply: oneshot::Sender<Ends>) -> Result<(), CoordinatorError> {
        let fixed: Vec<(i32, i64)> = match &self.meta.meta.end_offsets {
            Some(fixed) => fixed.clone(),
            None => {
                let ends: Vec<(i32, i64)> = ends.into_iter().collect();
                crash_point(ROLE, "end_offsets.store", None, When::Before).await;
                self.meta.save(Meta { end_offsets: Some(ends.clone()), ..self.meta.meta.clone() }).await?;
                crash_point(ROLE, "end_offsets.store", None, When::After).await;
                ends
            }
        };
        self.shared.set(|s| s.end_offsets = Some(fixed.iter().copied().collect()));
        let _ = reply.send(fixed.iter().copied().collect());
        self.handle(Input::Bounds(fixed)).await
    }
}

async fn at(deadline: Option<env::clock::Instant>) {
    match deadline {
        Some(deadline) => env::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn label(message: &ToWorker) -> &'static str {
    match message {
        ToWorker::Welcome => "welcome",
        ToWorker::Heartbeat => "heartbeat",
        ToWorker::Deploy(_) => "attempt.deploy",
        ToWorker::Start { .. } => "attempt.start",
        ToWorker::Trigger { .. } => "checkpoint.trigger",
        ToWorker::Commit { .. } => "checkpoint.complete",
        ToWorker::Bounds { .. } => "finish.send",
        ToWorker::Cancel { .. } => "attempt.cancel",
    }
}

/// Loads the newest checkpoint and looks at the topics.
async fn prepare(job: &JobConfig, client: Client, store: &dyn CheckpointStore) -> Result<Preparation, String> {
    let checkpoint = match store.list().await.map_err(|e| e.to_string())?.last() {
        None => None,
        // One that cannot be read is an error, not a reason to take an older one: its rows may be committed.
        Some(n) => {
            let bytes = store.get(*n).await.map_err(|e| e.to_string())?;
            let checkpoint = Checkpoint::decode(bytes).map_err(|e| format!("checkpoint {n}: {e}"))?;
            if checkpoint.n != *n || checkpoint.job != job.name {
                return Err(format!("checkpoint {n} says {} of job {:?}", checkpoint.n, checkpoint.job));
            }
            Some(checkpoint)
        }
    };
    let admin = Admin::new(client);
    create_topics(&admin, job).await?;
    let partitions = partitions(&admin, &job.source.topic).await?;
    let known: Vec<i32> = checkpoint.iter().flat_map(Checkpoint::splits).map(|s| s.partition).collect();
    let new: Vec<TopicPartition> = partitions.iter().filter(|tp| !known.contains(&tp.partition)).cloned().collect();
    let mut first = BTreeMap::new();
    if !new.is_empty() {
        // Resolved now: "earliest" in a checkpoint would mean another offset after a restart (FLINK-28303).
        let listed = admin.list_offsets(&new, OffsetSpec::Earliest, Isolation::ReadUncommitted).await;
        first = listed.map_err(|e| e.to_string())?;
    }
    let first_offset = |tp: &TopicPartition| first.get(tp).copied().flatten().unwrap_or(0);
    let partitions = partitions.iter().map(|tp| (tp.partition, first_offset(tp))).collect();
    Ok(Preparation { checkpoint, partitions })
}

async fn create_topics(admin: &Admin, job: &JobConfig) -> Result<(), String> {
    let topics = job.sink.topics(&job.name);
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let metadata = admin.metadata(&names).await.map_err(|e| e.to_string())?;
    let missing: Vec<NewTopic> = topics
        .iter()
        .filter(|t| !metadata.topics.contains_key(*t))
        .map(|t| NewTopic {
            replication_factor: job.sink.replication_factor,
            ..NewTopic::new(t.clone(), job.sink.partitions)
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    for (topic, result) in admin.create_topics(&missing).await.map_err(|e| e.to_string())? {
        match result {
            Ok(()) | Err(protocol::ErrorCode::TOPIC_ALREADY_EXISTS) => {}
            Err(code) => return Err(format!("failed to create topic {topic:?}: {code:?}")),
        }
    }
    Ok(())
}

async fn partitions(admin: &Admin, topic: &str) -> Result<Vec<TopicPartition>, String> {
    let metadata = admin.metadata(&[topic]).await.map_err(|e| e.to_string())?;
    match metadata.topics.get(topic) {
        Some(t) => Ok(t.partitions.keys().map(|p| TopicPartition::new(topic, *p)).collect()),
        None => Err(format!("source topic {topic:?} is not there")),
    }
}

/// The end of each partition's log, open transactions included: they are read once they have ended.
async fn log_ends(client: &Client, topic: &str) -> Result<Ends, String> {
    let admin = Admin::new(client.clone());
    let partitions = partitions(&admin, topic).await?;
    let ends = admin.list_offsets(&partitions, OffsetSpec::Latest, Isolation::ReadUncommitted).await;
    let ends = ends.map_err(|e| e.to_string())?;
    Ok(ends.into_iter().map(|(tp, end)| (tp.partition, end.unwrap_or(0))).collect())
}
