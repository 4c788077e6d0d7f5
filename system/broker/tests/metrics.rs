//! Three brokers over a simulated network, scraped by HTTP as Prometheus would: what the numbers say while one of them is
//! down, and after. And that a run that is scraped is the same run twice.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use client::{Admin, Client, ClientConfig, CommittedOffset, NewTopic, Producer, ProducerConfig, TopicPartition};
use env::io::{AsyncReadExt, AsyncWriteExt};
use env::net::{TcpListener, TcpStream};
use metrics::endpoint;
use protocol::ErrorCode;
use protocol::batch::Record;
use streamproof_broker::{Broker, BrokerConfig};
use world::{Config, NodeId, World, on_seed};

const BROKERS: i32 = 3;
const PORT: u16 = 9092;
const METRICS: u16 = 9464;
const PARTITIONS: i32 = 3;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));
const PROMETHEUS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 101));

fn ip(id: i32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + id as u8))
}

async fn broker(id: i32) {
    let config = BrokerConfig {
        node_id: id,
        listen: SocketAddr::new(ip(id), PORT),
        advertised_host: ip(id).to_string(),
        data_dir: "/data".into(),
        voters: (0..BROKERS).map(|id| (id, (ip(id).to_string(), PORT))).collect(),
        default_replication_factor: 3,
        min_insync_replicas: 2,
        broker_heartbeat_interval_ms: 500,
        broker_session_timeout_ms: 3000,
        replica_lag_max_ms: 3000,
        ..BrokerConfig::default()
    };
    let broker = Broker::start(config).await.unwrap_or_else(|error| panic!("broker {id}: {error}"));
    let listener = TcpListener::bind(SocketAddr::new(ip(id), METRICS)).await.unwrap();
    let observer = broker.observer();
    let source = move || {
        let observer = observer.clone();
        async move { observer.snapshot().await }
    };
    let _endpoint = env::task::spawn(endpoint::serve(listener, source)).abort_on_drop();
    if let Err(error) = broker.run_until(std::future::pending()).await {
        panic!("broker {id}: {error}");
    }
}

/// The series of one scrape.
type Series = BTreeMap<String, i64>;

/// What Prometheus saw last of each broker that answers.
#[derive(Default)]
struct Seen {
    brokers: BTreeMap<i32, Series>,
    texts: Vec<String>,
    /// Most active controllers in one round.
    controllers: i64,
}

type Shared = Rc<RefCell<Seen>>;

impl Seen {
    /// Of one broker; 0 where nothing of that name was measured.
    fn of(&self, id: i32, name: &str) -> i64 {
        self.brokers.get(&id).and_then(|s| s.get(name)).copied().unwrap_or(0)
    }

    /// Over the brokers that answer, and all series of the family whose labels contain `label`.
    fn sum_where(&self, family: &str, label: &str) -> i64 {
        let all = self.brokers.values().flatten();
        let (bare, labelled) = (family.to_owned(), format!("{family}{{"));
        let wanted = |name: &str| (name == bare || name.starts_with(&labelled)) && name.contains(label);
        all.filter(|(name, _)| wanted(name)).map(|(_, value)| value).sum()
    }

    fn sum(&self, family: &str) -> i64 {
        self.sum_where(family, "")
    }
}

/// Samples by name and labels; the text must be one that Prometheus takes.
fn parse(text: &str) -> Series {
    let mut series = Series::new();
    let mut family = String::new();
    let mut families = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} twice");
            let counter = rest.ends_with(" counter");
            assert_eq!(counter, family.ends_with("_total"), "{line}");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let bare = name.split('{').next().unwrap();
            assert_eq!(bare, family, "a sample outside of its family");
            assert!(bare.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{bare}");
            let before = series.insert(name.to_owned(), value.parse().unwrap());
            assert_eq!(before, None, "{name} twice");
        }
    }
    series
}

async fn get(addr: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    while stream.read_buf(&mut answer).await? > 0 {}
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    Ok(body.to_owned())
}

