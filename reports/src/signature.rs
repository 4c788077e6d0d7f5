//! What tells one defect from another: the property that failed, and the shape of its message.
//!
//! The shape is the message without what differs from seed to seed: numbers become `#`, text in quotes or parentheses
//! (a list with an entry for each split, say) becomes `…`. So a
//! defect keeps its signature under other keys, offsets, nodes of the same role and times, and two defects that break
//! one property in different ways have two. Witnesses take no part: they are all particulars.
//!
//! ```text
//! window-exactly-once: epoch 12 is committed before window-1 passed its barrier
//!                  -> window-exactly-once: epoch # is committed before window-# passed its barrier
//! ```
//!
//! It does not claim that equal signatures have one cause: "a row is missing" has as many causes as there are bugs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::seed_report::{Failure, SeedReport, Verdict};

/// The name under which a panic of the system stands where a property would.
pub const PANIC: &str = "panic";
/// The name under which a failure of streamproof itself stands.
pub const HARNESS: &str = "harness";

/// As text: `property: shape`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signature(String);

impl Signature {
    pub fn new(property: &str, message: &str) -> Self {
        Self(format!("{property}: {}", shape(message)))
    }

    /// The property's stable name, [`PANIC`] or [`HARNESS`].
    pub fn property(&self) -> &str {
        self.0.split_once(": ").map_or(self.0.as_str(), |(property, _)| property)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failure {
    pub fn signature(&self) -> Signature {
        Signature::new(&self.property, &self.message)
    }
}

impl SeedReport {
    /// Of all that failed, the most telling one first, each once. Empty for a pass and for what was not decided.
    pub fn signatures(&self) -> Vec<Signature> {
        let note = self.note.as_deref().unwrap_or_default();
        match self.verdict {
            Verdict::Panicked => vec![Signature::new(PANIC, note)],
            Verdict::HarnessFailed => vec![Signature::new(HARNESS, note)],
            _ => {
                let mut seen = BTreeSet::new();
                self.failures.iter().map(Failure::signature).filter(|s| seen.insert(s.clone())).collect()
            }
        }
    }
}

/// The message without its particulars.
fn shape(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message.lines().next().unwrap_or_default();
    while let Some(c) = rest.chars().next() {
        let closing = match c {
            '`' | '"' => Some(c),
            '(' => Some(')'),
            _ => None,
        };
        if let Some(length) = closing.and_then(|closing| rest[1..].find(closing)) {
            out.push('…');
            rest = &rest[length + 2..];
        } else if c.is_ascii_alphanumeric() {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            out.push_str(&word(&rest[..end]));
            rest = &rest[end..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    // A negative number is a number; `window-1` keeps its hyphen.
    out.replace(" -#", " #")
}

fn word(word: &str) -> String {
    // A hash or an identifier: its letters are as particular as its digits.
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    if digits > 0 && word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit()) {
        return "#".into();
    }
    let mut out = String::new();
    for c in word.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('#') => {}
            true => out.push('#'),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed_report::Witness;

    #[test]
    fn particulars_are_left_out() {
        let cases = [
            ("epoch 12 is committed before window-1 passed", "epoch # is committed before window-# passed"),
            ("rule 22b: a split's watermark lags its log", "rule #b: a split's watermark lags its log"),
            ("client-0 did not finish", "client-# did not finish"),
            ("offset -1, key `JFK 3`, \"a\" at 0x1f", "offset #, key …, … at #x#f"),
            ("attempt 00ff17aa90 of 10.0.2.1:9300", "attempt # of #.#.#.#:#"),
            ("an odd ` stays, (so do these, Zürich too", "an odd ` stays, (so do these, Zürich too"),
            ("W MIN (split 0 MIN in, split 1 MIN in), not 7", "W MIN …, not #"),
            ("first line\nsecond", "first line"),
        ];
        for (message, shape) in cases {
            assert_eq!(Signature::new("p", message).as_str(), format!("p: {shape}"));
        }
    }

    #[test]
    fn each_signature_of_a_report_comes_once_and_in_order() {
        let mut report = SeedReport::unfinished("s", 1, Verdict::Unsafe, "");
        for (property, message) in [("b", "at 1"), ("a", "at 2"), ("b", "at 3"), ("b", "elsewhere")] {
            let (property, message) = (property.to_owned(), message.to_owned());
            report.failures.push(Failure { property, message, witness: Witness::default() });
        }
        let all: Vec<String> = report.signatures().iter().map(ToString::to_string).collect();
        assert_eq!(all, ["b: at #", "a: at #", "b: elsewhere"]);
        assert_eq!(report.signatures()[0].property(), "b");
    }

    #[test]
    fn a_panic_has_one_and_an_undecided_run_none() {
        let report = SeedReport::unfinished("s", 1, Verdict::Panicked, "worker-1: offset 4 past 3");
        assert_eq!(report.signatures(), [Signature::new(PANIC, "worker-7: offset 99 past 1")]);
        assert_eq!(SeedReport::unfinished("s", 1, Verdict::Inconclusive, "slow").signatures(), []);
    }
}
