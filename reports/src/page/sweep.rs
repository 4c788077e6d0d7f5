//! A sweep as the page shows it: figures by scenario, failures by signature, faults by family and by the job's phase, rare
//! states, speed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::job_phase::JobPhase;
use crate::seed_report::{FaultCount, SeedReport};
use crate::signature::Signature;
use crate::summary::{Summary, Totals};

/// Seeds that are named of one signature.
const MAX_SEEDS: usize = 12;
/// Bars of the histogram of wall times.
const BINS: usize = 40;

#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    pub summary: Summary,
    /// Runs that were put together: (id, command).
    pub runs: Vec<(String, String)>,
    pub signatures: Vec<Failing>,
    /// Scenario, then family: how many were planned and how many bit.
    pub faults: BTreeMap<String, BTreeMap<String, FaultCount>>,
    /// The columns of `job_phases`, in order.
    pub job_phase_names: [JobPhase; 5],
    /// Family, then what the job was busy with: how many faults struck then and how many of them bit.
    pub job_phases: BTreeMap<String, BTreeMap<JobPhase, FaultCount>>,
    /// Kind of fault, then tenth of the run's simulated time: in how many failing seeds it struck there.
    pub struck: BTreeMap<String, [u64; 10]>,
    /// Rare state, then in how many seeds it was reached.
    pub marks: BTreeMap<String, u64>,
    /// Wall time of a seed: width of a bin in ms, and seeds in each; the last bin holds the rest.
    pub bin_ms: u64,
    pub bins: Vec<u64>,
    /// The slowest seeds: (scenario, seed, ms).
    pub slowest: Vec<(String, u64, u64)>,
    pub inconclusive: Vec<(String, u64, String)>,
}

/// Failures that look alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failing {
    pub signature: Signature,
    pub count: u64,
    /// (scenario, seed) of the first ones.
    pub seeds: Vec<(String, u64)>,
    /// Against the last run that was given: `new`, `ongoing` or `resolved`; empty without one.
    pub trend: &'static str,
}

/// Gathers seed reports.
#[derive(Debug, Default)]
pub struct SweepBuilder {
    totals: Totals,
    signatures: BTreeMap<Signature, Vec<(String, u64)>>,
    faults: BTreeMap<String, BTreeMap<String, FaultCount>>,
    job_phases: BTreeMap<String, BTreeMap<JobPhase, FaultCount>>,
    struck: BTreeMap<String, [u64; 10]>,
    marks: BTreeMap<String, u64>,
    walls: Vec<(u64, String, u64)>,
    inconclusive: Vec<(String, u64, String)>,
    before: Option<Vec<Signature>>,
}

impl SweepBuilder {
    pub fn add(&mut self, report: &SeedReport) {
        self.totals.add(report);
        let id = || (report.scenario.clone(), report.seed);
        if report.verdict.is_failure() {
            for signature in report.signatures() {
                self.signatures.entry(signature).or_default().push(id());
            }
            for step in &report.fault_steps {
                let kind = step.what.split(' ').next().unwrap_or_default().to_owned();
                let tenth = (step.at_ms * 10 / report.stats.simulated_ms.max(1)).min(9) as usize;
                self.struck.entry(kind).or_default()[tenth] += 1;
            }
        }
        if report.verdict == crate::Verdict::Inconclusive {
            self.inconclusive.push((report.scenario.clone(), report.seed, report.note.clone().unwrap_or_default()));
        }
        let families = self.faults.entry(report.scenario.clone()).or_default();
        for (family, count) in &report.stats.faults {
            let sum = families.entry(family.clone()).or_default();
            sum.enabled += count.enabled;
            sum.bit += count.bit;
        }
        for (family, phases) in &report.stats.faults_by_job_phase {
            let sums = self.job_phases.entry(family.clone()).or_default();
            for (phase, count) in phases {
                let sum = sums.entry(*phase).or_default();
                sum.enabled += count.enabled;
                sum.bit += count.bit;
            }
        }
        for mark in &report.stats.reached {
            *self.marks.entry(mark.clone()).or_default() += 1;
        }
        self.walls.push((report.wall_ms, report.scenario.clone(), report.seed));
    }

    /// The failures of an earlier run, to tell new ones from old ones.
    pub fn compare(&mut self, before: &[SeedReport]) {
        let all = self.before.get_or_insert_with(Vec::new);
        all.extend(before.iter().filter(|r| r.verdict.is_failure()).flat_map(SeedReport::signatures));
        all.sort();
        all.dedup();
    }

    pub fn canaries(&mut self, canaries: BTreeMap<String, bool>) {
        for (name, caught) in canaries {
            *self.totals.canaries.entry(name).or_default() |= caught;
        }
    }

