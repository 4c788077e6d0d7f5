//! Faults of the network, as programs feel them.

use std::io::ErrorKind;
use std::time::Duration;

use env::io::{AsyncReadExt, AsyncWriteExt};
use env::net::{TcpListener, TcpStream};
use world::{FaultId, LinkLaw, NodeId, PowerLaw, World, on_seed};

use super::support::*;

fn run<Fut: Future<Output = ()>>(f: impl FnOnce(World) -> Fut + Send) {
    if let Err(failed) = on_seed(config(11), f) {
        panic!("{failed}");
    }
}

/// A server and the id the next node will have.
fn server(world: &World) -> NodeId {
    add_echo(world, "server", 1)
}

#[test]
fn a_partition_stops_and_healing_lets_go_on() {
    run(|world| async move {
        let server = server(&world);
        let client = add_client(&world, "client", 2, || async {
            let mut stream = TcpStream::connect(addr(1)).await.unwrap();
            env::time::sleep(secs(1)).await;
            let before = env::clock::now();
            stream.write_all(b"through").await.unwrap();
            let mut buf = [0; 7];
            stream.read_exact(&mut buf).await.unwrap();
            env::clock::now() - before
        });
        world.sleep(ms(500)).await;
        let fault = world.net().partition(&[server], &[client.id]);
        world.sleep(secs(10)).await;
        world.heal(fault);
        let took = client.result(&world).await;
        assert!(took >= secs(9) && took < secs(14), "healed, and retransmitted within the longest time-out: {took:?}");
        let effect = world.effect(fault);
        assert_eq!((effect.count("segments_held"), effect.count("bytes_held")), (1, 7), "{effect:?}");
    });
}

#[test]
fn one_way_cuts_the_answer_alone() {
    run(|world| async move {
        let server = server(&world);
        let client = add_client(&world, "client", 2, || async {
            let mut stream = TcpStream::connect(addr(1)).await.unwrap();
            env::time::sleep(secs(1)).await;
            stream.write_all(b"x").await.unwrap();
            let mut buf = [0; 1];
            let cut = env::time::timeout(secs(3), stream.read_exact(&mut buf)).await;
            assert!(cut.is_err(), "no answer comes");
            stream.read_exact(&mut buf).await.unwrap();
        });
        world.sleep(ms(500)).await;
        let fault = world.net().cut(&[server], &[client.id]);
        world.sleep(secs(6)).await;
        world.heal(fault);
        client.result(&world).await;
    });
}

#[test]
fn held_segments_come_in_one_burst() {
    run(|world| async move {
        let reader = add_client(&world, "reader", 1, || async {
            let listener = TcpListener::bind(addr(1)).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut times = Vec::new();
            for _ in 0..20 {
                stream.read_exact(&mut [0; 8]).await.unwrap();
                times.push(env::clock::now());
            }
            times
        });
        let writer = world.add_node("writer", "client", ip(2), || async {
            env::time::sleep(ms(10)).await;
            let mut stream = TcpStream::connect(addr(1)).await.unwrap();
            for n in 0..20u64 {
                stream.write_all(&n.to_be_bytes()).await.unwrap();
                env::time::sleep(ms(100)).await;
            }
        });
        world.sleep(ms(550)).await;
        let fault = world.net().hold(&[writer], &[reader.id]);
        world.sleep(secs(1)).await;
        world.heal(fault);
        let times = reader.result(&world).await;
        let gaps: Vec<_> = times.windows(2).map(|t| t[1] - t[0]).collect();
        assert!(gaps.iter().any(|&g| g > ms(900)), "{gaps:?}");
        assert!(gaps.iter().filter(|&&g| g < ms(1)).count() >= 8, "a burst: {gaps:?}");
        assert!(world.effect(fault).count("segments_in_burst") >= 9, "{:?}", world.effect(fault));
    });
}

/// A second client's connect attempt, and how it ends within 5 s.
async fn attempt(world: &World, fault: impl Fn(&World, NodeId, NodeId) -> FaultId) -> (Option<ErrorKind>, FaultId) {
    let server = server(world);
    let client = add_client(world, "client", 2, || async {
        env::time::sleep(ms(100)).await;
        match env::time::timeout(secs(5), TcpStream::connect(addr(1))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(Some(e.kind())),
            Err(_) => Err(None),
        }
    });
    let fault = fault(world, client.id, server);
    (client.result(world).await.unwrap_err(), fault)
}

