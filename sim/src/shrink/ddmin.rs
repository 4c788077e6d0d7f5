//! Leaves out as much of a list as it can.
//!
//! Delta debugging after Zeller and Hildebrandt (2002), by complements only: with runs as costly as ours, keeping one
//! chunk and dropping all else is tried once, as dropping everything else chunk by chunk. Chunks halve from the whole list
//! down to single items; a cut is followed by the next chunk, not by the first one again. What is left is 1-minimal: no
//! single item can be left out, as far as the test tells.
//!
//! Knows nothing of plans: what an item is, and how several candidates are tried at once, is the caller's.

/// Finds the first of `count` candidates that still fails, in their order. `make` gives the items candidate `i` keeps.
pub type First<'a, T> = dyn FnMut(usize, &dyn Fn(usize) -> Vec<T>) -> Option<usize> + 'a;

/// The items that could not be left out, in their order.
pub fn ddmin<T: Clone>(items: Vec<T>, first: &mut First<'_, T>) -> Vec<T> {
    let mut kept = items;
    let mut chunk = kept.len();
    while chunk > 0 {
        let cut = sweep(&mut kept, chunk, first);
        if chunk > 1 {
            chunk = chunk.div_ceil(2).min(kept.len());
        } else if !cut {
            break;
        }
    }
    kept
}

/// One pass over all chunks of a size; whether any was cut.
fn sweep<T: Clone>(kept: &mut Vec<T>, chunk: usize, first: &mut First<'_, T>) -> bool {
    let mut from = 0;
    let mut cut = false;
    while from < kept.len() {
        let candidates = (kept.len() - from).div_ceil(chunk);
        let range = |i: usize| from + i * chunk..(from + (i + 1) * chunk).min(kept.len());
        let without = |i: usize| {
            let range = range(i);
            [&kept[..range.start], &kept[range.end..]].concat()
        };
        let Some(i) = first(candidates, &without) else { break };
        let range = range(i);
        from = range.start;
        kept.drain(range);
        cut = true;
    }
    cut
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs ddmin against a predicate over what is kept; counts the candidates that were made.
    fn minimise(n: u32, fails: impl Fn(&[u32]) -> bool) -> (Vec<u32>, usize) {
        let mut tried = 0;
        let kept = ddmin((0..n).collect(), &mut |count, make| {
            (0..count).find(|i| {
                tried += 1;
                fails(&make(*i))
            })
        });
        (kept, tried)
    }

    #[test]
    fn what_is_not_needed_goes() {
        assert!(minimise(100, |_| true).0.is_empty());
        assert_eq!(minimise(100, |kept| kept.contains(&37)).0, [37]);
        assert_eq!(minimise(7, |kept| kept.len() >= 7).0.len(), 7);
        assert_eq!(minimise(0, |_| true), (vec![], 0));
        // A pair that goes only together stays: minimal for single items is all that is claimed.
        let pair = |kept: &[u32]| kept.contains(&99) && kept.contains(&1) == kept.contains(&98);
        assert_eq!(minimise(100, pair).0, [1, 98, 99]);
    }

    #[test]
    fn a_thousand_items_with_two_needed_take_few_tries() {
        let (kept, tried) = minimise(1000, |kept| kept.contains(&17) && kept.contains(&801));
        assert_eq!(kept, [17, 801]);
        assert!(tried < 100, "{tried} tries");
    }

    #[test]
    fn nothing_is_tried_once_the_judge_has_stopped() {
        let mut calls = 0;
        let kept = ddmin((0..64).collect::<Vec<u32>>(), &mut |_, _| {
            calls += 1;
            None
        });
        assert_eq!(kept.len(), 64);
        assert!(calls <= 8, "{calls} questions");
    }

    proptest! {
        /// Whatever the needed set and whatever grows with size: no single item of the result can be left out.
        #[test]
        fn the_result_is_one_minimal(needed in proptest::collection::btree_set(0u32..60, 0..8), at_least in 0usize..12) {
            let fails = |kept: &[u32]| needed.iter().all(|n| kept.contains(n)) && kept.len() >= at_least;
            prop_assume!(fails(&(0..60).collect::<Vec<_>>()));
            let (kept, _) = minimise(60, fails);
            prop_assert!(fails(&kept));
            for i in 0..kept.len() {
                let mut less = kept.clone();
                less.remove(i);
                prop_assert!(!fails(&less), "{:?} can be left out of {:?}", kept[i], kept);
            }
        }
    }
}
