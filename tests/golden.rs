//! The processor's machines against the vectors computed by hand, which judge the model too (`models/tests/golden.rs`):
//! one source task, one window task, every step with all that follows from it before the next.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use env::clock::Instant;
use models::spec::{Function, WindowKind};
use models::vector::{Answer, Vector, VectorStep};
use processor::checkpoint::SplitState;
use processor::job::{Aggregate, Assigner, Format, JobConfig};
use processor::source::{self, Fetched, SourceMachine, SourceRecord};
use processor::watermark::{Change, Status, Watermark};
use processor::window::{self, Operator, WindowMachine};

const IDLE_AFTER_MS: u64 = 1_000;
const CHANNEL: &str = "source-0";

#[test]
fn the_processor_gives_the_answers_computed_by_hand() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 30, "{} vectors", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let vector = Vector::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        if let Err(e) = vector.check(&Player::new(&vector).play()) {
            wrong.push(format!("{}: {e}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct Player<'a> {
    vector: &'a Vector,
    job: JobConfig,
    source: SourceMachine,
    window: WindowMachine,
    next: BTreeMap<i32, i64>,
    now_ms: u64,
    answer: Answer,
}

impl<'a> Player<'a> {
    fn new(vector: &'a Vector) -> Player<'a> {
        let job = config(vector);
        let new = |partition| SplitState { partition, position: 0, watermark: Watermark::MIN, status: Status::New };
        let splits: Vec<SplitState> = (0..vector.splits).map(new).collect();
        let groups: Vec<u32> = (0..job.parallelism.key_groups).collect();
        let operator = Operator::new(&job.window, job.parallelism.key_groups);
        Player {
            vector,
            source: SourceMachine::new(&job, &splits, Watermark::MIN),
            window: WindowMachine::new(operator, &[CHANNEL.to_owned()], &groups),
            job,
            next: BTreeMap::new(),
            now_ms: 0,
            answer: Answer::default(),
        }
    }

    fn play(mut self) -> Answer {
        for step in &self.vector.steps {
            match step {
                VectorStep::Record { split, .. } => {
                    let next = self.next.entry(*split).or_insert(0);
                    let offset = *next;
                    *next += 1;
                    let value = step.bytes().map(Bytes::from);
                    let records = vec![SourceRecord { offset, key: None, value }];
                    self.fetched(*split, Fetched::Records { records, position: offset + 1 });
                }
                VectorStep::Idle(split) => {
                    for _ in 0..2 {
                        let position = self.next.get(split).copied().unwrap_or(0);
                        let (sent, arrived) = (self.now(), self.now());
                        self.fetched(*split, Fetched::Empty { position, at_end: true, sent, arrived });
                        self.now_ms += IDLE_AFTER_MS;
                    }
                }
                VectorStep::End(split) => {
                    let position = self.next.get(split).copied().unwrap_or(0);
                    let actions = self.source.bound(self.now(), &[(*split, position)]);
                    self.carry_out(actions);
                }
                VectorStep::Restart => self.restart(),
                VectorStep::Expect { .. } => {
                    let w = models::Watermark(self.window.watermark().as_ms());
                    self.answer.seen.push((w, self.answer.rows.len()));
                }
            }
        }
        self.answer
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.now_ms * 1_000_000)
    }

    fn fetched(&mut self, split: i32, fetched: Fetched) {
        let actions = self.source.fetched(self.now(), split, fetched);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<source::Action>) {
        for action in actions {
            let followed = match action {
                source::Action::Send { records, .. } => self.window.records(records),
                source::Action::Tell(change) => self.tell(change),
                source::Action::DeadLetter { partition, record, reason } => {
                    self.answer.dead.push((partition, record.offset, reason.reason().to_owned()));
                    continue;
                }
                source::Action::Decide(_) | source::Action::Stop { .. } => continue,
            };
            for action in followed {
                match action {
                    window::Action::Emit(row) => self.answer.rows.push(row.to_json(&self.job.aggregates)),
                    window::Action::Late(record) => self.answer.late.push((record.partition, record.offset)),
                    window::Action::Decide(_) => {}
                }
            }
        }
    }

    fn tell(&mut self, change: Change) -> Vec<window::Action> {
        self.window.change(&CHANNEL.to_owned(), change, self.now_ms)
    }

    /// Everything through its checkpoint.
    fn restart(&mut self) {
        let groups: Vec<u32> = (0..self.job.parallelism.key_groups).collect();
        let operator = Operator::new(&self.job.window, self.job.parallelism.key_groups);
        let stored: BTreeMap<u32, Bytes> = self.window.snapshot().into_iter().collect();
        self.window = WindowMachine::restore(operator, &[CHANNEL.to_owned()], &groups, &stored).unwrap();
        self.source = SourceMachine::new(&self.job, &self.source.snapshot(), self.source.watermark());
    }
}

fn config(vector: &Vector) -> JobConfig {
    let spec = vector.job();
    let mut job = JobConfig::new("vector", "in", "out");
    job.source.key = spec.source.key;
    job.source.event_time = spec.source.event_time;
    job.source.value = spec.source.value;
    job.source.format = match spec.source.columns {
        Some(columns) => Format::Csv { columns },
        None => Format::Json,
    };
    job.watermark.out_of_orderness_ms = spec.watermark.out_of_orderness_ms;
    job.watermark.idle_after_ms = Some(IDLE_AFTER_MS);
    let WindowKind::Tumbling { size_ms, offset_ms } = spec.window.kind;
    job.window.assigner = Assigner::Tumbling { size_ms, offset_ms };
    job.window.allowed_lateness_ms = spec.window.allowed_lateness_ms;
    job.aggregates = spec
        .aggregate
        .iter()
        .map(|function| match function {
            Function::Count => Aggregate::Count,
            Function::Sum => Aggregate::Sum,
            Function::Min => Aggregate::Min,
            Function::Max => Aggregate::Max,
            Function::Digest => Aggregate::Digest,
        })
        .collect();
    job.parallelism.source_tasks = 1;
    job.parallelism.window_tasks = 1;
    job
}
