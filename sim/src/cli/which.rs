//! What a command's argument names: a stored run, a seed, a plan file, a capsule.

use std::path::{Path, PathBuf};

use reports::SeedReport;
use scenarios::Plan;

use super::Refusal;
use super::args::{WhichArgs, seed};
use super::run::scenario;
use crate::capsule::{self, Lead};
use crate::plans::{self, Planner};
use crate::store::{self, Stored};
use crate::task::{Source, Task};

/// Something that ran, or can run.
#[derive(Debug)]
pub struct Named {
    pub task: Task,
    /// What its run said, if it is of a stored one.
    pub before: Option<SeedReport>,
    /// The folder of the stored run.
    pub run: Option<PathBuf>,
    /// Whether this build made it, so that it must match bit for bit.
    pub exact: bool,
}

impl Named {
    /// Its plan. A stored failure's own plan is taken as it was kept: the generators may have changed since.
    pub fn plan(&self, planner: &mut Planner) -> Result<Plan, Refusal> {
        let kept = self.run.as_ref().map(|run| store::plan_path(run, &self.task));
        match kept.filter(|path| path.is_file()) {
            Some(path) => plans::read_plan(&path),
            None => planner.plan(&self.task),
        }
        .map_err(Refusal::usage)
    }
}

/// All that an argument names.
///
/// # Errors
/// A sentence that says what it could have been.
pub fn select(args: &WhichArgs) -> Result<Vec<Named>, Refusal> {
    let what = args.what.as_str();
    let faults = args.faults.faults.as_ref().map(|set| set.0.clone());
    let one = |source, seed| {
        Ok(vec![Named { task: Task { source, seed, faults: faults.clone() }, before: None, run: None, exact: false }])
    };
    if capsule::is_capsule(Path::new(what)) {
        let lead = Lead::read(Path::new(what)).map_err(Refusal::usage)?;
        eprintln!("{}", lead.expectation());
        let (seed, exact) = (lead.plan.seed, lead.is_of_this_build());
        let task = Task { source: Source::Capsule(PathBuf::from(what)), seed, faults: None };
        return Ok(vec![Named { task, before: Some(lead.report), run: None, exact }]);
    }
    if Path::new(what).is_file() {
        let plan = plans::read_plan(Path::new(what)).map_err(Refusal::usage)?;
        return one(Source::Plan(PathBuf::from(what)), plan.seed);
    }
    if let Some((path, n)) = what.rsplit_once('#')
        && Path::new(path).is_file()
    {
        let plan = plans::read_plan(Path::new(path)).map_err(Refusal::usage)?;
        let n = n.parse().map_err(|_| Refusal::usage(format!("`{n}` is no number of a schedule")))?;
        return one(Source::Schedule { plan: PathBuf::from(path), n }, plan.seed);
    }
    if let (Some(job), Some(events)) = (&args.job.job, &args.job.events) {
        let number = seed(what.strip_prefix("job/").unwrap_or(what))
            .map_err(|e| Refusal::usage(format!("`{what}` is no seed of the job: {e}")))?;
        return one(Source::Job { job: job.clone(), events: events.clone() }, number);
    }
    if let Some((name, number)) = what.split_once('/')
        && !what.ends_with(".json")
        && store::run_dir(what).is_none()
    {
        if name == "job" {
            return Err(Refusal::usage(format!("`{what}` needs the job's files: give --job and --events")));
        }
        let name = scenario(name)?;
        let number = seed(number).map_err(|e| Refusal::usage(format!("`{number}` is no seed: {e}")))?;
        return one(Source::Scenario(name), number);
    }
    if what.ends_with(".json") {
        return Err(Refusal::usage(format!("no plan file {what}")));
    }
    stored(what)
}

/// All failures of a stored run, or those of a seed in the newest run that has them.
fn stored(what: &str) -> Result<Vec<Named>, Refusal> {
    let root = store::root();
    let named = |run: &Path, failed: Vec<Stored>| {
        let run = Some(run.to_owned());
        let one = |f: Stored| Named { task: f.task, before: Some(f.report), run: run.clone(), exact: false };
        failed.into_iter().map(one).collect::<Vec<_>>()
    };
    if let Some(dir) = store::run_dir(what) {
        let failed = store::failures(&dir).map_err(Refusal::usage)?;
        if failed.is_empty() {
            return Err(Refusal::nothing(format!("run {what} has no failure")));
        }
        return Ok(named(&dir, failed));
    }
    let ids = store::ids(&root).map_err(|e| Refusal::usage(format!("{}: {e}", root.display())))?;
    if let Ok(number) = seed(what) {
        for dir in ids.iter().rev().map(|id| root.join(id)) {
            let mut failed = store::failures(&dir).map_err(Refusal::usage)?;
            failed.retain(|f| f.task.seed == number);
            if !failed.is_empty() {
                return Ok(named(&dir, failed));
            }
        }
        return Err(Refusal::usage(format!(
            "no stored run failed at seed {what}: write SCENARIO/{what}, such as swarm/{what}"
        )));
    }
    Err(Refusal::usage(format!(
        "`{what}` is no stored run, no SCENARIO/SEED, no plan file and no capsule; {} has {} runs",
        root.display(),
        ids.len()
    )))
}
