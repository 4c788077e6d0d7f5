//! The source machine: what one source task makes of what it fetched.
//!
//! Guarantees: a position covers exactly what was handed on or dead-lettered, so a snapshot between two calls is exact
//! (nothing is read past a barrier); a record is handed on before the W that it causes (rule 3); an idle split is
//! Active again before its first record; a bounded split ends exactly at its bound (rule 6).
//!
//! Records come in chunks of one split: W moves after a chunk, not after a record, so emission may lag rule 2's value
//! but never leads it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use env::clock::Instant;

use crate::checkpoint::SplitState;
use crate::decision::{Decision, InputId, OpenInput};
use crate::decode::{BadRecord, Decoder};
use crate::job::JobConfig;
use crate::keys;
use crate::record::Record;
use crate::watermark::{Change, CombiningPoint, Fetch, Generator, IdleDetector, Input, Status, Watermark};

/// A record as the log holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceRecord {
    pub offset: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
}

/// What one fetch, or one chunk of it, brought for one split.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fetched {
    /// Records in offset order; `position` is the next offset to read after them (it may lie beyond the last record by
    /// control records and aborted ones).
    Records {
        records: Vec<SourceRecord>,
        position: i64,
    },
    /// No record. `at_end`: `position` is the end of readable data and no transaction is open there.
    Empty {
        position: i64,
        at_end: bool,
        sent: Instant,
        arrived: Instant,
    },
    Failed,
}

/// What the driver has to do, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Decide(Decision),
    /// To one window task.
    Send {
        window: u32,
        records: Vec<Record>,
    },
    DeadLetter {
        partition: i32,
        record: SourceRecord,
        reason: BadRecord,
    },
    /// To every window task.
    Tell(Change),
    /// Nothing more of this split is wanted.
    Stop {
        partition: i32,
    },
}

#[derive(Debug)]
struct Split {
    position: i64,
    generator: Generator,
    idle: IdleDetector,
    /// Exclusive, once the coordinator fixed it.
    bound: Option<i64>,
}

#[derive(Debug)]
pub struct SourceMachine {
    decoder: Decoder,
    window_tasks: u32,
    key_groups: u32,
    splits: BTreeMap<i32, Split>,
    point: CombiningPoint<i32>,
    actions: Vec<Action>,
}

impl SourceMachine {
    /// A task over `splits` as a checkpoint held them (or new, at their first offset), whose W was `watermark`.
    pub fn new(job: &JobConfig, splits: &[SplitState], watermark: Watermark) -> Self {
        let idle = IdleDetector::new(job.idle_after(), job.fetch_timeout());
        let split = |s: &SplitState| {
            let generator = Generator::new(job.watermark.out_of_orderness_ms, s.watermark);
            (s.partition, Split { position: s.position, generator, idle: idle.clone(), bound: None })
        };
        let input = |s: &SplitState| (s.partition, Input { watermark: s.watermark, status: s.status });
        Self {
            decoder: Decoder::new(&job.source),
            window_tasks: job.parallelism.window_tasks,
            key_groups: job.parallelism.key_groups,
            splits: splits.iter().map(split).collect(),
            point: CombiningPoint::new(splits.iter().map(input), watermark),
            actions: Vec::new(),
        }
    }

    pub fn watermark(&self) -> Watermark {
        self.point.watermark()
    }

    pub fn is_ended(&self) -> bool {
        self.point.is_ended()
    }

    /// Where reading goes on: the splits that have not ended.
    pub fn assignment(&self) -> Vec<(i32, i64)> {
        self.splits.iter().filter(|(p, _)| !self.has_ended(**p)).map(|(p, s)| (*p, s.position)).collect()
    }

    pub fn open(&self, checkpoint: Option<u64>) -> Decision {
        let input = |s: SplitState| OpenInput {
            input: InputId::Split(s.partition),
            watermark: s.watermark,
            status: s.status,
            position: Some(s.position),
        };
        Decision::Open {
            checkpoint,
            watermark: self.point.watermark(),
            inputs: self.snapshot().into_iter().map(input).collect(),
            key_groups: Vec::new(),
        }
    }

