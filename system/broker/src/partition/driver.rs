//! Does what the machine decides, on the log. The only owner of the log's writing half.
//!
//! A flush runs in a task of its own and reports back as a command, so that appends go on meanwhile; so does a question
//! to the controller. Everything else is done in order, one action after another, with a crash point before and after:
//! `append`, `replicate`, `truncate`, `reset`, `roll`, `flush`, `publish`, `ack`, `isr`. What compaction and retention want
//! done is done between two inputs of the machine: `clean.swap`, `clean.remove`, `clean.rename`, `clean.checkpoint`,
//! `retain.delete`. What DeleteRecords wants done goes through the machine: `records.delete`.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use env::clock::{self, Instant};
use env::node::{When, crash_point};
use env::probe::probe;
use env::sync::{mpsc, oneshot};
use env::task::{self, AbortOnDrop};
use log::compaction::Cleaned;
use log::{Flushed, Log, LogError, Marker, MarkerVerdict, Offset, Origin, ProducerError, Verdict};
use protocol::ErrorCode;
use protocol::batch::BatchHeader;

use super::isr::{AlterPartition, IsrProposal, IsrState};
use super::leader::{Ask, Fetched, Leadership};
use super::machine::{Action, Following, Input, Machine, Outcome, Position, Settings, Start, Token, Work};
use super::probe::{PartitionEvent, PartitionProbe};
use super::{Acks, Appended, Inner, Partition, PartitionConfig, TopicPartition};
use crate::failure::{BrokerError, Failure};
use crate::metrics::{Metrics, TopicTraffic};
use crate::purgatory::Purgatory;

pub(super) const ROLE: &str = "broker";

/// How long after a batch that found no room its producer's next ones are taken to be those sent behind it.
const BEHIND: Duration = Duration::from_secs(1);
/// Producers that are remembered for that.
const MAX_WITHOUT_ROOM: usize = 1_000;

/// What comes over the channel.
#[derive(Debug)]
pub(super) enum Command {
    Lead(Leadership, oneshot::Sender<()>),
    Follow(Following, oneshot::Sender<()>),
    Append {
        work: Work,
        acks: Acks,
        reply: oneshot::Sender<Result<Appended, ErrorCode>>,
    },
    Replicate {
        leader_epoch: i32,
        records: Bytes,
        high_watermark: Offset,
        reply: oneshot::Sender<Result<Position, ErrorCode>>,
    },
    Truncate {
        leader_epoch: i32,
        diverging: (i32, Offset),
        reply: oneshot::Sender<Result<Position, ErrorCode>>,
    },
    Reset {
        leader_epoch: i32,
        offset: Offset,
        reply: oneshot::Sender<Result<Position, ErrorCode>>,
    },
    SetSegmentBytes(u32),
    DeleteRecords {
        offset: Offset,
        reply: oneshot::Sender<Result<Offset, ErrorCode>>,
    },
    StartAt {
        offset: Offset,
        reply: oneshot::Sender<Result<Offset, ErrorCode>>,
    },
    Swap {
        cleaned: Box<Cleaned>,
        reply: oneshot::Sender<Result<bool, ErrorCode>>,
    },
    CleanedTo {
        offset: Offset,
        reply: oneshot::Sender<Result<(), ErrorCode>>,
    },
    Fetched(Fetched),
    IsrAnswered {
        attempt: u64,
        result: Result<IsrState, ErrorCode>,
    },
    Tick,
    Flushed(Result<Flushed, LogError>),
    Close,
}

