//! Profiles, variables and the command line, as their users see them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{program, streamproof, transcript};

#[test]
fn show_config_says_what_holds_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = "[profile.default]\njobs = 2\n[profile.nightly]\nscenarios = [\"swarm\"]\nfor = \"4h\"\nmax-fail = 20\n";
    std::fs::write(dir.path().join("streamproof.toml"), file).unwrap();
    let mut command = program();
    command.current_dir(dir.path()).env("STREAMPROOF_PROFILE", "nightly").env("STREAMPROOF_SEED", "7");
    let output = command.args(["run", "--show-config", "--format", "text"]).output().unwrap();
    insta::assert_snapshot!(transcript(&output), @r"
    exit 0
    -- stdout
    scenarios  swarm  streamproof.toml, profile nightly
    job        -      built in
    events     -      built in
    seed       7      STREAMPROOF_SEED
    seeds      -      built in
    for        4h     streamproof.toml, profile nightly
    shard      -      built in
    max-fail   20     streamproof.toml, profile nightly
    jobs       2      streamproof.toml, profile default
    faults     -      built in
    no-shrink  false  built in
    junit      -      built in
    run-dir    -      built in
    keep-runs  100    built in
    format     text   command line
    ");
}

#[test]
fn a_mistake_in_the_file_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("streamproof.toml"), "[profile.default]\nseeds = \"many\"\n").unwrap();
    insta::assert_snapshot!(transcript(&streamproof(dir.path(), &["run"])), @r"
    exit 2
    -- stderr
    error: streamproof.toml, profile default: seeds: invalid value 'many' for '--seeds <COUNT>': invalid digit found in string
    ");
    assert!(!dir.path().join(".streamproof").exists(), "nothing is run");
    let output = streamproof(dir.path(), &["list", "faults"]);
    assert_eq!(output.status.code(), Some(0), "a verb that has no such setting is not disturbed");
    let mut command = program();
    let output = command.arg("list").env("X", OsStr::from_bytes(b"\xff")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "nor by another program's variable: {}", transcript(&output));
}

#[test]
fn manual_pages_are_made_of_the_grammar() {
    let dir = tempfile::tempdir().unwrap();
    let output = streamproof(dir.path(), &["man", "--dir", "man1"]);
    assert_eq!(output.status.code(), Some(0), "{}", transcript(&output));
    let page = std::fs::read_to_string(dir.path().join("man1/streamproof-run.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("max\\-fail"), "{page}");
    let refused = transcript(&streamproof(dir.path(), &["man", "rnu"]));
    assert!(refused.starts_with("exit 2") && refused.contains("did you mean `run`?"), "{refused}");
}
