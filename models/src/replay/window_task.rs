//! One attempt of one window task: its channels against their senders, its judgements, its rows.

use std::collections::{BTreeMap, VecDeque};

use super::source::{barrier_follows, start};
use super::{JudgedRecord, Snapshot, TaskTrace, Walk};
use crate::decision::{Change, Decision, Input};
use crate::partition::key_group;
use crate::row::Row;
use crate::window::Class;

/// What must come next, before anything else.
#[derive(Debug, Clone)]
enum Due {
    Late(i32, i64),
    Fire(Row),
}

/// A split's records of this task, and which of them are judged.
struct Own {
    offsets: Vec<i64>,
    judged: Vec<bool>,
    /// All before this index are judged.
    prefix: usize,
    highest: Option<i64>,
}

impl Own {
    /// The first offset not judged yet, if it is below `bound`.
    fn missing_below(&self, bound: i64) -> Option<i64> {
        self.offsets.get(self.prefix).copied().filter(|offset| *offset < bound)
    }

    /// False if it was judged before, or is not this task's.
    fn judge(&mut self, offset: i64) -> bool {
        let Ok(at) = self.offsets.binary_search(&offset) else { return false };
        if std::mem::replace(&mut self.judged[at], true) {
            return false;
        }
        while self.judged.get(self.prefix) == Some(&true) {
            self.prefix += 1;
        }
        self.highest = self.highest.max(Some(offset));
        true
    }
}

pub(super) fn walk(walk: &mut Walk<'_>, generation: u64, task: &str, entries: &[usize], groups: u32) -> TaskTrace {
    let mut trace = TaskTrace::default();
    let Some((first, rest)) = entries.split_first() else { return trace };
    let Decision::Open { key_groups, .. } = &walk.decisions[*first].decision else { return trace };
    let mut mine = vec![false; groups as usize];
    for (kg, _) in key_groups {
        mine[*kg as usize] = true;
    }
    let mut n = start(walk, *first) + 1;
    let Some(Snapshot { mut point, positions, mut windows, .. }) = walk.open(*first) else { return trace };
    trace.points.push((*first, point.clone()));
    let mut own = own_records(walk, &mine, groups, &positions);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut due: VecDeque<Due> = VecDeque::new();
    let mut last_n = n - 1;
    for &i in rest {
        let committed = walk.is_committed(n, generation);
        let decision = &walk.decisions[i].decision;
        if !matches!(decision, Decision::Late { .. } | Decision::Fire { .. })
            && let Some(missed) = due.pop_front()
        {
            let (message, record) = match missed {
                Due::Late(p, o) => (format!("late record {o} of split {p} is not reported before this"), Some((p, o))),
                Due::Fire(row) => (format!("{row} does not fire before this"), None),
            };
            walk.problem("22c", i, record, message);
            due.clear();
        }
        match decision {
            Decision::Advance { input, change, .. } => {
                let Input::Channel(sender) = input else {
                    walk.problem("22", i, None, "a window task has no splits");
                    continue;
                };
                channel_follows(walk, generation, i, sender, *change, &mut seen, &own);
                let before = point.watermark;
                if let Some(problem) = point.advance(input, *change).problem {
                    walk.problem("22a", i, None, problem);
                }
                for row in windows.advance(walk.job, before, point.watermark) {
                    if committed {
                        walk.out.rows.push(row.clone());
                    }
                    due.push_back(Due::Fire(row));
                }
                trace.points.push((i, point.clone()));
            }
            Decision::Judge { partition, offsets: [from, to], key_group: kg } => {
                let log = walk.splits.get(partition);
                let mut any = false;
                for record in log.map_or(&[][..], |log| log.range(*from, *to)) {
                    let Ok(event) = &record.decoded else { continue };
                    if key_group(event.key.as_bytes(), groups) != *kg {
                        continue;
                    }
                    any = true;
                    let place = (*partition, record.offset);
                    if !own.get_mut(partition).is_some_and(|own| own.judge(record.offset)) {
                        walk.problem("22", i, Some(place), "judged twice, or by a task that it does not belong to");
                        continue;
                    }
                    let judged = windows.judge(walk.job, groups, place, event, point.watermark);
                    if judged.class == Class::Late {
                        due.push_back(Due::Late(place.0, place.1));
                    }
                    if let Some(row) = judged.fired {
                        if committed {
                            walk.out.rows.push(row.clone());
                        }
                        due.push_back(Due::Fire(row));
                    }
                    if committed {
                        if judged.class == Class::Late {
                            walk.out.late.insert(place);
                        }
                        walk.out.judged.push(JudgedRecord {
                            partition: place.0,
                            offset: place.1,
                            n,
                            watermark: point.watermark,
                            class: judged.class,
                            entry: i,
                        });
                    }
                }
                if !any {
                    walk.problem(
                        "22",
                        i,
                        Some((*partition, *from)),
                        "judges no valid committed record of that key group",
                    );
                }
            }
            Decision::Late { partition, offset } => match due.pop_front() {
                Some(Due::Late(p, o)) if (p, o) == (*partition, *offset) => {}
                other => {
                    let message = format!("record {offset} of split {partition} is not late here{}", instead(&other));
                    walk.problem("22a", i, Some((*partition, *offset)), message);
                    due.clear();
                }
            },
            Decision::Fire { key, start, end, pane, op } => match due.pop_front() {
                Some(Due::Fire(row))
                    if row.key == *key
                        && (row.window_start, row.window_end) == (*start, *end)
                        && (row.pane, row.op) == (*pane, *op) => {}
                other => {
                    let message = format!(
                        "{key:?} [{start}, {end}) pane {pane} {} must not fire here{}",
                        op.as_str(),
                        instead(&other)
                    );
                    walk.problem("22c", i, None, message);
                    due.clear();
                }
            },
            Decision::Barrier { n: stated, .. } => {
                barrier_follows(walk, i, *stated, &mut last_n);
                n = *stated;
                let positions = barrier_cut(walk, generation, i, n, &seen, &own);
                walk.save(task, n, Snapshot { generation, point: point.clone(), positions, windows: windows.clone() });
                n += 1;
            }
            Decision::Open { .. } => {}
        }
    }
    trace
}

