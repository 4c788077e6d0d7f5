//! Three brokers, which are their own quorum, over a simulated network: a producer of acks=all writes while they crash,
//! lose power, are paused and cut off; in the end every acknowledged record is there once and in order, all brokers
//! serve, and every partition is whole again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use client::{
    Admin, Client, ClientConfig, CommittedOffset, Consumer, ConsumerConfig, Isolation, NewTopic, Producer,
    ProducerConfig, TopicPartition,
};
use protocol::ErrorCode;
use protocol::batch::Record;
use streamproof_broker::{Broker, BrokerConfig};
use world::{Config, NodeId, PowerLaw, World, on_seed};

const BROKERS: i32 = 3;
const PORT: u16 = 9092;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));
const PARTITIONS: i32 = 3;

fn ip(id: i32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + id as u8))
}

fn config(id: i32) -> BrokerConfig {
    BrokerConfig {
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
        offsets_partitions: 3,
        transaction_partitions: 3,
        ..BrokerConfig::default()
    }
}

/// A broker until its node dies; one told to stop does so by itself and is down then.
async fn broker(id: i32, told: Shared) {
    let broker = match Broker::start(config(id)).await {
        Ok(broker) => broker,
        Err(error) => panic!("broker {id}: {error}"),
    };
    let stop = async {
        while !told.borrow_mut().stop.remove(&id) {
            env::time::sleep(Duration::from_millis(200)).await;
        }
    };
    if let Err(error) = broker.run_until(stop).await {
        panic!("broker {id}: {error}");
    }
    told.borrow_mut().stopped += 1;
}

#[derive(Default, Debug)]
struct Told {
    /// Values acknowledged, by partition, in the order they were sent.
    acked: BTreeMap<i32, Vec<i64>>,
    found: BTreeMap<i32, Vec<i64>>,
    /// No more is to be written: read all.
    finish: bool,
    done: bool,
    /// Brokers that are to stop.
    stop: BTreeSet<i32>,
    stopped: u32,
    problem: Option<String>,
}

type Shared = Rc<RefCell<Told>>;

fn connect() -> Client {
    let bootstrap = (0..BROKERS).map(|id| (ip(id).to_string(), PORT)).collect();
    Client::new(ClientConfig {
        request_timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(1),
        ..ClientConfig::new(bootstrap)
    })
}

async fn workload(told: Shared) {
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
    let producer = Producer::new(connect(), ProducerConfig::default());
    let mut next = 0;
    while !told.borrow().finish {
        let mut deliveries = Vec::new();
        for partition in 0..PARTITIONS {
            next += 1;
            let record = Record { value: Some(next.to_string().into()), ..Record::default() };
            deliveries.push((partition, next, producer.send("t", partition, record).await));
        }
        for (partition, value, delivery) in deliveries {
            if delivery.await.is_ok() {
                told.borrow_mut().acked.entry(partition).or_default().push(value);
            }
        }
        env::time::sleep(Duration::from_millis(20)).await;
    }
    let consumer =
        Consumer::new(connect(), ConsumerConfig { isolation: Isolation::ReadUncommitted, ..ConsumerConfig::default() });
    consumer.assign((0..PARTITIONS).map(|p| (TopicPartition::new("t", p), 0)).collect());
    let mut ended = BTreeSet::new();
    while ended.len() < PARTITIONS as usize {
        for result in consumer.poll().await {
            let mut t = told.borrow_mut();
            let found = t.found.entry(result.partition.partition).or_default();
            for record in &result.records {
                found.push(String::from_utf8_lossy(record.value.as_ref().unwrap()).parse().unwrap());
            }
            if result.error.is_none() && result.position >= result.high_watermark {
                ended.insert(result.partition.partition);
            }
        }
    }
    let metadata = admin.metadata(&["t"]).await.unwrap();
    let mut t = told.borrow_mut();
    if metadata.nodes.len() != BROKERS as usize {
        t.problem = Some(format!("brokers: {:?}", metadata.nodes));
    }
    t.done = true;
}

struct Summary {
    acked: usize,
}

fn run(seed: u64, faults: impl AsyncFn(&World, &[NodeId], &Shared) + Send) -> Summary {
    let done = on_seed(Config::new(seed, seed), |world| async move {
        let told = Shared::default();
        let nodes: Vec<NodeId> = (0..BROKERS)
            .map(|id| {
                let told = Rc::clone(&told);
                world.add_node(&format!("broker-{id}"), "broker", ip(id), move || broker(id, Rc::clone(&told)))
            })
            .collect();
        let for_node = Rc::clone(&told);
        world.add_node("client", "client", CLIENT, move || workload(Rc::clone(&for_node)));
        faults(&world, &nodes, &told).await;
        world.heal_all();
        world.sleep(Duration::from_secs(12)).await;
        let before: usize = told.borrow().acked.values().map(Vec::len).sum();
        world.sleep(Duration::from_secs(5)).await;
        told.borrow_mut().finish = true;
        for _ in 0..120 {
            world.sleep(Duration::from_millis(500)).await;
            if told.borrow().done {
                break;
            }
        }
        let t = told.borrow();
        assert!(t.done, "not read to the end");
        assert_eq!(t.problem, None);
        let acked: usize = t.acked.values().map(Vec::len).sum();
        assert!(acked > before, "nothing is acknowledged after healing");
        for (partition, acked) in &t.acked {
            let found = &t.found[partition];
            let set: BTreeSet<i64> = found.iter().copied().collect();
            assert_eq!(set.len(), found.len(), "a record twice in partition {partition}");
            assert!(found.is_sorted(), "out of order in partition {partition}");
            let missing: Vec<_> = acked.iter().filter(|v| !set.contains(v)).collect();
            assert!(missing.is_empty(), "acknowledged in partition {partition}, not there: {missing:?}");
        }
        Summary { acked }
    });
    done.unwrap_or_else(|failed| panic!("seed {seed}: {failed}")).value
}

