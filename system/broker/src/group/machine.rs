//! The groups of one partition of `__consumer_offsets`: who is a member, and who reads what, as a pure machine.
//!
//! State changes at once; the records that hold a change and the answers that tell of it leave as actions, in this
//! order. The driver appends the records and lets an answer go only when every record before it is in the log. If an
//! append fails, the driver reads the log anew and forgets all that was not in it, together with the answers: nobody was
//! told.
//!
//! Guarantees: within a generation (classic) or at any time (consumer) a partition has at most one owner; generations
//! and epochs of a group only rise; a commit of a member that is no longer current is refused.
//! Left to others: the log, offsets, the clock, which topics exist.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use env::clock::Instant;
use protocol::consumer_protocol::Subscription;
use protocol::{ErrorCode, Uuid};

use super::offsets::Place;
use super::records::GroupRecord;
use super::timers::{Timer, Timers};
use super::{classic, consumer};

/// The protocol type of groups whose metadata says what topics they read.
pub(super) const CONSUMER: &str = "consumer";

/// Names a request until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Bounds on the session time-out that a classic member may ask for.
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    /// How long an empty classic group waits for more members before its first generation.
    pub initial_rebalance_delay: Duration,
    /// Most members of one group, those included that were only given an id.
    pub max_size: usize,
    /// Consumer protocol: a member not heard for this long is out.
    pub consumer_session_timeout: Duration,
    /// Consumer protocol: how often members are told to send heartbeats.
    pub consumer_heartbeat_interval: Duration,
    /// How long offsets are kept that nobody uses (`offsets.retention.minutes`), see `expiry`.
    pub offsets_retention: Duration,
    /// Between two looks for such (`offsets.retention.check.interval.ms`).
    pub offsets_retention_check_interval: Duration,
}

impl Default for GroupConfig {
    /// Kafka's own defaults, but for the initial delay (there 3 s).
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay: Duration::from_millis(500),
            max_size: 1_000,
            consumer_session_timeout: Duration::from_secs(45),
            consumer_heartbeat_interval: Duration::from_secs(5),
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            offsets_retention_check_interval: Duration::from_secs(600),
        }
    }
}

/// The topics of the cluster, as the metadata log has them.
pub trait Topics {
    /// Id and number of partitions.
    fn topic(&self, name: &str) -> Option<(Uuid, i32)>;
    fn name(&self, id: Uuid) -> Option<String>;
}

/// Who sends a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Client {
    pub id: String,
    pub host: String,
}

#[derive(Clone, Debug)]
pub enum Request {
    Join(classic::Join),
    Sync(classic::Sync),
    Heartbeat(classic::Who),
    Leave(Vec<classic::Leaving>),
    ConsumerHeartbeat(consumer::Heartbeat),
    /// Delete the group's own records; its offsets are the driver's.
    Delete,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Joined(classic::Joined),
    Synced(classic::Synced),
    Heartbeat(ErrorCode),
    /// One answer a member, in the order asked.
    Left(Vec<ErrorCode>),
    Beat(consumer::Beat),
    Deleted(ErrorCode),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Persist(GroupRecord),
    Reply { id: RequestId, reply: Reply },
}

/// Who commits or fetches, as the request says.
#[derive(Clone, Copy, Debug)]
pub struct Committer<'a> {
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    /// Generation of a classic member, epoch of another one; negative if the request names none.
    pub generation: i32,
    pub in_transaction: bool,
}

impl Committer<'_> {
    pub(super) fn is_nobody(&self) -> bool {
        self.generation < 0 && self.member_id.is_empty() && self.instance_id.is_none()
    }
}

#[derive(Debug)]
pub enum Group {
    Classic(classic::Group),
    Consumer(consumer::Group),
}

impl Group {
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Classic(g) => g.is_empty(),
            Self::Consumer(g) => g.is_empty(),
        }
    }

    /// The topics that members read; `None` if the group does not say.
    pub fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        match self {
            Self::Consumer(g) => Some(g.members().values().flat_map(|m| m.metadata.topics.iter().cloned()).collect()),
            Self::Classic(g) if g.is_empty() => Some(BTreeSet::new()),
            Self::Classic(g) if g.protocol_type() == Some(CONSUMER) => {
                let protocol = g.protocol()?;
                let mut topics = BTreeSet::new();
                for m in g.members().values() {
                    topics.extend(Subscription::decode(m.metadata(protocol)).ok()?.topics);
                }
                Some(topics)
            }
            Self::Classic(_) => None,
        }
    }
}

/// What every step of a group needs besides the group.
pub struct Cx<'a> {
    pub now: Instant,
    pub wall_ms: i64,
    pub group: &'a str,
    pub config: &'a GroupConfig,
    pub topics: &'a dyn Topics,
    pub timers: &'a mut Timers,
    pub actions: &'a mut Vec<Action>,
}

