//! Plants a bug in a copy of the source tree, builds it, and sees how soon which check finds it.
//!
//! The copy lies in `target/audit/tree`. Its intermediate artifacts lie beside the checkout's own (`build.build-dir`), so
//! that a dependency which is built already is not built again, and are incremental, so that the next bug recompiles
//! only what its patch touches; its program goes to `target/audit/build`. The working tree itself is never written. What runs there is the patched program's own
//! `run … --format json`, read line by line and stopped at the first failure that the right check names.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use reports::signature::PANIC;
use serde::{Deserialize, Serialize};

use crate::bugs::Bug;
use crate::interrupt::Interrupt;

/// What came of one bug over one range of seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detection {
    pub bug: String,
    pub first_seed: u64,
    pub seeds: u64,
    /// As the field `result`, with what it holds beside it.
    #[serde(flatten)]
    pub result: Finding,
    /// Seeds that had ended when it was found, or all.
    pub seeds_run: u64,
    /// Simulated time of those seeds.
    pub simulated_ms: u64,
    /// Without the build.
    pub wall_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Finding {
    /// By a check of the patch's header.
    RightCheck {
        seed: u64,
        check: String,
    },
    /// Only other checks fired.
    WrongCheck {
        seed: u64,
        checks: BTreeSet<String>,
    },
    Nothing,
}

/// A patched copy of the source tree.
#[derive(Debug)]
pub struct Workshop {
    checkout: PathBuf,
    tree: PathBuf,
    /// Where the finished program goes.
    build: PathBuf,
    /// Where the checkout's own intermediate artifacts are.
    artifacts: PathBuf,
}

