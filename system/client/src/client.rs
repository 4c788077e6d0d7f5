//! The client: a pool of connections, a picture of the cluster, and the loop that retries calls.
//!
//! A broker handles the requests of one connection in order, and a long-poll fetch takes its time: so each producer
//! and each consumer has connections of its own ([`Lane`]), and admin and metadata calls share one per broker.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use env::clock::{self, Instant};
use env::node::{When, crash_point};
use env::sync::Mutex;
use protocol::messages::metadata_request::MetadataRequestTopic;
use protocol::messages::{FindCoordinatorRequest, MetadataRequest};
use protocol::{ApiKey, ErrorCode, RequestBody, ResponseBody, str_bytes, topic_name};

use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::connection::Connection;
use crate::error::{CallError, ClientError, Outcome};
use crate::metadata::Metadata;

/// A handle to a Kafka cluster. Clones share connections and metadata.
#[derive(Clone)]
pub struct Client(Rc<Inner>);

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lane {
    Shared,
    Own(u32),
}

/// The lanes given out so far, and those still in use.
#[derive(Default)]
struct Lanes {
    last: u32,
    open: BTreeSet<u32>,
}

/// The broker a connection goes to: one from the bootstrap list, or one that metadata names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Peer {
    host: String,
    port: u16,
    lane: Lane,
}

type Slot = Rc<Mutex<Option<Rc<Connection>>>>;

struct Inner {
    config: ClientConfig,
    slots: RefCell<BTreeMap<Peer, Slot>>,
    metadata: RefCell<Rc<Metadata>>,
    /// Every topic that was ever asked for; a refresh asks for all.
    topics: RefCell<BTreeSet<String>>,
    /// Counts refreshes, so that those who wait behind one need not repeat it.
    refreshes: RefCell<u64>,
    refreshing: Mutex<()>,
    coordinators: RefCell<BTreeMap<(CoordinatorType, String), i32>>,
    lanes: RefCell<Lanes>,
    rng: RefCell<Chance>,
    /// The broker that last took a connection to any.
    last_good: RefCell<Option<(String, u16)>>,
}

/// A source of jitter.
struct Chance(Box<dyn FnMut() -> u32>);

/// What a coordinator coordinates: FindCoordinator's `key_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CoordinatorType {
    Group = 0,
    Transaction = 1,
}

/// Why an attempt at a call did not succeed.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub outcome: Outcome,
    pub code: Option<ErrorCode>,
    pub reason: Cow<'static, str>,
}

impl From<ErrorCode> for Cause {
    fn from(code: ErrorCode) -> Self {
        Self { outcome: code.certainty().into(), code: Some(code), reason: code.to_string().into() }
    }
}

impl From<CallError> for Cause {
    fn from(e: CallError) -> Self {
        Self { outcome: e.outcome(), code: None, reason: e.to_string().into() }
    }
}

/// How an attempt at a call ended.
pub(crate) enum Attempt<T> {
    Done(T),
    /// Try again after a wait, if there is time.
    Again(Cause),
    /// Trying again is of no use.
    Fail(Cause),
}

impl<T> Attempt<T> {
    /// A refused call: again if the code says that this may help.
    pub fn refused(code: ErrorCode) -> Self {
        if code.retriable() { Self::Again(code.into()) } else { Self::Fail(code.into()) }
    }

    /// A call without a response: again, unless the broker cannot do it at all.
    pub fn lost(e: CallError) -> Self {
        match e {
            CallError::Unsupported(_) => Self::Fail(e.into()),
            _ => Self::Again(e.into()),
        }
    }

    pub fn unexpected() -> Self {
        Self::Fail(Cause { outcome: Outcome::Unknown, code: None, reason: "answer to another request".into() })
    }
}

impl Client {
    /// Connects to nobody yet.
    pub fn new(config: ClientConfig) -> Self {
        let mut rng = env::rng::stream("client");
        Self(Rc::new(Inner {
            config,
            slots: RefCell::default(),
            metadata: RefCell::default(),
            topics: RefCell::default(),
            refreshes: RefCell::default(),
            refreshing: Mutex::new(()),
            coordinators: RefCell::default(),
            lanes: RefCell::default(),
            rng: RefCell::new(Chance(Box::new(move || rng.u64() as u32))),
            last_good: RefCell::default(),
        }))
    }

