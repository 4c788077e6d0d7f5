//! A consumer that shares topics with the other members of its group, by either protocol.
//!
//! One task keeps the membership alive whether the application polls or not. [`GroupConsumer::poll`] hands out records
//! and, in their turn, changes: an application that is told of [`Polled::Revoked`] commits what it has done with and
//! polls again, which gives the partitions up; nothing is fetched from them any more. After [`Polled::Lost`] there is
//! nothing to commit: they are somebody else's. An application that does not poll for `max_poll_interval` is taken out of
//! the group.
//!
//! Commits have three outcomes (semantics rule 20). An automatic commit covers what was handed out before the current
//! poll, never what this poll hands out: a record that the application did not get to is read again.

pub mod assignor;
mod calls;
mod classic;
mod commit;
mod membership;
mod modern;
#[cfg(test)]
mod tests;
mod turns;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use env::clock::Instant;
use env::sync::Notify;
use env::task::AbortOnDrop;
use protocol::ErrorCode;

use crate::admin::{Admin, CommittedOffset, OffsetSpec};
use crate::backoff::Backoff;
use crate::client::{Client, Lane};
use crate::consumer::{Consumer, ConsumerConfig, FetchResult};
use crate::error::ClientError;
use crate::metadata::TopicPartition;
use crate::probe::ClientProbe;
use assignor::Assignor;
use membership::{Action, Identity, Input, Membership, Settings};
use turns::Turns;

/// How often the number of partitions of the subscribed topics is looked at.
const METADATA_MAX_AGE: Duration = Duration::from_secs(30);

/// How the group agrees on who reads what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum GroupProtocol {
    /// The members' leader assigns.
    #[default]
    Classic,
    /// The coordinator assigns (KIP-848).
    Consumer,
}

/// Where to begin with a partition that the group has no offset for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Reset {
    Earliest,
    #[default]
    Latest,
}

/// Settings of a member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    pub group_id: String,
    pub topics: Vec<String>,
    pub protocol: GroupProtocol,
    /// Classic: what this member offers, best first. It rebalances cooperatively only if all are cooperative.
    pub assignors: Vec<Assignor>,
    /// Consumer: the assignor it asks for; `None` leaves it to the coordinator.
    pub server_assignor: Option<String>,
    /// A static member: it may be away for less than its session without a rebalance (KIP-345).
    pub instance_id: Option<String>,
    /// Classic: not heard for this long it is out. Consumer: the coordinator's own setting should not be shorter.
    pub session_timeout: Duration,
    /// Classic; the consumer protocol's interval is the coordinator's.
    pub heartbeat_interval: Duration,
    /// The longest that the others wait for it in a rebalance; at least `session_timeout`, or it would be out while it
    /// takes itself to be a member.
    pub rebalance_timeout: Duration,
    /// The longest between two polls.
    pub max_poll_interval: Duration,
    pub reset: Reset,
    /// Commit by itself this often.
    pub auto_commit: Option<Duration>,
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    pub fn new(group_id: impl Into<String>, topics: &[&str]) -> Self {
        Self {
            group_id: group_id.into(),
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            protocol: GroupProtocol::default(),
            assignors: vec![Assignor::CooperativeSticky],
            server_assignor: None,
            instance_id: None,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(60),
            max_poll_interval: Duration::from_secs(300),
            reset: Reset::default(),
            auto_commit: None,
            consumer: ConsumerConfig::default(),
        }
    }
}

/// What a poll brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    Records(Vec<FetchResult>),
    /// These are read from now on, from the group's offsets.
    Assigned(BTreeSet<TopicPartition>),
    /// These go to others once poll is called again.
    Revoked(BTreeSet<TopicPartition>),
    /// These may be read by others already.
    Lost(BTreeSet<TopicPartition>),
}

/// It cannot be a member of the group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to be a member of the group: {reason}")]
pub struct GroupError {
    pub code: Option<ErrorCode>,
    pub reason: Cow<'static, str>,
}

/// Who a member is; a transaction's offsets are committed in its name, so that a member that lost its partitions cannot
/// commit them (KIP-447).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupMetadata {
    pub group_id: String,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// Generation or member epoch; -1 for a consumer that is no member.
    pub generation: i32,
}

