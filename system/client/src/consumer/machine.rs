//! Which partitions to fetch from whom, and what becomes of the answers. Pure.
//!
//! At most one request is in flight per broker. A partition's answer counts only if the partition was not sought,
//! paused or assigned anew since (its generation); else it is dropped and the offsets are fetched again.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use env::clock::Instant;
use protocol::batch::Limits;
use protocol::{ErrorCode, Uuid};

use super::records::{Aborted, read};
use super::{FetchError, FetchResult, Isolation, OutOfRange};
use crate::backoff::Backoff;
use crate::error::CallError;
use crate::metadata::{Leader, Metadata, TopicPartition};
use crate::probe::ClientProbe;

/// How long a follower is read from before the leader is asked again.
const PREFERRED_FOR: Duration = Duration::from_secs(5 * 60);

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub isolation: Isolation,
    pub out_of_range: OutOfRange,
    pub max_wait: Duration,
    pub backoff: Backoff,
    pub limits: Limits,
}

/// One partition in a Fetch request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub tp: TopicPartition,
    pub position: i64,
    pub leader_epoch: i32,
    /// The broker it is fetched from.
    node: i32,
    generation: u64,
}

#[cfg(test)]
impl Wanted {
    pub fn of(tp: TopicPartition, position: i64) -> Self {
        Self { tp, position, leader_epoch: 0, node: 0, generation: 0 }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    RefreshMetadata,
    Fetch {
        node: i32,
        partitions: Vec<Wanted>,
    },
    /// Look up where to go on; the answer is [`Machine::reset`].
    FindOffset {
        tp: TopicPartition,
        generation: u64,
        earliest: bool,
    },
    /// Ask the new leader where the epoch that was last read ends in its log (KIP-320); the answer is
    /// [`Machine::validated`].
    Validate {
        tp: TopicPartition,
        generation: u64,
        leader: Leader,
        last_epoch: i32,
    },
}

/// Where an epoch ends in the leader's log: that epoch or the largest below it, and its end; -1 if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EpochEnd {
    pub epoch: i32,
    pub end: i64,
}

/// How the broker answered for one partition.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub code: ErrorCode,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    pub aborted: Vec<Aborted>,
    pub records: Bytes,
    /// The replica that the leader sends this consumer to (KIP-392).
    pub preferred: Option<i32>,
}

#[derive(Debug)]
struct Partition {
    position: i64,
    generation: u64,
    paused: bool,
    /// It cannot go on by itself: sought or assigned anew, it can.
    stopped: bool,
    finding_offset: bool,
    in_flight: bool,
    /// The leader epoch of what was last read; -1 if nothing was.
    last_epoch: i32,
    /// The leader epoch in which the position is known to be in the leader's log.
    validated_epoch: i32,
    /// Another replica to read from, and until when.
    preferred: Option<(i32, Instant)>,
    /// Of the topic that is being read; another id under the same name is another topic.
    topic_id: Option<Uuid>,
    failures: u32,
    retry_at: Instant,
}

#[derive(Debug, Default)]
struct NodeState {
    busy: bool,
    failures: u32,
    retry_at: Instant,
}

#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    partitions: BTreeMap<TopicPartition, Partition>,
    nodes: BTreeMap<i32, NodeState>,
    metadata: Rc<Metadata>,
    generation: u64,
    wants_metadata: bool,
    asking_metadata: bool,
    metadata_failures: u32,
    metadata_retry_at: Instant,
    results: Vec<FetchResult>,
}