    pub fn config(&self) -> &ClientConfig {
        &self.0.config
    }

    /// The last snapshot of the cluster.
    pub fn metadata(&self) -> Rc<Metadata> {
        Rc::clone(&self.0.metadata.borrow())
    }

    pub(crate) fn new_lane(&self) -> Lane {
        let mut lanes = self.0.lanes.borrow_mut();
        lanes.last += 1;
        let lane = lanes.last;
        lanes.open.insert(lane);
        Lane::Own(lane)
    }

    /// Closes the connections of a lane; none is opened for it any more.
    pub(crate) fn close_lane(&self, lane: Lane) {
        if let Lane::Own(n) = lane {
            self.0.lanes.borrow_mut().open.remove(&n);
        }
        self.0.slots.borrow_mut().retain(|peer, _| peer.lane != lane);
    }

    pub(crate) fn backoff(&self, attempt: u32) -> Duration {
        let backoff = Backoff { initial: self.0.config.retry_backoff, max: self.0.config.retry_backoff_max };
        let chance = (self.0.rng.borrow_mut().0)();
        backoff.jittered(attempt, chance)
    }

    /// A connection to a broker by its id, opened if need be.
    pub(crate) async fn connect(&self, node: i32, lane: Lane) -> Result<Rc<Connection>, CallError> {
        let known = self.metadata().nodes.get(&node).cloned();
        let Some(known) = known else { return Err(CallError::NotSent(format!("broker {node} is not known").into())) };
        self.connect_to(Peer { host: known.host, port: known.port, lane }).await
    }

    async fn connect_to(&self, peer: Peer) -> Result<Rc<Connection>, CallError> {
        if let Lane::Own(n) = peer.lane
            && !self.0.lanes.borrow().open.contains(&n)
        {
            return Err(CallError::NotSent("its owner is gone".into()));
        }
        let slot = Rc::clone(self.0.slots.borrow_mut().entry(peer.clone()).or_default());
        let mut slot = slot.lock().await;
        if let Some(connection) = &*slot
            && !connection.is_closed()
        {
            return Ok(Rc::clone(connection));
        }
        *slot = None;
        let found = env::net::lookup(&peer.host, peer.port).await;
        let addrs = found.map_err(|e| CallError::NotSent(format!("failed to resolve {}: {e}", peer.host).into()))?;
        let connection = Rc::new(Connection::open(&addrs, &self.0.config).await?);
        *slot = Some(Rc::clone(&connection));
        Ok(connection)
    }

    /// A connection to any broker: the one that last took one, those that metadata names, then the bootstrap list.
    pub(crate) async fn connect_any(&self) -> Result<Rc<Connection>, CallError> {
        let last_good = self.0.last_good.borrow().clone();
        let mut peers: Vec<(String, u16)> = last_good.into_iter().collect();
        for node in self.metadata().nodes.values() {
            let peer = (node.host.clone(), node.port);
            if !peers.contains(&peer) {
                peers.push(peer);
            }
        }
        for peer in &self.0.config.bootstrap {
            if !peers.contains(peer) {
                peers.push(peer.clone());
            }
        }
        let mut last = CallError::NotSent("no bootstrap broker is configured".into());
        for (host, port) in peers {
            match self.connect_to(Peer { host: host.clone(), port, lane: Lane::Shared }).await {
                Ok(connection) => {
                    *self.0.last_good.borrow_mut() = Some((host, port));
                    return Ok(connection);
                }
                Err(e) => last = e,
            }
        }
        // A broker that is down must not be waited for again and again.
        *self.0.last_good.borrow_mut() = None;
        Err(last)
    }

