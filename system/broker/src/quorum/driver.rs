//! One replica of the metadata log: the machine, its log and quorum state on disk, its calls to the other voters.
//!
//! [`Replica`] is driven by the task that owns the metadata (`metadata::driver`): it hands in what arrives, the replica
//! executes the machine's actions in order and tells what came of it as [`Event`]s. The log is always synced before an
//! end is acknowledged, whatever `flush` says of partitions: losing a partition's tail is a choice, losing the partition
//! is not.
//!
//! A sync is put off to the end of a turn, so that all that was appended in it shares one, and other voters are served
//! what they write while this one does.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use env::clock;
use env::node::{When, crash_point};
use env::sync::{mpsc, oneshot};
use log::{Log, LogConfig};
use protocol::batch::{self, BatchBuilder, Record};
use protocol::messages::leader_change_message::Voter;
use protocol::messages::{BrokerId, LeaderChangeMessage};
use protocol::wire::Encodable;
use protocol::{ErrorCode, ResponseBody, Uuid};

use super::log_view::LogView;
use super::machine::{Action, Config, Input, Machine, Progress, RequestId, RoleName, Token};
use super::message::{Answer, Batches, Fetched, Header, Position, ReplicaKey, Request};
use super::rpc::{self, SnapshotPart};
use super::snapshot;
use super::state::QuorumState;
use crate::config::BrokerConfig;
use crate::failure::BrokerError;
use crate::peer::{Peer, PeerConfig};
use crate::probe::Probe;

/// What may wait for the replica's task; who brings more waits.
const MAX_QUEUED: usize = 256;
const MAX_RESPONSE_BYTES: usize = 64 << 20;
/// Most bytes a fetch is served.
const SERVE_BYTES: usize = 1 << 20;
/// Kafka's type of the control record that opens a leader's epoch.
const LEADER_CHANGE: i16 = 2;
/// Between two snapshots of the metadata, unless said otherwise.
const SNAPSHOT_BYTES: u32 = 16 << 20;
const ROLE: &str = "controller";

/// Who this replica is, and where the voters are.
#[derive(Clone, Debug)]
pub struct Membership {
    pub me: ReplicaKey,
    pub cluster_id: String,
    /// Host and port of each voter. If empty, this node is the only one.
    pub voters: BTreeMap<i32, (String, u16)>,
    pub election_timeout: Duration,
    pub fetch_timeout: Duration,
    /// A snapshot is taken each time this many bytes more are committed; also the size of the log's segments.
    pub snapshot_bytes: u32,
}

impl Membership {
    pub fn of(config: &BrokerConfig, directory: Uuid) -> Self {
        Self {
            me: ReplicaKey { id: config.node_id, directory },
            cluster_id: config.cluster_id.clone(),
            voters: config.voters.clone(),
            election_timeout: Duration::from_millis(config.quorum_election_timeout_ms),
            fetch_timeout: Duration::from_millis(config.quorum_fetch_timeout_ms),
            snapshot_bytes: SNAPSHOT_BYTES,
        }
    }
}

/// What comes to the replica's task from outside.
#[derive(Debug)]
pub(crate) enum Incoming {
    Request { request: Request, answer: oneshot::Sender<Answer> },
    Snapshot { part: SnapshotPart, answer: oneshot::Sender<ResponseBody> },
    Describe { answer: oneshot::Sender<Description> },
    Answer { from: i32, id: RequestId, answer: Answer },
    Failed { to: i32, id: RequestId },
    SnapshotProgress,
    SnapshotFetched { at: Position },
    SnapshotFailed,
    Resign,
}

/// What the replica did, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Everything below is committed and in the log.
    Committed {
        high_watermark: i64,
    },
    LeaderChanged {
        epoch: i32,
        leader: Option<i32>,
    },
    /// The log begins with this snapshot now; what was read of it before is void.
    Installed {
        at: Position,
    },
}

/// The state of the quorum as this replica knows it.
#[derive(Clone, Debug)]
pub struct Description {
    pub epoch: i32,
    pub leader: Option<i32>,
    pub role: RoleName,
    pub high_watermark: i64,
    pub me: ReplicaKey,
    pub end: i64,
    pub voter_ids: Vec<i32>,
    /// Of a leader: the other voters, and the observers.
    pub voters: Vec<Progress>,
    pub observers: Vec<Progress>,
    pub now: clock::Instant,
}

