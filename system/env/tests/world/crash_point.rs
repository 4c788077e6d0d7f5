//! Crash points: where they are, whom they take, and that a dead node does nothing more.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use env::disk::{File, Open};
use env::net::{TcpListener, TcpStream};
use env::node::When;
use world::{CrashPoint, PowerLaw, Status, Target, Then, on_seed};

use super::support::*;

fn point(target: Target, label: &str, nth: u64, then: Then) -> CrashPoint {
    CrashPoint { target, label: label.into(), when: When::Before, nth, partition: None, then, recover_after: None }
}

#[test]
fn label_partition_time_and_count_are_all_part_of_the_address() {
    let run = on_seed(config(1), |world| async move {
        let reached = Rc::new(RefCell::new(Vec::new()));
        let log = reached.clone();
        world.arm(CrashPoint {
            partition: Some(2),
            when: When::After,
            ..point(Target::Role("broker".into()), "append", 2, Then::Crash)
        });
        let never = world.arm(point(Target::Node("other".into()), "append", 1, Then::Crash));
        let node = world.add_node("n1", "anything", ip(1), move || {
            let log = log.clone();
            async move {
                for n in 0..10 {
                    for partition in [1, 2] {
                        log.borrow_mut().push((n, partition));
                        env::node::crash_point("broker", "append", Some(partition), When::Before).await;
                        env::node::crash_point("broker", "append", Some(partition), When::After).await;
                        env::node::crash_point("broker", "other", Some(partition), When::After).await;
                    }
                }
            }
        });
        world.wait(node, |s| s == Status::Down).await;
        assert!(!world.exited(node));
        assert!(!world.effect(never).bit(), "one that is not reached did not bite");
        reached.take()
    });
    assert_eq!(run.unwrap().value, [(0, 1), (0, 2), (1, 1), (1, 2)]);
}

#[test]
fn a_role_takes_its_first_node_and_recovers_by_itself() {
    let run = on_seed(config(1), |world| async move {
        let fault = world.arm(CrashPoint {
            recover_after: Some(secs(2)),
            ..point(Target::Role("w".into()), "step", 3, Then::Power(PowerLaw::Lost))
        });
        for n in 1..=3 {
            world.add_node(&format!("w{n}"), "w", ip(n), move || async move {
                loop {
                    env::time::sleep(ms(10 * u64::from(n))).await;
                    env::node::crash_point("w", "step", None, When::Before).await;
                }
            });
        }
        world.sleep(secs(1)).await;
        let effect = world.effect(fault);
        assert_eq!((effect.subject.as_str(), effect.count("reached")), ("w1 at step", 1));
        let w1 = world.node("w1").unwrap();
        assert_eq!(world.status(w1), Status::Off);
        world.sleep(secs(2)).await;
        assert_eq!((world.status(w1), world.incarnation(w1)), (Status::Up, 2));
        assert!(world.effect(fault).ended.is_some());
    });
    run.unwrap();
}

#[test]
fn a_pause_stops_before_the_action() {
    let run = on_seed(config(1), |world| async move {
        let steps = Rc::new(Cell::new(0));
        let count = steps.clone();
        let fault = world.arm(CrashPoint {
            recover_after: Some(secs(5)),
            ..point(Target::Node("n".into()), "step", 3, Then::Pause)
        });
        world.add_node("n", "n", ip(1), move || {
            let count = count.clone();
            async move {
                loop {
                    env::time::sleep(ms(100)).await;
                    env::node::crash_point("n", "step", None, When::Before).await;
                    count.set(count.get() + 1);
                }
            }
        });
        world.sleep(secs(4)).await;
        assert_eq!(steps.get(), 2);
        world.sleep(secs(3)).await;
        assert!(steps.get() > 10);
        assert!(world.effect(fault).count("paused_ms") >= 4_999);
    });
    run.unwrap();
}

#[derive(Debug, Hash)]
struct Said(#[allow(dead_code)] &'static str);

struct LastWords {
    file: File,
    stream: Option<TcpStream>,
}

/// Everything a destructor may try.
impl Drop for LastWords {
    fn drop(&mut self) {
        env::probe::probe(|| Said("dying"));
        let file = self.file.clone();
        env::task::spawn(async move {
            file.write_at(0, Bytes::from_static(b"ghost")).await.unwrap();
            env::probe::probe(|| Said("ghost"));
        });
        drop(self.stream.take());
    }
}

/// One task of the node dies at its disk write; a sibling branch, tasks ready to run, and destructors try to go on.
#[test]
fn from_the_instant_of_death_nothing_has_an_effect() {
    for seed in 0..20 {
        let run = on_seed(config(seed), |world| async move {
            let said = Rc::new(RefCell::new(Vec::new()));
            let log = said.clone();
            env::probe::listen(Some(Box::new(move |probe| {
                let at = env::node::current().unwrap();
                log.borrow_mut().push((at.node, at.incarnation, format!("{probe:?}")));
            })));
            let peer = add_client(&world, "peer", 1, || async {
                let listener = TcpListener::bind(addr(1)).await.unwrap();
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut all = Vec::new();
                let end = env::io::AsyncReadExt::read_to_end(&mut stream, &mut all).await.map_err(|e| e.kind());
                (all, end.is_ok())
            });
            world.arm(point(Target::Node("victim".into()), "disk.write", 2, Then::Crash));
            let victim = world.add_node("victim", "victim", ip(2), || async {
                env::time::sleep(ms(5)).await;
                if env::node::incarnation() > 1 {
                    return std::future::pending().await;
                }
                let file = File::open("/f", Open::New).await.unwrap();
                file.write_at(0, Bytes::from_static(b"alive")).await.unwrap();
                let stream = TcpStream::connect(addr(1)).await.unwrap();
                let words = LastWords { file: file.clone(), stream: Some(stream) };
                let woken = Rc::new(env::sync::Notify::new());
                for _ in 0..5 {
                    let (woken, file) = (woken.clone(), file.clone());
                    env::task::spawn(async move {
                        woken.notified().await;
                        env::probe::probe(|| Said("woken"));
                        file.write_at(0, Bytes::from_static(b"wrong")).await.unwrap();
                    });
                }
                env::task::yield_now().await;
                env::time::sleep(ms(1)).await;
                woken.notify_waiters();
                env::select! {
                    out = file.write_at(0, Bytes::from_static(b"fatal")) => out.unwrap(),
                    () = async {
                        env::probe::probe(|| Said("sibling"));
                        env::task::spawn(async { env::probe::probe(|| Said("spawned by the dead")) });
                    } => {}
                }
                env::probe::probe(|| Said("after"));
                drop(words);
            });
            world.wait(victim, |s| s == Status::Down).await;
            world.restart(victim);
            let (all, clean) = peer.result(&world).await;
            assert!(all.is_empty() && clean, "closed once, by the machine");
            world.sleep(secs(1)).await;
            env::probe::listen(None);
            assert_eq!(world.disk(victim).image()[std::path::Path::new("/f")], "alive");
            said.take()
        });
        assert_eq!(run.unwrap().value, [], "seed {seed}");
    }
}
