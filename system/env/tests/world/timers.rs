//! Timers are cancelled by dropping them, and cost nothing once gone.

use std::time::Duration;

use world::on_seed;

use super::support::*;

#[test]
fn a_million_polls_leave_nothing_behind() {
    let run = on_seed(config(1), |world| async move {
        let node = add_client(&world, "n", 1, || async {
            let mut polls = 0u32;
            let mut long = Box::pin(env::time::sleep(secs(3600)));
            std::future::poll_fn(|cx| {
                polls += 1;
                assert!(long.as_mut().poll(cx).is_pending());
                let mut other = Box::pin(env::time::sleep(secs(60)));
                assert!(other.as_mut().poll(cx).is_pending());
                if polls == 1_000_000 {
                    return std::task::Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            })
            .await;
            polls
        });
        world.wait(node.id, |s| s == world::Status::Down).await;
        world.pending()
    });
    assert_eq!(run.unwrap().value, 0, "the agenda is empty");
}

#[test]
fn waits_below_a_millisecond_are_exact() {
    let run = on_seed(config(1), |world| async move {
        let node = add_client(&world, "n", 1, || async {
            let before = env::clock::now();
            for _ in 0..100 {
                env::time::sleep(Duration::from_micros(10)).await;
            }
            env::clock::now() - before
        });
        node.result(&world).await
    });
    let took = run.unwrap().value;
    assert!(took >= ms(1) && took < Duration::from_micros(1_100), "{took:?}");
}
