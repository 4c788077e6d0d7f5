//! Compacted logs on real files, against a model that keeps every record: readers find the newest of each key and nothing
//! that was aborted, and what is derived from a log is what it was, also when it is read anew.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use env::clock::Instant;
use env::disk;
use proptest::prelude::*;
use protocol::batch::{BatchBuilder, ControlRecord, ControlType, Limits, Record, decode_records, split};
use streamproof_log::{CleanerConfig, Log, LogConfig, Marker, Offset, Origin, TransactionVersion, Verdict};

const NOW: Instant = Instant::from_nanos(1_000_000_000);
const DELETE_RETENTION_MS: u64 = 1_000;

fn on_node<F: Future>(f: impl FnOnce(PathBuf) -> F) -> F::Output {
    let dir = tempfile::tempdir().unwrap();
    env::node::run_real(f(dir.path().join("t-0"))).unwrap()
}

fn small() -> LogConfig {
    LogConfig { segment_bytes: 1_500, index_interval_bytes: 200, tail_cache_bytes: 400, ..LogConfig::default() }
}

fn cleaner() -> CleanerConfig {
    CleanerConfig {
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: DELETE_RETENTION_MS,
        ..CleanerConfig::default()
    }
}

/// A whole pass; false if there was nothing to do.
async fn clean(log: &mut Log, config: &CleanerConfig, now_ms: i64) -> bool {
    let cleaner = log.reader().cleaner();
    let Some(dirty) = cleaner.dirty(config, now_ms) else { return false };
    let mut pass = cleaner.begin(dirty, config, now_ms, NOW).await.unwrap().unwrap();
    while let Some(cleaned) = pass.next().await.unwrap() {
        assert!(log.swap_begin(&cleaned).await.unwrap());
        log.swap_remove(&cleaned).await.unwrap();
        log.swap_finish(cleaned).await.unwrap();
    }
    assert!(pass.is_complete());
    log.cleaned_to(pass.end()).await.unwrap();
    true
}

fn keyed(builder: BatchBuilder, records: &[(&[u8], Option<u64>)]) -> Bytes {
    let mut builder = builder;
    for (key, value) in records {
        builder.push(&Record {
            timestamp: 10,
            key: Some(Bytes::copy_from_slice(key)),
            value: value.map(|v| {
                let mut bytes = v.to_be_bytes().to_vec();
                bytes.resize(60, 0);
                bytes.into()
            }),
            ..Record::default()
        });
    }
    builder.build()
}

fn plain(records: &[(&[u8], Option<u64>)]) -> Bytes {
    keyed(BatchBuilder::new(), records)
}

fn marker(producer_id: i64, producer_epoch: i16, commit: bool) -> Marker {
    Marker { producer_id, producer_epoch, commit, coordinator_epoch: 0, version: TransactionVersion::V2 }
}

async fn append(log: &mut Log, batch: Bytes) -> Offset {
    log.append(batch, 1, NOW).await.unwrap().first
}

async fn end(log: &mut Log, marker: Marker) -> Offset {
    log.append_marker(&marker, 1, 10, NOW).await.unwrap().first
}

/// As a node that leads alone: all that is written is committed.
async fn settle(log: &mut Log) {
    let synced = log.flusher().await;
    log.flushed(synced).await.unwrap();
    log.stable_to(log.end_offset());
}

/// A record as a reader sees it.
type Seen = (Offset, Bytes, Option<u64>);

/// What is in the log: data records, as read_committed shows them, and markers.
#[derive(Debug, Default, PartialEq)]
struct Contents {
    all: Vec<Seen>,
    committed: Vec<Seen>,
    markers: Vec<(Offset, i64)>,
    /// (base offset, last offset, producer, whether it has records) of each data batch.
    batches: Vec<(Offset, Offset, i64, bool)>,
}

