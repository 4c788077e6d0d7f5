//! The end of a run: how much was tried, how hard the faults bit, what was found.
//!
//! [`Totals`] gathers seed reports in any order and gives the same [`Summary`]: no figure depends on the order in
//! which workers finished.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::seed_report::{ClusterStats, FaultCount, SeedReport, Verdict};

/// The figures of one scenario, or of a whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ScenarioSummary {
    pub scenario: String,
    pub seeds: u64,
    pub passed: u64,
    pub failed: u64,
    pub inconclusive: u64,
    pub simulated_ms: u64,
    pub events_checked: u64,
    pub faults_enabled: u64,
    pub faults_bit: u64,
    /// faults_bit / faults_enabled; 1 if no fault was enabled.
    pub faults_bit_share: f64,
    pub faults_by_family: BTreeMap<String, FaultCount>,
    pub median_records: u64,
    pub median_windows: u64,
    pub median_checkpoints: u64,
    /// Share of the seeds whose processor restored from a checkpoint that held state.
    pub restored_share: f64,
    /// Share of the seeds in which a partition's leader changed.
    pub leader_change_share: f64,
    /// Share of the seeds in which an in-sync set lost a member.
    pub isr_shrink_share: f64,
    /// Share of the seeds in which the coordinator of a transaction that was not over changed.
    pub coordinator_failover_share: f64,
    /// Per fault family, the share of the seeds that switched it off.
    pub family_off_share: BTreeMap<String, f64>,
    pub median_wall_ms: u64,
    pub p99_wall_ms: u64,
}

/// Why a run ended before its last seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// Somebody wanted it to end.
    Interrupt,
    /// Enough seeds had failed.
    Failures,
    /// Its time was up.
    Time,
}

/// The figures of a whole run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    #[serde(flatten)]
    pub total: ScenarioSummary,
    pub scenarios: Vec<ScenarioSummary>,
    pub wall_ms: u64,
    pub seeds_per_second: f64,
    pub reached: BTreeSet<String>,
    /// Seeds that were executed twice and compared.
    pub repeated: u64,
    /// Canaries and whether the property that must catch them did.
    pub canaries: BTreeMap<String, bool>,
    pub interrupted: bool,
    pub stopped: Option<Stopped>,
    pub exit_code: u8,
}

/// Gathers seed reports.
#[derive(Debug, Default)]
pub struct Totals {
    reports: BTreeMap<String, Vec<Row>>,
    reached: BTreeSet<String>,
    pub repeated: u64,
    pub canaries: BTreeMap<String, bool>,
}

/// What of a report the summary needs: a run of 100,000 seeds must fit into memory.
#[derive(Debug)]
struct Row {
    verdict: Verdict,
    records: u64,
    windows: u64,
    checkpoints: u64,
    simulated_ms: u64,
    events_checked: u64,
    restored: bool,
    cluster: ClusterStats,
    faults: BTreeMap<String, FaultCount>,
    families_off: BTreeSet<String>,
    wall_ms: u64,
}

impl Totals {
    /// Adds a seed. A seed of a canary that was caught is to be added as a pass.
    pub fn add(&mut self, report: &SeedReport) {
        let s = &report.stats;
        self.reached.extend(s.reached.iter().cloned());
        self.reports.entry(report.scenario.clone()).or_default().push(Row {
            verdict: report.verdict,
            records: s.records,
            windows: s.windows,
            checkpoints: s.checkpoints,
            simulated_ms: s.simulated_ms,
            events_checked: s.events_checked,
            restored: s.restored_non_empty,
            cluster: s.cluster,
            faults: s.faults.clone(),
            families_off: s.families_off.clone(),
            wall_ms: report.wall_ms,
        });
    }

    pub fn seeds(&self) -> u64 {
        self.reports.values().map(|rows| rows.len() as u64).sum()
    }

