//! A partition on real files: order, acknowledgement, bounds, and what is left after a restart.

use std::cell::Cell;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use log::{LogConfig, Marker, Offset, Origin, TransactionVersion};
use protocol::batch::{BatchBuilder, Record, split};
use protocol::{ErrorCode, Uuid};
use streamproof_broker::partition::{Acks, Isolation, Partition, PartitionConfig, TopicPartition};
use streamproof_broker::{Failure, Flush, Metrics};
use world::{Config, on_seed};

fn on_node<F: Future>(f: impl FnOnce(PathBuf) -> F) -> F::Output {
    let dir = tempfile::tempdir().unwrap();
    env::node::run_real(f(dir.path().join("t-0"))).unwrap()
}

async fn open(dir: &Path, flush: Flush) -> Partition {
    let id = TopicPartition { topic: "t".into(), topic_id: Uuid::from_u128(1), partition: 0 };
    let log = LogConfig { segment_bytes: 4000, ..LogConfig::default() };
    let config = PartitionConfig {
        log,
        flush,
        node_id: 1,
        max_queued_bytes: 1 << 20,
        lag_max: Duration::from_secs(10),
        metrics: Metrics::default(),
    };
    Partition::open(id, dir.to_owned(), config, 1, Failure::default()).await.unwrap()
}

fn batch(producer_id: i64, epoch: i16, sequence: i32, transactional: bool) -> Bytes {
    let mut b = BatchBuilder::new().producer(producer_id, epoch, sequence);
    if transactional {
        b = b.transactional();
    }
    b.push(&Record { timestamp: i64::from(sequence), value: Some(vec![7; 200].into()), ..Record::default() });
    b.build()
}

fn marker(producer_epoch: i16, commit: bool) -> Marker {
    Marker { producer_id: 9, producer_epoch, commit, coordinator_epoch: 0, version: TransactionVersion::V2 }
}

async fn offsets(p: &Partition, isolation: Isolation) -> Vec<Offset> {
    let data = p.read(0, 1 << 20, isolation).await.unwrap();
    split(data.records).map(|b| b.unwrap().0.base_offset).collect()
}

