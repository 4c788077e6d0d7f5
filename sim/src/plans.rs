//! From a task to its plan: the catalogue's scenarios, the bundled flights, the user's own job and stored plans.
//!
//! A plan depends on the task alone, so the supervisor and its workers make the same one, each for itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use models::JobSpec;
use scenarios::Families;
use scenarios::Plan;
use scenarios::catalogue::{self, Event, Input};

use crate::capsule::Lead;
use crate::task::{Source, Task};

/// The scenario that runs the bundled flights: job A with even seeds, job B with odd ones.
pub const FLIGHTS: &str = "flights";

const FLIGHTS_A: &str = include_str!("../../examples/flights/job-a.toml");
const FLIGHTS_B: &str = include_str!("../../examples/flights/job-b.toml");
const FLIGHTS_EVENTS: &[u8] = include_bytes!("../../examples/flights/events.csv");

/// Partitions of a source topic whose events name no higher one.
pub const DEFAULT_PARTITIONS: u32 = 2;
/// Partitions that an events file may name.
const MAX_PARTITIONS: i32 = 64;

/// Makes plans; keeps the last events file parsed, since a worker runs many seeds of one job.
#[derive(Debug, Default)]
pub struct Planner {
    workload: Option<(Key, Workload)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Key {
    FlightsA,
    FlightsB,
    Files { job: PathBuf, events: PathBuf },
}

/// A job with its events, ready for any number of seeds.
#[derive(Debug)]
pub struct Workload {
    pub toml: String,
    pub job: JobSpec,
    /// Of the source topic.
    pub partitions: u32,
    pub events: Vec<Event>,
    /// What to tell the user about single rows: those that go to the dead-letter topic, say.
    pub notes: Vec<String>,
}

impl Planner {
    /// # Errors
    /// A sentence for people: an unknown scenario, a job file or a plan that is refused, a file that cannot be read.
    pub fn plan(&mut self, task: &Task) -> Result<Plan, String> {
        let families = families(task.faults.as_ref());
        match &task.source {
            Source::Scenario(name) if name == FLIGHTS => {
                let (key, toml, file) = if task.seed.is_multiple_of(2) {
                    (Key::FlightsA, FLIGHTS_A, "examples/flights/job-a.toml")
                } else {
                    (Key::FlightsB, FLIGHTS_B, "examples/flights/job-b.toml")
                };
                let make = || Workload::new(toml, file, FLIGHTS_EVENTS, "examples/flights/events.csv");
                Ok(self.workload(key, make)?.plan(FLIGHTS, task.seed, &families))
            }
            Source::Scenario(name) => catalogue::generate_with(name, task.seed, &families).map_err(|e| e.to_string()),
            Source::Job { job, events } => {
                let key = Key::Files { job: job.clone(), events: events.clone() };
                Ok(self.workload(key, || Workload::read(job, events))?.plan("job", task.seed, &families))
            }
            Source::Plan(path) => {
                let mut plan = read_plan(path)?;
                plan.faults.retain(|fault| families.contains(&fault.family));
                Ok(plan)
            }
            Source::Schedule { plan, n } => Ok(crate::runner::with_tail(&read_plan(plan)?, *n)),
            Source::Inline { plan, .. } => Ok((**plan).clone()),
            Source::Capsule(path) => Ok(Lead::read(path)?.plan),
        }
    }

    /// Rows of the last events file that are no valid input, with their lines.
    pub fn notes(&self) -> &[String] {
        self.workload.as_ref().map_or(&[], |(_, workload)| &workload.notes)
    }

    fn workload(&mut self, key: Key, make: impl FnOnce() -> Result<Workload, String>) -> Result<&Workload, String> {
        if self.workload.as_ref().is_none_or(|(have, _)| *have != key) {
            self.workload = Some((key, make()?));
        }
        self.workload.as_ref().map(|(_, workload)| workload).ok_or_else(|| "no workload".into())
    }
}

impl Workload {
    /// Reads both files.
    ///
    /// # Errors
    /// As [`Workload::new`], or a file that cannot be read.
    pub fn read(job: &Path, events: &Path) -> Result<Self, String> {
        let toml = read_text(job)?;
        let bytes = std::fs::read(events).map_err(|e| format!("{}: {e}", events.display()))?;
        Self::new(&toml, &job.display().to_string(), &bytes, &events.display().to_string())
    }

    /// # Errors
    /// A job file that is refused, or an events file without events.
    pub fn new(toml: &str, job_file: &str, events: &[u8], events_file: &str) -> Result<Self, String> {
        let job = JobSpec::parse(toml, job_file).map_err(|e| e.to_string())?;
        let (rows, partitions) = read_events(&job, events_file, events)?;
        if rows.records.is_empty() {
            return Err(format!("{events_file} holds no events"));
        }
        let notes = notes(events_file, &rows);
        let events = rows
            .records
            .into_iter()
            .map(|r| Event { partition: r.partition, key: r.key.map(String::into_bytes), value: r.value })
            .collect();
        Ok(Self { toml: toml.to_owned(), job, partitions, events, notes })
    }

    /// The plan of `seed`.
    pub fn plan(&self, scenario: &str, seed: u64, families: &Families) -> Plan {
        let input = Input {
            toml: &self.toml,
            topic: &self.job.source.topic,
            partitions: self.partitions,
            events: &self.events,
        };
        catalogue::generate_from_events(scenario, seed, families, &input)
    }
}

/// The rows of an events file, and how many partitions its topic has: those that the rows name, at least
/// [`DEFAULT_PARTITIONS`].
///
/// # Errors
/// A sentence that names the file and line.
pub fn read_events(job: &JobSpec, file: &str, bytes: &[u8]) -> Result<(models::events::Events, u32), String> {
    let named = models::events::partitions_named(job, file, bytes, MAX_PARTITIONS).map_err(|e| e.to_string())?;
    let partitions = named.max(DEFAULT_PARTITIONS as i32);
    let events = models::events::read(job, file, bytes, partitions).map_err(|e| e.to_string())?;
    Ok((events, partitions.unsigned_abs()))
}

/// What to tell the user about single rows, with their places.
pub fn notes(file: &str, events: &models::events::Events) -> Vec<String> {
    events.notes.iter().map(|note| format!("{file}:{}: {}", note.line, note.message)).collect()
}

/// The families of `--faults`; without the flag, all.
fn families(names: Option<&BTreeSet<String>>) -> Families {
    scenarios::all_families().into_iter().filter(|f| names.is_none_or(|names| names.contains(f.name()))).collect()
}

/// # Errors
/// A sentence that names the file.
pub fn read_text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// # Errors
/// A sentence that names the file: unreadable, of another version, or refused by its own validation.
pub fn read_plan(path: &Path) -> Result<Plan, String> {
    Plan::from_json(&read_text(path)?).map_err(|e| format!("{}: {e}", path.display()))
}
