//! In the simulated world: broker and producers on nodes of their own, under crashes, power losses, cuts and resets.
//! What was acknowledged is there once, where it was said to be, in order; what failed is not there; what was committed
//! is seen, what was aborted is not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use broker::{Broker, BrokerConfig};
use streamproof_client::{
    Admin, Client, ClientConfig, Consumer, ConsumerConfig, Isolation, NewTopic, OffsetSpec, Outcome, Producer,
    ProducerConfig, Remedy, TopicPartition,
};
use world::{Config, NodeId, PowerLaw, World, on_seed};

use super::{read_to, record, text};

const PORT: u16 = 9092;
const RECORDS: i64 = 150;

fn ip(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

async fn broker_main() {
    let config = BrokerConfig {
        listen: SocketAddr::new(ip(1), PORT),
        advertised_host: ip(1).to_string(),
        data_dir: "/data".into(),
        ..BrokerConfig::default()
    };
    let broker = Broker::start(config).await.expect("a broker starts on its own disk");
    let _ = broker.run_until(std::future::pending()).await;
}

fn client() -> Client {
    Client::new(ClientConfig {
        request_timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(1),
        api_timeout: Duration::from_secs(30),
        ..ClientConfig::new(vec![(ip(1).to_string(), PORT)])
    })
}

/// What became of each record, by producer.
type Outcomes = Rc<RefCell<BTreeMap<String, Result<Option<i64>, Outcome>>>>;

/// Five faults, chosen by the seed, while the producers work.
async fn trouble(world: &World, seed: u64, broker: NodeId, clients: &[NodeId]) {
    for n in 0..5 {
        env::time::sleep(Duration::from_millis(300 + (seed * 7919 + n * 104_729) % 900)).await;
        match (seed + n * 5) % 7 {
            0 => {
                world.crash(broker);
                env::time::sleep(Duration::from_millis(400)).await;
                world.restart(broker);
            }
            1 => {
                world.power_loss(broker, PowerLaw::Any);
                env::time::sleep(Duration::from_millis(400)).await;
                world.restart(broker);
            }
            2 => {
                world.net().reset(&[broker], clients);
            }
            3 => {
                let cut = world.net().cut(&[broker], clients);
                env::time::sleep(Duration::from_millis(2_500)).await;
                world.heal(cut);
            }
            4 => {
                let cut = world.net().partition(&[broker], clients);
                env::time::sleep(Duration::from_millis(1_500)).await;
                world.heal(cut);
            }
            5 => {
                let held = world.net().hold(clients, &[broker]);
                env::time::sleep(Duration::from_millis(2_500)).await;
                world.heal(held);
            }
            _ => {
                world.pause(broker);
                env::time::sleep(Duration::from_millis(2_500)).await;
                world.resume(broker);
            }
        }
    }
    world.heal_all();
}

async fn create_topic(partitions: i32) {
    let created = Admin::new(client()).create_topics(&[NewTopic::new("t", partitions)]).await.unwrap();
    assert_eq!(created["t"], Ok(()));
}

/// The log as a consumer sees it, by partition.
async fn read_log(partitions: i32, isolation: Isolation) -> BTreeMap<i32, Vec<(i64, String)>> {
    let client = client();
    let all: Vec<_> = (0..partitions).map(|p| TopicPartition::new("t", p)).collect();
    let ends = Admin::new(client.clone()).list_offsets(&all, OffsetSpec::Latest, isolation).await.unwrap();
    let ends = ends.into_iter().map(|(tp, end)| (tp, end.unwrap())).collect();
    let consumer = Consumer::new(client, ConsumerConfig { isolation, ..ConsumerConfig::default() });
    let found = read_to(&consumer, &ends).await;
    found.into_iter().map(|(tp, rs)| (tp.partition, rs.iter().map(|r| (r.offset, text(r))).collect())).collect()
}

async fn produce(name: &'static str, outcomes: Outcomes) {
    let config = ProducerConfig { delivery_timeout: Duration::from_secs(8), ..ProducerConfig::default() };
    let producer = Producer::new(client(), config);
    let mut waiting = Vec::new();
    for n in 0..RECORDS {
        let delivery = producer.send("t", (n % 2) as i32, record(format!("{name}-{n}"))).await;
        let outcomes = Rc::clone(&outcomes);
        waiting.push(env::task::spawn(async move {
            let result = delivery.await.map(|m| m.offset).map_err(|e| e.outcome);
            outcomes.borrow_mut().insert(format!("{name}-{n}"), result);
        }));
        env::time::sleep(Duration::from_millis(30)).await;
    }
    producer.flush().await;
    for task in waiting {
        let _ = task.await;
    }
}

#[test]
fn acknowledged_records_are_there_once_and_in_order() {
    let (mut acknowledged, mut unknown) = (0, 0);
    for seed in 0..14 {
        let run = on_seed(Config::new(seed, seed), |world| async move {
            let broker = world.add_node("broker", "broker", ip(1), broker_main);
            create_topic(2).await;
            let outcomes = Outcomes::default();
            let mut clients = Vec::new();
            for (n, name) in ["x", "y"].into_iter().enumerate() {
                let outcomes = Rc::clone(&outcomes);
                let main = move || produce(name, Rc::clone(&outcomes));
                clients.push(world.add_node(name, "producer", ip(2 + n as u8), main));
            }
            trouble(&world, seed, broker, &clients).await;
            for _ in 0..600 {
                if outcomes.borrow().len() as i64 == 2 * RECORDS {
                    break;
                }
                env::time::sleep(Duration::from_millis(100)).await;
            }
            let log = read_log(2, Isolation::ReadCommitted).await;
            let outcomes = outcomes.borrow();
            let all = ["x", "y"].into_iter().flat_map(|name| (0..RECORDS).map(move |n| format!("{name}-{n}")));
            let missing: Vec<_> = all.filter(|value| !outcomes.contains_key(value)).collect();
            assert!(missing.is_empty(), "no outcome of {missing:?}");
            for name in ["x", "y"] {
                let mut last = [-1; 2];
                for n in 0..RECORDS {
                    let value = format!("{name}-{n}");
                    let log = log.get(&((n % 2) as i32)).map_or(&[][..], |l| l);
                    let found: Vec<i64> = log.iter().filter(|(_, v)| *v == value).map(|(o, _)| *o).collect();
                    match outcomes[&value] {
                        Ok(offset) => {
                            assert_eq!(found.len(), 1, "{value} acknowledged");
                            assert!(offset.is_none_or(|o| o == found[0]), "{value} is elsewhere");
                            assert!(found[0] > last[(n % 2) as usize], "{value} is out of order");
                            last[(n % 2) as usize] = found[0];
                        }
                        Err(Outcome::Failed) => assert!(found.is_empty(), "{value} failed, yet is there"),
                        Err(Outcome::Unknown) => assert!(found.len() <= 1, "{value} is duplicated"),
                    }
                }
            }
            let count = |f: fn(&Result<Option<i64>, Outcome>) -> bool| outcomes.values().filter(|o| f(o)).count();
            (count(Result::is_ok), count(|o| *o == Err(Outcome::Unknown)))
        });
        match run {
            Ok(run) => {
                acknowledged += run.value.0;
                unknown += run.value.1;
            }
            Err(e) => panic!("seed {seed}: {e}"),
        }
    }
    assert!(acknowledged > 14 * 200, "{acknowledged} acknowledged, {unknown} unknown: the faults are too heavy");
}

/// Transactions of three records over two partitions. `Ok(true)` committed, `Ok(false)` aborted, `Err` unknown.
async fn transact(name: &'static str, outcomes: Rc<RefCell<BTreeMap<String, Option<bool>>>>) {
    let config = || ProducerConfig { delivery_timeout: Duration::from_secs(8), ..ProducerConfig::transactional(name) };
    let ready = async || loop {
        let producer = Producer::new(client(), config());
        match producer.init_transactions(false).await {
            Ok(_) => return producer,
            Err(e) => tracing::debug!("{e}"),
        }
    };
    let mut producer = ready().await;
    for n in 0..25 {
        producer.begin().unwrap();
        let mut deliveries = Vec::new();
        for i in 0..3 {
            deliveries.push(producer.send("t", i % 2, record(format!("{name}-{n}-{i}"))).await);
        }
        let key = format!("{name}-{n}");
        let mut commit = n % 5 != 4;
        let mut unknown = false;
        let outcome = loop {
            let ended = if commit { producer.commit().await } else { producer.abort().await };
            match ended {
                Ok(()) => break Some(commit),
                Err(e) => {
                    unknown |= e.outcome == Outcome::Unknown && commit;
                    match e.remedy {
                        Remedy::Retry => {}
                        Remedy::Abort => commit = false,
                        Remedy::Close => {
                            producer = ready().await;
                            break if unknown { None } else { Some(false) };
                        }
                        Remedy::Misuse => panic!("{e}"),
                    }
                }
            }
        };
        outcomes.borrow_mut().insert(key, outcome);
        env::time::sleep(Duration::from_millis(120)).await;
    }
}

#[test]
fn committed_transactions_are_seen_whole_and_aborted_ones_not_at_all() {
    let mut committed = 0;
    for seed in 100..114 {
        let run = on_seed(Config::new(seed, seed), |world| async move {
            let broker = world.add_node("broker", "broker", ip(1), broker_main);
            create_topic(2).await;
            let outcomes = Rc::new(RefCell::new(BTreeMap::new()));
            let mut clients = Vec::new();
            for (n, name) in ["x", "y"].into_iter().enumerate() {
                let outcomes = Rc::clone(&outcomes);
                let main = move || transact(name, Rc::clone(&outcomes));
                clients.push(world.add_node(name, "producer", ip(2 + n as u8), main));
            }
            trouble(&world, seed, broker, &clients).await;
            for _ in 0..1200 {
                if outcomes.borrow().len() == 50 {
                    break;
                }
                env::time::sleep(Duration::from_millis(100)).await;
            }
            let log = read_log(2, Isolation::ReadCommitted).await;
            let outcomes = outcomes.borrow();
            assert_eq!(outcomes.len(), 50, "every transaction has an outcome");
            for (key, outcome) in outcomes.iter() {
                let records = (0..3).map(|i| format!("{key}-{i}"));
                let seen: usize = records.map(|r| log.values().flatten().filter(|(_, v)| *v == r).count()).sum();
                match outcome {
                    Some(true) => assert_eq!(seen, 3, "{key} is committed"),
                    Some(false) => assert_eq!(seen, 0, "{key} is aborted"),
                    None => assert!(seen == 0 || seen == 3, "{key} is seen in part"),
                }
            }
            outcomes.values().filter(|o| **o == Some(true)).count()
        });
        match run {
            Ok(run) => committed += run.value,
            Err(e) => panic!("seed {seed}: {e}"),
        }
    }
    assert!(committed > 14 * 20, "{committed} committed");
}
