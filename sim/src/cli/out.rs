//! stdout and stderr: data on the one, progress on the other.

use std::io::{IsTerminal, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Writes to stdout. A reader that went away is no error of ours: the exit code still says how the run ended.
pub fn data(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

/// A line on stdout.
pub fn line(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}");
    let _ = stdout.flush();
}

/// Remarks on an events file, on stderr: the first ones, and how many more there are.
pub fn notes(notes: &[String]) {
    const SHOWN: usize = 10;
    for note in notes.iter().take(SHOWN) {
        eprintln!("warning: {note}");
    }
    if notes.len() > SHOWN {
        eprintln!("warning: … and {} more such rows", notes.len() - SHOWN);
    }
}

/// Writes a file, in a folder that need not be there yet.
///
/// # Errors
/// If it cannot be written.
pub fn file(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(path, text)
}

/// A bar on stderr, if that is a terminal; else nothing is drawn. Without a length, only what is done is counted.
pub fn bar(length: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
    }
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let template = match length {
        Some(_) => "{bar:40} {pos}/{len} seeds  {msg}  {elapsed} (left {eta})",
        None => "{spinner} {pos} seeds  {msg}  {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