impl Machine {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            partitions: BTreeMap::new(),
            nodes: BTreeMap::new(),
            metadata: Rc::default(),
            generation: 0,
            wants_metadata: false,
            asking_metadata: false,
            metadata_failures: 0,
            metadata_retry_at: Instant::default(),
            results: Vec::new(),
        }
    }

    // ---- the application's side

    pub fn assign(&mut self, partitions: Vec<(TopicPartition, i64)>) {
        self.partitions.clear();
        self.results.clear();
        for (tp, position) in partitions {
            self.assign_more(tp, position, -1);
        }
    }

    /// Adds a partition, or begins with it anew. `last_epoch`: the leader epoch of what was read before the position.
    pub fn assign_more(&mut self, tp: TopicPartition, position: i64, last_epoch: i32) {
        self.generation += 1;
        self.results.retain(|r| r.partition != tp);
        let partition = Partition {
            position,
            generation: self.generation,
            paused: false,
            stopped: false,
            finding_offset: false,
            in_flight: false,
            last_epoch,
            validated_epoch: -1,
            preferred: None,
            topic_id: None,
            failures: 0,
            retry_at: Instant::default(),
        };
        self.partitions.insert(tp, partition);
    }

    pub fn unassign(&mut self, tp: &TopicPartition) {
        self.partitions.remove(tp);
        self.results.retain(|r| r.partition != *tp);
    }

    /// False if the partition is not assigned.
    pub fn seek(&mut self, tp: &TopicPartition, position: i64) -> bool {
        self.generation += 1;
        let Some(p) = self.partitions.get_mut(tp) else { return false };
        p.position = position;
        p.generation = self.generation;
        (p.stopped, p.finding_offset, p.in_flight) = (false, false, false);
        (p.last_epoch, p.validated_epoch) = (-1, -1);
        p.topic_id = None;
        self.results.retain(|r| r.partition != *tp);
        true
    }

    pub fn set_paused(&mut self, tp: &TopicPartition, paused: bool) -> bool {
        let Some(p) = self.partitions.get_mut(tp) else { return false };
        p.paused = paused;
        true
    }

    pub fn positions(&self) -> BTreeMap<TopicPartition, i64> {
        self.partitions.iter().map(|(tp, p)| (tp.clone(), p.position)).collect()
    }

    pub fn take_results(&mut self) -> Vec<FetchResult> {
        std::mem::take(&mut self.results)
    }

    // ---- the world's side

    pub fn set_metadata(&mut self, metadata: Rc<Metadata>) {
        self.metadata = metadata;
    }

    /// A refresh ended. One that left a partition without a leader counts as failed: the next waits longer.
    pub fn metadata_refreshed(&mut self, now: Instant, ok: bool) {
        self.asking_metadata = false;
        self.wants_metadata = false;
        let ok = ok && self.partitions.iter().all(|(tp, p)| leader_of(&self.metadata, tp, p).is_some());
        self.metadata_failures = if ok { 0 } else { self.metadata_failures.saturating_add(1) };
        self.metadata_retry_at = now + self.settings.backoff.base(self.metadata_failures);
    }

    /// A request ended.
    pub fn fetched(
        &mut self,
        now: Instant,
        sent_at: Instant,
        node: i32,
        wanted: Vec<Wanted>,
        result: Result<BTreeMap<TopicPartition, Answer>, CallError>,
    ) {
        let backoff = self.settings.backoff;
        let state = self.nodes.entry(node).or_default();
        state.busy = false;
        match &result {
            Ok(answers) => {
                state.failures = 0;
                // A broker that answers an empty long poll at once must not be asked in a tight loop.
                let nothing = answers.values().all(|a| a.code.is_ok() && a.records.is_empty());
                if nothing && now.saturating_since(sent_at) < self.settings.max_wait / 2 {
                    state.retry_at = now + backoff.initial;
                }
            }
            Err(_) => {
                state.retry_at = now + backoff.base(state.failures);
                state.failures = state.failures.saturating_add(1);
                self.wants_metadata = true;
            }
        }
        for wanted in wanted {
            let answer = match &result {
                Ok(answers) => answers.get(&wanted.tp).cloned().ok_or_else(|| FetchError {
                    code: None,
                    reason: "partition not answered".into(),
                    stopped: false,
                }),
                Err(e) => Err(FetchError { code: None, reason: e.to_string().into(), stopped: false }),
            };
            self.answered(now, sent_at, wanted, answer);
        }
    }

    fn answered(&mut self, now: Instant, sent_at: Instant, wanted: Wanted, answer: Result<Answer, FetchError>) {
        let Some(p) = self.partitions.get_mut(&wanted.tp).filter(|p| p.generation == wanted.generation) else { return };
        p.in_flight = false;
        if p.paused {
            return;
        }
        let mut result = FetchResult {
            partition: wanted.tp.clone(),
            records: Vec::new(),
            position: p.position,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            leader_epoch: None,
            answered_in: None,
            error: None,
            sent_at,
            received_at: now,
        };
        match answer {
            Ok(answer) if answer.code.is_ok() => {
                let asked = Leader { node: wanted.node, epoch: wanted.leader_epoch };
                let led = self.metadata.leader(&wanted.tp) == Some(asked);
                result.answered_in = led.then_some(wanted.leader_epoch).filter(|epoch| *epoch >= 0);
                let bytes = answer.records.len();
                let read =
                    read(answer.records, p.position, self.settings.isolation, answer.aborted, &self.settings.limits);
                let stuck = bytes > 0 && read.position == p.position;
                p.position = read.position;
                if let Some(epoch) = read.leader_epoch {
                    p.last_epoch = epoch;
                }
                if bytes == 0
                    && let Some(node) = answer.preferred
                    && wanted.node != node
                {
                    env::sometimes!(true, "a consumer reads from a follower");
                    p.preferred = Some((node, now + PREFERRED_FOR));
                }
                result.records = read.records;
                result.position = read.position;
                result.leader_epoch = (p.last_epoch >= 0).then_some(p.last_epoch);
                result.high_watermark = answer.high_watermark;
                result.last_stable_offset = answer.last_stable_offset;
                result.log_start_offset = answer.log_start_offset;
                result.error = match read.error {
                    Some(e) => {
                        let code = Some(ErrorCode::CORRUPT_MESSAGE);
                        Some(FetchError { code, reason: e.to_string().into(), stopped: false })
                    }
                    None if stuck => Some(FetchError {
                        code: None,
                        reason: "no whole batch fits the response".into(),
                        stopped: false,
                    }),
                    None => None,
                };
            }
            Ok(answer) => {
                result.high_watermark = answer.high_watermark;
                result.last_stable_offset = answer.last_stable_offset;
                result.log_start_offset = answer.log_start_offset;
                let code = answer.code;
                let mut stopped = false;
                if p.preferred.take().is_some() {
                    // Whatever a follower has against it, the leader decides.
                } else if code == ErrorCode::OFFSET_OUT_OF_RANGE {
                    env::sometimes!(true, "a consumer's position is out of range");
                    env::probe::probe(|| ClientProbe::OffsetOutOfRange {
                        partition: wanted.tp.clone(),
                        position: p.position,
                    });
                    stopped = self.settings.out_of_range == OutOfRange::Fail;
                    p.finding_offset = !stopped;
                } else if !code.retriable() && code != ErrorCode::UNKNOWN_SERVER_ERROR {
                    stopped = true;
                }
                p.stopped = stopped;
                self.wants_metadata = true;
                result.error = Some(FetchError { code: Some(code), reason: code.to_string().into(), stopped });
            }
            Err(e) => {
                p.preferred = None;
                result.error = Some(e);
            }
        }
        if result.error.is_some() {
            p.retry_at = now + self.settings.backoff.base(p.failures);
            p.failures = p.failures.saturating_add(1);
        } else {
            p.failures = 0;
        }
        self.results.push(result);
    }

    /// The answer to [`Action::Validate`]: `Ok(None)` if the broker cannot tell.
    pub fn validated(
        &mut self,
        now: Instant,
        tp: &TopicPartition,
        generation: u64,
        leader: Leader,
        result: Result<Option<EpochEnd>, ErrorCode>,
    ) {
        let backoff = self.settings.backoff;
        let Some(p) = self.partitions.get_mut(tp).filter(|p| p.generation == generation) else { return };
        p.in_flight = false;
        let found = match result {
            Ok(found) => found,
            Err(_) => {
                p.retry_at = now + backoff.base(p.failures);
                p.failures = p.failures.saturating_add(1);
                self.wants_metadata = true;
                return;
            }
        };
        p.failures = 0;
        p.validated_epoch = leader.epoch;
        let Some(EpochEnd { epoch, end }) = found.filter(|found| found.end < p.position) else { return };
        // Records were read that this leader never had: an unclean election, or a log that lost its tail.
        env::sometimes!(true, "a consumer finds that the log was truncated below its position");
        let position = p.position;
        env::probe::probe(|| ClientProbe::Truncated { partition: tp.clone(), position, diverges_at: end });
        let stopped = self.settings.out_of_range == OutOfRange::Fail;
        if stopped {
            p.stopped = true;
        } else if end >= 0 {
            (p.position, p.last_epoch) = (end, epoch);
        } else {
            p.finding_offset = true;
        }
        let reason = format!("the log was truncated at {end}, below the position {position}");
        self.results.push(FetchResult {
            partition: tp.clone(),
            records: Vec::new(),
            position: p.position,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            leader_epoch: None,
            answered_in: None,
            error: Some(FetchError { code: Some(ErrorCode::OFFSET_OUT_OF_RANGE), reason: reason.into(), stopped }),
            sent_at: now,
            received_at: now,
        });
    }

    /// The answer to [`Action::FindOffset`]; `None` if there was none.
    pub fn reset(&mut self, now: Instant, tp: &TopicPartition, generation: u64, offset: Option<i64>) {
        let backoff = self.settings.backoff;
        let Some(p) = self.partitions.get_mut(tp).filter(|p| p.generation == generation) else { return };
        p.in_flight = false;
        match offset {
            Some(offset) => {
                p.position = offset;
                p.finding_offset = false;
                p.failures = 0;
            }
            None => {
                p.retry_at = now + backoff.base(p.failures);
                p.failures = p.failures.saturating_add(1);
            }
        }
    }

    // ---- decisions

    pub fn poll(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut by_node: BTreeMap<i32, Vec<Wanted>> = BTreeMap::new();
        let mut recreated = BTreeSet::new();
        for (tp, p) in &mut self.partitions {
            if p.stopped || p.in_flight || p.retry_at > now {
                continue;
            }
            if p.finding_offset {
                p.in_flight = true;
                let earliest = self.settings.out_of_range == OutOfRange::Earliest;
                actions.push(Action::FindOffset { tp: tp.clone(), generation: p.generation, earliest });
                continue;
            }
            if p.paused {
                continue;
            }
            let Some(leader) = leader_of(&self.metadata, tp, p) else {
                self.wants_metadata = true;
                continue;
            };
            let id = self.metadata.topic_id(&tp.topic);
            if p.topic_id.is_some() && id.is_some() && p.topic_id != id {
                recreated.insert(tp.clone());
                continue;
            }
            p.topic_id = p.topic_id.or(id);
            if leader.epoch > p.validated_epoch {
                if p.last_epoch < 0 || p.last_epoch == leader.epoch {
                    p.validated_epoch = leader.epoch;
                } else {
                    p.in_flight = true;
                    let (generation, last_epoch) = (p.generation, p.last_epoch);
                    actions.push(Action::Validate { tp: tp.clone(), generation, leader, last_epoch });
                    continue;
                }
            }
            let preferred = p.preferred.filter(|(node, until)| *until > now && self.metadata.nodes.contains_key(node));
            let from = preferred.map_or(leader.node, |(node, _)| node);
            let node = self.nodes.entry(from).or_default();
            if node.busy || node.retry_at > now {
                continue;
            }
            by_node.entry(from).or_default().push(Wanted {
                tp: tp.clone(),
                position: p.position,
                leader_epoch: leader.epoch,
                node: from,
                generation: p.generation,
            });
        }
        for tp in recreated {
            self.stop_recreated(now, tp);
        }
        for (node, partitions) in by_node {
            self.nodes.entry(node).or_default().busy = true;
            for wanted in &partitions {
                if let Some(p) = self.partitions.get_mut(&wanted.tp) {
                    p.in_flight = true;
                }
            }
            actions.push(Action::Fetch { node, partitions });
        }
        if self.wants_metadata && !self.asking_metadata && self.metadata_retry_at <= now {
            self.asking_metadata = true;
            actions.push(Action::RefreshMetadata);
        }
        actions
    }

    fn stop_recreated(&mut self, now: Instant, tp: TopicPartition) {
        env::sometimes!(true, "a topic is recreated under a consumer");
        let Some(p) = self.partitions.get_mut(&tp) else { return };
        p.stopped = true;
        self.results.push(FetchResult {
            records: Vec::new(),
            position: p.position,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            leader_epoch: None,
            answered_in: None,
            error: Some(FetchError {
                code: Some(ErrorCode::INCONSISTENT_TOPIC_ID),
                reason: "the topic was deleted and created again".into(),
                stopped: true,
            }),
            sent_at: now,
            received_at: now,
            partition: tp,
        });
    }

    /// When to poll again though nothing happened.
    pub fn next_timeout(&self) -> Option<Instant> {
        let mut at: Option<Instant> = None;
        let mut earlier = |t: Instant| at = Some(at.map_or(t, |a: Instant| a.min(t)));
        if self.wants_metadata && !self.asking_metadata {
            earlier(self.metadata_retry_at);
        }
        for (tp, p) in &self.partitions {
            if p.stopped || p.in_flight || (p.paused && !p.finding_offset) {
                continue;
            }
            let from = |leader: Leader| p.preferred.map_or(leader.node, |(node, _)| node);
            match leader_of(&self.metadata, tp, p).map(|l| self.nodes.get(&from(l))) {
                Some(Some(node)) if node.busy && !p.finding_offset => {}
                Some(Some(node)) if !p.finding_offset => earlier(p.retry_at.max(node.retry_at)),
                Some(_) => earlier(p.retry_at),
                None if self.asking_metadata => {}
                None => earlier(p.retry_at.max(self.metadata_retry_at)),
            }
        }
        at
    }
}

/// Whom to read from. A leader of an epoch before the one that was last read is none: it was deposed, may not know it yet,
/// and would take what was read since for a tail that its log lost (KIP-320):
///   1. p0's leader 1 stands still; 2 leads from epoch 1 on, and a member of a group reads from it and commits.
///   2. p0 goes to another member, whose metadata still names 1 in epoch 0. It begins at the committed offset.
///   3. 1 comes back, and before it hears of its successor it answers that its log ends below that offset.
fn leader_of(metadata: &Metadata, tp: &TopicPartition, p: &Partition) -> Option<Leader> {
    metadata.leader(tp).filter(|leader| leader.epoch < 0 || leader.epoch >= p.last_epoch)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