impl From<&str> for GroupMetadata {
    /// A group without members.
    fn from(group_id: &str) -> Self {
        Self { group_id: group_id.to_owned(), generation: -1, ..Self::default() }
    }
}

/// A member of a consumer group. All methods take `&self`; one poll at a time.
pub struct GroupConsumer {
    shared: Rc<Shared>,
    _task: AbortOnDrop<()>,
}

struct Shared {
    client: Client,
    config: GroupConfig,
    /// Joins wait long, so commits have a connection of their own.
    member_lane: Lane,
    commit_lane: Lane,
    consumer: Consumer,
    membership: RefCell<Membership>,
    /// What the application is yet to be told.
    changes: RefCell<VecDeque<Polled>>,
    /// What is its own to the application.
    told: RefCell<BTreeSet<TopicPartition>>,
    /// Who this member was when the application was last up to date.
    last_told: RefCell<Identity>,
    /// Which take a partition is its own by: what is found out for an earlier one is void.
    takes: RefCell<BTreeMap<TopicPartition, u64>>,
    last_take: Cell<u64>,
    /// It was told of a revocation, and acknowledges with its next poll.
    acknowledging: RefCell<Option<BTreeSet<TopicPartition>>>,
    /// The next offset after the records handed out, by partition; and those of before the current poll.
    handed_out: RefCell<BTreeMap<TopicPartition, CommittedOffset>>,
    done_with: RefCell<BTreeMap<TopicPartition, CommittedOffset>>,
    commits: Rc<Turns>,
    auto_commit_at: Cell<Option<Instant>>,
    /// What is done with meanwhile waits for the next one.
    auto_committing: Cell<bool>,
    polled_at: Cell<Instant>,
    polling: Cell<bool>,
    absent: Cell<bool>,
    /// Counts partitions of the subscribed topics, as this member last shared them out: a topic that it did not know then
    /// is not among them. The membership knows whether it still leads.
    counts: RefCell<Option<BTreeMap<String, i32>>>,
    /// When to look at the topics next.
    look_at: Cell<Instant>,
    /// The membership has something to do.
    wake: Notify,
    /// The application has something to hear.
    news: Notify,
    /// The application has heard of all losses.
    heard: Notify,
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.shared.client.close_lane(self.shared.member_lane);
        self.shared.client.close_lane(self.shared.commit_lane);
    }
}

impl GroupConsumer {
    /// Joins the group at once, in a task of its own.
    pub fn new(client: Client, config: GroupConfig) -> Self {
        let now = env::clock::now();
        let settings = Settings {
            instance_id: config.instance_id.clone(),
            topics: config.topics.clone(),
            session_timeout: config.session_timeout,
            rebalance_timeout: config.rebalance_timeout.max(config.session_timeout),
            heartbeat_interval: config.heartbeat_interval,
            assignors: config.assignors.clone(),
            rack: config.consumer.rack.clone(),
            backoff: Backoff { initial: client.config().retry_backoff, max: client.config().retry_backoff_max },
        };
        let membership = match config.protocol {
            GroupProtocol::Classic => Membership::Classic(classic::Classic::new(now, settings)),
            GroupProtocol::Consumer => {
                let mut rng = env::rng::stream("group.member-id");
                let id = (u128::from(rng.u64()) << 64) | u128::from(rng.u64());
                let id = protocol::Uuid::from_u128(id & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62);
                Membership::Consumer(modern::Modern::new(now, settings, id))
            }
        };
        client.want_topics(config.topics.iter().map(String::as_str));
        let shared = Rc::new(Shared {
            member_lane: client.new_lane(),
            commit_lane: client.new_lane(),
            consumer: Consumer::new(client.clone(), config.consumer.clone()),
            client,
            membership: RefCell::new(membership),
            changes: RefCell::default(),
            told: RefCell::default(),
            last_told: RefCell::default(),
            takes: RefCell::default(),
            last_take: Cell::new(0),
            acknowledging: RefCell::default(),
            handed_out: RefCell::default(),
            done_with: RefCell::default(),
            commits: Rc::default(),
            auto_commit_at: Cell::new(config.auto_commit.map(|every| now + every)),
            auto_committing: Cell::new(false),
            polled_at: Cell::new(now),
            polling: Cell::new(false),
            absent: Cell::new(false),
            counts: RefCell::default(),
            look_at: Cell::new(env::clock::now() + METADATA_MAX_AGE),
            wake: Notify::new(),
            news: Notify::new(),
            heard: Notify::new(),
            config,
        });
        let _task = env::task::spawn(Rc::clone(&shared).run()).abort_on_drop();
        Self { shared, _task }
    }

