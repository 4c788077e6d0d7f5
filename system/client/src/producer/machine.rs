//! The sending side of a producer, decided without time or sockets of its own.
//!
//! For each partition there is a queue of batches and those in flight. A batch gets its sequence when it is first sent
//! and keeps it. Up to five requests are in flight on a broker; the broker remembers the last five batches of a
//! producer, so a repeated one is recognised (KIP-98, KAFKA-5494).
//!
//! **Order over retries.** Once a batch has to be sent again, those sent behind it are refused or come back too. From
//! then on the partition moves one batch at a time, lowest first, until none that was tried before is left:
//! ```text
//! 1. batches 0, 1, 2 in flight
//! 2. 0 is refused (too few replicas); 1 and 2 answer OUT_OF_ORDER_SEQUENCE, having no predecessor in the log
//! 3. the queue is 0, 1, 2, 3 (new). Only 0 may be sent: were 1 sent beside it and 0 refused again, nothing would be
//!    lost, but were 3 given out at once it could overtake 1 and 2 on a new leader
//! ```
//! **Out of order for the lowest.** If the lowest batch, sent alone, is out of order, the broker has forgotten what it
//! acknowledged, or an earlier batch was given up. The batch ends: `Failed` if no attempt of it can have been appended,
//! else `Unknown`. It is never sent again under another identity, which could append it twice. The producer then
//! lets every batch that has a sequence come to its end and asks for a new producer id; a transactional one must abort.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use env::clock::Instant;
use protocol::ErrorCode;
use protocol::batch::{Compression, Record, add_sequence};

use super::ProducerIdEpoch;
use super::batch::Batch;
use super::transaction::Transaction;
use crate::backoff::Backoff;
use crate::error::{CallError, Outcome, SendError};
use crate::metadata::{Metadata, TopicPartition};
use crate::probe::ClientProbe;

/// The part of the producer's settings that decisions depend on.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub idempotent: bool,
    pub linger: Duration,
    pub batch_bytes: usize,
    pub request_bytes: usize,
    pub max_in_flight: usize,
    pub delivery_timeout: Duration,
    pub backoff: Backoff,
    pub compression: Compression,
}

/// What the driver has to do.
#[derive(Debug)]
pub(super) enum Action<T> {
    RefreshMetadata,
    Connect {
        node: i32,
    },
    /// Only of a producer that is not transactional.
    InitProducerId,
    /// Only before KIP-890: later brokers add partitions by themselves.
    AddPartitions(BTreeSet<TopicPartition>),
    Produce {
        request: u64,
        node: i32,
        batches: Vec<(TopicPartition, Bytes)>,
    },
    /// The records of one batch: the base offset (if the broker still knows it), or why not.
    Complete {
        tokens: Vec<T>,
        result: Result<Option<i64>, SendError>,
    },
}

/// How the broker answered one partition of a Produce request.
pub(super) type Answer = Result<i64, ErrorCode>;

#[derive(Debug)]
struct Partition<T> {
    /// Not in flight, by id. Those with a sequence come first.
    queue: VecDeque<Batch<T>>,
    /// By id.
    in_flight: VecDeque<Batch<T>>,
    next_sequence: i32,
    failures: u32,
    retry_at: Instant,
}

#[derive(Debug, Default)]
struct NodeState {
    ready: bool,
    connecting: bool,
    in_flight: usize,
    failures: u32,
    retry_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    /// A producer without idempotence has none.
    None,
    Missing {
        asking: bool,
        retry_at: Instant,
    },
    Known(ProducerIdEpoch),
    /// A sequence was lost: nothing new is begun until every batch that has a sequence has ended.
    Draining(ProducerIdEpoch),
}

#[derive(Debug, Default)]
struct MetadataNeed {
    wanted: bool,
    asking: bool,
    failures: u32,
    retry_at: Instant,
}

