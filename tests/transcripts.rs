//! What the book shows of a terminal is what the program says; README too, where it has such a block.
//!
//! A block of the language `console` is a session: lines that begin with `$ streamproof` are commands (`$ sed` edits what one
//! of them left), `? N` after one is its exit code if that is not 0, and what follows is stdout, then stderr. `...` on a line of its own stands for any lines,
//! `[..]` for anything in a line. Variables may stand before a command, as in a shell. The commands of a page run one after
//! the other in a copy of the folder `PAGE.in` beside it, or of the page's own folder if there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

use snapbox::{Assert, IntoData};

use super::cli::program;

/// A command of a page, and what the page says it prints.
struct Session {
    line: usize,
    program: String,
    variables: Vec<(String, String)>,
    words: Vec<String>,
    exit: i32,
    output: String,
}

#[test]
fn the_book_shows_what_the_program_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md")];
    add_pages(&root.join("book/src"), &mut pages);
    pages.sort();
    let (mut run, mut wrong) = (0, Vec::new());
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let sessions = sessions(&text);
        if sessions.is_empty() {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let own = page.with_extension("in");
        copy_files(if own.is_dir() { &own } else { page.parent().unwrap() }, dir.path());
        for session in sessions {
            run += 1;
            let mut command = match session.program.as_str() {
                "streamproof" => program(),
                other => Command::new(other),
            };
            let output = command
                .current_dir(dir.path())
                .args(&session.words)
                .env("COLUMNS", "100")
                .envs(session.variables)
                .output()
                .unwrap();
            let place = format!("{}:{}", page.display(), session.line);
            if output.status.code() != Some(session.exit) {
                wrong.push(format!("{place}: {}, not {}", output.status, session.exit));
            }
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            let assert = Assert::new().normalize_paths(false);
            if let Err(e) =
                assert.try_eq(Some(&place), said.trim_end().into_data(), session.output.trim_end().into_data())
            {
                wrong.push(e.to_string());
            }
        }
    }
    assert!(run > 15, "only {run} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn add_pages(dir: &Path, pages: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            add_pages(&path, pages);
        } else if path.extension().is_some_and(|e| e == "md") {
            pages.push(path);
        }
    }
}

/// The files of a folder; runs leave their own beside them.
fn copy_files(from: &Path, to: &Path) {
    for path in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn sessions(page: &str) -> Vec<Session> {
    let mut all: Vec<Session> = Vec::new();
    let mut inside = false;
    for (n, line) in page.lines().enumerate() {
        match line {
            "```console" => inside = true,
            _ if line.starts_with("```") => inside = false,
            _ if !inside => {}
            _ if line.starts_with("$ ") => {
                let mut words = words(&line[2..]);
                let at = words.iter().position(|word| !word.contains('=')).unwrap_or(0);
                let variables = words
                    .drain(..at)
                    .filter_map(|word| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
                let variables = variables.collect();
                let program = words.remove(0);
                assert!(["streamproof", "sed"].contains(&program.as_str()), "line {}: {line}", n + 1);
                all.push(Session { line: n + 1, program, variables, words, exit: 0, output: String::new() });
            }
            _ => {
                let session = all.last_mut().expect("a command before its output");
                match line.strip_prefix("? ").filter(|_| session.output.is_empty()) {
                    Some(code) => session.exit = code.parse().expect("an exit code"),
                    None => session.output.extend([line, "\n"]),
                }
            }
        }
    }
    all
}

/// The words of a command line, which may be in single quotes.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    let words = |(n, part): (usize, &str)| match n % 2 {
        1 => vec![part.to_owned()],
        _ => part.split_whitespace().map(str::to_owned).collect(),
    };
    parts.flat_map(words).collect()
}