/// Reads as a consumer does, in answers of `max_bytes`.
async fn read(log: &Log, max_bytes: usize) -> Contents {
    let reader = log.reader();
    let stable = log.first_unstable_offset().unwrap_or(log.end_offset());
    let mut found = Contents::default();
    let mut next = log.start_offset();
    let mut aborting = BTreeSet::new();
    loop {
        let bytes = reader.read(next, max_bytes, Offset::MAX).await.unwrap();
        if bytes.is_empty() {
            break;
        }
        let last = split(bytes.clone()).last().unwrap().unwrap().0.next_offset();
        let mut told: BTreeMap<Offset, i64> =
            reader.aborted_transactions(next, last).iter().map(|t| (t.first_offset, t.producer_id)).collect();
        for part in split(bytes) {
            let (header, bytes) = part.unwrap();
            header.verify_crc(&bytes).unwrap();
            assert!(header.next_offset() > next, "batches come in order");
            next = header.next_offset();
            let later = told.split_off(&(header.last_offset() + 1));
            aborting.extend(std::mem::replace(&mut told, later).into_values());
            let records = decode_records(&bytes, &Limits::default()).unwrap();
            if header.is_control() {
                let Some(record) = records.first() else { continue };
                found.markers.push((header.base_offset, header.producer_id));
                if ControlRecord::decode(record).unwrap().unwrap().control_type == ControlType::Abort {
                    aborting.remove(&header.producer_id);
                }
                continue;
            }
            let hidden = header.is_transactional() && aborting.contains(&header.producer_id);
            found.batches.push((header.base_offset, header.last_offset(), header.producer_id, !records.is_empty()));
            for r in records {
                let value = r.value.map(|v| u64::from_be_bytes(v[..8].try_into().unwrap()));
                let seen = (r.offset, r.key.unwrap(), value);
                if !hidden && r.offset < stable {
                    found.committed.push(seen.clone());
                }
                found.all.push(seen);
            }
        }
    }
    found
}

fn newest(records: &[Seen]) -> BTreeMap<Bytes, (Offset, Option<u64>)> {
    records.iter().map(|(offset, key, value)| (key.clone(), (*offset, *value))).collect()
}

async fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let names = disk::read_dir(dir).await.unwrap().into_iter().map(|e| dir.join(e.name));
    names.filter(|p| p.extension().is_some_and(|e| e == extension)).collect()
}

#[test]
fn the_newest_record_of_each_key_stays_where_it_was() {
    on_node(|dir| async move {
        let (mut log, _) = Log::open(&dir, small(), NOW).await.unwrap();
        for i in 0..60u64 {
            let key = [b'a' + (i % 3) as u8];
            append(&mut log, plain(&[(&key, Some(i)), (b"other", Some(i))])).await;
        }
        log.roll(NOW).await.unwrap();
        append(&mut log, plain(&[(b"last", Some(0))])).await;
        settle(&mut log).await;
        let before = read(&log, 1 << 20).await;
        let segments = files(&dir, "log").await.len();
        assert!(clean(&mut log, &cleaner(), 0).await);
        assert!(!clean(&mut log, &cleaner(), 0).await, "nothing is dirty any more");
        for _ in 0..2 {
            let after = read(&log, 300).await;
            assert_eq!(after, read(&log, 1 << 20).await);
            assert_eq!(
                after.all,
                [
                    (114, Bytes::from_static(b"a"), Some(57)),
                    (116, Bytes::from_static(b"b"), Some(58)),
                    (118, Bytes::from_static(b"c"), Some(59)),
                    (119, Bytes::from_static(b"other"), Some(59)),
                    (120, Bytes::from_static(b"last"), Some(0)),
                ]
            );
            assert_eq!(newest(&after.all), newest(&before.all));
            assert_eq!(log.reader().offset_for_timestamp(0, 121).await.unwrap(), Some((10, 114)));
            drop(log);
            let (opened, found) = Log::open(&dir, small(), NOW).await.unwrap();
            assert_eq!((found.end, found.rebuilt, found.cut), (121, 0, None));
            log = opened;
        }
        assert_eq!(append(&mut log, plain(&[(b"a", Some(1_000))])).await, 121);
        log.roll(NOW).await.unwrap();
        append(&mut log, plain(&[(b"last", Some(1))])).await;
        settle(&mut log).await;
        assert!(clean(&mut log, &cleaner(), 0).await);
        assert!(files(&dir, "log").await.len() < segments / 2, "what has become small was joined");
        assert_eq!(newest(&read(&log, 300).await.all)[&b"a"[..]], (121, Some(1_000)));
    });
}

