//! Committed offsets on three brokers whose retention is short (KIP-211): those that nobody uses go, for good; those of a
//! group with members, or that a transaction may replace, stay.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{
    Admin, Client, CommittedOffset, GroupConfig, GroupConsumer, GroupProtocol, NewTopic, Polled, Producer,
    ProducerConfig, Reset, TopicPartition,
};
use protocol::messages::DescribeGroupsRequest;
use protocol::{ErrorCode, ResponseBody, str_bytes};
use streamproof_broker::peer::{Peer, PeerConfig};
use streamproof_broker::{Broker, Flush};
use world::{Config, NodeId, PowerLaw, World, on_seed};

use crate::replication::{BROKERS, PARTITIONS, a_client, addresses, config, create, ip, record, whole};

const RETENTION: Duration = Duration::from_secs(20);

async fn broker_main(node_id: i32) {
    let mut config = config(node_id, Flush::Fsync);
    config.group.offsets_retention = RETENTION;
    config.group.offsets_retention_check_interval = Duration::from_secs(2);
    config.group.consumer_session_timeout = Duration::from_secs(10);
    config.group.consumer_heartbeat_interval = Duration::from_secs(1);
    let broker = Broker::start(config).await.expect("a broker starts on its own disk");
    if let Err(error) = broker.run_until(std::future::pending()).await {
        panic!("broker {node_id}: {error}");
    }
}

async fn cluster(world: &World) -> Vec<NodeId> {
    let names = (0..BROKERS).zip(["broker-0", "broker-1", "broker-2"]);
    let brokers = names.map(|(id, name)| world.add_node(name, "broker", ip(10 + id), move || broker_main(id)));
    let brokers = brokers.collect();
    create(NewTopic::new("t", PARTITIONS)).await;
    whole().await;
    brokers
}

fn tp() -> TopicPartition {
    TopicPartition::new("t", 0)
}

async fn commit(client: &Client, group: &str, offset: i64) {
    let offsets = BTreeMap::from([(tp(), CommittedOffset::new(offset))]);
    Admin::new(client.clone()).commit_offsets(group, &offsets).await.unwrap();
}

async fn committed(client: &Client, group: &str) -> Option<i64> {
    let found = Admin::new(client.clone()).fetch_offsets(group, &[tp()], false).await.unwrap();
    found.get(&tp()).map(|c| c.offset)
}

/// What the coordinator says of the group, by the classic protocol's call: its state, if it is there.
async fn described(group: &str) -> Option<String> {
    let config = PeerConfig { connect_timeout: Duration::from_secs(1), max_response_bytes: 1 << 20 };
    for n in 0..100 {
        let request = DescribeGroupsRequest::default().with_groups(vec![str_bytes(group).into()]).into();
        let (host, port) = addresses()[n % BROKERS as usize].clone();
        let answer = Peer::new(-1, host, port, config).call(6, &request, Duration::from_secs(2)).await;
        if let Ok(ResponseBody::DescribeGroups(answer)) = answer {
            match ErrorCode::from_code(answer.groups[0].error_code) {
                ErrorCode::NONE => return Some(answer.groups[0].group_state.to_string()),
                ErrorCode::GROUP_ID_NOT_FOUND => return None,
                _ => {}
            }
        }
        env::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("nobody coordinates {group}");
}

/// Goes on being a member for so long.
async fn stay(consumer: &GroupConsumer, time: Duration) {
    let polling = async {
        loop {
            consumer.poll().await.unwrap();
        }
    };
    let _: Result<(), _> = env::time::timeout(time, polling).await;
}

fn simulated<F: Future<Output = ()>>(seed: u64, test: impl FnOnce(World) -> F + Send + 'static) {
    let mut config = Config::new(seed, seed);
    config.sim_limit = Duration::from_secs(400);
    if let Err(failed) = on_seed(config, test) {
        panic!("seed {seed}: {:?}", failed.why);
    }
}

async fn used_and_unused(world: World, protocol: GroupProtocol) {
    let brokers = cluster(&world).await;
    let client = a_client();
    let producer = Producer::new(client.clone(), ProducerConfig::default());
    producer.send("t", 0, record("one".into())).await.await.unwrap();
    commit(&client, "simple", 1).await;
    let group = GroupConfig {
        protocol,
        reset: Reset::Earliest,
        session_timeout: Duration::from_secs(10),
        heartbeat_interval: Duration::from_secs(1),
        ..GroupConfig::new("g", &["t"])
    };
    let member = GroupConsumer::new(client.clone(), group);
    while !matches!(member.poll().await.unwrap(), Polled::Records(results) if results.iter().any(|r| !r.records.is_empty()))
    {
    }
    member.commit(&BTreeMap::from([(tp(), CommittedOffset::new(1))])).await.unwrap();
    // Each broker is down once: whoever coordinates, the next one knows how old the commits are.
    for broker in &brokers {
        world.crash(*broker);
        stay(&member, Duration::from_secs(4)).await;
        world.restart(*broker);
        stay(&member, Duration::from_secs(1)).await;
    }
    assert_eq!((committed(&client, "simple").await, committed(&client, "g").await), (Some(1), Some(1)));
    stay(&member, Duration::from_secs(15)).await;
    assert_eq!(committed(&client, "simple").await, None, "nobody used it for longer than the retention");
    assert_eq!(committed(&client, "g").await, Some(1), "it has a member that reads the topic");
    member.close().await.unwrap();
    if protocol == GroupProtocol::Classic {
        env::time::sleep(RETENTION - Duration::from_secs(5)).await;
        assert_eq!(committed(&client, "g").await, Some(1), "it is not Empty for so long");
        assert_eq!(described("g").await.as_deref(), Some("Empty"));
    }
    env::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((committed(&client, "g").await, described("g").await), (None, None));
    for broker in &brokers {
        world.power_loss(*broker, PowerLaw::Any);
    }
    env::time::sleep(Duration::from_secs(1)).await;
    for broker in &brokers {
        world.restart(*broker);
    }
    whole().await;
    assert_eq!((committed(&client, "g").await, described("g").await), (None, None));
    commit(&client, "g", 7).await;
    assert_eq!(committed(&client, "g").await, Some(7));
}

#[test]
fn offsets_of_a_classic_group_stay_until_it_is_empty_for_long() {
    simulated(1, |world| used_and_unused(world, GroupProtocol::Classic));
}

#[test]
fn offsets_of_a_consumer_group_stay_while_it_has_members() {
    simulated(2, |world| used_and_unused(world, GroupProtocol::Consumer));
}

#[test]
fn an_offset_that_a_transaction_may_replace_stays() {
    simulated(3, async |world| {
        cluster(&world).await;
        let client = a_client();
        commit(&client, "g", 1).await;
        let producer = Producer::new(client.clone(), ProducerConfig::transactional("tx"));
        producer.init_transactions(false).await.unwrap();
        producer.begin().unwrap();
        producer.send_offsets("g", &BTreeMap::from([(tp(), CommittedOffset::new(2))])).await.unwrap();
        env::time::sleep(RETENTION + Duration::from_secs(5)).await;
        assert_eq!(committed(&client, "g").await, Some(1));
        producer.commit().await.unwrap();
        env::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(committed(&client, "g").await, None, "both commits are old");
    });
}