#[derive(Debug)]
pub(super) struct Machine<T> {
    settings: Settings,
    identity: Identity,
    pub txn: Option<Transaction>,
    partitions: BTreeMap<TopicPartition, Partition<T>>,
    nodes: BTreeMap<i32, NodeState>,
    requests: BTreeMap<u64, (i32, Vec<(TopicPartition, u64)>)>,
    metadata: Rc<Metadata>,
    need: MetadataNeed,
    next_batch: u64,
    next_request: u64,
    /// Batches not completed, by id.
    outstanding: BTreeSet<u64>,
    /// Where the next request begins, so that no partition waits for ever behind others.
    cursor: Option<TopicPartition>,
    done: Vec<Action<T>>,
}

impl<T> Machine<T> {
    pub fn new(settings: Settings, txn: Option<Transaction>) -> Self {
        assert!(settings.idempotent || txn.is_none(), "a transactional producer is idempotent");
        let missing = Identity::Missing { asking: false, retry_at: Instant::default() };
        Self {
            identity: if settings.idempotent { missing } else { Identity::None },
            settings,
            txn,
            partitions: BTreeMap::new(),
            nodes: BTreeMap::new(),
            requests: BTreeMap::new(),
            metadata: Rc::default(),
            need: MetadataNeed::default(),
            next_batch: 0,
            next_request: 0,
            outstanding: BTreeSet::new(),
            cursor: None,
            done: Vec::new(),
        }
    }

    // ---- inputs

    /// Takes a record, or gives its token back with the reason.
    pub fn enqueue(
        &mut self,
        now: Instant,
        tp: &TopicPartition,
        record: &Record,
        token: T,
    ) -> Result<(), (T, SendError)> {
        if let Some(txn) = &self.txn
            && let Err(e) = txn.accepts_records()
        {
            return Err((token, e));
        }
        if !self.partitions.contains_key(tp) {
            let partition = Partition {
                queue: VecDeque::new(),
                in_flight: VecDeque::new(),
                next_sequence: 0,
                failures: 0,
                retry_at: now,
            };
            self.partitions.insert(tp.clone(), partition);
        }
        let partition = self.partitions.get_mut(tp).expect("inserted above");
        let max = self.settings.batch_bytes;
        match partition.queue.back_mut() {
            Some(last) if last.fits(record, max) => last.push(record, token),
            _ => {
                let id = self.next_batch;
                self.next_batch += 1;
                self.outstanding.insert(id);
                let mut batch = Batch::new(id, now, self.settings.compression, self.txn.is_some());
                batch.push(record, token);
                partition.queue.push_back(batch);
            }
        }
        Ok(())
    }

    /// Nothing waits for more records; [`Machine::is_flushed`] of the result says when all are done.
    pub fn flush(&mut self) -> u64 {
        for batch in self.partitions.values_mut().flat_map(|p| &mut p.queue) {
            batch.closed = true;
        }
        self.next_batch
    }

    pub fn is_flushed(&self, before: u64) -> bool {
        self.outstanding.first().is_none_or(|first| *first >= before)
    }

    pub fn is_idle(&self) -> bool {
        self.outstanding.is_empty()
    }

    pub fn set_metadata(&mut self, metadata: Rc<Metadata>) {
        self.metadata = metadata;
    }

    /// A refresh ended. One that left a partition without a leader counts as failed: the next waits longer.
    pub fn metadata_refreshed(&mut self, now: Instant, ok: bool) {
        self.need.asking = false;
        self.need.wanted = false;
        let waiting =
            |(tp, p): (&TopicPartition, &Partition<T>)| !p.queue.is_empty() && self.metadata.leader(tp).is_none();
        let ok = ok && !self.partitions.iter().any(waiting);
        self.need.failures = if ok { 0 } else { self.need.failures.saturating_add(1) };
        self.need.retry_at = now + self.settings.backoff.base(self.need.failures);
    }

