//! The runs behind an explanation: the plan without each of its faults, and the same beginning with other ends.
//!
//! Guarantees: what is not answered in time is said to be unknown, never guessed; answers do not depend on how many runs
//! go at once. All runs are made by the sweep's workers, a round at a time over all questions, so that time that is up
//! leaves each of them with about as many answers.
//!
//! ```text
//! round 0:  the plan as it is | without fault 0 | without fault 1 | … | from the start | from after fault 0 | …
//! round 1:  the same under another schedule (even rounds: another world too)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reports::explain::{Curve, CurvePoint, FaultTrial, Need, Runs, ms};
use reports::fault_text;
use reports::{Explanation, Signature};
use scenarios::Plan;
use serde::{Deserialize, Serialize};

use crate::capsule::Capsule;
use crate::interrupt::Interrupt;
use crate::shrink::bench;
use crate::supervisor::{self, Capsules, Options};
use crate::task::{Source, Tail, Task};

/// Instants of the curve, the start among them. Of more faults the last ones before the violation are looked at.
const MAX_POINTS: usize = 14;
/// Rounds that a fault's verdict takes.
const ENOUGH: u64 = 3;
/// Wall-clock time of one run: this many times what the first took, and no less than the second.
const RUN_LIMIT: (u64, Duration) = (10, Duration::from_secs(3));

/// How much to find out.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Runs of each question.
    pub tails: u64,
    /// Wall-clock time for all.
    pub budget: Duration,
    /// When the violation showed: later instants are not looked at.
    pub violated_ms: Option<f64>,
}

/// What the runs said.
#[derive(Debug, Default)]
pub struct Answers {
    /// The plan without any fault.
    pub without_any: Runs,
    pub faults: Vec<FaultTrial>,
    pub curve: Curve,
    /// The plan as it is.
    pub with_all: Runs,
    pub runs: u64,
    pub complete: bool,
}

/// What was found out about a violation, beside its capsule: the report shows it without asking again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    version: u32,
    /// The violation's message: a capsule may hold several.
    message: String,
    without_any: Runs,
    faults: Vec<FaultTrial>,
    curve: Curve,
}

impl Found {
    const VERSION: u32 = 1;

    pub fn new(told: &Explanation, answers: Answers) -> Self {
        let Answers { without_any, faults, curve, .. } = answers;
        Self { version: Self::VERSION, message: told.message.clone(), without_any, faults, curve }
    }

    fn path(capsule: &Path) -> PathBuf {
        capsule.with_extension("explained.json")
    }

    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, capsule: &Path) -> std::io::Result<()> {
        std::fs::write(Self::path(capsule), serde_json::to_string(self)? + "\n")
    }

    /// Fills in what is known of this violation. A file that is absent, of another version or of another violation is
    /// nothing to tell of.
    pub fn read(capsule: &Path, told: &mut Explanation) {
        let text = std::fs::read_to_string(Self::path(capsule)).unwrap_or_default();
        if let Ok(found) = serde_json::from_str::<Found>(&text)
            && found.version == Self::VERSION
            && found.message == told.message
        {
            found.tell(told);
        }
    }

    pub fn tell(self, told: &mut Explanation) {
        told.without_any = Some(self.without_any);
        told.faults = Some(self.faults);
        told.curve = Some(self.curve);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    AsItIs,
    WithoutAny,
    Without(usize),
    From(usize),
}

