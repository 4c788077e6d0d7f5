//! A partition on a simulated disk that loses power again and again: what was acknowledged with `flush=fsync` is there,
//! once, in order, with the producer state and the transactions it implies; bounds that were seen never go back.
//!
//! Segments are tiny, so most stops hit near a roll. Power is lost at drawn times, and before and after every n-th disk
//! operation.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use log::{LogConfig, Marker, Offset, Origin, TransactionVersion};
use protocol::batch::{BatchBuilder, ControlRecord, ControlType, Limits, Record, decode_records, split};
use protocol::{ErrorCode, Uuid};
use streamproof_broker::partition::{Acks, Isolation, Partition, PartitionConfig, TopicPartition};
use streamproof_broker::{Failure, Flush, Metrics};
use world::{Config, CrashPoint, PowerLaw, Target, Then, When, World, on_seed};

/// The transactional producer; the others are one a life.
const TXN: i64 = 1;

/// What the outside knows.
#[derive(Default)]
struct Atlas {
    lives: i64,
    values: u64,
    /// Acknowledged values by offset.
    acked: BTreeMap<Offset, u64>,
    /// The last acknowledged batch of the last life: producer, sequence, value, offset.
    last: Option<(i64, i32, u64, Offset)>,
    high_watermark: Offset,
    last_stable: Offset,
    verified: u32,
    ran: u32,
    /// Something acknowledged was not there.
    lost: bool,
}

type Shared = Rc<RefCell<Atlas>>;

async fn open(flush: Flush) -> Option<Partition> {
    let id = TopicPartition { topic: "t".into(), topic_id: Uuid::from_u128(1), partition: 0 };
    let log = LogConfig {
        segment_bytes: 6_000,
        index_interval_bytes: 500,
        checksum_sync_pages: 1,
        tail_cache_bytes: 1_000,
        ..LogConfig::default()
    };
    let config = PartitionConfig {
        log,
        flush,
        node_id: 1,
        max_queued_bytes: 1 << 20,
        lag_max: Duration::from_secs(10),
        metrics: Metrics::default(),
    };
    Partition::open(id, "/data/t-0".into(), config, 1, Failure::default()).await.ok()
}

fn batch(producer_id: i64, epoch: i16, sequence: i32, value: u64, padding: usize) -> Bytes {
    let mut b = BatchBuilder::new().producer(producer_id, epoch, sequence);
    if producer_id == TXN {
        b = b.transactional();
    }
    let mut v = BytesMut::new();
    v.put_u64(value);
    v.put_bytes(value as u8, padding);
    b.push(&Record { value: Some(v.freeze()), ..Record::default() });
    b.build()
}

fn note_bounds(p: &Partition, atlas: &Shared) {
    let mut a = atlas.borrow_mut();
    assert!(
        p.high_watermark() >= a.high_watermark,
        "high watermark went back: {} to {}",
        a.high_watermark,
        p.high_watermark()
    );
    assert!(p.last_stable_offset() >= a.last_stable, "last stable offset went back");
    (a.high_watermark, a.last_stable) = (p.high_watermark(), p.last_stable_offset());
}

/// Reads the whole log and compares it with what is known. Returns the transactional producer's epoch and whether its
/// transaction is open.
async fn verify(p: &Partition, atlas: &Shared, strong: bool) -> (i16, bool) {
    let mut values: BTreeMap<Offset, u64> = BTreeMap::new();
    let (mut epoch, mut open) = (0, None);
    let mut aborted = BTreeSet::new();
    let mut told = BTreeSet::new();
    let mut next = 0;
    while next < p.high_watermark() {
        let data = p.read(next, 2_000, Isolation::ReadUncommitted).await.unwrap();
        for part in split(data.records) {
            let (header, bytes) = part.unwrap();
            header.verify_crc(&bytes).unwrap();
            assert_eq!(header.base_offset, next, "offsets are contiguous");
            next = header.next_offset();
            if header.producer_id == TXN {
                epoch = header.producer_epoch;
            }
            for record in decode_records(&bytes, &Limits::default()).unwrap() {
                if let (true, Ok(Some(control))) = (header.is_control(), ControlRecord::decode(&record)) {
                    let first = open.take();
                    if let (ControlType::Abort, Some(first)) = (control.control_type, first) {
                        aborted.insert(first);
                    }
                    continue;
                }
                if header.is_transactional() {
                    open.get_or_insert(record.offset);
                }
                let value = record.value.unwrap();
                values.insert(record.offset, u64::from_be_bytes(value[..8].try_into().unwrap()));
            }
        }
    }
    let mut at = 0;
    while at < p.last_stable_offset() {
        let data = p.read(at, 2_000, Isolation::ReadCommitted).await.unwrap();
        told.extend(data.aborted.iter().map(|t| t.first_offset));
        at = split(data.records).flatten().last().unwrap().0.next_offset();
    }
    assert_eq!(told, aborted, "aborted transactions that readers hear of");
    assert_eq!(p.last_stable_offset(), open.unwrap_or(p.high_watermark()));
    assert_eq!(values.values().collect::<BTreeSet<_>>().len(), values.len(), "a value is there twice");
    if strong {
        for (offset, value) in &atlas.borrow().acked {
            assert_eq!(values.get(offset), Some(value), "acknowledged at {offset}");
        }
        note_bounds(p, atlas);
        let last = atlas.borrow().last;
        if let Some((producer, sequence, value, offset)) = last {
            let again = p.append(batch(producer, 0, sequence, value, 50), Origin::Client, Acks::All).await;
            assert_eq!(again.map(|a| a.base_offset), Ok(offset), "a retry after the restart is a duplicate");
        }
    }
    let mut a = atlas.borrow_mut();
    if !strong {
        a.lost |= a.acked.iter().any(|(offset, value)| values.get(offset) != Some(value));
        (a.high_watermark, a.last_stable) = (p.high_watermark(), p.last_stable_offset());
    }
    a.verified += 1;
    (epoch, open.is_some())
}