    /// The figures so far. `wall_ms` is of the whole run, not of its seeds.
    pub fn summary(&self, wall_ms: u64, stopped: Option<Stopped>, exit_code: u8) -> Summary {
        let all: Vec<&Row> = self.reports.values().flatten().collect();
        let scenarios =
            self.reports.iter().map(|(name, rows)| figures(name, &rows.iter().collect::<Vec<_>>())).collect();
        Summary {
            total: figures("all", &all),
            scenarios,
            wall_ms,
            seeds_per_second: if wall_ms == 0 { 0.0 } else { round2(all.len() as f64 * 1000.0 / wall_ms as f64) },
            reached: self.reached.clone(),
            repeated: self.repeated,
            canaries: self.canaries.clone(),
            interrupted: stopped == Some(Stopped::Interrupt),
            stopped,
            exit_code,
        }
    }
}

fn figures(name: &str, rows: &[&Row]) -> ScenarioSummary {
    let mut out = ScenarioSummary { scenario: name.to_owned(), seeds: rows.len() as u64, ..Default::default() };
    let mut off: BTreeMap<String, u64> = BTreeMap::new();
    let mut restored = 0_u64;
    for row in rows {
        match row.verdict {
            Verdict::Pass => out.passed += 1,
            Verdict::Inconclusive => out.inconclusive += 1,
            _ => out.failed += 1,
        }
        out.simulated_ms += row.simulated_ms;
        out.events_checked += row.events_checked;
        restored += u64::from(row.restored);
        for (family, count) in &row.faults {
            let sum = out.faults_by_family.entry(family.clone()).or_default();
            sum.enabled += count.enabled;
            sum.bit += count.bit;
            out.faults_enabled += count.enabled;
            out.faults_bit += count.bit;
        }
        for family in &row.families_off {
            *off.entry(family.clone()).or_default() += 1;
        }
    }
    out.faults_bit_share =
        if out.faults_enabled == 0 { 1.0 } else { round4(out.faults_bit as f64 / out.faults_enabled as f64) };
    let share = |n: u64| if rows.is_empty() { 0.0 } else { round4(n as f64 / rows.len() as f64) };
    out.restored_share = share(restored);
    let with = |of: fn(&ClusterStats) -> u64| share(rows.iter().filter(|row| of(&row.cluster) > 0).count() as u64);
    out.leader_change_share = with(|c| c.leader_changes);
    out.isr_shrink_share = with(|c| c.isr_shrinks);
    out.coordinator_failover_share = with(|c| c.coordinator_failovers);
    out.family_off_share = off.into_iter().map(|(family, n)| (family, share(n))).collect();
    let column = |of: fn(&Row) -> u64| {
        let mut values: Vec<u64> = rows.iter().map(|row| of(row)).collect();
        values.sort_unstable();
        values
    };
    out.median_records = quantile(&column(|r| r.records), 50);
    out.median_windows = quantile(&column(|r| r.windows), 50);
    out.median_checkpoints = quantile(&column(|r| r.checkpoints), 50);
    out.median_wall_ms = quantile(&column(|r| r.wall_ms), 50);
    out.p99_wall_ms = quantile(&column(|r| r.wall_ms), 99);
    out
}

/// The `percent` quantile of sorted values, the lower of two middle ones; 0 of none.
fn quantile(sorted: &[u64], percent: usize) -> u64 {
    match sorted.len() {
        0 => 0,
        n => sorted[(n - 1) * percent / 100],
    }
}

