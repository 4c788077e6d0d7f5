//! The coordinator machine, step by step and under random loss.

use super::*;
use crate::checkpoint::{SplitState, TaskState};
use crate::watermark::{Status, Watermark};

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn job() -> JobConfig {
    let mut job = JobConfig::new("j", "in", "out");
    job.checkpoint.interval_ms = 1000;
    job.checkpoint.timeout_ms = 5000;
    job
}

struct Fixture {
    machine: Machine,
    sent: Vec<(String, ToWorker)>,
    stored: Vec<Checkpoint>,
    probes: Vec<Probe>,
    prepares: Vec<Generation>,
    drained: bool,
}

impl Fixture {
    fn new(generation: Generation) -> Self {
        let machine = Machine::new(job(), 2, generation, None, false);
        Self { machine, sent: vec![], stored: vec![], probes: vec![], prepares: vec![], drained: false }
    }

    fn input(&mut self, ms: u64, input: Input) {
        for action in self.machine.handle(at(ms), input) {
            match action {
                Action::Prepare { generation } => self.prepares.push(generation),
                Action::Send { worker, message, .. } => self.sent.push((worker, message)),
                Action::Store(c) => self.stored.push(c),
                Action::MarkDrained { .. } => self.drained = true,
                Action::Report(p) => self.probes.push(p),
            }
        }
    }

    fn register(&mut self, ms: u64) {
        for (i, worker) in ["a", "b"].iter().enumerate() {
            let shuffle = SocketAddr::from(([127, 0, 0, 1], 1000 + i as u16));
            self.input(ms, Input::Registered { worker: (*worker).into(), shuffle });
        }
    }

    fn say(&mut self, ms: u64, worker: &str, message: ToCoordinator, payload: Bytes) {
        self.input(ms, Input::Message { worker: worker.into(), message, payload });
    }

    /// Deployed and opened, from `checkpoint`.
    fn run(&mut self, ms: u64, checkpoint: Option<Checkpoint>) -> Generation {
        let generation = *self.prepares.last().unwrap();
        let partitions = vec![(0, 0), (1, 0), (2, 0)];
        self.input(ms, Input::Prepared { generation, result: Ok(Preparation { checkpoint, partitions }) });
        for worker in ["a", "b"] {
            self.say(ms, worker, ToCoordinator::Deployed { generation }, Bytes::new());
        }
        for (worker, task) in TASKS {
            self.say(ms, worker, ToCoordinator::Opened { generation, task: task.into() }, Bytes::new());
        }
        generation
    }

    fn ack_all(&mut self, ms: u64, generation: Generation, n: u64, status: Status) {
        for (worker, task) in TASKS {
            let payload = snapshot(task, status).encode();
            self.say(ms, worker, ToCoordinator::Ack { generation, task: task.into(), n }, payload);
        }
    }

    fn count(&self, what: impl Fn(&ToWorker) -> bool) -> usize {
        self.sent.iter().filter(|(_, m)| what(m)).count()
    }
}

const TASKS: [(&str, &str); 4] = [("a", "source-0"), ("b", "source-1"), ("a", "window-0"), ("b", "window-1")];

fn snapshot(task: &str, status: Status) -> TaskSnapshot {
    let split = SplitState { partition: 0, position: 1, watermark: Watermark::MIN, status };
    let state = if task.starts_with("source") {
        TaskState::Source { watermark: Watermark::MIN, splits: vec![split] }
    } else {
        TaskState::Window { key_groups: vec![] }
    };
    TaskSnapshot { prepared: None, state }
}

#[test]
fn nothing_commits_before_the_checkpoint_is_durable() {
    let mut f = Fixture::new(7);
    f.register(0);
    let g = f.run(0, None);
    assert_eq!(g, 8, "a generation is never used again");
    assert_eq!(f.count(|m| matches!(m, ToWorker::Start { .. })), 2);
    f.input(1000, Input::Tick);
    assert_eq!(f.count(|m| matches!(m, ToWorker::Trigger { n: 1, .. })), 2);
    f.ack_all(1100, g, 1, Status::In);
    assert_eq!(f.stored.len(), 1);
    assert_eq!(f.count(|m| matches!(m, ToWorker::Commit { .. })), 0);
    f.input(1200, Input::Stored { n: 1, result: Ok(()) });
    assert_eq!(f.count(|m| matches!(m, ToWorker::Commit { n: 1, .. })), 2);
    f.input(4000, Input::Tick);
    assert_eq!(f.count(|m| matches!(m, ToWorker::Trigger { .. })), 2, "1 is not committed yet");
    for (worker, task) in TASKS {
        f.say(4100, worker, ToCoordinator::Committed { generation: g, task: task.into(), n: 1 }, Bytes::new());
    }
    f.input(5100, Input::Tick);
    assert_eq!(f.count(|m| matches!(m, ToWorker::Trigger { n: 2, .. })), 2);
}

