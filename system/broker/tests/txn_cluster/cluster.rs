//! Three brokers, each a voter and a replica of everything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use client::{Admin, Client, ClientConfig, NewTopic};
use protocol::ErrorCode;
use streamproof_broker::{Broker, BrokerConfig};
use world::{NodeId, PowerLaw, World};

const PORT: u16 = 9092;
const BROKERS: i32 = 3;
pub const TOPICS: [&str; 2] = ["a", "b"];
pub const PARTITIONS: i32 = 3;

pub fn ip(n: i32) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n as u8).into()
}

fn addresses() -> Vec<(String, u16)> {
    (0..BROKERS).map(|id| (ip(10 + id).to_string(), PORT)).collect()
}

fn config(node_id: i32) -> BrokerConfig {
    BrokerConfig {
        node_id,
        listen: SocketAddr::new(ip(10 + node_id), PORT),
        advertised_host: ip(10 + node_id).to_string(),
        data_dir: "/data".into(),
        voters: (0..BROKERS).zip(addresses()).collect(),
        default_replication_factor: 3,
        min_insync_replicas: 2,
        transaction_partitions: 3,
        offsets_partitions: 3,
        leader_rebalance_ms: 2_000,
        replica_lag_max_ms: 3_000,
        broker_session_timeout_ms: 3_000,
        broker_heartbeat_interval_ms: 500,
        // Internal topics are compacted all the time, under the coordinators that read them.
        segment_bytes: 6_000,
        cleaner_interval_ms: 500,
        min_cleanable_dirty_ratio: 0.1,
        ..BrokerConfig::default()
    }
}

async fn broker(id: i32) {
    let broker = Broker::start(config(id)).await.expect("a broker starts on its own disk");
    if let Err(error) = broker.run_until(std::future::pending()).await {
        panic!("broker {id}: {error}");
    }
}

pub fn brokers(world: &World) -> Vec<NodeId> {
    let start = |id| world.add_node(&format!("broker-{id}"), "broker", ip(10 + id), move || broker(id));
    (0..BROKERS).map(start).collect()
}

pub fn a_client() -> Client {
    Client::new(ClientConfig {
        request_timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(1),
        api_timeout: Duration::from_secs(20),
        ..ClientConfig::new(addresses())
    })
}

pub async fn create_topics() {
    let admin = Admin::new(a_client());
    let topics = TOPICS.map(|t| NewTopic::new(t, PARTITIONS));
    loop {
        if let Ok(results) = admin.create_topics(&topics).await
            && results.values().all(|r| matches!(r, Ok(()) | Err(ErrorCode::TOPIC_ALREADY_EXISTS)))
        {
            return;
        }
        env::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Faults drawn from the seed, on one broker after another.
pub async fn disturb(world: &World, nodes: &[NodeId], seed: u64) {
    let mut rng = seed::stream(seed, "disturb", &[]);
    world.sleep(Duration::from_millis(rng.range(500, 3_000))).await;
    for _ in 0..6 {
        let node = *rng.choose(nodes);
        let others: Vec<NodeId> = nodes.iter().copied().filter(|n| *n != node).collect();
        let rest = Duration::from_millis(rng.range(200, 6_000));
        match rng.range(0, 7) {
            0 => drop(world.crash(node)),
            1 => drop(world.power_loss(node, PowerLaw::Any)),
            2 => drop(world.pause(node)),
            3 => drop(world.net().partition(&[node], &others)),
            4 => drop(world.net().cut(&[node], &others)),
            5 => drop(world.net().hold(&others, &[node])),
            6 => drop(world.net().reset(&[node], &others)),
            _ => drop(world.disk(node).stall(rest)),
        }
        world.sleep(rest).await;
        world.heal_all();
        world.sleep(Duration::from_millis(rng.range(0, 4_000))).await;
    }
}
