//! Three brokers in one world, each a voter and a replica of everything: leaders crash, lose power, are cut off or
//! paused, while producers write with acks=all to a topic of three replicas, two of which must be in sync. In the end,
//! healed: what was acknowledged is there once, at its offset, in order; what failed is not; every replica's log says
//! the same; the in-sync sets are whole again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use client::{
    Admin, Client, ClientConfig, Consumer, ConsumerConfig, Isolation, NewTopic, OffsetSpec, Outcome, Producer,
    ProducerConfig, TopicPartition,
};
use protocol::ResponseBody;
use protocol::batch::Record;
use protocol::messages::MetadataRequest;
use protocol::messages::metadata_request::MetadataRequestTopic;
use protocol::messages::metadata_response::MetadataResponsePartition;
use streamproof_broker::peer::{Peer, PeerConfig};
use streamproof_broker::{Broker, BrokerConfig, Flush};
use world::{Config, NodeId, PowerLaw, World, on_seed};

const PORT: u16 = 9092;
pub(crate) const BROKERS: i32 = 3;
pub(crate) const PARTITIONS: i32 = 2;
pub(crate) const RECORDS: i64 = 120;

pub(crate) fn ip(n: i32) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n as u8).into()
}

pub(crate) fn addresses() -> Vec<(String, u16)> {
    (0..BROKERS).map(|id| (ip(10 + id).to_string(), PORT)).collect()
}

pub(crate) fn config(node_id: i32, flush: Flush) -> BrokerConfig {
    BrokerConfig {
        node_id,
        listen: SocketAddr::new(ip(10 + node_id), PORT),
        advertised_host: ip(10 + node_id).to_string(),
        data_dir: "/data".into(),
        flush,
        voters: (0..BROKERS).zip(addresses()).collect(),
        default_replication_factor: 3,
        min_insync_replicas: 2,
        replica_lag_max_ms: 4_000,
        broker_session_timeout_ms: 3_000,
        broker_heartbeat_interval_ms: 500,
        segment_bytes: 20_000,
        ..BrokerConfig::default()
    }
}

pub(crate) async fn broker_main(node_id: i32, flush: Flush) {
    let broker = Broker::start(config(node_id, flush)).await.expect("a broker starts on its own disk");
    if let Err(error) = broker.run_until(std::future::pending()).await {
        panic!("broker {node_id}: {error}");
    }
}

pub(crate) fn a_client() -> Client {
    Client::new(ClientConfig {
        request_timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(1),
        api_timeout: Duration::from_secs(40),
        ..ClientConfig::new(addresses())
    })
}

/// Faults chosen by the seed, on one broker after another.
pub(crate) async fn trouble(world: &World, seed: u64, brokers: &[NodeId]) {
    for n in 0..5u64 {
        env::time::sleep(Duration::from_millis(800 + (seed * 7919 + n * 104_729) % 1500)).await;
        let at = ((seed / 7 + n) % 3) as usize;
        let victim = brokers[at];
        let others: Vec<NodeId> = brokers.iter().copied().filter(|b| *b != victim).collect();
        match (seed + n * 5) % 6 {
            0 => {
                world.crash(victim);
                env::time::sleep(Duration::from_millis(1_500)).await;
                world.restart(victim);
            }
            1 => {
                world.power_loss(victim, PowerLaw::Any);
                env::time::sleep(Duration::from_millis(400)).await;
                world.restart(victim);
            }
            2 => {
                let cut = world.net().partition(&[victim], &others);
                env::time::sleep(Duration::from_millis(5_000)).await;
                world.heal(cut);
            }
            3 => {
                let cut = world.net().cut(&[victim], &others);
                env::time::sleep(Duration::from_millis(4_000)).await;
                world.heal(cut);
            }
            4 => {
                world.net().reset(&[victim], &others);
            }
            _ => {
                world.pause(victim);
                env::time::sleep(Duration::from_millis(4_500)).await;
                world.resume(victim);
            }
        }
    }
    world.heal_all();
}

pub(crate) type Outcomes = Rc<RefCell<BTreeMap<String, Result<Option<i64>, Outcome>>>>;

pub(crate) fn record(text: String) -> Record {
    Record { value: Some(text.into()), ..Record::default() }
}

pub(crate) async fn produce(name: &'static str, outcomes: Outcomes) {
    let config = ProducerConfig { delivery_timeout: Duration::from_secs(20), ..ProducerConfig::default() };
    let producer = Producer::new(a_client(), config);
    let mut waiting = Vec::new();
    for n in 0..RECORDS {
        let text = format!("{name}-{n}");
        let delivery = producer.send("t", (n % i64::from(PARTITIONS)) as i32, record(text.clone())).await;
        let outcomes = Rc::clone(&outcomes);
        waiting.push(env::task::spawn(async move {
            let result = delivery.await.map(|m| m.offset).map_err(|e| e.outcome);
            outcomes.borrow_mut().insert(text, result);
        }));
        env::time::sleep(Duration::from_millis(80)).await;
    }
    producer.flush().await;
    for task in waiting {
        let _ = task.await;
    }
}

