//! Canaries: scenarios that must fail, by a property that is named, or the harness is blind.

use reports::{SeedReport, Verdict};
use scenarios::catalogue;

/// The property that must catch it, if the scenario is a canary.
pub fn must_fail(scenario: &str) -> Option<&'static str> {
    catalogue::find(scenario)?.must_fail
}

/// Whether this is the failure that the canary is there for.
pub fn caught(report: &SeedReport) -> bool {
    let by = |property| report.failures.iter().any(|f| f.property == property);
    report.verdict == Verdict::Unsafe && must_fail(&report.scenario).is_some_and(by)
}
