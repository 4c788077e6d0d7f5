//! The command line's grammar: help, completions and parsing come from these types alone.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use scenarios::plan::Family;

use crate::selection::Shard;

/// Runs a streaming job through seeded disasters on a real broker and processor, and checks every committed window.
#[derive(Debug, Parser)]
#[command(
    name = "streamproof",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Without a verb, `run` is meant; without a scenario, the main job: every scenario, the flights and \
                  the canaries.\n\nExit codes: 0 pass, 1 streamproof failed, 2 usage, 4 nothing selected, 10 safety \
                  violated, 11 not live, 12 system panicked, 13 not deterministic, 14 inconclusive, 15 rare states \
                  not reached, 16 canary not caught, 130 interrupted.\n\nA setting is an option of `run` on the command \
                  line, else a variable such as STREAMPROOF_JOBS, else a line of streamproof.toml in the chosen profile, \
                  else in [profile.default]; `streamproof run --show-config` shows them all."
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
    /// Run a failure again: by run, by SCENARIO/SEED, from a stored plan or a capsule
    Replay(ReplayArgs),
    /// Cut a failing plan down to the faults and records that its failure needs
    Shrink(ShrinkArgs),
    /// Tell a failure as a story: what happened, which faults it took, when it became inevitable
    Explain(ExplainArgs),
    /// Write runs and failures as one HTML file with pictures
    Report(ReportArgs),
    /// Keep plans that once failed, and run them again
    Regress(RegressArgs),
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
    /// Print a manual page, or write them all
    Man(ManArgs),
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

/// How a run's outcome is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RunFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
    /// For people, then at most ten annotations, the worst failures first
    Github,
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

#[derive(Clone, Debug, Args)]
#[command(after_help = "Every option is a setting too: STREAMPROOF_MAX_FAIL is --max-fail, and so is `max-fail` in \
                        streamproof.toml. That file is looked for here and in the folders above:\n\n  [profile.default]\n  \
                        jobs = 4\n\n  [profile.nightly]\n  scenarios = [\"swarm\"]\n  for = \"4h\"\n\nThe command line wins, \
                        then a variable, then the profile, then the default profile.\n\nExamples:\n  streamproof run swarm \
                        --seeds 2000\n  streamproof run swarm --for 10m --max-fail 1\n  streamproof run --seed \
                        \"$(git rev-parse HEAD)\" --format github\n  streamproof run swarm --seeds 1000000 --shard 3/20 \
                        --run-dir shards/3\n  streamproof run plan.json --seeds 100")]
pub struct RunArgs {
    /// Scenarios, as `streamproof list scenarios` names them, or plan files; none means the main job
    #[arg(value_name = "SCENARIO|PLAN.json")]
    pub scenarios: Vec<String>,
    #[command(flatten)]
    pub job: JobArgs,
    /// First seed: decimal, 0x hexadecimal, or a commit's whole hash, of which the first 15 digits count
    #[arg(long, value_name = "N|0x…|COMMIT", value_parser = seed, default_value = "0")]
    pub seed: u64,
    /// Seeds of each scenario, or schedules of each plan [default: 200, or 20 schedules; fixed for each scenario in the
    /// main job; with --for as many as there is time for]
    #[arg(long, value_name = "COUNT")]
    pub seeds: Option<u64>,
    /// Start no more seeds after this time, such as `90s`, `10m` or `4h`; scenarios take turns
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub limit: Option<Duration>,
    /// Run one part of COUNT, from 1/COUNT to COUNT/COUNT; `report --merge` puts them together
    #[arg(long, value_name = "INDEX/COUNT", value_parser = shard)]
    pub shard: Option<Shard>,
    /// Stop after so many failing seeds; 0 never stops
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub max_fail: usize,
    /// Worker processes [default: one a core]
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,
    #[command(flatten)]
    pub faults: FaultArgs,
    /// Do not try which faults of a failure are enough (with --format text: at most 5 s for each of 2 failures, at the
    /// end of the run; with --format json it is never tried)
    #[arg(long)]
    pub no_shrink: bool,
    /// Also write the outcome as JUnit's XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Keep the run in this folder, which must be new or empty [default: .streamproof/runs/ID]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Runs that stay in .streamproof/runs; the oldest go
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = keep)]
    pub keep_runs: usize,
    /// How stdout is written
    #[arg(long, value_enum, default_value_t)]
    pub format: RunFormat,
    /// Read settings from this file [default: streamproof.toml here, or in the nearest folder above]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The profile of the file [default: default]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Print every setting with its value and where it comes from, and run nothing
    #[arg(long)]
    pub show_config: bool,
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

