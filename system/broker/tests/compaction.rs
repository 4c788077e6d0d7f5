//! A compacted partition on a simulated disk that loses power, or its process, around every step of the cleaner: the newest
//! acknowledged record of each key is there, nothing is there twice, what was aborted stays away, and a retry of any of the
//! last batches is told. Replicas that compact on their own hold the same records.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use log::{CleanerConfig, LogConfig, Marker, Offset, Origin, RetentionConfig, TransactionVersion};
use protocol::batch::{BatchBuilder, Limits, Record, decode_records, split};
use protocol::{ErrorCode, Uuid};
use streamproof_broker::partition::machine::Following;
use streamproof_broker::partition::{Acks, Isolation, Partition, PartitionConfig, TopicPartition};
use streamproof_broker::{Failure, Flush, Metrics};
use world::{Config, CrashPoint, PowerLaw, Target, Then, When, World, on_seed};

/// The transactional producer; the others are one a life.
const TXN: i64 = 1;
const KEYS: u64 = 5;

#[derive(Clone, Debug)]
struct Acked {
    producer: i64,
    epoch: i16,
    sequence: i32,
    key: u64,
    value: Option<u64>,
    offset: Offset,
}

/// What the outside knows.
#[derive(Default)]
struct Atlas {
    lives: i64,
    values: u64,
    /// Acknowledged and decided: offset to key and value.
    committed: BTreeMap<Offset, (u64, Option<u64>)>,
    /// Acknowledged, of a transaction that is not known to have ended.
    open: BTreeMap<Offset, (u64, Option<u64>)>,
    aborted: BTreeSet<Offset>,
    /// The last acknowledged batches of this or the last life's producer, at most as many as a log remembers.
    last: Vec<Acked>,
    verified: u32,
    swaps: u32,
}

type Shared = Rc<RefCell<Atlas>>;

fn config() -> PartitionConfig {
    let log = LogConfig {
        segment_bytes: 2_000,
        index_interval_bytes: 300,
        checksum_sync_pages: 1,
        tail_cache_bytes: 600,
        ..LogConfig::default()
    };
    PartitionConfig {
        log,
        flush: Flush::Fsync,
        node_id: 1,
        max_queued_bytes: 1 << 20,
        lag_max: Duration::from_secs(10),
        metrics: Metrics::default(),
    }
}

fn id() -> TopicPartition {
    TopicPartition { topic: "__c".into(), topic_id: Uuid::from_u128(1), partition: 0 }
}

fn cleaner() -> CleanerConfig {
    CleanerConfig { min_cleanable_dirty_ratio: 0.0, delete_retention_ms: 3, ..CleanerConfig::default() }
}

fn batch(a: &Acked) -> Bytes {
    let mut b = BatchBuilder::new().producer(a.producer, a.epoch, a.sequence);
    if a.producer == TXN {
        b = b.transactional();
    }
    let value = a.value.map(|v| {
        let mut bytes = v.to_be_bytes().to_vec();
        bytes.resize(100, v as u8);
        Bytes::from(bytes)
    });
    b.push(&Record { key: Some(Bytes::copy_from_slice(&a.key.to_be_bytes())), value, ..Record::default() });
    b.build()
}

/// The records that `isolation` shows, aborted ones left out under read_committed.
async fn records(p: &Partition, isolation: Isolation) -> BTreeMap<Offset, (u64, Option<u64>)> {
    let mut found = BTreeMap::new();
    let mut next = p.log_start_offset();
    while next < p.readable_end(isolation) {
        let data = p.read(next, 700, isolation).await.unwrap();
        if data.records.is_empty() {
            break;
        }
        let mut told: Vec<(Offset, i64)> = data.aborted.iter().map(|t| (t.first_offset, t.producer_id)).collect();
        let mut aborting = BTreeSet::new();
        for part in split(data.records) {
            let (header, bytes) = part.unwrap();
            header.verify_crc(&bytes).unwrap();
            assert!(header.next_offset() > next, "offsets rise");
            next = header.next_offset();
            told.retain(|(first, producer)| {
                let begun = *first <= header.last_offset();
                if begun {
                    aborting.insert(*producer);
                }
                !begun
            });
            if header.is_control() {
                aborting.remove(&header.producer_id);
                continue;
            }
            if header.is_transactional() && aborting.contains(&header.producer_id) {
                continue;
            }
            for r in decode_records(&bytes, &Limits::default()).unwrap() {
                let value = r.value.map(|v| u64::from_be_bytes(v[..8].try_into().unwrap()));
                let key = u64::from_be_bytes(r.key.unwrap()[..].try_into().unwrap());
                assert!(found.insert(r.offset, (key, value)).is_none(), "offset {} is there twice", r.offset);
            }
        }
    }
    found
}

