//! The command line's grammar: help, completions and parsing come from these types alone.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use scenarios::plan::Family;

/// Runs a streaming job through seeded disasters on a real broker and processor, and checks every committed window.
#[derive(Debug, Parser)]
#[command(
    name = "streamproof",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Without a verb, `run` is meant; without a scenario, the main job: every scenario, the flights and \
                  the canaries.\n\nExit codes: 0 pass, 1 streamproof failed, 2 usage, 4 nothing selected, 10 safety \
                  violated, 11 not live, 12 system panicked, 13 not deterministic, 14 inconclusive, 15 rare states \
                  not reached, 16 canary not caught, 130 interrupted."
)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Option<Verb>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one value a process")]
pub enum Verb {
    /// Run scenarios, or your own job and events, over many seeds
    Run(RunArgs),
    /// List scenarios, invariants, fault families, planted bugs or rare states
    List(ListArgs),
    /// Run a failure again: by run, by SCENARIO/SEED, or from a stored plan
    Replay(ReplayArgs),
    /// Run each seed twice in process and once in a child, and name the first event that differs
    Determinism(DeterminismArgs),
    /// Print the batch answer of a job over an events file, one result row a line
    Model(ModelArgs),
    /// Verify the output of any engine against a job and its input, from files or from a live cluster
    Check(CheckArgs),
    /// Plant each known bug and see that the right check finds it
    Audit(AuditArgs),
    /// Run broker and processor for real, on loopback and files
    Serve(ServeArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// The worker process of a supervisor; not for people
    #[command(name = crate::task::WORKER_VERB, hide = true)]
    Worker,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// A job of the user's own, with its events.
#[derive(Clone, Debug, Default, Args)]
pub struct JobArgs {
    /// Job file (TOML)
    #[arg(long, value_name = "FILE", requires = "events")]
    pub job: Option<PathBuf>,
    /// Events in arrival order: JSON lines, or CSV with a header
    #[arg(long, value_name = "FILE", requires = "job")]
    pub events: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Args)]
pub struct FaultArgs {
    /// Keep only these fault families, such as `net,disk`
    #[arg(long, value_name = "FAMILIES", value_parser = families)]
    pub faults: Option<FamilySet>,
}

/// A set of fault families by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilySet(pub BTreeSet<String>);

#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Scenarios, as `streamproof list scenarios` names them; none means the main job
    #[arg(value_name = "SCENARIO")]
    pub scenarios: Vec<String>,
    #[command(flatten)]
    pub job: JobArgs,
    /// First seed, decimal or 0x hexadecimal
    #[arg(long, value_name = "N|0x…", value_parser = seed)]
    pub seed: Option<u64>,
    /// Seeds of each scenario [default: 200; fixed for each scenario in the main job]
    #[arg(long, value_name = "COUNT")]
    pub seeds: Option<u64>,
    /// Worker processes [default: one a core]
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,
    #[command(flatten)]
    pub faults: FaultArgs,
    /// How stdout is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListWhat {
    Scenarios,
    Invariants,
    Faults,
    Bugs,
    Sometimes,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[arg(value_enum, default_value = "scenarios")]
    pub what: ListWhat,
    /// How stdout is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// A run of `.streamproof/runs` (all its failures), SCENARIO/SEED, a seed that failed in the last run, or a plan file
    #[arg(value_name = "RUN|SEED|PLAN.json")]
    pub what: String,
    #[command(flatten)]
    pub job: JobArgs,
    #[command(flatten)]
    pub faults: FaultArgs,
    /// How stdout is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct DeterminismArgs {
    /// Scenarios; none means every one
    #[arg(value_name = "SCENARIO")]
    pub scenarios: Vec<String>,
    /// First seed, decimal or 0x hexadecimal
    #[arg(long, value_name = "N|0x…", value_parser = seed, default_value = "0")]
    pub seed: u64,
    /// Seeds of each scenario
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub seeds: u64,
    /// How stdout is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Job file (TOML)
    #[arg(long, value_name = "FILE")]
    pub job: PathBuf,
    /// Events in arrival order: JSON lines, or CSV with a header
    #[arg(long, value_name = "FILE")]
    pub events: PathBuf,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Job file (TOML)
    #[arg(long, value_name = "FILE")]
    pub job: PathBuf,
    /// What went in: an events file
    #[arg(long, value_name = "FILE", required_unless_present = "brokers", conflicts_with = "brokers")]
    pub input: Option<PathBuf>,
    /// What came out: result rows, one JSON object a line
    #[arg(long, value_name = "FILE", required_unless_present = "brokers", conflicts_with = "brokers")]
    pub output: Option<PathBuf>,
    /// Late records: `{"partition":0,"offset":17}` a line
    #[arg(long, value_name = "FILE", conflicts_with = "brokers")]
    pub late: Option<PathBuf>,
    /// The decision log, one entry a line
    #[arg(long, value_name = "FILE", conflicts_with = "brokers")]
    pub decisions: Option<PathBuf>,
    /// Read the job's topics from a live cluster instead
    #[arg(long, value_name = "HOST:PORT")]
    pub brokers: Option<String>,
    /// How stdout is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Planted bugs, as `streamproof list bugs` names them; none means every one
    #[arg(value_name = "BUG")]
    pub bugs: Vec<String>,
    /// First seed of the only range [default: three ranges, from 0, 10000 and 20000]
    #[arg(long, value_name = "N|0x…", value_parser = seed)]
    pub seed: Option<u64>,
    /// Seeds of each range, at most what the bug's header allows
    #[arg(long, value_name = "COUNT")]
    pub seeds: Option<u64>,
    /// Worker processes [default: one a core]
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,
    /// How stdout is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Job file (TOML); without one, only the broker runs
    #[arg(long, value_name = "FILE")]
    pub job: Option<PathBuf>,
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "streamproof-data")]
    pub data: PathBuf,
    /// The first SIGTERM or SIGINT closes the input at its present end and drains the job
    #[arg(long, requires = "job")]
    pub until_end: bool,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// A seed as people write it.
