//! The end of a run on stdout, and for CI systems.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reports::story::{Next, Smaller};
use reports::{LineType, SeedReport, Summary, ci, json_line, story};

use super::args::RunFormat;
use super::out;
use crate::exit::Exit;
use crate::task::{Source, Task, quote};

/// Failures whose story is told on the terminal; the rest are named by their commands.
const STORIES: usize = 10;

/// A plan with fewer faults that fails too: its file, how many it has, and of how many.
pub type Enough = (PathBuf, u64, u64);

pub struct Outcome<'a> {
    pub summary: &'a Summary,
    pub failures: &'a [(Task, SeedReport)],
    pub undecided: &'a [(Task, SeedReport)],
    /// Of each failure, if it has one.
    pub capsule: &'a dyn Fn(&Task) -> Option<PathBuf>,
    /// By the command that replays the failure.
    pub enough: &'a BTreeMap<String, Enough>,
    /// Where the run is kept: what `replay` takes, and its folder.
    pub kept: Option<(&'a str, &'a Path)>,
    pub format: RunFormat,
    pub junit: Option<&'a Path>,
}

impl Outcome<'_> {
    /// Writes it all; 1 if a file that was asked for cannot be written.
    pub fn tell(&self) -> Exit {
        match self.format {
            RunFormat::Json => self.lines(),
            RunFormat::Text | RunFormat::Github => self.text(),
        }
        self.tell_ci()
    }

    fn lines(&self) {
        #[derive(serde::Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            summary: &'a Summary,
            /// What `replay` and `report` take.
            run: Option<&'a str>,
            run_dir: Option<&'a Path>,
        }
        for (task, report) in self.failures {
            out::line(&failure_line(task, report));
        }
        let (run, run_dir) = self.kept.unzip();
        out::line(&json_line(LineType::Summary, &Line { summary: self.summary, run, run_dir }));
    }

    fn text(&self) {
        out::data(&self.summary.text());
        if self.failures.is_empty() {
            return;
        }
        if let Some((name, _)) = self.kept {
            out::line(&format!("kept: streamproof replay {} runs all its failures again", quote(name)));
        }
        for (task, report) in self.failures.iter().take(STORIES) {
            out::line("");
            let mut next = next(task, report);
            next.capsule = (self.capsule)(task).map(|path| quote(&path.display().to_string()));
            if let (Some(smaller), Some((path, few, all))) = (&mut next.smaller, self.enough.get(&next.replay)) {
                smaller.enough = Some((*few, *all));
                let plan = Task { source: Source::Plan(path.clone()), ..task.clone() };
                smaller.command = plan.shrink_command();
            }
            out::data(&story::text(report, &next));
        }
        for (task, report) in self.failures.iter().skip(STORIES) {
            out::line(&format!("FAILED {} {}: {}", report.scenario, task.title(), task.replay_command()));
        }
    }

    /// JUnit's file if asked for; annotations and step summary where GitHub runs it.
    fn tell_ci(&self) -> Exit {
        let all = || self.failures.iter().chain(self.undecided);
        let words: Vec<(String, String)> = all().map(|(task, _)| (task.title(), task.replay_command())).collect();
        let failing: Vec<ci::Failing<'_>> =
            all().zip(&words).map(|((_, report), (name, replay))| ci::Failing { report, name, replay }).collect();
        // GitHub reads both. On stderr unless asked for, since stdout is data.
        match self.format {
            RunFormat::Github => out::data(&ci::annotations(&failing)),
            _ if std::env::var_os("GITHUB_ACTIONS").is_some() => eprint!("{}", ci::annotations(&failing)),
            _ => {}
        }
        if let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY") {
            let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
            let text = ci::step_summary(self.summary, &failing);
            if let Err(e) = file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes())) {
                eprintln!("warning: no step summary: {e}");
            }
        }
        let Some(path) = self.junit else { return Exit::Pass };
        match out::file(path, &ci::junit(self.summary, &failing)) {
            Ok(()) => Exit::Pass,
            Err(e) => {
                eprintln!("error: {}: {e}", path.display());
                Exit::Failed
            }
        }
    }
}

/// What can be done about a failure: some have nothing to explain or to make small.
pub fn next(task: &Task, report: &SeedReport) -> Next {
    let told = !report.signatures().is_empty();
    Next {
        name: Some(task.title()),
        replay: task.replay_command(),
        explain: told.then(|| task.explain_command()),
        capsule: None,
        smaller: told.then(|| Smaller { command: task.shrink_command(), enough: None }),
    }
}

/// A failure as a JSON line: the report with the command that replays it.
pub fn failure_line(task: &Task, report: &SeedReport) -> String {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        report: &'a SeedReport,
        replay: String,
    }
    json_line(LineType::Failure, &Line { report, replay: task.replay_command() })
}
