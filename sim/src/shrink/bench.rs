//! Runs candidates: in the supervisor's worker processes, several at once, never one twice.
//!
//! Guarantees: [`Bench::first`] gives the answer that trying one candidate after another would give, however many run at
//! once; each answer is in the journal before it is used. Runs that an accepted cut made pointless end in their own time
//! while the next ones are under way.
//!
//! ```text
//! search --first--> queue --Feed--> supervisor::drive --> worker processes
//!    ^--- known (journal) <--finished--'
//! ```
//!
//! **Tails.** Timing decides what fails, and leaving one record out moves everything after it: a candidate may pass by
//! luck. It is therefore run again with other seeds, its tails. Of the three seeds, `workload` made what the plan now
//! holds and changes nothing. `schedule` orders tasks that are ready at one instant, which moves times by nanoseconds.
//! `world` moves latencies, resolves roles and decides what a power loss tears. An odd tail changes the schedule alone, an
//! even one the world too: the first keeps the story as it was told, the second tells it again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reports::Signature;
use scenarios::Plan;

use super::journal::{Journal, PlanHash, Trial};
use super::search::{Failing, Judge};
use crate::interrupt::Interrupt;
use crate::supervisor::{self, Finished, Options};
use crate::task::{Source, Task};

/// How often a wait looks at the interrupt and the clock.
const TICK: Duration = Duration::from_millis(50);

/// The plan's `n`th tail; the plan itself for 0.
pub fn tail(plan: &Plan, n: u64) -> Plan {
    let mut plan = plan.clone();
    if n > 0 {
        plan.seeds.schedule = seed::draw(plan.seeds.schedule, "tail", &[n]).u64();
        if n.is_multiple_of(2) {
            plan.seeds.world = seed::draw(plan.seeds.world, "tail", &[n]).u64();
        }
    }
    plan
}

/// What the search's thread and the supervisor's share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<(u64, Plan)>,
    /// Asked for, and not answered yet.
    open: BTreeMap<u64, PlanHash>,
    journal: Journal,
    runs: u64,
    closed: bool,
    error: Option<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, TICK).map_or_else(|e| e.into_inner().0, |(state, _)| state)
    }
}

/// The supervisor's tasks: ends when the bench is closed.
struct Feed<'a> {
    shared: &'a Shared,
    interrupt: &'a Interrupt,
}

impl Iterator for Feed<'_> {
    type Item = Task;

    fn next(&mut self) -> Option<Task> {
        let mut state = self.shared.lock();
        loop {
            if state.closed || self.interrupt.is_set() {
                return None;
            }
            if let Some((id, plan)) = state.queue.pop_front() {
                let seed = plan.seed;
                return Some(Task {
                    source: Source::Inline { id, plan: Box::new(plan), tail: None },
                    seed,
                    faults: None,
                });
            }
            state = self.shared.wait(state);
        }
    }
}

/// A judge that runs candidates for real.
pub struct Bench<'a> {
    shared: &'a Shared,
    interrupt: &'a Interrupt,
    /// Runs that are asked for ahead of the one that is waited for.
    ahead: usize,
    wanted: Option<Signature>,
    until: Option<Instant>,
    next_id: u64,
}

/// Opens a bench, hands it to `work` and closes it; what `work` made of it, and how many runs it took.
///
/// # Errors
/// What keeps the workers from running, in a sentence.
pub fn with<T>(
    options: &Options,
    interrupt: &Interrupt,
    journal: Journal,
    work: impl FnOnce(&mut Bench<'_>) -> T,
) -> Result<(T, u64), String> {
    let shared = Shared {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            open: BTreeMap::new(),
            journal,
            runs: 0,
            closed: false,
            error: None,
        }),
        changed: Condvar::new(),
    };
    let out = std::thread::scope(|scope| {
        let shared = &shared;
        scope.spawn(move || {
            let feed = Feed { shared, interrupt };
            supervisor::drive(feed, options, interrupt, |event| finish(shared, event));
            shared.lock().closed = true;
            shared.changed.notify_all();
        });
        // Also when `work` panics: the supervisor's thread would wait for ever.
        let _close = Close(shared);
        let ahead = 2 * options.jobs.max(1);
        let mut bench = Bench { shared, interrupt, ahead, wanted: None, until: None, next_id: 0 };
        work(&mut bench)
    });
    let state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.error.map_or(Ok((out, state.runs)), Err)
}

struct Close<'a>(&'a Shared);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.queue.clear();
        self.0.changed.notify_all();
    }
}

