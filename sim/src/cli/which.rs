//! What a command's argument names: a stored run, a seed, a plan file, a capsule.

use std::collections::BTreeSet;
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
    /// Where it is stored.
    pub run: Option<Kept>,
    /// Whether this build made it, so that it must match bit for bit.
    pub exact: bool,
}

/// A task of a stored run.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The folder of the run.
    pub dir: PathBuf,
    /// As it was then: files of it go by its name.
    pub task: Task,
}

impl Kept {
    /// What runs it again, though the files that it ran from may be gone or others: those that the run kept.
    fn again(&self) -> Task {
        let Kept { dir, task } = self;
        let kept = match &task.source {
            Source::Schedule { plan, n } => {
                let copy = store::given(dir, plan);
                let other = copy.is_file() && !same_content(plan, &copy);
                other.then_some(Source::Schedule { plan: copy, n: *n })
            }
            Source::Job { job, events } if !job.is_file() || !events.is_file() => {
                Some(store::plan_path(dir, task)).filter(|plan| plan.is_file()).map(Source::Plan)
            }
            _ => None,
        };
        Task { source: kept.unwrap_or_else(|| task.source.clone()), ..task.clone() }
    }

    /// Why it is not run from the file that it ran from.
    fn why(&self) -> Option<String> {
        match &self.task.source {
            Source::Schedule { plan, .. } => {
                Some(format!("{} is not what it was when it ran: the run's copy is taken", plan.display()))
            }
            Source::Job { job, events } => {
                let gone = if job.is_file() { events } else { job };
                Some(format!("{} is gone: the plans that the run kept are taken", gone.display()))
            }
            _ => None,
        }
    }
}

fn same_content(one: &Path, other: &Path) -> bool {
    matches!((std::fs::read(one), std::fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

impl Named {
    /// Its plan. A stored failure's own plan is taken as it was kept: the generators may have changed since.
    pub fn plan(&self, planner: &mut Planner) -> Result<Plan, Refusal> {
        let kept = self.run.as_ref().map(|run| store::plan_path(&run.dir, &run.task));
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
    let named = |dir: &Path, failed: Vec<Stored>| {
        let mut told = BTreeSet::new();
        let mut one = |f: Stored| {
            let kept = Kept { dir: dir.to_owned(), task: f.task };
            let task = kept.again();
            if task != kept.task {
                told.extend(kept.why());
            }
            Named { task, before: Some(f.report), run: Some(kept), exact: false }
        };
        let all: Vec<Named> = failed.into_iter().map(&mut one).collect();
        told.iter().for_each(|why| eprintln!("{why}"));
        all
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
            // One run that this program cannot read hides no other.
            let Ok(mut failed) = store::failures(&dir).inspect_err(|why| eprintln!("warning: {why}")) else { continue };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_is_run_again_though_its_file_is_another() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, plan) = (tmp.path().join("run"), tmp.path().join("x.json"));
        let copy = store::given(&dir, &plan);
        let schedule = |plan: &Path| Source::Schedule { plan: plan.to_owned(), n: 3 };
        let kept = |source| Kept { dir: dir.clone(), task: Task { source, seed: 5, faults: None } };
        let run = kept(schedule(&plan));
        assert_eq!(run.again(), run.task, "an earlier program kept no copy");
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::write(&copy, "{}").unwrap();
        assert_eq!(run.again().source, schedule(&copy), "the file is gone");
        std::fs::write(&plan, "{}").unwrap();
        assert_eq!(run.again(), run.task, "the file is the same");
        std::fs::write(&plan, "[]").unwrap();
        assert_eq!(run.again().source, schedule(&copy), "the file was changed");
        let job = kept(Source::Job { job: tmp.path().join("job.toml"), events: plan.clone() });
        assert_eq!(job.again(), job.task, "nothing was kept");
        let stored = store::plan_path(&dir, &job.task);
        std::fs::create_dir_all(stored.parent().unwrap()).unwrap();
        std::fs::write(&stored, "{}").unwrap();
        assert_eq!(job.again().source, Source::Plan(stored), "the job is gone");
        assert!(job.why().unwrap().ends_with("job.toml is gone: the plans that the run kept are taken"));
    }
}
