//! The log on real files: what was appended is read back, also after a restart, and damage is either cut, rebuilt or
//! reported, as the table in the crate's documentation says.

use std::future::Future;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use env::clock::Instant;
use env::disk::{self, File, Open};
use protocol::batch::{BatchBuilder, BatchHeader, Limits, Record, decode_records, split};
use streamproof_log::{Log, LogConfig, LogError, Marker, Offset, Recovery, TransactionVersion, TxnChange};

const NOW: Instant = Instant::from_nanos(1_000_000_000);

fn on_node<F: Future>(f: impl FnOnce(PathBuf) -> F) -> F::Output {
    let dir = tempfile::tempdir().unwrap();
    env::node::run_real(f(dir.path().join("t-0"))).unwrap()
}

/// Small enough that a few batches roll it; no tail in memory, so that reads go to the files.
fn small() -> LogConfig {
    LogConfig { segment_bytes: 20_000, index_interval_bytes: 1000, tail_cache_bytes: 0, ..LogConfig::default() }
}

fn batch(sequence: i32, n: i32, value: usize) -> Bytes {
    let mut b = BatchBuilder::new().producer(7, 0, sequence);
    for i in 0..n {
        let value = vec![(sequence + i) as u8; value];
        b.push(&Record {
            timestamp: 1_000 + i64::from(sequence + i) * 10,
            value: Some(value.into()),
            ..Record::default()
        });
    }
    b.build()
}

fn transactional(producer_id: i64, epoch: i16, sequence: i32) -> Bytes {
    let mut b = BatchBuilder::new().producer(producer_id, epoch, sequence).transactional();
    b.push(&Record { value: Some(Bytes::from_static(b"v")), ..Record::default() });
    b.build()
}

fn ends(producer_id: i64, producer_epoch: i16, commit: bool) -> Marker {
    Marker { producer_id, producer_epoch, commit, coordinator_epoch: 0, version: TransactionVersion::V2 }
}

async fn open(dir: &Path, config: LogConfig) -> (Log, Recovery) {
    Log::open(dir, config, NOW).await.unwrap()
}

/// Appends `count` batches of 3 records from sequence and offset `from` on.
async fn fill(log: &mut Log, from: i32, count: i32) {
    for i in 0..count {
        let sequence = from + 3 * i;
        let done = log.append(batch(sequence, 3, 300), 1, NOW).await.unwrap();
        assert_eq!((done.first, done.last), (Offset::from(sequence), Offset::from(sequence) + 2));
    }
    let synced = log.flusher().await;
    log.flushed(synced).await.unwrap();
}

async fn offsets(log: &Log, from: Offset, max_bytes: usize, upper: Offset) -> Vec<Offset> {
    let bytes = log.reader().read(from, max_bytes, upper).await.unwrap();
    let mut found = Vec::new();
    for part in split(bytes) {
        let (header, bytes) = part.unwrap();
        header.verify_crc(&bytes).unwrap();
        found.extend(decode_records(&bytes, &Limits::default()).unwrap().iter().map(|r| r.offset));
    }
    found
}

/// Everything, by as many reads as it takes.
async fn all(log: &Log) -> Vec<Offset> {
    let mut found = Vec::new();
    let mut next = log.start_offset();
    while next < log.end_offset() {
        let more = offsets(log, next, 4000, Offset::MAX).await;
        next = more.last().unwrap() + 1;
        found.extend(more);
    }
    found
}

async fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let names = disk::read_dir(dir).await.unwrap().into_iter().map(|e| dir.join(e.name));
    names.filter(|p| p.extension().is_some_and(|e| e == extension)).collect()
}

async fn flip(path: &Path, at: u64) {
    let f = File::open(path, Open::Existing).await.unwrap();
    let byte = f.read_at(at, 1).await.unwrap()[0];
    f.write_at(at, vec![byte ^ 0x40].into()).await.unwrap();
}

