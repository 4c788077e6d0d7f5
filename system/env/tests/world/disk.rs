//! Durability and faults of disks.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;

use bytes::Bytes;
use env::disk::{self, DirLock, File, Open};
use world::{FaultId, NodeId, PowerLaw, World, on_seed};

use super::support::*;

/// Runs `write` in the first incarnation, kills it by `die` a second later, and gives the disk's image after.
fn survive<Fut>(
    seed: u64,
    write: impl Fn() -> Fut + Send + 'static,
    die: impl Fn(&World, NodeId) -> FaultId + Send,
) -> std::collections::BTreeMap<String, Bytes>
where
    Fut: Future<Output = ()> + 'static,
{
    let run = on_seed(config(seed), |world| async move {
        let node = world.add_node("n", "n", ip(1), move || {
            let future = write();
            async move {
                if env::node::incarnation() == 1 {
                    future.await;
                }
                std::future::pending().await
            }
        });
        world.sleep(secs(1)).await;
        die(&world, node);
        world.restart(node);
        world.disk(node).image().into_iter().map(|(p, b)| (p.display().to_string(), b)).collect()
    });
    run.unwrap().value
}

async fn a_synced_and_a_dirty_file() {
    let synced = File::open("/synced", Open::New).await.unwrap();
    synced.write_at(0, Bytes::from_static(b"safe")).await.unwrap();
    synced.sync().await.unwrap();
    disk::sync_dir("/").await.unwrap();
    synced.write_at(4, Bytes::from_static(b" and not")).await.unwrap();
    File::open("/unsynced", Open::New).await.unwrap().write_at(0, Bytes::from_static(b"x")).await.unwrap();
}

#[test]
fn a_crash_keeps_the_page_cache() {
    let image = survive(1, a_synced_and_a_dirty_file, |w, n| w.crash(n));
    assert_eq!(image["/synced"], "safe and not");
    assert_eq!(image["/unsynced"], "x");
}

#[test]
fn a_power_loss_loses_what_was_not_synced() {
    let image = survive(1, a_synced_and_a_dirty_file, |w, n| {
        let fault = w.power_loss(n, PowerLaw::Lost);
        let effect = w.effect(fault);
        assert_eq!((effect.count("writes_lost"), effect.count("names_lost")), (2, 1), "{effect:?}");
        fault
    });
    assert_eq!(image["/synced"], "safe");
    assert!(!image.contains_key("/unsynced"));
    let image = survive(1, a_synced_and_a_dirty_file, |w, n| w.power_loss(n, PowerLaw::Kept));
    assert_eq!(image["/unsynced"], "x");
}

#[test]
fn a_file_without_its_name_is_lost_and_a_name_without_its_file_is_empty() {
    let write = || async {
        let nameless = File::open("/nameless", Open::New).await.unwrap();
        nameless.write_at(0, Bytes::from_static(b"data")).await.unwrap();
        File::open("/empty", Open::New).await.unwrap();
        disk::sync_dir("/").await.unwrap();
        disk::create_dir_all("/d").await.unwrap();
        let deep = File::open("/d/deep", Open::New).await.unwrap();
        deep.sync().await.unwrap();
        disk::sync_dir("/d").await.unwrap();
        let late = File::open("/late", Open::New).await.unwrap();
        late.write_at(0, Bytes::from_static(b"data")).await.unwrap();
        late.sync().await.unwrap();
    };
    let image = survive(1, write, |w, n| w.power_loss(n, PowerLaw::Lost));
    assert_eq!(image.keys().collect::<Vec<_>>(), ["/empty", "/nameless"], "/d was never synced in /");
    assert_eq!(image["/nameless"], "");
}