#[test]
fn connects_hang() {
    run(|world| async move {
        let (kind, fault) = attempt(&world, |w, client, server| w.net().hang_connects(&[client], &[server])).await;
        assert_eq!(kind, None);
        assert_eq!(world.effect(fault).count("connects_held"), 1);
    });
}

#[test]
fn connects_are_refused() {
    run(|world| async move {
        let (kind, fault) = attempt(&world, |w, client, server| w.net().refuse_connects(&[client], &[server])).await;
        assert_eq!(kind, Some(ErrorKind::ConnectionRefused));
        assert!(world.effect(fault).bit());
    });
}

#[test]
fn a_dead_process_refuses_and_a_dead_machine_is_silent() {
    run(|world| async move {
        let (kind, _) = attempt(&world, |w, _, server| w.crash(server)).await;
        assert_eq!(kind, Some(ErrorKind::ConnectionRefused));
    });
    run(|world| async move {
        let (kind, _) = attempt(&world, |w, _, server| w.power_loss(server, PowerLaw::Lost)).await;
        assert_eq!(kind, None);
    });
}

#[test]
fn a_connect_to_a_silent_machine_times_out_by_itself() {
    run(|world| async move {
        let server = server(&world);
        let client = add_client(&world, "client", 2, || async {
            env::time::sleep(ms(10)).await;
            TcpStream::connect(addr(1)).await.unwrap_err().kind()
        });
        world.power_loss(server, PowerLaw::Lost);
        assert_eq!(client.result(&world).await, ErrorKind::TimedOut);
        assert!(world.now().as_duration() > secs(100));
    });
}

#[test]
fn resets_reach_both_ends() {
    run(|world| async move {
        let ends: Vec<_> = [true, false]
            .into_iter()
            .map(|listens| {
                add_client(&world, if listens { "a" } else { "b" }, 1 + u8::from(!listens), move || async move {
                    let mut stream = if listens {
                        TcpListener::bind(addr(1)).await.unwrap().accept().await.unwrap().0
                    } else {
                        env::time::sleep(ms(5)).await;
                        TcpStream::connect(addr(1)).await.unwrap()
                    };
                    stream.read(&mut [0; 1]).await.unwrap_err().kind()
                })
            })
            .collect();
        world.sleep(ms(100)).await;
        let fault = world.net().reset(&[ends[0].id], &[ends[1].id]);
        assert_eq!(world.effect(fault).count("connections_reset"), 1);
        for end in &ends {
            assert_eq!(end.result(&world).await, ErrorKind::ConnectionReset);
        }
    });
}

/// A client that reads for long, then writes; what each gave.
async fn watch_a_death(world: &World, die: impl Fn(&World, NodeId) -> FaultId) -> (Option<usize>, Option<ErrorKind>) {
    let server = server(world);
    let client = add_client(world, "client", 2, || async {
        let mut stream = TcpStream::connect(addr(1)).await.unwrap();
        let mut buf = [0; 1];
        let read = env::time::timeout(secs(5), stream.read(&mut buf)).await.ok().map(|r| r.unwrap_or(usize::MAX));
        let mut error = None;
        for _ in 0..100 {
            if let Err(e) = stream.write_all(b"anybody?").await {
                error = Some(e.kind());
                break;
            }
            env::time::sleep(ms(100)).await;
        }
        (read, error)
    });
    world.sleep(ms(100)).await;
    die(world, server);
    world.sleep(secs(3)).await;
    world.restart(server);
    client.result(world).await
}

#[test]
fn a_crash_closes_and_a_power_loss_leaves_half_open() {
    run(|world| async move {
        let (read, error) = watch_a_death(&world, |w, server| w.crash(server)).await;
        assert_eq!(read, Some(0), "the machine says goodbye for its process");
        assert!(matches!(error, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)), "{error:?}");
    });
    run(|world| async move {
        let (read, error) = watch_a_death(&world, |w, server| w.power_loss(server, PowerLaw::Any)).await;
        assert_eq!(read, None, "nobody tells the reader, not even after the restart");
        assert_eq!(error, Some(ErrorKind::ConnectionReset), "the first word said to the new machine is answered");
    });
}

