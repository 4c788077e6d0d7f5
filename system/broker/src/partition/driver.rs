//! Does what the machine decides, on the log. The only owner of the log's writing half.
//!
//! A flush runs in a task of its own and reports back as a command, so that appends go on meanwhile. Everything else is
//! done in order, one action after another, with a crash point before and after: `append`, `roll`, `flush`, `publish`,
//! `ack`.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use env::clock;
use env::node::{When, crash_point};
use env::probe::probe;
use env::sync::{mpsc, oneshot};
use env::task::{self, AbortOnDrop};
use log::{Flushed, Log, LogError, Marker, MarkerVerdict, Origin, ProducerError, Verdict};
use protocol::ErrorCode;
use protocol::batch::BatchHeader;

use super::machine::{Action, Input, Machine, Outcome, Start, Token, Work};
use super::probe::{PartitionEvent, PartitionProbe};
use super::{Acks, Appended, Inner, Partition, PartitionConfig, TopicPartition};
use crate::failure::{BrokerError, Failure};
use crate::purgatory::Purgatory;

const ROLE: &str = "broker";

/// What comes over the channel.
#[derive(Debug)]
pub(super) enum Command {
    Append { work: Work, acks: Acks, reply: oneshot::Sender<Result<Appended, ErrorCode>> },
    Flushed(Result<Flushed, LogError>),
    Close,
}

pub(super) async fn open(
    id: Rc<TopicPartition>,
    dir: PathBuf,
    config: PartitionConfig,
    leader_epoch: i32,
    failure: Failure,
) -> Result<Partition, BrokerError> {
    let opened = Log::open(&dir, config.log.clone(), clock::now()).await;
    let (log, recovery) = opened.map_err(|e| BrokerError::storage(&id, e))?;
    if let Some(latest) = log.leader_epochs().latest()
        && latest > leader_epoch
    {
        return Err(BrokerError::corrupt(&id, format!("its log is of epoch {latest}, it is led in {leader_epoch}")));
    }
    let start = Start {
        log_start: log.start_offset(),
        end: log.end_offset(),
        open: log.producers().open_transactions().map(|(first, _)| first).collect(),
    };
    let machine = Machine::new(config.node_id, config.flush, config.max_queued_bytes, start);
    let purgatory = Purgatory::new(machine.high_watermark(), machine.last_stable_offset());
    let (commands, inbox) = mpsc::unbounded_channel();
    let reader = log.reader();
    let driver = Driver {
        id: Rc::clone(&id),
        leader_epoch,
        log,
        machine,
        inbox,
        commands: commands.clone(),
        purgatory: purgatory.clone(),
        failure: failure.clone(),
        replies: BTreeMap::new(),
        next_token: 0,
        flush: None,
    };
    driver.report(|| PartitionEvent::Opened {
        leader_epoch,
        log_start: driver.log.start_offset(),
        end: recovery.end,
        last_stable_offset: driver.machine.last_stable_offset(),
        cut: recovery.cut.as_ref().map_or(0, |c| c.bytes),
    });
    let task = task::spawn(driver.run()).abort_on_drop();
    let task = Some(task).into();
    Ok(Partition(Rc::new(Inner { id, leader_epoch, commands, reader, purgatory, failure, task })))
}

struct Driver {
    id: Rc<TopicPartition>,
    leader_epoch: i32,
    log: Log,
    machine: Machine,
    inbox: mpsc::UnboundedReceiver<Command>,
    /// For the end of a flush.
    commands: mpsc::UnboundedSender<Command>,
    purgatory: Purgatory,
    failure: Failure,
    replies: BTreeMap<Token, oneshot::Sender<Result<Appended, ErrorCode>>>,
    next_token: Token,
    flush: Option<AbortOnDrop<()>>,
}