#[test]
fn tombstones_stay_until_their_horizon_and_take_what_is_older_with_them() {
    on_node(|dir| async move {
        let (mut log, _) = Log::open(&dir, small(), NOW).await.unwrap();
        append(&mut log, plain(&[(b"k", Some(1)), (b"stays", Some(2))])).await;
        append(&mut log, plain(&[(b"k", None)])).await;
        let mut i = 10;
        let mut dirt = async |log: &mut Log| {
            log.roll(NOW).await.unwrap();
            append(log, plain(&[(b"dirt", Some(i))])).await;
            settle(log).await;
            i += 1;
        };
        dirt(&mut log).await;
        clean(&mut log, &cleaner(), 5_000).await;
        let offsets = async |log: &Log| read(log, 1 << 20).await.all.iter().map(|r| r.0).collect::<Vec<_>>();
        assert_eq!(offsets(&log).await, [1, 2, 3], "the tombstone is there for readers on their way");
        dirt(&mut log).await;
        clean(&mut log, &cleaner(), 5_999).await;
        assert_eq!(offsets(&log).await, [1, 2, 3, 4]);
        dirt(&mut log).await;
        clean(&mut log, &cleaner(), 6_000).await;
        assert_eq!(offsets(&log).await, [1, 4, 5]);
    });
}

#[test]
fn markers_go_after_the_last_of_their_transaction_and_never_by_a_users_key() {
    on_node(|dir| async move {
        let (mut log, _) = Log::open(&dir, small(), NOW).await.unwrap();
        let txn = |epoch, sequence| BatchBuilder::new().producer(7, epoch, sequence).transactional();
        // The first batch of the leader epoch, whose header stays.
        append(&mut log, plain(&[(b"first", Some(0))])).await;
        append(&mut log, keyed(txn(0, 0), &[(b"k", Some(1))])).await;
        let first = end(&mut log, marker(7, 1, true)).await;
        append(&mut log, keyed(txn(1, 0), &[(b"k", Some(2))])).await;
        let second = end(&mut log, marker(7, 2, false)).await;
        // The key of a commit marker, and of an abort marker: version 0, type 1 and 0 (KAFKA-14055).
        append(&mut log, plain(&[(&[0, 0, 0, 1], Some(3)), (&[0, 0, 0, 0], Some(4))])).await;
        let mut i = 10;
        let mut dirt = async |log: &mut Log| {
            log.roll(NOW).await.unwrap();
            append(log, plain(&[(b"dirt", Some(i))])).await;
            settle(log).await;
            i += 1;
        };
        let markers = async |log: &Log| read(log, 1 << 20).await.markers.iter().map(|m| m.0).collect::<Vec<_>>();
        for now in [1_000, 9_000, 19_000] {
            dirt(&mut log).await;
            clean(&mut log, &cleaner(), now).await;
            assert_eq!(markers(&log).await, [first, second], "one has a record, one is the producer's last");
            assert_eq!(newest(&read(&log, 1 << 20).await.committed)[&b"k"[..]], (1, Some(1)));
        }
        append(&mut log, plain(&[(b"k", Some(5))])).await;
        append(&mut log, keyed(txn(2, 0), &[(b"k", Some(6))])).await;
        let third = end(&mut log, marker(7, 3, true)).await;
        dirt(&mut log).await;
        clean(&mut log, &cleaner(), 20_000).await;
        assert_eq!(markers(&log).await, [first, second, third], "its record went in this very pass");
        dirt(&mut log).await;
        clean(&mut log, &cleaner(), 20_500).await;
        assert_eq!(markers(&log).await, [first, second, third], "until the horizon");
        dirt(&mut log).await;
        clean(&mut log, &cleaner(), 25_000).await;
        assert_eq!(markers(&log).await, [third]);
    });
}

