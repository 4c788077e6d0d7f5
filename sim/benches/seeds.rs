//! What a whole seed costs: plan, world, system, faults, final read and every check, as a worker process does it, on one
//! core. Aim: 30 ms for `smoke` (1 broker, 3 processor nodes, 2,000 records, 30 simulated seconds).
//!
//! ```text
//! taskset -c 0 cargo bench -p streamproof --bench seeds
//! ```
//! Criterion's mean goes over seeds in turn. The table after it is one pass over seeds 0 to 199 of each scenario: the
//! spread between seeds is wide, because their faults differ. Wall time on a busy machine says little; the CPU time
//! beside it is the process's own. Peak memory is the process's since it began, so that of all lines so far.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use reports::Verdict;
use streamproof::plans::Planner;
use streamproof::task::{Source, Task};
use streamproof::worker;

const SCENARIOS: [&str; 3] = ["smoke", "swarm", "crash_restart"];
const SEEDS: u64 = 200;

fn task(scenario: &str, seed: u64) -> Task {
    Task { source: Source::Scenario(scenario.to_owned()), seed, faults: None }
}

/// Simulated milliseconds of a seed, which must pass.
fn run(planner: &mut Planner, scenario: &str, seed: u64) -> u64 {
    let report = worker::execute(planner, &task(scenario, seed), None);
    assert_eq!(report.verdict, Verdict::Pass, "{scenario}/{seed}: {:?} {:?}", report.failures, report.note);
    report.stats.simulated_ms
}

fn bench(c: &mut Criterion) {
    let mut planner = Planner::default();
    let mut group = c.benchmark_group("seed");
    group.sample_size(20).throughput(Throughput::Elements(1));
    for scenario in SCENARIOS {
        let mut seeds = (0..SEEDS).cycle();
        group.bench_function(scenario, |b| {
            b.iter(|| run(&mut planner, scenario, seeds.next().unwrap_or(0)));
        });
    }
    group.finish();
}

/// CPU time of this process so far, all threads: fields 14 and 15 of `/proc/self/stat`, in hundredths of a second.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    Duration::from_millis(10 * fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>())
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

fn figures() {
    println!(
        "{:<14} {:>6} {:>8} {:>8} {:>8} {:>9} {:>15} {:>9}",
        "scenario", "seeds", "p50 ms", "p99 ms", "cpu ms", "seeds/s", "simulated s / s", "peak MiB"
    );
    for scenario in SCENARIOS {
        let mut planner = Planner::default();
        let (mut walls, mut simulated_ms) = (Vec::new(), 0);
        let (started, before) = (Instant::now(), cpu());
        for seed in 0..SEEDS {
            let at = Instant::now();
            simulated_ms += run(&mut planner, scenario, seed);
            walls.push(at.elapsed().as_secs_f64() * 1e3);
        }
        let (wall, cpu) = (started.elapsed().as_secs_f64(), (cpu() - before).as_secs_f64());
        walls.sort_by(f64::total_cmp);
        let rank = |percent: usize| walls[(walls.len() * percent).div_ceil(100) - 1];
        println!(
            "{scenario:<14} {SEEDS:>6} {:>8.1} {:>8.1} {:>8.1} {:>9.1} {:>15.0} {:>9.1}",
            rank(50),
            rank(99),
            1e3 * cpu / SEEDS as f64,
            SEEDS as f64 / wall,
            simulated_ms as f64 / 1e3 / wall,
            peak_mib()
        );
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
    // `cargo test --benches` only wants to see it run.
    if !std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        figures();
    }
}
