//! From a failing seed to a plan that fits on a screen.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use scenarios::Plan;
use serde_json::Value;

use super::{streamproof, transcript};

fn plan(path: &Path) -> Plan {
    Plan::from_json(&std::fs::read_to_string(path).expect("the shrunk plan")).expect("a valid plan")
}

#[test]
fn a_canary_shrinks_to_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["shrink", "canary_page_cache/1", "--format", "json"];
    let output = streamproof(dir.path(), &args);
    let text = transcript(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let path = ".streamproof/shrunk/canary_page_cache-1.json";
    assert_eq!((&summary["type"], &summary["plan"]), (&"shrunk".into(), &path.into()));
    assert_eq!(summary["replay"], format!("streamproof replay {path}"));
    assert_eq!(summary["next"], format!("streamproof explain {path}"), "a canary's plan is not kept");
    assert_eq!(summary["complete"], true);
    let small = plan(&dir.path().join(path));
    assert!(small.faults.len() <= 2 && small.records().count() <= 5, "{text}");
    assert_eq!(summary["after"]["records"], small.records().count());
    assert!(text.contains("\ncut "), "{text}");
    // What is left still tells the story.
    let replay = streamproof(dir.path(), &["replay", path]);
    assert_eq!(replay.status.code(), Some(10), "{}", transcript(&replay));
    assert!(String::from_utf8_lossy(&replay.stdout).contains("property  acked-durable"));
    // Again: everything is remembered, and nothing new is found.
    let again = streamproof(dir.path(), &args);
    let summary: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(summary["runs"], 0, "{}", transcript(&again));
    assert_eq!(plan(&dir.path().join(path)), small);
}

#[test]
fn ctrl_c_keeps_the_best_so_far() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_streamproof"))
        .current_dir(dir.path())
        .args(["shrink", "canary_at_least_once/1", "--output", "small.json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let cut = stderr.by_ref().map_while(Result::ok).find(|line| line.starts_with("cut "));
    assert!(cut.is_some());
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = stderr.map_while(Result::ok).collect();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{rest:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("stopped before its end: the same command goes on from here"), "{text}");
    assert!(text.contains("  replay    streamproof replay small.json\n"), "{text}");
    let first = scenarios::generate("canary_at_least_once", 1).unwrap();
    let small = plan(&dir.path().join("small.json"));
    assert!(small.faults.len() + small.records().count() < first.faults.len() + first.records().count());
}

#[test]
fn what_cannot_be_shrunk_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let transcript = |args: &[&str]| transcript(&streamproof(dir.path(), args));
    insta::assert_snapshot!(transcript(&["shrink", "smoke/1"]), @r"
    exit 4
    -- stderr
    shrinking smoke/1
    error: smoke/1 does not fail: there is nothing to shrink
    ");
    insta::assert_snapshot!(transcript(&["shrink", "smoke/1", "--property", "acked-durabel"]), @r"
    exit 2
    -- stderr
    error: unknown property `acked-durabel` (did you mean `acked-durable`?); `streamproof list invariants` names them
    ");
    insta::assert_snapshot!(transcript(&["shrink", "20200101T000000Z"]), @r"
    exit 2
    -- stderr
    error: `20200101T000000Z` is no stored run, no SCENARIO/SEED, no plan file and no capsule; .streamproof/runs has 0 runs
    ");
}