#[test]
fn an_attempt_is_gone_everywhere_before_the_next() {
    let mut f = Fixture::new(0);
    f.register(0);
    let g = f.run(0, None);
    f.say(10, "a", ToCoordinator::Failed { generation: g, task: "source-0".into(), reason: "x".into() }, Bytes::new());
    assert_eq!(f.count(|m| matches!(m, ToWorker::Cancel { .. })), 2);
    f.say(20, "a", ToCoordinator::Cancelled { generation: g }, Bytes::new());
    f.input(100_000, Input::Tick);
    assert_eq!(f.prepares.len(), 1, "b has not confirmed");
    f.say(100_000, "b", ToCoordinator::Cancelled { generation: g }, Bytes::new());
    f.input(100_200, Input::Tick);
    assert_eq!(f.prepares, [1, 2]);
}

#[test]
fn a_lost_worker_fails_the_attempt_and_is_waited_for() {
    let mut f = Fixture::new(0);
    f.register(0);
    let g = f.run(0, None);
    f.input(10, Input::Lost { worker: "b".into() });
    f.say(20, "a", ToCoordinator::Cancelled { generation: g }, Bytes::new());
    f.input(1000, Input::Tick);
    assert_eq!(f.prepares.len(), 1);
    f.input(2000, Input::Registered { worker: "b".into(), shuffle: SocketAddr::from(([127, 0, 0, 1], 5)) });
    assert_eq!(f.prepares.len(), 2);
}

#[test]
fn stale_messages_change_nothing() {
    let mut f = Fixture::new(4);
    f.register(0);
    let g = f.run(0, None);
    f.input(1000, Input::Tick);
    f.ack_all(1100, g - 1, 1, Status::In);
    f.ack_all(1100, g, 2, Status::In);
    let failed = ToCoordinator::Failed { generation: g - 1, task: "source-0".into(), reason: "x".into() };
    f.say(1100, "a", failed, Bytes::new());
    assert!(f.stored.is_empty());
    assert_eq!(f.count(|m| matches!(m, ToWorker::Cancel { .. })), 0);
}

#[test]
fn a_checkpoint_that_takes_too_long_fails_the_attempt() {
    let mut f = Fixture::new(0);
    f.register(0);
    f.run(0, None);
    f.input(1000, Input::Tick);
    assert_eq!(f.machine.next_timeout(), Some(at(6000)));
    f.input(6000, Input::Tick);
    assert_eq!(f.count(|m| matches!(m, ToWorker::Cancel { .. })), 2);
}

#[test]
fn the_drain_ends_with_a_final_checkpoint_and_its_commit() {
    let mut f = Fixture::new(0);
    f.register(0);
    let g = f.run(0, None);
    f.input(10, Input::Bounds(vec![(0, 1), (1, 0), (2, 0)]));
    assert_eq!(f.count(|m| matches!(m, ToWorker::Bounds { .. })), 2);
    for (worker, task) in &TASKS[..2] {
        f.say(20, worker, ToCoordinator::Ended { generation: g, task: (*task).into() }, Bytes::new());
    }
    assert_eq!(f.count(|m| matches!(m, ToWorker::Trigger { n: 1, .. })), 2, "at once");
    f.ack_all(30, g, 1, Status::Ended);
    f.input(40, Input::Stored { n: 1, result: Ok(()) });
    assert!(!f.drained);
    for (worker, task) in TASKS {
        f.say(50, worker, ToCoordinator::Committed { generation: g, task: task.into(), n: 1 }, Bytes::new());
    }
    assert!(f.drained);
    assert!(f.probes.contains(&Probe::Drained { generation: g }));

    // A coordinator that died before it could note that: the next one only commits.
    let mut again = Fixture::new(g);
    again.machine.handle(at(0), Input::Bounds(vec![(0, 1)]));
    again.register(0);
    let checkpoint = f.stored.pop();
    again.run(0, checkpoint);
    let all_final = |m: &ToWorker| matches!(m, ToWorker::Deploy(d) if d.is_final && d.checkpoint == Some(1));
    assert_eq!(again.count(all_final), 2);
    assert!(again.drained);
    assert_eq!(again.count(|m| matches!(m, ToWorker::Trigger { .. })), 0);
}

#[test]
fn other_parallelism_is_refused() {
    let mut f = Fixture::new(0);
    f.register(0);
    let tasks = BTreeMap::from([("source-0".to_owned(), snapshot("source-0", Status::In))]);
    let checkpoint = Checkpoint { job: "j".into(), n: 3, generation: 1, key_groups: 128, tasks };
    let result = Ok(Preparation { checkpoint: Some(checkpoint), partitions: vec![(0, 0)] });
    f.input(0, Input::Prepared { generation: 1, result });
    assert!(matches!(f.probes.last(), Some(Probe::AttemptFailed { reason, .. }) if reason.contains("rescaling")));
}
