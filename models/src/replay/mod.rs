//! The replay (rule 22): what a job must have done, recomputed from the input log and from its own decisions.
//!
//! A decision log tells the interleaving, which rules leave open; everything else follows. [`replay`] walks every
//! attempt's tasks, sources first, and recomputes each split's W from the log, each point's W from its inputs, each
//! record's class, each row. Where a decision contradicts what follows from the log and from the decisions before it,
//! that is a [`Problem`]. The committed chain of epochs says which of it counts; who worked that out from the log's
//! markers is the caller.
//!
//! Left to the caller: time (when a split may be called idle), the outputs on the topics, and the chain itself.

mod point;
mod source;
mod split;
mod window_state;
mod window_task;

use std::collections::{BTreeMap, BTreeSet};

pub use point::{Point, PointInput, Step};
pub use split::{SplitLog, SplitLogs, SplitRecord};
pub use window_state::{Judged, Windows};

use crate::JobSpec;
use crate::decision::{Change, Decision, DecisionEntry, Input, InputState, InputStatus};
use crate::row::Row;
use crate::time::Watermark;
use crate::window::Class;

/// One epoch whose transactions committed, and the attempt that they belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Committed {
    pub n: u64,
    pub generation: u64,
}

/// What follows from the log, the decisions and the chain.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// Records judged in committed epochs.
    pub judged: Vec<JudgedRecord>,
    /// Rows fired in committed epochs, with the contents that they must have.
    pub rows: Vec<Row>,
    /// Records that are late in committed epochs: (partition, offset).
    pub late: BTreeSet<(i32, i64)>,
    /// Next offset of each split at the last committed epoch.
    pub positions: BTreeMap<i32, i64>,
    pub problems: Vec<Problem>,
    /// What each task of each attempt was like after each of its decisions.
    pub tasks: BTreeMap<(u64, String), TaskTrace>,
}

/// W(r) and n(r) of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedRecord {
    pub partition: i32,
    pub offset: i64,
    pub n: u64,
    pub watermark: Watermark,
    pub class: Class,
    /// Index of the Judge among the decisions given.
    pub entry: usize,
}

/// A decision that does not follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Of the semantics page: `22a`, say.
    pub rule: &'static str,
    pub message: String,
    /// The task and the decision.
    pub witness: String,
    /// The input record concerned, if one is.
    pub record: Option<(i32, i64)>,
    /// Index among the decisions given.
    pub entry: Option<usize>,
}

/// A task's combining point after each change.
#[derive(Debug, Clone, Default)]
pub struct TaskTrace {
    /// (index of the decision, the point after it).
    pub points: Vec<(usize, Point)>,
    /// What the point told the next ones: (index of the decision that caused it, change).
    pub outputs: Vec<(usize, Change)>,
    /// Next offsets by epoch (source tasks).
    barrier_positions: BTreeMap<u64, BTreeMap<i32, i64>>,
    /// Outputs sent before each Barrier.
    barrier_outputs: BTreeMap<u64, usize>,
    /// After each output, per split, the offset below which everything is covered by it (source tasks).
    covered: Vec<BTreeMap<i32, i64>>,
}

/// Recomputes the run. `decisions` may be in any order; those of an attempt that lacks its beginning are reported.
pub fn replay(job: &JobSpec, splits: &SplitLogs, decisions: &[DecisionEntry], chain: &[Committed]) -> Replay {
    let mut attempts: BTreeMap<u64, BTreeMap<&str, Vec<usize>>> = BTreeMap::new();
    for (i, entry) in decisions.iter().enumerate() {
        attempts.entry(entry.generation).or_default().entry(&entry.task).or_default().push(i);
    }
    let mut walk = Walk { job, splits, decisions, chain, snapshots: BTreeMap::new(), out: Replay::default() };
    let groups = walk.key_groups();
    for (generation, tasks) in attempts {
        let (sources, windows): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|(task, _)| task.starts_with("source-"));
        for (task, mut entries) in sources.iter().cloned() {
            walk.in_order(generation, task, &mut entries);
            let trace = source::walk(&mut walk, generation, task, &entries);
            walk.out.tasks.insert((generation, task.to_owned()), trace);
        }
        walk.every_split_has_one_reader(generation, &sources);
        for (task, mut entries) in windows {
            walk.in_order(generation, task, &mut entries);
            let trace = window_task::walk(&mut walk, generation, task, &entries, groups);
            walk.out.tasks.insert((generation, task.to_owned()), trace);
        }
    }
    walk.all_is_judged();
    walk.out
}

