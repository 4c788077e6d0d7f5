//! From a failing run to its story and its report, each by a command that the step before printed.

use std::path::Path;

use serde_json::Value;

use super::{streamproof, transcript};

/// A run that fails: a canary's plan, judged as if the scenario were no canary.
fn failing_run(dir: &Path) -> String {
    let mut plan = scenarios::generate("canary_page_cache", 1).expect("a scenario");
    plan.scenario = "power_loss".into();
    std::fs::write(dir.join("plan.json"), plan.to_json()).expect("a writable folder");
    let added = streamproof(dir, &["regress", "add", "plan.json", "page-cache", "--story", "acknowledged too early"]);
    assert_eq!(added.status.code(), Some(0), "{}", transcript(&added));
    let run = streamproof(dir, &["run", "--seeds", "0", "--no-shrink"]);
    assert_eq!(run.status.code(), Some(10), "{}", transcript(&run));
    String::from_utf8(run.stdout).expect("text")
}

/// The command that a line of the story names, without the program.
fn printed<'a>(story: &'a str, name: &str) -> Vec<&'a str> {
    let line = story.lines().find_map(|line| line.trim_start().strip_prefix(name)).expect("a line of that name");
    line.split_whitespace().skip_while(|word| *word == "streamproof").collect()
}

#[test]
fn a_failure_leaves_a_capsule_that_replays_explains_and_reports() {
    let dir = tempfile::tempdir().unwrap();
    let story = failing_run(dir.path());
    let capsule = printed(&story, "capsule")[0];
    assert!(capsule.ends_with(".capsule") && dir.path().join(capsule).is_file(), "{story}");
    // On another machine: the file alone.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join(capsule), elsewhere.path().join("c.capsule")).unwrap();
    let replay = streamproof(elsewhere.path(), &["replay", "c.capsule"]);
    let text = transcript(&replay);
    assert_eq!(replay.status.code(), Some(10), "{text}");
    assert!(text.contains("the run must match bit for bit"), "{text}");
    assert!(text.contains("it ran as in the capsule, bit for bit: world "), "{text}");
    // The story, first from the run alone, then with what other runs say.
    let told = streamproof(elsewhere.path(), &["explain", "c.capsule", "--no-runs", "--format", "json"]);
    assert_eq!(told.status.code(), Some(0), "{}", transcript(&told));
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["type"], &told["property"]["name"]), (&"explanation".into(), &"acked-durable".into()));
    let steps = told["steps"].as_array().unwrap();
    let kinds: Vec<&str> = steps.iter().map(|s| s["kind"].as_str().unwrap()).collect();
    let at = |kind| kinds.iter().position(|k| *k == kind).unwrap();
    assert!(at("client") < at("fault") && at("fault") < at("violation"), "{kinds:?}");
    assert!(told.get("curve").is_none() && told["journey"]["stages"].as_array().unwrap().len() > 3);
    let whole = streamproof(elsewhere.path(), &["explain", "c.capsule", "--tails", "3"]);
    let text = transcript(&whole);
    assert_eq!(whole.status.code(), Some(0), "{text}");
    assert!(text.contains("without any fault it fails in 0 of 3 runs"), "{text}");
    assert!(text.contains("How probable the failure was") && text.contains("inevitable from "), "{text}");
    assert_eq!(printed(&text, "shrink  "), ["shrink", "c.capsule"]);
    assert_eq!(printed(&text, "fixed?  "), ["replay", "c.capsule"]);
    assert_eq!(printed(&text, "report  "), ["report", "c.capsule"]);
    // The report of the capsule holds what was found out; the report of the run holds the sweep.
    let report = streamproof(elsewhere.path(), &["report", "c.capsule"]);
    assert_eq!(report.status.code(), Some(0), "{}", transcript(&report));
    let html = std::fs::read_to_string(elsewhere.path().join("c.html")).unwrap();
    assert!(html.contains("id=\"run-0\"") && html.contains("\"inevitable_ms\"") && !html.contains("id=\"sweep\""));
    let id =
        story.lines().find_map(|l| l.strip_prefix("kept: streamproof replay ")).unwrap().split(' ').next().unwrap();
    let report = streamproof(dir.path(), &["report", id]);
    let path = String::from_utf8(report.stdout).unwrap();
    let html = std::fs::read_to_string(dir.path().join(path.trim_end())).unwrap();
    assert!(html.contains("id=\"run-0\"") && html.contains("id=\"sweep\""), "{path}");
}

#[test]
fn a_run_that_passes_has_nothing_to_explain() {
    let dir = tempfile::tempdir().unwrap();
    let output = streamproof(dir.path(), &["explain", "power_loss/1"]);
    insta::assert_snapshot!(transcript(&output), @r"
    exit 4
    -- stderr
    error: power_loss/1 does not fail: there is nothing to explain
    ");
    let output =
        streamproof(dir.path(), &["explain", "canary_page_cache/1", "--property", "no-duplicate", "--no-runs"]);
    insta::assert_snapshot!(transcript(&output), @r"
    exit 4
    -- stderr
    error: canary_page_cache/1 does not fail by no-duplicate
    ");
    std::fs::write(dir.path().join("x.capsule"), "streamproof capsule 7\n").unwrap();
    let output = streamproof(dir.path(), &["replay", "x.capsule"]);
    insta::assert_snapshot!(transcript(&output), @r"
    exit 2
    -- stderr
    error: x.capsule: a capsule of version 7, and this program reads version 1: use the program that wrote it
    ");
}

#[test]
fn shards_become_one_report() {
    let dir = tempfile::tempdir().unwrap();
    for seed in ["0", "2"] {
        let run = streamproof(dir.path(), &["run", "crash_restart", "--seed", seed, "--seeds", "2"]);
        assert_eq!(run.status.code(), Some(0), "{}", transcript(&run));
    }
    let runs: Vec<String> = std::fs::read_dir(dir.path().join(".streamproof/runs"))
        .unwrap()
        .map(|e| e.unwrap().path().display().to_string())
        .collect();
    let refused = streamproof(dir.path(), &["report", &runs[0], &runs[1]]);
    assert_eq!(refused.status.code(), Some(2), "{}", transcript(&refused));
    let merged = streamproof(dir.path(), &["report", &runs[0], &runs[1], "--merge", "--output", "all.html"]);
    assert_eq!(merged.status.code(), Some(0), "{}", transcript(&merged));
    let html = std::fs::read_to_string(dir.path().join("all.html")).unwrap();
    assert!(html.contains("\"seeds\":4,\"passed\":4"), "both runs are counted");
}
