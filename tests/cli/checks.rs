//! `check` over files: a right answer, a wrong one, one that nobody can decide.

use super::{JOB, streamproof, transcript};

const EVENTS: &str = "{\"k\":\"a\",\"t\":1,\"v\":2}\n{\"k\":\"a\",\"t\":2,\"v\":3}\n{\"k\":\"b\",\"t\":12,\"v\":4}\n";
const ROWS: &str = r#"{"key":"a","window_start":0,"window_end":10,"count":2,"sum":5}
{"key":"b","window_start":10,"window_end":20,"count":1,"sum":4}
"#;

fn check(job: &str, events: &str, rows: &str, more: &[(&str, &str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut args = vec!["check", "--job", "job.toml", "--input", "e.jsonl", "--output", "rows.jsonl"];
    for (name, text) in [("job.toml", job), ("e.jsonl", events), ("rows.jsonl", rows)] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    for (flag, name, text) in more {
        std::fs::write(dir.path().join(name), text).unwrap();
        args.extend([flag, name]);
    }
    transcript(&streamproof(dir.path(), &args))
}

#[test]
fn the_batch_answer_passes() {
    insta::assert_snapshot!(check(JOB, EVENTS, ROWS, &[]), @r#"
    exit 0
    -- stdout
    pass: 2 rows against 3 input records
      not judged  rules 22a to 22c and the panes before the newest: no decisions at hand
      not judged  rule 23, late records: not at hand
      not judged  rule 23, dead-letter records: not at hand
    "#);
}

#[test]
fn a_wrong_row_fails() {
    insta::assert_snapshot!(check(JOB, EVENTS, &ROWS.replace("\"sum\":5", "\"sum\":6"), &[]), @r#"
    exit 10
    -- stdout
    fail: 2 rows against 3 input records
      not judged  rules 22a to 22c and the panes before the newest: no decisions at hand
      not judged  rule 23, late records: not at hand
      not judged  rule 23, dead-letter records: not at hand
      property    window-exactly-once
                  a row has wrong contents
      witness     key "a", window [0, 10)
      expected    count 2, sum 5
      found       {"key":"a","window_start":0,"window_end":10,"pane":0,"op":"+I","kind":"on_time","count":2,"sum":6}
    "#);
}

#[test]
fn a_possibly_late_record_is_undecided_until_the_late_output_tells() {
    let late = format!("{EVENTS}{{\"k\":\"b\",\"t\":1,\"v\":1,\"partition\":0}}\n");
    let same_split = late.replace("\"v\":4", "\"v\":4,\"partition\":0");
    insta::assert_snapshot!(check(JOB, &same_split, ROWS, &[]), @r#"
    exit 14
    -- stdout
    inconclusive: 2 rows against 4 input records
      not judged  rules 22a to 22c and the panes before the newest: no decisions at hand
      not judged  rule 23, late records: not at hand
      not judged  rule 23, dead-letter records: not at hand
      undecided   "b" [0, 10) has no row, and each of its records may have been late
    "#);
    let told = [("--late", "late.jsonl", "{\"partition\":0,\"offset\":3}\n")];
    insta::assert_snapshot!(check(JOB, &same_split, ROWS, &told), @r#"
    exit 0
    -- stdout
    pass: 2 rows against 4 input records
      not judged  rules 22a to 22c and the panes before the newest: no decisions at hand
      not judged  rule 23, dead-letter records: not at hand
    "#);
}

#[test]
fn refusals() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("job.toml"), JOB).unwrap();
    let run = |args: &[&str]| transcript(&streamproof(dir.path(), args));
    insta::assert_snapshot!(run(&["check", "--job", "job.toml", "--brokers", "nowhere"]), @r#"
    exit 2
    -- stderr
    error: --brokers `nowhere`: write HOST:PORT, such as 127.0.0.1:9092
    "#);
    insta::assert_snapshot!(run(&["check", "--job", "job.toml"]), @r#"
    exit 2
    -- stderr
    error: the following required arguments were not provided:
      --input <FILE>
      --output <FILE>

    Usage: streamproof check --job <FILE> --input <FILE> --output <FILE>

    For more information, try '--help'.
    "#);
    insta::assert_snapshot!(run(&["check", "--job", "job.toml", "--input", "e.jsonl", "--output", "r.jsonl"]), @r#"
    exit 2
    -- stderr
    error: e.jsonl: No such file or directory (os error 2)
    "#);
}
