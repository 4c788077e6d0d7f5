//! Plans that once failed, each run with its own schedule and 19 others: a bug that needed one order of tasks may come
//! back under another.
//!
//! A file is `tests/regressions/<what was wrong>.json`. A plan is valid for ever; if a new version of the plan cannot
//! read it, the reader is what is wrong.

use std::path::Path;

use history::Outcome;
use scenarios::Plan;
use streamproof::runner::{TAILS, run_tails};

#[test]
fn plans_that_once_failed_pass() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/regressions");
    let entries = std::fs::read_dir(&dir).expect("tests/regressions exists");
    let mut paths: Vec<_> = entries.map(|e| e.expect("a readable directory").path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "json"));
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let plan = Plan::from_json(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let results = run_tails(&plan);
        assert_eq!(results.len(), TAILS as usize);
        for (tail, result) in results.iter().enumerate() {
            assert_eq!(result.outcome, Outcome::Passed, "{} with schedule tail {tail}", path.display());
        }
    }
}
