//! The same seed is the same run: on two threads at once, after other seeds, in another process, recorded or not.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use env::node::When;
use world::{Config, CrashPoint, LinkLaw, PowerLaw, Target, Then, on_seed};

use super::support::*;

#[derive(Debug, Hash)]
struct Pinged(#[allow(dead_code)] u64);

/// Listens to every span and event at trace and formats what they carry, as a verbose run does.
#[derive(Clone, Default)]
struct Loud(Arc<AtomicU64>);

impl tracing::Subscriber for Loud {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        let text = format!("{span:?} {:?}", std::time::SystemTime::now());
        tracing::span::Id::from_u64(1 + self.0.fetch_add(text.len() as u64, Ordering::Relaxed))
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let text = format!("{event:?} {:?}", std::time::SystemTime::now());
        self.0.fetch_add(text.len() as u64, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn logging_changes_nothing() {
    // While there is one subscriber only, tracing asks the thread that meets an event's place first, here perhaps another
    // test's, and keeps its "nobody listens" for all. With two it asks them.
    let _second = tracing::Dispatch::new(Loud::default());
    for seed in 0..4 {
        let loud = Loud::default();
        assert_eq!(storm_with(seed, true, Some(loud.clone())), storm(seed, false), "seed {seed}");
        let logged = loud.0.load(Ordering::Relaxed);
        assert!(logged > 1_000, "only {logged} bytes were logged");
    }
}

/// A ping-pong under every kind of fault; W.
fn storm(seed: u64, record: bool) -> u64 {
    storm_with(seed, record, None)
}

fn storm_with(seed: u64, record: bool, log: Option<Loud>) -> u64 {
    let law = LinkLaw { loss_ppm: 20_000, tail_ppm: 10_000, tail_max: ms(30), chop_ppm: 100_000, ..LinkLaw::LAN };
    let start = || on_seed(Config { law, ..config(seed) }, |world| storming(world, seed, record));
    // The caller's subscriber governs the world's thread too.
    let run = match log {
        Some(log) => tracing::subscriber::with_default(log, start),
        None => start(),
    };
    let run = run.unwrap();
    assert!(run.events > 1_000, "{} events", run.events);
    run.trace_hash
}

async fn storming(world: world::World, seed: u64, record: bool) {
    let heard = Rc::new(Cell::new(0u64));
    if record {
        let heard = heard.clone();
        env::probe::listen(Some(Box::new(move |_| heard.set(heard.get() + 1))));
    }
    let servers: Vec<_> = (1..=3).map(|n| add_echo(&world, &format!("server-{n}"), n)).collect();
    let clients: Vec<_> = (1..=3u8)
        .map(|n| {
            world.add_node(&format!("client-{n}"), "client", ip(10 + n), move || async move {
                let mut rng = env::rng::stream("client");
                for round in 0.. {
                    env::probe::probe(|| Pinged(round));
                    let to = addr(1 + (rng.range(0, 2)) as u8);
                    let _ = env::time::timeout(secs(2), ping(to, rng.range(1, 30))).await;
                    let data = bytes::Bytes::from(vec![n; rng.index(3_000)]);
                    if let Ok(file) = env::disk::File::open("/f", env::disk::Open::OrCreate).await {
                        let _ = file.write_at(rng.range(0, 5_000), data).await;
                        let _ = file.sync().await;
                    }
                    env::time::sleep(ms(rng.range(0, 50))).await;
                }
            })
        })
        .collect();
    world.arm(CrashPoint {
        target: Target::Role("client".into()),
        label: "disk.sync".into(),
        when: When::Before,
        nth: 7,
        partition: None,
        then: Then::Power(PowerLaw::Any),
        recover_after: Some(secs(1)),
    });
    let mut rng = seed::stream(seed, "storm", &[]);
    for _ in 0..15 {
        world.sleep(ms(rng.range(10, 900))).await;
        let (s, c) = (*rng.choose(&servers), *rng.choose(&clients));
        match rng.range(0, 7) {
            0 => _ = world.crash(s),
            1 => _ = world.power_loss(c, PowerLaw::Any),
            2 => _ = world.net().partition(&[s], &[c]),
            3 => _ = world.net().hold(&[c], &[s]),
            4 => _ = world.net().reset(&[c], &[s]),
            5 => _ = world.pause(c),
            6 => _ = world.disk(c).stall(ms(300)),
            _ => _ = world.clock(c).drift(10_000),
        }
        if rng.chance(1, 2) {
            world.heal_all();
        }
    }
    world.heal_all();
    world.sleep(secs(3)).await;
    env::probe::listen(None);
    assert_eq!(heard.get() > 0, record);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let seeds = 0..12u64;
    let threads: Vec<_> = (0..2)
        .map(|thread| {
            let seeds = seeds.clone();
            // Not in the same order, so that every seed follows another one than on the other thread.
            std::thread::spawn(move || {
                let mut order: Vec<_> = seeds.clone().chain(seeds).collect();
                if thread == 1 {
                    order.reverse();
                }
                order.into_iter().map(|seed| (seed, storm(seed, thread == 0))).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut hashes = std::collections::BTreeMap::new();
    for (seed, hash) in threads.into_iter().flat_map(|t| t.join().unwrap()) {
        assert_eq!(*hashes.entry(seed).or_insert(hash), hash, "seed {seed}");
    }
    let distinct: std::collections::BTreeSet<_> = hashes.values().collect();
    assert_eq!(distinct.len(), hashes.len(), "each seed is a run of its own");
    for (seed, hash) in hashes.into_iter().take(3) {
        assert_eq!(in_child(seed), hash, "seed {seed} in a process of its own");
    }
}

const SEED: &str = "STREAMPROOF_TEST_SEED";

fn in_child(seed: u64) -> u64 {
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["determinism::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(SEED, seed.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let line = text.lines().find_map(|l| l.split_once("W=")).unwrap_or_else(|| panic!("no hash in {text}"));
    line.1.parse().unwrap()
}

/// Run by [`in_child`]; nothing by itself.
#[test]
fn child() {
    if let Ok(seed) = std::env::var(SEED) {
        println!("W={}", storm(seed.parse().unwrap(), false));
    }
}

#[test]
fn a_schedule_is_a_choice_of_its_own() {
    let ping = |schedule_seed| {
        let run = on_seed(Config { schedule_seed, ..config(4) }, |world| async move {
            add_echo(&world, "server", 1);
            let client = add_client(&world, "client", 2, || async {
                env::time::sleep(ms(5)).await;
                ping(addr(1), 20).await.unwrap();
            });
            client.result(&world).await;
        });
        run.unwrap().trace_hash
    };
    assert_eq!(ping(1), ping(1));
    assert_ne!(ping(1), ping(2));
}