#[test]
fn three_brokers_serve_a_replicated_topic() {
    let summary = run(1, async |world, _, _| world.sleep(Duration::from_secs(10)).await);
    assert!(summary.acked > 300, "{} acknowledged", summary.acked);
}

#[test]
fn a_rolling_restart_loses_nothing() {
    let summary = run(2, async |world, nodes, told| {
        world.sleep(Duration::from_secs(6)).await;
        for (id, node) in (0..).zip(nodes) {
            told.borrow_mut().stop.insert(id);
            for _ in 0..40 {
                world.sleep(Duration::from_millis(500)).await;
                if world.exited(*node) {
                    break;
                }
            }
            assert!(world.exited(*node), "broker {id} does not stop");
            world.restart(*node);
            world.sleep(Duration::from_secs(8)).await;
        }
    });
    assert!(summary.acked > 500, "{} acknowledged", summary.acked);
}

/// Uses both kinds of coordinators, so that their topics are there.
async fn coordinated() {
    let open = Producer::new(connect(), ProducerConfig::transactional("x"));
    while open.init_transactions(false).await.is_err() {
        env::time::sleep(Duration::from_millis(200)).await;
    }
    let admin = Admin::new(connect());
    let created = async || admin.create_topics(&[NewTopic::new("t", PARTITIONS)]).await;
    while !created().await.is_ok_and(|r| r.values().all(|r| matches!(r, Ok(()) | Err(ErrorCode::TOPIC_ALREADY_EXISTS))))
    {
        env::time::sleep(Duration::from_millis(200)).await;
    }
    let one = CommittedOffset { offset: 1, leader_epoch: -1, metadata: String::new() };
    let offsets = BTreeMap::from([(TopicPartition::new("t", 0), one)]);
    while admin.commit_offsets("g", &offsets).await.is_err() {
        env::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One after another, as `serve` stops those of its process: the last ones lead coordinators' partitions whose log cannot be
/// read any more, since too few are in sync.
#[test]
fn a_cluster_stops_in_peace_down_to_the_last_broker() {
    for seed in 0..20 {
        let done = on_seed(Config::new(seed, seed), |world| async move {
            let told = Shared::default();
            let nodes: Vec<NodeId> = (0..BROKERS)
                .map(|id| {
                    let told = Rc::clone(&told);
                    world.add_node(&format!("broker-{id}"), "broker", ip(id), move || broker(id, Rc::clone(&told)))
                })
                .collect();
            let client = world.add_node("client", "client", CLIENT, coordinated);
            while !world.exited(client) {
                world.sleep(Duration::from_millis(500)).await;
            }
            for (id, node) in nodes.iter().enumerate().rev() {
                told.borrow_mut().stop.insert(id as i32);
                for _ in 0..300 {
                    world.sleep(Duration::from_millis(100)).await;
                    if world.exited(*node) {
                        break;
                    }
                }
                assert!(world.exited(*node), "broker {id} does not stop");
            }
        });
        done.unwrap_or_else(|failed| panic!("seed {seed}: {failed}"));
    }
}

/// Wall clocks that step by hours, in both directions, while another broker is down: nothing of membership, elections or
/// replication is by the wall clock.
#[test]
fn stepped_clocks_lose_nothing() {
    let hour = Duration::from_secs(3600);
    let summary = run(3, async |world, nodes, _| {
        world.sleep(Duration::from_secs(6)).await;
        for (n, node) in nodes.iter().enumerate() {
            world.clock(*node).step(hour * 5, n % 2 == 0);
            world.sleep(Duration::from_secs(2)).await;
            let other = nodes[(n + 1) % nodes.len()];
            world.crash(other);
            world.sleep(Duration::from_secs(5)).await;
            world.clock(*node).step(hour * 9, n % 2 == 1);
            world.restart(other);
            world.sleep(Duration::from_secs(8)).await;
        }
    });
    assert!(summary.acked > 500, "{} acknowledged", summary.acked);
}

/// A schedule of faults drawn from the seed: at most one broker down at a time.
async fn disturb(world: &World, nodes: &[NodeId], seed: u64) {
    let mut rng = seed::stream(seed, "cluster", &[]);
    world.sleep(Duration::from_secs(rng.range(1, 5))).await;
    for _ in 0..6 {
        let node = *rng.choose(nodes);
        let others: Vec<NodeId> = nodes.iter().copied().filter(|n| *n != node).collect();
        let pause = Duration::from_millis(rng.range(200, 6000));
        match rng.range(0, 6) {
            0 => drop(world.crash(node)),
            1 => drop(world.power_loss(node, PowerLaw::Any)),
            2 => drop(world.pause(node)),
            3 => drop(world.net().partition(&[node], &others)),
            4 => drop(world.net().cut(&[node], &others)),
            5 => drop(world.net().hold(&others, &[node])),
            _ => drop(world.disk(node).stall(pause)),
        }
        world.sleep(pause).await;
        world.heal_all();
        world.sleep(Duration::from_millis(rng.range(0, 8000))).await;
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens_to_one_broker_at_a_time() {
    let first: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(10);
    let mut acked = 0;
    for seed in first..first + seeds {
        acked += run(seed, async |world, nodes, _| disturb(world, nodes, seed).await).acked;
    }
    println!("{acked} acknowledged in {seeds} seeds");
}