/// Compares the log with what is known.
async fn verify(p: &Partition, atlas: &Shared) {
    let all = records(p, Isolation::ReadUncommitted).await;
    let seen = records(p, Isolation::ReadCommitted).await;
    let values: Vec<u64> = all.values().filter_map(|(_, value)| *value).collect();
    assert_eq!(values.iter().collect::<BTreeSet<_>>().len(), values.len(), "a value is there twice");
    let a = atlas.borrow();
    assert!(!seen.keys().any(|offset| a.aborted.contains(offset)), "an aborted record is seen");
    let mut newest: BTreeMap<u64, (Offset, Option<u64>)> = BTreeMap::new();
    newest.extend(seen.iter().map(|(offset, (key, value))| (*key, (*offset, *value))));
    for (offset, record) in &seen {
        if let Some(known) = a.committed.get(offset) {
            assert_eq!(record, known, "at {offset}");
        }
    }
    let mut known: BTreeMap<u64, (Offset, Option<u64>)> = BTreeMap::new();
    // What an open transaction holds back is not seen yet, and not cleaned either.
    let decided = a.committed.range(..p.last_stable_offset());
    known.extend(decided.map(|(offset, (key, value))| (*key, (*offset, *value))));
    for (key, (offset, value)) in known {
        match newest.get(&key) {
            Some((at, found)) => {
                assert!(*at >= offset, "key {key} went back from {offset} to {at}");
                assert!(*at > offset || *found == value, "key {key} at {offset}");
            }
            None => assert_eq!(value, None, "key {key}, acknowledged at {offset}, is gone"),
        }
    }
}

/// Every remembered batch that is sent again is told for a copy, and never appended again.
async fn retry(p: &Partition, atlas: &Shared) {
    let last = atlas.borrow().last.clone();
    for a in last {
        let again = p.append(batch(&a), Origin::Client, Acks::All).await;
        assert_eq!(again.map(|done| done.base_offset), Ok(a.offset), "a retry of {a:?}");
    }
}

async fn clean(p: &Partition, atlas: &Shared) {
    let found = p.reader().cleaner().dirty(&cleaner(), env::clock::wall_ms());
    if let Some(dirty) = found
        && p.clean(dirty, &cleaner()).await.unwrap_or(false)
    {
        atlas.borrow_mut().swaps += 1;
        retry(p, atlas).await;
    }
}