/// Rule 7: exactly the records below the sources' positions are judged, and each channel's changes are seen.
fn barrier_cut(
    walk: &mut Walk<'_>,
    generation: u64,
    i: usize,
    n: u64,
    seen: &BTreeMap<String, usize>,
    own: &BTreeMap<i32, Own>,
) -> BTreeMap<i32, i64> {
    let mut positions = BTreeMap::new();
    let mut unseen = Vec::new();
    for ((g, task), trace) in &walk.out.tasks {
        if *g != generation || !task.starts_with("source-") {
            continue;
        }
        let Some(at) = trace.barrier_positions.get(&n) else {
            // A source hands the barrier on before it records it, and may die in between: nothing came of that epoch.
            // One that was committed has every task's barrier.
            if !walk.chain.iter().any(|c| (c.n, c.generation) == (n, generation)) {
                continue;
            }
            unseen.push(format!("barrier {n} is passed before {task} has it"));
            continue;
        };
        positions.extend(at.iter().map(|(p, o)| (*p, *o)));
        let sent = trace.barrier_outputs.get(&n).copied().unwrap_or(0);
        let shown = seen.get(task).copied().unwrap_or(0);
        if sent != shown {
            unseen.push(format!("barrier {n} comes after {sent} changes of {task}, the channel shows {shown}"));
        }
    }
    for message in unseen {
        walk.problem("22a", i, None, message);
    }
    for (p, own) in own {
        let Some(position) = positions.get(p) else { continue };
        if let Some(offset) = own.missing_below(*position) {
            let message = format!("barrier {n} is at {position} in split {p}, record {offset} is not judged");
            walk.problem("22", i, Some((*p, offset)), message);
        }
        if let Some(offset) = own.highest.filter(|offset| offset >= position) {
            let message = format!("barrier {n} is at {position} in split {p}, record {offset} is judged before it");
            walk.problem("22", i, Some((*p, offset)), message);
        }
    }
    positions
}

/// Rule 22a: a channel shows its sender's changes in order, and none before the records that it covers are judged.
fn channel_follows(
    walk: &mut Walk<'_>,
    generation: u64,
    i: usize,
    sender: &str,
    change: Change,
    seen: &mut BTreeMap<String, usize>,
    own: &BTreeMap<i32, Own>,
) {
    let k = *seen.entry(sender.to_owned()).and_modify(|k| *k += 1).or_insert(1) - 1;
    let Some(trace) = walk.out.tasks.get(&(generation, sender.to_owned())) else {
        walk.problem("22a", i, None, format!("{sender} has no decisions in this attempt"));
        return;
    };
    match trace.outputs.get(k) {
        Some((_, sent)) if *sent == change => {
            let early = trace.covered[k]
                .iter()
                .find_map(|(p, below)| own.get(p).and_then(|own| own.missing_below(*below)).map(|offset| (*p, offset)));
            if let Some((p, offset)) = early {
                let message =
                    format!("change {k} of {sender} comes before record {offset} of split {p}, which it covers");
                walk.problem("22a", i, Some((p, offset)), message);
            }
        }
        other => {
            let sent = other.map_or("nothing more".to_owned(), |(_, sent)| format!("{sent:?}"));
            walk.problem("22a", i, None, format!("change {k} of {sender} is {change:?}, it sent {sent}"));
        }
    }
}

/// The valid records of this task's key groups, those below `positions` judged already.
fn own_records(walk: &Walk<'_>, mine: &[bool], groups: u32, positions: &BTreeMap<i32, i64>) -> BTreeMap<i32, Own> {
    let mut all = BTreeMap::new();
    for (p, log) in walk.splits {
        let offsets: Vec<i64> = log
            .records()
            .iter()
            .filter(|r| r.decoded.as_ref().is_ok_and(|e| mine[key_group(e.key.as_bytes(), groups) as usize]))
            .map(|r| r.offset)
            .collect();
        let position = positions.get(p).copied().unwrap_or(0);
        let prefix = offsets.partition_point(|o| *o < position);
        let judged = (0..offsets.len()).map(|k| k < prefix).collect();
        let highest = prefix.checked_sub(1).map(|k| offsets[k]);
        all.insert(*p, Own { offsets, judged, prefix, highest });
    }
    all
}

fn instead(due: &Option<Due>) -> String {
    match due {
        None => String::new(),
        Some(Due::Late(p, o)) => format!("; due is late record {o} of split {p}"),
        Some(Due::Fire(row)) => format!("; due is {row}"),
    }
}