/// State of a task at a Barrier.
#[derive(Debug, Clone)]
struct Snapshot {
    generation: u64,
    point: Point,
    positions: BTreeMap<i32, i64>,
    windows: Windows,
}

struct Walk<'a> {
    job: &'a JobSpec,
    splits: &'a SplitLogs,
    decisions: &'a [DecisionEntry],
    chain: &'a [Committed],
    /// By (task, n): of the attempt that committed n where one did, else of the latest that passed Barrier n.
    snapshots: BTreeMap<(String, u64), Snapshot>,
    out: Replay,
}

impl<'a> Walk<'a> {
    fn problem(&mut self, rule: &'static str, entry: usize, record: Option<(i32, i64)>, message: impl Into<String>) {
        let at = &self.decisions[entry];
        let witness = format!("generation {} {} seq {}: {:?}", at.generation, at.task, at.seq, at.decision);
        self.out.problems.push(Problem { rule, message: message.into(), witness, record, entry: Some(entry) });
    }

    fn is_committed(&self, n: u64, generation: u64) -> bool {
        self.chain.contains(&Committed { n, generation })
    }

    /// How many key groups the job has, from the Opens of its window tasks.
    fn key_groups(&self) -> u32 {
        let opens = self.decisions.iter().filter_map(|e| match &e.decision {
            Decision::Open { key_groups, .. } => key_groups.iter().map(|(kg, _)| kg + 1).max(),
            _ => None,
        });
        opens.max().unwrap_or(1)
    }

    /// Sorts a task's decisions; each `seq` once from 0, Open first and only there.
    fn in_order(&mut self, generation: u64, task: &str, entries: &mut Vec<usize>) {
        entries.sort_by_key(|i| self.decisions[*i].seq);
        let mut wrong = None;
        for (k, i) in entries.iter().enumerate() {
            let entry = &self.decisions[*i];
            let opens = matches!(entry.decision, Decision::Open { .. });
            if entry.seq != k as u64 {
                wrong = Some((k, *i, format!("expected decision {k} of {task} in generation {generation}")));
                break;
            }
            if opens != (k == 0) {
                wrong = Some((k, *i, "an attempt of a task opens once, first of all".to_owned()));
                break;
            }
        }
        if let Some((k, i, message)) = wrong {
            self.problem("22", i, None, message);
            entries.truncate(k);
        }
    }

    /// The n that an Open of this attempt must name: the last committed before it.
    fn last_committed_before(&self, generation: u64) -> Option<u64> {
        self.chain.iter().filter(|c| c.generation < generation).map(|c| c.n).max()
    }

    /// Checks an Open against the checkpoint that it names and returns what the task starts from.
    fn open(&mut self, i: usize) -> Option<Snapshot> {
        let entry = &self.decisions[i];
        let Decision::Open { checkpoint, watermark, inputs, key_groups } = &entry.decision else { return None };
        let (task, generation) = (entry.task.clone(), entry.generation);
        let last = self.last_committed_before(generation);
        if *checkpoint != last {
            self.problem(
                "22",
                i,
                None,
                format!("opens from checkpoint {checkpoint:?}, the last committed is {last:?}"),
            );
        }
        let stated = Point::new(*watermark, inputs.iter().map(|s| (s.input.clone(), stated_input(s))).collect());
        let positions: BTreeMap<i32, i64> = inputs
            .iter()
            .filter_map(|s| match s.input {
                Input::Split(p) => Some((p, s.position.unwrap_or(0))),
                Input::Channel(_) => None,
            })
            .collect();
        let Some(n) = checkpoint else {
            let fresh = inputs.iter().all(|s| stated_input(s) == PointInput::NEW) && *watermark == Watermark::MIN;
            if !fresh || key_groups.iter().any(|(_, w)| *w != Watermark::MIN) {
                self.problem("22a", i, None, "a fresh start is not at MIN with new inputs");
            }
            return Some(Snapshot { generation, point: stated, positions, windows: Windows::default() });
        };
        let Some(saved) = self.snapshots.get(&(task, *n)).cloned() else {
            self.problem("22a", i, None, format!("no Barrier {n} of this task is known"));
            return Some(Snapshot { generation, point: stated, positions, windows: Windows::default() });
        };
        if stated != saved.point {
            let message = format!("opens with {}, checkpoint {n} has {}", shown(&stated), shown(&saved.point));
            self.problem("22a", i, None, message);
        }
        if let Some((kg, w)) = key_groups.iter().find(|(_, w)| *w != saved.point.watermark) {
            let message = format!("key group {kg} opens at W {w}, checkpoint {n} has {}", saved.point.watermark);
            self.problem("22a", i, None, message);
        }
        if !positions.is_empty() && positions != saved.positions {
            let message = format!("opens at {positions:?}, checkpoint {n} has {:?}", saved.positions);
            self.problem("22a", i, None, message);
        }
        // Go on from what the task says it has: one lie is one problem.
        let positions = if positions.is_empty() { saved.positions.clone() } else { positions };
        Some(Snapshot { point: stated, positions, ..saved })
    }