async fn life(atlas: Shared) {
    let Ok(p) = Partition::open(id(), "/data/__c-0".into(), config(), 1, Failure::default()).await else { return };
    verify(&p, &atlas).await;
    retry(&p, &atlas).await;
    let producer = {
        let mut a = atlas.borrow_mut();
        a.verified += 1;
        a.lives += 1;
        a.lives + 100
    };
    // As a coordinator would: what is open is aborted under a later epoch, and the next transactions are of one of their
    // own.
    let mut epoch = (200 * (producer - 100)) as i16;
    let marker = |epoch: i16, commit| Marker {
        producer_id: TXN,
        producer_epoch: epoch + 1,
        commit,
        coordinator_epoch: 0,
        version: TransactionVersion::V2,
    };
    if p.append_marker(marker(epoch, false)).await.is_err() {
        return;
    }
    {
        // Whether its commit was in the log already is for the log to say.
        let seen = records(&p, Isolation::ReadCommitted).await;
        let mut a = atlas.borrow_mut();
        let open = std::mem::take(&mut a.open);
        for (offset, record) in open {
            if seen.contains_key(&offset) {
                a.committed.insert(offset, record);
            }
        }
        a.last.clear();
    }
    let mut rng = env::rng::stream("test");
    let (mut sequence, mut txn_sequence) = (0, 0);
    epoch += 2;
    for round in 1.. {
        for _ in 0..rng.range(1, 4) {
            let value = {
                let mut a = atlas.borrow_mut();
                a.values += 1;
                a.values
            };
            let value = (!rng.chance(1, 6)).then_some(value);
            let txn = rng.chance(1, 3);
            let (producer, epoch, sequence) = if txn {
                txn_sequence += 1;
                (TXN, epoch, txn_sequence - 1)
            } else {
                sequence += 1;
                (producer, 0, sequence - 1)
            };
            let mut a = Acked { producer, epoch, sequence, key: rng.range(0, KEYS), value, offset: -1 };
            let asked = if txn { p.ask(TXN, epoch) } else { None };
            let appended = p.enqueue(batch(&a), Origin::Client, Acks::All, asked).unwrap().await;
            let Ok(done) = appended else {
                let error = appended.unwrap_err();
                assert_eq!(error, ErrorCode::KAFKA_STORAGE_ERROR);
                return;
            };
            a.offset = done.base_offset;
            let mut atlas = atlas.borrow_mut();
            if txn {
                atlas.open.insert(a.offset, (a.key, a.value));
            } else {
                atlas.committed.insert(a.offset, (a.key, a.value));
                atlas.last.push(a);
                // One may be on its way when the power goes, and pushes the oldest out.
                if atlas.last.len() > 4 {
                    atlas.last.remove(0);
                }
            }
        }
        if txn_sequence > 0 && rng.chance(1, 2) {
            let commit = rng.chance(1, 2);
            if !commit {
                // From here on no life may see them, whether or not this one hears of its marker.
                let mut a = atlas.borrow_mut();
                let open = std::mem::take(&mut a.open);
                a.aborted.extend(open.into_keys());
            }
            if p.append_marker(marker(epoch, commit)).await.is_err() {
                return;
            }
            if commit {
                let mut a = atlas.borrow_mut();
                let open = std::mem::take(&mut a.open);
                a.committed.extend(open);
            }
            (epoch, txn_sequence) = (epoch + 1, 0);
        }
        if round % 4 == 0 {
            clean(&p, &atlas).await;
            verify(&p, &atlas).await;
        }
        env::time::sleep(Duration::from_micros(rng.range(0, 1_000))).await;
    }
}

fn add(world: &World) -> (world::NodeId, Shared) {
    let atlas = Shared::default();
    let for_node = Rc::clone(&atlas);
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let node = world.add_node("broker", "broker", ip, move || life(Rc::clone(&for_node)));
    (node, atlas)
}

const LABELS: &[&str] =
    &["clean.read", "clean.write", "clean.swap", "clean.remove", "clean.rename", "clean.checkpoint"];

#[test]
fn nothing_is_lost_or_doubled_when_it_stops_around_any_step_of_the_cleaner() {
    let (mut bit, mut swaps) = (0, 0);
    for label in LABELS {
        for when in [When::Before, When::After] {
            for step in 0..6 {
                let seed = step * 31 + label.len() as u64;
                let done = on_seed(Config::new(seed, seed), |world| async move {
                    let (_, atlas) = add(&world);
                    let law = [PowerLaw::Lost, PowerLaw::Prefix, PowerLaw::Subset, PowerLaw::Any][step as usize % 4];
                    let mut bit = 0;
                    for n in 0..5 {
                        let then = if (step + n) % 3 == 0 { Then::Crash } else { Then::Power(law) };
                        let fault = world.arm(CrashPoint {
                            target: Target::Node("broker".into()),
                            label: (*label).into(),
                            when,
                            nth: 1 + (step + n) % 4,
                            partition: None,
                            then,
                            recover_after: Some(Duration::from_millis(1)),
                        });
                        let before = atlas.borrow().lives;
                        world.sleep(Duration::from_millis(60)).await;
                        bit += u32::from(atlas.borrow().lives > before);
                        world.heal(fault);
                    }
                    world.sleep(Duration::from_millis(40)).await;
                    (bit, atlas.borrow().swaps)
                });
                let (b, s) = done.unwrap_or_else(|failed| panic!("{label} {when:?} step {step}: {failed}")).value;
                bit += b;
                swaps += s;
            }
        }
    }
    assert!(bit > 200 && swaps > 200, "{bit} stops, {swaps} passes");
}

