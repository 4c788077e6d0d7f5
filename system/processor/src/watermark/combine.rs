//! The combining point (rules 4 to 6): a source task over its splits, an operator over its channels.
//!
//! ```text
//!            first W          Idle                Active, own W < W          own W >= W
//!     New ───────────▶ In ◀────────▶ Idle ─────────────────────▶ Behind ─────────────▶ In
//!      └───── Idle ──────────────────▲ ▲─────────── Idle ──────────┘      any ── End ──▶ Ended
//! ```
//! W = max(previous W, min over the inputs that are New or In). It never regresses, whatever arrives. With none in the
//! minimum W stands still and the point is Idle towards the next; W is MAX only when every input has ended.

use std::collections::BTreeMap;

use super::{Change, Status, Watermark};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Input {
    pub watermark: Watermark,
    pub status: Status,
}

impl Input {
    pub const NEW: Input = Input { watermark: Watermark::MIN, status: Status::New };
}

#[derive(Clone, Debug)]
pub struct CombiningPoint<K> {
    inputs: BTreeMap<K, Input>,
    watermark: Watermark,
    idle: bool,
    ended: bool,
}

impl<K: Ord + Clone> CombiningPoint<K> {
    /// A point over `inputs` as they were restored (or [`Input::NEW`]), whose own W was `watermark`. What it already
    /// told the next point is part of that one's checkpoint, so nothing is to be told again.
    pub fn new(inputs: impl IntoIterator<Item = (K, Input)>, watermark: Watermark) -> Self {
        let inputs: BTreeMap<K, Input> = inputs.into_iter().collect();
        assert!(!inputs.is_empty(), "a combining point without inputs");
        let mut point = Self { inputs, watermark, idle: false, ended: false };
        point.ended = point.all_ended();
        if point.ended {
            point.watermark = Watermark::MAX;
        }
        point.idle = !point.ended && point.minimum().is_none();
        point
    }

    pub fn watermark(&self) -> Watermark {
        self.watermark
    }

    /// No input is in the minimum, and not all have ended.
    pub fn is_idle(&self) -> bool {
        self.idle
    }

    pub fn is_ended(&self) -> bool {
        self.ended
    }

    pub fn inputs(&self) -> impl Iterator<Item = (&K, Input)> {
        self.inputs.iter().map(|(k, i)| (k, *i))
    }

    pub fn input(&self, key: &K) -> Option<Input> {
        self.inputs.get(key).copied()
    }

    /// Takes one event of one input and returns what the point has to tell the next, in order.
    ///
    /// An event that the input's status does not allow changes nothing: anything from an ended or unknown input, a W
    /// from an idle one (it must say Active first), Active from one that is not idle.
    pub fn handle(&mut self, key: &K, event: Change) -> Vec<Change> {
        let point = self.watermark;
        let Some(input) = self.inputs.get_mut(key) else { return Vec::new() };
        let caught_up = |own: Watermark| if own >= point { Status::In } else { Status::Behind };
        match (input.status, event) {
            (Status::New | Status::In, Change::Watermark(w)) => {
                input.watermark = input.watermark.max(w);
                input.status = Status::In;
            }
            (Status::Behind, Change::Watermark(w)) => {
                input.watermark = input.watermark.max(w);
                input.status = caught_up(input.watermark);
            }
            // Tested before the minimum is taken, so an input that never fell back rejoins at once.
            (Status::Idle, Change::Active) => input.status = caught_up(input.watermark),
            (Status::New | Status::In | Status::Behind, Change::Idle) => input.status = Status::Idle,
            (Status::New | Status::In | Status::Behind | Status::Idle, Change::End) => input.status = Status::Ended,
            (Status::Ended, _)
            | (Status::Idle, Change::Watermark(_) | Change::Idle)
            | (Status::New | Status::In | Status::Behind, Change::Active) => return Vec::new(),
        }
        env::sometimes!(input.status == Status::Behind, "an input came back behind its point's watermark");
        self.advance()
    }

    fn advance(&mut self) -> Vec<Change> {
        let mut told = Vec::with_capacity(2);
        match self.minimum() {
            Some(minimum) => {
                if self.idle {
                    self.idle = false;
                    told.push(Change::Active);
                }
                if minimum > self.watermark {
                    self.watermark = minimum;
                    told.push(Change::Watermark(minimum));
                }
            }
            None if self.all_ended() => {
                if !self.ended {
                    self.ended = true;
                    self.idle = false;
                    self.watermark = Watermark::MAX;
                    told.push(Change::End);
                }
            }
            None => {
                if !self.idle {
                    self.idle = true;
                    told.push(Change::Idle);
                }
            }
        }
        told
    }

    fn minimum(&self) -> Option<Watermark> {
        self.inputs.values().filter(|i| i.status.in_minimum()).map(|i| i.watermark).min()
    }

