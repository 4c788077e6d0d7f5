//! What the person at the desk gets of a planted bug: its failure shrunk, and told with the step that the patch's header
//! says is guilty. Both by the patched program itself, as its user would.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use reports::signature::PANIC;
use serde::Serialize;
use serde_json::Value;

use crate::audit::patched;
use crate::bugs::{Bug, Guilty};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lesson {
    pub bug: String,
    pub seed: u64,
    pub check: String,
    pub faults_before: u64,
    pub faults: u64,
    pub records_before: u64,
    pub records: u64,
    /// Of shrinking.
    pub wall_ms: u64,
    /// Nothing more could be cut in that time.
    pub complete: bool,
    /// Whether the explanation names the guilty step; not known if the header names none, or there is no explanation.
    pub guilty_named: Option<bool>,
    /// Why there is no explanation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_explained: Option<String>,
}

/// Shrinks a failure with the patched program and has it explained, in the folder of its runs.
///
/// # Errors
/// If the program does not say what it must of shrinking.
pub fn learn(
    program: &Path,
    runs: &Path,
    bug: &Bug,
    (seed, check): (u64, &str),
    jobs: usize,
    budget: Duration,
) -> Result<Lesson, String> {
    let plan = format!("{}-{seed}.json", bug.name);
    let (what, budget, jobs) = (format!("{}/{seed}", bug.scenario), format!("{}s", budget.as_secs()), jobs.to_string());
    let started = Instant::now();
    let shrink = ["shrink", &what, "--property", check, "--for", &budget, "--jobs", &jobs, "--output", &plan];
    let shrunk = said(program, runs, &[&shrink[..], &["--format", "json"]].concat())?;
    let wall_ms = started.elapsed().as_millis() as u64;
    let size = |which: &str, of: &str| shrunk[which][of].as_u64().ok_or_else(|| format!("shrink said: {shrunk}"));
    // Where nothing could be cut there is no new plan.
    let of = if shrunk["plan"].is_null() { what.as_str() } else { plan.as_str() };
    // A panic is no property, and what the run ended by.
    let property: &[&str] = if check == PANIC { &[] } else { &["--property", check] };
    let explained = said(program, runs, &[&["explain", of], property, &["--no-runs", "--format", "json"]].concat());
    let guilty_named = match (&explained, &bug.guilty) {
        (Ok(told), Some(guilty)) => Some(names(told, guilty)),
        _ => None,
    };
    Ok(Lesson {
        bug: bug.name.clone(),
        seed,
        check: check.to_owned(),
        faults_before: size("before", "faults")?,
        faults: size("after", "faults")?,
        records_before: size("before", "records")?,
        records: size("after", "records")?,
        wall_ms,
        complete: shrunk["complete"] == true,
        guilty_named,
        not_explained: explained.err(),
    })
}

/// The last JSON line of a command's stdout.
fn said(program: &Path, dir: &Path, args: &[&str]) -> Result<Value, String> {
    let output = patched(program)
        .current_dir(dir)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    last.ok_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        let why = errors.lines().last().unwrap_or("nothing on stderr");
        format!("the patched program's `{}` ended with {}: {why}", args.join(" "), output.status)
    })
}

/// Whether a step of the explanation is the guilty one, in its place.
fn names(told: &Value, guilty: &Guilty) -> bool {
    let steps: Vec<(&str, &str)> = told["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| (step["who"].as_str().unwrap_or_default(), step["what"].as_str().unwrap_or_default()))
        .collect();
    let is_it = |(who, what): &(&str, &str)| who.starts_with(&guilty.who) && what.contains(&guilty.what);
    let Some(at) = steps.iter().position(is_it) else { return false };
    guilty.before.as_ref().is_none_or(|later| steps[at + 1..].iter().any(|(_, what)| what.contains(later)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// What is learned of a program that shrinks, and does `explain` as told.
    fn learned(explain: &str) -> Lesson {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        let shrunk =
            r#"{"before":{"faults":4,"records":90},"after":{"faults":1,"records":3},"plan":"p","complete":true}"#;
        let text = format!("#!/bin/sh\ncase $1 in\nshrink) echo '{shrunk}' ;;\nexplain) {explain} ;;\nesac\n");
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let header = "what: a\nscenario: smoke\ncheck: acked-durable\nseeds: 9\nguilty: broker-0: power-loss\n";
        let bug = Bug::parse("b", &format!("{header}\ndiff --git a/x b/x\n")).unwrap();
        learn(&program, dir.path(), &bug, (7, "acked-durable"), 1, Duration::from_secs(1)).unwrap()
    }

    #[test]
    fn a_failing_explanation_is_no_verdict_on_the_guilty_step() {
        let step = r#"echo '{"steps":[{"who":"broker-0","what":"power-loss: 28 writes lost"}]}'"#;
        let lesson = learned(step);
        assert_eq!((lesson.guilty_named, lesson.not_explained), (Some(true), None));
        assert_eq!((lesson.faults, lesson.faults_before, lesson.records), (1, 4, 3));
        let lesson = learned(r#"echo '{"steps":[]}'"#);
        assert_eq!((lesson.guilty_named, lesson.not_explained), (Some(false), None));
        let lesson = learned("echo 'error: p: of another build' >&2; exit 2");
        assert_eq!(lesson.guilty_named, None);
        let why = lesson.not_explained.unwrap();
        assert!(
            why.contains("`explain b-7.json") && why.ends_with("exit status: 2: error: p: of another build"),
            "{why}"
        );
    }

    #[test]
    fn the_guilty_step_is_found_in_its_place() {
        let told = serde_json::json!({"steps": [
            {"who": "client-1", "what": "hears that operation 0 is at offset 13"},
            {"who": "broker-0", "what": "power-loss: 28 writes lost"},
        ]});
        let guilty = |who: &str, what: &str, before: Option<&str>| Guilty {
            who: who.into(),
            what: what.into(),
            before: before.map(str::to_owned),
        };
        assert!(names(&told, &guilty("client", "hears that operation", Some("power-loss"))));
        assert!(names(&told, &guilty("client-1", "offset 13", None)));
        assert!(!names(&told, &guilty("broker", "hears that operation", None)), "another node");
        assert!(!names(&told, &guilty("broker", "power-loss", Some("hears"))), "another order");
        assert!(!names(&serde_json::json!({}), &guilty("broker", "", None)));
    }
}
