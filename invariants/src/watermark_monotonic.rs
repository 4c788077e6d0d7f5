//! **watermark-monotonic.** No input's W, and so no task's, ever falls; a restored one is not below its checkpoint.
//!
//! Source: rules 4 and 7. Judged from the decisions alone, without the log: a second, simpler look beside the replay.
//!
//! Not claimed: that a W is right (window-exactly-once).

use std::collections::BTreeMap;

use history::{Change, Decision, Input, Verdict, Witness};
use models::Watermark;

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "watermark-monotonic",
    statement: "no watermark falls, and none is restored below its checkpoint",
    source: "semantics rules 4, 7",
    kind: Kind::Safety,
    check,
};

type Inputs = BTreeMap<Input, Watermark>;

fn check(context: &Context<'_>) -> Verdict {
    let decisions = &context.history.decisions;
    let is_about_w = |i: &usize| {
        matches!(decisions[*i].decision, Decision::Open { .. } | Decision::Advance { .. } | Decision::Barrier { .. })
    };
    let mut order: Vec<usize> = (0..decisions.len()).filter(is_about_w).collect();
    order.sort_by_key(|i| (decisions[*i].generation, &decisions[*i].task, decisions[*i].seq));
    let mut found = Violations::of(&PROPERTY);
    let mut now: BTreeMap<(u64, &str), Inputs> = BTreeMap::new();
    let mut saved: BTreeMap<(&str, u64), Vec<(u64, Inputs)>> = BTreeMap::new();
    let committed: Vec<_> = match context.evidence() {
        Some(Ok((evidence, _))) => evidence.chain().epochs,
        _ => Vec::new(),
    };
    for i in order {
        let entry = &decisions[i];
        let task = (entry.generation, entry.task.as_str());
        let witness = |input: &Input, was: Watermark, is: Watermark| {
            Witness::decision(entry.generation, &entry.task, entry.seq)
                .about(name(input))
                .expected(format_args!("at least {was}"))
                .found(is)
        };
        match &entry.decision {
            Decision::Open { checkpoint, inputs, .. } => {
                let opened: Inputs = inputs.iter().map(|s| (s.input.clone(), s.watermark)).collect();
                let owner = checkpoint.and_then(|n| committed.iter().find(|c| c.n == n));
                let kept = checkpoint.and_then(|n| saved.get(&(entry.task.as_str(), n)));
                let kept = kept.and_then(|all| all.iter().find(|(g, _)| owner.is_some_and(|c| c.generation == *g)));
                for (input, was) in kept.iter().flat_map(|(_, inputs)| inputs) {
                    let is = opened.get(input).copied().unwrap_or(Watermark::MIN);
                    if is < *was {
                        found.add(None, "a watermark is restored below its checkpoint", witness(input, *was, is));
                    }
                }
                now.insert(task, opened);
            }
            Decision::Advance { input, change: Change::Watermark(w), .. } => {
                if let Some(was) = now.entry(task).or_default().insert(input.clone(), *w)
                    && was > *w
                {
                    found.add(None, "a watermark falls", witness(input, was, *w));
                }
            }
            Decision::Barrier { n, .. } => {
                let inputs = now.entry(task).or_default().clone();
                saved.entry((&entry.task, *n)).or_default().push((entry.generation, inputs));
            }
            _ => {}
        }
    }
    found.verdict()
}

fn name(input: &Input) -> String {
    match input {
        Input::Split(p) => format!("split {p}"),
        Input::Channel(task) => format!("channel of {task}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::mutate::*;
    use crate::fixture::{self, Mutator};

    #[test]
    fn accepts_good_histories() {
        fixture::accepts(&PROPERTY);
    }

    #[test]
    fn rejects_what_breaks_it() {
        fixture::rejects_job(
            &PROPERTY,
            &[FORGET_WATERMARK, SWAP_WATERMARKS, LOWER_WATERMARK, MISATTRIBUTE_WATERMARK],
            &[
                (Mutator::Drop, "without one of its steps a rising sequence rises"),
                (Mutator::Duplicate, "the same again is no fall"),
                (Mutator::Unacknowledge, "it looks at decisions only"),
            ],
        );
    }
}
