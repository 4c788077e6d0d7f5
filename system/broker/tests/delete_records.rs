//! DeleteRecords over three brokers: what was answered to be given up stays so on every replica, over crashes, power loss
//! and changes of the leader, and nothing else goes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use client::{Admin, Consumer, ConsumerConfig, Isolation, NewTopic, OffsetSpec, Outcome, Producer, ProducerConfig};
use client::{Client, TopicPartition};
use protocol::messages::DeleteRecordsRequest;
use protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use protocol::{ErrorCode, ResponseBody};
use streamproof_broker::Flush;
use streamproof_broker::peer::{Peer, PeerConfig};
use world::{Config, NodeId, PowerLaw, World, on_seed};

use crate::replication::{
    BROKERS, Outcomes, PARTITIONS, RECORDS, a_client, addresses, broker_main, create, ip, produce, record, seeds,
    trouble, whole,
};

fn tp() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn three_brokers(world: &World) -> Vec<NodeId> {
    let names = (0..BROKERS).zip(["broker-0", "broker-1", "broker-2"]);
    names.map(|(id, name)| world.add_node(name, "broker", ip(10 + id), move || broker_main(id, Flush::Fsync))).collect()
}

/// Records of 1 kB, so that there are several segments.
async fn fill(client: &Client, n: i64) {
    let producer = Producer::new(client.clone(), ProducerConfig::default());
    for i in 0..n {
        producer.send("t", 0, record(format!("{i:01000}"))).await.await.unwrap();
    }
}

async fn delete(client: &Client, before: i64) -> Result<i64, ErrorCode> {
    Admin::new(client.clone()).delete_records(&BTreeMap::from([(tp(), before)])).await.unwrap()[&tp()]
}

async fn offset(client: &Client, spec: OffsetSpec) -> i64 {
    let found = Admin::new(client.clone()).list_offsets(&[tp()], spec, Isolation::ReadUncommitted).await;
    found.unwrap()[&tp()].unwrap()
}

async fn leader(client: &Client) -> i32 {
    Admin::new(client.clone()).metadata(&["t"]).await.unwrap().leader(&tp()).unwrap().node
}

/// Error and low watermark of one call to one broker.
async fn ask(broker: i32, topic: &str, partition: i32, before: i64, timeout_ms: i32) -> (ErrorCode, i64) {
    let partition = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(before);
    let topic = DeleteRecordsTopic::default().with_name(protocol::topic_name(topic)).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout_ms).into();
    let (host, port) = addresses()[broker as usize].clone();
    let config = PeerConfig { connect_timeout: Duration::from_secs(1), max_response_bytes: 1 << 20 };
    let answer = Peer::new(-1, host, port, config).call(2, &request, Duration::from_secs(20)).await;
    let Ok(ResponseBody::DeleteRecords(answer)) = answer else { panic!("{answer:?}") };
    let told = &answer.topics[0].partitions[0];
    (ErrorCode::from_code(told.error_code), told.low_watermark)
}

fn simulated<F: Future<Output = ()>>(seed: u64, test: impl FnOnce(World) -> F + Send + 'static) {
    let mut config = Config::new(seed, seed);
    config.sim_limit = Duration::from_secs(400);
    if let Err(failed) = on_seed(config, test) {
        panic!("seed {seed}: {:?}", failed.why);
    }
}

#[test]
fn what_is_given_up_stays_so_over_changes_of_the_leader_and_restarts() {
    simulated(1, async |world| {
        let brokers = three_brokers(&world);
        create(NewTopic::new("t", PARTITIONS)).await;
        whole().await;
        let client = a_client();
        fill(&client, 60).await;
        assert_eq!(delete(&client, 25).await, Ok(25));
        assert_eq!(delete(&client, 25).await, Ok(25), "the same call again");
        assert_eq!(delete(&client, 10).await, Ok(25), "it does not come back");
        assert_eq!(delete(&client, 61).await, Err(ErrorCode::OFFSET_OUT_OF_RANGE));
        assert_eq!(offset(&client, OffsetSpec::Earliest).await, 25);

        let first = leader(&client).await;
        world.crash(brokers[first as usize]);
        assert_eq!(offset(&client, OffsetSpec::Earliest).await, 25);
        assert_ne!(leader(&client).await, first);
        // The one that is down is waited for until it is fenced.
        assert_eq!(delete(&client, 40).await, Ok(40));
        world.restart(brokers[first as usize]);
        whole().await;
        // It has followed: nobody's log begins below.
        assert_eq!(delete(&client, 40).await, Ok(40));
        assert_eq!(delete(&client, -1).await, Ok(60));
        for broker in &brokers {
            world.power_loss(*broker, PowerLaw::Any);
        }
        env::time::sleep(Duration::from_secs(1)).await;
        for broker in &brokers {
            world.restart(*broker);
        }
        whole().await;
        assert_eq!(offset(&client, OffsetSpec::Earliest).await, 60);
        assert_eq!(offset(&client, OffsetSpec::Latest).await, 60);
        fill(&client, 1).await;
        assert_eq!(offset(&client, OffsetSpec::Latest).await, 61);
    });
}

