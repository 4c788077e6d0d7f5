//! A source task: fetches its splits, hands records to the window tasks, and shows barriers where the coordinator says.
//!
//! Fetching has a task of its own, one result ahead: positions are this task's, so what was fetched and not yet handed
//! on is in no snapshot.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use client::{Client, Consumer, ConsumerConfig, FetchResult, Isolation, OutOfRange, TopicPartition};
use env::node::{When, crash_point};
use env::sync::mpsc;

use super::ROLE;
use super::ends::Ends;
use super::output::Output;
use super::task::{Command, Committing, Reporter, TaskError};
use crate::checkpoint::{SplitState, TaskSnapshot, TaskState};
use crate::codec::CodecError;
use crate::job::JobConfig;
use crate::shuffle::{ChannelId, Message, Outbound};
use crate::source::{Action, Fetched, SourceMachine, SourceRecord};
use crate::watermark::{Status, Watermark};

/// All a source task needs to run.
pub struct SourceTask {
    pub job: Rc<JobConfig>,
    pub client: Client,
    pub reporter: Reporter,
    pub commands: mpsc::Receiver<Command>,
    pub checkpoint: Option<u64>,
    pub is_final: bool,
    pub restored: Option<TaskSnapshot>,
    pub new_splits: Vec<(i32, i64)>,
    pub bounds: Option<Vec<(i32, i64)>>,
    /// By window task, in order of index: a channel of this worker, or where to connect.
    pub channels: Vec<(String, Target)>,
    pub connect_timeout: Duration,
}

#[derive(Debug)]
pub enum Target {
    Local(Outbound),
    Remote(SocketAddr),
}

impl SourceTask {
    pub async fn run(self) -> Result<(), TaskError> {
        let (mut splits, watermark, prepared) = match self.restored {
            None => (Vec::new(), Watermark::MIN, None),
            Some(TaskSnapshot { prepared, state: TaskState::Source { watermark, splits } }) => {
                (splits, watermark, prepared)
            }
            Some(_) => {
                let why = format!("{} is not a source task's", self.reporter.task);
                return Err(CodecError::Malformed { what: "task snapshot", why }.into());
            }
        };
        let new = |(partition, position): &(i32, i64)| SplitState {
            partition: *partition,
            position: *position,
            watermark: Watermark::MIN,
            status: Status::New,
        };
        splits.extend(self.new_splits.iter().map(new));
        splits.sort_by_key(|s| s.partition);
        let mut output = Output::new(self.client.clone(), Rc::clone(&self.job), &self.reporter);
        output.recover(prepared).await?;
        if self.is_final {
            self.reporter.opened().await?;
            return std::future::pending().await;
        }
        let mut channels = Vec::new();
        for (to, target) in self.channels {
            let outbound = match target {
                Target::Local(outbound) => outbound,
                Target::Remote(addr) => {
                    let from = self.reporter.task.clone();
                    let id = ChannelId { generation: self.reporter.generation, from, to: to.clone() };
                    let connected = Outbound::connect(addr, &id, self.connect_timeout).await;
                    connected.map_err(|error| TaskError::Send { to: to.clone(), error })?
                }
            };
            channels.push((to, outbound));
        }
        let machine = SourceMachine::new(&self.job, &splits, watermark);
        output.begin(self.checkpoint.unwrap_or(0) + 1).await?;
        output.decide(machine.open(self.checkpoint)).await?;
        let (fetched, stop, _fetching) = start_fetching(self.client, &self.job, machine.assignment());
        let mut running = Running {
            chunk: self.job.source.chunk_records,
            machine,
            output,
            channels,
            reporter: self.reporter,
            stop,
            told_ended: false,
        };
        running.reporter.opened().await?;
        if let Some(bounds) = self.bounds {
            running.bound(&bounds).await?;
        }
        running.told_if_ended().await?;
        running.go(self.commands, fetched).await
    }
}

struct Running {
    chunk: usize,
    machine: SourceMachine,
    output: Output,
    channels: Vec<(String, Outbound)>,
    reporter: Reporter,
    stop: mpsc::UnboundedSender<i32>,
    told_ended: bool,
}

impl Running {
    async fn go(
        &mut self,
        mut commands: mpsc::Receiver<Command>,
        mut fetched: mpsc::Receiver<Vec<FetchResult>>,
    ) -> Result<(), TaskError> {
        let mut committing = Committing::default();
        let mut waiting: VecDeque<(i32, Fetched)> = VecDeque::new();
        loop {
            env::select! {
                command = commands.recv() => match command.ok_or(TaskError::Dropped)? {
                    Command::Trigger(n) => self.barrier(n).await?,
                    Command::Commit(n) => committing.start(self.output.commit(n)),
                    Command::Bounds(bounds) => self.bound(&bounds).await?,
                },
                done = committing.done() => self.reporter.committed(done?).await?,
                () = std::future::ready(()), if !waiting.is_empty() => {
                    if let Some((partition, chunk)) = waiting.pop_front() {
                        if let Fetched::Records { records, .. } = &chunk {
                            self.reporter.metrics.records_in.add(records.len() as u64);
                        }
                        let actions = self.machine.fetched(env::clock::now(), partition, chunk);
                        self.execute(actions).await?;
                        // Commands and the other tasks of the node have their turn between chunks.
                        env::task::yield_now().await;
                    }
                }
                results = fetched.recv(), if waiting.is_empty() => {
                    for result in results.ok_or(TaskError::Dropped)? {
                        waiting.extend(split_up(result, self.chunk)?);
                    }
                }
            }
            self.told_if_ended().await?;
        }
    }