pub(crate) async fn read_log() -> BTreeMap<i32, Vec<(i64, String)>> {
    let client = a_client();
    let all: Vec<_> = (0..PARTITIONS).map(|p| TopicPartition::new("t", p)).collect();
    let isolation = Isolation::ReadUncommitted;
    let ends = Admin::new(client.clone()).list_offsets(&all, OffsetSpec::Latest, isolation).await.unwrap();
    let mut ends: BTreeMap<_, i64> = ends.into_iter().map(|(tp, end)| (tp, end.unwrap())).collect();
    let consumer = Consumer::new(client, ConsumerConfig { isolation, ..ConsumerConfig::default() });
    consumer.assign(all.into_iter().map(|tp| (tp, 0)).collect());
    let mut found: BTreeMap<i32, Vec<(i64, String)>> = BTreeMap::new();
    ends.retain(|_, end| *end > 0);
    while !ends.is_empty() {
        for result in consumer.poll().await {
            let records = found.entry(result.partition.partition).or_default();
            for r in result.records {
                let text = String::from_utf8(r.value.unwrap_or_default().to_vec()).unwrap();
                records.push((r.offset, text));
            }
            if ends.get(&result.partition).is_some_and(|end| result.position >= *end) {
                ends.remove(&result.partition);
            }
        }
    }
    found
}

/// Waits until every partition has a leader and all replicas are in sync.
pub(crate) async fn whole() {
    let config = PeerConfig { connect_timeout: Duration::from_secs(1), max_response_bytes: 1 << 20 };
    let topic = MetadataRequestTopic::default().with_name(Some(protocol::topic_name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic])).into();
    let mut last = None;
    for n in 0..240 {
        let (host, port) = addresses()[n % BROKERS as usize].clone();
        let answer = Peer::new(-1, host, port, config).call(12, &request, Duration::from_secs(2)).await;
        if let Ok(ResponseBody::Metadata(metadata)) = &answer {
            let partitions: Vec<_> = metadata.topics.iter().flat_map(|t| &t.partitions).collect();
            let in_sync = |p: &&MetadataResponsePartition| p.leader_id.0 >= 0 && p.isr_nodes.len() == BROKERS as usize;
            if partitions.len() == PARTITIONS as usize && partitions.iter().all(in_sync) {
                return;
            }
        }
        last = Some(answer);
        env::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("the in-sync sets did not become whole: {last:?}");
}

/// As soon as there is a controller.
pub(crate) async fn create(topic: NewTopic) {
    let admin = Admin::new(a_client());
    let mut created = Err(protocol::ErrorCode::NOT_CONTROLLER);
    for _ in 0..100 {
        if let Ok(answers) = admin.create_topics(std::slice::from_ref(&topic)).await {
            created = answers[&topic.name];
        }
        if matches!(created, Ok(()) | Err(protocol::ErrorCode::TOPIC_ALREADY_EXISTS)) {
            break;
        }
        env::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(matches!(created, Ok(()) | Err(protocol::ErrorCode::TOPIC_ALREADY_EXISTS)), "{created:?}");
}

async fn run(world: World, seed: u64, flush: Flush) -> (usize, usize) {
    let mut brokers = Vec::new();
    for id in 0..BROKERS {
        let name = ["broker-0", "broker-1", "broker-2"][id as usize];
        brokers.push(world.add_node(name, "broker", ip(10 + id), move || broker_main(id, flush)));
    }
    create(NewTopic::new("t", PARTITIONS)).await;
    let outcomes = Outcomes::default();
    for (n, name) in ["x", "y"].into_iter().enumerate() {
        let outcomes = Rc::clone(&outcomes);
        world.add_node(name, "producer", ip(2 + n as i32), move || produce(name, Rc::clone(&outcomes)));
    }
    trouble(&world, seed, &brokers).await;
    for _ in 0..400 {
        if outcomes.borrow().len() == 2 * RECORDS as usize {
            break;
        }
        env::time::sleep(Duration::from_millis(250)).await;
    }
    whole().await;
    let found = read_log().await;
    let mut places: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (partition, records) in &found {
        assert!(records.iter().map(|(o, _)| *o).eq(0..records.len() as i64), "seed {seed}: offsets of {partition}");
        for (offset, text) in records {
            places.entry(text.clone()).or_default().push(*offset);
        }
    }
    let outcomes = outcomes.borrow();
    assert_eq!(outcomes.len(), 2 * RECORDS as usize, "seed {seed}: every record has an outcome");
    for (text, outcome) in outcomes.iter() {
        let at = places.get(text).cloned().unwrap_or_default();
        match outcome {
            Ok(offset) => assert_eq!(at, [offset.unwrap()], "seed {seed}: acknowledged {text}"),
            Err(Outcome::Failed) => assert!(at.is_empty(), "seed {seed}: failed {text}"),
            Err(Outcome::Unknown) => assert!(at.len() <= 1, "seed {seed}: {text} is there twice"),
        }
    }
    let acknowledged = outcomes.values().filter(|o| o.is_ok()).count();
    (acknowledged, outcomes.len() - acknowledged)
}

pub(crate) fn seeds() -> std::ops::Range<u64> {
    let from = std::env::var("CLUSTER_SEED").ok().and_then(|s| s.parse().ok());
    let count = std::env::var("CLUSTER_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(8);
    from.map_or(0..count, |from| from..from + count.min(1))
}

#[test]
fn three_brokers_lose_nothing_that_was_acknowledged() {
    let (mut acknowledged, mut other) = (0, 0);
    for seed in seeds() {
        let mut config = Config::new(seed, seed);
        config.sim_limit = Duration::from_secs(300);
        match on_seed(config, move |world| run(world, seed, Flush::Fsync)) {
            Ok(finished) => {
                acknowledged += finished.value.0;
                other += finished.value.1;
            }
            Err(failed) => panic!("seed {seed}: {:?}", failed.why),
        }
    }
    println!("{acknowledged} acknowledged, {other} not");
    assert!(acknowledged > 10 * other, "{acknowledged} acknowledged, {other} not");
}