impl Driver {
    async fn run(mut self) {
        let mut inputs = VecDeque::new();
        let mut open = true;
        while open {
            let Some(command) = self.inbox.recv().await else { return };
            inputs.extend(self.input(command).await);
            while let Some(input) = inputs.pop_front() {
                for action in self.machine.handle(input) {
                    open &= action != Action::Closed;
                    inputs.extend(self.execute(action).await);
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
            Command::Append { work, acks, reply } => {
                self.next_token += 1;
                self.replies.insert(self.next_token, reply);
                Input::Append { token: self.next_token, work, acks }
            }
            Command::Flushed(result) => {
                self.flush = None;
                match self.log.flushed(result).await {
                    Ok(offset) => {
                        self.report(|| PartitionEvent::Flushed { offset });
                        Input::Flushed(offset)
                    }
                    Err(error) => {
                        self.fatal(error);
                        Input::FlushFailed
                    }
                }
            }
            Command::Close => Input::Close,
        })
    }

    async fn execute(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Append { token, work } => {
                self.crash_point("append", When::Before).await;
                let outcome = match work {
                    Work::Data { header, records, origin } => self.append(&header, records, origin).await,
                    Work::Marker(marker) => self.append_marker(&marker).await,
                };
                self.crash_point("append", When::After).await;
                return Some(Input::Appended { token, outcome });
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
            Action::Publish { high_watermark, last_stable_offset } => {
                self.crash_point("publish", When::Before).await;
                let before = self.purgatory.bounds();
                if high_watermark != before.0 {
                    self.report(|| PartitionEvent::HighWatermark { offset: high_watermark });
                }
                if last_stable_offset != before.1 {
                    self.report(|| PartitionEvent::LastStableOffset { offset: last_stable_offset });
                }
                self.purgatory.publish(high_watermark, last_stable_offset);
                self.crash_point("publish", When::After).await;
            }
            Action::Reply { token, result } => {
                self.crash_point("ack", When::Before).await;
                if let Some(reply) = self.replies.remove(&token) {
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

    async fn append(&mut self, header: &BatchHeader, records: Bytes, origin: Origin) -> Outcome {
        let (producer_id, producer_epoch) = (header.producer_id, header.producer_epoch);
        let base_sequence = header.base_sequence;
        let verdict = self.log.producers().check(header, origin, clock::now());
        match verdict {
            Ok(Verdict::Append) => {}
            Ok(Verdict::Duplicate { first, last }) => {
                self.report(|| PartitionEvent::Duplicate { base: first, last, producer_id });
                return Outcome::Duplicate { first, last };
            }
            Err(refusal) => {
                tracing::debug!(partition = %self.id, %refusal, "append refused");
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
        let outcome = match self.roll_if_due(records.len(), i64::from(header.last_offset_delta) + 1).await {
            Ok(()) => self.log.append(records, self.leader_epoch, clock::now()).await,
            Err(error) => Err(error),
        };
        let outcome = self.outcome(outcome);
        if let Outcome::Done { first, last, .. } = outcome {
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

    async fn append_marker(&mut self, marker: &Marker) -> Outcome {
        let verdict = self.log.producers().check_marker(marker);
        match verdict {
            Ok(MarkerVerdict::Append) => {}
            Ok(MarkerVerdict::AlreadyWritten) => return Outcome::MarkerThere,
            Err(refusal) => {
                tracing::debug!(partition = %self.id, %refusal, "marker refused");
                return Outcome::Refused(error_code(&refusal));
            }
        }
        let outcome = match self.roll_if_due(128, 1).await {
            Ok(()) => self.log.append_marker(marker, self.leader_epoch, clock::wall_ms(), clock::now()).await,
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
            Ok(done) => Outcome::Done { first: done.first, last: done.last, transactions: done.transactions },
            Err(LogError::Invalid { reason }) => {
                tracing::debug!(partition = %self.id, reason, "batch refused");
                Outcome::Refused(ErrorCode::CORRUPT_MESSAGE)
            }
            Err(error) if error.is_clean() => {
                tracing::warn!(partition = %self.id, %error, "append refused");
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

fn error_code(refusal: &ProducerError) -> ErrorCode {
    match refusal {
        ProducerError::InvalidProducerEpoch { .. } => ErrorCode::INVALID_PRODUCER_EPOCH,
        ProducerError::OutOfOrderSequence { .. } => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        ProducerError::InvalidTxnState { .. } => ErrorCode::INVALID_TXN_STATE,
        ProducerError::CoordinatorFenced { .. } => ErrorCode::TRANSACTION_COORDINATOR_FENCED,
    }
}