    /// Waits for records or for a change. Dropping the future loses nothing.
    pub async fn poll(&self) -> Result<Polled, GroupError> {
        let shared = &self.shared;
        shared.polled_at.set(env::clock::now());
        shared.polling.set(true);
        let _polling = Polling(shared);
        if shared.absent.replace(false) {
            shared.input(Input::Present);
        }
        // The application came back: it is done with what it was given before.
        let handed_out = shared.handed_out.borrow().clone();
        shared.done_with.borrow_mut().extend(handed_out);
        let acknowledged = shared.acknowledging.borrow().clone();
        if let Some(revoked) = acknowledged {
            if shared.config.auto_commit.is_some() {
                let offsets = shared.take_done_with(Some(&revoked));
                // Whatever becomes of it, the partitions are given up: at worst some records are read again.
                let _ = shared.commit(shared.commits.take(), &offsets).await;
            }
            shared.forget(&revoked);
            *shared.acknowledging.borrow_mut() = None;
            shared.input(Input::Revoked);
        }
        loop {
            if let Some(fatal) = shared.membership.borrow().fatal() {
                return Err(GroupError { code: fatal.code, reason: fatal.reason.clone() });
            }
            let change = shared.changes.borrow_mut().pop_front();
            shared.up_to_date();
            if let Some(change) = change {
                match &change {
                    Polled::Assigned(more) => shared.told.borrow_mut().extend(more.iter().cloned()),
                    Polled::Revoked(gone) | Polled::Lost(gone) => {
                        shared.told.borrow_mut().retain(|tp| !gone.contains(tp))
                    }
                    Polled::Records(_) => {}
                }
                if let Polled::Revoked(revoked) = &change {
                    *shared.acknowledging.borrow_mut() = Some(revoked.clone());
                }
                return Ok(change);
            }
            let commit_at = shared.auto_commit_at.get();
            let commit_due = async {
                match commit_at {
                    Some(at) => env::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let results = env::select! {
                () = shared.news.notified() => continue,
                () = commit_due => {
                    shared.auto_commit();
                    continue;
                }
                results = shared.consumer.poll() => results,
            };
            for r in results.iter().filter(|r| r.error.is_none()) {
                let at =
                    CommittedOffset { leader_epoch: r.leader_epoch.unwrap_or(-1), ..CommittedOffset::new(r.position) };
                shared.handed_out.borrow_mut().insert(r.partition.clone(), at);
            }
            return Ok(Polled::Records(results));
        }
    }

    /// What is this member's own by what polls told so far. The membership itself may be further: partitions of which the
    /// application is yet to hear are not its own to it, nor those that it was told to give up.
    pub fn assignment(&self) -> BTreeSet<TopicPartition> {
        self.shared.told.borrow().clone()
    }

    /// Who this member is, for [`Producer::send_offsets`](crate::Producer::send_offsets): to the application, which may be yet
    /// to hear that it lost partitions.
    pub fn metadata(&self) -> GroupMetadata {
        let identity = self.shared.speaks_as();
        GroupMetadata {
            group_id: self.shared.config.group_id.clone(),
            member_id: identity.member_id,
            instance_id: self.shared.config.instance_id.clone(),
            generation: identity.generation,
        }
    }

    /// The offsets after all records handed out so far, of partitions that are still its own.
    pub fn positions(&self) -> BTreeMap<TopicPartition, CommittedOffset> {
        self.shared.handed_out.borrow().clone()
    }

    /// Commits these offsets in this member's name, once its commits before are over.
    pub async fn commit(&self, offsets: &BTreeMap<TopicPartition, CommittedOffset>) -> Result<(), ClientError> {
        self.shared.commit(self.shared.commits.take(), offsets).await
    }

    /// The same in the background; the answer may be let be.
    pub fn commit_async(
        &self,
        offsets: BTreeMap<TopicPartition, CommittedOffset>,
    ) -> impl Future<Output = Result<(), ClientError>> + use<> {
        let (shared, turn) = (Rc::clone(&self.shared), self.shared.commits.take());
        let task = env::task::spawn(async move { shared.commit(turn, &offsets).await });
        async move {
            task.await.unwrap_or_else(|_| {
                Err(ClientError {
                    what: "commit offsets",
                    outcome: crate::error::Outcome::Unknown,
                    code: None,
                    reason: "the task was aborted".into(),
                })
            })
        }
    }

    /// Reads a partition on from another offset. False if it is not its own.
    pub fn seek(&self, tp: &TopicPartition, offset: i64) -> bool {
        self.shared.handed_out.borrow_mut().remove(tp);
        self.shared.done_with.borrow_mut().remove(tp);
        self.shared.consumer.seek(tp, offset)
    }

    pub fn pause(&self, tp: &TopicPartition) -> bool {
        self.shared.consumer.pause(tp)
    }

    pub fn resume(&self, tp: &TopicPartition) -> bool {
        self.shared.consumer.resume(tp)
    }

    /// Commits if that is automatic, and leaves the group. What was handed out last counts as done with.
    pub async fn close(self) -> Result<(), ClientError> {
        let shared = &self.shared;
        let mut committed = Ok(());
        if shared.config.auto_commit.is_some() {
            let handed_out = shared.handed_out.borrow().clone();
            shared.done_with.borrow_mut().extend(handed_out);
            let offsets = shared.take_done_with(None);
            committed = shared.commit(shared.commits.take(), &offsets).await;
        }
        shared.input(Input::Leave);
        let left = async {
            while !shared.membership.borrow().has_left() {
                shared.news.notified().await;
            }
        };
        // Not being heard, it is out after its session.
        let _ = env::time::timeout(shared.client.config().request_timeout, left).await;
        committed
    }
}

/// While the application waits in a poll it is not absent.
struct Polling<'a>(&'a Shared);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.polling.set(false);
        self.0.polled_at.set(env::clock::now());
    }
}

