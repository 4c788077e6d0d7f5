//! One clear sentence, exit 2, nothing written.

use insta::assert_snapshot;

use super::{JOB, streamproof, transcript};

/// The transcript of a refused command; fails if it wrote anything.
fn refused(args: &[&str]) -> String {
    refused_with(args, &[])
}

fn refused_with(args: &[&str], files: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let output = streamproof(dir.path(), args);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), files.len(), "a refused command wrote a file");
    transcript(&output)
}

#[test]
fn unknown_scenario() {
    assert_snapshot!(refused(&["run", "swram"]), @r#"
    exit 2
    -- stderr
    error: unknown scenario `swram` (did you mean `swarm`?); `streamproof list scenarios` names them all
    "#);
    assert_snapshot!(refused(&["frobnicate"]), @r#"
    exit 2
    -- stderr
    error: unknown scenario `frobnicate`; `streamproof list scenarios` names them all
    "#);
    assert_snapshot!(refused(&["run", "job"]), @r#"
    exit 2
    -- stderr
    error: scenario `job` is your own: give --job and --events instead
    "#);
}

#[test]
fn nonsense_seed() {
    assert_snapshot!(refused(&["run", "swarm", "--seed", "banana"]), @r#"
    exit 2
    -- stderr
    error: invalid value 'banana' for '--seed <N|0x…|COMMIT>': a seed is a whole number from 0 to 2^64 - 1, decimal or hexadecimal after 0x, or a commit's whole hash

    For more information, try '--help'.
    "#);
    assert_snapshot!(refused(&["run", "swarm", "--seed", "0xfffffffffffffffff"]), @r#"
    exit 2
    -- stderr
    error: invalid value '0xfffffffffffffffff' for '--seed <N|0x…|COMMIT>': a seed is a whole number from 0 to 2^64 - 1, decimal or hexadecimal after 0x, or a commit's whole hash

    For more information, try '--help'.
    "#);
    assert_snapshot!(refused(&["run", "swarm", "--seed", "0xffffffffffffffff", "--seeds", "2"]), @r#"
    exit 2
    -- stderr
    error: 2 seeds from 18446744073709551615 go beyond 2^64 - 1
    "#);
}

#[test]
fn nothing_selected() {
    assert_snapshot!(refused(&["run", "swarm", "--seeds", "0"]), @r#"
    exit 4
    -- stderr
    error: --seeds 0 selects nothing
    "#);
}

#[test]
fn unknown_fault_family() {
    assert_snapshot!(refused(&["run", "swarm", "--faults", "net,dsik"]), @r#"
    exit 2
    -- stderr
    error: invalid value 'net,dsik' for '--faults <FAMILIES>': unknown fault family `dsik` (did you mean `disk`?); there are net, disk, clock, process, crash_points, event_time, duplicates

    For more information, try '--help'.
    "#);
}

#[test]
fn job_without_events_or_with_a_scenario() {
    assert_snapshot!(refused(&["run", "--job", "job.toml"]), @r#"
    exit 2
    -- stderr
    error: the following required arguments were not provided:
      --events <FILE>

    Usage: streamproof run --job <FILE> --events <FILE> [SCENARIO|PLAN.json]...

    For more information, try '--help'.
    "#);
    assert_snapshot!(refused(&["run", "smoke", "--job", "job.toml", "--events", "e.jsonl"]), @r#"
    exit 2
    -- stderr
    error: give a scenario (`smoke`) or --job and --events, not both
    "#);
}

#[test]
fn missing_files() {
    assert_snapshot!(refused(&["run", "--job", "job.toml", "--events", "e.jsonl"]), @r#"
    exit 2
    -- stderr
    error: job.toml: No such file or directory (os error 2)
    "#);
    let job = [("job.toml", JOB)];
    assert_snapshot!(refused_with(&["run", "--job", "job.toml", "--events", "e.jsonl"], &job), @r#"
    exit 2
    -- stderr
    error: e.jsonl: No such file or directory (os error 2)
    "#);
    assert_snapshot!(refused_with(&["model", "--job", "job.toml", "--events", "e.jsonl"], &job), @r#"
    exit 2
    -- stderr
    error: e.jsonl: No such file or directory (os error 2)
    "#);
}

#[test]
fn bad_job_file() {
    let run = |text: &str| {
        refused_with(
            &["run", "--job", "job.toml", "--events", "e.jsonl"],
            &[("job.toml", text), ("e.jsonl", "{\"k\":\"a\",\"t\":1,\"v\":2}\n")],
        )
    };
    assert_snapshot!(run(&JOB.replace("event_time", "evnt_time")), @r#"
    exit 2
    -- stderr
    error: job.toml:6:1: unknown key `evnt_time` in [source]
      write instead: `event_time`
    "#);
    assert_snapshot!(run(&JOB.replace("key = \"k\"\n", "")), @r#"
    exit 2
    -- stderr
    error: job.toml:2:2: missing `key` in [source]
      write instead: a line like key = "user_id"
    "#);
    assert_snapshot!(run(&JOB.replace("\"10ms\"", "\"0ms\"")), @r#"
    exit 2
    -- stderr
    error: job.toml:12:8: impossible window: its size is not positive
      write instead: size = "1h", say
    "#);
    assert_snapshot!(run(&JOB.replace("tumbling", "session")), @r#"
    exit 2
    -- stderr
    error: job.toml:11:8: window type "session" is not yet built
      write instead: type = "tumbling"
    "#);
}

#[test]
fn empty_events_file() {
    let files = [("job.toml", JOB), ("e.jsonl", "\n")];
    assert_snapshot!(refused_with(&["run", "--job", "job.toml", "--events", "e.jsonl"], &files), @r#"
    exit 2
    -- stderr
    error: e.jsonl holds no events
    "#);
}

#[test]
fn replay_of_nothing() {
    assert_snapshot!(refused(&["replay", "41"]), @r#"
    exit 2
    -- stderr
    error: no stored run failed at seed 41: write SCENARIO/41, such as swarm/41
    "#);
    assert_snapshot!(refused(&["replay", "20260101T000000Z"]), @r#"
    exit 2
    -- stderr
    error: `20260101T000000Z` is no stored run, no SCENARIO/SEED, no plan file and no capsule; .streamproof/runs has 0 runs
    "#);
    assert_snapshot!(refused(&["replay", "swarm/x"]), @r#"
    exit 2
    -- stderr
    error: `x` is no seed: a seed is a whole number from 0 to 2^64 - 1, decimal or hexadecimal after 0x, or a commit's whole hash
    "#);
    assert_snapshot!(refused(&["replay", "job/3"]), @r#"
    exit 2
    -- stderr
    error: `job/3` needs the job's files: give --job and --events
    "#);
    assert_snapshot!(refused(&["replay", "missing.json"]), @r#"
    exit 2
    -- stderr
    error: no plan file missing.json
    "#);
}

#[test]
fn plan_of_another_version() {
    let files = [("plan.json", r#"{"version":99}"#)];
    assert_snapshot!(refused_with(&["replay", "plan.json"], &files), @r#"
    exit 2
    -- stderr
    error: plan.json: plan has version 99, this build runs version 2
    "#);
    let files = [("plan.json", r#"{"version":2,"what":2}"#)];
    assert_snapshot!(refused_with(&["replay", "plan.json"], &files), @r#"
    exit 2
    -- stderr
    error: plan.json: failed to read the plan: unknown field `what`, expected one of `version`, `scenario`, `seed`, `seeds`, `schedule`, `topology`, `knobs`, `topics`, `job`, `clients`, `families_off`, `faults`, `twists`, `budgets` at line 1 column 19
    "#);
}

#[test]
fn planted_bugs_need_a_checkout() {
    assert_snapshot!(refused(&["audit"]), @r#"
    exit 2
    -- stderr
    error: planted bugs need a checkout of streamproof: no scenarios/bugs here or above; run this inside a clone
    "#);
}

#[test]
fn a_bad_row_is_reported_with_its_line_and_the_answer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("job.toml"), JOB).unwrap();
    std::fs::write(
        dir.path().join("e.jsonl"),
        "{\"k\":\"a\",\"t\":1,\"v\":2}\n{\"k\":\"a\",\"t\":\"soon\"}\n{\"k\":\"a\",\"t\":2,\"v\":3}\n",
    )
    .unwrap();
    let output = streamproof(dir.path(), &["model", "--job", "job.toml", "--events", "e.jsonl"]);
    assert_snapshot!(transcript(&output), @r#"
    exit 0
    -- stdout
    {"key":"a","window_start":0,"window_end":10,"pane":0,"op":"+I","kind":"on_time","count":2,"sum":5}
    -- stderr
    warning: e.jsonl:2: wrong-type: the row goes to the dead-letter topic
    "#);
}
