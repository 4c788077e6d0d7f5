//! A small history to tell stories of.

use history::{
    Decision, DecisionEntry, Facts, Flush, History, LogEvent, Observation, Observed, Observer, OpKind, OpResult,
    Outcome,
};
use models::JobSpec;
use scenarios::Plan;

use super::told::{Story, Weight};
use super::{Case, Clue, Names};
use crate::seed_report::{SeedReport, Verdict};

/// Of a run of the smoke job that ended then; nothing has happened in it.
pub(crate) fn history(ended_ns: u64) -> History {
    let job = scenarios::generate("smoke", 1).expect("a scenario").job.expect("it has a job").toml;
    History::new(Facts {
        job: Some(JobSpec::parse(&job, "job.toml").expect("a valid job")),
        flush: Flush::Fsync,
        disks_lost: false,
        healed_ns: None,
        ended_ns,
        bound_ns: 0,
        calm: Vec::new(),
        drained: false,
        source_ends: Vec::new(),
        tasks: vec!["source-0".into(), "window-0".into()],
        copies: Vec::new(),
        groups: Vec::new(),
        compacted: Vec::new(),
        fetch_timeout_ns: 0,
        repeats_after_ns: None,
        clock_drift_ppm: 0,
    })
}

/// What is told of `events-0`, on brokers 0 to 2.
pub(super) struct Scene {
    plan: Plan,
    pub history: History,
    pub clue: Clue,
}

impl Scene {
    pub fn new() -> Self {
        let plan = scenarios::generate("leader_failover", 1).expect("a scenario");
        let history = history(1_000_000);
        let clue = Clue { partition: Some(("events".into(), 0)), ..Clue::default() };
        Self { plan, history, clue }
    }

    /// Each thing that happens is a microsecond after the one before.
    fn now(&self) -> u64 {
        let history = &self.history;
        let all = history.observations.len() + history.decisions.len() + 2 * history.ops.len();
        1_000 * (all as u64 + 1)
    }

    pub fn see(&mut self, broker: u32, what: Observed) {
        let name = format!("broker-{broker}");
        let node =
            Names::of(&self.plan).all().iter().position(|n| *n == name).expect("a broker of the plan") as u32 + 1;
        let (at_ns, observer) = (self.now(), Observer::Node { node, incarnation: 1 });
        self.history.observations.push(Observation { at_ns, observer, what });
    }

    pub fn hear(&mut self, client: u32, what: Observed) {
        let (at_ns, observer) = (self.now(), Observer::Client { client });
        self.history.observations.push(Observation { at_ns, observer, what });
    }

    pub fn log(&mut self, broker: u32, event: LogEvent) {
        self.see(broker, Observed::Log { topic: "events".into(), partition: 0, event });
    }

    pub fn leads(&mut self, broker: u32, leader_epoch: i32, end: i64) {
        let (topic, log_end) = ("events".into(), Some(end));
        self.see(broker, Observed::LeaderElected { topic, partition: 0, leader_epoch, broker, log_end });
    }

    pub fn in_sync(&mut self, broker: u32, isr: &[u32]) {
        let (topic, isr) = ("events".into(), isr.to_vec());
        self.see(broker, Observed::IsrChanged { topic, partition: 0, leader_epoch: 1, partition_epoch: 1, isr });
    }

    pub fn high_watermark(&mut self, broker: u32, offset: i64) {
        self.see(broker, Observed::HighWatermark { topic: "events".into(), partition: 0, leader_epoch: 1, offset });
    }

    pub fn op(&mut self, client: u32, kind: OpKind, result: OpResult) {
        let (n, invoked) = (self.history.ops.len() as u64, self.now());
        let op = self.history.invoke(client, n, invoked, kind);
        self.history.complete(op, invoked + 1_000, result);
    }

    pub fn decide(&mut self, task: &str, decision: Decision) {
        let (at_ns, seq) = (Some(self.now()), self.history.decisions.len() as u64);
        self.history.decisions.push(DecisionEntry { generation: 1, task: task.into(), seq, decision, at_ns });
    }

    /// `NODE: ACTION` of each step that is at odds with another.
    pub fn odd(&self, tell: impl Fn(&Case<'_>, &Names, &Clue, &mut Story)) -> Vec<String> {
        self.of(tell, |weight| weight == Weight::Odd)
    }

    pub fn all(&self, tell: impl Fn(&Case<'_>, &Names, &Clue, &mut Story)) -> Vec<String> {
        self.of(tell, |_| true)
    }

    /// Looks at it as an explanation does.
    pub fn case<R>(&self, look: impl FnOnce(&Case<'_>) -> R) -> R {
        let report = SeedReport::unfinished("leader_failover", 1, Verdict::Unsafe, "");
        let (plan, history) = (&self.plan, &self.history);
        look(&Case { plan, history, outcome: &Outcome::Passed, report: &report, notes: &[] })
    }

    fn of(&self, tell: impl Fn(&Case<'_>, &Names, &Clue, &mut Story), is: impl Fn(Weight) -> bool) -> Vec<String> {
        let mut story = Story::default();
        self.case(|case| tell(case, &Names::of(&self.plan), &self.clue, &mut story));
        let told = story.told.into_iter().filter(|t| is(t.weight));
        told.map(|t| format!("{}: {}", t.step.who, t.step.what)).collect()
    }
}