impl Shared {
    async fn run(self: Rc<Self>) {
        loop {
            let now = env::clock::now();
            if !self.polling.get() && !self.absent.get() && now >= self.polled_at.get() + self.config.max_poll_interval
            {
                env::sometimes!(true, "a group member does not poll for too long");
                self.absent.set(true);
                self.input(Input::Absent);
            }
            if now >= self.look_at.get() {
                self.look_at.set(now + METADATA_MAX_AGE);
                let shared = Rc::clone(&self);
                env::task::spawn(async move { shared.look_at_topics().await });
            }
            let actions = self.membership.borrow_mut().poll(now);
            self.execute(actions);
            let mut next = self.look_at.get();
            if let Some(at) = self.membership.borrow().next_timeout() {
                next = next.min(at);
            }
            if !self.polling.get() && !self.absent.get() {
                next = next.min(self.polled_at.get() + self.config.max_poll_interval);
            }
            env::select! {
                () = self.wake.notified() => {}
                () = env::time::sleep_until(next) => {}
            }
        }
    }

    fn input(self: &Rc<Self>, input: Input) {
        let actions = self.membership.borrow_mut().handle(env::clock::now(), input);
        self.execute(actions);
        self.wake.notify_one();
        self.news.notify_one();
    }

    fn execute(self: &Rc<Self>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Call { id, call } => {
                    let shared = Rc::clone(self);
                    env::task::spawn(async move {
                        let result = calls::make(&shared.client, shared.member_lane, &shared.config, call).await;
                        shared.input(Input::Answer { call: id, result });
                    });
                }
                Action::Share { id, assignor, members } => {
                    let shared = Rc::clone(self);
                    env::task::spawn(async move {
                        let topics = || members.values().flat_map(|m| &m.subscription.topics);
                        shared.client.want_topics(topics().map(String::as_str));
                        // What is known will do if it cannot be asked: nothing at all for a member that came a moment
                        // ago. Then nobody reads until it has asked, and shares again.
                        if shared.client.refresh().await.is_err() {
                            env::sometimes!(true, "a group's leader shares out what it knew");
                            shared.look_again_soon();
                        }
                        let counts = shared.count_partitions(topics());
                        let assigned = assignor.assign(&members, &counts);
                        *shared.counts.borrow_mut() = Some(counts);
                        let assignments = assigned.into_iter().map(|(id, a)| (id, a.encode())).collect();
                        shared.input(Input::Shared { call: id, assignments });
                    });
                }
                Action::Revoke(revoked) => {
                    // Nothing more is fetched from here on; what was handed out can still be committed.
                    self.stop_reading(&revoked);
                    env::probe::probe(|| self.probe("revoke", &revoked));
                    self.tell(Polled::Revoked(revoked));
                }
                Action::Lost(lost) => {
                    self.stop_reading(&lost);
                    self.forget(&lost);
                    env::probe::probe(|| self.probe("lose", &lost));
                    // What it was to be told of them before is void.
                    self.changes.borrow_mut().retain(|c| !matches!(c, Polled::Revoked(_) | Polled::Assigned(_)));
                    *self.acknowledging.borrow_mut() = None;
                    self.tell(Polled::Lost(lost));
                }
                Action::Take(taken) => {
                    env::probe::probe(|| self.probe("take", &taken));
                    if !taken.is_empty() {
                        let take = self.last_take.get() + 1;
                        self.last_take.set(take);
                        self.takes.borrow_mut().extend(taken.iter().map(|tp| (tp.clone(), take)));
                        let shared = Rc::clone(self);
                        env::task::spawn(async move { shared.begin_reading(taken, take).await });
                    }
                }
            }
        }
    }

    fn probe(&self, change: &'static str, partitions: &BTreeSet<TopicPartition>) -> ClientProbe {
        let identity = self.membership.borrow().identity();
        ClientProbe::GroupChange {
            group: self.config.group_id.clone(),
            member_id: identity.member_id,
            generation: identity.generation,
            change,
            partitions: partitions.iter().cloned().collect(),
        }
    }

    /// The application has heard of all losses, and acts as who this member is now.
    fn up_to_date(&self) {
        if !self.has_losses_to_tell() {
            self.heard.notify_waiters();
            *self.last_told.borrow_mut() = self.membership.borrow().identity();
        }
    }

    fn has_losses_to_tell(&self) -> bool {
        self.changes.borrow().iter().any(|change| matches!(change, Polled::Lost(_)))
    }

    /// In whose name the application commits. One that was fenced and joined anew in the background would otherwise let
    /// its application commit what is no longer its own:
    ///   1. The application polls records of p0 and begins a transaction.
    ///   2. The member's session ends; p0 goes to another member, which reads from the offset committed before.
    ///   3. The member joins again, by a new epoch, while the application still waits for its produce.
    ///   4. The application commits p0's offset in its transaction, in the member's name. By the new epoch that is valid,
    ///      and both copies of the records stand; by the old one it is fenced (KIP-447).
    fn speaks_as(&self) -> Identity {
        match self.has_losses_to_tell() {
            true => self.last_told.borrow().clone(),
            false => self.membership.borrow().identity(),
        }
    }

    fn stop_reading(&self, partitions: &BTreeSet<TopicPartition>) {
        self.consumer.unassign(partitions);
        self.takes.borrow_mut().retain(|tp, _| !partitions.contains(tp));
    }

    fn tell(&self, change: Polled) {
        self.changes.borrow_mut().push_back(change);
        self.news.notify_one();
    }

    fn forget(&self, partitions: &BTreeSet<TopicPartition>) {
        self.handed_out.borrow_mut().retain(|tp, _| !partitions.contains(tp));
        self.done_with.borrow_mut().retain(|tp, _| !partitions.contains(tp));
    }

    /// Takes what is to be committed, of all partitions or of some.
    fn take_done_with(&self, of: Option<&BTreeSet<TopicPartition>>) -> BTreeMap<TopicPartition, CommittedOffset> {
        let mut done_with = self.done_with.borrow_mut();
        let all = std::mem::take(&mut *done_with);
        let (taken, left) = all.into_iter().partition(|(tp, _)| of.is_none_or(|of| of.contains(tp)));
        *done_with = left;
        taken
    }

    /// Commits what is done with, whether or not it moved since the last time, as Kafka's own consumer does: a commit that
    /// was given up unanswered, and repeated, may be stored after all when a newer one already was, and on an idle partition
    /// nothing else would undo that.
    fn auto_commit(self: &Rc<Self>) {
        let Some(every) = self.config.auto_commit else { return };
        self.auto_commit_at.set(Some(env::clock::now() + every));
        if self.auto_committing.get() {
            return;
        }
        let offsets = self.done_with.borrow().clone();
        if offsets.is_empty() {
            return;
        }
        self.auto_committing.set(true);
        let (shared, turn) = (Rc::clone(self), self.commits.take());
        env::task::spawn(async move {
            // What fails is tried again next time.
            let _ = shared.commit(turn, &offsets).await;
            shared.auto_committing.set(false);
        });
    }

    /// Of those topics that are known.
    fn count_partitions<'a>(&self, topics: impl Iterator<Item = &'a String>) -> BTreeMap<String, i32> {
        let metadata = self.client.metadata();
        let count = |name: &String| Some((name.clone(), metadata.topics.get(name)?.partitions.len() as i32));
        topics.filter_map(count).collect()
    }

    fn look_again_soon(&self) {
        self.look_at.set(env::clock::now() + self.client.backoff(0));
        self.wake.notify_one();
    }

    /// Partitions and topics that were added since the assignment need another one.
    async fn look_at_topics(self: Rc<Self>) {
        if self.client.refresh().await.is_err() {
            return self.look_again_soon();
        }
        let changed = match &mut *self.counts.borrow_mut() {
            Some(counts) => {
                let now = self.count_partitions(counts.keys().chain(&self.config.topics));
                now.iter().any(|(name, n)| counts.get(name) != Some(n))
            }
            // It may lead what a leader before it shared out (KIP-814): from here on it sees what changes.
            unknown => {
                *unknown = Some(self.count_partitions(self.config.topics.iter()));
                false
            }
        };
        if changed {
            self.input(Input::TopicsChanged);
        }
    }

    /// Finds where to begin with these partitions, and begins with those that are still its own by this take then.
    ///
    /// Not before the application has heard of earlier losses. A member that lost partitions may be given them again in the
    /// same generation, and what its application committed meanwhile, of records from before the loss, is valid:
    ///   1. The application polls records of p0 and begins a transaction; the group's coordinator dies.
    ///   2. The member's session ends, for all it knows. It joins again at the next coordinator, which had counted it as a
    ///      member all along: same generation, same partitions, and p0 begins at the offset committed before.
    ///   3. The transaction commits p0's offset by that generation, and the same records are read and copied again.
    async fn begin_reading(self: Rc<Self>, taken: BTreeSet<TopicPartition>, take: u64) {
        let still = |tp: &TopicPartition| self.takes.borrow().get(tp) == Some(&take);
        while self.has_losses_to_tell() {
            self.heard.notified().await;
        }
        for attempt in 0.. {
            let wanted: Vec<_> = taken.iter().filter(|tp| still(tp)).cloned().collect();
            if wanted.is_empty() {
                return;
            }
            match self.starting_offsets(&wanted).await {
                Ok(offsets) => {
                    let mut begun = BTreeSet::new();
                    for (tp, at) in offsets.into_iter().filter(|(tp, _)| still(tp)) {
                        self.consumer.assign_more(&tp, at.offset, at.leader_epoch);
                        begun.insert(tp);
                    }
                    if !begun.is_empty() {
                        self.tell(Polled::Assigned(begun));
                    }
                    return;
                }
                Err(error) => {
                    tracing::debug!(group = self.config.group_id, %error, "no offsets to begin with yet");
                    env::time::sleep(self.client.backoff(attempt)).await;
                }
            }
        }
    }

    async fn starting_offsets(
        &self,
        wanted: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        let mut offsets = self.fetch_offsets(wanted).await?;
        let missing: Vec<_> = wanted.iter().filter(|tp| !offsets.contains_key(*tp)).cloned().collect();
        if !missing.is_empty() {
            let spec = match self.config.reset {
                Reset::Earliest => OffsetSpec::Earliest,
                Reset::Latest => OffsetSpec::Latest,
            };
            let found =
                Admin::new(self.client.clone()).list_offsets(&missing, spec, self.config.consumer.isolation).await?;
            offsets.extend(found.into_iter().filter_map(|(tp, at)| Some((tp, CommittedOffset::new(at?)))));
        }
        Ok(offsets)
    }
}