#[test]
fn what_is_appended_is_read_back_across_segments_and_restarts() {
    on_node(|dir| async move {
        let (mut log, found) = open(&dir, small()).await;
        assert_eq!(found.end, 0);
        fill(&mut log, 0, 100).await;
        assert_eq!((log.end_offset(), log.flushed_offset()), (300, 300));
        assert!(files(&dir, "log").await.len() > 4);
        assert_eq!(all(&log).await, (0..300).collect::<Vec<_>>());
        drop(log);
        let (mut log, found) = open(&dir, small()).await;
        assert_eq!((found.end, found.scanned, found.rebuilt, found.cut), (300, 1, 0, None));
        assert_eq!(all(&log).await, (0..300).collect::<Vec<_>>());
        fill(&mut log, 300, 5).await;
        assert_eq!(all(&log).await, (0..315).collect::<Vec<_>>());
    });
}

#[test]
fn reads_respect_the_bounds() {
    for cache in [0, 1 << 20] {
        on_node(|dir| async move {
            let (mut log, _) = open(&dir, LogConfig { tail_cache_bytes: cache, ..small() }).await;
            fill(&mut log, 0, 10).await;
            let one = batch(0, 3, 300).len();
            assert_eq!(offsets(&log, 4, 1, 30).await, [3, 4, 5], "at least one batch, from the one that holds 4");
            assert_eq!(offsets(&log, 3, 2 * one, 30).await, (3..9).collect::<Vec<_>>());
            assert_eq!(offsets(&log, 3, 2 * one + 1, 8).await, [3, 4, 5], "the bound is exclusive and cuts no batch");
            assert_eq!(offsets(&log, 6, 1000, 6).await, Vec::<Offset>::new());
            assert_eq!(offsets(&log, 30, 1000, 99).await, Vec::<Offset>::new());
            let past = log.reader().read(31, 1, 99).await;
            assert!(matches!(past, Err(LogError::OutOfRange { start: 0, end: 30, .. })));
            assert!(log.reader().read(-1, 1, 99).await.is_err());
        });
    }
}

