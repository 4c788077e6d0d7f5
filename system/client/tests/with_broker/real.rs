//! On loopback and files.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use broker::{Broker, BrokerConfig};
use protocol::ErrorCode;
use protocol::batch::Compression;
use streamproof_client::{
    Admin, Client, ClientConfig, CommittedOffset, Completion, Consumer, ConsumerConfig, Isolation, NewTopic,
    OffsetSpec, OutOfRange, Outcome, Producer, ProducerConfig, Remedy, TopicPartition,
};

use super::{read_to, record, text};

fn run(test: impl Future<Output = ()>) {
    let limited = env::time::timeout(Duration::from_secs(30), test);
    env::node::run_real(limited).unwrap().expect("a test that takes thirty seconds hangs");
}

async fn start(dir: &Path, port: u16) -> Broker {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Broker::start(BrokerConfig { listen, data_dir: dir.to_owned(), ..BrokerConfig::default() }).await.unwrap()
}

fn client(port: u16) -> Client {
    Client::new(ClientConfig {
        request_timeout: Duration::from_secs(2),
        api_timeout: Duration::from_secs(10),
        ..ClientConfig::new(vec![("127.0.0.1".into(), port)])
    })
}

async fn with_topic(client: &Client, partitions: i32) {
    let created = Admin::new(client.clone()).create_topics(&[NewTopic::new("t", partitions)]).await.unwrap();
    assert_eq!(created["t"], Ok(()));
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

async fn values(client: &Client, isolation: Isolation, partition: i32) -> Vec<String> {
    values_if(client, isolation, partition, false).await
}

/// With `open` there may be transactions that nobody will end.
async fn values_if(client: &Client, isolation: Isolation, partition: i32, open: bool) -> Vec<String> {
    let admin = Admin::new(client.clone());
    // A commit is answered once it is logged; its markers follow.
    let ends = loop {
        let end = async |isolation| admin.list_offsets(&[tp(partition)], OffsetSpec::Latest, isolation).await.unwrap();
        let ends = end(isolation).await;
        if isolation == Isolation::ReadUncommitted || open || ends == end(Isolation::ReadUncommitted).await {
            break ends;
        }
        env::time::sleep(Duration::from_millis(20)).await;
    };
    let ends = ends.into_iter().map(|(tp, end)| (tp, end.unwrap())).collect();
    let out_of_range = OutOfRange::Earliest;
    let config = ConsumerConfig { isolation, out_of_range, ..ConsumerConfig::default() };
    let consumer = Consumer::new(client.clone(), config);
    let found = read_to(&consumer, &ends).await;
    found.get(&tp(partition)).map(|records| records.iter().map(text).collect()).unwrap_or_default()
}

#[test]
fn every_codec_there_and_back() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = start(dir.path(), 0).await;
        let client = client(broker.local_addr().port());
        with_topic(&client, 2).await;
        let codecs = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
        for codec in codecs {
            let producer =
                Producer::new(client.clone(), ProducerConfig { compression: codec, ..ProducerConfig::default() });
            let mut deliveries = Vec::new();
            for n in 0..200 {
                deliveries.push(producer.send("t", n % 2, record(n)).await);
            }
            for delivery in deliveries {
                delivery.await.unwrap();
            }
        }
        for partition in 0..2 {
            let one: Vec<_> = (0..200).filter(|n| n % 2 == partition).map(|n| n.to_string()).collect();
            assert_eq!(values(&client, Isolation::ReadCommitted, partition).await, vec![one; 5].concat());
        }
        broker.shutdown().await.unwrap();
    });
}

