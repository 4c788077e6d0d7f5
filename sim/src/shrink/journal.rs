//! What was tried, beside the plan: a search that was interrupted goes on where it stopped.
//!
//! A line a run: the plan's hash and the signatures it failed with. The search itself is not stored; it is repeated from
//! its first plan, and every answer that is in the journal costs no run. The first line names the program and the first
//! plan: another build may behave otherwise, so its answers are not taken.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use reports::{SeedReport, Signature};
use scenarios::Plan;
use serde::{Deserialize, Serialize};

/// Version of the file.
const VERSION: u32 = 1;

/// Of a plan's stored form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlanHash(u128);

impl PlanHash {
    pub fn of(plan: &Plan) -> Self {
        let text = serde_json::to_vec(plan).expect("a plan has only string keys and integers");
        Self(xxhash_rust::xxh3::xxh3_128(&text))
    }
}

impl From<PlanHash> for String {
    fn from(hash: PlanHash) -> String {
        format!("{:032x}", hash.0)
    }
}

impl TryFrom<String> for PlanHash {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(PlanHash)
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    pub signatures: Vec<Signature>,
    pub simulated_ms: u64,
    pub wall_ms: u64,
}

impl Trial {
    pub fn of(report: &SeedReport) -> Self {
        let (simulated_ms, wall_ms) = (report.stats.simulated_ms, report.wall_ms);
        Self { signatures: report.signatures(), simulated_ms, wall_ms }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    version: u32,
    /// Of the program's bytes.
    program: String,
    /// Where the search began.
    plan: PlanHash,
}

#[derive(Serialize, Deserialize)]
struct Line {
    plan: PlanHash,
    #[serde(flatten)]
    trial: Trial,
}

/// The open journal of one search.
#[derive(Debug)]
pub struct Journal {
    file: Option<File>,
    known: BTreeMap<PlanHash, Trial>,
}

impl Journal {
    /// Kept in memory only.
    pub fn none() -> Self {
        Self { file: None, known: BTreeMap::new() }
    }

    /// Opens the journal of a search that begins with `plan`; one of another plan or program is begun anew.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(path: &Path, program: &Path, plan: &Plan) -> io::Result<Self> {
        let header = Header {
            version: VERSION,
            program: format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&fs::read(program)?)),
            plan: PlanHash::of(plan),
        };
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        let mut known = BTreeMap::new();
        let mut lines = text.lines();
        let same = lines.next().and_then(|l| serde_json::from_str::<Header>(l).ok()).is_some_and(|h| h == header);
        // The last line of a search that was killed may be cut short.
        let read = lines.map_while(|l| serde_json::from_str::<Line>(l).ok());
        known.extend(read.filter(|_| same).map(|line| (line.plan, line.trial)));
        // Written again whole: what follows must not be appended to half a line.
        let mut journal = Self { file: Some(File::create(path)?), known: BTreeMap::new() };
        journal.line(&header)?;
        for (plan, trial) in known {
            journal.add(plan, trial)?;
        }
        Ok(journal)
    }

    pub fn get(&self, plan: PlanHash) -> Option<&Trial> {
        self.known.get(&plan)
    }

    /// Runs on record.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// # Errors
    /// If the file cannot be written; the answer is known all the same.
    pub fn add(&mut self, plan: PlanHash, trial: Trial) -> io::Result<()> {
        let line = Line { plan, trial };
        let written = self.line(&line);
        self.known.insert(plan, line.trial);
        written
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        // One write a line: a reader sees whole ones, but for the last.
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        file.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(ms: u64) -> Trial {
        Trial { signatures: vec![Signature::new("p", "at 3")], simulated_ms: ms, wall_ms: 1 }
    }

    #[test]
    fn what_is_known_survives_but_not_another_plan_or_program() {
        let dir = tempfile::tempdir().unwrap();
        let (path, program) = (dir.path().join("j"), dir.path().join("program"));
        fs::write(&program, "one").unwrap();
        let plan = scenarios::generate("power_loss", 1).unwrap();
        let other = scenarios::generate("power_loss", 2).unwrap();
        let hash = PlanHash::of(&other);
        Journal::open(&path, &program, &plan).unwrap().add(hash, trial(7)).unwrap();
        // Killed in the middle of a line.
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"plan\":\"00").unwrap();
        for _ in 0..2 {
            let journal = Journal::open(&path, &program, &plan).unwrap();
            assert_eq!((journal.get(hash), journal.len()), (Some(&trial(7)), 1));
        }
        assert!(Journal::open(&path, &program, &other).unwrap().is_empty());
        Journal::open(&path, &program, &plan).unwrap().add(hash, trial(7)).unwrap();
        fs::write(&program, "two").unwrap();
        assert!(Journal::open(&path, &program, &plan).unwrap().is_empty());
    }
}