    /// Every split, now.
    pub fn snapshot(&self) -> Vec<SplitState> {
        let state = |(p, s): (&i32, &Split)| {
            let input = self.point.input(p).unwrap_or(Input::NEW);
            SplitState { partition: *p, position: s.position, watermark: input.watermark, status: input.status }
        };
        self.splits.iter().map(state).collect()
    }

    /// Fixes where splits end (exclusive). A split already there ends now.
    pub fn bound(&mut self, now: Instant, bounds: &[(i32, i64)]) -> Vec<Action> {
        for (partition, bound) in bounds {
            if let Some(split) = self.splits.get_mut(partition) {
                split.bound = Some(*bound);
                self.end_at_bound(now, *partition);
            }
        }
        std::mem::take(&mut self.actions)
    }

    /// Takes what a fetch brought for one split.
    pub fn fetched(&mut self, now: Instant, partition: i32, fetched: Fetched) -> Vec<Action> {
        if !self.splits.contains_key(&partition) || self.has_ended(partition) {
            return Vec::new();
        }
        match fetched {
            Fetched::Records { records, position } => self.records(now, partition, records, position),
            Fetched::Empty { position, at_end, sent, arrived } => {
                self.empty(now, partition, position, at_end, sent, arrived);
            }
            Fetched::Failed => self.observe(now, partition, Fetch::Other),
        }
        self.end_at_bound(now, partition);
        std::mem::take(&mut self.actions)
    }

    fn records(&mut self, now: Instant, partition: i32, records: Vec<SourceRecord>, position: i64) {
        self.observe(now, partition, Fetch::Other);
        let Some(split) = self.splits.get(&partition) else { return };
        let end = split.bound.unwrap_or(i64::MAX);
        // A fetch may hand out whole batches: what lies before the position was read by the attempt before.
        let wanted = split.position..end;
        let records: Vec<SourceRecord> = records.into_iter().filter(|r| wanted.contains(&r.offset)).collect();
        if !records.is_empty() && self.status(partition) == Status::Idle {
            self.advance(now, partition, wanted.start, Change::Active);
        }
        let mut covered = None;
        let mut shuffled: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        for record in records {
            covered = Some(record.offset);
            match self.decoder.decode(record.value.as_ref()) {
                Ok(decoded) => {
                    if let Some(split) = self.splits.get_mut(&partition) {
                        split.generator.observe(decoded.event_time_ms);
                    }
                    let kg = keys::key_group(&decoded.key, self.key_groups);
                    let window = keys::window_task(kg, self.window_tasks, self.key_groups);
                    shuffled.entry(window).or_default().push(Record {
                        partition,
                        offset: record.offset,
                        event_time_ms: decoded.event_time_ms,
                        key: decoded.key,
                        value: decoded.value,
                        raw_key: record.key,
                        raw_value: record.value,
                    });
                }
                Err(reason) => self.actions.push(Action::DeadLetter { partition, record, reason }),
            }
        }
        self.actions.extend(shuffled.into_iter().map(|(window, records)| Action::Send { window, records }));
        let Some(split) = self.splits.get_mut(&partition) else { return };
        split.position = split.position.max(position.min(end));
        let watermark = split.generator.watermark();
        if let Some(offset) = covered
            && self.point.input(&partition).is_some_and(|i| watermark > i.watermark)
        {
            self.advance(now, partition, offset, Change::Watermark(watermark));
        }
    }

    fn empty(&mut self, now: Instant, partition: i32, position: i64, at_end: bool, sent: Instant, arrived: Instant) {
        let Some(split) = self.splits.get_mut(&partition) else { return };
        let end = split.bound.unwrap_or(i64::MAX);
        let moved = position != split.position;
        split.position = split.position.max(position.min(end));
        let fetch = if at_end && !moved { Fetch::EmptyAtEnd { sent, arrived } } else { Fetch::Other };
        self.observe(now, partition, fetch);
    }

