//! Why a job file is refused, where, and what to write instead.

use std::fmt;

/// What to tell the author of a job file. Prints as `file:line:column: message` and, below it, the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    pub kind: ErrorKind,
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
    /// What to write instead.
    pub suggestion: Option<String>,
}

/// Both end a command with exit 2; only the wording differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The file is wrong.
    Invalid,
    /// The file is right; this release does not do it yet.
    NotYetBuilt,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "\n  write instead: {suggestion}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecError {}

/// The candidate nearest to `word` by edit distance, if it is near enough to be what was meant.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    candidates
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word_is_close_or_none() {
        assert_eq!(nearest("evnt_time", &["key", "event_time", "topic"]), Some("event_time"));
        assert_eq!(nearest("sizee", &["size", "slide"]), Some("size"));
        assert_eq!(nearest("frobnicate", &["size", "slide"]), None);
    }
}