///
/// # Errors
/// A sentence that says what a seed is.
pub fn seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    // `+5` parses as a number, but nobody writes a seed so.
    match parsed {
        Ok(seed) if !text.contains('+') => Ok(seed),
        _ => Err("a seed is a whole number from 0 to 2^64 - 1, decimal or hexadecimal after 0x".into()),
    }
}

fn jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1024) => Ok(n),
        _ => Err("give a number of worker processes from 1 to 1024".into()),
    }
}

fn families(text: &str) -> Result<FamilySet, String> {
    let names: Vec<&str> = Family::ALL.iter().map(|f| f.name()).collect();
    let mut set = BTreeSet::new();
    for word in text.split(',').map(str::trim) {
        if !names.contains(&word) {
            let hint = super::suggest::sentence(word, &names);
            return Err(format!("unknown fault family `{word}`{hint}; there are {}", names.join(", ")));
        }
        set.insert(word.to_owned());
    }
    Ok(FamilySet(set))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_verb_means_run() {
        let cli = Cli::try_parse_from(["streamproof", "swarm", "--seeds", "3", "--seed", "0xff"]).unwrap();
        assert!(cli.verb.is_none());
        assert_eq!((cli.run.scenarios, cli.run.seeds, cli.run.seed), (vec!["swarm".into()], Some(3), Some(255)));
        let cli = Cli::try_parse_from(["streamproof", "run", "smoke"]).unwrap();
        assert!(matches!(cli.verb, Some(Verb::Run(run)) if run.scenarios == ["smoke"]));
    }

    #[test]
    fn seeds_are_decimal_or_hexadecimal() {
        assert_eq!(seed("0xFf"), Ok(255));
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        for nonsense in ["", "banana", "-1", "+5", "1.5", "0x", "0xg", "18446744073709551616"] {
            assert!(seed(nonsense).is_err(), "{nonsense}");
        }
    }
}