#[test]
fn replace_is_atomic_under_power_loss_at_every_point() {
    let mut seen = std::collections::BTreeSet::new();
    for nth in 1..=6 {
        for seed in 0..30 {
            let write = || async {
                disk::replace("/f", Bytes::from_static(b"old")).await.unwrap();
                disk::replace("/f", Bytes::from_static(b"new")).await.unwrap();
            };
            let image = survive(seed, write, move |w, n| w.power_loss(n, PowerLaw::Any));
            assert_eq!(image["/f"], "new", "after replace returned");
            let armed = on_seed(config(seed), |world| async move {
                world.arm(world::CrashPoint {
                    target: world::Target::Node("n".into()),
                    label: ["disk.open", "disk.write", "disk.sync", "disk.rename", "disk.sync_dir", "disk.set_len"]
                        [nth - 1]
                        .into(),
                    when: world::When::After,
                    nth: 2,
                    partition: None,
                    then: world::Then::Power(PowerLaw::Any),
                    recover_after: None,
                });
                let node = world.add_node("n", "n", ip(1), || async {
                    disk::replace("/f", Bytes::from_static(b"old")).await.unwrap();
                    disk::replace("/f", Bytes::from_static(b"new")).await.unwrap();
                });
                let status = world.wait(node, |s| s != world::Status::Up).await;
                assert_eq!(status, world::Status::Off, "the point was reached");
                world.disk(node).image()[std::path::Path::new("/f")].clone()
            });
            let found = armed.unwrap().value;
            assert!(found == "old" || found == "new", "torn: {found:?}");
            seen.insert(found);
        }
    }
    assert_eq!(seen.len(), 2, "both outcomes happen");
}

#[test]
fn the_law_any_tears_orders_and_drops() {
    let mut prefixes = 0;
    let mut holes = 0;
    let mut torn = 0;
    for seed in 0..200 {
        let write = || async {
            let file = File::open("/f", Open::New).await.unwrap();
            disk::sync_dir("/").await.unwrap();
            for n in 0..6 {
                file.write_at(n * 1000, Bytes::from(vec![n as u8 + 1; 1000])).await.unwrap();
            }
        };
        let image = survive(seed, write, |w, n| w.power_loss(n, PowerLaw::Any));
        let file = &image["/f"];
        assert!(file.len() <= 6000);
        for (at, &byte) in file.iter().enumerate() {
            assert!(byte == 0 || byte as usize == at / 1000 + 1, "byte {at} of seed {seed}");
        }
        let whole = |n: usize| file.len() >= (n + 1) * 1000 && file[n * 1000..(n + 1) * 1000].iter().all(|&b| b != 0);
        let kept: Vec<_> = (0..6).filter(|&n| whole(n)).collect();
        let partial = (0..6).any(|n| {
            let part = file.get(n * 1000..((n + 1) * 1000).min(file.len())).unwrap_or(&[]);
            part.iter().any(|&b| b != 0) && !whole(n)
        });
        torn += usize::from(partial);
        prefixes += usize::from(!partial && kept == (0..kept.len()).collect::<Vec<_>>());
        holes += usize::from(kept.iter().enumerate().any(|(i, &n)| i != n));
    }
    assert!(prefixes > 20 && holes > 10 && torn > 20, "prefixes {prefixes}, holes {holes}, torn {torn}");
}

#[test]
fn a_failed_sync_drops_its_pages_for_good() {
    let run = on_seed(config(1), |world| async move {
        let node = add_client(&world, "n", 1, || async {
            let file = File::open("/f", Open::New).await.unwrap();
            file.write_at(0, Bytes::from_static(b"first")).await.unwrap();
            file.sync().await.unwrap();
            disk::sync_dir("/").await.unwrap();
            env::time::sleep(ms(100)).await;
            file.write_at(0, Bytes::from_static(b"again")).await.unwrap();
            let failed = file.sync().await.is_err();
            let then = file.sync().await.is_ok();
            (failed, then)
        });
        world.sleep(ms(50)).await;
        let (fault, armed) = (world.disk(node.id).fail_syncs(1), world.now());
        assert_eq!(world.effect(fault).began, armed);
        assert_eq!(node.result(&world).await, (true, true), "the second sync says all is well");
        let effect = world.effect(fault);
        assert!(effect.began > armed + ms(40), "it struck with the sync, at {:?}", effect.began);
        assert_eq!(effect.ended, Some(effect.began), "no other sync fails by it");
        assert_eq!((effect.count("syncs_failed"), effect.count("bytes_dropped")), (1, 5));
        world.power_loss(node.id, PowerLaw::Kept);
        world.disk(node.id).image()[std::path::Path::new("/f")].clone()
    });
    assert_eq!(run.unwrap().value, "first");
}

