//! Planted bugs: patches under `scenarios/bugs/`, each with a header that says what must find it.
//!
//! ```text
//! what: the broker acknowledges before fsync
//! check: acked-durable
//! scenario: swarm
//! seeds: 500
//!
//! diff --git a/system/… b/system/…
//! ```
//! `check` may name several properties, separated by commas: any of them will do. `panic` is one: that a contract of the
//! system's own machines is broken. A line `note:` says, where the bug that is meant cannot exist here, why not, and what
//! stands in for it. A line `guilty: NODE: ACTION; before: ACTION` says which step an explanation of the failure must name: who
//! did what, before what; the last part may be missing.

use std::path::{Path, PathBuf};

use reports::signature::PANIC;

/// Where the patches are, from the repository's root.
pub const DIR: &str = "scenarios/bugs";

/// The property that the runner itself judges: each phase of a run ends within its budget.
pub const LIVENESS: &str = "liveness";

/// A planted bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bug {
    /// The file's name without `.patch`.
    pub name: String,
    pub what: String,
    /// Why it is not quite the bug that it stands for.
    pub note: Option<String>,
    /// The step that its explanation must name.
    pub guilty: Option<Guilty>,
    /// Properties of which one must find it.
    pub checks: Vec<String>,
    pub scenario: String,
    /// Seeds of a range within which it must be found.
    pub seeds: u64,
    /// The unified diff.
    pub diff: String,
}

/// A step of an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guilty {
    /// How the node's name begins.
    pub who: String,
    /// A part of what it did.
    pub what: String,
    /// A part of a step that comes later.
    pub before: Option<String>,
}

impl Guilty {
    fn parse(text: &str) -> Result<Self, String> {
        let (step, before) = text.split_once("; before: ").map_or((text, None), |(step, later)| (step, Some(later)));
        let (who, what) = step.split_once(": ").ok_or_else(|| format!("guilty: `{text}` is not NODE: ACTION"))?;
        Ok(Self { who: who.to_owned(), what: what.to_owned(), before: before.map(str::to_owned) })
    }
}

/// The source tree that the current directory lies in.
///
/// # Errors
/// A sentence: planting a bug needs the sources.
pub fn checkout() -> Result<PathBuf, String> {
    let here = std::env::current_dir().map_err(|e| format!("failed to find the current directory: {e}"))?;
    let found = here.ancestors().find(|dir| dir.join(DIR).is_dir() && dir.join("Cargo.lock").is_file());
    found.map(Path::to_owned).ok_or_else(|| {
        format!("planted bugs need a checkout of streamproof: no {DIR} here or above; run this inside a clone")
    })
}

/// All bugs of a checkout, by name.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn read_all(checkout: &Path) -> Result<Vec<Bug>, String> {
    let dir = checkout.join(DIR);
    let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut bugs = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| format!("{}: {e}", dir.display()))?.path();
        if path.extension().is_some_and(|e| e == "patch") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            bugs.push(Bug::parse(&name, &text).map_err(|e| format!("{DIR}/{name}.patch: {e}"))?);
        }
    }
    bugs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(bugs)
}

impl Bug {
    /// # Errors
    /// What is missing or wrong in the header.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let start = if text.starts_with("diff --git ") { Some(0) } else { text.find("\ndiff --git ").map(|i| i + 1) };
        let start = start.ok_or("no line `diff --git …`")?;
        let (header, diff) = text.split_at(start);
        let optional = |key: &str| {
            let values: Vec<&str> =
                header.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(str::trim)).collect();
            match values[..] {
                [] => Ok(None),
                [value] => Ok(Some(value).filter(|v| !v.is_empty())),
                _ => Err(format!("several lines `{key}: …`")),
            }
        };
        let field = |key: &str| optional(key)?.ok_or_else(|| format!("no line `{key}: …` before the diff"));
        let checks: Vec<String> = field("check")?.split(',').map(|c| c.trim().to_owned()).collect();
        // The runner's own verdicts, that a phase did not end within its budget or that a node panicked, are in no
        // invariant's file.
        let known = |check: &str| [LIVENESS, PANIC].contains(&check) || invariants::find(check).is_some();
        if let Some(unknown) = checks.iter().find(|check| !known(check)) {
            return Err(format!("check: no property is named `{unknown}`"));
        }
        let scenario = field("scenario")?.to_owned();
        if scenarios::catalogue::find(&scenario).is_none() {
            return Err(format!("scenario: no scenario is named `{scenario}`"));
        }
        let seeds = field("seeds")?;
        let seeds = seeds.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("seeds: `{seeds}` is no count"))?;
        Ok(Self {
            name: name.to_owned(),
            what: field("what")?.to_owned(),
            note: optional("note")?.map(str::to_owned),
            guilty: optional("guilty")?.map(Guilty::parse).transpose()?,
            checks,
            scenario,
            seeds,
            diff: diff.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "what: acknowledges before fsync\ncheck: acked-durable, no-duplicate\nscenario: swarm\nseeds: 500\n\n\
                        diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n";

    #[test]
    fn reads_header_and_diff() {
        let bug = Bug::parse("early-ack", GOOD).unwrap();
        assert_eq!(bug.what, "acknowledges before fsync");
        assert_eq!(bug.checks, ["acked-durable", "no-duplicate"]);
        assert_eq!((bug.scenario.as_str(), bug.seeds), ("swarm", 500));
        assert!(bug.diff.starts_with("diff --git a/x b/x\n"));
        assert_eq!(bug.note, None);
    }

    #[test]
    fn reads_a_note() {
        let note = "note: acknowledgements wait for nothing else here";
        let bug = Bug::parse("x", &GOOD.replace("check: ", &format!("{note}\ncheck: "))).unwrap();
        assert_eq!(bug.note.as_deref(), note.strip_prefix("note: "));
        assert!(Bug::parse("x", &GOOD.replace("check: ", &format!("{note}\n{note}\ncheck: "))).is_err());
    }

    #[test]
    fn says_what_is_wrong() {
        let cases = [
            (GOOD.replace("check: ", "checks: "), "no line `check: …` before the diff"),
            (GOOD.replace("acked-durable", "acked-durabel"), "check: no property is named `acked-durabel`"),
            (GOOD.replace("swarm", "swam"), "scenario: no scenario is named `swam`"),
            (GOOD.replace("500", "many"), "seeds: `many` is no count"),
            (GOOD.replace("diff --git", "dif --git"), "no line `diff --git …`"),
        ];
        for (text, error) in cases {
            assert_eq!(Bug::parse("x", &text), Err(error.to_owned()));
        }
    }
}