impl Workshop {
    /// Copies the checkout: what git tracks, and what is new and not ignored.
    ///
    /// # Errors
    /// A sentence: no git, no cargo, or a file that cannot be copied.
    pub fn open(checkout: &Path) -> Result<Self, String> {
        for tool in ["git", "cargo"] {
            let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            if !found.is_ok_and(|status| status.success()) {
                return Err(format!("planting a bug needs {tool}, and it does not run here"));
            }
        }
        // The copy must lie below the checkout: it inherits `.cargo/config.toml` from there.
        let root = checkout.join("target/audit");
        let artifacts = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => checkout.join(dir),
            None => checkout.join("target"),
        };
        let shop =
            Self { checkout: checkout.to_owned(), tree: root.join("tree"), build: root.join("build"), artifacts };
        shop.restore()?;
        Ok(shop)
    }

    /// Makes the copy equal to the checkout. Equal files keep their time, so that cargo does not build them again.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn restore(&self) -> Result<(), String> {
        let listed = Command::new("git")
            .current_dir(&self.checkout)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()
            .map_err(|e| format!("git: {e}"))?;
        if !listed.status.success() {
            return Err(format!("planting a bug needs a git checkout: {}", String::from_utf8_lossy(&listed.stderr)));
        }
        let names: BTreeSet<PathBuf> = String::from_utf8_lossy(&listed.stdout)
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            // cargo joins the flags of every configuration above it: a second copy would say `--cfg madsim` twice, and
            // no artifact of the checkout would fit.
            .filter(|name| !name.starts_with(".cargo"))
            .filter(|name| self.checkout.join(name).is_file())
            .collect();
        for name in &names {
            let (from, to) = (self.checkout.join(name), self.tree.join(name));
            let bytes = fs::read(&from).map_err(|e| format!("{}: {e}", from.display()))?;
            if fs::read(&to).is_ok_and(|have| have == bytes) {
                continue;
            }
            let parent = to.parent().unwrap_or(&self.tree);
            fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
            fs::write(&to, bytes).map_err(|e| format!("{}: {e}", to.display()))?;
        }
        self.remove_strangers(&self.tree, &names)
    }

    fn remove_strangers(&self, dir: &Path, names: &BTreeSet<PathBuf>) -> Result<(), String> {
        let fail = |e: std::io::Error| format!("{}: {e}", dir.display());
        for entry in fs::read_dir(dir).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if path.is_dir() {
                self.remove_strangers(&path, names)?;
            } else if path.strip_prefix(&self.tree).is_ok_and(|name| !names.contains(name)) {
                fs::remove_file(&path).map_err(fail)?;
            }
        }
        Ok(())
    }

    /// Applies a bug's patch to the restored copy.
    ///
    /// # Errors
    /// What git says when the patch does not apply.
    pub fn plant(&self, bug: &Bug) -> Result<(), String> {
        self.restore()?;
        // `--directory` is not enough: git would otherwise look for the repository that target/ lies in.
        let mut child = Command::new("git")
            .current_dir(&self.tree)
            .env("GIT_CEILING_DIRECTORIES", self.tree.parent().unwrap_or(&self.tree))
            .args(["apply", "--whitespace=nowarn", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("git apply: {e}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(bug.diff.as_bytes()).map_err(|e| format!("git apply: {e}"))?;
        }
        let output = child.wait_with_output().map_err(|e| format!("git apply: {e}"))?;
        if !output.status.success() {
            return Err(format!(
                "the patch of {} does not apply: {}",
                bug.name,
                String::from_utf8_lossy(&output.stderr).trim()
            ));
        }
        Ok(())
    }

    /// Builds the copy; the path of its program.
    ///
    /// # Errors
    /// The compiler's last words.
    pub fn build(&self) -> Result<PathBuf, String> {
        let output = Command::new("cargo")
            .current_dir(&self.tree)
            // A flags variable would replace `--cfg madsim` of .cargo/config.toml.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET")
            .env("CARGO_BUILD_BUILD_DIR", &self.artifacts)
            .env("CARGO_INCREMENTAL", "1")
            .args(["build", "--release", "--locked", "--quiet", "--package", "streamproof", "--bin", "streamproof"])
            .arg("--target-dir")
            .arg(&self.build)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("cargo: {e}"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let tail: Vec<&str> = text.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect();
            return Err(format!("the patched tree does not build:\n{}", tail.join("\n")));
        }
        Ok(self.build.join("release/streamproof"))
    }

    /// Where patched programs run.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn runs(&self) -> Result<PathBuf, String> {
        let runs = self.build.with_file_name("runs");
        // Nearer than the checkout's, and empty: what is planted is run as the audit says.
        let settings = runs.join(crate::cli::settings::FILE);
        fs::create_dir_all(&runs)
            .and_then(|()| fs::write(settings, ""))
            .map_err(|e| format!("{}: {e}", runs.display()))?;
        Ok(runs)
    }

    /// Runs the patched program over one range.
    ///
    /// # Errors
    /// If it cannot be started or says what we do not understand.
    pub fn detect(
        &self,
        program: &Path,
        bug: &Bug,
        first_seed: u64,
        seeds: u64,
        jobs: usize,
        interrupt: &Interrupt,
    ) -> Result<Detection, String> {
        let started = Instant::now();
        let runs = self.runs()?;
        let mut child = patched(program)
            .current_dir(&runs)
            // Failures by other checks come first at times.
            .args(["run", &bug.scenario, "--format", "json", "--max-fail", "20"])
            .args(["--seed", &first_seed.to_string(), "--seeds", &seeds.to_string(), "--jobs", &jobs.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("{}: {e}", program.display()))?;
        let stdout = child.stdout.take().ok_or("the patched program has no stdout")?;
        let mut out = Detection {
            bug: bug.name.clone(),
            first_seed,
            seeds,
            result: Finding::Nothing,
            seeds_run: 0,
            simulated_ms: 0,
            wall_ms: 0,
        };
        let mut failure = None;
        for line in BufReader::new(stdout).lines() {
            if interrupt.is_set() {
                break;
            }
            match line.map_err(|e| e.to_string()).and_then(|line| out.read(&line, bug)) {
                Ok(true) => break,
                Ok(false) => {}
                Err(e) => {
                    failure = Some(e);
                    break;
                }
            }
        }
        // Its workers end by themselves when their stdin closes.
        let _ = child.kill();
        let status = child.wait().map_err(|e| e.to_string())?;
        out.wall_ms = started.elapsed().as_millis() as u64;
        match failure {
            Some(e) => Err(e),
            None if out.seeds_run == 0 && !interrupt.is_set() => {
                Err(format!("the patched program ran no seed ({status})"))
            }
            None => Ok(out),
        }
    }
}

/// The patched program, without the settings of the one that plants.
pub fn patched(program: &Path) -> Command {
    let mut command = Command::new(program);
    crate::cli::settings::without(&mut command);
    command
}

impl Detection {
    /// Takes in one line of the patched program; true once the right check has fired.
    fn read(&mut self, line: &str, bug: &Bug) -> Result<bool, String> {
        #[derive(Deserialize)]
        struct Line {
            #[serde(rename = "type")]
            kind: String,
            seed: Option<u64>,
            verdict: Option<reports::Verdict>,
            #[serde(default)]
            failures: Vec<reports::Failure>,
            stats: Option<reports::Stats>,
        }
        let line: Line = serde_json::from_str(line).map_err(|e| format!("the patched program said: {line} ({e})"))?;
        let (Some(seed), Some(verdict), "seed") = (line.seed, line.verdict, line.kind.as_str()) else {
            return Ok(false);
        };
        self.seeds_run += 1;
        self.simulated_ms += line.stats.map_or(0, |s| s.simulated_ms);
        if let Some(right) = line.failures.iter().find(|f| bug.checks.contains(&f.property)) {
            self.result = Finding::RightCheck { seed, check: right.property.clone() };
            return Ok(true);
        }
        if verdict == reports::Verdict::Panicked && bug.checks.iter().any(|check| check == PANIC) {
            self.result = Finding::RightCheck { seed, check: PANIC.into() };
            return Ok(true);
        }
        if verdict.is_failure() {
            let mut checks: BTreeSet<String> = line.failures.into_iter().map(|f| f.property).collect();
            if checks.is_empty() {
                checks.insert(verdict.word().to_owned());
            }
            match &mut self.result {
                Finding::WrongCheck { checks: seen, .. } => seen.extend(checks),
                result => *result = Finding::WrongCheck { seed, checks },
            }
        }
        Ok(false)
    }

    pub fn is_right(&self) -> bool {
        matches!(self.result, Finding::RightCheck { .. })
    }
}

#[cfg(test)]
mod tests {
    use reports::{Failure, LineType, SeedReport, Verdict, Witness, json_line};

    use super::*;

    fn bug() -> Bug {
        Bug {
            name: "early-ack".into(),
            what: "acknowledges before fsync".into(),
            note: None,
            guilty: None,
            checks: vec!["acked-durable".into()],
            scenario: "swarm".into(),
            seeds: 500,
            diff: String::new(),
        }
    }

    fn line(seed: u64, verdict: Verdict, properties: &[&str]) -> String {
        let mut report = SeedReport::unfinished("swarm", seed, verdict, "");
        report.stats.simulated_ms = 1000;
        for property in properties {
            let (property, message) = ((*property).to_owned(), String::new());
            report.failures.push(Failure { property, message, witness: Witness::default() });
        }
        json_line(LineType::Seed, &report)
    }

    fn detection() -> Detection {
        Detection {
            bug: "early-ack".into(),
            first_seed: 0,
            seeds: 500,
            result: Finding::Nothing,
            seeds_run: 0,
            simulated_ms: 0,
            wall_ms: 0,
        }
    }

    #[test]
    fn the_right_check_ends_the_search() {
        let mut d = detection();
        assert_eq!(d.read(&line(0, Verdict::Pass, &[]), &bug()), Ok(false));
        assert_eq!(d.read(&line(1, Verdict::Unsafe, &["no-duplicate"]), &bug()), Ok(false));
        assert_eq!(d.read(&line(2, Verdict::Unsafe, &["no-duplicate", "acked-durable"]), &bug()), Ok(true));
        assert_eq!(d.result, Finding::RightCheck { seed: 2, check: "acked-durable".into() });
        assert_eq!((d.seeds_run, d.simulated_ms), (3, 3000));
    }

    #[test]
    fn other_checks_alone_are_wrong() {
        let mut d = detection();
        assert_eq!(d.read(&line(4, Verdict::Unsafe, &["no-duplicate"]), &bug()), Ok(false));
        assert_eq!(d.read(&line(5, Verdict::Panicked, &[]), &bug()), Ok(false));
        assert_eq!(d.read(r#"{"version":1,"type":"summary"}"#, &bug()), Ok(false));
        let checks = ["no-duplicate".to_owned(), "system panicked".to_owned()].into();
        assert_eq!(d.result, Finding::WrongCheck { seed: 4, checks });
        assert!(!d.is_right());
    }
}