/// Recovers the log. `high_watermark` is the lower bound that an earlier life left, `None` if nobody but this node has a
/// copy, so that all of it counts.
pub(super) async fn open(
    id: Rc<TopicPartition>,
    dir: PathBuf,
    config: PartitionConfig,
    high_watermark: Option<Offset>,
    controller: Option<Rc<dyn AlterPartition>>,
    failure: Failure,
) -> Result<Partition, BrokerError> {
    let stable = high_watermark.unwrap_or(Offset::MAX);
    let opened = Log::open_from(&dir, config.log.clone(), stable, clock::now()).await;
    let (log, recovery) = opened.map_err(|e| BrokerError::storage(&id, e))?;
    let settings = Settings {
        node: config.node_id,
        flush: config.flush,
        max_queued_bytes: config.max_queued_bytes,
        lag_max: config.lag_max,
    };
    let machine = Machine::new(settings, start(&log, stable));
    let purgatory = Purgatory::new(machine.bounds());
    let machine = Rc::new(RefCell::new(machine));
    let (commands, inbox) = mpsc::unbounded_channel();
    let reader = log.reader();
    let traffic = config.metrics.traffic.topic(&id.topic);
    let driver = Driver {
        node: config.node_id,
        metrics: config.metrics,
        traffic: Rc::clone(&traffic),
        id: Rc::clone(&id),
        segment_bytes: config.log.segment_bytes as usize,
        log,
        machine: Rc::clone(&machine),
        inbox,
        commands: commands.clone(),
        purgatory: purgatory.clone(),
        controller,
        failure: failure.clone(),
        appends: BTreeMap::new(),
        positions: BTreeMap::new(),
        deletions: BTreeMap::new(),
        roles: VecDeque::new(),
        taken_roles: 0,
        next_token: 0,
        flush: None,
        altering: None,
        without_room: BTreeMap::new(),
    };
    driver.report(|| PartitionEvent::Opened {
        log_start: driver.log.start_offset(),
        end: recovery.end,
        cut: recovery.cut.as_ref().map_or(0, |c| c.bytes),
        first_open: driver.log.first_unstable_offset(),
        aborted: driver.log.reader().aborted_transactions(driver.log.start_offset(), Offset::MAX).len(),
    });
    let task = task::spawn(driver.run()).abort_on_drop();
    let task = Some(task).into();
    Ok(Partition(Rc::new(Inner { id, machine, commands, reader, purgatory, failure, traffic, task })))
}

/// The log as a machine starts from it.
fn start(log: &Log, high_watermark: Offset) -> Start {
    Start {
        log_start: log.start_offset(),
        end: log.end_offset(),
        high_watermark,
        open: log.producers().open_transactions().map(|(first, _)| first).collect(),
        ended: log.ended_transactions(),
        epochs: log.leader_epochs().clone(),
    }
}

struct Driver {
    id: Rc<TopicPartition>,
    node: i32,
    metrics: Metrics,
    traffic: Rc<TopicTraffic>,
    segment_bytes: usize,
    log: Log,
    /// Shared with the handles, which only look at it.
    machine: Rc<RefCell<Machine>>,
    inbox: mpsc::UnboundedReceiver<Command>,
    /// For the end of a flush, and for the controller's answers.
    commands: mpsc::UnboundedSender<Command>,
    purgatory: Purgatory,
    controller: Option<Rc<dyn AlterPartition>>,
    failure: Failure,
    appends: BTreeMap<Token, oneshot::Sender<Result<Appended, ErrorCode>>>,
    positions: BTreeMap<Token, oneshot::Sender<Result<Position, ErrorCode>>>,
    deletions: BTreeMap<Token, oneshot::Sender<Result<Offset, ErrorCode>>>,
    /// Who waits for a role to be in force, in order.
    roles: VecDeque<oneshot::Sender<()>>,
    /// How many of them the machine has been told.
    taken_roles: usize,
    next_token: Token,
    flush: Option<AbortOnDrop<()>>,
    altering: Option<AbortOnDrop<()>>,
    /// Producers whose last batch was refused by a full disk: the epoch, and when.
    without_room: BTreeMap<i64, (i16, Instant)>,
}

