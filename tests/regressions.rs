//! Plans that once failed, each run with its own schedule and 19 others: a bug that needed one order of tasks may come
//! back under another. `streamproof regress` keeps them; [`streamproof::regressions`] says how.
//!
//! A plan is valid for ever; if a new version cannot read it, the reader is what is wrong.

use std::path::Path;

use history::Outcome;
use streamproof::regressions;
use streamproof::runner::{TAILS, run_tails};

#[test]
fn plans_that_once_failed_pass() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(regressions::DIR);
    let all = regressions::read_all(&dir).expect("a readable folder");
    assert!(!all.is_empty(), "the kept plans were not found");
    for one in all {
        let plan = one.plan.unwrap_or_else(|e| panic!("{e}"));
        let note = one.note.unwrap_or_else(|| panic!("{} has no note: `streamproof regress add` writes it", one.name));
        assert!(note.story.len() > 20, "{} does not say what was wrong", one.name);
        let results = run_tails(&plan);
        assert_eq!(results.len(), TAILS as usize);
        for (tail, result) in results.iter().enumerate() {
            assert_eq!(result.outcome, Outcome::Passed, "{} with schedule {tail}", one.name);
        }
    }
}