    fn save(&mut self, task: &str, n: u64, snapshot: Snapshot) {
        let slot = (task.to_owned(), n);
        let keep = self.snapshots.get(&slot).is_some_and(|old| self.is_committed(n, old.generation));
        if !keep {
            self.snapshots.insert(slot, snapshot);
        }
    }

    fn every_split_has_one_reader(&mut self, generation: u64, sources: &[(&str, Vec<usize>)]) {
        let mut readers: BTreeMap<i32, usize> = BTreeMap::new();
        let mut first = None;
        for entry in sources.iter().filter_map(|(_, entries)| entries.iter().find(|i| self.decisions[**i].seq == 0)) {
            first = first.or(Some(*entry));
            if let Decision::Open { inputs, .. } = &self.decisions[*entry].decision {
                for input in inputs {
                    if let Input::Split(p) = input.input {
                        *readers.entry(p).or_default() += 1;
                    }
                }
            }
        }
        let Some(first) = first else { return };
        if let Some((p, count)) = readers.iter().find(|(_, count)| **count > 1) {
            let message = format!("split {p} has {count} readers in generation {generation}");
            self.problem("22a", first, None, message);
        }
        // An attempt may have died before each of its source tasks opened; one that committed has not.
        if self.chain.iter().any(|c| c.generation == generation)
            && let Some(p) = self.splits.keys().find(|p| !readers.contains_key(p))
        {
            let message = format!("split {p} has no reader in generation {generation}");
            self.problem("22a", first, None, message);
        }
    }

    /// Each valid record below the last committed positions is judged once.
    fn all_is_judged(&mut self) {
        let mut judged: Vec<((i32, i64), usize)> =
            self.out.judged.iter().map(|r| ((r.partition, r.offset), r.entry)).collect();
        judged.sort_unstable();
        for pair in judged.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            self.problem("22", pair[1].1, Some(pair[1].0), "judged in two committed epochs");
        }
        for (partition, position) in self.out.positions.clone() {
            let Some(log) = self.splits.get(&partition) else { continue };
            for record in log.range(0, position - 1) {
                if record.decoded.is_ok()
                    && judged.binary_search_by_key(&(partition, record.offset), |(place, _)| *place).is_err()
                {
                    self.out.problems.push(Problem {
                        rule: "22",
                        message: "never judged in a committed epoch, though below its positions".into(),
                        witness: format!("partition {partition} offset {}, position {position}", record.offset),
                        record: Some((partition, record.offset)),
                        entry: None,
                    });
                }
            }
        }
    }
}

fn stated_input(state: &InputState) -> PointInput {
    PointInput { watermark: state.watermark, status: state.status }
}

fn shown(point: &Point) -> String {
    let inputs: Vec<String> = point
        .inputs
        .iter()
        .map(|(input, state)| {
            let name = match input {
                Input::Split(p) => format!("split {p}"),
                Input::Channel(task) => task.clone(),
            };
            let status = match state.status {
                InputStatus::New => "new",
                InputStatus::Idle => "idle",
                InputStatus::Behind => "behind",
                InputStatus::In => "in",
                InputStatus::Ended => "ended",
            };
            format!("{name} {} {status}", state.watermark)
        })
        .collect();
    format!("W {} ({})", point.watermark, inputs.join(", "))
}
