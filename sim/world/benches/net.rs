//! Messages a second of the bare world beside madsim's own TCP: 64-byte ping-pong over 1 and 16 connections, each at
//! 1 to 10 ms of latency. Aim: 1.2 times madsim's.

extern crate streamproof_world as world;

use std::net::SocketAddr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::{Config, LinkLaw, Status, on_seed, port};

const MESSAGES: u64 = 20_000;

async fn echo(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let mut buf = [0; 64];
    while stream.read_exact(&mut buf).await.is_ok() {
        if stream.write_all(&buf).await.is_err() || stream.flush().await.is_err() {
            break;
        }
    }
}

async fn ping(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, trips: u64) {
    let mut buf = [7; 64];
    for _ in 0..trips {
        stream.write_all(&buf).await.expect("written");
        stream.flush().await.expect("flushed");
        stream.read_exact(&mut buf).await.expect("read");
    }
}

fn server_addr() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 1))
}

fn ours(connections: u64) {
    let law = LinkLaw::LAN.latency(Duration::from_millis(1), Duration::from_millis(10));
    let config = Config { law, sim_limit: Duration::from_secs(100_000), ..Config::new(1, 1) };
    let run = on_seed(config, |world| async move {
        world.add_node("server", "server", server_addr().ip(), || async {
            let listener = port::listen(server_addr()).await.expect("bound");
            while let Ok((stream, _)) = listener.accept().await {
                port::spawn(echo(stream));
            }
        });
        let client = world.add_node("client", "client", [10, 0, 0, 2].into(), move || async move {
            port::sleep_until(port::clock_now() + 1_000_000).await;
            let tasks: Vec<_> = (0..connections)
                .map(|_| {
                    port::spawn(async move {
                        let stream = port::connect(server_addr()).await.expect("connected");
                        ping(stream, MESSAGES / 2 / connections).await;
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
        });
        world.wait(client, |s| s == Status::Down).await;
    });
    run.expect("finished");
}

fn stock(connections: u64) {
    // As `on_seed` does it: a thread of its own.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = madsim::runtime::Runtime::with_seed_and_config(1, madsim::Config::default());
            let server = runtime.create_node().ip(server_addr().ip()).build();
            let client = runtime.create_node().ip([10, 0, 0, 2].into()).build();
            server.spawn(async {
                let listener = madsim::net::TcpListener::bind(server_addr()).await.expect("bound");
                while let Ok((stream, _)) = listener.accept().await {
                    madsim::task::spawn(echo(stream));
                }
            });
            let done = client.spawn(async move {
                madsim::time::sleep(Duration::from_millis(1)).await;
                let tasks: Vec<_> = (0..connections)
                    .map(|_| {
                        madsim::task::spawn(async move {
                            let stream = madsim::net::TcpStream::connect(server_addr()).await.expect("connected");
                            ping(stream, MESSAGES / 2 / connections).await;
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.expect("joined");
                }
            });
            runtime.block_on(done).expect("finished");
        });
    });
}

/// What entering and leaving a world costs, with eight idle nodes.
fn enter() {
    let run = on_seed(Config::new(1, 1), |world| async move {
        for n in 1..=8 {
            world.add_node(&format!("n{n}"), "idle", [10, 0, 0, n].into(), std::future::pending::<()>);
        }
        world.sleep(Duration::from_millis(1)).await;
    });
    run.expect("finished");
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("messages");
    group.throughput(Throughput::Elements(MESSAGES)).sample_size(20);
    for connections in [1, 16] {
        group.bench_with_input(BenchmarkId::new("world", connections), &connections, |b, &n| b.iter(|| ours(n)));
        group.bench_with_input(BenchmarkId::new("madsim", connections), &connections, |b, &n| b.iter(|| stock(n)));
    }
    group.finish();
    c.bench_function("enter and leave, 8 idle nodes", |b| b.iter(enter));
}

criterion_group!(benches, bench);
criterion_main!(benches);
