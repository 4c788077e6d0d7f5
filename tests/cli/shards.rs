//! Runs in parts, with limits, and put together again.

use serde_json::Value;

use super::{streamproof, transcript};

/// A plan of `power_loss` that acknowledges too early, so that it fails.
const TOO_EARLY: &str = include_str!("../../book/src/tutorial/too-early.json");

fn summary(stdout: &[u8]) -> Value {
    let text = String::from_utf8_lossy(stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn shards_put_together_are_one_run() {
    let dir = tempfile::tempdir().unwrap();
    for shard in ["1", "2"] {
        let (part, folder) = (format!("{shard}/2"), format!("shards/{shard}"));
        let args = ["run", "smoke", "--seeds", "3", "--shard", &part, "--run-dir", &folder, "--format", "json"];
        let output = streamproof(dir.path(), &args);
        assert_eq!(output.status.code(), Some(0), "{}", transcript(&output));
        let said = summary(&output.stdout);
        assert_eq!((&said["run"], &said["run_dir"]), (&folder.as_str().into(), &folder.as_str().into()));
    }
    assert!(!dir.path().join(".streamproof/runs").exists());
    let output = streamproof(dir.path(), &["report", "shards/1", "shards/2", "--merge", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", transcript(&output));
    let said = summary(&output.stdout);
    assert_eq!((&said["seeds"], &said["passed"], &said["stopped"]), (&3.into(), &3.into(), &Value::Null));
    std::fs::create_dir(dir.path().join("shards/3")).unwrap();
    let args = ["report", "shards/2", "shards/3", "--merge", "--junit", "out/part.xml"];
    let text = transcript(&streamproof(dir.path(), &args));
    assert!(text.starts_with("exit 1") && text.contains("error: 1 of 2 shards are missing: 1"), "{text}");
    assert!(text.contains("error: shards/3: there is no run in it"), "{text}");
    assert!(std::fs::read_to_string(dir.path().join("out/part.xml")).unwrap().contains("name=\"2 seeds pass\""));
    let other = ["run", "smoke", "--seed", "1", "--seeds", "2", "--shard", "1/2", "--run-dir", "other/1"];
    let output = streamproof(dir.path(), &other);
    assert_eq!(output.status.code(), Some(0), "{}", transcript(&output));
    let mixed = streamproof(dir.path(), &["report", "other/1", "shards/2", "--merge", "--output", "mixed.html"]);
    let text = transcript(&mixed);
    assert!(
        text.starts_with("exit 2\n-- stderr\nerror: other/1 and shards/2 are shards of different sweeps:"),
        "{text}"
    );
    assert!(text.contains("the first seed of smoke (1 and 0) and in the number of seeds of smoke (2 and 3)"), "{text}");
    assert!(!dir.path().join("mixed.html").exists(), "nothing is written");
    let again = streamproof(dir.path(), &["run", "smoke", "--seeds", "1", "--run-dir", "shards/1"]);
    let text = transcript(&again);
    assert!(text.starts_with("exit 2") && text.contains("--run-dir shards/1: it is not empty"), "{text}");
}

#[test]
fn a_time_limit_ends_a_run_in_peace() {
    let dir = tempfile::tempdir().unwrap();
    let output = streamproof(dir.path(), &["run", "smoke", "--for", "3s", "--jobs", "1", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", transcript(&output));
    let said = summary(&output.stdout);
    assert!(said["seeds"].as_u64().unwrap() > 0 && said["stopped"] == "time", "{said}");
    let refused = transcript(&streamproof(dir.path(), &["run", "smoke", "--for", "1s", "--shard", "1/2"]));
    assert!(refused.starts_with("exit 2") && refused.contains("say how many there are"), "{refused}");
}

#[test]
fn a_plan_runs_under_many_schedules_and_stops_at_its_failures() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("too-early.json"), TOO_EARLY).unwrap();
    let args = ["run", "too-early.json", "--max-fail", "1", "--jobs", "1", "--no-shrink", "--format", "github"];
    let output = streamproof(dir.path(), &args);
    let text = transcript(&output);
    assert!(
        text.starts_with("exit 10") && text.contains("stopped after 1 failing seeds: --max-fail allows more"),
        "{text}"
    );
    assert!(text.contains("\n::error title=plan too-early schedule 0%3A safety violated::acked-durable"), "{text}");
    // The plan is moved: the run has its copy.
    let run =
        text.lines().find_map(|l| l.strip_prefix("kept: streamproof replay ")).unwrap().split(' ').next().unwrap();
    std::fs::rename(dir.path().join("too-early.json"), dir.path().join("moved.json")).unwrap();
    let replay = transcript(&streamproof(dir.path(), &["replay", run]));
    assert!(
        replay.starts_with("exit 10") && replay.contains("too-early.json is not what it was when it ran"),
        "{replay}"
    );
    assert!(!replay.contains("did not run as it did when it was stored"), "{replay}");
    std::fs::rename(dir.path().join("moved.json"), dir.path().join("too-early.json")).unwrap();
    let args = ["run", "too-early.json", "--seeds", "3", "--max-fail", "0", "--jobs", "1", "--format", "json"];
    let said = summary(&streamproof(dir.path(), &args).stdout);
    assert_eq!((&said["seeds"], &said["stopped"]), (&3.into(), &Value::Null), "{said}");
    let refused = transcript(&streamproof(dir.path(), &["run", "missing.json"]));
    assert!(refused.starts_with("exit 2") && refused.contains("no plan file missing.json"), "{refused}");
}