    fn all_ended(&self) -> bool {
        self.inputs.values().all(|i| i.status == Status::Ended)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn w(ms: i64) -> Watermark {
        Watermark::from_ms(ms)
    }

    fn point(n: u32) -> CombiningPoint<u32> {
        CombiningPoint::new((0..n).map(|k| (k, Input::NEW)), Watermark::MIN)
    }

    #[test]
    fn a_new_input_holds_the_minimum_before_its_first_record() {
        let mut p = point(2);
        assert_eq!(p.handle(&0, Change::Watermark(w(100))), []);
        assert_eq!(p.watermark(), Watermark::MIN);
        assert_eq!(p.handle(&1, Change::Watermark(w(40))), [Change::Watermark(w(40))]);
        assert_eq!(p.handle(&1, Change::Watermark(w(140))), [Change::Watermark(w(100))]);
    }

    #[test]
    fn an_idle_input_leaves_and_rejoins_only_when_it_has_caught_up() {
        let mut p = point(2);
        p.handle(&0, Change::Watermark(w(50)));
        p.handle(&1, Change::Watermark(w(10)));
        assert_eq!(p.handle(&1, Change::Idle), [Change::Watermark(w(50))]);
        assert_eq!(p.handle(&1, Change::Active), []);
        assert_eq!(p.input(&1).unwrap().status, Status::Behind);
        assert_eq!(p.handle(&0, Change::Watermark(w(60))), [Change::Watermark(w(60))]);
        assert_eq!(p.handle(&1, Change::Watermark(w(59))), []);
        assert_eq!(p.input(&1).unwrap().status, Status::Behind);
        assert_eq!(p.handle(&1, Change::Watermark(w(60))), []);
        assert_eq!(p.input(&1).unwrap().status, Status::In);
        assert_eq!(p.handle(&0, Change::Watermark(w(90))), []);
        assert_eq!(p.handle(&1, Change::Watermark(w(70))), [Change::Watermark(w(70))]);
    }

    #[test]
    fn a_point_without_inputs_in_the_minimum_is_idle_and_stands_still() {
        let mut p = point(2);
        p.handle(&0, Change::Watermark(w(50)));
        p.handle(&1, Change::Watermark(w(70)));
        assert_eq!(p.handle(&0, Change::Idle), [Change::Watermark(w(70))]);
        assert_eq!(p.handle(&1, Change::Idle), [Change::Idle]);
        assert_eq!(p.watermark(), w(70));
        assert_eq!(p.handle(&0, Change::Active), [], "behind: the point stays idle");
        assert_eq!(p.handle(&0, Change::Watermark(w(80))), [Change::Active, Change::Watermark(w(80))]);
    }

    #[test]
    fn max_comes_only_when_every_input_has_ended() {
        let mut p = point(3);
        p.handle(&0, Change::Watermark(w(50)));
        p.handle(&1, Change::Watermark(w(70)));
        p.handle(&2, Change::Idle);
        assert_eq!(p.handle(&0, Change::End), [Change::Watermark(w(70))]);
        assert_eq!(p.handle(&1, Change::End), [Change::Idle], "the idle one has not ended");
        assert_eq!(p.watermark(), w(70));
        assert_eq!(p.handle(&2, Change::End), [Change::End]);
        assert_eq!(p.watermark(), Watermark::MAX);
        assert_eq!(p.handle(&2, Change::Active), []);
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            6 => (-100i64..100).prop_map(|ms| Change::Watermark(w(ms))),
            2 => Just(Change::Idle),
            2 => Just(Change::Active),
            1 => Just(Change::End),
        ]
    }

    proptest! {
        #[test]
        fn never_regresses_never_leads_and_restores_to_the_same(
            events in proptest::collection::vec((0u32..4, change()), 1..200),
            cut in 0usize..200,
        ) {
            let mut p = point(4);
            let mut restored: Option<CombiningPoint<u32>> = None;
            for (i, (key, event)) in events.into_iter().enumerate() {
                if i == cut {
                    restored = Some(CombiningPoint::new(p.inputs().map(|(k, i)| (*k, i)), p.watermark()));
                }
                let before = p.watermark();
                let told = p.handle(&key, event);
                if let Some(r) = restored.as_mut() {
                    prop_assert_eq!(r.handle(&key, event), told.clone());
                    prop_assert_eq!(r.watermark(), p.watermark());
                }
                prop_assert!(p.watermark() >= before);
                // It leads no input of the minimum.
                for (_, input) in p.inputs() {
                    if input.status.in_minimum() {
                        prop_assert!(p.watermark() <= input.watermark);
                    }
                }
                let told_w = told.iter().any(|c| matches!(c, Change::Watermark(_) | Change::End));
                prop_assert_eq!(told_w, p.watermark() != before);
            }
        }

        /// The next point, fed only with what the first told, has the first one's W and status.
        #[test]
        fn the_next_point_mirrors_this_one(events in proptest::collection::vec((0u32..3, change()), 1..200)) {
            let mut p = point(3);
            let mut next = point(1);
            for (key, event) in events {
                for c in p.handle(&key, event) {
                    next.handle(&0, c);
                }
                prop_assert_eq!(p.is_idle(), next.is_idle());
                prop_assert_eq!(p.is_ended(), next.is_ended());
                prop_assert_eq!(p.watermark(), next.watermark());
            }
        }
    }
}
