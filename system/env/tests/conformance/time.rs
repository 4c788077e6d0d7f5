//! Clocks and timers.

crate::both!(
    sleeps_end_in_order,
    sleeps_are_not_short,
    a_timeout_drops_its_future,
    a_ready_future_beats_its_deadline,
    a_dropped_sleep_wakes_nobody,
    clocks_go_forward,
    sleep_until_the_past_is_ready,
);

mod cases {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::time::Duration;

    use env::{clock, task, time};

    use crate::{Place, ms};

    pub async fn sleeps_end_in_order(_: Place) {
        let order = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = [120, 40, 80]
            .into_iter()
            .map(|n| {
                let order = order.clone();
                task::spawn(async move {
                    time::sleep(ms(n)).await;
                    order.borrow_mut().push(n);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), [40, 80, 120]);
    }

    pub async fn sleeps_are_not_short(_: Place) {
        for wait in [Duration::ZERO, Duration::from_micros(300), ms(7)] {
            let before = clock::now();
            time::sleep(wait).await;
            assert!(clock::now() - before >= wait);
        }
    }

    struct OnDrop(Rc<Cell<bool>>);

    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }

    pub async fn a_timeout_drops_its_future(_: Place) {
        let dropped = Rc::new(Cell::new(false));
        let guard = OnDrop(dropped.clone());
        let out = time::timeout(ms(20), async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        assert_eq!(out.await, Err(time::Elapsed));
        assert!(dropped.get());
    }

    pub async fn a_ready_future_beats_its_deadline(_: Place) {
        assert_eq!(time::timeout(Duration::ZERO, async { 5 }).await, Ok(5));
        let past = clock::now();
        time::sleep(ms(2)).await;
        assert_eq!(time::timeout_at(past, async { 6 }).await, Ok(6));
        assert_eq!(time::timeout_at(past, std::future::pending::<()>()).await, Err(time::Elapsed));
    }

    pub async fn a_dropped_sleep_wakes_nobody(_: Place) {
        let polls = Rc::new(Cell::new(0));
        let count = polls.clone();
        let task = task::spawn(async move {
            let mut long = Box::pin(time::sleep(ms(100_000)));
            std::future::poll_fn(|cx| {
                count.set(count.get() + 1);
                let mut short = Box::pin(time::sleep(ms(20)));
                assert!(short.as_mut().poll(cx).is_pending(), "set, and dropped at once");
                drop(short);
                long.as_mut().poll(cx)
            })
            .await;
        });
        time::sleep(ms(100)).await;
        assert_eq!(polls.get(), 1);
        task.abort();
    }

    pub async fn clocks_go_forward(_: Place) {
        let (mono, wall) = (clock::now(), clock::wall_ms());
        time::sleep(ms(30)).await;
        assert!(clock::now() > mono);
        assert!(clock::wall_ms() >= wall + 29);
        assert!(wall > 1_600_000_000_000, "a wall clock after 2020");
    }

    pub async fn sleep_until_the_past_is_ready(_: Place) {
        let past = clock::now();
        time::sleep(ms(5)).await;
        time::sleep_until(past).await;
        assert!(clock::now() - past < Duration::from_secs(5));
    }
}
