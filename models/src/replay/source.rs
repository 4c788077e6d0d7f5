//! One attempt of one source task: its splits' watermarks against the log.

use std::collections::BTreeMap;

use super::{Snapshot, TaskTrace, Walk, Windows};
use crate::decision::{Change, Decision, Input};

pub(super) fn walk(walk: &mut Walk<'_>, generation: u64, task: &str, entries: &[usize]) -> TaskTrace {
    let mut trace = TaskTrace::default();
    let Some((first, rest)) = entries.split_first() else { return trace };
    let Some(Snapshot { mut point, positions, .. }) = walk.open(*first) else { return trace };
    trace.points.push((*first, point.clone()));
    // Per split, the offset below which all is covered by what was logged.
    let mut covered: BTreeMap<i32, i64> = positions.clone();
    let mut last_positions = positions;
    let mut last_n = start(walk, *first);
    for &i in rest {
        match &walk.decisions[i].decision {
            Decision::Advance { input, offset, change, .. } => {
                let Input::Split(p) = *input else {
                    walk.problem("22", i, None, "a source task has no channels");
                    continue;
                };
                let Some(offset) = *offset else {
                    walk.problem("22", i, None, "a split's change names no offset");
                    continue;
                };
                let next = match change {
                    Change::Watermark(_) => offset + 1,
                    _ => offset,
                };
                let before = covered.get(&p).copied().unwrap_or(0);
                if next < before {
                    walk.problem("22a", i, Some((p, offset)), format!("split {p} falls back from {before} to {next}"));
                }
                if let Change::Watermark(w) = change {
                    let bound = walk.job.watermark.out_of_orderness_ms;
                    let due = walk.splits.get(&p).map(|log| log.watermark_at(offset, bound));
                    if due != Some(*w) {
                        let due = due.map_or("MIN".to_owned(), |w| w.to_string());
                        let message = format!("W of split {p} at offset {offset} is {w}, rule 2 gives {due}");
                        walk.problem("22a", i, Some((p, offset)), message);
                    }
                }
                // Positions also move over control records; a record between would have woken the split.
                if *change == Change::Active
                    && let Some(slept) = walk.splits.get(&p).and_then(|log| log.range(before, next - 1).first())
                {
                    let message = format!("split {p} is active at {next}, past record {}", slept.offset);
                    walk.problem("22a", i, Some((p, slept.offset)), message);
                }
                covered.insert(p, next.max(before));
                let step = point.advance(input, *change);
                if let Some(problem) = step.problem {
                    walk.problem("22a", i, Some((p, offset)), problem);
                }
                for output in step.outputs {
                    trace.outputs.push((i, output));
                    trace.covered.push(covered.clone());
                }
                trace.points.push((i, point.clone()));
            }
            Decision::Barrier { n, positions, .. } => {
                let n = *n;
                barrier_follows(walk, i, n, &mut last_n);
                let positions: BTreeMap<i32, i64> = positions.iter().copied().collect();
                for (p, before) in &last_positions {
                    let reached = covered.get(p).copied().unwrap_or(0).max(*before);
                    match positions.get(p) {
                        None => walk.problem("22", i, None, format!("barrier {n} has no position of split {p}")),
                        Some(position) if *position < reached => {
                            let message = format!("barrier {n} has split {p} at {position}, it was at {reached}");
                            walk.problem("22a", i, None, message);
                        }
                        Some(_) => {}
                    }
                }
                trace.barrier_positions.insert(n, positions.clone());
                trace.barrier_outputs.insert(n, trace.outputs.len());
                last_positions = positions.clone();
                if walk.is_committed(n, generation) {
                    walk.out.positions.extend(positions.iter().map(|(p, o)| (*p, *o)));
                }
                let windows = Windows::default();
                walk.save(task, n, Snapshot { generation, point: point.clone(), positions, windows });
            }
            Decision::Open { .. } | Decision::Judge { .. } | Decision::Late { .. } | Decision::Fire { .. } => {
                walk.problem("22", i, None, "a source task does not decide that");
            }
        }
    }
    trace
}

/// Barriers of an attempt follow each other, the first follows its checkpoint.
pub(super) fn barrier_follows(walk: &mut Walk<'_>, i: usize, n: u64, last: &mut u64) {
    if n != *last + 1 {
        walk.problem("22", i, None, format!("barrier {n} follows {last}"));
    }
    *last = n;
}

/// The n after which an attempt starts.
pub(super) fn start(walk: &Walk<'_>, open: usize) -> u64 {
    match &walk.decisions[open].decision {
        Decision::Open { checkpoint, .. } => checkpoint.unwrap_or(0),
        _ => 0,
    }
}
