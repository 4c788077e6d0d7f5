//! MB/s of one log on real files: appending 64 KiB batches into the page cache, with a flush every 1 MiB, and fetching
//! 1 MiB at a time from the files (page checksums verified) and from the tail in memory.
//!
//! `cargo bench -p streamproof-log`. Figures belong with the machine and file system they were taken on.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use env::clock;
use protocol::batch::{BatchBuilder, Record};
use streamproof_log::{Log, LogConfig, Offset};

const MIB: usize = 1 << 20;
/// What one iteration moves.
const BYTES: usize = 64 * MIB;

/// 64 records of about 1 KiB.
fn batch() -> Bytes {
    let mut b = BatchBuilder::new();
    for i in 0..64u8 {
        b.push(&Record { value: Some(vec![i; 1000].into()), ..Record::default() });
    }
    b.build()
}

async fn append(log: &mut Log, batch: &Bytes, flush_every: Option<usize>) {
    let mut unflushed = 0;
    for _ in 0..BYTES / batch.len() {
        log.append(batch.clone(), 0, clock::now()).await.expect("append");
        unflushed += batch.len();
        if flush_every.is_some_and(|n| unflushed >= n) {
            let synced = log.flusher().await;
            log.flushed(synced).await.expect("flush");
            unflushed = 0;
        }
    }
}

/// Runs `work` on a fresh log for each iteration; only the time it reports counts.
fn timed(iterations: u64, work: impl AsyncFn(Log) -> Duration, config: &LogConfig) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..iterations {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run = async {
            let (log, _) = Log::open(dir.path().join("t-0"), config.clone(), clock::now()).await.expect("open");
            work(log).await
        };
        total += env::node::run_real(run).expect("a runtime");
    }
    total
}

fn log(c: &mut Criterion) {
    let batch = batch();
    let mut group = c.benchmark_group("log");
    group.sample_size(10).throughput(Throughput::Bytes(BYTES as u64));
    let config = LogConfig { segment_bytes: 256 << 20, tail_cache_bytes: 0, ..LogConfig::default() };
    for (name, flush_every) in [("append", None), ("append, fsync each MiB", Some(MIB))] {
        let work = async |mut log: Log| {
            let start = clock::now();
            append(&mut log, &batch, flush_every).await;
            clock::now() - start
        };
        group.bench_function(name, |b| b.iter_custom(|n| timed(n, work, &config)));
    }
    for (name, tail_cache_bytes) in [("fetch from files", 0), ("fetch from the tail", 2 * BYTES)] {
        let config = LogConfig { tail_cache_bytes, ..config.clone() };
        let work = async |mut log: Log| {
            append(&mut log, &batch, None).await;
            let (reader, end) = (log.reader(), log.end_offset());
            let start = clock::now();
            let mut next = 0;
            while next < end {
                let bytes = reader.read(next, MIB, Offset::MAX).await.expect("read");
                next += (bytes.len() / batch.len() * 64) as Offset;
                black_box(bytes);
            }
            clock::now() - start
        };
        group.bench_function(name, |b| b.iter_custom(|n| timed(n, work, &config)));
    }
    group.finish();
}

criterion_group! { name = benches; config = Criterion::default(); targets = log }
criterion_main!(benches);