    async fn bound(&mut self, bounds: &[(i32, i64)]) -> Result<(), TaskError> {
        let actions = self.machine.bound(env::clock::now(), bounds);
        self.execute(actions).await
    }

    async fn told_if_ended(&mut self) -> Result<(), TaskError> {
        if self.machine.is_ended() && !self.told_ended {
            self.told_ended = true;
            self.reporter.ended().await?;
        }
        Ok(())
    }

    async fn execute(&mut self, actions: Vec<Action>) -> Result<(), TaskError> {
        for action in actions {
            match action {
                Action::Decide(decision) => self.output.decide(decision).await?,
                Action::Send { window, records } => {
                    crash_point(ROLE, "records.send", None, When::Before).await;
                    let Some(channel) = self.channels.get_mut(window as usize) else { continue };
                    send(channel, Message::Records(records)).await?;
                    crash_point(ROLE, "records.send", None, When::After).await;
                }
                Action::DeadLetter { partition, record, reason } => {
                    self.output.dead_letter(partition, record, reason.reason()).await?;
                }
                Action::Tell(change) => {
                    crash_point(ROLE, "watermark.send", None, When::Before).await;
                    for channel in &mut self.channels {
                        send(channel, Message::Change(change)).await?;
                    }
                    crash_point(ROLE, "watermark.send", None, When::After).await;
                }
                Action::Stop { partition } => {
                    // The fetching task ends with this one, never before.
                    let _ = self.stop.send(partition);
                }
            }
        }
        self.reporter.metrics.watermark(self.machine.watermark());
        Ok(())
    }

    /// Barrier `n`, here: what was handed on lies before it, all else after it.
    async fn barrier(&mut self, n: u64) -> Result<(), TaskError> {
        let splits = self.machine.snapshot();
        let watermark = self.machine.watermark();
        let is_last = self.machine.is_ended();
        crash_point(ROLE, "barrier.send", None, When::Before).await;
        for channel in &mut self.channels {
            send(channel, Message::Barrier(n)).await?;
        }
        crash_point(ROLE, "barrier.send", None, When::After).await;
        let positions = splits.iter().map(|s| (s.partition, s.position)).collect();
        let prepared = self.output.barrier(n, Some(positions)).await?;
        self.reporter.snapshot(n, prepared, TaskState::Source { watermark, splits }).await?;
        // After the last one there is nothing to put into another transaction (FLINK-23408).
        if !is_last {
            self.output.begin(n + 1).await?;
        }
        Ok(())
    }
}

async fn send((to, channel): &mut (String, Outbound), message: Message) -> Result<(), TaskError> {
    channel.send(message).await.map_err(|error| TaskError::Send { to: to.clone(), error })
}

type Fetching = (mpsc::Receiver<Vec<FetchResult>>, mpsc::UnboundedSender<i32>, env::task::AbortOnDrop<()>);

/// Reads the splits from their positions on, until the returned handle is dropped.
fn start_fetching(client: Client, job: &JobConfig, splits: Vec<(i32, i64)>) -> Fetching {
    let config = ConsumerConfig {
        isolation: Isolation::ReadCommitted,
        out_of_range: OutOfRange::Fail,
        max_wait: Duration::from_millis(job.source.fetch_max_wait_ms),
        ..ConsumerConfig::default()
    };
    let topic = job.source.topic.clone();
    let (results_to, results) = mpsc::channel(1);
    let (stop, mut stops) = mpsc::unbounded_channel();
    let fetching = env::task::spawn(async move {
        let mut ends = Ends::new(client.clone());
        let consumer = Consumer::new(client, config);
        consumer.assign(splits.into_iter().map(|(p, o)| (TopicPartition::new(topic.as_str(), p), o)).collect());
        loop {
            let mut fetched = env::select! {
                stopped = stops.recv() => match stopped {
                    Some(partition) => {
                        consumer.pause(&TopicPartition::new(topic.as_str(), partition));
                        continue;
                    }
                    None => return,
                },
                fetched = consumer.poll() => fetched,
            };
            fetched.iter_mut().for_each(|result| ends.check(result));
            if results_to.send(fetched).await.is_err() {
                return;
            }
        }
    });
    (results, stop, fetching.abort_on_drop())
}

/// One fetch of one split as chunks: W moves between them, and barriers find their place.
fn split_up(result: FetchResult, chunk: usize) -> Result<Vec<(i32, Fetched)>, TaskError> {
    let partition = result.partition.partition;
    if let Some(error) = result.error {
        if error.stopped {
            return Err(TaskError::Source { partition, why: error.to_string() });
        }
        return Ok(vec![(partition, Fetched::Failed)]);
    }
    let position = result.position;
    if result.records.is_empty() {
        let end = result.high_watermark;
        let known = result.answered_in.is_some();
        let at_end = known && end == position && result.last_stable_offset == end;
        let (sent, arrived) = (result.sent_at, result.received_at);
        return Ok(vec![(partition, Fetched::Empty { position, at_end, sent, arrived })]);
    }
    let mut chunks = Vec::new();
    let mut records =
        result.records.into_iter().map(|r| SourceRecord { offset: r.offset, key: r.key, value: r.value }).peekable();
    while records.peek().is_some() {
        let part: Vec<SourceRecord> = records.by_ref().take(chunk).collect();
        let next = match records.peek() {
            None => position,
            Some(_) => part.last().map_or(position, |r| r.offset + 1),
        };
        chunks.push((partition, Fetched::Records { records: part, position: next }));
    }
    Ok(chunks)
}
