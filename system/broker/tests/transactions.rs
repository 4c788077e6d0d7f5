//! Transactions through a broker that dies at every step of them: each is seen whole or not at all, on every partition
//! and in the group's offset, as its producer was told; and nothing stays open.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use client::{
    Admin, Client, ClientConfig, CommittedOffset, Consumer, ConsumerConfig, Isolation, NewTopic, Outcome, Producer,
    ProducerConfig, Remedy, TopicPartition,
};
use protocol::ErrorCode;
use protocol::batch::Record;
use streamproof_broker::{Broker, BrokerConfig};
use world::{Config, CrashPoint, PowerLaw, Target, Then, When, World, on_seed};

const BROKER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const PORT: u16 = 9092;
const TOPICS: [&str; 2] = ["a", "b"];
const TRANSACTIONS: i64 = 12;

/// What the producer was told.
#[derive(Default, Debug)]
struct Told {
    created: bool,
    committed: BTreeSet<i64>,
    aborted: BTreeSet<i64>,
    unknown: BTreeSet<i64>,
    tried: i64,
    /// What a consumer of read_committed found at the end, by topic, and the group's offset.
    found: BTreeMap<String, Vec<i64>>,
    offset: Option<i64>,
    done: bool,
}

type Shared = Rc<RefCell<Told>>;

async fn broker() {
    let config = BrokerConfig {
        listen: SocketAddr::new(BROKER, PORT),
        advertised_host: BROKER.to_string(),
        data_dir: "/data".into(),
        ..BrokerConfig::default()
    };
    match Broker::start(config).await {
        Ok(broker) => {
            broker.failed().await;
        }
        Err(error) => panic!("{error}"),
    }
}

fn connect() -> Client {
    let config =
        ClientConfig { request_timeout: Duration::from_secs(2), ..ClientConfig::new(vec![(BROKER.to_string(), PORT)]) };
    Client::new(config)
}

async fn create() {
    let admin = Admin::new(connect());
    let topics = TOPICS.map(|t| NewTopic::new(t, 1));
    loop {
        if let Ok(results) = admin.create_topics(&topics).await
            && results.values().all(|r| matches!(r, Ok(()) | Err(ErrorCode::TOPIC_ALREADY_EXISTS)))
        {
            return;
        }
        env::time::sleep(Duration::from_millis(50)).await;
    }
}

fn value(n: i64) -> Record {
    Record { value: Some(n.to_string().into()), ..Record::default() }
}

/// One transaction: a record in each topic and the group's offset. Whether it committed, if that is known.
async fn transaction(producer: &Producer, n: i64, commit: bool) -> Result<bool, bool> {
    producer.begin().map_err(|_| false)?;
    let mut deliveries = Vec::new();
    for topic in TOPICS {
        deliveries.push(producer.send(topic, 0, value(n)).await);
    }
    let offsets = BTreeMap::from([(TopicPartition::new("a", 0), CommittedOffset::new(n))]);
    let sent = producer.send_offsets("g", &offsets).await;
    producer.flush().await;
    let mut delivered = sent.is_ok();
    for delivery in deliveries {
        delivered &= delivery.await.is_ok();
    }
    if delivered && commit {
        loop {
            match producer.commit().await {
                Ok(()) => return Ok(true),
                Err(e) if e.remedy == Remedy::Retry => env::time::sleep(Duration::from_millis(50)).await,
                Err(e) if e.remedy == Remedy::Abort && e.outcome == Outcome::Failed => break,
                Err(e) => return Err(e.outcome == Outcome::Unknown),
            }
        }
    }
    loop {
        match producer.abort().await {
            Ok(()) => return Ok(false),
            Err(e) if e.remedy == Remedy::Retry => env::time::sleep(Duration::from_millis(50)).await,
            Err(_) => return Err(false),
        }
    }
}

