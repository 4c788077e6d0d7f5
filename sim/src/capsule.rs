//! A failure in one file, to be opened on another machine: the plan, what it was run with, and all that was seen.
//!
//! ```text
//! streamproof capsule 1\n      the kind of file and its version, readable by `head`
//! zstd( JSON of Capsule )
//! ```
//!
//! Guarantees: a capsule is on disk whole or not at all; reading a file of any contents gives a capsule or one sentence, and
//! never more memory than [`MAX_BYTES`]. It does not promise that another build repeats the run: [`Build::differences`]
//! says when it must, and otherwise the plan is what the two have in common.

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
    /// A sentence that names the file: no capsule, one of another version, or one that is damaged.
    pub fn read(path: &Path) -> Result<Self, String> {
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
        let capsule: Self =
            serde_json::from_reader(text).map_err(|e| named(&format_args!("a damaged capsule: {e}")))?;
        capsule.plan.validate().map_err(|e| named(&e))?;
        Ok(capsule)
    }

    /// Whether this build must repeat the run bit for bit.
    pub fn is_of_this_build(&self) -> bool {
        Build::current().differences(&self.build).is_empty()
    }

    /// The same in a sentence.
    pub fn expectation(&self) -> String {
        let here = Build::current();
        let differences = here.differences(&self.build);
        if differences.is_empty() {
            return format!(
                "the capsule was made by this build ({}): the run must match bit for bit",
                self.build.commit_text()
            );
        }
        format!(
            "the capsule was made by another build ({}, {}; here {}, {}), which differs in {}: only the plan is the same, and the \
             run may be another one",
            self.build.commit_text(),
            self.build.toolchain,
            here.commit_text(),
            here.toolchain,
            differences.join(" and ")
        )
    }
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
        assert!(again.expectation().contains("bit for bit"), "{}", again.expectation());
        let other = Build { sources: "0".into(), ..Build::current() };
        let again = Capsule { build: other, ..again };
        assert!(again.expectation().contains("only the plan is the same"), "{}", again.expectation());
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