    pub fn connected(&mut self, now: Instant, node: i32, ok: bool) {
        let backoff = self.settings.backoff;
        let state = self.nodes.entry(node).or_default();
        state.connecting = false;
        state.ready = ok;
        if ok {
            state.failures = 0;
        } else {
            state.retry_at = now + backoff.base(state.failures);
            state.failures = state.failures.saturating_add(1);
            self.need.wanted = true;
        }
    }

    pub fn identity(&self) -> Option<ProducerIdEpoch> {
        match self.identity {
            Identity::Known(id) | Identity::Draining(id) => Some(id),
            Identity::None | Identity::Missing { .. } => None,
        }
    }

    /// A new identity. Sequences start at 0 again if it differs from the one before.
    pub fn set_identity(&mut self, id: ProducerIdEpoch) {
        assert!(!self.has_sealed(), "a new identity while batches of the old one are unfinished");
        if self.identity() != Some(id) {
            for partition in self.partitions.values_mut() {
                partition.next_sequence = 0;
            }
        }
        self.identity = Identity::Known(id);
    }

    /// The answer to [`Action::InitProducerId`] did not come; ask again later.
    pub fn identity_failed(&mut self, now: Instant) {
        self.identity = Identity::Missing { asking: false, retry_at: now + self.settings.backoff.max };
    }

    /// Ends every batch that is not in flight, because the transaction is over.
    pub fn fail_queued(&mut self, error: &SendError) {
        for partition in self.partitions.values_mut() {
            for batch in partition.queue.drain(..) {
                self.outstanding.remove(&batch.id);
                let result = Err(batch.error(error.clone()));
                self.done.push(Action::Complete { tokens: batch.tokens, result });
            }
        }
    }

    /// A request ended: with an answer for each partition, or without a response.
    pub fn produced(
        &mut self,
        now: Instant,
        request: u64,
        result: Result<BTreeMap<TopicPartition, Answer>, CallError>,
    ) {
        let Some((node, batches)) = self.requests.remove(&request) else { return };
        let state = self.nodes.entry(node).or_default();
        state.in_flight -= 1;
        if result.is_err() {
            state.ready = false;
            self.need.wanted = true;
        }
        for (tp, id) in batches {
            let answer = match &result {
                // A broker that leaves a partition out has not said anything.
                Ok(answers) => {
                    answers.get(&tp).copied().ok_or_else(|| CallError::Lost("partition not answered".into()))
                }
                Err(e) => Err(e.clone()),
            };
            self.answered(now, &tp, id, answer);
        }
    }

    fn answered(&mut self, now: Instant, tp: &TopicPartition, id: u64, answer: Result<Answer, CallError>) {
        let partition = self.partitions.get_mut(tp).expect("a partition with a batch in flight");
        let at = partition.in_flight.iter().position(|b| b.id == id).expect("an answered batch is in flight");
        let mut batch = partition.in_flight.remove(at).expect("found above");
        let lower = partition.in_flight.front().into_iter().chain(partition.queue.front()).any(|b| b.id < id);
        match answer {
            Err(CallError::Unsupported(api)) => {
                let error = SendError::failed(format!("broker does not support {api:?} as needed"));
                self.lose(tp, batch, error);
            }
            Err(e) => {
                env::sometimes!(e.outcome() == Outcome::Unknown, "a batch's response is lost");
                batch.unknown |= e.outcome() == Outcome::Unknown;
                let error = SendError { outcome: e.outcome(), code: None, reason: e.to_string().into() };
                self.retry(now, tp, batch, None, error);
            }
            Ok(Ok(base_offset)) => {
                env::sometimes!(batch.unknown, "a batch of unknown outcome is acknowledged on retry");
                partition.failures = 0;
                self.complete(batch, (base_offset >= 0).then_some(base_offset));
            }
            // It is in the log, so far back that the broker has forgotten where.
            Ok(Err(ErrorCode::DUPLICATE_SEQUENCE_NUMBER)) => {
                partition.failures = 0;
                self.complete(batch, None);
            }
            Ok(Err(code)) => {
                let error =
                    SendError { outcome: code.certainty().into(), code: Some(code), reason: code.to_string().into() };
                let lost_place =
                    matches!(code, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::UNKNOWN_PRODUCER_ID);
                batch.unknown |= error.outcome == Outcome::Unknown;
                if lost_place && self.settings.idempotent && (lower || batch.behind) {
                    env::sometimes!(true, "a batch behind a refused one is out of order");
                    self.retry(now, tp, batch, Some(code), error);
                } else if code.retriable() {
                    self.need.wanted |= is_about_leadership(code);
                    self.retry(now, tp, batch, Some(code), error);
                } else {
                    env::sometimes!(lost_place && batch.unknown, "a batch of unknown outcome has lost its place");
                    self.lose(tp, batch, error);
                }
            }
        }
    }