#[test]
fn bytes_of_an_abandoned_connection_arrive_late() {
    run(|world| async move {
        let server = add_client(&world, "server", 1, || async {
            let listener = TcpListener::bind(addr(1)).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            (all, env::node::current().unwrap().now)
        });
        let client = world.add_node("client", "client", ip(2), || async {
            env::time::sleep(ms(5)).await;
            let mut stream = TcpStream::connect(addr(1)).await.unwrap();
            env::time::sleep(ms(100)).await;
            stream.write_all(b"commit").await.unwrap();
            let answer = env::time::timeout(secs(1), stream.read(&mut [0; 1])).await;
            assert!(answer.is_err(), "given up");
        });
        world.sleep(ms(50)).await;
        let fault = world.net().cut(&[client], &[server.id]);
        world.sleep(secs(5)).await;
        assert!(world.exited(client), "the program is long gone");
        world.heal(fault);
        let (all, at) = server.result(&world).await;
        assert_eq!(all, b"commit");
        assert!(at.as_duration() > secs(5));
    });
}

#[test]
fn bandwidth_and_loss_cost_time() {
    let timed = |law: LinkLaw| {
        let run = on_seed(config(5), |world| async move {
            let server = server(&world);
            let client = add_client(&world, "client", 2, || async {
                env::time::sleep(ms(5)).await;
                let mut stream = TcpStream::connect(addr(1)).await.unwrap();
                let before = env::clock::now();
                stream.write_all(&[1; 30_000]).await.unwrap();
                stream.read_exact(&mut vec![0; 30_000]).await.unwrap();
                env::clock::now() - before
            });
            let fault = world.net().disturb(&[client.id], &[server], law);
            (client.result(&world).await, world.effect(fault).count("segments_lost"))
        });
        run.unwrap().value
    };
    let (plain, lost) = timed(LinkLaw::LAN);
    assert!(plain < ms(20) && lost == 0, "{plain:?}");
    let (slow, _) = timed(LinkLaw { bandwidth: 10_000, ..LinkLaw::LAN });
    assert!(slow > secs(3) && slow < ms(3_100), "30 kB at 10 kB/s: {slow:?}");
    let (lossy, lost) = timed(LinkLaw { loss_ppm: 900_000, ..LinkLaw::LAN });
    assert!(lossy > ms(200) && lost > 0, "{lossy:?}, {lost} lost");
}

#[test]
fn a_cut_link_fills_the_window_and_no_more() {
    run(|world| async move {
        let server = server(&world);
        let client = add_client(&world, "client", 2, || async {
            env::time::sleep(ms(5)).await;
            let mut stream = TcpStream::connect(addr(1)).await.unwrap();
            env::time::sleep(ms(100)).await;
            let mut sent = 0;
            while let Ok(n) = env::time::timeout(secs(1), stream.write(&[0; 10_000])).await {
                sent += n.unwrap();
            }
            sent
        });
        world.sleep(ms(50)).await;
        world.net().cut(&[client.id], &[server]);
        assert_eq!(client.result(&world).await, 64 * 1024);
    });
}

#[test]
fn chopping_is_felt_and_counted() {
    run(|world| async move {
        let server = server(&world);
        let client = add_client(&world, "client", 2, || async {
            env::time::sleep(ms(5)).await;
            let mut stream = TcpStream::connect(addr(1)).await.unwrap();
            let mut short = 0;
            for _ in 0..100 {
                short += usize::from(stream.write(&[0; 100]).await.unwrap() < 100);
            }
            short
        });
        let law = LinkLaw { chop_ppm: 500_000, ..LinkLaw::LAN };
        let fault = world.net().disturb(&[client.id], &[server], law);
        let short = client.result(&world).await;
        assert!((30..70).contains(&short), "{short} of 100 writes were short");
        assert!(world.effect(fault).count("chopped") >= short as u64);
    });
}

#[test]
fn a_crash_point_may_cut() {
    run(|world| async move {
        server(&world);
        let fault = world.arm(world::CrashPoint {
            target: world::Target::Role("client".into()),
            label: "net.write".into(),
            when: world::When::Before,
            nth: 3,
            partition: None,
            then: world::Then::Cut,
            recover_after: Some(secs(4)),
        });
        let client = add_client(&world, "client", 2, || async {
            env::time::sleep(ms(5)).await;
            let before = env::clock::now();
            ping(addr(1), 5).await.unwrap();
            env::clock::now() - before
        });
        let took: Duration = client.result(&world).await;
        assert!(took > secs(4) && took < secs(8), "{took:?}");
        assert!(world.effect(fault).ended.is_some());
    });
}
