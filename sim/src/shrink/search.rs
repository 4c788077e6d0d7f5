//! The order in which cuts are tried, and what keeps one.
//!
//! Guarantees: [`Search::best`] always fails as asked; given equal answers of the [`Judge`] the cuts are the same, however
//! many candidates it runs at once. What a run says, where it runs and when to stop is the judge's.
//!
//! ```text
//! for tails in 0, 2, 8:                       cheap answers first: most cuts need no second try
//!     until a whole round cuts nothing:
//!         families, faults                    each fault that goes makes all later runs calmer
//!         time: end earlier                   drops records and faults after it, and simulated time
//!         clients, batches, keys, records
//!         partitions, workers, knobs
//!         time: begin later, go faster; each fault shorter, earlier, simpler
//! ```

use scenarios::Plan;

use super::cuts;
use super::ddmin::ddmin;

/// A plan that is known to fail as asked.
#[derive(Clone, Debug)]
pub struct Failing {
    pub plan: Plan,
    /// Of its run.
    pub simulated_ms: u64,
}

/// Says which candidates still fail in the way that is asked for.
pub trait Judge {
    /// The first of `count` candidates that still fails, and the plan that did: the candidate, or its tail. `make` gives
    /// candidate `i`, or nothing if there is none. All candidates are tried as they are before any is tried with its
    /// first tail, and so on up to `tails`.
    fn first(&mut self, count: usize, tails: u64, make: &dyn Fn(usize) -> Option<Plan>) -> Option<(usize, Failing)>;

    /// Nothing more is to be tried: the budget is used up, or the user asked.
    fn stopped(&self) -> bool;
}

/// Cuts of more items than this are counted, not named.
const SHOWN: usize = 2;
/// Tails of each round's candidates.
const EFFORTS: [u64; 3] = [0, 2, 8];

/// A search under way.
pub struct Search<'a> {
    best: Failing,
    tails: u64,
    judge: &'a mut dyn Judge,
    on_cut: &'a mut dyn FnMut(&Failing, &str),
    cuts: u64,
}

impl<'a> Search<'a> {
    /// `on_cut` hears of each cut that is kept.
    pub fn new(first: Failing, judge: &'a mut dyn Judge, on_cut: &'a mut dyn FnMut(&Failing, &str)) -> Self {
        Self { best: first, tails: 0, judge, on_cut, cuts: 0 }
    }

    /// Everything, to the end. The smallest plan, and how many cuts were kept.
    pub fn run(mut self) -> (Failing, u64) {
        for tails in EFFORTS {
            self.tails = tails;
            loop {
                let before = self.cuts;
                self.round();
                if self.cuts == before || self.stopped() {
                    break;
                }
            }
        }
        (self.best, self.cuts)
    }

    /// Faults alone, once: the quick pass after a failing run.
    pub fn run_faults(mut self) -> (Failing, u64) {
        cuts::faults::families(&mut self);
        cuts::faults::each(&mut self);
        (self.best, self.cuts)
    }

    fn round(&mut self) {
        cuts::faults::families(self);
        cuts::faults::each(self);
        cuts::time::end(self);
        cuts::records::clients(self);
        cuts::records::batches(self);
        cuts::records::keys(self);
        cuts::records::each(self);
        cuts::shape::partitions(self);
        cuts::shape::brokers(self);
        cuts::shape::workers(self);
        cuts::knobs::simple(self);
        cuts::time::begin(self);
        cuts::time::faster(self);
        cuts::faults::simpler(self);
    }

    /// The smallest plan so far.
    pub fn best(&self) -> &Plan {
        &self.best.plan
    }

    pub fn stopped(&self) -> bool {
        self.judge.stopped()
    }

