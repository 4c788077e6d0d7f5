//! The tables and the command-line reference of the book are made from the program.

mod fields;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use scenarios::catalogue;
use serde_json::Value;
use streamproof::exit::Exit;

use super::cli::program;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the program writes on stdout, in the checkout.
fn said(args: &[&str]) -> String {
    let output = program().current_dir(root()).args(args).env("COLUMNS", "100").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn tables_are_made_from_the_program() {
    let tables = [
        ("scenarios", scenarios()),
        ("invariants", listed("invariants", ["invariant", "what holds, and who says so"])),
        ("faults", listed("faults", ["family", "what happens"])),
        ("marks", marks()),
        ("bugs", listed("bugs", ["bug", "what is wrong, and what finds it"])),
        ("exit-codes", exit_codes()),
        ("command-line", command_line()),
        ("json-lines", fields::sections()),
    ];
    let update = std::env::var_os("UPDATE_BOOK").is_some();
    let mut stale = Vec::new();
    for (name, table) in tables {
        let path = root().join(format!("book/src/reference/{name}.md"));
        let text = std::fs::read_to_string(&path).unwrap();
        let (begin, end) = (format!("<!-- generated: {name} -->\n"), "<!-- end -->");
        let (head, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{name}.md has no mark"));
        let (old, tail) = rest.split_once(end).unwrap_or_else(|| panic!("{name}.md has no end"));
        let new = format!("\n{table}\n");
        if old != new {
            match update {
                true => std::fs::write(&path, format!("{head}{begin}{new}{end}{tail}")).unwrap(),
                false => stale.push(name),
            }
        }
    }
    assert!(stale.is_empty(), "out of date: {stale:?}; UPDATE_BOOK=1 cargo test --locked book:: writes them");
}

/// `list WHAT` as a table.
fn listed(what: &str, columns: [&str; 2]) -> String {
    let mut out = format!("| {} | {} |\n|--|--|\n", columns[0], columns[1]);
    for line in said(&["list", what, "--format", "json"]).lines() {
        let item: Value = serde_json::from_str(line).unwrap();
        let (name, about) = (item["name"].as_str().unwrap(), item["about"].as_str().unwrap());
        let _ = writeln!(out, "| `{name}` | {} |", cell(about));
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

fn scenarios() -> String {
    let mut out = String::new();
    for entry in catalogue::list() {
        let story = entry.story.split_whitespace().collect::<Vec<_>>().join(" ");
        let code = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "## `{}`\n\n{}\n\nJudged by {}.\n", entry.name, cell(&story), code(entry.properties));
        if let Some(property) = entry.must_fail {
            let _ = writeln!(out, "A canary: it must violate `{property}`.\n");
        }
        for (anomaly, why) in entry.allowed {
            let _ = writeln!(out, "`{anomaly}` does not count: {}.\n", cell(why.trim_end_matches('.')));
        }
        if !entry.rare.is_empty() {
            let _ = writeln!(out, "From 200 seeds on it must reach: {}.\n", code(entry.rare));
        }
    }
    out
}

/// Without their lines, which move with every change above them.
fn marks() -> String {
    let mut out = String::from("| state | file |\n|--|--|\n");
    for line in said(&["list", "sometimes", "--format", "json"]).lines() {
        let item: Value = serde_json::from_str(line).unwrap();
        let (name, place) = (item["name"].as_str().unwrap(), item["about"].as_str().unwrap());
        let file = place.rsplit_once(':').map_or(place, |(file, _)| file);
        let _ = writeln!(out, "| {} | `{file}` |", cell(name));
    }
    out
}

fn exit_codes() -> String {
    let mut all = Exit::all();
    all.sort_by_key(|exit| exit.code());
    let mut out = String::from("| code | meaning |\n|--|--|\n");
    for exit in all {
        let _ = writeln!(out, "| {} | {} |", exit.code(), exit.meaning());
    }
    out
}

/// The help of every verb, and of the verbs below them.
fn command_line() -> String {
    // clap's empty lines have blanks.
    let help = |args: &[&str]| said(args).lines().map(|line| line.trim_end().to_owned() + "\n").collect::<String>();
    let mut out = format!("```text\n{}```\n", help(&["help"]));
    for verb in verbs(&[]) {
        let _ = write!(out, "\n## {verb}\n\n```text\n{}```\n", help(&["help", &verb]));
        for below in verbs(&[&verb]) {
            let _ = write!(out, "\n### {verb} {below}\n\n```text\n{}```\n", help(&[&verb, "help", &below]));
        }
    }
    out
}

/// The verbs that a help text lists.
fn verbs(of: &[&str]) -> Vec<String> {
    let text = said(&[of, &["--help"]].concat());
    let listed = text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    let words = listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    words.filter(|word| *word != "help").map(str::to_owned).collect()
}
