//! Every property over a history of about 100,000 operations: what a run's last step costs.

use criterion::{Criterion, criterion_group, criterion_main};
use streamproof_invariants::{Context, anomalies, check_all, fixture};

fn bench(c: &mut Criterion) {
    let history = fixture::job_of(100_000);
    assert!(history.ops.len() >= 100_000);
    let streams = fixture::streams_of(100_000);
    assert!(streams.ops.len() >= 100_000);
    let mut group = c.benchmark_group("check");
    group.sample_size(10);
    group.bench_function("100k operations", |b| b.iter(|| check_all(&history)));
    // All anomaly classes are among the properties; the census counts the allowed ones too.
    group.bench_function("100k operations of producers and consumers", |b| b.iter(|| check_all(&streams)));
    group
        .bench_function("100k operations, census of cycles", |b| b.iter(|| anomalies::census(&Context::new(&streams))));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
