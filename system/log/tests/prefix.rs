//! A log that gives up its beginning, or begins anew: the rest stays as it was, also after a restart.

use std::future::Future;
use std::path::PathBuf;

use bytes::Bytes;
use env::clock::Instant;
use protocol::batch::{BatchBuilder, Record};
use streamproof_log::{Log, LogConfig, LogError, Offset};

const NOW: Instant = Instant::from_nanos(1_000_000_000);

fn on_node<F: Future>(f: impl FnOnce(PathBuf) -> F) -> F::Output {
    let dir = tempfile::tempdir().unwrap();
    env::node::run_real(f(dir.path().join("t-0"))).unwrap()
}

async fn open(dir: &PathBuf) -> Log {
    let config = LogConfig { segment_bytes: 2000, ..LogConfig::default() };
    Log::open(dir, config, NOW).await.unwrap().0
}

fn batch() -> Bytes {
    let mut b = BatchBuilder::new();
    b.push(&Record { value: Some(vec![7; 300].into()), ..Record::default() });
    b.build()
}

/// Appends 10 records in each of the epochs.
async fn fill(log: &mut Log, epochs: std::ops::RangeInclusive<i32>) {
    for epoch in epochs {
        for _ in 0..10 {
            log.append(batch(), epoch, NOW).await.unwrap();
        }
    }
    let synced = log.flusher().await;
    log.flushed(synced).await.unwrap();
}

async fn is_whole(log: &Log, start: Offset, end: Offset) {
    assert_eq!((log.start_offset(), log.end_offset()), (start, end));
    let mut next = start;
    while next < end {
        let bytes = log.reader().read(next, 1000, end).await.unwrap();
        for part in protocol::batch::split(bytes) {
            let header = part.unwrap().0;
            assert_eq!(header.base_offset, next);
            next = header.next_offset();
        }
    }
    if start > 0 {
        let below = log.reader().read(start - 1, 1000, end).await;
        assert!(matches!(below, Err(LogError::OutOfRange { .. })), "{below:?}");
    }
}

#[test]
fn segments_below_an_offset_go() {
    on_node(async |dir| {
        let mut log = open(&dir).await;
        fill(&mut log, 1..=4).await;
        log.delete_before(3).await.unwrap();
        is_whole(&log, 0, 40).await;
        log.delete_before(23).await.unwrap();
        let start = log.start_offset();
        assert!(start > 15 && start <= 23, "begins at {start}");
        is_whole(&log, start, 40).await;

        let mut log = open(&dir).await;
        is_whole(&log, start, 40).await;
        assert_eq!(log.leader_epochs().end_offset_for_epoch(3, 4, 40), Some((3, 30)));
        // The active segment stays, whatever is asked.
        log.delete_before(1000).await.unwrap();
        let start = log.start_offset();
        assert!(start < 40);
        fill(&mut log, 5..=5).await;
        is_whole(&open(&dir).await, start, 50).await;
    });
}

#[test]
fn a_log_begins_anew_after_or_before_its_end() {
    on_node(async |dir| {
        let mut log = open(&dir).await;
        fill(&mut log, 1..=4).await;
        for at in [100, 17] {
            log.reset_to(at, NOW).await.unwrap();
            is_whole(&log, at, at).await;
            assert_eq!(log.flushed_offset(), at);
            assert_eq!(log.leader_epochs().latest(), None);
            is_whole(&open(&dir).await, at, at).await;
            fill(&mut log, 2..=3).await;
            is_whole(&log, at, at + 20).await;
            log = open(&dir).await;
            is_whole(&log, at, at + 20).await;
        }
    });
}

#[test]
fn what_a_crash_left_of_a_deleted_segment_is_cleared() {
    on_node(async |dir| {
        let mut log = open(&dir).await;
        fill(&mut log, 1..=4).await;
        log.delete_before(23).await.unwrap();
        let start = log.start_offset();
        let orphan = dir.join(format!("{:020}.pages", 0));
        env::disk::replace(&orphan, Bytes::from_static(b"left")).await.unwrap();
        is_whole(&open(&dir).await, start, 40).await;
        assert!(!env::disk::exists(&orphan).await.unwrap());
    });
}

#[test]
fn a_log_that_lost_its_end_to_before_its_start_goes_on_from_there() {
    on_node(async |dir| {
        let mut log = open(&dir).await;
        fill(&mut log, 1..=1).await;
        log.stable_to(10);
        assert_eq!(log.start_at(9).await.unwrap(), 9);
        let active = log.start_offset();
        drop(log);
        // What power loss leaves of a log that was not synced: its last segment, empty.
        let entries = env::disk::read_dir(&dir).await.unwrap();
        let last = entries.into_iter().map(|e| e.name).filter(|name| name.ends_with(".log")).max().unwrap();
        let file = env::disk::File::open(dir.join(last), env::disk::Open::Existing).await.unwrap();
        file.set_len(0).await.unwrap();
        let mut log = open(&dir).await;
        let end = log.end_offset();
        assert!(end < active, "it ends at {end}");
        is_whole(&log, end, end).await;
        for _ in 0..2 {
            log.append(batch(), 2, NOW).await.unwrap();
        }
        let synced = log.flusher().await;
        log.flushed(synced).await.unwrap();
        drop(log);
        // What was appended since is not given up.
        is_whole(&open(&dir).await, end, end + 2).await;
    });
}
