//! Options that the command line leaves open: from the environment, and from profiles in `streamproof.toml`.
//!
//! ```text
//! command line  >  STREAMPROOF_OPTION  >  [profile.NAME]  >  [profile.default]  >  built in
//! ```
//!
//! Every long option of `run` is a setting of the same name, and so are its scenarios; of the other verbs `jobs` alone. What
//! is found becomes an argument of the command line and is parsed there: there is one grammar, one set of messages.
//!
//! ```toml
//! [profile.default]
//! jobs = 4
//!
//! [profile.nightly]
//! scenarios = ["swarm"]
//! for = "4h"
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, ValueHint};
use serde::{Deserialize, Serialize};

use super::args::Cli;
use super::suggest;
use crate::task::WORKER_VERB;

/// The file's name, in the current directory or the nearest above it.
pub const FILE: &str = "streamproof.toml";
/// Version of the file.
const VERSION: u32 = 1;
/// The profile that every other falls back to.
const DEFAULT: &str = "default";
/// How the variables begin.
pub const PREFIX: &str = "STREAMPROOF_";
/// Says which settings hold, so that it is none itself.
const NO_SETTING: [&str; 5] = ["config", "profile", "show-config", "help", "version"];
/// What is to be run: whoever names one of these names all three.
const WHAT: [&str; 3] = ["scenarios", "job", "events"];
/// Variables that mean something else.
const OTHER_VARIABLES: [&str; 3] = ["PROFILE", "CONFIG", "LISTEN"];

/// Takes the settings of this process from a command: what it starts has its own.
pub fn without(command: &mut std::process::Command) -> &mut std::process::Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(PREFIX)) {
        command.env_remove(name);
    }
    command
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    CommandLine,
    Variable(String),
    Profile { name: String, file: PathBuf },
    BuiltIn,
}

impl Origin {
    /// The lower wins.
    fn rank(&self) -> u8 {
        match self {
            Origin::CommandLine => 0,
            Origin::Variable(_) => 1,
            Origin::Profile { name, .. } if name != DEFAULT => 2,
            Origin::Profile { .. } => 3,
            Origin::BuiltIn => 4,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::CommandLine => f.write_str("command line"),
            Origin::Variable(name) => f.write_str(name),
            Origin::Profile { name, file } => write!(f, "{}, profile {name}", file.display()),
            Origin::BuiltIn => f.write_str("built in"),
        }
    }
}

/// An option with the value that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    /// As it is written on a command line; empty if it has none.
    pub value: String,
    pub origin: Origin,
}

/// Why there is no command.
#[derive(Debug)]
pub enum Stop {
    /// What clap has to say: wrong usage, or help that was asked for.
    Clap(clap::Error),
    /// A sentence about the file or a variable.
    Refused(String),
}

impl From<clap::Error> for Stop {
    fn from(e: clap::Error) -> Self {
        Stop::Clap(e)
    }
}

/// The command, and every setting of its verb.
#[derive(Debug)]
pub struct Parsed {
    pub cli: Cli,
    pub settings: Vec<Setting>,
    /// About variables that are no setting.
    pub warnings: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "version")]
    version: u32,
    #[serde(default)]
    profile: BTreeMap<String, BTreeMap<String, toml::Value>>,
}

fn version() -> u32 {
    VERSION
}