#[test]
fn a_large_batch_gets_its_own_segment_and_is_read_whole() {
    on_node(|dir| async move {
        let (mut log, _) = open(&dir, small()).await;
        fill(&mut log, 0, 2).await;
        log.append(batch(6, 3, 30_000), 1, NOW).await.unwrap();
        log.append(batch(9, 3, 300), 1, NOW).await.unwrap();
        assert_eq!(files(&dir, "log").await.len(), 3);
        assert_eq!(offsets(&log, 7, 1, 99).await, [6, 7, 8]);
        assert_eq!(all(&log).await, (0..12).collect::<Vec<_>>());
    });
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_to_the_last_whole_batch() {
    on_node(|dir| async move {
        let (mut log, _) = open(&dir, small()).await;
        fill(&mut log, 0, 1).await;
        let whole = batch(0, 3, 300).len() as u64;
        log.append(batch(3, 3, 20), 1, NOW).await.unwrap();
        drop(log);
        let path = files(&dir, "log").await.remove(0);
        let bytes = disk::read(&path).await.unwrap();
        for cut in whole..bytes.len() as u64 {
            let f = File::open(&path, Open::Existing).await.unwrap();
            f.set_len(0).await.unwrap();
            f.write_at(0, bytes.slice(..cut as usize)).await.unwrap();
            // A length that became durable with other data.
            f.write_at(cut, vec![0xaa; cut as usize % 700].into()).await.unwrap();
            let (mut log, found) = open(&dir, small()).await;
            assert_eq!(found.end, 3, "cut at {cut}");
            assert_eq!(found.cut.is_some(), cut + cut % 700 > whole);
            assert_eq!(f.len().await.unwrap(), whole);
            assert_eq!(log.producers().get(7, NOW).unwrap().last_sequence(), Some(2));
            log.append(batch(3, 3, 20), 1, NOW).await.unwrap();
            assert_eq!(all(&log).await, [0, 1, 2, 3, 4, 5]);
        }
    });
}

#[test]
fn a_bad_byte_in_a_sealed_page_is_reported_by_recovery_and_by_reads() {
    on_node(|dir| async move {
        let (mut log, _) = open(&dir, LogConfig::default()).await;
        fill(&mut log, 0, 20).await;
        log.close().await.unwrap();
        drop(log);
        let path = files(&dir, "log").await.remove(0);
        // Base offset, leader epoch and payload of the first batch; the first two are under no batch's CRC.
        for at in [7, 15, 200, 4095, 8191] {
            flip(&path, at).await;
            let found = Log::open(&dir, LogConfig::default(), NOW).await;
            assert!(matches!(found, Err(LogError::Corrupt { .. })), "byte {at}: {found:?}");
            flip(&path, at).await;
        }
        let (log, _) = open(&dir, LogConfig::default()).await;
        flip(&path, 200).await;
        let read = log.reader().read(0, 1000, 99).await;
        assert!(matches!(read, Err(LogError::Corrupt { .. })), "{read:?}");
    });
}

#[test]
fn a_bad_byte_in_a_closed_segment_is_never_cut() {
    on_node(|dir| async move {
        let (mut log, _) = open(&dir, small()).await;
        fill(&mut log, 0, 40).await;
        drop(log);
        let first = files(&dir, "log").await.remove(0);
        for page_file in files(&dir, "pages").await {
            disk::remove_file(page_file).await.unwrap();
        }
        flip(&first, 10_000).await;
        let found = Log::open(&dir, small(), NOW).await;
        assert!(matches!(found, Err(LogError::Corrupt { .. })), "{found:?}");
    });
}

#[test]
fn files_beside_the_batches_are_rebuilt_when_missing_short_or_rotten() {
    for extension in ["index", "timeindex", "txnindex", "pages", "snapshot"] {
        for damage in ["missing", "short", "empty", "rotten"] {
            on_node(|dir| async move {
                let (mut log, _) = open(&dir, small()).await;
                fill(&mut log, 0, 60).await;
                let producers = log.producers().clone();
                drop(log);
                for path in files(&dir, extension).await {
                    let len = disk::read(&path).await.unwrap().len() as u64;
                    let f = File::open(&path, Open::Existing).await.unwrap();
                    match damage {
                        "missing" => disk::remove_file(&path).await.unwrap(),
                        "short" => f.set_len(len / 2).await.unwrap(),
                        "empty" => f.set_len(0).await.unwrap(),
                        _ if extension == "pages" => flip(&path, len - 1).await,
                        _ => flip(&path, len / 2).await,
                    }
                }
                let (log, found) = open(&dir, small()).await;
                assert_eq!((found.end, &found.cut), (180, &None), "{extension} {damage}");
                assert!(found.scanned > 1, "{extension} {damage}");
                assert_eq!(*log.producers(), producers);
                assert_eq!(all(&log).await, (0..180).collect::<Vec<_>>());
                drop(log);
                if extension != "snapshot" {
                    let (_, found) = open(&dir, small()).await;
                    assert_eq!((found.scanned, found.rebuilt), (1, 0), "{extension} {damage}: written anew");
                }
            });
        }
    }
}

#[test]
fn transactions_survive_rolls_and_restarts() {
    on_node(|dir| async move {
        let marker = |id, epoch, commit| Marker {
            producer_id: id,
            producer_epoch: epoch,
            commit,
            coordinator_epoch: 0,
            version: TransactionVersion::V2,
        };
        let (mut log, _) = open(&dir, small()).await;
        let began = log.append(transactional(1, 0, 0), 1, NOW).await.unwrap();
        assert_eq!(began.transactions, [TxnChange::Began { producer_id: 1, first: 0 }]);
        log.append(transactional(2, 0, 0), 1, NOW).await.unwrap();
        log.roll(NOW).await.unwrap();
        let ended = log.append_marker(&marker(1, 1, false), 1, 0, NOW).await.unwrap();
        assert_eq!(ended.transactions, [TxnChange::Ended { producer_id: 1, first: 0, marker: 2, committed: false }]);
        log.roll(NOW).await.unwrap();
        assert_eq!(log.first_unstable_offset(), Some(1));
        log.append(transactional(3, 0, 0), 1, NOW).await.unwrap();
        for _ in 0..2 {
            drop(log);
            for index in files(&dir, "txnindex").await.into_iter().take(1) {
                disk::remove_file(index).await.unwrap();
            }
            (log, _) = open(&dir, small()).await;
            assert_eq!(log.first_unstable_offset(), Some(1));
            let aborted = log.reader().aborted_transactions(0, 1);
            assert_eq!(aborted.iter().map(|t| (t.producer_id, t.first_offset)).collect::<Vec<_>>(), [(1, 0)]);
            assert_eq!(log.producers().open_transactions().collect::<Vec<_>>(), [(1, 2), (3, 3)]);
        }
        log.append_marker(&marker(2, 1, true), 1, 0, NOW).await.unwrap();
        assert_eq!(log.first_unstable_offset(), Some(3));
    });
}

#[test]
fn leader_epochs_and_timestamps_are_found() {
    on_node(|dir| async move {
        let (mut log, _) = open(&dir, small()).await;
        for (epoch, i) in [(1, 0), (1, 1), (4, 2), (6, 3)] {
            log.append(batch(i * 3, 3, 5000), epoch, NOW).await.unwrap();
        }
        assert!(matches!(log.append(batch(12, 1, 1), 5, NOW).await, Err(LogError::Invalid { .. })));
        drop(log);
        let (log, _) = open(&dir, small()).await;
        assert_eq!(log.leader_epochs().starts(), [(1, 0), (4, 6), (6, 9)]);
        assert_eq!(log.leader_epochs().end_offset_for_epoch(5, 7, log.end_offset()), Some((4, 9)));
        let at = |t, upper| {
            let reader = log.reader();
            async move { reader.offset_for_timestamp(t, upper).await.unwrap() }
        };
        assert_eq!(at(0, 12).await, Some((1_000, 0)));
        assert_eq!(at(1_041, 12).await, Some((1_050, 5)));
        assert_eq!(at(1_110, 12).await, Some((1_110, 11)));
        assert_eq!(at(1_111, 12).await, None);
        assert_eq!(at(1_110, 9).await, None, "the bound is exclusive");
    });
}

#[test]
fn truncation_keeps_whole_batches_and_their_state() {
    on_node(|dir| async move {
        let (mut log, _) = open(&dir, small()).await;
        fill(&mut log, 0, 60).await;
        let reader = log.reader();
        log.truncate_to(100, NOW).await.unwrap();
        assert_eq!((log.end_offset(), log.flushed_offset()), (99, 99));
        assert_eq!(log.producers().get(7, NOW).unwrap().last_sequence(), Some(98));
        fill(&mut log, 99, 40).await;
        assert_eq!(all(&log).await, (0..219).collect::<Vec<_>>());
        assert_eq!(reader.end_offset(), 219);
        drop(log);
        let (log, found) = open(&dir, small()).await;
        assert_eq!((found.end, found.cut), (219, None));
        assert_eq!(all(&log).await, (0..219).collect::<Vec<_>>());
    });
}

#[test]
fn a_followers_log_is_its_leaders_byte_for_byte() {
    on_node(|dir| async move {
        let (mut leader, _) = open(&dir.join("leader"), small()).await;
        leader.append(transactional(1, 0, 0), 1, NOW).await.unwrap();
        leader.append(batch(0, 3, 300), 3, NOW).await.unwrap();
        leader.append_marker(&ends(1, 1, false), 3, 0, NOW).await.unwrap();
        leader.append(transactional(2, 0, 0), 4, NOW).await.unwrap();
        let (mut follower, _) = open(&dir.join("follower"), small()).await;
        let whole = leader.reader().read(0, 1 << 20, Offset::MAX).await.unwrap();
        let done = follower.append_replicated(whole.clone(), NOW).await.unwrap();
        assert_eq!((done.first, done.last, done.epochs.clone()), (0, 5, vec![(1, 0), (3, 1), (4, 5)]));
        assert_eq!(done.transactions.len(), 3, "{:?}", done.transactions);
        assert_eq!(follower.reader().read(0, 1 << 20, Offset::MAX).await.unwrap(), whole);
        assert_eq!(*follower.leader_epochs(), *leader.leader_epochs());
        assert_eq!(*follower.producers(), *leader.producers());
        assert_eq!(follower.reader().aborted_transactions(0, 6), leader.reader().aborted_transactions(0, 6));
        let again = follower.append_replicated(whole.clone(), NOW).await;
        assert!(matches!(again, Err(LogError::Invalid { .. })), "not from its end on: {again:?}");
        let old = batch(3, 1, 10);
        follower.append(old, 5, NOW).await.unwrap();
        leader.append(batch(3, 1, 10), 4, NOW).await.unwrap();
        leader.append(batch(4, 1, 10), 4, NOW).await.unwrap();
        let older = leader.reader().read(7, 1 << 20, Offset::MAX).await.unwrap();
        let older = follower.append_replicated(older, NOW).await;
        assert!(matches!(older, Err(LogError::Invalid { .. })), "an older epoch: {older:?}");
        assert_eq!(follower.end_offset(), 7);
    });
}

#[test]
fn transactions_whose_marker_is_not_stable_are_known_after_truncation_and_restart() {
    on_node(|dir| async move {
        let (mut log, _) = open(&dir, small()).await;
        log.append(transactional(1, 0, 0), 1, NOW).await.unwrap();
        fill(&mut log, 1, 60).await;
        log.append_marker(&ends(1, 1, true), 1, 0, NOW).await.unwrap();
        log.append(transactional(2, 0, 0), 1, NOW).await.unwrap();
        log.append_marker(&ends(2, 1, false), 1, 0, NOW).await.unwrap();
        assert_eq!(log.ended_transactions(), [(0, 181), (182, 183)]);
        log.stable_to(100);
        drop(log);
        // The stable offset lies segments before the last one.
        let (mut log, found) = Log::open_from(&dir, small(), 100, NOW).await.unwrap();
        assert!(found.scanned > 1);
        assert_eq!(log.ended_transactions(), [(0, 181), (182, 183)]);
        log.truncate_to(183, NOW).await.unwrap();
        assert_eq!(log.ended_transactions(), [(0, 181)]);
        assert_eq!(log.producers().open_transactions().collect::<Vec<_>>(), [(182, 2)]);
        log.truncate_to(181, NOW).await.unwrap();
        assert_eq!(log.producers().open_transactions().collect::<Vec<_>>(), [(0, 1)]);
        log.append_marker(&ends(1, 1, true), 2, 0, NOW).await.unwrap();
        log.stable_to(182);
        assert_eq!(log.ended_transactions(), []);
    });
}

#[test]
fn bytes_that_are_no_batches_are_refused_and_change_nothing() {
    on_node(|dir| async move {
        let (mut log, _) = open(&dir, small()).await;
        fill(&mut log, 0, 1).await;
        let good = batch(3, 1, 10);
        let mut flipped = good.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        for bad in [Bytes::new(), good.slice(..good.len() - 1), flipped.into()] {
            assert!(matches!(log.append(bad, 1, NOW).await, Err(LogError::Invalid { .. })));
        }
        assert_eq!(log.end_offset(), 3);
        let two = [good.clone(), batch(4, 2, 10)].concat();
        let done = log.append(two.into(), 1, NOW).await.unwrap();
        assert_eq!((done.first, done.last), (3, 5));
        let bytes = log.reader().read(3, 1 << 20, 99).await.unwrap();
        let headers: Vec<BatchHeader> = split(bytes).map(|p| p.unwrap().0).collect();
        assert_eq!(headers.iter().map(|h| h.base_offset).collect::<Vec<_>>(), [3, 4]);
    });
}