async fn workload(told: Shared) {
    create().await;
    told.borrow_mut().created = true;
    let producer_of = || async {
        loop {
            let producer = Producer::new(connect(), ProducerConfig::transactional("job"));
            if producer.init_transactions(false).await.is_ok() {
                return producer;
            }
        }
    };
    let mut producer = producer_of().await;
    for n in 1..=TRANSACTIONS {
        told.borrow_mut().tried = n;
        let outcome = transaction(&producer, n, n % 3 != 0).await;
        {
            let mut t = told.borrow_mut();
            match outcome {
                Ok(true) => t.committed.insert(n),
                Ok(false) | Err(false) => t.aborted.insert(n),
                Err(true) => t.unknown.insert(n),
            };
        }
        if outcome.is_err() {
            producer = producer_of().await;
        }
    }
    let consumer =
        Consumer::new(connect(), ConsumerConfig { isolation: Isolation::ReadCommitted, ..ConsumerConfig::default() });
    consumer.assign(TOPICS.iter().map(|t| (TopicPartition::new(*t, 0), 0)).collect());
    let mut ends: BTreeMap<String, bool> = BTreeMap::new();
    while ends.len() < TOPICS.len() || !ends.values().all(|end| *end) {
        for result in consumer.poll().await {
            let topic = result.partition.topic.to_string();
            let mut t = told.borrow_mut();
            let found = t.found.entry(topic.clone()).or_default();
            for record in &result.records {
                found.push(String::from_utf8_lossy(record.value.as_ref().unwrap()).parse().unwrap());
            }
            if result.error.is_none() {
                let stable = result.last_stable_offset == result.high_watermark;
                ends.insert(topic, stable && result.position >= result.high_watermark);
            }
        }
    }
    let admin = Admin::new(connect());
    let place = TopicPartition::new("a", 0);
    let offset = loop {
        if let Ok(found) = admin.fetch_offsets("g", std::slice::from_ref(&place), true).await {
            break found.get(&place).map(|c| c.offset);
        }
    };
    let mut t = told.borrow_mut();
    t.offset = offset;
    t.done = true;
}

fn check(t: &Told) {
    assert!(t.done, "not finished: {t:?}");
    for topic in TOPICS {
        let found = &t.found[topic];
        let once: BTreeSet<i64> = found.iter().copied().collect();
        assert_eq!(once.len(), found.len(), "a record twice in {topic}: {t:?}");
        assert!(found.is_sorted(), "out of order in {topic}: {t:?}");
        assert!(t.committed.is_subset(&once), "a committed transaction is missing in {topic}: {t:?}");
        assert!(t.aborted.is_disjoint(&once), "an aborted transaction is seen in {topic}: {t:?}");
    }
    assert_eq!(t.found["a"], t.found["b"], "a transaction is torn: {t:?}");
    assert_eq!(t.offset, t.found["a"].last().copied(), "the group's offset is not of its transaction: {t:?}");
}

fn run(seed: u64, faults: impl Fn(&World) + Send) -> (u64, u32) {
    // (Simulated milliseconds, lives of the broker.)
    let done = on_seed(Config::new(seed, seed), |world| async move {
        let node = world.add_node("broker", "broker", BROKER, broker);
        let told = Shared::default();
        let for_node = Rc::clone(&told);
        world.add_node("client", "client", CLIENT, move || workload(Rc::clone(&for_node)));
        faults(&world);
        for _ in 0..240 {
            world.sleep(Duration::from_millis(500)).await;
            if told.borrow().done {
                break;
            }
        }
        check(&told.borrow());
        (world.now().as_nanos() / 1_000_000, world.incarnation(node))
    });
    done.unwrap_or_else(|failed| panic!("seed {seed}: {failed}")).value
}

#[test]
fn without_faults_every_transaction_ends_as_asked() {
    let (ms, _) = run(1, |_| {});
    println!("{ms} ms");
    assert!(ms < 10_000, "{ms} ms for {TRANSACTIONS} transactions");
}

#[test]
fn a_crash_at_any_step_leaves_transactions_whole() {
    let labels = ["txn.persist", "txn.marker", "txn.complete", "offsets.append", "quorum.append", "topic.place", "ack"];
    let (mut runs, mut lives) = (0, 0);
    for (i, label) in labels.into_iter().enumerate() {
        for when in [When::Before, When::After] {
            for nth in [1, 2, 3, 5, 8] {
                let power = (nth + i as u64).is_multiple_of(2);
                let then = if power { Then::Power(PowerLaw::Any) } else { Then::Crash };
                let (_, n) = run(nth * 100 + i as u64, |world| {
                    world.arm(CrashPoint {
                        target: Target::Node("broker".into()),
                        label: label.into(),
                        when,
                        nth,
                        partition: None,
                        then,
                        recover_after: Some(Duration::from_millis(700)),
                    });
                });
                runs += 1;
                lives += n;
            }
        }
    }
    println!("{runs} runs, {lives} lives");
    assert!(lives > runs + runs / 2, "only {lives} lives in {runs} runs");
}

#[test]
fn crashes_at_any_disk_operation_leave_transactions_whole() {
    let mut lives = 0;
    for seed in 0..30 {
        let (_, n) = run(seed, |world| {
            for n in 0..3 {
                world.arm(CrashPoint {
                    target: Target::Node("broker".into()),
                    label: ["disk.sync", "disk.write", "net.write"][(seed % 3) as usize].into(),
                    when: if seed.is_multiple_of(2) { When::Before } else { When::After },
                    nth: 3 + seed * 2 + n * 23,
                    partition: None,
                    then: Then::Power(PowerLaw::Any),
                    recover_after: Some(Duration::from_millis(300)),
                });
            }
        });
        lives += n;
    }
    println!("{lives} lives");
    assert!(lives > 60, "only {lives} lives in 30 runs");
}
