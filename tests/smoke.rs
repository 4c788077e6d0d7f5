//! Each scenario runs and judges as its catalogue entry says, over a few seeds. Sweeps are the command line's business.

use scenarios::Entry;
use streamproof::runner::{RunOptions, run};

use history::{Outcome, Verdict};

/// Seeds of each scenario: a debug build is slow, and `.ci/run` sweeps more.
const SEEDS: std::ops::Range<u64> = 0..3;

fn generated() -> impl Iterator<Item = &'static Entry> {
    scenarios::list().iter().filter(|e| e.generate.is_some())
}

#[test]
fn scenarios_pass() {
    for entry in generated().filter(|e| e.must_fail.is_none()) {
        for seed in SEEDS {
            let plan = scenarios::generate(entry.name, seed).expect("the catalogue names it");
            let result = run(&plan, &RunOptions::default());
            assert_eq!(result.outcome, Outcome::Passed, "{} seed {seed}: {:?}", entry.name, result.notes);
            let judged = scenarios::catalogue::properties_of(&plan).len();
            assert_eq!(result.verdicts.len(), judged, "{}: a property was not judged", entry.name);
            assert!(result.stats.records > 0, "{} seed {seed} did nothing", entry.name);
        }
    }
}

/// A harness that does not see these is blind.
#[test]
fn canaries_are_caught() {
    for entry in generated() {
        let Some(property) = entry.must_fail else { continue };
        let caught = SEEDS.clone().any(|seed| {
            let plan = scenarios::generate(entry.name, seed).expect("the catalogue names it");
            let result = run(&plan, &RunOptions::default());
            result.verdicts.iter().any(|(name, verdict)| name == property && matches!(verdict, Verdict::Fail(_)))
        });
        assert!(caught, "{}: {property} was not violated", entry.name);
    }
}

/// Every property that a scenario names exists.
#[test]
fn properties_exist() {
    for entry in scenarios::list() {
        for name in entry.properties.iter().chain(entry.must_fail.iter()) {
            assert!(invariants::find(name).is_some(), "{} names the unknown property {name}", entry.name);
        }
    }
}