    /// Sends one request on a connection and waits for its response, with a crash point around it.
    pub(crate) async fn call(
        &self,
        connection: &Connection,
        role: &'static str,
        label: &'static str,
        version: i16,
        body: &RequestBody,
    ) -> Result<ResponseBody, CallError> {
        self.call_within(connection, role, label, version, body, self.0.config.request_timeout).await
    }

    /// The same with another time-out, for calls that the broker answers late.
    pub(crate) async fn call_within(
        &self,
        connection: &Connection,
        role: &'static str,
        label: &'static str,
        version: i16,
        body: &RequestBody,
        timeout: Duration,
    ) -> Result<ResponseBody, CallError> {
        crash_point(role, label, None, When::Before).await;
        let result = match connection.submit(version, body, timeout) {
            Ok(reply) => reply.wait().await,
            Err(e) => Err(e),
        };
        crash_point(role, label, None, When::After).await;
        result
    }

    /// Repeats `attempt` with backoff until it is done, fails, or `deadline` has passed. Once an attempt's outcome was
    /// unknown, the error's is.
    pub(crate) async fn retry<T>(
        &self,
        what: &'static str,
        deadline: Instant,
        mut attempt: impl AsyncFnMut() -> Attempt<T>,
    ) -> Result<T, ClientError> {
        let mut outcome = Outcome::Failed;
        for n in 0.. {
            let (cause, again) = match attempt().await {
                Attempt::Done(value) => return Ok(value),
                Attempt::Again(cause) => (cause, true),
                Attempt::Fail(cause) => (cause, false),
            };
            outcome = outcome.and(cause.outcome);
            env::sometimes!(outcome == Outcome::Unknown && again, "client repeats a call whose outcome is unknown");
            let wait = self.backoff(n);
            if !again || clock::now() + wait >= deadline {
                return Err(ClientError { what, outcome, code: cause.code, reason: cause.reason });
            }
            tracing::debug!(what, attempt = n, reason = %cause.reason, "retrying");
            env::time::sleep(wait).await;
        }
        unreachable!("attempts are not counted out")
    }

    pub(crate) fn api_deadline(&self) -> Instant {
        clock::now() + self.0.config.api_timeout
    }