#[test]
fn pipelined_appends_are_acknowledged_in_order_and_survive_a_restart() {
    on_node(|dir| async move {
        let p = open(&dir, Flush::Fsync).await;
        let pending: Vec<_> =
            (0..50).map(|i| p.enqueue(batch(9, 0, i, false), Origin::Client, Acks::All, None).unwrap()).collect();
        for (i, answer) in pending.into_iter().enumerate() {
            let done = answer.await.unwrap();
            assert_eq!(done.base_offset, i as Offset);
            assert!(p.high_watermark() > done.last_offset, "acknowledged, so visible");
        }
        let again = p.append(batch(9, 0, 47, false), Origin::Client, Acks::All).await.unwrap();
        assert_eq!(again.base_offset, 47, "a duplicate gets the first copy's offset");
        let gap = p.append(batch(9, 0, 60, false), Origin::Client, Acks::All).await;
        assert_eq!(gap, Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        p.close().await.unwrap();
        assert_eq!(
            p.append(batch(9, 0, 50, false), Origin::Client, Acks::All).await,
            Err(ErrorCode::KAFKA_STORAGE_ERROR)
        );
        drop(p);
        let p = open(&dir, Flush::Fsync).await;
        assert_eq!((p.log_end_offset(), p.high_watermark(), p.last_stable_offset()), (50, 50, 50));
        let again = p.append(batch(9, 0, 49, false), Origin::Client, Acks::All).await.unwrap();
        assert_eq!(again.base_offset, 49);
    });
}

#[test]
fn read_committed_stops_at_the_open_transaction_and_hears_of_aborted_ones() {
    on_node(|dir| async move {
        let p = open(&dir, Flush::Fsync).await;
        let append = |b| p.append(b, Origin::Client, Acks::All);
        let begin = |b, asked| p.enqueue(b, Origin::Client, Acks::All, asked).unwrap();
        append(batch(1, 0, 0, false)).await.unwrap();
        let before = p.ask(9, 0);
        assert_eq!(append(batch(9, 0, 0, true)).await, Err(ErrorCode::TRANSACTION_ABORTABLE), "nobody was asked");
        begin(batch(9, 0, 0, true), before).await.unwrap();
        assert_eq!(p.ask(9, 0), None, "it is open here");
        append(batch(1, 0, 1, false)).await.unwrap();
        assert_eq!((p.high_watermark(), p.last_stable_offset()), (3, 1));
        assert_eq!(offsets(&p, Isolation::ReadUncommitted).await, [0, 1, 2]);
        assert_eq!(offsets(&p, Isolation::ReadCommitted).await, [0], "the bound is exclusive");
        assert_eq!(p.append_marker(marker(1, false)).await, Ok(3));
        assert_eq!(p.last_stable_offset(), 4);
        assert_eq!(p.append_marker(marker(1, false)).await, Ok(4), "repeated: waits, is not written again");
        assert_eq!(p.log_end_offset(), 4);
        let data = p.read(0, 1 << 20, Isolation::ReadCommitted).await.unwrap();
        assert_eq!(data.aborted.iter().map(|t| (t.producer_id, t.first_offset)).collect::<Vec<_>>(), [(9, 1)]);
        // Late, of the ended transaction: it would open one that nobody ends.
        assert_eq!(append(batch(9, 0, 1, true)).await, Err(ErrorCode::INVALID_PRODUCER_EPOCH));
        // Asked of before the marker: what the answer was about may be what the marker ended (KAFKA-14884).
        assert_eq!(begin(batch(9, 1, 0, true), before).await, Err(ErrorCode::TRANSACTION_ABORTABLE));
        begin(batch(9, 1, 0, true), p.ask(9, 1)).await.unwrap();
        assert_eq!(p.append_marker(marker(1, true)).await, Err(ErrorCode::INVALID_PRODUCER_EPOCH));
        drop(p);
        let p = open(&dir, Flush::Fsync).await;
        assert_eq!((p.high_watermark(), p.last_stable_offset()), (5, 4));
    });
}

#[test]
fn waiting_readers_are_woken_by_their_bound() {
    on_node(|dir| async move {
        let p = open(&dir, Flush::PageCache).await;
        let waiting = env::task::spawn({
            let p = p.clone();
            async move {
                p.wait_readable(0, Isolation::ReadCommitted).await;
                p.last_stable_offset()
            }
        });
        p.append(batch(1, 0, 0, false), Origin::Client, Acks::Leader).await.unwrap();
        assert_eq!(waiting.await, Ok(1));
        assert_eq!(p.read(2, 10, Isolation::ReadCommitted).await, Err(ErrorCode::OFFSET_OUT_OF_RANGE));
    });
}

/// What a node and its world tell each other.
#[derive(Default)]
struct Steps {
    reached: Cell<u32>,
    allowed: Cell<u32>,
}

impl Steps {
    /// Says that `step` is reached, and waits to be told to go on.
    async fn at(&self, step: u32) {
        self.reached.set(step);
        while self.allowed.get() < step {
            env::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[test]
fn what_is_sent_behind_a_batch_that_found_no_room_comes_again_with_it() {
    const FULL: Result<Offset, ErrorCode> = Err(ErrorCode::NOT_ENOUGH_REPLICAS);
    let node = async |steps: Rc<Steps>| {
        let p = open(Path::new("/data/t-0"), Flush::Fsync).await;
        let append = async |producer, sequence| {
            let appended = p.append(batch(producer, 0, sequence, false), Origin::Client, Acks::All).await;
            appended.map(|a| a.base_offset)
        };
        assert_eq!(append(9, 0).await, Ok(0));
        assert_eq!(append(8, 0).await, Ok(1));
        steps.at(1).await; // the disk is full from here on
        let behind = p.enqueue(batch(9, 0, 2, false), Origin::Client, Acks::All, None).unwrap();
        assert_eq!(behind.await, Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), "behind nothing");
        assert_eq!(append(9, 1).await, FULL);
        steps.at(2).await; // and has room again
        assert_eq!(append(9, 2).await, FULL, "its turn is after the one before it");
        assert_eq!(append(8, 2).await, Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), "another producer's gap is one");
        env::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(append(9, 2).await, Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), "the one before it was given up");
        assert_eq!(append(9, 1).await, Ok(2));
        assert_eq!(append(9, 2).await, Ok(3));
        steps.at(3).await;
    };
    let run = on_seed(Config::new(1, 1), |world| async move {
        let steps = Rc::new(Steps::default());
        let of_node = Rc::clone(&steps);
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let id = world.add_node("broker", "broker", ip, move || node(Rc::clone(&of_node)));
        let reach = async |step| {
            while steps.reached.get() < step {
                world.sleep(Duration::from_millis(100)).await;
            }
        };
        reach(1).await;
        let full = world.disk(id).full_now();
        steps.allowed.set(1);
        reach(2).await;
        world.heal(full);
        steps.allowed.set(2);
        reach(3).await;
    });
    if let Err(failed) = run {
        panic!("{failed}");
    }
}