#[test]
fn a_producers_last_batch_tells_retries_after_all_its_records_went() {
    on_node(|dir| async move {
        let (mut log, _) = Log::open(&dir, small(), NOW).await.unwrap();
        for sequence in 0..3 {
            let b = BatchBuilder::new().producer(7, 4, sequence);
            append(&mut log, keyed(b, &[(b"k", Some(sequence as u64))])).await;
        }
        // The same sequence in an earlier and a later epoch is not the last batch (KAFKA-8335).
        append(&mut log, keyed(BatchBuilder::new().producer(7, 5, 0), &[(b"k", Some(7))])).await;
        append(&mut log, plain(&[(b"k", Some(9))])).await;
        log.roll(NOW).await.unwrap();
        append(&mut log, plain(&[(b"last", Some(0))])).await;
        settle(&mut log).await;
        assert!(clean(&mut log, &cleaner(), 0).await);
        let batches = read(&log, 1 << 20).await.batches;
        // The first is where the leader epoch begins.
        assert_eq!(batches, [(0, 0, 7, false), (3, 3, 7, false), (4, 4, -1, true), (5, 5, -1, true)]);
        drop(log);
        for extension in ["snapshot", "index"] {
            for path in files(&dir, extension).await {
                disk::remove_file(path).await.unwrap();
            }
        }
        let (log, _) = Log::open(&dir, small(), NOW).await.unwrap();
        let again = keyed(BatchBuilder::new().producer(7, 5, 0), &[(b"k", Some(7))]);
        let header = protocol::batch::BatchHeader::parse(&again).unwrap();
        let verdict = log.producers().check(&header, Origin::Client, NOW);
        assert_eq!(verdict, Ok(Verdict::Duplicate { first: 3, last: 3 }));
    });
}

#[test]
fn a_swap_that_a_stop_interrupts_is_finished_and_no_retry_is_forgotten() {
    for steps in 0..4 {
        on_node(|dir| async move {
            let (mut log, _) = Log::open(&dir, small(), NOW).await.unwrap();
            append(&mut log, plain(&[(b"first", Some(0))])).await;
            let sent = |sequence| keyed(BatchBuilder::new().producer(7, 0, sequence), &[(b"k", Some(sequence as u64))]);
            for sequence in 0..5 {
                append(&mut log, sent(sequence)).await;
            }
            for i in 0..20u64 {
                append(&mut log, plain(&[(b"k", Some(100 + i))])).await;
            }
            log.roll(NOW).await.unwrap();
            append(&mut log, plain(&[(b"last", Some(0))])).await;
            settle(&mut log).await;
            let before = read(&log, 1 << 20).await;
            let reader = log.reader().cleaner();
            let dirty = reader.dirty(&cleaner(), 0).unwrap();
            let mut pass = reader.begin(dirty, &cleaner(), 0, NOW).await.unwrap().unwrap();
            let cleaned = pass.next().await.unwrap().unwrap();
            let (base, end) = cleaned.range();
            if steps > 0 {
                assert!(log.swap_begin(&cleaned).await.unwrap());
            }
            if steps > 1 {
                log.swap_remove(&cleaned).await.unwrap();
            }
            if steps > 2 {
                log.swap_finish(cleaned).await.unwrap();
                for extension in ["index", "timeindex", "txnindex", "pages"] {
                    for path in files(&dir, extension).await {
                        disk::remove_file(path).await.unwrap();
                    }
                }
            }
            drop(log);
            let (log, _) = Log::open(&dir, small(), NOW).await.unwrap();
            let after = read(&log, 1 << 20).await;
            assert_eq!(newest(&after.all), newest(&before.all), "after {steps} steps of [{base}, {end})");
            assert_eq!(after.all.len() < before.all.len(), steps > 0, "after {steps} steps");
            assert_eq!(files(&dir, "cleaned").await, Vec::<PathBuf>::new());
            assert_eq!(files(&dir, "swap").await, Vec::<PathBuf>::new());
            for sequence in 0..5 {
                let header = protocol::batch::BatchHeader::parse(&sent(sequence)).unwrap();
                let verdict = log.producers().check(&header, Origin::Client, NOW);
                let at = Offset::from(sequence) + 1;
                assert_eq!(verdict, Ok(Verdict::Duplicate { first: at, last: at }), "after {steps} steps");
            }
        });
    }
}

#[test]
fn what_may_be_truncated_is_not_cleaned_by_nor_does_it_shadow_anything() {
    on_node(|dir| async move {
        let (mut log, _) = Log::open_from(&dir, small(), 0, NOW).await.unwrap();
        append(&mut log, plain(&[(b"k", Some(1))])).await;
        log.roll(NOW).await.unwrap();
        append(&mut log, plain(&[(b"k", Some(2))])).await;
        log.roll(NOW).await.unwrap();
        append(&mut log, plain(&[(b"other", Some(3))])).await;
        let synced = log.flusher().await;
        log.flushed(synced).await.unwrap();
        // Only the first record is below the high watermark, and the second lies in a closed segment (KAFKA-13194).
        log.stable_to(1);
        clean(&mut log, &cleaner(), 0).await;
        log.truncate_to(1, NOW).await.unwrap();
        assert_eq!(read(&log, 1 << 20).await.all, [(0, Bytes::from_static(b"k"), Some(1))]);
    });
}

