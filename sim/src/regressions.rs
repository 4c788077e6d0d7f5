//! Plans that once failed, kept so that they never fail again.
//!
//! ```text
//! tests/regressions/NAME.json    the plan, in its stored form
//!                   NAME.toml    its note: what was wrong, how it showed, where it was found
//! ```
//!
//! A plan is run with its own schedule and [`TAILS`] - 1 others: a bug that needed one order of tasks may come back under
//! another. The folder lies under the current directory, so a user's own repository has its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use reports::{SeedReport, Signature};
use scenarios::Plan;
use scenarios::catalogue;
use scenarios::plan::{Seeds, Target, Trigger};
use serde::{Deserialize, Serialize};

use crate::plans::{read_plan, read_text};
use crate::runner::TAILS;
use crate::shrink::write_plan;
use crate::task::{Source, Task};

/// The folder, from the current directory.
pub const DIR: &str = "tests/regressions";
/// Version of a note.
const VERSION: u32 = 1;

/// What is known of a plan beside the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    pub version: u32,
    /// What was wrong, for people.
    pub story: String,
    /// How it failed when it was added; none if it no longer did.
    pub signature: Option<Signature>,
    /// The scenario and seed it was found by.
    pub found: String,
}

/// A kept plan.
#[derive(Clone, Debug)]
pub struct Regression {
    /// The file's, without `.json`.
    pub name: String,
    pub path: PathBuf,
    /// Or why this build cannot run it.
    pub plan: Result<Plan, String>,
    /// A plan that was put there by hand has none.
    pub note: Option<Note>,
}

/// All of a folder, by name; a missing folder has none.
///
/// # Errors
/// A sentence that names the file: an unreadable folder or note. A plan that is refused is no error here.
pub fn read_all(dir: &Path) -> Result<Vec<Regression>, String> {
    let fail = |e: std::io::Error| format!("{}: {e}", dir.display());
    let mut paths = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        entries => entries.and_then(|e| e.map(|e| Ok(e?.path())).collect::<Result<Vec<_>, _>>()).map_err(fail)?,
    };
    paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Result<Regression, String> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let note = path.with_extension("toml");
    let note = match note.is_file() {
        true => Some(toml::from_str(&read_text(&note)?).map_err(|e| format!("{}: {e}", note.display()))?),
        false => None,
    };
    Ok(Regression { name, plan: read_plan(&path), path, note })
}

/// Keeps a plan.
///
/// # Errors
/// A sentence: a bad or taken name, a plan that fails by design, a file that cannot be written.
pub fn add(dir: &Path, name: &str, plan: &Plan, story: &str, report: &SeedReport) -> Result<PathBuf, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || !name.chars().all(good) {
        return Err(format!("`{name}` is no name for a regression: say what was wrong in lower-case-words"));
    }
    if let Some(property) = catalogue::find(&plan.scenario).and_then(|entry| entry.must_fail) {
        return Err(format!("{} is a canary: it violates {property} by design, for ever", plan.scenario));
    }
    let path = dir.join(format!("{name}.json"));
    if path.exists() {
        return Err(format!("{} is there already: give another name", path.display()));
    }
    let note = Note {
        version: VERSION,
        story: story.trim().to_owned(),
        signature: report.signatures().into_iter().next(),
        found: format!("{}/{}", plan.scenario, plan.seed),
    };
    let text = toml::to_string(&note).map_err(|e| format!("{}: {e}", path.display()))?;
    write_plan(&path, plan)?;
    let beside = path.with_extension("toml");
    fs::write(&beside, text).map_err(|e| format!("{}: {e}", beside.display()))?;
    Ok(path)
}

impl Regression {
    /// One task for each schedule.
    pub fn tasks(&self) -> Vec<Task> {
        let seed = self.plan.as_ref().map_or(0, |plan| plan.seed);
        let task = |n| Task { source: Source::Schedule { plan: self.path.clone(), n }, seed, faults: None };
        (0..TAILS).map(task).collect()
    }