    /// Adds topics to those that refreshes ask for.
    pub(crate) fn want_topics<'a>(&self, topics: impl IntoIterator<Item = &'a str>) {
        let mut wanted = self.0.topics.borrow_mut();
        for topic in topics {
            if !wanted.contains(topic) {
                wanted.insert(topic.to_owned());
            }
        }
    }

    /// Asks for the metadata of all wanted topics once. Callers that arrive while another one asks share its answer,
    /// if it was asked after they came.
    pub(crate) async fn refresh(&self) -> Result<Rc<Metadata>, Cause> {
        let seen = *self.0.refreshes.borrow();
        let _turn = self.0.refreshing.lock().await;
        // The one under way when we came may have asked too early; one that began since has not.
        if *self.0.refreshes.borrow() > seen + 1 {
            return Ok(self.metadata());
        }
        let connection = self.connect_any().await?;
        let version = connection.version_up_to(ApiKey::Metadata, 12)?;
        let wanted = self.0.topics.borrow().clone();
        let topics = wanted.into_iter().map(|t| MetadataRequestTopic::default().with_name(Some(topic_name(t))));
        let body = MetadataRequest::default()
            .with_topics(Some(topics.collect()))
            .with_allow_auto_topic_creation(version < 4 || self.0.config.allow_auto_topic_creation);
        let answer = match self.call(&connection, "client", "metadata", version, &body.into()).await? {
            ResponseBody::Metadata(answer) => answer,
            _ => return Err(CallError::Lost("answer to another request".into()).into()),
        };
        let mut metadata = (*self.metadata()).clone();
        metadata.update(&answer);
        *self.0.metadata.borrow_mut() = Rc::new(metadata);
        *self.0.refreshes.borrow_mut() += 1;
        Ok(self.metadata())
    }

    /// The coordinator of a group or a transactional id, as far as is known; asks if it is not.
    pub(crate) async fn coordinator(&self, kind: CoordinatorType, key: &str) -> Result<i32, Cause> {
        if let Some(node) = self.0.coordinators.borrow().get(&(kind, key.to_owned())) {
            return Ok(*node);
        }
        let connection = self.connect_any().await?;
        let version = connection.version_up_to(ApiKey::FindCoordinator, 6)?;
        if version < 1 && kind != CoordinatorType::Group {
            return Err(CallError::Unsupported(ApiKey::FindCoordinator).into());
        }
        let mut body = FindCoordinatorRequest::default().with_key_type(kind as i8);
        if version >= 4 {
            body.coordinator_keys = vec![str_bytes(key)];
        } else {
            body.key = str_bytes(key);
        }
        let answer = match self.call(&connection, "client", "find_coordinator", version, &body.into()).await? {
            ResponseBody::FindCoordinator(answer) => answer,
            _ => return Err(CallError::Lost("answer to another request".into()).into()),
        };
        let (code, node, host, port) = match answer.coordinators.first() {
            Some(c) if version >= 4 => (c.error_code, c.node_id.0, c.host.to_string(), c.port),
            _ if version >= 4 => (ErrorCode::COORDINATOR_NOT_AVAILABLE.code(), -1, String::new(), 0),
            _ => (answer.error_code, answer.node_id.0, answer.host.to_string(), answer.port),
        };
        // Nothing was changed by asking, whatever the code.
        ErrorCode::from_code(code).ok().map_err(|code| Cause { outcome: Outcome::Failed, ..Cause::from(code) })?;
        if let Ok(port) = u16::try_from(port) {
            let mut metadata = (*self.metadata()).clone();
            metadata.nodes.insert(node, crate::metadata::Node { host, port });
            *self.0.metadata.borrow_mut() = Rc::new(metadata);
        }
        self.0.coordinators.borrow_mut().insert((kind, key.to_owned()), node);
        Ok(node)
    }

    pub(crate) fn forget_coordinator(&self, kind: CoordinatorType, key: &str) {
        self.0.coordinators.borrow_mut().remove(&(kind, key.to_owned()));
    }

    /// One attempt at a call to a coordinator. `build` makes the request for the version that the broker speaks;
    /// `code` finds the error code in the answer that decides whether to go on.
    #[expect(clippy::too_many_arguments, reason = "each call to a coordinator differs in just these")]
    pub(crate) async fn call_coordinator(
        &self,
        (kind, key): (CoordinatorType, &str),
        lane: Lane,
        role: &'static str,
        label: &'static str,
        api_key: ApiKey,
        max_version: i16,
        build: impl FnOnce(i16) -> RequestBody,
        code: impl FnOnce(&ResponseBody) -> Option<ErrorCode>,
    ) -> Attempt<ResponseBody> {
        let not_sent = |mut cause: Cause| {
            // Finding and reaching the coordinator changes nothing there.
            cause.outcome = Outcome::Failed;
            match cause.code {
                Some(code) if !code.retriable() => Attempt::Fail(cause),
                _ => Attempt::Again(cause),
            }
        };
        let node = match self.coordinator(kind, key).await {
            Ok(node) => node,
            Err(cause) => return not_sent(cause),
        };
        let connection = match self.connect(node, lane).await {
            Ok(connection) => connection,
            Err(e) => {
                self.forget_coordinator(kind, key);
                return not_sent(e.into());
            }
        };
        let version = match connection.version_up_to(api_key, max_version) {
            Ok(version) => version,
            Err(e) => return Attempt::Fail(e.into()),
        };
        let body = match self.call(&connection, role, label, version, &build(version)).await {
            Ok(body) => body,
            Err(e) => {
                self.forget_coordinator(kind, key);
                return Attempt::lost(e);
            }
        };
        match code(&body) {
            None => Attempt::unexpected(),
            Some(code) if code.is_ok() => Attempt::Done(body),
            Some(code) => {
                if matches!(code, ErrorCode::NOT_COORDINATOR | ErrorCode::COORDINATOR_NOT_AVAILABLE) {
                    self.forget_coordinator(kind, key);
                }
                Attempt::refused(code)
            }
        }
    }
}