#[test]
fn a_bound_of_before_a_truncation_is_not_cleaned_to() {
    on_node(|dir| async move {
        let (mut log, _) = Log::open_from(&dir, small(), 0, NOW).await.unwrap();
        append(&mut log, plain(&[(b"k", Some(1))])).await;
        log.roll(NOW).await.unwrap();
        append(&mut log, plain(&[(b"k", Some(2))])).await;
        log.roll(NOW).await.unwrap();
        append(&mut log, plain(&[(b"other", Some(3))])).await;
        settle(&mut log).await;
        let cleaner = (log.reader().cleaner(), self::cleaner());
        let dirty = cleaner.0.dirty(&cleaner.1, 0).unwrap();
        // While other logs are cleaned, this one is cut, and grows to the same segments: nobody has said that they are
        // committed.
        log.truncate_to(1, NOW).await.unwrap();
        append(&mut log, plain(&[(b"k", Some(4))])).await;
        log.roll(NOW).await.unwrap();
        append(&mut log, plain(&[(b"other", Some(5))])).await;
        assert!(cleaner.0.begin(dirty, &cleaner.1, 0, NOW).await.unwrap().is_none());
    });
}

#[test]
fn a_follower_takes_over_the_holes_and_its_end_stays_when_it_is_cut_in_one() {
    on_node(|dir| async move {
        let (mut leader, _) = Log::open(dir.join("leader"), small(), NOW).await.unwrap();
        for i in 0..40u64 {
            append(&mut leader, plain(&[(b"k", Some(i))])).await;
        }
        leader.append(plain(&[(b"other", Some(40))]), 2, NOW).await.unwrap();
        for i in 0..20u64 {
            leader.append(plain(&[(b"k", Some(i))]), 3, NOW).await.unwrap();
        }
        leader.roll(NOW).await.unwrap();
        leader.append(plain(&[(b"last", Some(0))]), 3, NOW).await.unwrap();
        settle(&mut leader).await;
        let epochs = leader.leader_epochs().clone();
        assert!(clean(&mut leader, &cleaner(), 0).await);
        let (mut follower, _) = Log::open(dir.join("follower"), small(), NOW).await.unwrap();
        loop {
            let more = leader.reader().read(follower.end_offset(), 200, Offset::MAX).await.unwrap();
            if more.is_empty() {
                break;
            }
            follower.append_replicated(more, NOW).await.unwrap();
        }
        settle(&mut follower).await;
        assert_eq!(follower.end_offset(), leader.end_offset());
        assert_eq!(read(&follower, 300).await, read(&leader, 300).await);
        assert_eq!(*follower.leader_epochs(), epochs, "where epochs begin is told by their first batches");
        follower.truncate_to(55, NOW).await.unwrap();
        assert_eq!(follower.end_offset(), 55, "offsets up to there were given once");
        for _ in 0..2 {
            drop(follower);
            (follower, _) = Log::open(dir.join("follower"), small(), NOW).await.unwrap();
            assert_eq!(follower.end_offset(), 55);
        }
        assert_eq!(follower.append(plain(&[(b"k", Some(99))]), 4, NOW).await.unwrap().first, 55);
    });
}

#[test]
fn the_start_moves_within_a_segment_and_stays_there() {
    on_node(|dir| async move {
        let (mut log, _) = Log::open(&dir, small(), NOW).await.unwrap();
        for i in 0..60u64 {
            append(&mut log, plain(&[(b"k", Some(i))])).await;
        }
        settle(&mut log).await;
        let segments = files(&dir, "log").await.len();
        assert_eq!(log.start_at(35).await.unwrap(), 35);
        assert_eq!(log.start_at(20).await.unwrap(), 35, "it never goes back");
        assert!(files(&dir, "log").await.len() < segments);
        assert!(log.reader().read(34, 100, 99).await.is_err());
        drop(log);
        let (mut log, _) = Log::open(&dir, small(), NOW).await.unwrap();
        assert_eq!(log.start_offset(), 35);
        assert_eq!(log.start_at(1_000).await.unwrap(), 60, "not past the high watermark");
        log.reset_to(500, NOW).await.unwrap();
        assert_eq!((log.start_offset(), log.end_offset()), (500, 500));
    });
}