/// Asks all questions about a failure of `signature`.
///
/// # Errors
/// What keeps the workers from running, in a sentence.
pub fn ask(
    capsule: &Capsule,
    signature: &Signature,
    order: &Order,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Answers, String> {
    let plan = &capsule.plan;
    let points = points(capsule, order.violated_ms);
    let questions: Vec<Question> = [Question::AsItIs, Question::WithoutAny]
        .into_iter()
        .chain((0..plan.faults.len()).map(Question::Without))
        .chain((0..points.len()).map(Question::From))
        .collect();
    let (times, least) = RUN_LIMIT;
    let time_limit = options.time_limit.min(least.max(Duration::from_millis(times * capsule.report.wall_ms)));
    let options =
        Options { repeat_every: 0, repeat_failures: false, capsules: Capsules::None, time_limit, ..options.clone() };
    let total = questions.len() as u64 * order.tails;
    let asked = questions.clone();
    let at: Vec<u64> = points.iter().map(|(at_ns, _)| *at_ns).collect();
    let make = plan.clone();
    let tasks = (0..total).map(move |id| {
        let (round, question) = (id / asked.len() as u64, asked[(id % asked.len() as u64) as usize]);
        let (plan, tail) = variant(&make, &at, question, round);
        let seed = plan.seed;
        Task { source: Source::Inline { id, plan: Box::new(plan), tail }, seed, faults: None }
    });
    let until = Instant::now() + order.budget;
    let mut counts: BTreeMap<Question, Runs> = BTreeMap::new();
    let mut runs = 0;
    supervisor::run(tasks, &options, interrupt, |finished| {
        if let Source::Inline { id, .. } = finished.task.source {
            let question = questions[(id % questions.len() as u64) as usize];
            runs += 1;
            // A run that was cut off says nothing.
            if finished.report.verdict != reports::Verdict::Inconclusive {
                counts.entry(question).or_default().add(finished.report.signatures().contains(signature));
            }
        }
        Instant::now() < until
    })
    .map_err(|e| format!("failed to run the {e}"))?;
    let of = |question| counts.get(&question).copied().unwrap_or_default();
    let with_all = of(Question::AsItIs);
    let faults = plan.faults.iter().enumerate().map(|(i, fault)| {
        let without = of(Question::Without(i));
        FaultTrial {
            id: fault.id,
            what: fault_text::describe(fault),
            did_bite: !capsule.result.did_not_bite.contains(&fault.id),
            without,
            need: Need::of(with_all, without, ENOUGH.min(order.tails)),
        }
    });
    let faults = faults.collect();
    let curve = points.into_iter().enumerate().map(|(i, (at_ns, after))| CurvePoint {
        at_ms: ms(at_ns),
        after,
        runs: of(Question::From(i)),
    });
    let curve = Curve::new(order.tails, curve.collect());
    let without_any = of(Question::WithoutAny);
    Ok(Answers { without_any, faults, curve, with_all, runs, complete: runs == total })
}

fn variant(plan: &Plan, at: &[u64], question: Question, round: u64) -> (Plan, Option<Tail>) {
    match question {
        Question::AsItIs => (bench::tail(plan, round), None),
        Question::WithoutAny => {
            let mut plan = bench::tail(plan, round);
            plan.faults.clear();
            (plan, None)
        }
        Question::Without(i) => {
            let mut plan = bench::tail(plan, round);
            plan.faults.remove(i);
            (plan, None)
        }
        Question::From(i) => {
            let ids = [i as u64, round];
            let schedule = seed::draw(plan.seeds.schedule, "curve", &ids).u64();
            let world = round.is_multiple_of(2).then(|| seed::draw(plan.seeds.world, "curve", &ids).u64());
            (plan.clone(), Some(Tail { at_ns: at[i], schedule, world }))
        }
    }
}

/// Instants from which the end is drawn anew: the start, after each fault that bit, after the healing, at the violation.
fn points(capsule: &Capsule, violated_ms: Option<f64>) -> Vec<(u64, String)> {
    let history = &capsule.history;
    let violated = violated_ms.map_or(u64::MAX, |ms| (ms * 1e6) as u64);
    // One past the instant: what happens at it has happened.
    let mut all: Vec<(u64, String)> =
        history.faults.iter().map(|f| (f.at_ns + 1, format!("{} {}", f.fault, f.target))).collect();
    if let Some(healed) = history.facts.healed_ns {
        all.push((healed + 1, "all faults were healed".into()));
    }
    if let Some(at) = violated_ms {
        all.push(((at * 1e6) as u64 + 1, "the violation showed".into()));
    }
    all.sort();
    all.retain(|(at, _)| *at <= violated.saturating_add(1_000_000));
    let mut seen = BTreeSet::new();
    all.retain(|(at, _)| seen.insert(at / 1_000));
    let surplus = all.len().saturating_sub(MAX_POINTS - 1);
    all.drain(..surplus);
    all.insert(0, (0, "the start".into()));
    all
}

/// The capsule of a task that has none yet: the task is run once.
///
/// # Errors
/// A sentence: interrupted, or the run left nothing to look at.
pub fn capsule(task: &Task, path: &Path, options: &Options, interrupt: &Interrupt) -> Result<Capsule, String> {
    let capsules = Capsules::Always(path.to_owned());
    let options = Options { jobs: 1, repeat_every: 0, repeat_failures: false, capsules, ..options.clone() };
    // What an earlier program left there is not what this run is about.
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_file(Found::path(path));
    let mut note = None;
    supervisor::run(std::iter::once(task.clone()), &options, interrupt, |finished| {
        note = finished.report.note;
        true
    })
    .map_err(|e| format!("failed to run the {e}"))?;
    if !path.is_file() {
        let why = if interrupt.is_set() { Some("interrupted".into()) } else { note };
        return Err(format!("the run left nothing to look at: {}", why.as_deref().unwrap_or("no reason given")));
    }
    Capsule::read(path)
}

/// Where the capsule of a single run goes.
pub fn capsule_path(task: &Task) -> PathBuf {
    let name = match &task.source {
        Source::Plan(path) => format!("{}.capsule", crate::store::plan_name(path)),
        _ => crate::store::capsule_name(task),
    };
    PathBuf::from(".streamproof/capsules").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capsule::tests::capsule;
    use crate::runner::{self, RunOptions};

    #[test]
    fn the_curve_looks_at_each_fault_up_to_the_violation() {
        let capsule = capsule();
        let faults = &capsule.history.faults;
        let all = points(&capsule, None);
        assert_eq!(all[0], (0, "the start".into()));
        assert_eq!(all.len(), 1 + faults.len() + 1, "{all:?}");
        assert!(all.is_sorted());
        let first = ms(faults[0].at_ns);
        let until_first = points(&capsule, Some(first));
        assert!(until_first.len() >= 2 && until_first.len() < all.len(), "{until_first:?}");
    }

    #[test]
    fn each_round_is_another_run_and_the_first_is_the_plan_itself() {
        let plan = scenarios::generate("canary_page_cache", 1).unwrap();
        assert_eq!(variant(&plan, &[], Question::AsItIs, 0), (plan.clone(), None));
        let (without, _) = variant(&plan, &[], Question::Without(1), 0);
        assert_eq!((without.faults.len(), &without.faults[0]), (plan.faults.len() - 1, &plan.faults[0]));
        let mut seen = BTreeSet::new();
        for round in 0..4 {
            let (same, tail) = variant(&plan, &[0, 7], Question::From(1), round);
            let tail = tail.unwrap();
            assert!(same == plan && tail.at_ns == 7 && seen.insert(tail.schedule));
            assert_eq!(tail.world.is_some(), round % 2 == 0);
        }
    }

    #[test]
    fn a_tail_leaves_what_was_before_it_as_it_was() {
        let plan = scenarios::generate("smoke", 2).unwrap();
        let run = |tail: Option<Tail>| {
            let options = RunOptions { keep_trace: true, tail: tail.map(Into::into), ..RunOptions::default() };
            runner::run(&plan, &options).trace
        };
        let at_ns = 3_000_000_000;
        let whole = run(None);
        for world in [None, Some(5)] {
            let other = run(Some(Tail { at_ns, schedule: 9, world }));
            let same = whole.iter().zip(&other).take_while(|(a, b)| a == b).count();
            let at = |line: &str| -> f64 { line.split('s').next().unwrap().parse().unwrap() };
            // What is drawn next may come a little later.
            assert!(at(&whole[same]) >= 3.0 && same > 100 && same < whole.len() - 100, "{same}: {}", whole[same]);
        }
    }
}