    /// `wall_ms` is of all runs together.
    pub fn sweep(mut self, runs: Vec<(String, String)>, wall_ms: u64) -> Sweep {
        let before = self.before.take();
        let trend = |s: &Signature| match &before {
            None => "",
            Some(before) if before.contains(s) => "ongoing",
            Some(_) => "new",
        };
        let mut signatures: Vec<Failing> = self
            .signatures
            .iter()
            .map(|(signature, seeds)| Failing {
                signature: signature.clone(),
                count: seeds.len() as u64,
                seeds: seeds.iter().take(MAX_SEEDS).cloned().collect(),
                trend: trend(signature),
            })
            .collect();
        signatures.sort_by_key(|f| std::cmp::Reverse(f.count));
        let gone = before.iter().flatten().filter(|s| !self.signatures.contains_key(s));
        signatures.extend(gone.map(|signature| Failing {
            signature: signature.clone(),
            count: 0,
            seeds: Vec::new(),
            trend: "resolved",
        }));
        self.walls.sort_by(|a, b| b.cmp(a));
        let slowest = self.walls.iter().take(10).map(|(ms, scenario, seed)| (scenario.clone(), *seed, *ms)).collect();
        // By the 99th hundredth: one slow seed must not flatten the rest.
        let high = self.walls.get(self.walls.len() / 100).map_or(1, |w| w.0).max(1);
        let bin_ms = high.div_ceil(BINS as u64).max(1);
        let mut bins = vec![0; BINS];
        for (ms, ..) in &self.walls {
            bins[((ms / bin_ms) as usize).min(BINS - 1)] += 1;
        }
        Sweep {
            summary: self.totals.summary(wall_ms, None, 0),
            runs,
            signatures,
            faults: self.faults,
            job_phase_names: JobPhase::ALL,
            job_phases: self.job_phases,
            struck: self.struck,
            marks: self.marks,
            bin_ms,
            bins,
            slowest,
            inconclusive: self.inconclusive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed_report::{Failure, FaultStep, Verdict, Witness};

    fn failing(seed: u64, message: &str) -> SeedReport {
        let mut report = SeedReport::unfinished("swarm", seed, Verdict::Unsafe, "");
        let (property, message) = ("acked-durable".to_owned(), message.to_owned());
        report.failures.push(Failure { property, message, witness: Witness::default() });
        report.stats.simulated_ms = 1_000;
        report.fault_steps.push(FaultStep { at_ms: 950, what: "power-loss broker-0: 3 writes lost".into() });
        report.wall_ms = seed;
        report
    }

    #[test]
    fn faults_are_summed_by_family_and_phase_of_the_job() {
        let mut builder = SweepBuilder::default();
        for (seed, phase) in [JobPhase::Committing, JobPhase::Recovering, JobPhase::Committing].into_iter().enumerate()
        {
            let mut report = SeedReport::unfinished("swarm", seed as u64, Verdict::Pass, "");
            let count = FaultCount { enabled: 2, bit: 1 };
            report.stats.faults_by_job_phase.insert("net".into(), BTreeMap::from([(phase, count)]));
            // As it crosses the pipe.
            builder.add(&serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap());
        }
        let sweep = builder.sweep(Vec::new(), 1);
        let expected = [
            (JobPhase::Committing, FaultCount { enabled: 4, bit: 2 }),
            (JobPhase::Recovering, FaultCount { enabled: 2, bit: 1 }),
        ];
        assert_eq!(sweep.job_phases, BTreeMap::from([("net".to_owned(), BTreeMap::from(expected))]));
    }

    #[test]
    fn failures_that_look_alike_are_one_row() {
        let mut builder = SweepBuilder::default();
        for seed in 0..20 {
            builder.add(&failing(seed, &format!("lost at {seed}")));
        }
        builder.add(&failing(99, "another"));
        builder.compare(&[failing(1, "lost at 7"), failing(2, "gone now")]);
        let sweep = builder.sweep(vec![("a".into(), "run swarm".into())], 1_000);
        let rows: Vec<_> = sweep.signatures.iter().map(|f| (f.signature.as_str(), f.count, f.trend)).collect();
        assert_eq!(
            rows,
            [
                ("acked-durable: lost at #", 20, "ongoing"),
                ("acked-durable: another", 1, "new"),
                ("acked-durable: gone now", 0, "resolved")
            ]
        );
        assert_eq!(sweep.signatures[0].seeds.len(), MAX_SEEDS);
        assert_eq!(sweep.struck["power-loss"][9], 21);
        assert_eq!(sweep.slowest[0], ("swarm".to_owned(), 99, 99));
        assert_eq!(sweep.bins.iter().sum::<u64>(), 21);
    }
}