impl Driver {
    async fn run(mut self) {
        let mut inputs = VecDeque::new();
        let mut open = true;
        while open {
            let Some(command) = self.inbox.recv().await else { return };
            inputs.extend(self.input(command).await);
            while let Some(input) = inputs.pop_front() {
                let role = matches!(input, Input::Lead(_) | Input::Follow(_));
                let actions = self.machine.borrow_mut().handle(clock::now(), input);
                for action in actions {
                    open &= action != Action::Closed;
                    inputs.extend(self.execute(action).await);
                }
                self.taken_roles += usize::from(role);
                if self.taken_roles > 0 && !self.machine.borrow().changes_role() {
                    for done in self.roles.drain(..self.taken_roles) {
                        let _ = done.send(());
                    }
                    self.taken_roles = 0;
                }
                // All that has come meanwhile: what can be appended now shares the next flush.
                while let Ok(command) = self.inbox.try_recv() {
                    inputs.extend(self.input(command).await);
                }
            }
        }
        self.purgatory.close();
    }

    async fn input(&mut self, command: Command) -> Option<Input> {
        Some(match command {
            Command::Lead(with, done) => {
                self.roles.push_back(done);
                Input::Lead(with)
            }
            Command::Follow(with, done) => {
                self.roles.push_back(done);
                Input::Follow(with)
            }
            Command::Append { work, acks, reply } => {
                let token = self.token();
                self.appends.insert(token, reply);
                Input::Append { token, work, acks }
            }
            Command::Replicate { leader_epoch, records, high_watermark, reply } => {
                let token = self.token();
                self.positions.insert(token, reply);
                Input::Replicate { token, leader_epoch, records, high_watermark }
            }
            Command::Truncate { leader_epoch, diverging, reply } => {
                let token = self.token();
                self.positions.insert(token, reply);
                Input::Truncate { token, leader_epoch, diverging }
            }
            Command::Reset { leader_epoch, offset, reply } => {
                let token = self.token();
                self.positions.insert(token, reply);
                Input::Reset { token, leader_epoch, offset }
            }
            Command::SetSegmentBytes(segment_bytes) => {
                self.segment_bytes = segment_bytes as usize;
                self.log.set_segment_bytes(segment_bytes);
                return None;
            }
            Command::DeleteRecords { offset, reply } => {
                let token = self.token();
                self.deletions.insert(token, reply);
                Input::DeleteRecords { token, offset }
            }
            Command::StartAt { offset, reply } => {
                let (moved, input) = self.start_at("retain.delete", offset).await;
                return self.done(moved, reply).or(input);
            }
            Command::Swap { cleaned, reply } => {
                let swapped = self.swap(*cleaned).await;
                return self.done(swapped, reply);
            }
            Command::CleanedTo { offset, reply } => {
                self.crash_point("clean.checkpoint", When::Before).await;
                let stored = self.log.cleaned_to(offset).await;
                self.crash_point("clean.checkpoint", When::After).await;
                return self.done(stored, reply);
            }
            Command::Fetched(fetch) => Input::Fetched(fetch),
            Command::IsrAnswered { attempt, result } => {
                if let Ok(state) = &result {
                    let partition_epoch = state.partition_epoch;
                    self.report(|| PartitionEvent::IsrAnswered { partition_epoch, isr: state.isr.clone() });
                }
                Input::IsrAnswered { attempt, result }
            }
            Command::Tick => Input::Tick,
            Command::Flushed(result) => {
                self.flush = None;
                match self.log.flushed(result).await {
                    Ok(offset) => {
                        self.metrics.storage.flushes.inc();
                        self.report(|| PartitionEvent::Flushed { offset });
                        Input::Flushed(offset)
                    }
                    Err(error) => {
                        self.metrics.storage.failed_flushes.inc();
                        self.fatal(error);
                        Input::FlushFailed
                    }
                }
            }
            Command::Close => Input::Close,
        })
    }

