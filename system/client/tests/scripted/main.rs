//! The client over real sockets against a broker in memory that does what a script says: loses requests and responses,
//! stays silent, answers nonsense, refuses.

mod server;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use env::time::timeout;
use protocol::{ApiKey, ErrorCode};
use server::{Fault, Server};
use streamproof_client::{
    Admin, Client, ClientConfig, Consumer, ConsumerConfig, Isolation, NewTopic, OffsetSpec, Outcome, Producer,
    ProducerConfig, Record, Remedy, TopicPartition,
};

fn run(test: impl Future<Output = ()>) {
    let limited = timeout(Duration::from_secs(20), test);
    env::node::run_real(limited).unwrap().expect("a test that takes twenty seconds hangs");
}

fn client(server: &Server) -> Client {
    Client::new(ClientConfig {
        bootstrap: vec![("127.0.0.1".into(), server.port())],
        request_timeout: Duration::from_millis(300),
        api_timeout: Duration::from_secs(5),
        retry_backoff: Duration::from_millis(50),
        retry_backoff_max: Duration::from_millis(200),
        ..ClientConfig::default()
    })
}

fn producer(server: &Server, config: ProducerConfig) -> Producer {
    Producer::new(client(server), ProducerConfig { delivery_timeout: Duration::from_secs(5), ..config })
}

fn record(value: &str) -> Record {
    Record { value: Some(Bytes::copy_from_slice(value.as_bytes())), ..Record::default() }
}

fn tp() -> TopicPartition {
    TopicPartition::new("t", 0)
}

/// Sends `n` records one batch each and waits for all.
async fn send_all(producer: &Producer, n: usize) -> Vec<Option<i64>> {
    let mut deliveries = Vec::new();
    for i in 0..n {
        deliveries.push(producer.send("t", 0, record(&i.to_string())).await);
        // One batch each: the driver takes it before the next is here.
        env::time::sleep(Duration::from_millis(2)).await;
    }
    let mut offsets = Vec::new();
    for delivery in deliveries {
        offsets.push(delivery.await.expect("delivered").offset);
    }
    offsets
}

fn eager() -> ProducerConfig {
    ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() }
}

async fn read_all(consumer: &Consumer, n: usize) -> Vec<String> {
    let mut values = Vec::new();
    while values.len() < n {
        for result in consumer.poll().await {
            values.extend(result.records.iter().map(|r| String::from_utf8(r.value.clone().unwrap().to_vec()).unwrap()));
        }
    }
    values
}

fn consumer(server: &Server, isolation: Isolation) -> Consumer {
    let config = ConsumerConfig { isolation, max_wait: Duration::from_millis(100), ..ConsumerConfig::default() };
    let consumer = Consumer::new(client(server), config);
    consumer.assign(vec![(tp(), 0)]);
    consumer
}

#[test]
fn produces_and_consumes() {
    run(async {
        let server = Server::start().await;
        let p = producer(&server, eager());
        assert_eq!(send_all(&p, 10).await, (0..10).map(Some).collect::<Vec<_>>());
        let values = read_all(&consumer(&server, Isolation::ReadCommitted), 10).await;
        assert_eq!(values, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    });
}

#[test]
fn every_fault_of_produce_is_survived_without_a_duplicate() {
    for fault in [Fault::CutBefore, Fault::CutAfter, Fault::Silence, Fault::Garbage, Fault::HalfResponse] {
        run(async move {
            let server = Server::start().await;
            server.script(ApiKey::Produce, &[Fault::None, fault, Fault::None, fault]);
            let p = producer(&server, eager());
            assert_eq!(send_all(&p, 8).await, (0..8).map(Some).collect::<Vec<_>>(), "{fault:?}");
            assert_eq!(server.values(), (0..8).map(|n| n.to_string()).collect::<Vec<_>>(), "{fault:?}");
        });
    }
}

#[test]
fn a_cut_during_negotiation_metadata_or_init_is_survived() {
    for api in [ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::InitProducerId] {
        for fault in [Fault::CutBefore, Fault::CutAfter, Fault::Garbage] {
            run(async move {
                let server = Server::start().await;
                server.script(api, &[fault, fault]);
                let p = producer(&server, eager());
                assert_eq!(send_all(&p, 1).await, [Some(0)], "{api:?} {fault:?}");
            });
        }
    }
}

#[test]
fn an_old_broker_without_topic_ids_will_do() {
    run(async {
        let server = Server::start().await;
        server.pretend_old();
        let p = producer(&server, eager());
        assert_eq!(send_all(&p, 3).await, [Some(0), Some(1), Some(2)]);
        assert_eq!(read_all(&consumer(&server, Isolation::ReadCommitted), 3).await, ["0", "1", "2"]);
    });
}

#[test]
fn a_delivery_that_never_gets_an_answer_is_unknown() {
    run(async {
        let server = Server::start().await;
        server.script(ApiKey::Produce, &[Fault::CutAfter; 100]);
        let config = ProducerConfig { delivery_timeout: Duration::from_millis(600), ..eager() };
        let p = Producer::new(client(&server), config);
        let error = p.send("t", 0, record("x")).await.await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Unknown);
        assert_eq!(server.values(), ["x"], "it was there all the time");
    });
}

#[test]
fn nothing_sent_is_a_certain_failure() {
    run(async {
        let server = Server::start().await;
        let config = ProducerConfig { delivery_timeout: Duration::from_millis(300), ..eager() };
        let p = Producer::new(client(&server), config);
        let error = p.send("no-such-topic", 0, record("x")).await.await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Failed);
    });
}