#[test]
fn a_replica_that_does_not_follow_is_waited_for_until_it_is_fenced() {
    simulated(2, async |world| {
        let brokers = three_brokers(&world);
        create(NewTopic::new("t", PARTITIONS)).await;
        whole().await;
        let client = a_client();
        fill(&client, 20).await;
        let leads = leader(&client).await;
        let silent = brokers[((leads + 1) % BROKERS) as usize];
        world.pause(silent);
        let (error, low_watermark) = ask(leads, "t", 0, 15, 800).await;
        assert_eq!(error, ErrorCode::REQUEST_TIMED_OUT);
        assert!(low_watermark < 15, "{low_watermark}");
        assert_eq!(offset(&client, OffsetSpec::Earliest).await, 15, "the leader has done it");
        world.resume(silent);
        assert_eq!(ask(leads, "t", 0, 15, 10_000).await, (ErrorCode::NONE, 15));
        world.crash(silent);
        assert_eq!(ask(leads, "t", 0, 18, 15_000).await, (ErrorCode::NONE, 18));
        world.restart(silent);
        whole().await;
    });
}

#[test]
fn what_kafka_refuses_is_refused() {
    simulated(3, async |world| {
        three_brokers(&world);
        create(NewTopic::new("t", PARTITIONS)).await;
        let policy = |name: &str, policy: &str| {
            let configs = BTreeMap::from([("cleanup.policy".to_owned(), policy.to_owned())]);
            NewTopic { configs, ..NewTopic::new(name, 1) }
        };
        create(policy("compacted", "compact")).await;
        create(policy("both", "compact,delete")).await;
        whole().await;
        let client = a_client();
        fill(&client, 5).await;
        Admin::new(client.clone()).commit_offsets("g", &BTreeMap::new()).await.unwrap();
        let admin = Admin::new(client.clone());
        let leader_of = async |topic: &str| {
            let metadata = admin.metadata(&[topic]).await.unwrap();
            metadata.leader(&TopicPartition::new(topic, 0)).unwrap().node
        };
        let leads = leader_of("t").await;
        let nothing = |error| (error, -1);
        assert_eq!(ask(leads, "t", 0, 6, 1_000).await, nothing(ErrorCode::OFFSET_OUT_OF_RANGE));
        assert_eq!(ask(leads, "t", 0, -2, 1_000).await, nothing(ErrorCode::OFFSET_OUT_OF_RANGE));
        assert_eq!(ask(leads, "t", 9, 1, 1_000).await, nothing(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        assert_eq!(ask(leads, "no-such", 0, 1, 1_000).await, nothing(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        let other = (leads + 1) % BROKERS;
        assert_eq!(ask(other, "t", 0, 1, 1_000).await, nothing(ErrorCode::NOT_LEADER_OR_FOLLOWER));
        let compacted = leader_of("compacted").await;
        assert_eq!(ask(compacted, "compacted", 0, 0, 1_000).await, nothing(ErrorCode::POLICY_VIOLATION));
        let both = leader_of("both").await;
        assert_eq!(ask(both, "both", 0, 0, 5_000).await, (ErrorCode::NONE, 0));
        for broker in 0..BROKERS {
            let refused = nothing(ErrorCode::INVALID_TOPIC_EXCEPTION);
            assert_eq!(ask(broker, "__consumer_offsets", 0, 0, 1_000).await, refused);
        }
        assert_eq!(ask(leads, "t", 0, 5, 5_000).await, (ErrorCode::NONE, 5));
    });
}

/// Gives up a little more of partition 0 again and again, and notes what it was told.
async fn give_up(told: Rc<Cell<i64>>, done: Rc<Cell<bool>>) {
    let client = a_client();
    let admin = Admin::new(client.clone());
    for n in 0..12 {
        let end = admin.list_offsets(&[tp()], OffsetSpec::Latest, Isolation::ReadUncommitted).await;
        let Some(end) = end.ok().and_then(|found| found[&tp()]) else { continue };
        let before = if n % 4 == 3 { -1 } else { end * 3 / 4 };
        if let Ok(answers) = admin.delete_records(&BTreeMap::from([(tp(), before)])).await {
            let low_watermark = answers[&tp()].expect("it was committed when it was asked for");
            assert!(low_watermark >= before, "low watermark {low_watermark} below {before}");
            told.set(told.get().max(low_watermark));
        }
        let begins = admin.list_offsets(&[tp()], OffsetSpec::Earliest, Isolation::ReadUncommitted).await;
        if let Some(begins) = begins.ok().and_then(|found| found[&tp()]) {
            assert!(begins >= told.get(), "begins at {begins}, was told {}", told.get());
        }
        env::time::sleep(Duration::from_millis(700)).await;
    }
    done.set(true);
}

async fn run(world: World, seed: u64) -> i64 {
    let brokers = three_brokers(&world);
    create(NewTopic::new("t", PARTITIONS)).await;
    let outcomes = Outcomes::default();
    for (n, name) in ["x", "y"].into_iter().enumerate() {
        let outcomes = Rc::clone(&outcomes);
        world.add_node(name, "producer", ip(2 + n as i32), move || produce(name, Rc::clone(&outcomes)));
    }
    let (told, done) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let (for_node, ends) = (Rc::clone(&told), Rc::clone(&done));
    world.add_node("z", "admin", ip(4), move || give_up(Rc::clone(&for_node), Rc::clone(&ends)));
    trouble(&world, seed, &brokers).await;
    for _ in 0..1200 {
        if outcomes.borrow().len() == 2 * RECORDS as usize && done.get() {
            break;
        }
        env::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(done.get(), "seed {seed}: the deletions end");
    whole().await;
    let client = a_client();
    let (start, end) = (offset(&client, OffsetSpec::Earliest).await, offset(&client, OffsetSpec::Latest).await);
    assert!(start >= told.get(), "seed {seed}: begins at {start}, was told {}", told.get());
    let consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign(vec![(tp(), start)]);
    let found = RefCell::new(BTreeMap::new());
    while consumer.positions()[&tp()] < end {
        let records = consumer.poll().await.into_iter().flat_map(|result| result.records);
        found.borrow_mut().extend(records.map(|r| (r.offset, String::from_utf8(r.value.unwrap().to_vec()).unwrap())));
    }
    let found = found.into_inner();
    assert!(found.keys().copied().eq(start..end), "seed {seed}: {start} to {end}: {:?}", found.keys());
    for (text, outcome) in outcomes.borrow().iter() {
        let of_partition_0 = text.rsplit('-').next().is_some_and(|n| n.parse::<i64>().unwrap() % 2 == 0);
        let places: Vec<i64> = found.iter().filter(|(_, t)| *t == text).map(|(at, _)| *at).collect();
        match outcome {
            Ok(Some(at)) if of_partition_0 && *at >= start => assert_eq!(places, [*at], "seed {seed}: {text}"),
            Ok(_) | Err(Outcome::Failed) => assert!(places.is_empty(), "seed {seed}: {text} at {places:?}"),
            Err(Outcome::Unknown) => assert!(places.len() <= 1, "seed {seed}: {text} is there twice"),
        }
    }
    told.get()
}

#[test]
fn under_faults_the_start_never_falls_and_no_more_goes_than_was_asked() {
    let mut told = 0;
    for seed in seeds() {
        let mut config = Config::new(seed, seed);
        config.sim_limit = Duration::from_secs(600);
        match on_seed(config, move |world| run(world, seed)) {
            Ok(finished) => told += finished.value,
            Err(failed) => panic!("seed {seed}: {:?}", failed.why),
        }
    }
    assert!(told > 0, "nothing was given up");
}
