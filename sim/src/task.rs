//! What a worker is asked to run, and the JSON lines between a supervisor and its workers.
//!
//! One request a line on the worker's stdin, one answer a line on its stdout, in the same order. Both carry
//! [`VERSION`]: a worker of another build refuses to answer rather than guess.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use reports::SeedReport;
use scenarios::Plan;
use serde::{Deserialize, Serialize};

/// Version of the protocol.
pub const VERSION: u32 = 1;

/// The hidden verb that makes a process a worker.
pub const WORKER_VERB: &str = "__worker";

/// What to run, small enough to send: the worker makes the plan itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    pub source: Source,
    pub seed: u64,
    /// Fault families to keep (`--faults`); `None` keeps them all.
    pub faults: Option<BTreeSet<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// A scenario of the catalogue.
    Scenario(String),
    /// The user's own job and events.
    Job { job: PathBuf, events: PathBuf },
    /// A stored plan; the task's seed is the plan's own.
    Plan(PathBuf),
    /// A stored plan under the `n`th of the schedules made from its own; 0 is its own.
    Schedule { plan: PathBuf, n: u64 },
    /// A plan that is in no file, with a number by which its sender knows the answer.
    Inline {
        id: u64,
        plan: Box<Plan>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tail: Option<Tail>,
    },
    /// The plan of a capsule.
    Capsule(PathBuf),
}

/// As [`world::Tail`]: other draws from an instant on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tail {
    pub at_ns: u64,
    pub schedule: u64,
    pub world: Option<u64>,
}

impl From<Tail> for world::Tail {
    fn from(tail: Tail) -> world::Tail {
        let at = std::time::Duration::from_nanos(tail.at_ns);
        world::Tail { at, schedule: tail.schedule, world_seed: tail.world }
    }
}

impl Task {
    /// Its name in reports: the scenario's, or what stands for one.
    pub fn scenario(&self) -> &str {
        match &self.source {
            Source::Scenario(name) => name,
            Source::Job { .. } => "job",
            Source::Plan(_) => "plan",
            Source::Schedule { plan, .. } => plan_scenario(plan),
            Source::Capsule(_) => "capsule",
            Source::Inline { plan, .. } => &plan.scenario,
        }
    }

    /// How it is called beside others of its scenario: a kept plan has a name of its own, and many schedules.
    pub fn title(&self) -> String {
        match &self.source {
            Source::Schedule { plan, n } => {
                let name = plan.strip_prefix(crate::regressions::DIR).unwrap_or(plan).with_extension("");
                format!("{} schedule {n}", name.display())
            }
            _ => format!("seed {}", self.seed),
        }
    }

    /// The same in a word, with its scenario.
    pub fn label(&self) -> String {
        match &self.source {
            Source::Schedule { plan, n } => format!("{}#{n}", plan.display()),
            _ => format!("{}/{}", self.scenario(), self.seed),
        }
    }

    /// The command that runs exactly this again.
    pub fn replay_command(&self) -> String {
        self.command("replay")
    }

    /// The command that tells its failure as a story.
    pub fn explain_command(&self) -> String {
        self.command("explain")
    }

    /// The command that makes its failure small.
    pub fn shrink_command(&self) -> String {
        self.command("shrink")
    }

    fn command(&self, verb: &str) -> String {
        let mut command = format!("streamproof {verb}");
        match &self.source {
            Source::Plan(path) | Source::Capsule(path) | Source::Schedule { plan: path, n: 0 } => {
                command.push_str(&format!(" {}", quote(&path.display().to_string())));
                return command;
            }
            Source::Schedule { plan, n } => {
                command.push_str(&format!(" {}", quote(&format!("{}#{n}", plan.display()))));
                return command;
            }
            Source::Job { job, events } => {
                command.push_str(&format!(
                    " --job {} --events {}",
                    quote(&job.display().to_string()),
                    quote(&events.display().to_string())
                ));
            }
            Source::Scenario(_) | Source::Inline { .. } => {}
        }
        if let Some(faults) = &self.faults {
            let list: Vec<&str> = faults.iter().map(String::as_str).collect();
            command.push_str(&format!(" --faults {}", list.join(",")));
        }
        command.push_str(&format!(" {}/{}", self.scenario(), self.seed));
        command
    }
}

/// What stands for a scenario where a stored plan runs.
pub fn plan_scenario(plan: &Path) -> &'static str {
    if plan.starts_with(crate::regressions::DIR) { "regressions" } else { "plan" }
}

/// Quotes for a POSIX shell where needed.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub version: u32,
    /// Echoed by the answer.
    pub id: u64,
    pub task: Task,
    /// Where a capsule goes if it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capsule: Option<Keep>,
}

/// A capsule that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    pub path: PathBuf,
    /// Also of a run that does not fail.
    pub always: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub version: u32,
    pub id: u64,
    pub report: SeedReport,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replay_commands_are_whole() {
        let mut task = Task { source: Source::Scenario("swarm".into()), seed: 41, faults: None };
        assert_eq!(task.replay_command(), "streamproof replay swarm/41");
        task.faults = Some(["net".to_owned(), "disk".to_owned()].into());
        assert_eq!(task.replay_command(), "streamproof replay --faults disk,net swarm/41");
        task.source = Source::Job { job: "my jobs/a.toml".into(), events: "e.csv".into() };
        assert_eq!(
            task.replay_command(),
            "streamproof replay --job 'my jobs/a.toml' --events e.csv --faults disk,net job/41"
        );
        task.source = Source::Plan("p/it's.json".into());
        assert_eq!(task.replay_command(), r"streamproof replay 'p/it'\''s.json'");
        task.source = Source::Schedule { plan: "p/a.json".into(), n: 0 };
        assert_eq!(task.replay_command(), "streamproof replay p/a.json");
        task.source = Source::Schedule { plan: "p/a.json".into(), n: 7 };
        assert_eq!(task.shrink_command(), "streamproof shrink 'p/a.json#7'");
        assert_eq!(task.title(), "p/a schedule 7", "another folder may have an a.json too");
        task.source = Source::Schedule { plan: "tests/regressions/a.json".into(), n: 7 };
        assert_eq!(task.title(), "a schedule 7");
    }
}
