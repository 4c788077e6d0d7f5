//! Commands that run seeds: what they print where, what they keep, and how they end.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{JOB, streamproof, transcript};

fn json_lines(stdout: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["version"] == 3), "every line holds its version");
    lines
}

fn of_type<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

fn runs(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join(".streamproof/runs")).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_run_ends_in_a_summary_and_keeps_itself() {
    let dir = tempfile::tempdir().unwrap();
    let output = streamproof(dir.path(), &["run", "smoke", "--seeds", "2"]);
    let text = transcript(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        stdout.starts_with("2 seeds: 2 passed, 0 failed, 0 inconclusive; 1 repeated in a fresh process\n"),
        "{text}"
    );
    assert!(stdout.contains(" events checked\n") && stdout.ends_with(" seeds a second\n"), "{text}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("smoke; seeds 0 to 1; "), "{text}");
    assert!(!stderr.contains('\r') && !stderr.contains('\x1b'), "no bar when not a terminal: {text}");
    let [run] = runs(dir.path()).try_into().unwrap();
    let output = streamproof(dir.path(), &["replay", &run]);
    assert_eq!(output.status.code(), Some(4), "a run without failures: {}", transcript(&output));
}

#[test]
fn json_is_one_object_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let output = streamproof(dir.path(), &["smoke", "--seed", "0x7", "--seeds", "2", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", transcript(&output));
    let lines = json_lines(&output.stdout);
    let mut seeds: Vec<u64> = of_type(&lines, "seed").iter().map(|l| l["seed"].as_u64().unwrap()).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, [7, 8]);
    let last = lines.last().unwrap();
    assert_eq!((&last["type"], &last["seeds"], &last["exit_code"]), (&"summary".into(), &2.into(), &0.into()));
    assert!(last["events_checked"].as_u64().unwrap() > 0);
}

#[test]
fn a_replay_is_the_same_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let run = streamproof(dir.path(), &["run", "crash_restart", "--seed", "3", "--seeds", "1", "--format", "json"]);
    let replay = streamproof(dir.path(), &["replay", "crash_restart/3", "--format", "json"]);
    let (run, replay) = (json_lines(&run.stdout), json_lines(&replay.stdout));
    for hash in ["world_hash", "probe_hash"] {
        let text = run[0][hash].as_str().unwrap();
        assert!(
            text.len() == 16 && run[0][hash] == replay[0][hash],
            "{hash}: {} and {}",
            run[0][hash],
            replay[0][hash]
        );
    }
}

#[test]
fn a_canary_is_caught_and_its_replay_tells_the_story() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["run", "canary_page_cache", "--seeds", "8", "--format", "json"];
    let output = streamproof(dir.path(), &args);
    assert_eq!(output.status.code(), Some(0), "{}", transcript(&output));
    let lines = json_lines(&output.stdout);
    assert_eq!(lines.last().unwrap()["canaries"]["canary_page_cache"], true);
    let caught = |line: &&&Value| line["note"].as_str().is_some_and(|note| note.starts_with("canary caught"));
    let seeds = of_type(&lines, "seed");
    let seed = seeds.iter().find(caught).unwrap()["seed"].to_string();
    let output = streamproof(dir.path(), &["replay", &format!("canary_page_cache/{seed}")]);
    assert_eq!(output.status.code(), Some(10), "{}", transcript(&output));
    let story = String::from_utf8(output.stdout).unwrap();
    for part in ["property  acked-durable", "witness ", "faults\n", "power"] {
        assert!(story.contains(part), "no {part:?} in {story}");
    }
    let last: Vec<&str> = story.lines().rev().take(3).map(str::trim).collect();
    let commands = ["shrink    streamproof shrink", "explain   streamproof explain", "replay    streamproof replay"];
    assert_eq!(last, commands.map(|command| format!("{command} canary_page_cache/{seed}")));
}

#[test]
fn the_users_job_runs_through_the_same_disasters() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("job.toml"), JOB.replace("\"0s\"", "\"1s\"")).unwrap();
    let mut events: String =
        (0..400).map(|i| format!("{{\"k\":\"k{}\",\"t\":{},\"v\":{i}}}\n", i % 7, i * 3)).collect();
    events.push_str("{\"k\":\"k1\",\"t\":\"soon\"}\n");
    std::fs::write(dir.path().join("e.jsonl"), events).unwrap();
    let args = ["run", "--job", "job.toml", "--events", "e.jsonl", "--seeds", "2"];
    let output = streamproof(dir.path(), &args);
    let text = transcript(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("warning: e.jsonl:401: wrong-type: the row goes to the dead-letter topic"), "{text}");
    let replay = ["replay", "--job", "job.toml", "--events", "e.jsonl", "job/1"];
    let output = streamproof(dir.path(), &replay);
    assert_eq!(output.status.code(), Some(0), "{}", transcript(&output));
}

#[test]
fn ctrl_c_keeps_what_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_streamproof"))
        .current_dir(dir.path())
        .args(["run", "smoke", "--seeds", "100000", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let seeds = || {
        let Ok(entries) = std::fs::read_dir(dir.path().join(".streamproof/runs")) else { return false };
        entries.count() > 0
    };
    let started = Instant::now();
    while !seeds() && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(2));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = json_lines(&output.stdout);
    let summary = lines.last().unwrap();
    assert_eq!((&summary["type"], &summary["interrupted"]), (&"summary".into(), &true.into()));
    assert_eq!(summary["seeds"].as_u64().unwrap() as usize, of_type(&lines, "seed").len());
    let [run] = runs(dir.path()).try_into().unwrap();
    assert!(dir.path().join(".streamproof/runs").join(run).join("summary.json").exists());
}

#[test]
fn determinism_of_one_seed() {
    let dir = tempfile::tempdir().unwrap();
    let output = streamproof(dir.path(), &["determinism", "smoke", "--seeds", "1"]);
    let text = transcript(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("1 of 1 seeds ran the same five times"), "{text}");
}

#[test]
fn lists_and_completions_are_not_empty() {
    let dir = tempfile::tempdir().unwrap();
    for what in ["scenarios", "invariants", "faults", "sometimes"] {
        let output = streamproof(dir.path(), &["list", what]);
        assert_eq!(output.status.code(), Some(0), "{what}: {}", transcript(&output));
        assert!(output.stdout.iter().filter(|b| **b == b'\n').count() >= 5, "{what}: {}", transcript(&output));
    }
    let output = streamproof(dir.path(), &["completions", "bash"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("_streamproof()"));
}

#[test]
fn a_replay_with_its_log_is_the_same_run_past_a_pause_too() {
    let dir = tempfile::tempdir().unwrap();
    let plan = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/regressions/deposed-leader-asked-for-an-epoch.json");
    let replay = |log: &[&str]| {
        let output = streamproof(dir.path(), &[&["replay", plan], log].concat());
        assert_eq!(output.status.code(), Some(0), "{}", transcript(&output));
        output
    };
    let (quiet, told) = (replay(&[]), replay(&["--log", "debug"]));
    assert_eq!(quiet.stdout, told.stdout, "hashes and all");
    let log = String::from_utf8(told.stderr).unwrap();
    let at = |what: &str| log.lines().position(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {log}"));
    assert!(at(" pause node=") < at(" resume node="), "{log}");
}
