//! Makes a failing plan small: what is left is what the failure needs.
//!
//! Guarantees: the result fails with the same signature ([`reports::Signature`]) as the plan did, confirmed in a fresh
//! process; it is a valid plan of the stored form, made of parts of the first one; after each kept cut it is on disk
//! whole, so that an interrupt costs nothing. Given the same outcomes of runs the cuts are the same. It does not claim the
//! smallest plan there is, nor that equal signatures have one cause.
//!
//! | part | says |
//! |--|--|
//! | [`ddmin`] | how a list is made short |
//! | [`cuts`] | what can be cut, kind by kind |
//! | [`search`] | in which order, and when nothing more can be |
//! | [`bench`] | how candidates run, several at once, with which tails |
//! | [`journal`] | what was tried, for the next time |

pub mod bench;
pub mod cuts;
pub mod ddmin;
pub mod journal;
pub mod search;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reports::{SeedReport, Signature, Size, Verdict};
use scenarios::Plan;

use crate::interrupt::Interrupt;
use crate::runner::TAILS;
use crate::supervisor::{self, Options};
use crate::task::{Source, Task};
use bench::Bench;
use journal::{Journal, PlanHash, Trial};
use search::{Failing, Search};

/// Wall-clock time of one candidate: this many times what the first plan took, and no less than the second. A cut that
/// makes runs long is worth nothing, and one that runs to the sweep's own limit would cost the budget.
const CANDIDATE_LIMIT: (u32, Duration) = (10, Duration::from_secs(3));
/// Wall-clock time for counting the schedules that fail, once the search is over.
const SCHEDULES_LIMIT: Duration = Duration::from_secs(15);

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everything.
    Whole,
    /// Faults only, as they are: the quick pass after a failing run.
    Faults,
}

/// What to shrink, and how.
#[derive(Clone, Debug)]
pub struct Order {
    pub plan: Plan,
    /// The property to keep; without one, the first that fails.
    pub property: Option<String>,
    pub reach: Reach,
    /// Wall-clock time for the search.
    pub budget: Duration,
    /// Where the shrunk plan goes.
    pub output: PathBuf,
    /// Whether tried candidates are remembered beside it.
    pub journal: bool,
}

/// What came of it.
#[derive(Debug)]
pub enum End {
    /// The plan fails, and here is the smallest one found.
    Shrunk(Box<Found>),
    /// The plan does not fail, or not by the property asked for: what it does fail by.
    Other(Vec<Signature>),
    /// Interrupted before the first answer.
    Interrupted,
    /// Run again in a fresh process, the result did something else.
    Unstable(Box<SeedReport>),
}

/// The smallest plan found.
#[derive(Debug)]
pub struct Found {
    pub plan: Plan,
    pub signature: Signature,
    pub before: Size,
    pub after: Size,
    pub runs: u64,
    pub cuts: u64,
    /// See [`reports::Shrunk::schedules`].
    pub schedules: Option<(u64, u64)>,
    pub complete: bool,
}

/// Shrinks. `say` hears one line for each kept cut.
///
/// # Errors
/// A sentence: workers that cannot start, a plan or journal that cannot be written.
pub fn shrink(
    order: &Order,
    options: &Options,
    interrupt: &Interrupt,
    say: &mut dyn FnMut(&str),
) -> Result<End, String> {
    let mut journal = match order.journal {
        true => open_journal(order, options)?,
        false => Journal::none(),
    };
    if !journal.is_empty() {
        say(&format!("{} runs of an earlier search are remembered", journal.len()));
    }
    let hash = PlanHash::of(&order.plan);
    let known = journal.get(hash).cloned();
    let (first, before) = match known {
        Some(trial) => (trial, 0),
        None => {
            let once = Options { jobs: 1, repeat_every: 0, repeat_failures: false, ..options.clone() };
            let Some(report) = run_one(&order.plan, &once, interrupt)? else { return Ok(End::Interrupted) };
            let trial = Trial::of(&report);
            journal.add(hash, trial.clone()).map_err(|e| format!("failed to write the journal: {e}"))?;
            (trial, 1)
        }
    };
    let (times, least) = CANDIDATE_LIMIT;
    let time_limit = options.time_limit.min(least.max(times * Duration::from_millis(first.wall_ms)));
    let candidates = Options { repeat_every: 0, repeat_failures: false, time_limit, ..options.clone() };
    let (end, runs) = bench::with(&candidates, interrupt, journal, |bench| search(order, first, bench, say))?;
    match end? {
        End::Shrunk(mut found) => {
            found.runs = before + runs;
            let report = confirm(&found.plan, options)?;
            let same = report.verdict != Verdict::NotDeterministic && report.signatures().contains(&found.signature);
            Ok(if same { End::Shrunk(found) } else { End::Unstable(Box::new(report)) })
        }
        other => Ok(other),
    }
}