    /// # Errors
    /// A sentence that names the file that stays.
    pub fn remove(&self) -> Result<(), String> {
        for path in [self.path.clone(), self.path.with_extension("toml")] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(format!("{}: {e}", path.display())),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Why a regression is worth nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surplus {
    /// This build refuses its plan.
    Invalid(String),
    /// But for its seeds it is the plan of that name.
    Same(String),
    /// It failed as that one did, has faults of the same kinds in the same places, and reaches no rare state more.
    Covered(String),
}

impl std::fmt::Display for Surplus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Surplus::Invalid(why) => write!(f, "this build refuses it: {why}"),
            Surplus::Same(other) => write!(f, "but for its seeds it is {other}"),
            Surplus::Covered(other) => {
                write!(f, "{other} failed the same way, by the same kinds of faults, and reaches all that it reaches")
            }
        }
    }
}

/// What `prune` drops, with the reason. `reached` gives the rare states that a plan reaches.
pub fn surplus(
    all: &[Regression],
    reached: &mut dyn FnMut(&Regression) -> Option<BTreeSet<String>>,
) -> Vec<(Regression, Surplus)> {
    let mut out = Vec::new();
    let mut kept: Vec<(&Regression, &Plan)> = Vec::new();
    for one in all {
        match &one.plan {
            Err(why) => out.push((one.clone(), Surplus::Invalid(why.clone()))),
            Ok(plan) => kept.push((one, plan)),
        }
    }
    // The smaller plan stays; of equals, the first by name.
    kept.sort_by_key(|(one, plan)| (plan.faults.len() + plan.records().count(), &one.name));
    let mut stay: Vec<(&Regression, &Plan)> = Vec::new();
    for (one, plan) in kept {
        let same = stay.iter().find(|(_, other)| without_seeds(plan) == without_seeds(other));
        let why = match same {
            Some((other, _)) => Some(Surplus::Same(other.name.clone())),
            None => stay
                .iter()
                .find(|(other, has)| alike((one, plan), (other, has)) && covers(one, other, reached))
                .map(|(other, _)| Surplus::Covered(other.name.clone())),
        };
        match why {
            Some(why) => out.push((one.clone(), why)),
            None => stay.push((one, plan)),
        }
    }
    out
}

fn without_seeds(plan: &Plan) -> Plan {
    Plan { seed: 0, seeds: Seeds { workload: 0, world: 0, schedule: 0 }, ..plan.clone() }
}

/// The same signature, and faults of the same kinds in the same places. Without a signature nothing is alike.
fn alike((one, plan): (&Regression, &Plan), (other, has): (&Regression, &Plan)) -> bool {
    let signature = |r: &Regression| r.note.as_ref().and_then(|note| note.signature.clone());
    signature(one).is_some() && signature(one) == signature(other) && places(plan) == places(has)
}

fn covers(
    one: &Regression,
    other: &Regression,
    reached: &mut dyn FnMut(&Regression) -> Option<BTreeSet<String>>,
) -> bool {
    matches!((reached(one), reached(other)), (Some(a), Some(b)) if a.is_subset(&b))
}

