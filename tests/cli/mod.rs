//! The command line as its users meet it: what is refused, in which words, with which exit code; and that nothing is
//! written then.

mod checks;
mod explains;
pub mod lines;
mod observed;
mod refusals;
mod regresses;
mod runs;
mod serves;
mod settings;
mod shards;
mod shrinks;

use std::path::Path;
use std::process::{Command, Output};

/// The program, without the settings of whoever tests it.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamproof"));
    streamproof::cli::settings::without(&mut command);
    command
}

/// Runs the program in `dir`.
fn streamproof(dir: &Path, args: &[&str]) -> Output {
    program().current_dir(dir).args(args).output().expect("the program starts")
}

/// Exit code, stdout and stderr as one text to snapshot.
fn transcript(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let mut out = format!("exit {}", output.status.code().map_or("by signal".into(), |c| c.to_string()));
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            out.push_str(&format!("\n-- {name}\n{}", text(bytes)));
        }
    }
    out
}

const JOB: &str = r#"name = "j"
[source]
topic = "in"
format = "json"
key = "k"
event_time = "t"
value = "v"
[watermark]
out_of_orderness = "0s"
[window]
type = "tumbling"
size = "10ms"
[aggregate]
functions = ["count", "sum"]
[sink]
topic = "out"
late_topic = "late"
dlq_topic = "dlq"
"#;
