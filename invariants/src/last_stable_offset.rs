//! **last-stable-offset-monotonic.** The last stable offset of a partition never falls, and in the final read it is
//! not past the high watermark.
//!
//! Source: KIP-98: a record below it is decided for good.
//!
//! Not claimed: as for the high watermark.

use history::{Observed, Verdict, Witness};

use crate::high_watermark::never_falls;
use crate::{Context, Kind, Property, Violations};

pub(crate) const PROPERTY: Property = Property {
    name: "last-stable-offset-monotonic",
    statement: "the last stable offset never falls and ends at or below the high watermark",
    source: "KIP-98",
    kind: Kind::Safety,
    check,
};

fn check(context: &Context<'_>) -> Verdict {
    let mut found = Violations::of(&PROPERTY);
    never_falls(context, &mut found, "last stable offset", |what| match what {
        Observed::LastStableOffset { topic, partition, leader_epoch, offset } => {
            Some((topic, *partition, *leader_epoch, *offset))
        }
        _ => None,
    });
    for ((topic, partition), raw) in context.raw() {
        if let (Some(stable), Some(high)) = (raw.log.last_stable_offset, raw.log.high_watermark)
            && stable > high
        {
            let witness = Witness::partition(topic, *partition)
                .expected(format_args!("a last stable offset up to the high watermark {high}"))
                .found(stable);
            found.add(None, "the last stable offset is past the high watermark", witness);
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
        fixture::rejects(
            &PROPERTY,
            &[DROP_TAIL, SWAP_STABLE, LOWER_STABLE, RAISE_STABLE, MISATTRIBUTE_STABLE],
            &[
                (Mutator::Duplicate, "the same offset again is no fall"),
                (Mutator::Unacknowledge, "clients' answers tell nothing of it"),
            ],
        );
    }

    #[test]
    fn rejects_a_fall_and_a_lead() {
        for to in [0, 1_000_000] {
            let mut history = fixture::broker();
            let last = history.observations.iter_mut().rev().find_map(|seen| match &mut seen.what {
                Observed::LastStableOffset { offset, .. } => Some(offset),
                _ => None,
            });
            *last.expect("the fixture observes it") = to;
            assert!(!PROPERTY.check(&Context::new(&history)).violations().is_empty(), "{to}");
        }
    }
}