#[test]
fn records_are_given_up_also_those_of_an_open_transaction() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = start(dir.path(), 0).await;
        let client = client(broker.local_addr().port());
        with_topic(&client, 2).await;
        let plain = Producer::new(client.clone(), ProducerConfig::default());
        for n in 0..10 {
            plain.send("t", 0, record(n)).await.await.unwrap();
        }
        let admin = Admin::new(client.clone());
        let delete = async |before: &[(i32, i64)]| {
            let before = before.iter().map(|(p, offset)| (tp(*p), *offset)).collect();
            admin.delete_records(&before).await.unwrap()
        };
        let answers = delete(&[(0, 4), (1, 1)]).await;
        assert_eq!(answers, BTreeMap::from([(tp(0), Ok(4)), (tp(1), Err(ErrorCode::OFFSET_OUT_OF_RANGE))]));
        let left: Vec<_> = (4..10).map(|n| n.to_string()).collect();
        assert_eq!(values(&client, Isolation::ReadUncommitted, 0).await, left);

        let producer = Producer::new(client.clone(), ProducerConfig::transactional("tx"));
        producer.init_transactions(false).await.unwrap();
        producer.begin().unwrap();
        for n in 10..13 {
            producer.send("t", 0, record(n)).await.await.unwrap();
        }
        assert_eq!(delete(&[(0, -1)]).await, BTreeMap::from([(tp(0), Ok(13))]));
        let offset = async |spec, isolation| admin.list_offsets(&[tp(0)], spec, isolation).await.unwrap()[&tp(0)];
        assert_eq!(offset(OffsetSpec::Earliest, Isolation::ReadCommitted).await, Some(13));
        assert_eq!(offset(OffsetSpec::Latest, Isolation::ReadCommitted).await, Some(13), "not before the log begins");
        producer.send("t", 0, record(13)).await.await.unwrap();
        assert_eq!(values_if(&client, Isolation::ReadCommitted, 0, true).await, Vec::<String>::new());
        producer.commit().await.unwrap();
        assert_eq!(values(&client, Isolation::ReadCommitted, 0).await, ["13"]);
        broker.shutdown().await.unwrap();

        let broker = start(dir.path(), 0).await;
        let client = self::client(broker.local_addr().port());
        assert_eq!(values(&client, Isolation::ReadCommitted, 0).await, ["13"]);
        let admin = Admin::new(client.clone());
        let earliest = admin.list_offsets(&[tp(0)], OffsetSpec::Earliest, Isolation::ReadCommitted).await.unwrap();
        assert_eq!(earliest[&tp(0)], Some(13));
        broker.shutdown().await.unwrap();
    });
}

#[test]
fn transactions_commit_and_abort() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = start(dir.path(), 0).await;
        let client = client(broker.local_addr().port());
        with_topic(&client, 1).await;
        let producer = Producer::new(client.clone(), ProducerConfig::transactional("tx"));
        let first = producer.init_transactions(false).await.unwrap().identity;
        for n in 0..6 {
            producer.begin().unwrap();
            producer.send("t", 0, record(n)).await.await.unwrap();
            let offsets = BTreeMap::from([(tp(0), CommittedOffset::new(n))]);
            producer.send_offsets("group", &offsets).await.unwrap();
            if n % 2 == 0 { producer.commit().await.unwrap() } else { producer.abort().await.unwrap() }
        }
        let last = producer.current().unwrap();
        assert_eq!((last.producer_id, last.epoch), (first.producer_id, first.epoch + 6), "each end bumps the epoch");
        assert_eq!(values(&client, Isolation::ReadCommitted, 0).await, ["0", "2", "4"]);
        assert_eq!(values(&client, Isolation::ReadUncommitted, 0).await, ["0", "1", "2", "3", "4", "5"]);
        let committed = Admin::new(client.clone()).fetch_offsets("group", &[tp(0)], true).await.unwrap();
        assert_eq!(committed[&tp(0)].offset, 4, "offsets of aborted transactions do not count");

        producer.begin().unwrap();
        producer.send("t", 0, record("fenced")).await.await.unwrap();
        let newer = Producer::new(client.clone(), ProducerConfig::transactional("tx"));
        newer.init_transactions(false).await.unwrap();
        let error = producer.commit().await.unwrap_err();
        assert_eq!((error.outcome, error.remedy), (Outcome::Failed, Remedy::Close), "{error}");
        assert_eq!(values(&client, Isolation::ReadCommitted, 0).await, ["0", "2", "4"]);
        broker.shutdown().await.unwrap();
    });
}