    /// Lets the log begin at `offset`. Where it begins then, and what the machine is to know of it.
    async fn start_at(&mut self, label: &'static str, offset: Offset) -> (Result<Offset, LogError>, Option<Input>) {
        self.crash_point(label, When::Before).await;
        let before = self.log.start_offset();
        let moved = self.log.start_at(offset).await;
        self.crash_point(label, When::After).await;
        let start = self.log.start_offset();
        if start > before {
            let TopicPartition { topic, partition, .. } = &*self.id;
            tracing::debug!(node = self.node, topic, partition, from = before, to = start, "log start moved");
            self.report(|| PartitionEvent::StartMoved { offset: start });
        }
        (moved, (start > before).then_some(Input::StartMoved(start)))
    }

    /// Answers. The machine hears only of a log that cannot go on.
    fn done<T>(&self, result: Result<T, LogError>, reply: oneshot::Sender<Result<T, ErrorCode>>) -> Option<Input> {
        let (answer, input) = match result {
            Ok(value) => (Ok(value), None),
            Err(error) if error.is_clean() => {
                let TopicPartition { topic, partition, .. } = &*self.id;
                tracing::warn!(node = self.node, topic, partition, %error, "neither cleaned nor shortened");
                (Err(ErrorCode::NOT_ENOUGH_REPLICAS), None)
            }
            Err(error) => {
                self.fatal(error);
                (Err(ErrorCode::KAFKA_STORAGE_ERROR), Some(Input::LogFailed))
            }
        };
        let _ = reply.send(answer);
        input
    }

    async fn swap(&mut self, cleaned: Cleaned) -> Result<bool, LogError> {
        let ((base, end), (bytes_before, bytes_after)) = (cleaned.range(), cleaned.bytes());
        self.crash_point("clean.swap", When::Before).await;
        if !self.log.swap_begin(&cleaned).await? {
            return Ok(false);
        }
        // What lies past it may be truncated, and the records that were dropped for its sake would be missed (KAFKA-13194).
        let high_watermark = self.machine.borrow().high_watermark();
        assert!(end <= high_watermark, "cleaned up to {end}, past the high watermark {high_watermark}");
        self.crash_point("clean.swap", When::After).await;
        self.crash_point("clean.remove", When::Before).await;
        self.log.swap_remove(&cleaned).await?;
        self.crash_point("clean.remove", When::After).await;
        self.crash_point("clean.rename", When::Before).await;
        self.log.swap_finish(cleaned).await?;
        self.crash_point("clean.rename", When::After).await;
        self.report(|| PartitionEvent::Cleaned { base, end, bytes_before, bytes_after });
        Ok(true)
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }

