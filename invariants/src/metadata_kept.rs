//! **metadata-kept.** Committed metadata is never lost or changed: all nodes know the same record at an offset, in all of
//! their lives, and each applies them in order.
//!
//! Source: Raft's log matching and state machine safety (Ongaro and Ousterhout 2014, figure 3), KIP-595.
//!
//! Not claimed: that a node knows all of it (it may have begun from a snapshot); that a leader has it (one-leader).

use std::collections::BTreeMap;

use history::{Observation, Observed, Observer, Verdict, Witness};

use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "metadata-kept",
    statement: "every node knows the same committed metadata, in the same order",
    source: "Raft, state machine safety; KIP-595",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let mut found = Violations::of(&PROPERTY);
    let mut known: BTreeMap<i64, (i32, u64, &Observation)> = BTreeMap::new();
    let mut applied: BTreeMap<&Observer, (i64, i32)> = BTreeMap::new();
    for seen in &context.history.observations {
        let Observed::MetadataCommitted { offset, epoch, hash } = seen.what else { continue };
        let at = || Witness::at(format_args!("metadata offset {offset}"));
        let (was_epoch, was, first) = *known.entry(offset).or_insert((epoch, hash, seen));
        if (was_epoch, was) != (epoch, hash) {
            let sight = |seen: &Observation, epoch: i32, hash: u64| {
                format!("record {hash:016x} of epoch {epoch}, by {} at {} ns", seen.observer, seen.at_ns)
            };
            let witness = at().expected(sight(first, was_epoch, was)).found(sight(seen, epoch, hash));
            found.add(None, "committed metadata has changed", witness);
        }
        if let Some((last, last_epoch)) = applied.insert(&seen.observer, (offset, epoch)) {
            if offset != last + 1 {
                let witness = at().about(&seen.observer).expected(format_args!("offset {}", last + 1)).found(offset);
                found.add(None, "a node applies metadata out of order", witness);
            }
            if epoch < last_epoch {
                let witness =
                    at().about(&seen.observer).expected(format_args!("epoch {last_epoch} or later")).found(epoch);
                found.add(None, "an epoch of the metadata log falls", witness);
            }
        }
    }
    found.verdict()
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
        fixture::rejects_cluster(
            &PROPERTY,
            &[
                METADATA_DROPS,
                METADATA_DUPLICATES,
                METADATA_SWAPS,
                METADATA_SHIFTS,
                METADATA_MISATTRIBUTES,
                METADATA_CHANGES,
            ],
            &[(Mutator::Unacknowledge, "it looks at what nodes apply, not at answers")],
        );
    }
}