    // ---- what becomes of a batch

    fn complete(&mut self, batch: Batch<T>, base_offset: Option<i64>) {
        self.outstanding.remove(&batch.id);
        self.done.push(Action::Complete { tokens: batch.tokens, result: Ok(base_offset) });
    }

    /// Sends it again, later and in its place, unless the transaction is lost anyway.
    fn retry(&mut self, now: Instant, tp: &TopicPartition, batch: Batch<T>, code: Option<ErrorCode>, error: SendError) {
        if self.txn.as_ref().is_some_and(|txn| txn.accepts_records().is_err() && !txn.is_flushing()) {
            self.outstanding.remove(&batch.id);
            let result = Err(batch.error(error));
            self.done.push(Action::Complete { tokens: batch.tokens, result });
            return;
        }
        env::probe::probe(|| ClientProbe::BatchRetried {
            partition: tp.clone(),
            base_sequence: batch.base_sequence().unwrap_or(-1),
            code,
        });
        let backoff = self.settings.backoff;
        let partition = self.partitions.get_mut(tp).expect("the batch's partition");
        if partition.retry_at <= now {
            partition.retry_at = now + backoff.base(partition.failures);
            partition.failures = partition.failures.saturating_add(1);
        }
        let at = partition.queue.iter().position(|b| b.id > batch.id).unwrap_or(partition.queue.len());
        partition.queue.insert(at, batch);
    }

    /// Gives a batch up. If it had a sequence, its place in the partition's order is lost with it.
    fn lose(&mut self, tp: &TopicPartition, batch: Batch<T>, error: SendError) {
        self.outstanding.remove(&batch.id);
        let error = batch.error(error);
        if batch.is_sealed() {
            match (&mut self.txn, self.identity) {
                (Some(txn), _) => txn.record_lost(tp, &error),
                (None, Identity::Known(id)) => {
                    env::sometimes!(true, "an idempotent producer starts over after losing a sequence");
                    self.identity = Identity::Draining(id);
                }
                (None, _) => {}
            }
        } else if let Some(txn) = &mut self.txn {
            txn.record_lost(tp, &error);
        }
        let in_lost_transaction = self.txn.is_some();
        self.done.push(Action::Complete { tokens: batch.tokens, result: Err(error.clone()) });
        if in_lost_transaction {
            self.fail_queued(&SendError::failed("the transaction must be aborted"));
        }
    }

    fn expire(&mut self, now: Instant) {
        let timeout = self.settings.delivery_timeout;
        let mut expired = Vec::new();
        for (tp, partition) in &mut self.partitions {
            while partition.queue.front().is_some_and(|b| b.created + timeout <= now) {
                expired.extend(partition.queue.pop_front().map(|b| (tp.clone(), b)));
            }
        }
        for (tp, batch) in expired {
            env::sometimes!(batch.unknown, "a batch of unknown outcome runs out of time");
            self.lose(&tp, batch, SendError::failed("delivery timed out"));
        }
    }

