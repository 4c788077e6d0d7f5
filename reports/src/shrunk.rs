//! What shrinking made of a failing plan: how large it was, how large it is.

use std::collections::BTreeSet;
use std::fmt::Write;

use scenarios::Plan;
use serde::Serialize;

use crate::explain::Runs;
use crate::signature::Signature;

/// How much there is to a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    pub faults: u64,
    pub records: u64,
    pub keys: u64,
    pub partitions: u64,
    pub nodes: u64,
    /// Of its run, not of its budgets.
    pub simulated_ms: u64,
}

impl Size {
    pub fn of(plan: &Plan, simulated_ms: u64) -> Self {
        let keys: BTreeSet<_> = plan.records().map(|(_, r)| r.key.as_ref().and_then(|k| k.bytes())).collect();
        Self {
            faults: plan.faults.len() as u64,
            records: plan.records().count() as u64,
            keys: keys.len() as u64,
            partitions: plan.topics.iter().map(|t| u64::from(t.partitions)).sum(),
            nodes: plan.nodes().len() as u64,
            simulated_ms,
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        write!(
            f,
            "{}, {}, {}, {}, {}, {}",
            part(self.faults, "fault"),
            part(self.records, "record"),
            part(self.keys, "key"),
            part(self.partitions, "partition"),
            part(self.nodes, "node"),
            seconds(self.simulated_ms)
        )
    }
}

/// A finished search.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shrunk {
    pub scenario: String,
    pub seed: u64,
    pub signature: Signature,
    pub before: Size,
    pub after: Size,
    /// Candidates that were run, and cuts that were kept.
    pub runs: u64,
    pub cuts: u64,
    pub wall_ms: u64,
    /// Of how many schedules of the shrunk plan how many fail the same way; not known if the search was stopped.
    pub schedules: Option<Runs>,
    /// Nothing more could be cut; otherwise time was up, or the user stopped it.
    pub complete: bool,
    /// Where the plan is; none if nothing could be cut from the one that was given.
    pub plan: Option<String>,
    /// The command that shows the failure again.
    pub replay: String,
    /// The command to type next.
    pub next: String,
}

impl Shrunk {
    /// For people, several lines.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let w = &mut out;
        let _ = writeln!(w, "shrunk {} seed {}: {}", self.scenario, self.seed, self.signature);
        let _ = writeln!(w, "  {:<10} {:>9} {:>9}", "", "before", "after");
        let (b, a) = (&self.before, &self.after);
        for (what, before, after) in [
            ("faults", b.faults, a.faults),
            ("records", b.records, a.records),
            ("keys", b.keys, a.keys),
            ("partitions", b.partitions, a.partitions),
            ("nodes", b.nodes, a.nodes),
        ] {
            let _ = writeln!(w, "  {what:<10} {before:>9} {after:>9}");
        }
        let _ = writeln!(w, "  {:<10} {:>9} {:>9}", "simulated", seconds(b.simulated_ms), seconds(a.simulated_ms));
        let wall = self.wall_ms as f64 / 1000.0;
        let _ = writeln!(w, "  {} runs, {} cuts kept, {wall:.1} s", self.runs, self.cuts);
        if let Some(schedules) = self.schedules {
            let _ = writeln!(w, "  fails in {schedules} schedules");
        }
        if !self.complete {
            let _ = writeln!(w, "  stopped before its end: the same command goes on from here");
        }
        if let Some(plan) = &self.plan {
            let _ = writeln!(w, "  plan      {plan}");
        }
        let _ = writeln!(w, "  replay    {}", self.replay);
        let _ = writeln!(w, "  next      {}", self.next);
        out
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_finished_search() {
        let size =
            |faults, records, simulated_ms| Size { faults, records, keys: 4, partitions: 3, nodes: 5, simulated_ms };
        let shrunk = Shrunk {
            scenario: "swarm".into(),
            seed: 41,
            signature: Signature::new("acked-durable", "an acknowledged record is not in the log"),
            before: size(14, 1178, 31_440),
            after: size(1, 12, 4_070),
            runs: 412,
            cuts: 31,
            wall_ms: 38_240,
            schedules: Some(Runs { failing: 17, tried: 20 }),
            complete: false,
            plan: Some("p.json".into()),
            replay: "streamproof replay p.json".into(),
            next: "streamproof regress add p.json NAME".into(),
        };
        assert_eq!(shrunk.after.to_string(), "1 fault, 12 records, 4 keys, 3 partitions, 5 nodes, 4.0 s");
        insta::assert_snapshot!(shrunk.text(), @r"
        shrunk swarm seed 41: acked-durable: an acknowledged record is not in the log
                        before     after
          faults            14         1
          records         1178        12
          keys               4         4
          partitions         3         3
          nodes              5         5
          simulated     31.4 s     4.0 s
          412 runs, 31 cuts kept, 38.2 s
          fails in 17 of 20 schedules
          stopped before its end: the same command goes on from here
          plan      p.json
          replay    streamproof replay p.json
          next      streamproof regress add p.json NAME
        ");
    }

    #[test]
    fn a_plan_is_counted() {
        let plan = scenarios::generate("swarm", 3).expect("a scenario");
        let size = Size::of(&plan, 5);
        assert_eq!((size.faults, size.records), (plan.faults.len() as u64, plan.records().count() as u64));
        assert!(size.keys > 1 && size.partitions > 1 && size.nodes > 4 && size.simulated_ms == 5, "{size}");
    }
}