/// A step of the random runs.
#[derive(Clone, Debug)]
enum Step {
    /// Records of keys, a value each unless it is a tombstone. Producer 0 has no identity, 1 and 2 are idempotent, 3 to 5
    /// are transactional.
    Data {
        producer: i64,
        keys: Vec<(u8, bool)>,
    },
    End {
        producer: i64,
        commit: bool,
    },
    Epoch,
    Roll,
    Clean {
        later_ms: u16,
        memory: u16,
    },
    Reopen {
        forget: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let keys = proptest::collection::vec((0u8..6, proptest::bool::weighted(0.2)), 1..5);
    prop_oneof![
        8 => (0i64..6, keys).prop_map(|(producer, keys)| Step::Data { producer, keys }),
        3 => (3i64..6, any::<bool>()).prop_map(|(producer, commit)| Step::End { producer, commit }),
        1 => Just(Step::Epoch),
        2 => Just(Step::Roll),
        2 => (0u16..1_500, 100u16..2_000).prop_map(|(later_ms, memory)| Step::Clean { later_ms, memory }),
        1 => any::<bool>().prop_map(|forget| Step::Reopen { forget }),
    ]
}

/// What the outside knows.
#[derive(Default)]
struct Model {
    /// Every record that was appended.
    records: BTreeMap<Offset, (Bytes, Option<u64>)>,
    /// Offsets that read_committed may see.
    committed: BTreeSet<Offset>,
    /// (epoch, next sequence) by producer.
    producers: BTreeMap<i64, (i16, i32)>,
    /// Offsets of open transactions.
    open: BTreeMap<i64, Vec<Offset>>,
    /// Epoch starts.
    epochs: Vec<(i32, Offset)>,
}

impl Model {
    fn newest(&self, stable: Offset) -> BTreeMap<Bytes, (Offset, Option<u64>)> {
        let seen = self.committed.range(..stable).map(|offset| {
            let (key, value) = &self.records[offset];
            (key.clone(), (*offset, *value))
        });
        seen.collect()
    }
}

async fn check(log: &Log, model: &Model) {
    let found = read(log, 700).await;
    for (offset, key, value) in &found.all {
        assert_eq!(model.records.get(offset), Some(&(key.clone(), *value)), "at {offset}");
    }
    for (offset, ..) in &found.committed {
        assert!(model.committed.contains(offset), "{offset} was aborted, or is not decided");
    }
    let stable = log.first_unstable_offset().unwrap_or(log.end_offset());
    let (seen, known) = (newest(&found.committed), model.newest(stable));
    for (key, (offset, value)) in &known {
        match seen.get(key) {
            Some(newest) => assert_eq!(newest, &(*offset, *value), "of {key:?}"),
            None => assert_eq!(*value, None, "{key:?} is gone and was not deleted"),
        }
    }
    assert!(seen.keys().all(|key| known.contains_key(key)));
    for (_, last, producer, has_records) in &found.batches {
        let open = model.open.get(producer).is_some_and(|open| open.contains(last));
        if (3..6).contains(producer) && !open && *has_records {
            assert!(found.markers.iter().any(|(at, p)| p == producer && at > last), "{last} has lost its marker");
        }
    }
    for (&producer, &(epoch, next)) in &model.producers {
        if next > 0 {
            let producers = log.producers();
            let entry = producers.get(producer, NOW).expect("a producer that is remembered");
            assert_eq!((entry.epoch(), entry.last_sequence()), (epoch, Some(next - 1)), "producer {producer}");
        }
    }
    let open: BTreeSet<Offset> = log.producers().open_transactions().map(|(first, _)| first).collect();
    let expected: BTreeSet<Offset> = model.open.values().filter_map(|o| o.first().copied()).collect();
    assert_eq!(open, expected, "open transactions");
    assert_eq!(log.leader_epochs().starts(), model.epochs);
}

async fn run(dir: PathBuf, steps: Vec<Step>) {
    let (mut log, _) = Log::open(&dir, small(), NOW).await.unwrap();
    let mut model = Model::default();
    let (mut value, mut now_ms, mut epoch) = (0, 0, 1);
    for step in steps {
        match step {
            Step::Data { producer, keys } => {
                let records: Vec<_> = keys
                    .iter()
                    .map(|(key, tombstone)| {
                        value += 1;
                        ([*key], (!tombstone).then_some(value))
                    })
                    .collect();
                let records: Vec<(&[u8], _)> = records.iter().map(|(key, value)| (&key[..], *value)).collect();
                let mut builder = BatchBuilder::new();
                if producer > 0 {
                    let (producer_epoch, next) = model.producers.entry(producer).or_default();
                    builder = builder.producer(producer, *producer_epoch, *next);
                    *next += records.len() as i32;
                }
                if producer > 2 {
                    builder = builder.transactional();
                }
                let done = log.append(keyed(builder, &records), epoch, NOW).await.unwrap();
                if model.epochs.last().is_none_or(|(e, _)| *e != epoch) {
                    model.epochs.push((epoch, done.first));
                }
                for (offset, (key, value)) in (done.first..).zip(&records) {
                    model.records.insert(offset, (Bytes::copy_from_slice(key), *value));
                    if producer > 2 {
                        model.open.entry(producer).or_default().push(offset);
                    } else {
                        model.committed.insert(offset);
                    }
                }
            }
            Step::End { producer, commit } => {
                let Some(offsets) = model.open.remove(&producer) else { continue };
                let (producer_epoch, next) = model.producers.entry(producer).or_default();
                (*producer_epoch, *next) = (*producer_epoch + 1, 0);
                let done = log.append_marker(&marker(producer, *producer_epoch, commit), epoch, 10, NOW).await.unwrap();
                if model.epochs.last().is_none_or(|(e, _)| *e != epoch) {
                    model.epochs.push((epoch, done.first));
                }
                if commit {
                    model.committed.extend(offsets);
                }
            }
            Step::Epoch => epoch += 1,
            Step::Roll => {
                log.roll(NOW).await.unwrap();
            }
            Step::Clean { later_ms, memory } => {
                settle(&mut log).await;
                now_ms += i64::from(later_ms);
                let config = CleanerConfig { dedupe_buffer_bytes: memory.into(), ..cleaner() };
                clean(&mut log, &config, now_ms).await;
                check(&log, &model).await;
            }
            Step::Reopen { forget } => {
                settle(&mut log).await;
                drop(log);
                if forget {
                    for extension in ["snapshot", "index", "txnindex", "pages"] {
                        for path in files(&dir, extension).await {
                            disk::remove_file(path).await.unwrap();
                        }
                    }
                }
                (log, _) = Log::open(&dir, small(), NOW).await.unwrap();
                check(&log, &model).await;
            }
        }
    }
    settle(&mut log).await;
    check(&log, &model).await;
}

/// Of a marker that began a leader epoch the header stays. What its producer committed afterwards was hidden from readers: they
/// were told of the aborted transaction, and never of its end.
#[test]
fn an_aborted_transaction_is_forgotten_with_its_marker_also_where_an_epoch_begins() {
    let data = |producer, keys: &[u8]| Step::Data { producer, keys: keys.iter().map(|key| (*key, false)).collect() };
    let clean = |later_ms| Step::Clean { later_ms, memory: 100 };
    let steps = vec![
        data(0, &[0]),
        data(3, &[0, 0, 0]),
        Step::Epoch,
        Step::End { producer: 3, commit: false },
        data(3, &[0, 0, 4, 0]),
        Step::End { producer: 3, commit: true },
        data(0, &[0, 0, 0, 0]),
        data(0, &[0, 0, 0, 0]),
        clean(0),
        clean(0),
        clean(394),
        Step::Roll,
        data(0, &[0]),
        clean(606),
    ];
    on_node(|dir| run(dir, steps));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn a_compacted_log_is_the_newest_of_all_that_was_committed(steps in proptest::collection::vec(step(), 1..120)) {
        on_node(|dir| run(dir, steps));
    }
}