fn round2(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

fn round4(x: f64) -> f64 {
    (x * 10_000.0).round() / 10_000.0
}

impl Summary {
    /// The summary for people, several lines.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let w = &mut out;
        if self.scenarios.len() > 1 {
            let _ = writeln!(
                w,
                "{:<22} {:>6} {:>6} {:>6} {:>8} {:>8} {:>6} {:>12} {:>8} {:>8}",
                "scenario", "seeds", "failed", "hours", "records", "windows", "ckpts", "faults bit", "p50 ms", "p99 ms"
            );
            for s in &self.scenarios {
                let _ = writeln!(
                    w,
                    "{:<22} {:>6} {:>6} {:>6} {:>8} {:>8} {:>6} {:>12} {:>8} {:>8}",
                    s.scenario,
                    s.seeds,
                    s.failed,
                    hours(s.simulated_ms),
                    s.median_records,
                    s.median_windows,
                    s.median_checkpoints,
                    format!("{}/{}", s.faults_bit, s.faults_enabled),
                    s.median_wall_ms,
                    s.p99_wall_ms,
                );
            }
            let _ = writeln!(w);
        }
        let t = &self.total;
        let _ = writeln!(
            w,
            "{} seeds: {} passed, {} failed, {} inconclusive; {} repeated in a fresh process",
            t.seeds, t.passed, t.failed, t.inconclusive, self.repeated
        );
        let _ = writeln!(w, "{} simulated hours in {:.1} s", hours(t.simulated_ms), self.wall_ms as f64 / 1000.0);
        let _ =
            writeln!(w, "{} of {} faults bit ({:.1} %)", t.faults_bit, t.faults_enabled, 100.0 * t.faults_bit_share);
        let _ = writeln!(w, "{} events checked", t.events_checked);
        if self.scenarios.len() == 1 {
            let _ = writeln!(
                w,
                "median of a seed: {} records, {} windows, {} committed checkpoints, {} ms",
                t.median_records, t.median_windows, t.median_checkpoints, t.median_wall_ms
            );
            let _ = writeln!(w, "{:.1} % of the seeds restored from a checkpoint with state", 100.0 * t.restored_share);
            if t.leader_change_share > 0.0 || t.isr_shrink_share > 0.0 {
                let _ = writeln!(
                    w,
                    "seeds with a leader change {:.1} %, an in-sync set that shrank {:.1} %, a coordinator lost in a \
                     transaction {:.1} %",
                    100.0 * t.leader_change_share,
                    100.0 * t.isr_shrink_share,
                    100.0 * t.coordinator_failover_share
                );
            }
            if !t.family_off_share.is_empty() {
                let list: Vec<String> =
                    t.family_off_share.iter().map(|(f, share)| format!("{f} {:.0} %", 100.0 * share)).collect();
                let _ = writeln!(w, "families switched off: {}", list.join(", "));
            }
        }
        for (name, caught) in &self.canaries {
            let _ = writeln!(w, "canary {name}: {}", if *caught { "caught" } else { "NOT CAUGHT" });
        }
        let _ = writeln!(w, "{:.1} seeds a second", self.seeds_per_second);
        let why = match self.stopped {
            Some(Stopped::Interrupt) => "interrupted",
            Some(Stopped::Failures) => "stopped by its failures",
            Some(Stopped::Time) => "its time was up",
            None => return out,
        };
        let _ = writeln!(w, "{why}: the figures are of the seeds that had finished");
        out
    }
}

