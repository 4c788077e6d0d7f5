//! Plans that once failed: kept, listed, run again, pruned.

use std::path::Path;

use super::{streamproof, transcript};

/// A plan that passes, small enough to run twenty times.
fn small_plan(path: &Path) {
    let mut plan = scenarios::generate("crash_restart", 3).unwrap();
    plan.budgets.safety_ms = 2_000;
    plan.clients.truncate(1);
    plan.faults.clear();
    if let scenarios::plan::ClientRole::Producer(p) = &mut plan.clients[0].role {
        p.batches.truncate(2);
    }
    plan.validate().unwrap();
    std::fs::write(path, plan.to_json()).unwrap();
}

#[test]
fn a_plan_is_kept_run_and_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let transcript = |args: &[&str]| transcript(&streamproof(dir.path(), args));
    insta::assert_snapshot!(transcript(&["regress", "run"]), @r"
    exit 4
    -- stderr
    error: no regression in tests/regressions
    ");
    small_plan(&dir.path().join("p.json"));
    insta::assert_snapshot!(transcript(&["regress", "add", "p.json", "lost-twice", "--story", "It was lost."]), @r"
    exit 0
    -- stdout
    added tests/regressions/lost-twice.json: it passes in this build
    next: streamproof regress run lost-twice
    ");
    assert!(transcript(&["regress", "add", "p.json", "lost-twice", "--story", "x"]).contains("is there already"));
    assert!(transcript(&["regress", "add", "p.json", "Lost", "--story", "x"]).contains("lower-case-words"));
    transcript(&["regress", "add", "p.json", "the-same", "--story", "Again."]);
    let list = transcript(&["regress", "list"]);
    assert!(
        list.contains("lost-twice: faults 0, records ") && list.contains(" (found by crash_restart/3)\n"),
        "{list}"
    );
    insta::assert_snapshot!(transcript(&["regress", "run", "lost-twic"]), @r"
    exit 2
    -- stderr
    error: no regression `lost-twic` in tests/regressions (did you mean `lost-twice`?)
    ");
    insta::assert_snapshot!(transcript(&["regress", "run", "lost-twice"]), @r"
    exit 0
    -- stdout
    passed lost-twice: 20 schedules
    ");
    std::fs::write(dir.path().join("tests/regressions/torn.json"), "{}").unwrap();
    let refused = transcript(&["run"]);
    assert!(refused.starts_with("exit 2") && refused.contains("`streamproof regress prune` drops"), "{refused}");
    insta::assert_snapshot!(transcript(&["regress", "prune"]), @r"
    exit 0
    -- stdout
    dropped torn: this build refuses it: tests/regressions/torn.json: failed to read the plan: no field `version`: this is not a plan
    dropped the-same: but for its seeds it is lost-twice
    -- stderr
    1 of 3 regressions stay; 1 were refused by this build
    ");
    let replay = transcript(&["replay", "tests/regressions/lost-twice.json#7"]);
    assert!(replay.starts_with("exit 0"), "{replay}");
}

#[test]
fn a_failing_run_says_which_faults_are_enough_and_how_to_shrink() {
    let dir = tempfile::tempdir().unwrap();
    // A canary's plan under another scenario's name is a plain failure.
    let mut plan = scenarios::generate("canary_page_cache", 1).unwrap();
    plan.scenario = "power_loss".into();
    std::fs::create_dir_all(dir.path().join("tests/regressions")).unwrap();
    std::fs::write(dir.path().join("tests/regressions/early-ack.json"), plan.to_json()).unwrap();
    let output = streamproof(dir.path(), &["run", "--seeds", "0"]);
    let text = transcript(&output);
    assert_eq!(output.status.code(), Some(10), "{text}");
    assert!(text.contains("stopped after 5 failing seeds"), "{text}");
    // Whichever of its schedules ended first.
    let tried = |line: &str| {
        line.starts_with("tests/regressions/early-ack.json#") && line.ends_with(": trying which faults are enough")
    };
    assert!(text.lines().any(tried), "{text}");
    assert!(text.contains("  enough    1 of its 2 faults\n"), "{text}");
    let last = String::from_utf8(output.stdout).unwrap();
    let last = last.lines().last().unwrap().trim().to_owned();
    assert!(last.starts_with("shrink    streamproof shrink "), "{last}");
}