    fn observe(&mut self, now: Instant, partition: i32, fetch: Fetch) {
        let Some(split) = self.splits.get_mut(&partition) else { return };
        let (idle, position) = (split.idle.observe(now, fetch), split.position);
        if idle && !matches!(self.status(partition), Status::Idle | Status::Ended) {
            env::sometimes!(true, "a split became idle");
            self.advance(now, partition, position, Change::Idle);
        }
    }

    fn end_at_bound(&mut self, now: Instant, partition: i32) {
        let Some(split) = self.splits.get(&partition) else { return };
        let position = split.position;
        if split.bound.is_some_and(|bound| position >= bound) && !self.has_ended(partition) {
            self.advance(now, partition, position, Change::End);
            self.actions.push(Action::Stop { partition });
        }
    }

    /// A split's own event, and what the task has to tell because of it.
    fn advance(&mut self, now: Instant, partition: i32, offset: i64, change: Change) {
        let time_ms = Duration::from_nanos(now.as_nanos()).as_millis() as u64;
        let input = InputId::Split(partition);
        self.actions.push(Action::Decide(Decision::Advance { input, offset: Some(offset), change, time_ms }));
        let before = self.point.watermark();
        let told = self.point.handle(&partition, change);
        assert!(self.point.watermark() >= before, "watermark fell below {before}");
        self.actions.extend(told.into_iter().map(Action::Tell));
    }

    fn status(&self, partition: i32) -> Status {
        self.point.input(&partition).map_or(Status::Ended, |i| i.status)
    }

