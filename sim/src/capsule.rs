//! A failure in one file, to be opened on another machine: the plan, what it was run with, and all that was seen.
//!
//! ```text
//! streamproof capsule 1\n      the kind of file and its version, readable by `head`
//! zstd( JSON of Capsule )
//! ```
//!
//! Guarantees: a capsule is on disk whole or not at all; reading a file of any contents gives a capsule or one sentence, and
//! never more memory than [`MAX_BYTES`]. It does not promise that another build repeats the run: [`Build::differences`]
//! says when it must, and otherwise the plan is what the two have in common ([`Lead`]).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use history::History;
use reports::SeedReport;
use scenarios::Plan;
use serde::{Deserialize, Serialize};

use crate::build_info::Build;
use crate::runner::RunResult;

/// Version of the file. Another one is refused.
pub const VERSION: u32 = 1;
/// How the file begins; the version and a line's end follow.
const MAGIC: &str = "streamproof capsule ";
/// What a file may unpack to.
const MAX_BYTES: u64 = 1 << 30;
/// Compressed in the worker right after the failing run: fast matters more than small.
const LEVEL: i32 = 3;

/// One run, whole.
#[derive(Debug, Serialize, Deserialize)]
pub struct Capsule {
    pub version: u32,
    pub build: Build,
    pub plan: Plan,
    /// What was reported of it, with the trace hashes.
    pub report: SeedReport,
    /// Verdicts, notes, timings, lives and messages.
    pub result: RunResult,
    pub history: History,
}

impl Capsule {
    /// Nothing if the result was kept without its history.
    pub fn new(plan: &Plan, report: &SeedReport, mut result: RunResult) -> Option<Self> {
        let history = result.history.take()?;
        Some(Self {
            version: VERSION,
            build: Build::current(),
            plan: plan.clone(),
            report: report.clone(),
            result,
            history,
        })
    }

    /// Writes the file, with the folder it is in.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let written = (|| {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            let new = path.with_extension("capsule.new");
            let mut file = File::create(&new)?;
            file.write_all(format!("{MAGIC}{VERSION}\n").as_bytes())?;
            let mut packed = zstd::Encoder::new(file, LEVEL)?;
            serde_json::to_writer(&mut packed, self)?;
            packed.finish()?.sync_all()?;
            fs::rename(&new, path)
        })();
        written.map_err(|e: std::io::Error| format!("{}: {e}", path.display()))
    }

    /// # Errors
    /// A sentence that names the file: no capsule, one of another version, one that is damaged, or one whose history only
    /// the build that made it can read.
    pub fn read(path: &Path) -> Result<Self, String> {
        let capsule = unpack::<Self>(path).map_err(|e| match Lead::read(path) {
            Ok(lead) if !lead.is_of_this_build() => {
                let (path, commit) = (path.display(), lead.build.commit_text());
                format!("{path}: made by another build ({commit}), whose history this one cannot read; `replay` runs its plan ({e})")
            }
            _ => e,
        })?;
        capsule.plan.validate().map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(capsule)
    }
}

/// What of a capsule every build can read that reads its plan: all that a replay needs.
#[derive(Debug, Deserialize)]
pub struct Lead {
    pub build: Build,
    pub plan: Plan,
    pub report: SeedReport,
}

impl Lead {
    /// # Errors
    /// As [`Capsule::read`], but for the history.
    pub fn read(path: &Path) -> Result<Self, String> {
        let lead = unpack::<Self>(path)?;
        lead.plan.validate().map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(lead)
    }

    /// Whether this build must repeat the run bit for bit.
    pub fn is_of_this_build(&self) -> bool {
        Build::current().differences(&self.build).is_empty()
    }

    /// The same in a sentence.
    pub fn expectation(&self) -> String {
        expectation(&self.build)
    }
}

/// What can be expected of a capsule of that build.
pub fn expectation(build: &Build) -> String {
    let here = Build::current();
    let differences = here.differences(build);
    if differences.is_empty() {
        return format!("the capsule was made by this build ({}): the run must match bit for bit", build.commit_text());
    }
    format!(
        "the capsule was made by another build ({}, {}; here {}, {}), which differs in {}: only the plan is the same, and the \
         run may be another one",
        build.commit_text(),
        build.toolchain,
        here.commit_text(),
        here.toolchain,
        differences.join(" and ")
    )
}