/// Milliseconds as hours with one digit.
fn hours(ms: u64) -> String {
    format!("{:.1}", ms as f64 / 3_600_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(scenario: &str, seed: u64, records: u64, verdict: Verdict) -> SeedReport {
        let mut r = SeedReport::unfinished(scenario, seed, verdict, "");
        r.note = None;
        r.stats.records = records;
        r.stats.windows = records / 50;
        r.stats.checkpoints = 4;
        r.stats.simulated_ms = 1_800_000;
        r.stats.events_checked = 10 * records;
        r.stats.restored_non_empty = seed.is_multiple_of(2);
        r.stats.cluster.isr_shrinks = seed % 2;
        r.stats.faults.insert("net".into(), FaultCount { enabled: 4, bit: 3 });
        if seed.is_multiple_of(4) {
            r.stats.families_off.insert("disk".into());
        }
        r.wall_ms = 20 + seed;
        r
    }

    #[test]
    fn text_of_one_scenario() {
        let mut totals = Totals::default();
        for seed in 0..8 {
            totals.add(&report("swarm", seed, 1000 + seed, Verdict::Pass));
        }
        totals.repeated = 1;
        insta::assert_snapshot!(totals.summary(500, None, 0).text(), @r"
        8 seeds: 8 passed, 0 failed, 0 inconclusive; 1 repeated in a fresh process
        4.0 simulated hours in 0.5 s
        24 of 32 faults bit (75.0 %)
        80280 events checked
        median of a seed: 1003 records, 20 windows, 4 committed checkpoints, 23 ms
        50.0 % of the seeds restored from a checkpoint with state
        seeds with a leader change 0.0 %, an in-sync set that shrank 50.0 %, a coordinator lost in a transaction 0.0 %
        families switched off: disk 25 %
        16.0 seeds a second
        ");
    }

    #[test]
    fn text_of_the_main_job() {
        let mut totals = Totals::default();
        for seed in 0..3 {
            totals.add(&report("smoke", seed, 2000, Verdict::Pass));
            totals.add(&report("swarm", seed, 1000, if seed == 2 { Verdict::Unsafe } else { Verdict::Pass }));
        }
        totals.canaries.insert("canary_page_cache".into(), true);
        insta::assert_snapshot!(totals.summary(1000, Some(Stopped::Interrupt), 10).text(), @r"
        scenario                seeds failed  hours  records  windows  ckpts   faults bit   p50 ms   p99 ms
        smoke                       3      0    1.5     2000       40      4         9/12       21       21
        swarm                       3      1    1.5     1000       20      4         9/12       21       21

        6 seeds: 5 passed, 1 failed, 0 inconclusive; 0 repeated in a fresh process
        3.0 simulated hours in 1.0 s
        18 of 24 faults bit (75.0 %)
        90000 events checked
        canary canary_page_cache: caught
        6.0 seeds a second
        interrupted: the figures are of the seeds that had finished
        ");
    }

    #[test]
    fn json_holds_the_version_and_every_figure() {
        let mut totals = Totals::default();
        totals.add(&report("swarm", 0, 1000, Verdict::Pass));
        let line = crate::json_line(crate::LineType::Summary, &totals.summary(100, None, 0));
        insta::assert_snapshot!(line, @r#"{"canaries":{},"coordinator_failover_share":0.0,"events_checked":10000,"exit_code":0,"failed":0,"family_off_share":{"disk":1.0},"faults_bit":3,"faults_bit_share":0.75,"faults_by_family":{"net":{"bit":3,"enabled":4}},"faults_enabled":4,"inconclusive":0,"interrupted":false,"isr_shrink_share":0.0,"leader_change_share":0.0,"median_checkpoints":4,"median_records":1000,"median_wall_ms":20,"median_windows":20,"p99_wall_ms":20,"passed":1,"reached":[],"repeated":0,"restored_share":1.0,"scenario":"all","scenarios":[{"coordinator_failover_share":0.0,"events_checked":10000,"failed":0,"family_off_share":{"disk":1.0},"faults_bit":3,"faults_bit_share":0.75,"faults_by_family":{"net":{"bit":3,"enabled":4}},"faults_enabled":4,"inconclusive":0,"isr_shrink_share":0.0,"leader_change_share":0.0,"median_checkpoints":4,"median_records":1000,"median_wall_ms":20,"median_windows":20,"p99_wall_ms":20,"passed":1,"restored_share":1.0,"scenario":"swarm","seeds":1,"simulated_ms":1800000}],"seeds":1,"seeds_per_second":10.0,"simulated_ms":1800000,"stopped":null,"type":"summary","version":3,"wall_ms":100}"#);
    }

    #[test]
    fn the_order_of_arrival_changes_nothing() {
        let (mut a, mut b) = (Totals::default(), Totals::default());
        for seed in 0..9 {
            a.add(&report("swarm", seed, 1000 + seed * 7 % 5, Verdict::Pass));
            b.add(&report("swarm", 8 - seed, 1000 + (8 - seed) * 7 % 5, Verdict::Pass));
        }
        assert_eq!(a.summary(1, None, 0), b.summary(1, None, 0));
    }
}