#[test]
fn nothing_is_lost_or_doubled_when_power_goes_around_the_cleaners_disk_operations() {
    let mut swaps = 0;
    for label in ["disk.rename", "disk.remove", "disk.sync_dir", "disk.sync", "disk.open", "disk.write"] {
        for step in 0..8u64 {
            let seed = step * 17 + label.len() as u64;
            let done = on_seed(Config::new(seed, seed), |world| async move {
                let (node, atlas) = add(&world);
                let mut rng = seed::stream(seed, "harness", &[]);
                for n in 0..6 {
                    let when = if rng.chance(1, 2) { When::Before } else { When::After };
                    let law = [PowerLaw::Lost, PowerLaw::Prefix, PowerLaw::Subset][n % 3];
                    let fault = world.arm(CrashPoint {
                        target: Target::Node("broker".into()),
                        label: label.into(),
                        when,
                        nth: rng.range(1, 60),
                        partition: None,
                        then: Then::Power(law),
                        recover_after: Some(Duration::from_millis(1)),
                    });
                    world.sleep(Duration::from_millis(40)).await;
                    world.heal(fault);
                    // A process crash as well, so that a swap is found half done in the page cache.
                    world.sleep(Duration::from_micros(rng.range(0, 30_000))).await;
                    world.crash(node);
                    world.restart(node);
                }
                world.sleep(Duration::from_millis(30)).await;
                assert!(atlas.borrow().verified >= 4);
                atlas.borrow().swaps
            });
            swaps += done.unwrap_or_else(|failed| panic!("{label} step {step}: {failed}")).value;
        }
    }
    assert!(swaps > 50, "{swaps} passes");
}

/// A leader and a follower, each with a cleaner of its own; the follower copies what it is given.
async fn two_replicas(seed: u64) -> u32 {
    let node = PartitionConfig { node_id: 2, ..config() };
    let leader = Partition::open(id(), "/data/leader".into(), config(), 1, Failure::default()).await.unwrap();
    let follower =
        Partition::recover(id(), "/data/follower".into(), node, Some(0), None, Failure::default()).await.unwrap();
    follower.follow(Following { leader_epoch: 1, partition_epoch: 0, leader: Some(1) }).await;
    let mut rng = seed::stream(seed, "test", &[]);
    let (mut sequence, mut compared) = (0, 0);
    for round in 0..60 {
        for _ in 0..rng.range(1, 12) {
            let value = (!rng.chance(1, 8)).then_some(sequence as u64);
            let a = Acked { producer: 7, epoch: 0, sequence, key: rng.range(0, KEYS), value, offset: -1 };
            leader.append(batch(&a), Origin::Client, Acks::All).await.unwrap();
            sequence += 1;
        }
        // It may be behind by more than the leader has left uncompacted.
        for _ in 0..rng.range(0, 20) {
            let data = leader.read(follower.log_end_offset(), 500, Isolation::Replica).await.unwrap();
            follower.replicate(1, data.records, data.high_watermark).await.unwrap();
        }
        for p in [&leader, &follower] {
            if rng.chance(1, 3)
                && let Some(dirty) = p.reader().cleaner().dirty(&cleaner(), round)
            {
                p.clean(dirty, &cleaner()).await.unwrap();
            }
        }
        let (mine, theirs) =
            (records(&leader, Isolation::ReadUncommitted).await, records(&follower, Isolation::ReadUncommitted).await);
        for (offset, record) in &theirs {
            if let Some(same) = mine.get(offset) {
                assert_eq!(record, same, "at {offset}");
                compared += 1;
            }
        }
        let upper = follower.high_watermark();
        let newest = |of: &BTreeMap<Offset, (u64, Option<u64>)>| -> BTreeMap<u64, (Offset, Option<u64>)> {
            of.range(..upper).map(|(o, (k, v))| (*k, (*o, *v))).collect()
        };
        for (key, (offset, value)) in newest(&mine) {
            if value.is_none() {
                continue;
            }
            let kept = newest(&theirs).get(&key).map(|(o, _)| *o);
            assert!(kept.is_some_and(|o| o >= offset), "key {key} of {offset} is not on the follower: {kept:?}");
        }
        env::time::sleep(Duration::from_millis(1)).await;
    }
    compared
}