    async fn execute(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Append { token, work, leader_epoch } => {
                self.crash_point("append", When::Before).await;
                let outcome = match work {
                    Work::Data { header, records, origin, asked } => {
                        // What was true of an earlier leadership may have ended under another leader.
                        let asked = asked.filter(|a| a.leader_epoch == leader_epoch).map(|a| a.end);
                        self.append(&header, records, origin, asked, leader_epoch).await
                    }
                    Work::Marker(marker) => self.append_marker(&marker, leader_epoch).await,
                };
                self.crash_point("append", When::After).await;
                return Some(Input::Appended { token, outcome });
            }
            Action::Replicate { token, records } => {
                self.crash_point("replicate", When::Before).await;
                let outcome = self.replicate(records).await;
                self.crash_point("replicate", When::After).await;
                return Some(Input::Appended { token, outcome });
            }
            Action::Truncate { token, offset } => {
                self.crash_point("truncate", When::Before).await;
                let from = self.log.end_offset();
                let cut = self.log.truncate_to(offset, clock::now()).await;
                self.crash_point("truncate", When::After).await;
                let log = match cut {
                    Ok(()) => {
                        let (to, high_watermark) = (self.log.end_offset(), self.purgatory.bounds().high_watermark);
                        let TopicPartition { topic, partition, .. } = &*self.id;
                        let (node, epoch) = (self.node, self.machine.borrow().leader_epoch());
                        tracing::info!(node, topic, partition, epoch, from, to, high_watermark, "truncated");
                        self.report(|| PartitionEvent::Truncated { from, to, high_watermark });
                        Some(start(&self.log, high_watermark.min(to)))
                    }
                    Err(error) => {
                        self.fatal(error);
                        None
                    }
                };
                return Some(Input::Truncated { token, log });
            }
            Action::Reset { token, offset } => {
                self.crash_point("reset", When::Before).await;
                let reset = self.log.reset_to(offset, clock::now()).await;
                self.crash_point("reset", When::After).await;
                let log = match reset {
                    Ok(()) => {
                        let TopicPartition { topic, partition, .. } = &*self.id;
                        tracing::info!(node = self.node, topic, partition, offset, "began anew at the leader's start");
                        self.report(|| PartitionEvent::Reset { offset });
                        Some(start(&self.log, offset))
                    }
                    Err(error) => {
                        self.fatal(error);
                        None
                    }
                };
                return Some(Input::Truncated { token, log });
            }
            Action::StartAt { token, offset } => {
                let reply = self.deletions.remove(&token)?;
                let (moved, input) = self.start_at("records.delete", offset).await;
                // What was asked for, wherever the log begins by now.
                return self.done(moved.map(|_| offset), reply).or(input);
            }
            Action::NotDeleted { token, error } => {
                if let Some(reply) = self.deletions.remove(&token) {
                    let _ = reply.send(Err(error));
                }
            }
            Action::FollowerStartMoved => self.purgatory.start_moved(),
            Action::AlterIsr(ask) => self.alter_isr(ask),
            Action::RoleChanged => self.role_changed(),
            Action::Position { token, result } => {
                if let Some(reply) = self.positions.remove(&token) {
                    let _ = reply.send(result);
                }
            }
            Action::Flush => {
                let (flusher, commands) = (self.log.flusher(), self.commands.clone());
                let partition = Some(self.id.partition);
                self.flush = Some(
                    task::spawn(async move {
                        crash_point(ROLE, "flush", partition, When::Before).await;
                        let result = flusher.await;
                        crash_point(ROLE, "flush", partition, When::After).await;
                        // The driver is gone only with its node.
                        let _ = commands.send(Command::Flushed(result));
                    })
                    .abort_on_drop(),
                );
            }
            Action::Publish(bounds) => {
                self.crash_point("publish", When::Before).await;
                let before = self.purgatory.bounds();
                let leads = self.machine.borrow().leader().is_some();
                if bounds.high_watermark != before.high_watermark {
                    let offset = bounds.high_watermark;
                    self.log.stable_to(offset);
                    self.report(|| match leads {
                        true => PartitionEvent::HighWatermark { offset },
                        false => PartitionEvent::FollowersHighWatermark { offset },
                    });
                }
                if leads && bounds.last_stable_offset != before.last_stable_offset {
                    self.report(|| PartitionEvent::LastStableOffset { offset: bounds.last_stable_offset });
                }
                self.purgatory.publish(bounds);
                self.crash_point("publish", When::After).await;
            }
            Action::Reply { token, result } => {
                self.crash_point("ack", When::Before).await;
                if let Some(reply) = self.appends.remove(&token) {
                    // Whoever asked may have gone; the append stands all the same.
                    let _ = reply.send(result);
                }
                self.crash_point("ack", When::After).await;
            }
            Action::Fail => {
                self.report(|| PartitionEvent::Failed);
                self.purgatory.close();
            }
            Action::Closed => {
                if let Err(error) = self.log.close().await {
                    self.fatal(error);
                }
                self.report(|| PartitionEvent::Closed { end: self.log.end_offset() });
            }
        }
        None
    }

    fn role_changed(&mut self) {
        // A question of the earlier leadership: its answer would be ignored.
        self.altering = None;
        let event = {
            let machine = self.machine.borrow();
            match (machine.leader(), machine.following()) {
                (Some(leader), _) => Some(PartitionEvent::Led {
                    leader_epoch: leader.leader_epoch,
                    end: machine.log_end_offset(),
                    high_watermark: machine.high_watermark(),
                    last_stable_offset: machine.last_stable_offset(),
                }),
                (None, Some(with)) => Some(PartitionEvent::Followed {
                    leader_epoch: with.leader_epoch,
                    leader: with.leader,
                    end: machine.log_end_offset(),
                }),
                (None, None) => None,
            }
        };
        if let Some(event) = event {
            let TopicPartition { topic, partition, .. } = &*self.id;
            let (node, epoch) = (self.node, self.machine.borrow().leader_epoch());
            tracing::debug!(node, topic, partition, epoch, ?event, "role changed");
            self.report(|| event);
        }
        self.purgatory.role_changed();
    }

    fn alter_isr(&mut self, ask: Ask) {
        let Some(controller) = self.controller.clone() else { return };
        let commands = self.commands.clone();
        let Ask { attempt, leader_epoch, partition_epoch, isr, after } = ask;
        let TopicPartition { topic_id, partition, .. } = *self.id;
        self.report(|| PartitionEvent::IsrAsked { leader_epoch, isr: isr.iter().map(|(id, _)| *id).collect() });
        let asking = async move {
            if !after.is_zero() {
                env::time::sleep(after).await;
            }
            crash_point(ROLE, "isr", Some(partition), When::Before).await;
            let proposal = IsrProposal { topic_id, partition, leader_epoch, partition_epoch, isr };
            let result = controller.alter(proposal).await;
            crash_point(ROLE, "isr", Some(partition), When::After).await;
            // The driver is gone only with its node.
            let _ = commands.send(Command::IsrAnswered { attempt, result });
        };
        self.altering = Some(task::spawn(asking).abort_on_drop());
    }

    /// Appends the leader's batches. What went in before one that does not is kept.
    async fn replicate(&mut self, records: Bytes) -> Outcome {
        let (mut bytes, mut appended_bytes) = (0, 0);
        let (mut epochs, mut transactions) = (Vec::new(), Vec::new());
        let mut range = None;
        for piece in pieces(records, self.segment_bytes) {
            bytes += piece.len();
            let records = BatchHeader::parse(&piece).map_or(1, |h| i64::from(h.last_offset_delta) + 1);
            let appended = match self.roll_if_due(piece.len(), records).await {
                Ok(()) => self.log.append_replicated(piece, clock::now()).await,
                Err(error) => Err(error),
            };
            match self.outcome(appended) {
                Outcome::Done { first, last, epochs: e, transactions: t } => {
                    epochs.extend(e);
                    transactions.extend(t);
                    range = Some((range.map_or(first, |(begin, _)| begin), last));
                    appended_bytes = bytes;
                }
                Outcome::Failed => return Outcome::Failed,
                other if range.is_none() => return other,
                _ => break,
            }
        }
        let Some((first, last)) = range else { return Outcome::Refused(ErrorCode::CORRUPT_MESSAGE) };
        self.traffic.replicated(appended_bytes);
        self.report(|| PartitionEvent::Replicated { base: first, last });
        Outcome::Done { first, last, epochs, transactions }
    }

    async fn append(
        &mut self,
        header: &BatchHeader,
        records: Bytes,
        origin: Origin,
        asked: Option<Offset>,
        leader_epoch: i32,
    ) -> Outcome {
        let (producer_id, producer_epoch) = (header.producer_id, header.producer_epoch);
        let base_sequence = header.base_sequence;
        let verdict = self.log.producers().check(header, origin, clock::now());
        match verdict {
            Ok(Verdict::Append) if self.log.producers().may_join(header, asked) => {}
            Ok(Verdict::Append) => {
                env::sometimes!(
                    asked.is_some(),
                    "partition: a transaction ended between its verification and the append"
                );
                let code = ErrorCode::TRANSACTION_ABORTABLE;
                self.report(|| PartitionEvent::Refused {
                    error: code.code(),
                    producer_id,
                    producer_epoch,
                    base_sequence,
                });
                return Outcome::Refused(code);
            }
            Ok(Verdict::Duplicate { first, last }) => {
                self.report(|| PartitionEvent::Duplicate { base: first, last, producer_id });
                return Outcome::Duplicate { first, last };
            }
            // 1. a batch finds no room, and its producer is told to come again; 2. the next one, sent behind it, is there
            // already, out of order. Told so, a client takes that for a loss, gives itself a new epoch, and writes again
            // what other partitions have and have not acknowledged: twice. So both come again.
            Err(ProducerError::OutOfOrderSequence { .. }) if self.is_behind(producer_id, producer_epoch) => {
                env::sometimes!(true, "partition: a batch behind one that found no room");
                let code = ErrorCode::NOT_ENOUGH_REPLICAS;
                self.report(|| PartitionEvent::Refused {
                    error: code.code(),
                    producer_id,
                    producer_epoch,
                    base_sequence,
                });
                return Outcome::Refused(code);
            }
            Err(refusal) => {
                let TopicPartition { topic, partition, .. } = &*self.id;
                tracing::debug!(node = self.node, topic, partition, epoch = leader_epoch, %refusal, "append refused");
                let code = error_code(&refusal);
                self.report(|| PartitionEvent::Refused {
                    error: code.code(),
                    producer_id,
                    producer_epoch,
                    base_sequence,
                });
                return Outcome::Refused(code);
            }
        }
        let bytes = records.len();
        let outcome = match self.roll_if_due(bytes, i64::from(header.last_offset_delta) + 1).await {
            Ok(()) => self.log.append(records, leader_epoch, clock::now()).await,
            Err(error) => Err(error),
        };
        let outcome = self.outcome(outcome);
        self.note_room(&outcome, producer_id, producer_epoch);
        if let Outcome::Done { first, last, .. } = outcome {
            self.traffic.produced(header.records_count, bytes);
            self.report(|| PartitionEvent::Appended {
                base: first,
                last,
                producer_id,
                producer_epoch,
                base_sequence,
                transactional: header.is_transactional(),
            });
        }
        outcome
    }

    fn is_behind(&self, producer_id: i64, producer_epoch: i16) -> bool {
        let of_last = self.without_room.get(&producer_id);
        of_last.is_some_and(|(epoch, at)| *epoch == producer_epoch && clock::now().saturating_since(*at) < BEHIND)
    }

    fn note_room(&mut self, outcome: &Outcome, producer_id: i64, producer_epoch: i16) {
        if !matches!(outcome, Outcome::Refused(ErrorCode::NOT_ENOUGH_REPLICAS)) {
            self.without_room.remove(&producer_id);
        } else if producer_id >= 0 {
            if self.without_room.len() >= MAX_WITHOUT_ROOM {
                self.without_room.pop_first();
            }
            self.without_room.insert(producer_id, (producer_epoch, clock::now()));
        }
    }

    async fn append_marker(&mut self, marker: &Marker, leader_epoch: i32) -> Outcome {
        let verdict = self.log.producers().check_marker(marker);
        match verdict {
            Ok(MarkerVerdict::Append) => {}
            Ok(MarkerVerdict::AlreadyWritten) => return Outcome::MarkerThere,
            Err(refusal) => {
                let TopicPartition { topic, partition, .. } = &*self.id;
                tracing::debug!(node = self.node, topic, partition, epoch = leader_epoch, %refusal, "marker refused");
                let code = error_code(&refusal);
                self.report(|| PartitionEvent::MarkerRefused {
                    error: code.code(),
                    producer_id: marker.producer_id,
                    producer_epoch: marker.producer_epoch,
                });
                return Outcome::Refused(code);
            }
        }
        let outcome = match self.roll_if_due(128, 1).await {
            Ok(()) => self.log.append_marker(marker, leader_epoch, clock::wall_ms(), clock::now()).await,
            Err(error) => Err(error),
        };
        let outcome = self.outcome(outcome);
        if let Outcome::Done { first, .. } = outcome {
            self.report(|| PartitionEvent::Marker {
                offset: first,
                producer_id: marker.producer_id,
                producer_epoch: marker.producer_epoch,
                commit: marker.commit,
                coordinator_epoch: marker.coordinator_epoch,
            });
        }
        outcome
    }

    async fn roll_if_due(&mut self, bytes: usize, records: i64) -> Result<(), LogError> {
        let now = clock::now();
        if !self.log.must_roll(bytes, records, now) {
            return Ok(());
        }
        self.crash_point("roll", When::Before).await;
        self.log.roll(now).await?;
        self.report(|| PartitionEvent::Rolled { base: self.log.end_offset() });
        self.crash_point("roll", When::After).await;
        Ok(())
    }

    fn outcome(&self, result: Result<log::Appended, LogError>) -> Outcome {
        match result {
            Ok(log::Appended { first, last, epochs, transactions, .. }) => {
                Outcome::Done { first, last, epochs, transactions }
            }
            Err(LogError::Invalid { reason }) => {
                let TopicPartition { topic, partition, .. } = &*self.id;
                tracing::debug!(node = self.node, topic, partition, reason, "batch refused");
                Outcome::Refused(ErrorCode::CORRUPT_MESSAGE)
            }
            Err(error) if error.is_clean() => {
                let TopicPartition { topic, partition, .. } = &*self.id;
                tracing::warn!(node = self.node, topic, partition, %error, "append refused");
                self.metrics.storage.refused_appends.inc();
                env::sometimes!(true, "partition: append refused by a full disk");
                Outcome::Refused(ErrorCode::NOT_ENOUGH_REPLICAS)
            }
            Err(error) => {
                self.fatal(error);
                Outcome::Failed
            }
        }
    }

    fn fatal(&self, error: LogError) {
        self.failure.report(BrokerError::storage(&self.id, error));
    }

    fn report(&self, event: impl FnOnce() -> PartitionEvent) {
        probe(|| PartitionProbe { partition: Rc::clone(&self.id), event: event() });
    }

    async fn crash_point(&self, label: &'static str, when: When) {
        crash_point(ROLE, label, Some(self.id.partition), when).await;
    }
}

/// Whole batches in pieces that fit a segment, one batch at least in each.
fn pieces(records: Bytes, segment_bytes: usize) -> Vec<Bytes> {
    if records.len() <= segment_bytes {
        return vec![records];
    }
    let mut pieces = Vec::new();
    let (mut begin, mut at) = (0, 0);
    for part in protocol::batch::split(records.clone()) {
        // What is no batch is refused where it is appended.
        let Ok((header, _)) = part else { break };
        let next = at + header.total_len();
        if next - begin > segment_bytes && at > begin {
            pieces.push(records.slice(begin..at));
            begin = at;
        }
        at = next;
    }
    pieces.push(records.slice(begin..));
    pieces
}

fn error_code(refusal: &ProducerError) -> ErrorCode {
    match refusal {
        ProducerError::InvalidProducerEpoch { .. } => ErrorCode::INVALID_PRODUCER_EPOCH,
        ProducerError::OutOfOrderSequence { .. } => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        ProducerError::InvalidTxnState { .. } => ErrorCode::INVALID_TXN_STATE,
        ProducerError::CoordinatorFenced { .. } => ErrorCode::TRANSACTION_COORDINATOR_FENCED,
    }
}
