//! A run that got stuck may leave logs that nobody could read. What was not read must not be taken for missing.

use history::{LogSource, Verdict};
use streamproof_invariants::fixture;

#[test]
fn what_was_not_read_is_not_missing() {
    for (name, mut history) in [("broker", fixture::broker()), ("job", fixture::job())] {
        history.facts.drained = false;
        history.logs.retain(|log| matches!(log.source, LogSource::Disk { .. }));
        for (property, verdict) in streamproof_invariants::check_all(&history) {
            assert!(!matches!(verdict, Verdict::Fail(_)), "{} on `{name}` unread: {verdict:?}", property.name);
        }
    }
}