impl Cx<'_> {
    pub fn reply(&mut self, id: RequestId, reply: Reply) {
        self.actions.push(Action::Reply { id, reply });
    }

    pub fn persist(&mut self, record: GroupRecord) {
        self.actions.push(Action::Persist(record));
    }

    pub fn set_timer(&mut self, timer: Timer, after: Duration) {
        self.timers.set(self.group, timer, self.now + after);
    }

    pub fn cancel_timer(&mut self, timer: &Timer) {
        self.timers.cancel(self.group, timer);
    }
}

/// Both clocks of the node: deadlines run on the monotonic one, records carry the wall clock's.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub instant: Instant,
    pub wall_ms: i64,
}

#[derive(Debug)]
pub struct Machine {
    config: GroupConfig,
    groups: BTreeMap<String, Group>,
    timers: Timers,
}

impl Machine {
    pub fn new(config: GroupConfig) -> Self {
        Self { config, groups: BTreeMap::new(), timers: Timers::default() }
    }

    /// What members of groups with assignments of the coordinator's own have now: group, member, part.
    pub fn assigned(&self) -> impl Iterator<Item = (String, String, consumer::Current)> + '_ {
        self.groups.iter().flat_map(|(name, group)| {
            let members = match group {
                Group::Consumer(group) => Some(group.members()),
                Group::Classic(_) => None,
            };
            members.into_iter().flatten().map(move |(id, member)| (name.clone(), id.clone(), member.current.clone()))
        })
    }

    /// A record of the log, in its order, before anything else is handled.
    pub fn replay(&mut self, record: GroupRecord) {
        match record {
            GroupRecord::Classic { group, value: Some(stored) } => {
                self.groups.insert(group, Group::Classic(classic::Group::load(stored)));
            }
            GroupRecord::Classic { group, value: None } => {
                if matches!(self.groups.get(&group), Some(Group::Classic(_))) {
                    self.groups.remove(&group);
                }
            }
            record => {
                let group = record.group().to_owned();
                let Some(Group::Consumer(g)) = self.groups.get_mut(&group) else {
                    if !record.is_tombstone() {
                        let mut g = consumer::Group::default();
                        g.replay(record);
                        self.groups.insert(group, Group::Consumer(g));
                    }
                    return;
                };
                if g.replay(record) {
                    self.groups.remove(&group);
                }
            }
        }
    }

    /// All records are replayed: members have their whole session time-out to be heard.
    pub fn loaded(&mut self, now: Now, topics: &dyn Topics) {
        let names: Vec<_> = self.groups.keys().cloned().collect();
        for name in names {
            self.with(now, topics, &name, |group, cx| match group {
                Group::Classic(g) => g.loaded(cx),
                Group::Consumer(g) => g.loaded(cx),
            });
        }
    }

    /// `fresh` is an id that nobody has, for a member that needs one.
    pub fn handle(
        &mut self,
        now: Now,
        topics: &dyn Topics,
        group: &str,
        id: RequestId,
        request: Request,
        fresh: Uuid,
    ) -> Vec<Action> {
        if let Some(reply) = self.refuse(group, &request) {
            return vec![Action::Reply { id, reply }];
        }
        let mut actions = self.prepare(group, &request);
        let more = self.with(now, topics, group, |group, cx| match (group, request) {
            (Group::Classic(g), Request::Join(r)) => g.join(cx, id, r, fresh),
            (Group::Classic(g), Request::Sync(r)) => g.sync(cx, id, r),
            (Group::Classic(g), Request::Heartbeat(who)) => g.heartbeat(cx, id, &who),
            (Group::Classic(g), Request::Leave(leaving)) => g.leave(cx, id, &leaving),
            (Group::Consumer(g), Request::ConsumerHeartbeat(r)) => g.heartbeat(cx, id, r, fresh),
            (Group::Classic(g), Request::Delete) => {
                let reply = g.delete(cx);
                cx.reply(id, Reply::Deleted(reply));
            }
            (Group::Consumer(g), Request::Delete) => {
                let reply = g.delete(cx);
                cx.reply(id, Reply::Deleted(reply));
            }
            (_, request) => {
                if let Some(reply) = unknown(&request) {
                    cx.reply(id, reply);
                }
            }
        });
        actions.extend(more);
        self.forget(group);
        actions
    }

    /// Deadlines that passed.
    pub fn tick(&mut self, now: Now, topics: &dyn Topics) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some((group, timer)) = self.timers.take_due(now.instant) {
            actions.extend(self.with(now, topics, &group, |g, cx| match g {
                Group::Classic(g) => g.expired(cx, &timer),
                Group::Consumer(g) => g.expired(cx, &timer),
            }));
            self.forget(&group);
        }
        actions
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether these offsets may be committed now. A commit of a member counts as a sign of life.
    pub fn check_commit<'a>(
        &mut self,
        now: Now,
        topics: &dyn Topics,
        group: &str,
        who: Committer<'_>,
        places: impl Iterator<Item = &'a Place>,
    ) -> Result<(), ErrorCode> {
        let mut result = if who.generation < 0 { Ok(()) } else { Err(ErrorCode::ILLEGAL_GENERATION) };
        self.with(now, topics, group, |group, cx| {
            result = match group {
                Group::Classic(g) => g.check_commit(cx, who),
                Group::Consumer(g) => g.check_commit(topics, who, places),
            };
        });
        result
    }

    /// Whether the one who fetches offsets, if it says who it is, is current.
    pub fn check_fetch(&self, group: &str, member_id: &str, epoch: i32) -> Result<(), ErrorCode> {
        if member_id.is_empty() && epoch < 0 {
            return Ok(());
        }
        match self.groups.get(group) {
            Some(Group::Consumer(g)) => g.check_epoch(member_id, epoch, ErrorCode::STALE_MEMBER_EPOCH),
            Some(Group::Classic(_)) => Ok(()),
            None => Err(ErrorCode::GROUP_ID_NOT_FOUND),
        }
    }

    pub fn group(&self, group: &str) -> Option<&Group> {
        self.groups.get(group)
    }

    pub fn groups(&self) -> impl Iterator<Item = (&String, &Group)> {
        self.groups.iter()
    }

    /// What is answered without a look at the group.
    fn refuse(&self, group: &str, request: &Request) -> Option<Reply> {
        let existing = self.groups.get(group);
        match request {
            Request::Join(r) => {
                let error = if r.session_timeout_ms < self.config.min_session_timeout_ms
                    || r.session_timeout_ms > self.config.max_session_timeout_ms
                {
                    ErrorCode::INVALID_SESSION_TIMEOUT
                } else if existing.is_none() && !r.member_id.is_empty() {
                    ErrorCode::UNKNOWN_MEMBER_ID
                } else if matches!(existing, Some(Group::Consumer(g)) if !g.is_empty()) {
                    ErrorCode::INCONSISTENT_GROUP_PROTOCOL
                } else {
                    return None;
                };
                Some(Reply::Joined(classic::Joined::error(error, &r.member_id)))
            }
            Request::ConsumerHeartbeat(r) => {
                let known = match existing {
                    None => r.epoch == 0,
                    Some(Group::Classic(g)) => r.epoch == 0 && g.is_empty(),
                    Some(Group::Consumer(_)) => true,
                };
                (!known).then(|| Reply::Beat(consumer::Beat::error(ErrorCode::GROUP_ID_NOT_FOUND, &r.member_id)))
            }
            other if existing.is_none() => unknown(other),
            _ => None,
        }
    }

    /// Makes the group if the request may, and turns an empty group into one of the other protocol. The generation or
    /// epoch goes on from where it was.
    fn prepare(&mut self, name: &str, request: &Request) -> Vec<Action> {
        let mut actions = Vec::new();
        let group = match (request, self.groups.get(name)) {
            (Request::Join(_), None) => Group::Classic(classic::Group::new(0)),
            (Request::Join(_), Some(Group::Consumer(g))) => {
                actions.extend(g.tombstones(name).into_iter().map(Action::Persist));
                Group::Classic(classic::Group::new(g.epoch()))
            }
            (Request::ConsumerHeartbeat(_), None) => Group::Consumer(consumer::Group::default()),
            (Request::ConsumerHeartbeat(_), Some(Group::Classic(g))) => {
                let record = GroupRecord::Classic { group: name.to_owned(), value: None };
                actions.push(Action::Persist(record));
                Group::Consumer(consumer::Group::new(g.generation()))
            }
            _ => return actions,
        };
        self.groups.insert(name.to_owned(), group);
        actions
    }

    /// A group that no record tells of and nobody is in.
    fn forget(&mut self, name: &str) {
        let void = match self.groups.get(name) {
            Some(Group::Classic(g)) => g.is_void(),
            Some(Group::Consumer(g)) => g.is_void(),
            None => false,
        };
        if void {
            self.groups.remove(name);
        }
    }

    fn with(
        &mut self,
        now: Now,
        topics: &dyn Topics,
        name: &str,
        f: impl FnOnce(&mut Group, &mut Cx<'_>),
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(group) = self.groups.get_mut(name) {
            let mut cx = Cx {
                now: now.instant,
                wall_ms: now.wall_ms,
                group: name,
                config: &self.config,
                topics,
                timers: &mut self.timers,
                actions: &mut actions,
            };
            f(group, &mut cx);
        }
        actions
    }
}

/// The answer of a group that does not exist, or of one of another kind.
fn unknown(request: &Request) -> Option<Reply> {
    Some(match request {
        Request::Sync(_) => Reply::Synced(classic::Synced::error(ErrorCode::UNKNOWN_MEMBER_ID)),
        Request::Heartbeat(_) => Reply::Heartbeat(ErrorCode::UNKNOWN_MEMBER_ID),
        Request::Leave(leaving) => Reply::Left(vec![ErrorCode::UNKNOWN_MEMBER_ID; leaving.len()]),
        Request::Delete => Reply::Deleted(ErrorCode::GROUP_ID_NOT_FOUND),
        Request::Join(r) => Reply::Joined(classic::Joined::error(ErrorCode::INCONSISTENT_GROUP_PROTOCOL, &r.member_id)),
        Request::ConsumerHeartbeat(r) => {
            Reply::Beat(consumer::Beat::error(ErrorCode::GROUP_ID_NOT_FOUND, &r.member_id))
        }
    })
}