#[test]
fn a_full_disk_says_so_and_recovers() {
    let run = on_seed(config(1), |world| async move {
        let node = add_client(&world, "n", 1, || async {
            let file = File::open("/f", Open::New).await.unwrap();
            file.write_at(0, Bytes::from_static(b"12345678")).await.unwrap();
            env::time::sleep(ms(100)).await;
            let grow = file.write_at(8, Bytes::from_static(b"9")).await.unwrap_err().kind();
            let extend = file.set_len(100).await.unwrap_err().kind();
            file.write_at(0, Bytes::from_static(b"over")).await.unwrap();
            env::time::sleep(ms(100)).await;
            file.write_at(8, Bytes::from_static(b"9")).await.unwrap();
            [grow, extend]
        });
        world.sleep(ms(50)).await;
        let (fault, filled) = (world.disk(node.id).full_now(), world.now());
        world.sleep(ms(100)).await;
        world.heal(fault);
        let effect = world.effect(fault);
        assert!(effect.began > filled + ms(40), "nobody met it before the first write, at {:?}", effect.began);
        assert_eq!(effect.ended, Some(world.now()));
        assert_eq!(node.result(&world).await, [ErrorKind::StorageFull; 2]);
        assert_eq!(world.effect(fault).count("writes_refused"), 2);
    });
    run.unwrap();
}

#[test]
fn a_stall_holds_every_operation() {
    let run = on_seed(config(1), |world| async move {
        let node = add_client(&world, "n", 1, || async {
            let file = File::open("/f", Open::New).await.unwrap();
            env::time::sleep(ms(100)).await;
            let before = env::clock::now();
            file.write_at(0, Bytes::from_static(b"x")).await.unwrap();
            env::clock::now() - before
        });
        world.sleep(ms(50)).await;
        let fault = world.disk(node.id).stall(secs(3));
        let took = node.result(&world).await;
        assert!(took > ms(2_900) && took < secs(3), "{took:?}");
        assert_eq!(world.effect(fault).count("operations_stalled"), 1);
    });
    run.unwrap();
}

#[test]
fn a_wiped_disk_is_empty() {
    let run = on_seed(config(1), |world| async move {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let list = seen.clone();
        let node = world.add_node("n", "n", ip(1), move || {
            let list = list.clone();
            async move {
                let found = disk::read_dir("/").await.unwrap().len();
                list.borrow_mut().push(found);
                disk::replace("/f", Bytes::from_static(b"x")).await.unwrap();
                std::future::pending().await
            }
        });
        world.sleep(ms(100)).await;
        world.crash(node);
        let fault = world.wipe(node);
        world.restart(node);
        world.sleep(ms(100)).await;
        assert_eq!(*seen.borrow(), [0, 0]);
        assert_eq!(world.effect(fault).count("files_wiped"), 1);
    });
    run.unwrap();
}

/// A lock goes with its process, and the destructor of the dead holder does not take it from the next.
#[test]
fn a_lock_dies_with_its_process() {
    let run = on_seed(config(1), |world| async move {
        let node = world.add_node("n", "n", ip(1), || async {
            let _held = DirLock::acquire("/").await.expect("free at each start");
            env::time::sleep(secs(1)).await;
            assert_eq!(DirLock::acquire("/").await.unwrap_err().kind(), ErrorKind::WouldBlock, "held all the time");
            std::future::pending::<()>().await
        });
        for _ in 0..3 {
            world.sleep(secs(2)).await;
            world.crash(node);
            world.restart(node);
        }
        world.sleep(secs(2)).await;
    });
    run.unwrap();
}