fn places(plan: &Plan) -> BTreeSet<(String, String)> {
    let role = |target: &Target| match target {
        Target::Node(name) => name.role.name(),
        Target::Role(role) => role.name(),
        Target::Leader(_) => "leader",
        Target::Follower(_) => "follower",
        Target::Followers(_) => "followers",
        Target::Controller => "controller",
    };
    let place = |fault: &scenarios::plan::Fault| {
        let trigger = match &fault.trigger {
            Trigger::At { .. } => "at a time".to_owned(),
            Trigger::CrashPoint(point) => format!("{} {} {:?}", role(&point.node), point.label, point.when),
        };
        let targets: Vec<&str> = fault.action.targets().iter().map(role).collect();
        (format!("{} {}", fault.action.kind(), targets.join(" ")), trigger)
    };
    plan.faults.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use reports::{Failure, Verdict, Witness};

    use super::*;

    fn report(message: &str) -> SeedReport {
        let mut report = SeedReport::unfinished("swarm", 1, Verdict::Unsafe, "");
        let (property, message) = ("acked-durable".into(), message.into());
        report.failures.push(Failure { property, message, witness: Witness::default() });
        report
    }

    fn plan(seed: u64, faults: usize) -> Plan {
        let mut plan = scenarios::generate("power_loss", seed).unwrap();
        plan.faults.truncate(faults);
        plan
    }

    #[test]
    fn what_is_added_is_read_again_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("deep/regressions");
        assert!(read_all(&dir).unwrap().is_empty());
        add(&dir, "early-ack", &plan(1, 2), " It was\nlost. ", &report("lost at 3")).unwrap();
        let [one] = &read_all(&dir).unwrap()[..] else { panic!("one regression") };
        let note = one.note.as_ref().unwrap();
        assert_eq!((one.name.as_str(), note.story.as_str()), ("early-ack", "It was\nlost."));
        assert_eq!(note.signature.as_ref().unwrap().as_str(), "acked-durable: lost at #");
        assert_eq!((note.found.as_str(), &one.plan), ("power_loss/1", &Ok(plan(1, 2))));
        let tasks = one.tasks();
        assert_eq!(tasks.len(), TAILS as usize);
        assert!(tasks.iter().all(|t| t.seed == 1));
        one.remove().unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn bad_names_taken_names_and_canaries_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "Early", "a b", "../a", "a.json"] {
            assert!(add(dir.path(), name, &plan(1, 1), "", &report("x")).is_err(), "{name}");
        }
        add(dir.path(), "a", &plan(1, 1), "", &report("x")).unwrap();
        assert!(add(dir.path(), "a", &plan(2, 1), "", &report("x")).unwrap_err().contains("another name"));
        let canary = scenarios::generate("canary_page_cache", 1).unwrap();
        assert!(add(dir.path(), "b", &canary, "", &report("x")).unwrap_err().contains("by design"));
    }

    #[test]
    fn prune_names_what_is_worth_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let small = plan(1, 1);
        add(dir, "small", &small, "", &report("lost at 1")).unwrap();
        let twice = Plan { seeds: Seeds { workload: 1, world: 2, schedule: 3 }, ..small.clone() };
        add(dir, "twice", &twice, "", &report("lost at 2")).unwrap();
        let mut covered = small.clone();
        covered.budgets.safety_ms += 1;
        add(dir, "z-covered", &covered, "", &report("lost at 3")).unwrap();
        covered.budgets.safety_ms += 1;
        add(dir, "otherwise", &covered, "", &report("found twice")).unwrap();
        let mut bare = covered.clone();
        bare.faults.clear();
        add(dir, "no-fault", &bare, "", &report("lost at 4")).unwrap();
        fs::write(dir.join("torn.json"), "{").unwrap();
        let all = read_all(dir).unwrap();
        let names = |drop: Vec<(Regression, Surplus)>| {
            drop.into_iter().map(|(r, why)| (r.name, why)).filter(|(name, _)| name != "torn").collect::<Vec<_>>()
        };
        let same = ("twice".to_owned(), Surplus::Same("small".into()));
        let reached = surplus(&all, &mut |_| Some(BTreeSet::new()));
        assert!(matches!(&reached[0], (one, Surplus::Invalid(_)) if one.name == "torn"), "{reached:?}");
        assert_eq!(names(reached), [same.clone(), ("z-covered".into(), Surplus::Covered("small".into()))]);
        // What reaches a rare state more stays.
        let more = |r: &Regression| Some(if r.name == "z-covered" { ["a".to_owned()].into() } else { BTreeSet::new() });
        assert_eq!(names(surplus(&all, &mut { more })), [same]);
    }
}