#[test]
fn a_consumer_survives_every_fault_and_loses_nothing() {
    run(async {
        let server = Server::start().await;
        let p = producer(&server, eager());
        send_all(&p, 5).await;
        let faults = [Fault::CutBefore, Fault::CutAfter, Fault::Garbage, Fault::HalfResponse, Fault::None];
        server.script(ApiKey::Fetch, &faults);
        let c = consumer(&server, Isolation::ReadCommitted);
        assert_eq!(read_all(&c, 5).await, ["0", "1", "2", "3", "4"]);
        send_all(&p, 2).await;
        // A poll that is dropped half way takes nothing with it.
        for _ in 0..5 {
            let _ = timeout(Duration::from_millis(3), async {
                let results = c.poll().await;
                assert!(results.iter().all(|r| r.records.is_empty()), "a dropped poll would have lost these");
            })
            .await;
            if c.positions()[&tp()] > 5 {
                break;
            }
        }
        assert_eq!(read_all(&c, 2).await, ["0", "1"]);
        assert_eq!(c.positions()[&tp()], 7);
    });
}

#[test]
fn transactions_of_both_versions() {
    for v2 in [false, true] {
        run(async move {
            let server = Server::start().await;
            server.transactions_v2(v2);
            for api in [ApiKey::FindCoordinator, ApiKey::AddPartitionsToTxn, ApiKey::EndTxn, ApiKey::Produce] {
                server.script(api, &[Fault::CutAfter, Fault::None, Fault::CutBefore]);
            }
            let p = producer(&server, ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::transactional("tx") });
            let first = p.init_transactions(false).await.unwrap();
            p.begin().unwrap();
            send_all(&p, 2).await;
            p.commit().await.unwrap();
            assert_eq!(p.current() == Some(first.identity), !v2, "v2 bumps the epoch");
            p.begin().unwrap();
            send_all(&p, 3).await;
            p.abort().await.unwrap();
            p.begin().unwrap();
            send_all(&p, 1).await;
            p.commit().await.unwrap();
            let c = consumer(&server, Isolation::ReadCommitted);
            assert_eq!(read_all(&c, 3).await, ["0", "1", "0"], "v2: {v2}");
            let c = consumer(&server, Isolation::ReadUncommitted);
            assert_eq!(read_all(&c, 6).await.len(), 6);
        });
    }
}

#[test]
fn a_commit_without_an_answer_is_unknown_and_can_be_repeated() {
    run(async {
        let server = Server::start().await;
        server.script(ApiKey::EndTxn, &[Fault::CutAfter; 200]);
        let mut config = client(&server).config().clone();
        config.api_timeout = Duration::from_millis(400);
        let p = Producer::new(Client::new(config), ProducerConfig::transactional("tx"));
        p.init_transactions(false).await.unwrap();
        p.begin().unwrap();
        let delivery = p.send("t", 0, record("x")).await;
        let error = p.commit().await.unwrap_err();
        assert_eq!((error.outcome, error.remedy), (Outcome::Unknown, Remedy::Retry));
        delivery.await.unwrap();
        assert_eq!(p.abort().await.unwrap_err().remedy, Remedy::Misuse, "it may be committed");
        server.script(ApiKey::EndTxn, &[]);
        p.commit().await.unwrap();
        p.begin().unwrap();
    });
}

#[test]
fn a_fenced_producer_is_told_so() {
    run(async {
        let server = Server::start().await;
        let p = producer(&server, ProducerConfig::transactional("tx"));
        p.init_transactions(false).await.unwrap();
        p.begin().unwrap();
        p.send("t", 0, record("old")).await.await.unwrap();
        let newer = producer(&server, ProducerConfig::transactional("tx"));
        newer.init_transactions(false).await.unwrap();
        let error = p.commit().await.unwrap_err();
        assert_eq!((error.outcome, error.remedy), (Outcome::Failed, Remedy::Close));
        assert_eq!(p.begin().unwrap_err().remedy, Remedy::Close);
        newer.begin().unwrap();
        newer.send("t", 0, record("new")).await.await.unwrap();
        newer.commit().await.unwrap();
        assert_eq!(read_all(&consumer(&server, Isolation::ReadCommitted), 1).await, ["new"]);
    });
}

#[test]
fn admin_calls_repeat_what_may_be_repeated() {
    run(async {
        let server = Server::start().await;
        let p = producer(&server, eager());
        send_all(&p, 4).await;
        server.script(ApiKey::ListOffsets, &[Fault::CutBefore, Fault::Code(ErrorCode::NOT_LEADER_OR_FOLLOWER)]);
        let admin = Admin::new(client(&server));
        let found = admin.list_offsets(&[tp()], OffsetSpec::Latest, Isolation::ReadCommitted).await.unwrap();
        assert_eq!(found[&tp()], Some(4));
        server.script(ApiKey::CreateTopics, &[Fault::CutBefore]);
        let created = admin.create_topics(&[NewTopic::new("new", 1), NewTopic::new("t", 1)]).await.unwrap();
        assert_eq!(created["new"], Ok(()));
        assert_eq!(created["t"], Err(ErrorCode::TOPIC_ALREADY_EXISTS));
        let metadata = admin.metadata(&["new", "nowhere"]).await.unwrap();
        assert_eq!(metadata.topics["new"].partitions.len(), 1);
        assert_eq!(metadata.errors["nowhere"], ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    });
}