/// Fetches wait at the leader and answers come in order, so they have a connection of their own.
#[derive(Clone)]
struct Lanes {
    control: Peer,
    fetch: Peer,
}

pub(crate) struct Replica {
    membership: Membership,
    machine: Machine,
    log: Log,
    dir: PathBuf,
    lanes: BTreeMap<i32, Lanes>,
    queue: mpsc::Sender<Incoming>,
    waiting: BTreeMap<Token, oneshot::Sender<Answer>>,
    next_token: u64,
    flush_due: bool,
    events: VecDeque<Event>,
}

impl Replica {
    /// Opens what is in `dir`, created if missing, and begins to take part. What arrives for it is to be taken from the
    /// receiver and given to [`Replica::take`].
    pub async fn open(dir: &Path, membership: Membership) -> Result<(Self, mpsc::Receiver<Incoming>), BrokerError> {
        let storage =
            |what: &str, e: &dyn std::fmt::Display| BrokerError::storage(format!("{what} {}", dir.display()), e);
        let log_config = LogConfig { segment_bytes: membership.snapshot_bytes, ..LogConfig::default() };
        let (mut log, _) = Log::open(dir, log_config, clock::now()).await.map_err(|e| storage("opening", &e))?;
        let state = QuorumState::load(dir).await.map_err(|e| storage("reading", &e))?;
        let snapshot = snapshot::newest(dir).await.map_err(|e| storage("reading", &e))?;
        if let Some(at) = snapshot {
            snapshot::align(&mut log, at).await.map_err(|e| storage("aligning", &e))?;
        }
        let starts = log.leader_epochs().starts().to_vec();
        let view = LogView::new(log.start_offset(), snapshot, starts, log.end_offset());
        let (queue, incoming) = mpsc::channel(MAX_QUEUED);
        let mut chance = env::rng::stream("quorum");
        let mut voters = membership.voters.clone();
        if voters.is_empty() {
            voters.insert(membership.me.id, (String::new(), 0));
        }
        let config = Config {
            me: membership.me,
            voters: voters.keys().copied().collect(),
            election_timeout: membership.election_timeout,
            fetch_timeout: membership.fetch_timeout,
            fetch_max_wait: (membership.fetch_timeout / 4).min(Duration::from_millis(500)),
            retry_backoff: (membership.election_timeout / 10).max(Duration::from_millis(50)),
            chance: chance.u64(),
        };
        let peer_config =
            PeerConfig { connect_timeout: membership.fetch_timeout / 2, max_response_bytes: MAX_RESPONSE_BYTES };
        let me = membership.me.id;
        let lanes = voters.into_iter().filter(|(id, _)| *id != me).map(|(id, (host, port))| {
            let peer = || Peer::new(me, host.clone(), port, peer_config);
            (id, Lanes { control: peer(), fetch: peer() })
        });
        let lanes = lanes.collect();
        let (machine, actions) = Machine::start(clock::now(), config, state, view);
        let mut replica = Self {
            membership,
            machine,
            log,
            dir: dir.to_owned(),
            lanes,
            queue,
            waiting: BTreeMap::new(),
            next_token: 0,
            flush_due: false,
            events: VecDeque::new(),
        };
        replica.execute(actions).await?;
        Ok((replica, incoming))
    }

    /// Where others may bring what is for this replica.
    pub fn queue(&self) -> mpsc::Sender<Incoming> {
        self.queue.clone()
    }

    pub fn next_timeout(&self) -> Option<clock::Instant> {
        self.machine.next_timeout()
    }

    /// What came of the last calls, in order.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The epoch this replica leads, its first offset, and the offset the next batch gets; only once everything before
    /// the epoch is committed.
    pub fn active(&self) -> Option<(i32, i64)> {
        self.machine.appendable().map(|next| (self.machine.epoch(), next))
    }

    pub fn epoch_and_leader(&self) -> (i32, Option<i32>) {
        (self.machine.epoch(), self.machine.leader())
    }

    pub fn snapshot_bytes(&self) -> u64 {
        self.membership.snapshot_bytes.into()
    }