    // ---- decisions

    /// Everything that is to be done now.
    pub fn poll(&mut self, now: Instant) -> Vec<Action<T>> {
        self.expire(now);
        let mut actions = std::mem::take(&mut self.done);
        if matches!(self.identity, Identity::Draining(_)) && !self.has_sealed() {
            for partition in self.partitions.values_mut() {
                partition.next_sequence = 0;
            }
            self.identity = Identity::Missing { asking: false, retry_at: now };
        }
        if let Identity::Missing { asking: asking @ false, retry_at } = &mut self.identity
            && *retry_at <= now
            && self.txn.is_none()
            && !self.outstanding.is_empty()
        {
            *asking = true;
            actions.push(Action::InitProducerId);
        }
        self.add_partitions(&mut actions);
        while self.fill_requests(now, &mut actions) {}
        if self.need.wanted && !self.need.asking && self.need.retry_at <= now {
            self.need.asking = true;
            actions.push(Action::RefreshMetadata);
        }
        actions
    }

    /// When to poll again though nothing happened.
    pub fn next_timeout(&self) -> Option<Instant> {
        let mut at: Option<Instant> = None;
        let mut earlier = |t: Instant| at = Some(at.map_or(t, |a| a.min(t)));
        if self.need.wanted && !self.need.asking {
            earlier(self.need.retry_at);
        }
        if let Identity::Missing { asking: false, retry_at } = self.identity
            && self.txn.is_none()
            && !self.outstanding.is_empty()
        {
            earlier(retry_at);
        }
        for (tp, partition) in &self.partitions {
            let Some(front) = partition.queue.front() else { continue };
            earlier(front.created + self.settings.delivery_timeout);
            let ready_at =
                if self.is_closed(partition, front) { front.created } else { front.created + self.settings.linger };
            let mut at = ready_at.max(partition.retry_at);
            if let Some(node) = self.metadata.leader(tp).and_then(|l| self.nodes.get(&l.node)) {
                // A connection that comes up or a request that ends wakes the driver.
                if node.connecting || (node.ready && node.in_flight >= self.settings.max_in_flight) {
                    continue;
                }
                if !node.ready {
                    at = at.max(node.retry_at);
                }
            } else if self.need.asking {
                continue;
            } else {
                at = at.max(self.need.retry_at);
            }
            if self.may_go(tp, partition, front) {
                earlier(at);
            }
        }
        at
    }

    fn has_sealed(&self) -> bool {
        self.partitions.values().any(|p| !p.in_flight.is_empty() || p.queue.front().is_some_and(Batch::is_sealed))
    }

    fn is_closed(&self, partition: &Partition<T>, batch: &Batch<T>) -> bool {
        batch.closed || partition.queue.len() > 1 || batch.len() >= self.settings.batch_bytes
    }

    /// Nothing but time and its broker keeps the front batch from being sent.
    fn may_go(&self, tp: &TopicPartition, partition: &Partition<T>, front: &Batch<T>) -> bool {
        if front.is_sealed() {
            return partition.in_flight.front().is_none_or(|lowest| lowest.id > front.id);
        }
        let identified = matches!(self.identity, Identity::None | Identity::Known(_));
        // The bound is that of a broker's requests, too; it matters here when the leader moves.
        let in_order = partition.in_flight.len() < self.settings.max_in_flight
            && partition.in_flight.iter().all(|b| b.attempts == 1);
        let added = self.txn.as_ref().is_none_or(|txn| txn.may_produce(tp));
        identified && in_order && added
    }

    fn add_partitions(&mut self, actions: &mut Vec<Action<T>>) {
        let Some(txn) = &mut self.txn else { return };
        if !matches!(self.identity, Identity::Known(_)) {
            return;
        }
        let waiting = self.partitions.iter().filter(|(_, p)| !p.queue.is_empty()).map(|(tp, _)| tp);
        if let Some(missing) = txn.partitions_to_add(waiting) {
            actions.push(Action::AddPartitions(missing));
        }
    }

