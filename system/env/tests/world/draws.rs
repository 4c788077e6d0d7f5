//! Draws belong to their coordinates: a fault taken out, or a node put in, leaves all else as it was.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use env::io::{AsyncReadExt, AsyncWriteExt};
use env::net::{TcpListener, TcpStream};
use world::{Config, LinkLaw, on_seed};

use super::support::*;

/// How long each message took from client to server, in nanoseconds, for the pair (`client`, `server`).
fn latencies(seed: u64, other_link: impl Fn(&world::World) + Send, extra_node: bool) -> Vec<u64> {
    let law = LinkLaw { loss_ppm: 50_000, tail_ppm: 100_000, tail_max: ms(50), ..LinkLaw::LAN };
    let config = Config { law, sim_limit: secs(10_000), ..Config::new(99, seed) };
    let run = on_seed(config, |world| async move {
        let took = Rc::new(RefCell::new(Vec::new()));
        if extra_node {
            add_echo(&world, "bystander", 77);
        }
        for (server, client, n) in [("server", "client", 1), ("server2", "client2", 11)] {
            let log = took.clone();
            world.add_node(server, "s", ip(n), move || {
                let log = log.clone();
                async move {
                    let listener = TcpListener::bind(addr(n)).await.unwrap();
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut buf = [0; 8];
                    while stream.read_exact(&mut buf).await.is_ok() {
                        let now = env::node::current().unwrap().now.as_nanos();
                        if n == 1 {
                            log.borrow_mut().push(now - u64::from_be_bytes(buf));
                        }
                    }
                }
            });
            world.add_node(client, "c", ip(n + 1), move || async move {
                env::time::sleep(ms(10)).await;
                let mut stream = TcpStream::connect(addr(n)).await.unwrap();
                for _ in 0..100 {
                    let now = env::node::current().unwrap().now.as_nanos();
                    stream.write_all(&now.to_be_bytes()).await.unwrap();
                    env::time::sleep(secs(20)).await;
                }
            });
        }
        other_link(&world);
        world.wait(world.node("client").unwrap(), |s| s == world::Status::Down).await;
        world.sleep(secs(20)).await;
        took.take()
    });
    run.unwrap().value
}

/// Equal but for the few hundred nanoseconds by which polls move madsim's clock.
fn same(a: &[u64], b: &[u64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.abs_diff(*y) < 5_000)
}

#[test]
fn faults_elsewhere_leave_a_link_as_it_was() {
    let limit = Duration::from_secs(1);
    let plain = latencies(1, |_| {}, false);
    assert_eq!(plain.len(), 100);
    assert!(
        plain.iter().any(|&l| l > 100_000_000) && plain.iter().any(|&l| l < 1_100_000),
        "losses and none: {plain:?}"
    );
    let disturbed = latencies(
        1,
        |world| {
            let node = |name: &str| world.node(name).unwrap();
            let law = LinkLaw { loss_ppm: 500_000, latency_max: limit, ..LinkLaw::LAN };
            world.net().disturb(&[node("client2")], &[node("server2")], law);
            world.net().hold(&[node("client2")], &[node("server2")]);
        },
        false,
    );
    assert!(same(&plain, &disturbed), "another link's faults");
    assert!(same(&plain, &latencies(1, |_| {}, true)), "another node");
    assert!(same(&plain, &latencies(2, |_| {}, false)), "another schedule");
}