/// Parses a command line in an environment: `variables` are those that begin with `STREAMPROOF_`, `cwd` is where the file is
/// looked for.
///
/// # Errors
/// What to print instead of running anything.
pub fn parse(argv: Vec<OsString>, variables: &BTreeMap<String, String>, cwd: &Path) -> Result<Parsed, Stop> {
    let mut command = Cli::command();
    command.build();
    let matches = command.clone().try_get_matches_from(&argv)?;
    let (mut verb, mut given, mut at) = (&command, &matches, 1);
    while let Some((name, inner)) = given.subcommand() {
        let Some(found) = verb.find_subcommand(name) else { break };
        (verb, given, at) = (found, inner, at + 1);
    }
    if verb.get_name() == WORKER_VERB {
        return Ok(Parsed { cli: Cli::from_arg_matches(&matches)?, settings: Vec::new(), warnings: Vec::new() });
    }
    let is_run = at == 1 || (at == 2 && verb.get_name() == "run");
    let options: Vec<&Arg> = verb.get_arguments().filter(|arg| is_setting(arg, is_run)).collect();
    let layers = Layers::read(given, is_run, variables, cwd, &options).map_err(Stop::Refused)?;

    // Those that the command line leaves open, in the words of a command line.
    let mut found: Vec<(Setting, Vec<OsString>)> = Vec::new();
    let names_what = |name: &str| given.value_source(id(verb, name)) == Some(ValueSource::CommandLine);
    let what_given = is_run && WHAT.iter().any(|name| names_what(name));
    let what_rank = WHAT.iter().filter_map(|name| layers.get(name)).map(|(_, origin)| origin.rank()).min();
    for arg in &options {
        let name = name_of(arg);
        let is_what = WHAT.contains(&name);
        if given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) || (is_what && what_given) {
            continue;
        }
        let Some((words, origin)) = layers.get(name) else { continue };
        if is_what && Some(origin.rank()) != what_rank {
            continue;
        }
        let arguments = arguments(arg, words).map_err(|why| Stop::Refused(format!("{origin}: {name}: {why}")))?;
        found.push((Setting { name: name.into(), value: words.join(","), origin: origin.clone() }, arguments));
    }
    let mut whole = argv;
    let open: Vec<OsString> = found.iter().flat_map(|(_, arguments)| arguments.iter().cloned()).collect();
    // After the verb, before what is given: a `--` there must not swallow them.
    let at = at.min(whole.len());
    whole.splice(at..at, open);
    let matches = command.clone().try_get_matches_from(&whole).map_err(|e| blame(e, &found))?;
    let mut given = &matches;
    while let Some((_, inner)) = given.subcommand() {
        given = inner;
    }
    let settings = options.iter().map(|arg| {
        let known = found.iter().find(|(setting, _)| setting.name == name_of(arg));
        known.map_or_else(|| as_given(arg, given), |(setting, _)| setting.clone())
    });
    let settings = settings.collect();
    let cli = Cli::from_arg_matches(&matches)?;
    Ok(Parsed { cli, settings, warnings: if is_run { unknown(variables, &options) } else { Vec::new() } })
}

fn name_of(arg: &Arg) -> &str {
    arg.get_long().unwrap_or_else(|| arg.get_id().as_str())
}

fn is_setting(arg: &Arg, is_run: bool) -> bool {
    let name = name_of(arg);
    if is_run { !NO_SETTING.contains(&name) } else { name == "jobs" }
}

/// The id under which clap knows an option.
fn id<'a>(verb: &'a Command, name: &'a str) -> &'a str {
    verb.get_arguments().find(|arg| name_of(arg) == name).map_or(name, |arg| arg.get_id().as_str())
}

/// The value on the command line, or clap's default.
fn as_given(arg: &Arg, given: &ArgMatches) -> Setting {
    let name = arg.get_id().as_str();
    let words = given.get_raw(name).into_iter().flatten().map(|word| word.to_string_lossy().into_owned());
    let (value, origin) = match given.value_source(name) {
        Some(ValueSource::CommandLine) if is_flag(arg) => ("true".into(), Origin::CommandLine),
        Some(ValueSource::CommandLine) => (words.collect::<Vec<_>>().join(" "), Origin::CommandLine),
        _ if is_flag(arg) => ("false".into(), Origin::BuiltIn),
        _ => (words.collect::<Vec<_>>().join(" "), Origin::BuiltIn),
    };
    Setting { name: name_of(arg).into(), value, origin }
}

fn is_flag(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// A setting as arguments.
fn arguments(arg: &Arg, words: &[String]) -> Result<Vec<OsString>, String> {
    let text = words.join(",");
    if is_flag(arg) {
        return match text.as_str() {
            "true" | "1" => Ok(vec![format!("--{}", name_of(arg)).into()]),
            "false" | "0" => Ok(Vec::new()),
            _ => Err(format!("`{text}` is neither true nor false")),
        };
    }
    match arg.get_long() {
        Some(long) => Ok(vec![format!("--{long}={text}").into()]),
        None => match words.iter().find(|word| word.starts_with('-')) {
            Some(option) => Err(format!("`{option}` is an option")),
            None => Ok(words.iter().map(OsString::from).collect()),
        },
    }
}

/// clap's error, with where its value comes from.
fn blame(e: clap::Error, found: &[(Setting, Vec<OsString>)]) -> Stop {
    let Some(ContextValue::String(arg)) = e.get(ContextKind::InvalidArg) else { return Stop::Clap(e) };
    let named = |setting: &&Setting| {
        let rest = arg.strip_prefix("--").and_then(|arg| arg.strip_prefix(setting.name.as_str()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '=']))
    };
    match found.iter().map(|(setting, _)| setting).find(named) {
        Some(setting) => {
            let text = e.to_string();
            let first = text.lines().next().unwrap_or_default();
            let why = first.strip_prefix("error: ").unwrap_or(first);
            Stop::Refused(format!("{}: {}: {why}", setting.origin, setting.name))
        }
        None => Stop::Clap(e),
    }
}