/// A failure, or anything else that can be run.
#[derive(Debug, Args)]
pub struct WhichArgs {
    /// A run of `.streamproof/runs` or its folder (all its failures), SCENARIO/SEED, a seed that failed in the last run, a plan file, or
    /// a capsule
    #[arg(value_name = "RUN|SEED|PLAN.json|CAPSULE")]
    pub what: String,
    #[command(flatten)]
    pub job: JobArgs,
    #[command(flatten)]
    pub faults: FaultArgs,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    pub which: WhichArgs,
    /// Show on stderr what the system logs, with simulated time and node: off, error, warn, info, debug, trace, or
    /// TARGET=LEVEL,…
    #[arg(long, value_name = "LEVEL", value_parser = filter)]
    pub log: Option<String>,
    /// How stdout is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Each cut that is kept is a line on stderr, and the plan is written again whole: Ctrl-C loses \
                        nothing, and the same command goes on from there. A cut is kept only if the same property \
                        fails with the same signature: its message without numbers and names.\n\n\
                        Exit codes: 0 shrunk, 4 the plan does not fail, 13 the result is not deterministic, 130 \
                        interrupted.\n\nExamples:\n  streamproof shrink swarm/41\n  streamproof shrink \
                        20261122T205500Z --property acked-durable\n  streamproof shrink plan.json --output small.json")]
pub struct ShrinkArgs {
    #[command(flatten)]
    pub which: WhichArgs,
    /// The property to keep [default: the first that fails]
    #[arg(long, value_name = "NAME")]
    pub property: Option<String>,
    /// Time for the search, such as `90s` or `5m`
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "2m")]
    pub budget: Duration,
    /// Where the shrunk plan goes [default: beside the plan, or .streamproof/shrunk/SCENARIO-SEED.json]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Worker processes [default: one a core]
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,
    /// How stdout is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The steps and the record's journey are read from the failing run itself. Which faults it took is asked of \
                        other runs: the plan without each fault, and the same beginning with its end drawn anew.\n\n\
                        Exit codes: 0 explained, 4 it does not fail, 130 interrupted.\n\nExamples:\n  streamproof explain \
                        swarm/41\n  streamproof explain .streamproof/runs/ID/capsules/swarm-41.capsule --no-runs\n  \
                        streamproof explain plan.json --tails 20 --for 5m"
)]
pub struct ExplainArgs {
    #[command(flatten)]
    pub which: WhichArgs,
    /// The property to explain [default: the first that fails]
    #[arg(long, value_name = "NAME")]
    pub property: Option<String>,
    /// Read the failing run only, and make no other runs
    #[arg(long)]
    pub no_runs: bool,
    /// Runs of each question
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub tails: u64,
    /// Time for the other runs, such as `90s` or `5m`
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "60s")]
    pub budget: Duration,
    /// Worker processes [default: one a core]
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,
    /// How stdout is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The file needs no network and nothing beside it. A run's report holds its figures and its first failures. \
                        With --merge several runs become one: its summary and failures are on stdout, and the exit code \
                        is that of one run of them all. Shards must all be there (else exit code 1).\n\nExamples:\n  streamproof \
                        report 20261122T205500Z --open\n  streamproof report swarm/41 --output swarm-41.html\n  streamproof \
                        report shards/*/ --merge --output nightly.html"
)]
pub struct ReportArgs {
    /// Runs of `.streamproof/runs` or their folders, SCENARIO/SEED, plan files, capsules
    #[arg(value_name = "RUN|SEED|PLAN.json|CAPSULE", required = true)]
    pub what: Vec<String>,
    /// Put several runs together, as shards of one
    #[arg(long)]
    pub merge: bool,
    /// With --merge: also write the outcome as JUnit's XML
    #[arg(long, value_name = "FILE", requires = "merge")]
    pub junit: Option<PathBuf>,
    /// With --merge: how stdout is written
    #[arg(long, value_enum, default_value_t, requires = "merge")]
    pub format: RunFormat,
    /// Also write the first failure as Chrome's trace events, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub perfetto: Option<PathBuf>,
    /// Also write the first failure as a ShiViz log: events of each node with vector clocks
    #[arg(long, value_name = "FILE")]
    pub shiviz: Option<PathBuf>,
    /// Open the file in a browser
    #[arg(long)]
    pub open: bool,
    /// Where it goes [default: beside what it is of]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub faults: FaultArgs,
}

#[derive(Debug, Args)]
pub struct RegressArgs {
    #[command(subcommand)]
    pub verb: RegressVerb,
}

#[derive(Debug, Subcommand)]
pub enum RegressVerb {
    /// Keep a shrunk plan under a name that says what was wrong
    Add(RegressAddArgs),
    /// List the kept plans with their stories
    List(RegressListArgs),
    /// Run each kept plan with its own schedule and 19 others
    Run(RegressRunArgs),
    /// Drop plans that are worth nothing any more
    Prune(RegressPruneArgs),
}

#[derive(Debug, Args)]
pub struct RegressDir {
    /// Where the plans are
    #[arg(long, value_name = "DIR", default_value = crate::regressions::DIR)]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The plan is run once, so that its note can say how it fails.\n\nExample:\n  streamproof regress \
                        add .streamproof/shrunk/swarm-41.json late-fence --story 'a held-up fence aborts an epoch'"
)]
pub struct RegressAddArgs {
    /// A plan file, as `shrink` writes it
    #[arg(value_name = "PLAN.json")]
    pub plan: PathBuf,
    /// What was wrong, in lower-case-words
    pub name: String,
    /// What was wrong, in a sentence or three
    #[arg(long, value_name = "TEXT")]
    pub story: String,
    #[command(flatten)]
    pub dir: RegressDir,
}

#[derive(Debug, Args)]
pub struct RegressListArgs {
    #[command(flatten)]
    pub dir: RegressDir,
    /// How stdout is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct RegressRunArgs {
    /// Names; none means every one
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub dir: RegressDir,
    /// Worker processes [default: one a core]
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,
    /// How stdout is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Dropped are: a plan that this build refuses; one that is another's but for its seeds; one that \
                        failed with the signature of a smaller one, has faults of the same kinds in the same places, and \
                        reaches no rare state that the other does not. A regression passes on fixed code, so nothing \
                        here can tell whether two had one cause: what is dropped, git still has."
)]
pub struct RegressPruneArgs {
    /// Say what would be dropped, and drop nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub dir: RegressDir,
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
    /// Also shrink what the first range found, for at most two minutes, and see that its explanation names the guilty step
    #[arg(long)]
    pub shrink: bool,
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
    /// Brokers in this process: 1, 3 or 5, on ports in a row
    #[arg(long, value_name = "N", default_value = "1", value_parser = cluster_size)]
    pub brokers: u16,
    /// Run one broker of several, each in a process of its own: its id in --quorum
    #[arg(long, value_name = "ID", requires = "quorum", conflicts_with_all = ["brokers", "job"])]
    pub broker_id: Option<i32>,
    /// Where each broker of the cluster listens, the same for all of them: 0@127.0.0.1:9092,1@…
    #[arg(long, value_name = "ID@HOST:PORT", value_delimiter = ',', value_parser = member, requires = "broker_id")]
    pub quorum: Vec<(i32, std::net::SocketAddr)>,
    /// When an append counts as stored: after fsync, or once it is in the page cache
    #[arg(long, value_name = "WHEN", default_value = "fsync")]
    pub flush: FlushArg,
    /// Committed offsets go when nobody used them for so long: offsets.retention.minutes of Kafka
    #[arg(long, value_name = "N", default_value = "10080", value_parser = clap::value_parser!(u32).range(1..))]
    pub offsets_retention_minutes: u32,
    /// Serve the metrics of all nodes of this process here, for Prometheus: http://ADDRESS:PORT/metrics
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<std::net::SocketAddr>,
    /// What to log on stderr: off, error, warn, info, debug, trace, or TARGET=LEVEL,… [default: RUST_LOG, else warn]
    #[arg(long, value_name = "LEVEL", value_parser = filter)]
    pub log: Option<String>,
    /// How to log
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub log_format: Format,
}

/// `broker::Flush`, as people write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FlushArg {
    /// What is acknowledged survives power loss
    #[default]
    Fsync,
    /// It survives kill -9, not power loss: Kafka's default
    PageCache,
}

/// The text of a filter that can be parsed.
fn filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("write a level (off, error, warn, info, debug, trace) or TARGET=LEVEL,…".into()),
    }
}

fn cluster_size(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(n @ (1 | 3 | 5)) => Ok(n),
        _ => Err("a quorum has 1, 3 or 5 brokers".into()),
    }
}

fn member(text: &str) -> Result<(i32, std::net::SocketAddr), String> {
    let parsed = text.split_once('@').and_then(|(id, at)| Some((id.parse().ok()?, at.parse().ok()?)));
    parsed
        .filter(|(id, _)| *id >= 0)
        .ok_or_else(|| "write a broker as ID@ADDRESS:PORT, such as 0@127.0.0.1:9092".into())
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  streamproof man | man -l -\n  streamproof man run\n  streamproof man --dir \
                        /usr/local/share/man/man1")]
pub struct ManArgs {
    /// The verb whose page is printed; none means that of the program
    #[arg(value_name = "VERB", conflicts_with = "dir")]
    pub verb: Option<String>,
    /// Write every page into this folder
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Hexadecimal digits of a commit that make a seed: 60 bits leave room for the seeds after it.
const COMMIT_DIGITS: usize = 15;

/// A seed as people write it.
///
/// # Errors
/// A sentence that says what a seed is.
pub fn seed(text: &str) -> Result<u64, String> {
    // Git's hashes have 40 digits, or 64.
    if [40, 64].contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return u64::from_str_radix(&text[..COMMIT_DIGITS], 16).map_err(|e| e.to_string());
    }
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    // `+5` parses as a number, but nobody writes a seed so.
    match parsed {
        Ok(seed) if !text.contains('+') => Ok(seed),
        _ => Err(
            "a seed is a whole number from 0 to 2^64 - 1, decimal or hexadecimal after 0x, or a commit's whole hash"
                .into(),
        ),
    }
}

fn shard(text: &str) -> Result<Shard, String> {
    text.parse()
}

fn keep(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1_000_000) => Ok(n),
        _ => Err("give a number of runs from 1 to 1000000".into()),
    }
}

fn jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1024) => Ok(n),
        _ => Err("give a number of worker processes from 1 to 1024".into()),
    }
}

/// A length of time as people write it: `90s`, `5m`, `1h`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "give a time such as 90s, 5m or 1h".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    number.checked_mul(ms).filter(|ms| *ms > 0).map(Duration::from_millis).ok_or_else(bad)
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
        assert_eq!((cli.run.scenarios, cli.run.seeds, cli.run.seed), (vec!["swarm".into()], Some(3), 255));
        let cli = Cli::try_parse_from(["streamproof", "run", "smoke"]).unwrap();
        assert!(matches!(cli.verb, Some(Verb::Run(run)) if run.scenarios == ["smoke"]));
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for nonsense in ["", "5", "0s", "-1s", "1.5m", "m", "99999999999999999999h", "18446744073709551615h"] {
            assert!(duration(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn seeds_are_decimal_or_hexadecimal() {
        assert_eq!(seed("0xFf"), Ok(255));
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(seed("a6d7de8aa0c3f1b2a6d7de8aa0c3f1b2a6d7de8a"), Ok(0xa6d_7de8_aa0c_3f1b));
        for nonsense in ["", "banana", "-1", "+5", "1.5", "0x", "0xg", "18446744073709551616"] {
            assert!(seed(nonsense).is_err(), "{nonsense}");
        }
    }
}
