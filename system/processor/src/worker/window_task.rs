//! A window task: takes records and changes from its channels, judges, fires, and snapshots at aligned barriers.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use client::Client;
use env::sync::mpsc;

use super::output::Output;
use super::task::{Command, Committing, Reporter, TaskError};
use crate::checkpoint::{Aligner, TaskSnapshot, TaskState};
use crate::codec::CodecError;
use crate::job::JobConfig;
use crate::shuffle::{Incoming, Message};
use crate::window::{Action, Operator, WindowMachine};

/// One channel of a gate: the sending task, and what it sends.
pub type Channel = (String, mpsc::Receiver<Incoming>);

/// All a window task needs to run.
pub struct WindowTask {
    pub job: Rc<JobConfig>,
    pub client: Client,
    pub reporter: Reporter,
    pub commands: mpsc::Receiver<Command>,
    pub checkpoint: Option<u64>,
    pub is_final: bool,
    pub restored: Option<TaskSnapshot>,
    pub key_groups: Vec<u32>,
    /// The operator's inputs; each has its channels.
    pub gates: Vec<Vec<Channel>>,
}

impl WindowTask {
    pub async fn run(self) -> Result<(), TaskError> {
        let operator = Operator::new(&self.job.window, self.job.parallelism.key_groups);
        let sizes: Vec<usize> = self.gates.iter().map(Vec::len).collect();
        let channels: Vec<Channel> = self.gates.into_iter().flatten().collect();
        let names: Vec<String> = channels.iter().map(|(name, _)| name.clone()).collect();
        let (machine, prepared) = match self.restored {
            None => (WindowMachine::new(operator, &names, &self.key_groups), None),
            Some(TaskSnapshot { prepared, state: TaskState::Window { key_groups } }) => {
                let stored: BTreeMap<_, _> = key_groups.into_iter().collect();
                (WindowMachine::restore(operator, &names, &self.key_groups, &stored)?, prepared)
            }
            Some(_) => {
                let why = format!("{} is not a window task's", self.reporter.task);
                return Err(CodecError::Malformed { what: "task snapshot", why }.into());
            }
        };
        let mut output = Output::new(self.client, Rc::clone(&self.job), &self.reporter);
        output.recover(prepared).await?;
        if self.is_final {
            self.reporter.opened().await?;
            return std::future::pending().await;
        }
        let last = self.checkpoint.unwrap_or(0);
        output.begin(last + 1).await?;
        output.decide(machine.open(self.checkpoint)).await?;
        self.reporter.opened().await?;
        let aligner = Aligner::new(&sizes, last);
        let mut running = Running { machine, output, aligner, channels, next: 0, reporter: self.reporter };
        running.go(self.commands).await
    }
}

struct Running {
    machine: WindowMachine,
    output: Output,
    aligner: Aligner,
    channels: Vec<Channel>,
    /// The channel that is asked first: each has its turn.
    next: usize,
    reporter: Reporter,
}

impl Running {
    async fn go(&mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), TaskError> {
        let mut committing = Committing::default();
        loop {
            env::select! {
                command = commands.recv() => match command.ok_or(TaskError::Dropped)? {
                    Command::Commit(n) => committing.start(self.output.commit(n)),
                    Command::Trigger(_) | Command::Bounds(_) => {}
                },
                done = committing.done() => self.reporter.committed(done?).await?,
                (channel, incoming) = receive(&mut self.channels, &self.aligner, &mut self.next) => {
                    let from = || self.channels[channel].0.clone();
                    match incoming {
                        Some(Incoming::Message(message)) => self.handle(channel, message).await?,
                        Some(Incoming::Broken(why)) => return Err(TaskError::Receive { from: from(), why }),
                        None => return Err(TaskError::Receive { from: from(), why: "its sender is gone".into() }),
                    }
                }
            }
        }
    }

    async fn handle(&mut self, channel: usize, message: Message) -> Result<(), TaskError> {
        match message {
            Message::Records(records) => {
                self.reporter.metrics.records_in.add(records.len() as u64);
                let actions = self.machine.records(records);
                self.execute(actions).await
            }
            Message::Change(change) => {
                let time_ms = Duration::from_nanos(env::clock::now().as_nanos()).as_millis() as u64;
                let name = self.channels[channel].0.clone();
                let actions = self.machine.change(&name, change, time_ms);
                self.execute(actions).await
            }
            Message::Barrier(n) => match self.aligner.barrier(channel, n)? {
                Some(n) => self.barrier(n).await,
                None => Ok(()),
            },
        }
    }

    async fn execute(&mut self, actions: Vec<Action>) -> Result<(), TaskError> {
        for action in actions {
            match action {
                Action::Decide(decision) => self.output.decide(decision).await?,
                Action::Emit(row) => self.output.emit(row).await?,
                Action::Late(record) => self.output.late(record).await?,
            }
        }
        self.reporter.metrics.watermark(self.machine.watermark());
        Ok(())
    }

    /// Barrier `n` on every channel: nothing after it was judged yet.
    async fn barrier(&mut self, n: u64) -> Result<(), TaskError> {
        let key_groups = self.machine.snapshot();
        let is_last = self.machine.is_ended();
        let prepared = self.output.barrier(n, None).await?;
        self.reporter.snapshot(n, prepared, TaskState::Window { key_groups }).await?;
        if !is_last {
            self.output.begin(n + 1).await?;
        }
        Ok(())
    }
}

/// The next message of any channel that is open. Cancel safe: a message is taken only when this returns.
async fn receive(channels: &mut [Channel], aligner: &Aligner, next: &mut usize) -> (usize, Option<Incoming>) {
    std::future::poll_fn(|cx| {
        for i in 0..channels.len() {
            let channel = (*next + i) % channels.len();
            if !aligner.is_open(channel) {
                continue;
            }
            if let Poll::Ready(incoming) = channels[channel].1.poll_recv(cx) {
                *next = channel + 1;
                return Poll::Ready((channel, incoming));
            }
        }
        Poll::Pending
    })
    .await
}