fn search(order: &Order, trial: Trial, bench: &mut Bench<'_>, say: &mut dyn FnMut(&str)) -> Result<End, String> {
    let asked = |s: &&Signature| order.property.as_deref().is_none_or(|property| s.property() == property);
    let Some(signature) = trial.signatures.iter().find(asked).cloned() else {
        return Ok(End::Other(trial.signatures));
    };
    let before = Size::of(&order.plan, trial.simulated_ms);
    say(&format!("{signature}: {before}"));
    bench.want(signature.clone());
    bench.stop_at(Instant::now().checked_add(order.budget));
    let mut unwritten = None;
    let mut on_cut = |failing: &Failing, what: &str| {
        if let Err(e) = write_plan(&order.output, &failing.plan) {
            unwritten = Some(e);
        }
        say(&format!("cut {what}: {} left", Size::of(&failing.plan, failing.simulated_ms)));
    };
    let first = Failing { plan: order.plan.clone(), simulated_ms: trial.simulated_ms };
    let search = Search::new(first, bench, &mut on_cut);
    let (last, cuts) = match order.reach {
        Reach::Whole => search.run(),
        Reach::Faults => search.run_faults(),
    };
    if let Some(e) = unwritten {
        return Err(e);
    }
    let complete = !search::Judge::stopped(bench);
    bench.stop_at(Instant::now().checked_add(SCHEDULES_LIMIT));
    let (failing, tried) = match order.reach {
        Reach::Whole => bench.schedules(&last.plan, TAILS),
        Reach::Faults => (0, 0),
    };
    Ok(End::Shrunk(Box::new(Found {
        signature,
        before,
        after: Size::of(&last.plan, last.simulated_ms),
        plan: last.plan,
        runs: 0,
        cuts,
        schedules: (tried == TAILS).then_some((failing, tried)),
        complete,
    })))
}

/// Runs the plan twice, each time in a fresh process.
fn confirm(plan: &Plan, options: &Options) -> Result<SeedReport, String> {
    let options = Options { jobs: 1, recycle_after: 1, repeat_every: 1, repeat_failures: true, ..options.clone() };
    // Two short runs: an interrupt that came before has done its work.
    run_one(plan, &options, &Interrupt::default())?.ok_or_else(|| "the last plan was not run".into())
}

/// One task; nothing if interrupted before its end.
fn run_one(plan: &Plan, options: &Options, interrupt: &Interrupt) -> Result<Option<SeedReport>, String> {
    let task = Task {
        source: Source::Inline { id: 0, plan: Box::new(plan.clone()), tail: None },
        seed: plan.seed,
        faults: None,
    };
    let mut report = None;
    supervisor::run(std::iter::once(task), options, interrupt, |finished| {
        report = Some(finished.report);
        true
    })
    .map_err(|e| format!("failed to run the {e}"))?;
    Ok(report)
}

fn open_journal(order: &Order, options: &Options) -> Result<Journal, String> {
    let path = order.output.with_extension("journal");
    make_parent(&path)?;
    Journal::open(&path, &options.worker, &order.plan).map_err(|e| format!("{}: {e}", path.display()))
}

fn make_parent(path: &Path) -> Result<(), String> {
    match path.parent() {
        Some(dir) => std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display())),
        None => Ok(()),
    }
}