/// A word about each variable that would be a setting and is none.
fn unknown(variables: &BTreeMap<String, String>, options: &[&Arg]) -> Vec<String> {
    let mut known: Vec<String> = options.iter().map(|arg| variable(name_of(arg))).collect();
    known.extend(OTHER_VARIABLES.map(|name| format!("{PREFIX}{name}")));
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    let strange = variables.keys().filter(|name| !names.contains(&name.as_str()));
    strange.map(|name| format!("{name} is no setting{}", suggest::sentence(name, &names))).collect()
}

fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase().replace('-', "_"))
}

/// What the environment and the file say, the higher before the lower.
struct Layers {
    values: BTreeMap<String, (Vec<String>, Origin)>,
}

impl Layers {
    fn get(&self, name: &str) -> Option<&(Vec<String>, Origin)> {
        self.values.get(name)
    }

    fn read(
        given: &ArgMatches,
        is_run: bool,
        variables: &BTreeMap<String, String>,
        cwd: &Path,
        options: &[&Arg],
    ) -> Result<Self, String> {
        let chosen = |id: &str| is_run.then(|| given.get_raw(id)).flatten().and_then(|mut words| words.next());
        let from = |id: &str, variable: &str| {
            let line = chosen(id).map(|word| word.to_string_lossy().into_owned());
            line.or_else(|| variables.get(variable).cloned().filter(|text| !text.is_empty()))
        };
        let path = match from("config", "STREAMPROOF_CONFIG") {
            Some(path) => Some(PathBuf::from(path)),
            None => nearest(cwd),
        };
        let profile = from("profile", "STREAMPROOF_PROFILE");
        let mut layers = Layers { values: BTreeMap::new() };
        // A verb without settings must not fail by the settings of others.
        if options.is_empty() {
            return Ok(layers);
        }
        for arg in options {
            let name = variable(name_of(arg));
            if let Some(text) = variables.get(&name).filter(|text| !text.is_empty()) {
                let words = match arg.get_long() {
                    Some(_) => vec![text.clone()],
                    None => text.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect(),
                };
                layers.values.insert(name_of(arg).into(), (words, Origin::Variable(name)));
            }
        }
        match (path, profile) {
            (Some(path), profile) => layers.add_file(&path, profile.as_deref().unwrap_or(DEFAULT), is_run, options)?,
            (None, Some(profile)) if profile != DEFAULT => {
                return Err(format!("profile `{profile}`: there is no {FILE} here or above"));
            }
            (None, _) => {}
        }
        Ok(layers)
    }

    fn add_file(&mut self, path: &Path, profile: &str, is_run: bool, options: &[&Arg]) -> Result<(), String> {
        let named = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| named(&e))?;
        let file: File = toml::from_str(&text).map_err(|e| named(&e))?;
        if file.version != VERSION {
            return Err(named(&format_args!("of version {}, this program reads version {VERSION}", file.version)));
        }
        let profiles: Vec<&str> = file.profile.keys().map(String::as_str).collect();
        if profile != DEFAULT && !profiles.contains(&profile) {
            let hint = suggest::sentence(profile, &profiles);
            return Err(named(&format_args!("no profile `{profile}`{hint}; there are {}", profiles.join(", "))));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        for (name, settings) in &file.profile {
            for (key, value) in settings {
                let Some(arg) = options.iter().find(|arg| name_of(arg) == key) else {
                    if !is_run {
                        continue; // a setting of another verb
                    }
                    let keys: Vec<&str> = options.iter().map(|arg| name_of(arg)).collect();
                    let hint = suggest::sentence(key, &keys);
                    return Err(named(&format_args!("profile {name}: `{key}` is no setting{hint}")));
                };
                let mut words = words_of(value).ok_or_else(|| {
                    named(&format_args!(
                        "profile {name}: {key}: write a string, a number, true, false or a list of strings"
                    ))
                })?;
                // A file's paths are seen from where it is.
                let is_path = arg.get_value_hint() == ValueHint::AnyPath;
                for word in
                    words.iter_mut().filter(|word| is_path || (arg.get_long().is_none() && word.ends_with(".json")))
                {
                    *word = folder.join(&*word).display().to_string();
                }
                let known = self.values.get(key).map(|(_, origin)| origin);
                let replaces = match known {
                    None => name == profile || name == DEFAULT,
                    Some(Origin::Profile { .. }) => name == profile,
                    Some(_) => false,
                };
                if replaces {
                    let origin = Origin::Profile { name: name.clone(), file: path.to_owned() };
                    self.values.insert(key.clone(), (words, origin));
                }
            }
        }
        Ok(())
    }
}