    fn has_ended(&self, partition: i32) -> bool {
        self.status(partition) == Status::Ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobConfig {
        let mut job = JobConfig::new("j", "in", "out");
        job.watermark.out_of_orderness_ms = 5;
        job.watermark.idle_after_ms = Some(1000);
        job.parallelism.window_tasks = 1;
        job
    }

    fn new_split(partition: i32) -> SplitState {
        SplitState { partition, position: 0, watermark: Watermark::MIN, status: Status::New }
    }

    fn record(offset: i64, t: i64) -> SourceRecord {
        let value = format!(r#"{{"key":"k","t":{t},"value":1}}"#);
        SourceRecord { offset, key: None, value: Some(value.into()) }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn take(m: &mut SourceMachine, p: i32, records: Vec<SourceRecord>) -> Vec<Action> {
        let position = records.last().map_or(0, |r| r.offset + 1);
        m.fetched(at(0), p, Fetched::Records { records, position })
    }

    fn empty(m: &mut SourceMachine, p: i32, position: i64, ms: u64) -> Vec<Action> {
        m.fetched(at(ms), p, Fetched::Empty { position, at_end: true, sent: at(ms), arrived: at(ms) })
    }

    fn told(actions: &[Action]) -> Vec<Change> {
        actions.iter().filter_map(|a| if let Action::Tell(c) = a { Some(*c) } else { None }).collect()
    }

    #[test]
    fn records_go_before_the_watermark_they_cause() {
        let mut m = SourceMachine::new(&job(), &[new_split(0)], Watermark::MIN);
        let a = take(&mut m, 0, vec![record(0, 100), record(1, 50)]);
        assert!(matches!(&a[0], Action::Send { window: 0, records } if records.len() == 2));
        let w = Change::Watermark(Watermark::from_ms(94));
        assert!(matches!(&a[1], Action::Decide(Decision::Advance { offset: Some(1), change, .. }) if *change == w));
        assert_eq!(a[2], Action::Tell(w));
        assert_eq!(m.snapshot()[0].position, 2);
    }

    #[test]
    fn bad_records_move_the_position_and_nothing_else() {
        let mut m = SourceMachine::new(&job(), &[new_split(0)], Watermark::MIN);
        let bad = SourceRecord { offset: 0, key: None, value: Some("{".into()) };
        let a = take(&mut m, 0, vec![bad]);
        assert_eq!(a.len(), 1);
        assert!(matches!(a[0], Action::DeadLetter { .. }));
        let s = m.snapshot()[0];
        assert_eq!((s.position, s.watermark, s.status), (1, Watermark::MIN, Status::New));
    }

    #[test]
    fn what_lies_before_the_position_is_not_read_again() {
        let split = SplitState { position: 5, ..new_split(0) };
        let mut m = SourceMachine::new(&job(), &[split], Watermark::MIN);
        let a = take(&mut m, 0, (3..7).map(|o| record(o, o)).collect());
        assert!(matches!(&a[0], Action::Send { records, .. } if records[0].offset == 5 && records.len() == 2));
    }

    #[test]
    fn an_idle_split_says_active_before_its_first_record() {
        let mut m = SourceMachine::new(&job(), &[new_split(0), new_split(1)], Watermark::MIN);
        take(&mut m, 0, vec![record(0, 100)]);
        assert_eq!(told(&empty(&mut m, 1, 0, 0)), []);
        assert_eq!(told(&empty(&mut m, 1, 0, 1000)), [Change::Watermark(Watermark::from_ms(94))]);
        assert_eq!(m.snapshot()[1].status, Status::Idle);
        let a = take(&mut m, 1, vec![record(0, 20)]);
        assert!(matches!(&a[0], Action::Decide(Decision::Advance { change: Change::Active, offset: Some(0), .. })));
        assert!(matches!(&a[1], Action::Send { .. }));
        assert_eq!(m.snapshot()[1].status, Status::Behind);
        let a = take(&mut m, 1, vec![record(1, 200)]);
        assert_eq!(told(&a), [], "it rejoins at 194, the minimum stays 94");
        assert_eq!(m.snapshot()[1].status, Status::In);
    }

    #[test]
    fn control_records_and_open_transactions_are_not_silence() {
        let mut m = SourceMachine::new(&job(), &[new_split(0)], Watermark::MIN);
        empty(&mut m, 0, 0, 0);
        assert_eq!(told(&empty(&mut m, 0, 1, 1500)), [], "the position moved over a marker");
        empty(&mut m, 0, 1, 1600);
        let open = Fetched::Empty { position: 1, at_end: false, sent: at(2700), arrived: at(2700) };
        assert_eq!(m.fetched(at(2700), 0, open), []);
        assert_eq!(told(&empty(&mut m, 0, 1, 2800)), []);
        assert_eq!(told(&empty(&mut m, 0, 1, 3800)), [Change::Idle]);
    }

    #[test]
    fn a_bounded_split_ends_exactly_at_its_bound() {
        let mut m = SourceMachine::new(&job(), &[new_split(0), new_split(1)], Watermark::MIN);
        take(&mut m, 0, vec![record(0, 1), record(1, 2)]);
        assert_eq!(told(&m.bound(at(0), &[(0, 3), (1, 0)])), [Change::Watermark(Watermark::from_ms(-4))]);
        assert_eq!(m.assignment(), [(0, 2)]);
        let a = take(&mut m, 0, vec![record(2, 3), record(3, 4)]);
        assert!(matches!(&a[0], Action::Send { records, .. } if records.len() == 1));
        assert_eq!(told(&a), [Change::Watermark(Watermark::from_ms(-3)), Change::End]);
        assert!(matches!(a.last(), Some(Action::Stop { partition: 0 })));
        assert!(m.is_ended());
        assert_eq!(m.snapshot()[0].position, 3);
        assert_eq!(take(&mut m, 0, vec![record(3, 4)]), []);
    }

    #[test]
    fn a_restored_task_goes_on_as_if_nothing_happened() {
        let mut a = SourceMachine::new(&job(), &[new_split(0), new_split(1)], Watermark::MIN);
        take(&mut a, 0, vec![record(0, 100)]);
        empty(&mut a, 1, 0, 0);
        empty(&mut a, 1, 0, 1000);
        let mut b = SourceMachine::new(&job(), &a.snapshot(), a.watermark());
        for p in [1, 0] {
            let records = vec![record(1, 90), record(2, 300)];
            assert_eq!(take(&mut a, p, records.clone()), take(&mut b, p, records));
        }
        assert_eq!(a.snapshot(), b.snapshot());
    }
}
