//! Tasks, and the channels between them.

crate::both!(
    join_gives_the_value,
    abort_drops_and_reports,
    a_dropped_handle_detaches,
    abort_on_drop_aborts,
    an_abort_after_the_end_changes_nothing,
    select_prefers_the_first,
    yielding_lets_others_run,
    channels_close,
    streams_of_chance_differ,
);

mod cases {
    use std::cell::Cell;
    use std::rc::Rc;

    use env::sync::{Notify, Semaphore, mpsc, oneshot};
    use env::{task, time};

    use crate::{Place, ms};

    pub async fn join_gives_the_value(_: Place) {
        let task = task::spawn(async {
            time::sleep(ms(5)).await;
            42
        });
        assert!(!task.is_finished());
        assert_eq!(task.await, Ok(42));
    }

    struct OnDrop(Rc<Cell<bool>>);

    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }

    pub async fn abort_drops_and_reports(_: Place) {
        let dropped = Rc::new(Cell::new(false));
        let guard = OnDrop(dropped.clone());
        let task = task::spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        time::sleep(ms(5)).await;
        task.abort();
        assert_eq!(task.await, Err(task::Aborted));
        assert!(dropped.get());
    }

    pub async fn a_dropped_handle_detaches(_: Place) {
        let done = Rc::new(Cell::new(false));
        let flag = done.clone();
        drop(task::spawn(async move {
            time::sleep(ms(5)).await;
            flag.set(true);
        }));
        time::sleep(ms(50)).await;
        assert!(done.get());
    }

    pub async fn abort_on_drop_aborts(_: Place) {
        let done = Rc::new(Cell::new(false));
        let flag = done.clone();
        drop(
            task::spawn(async move {
                time::sleep(ms(20)).await;
                flag.set(true);
            })
            .abort_on_drop(),
        );
        time::sleep(ms(80)).await;
        assert!(!done.get());
    }

    pub async fn an_abort_after_the_end_changes_nothing(_: Place) {
        let task = task::spawn(async { 7 });
        time::sleep(ms(5)).await;
        assert!(task.is_finished());
        task.abort();
        assert_eq!(task.await, Ok(7));
    }

    pub async fn select_prefers_the_first(_: Place) {
        for _ in 0..50 {
            let first = env::select! {
                () = async {} => true,
                () = async {} => false,
            };
            assert!(first);
        }
    }

    pub async fn yielding_lets_others_run(_: Place) {
        let notify = Rc::new(Notify::new());
        let count = Rc::new(Cell::new(0));
        let (n, c) = (notify.clone(), count.clone());
        task::spawn(async move {
            for _ in 0..3 {
                c.set(c.get() + 1);
                task::yield_now().await;
            }
            n.notify_one();
        });
        notify.notified().await;
        assert_eq!(count.get(), 3);
    }

    pub async fn channels_close(_: Place) {
        let (tx, mut rx) = mpsc::channel(2);
        task::spawn(async move {
            for n in 0..5 {
                tx.send(n).await.unwrap();
            }
        });
        let mut got = Vec::new();
        while let Some(n) = rx.recv().await {
            got.push(n);
        }
        assert_eq!(got, [0, 1, 2, 3, 4]);
        let (tx, rx) = oneshot::channel::<()>();
        drop(tx);
        assert!(rx.await.is_err());
        let permits = Semaphore::new(1);
        let held = permits.acquire().await.unwrap();
        assert!(permits.try_acquire().is_err());
        drop(held);
        assert!(permits.try_acquire().is_ok());
    }

    pub async fn streams_of_chance_differ(_: Place) {
        let (mut a, mut b) = (env::rng::stream("a"), env::rng::stream("b"));
        let first = (a.u64(), a.u64());
        assert_ne!(first, (b.u64(), b.u64()));
        // One that is begun for the same again, say by the next leadership of a partition that hands out ids.
        let mut again = env::rng::stream("a");
        assert_ne!(first, (again.u64(), again.u64()));
    }
}
