//! A write-ahead log that acknowledges after its sync loses nothing under power loss; the mutant that acknowledges
//! before it is found. This is the world's own canary: blind to the second, it would prove nothing by the first.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use env::disk::{self, File, Open};
use world::{Config, PowerLaw, Then, on_seed};

use super::support::*;

const RECORD: u64 = 16;

fn record(n: u64) -> Bytes {
    let mut bytes = n.to_be_bytes().to_vec();
    bytes.extend((n ^ 0x5157_4150).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes.into()
}

/// Acknowledged records that a recovery did not find, over one seed with ten deaths.
fn violations(seed: u64, ack_first: bool) -> (u64, u64) {
    let run = on_seed(Config::new(seed, seed), |world| async move {
        let acked = Rc::new(Cell::new(0));
        let lost = Rc::new(Cell::new(0));
        let total = Rc::new(Cell::new(0));
        let log = Rc::new(RefCell::new(()));
        let (acked2, lost2, total2) = (acked.clone(), lost.clone(), total.clone());
        let node = world.add_node("wal", "wal", ip(1), move || {
            let (acked, lost, total, _log) = (acked2.clone(), lost2.clone(), total2.clone(), log.clone());
            async move {
                let file = File::open("/wal", Open::OrCreate).await.unwrap();
                disk::sync_dir("/").await.unwrap();
                let mut n = 0;
                while file.read_at(n * RECORD, RECORD as usize).await.unwrap() == record(n) {
                    n += 1;
                }
                if n < acked.get() {
                    lost.set(lost.get() + acked.get() - n);
                }
                file.set_len(n * RECORD).await.unwrap();
                // Until this, what was found may be in the page cache alone.
                file.sync().await.unwrap();
                acked.set(n);
                loop {
                    file.write_at(n * RECORD, record(n)).await.unwrap();
                    n += 1;
                    if ack_first {
                        acked.set(n);
                        file.sync().await.unwrap();
                    } else {
                        file.sync().await.unwrap();
                        acked.set(n);
                    }
                    total.set(total.get() + 1);
                }
            }
        });
        let mut rng = seed::stream(seed, "deaths", &[]);
        for death in 0..10 {
            world.sleep(ms(rng.range(1, 60))).await;
            match death % 3 {
                0 => _ = world.crash(node),
                1 => _ = world.power_loss(node, PowerLaw::Any),
                _ => {
                    world.arm(world::CrashPoint {
                        target: world::Target::Role("wal".into()),
                        label: ["disk.write", "disk.sync"][rng.index(2)].into(),
                        when: [world::When::Before, world::When::After][rng.index(2)],
                        nth: 5,
                        partition: None,
                        then: Then::Power(PowerLaw::Any),
                        recover_after: None,
                    });
                    world.wait(node, |s| s == world::Status::Off).await;
                }
            }
            world.restart(node);
        }
        world.sleep(ms(50)).await;
        (lost.get(), total.get())
    });
    run.unwrap().value
}

#[test]
fn an_acknowledgement_after_the_sync_holds() {
    let mut total = 0;
    for seed in 0..200 {
        let (lost, acked) = violations(seed, false);
        assert_eq!(lost, 0, "seed {seed}");
        total += acked;
    }
    assert!(total > 10_000, "{total} acknowledged");
}

#[test]
fn an_acknowledgement_before_it_is_caught() {
    let caught = (0..200).filter(|&seed| violations(seed, true).0 > 0).count();
    assert!(caught > 100, "caught in {caught} of 200 seeds");
}