#[test]
fn replicas_that_compact_on_their_own_agree() {
    for seed in 0..20 {
        let done = on_seed(Config::new(seed, seed), |world| async move {
            let compared = Rc::new(RefCell::new(0));
            let for_node = Rc::clone(&compared);
            let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
            world.add_node("broker", "broker", ip, move || {
                let for_node = Rc::clone(&for_node);
                async move {
                    let n = two_replicas(seed).await;
                    *for_node.borrow_mut() = n;
                }
            });
            world.sleep(Duration::from_secs(5)).await;
            assert!(*compared.borrow() > 100, "compared {}", compared.borrow());
        });
        done.unwrap_or_else(|failed| panic!("seed {seed}: {failed}"));
    }
}

/// What the leader has given up goes on its follower too; one that is behind all there is begins anew.
async fn starts_move() {
    let (leader_dir, follower_dir) = ("/data/leader", "/data/follower");
    let leader = Partition::open(id(), leader_dir.into(), config(), 1, Failure::default()).await.unwrap();
    let follow = async || {
        let node = PartitionConfig { node_id: 2, ..config() };
        let follower = Partition::recover(id(), follower_dir.into(), node, Some(0), None, Failure::default());
        let follower = follower.await.unwrap();
        follower.follow(Following { leader_epoch: 1, partition_epoch: 0, leader: Some(1) }).await;
        follower
    };
    let append = async |from: i32, n: i32| {
        for sequence in from..from + n {
            let value = Some(sequence as u64);
            let a = Acked { producer: 7, epoch: 0, sequence, key: 1, value, offset: -1 };
            leader.append(batch(&a), Origin::Client, Acks::All).await.unwrap();
        }
    };
    append(0, 60).await;
    let retention = RetentionConfig { retention_bytes: Some(4_000), ..RetentionConfig::default() };
    let start = leader.reader().retained_from(&retention, 0).unwrap();
    assert_eq!(leader.start_at(start).await, Ok(start));
    let follower = follow().await;
    let behind = leader.read(follower.log_end_offset(), 500, Isolation::Replica).await;
    assert_eq!(behind.map(|_| ()), Err(ErrorCode::OFFSET_OUT_OF_RANGE));
    assert_eq!(follower.reset(1, start).await.map(|p| (p.end, p.last_epoch)), Ok((start, None)));
    assert_eq!((follower.log_start_offset(), follower.high_watermark()), (start, start));
    let catch_up = async |follower: &Partition| {
        while follower.log_end_offset() < leader.log_end_offset() {
            let data = leader.read(follower.log_end_offset(), 500, Isolation::Replica).await.unwrap();
            follower.replicate(1, data.records, data.high_watermark).await.unwrap();
        }
    };
    catch_up(&follower).await;
    assert_eq!(
        records(&follower, Isolation::ReadUncommitted).await,
        records(&leader, Isolation::ReadUncommitted).await
    );
    append(60, 30).await;
    catch_up(&follower).await;
    // Not one of its own segments' beginnings.
    assert_eq!(follower.start_at(start + 5).await, Ok(start + 5));
    assert_eq!(follower.start_at(1_000).await, Ok(follower.high_watermark()), "what is committed bounds it");
    let expected = follower.log_start_offset();
    follower.close().await.unwrap();
    assert_eq!(follow().await.log_start_offset(), expected);
}

#[test]
fn a_follower_takes_over_where_its_leaders_log_begins() {
    let done = on_seed(Config::new(1, 1), |world| async move {
        let ended = Rc::new(RefCell::new(false));
        let for_node = Rc::clone(&ended);
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        world.add_node("broker", "broker", ip, move || {
            let for_node = Rc::clone(&for_node);
            async move {
                starts_move().await;
                *for_node.borrow_mut() = true;
            }
        });
        world.sleep(Duration::from_secs(5)).await;
        assert!(*ended.borrow());
    });
    done.unwrap_or_else(|failed| panic!("{failed}"));
}
