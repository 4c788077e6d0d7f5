//! Transactions over three brokers, whose coordinators and leaders die at every step of them.
//!
//! Writers of three kinds write to partitions that different brokers lead, and commit their groups' offsets in the same
//! transactions; meanwhile brokers crash, lose power, are paused and cut off, at crash points and at any other time, and
//! leaderships move. In the end, healed: each transaction is seen whole or not at all, as its writer was told; nothing of
//! a fenced producer is seen; no transaction is left open, also none whose writer is gone.

mod check;
mod cluster;
mod writer;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use cluster::{a_client, brokers, create_topics, disturb};
use env::probe::Reached;
use world::{CrashPoint, PowerLaw, Target, Then, When, World, on_seed};
use writer::{Kind, Told};

use check::check;

/// Transactions of each writer.
const TRANSACTIONS: i64 = 36;

const WRITERS: [(&str, Kind); 3] = [("x", Kind::Plain), ("y", Kind::Restarting), ("z", Kind::TwoPhase)];

struct Summary {
    committed: usize,
    aborted: usize,
    unknown: usize,
    /// Starts of brokers.
    lives: u32,
    /// Rare states that were met.
    reached: BTreeSet<&'static str>,
}

/// What every sweep must have met: without them it has shown nothing.
const RARE: [&str; 8] = [
    "a partition's leader asks a coordinator on another broker",
    "markers go to a leader on another broker",
    "a decided transaction is finished after a restart",
    "a transaction times out",
    "a prepared transaction is kept over InitProducerId",
    "EndTxn is repeated after a lost answer",
    "a transactional producer is fenced",
    "log: segments were replaced by a compacted one",
];

fn run(seed: u64, faults: impl AsyncFn(&World, &[world::NodeId]) + Send) -> Summary {
    let mut config = world::Config::new(seed, seed);
    config.sim_limit = Duration::from_secs(600);
    let done = on_seed(config, |world| async move {
        let reached = Rc::new(RefCell::new(BTreeSet::new()));
        let listener = Rc::clone(&reached);
        env::probe::listen(Some(Box::new(move |probe| {
            if let Some(Reached(label)) = probe.as_any().downcast_ref() {
                listener.borrow_mut().insert(*label);
            }
        })));
        let nodes = brokers(&world);
        create_topics().await;
        let told = Told::default();
        for (n, (name, kind)) in WRITERS.into_iter().enumerate() {
            let told = told.clone();
            let main = move || writer::run(name, kind, seed, told.clone());
            world.add_node(name, "writer", cluster::ip(2 + n as i32), main);
        }
        faults(&world, &nodes).await;
        world.heal_all();
        for _ in 0..600 {
            if told.done() == WRITERS.len() {
                break;
            }
            world.sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(told.done(), WRITERS.len(), "writers do not end");
        check(&a_client(), &told).await;
        let (committed, aborted, unknown) = told.counts();
        let lives = nodes.iter().map(|n| world.incarnation(*n)).sum();
        env::probe::listen(None);
        let reached = reached.take();
        Summary { committed, aborted, unknown, lives, reached }
    });
    done.unwrap_or_else(|failed| panic!("seed {seed}: {failed}")).value
}

/// `FIRST` and `SEEDS` of the environment.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let var = |name| std::env::var(name).ok().and_then(|s: String| s.parse().ok());
    let first = var("FIRST").unwrap_or(0);
    first..first + var("SEEDS").unwrap_or(default)
}

fn print(what: &str, runs: u64, all: &[Summary]) {
    let sum = |f: fn(&Summary) -> usize| all.iter().map(f).sum::<usize>();
    let (committed, aborted, unknown) = (sum(|s| s.committed), sum(|s| s.aborted), sum(|s| s.unknown));
    let lives: u32 = all.iter().map(|s| s.lives).sum();
    println!(
        "{what}: {runs} runs, {committed} committed, {aborted} aborted, {unknown} unknown, {lives} lives of brokers"
    );
    for mark in env::probe::marks() {
        let seeds = all.iter().filter(|s| s.reached.contains(mark.label)).count();
        println!("  {seeds:>4} {}", mark.label);
    }
}

fn met_what_is_rare(all: &[Summary]) {
    let missing: Vec<_> = RARE.iter().filter(|label| !all.iter().any(|s| s.reached.contains(*label))).collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
}

#[test]
fn without_faults_every_transaction_ends_as_asked() {
    let summary = run(1, async |_, _| {});
    assert_eq!(summary.unknown, 0);
    assert!(summary.committed > 60, "{} committed", summary.committed);
    print("no faults", 1, &[summary]);
}

/// Steps of a transaction at its coordinator, at leaders and followers, and of the cluster around them.
const STEPS: [&str; 20] = [
    "txn.persist",
    "txn.complete",
    "txn.marker",
    "txn.send",
    "offsets.append",
    "append",
    "flush",
    "publish",
    "ack",
    "replicate",
    "truncate",
    "fetch.send",
    "isr",
    "quorum.append",
    "disk.write",
    "net.write",
    "clean.write",
    "clean.swap",
    "clean.remove",
    "clean.rename",
];

fn thens(n: u64) -> Then {
    match n % 5 {
        0 | 1 => Then::Crash,
        2 => Then::Power(PowerLaw::Any),
        3 => Then::Pause,
        _ => Then::Cut,
    }
}

#[test]
fn a_coordinator_or_leader_may_die_at_every_step() {
    let seeds = seeds(20);
    let runs = seeds.end - seeds.start;
    let all: Vec<_> = seeds
        .map(|seed| {
            run(seed, async |world, _| {
                let mut rng = seed::stream(seed, "steps", &[]);
                for n in 0..6 {
                    // Every step has its turn; later ones are rare, or come often.
                    let label = if n == 0 { STEPS[(seed % 20) as usize] } else { *rng.choose(&STEPS) };
                    let often =
                        ["append", "flush", "publish", "ack", "replicate", "fetch.send", "disk.write", "net.write"];
                    let nth = if often.contains(&label) { rng.range(1, 600) } else { rng.range(1, 40) };
                    world.arm(CrashPoint {
                        target: Target::Role("broker".into()),
                        label: label.into(),
                        when: if rng.chance(1, 2) { When::Before } else { When::After },
                        nth,
                        partition: None,
                        then: thens(rng.range(0, 4)),
                        recover_after: Some(Duration::from_millis(rng.range(200, 7_000))),
                    });
                }
                world.sleep(Duration::from_secs(25)).await;
            })
        })
        .collect();
    print("steps", runs, &all);
    if runs >= 16 {
        met_what_is_rare(&all);
    }
}

#[test]
fn whatever_happens_to_one_broker_at_a_time_leaves_transactions_whole() {
    let seeds = seeds(16);
    let runs = seeds.end - seeds.start;
    let all: Vec<_> = seeds.map(|seed| run(seed, async |world, nodes| disturb(world, nodes, seed).await)).collect();
    print("disturbed", runs, &all);
}