#[test]
fn a_prepared_transaction_outlives_producer_and_broker() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = start(dir.path(), 0).await;
        let port = broker.local_addr().port();
        let client = client(port);
        with_topic(&client, 1).await;
        let config = |id: &str| ProducerConfig { two_phase: true, ..ProducerConfig::transactional(id) };
        let mut prepared = Vec::new();
        for id in ["a", "b"] {
            let producer = Producer::new(client.clone(), config(id));
            producer.init_transactions(false).await.unwrap();
            producer.begin().unwrap();
            drop(producer.send("t", 0, record(id)).await);
            prepared.push(producer.prepare().await.unwrap());
        }
        broker.shutdown().await.unwrap();
        let broker = start(dir.path(), port).await;
        assert!(values_if(&client, Isolation::ReadCommitted, 0, true).await.is_empty(), "neither is decided");

        let a = Producer::new(client.clone(), config("a"));
        assert_eq!(a.init_transactions(true).await.unwrap().ongoing, Some(prepared[0]));
        assert_eq!(a.begin().unwrap_err().remedy, Remedy::Misuse, "the kept one must be ended first");
        assert_eq!(a.complete_prepared(prepared[0]).await.unwrap(), Completion::Committed);
        assert_eq!(a.complete_prepared(prepared[0]).await.unwrap(), Completion::NothingOngoing);
        let b = Producer::new(client.clone(), config("b"));
        assert_eq!(b.init_transactions(true).await.unwrap().ongoing, Some(prepared[1]));
        assert_eq!(b.complete_prepared(prepared[0]).await.unwrap(), Completion::Aborted, "another one was expected");
        assert_eq!(values(&client, Isolation::ReadCommitted, 0).await, ["a"]);
        for producer in [&a, &b] {
            producer.begin().unwrap();
            producer.send("t", 0, record("next")).await.await.unwrap();
            producer.commit().await.unwrap();
        }
        assert_eq!(values(&client, Isolation::ReadCommitted, 0).await, ["a", "next", "next"]);
        broker.shutdown().await.unwrap();
    });
}

#[test]
fn production_goes_on_over_a_restart_of_the_broker() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = start(dir.path(), 0).await;
        let port = broker.local_addr().port();
        let client = client(port);
        with_topic(&client, 1).await;
        let producer = Producer::new(client.clone(), ProducerConfig { batch_bytes: 200, ..ProducerConfig::default() });
        let mut deliveries = Vec::new();
        for n in 0..200 {
            deliveries.push(producer.send("t", 0, record(n)).await);
        }
        broker.shutdown().await.unwrap();
        for n in 200..300 {
            deliveries.push(producer.send("t", 0, record(n)).await);
        }
        let broker = start(dir.path(), port).await;
        for (n, delivery) in deliveries.into_iter().enumerate() {
            assert_eq!(delivery.await.unwrap().offset, Some(n as i64));
        }
        let all: Vec<_> = (0..300).map(|n| n.to_string()).collect();
        assert_eq!(values(&client, Isolation::ReadCommitted, 0).await, all);
        broker.shutdown().await.unwrap();
    });
}

#[test]
fn offsets_topics_and_committed_offsets() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = start(dir.path(), 0).await;
        let client = client(broker.local_addr().port());
        with_topic(&client, 1).await;
        let admin = Admin::new(client.clone());
        let again = admin.create_topics(&[NewTopic::new("t", 1)]).await.unwrap();
        assert_eq!(again["t"], Err(ErrorCode::TOPIC_ALREADY_EXISTS));
        let producer = Producer::new(client.clone(), ProducerConfig::default());
        for n in 0..5 {
            let mut r = record(n);
            r.timestamp = 1_000 + n * 10;
            producer.send("t", 0, r).await.await.unwrap();
        }
        for (spec, offset) in [
            (OffsetSpec::Earliest, Some(0)),
            (OffsetSpec::Latest, Some(5)),
            (OffsetSpec::Timestamp(1_015), Some(2)),
            (OffsetSpec::Timestamp(9_999), None),
        ] {
            let found = admin.list_offsets(&[tp(0)], spec, Isolation::ReadCommitted).await.unwrap();
            assert_eq!(found[&tp(0)], offset, "{spec:?}");
        }
        let offsets = BTreeMap::from([(tp(0), CommittedOffset { metadata: "m".into(), ..CommittedOffset::new(3) })]);
        admin.commit_offsets("g", &offsets).await.unwrap();
        assert_eq!(admin.fetch_offsets("g", &[tp(0), tp(1)], false).await.unwrap(), offsets);
        broker.shutdown().await.unwrap();
    });
}
