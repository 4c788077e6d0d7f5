//! What observation costs the served system, where nobody listens. Aim: 2 ns for a `sometimes!`.

extern crate streamproof_env as env;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

#[derive(Debug, Hash)]
struct Appended {
    #[allow(dead_code, reason = "read by Debug and Hash")]
    offset: u64,
}

fn bench(c: &mut Criterion) {
    c.bench_function("sometimes!, false", |b| {
        b.iter(|| env::sometimes!(black_box(false), "bench: never"));
    });
    c.bench_function("sometimes!, true and unheard", |b| {
        b.iter(|| env::sometimes!(black_box(true), "bench: always"));
    });
    c.bench_function("probe, unheard", |b| {
        b.iter(|| env::probe::probe(|| Appended { offset: black_box(7) }));
    });
    env::probe::listen(Some(Box::new(|probe| drop(black_box(probe)))));
    c.bench_function("probe, heard", |b| {
        b.iter(|| env::probe::probe(|| Appended { offset: black_box(7) }));
    });
    env::probe::listen(None);
}

criterion_group!(benches, bench);
criterion_main!(benches);