fn finish(shared: &Shared, event: std::io::Result<Finished>) -> bool {
    let mut state = shared.lock();
    match event {
        Err(e) => {
            state.error = Some(format!("failed to run the {e}"));
            state.closed = true;
        }
        Ok(Finished { task: Task { source: Source::Inline { id, .. }, .. }, report, .. }) => {
            if let Some(hash) = state.open.remove(&id) {
                state.runs += 1;
                if let Err(e) = state.journal.add(hash, Trial::of(&report)) {
                    state.error = Some(format!("failed to write the journal: {e}"));
                }
            }
        }
        Ok(_) => {}
    }
    shared.changed.notify_all();
    !state.closed
}

impl Bench<'_> {
    /// The signature with which a candidate must fail.
    pub fn want(&mut self, signature: Signature) {
        self.wanted = Some(signature);
    }

    /// When to stop; `None` is never.
    pub fn stop_at(&mut self, until: Option<Instant>) {
        self.until = until;
    }

    fn is_wanted(&self, trial: &Trial) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| trial.signatures.contains(wanted))
    }

    /// How many of `n` schedules of the plan, its own among them, fail as wanted; fewer than `n` if stopped.
    pub fn schedules(&mut self, plan: &Plan, n: u64) -> (u64, u64) {
        let plans: Vec<Plan> = (0..n).map(|n| crate::runner::with_tail(plan, n)).collect();
        let hashes: Vec<PlanHash> = plans.iter().map(PlanHash::of).collect();
        hashes.iter().zip(&plans).for_each(|(hash, plan)| self.request(*hash, plan));
        let trials: Vec<Trial> = hashes.into_iter().map_while(|hash| self.answer(hash)).collect();
        (trials.iter().filter(|t| self.is_wanted(t)).count() as u64, trials.len() as u64)
    }

    fn is_known(&self, hash: PlanHash) -> bool {
        self.shared.lock().journal.get(hash).is_some()
    }

    /// Queues the plan, unless it is known, queued or under way.
    fn request(&mut self, hash: PlanHash, plan: &Plan) {
        let mut state = self.shared.lock();
        if state.journal.get(hash).is_none() && !state.open.values().any(|open| *open == hash) {
            let id = self.next_id;
            self.next_id += 1;
            state.open.insert(id, hash);
            state.queue.push_back((id, plan.clone()));
            self.shared.changed.notify_all();
        }
    }

    fn answer(&mut self, hash: PlanHash) -> Option<Trial> {
        let mut state = self.shared.lock();
        loop {
            if let Some(trial) = state.journal.get(hash) {
                return Some(trial.clone());
            }
            if state.closed || self.over() {
                return None;
            }
            state = self.shared.wait(state);
        }
    }

    /// Forgets what is asked for and not under way yet.
    fn forget(&mut self) {
        let mut state = self.shared.lock();
        let queued: BTreeSet<u64> = state.queue.drain(..).map(|(id, _)| id).collect();
        state.open.retain(|id, _| !queued.contains(id));
    }

    fn over(&self) -> bool {
        self.interrupt.is_set() || self.until.is_some_and(|until| Instant::now() >= until)
    }
}

impl Judge for Bench<'_> {
    fn first(&mut self, count: usize, tails: u64, make: &dyn Fn(usize) -> Option<Plan>) -> Option<(usize, Failing)> {
        let trials = (0..=tails).flat_map(|n| (0..count).map(move |i| (i, n)));
        let mut trials = trials.filter_map(|(i, n)| Some((i, tail(&make(i)?, n))));
        let mut ahead: VecDeque<(usize, Plan, PlanHash)> = VecDeque::new();
        loop {
            // What is known costs no run, and must not set any off: only a wait makes it worth to go ahead.
            while ahead.len() < self.ahead
                && ahead.front().is_none_or(|(_, _, hash)| !self.is_known(*hash))
                && let Some((i, plan)) = trials.next()
            {
                let hash = PlanHash::of(&plan);
                self.request(hash, &plan);
                ahead.push_back((i, plan, hash));
            }
            let found = ahead.pop_front().and_then(|(i, plan, hash)| Some((i, plan, self.answer(hash)?)));
            let Some((i, plan, trial)) = found else {
                // None is left, or no answer will come.
                self.forget();
                return None;
            };
            if self.is_wanted(&trial) {
                self.forget();
                return Some((i, Failing { plan, simulated_ms: trial.simulated_ms }));
            }
        }
    }

    fn stopped(&self) -> bool {
        self.over() || self.shared.lock().closed
    }
}
