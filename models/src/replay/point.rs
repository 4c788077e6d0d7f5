//! A combining point: several inputs, one watermark (rules 4 and 5).

use std::collections::BTreeMap;

use crate::decision::{Change, Input, InputStatus};
use crate::time::Watermark;

/// W = max(its previous W, min over the inputs in the minimum), and what the point tells the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub watermark: Watermark,
    pub inputs: BTreeMap<Input, PointInput>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PointInput {
    pub watermark: Watermark,
    pub status: InputStatus,
}

/// What a change of one input does to the point.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// In the order in which they go out: Active, then W, or Idle, or End.
    pub outputs: Vec<Change>,
    /// What is wrong with the change, if anything is.
    pub problem: Option<String>,
}

impl Point {
    pub fn new(watermark: Watermark, inputs: BTreeMap<Input, PointInput>) -> Point {
        Point { watermark, inputs }
    }

    /// Nothing in the minimum, and not everything ended.
    pub fn is_idle(&self) -> bool {
        !self.is_ended() && !self.inputs.values().any(|i| i.counts())
    }

    pub fn is_ended(&self) -> bool {
        !self.inputs.is_empty() && self.inputs.values().all(|i| i.status == InputStatus::Ended)
    }

    /// Takes a change of one input.
    pub fn advance(&mut self, input: &Input, change: Change) -> Step {
        let was_idle = self.is_idle();
        let before = self.watermark;
        let Some(state) = self.inputs.get_mut(input) else {
            return Step { outputs: Vec::new(), problem: Some(format!("{input:?} is no input of this task")) };
        };
        let mut problem = None;
        if state.status == InputStatus::Ended {
            problem = Some(format!("{input:?} changes after its end"));
        }
        match change {
            Change::Watermark(w) => {
                if w < state.watermark {
                    problem = Some(format!("W of {input:?} falls from {} to {w}", state.watermark));
                }
                if state.status == InputStatus::Idle {
                    problem = Some(format!("W of idle {input:?} rises before it is active"));
                }
                state.watermark = state.watermark.max(w);
                match state.status {
                    InputStatus::New => state.status = InputStatus::In,
                    InputStatus::Behind if state.watermark >= before => state.status = InputStatus::In,
                    _ => {}
                }
            }
            Change::Idle => {
                if state.status == InputStatus::Idle {
                    problem = Some(format!("{input:?} is idle twice"));
                }
                state.status = InputStatus::Idle;
            }
            Change::Active => {
                if state.status != InputStatus::Idle {
                    problem = Some(format!("{input:?} is active without having been idle"));
                }
                state.status = if state.watermark >= before { InputStatus::In } else { InputStatus::Behind };
            }
            Change::End => state.status = InputStatus::Ended,
        }
        let mut outputs = Vec::new();
        if self.is_ended() {
            self.watermark = Watermark::MAX;
            outputs.push(Change::End);
            return Step { outputs, problem };
        }
        let low = self.inputs.values().filter(|i| i.counts()).map(|i| i.watermark).min();
        self.watermark = before.max(low.unwrap_or(Watermark::MIN));
        match (was_idle, self.is_idle()) {
            (true, false) => outputs.push(Change::Active),
            (false, true) => outputs.push(Change::Idle),
            _ => {}
        }
        if self.watermark > before {
            outputs.push(Change::Watermark(self.watermark));
        }
        Step { outputs, problem }
    }
}

impl PointInput {
    pub const NEW: PointInput = PointInput { watermark: Watermark::MIN, status: InputStatus::New };

    /// Whether it is in the minimum.
    fn counts(self) -> bool {
        matches!(self.status, InputStatus::New | InputStatus::In)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(splits: i32) -> Point {
        Point::new(Watermark::MIN, (0..splits).map(|p| (Input::Split(p), PointInput::NEW)).collect())
    }

    fn w(ms: i64) -> Change {
        Change::Watermark(Watermark(ms))
    }

    fn run(point: &mut Point, split: i32, change: Change) -> Vec<Change> {
        let step = point.advance(&Input::Split(split), change);
        assert_eq!(step.problem, None);
        step.outputs
    }

    #[test]
    fn the_minimum_of_active_inputs_never_falls() {
        let mut p = point(2);
        assert_eq!(run(&mut p, 0, w(10)), []);
        assert_eq!(run(&mut p, 1, w(5)), [w(5)]);
        assert_eq!(run(&mut p, 1, Change::Idle), [w(10)]);
        assert_eq!(run(&mut p, 0, w(20)), [w(20)]);
        // Back with 5 < 20: behind, not in the minimum.
        assert_eq!(run(&mut p, 1, Change::Active), []);
        assert_eq!(p.inputs[&Input::Split(1)].status, InputStatus::Behind);
        assert_eq!(run(&mut p, 1, w(19)), []);
        assert_eq!(run(&mut p, 0, w(30)), [w(30)]);
        // 30 >= 30: rejoins, and holds the minimum again.
        assert_eq!(run(&mut p, 1, w(30)), []);
        assert_eq!(run(&mut p, 0, w(40)), []);
        assert_eq!(run(&mut p, 1, w(35)), [w(35)]);
    }

    #[test]
    fn a_point_without_active_inputs_is_idle_and_stands_still() {
        let mut p = point(2);
        run(&mut p, 0, w(10));
        assert_eq!(run(&mut p, 1, Change::Idle), [w(10)]);
        assert_eq!(run(&mut p, 0, Change::Idle), [Change::Idle]);
        assert_eq!(run(&mut p, 1, Change::Active), []);
        assert_eq!(run(&mut p, 1, w(12)), [Change::Active, w(12)]);
        assert_eq!(run(&mut p, 1, Change::End), [Change::Idle]);
        assert_eq!(run(&mut p, 0, Change::End), [Change::End]);
        assert_eq!(p.watermark, Watermark::MAX);
    }

    #[test]
    fn an_ended_input_leaves_the_minimum() {
        let mut p = point(2);
        run(&mut p, 0, w(10));
        run(&mut p, 1, w(5));
        assert_eq!(run(&mut p, 1, Change::End), [w(10)]);
    }

    #[test]
    fn impossible_changes_are_named() {
        let mut p = point(1);
        run(&mut p, 0, w(10));
        for (change, words) in [(w(9), "falls from 10 to 9"), (Change::Active, "without having been idle")] {
            let problem = p.clone().advance(&Input::Split(0), change).problem.unwrap();
            assert!(problem.contains(words), "{problem}");
        }
        run(&mut p, 0, Change::Idle);
        assert!(p.clone().advance(&Input::Split(0), w(11)).problem.unwrap().contains("before it is active"));
        run(&mut p, 0, Change::End);
        assert!(p.advance(&Input::Split(0), w(11)).problem.unwrap().contains("after its end"));
        assert!(p.advance(&Input::Split(7), w(11)).problem.unwrap().contains("no input"));
    }
}
