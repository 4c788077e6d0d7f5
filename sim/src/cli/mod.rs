//! The command line: one file a verb.
//!
//! stdout is data, stderr is progress and errors, the exit code is [`Exit`]. A verb returns its exit code, or one
//! sentence that says what is wrong with the request ([`Refusal`]); nothing else prints an error.

mod args;
mod audit;
mod check;
mod determinism;
mod explain;
mod list;
mod man;
mod merge;
mod model;
mod out;
mod outcome;
mod regress;
mod replay;
mod report;
mod run;
mod serve;
pub mod settings;
mod shrink;
pub mod suggest;
mod tally;
mod which;

use std::process::ExitCode;

use clap::CommandFactory;

use crate::exit::Exit;
use args::{Cli, Verb};
use settings::{Parsed, Stop};

/// Why a request is not carried out: a sentence for people, and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub exit: Exit,
    pub message: String,
}

impl Refusal {
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    pub fn nothing(message: impl Into<String>) -> Self {
        Self { exit: Exit::NothingSelected, message: message.into() }
    }
}

/// Of the process: parses the command line, runs the verb, returns the exit code.
pub fn main() -> ExitCode {
    // One of another program's may be no text.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with(settings::PREFIX))
        .collect();
    let cwd = std::env::current_dir().unwrap_or_default();
    let Parsed { cli, settings, warnings } = match settings::parse(std::env::args_os().collect(), &variables, &cwd) {
        Ok(parsed) => parsed,
        Err(Stop::Clap(e)) => e.exit(),
        Err(Stop::Refused(why)) => {
            eprintln!("error: {why}");
            return Exit::Usage.into();
        }
    };
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    let outcome = match cli.verb.unwrap_or(Verb::Run(cli.run)) {
        Verb::Run(args) => run::run(args, &settings),
        Verb::List(args) => list::run(args),
        Verb::Replay(args) => replay::run(args),
        Verb::Shrink(args) => shrink::run(args),
        Verb::Explain(args) => explain::run(args),
        Verb::Report(args) => report::run(args),
        Verb::Regress(args) => regress::run(args),
        Verb::Determinism(args) => determinism::run(args),
        Verb::Model(args) => model::run(args),
        Verb::Check(args) => check::run(args),
        Verb::Audit(args) => audit::run(args),
        Verb::Serve(args) => serve::run(args),
        Verb::Completions(args) => {
            clap_complete::generate(args.shell, &mut Cli::command(), "streamproof", &mut std::io::stdout());
            Ok(Exit::Pass)
        }
        Verb::Man(args) => man::run(&args),
        Verb::Worker => Ok(crate::worker::main()),
    };
    outcome
        .unwrap_or_else(|refusal| {
            eprintln!("error: {}", refusal.message);
            refusal.exit
        })
        .into()
}