async fn prometheus(seen: Shared) {
    loop {
        for id in 0..BROKERS {
            let asked = get(SocketAddr::new(ip(id), METRICS));
            let answered = env::time::timeout(Duration::from_millis(500), asked).await;
            let mut seen = seen.borrow_mut();
            match answered {
                Ok(Ok(text)) => {
                    seen.brokers.insert(id, parse(&text));
                    seen.texts.push(text);
                }
                _ => drop(seen.brokers.remove(&id)),
            }
        }
        {
            let mut seen = seen.borrow_mut();
            let active = seen.sum("kafka_controller_kafkacontroller_activecontrollercount");
            seen.controllers = seen.controllers.max(active);
        }
        env::time::sleep(Duration::from_millis(500)).await;
    }
}

fn connect() -> Client {
    let bootstrap = (0..BROKERS).map(|id| (ip(id).to_string(), PORT)).collect();
    let (request_timeout, connect_timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    Client::new(ClientConfig { request_timeout, connect_timeout, ..ClientConfig::new(bootstrap) })
}

fn record(n: usize) -> Record {
    Record { value: Some(n.to_string().into()), ..Record::default() }
}

/// Writes to every partition for as long as it lives; a group has committed offset 1 of one, and a transaction stays open.
async fn workload() {
    let admin = Admin::new(connect());
    let topic = NewTopic::new("t", PARTITIONS);
    loop {
        if let Ok(results) = admin.create_topics(std::slice::from_ref(&topic)).await
            && results.values().all(|r| matches!(r, Ok(()) | Err(ErrorCode::TOPIC_ALREADY_EXISTS)))
        {
            break;
        }
        env::time::sleep(Duration::from_millis(200)).await;
    }
    let committed = CommittedOffset { offset: 1, leader_epoch: -1, metadata: String::new() };
    let offsets = BTreeMap::from([(TopicPartition::new("t", 0), committed)]);
    while admin.commit_offsets("g", &offsets).await.is_err() {
        env::time::sleep(Duration::from_millis(200)).await;
    }
    let open = Producer::new(
        connect(),
        ProducerConfig { txn_timeout: Duration::from_secs(600), ..ProducerConfig::transactional("open") },
    );
    open.init_transactions(false).await.unwrap();
    open.begin().unwrap();
    open.send("t", 1, record(0)).await.await.unwrap();
    let producer = Producer::new(connect(), ProducerConfig::default());
    for n in 0.. {
        let mut deliveries = Vec::new();
        for partition in 0..PARTITIONS {
            deliveries.push(producer.send("t", partition, record(n)).await);
        }
        for delivery in deliveries {
            let _ = delivery.await;
        }
        env::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until `holds`, or fails with what was scraped.
async fn until(world: &World, seen: &Shared, what: &str, holds: impl Fn(&Seen) -> bool) {
    for _ in 0..60 {
        world.sleep(Duration::from_millis(500)).await;
        if holds(&seen.borrow()) {
            return;
        }
    }
    panic!("not within 30 s: {what}\n{:#?}", seen.borrow().brokers);
}

const UNDER_REPLICATED: &str = "kafka_server_replicamanager_underreplicatedpartitions";
const CONTROLLERS: &str = "kafka_controller_kafkacontroller_activecontrollercount";
const FENCED: &str = "kafka_controller_kafkacontroller_fencedbrokercount";
const SHRINKS: &str = "kafka_server_replicamanager_isrshrinks_total";
const EXPANDS: &str = "kafka_server_replicamanager_isrexpands_total";

/// Runs the story; what was scraped, as one text.
fn story(seed: u64) -> Vec<String> {
    let told = on_seed(Config::new(seed, seed), |world| async move {
        let seen = Shared::default();
        let brokers: Vec<NodeId> = (0..BROKERS)
            .map(|id| world.add_node(&format!("broker-{id}"), "broker", ip(id), move || broker(id)))
            .collect();
        let for_prometheus = Rc::clone(&seen);
        world.add_node("client", "client", CLIENT, workload);
        world.add_node("prometheus", "client", PROMETHEUS, move || prometheus(Rc::clone(&for_prometheus)));

        until(&world, &seen, "three brokers, all in sync", |s| {
            s.brokers.len() == 3
                && s.sum("kafka_server_replicamanager_leadercount") == s.sum("kafka_cluster_partition_isleader")
                && s.sum_where("kafka_cluster_partition_isleader", "topic=\"t\"") == i64::from(PARTITIONS)
                && s.sum(UNDER_REPLICATED) == 0
                && s.sum("kafka_coordinator_transaction_opentransactions") == 1
                && s.sum_where("kafka_server_brokertopicmetrics_messagesin_total", "topic=\"t\"") > 100
                && s.sum_where("kafka_server_brokertopicmetrics_replicationbytesin_total", "topic=\"t\"") > 0
                && s.sum_where("kafka_network_requestmetrics_requests_total", "request=\"Produce\"") > 30
                && s.sum("kafka_log_logflushstats_logflush_total") > 100
        })
        .await;
        let leader = {
            let s = seen.borrow();
            assert_eq!(s.sum(CONTROLLERS), 1);
            assert_eq!(s.sum(FENCED), 0);
            assert_eq!(s.sum("kafka_server_kafkaserver_brokerstate"), 9, "all three run");
            assert_eq!(s.sum("kafka_cluster_partition_opentransactions"), 1);
            assert_eq!(s.sum_where("kafka_cluster_partition_opentransactions", "partition=\"1\""), 1);
            assert!(s.sum("kafka_coordinator_transaction_oldesttransactionagems") > 0);
            let lag = "kafka_consumergroup_lag{group=\"g\",topic=\"t\",partition=\"0\"}";
            let behind: Vec<i32> = (0..BROKERS).filter(|id| s.brokers[id].contains_key(lag)).collect();
            assert_eq!(behind.len(), 1, "the group has one coordinator");
            let end = s.of(behind[0], "kafka_cluster_partition_highwatermark{topic=\"t\",partition=\"0\"}");
            assert!(end > 10, "high watermark {end}");
            assert_eq!(s.of(behind[0], lag), end - 1, "one record is committed");
            let leads = |id: &i32| s.of(*id, "kafka_cluster_partition_isleader{topic=\"t\",partition=\"0\"}") == 1;
            (0..BROKERS).find(leads).expect("partition 0 has a leader")
        };

        let before = seen.borrow().sum(SHRINKS);
        world.crash(brokers[leader as usize]);
        until(&world, &seen, "every partition of t is led by the others and lacks a replica", |s| {
            s.brokers.len() == 2
                && s.sum_where("kafka_cluster_partition_underreplicated", "topic=\"t\"") == i64::from(PARTITIONS)
                && s.sum(CONTROLLERS) == 1
                && s.brokers.keys().all(|id| s.of(*id, FENCED) == 1)
        })
        .await;
        {
            let s = seen.borrow();
            assert!(s.sum(UNDER_REPLICATED) >= i64::from(PARTITIONS));
            assert_eq!(s.sum("kafka_server_replicamanager_underminisrpartitioncount"), 0, "two of two are in sync");
            assert!(s.sum(SHRINKS) > before, "shrinks: {} after {before}", s.sum(SHRINKS));
            assert_eq!(s.sum("kafka_controller_kafkacontroller_offlinepartitionscount"), 0);
        }

        let before = seen.borrow().sum(EXPANDS);
        world.restart(brokers[leader as usize]);
        until(&world, &seen, "all in sync again", |s| {
            s.brokers.len() == 3 && s.sum(UNDER_REPLICATED) == 0 && s.sum(FENCED) == 0 && s.sum(CONTROLLERS) == 1
        })
        .await;
        let s = seen.borrow();
        assert!(s.sum(EXPANDS) > before, "expands: {} after {before}", s.sum(EXPANDS));
        assert_eq!(s.controllers, 1, "never two active controllers at a time");
        s.texts.clone()
    });
    told.unwrap_or_else(|failed| panic!("seed {seed}: {failed}")).value
}

#[test]
fn a_broker_that_goes_and_comes_back_is_seen_in_the_metrics() {
    let texts = story(1);
    assert!(texts.len() > 30, "{} scrapes", texts.len());
    assert!(story(1) == texts, "the same seed was measured otherwise");
}