    pub fn snapshot(&self) -> Option<Position> {
        self.machine.log().snapshot()
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The position of everything committed.
    pub fn committed(&self) -> Position {
        let offset = self.machine.high_watermark();
        Position { offset, epoch: self.machine.log().epoch_below(offset) }
    }

    pub async fn take(&mut self, incoming: Incoming) -> Result<(), BrokerError> {
        match incoming {
            Incoming::Request { request, answer } => {
                self.next_token += 1;
                let token = Token(self.next_token);
                self.waiting.insert(token, answer);
                self.handle(Input::Request { token, request }).await
            }
            Incoming::Snapshot { part, answer } => self.serve_snapshot(part, answer).await,
            Incoming::Describe { answer } => {
                // Whoever asked may be gone.
                let _ = answer.send(self.describe());
                Ok(())
            }
            Incoming::Answer { from, id, answer } => self.handle(Input::Answer { from, id, answer }).await,
            Incoming::Failed { to, id } => self.handle(Input::Failed { to, id }).await,
            Incoming::SnapshotProgress => self.handle(Input::SnapshotProgress).await,
            Incoming::SnapshotFetched { at } => self.handle(Input::SnapshotFetched { at }).await,
            Incoming::SnapshotFailed => self.handle(Input::SnapshotFailed).await,
            // An only voter would elect itself again.
            Incoming::Resign if self.lanes.is_empty() => Ok(()),
            Incoming::Resign => self.handle(Input::Resign).await,
        }
    }

    pub async fn tick(&mut self) -> Result<(), BrokerError> {
        self.handle(Input::Tick).await
    }

    /// Appends a batch of `records` records at `base`. Whether it will be committed is open until it is, or until
    /// another leader's records are.
    pub async fn append(&mut self, batch: Bytes, records: i64) -> Result<(), BrokerError> {
        self.handle(Input::Append { batch, records }).await
    }

    /// A snapshot of everything committed up to `at` is in `dir`.
    pub async fn snapshotted(&mut self, at: Position) -> Result<(), BrokerError> {
        self.handle(Input::Snapshotted { at }).await?;
        let start = snapshot::delete_prefix(&mut self.log, at).await.map_err(|e| self.storage(&e))?;
        self.handle(Input::Prefix { start }).await
    }

    /// Syncs what was appended, if anything was, and follows up on it. To be called at the end of every turn.
    pub async fn settle(&mut self) -> Result<(), BrokerError> {
        while std::mem::take(&mut self.flush_due) {
            crash_point(ROLE, "quorum.flush", None, When::Before).await;
            let sync = self.log.flusher().await;
            let end = self.log.flushed(sync).await.map_err(|e| self.storage(&e))?;
            crash_point(ROLE, "quorum.flush", None, When::After).await;
            self.handle(Input::Flushed { end }).await?;
        }
        Ok(())
    }

    async fn handle(&mut self, input: Input) -> Result<(), BrokerError> {
        let actions = self.machine.handle(clock::now(), input);
        self.execute(actions).await
    }

    async fn execute(&mut self, actions: Vec<Action>) -> Result<(), BrokerError> {
        for action in actions {
            match label(&action) {
                Some(label) => {
                    crash_point(ROLE, label, None, When::Before).await;
                    self.act(action).await?;
                    crash_point(ROLE, label, None, When::After).await;
                }
                None => self.act(action).await?,
            }
        }
        Ok(())
    }

    async fn act(&mut self, action: Action) -> Result<(), BrokerError> {
        match action {
            Action::Store(state) => {
                state.store(&self.dir).await.map_err(|e| self.storage(&e))?;
                if let Some(voted) = state.voted {
                    let (node, epoch) = (self.membership.me.id, state.epoch);
                    env::probe::probe(|| Probe::Voted { node, epoch, candidate: voted.id });
                }
            }
            Action::AppendLeaderChange { base, epoch, granting } => {
                let node = self.membership.me.id;
                env::probe::probe(|| Probe::LeaderElected { epoch, node, log_end: base });
                tracing::info!(node, epoch, offset = base, "leads the metadata log");
                let batch = leader_change(node, &self.machine_voters(), &granting, clock::wall_ms());
                self.append_at(base, epoch, batch).await?;
            }
            Action::Append { base, epoch, batch } => self.append_at(base, epoch, batch).await?,
            Action::AppendFetched(batches) => self.append_fetched(batches).await?,
            Action::Truncate { offset } => {
                tracing::info!(node = self.membership.me.id, offset, "cuts the metadata log");
                let cut = self.log.truncate_to(offset, clock::now()).await;
                cut.map_err(|e| self.storage(&e))?;
                assert_eq!(self.log.end_offset(), offset, "the metadata log is cut between batches");
            }
            Action::Flush => self.flush_due = true,
            Action::Send { to, id, request } => self.send(to, id, request),
            Action::Reply { token, answer } => self.reply(token, answer),
            Action::Serve { token, header, high_watermark, from, upper } => {
                let read = self.log.reader().read(from, SERVE_BYTES, upper).await;
                let bytes = read.map_err(|e| self.storage(&e))?;
                let fetched = Fetched::Batches(Batches { headers: Vec::new(), bytes });
                self.reply(token, Answer::Fetch { header, high_watermark, fetched });
            }
            Action::Committed { high_watermark } => {
                let (node, epoch) = (self.membership.me.id, self.machine.epoch());
                env::probe::probe(|| Probe::MetadataCommitted { node, epoch, high_watermark });
                self.events.push_back(Event::Committed { high_watermark });
            }
            Action::LeaderChanged { epoch, leader } => {
                self.events.push_back(Event::LeaderChanged { epoch, leader });
            }
            Action::FetchSnapshot { leader, epoch, at } => self.fetch_snapshot(leader, epoch, at),
            Action::InstallSnapshot { at } => {
                tracing::info!(node = self.membership.me.id, offset = at.offset, "takes a snapshot of the metadata");
                let reset = self.log.reset_to(at.offset, clock::now()).await;
                reset.map_err(|e| self.storage(&e))?;
                self.events.push_back(Event::Installed { at });
            }
        }
        Ok(())
    }

    async fn append_at(&mut self, base: i64, epoch: i32, batch: Bytes) -> Result<(), BrokerError> {
        let appended = self.log.append(batch, epoch, clock::now()).await.map_err(|e| self.storage(&e))?;
        assert_eq!(appended.first, base, "the quorum knows the end of its log");
        assert_eq!(appended.last + 1, self.log.end_offset());
        Ok(())
    }

    /// Each batch keeps the epoch of the leader that wrote it.
    async fn append_fetched(&mut self, batches: Batches) -> Result<(), BrokerError> {
        for part in batch::split(batches.bytes) {
            let (header, bytes) = part.map_err(|e| BrokerError::corrupt("a fetch of the metadata log", e))?;
            self.append_at(header.base_offset, header.partition_leader_epoch, bytes).await?;
        }
        Ok(())
    }

    fn machine_voters(&self) -> Vec<i32> {
        let mut voters: Vec<i32> = self.lanes.keys().copied().collect();
        voters.push(self.membership.me.id);
        voters.sort_unstable();
        voters
    }

    fn reply(&mut self, token: Token, answer: Answer) {
        if let Some(waiting) = self.waiting.remove(&token) {
            // Whoever asked may be gone.
            let _ = waiting.send(answer);
        }
    }

    /// Calls in a task of its own, whose answer comes back through the queue.
    fn send(&self, to: i32, id: RequestId, request: Request) {
        let Some(lanes) = self.lanes.get(&to).cloned() else { return };
        let queue = self.queue.clone();
        let timeout = self.membership.fetch_timeout;
        let (version, body) = rpc::encode(&request, &self.membership.cluster_id, to);
        let peer = if matches!(request, Request::Fetch(_)) { lanes.fetch } else { lanes.control };
        env::task::spawn(async move {
            let answer = peer.call(version, &body, timeout).await.ok().and_then(rpc::decode_answer);
            let incoming = match answer {
                Some(answer) => Incoming::Answer { from: to, id, answer },
                None => Incoming::Failed { to, id },
            };
            // The replica may have stopped.
            let _ = queue.send(incoming).await;
        });
    }

    fn fetch_snapshot(&self, leader: i32, epoch: i32, at: Position) {
        let queue = self.queue.clone();
        let Some(lanes) = self.lanes.get(&leader).cloned() else { return };
        let (membership, dir) = (self.membership.clone(), self.dir.clone());
        env::task::spawn(async move {
            let progress = queue.clone();
            let fetched = snapshot::fetch(&lanes.fetch, &membership, epoch, at, &dir, progress).await;
            let incoming = match fetched {
                Ok(()) => Incoming::SnapshotFetched { at },
                Err(error) => {
                    tracing::warn!(leader, %error, "failed to fetch a snapshot of the metadata");
                    Incoming::SnapshotFailed
                }
            };
            // The replica may have stopped.
            let _ = queue.send(incoming).await;
        });
    }

    async fn serve_snapshot(
        &mut self,
        part: SnapshotPart,
        answer: oneshot::Sender<ResponseBody>,
    ) -> Result<(), BrokerError> {
        let (epoch, leader) = self.epoch_and_leader();
        let leads = leader == Some(self.membership.me.id);
        let error = match () {
            () if !leads => ErrorCode::NOT_LEADER_OR_FOLLOWER,
            () if part.epoch < epoch => ErrorCode::FENCED_LEADER_EPOCH,
            () if part.epoch > epoch => ErrorCode::UNKNOWN_LEADER_EPOCH,
            () => ErrorCode::NONE,
        };
        let header = |error| Header { error, epoch, leader };
        let body = if error.is_ok() {
            self.handle(Input::Heard { replica: part.replica }).await?;
            match snapshot::read_part(&self.dir, &part).await {
                Ok(Some((size, bytes))) => rpc::encode_snapshot(&part, header(ErrorCode::NONE), size, bytes),
                Ok(None) => rpc::encode_snapshot(&part, header(ErrorCode::SNAPSHOT_NOT_FOUND), 0, Bytes::new()),
                Err(e) => return Err(self.storage(&e)),
            }
        } else {
            rpc::encode_snapshot(&part, header(error), 0, Bytes::new())
        };
        let _ = answer.send(body);
        Ok(())
    }

    fn describe(&self) -> Description {
        let (voters, observers) = self.machine.progress();
        let (epoch, leader) = self.epoch_and_leader();
        Description {
            epoch,
            leader,
            role: self.machine.role(),
            high_watermark: self.machine.high_watermark(),
            me: self.membership.me,
            end: self.machine.log().end_offset(),
            voter_ids: self.machine_voters(),
            voters,
            observers,
            now: clock::now(),
        }
    }

    fn storage(&self, error: &dyn std::fmt::Display) -> BrokerError {
        BrokerError::storage(format!("the metadata log in {}", self.dir.display()), error)
    }
}

/// The crash point of an action.
fn label(action: &Action) -> Option<&'static str> {
    match action {
        Action::Store(state) if state.voted.is_some() => Some("quorum.vote.store"),
        Action::Store(_) => Some("quorum.epoch.store"),
        Action::AppendLeaderChange { .. } => Some("quorum.lead"),
        Action::Append { .. } => Some("quorum.append"),
        Action::AppendFetched(_) => Some("quorum.append.fetched"),
        Action::Truncate { .. } => Some("quorum.truncate"),
        Action::InstallSnapshot { .. } => Some("quorum.snapshot.install"),
        _ => None,
    }
}

/// The control batch that opens a leader's epoch.
fn leader_change(leader: i32, voters: &[i32], granting: &[i32], timestamp: i64) -> Bytes {
    let voter = |id: &i32| Voter::default().with_voter_id(*id);
    let message = LeaderChangeMessage::default()
        .with_version(0)
        .with_leader_id(BrokerId(leader))
        .with_voters(voters.iter().map(voter).collect())
        .with_granting_voters(granting.iter().map(voter).collect());
    let mut value = BytesMut::new();
    if let Err(error) = message.encode(&mut value, 0) {
        unreachable!("a leader change can be encoded: {error}");
    }
    let mut key = BytesMut::new();
    key.extend_from_slice(&0i16.to_be_bytes());
    key.extend_from_slice(&LEADER_CHANGE.to_be_bytes());
    let mut builder = BatchBuilder::new().control();
    let record = Record { timestamp, key: Some(key.freeze()), value: Some(value.freeze()), ..Record::default() };
    builder.push(&record);
    builder.build()
}