/// A file's value in the words of a command line.
fn words_of(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(n) => Some(vec![n.to_string()]),
        toml::Value::Boolean(yes) => Some(vec![yes.to_string()]),
        toml::Value::Array(all) => all.iter().map(|word| word.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// The file in this directory, or in the nearest above it that has one.
fn nearest(cwd: &Path) -> Option<PathBuf> {
    // Under the current directory its path is short, and so are those that it names.
    let here = || Some(PathBuf::from(FILE)).filter(|_| cwd.join(FILE).is_file());
    here().or_else(|| cwd.ancestors().skip(1).map(|dir| dir.join(FILE)).find(|path| path.is_file()))
}

/// All settings, a line each.
pub fn table(settings: &[Setting]) -> String {
    let value = |setting: &Setting| if setting.value.is_empty() { "-".to_owned() } else { setting.value.clone() };
    let width = |of: &dyn Fn(&Setting) -> usize| settings.iter().map(of).max().unwrap_or(0);
    let (names, values) = (width(&|s| s.name.len()), width(&|s| value(s).chars().count()));
    let line = |s: &Setting| format!("{:names$}  {:values$}  {}\n", s.name, value(s), s.origin);
    settings.iter().map(line).collect()
}

/// As `--format json` writes it.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    pub name: &'a str,
    pub value: &'a str,
    pub from: String,
}

#[cfg(test)]
mod tests {
    use super::super::args::Verb;
    use super::*;

    struct Here(tempfile::TempDir, BTreeMap<String, String>);

    impl Here {
        fn new(file: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            if !file.is_empty() {
                std::fs::write(dir.path().join(FILE), file).unwrap();
            }
            Self(dir, BTreeMap::new())
        }

        fn with(mut self, name: &str, value: &str) -> Self {
            self.1.insert(name.into(), value.into());
            self
        }

        fn parse(&self, line: &str) -> Result<Parsed, Stop> {
            // A subfolder, since the file of the current directory has a path that is relative to the process's.
            let below = self.0.path().join("below");
            std::fs::create_dir_all(&below).unwrap();
            parse(line.split(' ').map(OsString::from).collect(), &self.1, &below)
        }

        fn setting(&self, line: &str, name: &str) -> (String, String) {
            let parsed = self.parse(line).unwrap();
            let setting = parsed.settings.into_iter().find(|setting| setting.name == name).unwrap();
            let origin = match setting.origin {
                Origin::Profile { name, .. } => format!("profile {name}"),
                other => other.to_string(),
            };
            (setting.value, origin)
        }

        fn refusal(&self, line: &str) -> String {
            match self.parse(line) {
                Err(Stop::Refused(why)) => why.replace(&self.0.path().display().to_string(), "DIR"),
                other => panic!("{other:?}"),
            }
        }
    }

    const FILE_OF_CI: &str = r#"
        [profile.default]
        jobs = 3
        seeds = 10
        [profile.ci]
        jobs = 2
        scenarios = ["smoke", "swarm"]
        faults = ["net", "disk"]
        no-shrink = true
        junit = "out/junit.xml"
    "#;

    #[test]
    fn the_command_line_wins_then_variables_then_the_profile_then_the_default_one() {
        let here = Here::new(FILE_OF_CI).with("STREAMPROOF_SEEDS", "20");
        let is = |line: &str, name: &str, value: &str, origin: &str| {
            assert_eq!(here.setting(line, name), (value.to_owned(), origin.to_owned()), "{line}: {name}");
        };
        is("streamproof run --jobs 1 --profile ci", "jobs", "1", "command line");
        is("streamproof run --profile ci", "jobs", "2", "profile ci");
        is("streamproof run", "jobs", "3", "profile default");
        is("streamproof run --profile ci", "seeds", "20", "STREAMPROOF_SEEDS");
        is("streamproof", "seed", "0", "built in");
        is("streamproof --profile ci", "scenarios", "smoke,swarm", "profile ci");
        is("streamproof --profile ci", "no-shrink", "true", "profile ci");
        is("streamproof reordering --profile ci", "scenarios", "reordering", "command line");
    }

    #[test]
    fn what_is_found_is_what_is_run() {
        let here = Here::new(FILE_OF_CI).with("STREAMPROOF_PROFILE", "ci");
        let Some(Verb::Run(run)) = here.parse("streamproof run --seed 5").unwrap().cli.verb else { panic!() };
        assert_eq!((run.jobs, run.seed, run.seeds, run.no_shrink), (Some(2), 5, Some(10), true));
        assert_eq!(run.scenarios, ["smoke", "swarm"]);
        assert_eq!(run.junit, Some(here.0.path().join("out/junit.xml")), "seen from the file");
        let plans = Here::new("[profile.default]\nscenarios = [\"my plans/a.json\", \"swarm\"]\n");
        let run = plans.parse("streamproof").unwrap().cli.run;
        let plan = plans.0.path().join("my plans/a.json").display().to_string();
        assert_eq!(run.scenarios, [plan, "swarm".to_owned()], "plans too");
        let run = here.parse("streamproof --seed 5").unwrap().cli.run;
        assert_eq!((run.seed, run.jobs), (5, Some(2)));
    }

    #[test]
    fn whoever_names_what_is_run_names_all_of_it() {
        let here = Here::new("[profile.default]\njob = \"j.toml\"\nevents = \"e.csv\"\n");
        let run = here.parse("streamproof").unwrap().cli.run;
        assert!(run.job.job.is_some() && run.job.events.is_some());
        let run = here.parse("streamproof swarm").unwrap().cli.run;
        assert_eq!((run.scenarios, run.job.job), (vec!["swarm".to_owned()], None));
        let here = here.with("STREAMPROOF_SCENARIOS", "smoke");
        let run = here.parse("streamproof").unwrap().cli.run;
        assert_eq!((run.scenarios, run.job.job), (vec!["smoke".to_owned()], None));
    }

    #[test]
    fn other_verbs_have_jobs_alone() {
        let here = Here::new(FILE_OF_CI).with("STREAMPROOF_SEEDS", "20");
        let Some(Verb::Shrink(args)) = here.parse("streamproof shrink swarm/1").unwrap().cli.verb else { panic!() };
        assert_eq!(args.jobs, Some(3));
        let Some(Verb::Determinism(args)) = here.parse("streamproof determinism").unwrap().cli.verb else { panic!() };
        assert_eq!(args.seeds, 5, "of what another verb means by it, nothing");
        let here = Here::new("no settings at all").with("STREAMPROOF_PROFILE", "nightly");
        assert!(here.parse("streamproof list").is_ok(), "a verb without settings needs no file");
    }

    #[test]
    fn mistakes_name_their_place() {
        let at = |file: &str, line: &str| Here::new(file).refusal(line);
        let sedes = at("[profile.ci]\nsedes = 1", "streamproof");
        assert_eq!(sedes, "DIR/streamproof.toml: profile ci: `sedes` is no setting (did you mean `seeds`?)");
        let c = at(FILE_OF_CI, "streamproof run --profile cii");
        assert_eq!(c, "DIR/streamproof.toml: no profile `cii` (did you mean `ci`?); there are ci, default");
        let jobs = at("[profile.default]\njobs = 0", "streamproof");
        assert!(
            jobs.starts_with("DIR/streamproof.toml, profile default: jobs: invalid value '0' for '--jobs"),
            "{jobs}"
        );
        let none = at("", "streamproof --profile ci");
        assert_eq!(none, "profile `ci`: there is no streamproof.toml here or above");
        let version = at("version = 2", "streamproof");
        assert_eq!(version, "DIR/streamproof.toml: of version 2, this program reads version 1");
        let float = at("[profile.default]\njobs = 1.5", "streamproof");
        assert!(float.contains("profile default: jobs: write a string"), "{float}");
        let flag = Here::new("").with("STREAMPROOF_NO_SHRINK", "yes").refusal("streamproof");
        assert_eq!(flag, "STREAMPROOF_NO_SHRINK: no-shrink: `yes` is neither true nor false");
        let here = Here::new("").with("STREAMPROOF_MAX_FAILS", "1");
        let warnings = here.parse("streamproof").unwrap().warnings;
        assert_eq!(warnings, ["STREAMPROOF_MAX_FAILS is no setting (did you mean `STREAMPROOF_MAX_FAIL`?)"]);
    }
}
