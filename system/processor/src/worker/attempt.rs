//! One attempt on one worker: its channels, its tasks, and their end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use client::Client;
use env::sync::mpsc;
use env::task::JoinHandle;

use super::source_task::{SourceTask, Target};
use super::task::{Command, Report, Reporter, TaskError};
use super::window_task::{Channel, WindowTask};
use crate::checkpoint::TaskSnapshot;
use crate::codec::CodecError;
use crate::control::{self, Deploy, Generation, TaskDeploy};
use crate::job::JobConfig;
use crate::keys;
use crate::metrics::{RunningTask, WorkerMetrics};
use crate::shuffle::{ChannelId, Outbound, Server};

/// Commands waiting at a task: a trigger, a commit and the bounds at most.
const COMMANDS: usize = 8;

pub struct Attempt {
    pub generation: Generation,
    deploy: Deploy,
    restored: BTreeMap<String, TaskSnapshot>,
    /// Channels of this worker's window tasks, until they start.
    channels: BTreeMap<String, Vec<Channel>>,
    tasks: BTreeMap<String, Running>,
}

struct Running {
    is_source: bool,
    commands: mpsc::Sender<Command>,
    handle: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Attempt {
    /// Opens the channels; nothing runs yet.
    pub fn deploy(deploy: Deploy, snapshots: Bytes, server: &Server) -> Result<Self, CodecError> {
        let mut restored = BTreeMap::new();
        for (task, bytes) in control::decode_snapshots(snapshots)? {
            restored.insert(task, TaskSnapshot::decode(bytes)?);
        }
        let generation = deploy.generation;
        let mut channels = BTreeMap::new();
        for task in &deploy.tasks {
            if let TaskDeploy::Window { .. } = task {
                let open = |index| {
                    let from = control::source_task(index);
                    let id = ChannelId { generation, from: from.clone(), to: task.name() };
                    (from, server.open(id, deploy.job.parallelism.channel_capacity))
                };
                channels.insert(task.name(), (0..deploy.source_tasks).map(open).collect());
            }
        }
        Ok(Self { generation, deploy, restored, channels, tasks: BTreeMap::new() })
    }

    /// Starts every task. `windows`: where each window task takes channels.
    pub fn start(
        &mut self,
        windows: &BTreeMap<String, SocketAddr>,
        server: &Server,
        client: &Client,
        reports: &mpsc::Sender<Report>,
        connect_timeout: Duration,
        metrics: &WorkerMetrics,
    ) {
        let job = Rc::new(self.deploy.job.clone());
        for task in self.deploy.tasks.clone() {
            let name = task.name();
            let metrics = metrics.task(&name);
            let runs = metrics.runs();
            let (generation, to) = (self.generation, reports.clone());
            let reporter = Reporter { generation, task: name.clone(), to, metrics };
            let (commands_to, commands) = mpsc::channel(COMMANDS);
            let restored = self.restored.remove(&name);
            let (checkpoint, is_final) = (self.deploy.checkpoint, self.deploy.is_final);
            let (job, client) = (Rc::clone(&job), client.clone());
            let (is_source, handle) = match task {
                TaskDeploy::Source { new_splits, .. } => {
                    let channels = self.targets(&name, &job, windows, server);
                    let bounds = self.deploy.bounds.clone();
                    let task = SourceTask {
                        job,
                        client,
                        reporter: reporter.clone(),
                        commands,
                        checkpoint,
                        is_final,
                        restored,
                        new_splits,
                        bounds,
                        channels,
                        connect_timeout,
                    };
                    (true, env::task::spawn(watched(task.run(), reporter, runs)))
                }
                TaskDeploy::Window { index } => {
                    let p = job.parallelism;
                    let task = WindowTask {
                        key_groups: keys::groups_of(index, p.window_tasks, p.key_groups),
                        job,
                        client,
                        reporter: reporter.clone(),
                        commands,
                        checkpoint,
                        is_final,
                        restored,
                        gates: vec![self.channels.remove(&name).unwrap_or_default()],
                    };
                    (false, env::task::spawn(watched(task.run(), reporter, runs)))
                }
            };
            self.tasks.insert(name, Running { is_source, commands: commands_to, handle });
        }
    }

    fn targets(
        &self,
        from: &str,
        job: &JobConfig,
        windows: &BTreeMap<String, SocketAddr>,
        server: &Server,
    ) -> Vec<(String, Target)> {
        let target = |index| {
            let to = control::window_task(index);
            let id = ChannelId { generation: self.generation, from: from.to_owned(), to: to.clone() };
            let target = match server.take(&id) {
                Some(channel) => Target::Local(Outbound::Local(channel)),
                // A task that is nowhere is refused there.
                None => Target::Remote(windows.get(&to).copied().unwrap_or(server.local_addr())),
            };
            (to, target)
        };
        (0..job.parallelism.window_tasks).map(target).collect()
    }

    /// Gives a command to the tasks it concerns. False if one does not take it: its task ended or hangs.
    pub fn command(&mut self, command: &Command) -> bool {
        if let Command::Bounds(bounds) = command
            && self.tasks.is_empty()
        {
            self.deploy.bounds = Some(bounds.clone());
        }
        let for_sources = matches!(command, Command::Trigger(_) | Command::Bounds(_));
        let concerned = self.tasks.values().filter(|t| t.is_source || !for_sources);
        let refused = concerned.filter(|t| t.commands.try_send(command.clone()).is_err()).count();
        refused == 0
    }

    /// Ends every task and channel. Nothing of the attempt is left when it returns.
    pub async fn cancel(mut self, server: &Server) {
        for task in self.tasks.values() {
            task.handle.abort();
        }
        for task in self.tasks.values_mut() {
            let _ = (&mut task.handle).await;
        }
        server.clear().await;
    }
}

/// Runs a task and reports its failure.
async fn watched(task: impl Future<Output = Result<(), TaskError>>, reporter: Reporter, runs: RunningTask) {
    let outcome = task.await;
    drop(runs);
    let reason = match outcome {
        Ok(()) => "it ended".to_owned(),
        Err(e) => e.to_string(),
    };
    tracing::info!(task = reporter.task, generation = reporter.generation, reason, "task failed");
    // If nobody listens any more, the attempt is over anyway.
    let _ = reporter.failed(reason).await;
}
