//! Steps with how much they have to say about the violation, and which of them stay when there are too many.

use std::collections::BTreeMap;

use super::{Explanation, Step, StepKind, ms};

/// Steps of a story, the violation among them.
const MAX_STEPS: usize = 25;
/// Of one kind that breaks a rule. The first is where it began; the last is the one nearest to the violation.
const MAX_ODD: usize = 2;

/// How near a step is to what is violated. Where there are too many the farthest go first, of these the earliest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Of the run as a whole.
    Far,
    /// Of the same partition, transaction, group or task.
    Near,
    /// Of the record, window or transaction itself.
    Own,
    /// At odds with what the history says besides: `… though …`.
    Odd,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub weight: Weight,
    pub step: Step,
}

/// All steps so far.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub told: Vec<Told>,
    /// By rule: indices of the steps that break it.
    odd: BTreeMap<String, Vec<usize>>,
}

impl Story {
    pub fn tell(
        &mut self,
        weight: Weight,
        kind: StepKind,
        at_ns: u64,
        who: impl Into<String>,
        what: impl Into<String>,
    ) {
        let step = Step { at_ms: Some(ms(at_ns)), who: who.into(), what: what.into(), kind };
        self.told.push(Told { weight, step });
    }

    /// A step that breaks a rule. `sort` names the rule: of each the first and the last are kept.
    pub fn odd(
        &mut self,
        sort: impl Into<String>,
        kind: StepKind,
        at_ns: u64,
        who: impl Into<String>,
        what: impl Into<String>,
    ) {
        self.tell(Weight::Odd, kind, at_ns, who, what);
        let of_sort = self.odd.entry(sort.into()).or_default();
        if of_sort.len() < MAX_ODD {
            of_sort.push(self.told.len() - 1);
        } else if let (Some(told), Some(last)) = (self.told.pop(), of_sort.last()) {
            self.told[*last] = told;
        }
    }

    /// When the first step that breaks a rule was.
    pub fn first_odd(&self) -> Option<f64> {
        let odd = self.told.iter().filter(|t| t.weight == Weight::Odd);
        odd.filter_map(|t| t.step.at_ms).min_by(f64::total_cmp)
    }

    /// When the last of its steps was.
    pub fn ends_at(&self) -> Option<f64> {
        self.told.iter().filter_map(|t| t.step.at_ms).max_by(f64::total_cmp)
    }

    /// In order of time, with the violation at its place, and no more than can be read.
    pub fn ordered(self, at_ns: Option<u64>, told: &Explanation) -> Vec<Step> {
        let mut all = self.told;
        let key = |t: &Told| t.step.at_ms.map_or(i64::MAX, |ms| (ms * 1000.0) as i64);
        all.sort_by_key(key);
        all.dedup_by(|a, b| a.step.who == b.step.who && a.step.what == b.step.what);
        let violated = at_ns.map_or(f64::MAX, ms);
        // What came long after it is another story, unless it breaks a rule.
        all.retain(|t| t.weight == Weight::Odd || t.step.at_ms.is_none_or(|at| at <= violated + 1_000.0));
        let mut surplus = all.len().saturating_sub(MAX_STEPS - 1);
        for weight in [Weight::Far, Weight::Near, Weight::Own, Weight::Odd] {
            all.retain(|t| {
                let drop = surplus > 0 && t.weight == weight;
                surplus -= usize::from(drop);
                !drop
            });
        }
        let mut steps: Vec<Step> = all.into_iter().map(|t| t.step).collect();
        let mut what = told.message.clone();
        if let Some(expected) = &told.expected {
            what += &format!("; expected {expected}");
        }
        if let Some(found) = &told.found {
            what += &format!("; found {found}");
        }
        let who = if told.place.is_empty() { "the run".to_owned() } else { told.place.clone() };
        let step = Step { at_ms: at_ns.map(ms), who, what, kind: StepKind::Violation };
        let after = steps.partition_point(|s| s.at_ms.is_some_and(|at| at <= violated));
        steps.insert(after, step);
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Scene;
    use super::*;

    #[test]
    fn of_a_rule_that_is_broken_often_the_first_and_the_last_time_are_kept() {
        let mut story = Story::default();
        for n in 0..5 {
            story.odd("a", StepKind::Broker, n, "broker-0", n.to_string());
            story.odd("b", StepKind::Broker, n, "broker-0", n.to_string());
        }
        let kept: Vec<&str> = story.told.iter().map(|t| t.step.what.as_str()).collect();
        assert_eq!(kept, ["0", "0", "4", "4"]);
    }

    #[test]
    fn what_is_far_goes_first() {
        let told = Scene::new().case(|case| Explanation::empty(case, "lost".into()));
        let told = Explanation { place: "events-0".into(), ..told };
        let mut story = Story::default();
        for n in 0..20 {
            story.tell(Weight::Far, StepKind::Fault, 1_000 * n, "broker-0", format!("far {n}"));
            story.tell(Weight::Own, StepKind::Broker, 1_000 * n + 500, "broker-0", format!("own {n}"));
        }
        let steps = story.ordered(Some(9_600), &told);
        assert_eq!(steps.len(), 21 + 4, "the violation too");
        assert_eq!(steps.iter().filter(|s| s.what.starts_with("own")).count(), 20);
        let far: Vec<&str> = steps.iter().map(|s| s.what.as_str()).filter(|w| w.starts_with("far")).collect();
        assert_eq!(far, ["far 16", "far 17", "far 18", "far 19"]);
        let violation = steps.iter().position(|s| s.kind == StepKind::Violation).unwrap();
        assert_eq!((steps[violation - 1].what.as_str(), steps[violation].who.as_str()), ("own 9", "events-0"));
    }
}
