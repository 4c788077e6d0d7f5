//! What the compiler does not enforce of the house style: each file says what it is, no file outgrows its noun, nothing
//! is left to do later.

use std::path::{Path, PathBuf};

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    let mut dirs: Vec<_> = ["models", "invariants", "scenarios", "reports", "sim", "system", "tests"]
        .iter()
        .map(|d| root.join(d))
        .collect();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a folder of the layout") {
            let path = entry.expect("a readable directory").path();
            if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("a readable file");
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 50, "the sources were not found");
    found.sort();
    found
}

#[test]
fn every_file_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} does not open with a doc comment", path.display());
    }
}

#[test]
fn no_file_outgrows_its_noun() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 900, "{} has {lines} lines: split it by kind of input", path.display());
    }
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let banned =
        [["to", "do!("].concat(), ["unimple", "mented!("].concat(), ["#[ig", "nore"].concat(), ["FIX", "ME"].concat()];
    for (path, text) in sources() {
        for word in &banned {
            assert!(!text.contains(word.as_str()), "{} contains {word}", path.display());
        }
    }
}

#[test]
fn the_system_has_one_door() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../system");
    let banned =
        ["std::time::Instant", "std::time::SystemTime", "std::fs::", "std::thread::", "tokio::spawn", "tokio::time"];
    for (path, text) in sources() {
        let door = root.join("env");
        let beside = ["tests", "benches", "examples"].iter().any(|d| path.components().any(|c| c.as_os_str() == *d));
        if !path.starts_with(&root) || path.starts_with(&door) || beside {
            continue;
        }
        for (n, line) in text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            for word in banned {
                assert!(!line.contains(word), "{}:{}: {word} goes past system/env", path.display(), n + 1);
            }
        }
    }
}