    /// Leaves out as many of `items` as it can. `keep` makes the plan in which only the given items are left; `what` is
    /// one of them in a word, `name` which one.
    pub fn leave_out<T: Clone + PartialEq>(
        &mut self,
        what: &str,
        items: Vec<T>,
        name: impl Fn(&T) -> String,
        keep: impl Fn(&Plan, &[T]) -> Plan,
    ) {
        let mut left = items.clone();
        ddmin(items, &mut |count, make| {
            if self.judge.stopped() {
                return None;
            }
            let best = &self.best.plan;
            let candidate = |i: usize| valid(best, keep(best, &make(i)));
            let (i, failing) = self.judge.first(count, self.tails, &candidate)?;
            let kept = make(i);
            let gone = left.len() - kept.len();
            let cut = match gone {
                1..=SHOWN => {
                    let mut still = kept.iter().peekable();
                    // Both lists are in one order: what is not next among the kept is gone.
                    let names = left.iter().filter(|item| still.next_if(|next| next == item).is_none()).map(&name);
                    names.collect::<Vec<_>>().join(", ")
                }
                _ => format!("{gone} {}", plural(what)),
            };
            left = kept;
            self.accept(failing, &cut);
            Some(i)
        });
    }

    /// Takes the first of the alternatives that still fails; whether any did. They are made when they are tried.
    pub fn replace<T>(
        &mut self,
        alternatives: &[T],
        what: impl Fn(&T) -> String,
        make: impl Fn(&Plan, &T) -> Plan,
    ) -> bool {
        if self.judge.stopped() {
            return false;
        }
        let best = &self.best.plan;
        let candidate = |i: usize| valid(best, make(best, &alternatives[i]));
        let Some((i, failing)) = self.judge.first(alternatives.len(), self.tails, &candidate) else { return false };
        self.accept(failing, &what(&alternatives[i]));
        true
    }

    fn accept(&mut self, failing: Failing, what: &str) {
        self.best = failing;
        self.cuts += 1;
        (self.on_cut)(&self.best, what);
    }
}

/// A candidate worth a run: it differs and can be carried out.
fn valid(best: &Plan, candidate: Plan) -> Option<Plan> {
    (candidate != *best && candidate.validate().is_ok()).then_some(candidate)
}

fn plural(what: &str) -> String {
    match what.strip_suffix('y') {
        Some(stem) if what.ends_with("ily") => format!("{stem}ies"),
        _ if what.ends_with("ch") => format!("{what}es"),
        _ => format!("{what}s"),
    }
}

#[cfg(test)]
mod tests {
    use scenarios::plan::{Family, Trigger};

    use super::*;

    /// A judge that looks at the plan instead of running it.
    struct Looks<F> {
        fails: F,
        asked: usize,
        /// Questions after which it stops, as Ctrl-C or the budget would.
        patience: usize,
    }

    impl<F: Fn(&Plan) -> bool> Judge for Looks<F> {
        fn first(
            &mut self,
            count: usize,
            tails: u64,
            make: &dyn Fn(usize) -> Option<Plan>,
        ) -> Option<(usize, Failing)> {
            for n in 0..=tails {
                for i in 0..count {
                    let Some(plan) = make(i) else { continue };
                    let plan = super::super::bench::tail(&plan, n);
                    self.asked += 1;
                    if self.stopped() {
                        return None;
                    }
                    assert_eq!(plan.validate(), Ok(()));
                    if (self.fails)(&plan) {
                        return Some((i, Failing { plan, simulated_ms: 1 }));
                    }
                }
            }
            None
        }

        fn stopped(&self) -> bool {
            self.asked > self.patience
        }
    }

    fn minimise(plan: &Plan, patience: usize, fails: impl Fn(&Plan) -> bool) -> (Plan, Vec<String>) {
        assert!(fails(plan), "the first plan fails");
        let mut judge = Looks { fails, asked: 0, patience };
        let mut cuts = Vec::new();
        let mut on_cut = |_: &Failing, what: &str| cuts.push(what.to_owned());
        let first = Failing { plan: plan.clone(), simulated_ms: 1 };
        let (last, kept) = Search::new(first, &mut judge, &mut on_cut).run();
        assert_eq!(kept as usize, cuts.len());
        assert!((judge.fails)(&last.plan), "what is left fails");
        (last.plan, cuts)
    }