async fn life(atlas: Shared, flush: Flush) {
    let Some(p) = open(flush).await else { return };
    let (mut epoch, open_txn) = verify(&p, &atlas, flush == Flush::Fsync).await;
    let producer = {
        let mut a = atlas.borrow_mut();
        a.lives += 1;
        a.lives + 100
    };
    let marker = |epoch: i16, commit| Marker {
        producer_id: TXN,
        producer_epoch: epoch + 1,
        commit,
        coordinator_epoch: 0,
        version: TransactionVersion::V2,
    };
    if open_txn && p.append_marker(marker(epoch, false)).await.is_err() {
        return;
    }
    // As InitProducerId would: whatever a delayed copy of the last life still carries is fenced.
    epoch += 2;
    let mut rng = env::rng::stream("test");
    let (mut sequence, mut txn_sequence, mut in_txn) = (0, 0, false);
    loop {
        let mut pending = Vec::new();
        // One below what a log remembers: the batch acknowledged last is among them.
        for _ in 0..rng.range(1, 4) {
            let value = {
                let mut a = atlas.borrow_mut();
                a.values += 1;
                a.values
            };
            let padding = if rng.chance(1, 10) { rng.range(0, 7_000) } else { rng.range(0, 600) } as usize;
            let txn = rng.chance(1, 3);
            let (b, s) = if txn {
                in_txn = true;
                txn_sequence += 1;
                (batch(TXN, epoch, txn_sequence - 1, value, padding), txn_sequence - 1)
            } else {
                sequence += 1;
                (batch(producer, 0, sequence - 1, value, padding), sequence - 1)
            };
            pending.push((txn, s, value, p.enqueue(b, Origin::Client, Acks::All, p.ask(TXN, epoch)).unwrap()));
        }
        for (txn, s, value, answer) in pending {
            let done = match answer.await {
                Ok(done) => done,
                Err(error) => {
                    // A full disk refuses; a failed sync stops the partition. Sequences after it do not fit any more.
                    let expected = [
                        ErrorCode::NOT_ENOUGH_REPLICAS,
                        ErrorCode::KAFKA_STORAGE_ERROR,
                        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
                    ];
                    assert!(expected.contains(&error), "{error}");
                    return;
                }
            };
            let mut a = atlas.borrow_mut();
            a.acked.insert(done.base_offset, value);
            if !txn {
                a.last = Some((producer, s, value, done.base_offset));
            }
            drop(a);
            note_bounds(&p, &atlas);
        }
        if in_txn && rng.chance(1, 2) {
            if p.append_marker(marker(epoch, rng.chance(1, 2))).await.is_err() {
                return;
            }
            (epoch, txn_sequence, in_txn) = (epoch + 1, 0, false);
        }
        note_bounds(&p, &atlas);
        atlas.borrow_mut().ran += 1;
        env::time::sleep(Duration::from_micros(rng.range(0, 2_000))).await;
    }
}

fn add(world: &World, flush: Flush) -> (world::NodeId, Shared) {
    let atlas = Shared::default();
    let for_node = Rc::clone(&atlas);
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let node = world.add_node("broker", "broker", ip, move || life(Rc::clone(&for_node), flush));
    (node, atlas)
}