    /// One request for each broker that can take one, a batch of each partition at most. True if there was any.
    fn fill_requests(&mut self, now: Instant, actions: &mut Vec<Action<T>>) -> bool {
        let mut requests: BTreeMap<i32, (usize, Vec<TopicPartition>)> = BTreeMap::new();
        let cursor = self.cursor.take();
        let (after, before) = match &cursor {
            Some(c) => ((Bound::Excluded(c), Bound::Unbounded), Some((Bound::Unbounded, Bound::Included(c)))),
            None => ((Bound::Unbounded, Bound::Unbounded), None),
        };
        let before = before.into_iter().flat_map(|range| self.partitions.range(range));
        let mut last = None;
        for (tp, partition) in self.partitions.range(after).chain(before) {
            let Some(front) = partition.queue.front() else { continue };
            let lingers = !self.is_closed(partition, front) && front.created + self.settings.linger > now;
            if lingers || partition.retry_at > now || !self.may_go(tp, partition, front) {
                continue;
            }
            let Some(leader) = self.metadata.leader(tp) else {
                self.need.wanted = true;
                continue;
            };
            let node = self.nodes.entry(leader.node).or_default();
            if !node.ready {
                if !node.connecting && node.retry_at <= now {
                    node.connecting = true;
                    actions.push(Action::Connect { node: leader.node });
                }
                continue;
            }
            if node.in_flight >= self.settings.max_in_flight {
                continue;
            }
            let (bytes, partitions) = requests.entry(leader.node).or_default();
            if !partitions.is_empty() && *bytes + front.len() > self.settings.request_bytes {
                continue;
            }
            *bytes += front.len();
            partitions.push(tp.clone());
            last = Some(tp.clone());
        }
        self.cursor = last.or(cursor);
        let any = !requests.is_empty();
        for (node, (_, partitions)) in requests {
            actions.push(self.make_request(node, partitions));
        }
        any
    }

    fn make_request(&mut self, node: i32, partitions: Vec<TopicPartition>) -> Action<T> {
        let identity = self.identity();
        let request = self.next_request;
        self.next_request += 1;
        self.nodes.entry(node).or_default().in_flight += 1;
        let mut ids = Vec::with_capacity(partitions.len());
        let mut batches = Vec::with_capacity(partitions.len());
        for tp in partitions {
            let partition = self.partitions.get_mut(&tp).expect("a partition with a batch");
            let mut batch = partition.queue.pop_front().expect("a front batch");
            let fresh = !batch.is_sealed();
            let bytes = batch.seal(identity, partition.next_sequence);
            if fresh {
                partition.next_sequence = add_sequence(partition.next_sequence, batch.count());
            }
            batch.attempts += 1;
            batch.behind = partition.in_flight.front().is_some_and(|lowest| lowest.id < batch.id);
            ids.push((tp.clone(), batch.id));
            let at = partition.in_flight.iter().position(|b| b.id > batch.id).unwrap_or(partition.in_flight.len());
            partition.in_flight.insert(at, batch);
            if let Some(txn) = &mut self.txn {
                txn.touched();
            }
            batches.push((tp, bytes));
        }
        self.requests.insert(request, (node, ids));
        Action::Produce { request, node, batches }
    }
}

/// The partition's leader may be elsewhere by now.
fn is_about_leadership(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NOT_LEADER_OR_FOLLOWER
            | ErrorCode::LEADER_NOT_AVAILABLE
            | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            | ErrorCode::UNKNOWN_TOPIC_ID
            | ErrorCode::INCONSISTENT_TOPIC_ID
            | ErrorCode::FENCED_LEADER_EPOCH
            | ErrorCode::KAFKA_STORAGE_ERROR
            | ErrorCode::REPLICA_NOT_AVAILABLE
    )
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