    fn record_of(plan: &Plan, nth: usize) -> (u32, u64) {
        plan.records().nth(nth).map(|(client, r)| (client, r.n)).expect("that many records")
    }

    #[test]
    fn what_the_failure_needs_is_left_and_nothing_else() {
        let plan = scenarios::generate("swarm", 1).unwrap();
        let records = [record_of(&plan, 40), record_of(&plan, 700)];
        let fault = plan.faults[plan.faults.len() / 2].clone();
        let fails = |p: &Plan| {
            p.faults.iter().any(|f| f.id == fault.id)
                && records.iter().all(|id| p.records().any(|(client, r)| (client, r.n) == *id))
        };
        let (small, cuts) = minimise(&plan, usize::MAX, fails);
        assert_eq!(small.faults.len(), 1, "{cuts:#?}");
        assert_eq!(small.records().count(), 2, "{cuts:#?}");
        assert_eq!((small.topology.workers, small.topics[0].partitions), (2, 1), "{cuts:#?}");
        assert!(small.budgets.safety_ms < plan.budgets.safety_ms / 8, "{} ms", small.budgets.safety_ms);
        assert!(small.clients.len() <= 2 && small.twists.is_empty());
        // What says when a run has failed is as it was.
        let limits = |p: &Plan| (p.budgets.liveness_ms, p.budgets.quiet_ms, p.budgets.drain_ms);
        assert_eq!(limits(&small), limits(&plan));
        assert_eq!((&small.job, small.seed), (&plan.job, plan.seed));
    }

    #[test]
    fn a_failure_that_one_tail_in_three_shows_is_shrunk_with_tails() {
        let plan = scenarios::generate("crash_restart", 2).unwrap();
        let first = plan.seeds;
        // Each cut needs another schedule or world, as if it had moved the race.
        let luck = |p: &Plan| {
            let n = p.records().count() as u64 + p.faults.len() as u64;
            seed::draw(p.seeds.schedule ^ p.seeds.world, "luck", &[n]).chance(1, 3)
        };
        let fails = |p: &Plan| !p.faults.is_empty() && (p.seeds == first && p.records().count() > 500 || luck(p));
        let (small, cuts) = minimise(&plan, usize::MAX, fails);
        let left = (small.faults.len(), small.records().count());
        assert!(left.0 <= 3 && left.1 <= 10, "{left:?} after {cuts:#?}");
    }

    #[test]
    fn when_the_judge_stops_the_best_so_far_still_fails() {
        let plan = scenarios::generate("swarm", 1).unwrap();
        let needed = record_of(&plan, 500);
        let fails = |p: &Plan| p.records().any(|(client, r)| (client, r.n) == needed);
        let sizes = [5, 20, 80, usize::MAX].map(|patience| minimise(&plan, patience, fails).0.records().count());
        assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes[0] > sizes[3] && sizes[3] == 1, "{sizes:?}");
    }

    #[test]
    fn a_fault_becomes_short_early_and_soon_reached() {
        let plan = (0..)
            .map(|seed| scenarios::generate("swarm", seed).unwrap())
            .find(|p| p.faults.iter().any(|f| matches!(&f.trigger, Trigger::CrashPoint(c) if c.nth > 4)))
            .unwrap();
        let is_point = |f: &&scenarios::plan::Fault| f.family == Family::CrashPoints;
        let (small, _) = minimise(&plan, usize::MAX, |p| p.faults.iter().any(|f| is_point(&f)));
        let [fault] = &small.faults[..] else { panic!("{:?}", small.faults) };
        let Trigger::CrashPoint(point) = &fault.trigger else { panic!("{fault:?}") };
        assert_eq!((point.nth, point.after_ms, fault.action.duration_ms()), (1, 0, 100), "{fault:?}");
    }

    #[test]
    fn cuts_are_counted_or_named_in_plain_words() {
        assert_eq!(
            ["fault", "batch", "fault family", "key"].map(plural),
            ["faults", "batches", "fault families", "keys"]
        );
    }
}