#[test]
fn nothing_acknowledged_is_lost_when_power_goes_at_any_time() {
    let mut ran = 0;
    for seed in 0..60 {
        let done = on_seed(Config::new(seed, seed), |world| async move {
            let (node, atlas) = add(&world, Flush::Fsync);
            let mut rng = seed::stream(seed, "harness", &[]);
            for _ in 0..12 {
                // Half of the lives end while they recover or soon after: what a process crash left in the page cache must
                // be durable before it counts.
                let most = if rng.chance(1, 2) { 4_000 } else { 40_000 };
                world.sleep(Duration::from_micros(rng.range(0, most))).await;
                let troubled = match rng.range(0, 9) {
                    0 => Some(world.disk(node).fail_syncs(1)),
                    1 => Some(world.disk(node).full_now()),
                    _ => None,
                };
                if troubled.is_some() {
                    world.sleep(Duration::from_micros(rng.range(0, 3_000))).await;
                }
                if rng.chance(1, 3) {
                    world.crash(node);
                } else {
                    world.power_loss(node, PowerLaw::Any);
                }
                if let Some(fault) = troubled {
                    world.heal(fault);
                }
                world.restart(node);
            }
            world.sleep(Duration::from_millis(50)).await;
            let a = atlas.borrow();
            assert!(a.verified >= 4, "only {} lives came up", a.verified);
            a.ran
        });
        ran += done.unwrap_or_else(|failed| panic!("seed {seed}: {failed}")).value;
    }
    assert!(ran > 1_000, "only {ran} rounds");
}

#[test]
fn nothing_acknowledged_is_lost_when_power_goes_around_any_disk_operation() {
    for label in ["disk.write", "disk.sync", "disk.open", "disk.set_len", "append", "roll", "flush", "publish", "ack"] {
        for when in [When::Before, When::After] {
            for step in 0..12 {
                let seed = step * 31 + label.len() as u64;
                let done = on_seed(Config::new(seed, seed), |world| async move {
                    let (_, atlas) = add(&world, Flush::Fsync);
                    let law = [PowerLaw::Lost, PowerLaw::Prefix, PowerLaw::Subset][step as usize % 3];
                    for n in 0..6 {
                        let fault = world.arm(CrashPoint {
                            target: Target::Node("broker".into()),
                            label: label.into(),
                            when,
                            nth: 1 + step + 17 * n,
                            partition: None,
                            then: Then::Power(law),
                            recover_after: Some(Duration::from_millis(1)),
                        });
                        world.sleep(Duration::from_millis(30)).await;
                        world.heal(fault);
                    }
                    world.sleep(Duration::from_millis(30)).await;
                    assert!(atlas.borrow().verified >= 1, "no life came up");
                });
                done.unwrap_or_else(|failed| panic!("{label} {when:?} step {step}: {failed}"));
            }
        }
    }
}

/// 1. appended, not synced; 2. process crash, the page cache stays; 3. restart, readers see it; 4. power loss.
#[test]
fn what_a_restart_shows_is_durable() {
    for seed in 0..40 {
        let done = on_seed(Config::new(seed, seed), |world| async move {
            let (node, atlas) = add(&world, Flush::Fsync);
            let mut rng = seed::stream(seed, "harness", &[]);
            for _ in 0..4 {
                world.sleep(Duration::from_micros(rng.range(4_000, 12_000))).await;
                world.crash(node);
                let verified = atlas.borrow().verified;
                world.restart(node);
                for _ in 0..1_000 {
                    world.sleep(Duration::from_micros(10)).await;
                    if atlas.borrow().verified > verified {
                        break;
                    }
                }
                world.power_loss(node, PowerLaw::Lost);
                world.restart(node);
            }
        });
        done.unwrap_or_else(|failed| panic!("seed {seed}: {failed}"));
    }
}

/// The canary's own test: without a flush, acknowledged batches do get lost, so the test above can see it.
#[test]
fn page_cache_acknowledgement_loses_what_it_acknowledged() {
    let lost = (0..20).any(|seed| {
        let done = on_seed(Config::new(seed, seed), |world| async move {
            let (node, atlas) = add(&world, Flush::PageCache);
            world.sleep(Duration::from_millis(30)).await;
            world.power_loss(node, PowerLaw::Lost);
            world.restart(node);
            world.sleep(Duration::from_millis(20)).await;
            atlas.borrow().lost
        });
        done.unwrap_or_else(|failed| panic!("seed {seed}: {failed}")).value
    });
    assert!(lost, "no seed lost anything");
}
