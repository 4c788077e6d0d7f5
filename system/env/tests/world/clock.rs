//! Clocks that are wrong.

use world::on_seed;

use super::support::*;

#[test]
fn a_fast_clock_ends_waits_early_for_others() {
    let run = on_seed(config(1), |world| async move {
        let node = add_client(&world, "n", 1, || async {
            env::time::sleep(secs(1)).await;
            let before = env::clock::now();
            env::time::sleep(secs(100)).await;
            env::clock::now() - before
        });
        let fault = world.clock(node.id).drift(50_000);
        let took = node.result(&world).await;
        assert!(took >= secs(100) && took < secs(101), "a hundred of its own seconds: {took:?}");
        let truth = world.now().as_duration();
        assert!(truth > ms(96_100) && truth < ms(96_300), "in {truth:?}");
        assert!(world.effect(fault).bit());
    });
    run.unwrap();
}

#[test]
fn a_change_of_rate_reaches_running_waits() {
    let run = on_seed(config(1), |world| async move {
        let node = add_client(&world, "n", 1, || async {
            let before = env::clock::now();
            env::time::sleep(secs(10)).await;
            env::clock::now() - before
        });
        world.sleep(secs(5)).await;
        let slow = world.clock(node.id).drift(-500_000);
        world.sleep(secs(2)).await;
        world.heal(slow);
        let took = node.result(&world).await;
        assert!(took >= secs(10) && took < ms(10_010), "{took:?}");
        let truth = world.now().as_duration();
        assert!(truth > ms(10_990) && truth < ms(11_010), "5 + 2 at half speed + 4: {truth:?}");
    });
    run.unwrap();
}

#[test]
fn a_step_moves_the_wall_clock_of_one_node() {
    let run = on_seed(config(1), |world| async move {
        let look = || async {
            let (mono, wall) = (env::clock::now(), env::clock::wall_ms());
            env::time::sleep(secs(10)).await;
            (env::clock::now() - mono, env::clock::wall_ms() - wall)
        };
        let (a, b) = (add_client(&world, "a", 1, look), add_client(&world, "b", 2, look));
        world.sleep(secs(5)).await;
        world.clock(a.id).step(secs(3600), false);
        let (mono, wall) = a.result(&world).await;
        assert!(mono >= secs(10) && mono < ms(10_001));
        assert!((-3_590_001..=-3_589_999).contains(&wall), "{wall}");
        let (_, wall) = b.result(&world).await;
        assert!((10_000..10_002).contains(&wall), "{wall}");
        world.clock(b.id).set_offset(-250);
    });
    run.unwrap();
}

#[test]
fn monotonic_clocks_of_two_nodes_have_nothing_in_common() {
    let run = on_seed(config(1), |world| async move {
        let read = || async { env::clock::now().as_nanos() };
        let (a, b) = (add_client(&world, "a", 1, read), add_client(&world, "b", 2, read));
        a.result(&world).await.abs_diff(b.result(&world).await)
    });
    assert!(run.unwrap().value > 1_000_000_000);
}
