//! What a sweep is, whichever of its shards runs. Each shard keeps it, so that only shards of one sweep are put together.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::selection::Selection;
use crate::task::{Source, Task};

/// A whole sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// In the order in which they run: plans first.
    pub lanes: Vec<Lane>,
    /// Files that say what runs: plans, then the user's job and events.
    pub files: Vec<Content>,
    /// Fault families (`--faults`); `None` is all.
    pub faults: Option<BTreeSet<String>>,
}

/// Seeds of a scenario, or schedules of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lane {
    /// Of a plan: its file's name.
    pub scenario: String,
    pub first: u64,
    pub seeds: u64,
}

/// A file by what is in it: on another machine it may lie elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    pub name: String,
    pub hash: String,
}

impl Sweep {
    /// Of a selection that is not cut into shards yet.
    ///
    /// # Errors
    /// A sentence that names a file that cannot be read.
    pub fn of(selection: &Selection) -> Result<Self, String> {
        let mut plans: Vec<(&Path, u64)> = Vec::new();
        for task in &selection.kept {
            let Source::Schedule { plan, .. } = &task.source else { continue };
            match plans.last_mut() {
                Some((last, schedules)) if *last == plan.as_path() => *schedules += 1,
                _ => plans.push((plan, 1)),
            }
        }
        let (mut lanes, mut files) = (Vec::new(), Vec::new());
        for (plan, seeds) in plans {
            lanes.push(Lane { scenario: file_name(plan), first: 0, seeds });
            files.push(Content::of(plan)?);
        }
        for lane in &selection.lanes {
            if let Source::Job { job, events } = &lane.source {
                files.extend([Content::of(job)?, Content::of(events)?]);
            }
            let task = Task { source: lane.source.clone(), seed: lane.first, faults: None };
            lanes.push(Lane { scenario: task.scenario().to_owned(), first: lane.first, seeds: lane.count });
        }
        Ok(Self { lanes, files, faults: selection.faults.clone() })
    }

    /// In what the other one is another sweep, each with both values; empty if it is the same.
    pub fn differences(&self, other: &Sweep) -> Vec<String> {
        let mut all = Vec::new();
        let (mine, others) = (self.scenarios(), other.scenarios());
        if mine != others {
            all.push(format!("the scenarios ({} and {})", some(&mine), some(&others)));
        } else {
            let pairs = || self.lanes.iter().zip(&other.lanes);
            if let Some((a, b)) = pairs().find(|(a, b)| a.first != b.first) {
                all.push(format!("the first seed of {} ({} and {})", a.scenario, a.first, b.first));
            }
            if let Some((a, b)) = pairs().find(|(a, b)| a.seeds != b.seeds) {
                all.push(format!("the number of seeds of {} ({} and {})", a.scenario, a.seeds, b.seeds));
            }
            // A file of another name with the same content is the same.
            let files = self.files.iter().zip(&other.files);
            all.extend(files.filter(|(a, b)| a.hash != b.hash).map(|(a, _)| format!("what is in {}", a.name)));
        }
        if self.faults != other.faults {
            all.push(format!("the fault families ({} and {})", families(self), families(other)));
        }
        all
    }

    fn scenarios(&self) -> Vec<&str> {
        self.lanes.iter().map(|lane| lane.scenario.as_str()).collect()
    }
}

impl Content {
    fn of(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self { name: file_name(path), hash: format!("{:032x}", xxh3_128(&bytes)) })
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn families(sweep: &Sweep) -> String {
    match &sweep.faults {
        None => "all".to_owned(),
        Some(none) if none.is_empty() => "none".to_owned(),
        Some(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
    }
}

/// So many names as fit in a line.
fn some(names: &[&str]) -> String {
    const SHOWN: usize = 4;
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::selection;

    pub(crate) fn sweep(lanes: &[(&str, u64, u64)]) -> Sweep {
        let lane = |&(name, first, seeds): &(&str, u64, u64)| Lane { scenario: name.to_owned(), first, seeds };
        Sweep { lanes: lanes.iter().map(lane).collect(), files: Vec::new(), faults: None }
    }

    #[test]
    fn sweeps_differ_by_what_they_run() {
        let one = sweep(&[("smoke", 0, 100), ("swarm", 0, 600)]);
        assert!(one.differences(&one.clone()).is_empty());
        let differs = |other: &Sweep| one.differences(other).join("; ");
        assert_eq!(differs(&sweep(&[("swarm", 0, 600)])), "the scenarios (smoke, swarm and swarm)");
        assert_eq!(
            differs(&sweep(&[("smoke", 0, 100), ("swarm", 7, 500)])),
            "the first seed of swarm (0 and 7); the number of seeds of swarm (600 and 500)"
        );
        let faults = Some(["net".to_owned(), "disk".to_owned()].into());
        assert_eq!(differs(&Sweep { faults, ..one.clone() }), "the fault families (all and disk, net)");
        let many = sweep(&[("a", 0, 1), ("b", 0, 1), ("c", 0, 1), ("d", 0, 1), ("e", 0, 1)]);
        assert_eq!(differs(&many), "the scenarios (smoke, swarm and a, b, c, d and 1 more)");
    }

    #[test]
    fn a_plan_is_what_is_in_its_file() {
        let tmp = tempfile::tempdir().unwrap();
        let of = |folder: &str, text: &str| {
            let plan = tmp.path().join(folder).join("x.json");
            std::fs::create_dir_all(plan.parent().unwrap()).unwrap();
            std::fs::write(&plan, text).unwrap();
            let task = |n| Task { source: Source::Schedule { plan: plan.clone(), n }, seed: 9, faults: None };
            let lanes =
                vec![selection::Lane { source: Source::Scenario("smoke".into()), first: 3, count: 5, share: 1 }];
            Sweep::of(&Selection { kept: (0..4).map(task).collect(), lanes, ..Selection::default() })
        };
        let here = of("here", "{}").unwrap();
        assert_eq!(here.lanes, sweep(&[("x.json", 0, 4), ("smoke", 3, 5)]).lanes);
        assert!(here.differences(&of("elsewhere", "{}").unwrap()).is_empty(), "the same in another folder");
        assert_eq!(here.differences(&of("changed", "[]").unwrap()), ["what is in x.json"]);
        let again: Sweep = serde_json::from_str(&serde_json::to_string(&here).unwrap()).unwrap();
        assert_eq!(again, here);
    }
}