/// Writes a plan so that a reader finds the old one or the new one, whole.
///
/// # Errors
/// A sentence that names the file.
pub fn write_plan(path: &Path, plan: &Plan) -> Result<(), String> {
    make_parent(path)?;
    let new = path.with_extension("json.new");
    let written = std::fs::File::create(&new).and_then(|mut file| {
        file.write_all((plan.to_json() + "\n").as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    });
    written.map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A worker that fails every plan which still holds all of `needed`, and counts its runs in `dir/runs`.
    fn worker(dir: &Path, needed: &[&str], jobs: usize) -> Options {
        let path = dir.join("worker");
        let greps: String = needed.iter().map(|text| format!(" | grep -F '{text}'")).collect();
        let text = format!(
            r#"#!/bin/sh
while read -r line; do
    echo run >>'{}/runs'
    id=$(echo "$line" | sed 's/.*"version":1,"id":\([0-9]*\),"task".*/\1/')
    verdict=pass; failures=
    if echo "$line"{greps} >/dev/null; then
        verdict=unsafe
        failures='"failures":[{{"property":"acked-durable","message":"lost at 3","witness":{{"subject":""}}}}],'
    fi
    echo '{{"version":1,"id":'$id',"report":{{"version":1,"scenario":"s","seed":1,"verdict":"'$verdict'",'$failures'"world_hash":"a","probe_hash":"","stats":{{"simulated_ms":7,"records":0,"windows":0,"checkpoints":0,"events_checked":0,"restored_non_empty":false,"faults":{{}},"families_off":[],"reached":[]}},"wall_ms":1}}}}'
done
"#,
            dir.display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Options::new(path, jobs)
    }

    fn order(dir: &Path) -> Order {
        Order {
            plan: scenarios::generate("canary_page_cache", 1).unwrap(),
            property: None,
            reach: Reach::Whole,
            budget: Duration::from_secs(600),
            output: dir.join("out/small.json"),
            journal: true,
        }
    }

    fn runs(dir: &Path) -> usize {
        std::fs::read_to_string(dir.join("runs")).map_or(0, |text| text.lines().count())
    }

    #[test]
    fn a_stopped_search_goes_on_where_it_stopped_and_jobs_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let order = order(dir.path());
        let needed = serde_json::to_string(&order.plan.records().nth(100).unwrap().1.value).unwrap();
        let needed = needed.as_str();
        let options = worker(dir.path(), &[needed], 1);
        // Interrupted after the third cut.
        let (interrupt, mut cuts) = (Interrupt::default(), 0);
        let stop = interrupt.clone();
        let end = shrink(&order, &options, &interrupt, &mut |line| {
            cuts += u32::from(line.starts_with("cut "));
            if cuts == 3 {
                stop.set();
            }
        });
        let Ok(End::Shrunk(found)) = end else { panic!("{end:?}") };
        assert!(!found.complete && found.cuts == 3 && found.schedules.is_none());
        let kept = Plan::from_json(&std::fs::read_to_string(&order.output).unwrap()).unwrap();
        assert_eq!(kept, found.plan);
        // The same command again: what was tried is not run again.
        let before = runs(dir.path());
        let whole = |options: &Options, order: &Order| {
            let mut said = Vec::new();
            let end = shrink(order, options, &Interrupt::default(), &mut |line| said.push(line.to_owned()));
            let Ok(End::Shrunk(found)) = end else { panic!("{end:?}") };
            assert!(found.complete);
            (found, said)
        };
        let (found, said) = whole(&options, &order);
        assert!(said[0].ends_with("runs of an earlier search are remembered"), "{said:?}");
        assert_eq!((found.after.faults, found.after.records, found.schedules), (0, 1, Some((TAILS, TAILS))));
        let fresh = tempfile::tempdir().unwrap();
        let (elsewhere, said_elsewhere) =
            whole(&worker(fresh.path(), &[needed], 3), &Order { output: fresh.path().join("s.json"), ..order.clone() });
        assert_eq!(elsewhere.plan, found.plan);
        assert_eq!(said_elsewhere, said[1..], "the same cuts, whoever ran them");
        assert!(runs(dir.path()) - before < runs(fresh.path()), "the first runs were remembered");
        // A third time everything is known but the confirmation's two runs.
        let before = runs(dir.path());
        assert_eq!(whole(&options, &order).0.plan, found.plan);
        assert_eq!(runs(dir.path()) - before, 2);
    }

    #[test]
    fn a_plan_that_passes_or_fails_otherwise_is_not_shrunk() {
        let dir = tempfile::tempdir().unwrap();
        let options = worker(dir.path(), &["in no plan"], 1);
        let end = shrink(&order(dir.path()), &options, &Interrupt::default(), &mut |_| {});
        assert!(matches!(&end, Ok(End::Other(none)) if none.is_empty()), "{end:?}");
        let options = worker(dir.path(), &["version"], 1);
        let asked = Order { property: Some("no-duplicate".into()), ..order(dir.path()) };
        let end = shrink(&asked, &options, &Interrupt::default(), &mut |_| {});
        assert!(matches!(&end, Ok(End::Other(all)) if all[0].property() == "acked-durable"), "{end:?}");
        assert!(!order(dir.path()).output.exists());
    }

    #[test]
    fn a_worker_that_cannot_start_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(dir.path().join("missing"), 2);
        let order = Order { journal: false, ..order(dir.path()) };
        let end = shrink(&order, &options, &Interrupt::default(), &mut |_| {});
        assert!(end.is_err_and(|e| e.contains("missing")));
    }
}