/// The file's JSON, as much of it as `T` has.
fn unpack<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut file = File::open(path).map_err(|e| named(&e))?;
    let version = head(&mut file).ok_or_else(|| named(&"this is no capsule"))?;
    if version != VERSION.to_string() {
        return Err(named(&format_args!(
            "a capsule of version {version}, and this program reads version {VERSION}: use the program that wrote it"
        )));
    }
    let unpacked = zstd::Decoder::new(file).map_err(|e| named(&e))?;
    let text = std::io::BufReader::new(unpacked.take(MAX_BYTES));
    serde_json::from_reader(text).map_err(|e| named(&format_args!("a damaged capsule: {e}")))
}

/// Whether the file begins as a capsule does.
pub fn is_capsule(path: &Path) -> bool {
    File::open(path).is_ok_and(|mut file| head(&mut file).is_some())
}

/// The version in the first line, which is read and nothing after it.
fn head(file: &mut File) -> Option<String> {
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic).ok()?;
    if magic != MAGIC.as_bytes() {
        return None;
    }
    let mut version = String::new();
    let mut byte = [0];
    while version.len() < 10 {
        file.read_exact(&mut byte).ok()?;
        match byte[0] {
            b'\n' => return Some(version),
            digit if digit.is_ascii_digit() => version.push(char::from(digit)),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::runner::{self, RunOptions};

    /// Of a failure that is there on purpose.
    pub(crate) fn capsule() -> Capsule {
        let plan = scenarios::generate("canary_page_cache", 1).unwrap();
        let result = runner::run(&plan, &RunOptions { keep_history: true, ..RunOptions::default() });
        let report = crate::worker::report(result.clone());
        Capsule::new(&plan, &report, result).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("capsules/one.capsule");
        let capsule = capsule();
        capsule.write(&path).unwrap();
        assert!(is_capsule(&path));
        let again = Capsule::read(&path).unwrap();
        assert_eq!((&again.plan, &again.report, &again.history), (&capsule.plan, &capsule.report, &capsule.history));
        assert_eq!(again.build, Build::current());
        let lead = Lead::read(&path).unwrap();
        assert!(lead.is_of_this_build() && lead.plan == capsule.plan);
        assert!(lead.expectation().contains("bit for bit"), "{}", lead.expectation());
        let other = Build { sources: "0".into(), ..Build::current() };
        assert!(expectation(&other).contains("only the plan is the same"), "{}", expectation(&other));
    }

    #[test]
    fn of_another_builds_history_the_plan_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later.capsule");
        let capsule = capsule();
        let mut later = serde_json::to_value(&capsule).unwrap();
        later["history"]["of_a_later_day"] = 1.into();
        later["build"]["sources"] = "0".into();
        let packed = zstd::encode_all(&serde_json::to_vec(&later).unwrap()[..], LEVEL).unwrap();
        fs::write(&path, [format!("{MAGIC}{VERSION}\n").into_bytes(), packed].concat()).unwrap();
        let error = Capsule::read(&path).unwrap_err();
        assert!(error.contains("made by another build") && error.contains("of_a_later_day"), "{error}");
        assert_eq!(Lead::read(&path).unwrap().plan, capsule.plan);
    }

    #[test]
    fn anything_else_is_one_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.capsule");
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Capsule::read(&path).unwrap_err()
        };
        assert!(refused(b"").contains("this is no capsule"));
        assert!(refused(b"{\"version\":1}").contains("this is no capsule"));
        assert!(refused(b"streamproof capsule x\n").contains("this is no capsule"));
        assert!(refused(b"streamproof capsule 9\n").contains("a capsule of version 9"));
        capsule().write(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in [23, 60, whole.len() / 2, whole.len() - 1] {
            assert!(refused(&whole[..cut]).contains("damaged"), "cut at {cut}");
        }
        assert!(!is_capsule(dir.path()) && !is_capsule(&dir.path().join("missing")));
    }
}
