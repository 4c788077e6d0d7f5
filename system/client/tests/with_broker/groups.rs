//! Group members of both protocols: for real on loopback, and in the simulated world under faults.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use broker::{Broker, BrokerConfig};
use streamproof_client::{
    Admin, Assignor, Client, ClientConfig, CommittedOffset, GroupConfig, GroupConsumer, GroupProtocol, NewTopic,
    Outcome, Polled, Producer, ProducerConfig, Remedy, Reset, TopicPartition,
};

use super::{record, text};

const PARTITIONS: i32 = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Eager,
    Cooperative,
    Modern,
}

const KINDS: [Kind; 3] = [Kind::Eager, Kind::Cooperative, Kind::Modern];

fn config(kind: Kind) -> GroupConfig {
    GroupConfig {
        protocol: if kind == Kind::Modern { GroupProtocol::Consumer } else { GroupProtocol::Classic },
        assignors: vec![if kind == Kind::Cooperative { Assignor::CooperativeSticky } else { Assignor::Range }],
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_millis(300),
        rebalance_timeout: Duration::from_secs(8),
        reset: Reset::Earliest,
        ..GroupConfig::new("g", &["t"])
    }
}

fn broker_config() -> BrokerConfig {
    let mut config = BrokerConfig::default();
    config.group.consumer_session_timeout = Duration::from_secs(6);
    config.group.consumer_heartbeat_interval = Duration::from_millis(300);
    config.group.initial_rebalance_delay = Duration::from_millis(100);
    config
}

/// Everything a member was handed, each time committed; it stops when told to.
struct Member {
    consumer: GroupConsumer,
    values: RefCell<Vec<String>>,
    changes: RefCell<Vec<Polled>>,
}

impl Member {
    fn new(client: Client, config: GroupConfig) -> Rc<Self> {
        let consumer = GroupConsumer::new(client, config);
        let member = Rc::new(Self { consumer, values: RefCell::default(), changes: RefCell::default() });
        env::task::spawn(Rc::clone(&member).run());
        member
    }

    async fn run(self: Rc<Self>) {
        loop {
            match self.consumer.poll().await {
                Ok(Polled::Records(results)) => {
                    let records = results.iter().flat_map(|r| &r.records).map(text);
                    self.values.borrow_mut().extend(records);
                    let _ = self.consumer.commit(&self.consumer.positions()).await;
                }
                Ok(change) => self.changes.borrow_mut().push(change),
                Err(_) => return,
            }
        }
    }

    fn owned(&self) -> usize {
        self.consumer.assignment().len()
    }
}

fn all() -> Vec<TopicPartition> {
    (0..PARTITIONS).map(|p| TopicPartition::new("t", p)).collect()
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            env::time::sleep(Duration::from_millis(20)).await;
        }
    };
    env::time::timeout(Duration::from_secs(20), wait).await.expect("it comes about in time");
}

async fn produce(client: &Client, values: std::ops::Range<i32>) {
    let producer = Producer::new(client.clone(), ProducerConfig::default());
    let mut deliveries = Vec::new();
    for n in values {
        deliveries.push(producer.send("t", n % PARTITIONS, record(n)).await);
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
}

fn on_broker<F: Future<Output = ()>>(test: impl FnOnce(Client) -> F) {
    let run = async {
        let dir = tempfile::tempdir().unwrap();
        let listen = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
        let config = BrokerConfig { listen, data_dir: dir.path().to_owned(), ..broker_config() };
        let broker = Broker::start(config).await.unwrap();
        let bootstrap = vec![("127.0.0.1".to_owned(), broker.local_addr().port())];
        let client =
            Client::new(ClientConfig { request_timeout: Duration::from_secs(3), ..ClientConfig::new(bootstrap) });
        let created = Admin::new(client.clone()).create_topics(&[NewTopic::new("t", PARTITIONS)]).await.unwrap();
        assert_eq!(created["t"], Ok(()));
        test(client).await;
        broker.shutdown().await.unwrap();
    };
    let limited = env::time::timeout(Duration::from_secs(60), run);
    env::node::run_real(limited).unwrap().expect("a test that takes a minute hangs");
}

/// As when a commit that was given up unanswered is stored after a newer one: nothing else would undo it.
#[test]
fn an_automatic_commit_is_repeated_though_nothing_moved() {
    on_broker(async |client| {
        let auto_commit = Some(Duration::from_millis(200));
        let consumer = GroupConsumer::new(client.clone(), GroupConfig { auto_commit, ..config(Kind::Cooperative) });
        produce(&client, 0..40).await;
        let admin = Admin::new(client.clone());
        let poll = async {
            loop {
                consumer.poll().await.unwrap();
            }
        };
        let all_are_at = async |offset| {
            while admin.fetch_offsets("g", &all(), true).await.unwrap().values().filter(|c| c.offset == offset).count()
                < 4
            {
                env::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let seen = async {
            all_are_at(10).await;
            let stray = all().into_iter().map(|tp| (tp, CommittedOffset::new(3))).collect();
            consumer.commit(&stray).await.unwrap();
            all_are_at(10).await;
        };
        env::select! {
            () = seen => {}
            () = poll => {}
            () = env::time::sleep(Duration::from_secs(20)) => panic!("the newest position is not committed again"),
        }
    });
}

#[test]
fn members_share_and_take_over() {
    for kind in KINDS {
        on_broker(async |client| {
            let one = Member::new(client.clone(), config(kind));
            until(|| one.owned() == 4).await;
            produce(&client, 0..40).await;
            until(|| one.values.borrow().len() == 40).await;
            let two = Member::new(client.clone(), config(kind));
            until(|| one.owned() == 2 && two.owned() == 2).await;
            produce(&client, 40..80).await;
            until(|| one.values.borrow().len() + two.values.borrow().len() == 80).await;
            let revoked = one
                .changes
                .borrow()
                .iter()
                .any(|c| matches!(c, Polled::Revoked(r) if r.len() == if kind == Kind::Eager { 4 } else { 2 }));
            assert!(revoked, "{kind:?}: {:?}", one.changes.borrow());
            // What was read is committed after it.
            let admin = Admin::new(client.clone());
            let committed = async {
                while !admin.fetch_offsets("g", &all(), true).await.unwrap().values().all(|c| c.offset == 20) {
                    env::time::sleep(Duration::from_millis(20)).await;
                }
            };
            env::time::timeout(Duration::from_secs(20), committed).await.expect("all is committed in time");
        });
    }
}

#[test]
fn a_transaction_of_a_member_that_was_replaced_is_refused() {
    for kind in KINDS {
        on_broker(async |client| {
            let member = Member::new(client.clone(), GroupConfig { instance_id: Some("i".into()), ..config(kind) });
            until(|| member.owned() == 4).await;
            let producer = Producer::new(client.clone(), ProducerConfig::transactional("tx"));
            producer.init_transactions(false).await.unwrap();
            let offsets = BTreeMap::from([(TopicPartition::new("t", 0), CommittedOffset::new(3))]);
            producer.begin().unwrap();
            producer.send_offsets(member.consumer.metadata(), &offsets).await.unwrap();
            producer.commit().await.unwrap();
            producer.begin().unwrap();
            let mut stale = member.consumer.metadata();
            stale.generation -= 1;
            let error = producer.send_offsets(stale, &offsets).await.unwrap_err();
            assert_eq!((error.outcome, error.remedy), (Outcome::Failed, Remedy::Abort), "{kind:?}: {error}");
            producer.abort().await.unwrap();
        });
    }
}

mod simulated {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use world::{Config, PowerLaw, on_seed};

    use super::*;

    const PORT: u16 = 9092;
    const RECORDS: i32 = 120;

    fn ip(n: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, n).into()
    }

    async fn broker_main() {
        let config = BrokerConfig {
            listen: SocketAddr::new(ip(1), PORT),
            advertised_host: ip(1).to_string(),
            data_dir: "/data".into(),
            ..broker_config()
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

    /// By node: what it holds now, as the application was told.
    type Holds = Rc<RefCell<BTreeMap<&'static str, BTreeSet<TopicPartition>>>>;
    /// By value: how often it was handed out; and how often members gave up partitions or lost them.
    type Seen = Rc<RefCell<(BTreeMap<String, u32>, u32)>>;

    async fn member(name: &'static str, kind: Kind, seen: Seen, holds: Holds) {
        holds.borrow_mut().insert(name, BTreeSet::new());
        let consumer = GroupConsumer::new(client(), config(kind));
        loop {
            match consumer.poll().await.expect("nothing here is fatal") {
                Polled::Records(results) => {
                    for record in results.iter().flat_map(|r| &r.records) {
                        *seen.borrow_mut().0.entry(text(record)).or_default() += 1;
                    }
                    if results.iter().any(|r| !r.records.is_empty()) {
                        let _ = consumer.commit(&consumer.positions()).await;
                    }
                }
                Polled::Assigned(taken) => holds.borrow_mut().entry(name).or_default().extend(taken),
                Polled::Revoked(gone) | Polled::Lost(gone) => {
                    seen.borrow_mut().1 += 1;
                    holds.borrow_mut().entry(name).or_default().retain(|tp| !gone.contains(tp));
                }
            }
        }
    }

    async fn produce(done: Rc<RefCell<BTreeSet<String>>>) {
        let producer = Producer::new(
            client(),
            ProducerConfig { delivery_timeout: Duration::from_secs(20), ..ProducerConfig::default() },
        );
        for n in 0..RECORDS {
            let delivery = producer.send("t", n % PARTITIONS, record(n)).await;
            if delivery.await.is_ok() {
                done.borrow_mut().insert(n.to_string());
            }
            env::time::sleep(Duration::from_millis(100)).await;
        }
    }

    #[test]
    fn nothing_acknowledged_goes_unseen_and_every_partition_has_one_member() {
        let mut changes = 0;
        for seed in 0..12 {
            let kind = KINDS[seed as usize % 3];
            let run = on_seed(Config::new(seed, seed), move |world| async move {
                let broker = world.add_node("broker", "broker", ip(1), broker_main);
                let created = Admin::new(client()).create_topics(&[NewTopic::new("t", PARTITIONS)]).await.unwrap();
                assert_eq!(created["t"], Ok(()));
                let (seen, holds, done) = (Seen::default(), Holds::default(), Rc::default());
                let mut nodes = Vec::new();
                for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
                    let (seen, holds) = (Rc::clone(&seen), Rc::clone(&holds));
                    let main = move || member(name, kind, Rc::clone(&seen), Rc::clone(&holds));
                    nodes.push(world.add_node(name, "member", ip(2 + n as u8), main));
                }
                {
                    let done: Rc<RefCell<BTreeSet<String>>> = Rc::clone(&done);
                    world.add_node("producer", "producer", ip(9), move || produce(Rc::clone(&done)));
                }
                for n in 0..6u64 {
                    env::time::sleep(Duration::from_millis(900 + (seed * 7919 + n * 104_729) % 1_500)).await;
                    let victim = nodes[(seed + n) as usize % 3];
                    match (seed / 3 + n * 5) % 7 {
                        0 => {
                            world.crash(broker);
                            env::time::sleep(Duration::from_millis(500)).await;
                            world.restart(broker);
                        }
                        1 => {
                            world.power_loss(broker, PowerLaw::Any);
                            env::time::sleep(Duration::from_millis(500)).await;
                            world.restart(broker);
                        }
                        2 => {
                            world.crash(victim);
                            env::time::sleep(Duration::from_millis(1_500)).await;
                            world.restart(victim);
                        }
                        3 => {
                            let cut = world.net().partition(&[broker], &[victim]);
                            env::time::sleep(Duration::from_secs(8)).await;
                            world.heal(cut);
                        }
                        4 => {
                            let held = world.net().hold(&[victim], &[broker]);
                            env::time::sleep(Duration::from_millis(2_500)).await;
                            world.heal(held);
                        }
                        5 => {
                            world.pause(victim);
                            env::time::sleep(Duration::from_secs(7)).await;
                            world.resume(victim);
                        }
                        _ => {
                            world.net().reset(&[broker], &nodes);
                        }
                    }
                }
                world.heal_all();
                env::time::sleep(Duration::from_secs(60)).await;
                let expected = Rc::clone(&done).take();
                let (seen, changes) = seen.take();
                let missing: Vec<_> = expected.iter().filter(|v| !seen.contains_key(*v)).collect();
                assert!(missing.is_empty(), "seed {seed}, {kind:?}: acknowledged and never seen: {missing:?}");
                assert!(expected.len() > RECORDS as usize / 2);
                let held: Vec<_> = holds.borrow().values().flatten().cloned().collect();
                let distinct: BTreeSet<_> = held.iter().collect();
                let all = PARTITIONS as usize;
                assert_eq!((held.len(), distinct.len()), (all, all), "seed {seed}, {kind:?}: {:?}", holds.borrow());
                changes
            });
            changes += run.unwrap().value;
        }
        assert!(changes > 12 * 3, "{changes} rebalances: the faults are too light");
    }

    /// The leader shares out what it knows: nothing yet. Nobody has reason to begin another round but itself.
    #[test]
    fn a_topic_that_comes_after_its_group_is_read() {
        for (kind, seed) in KINDS.into_iter().zip(0..) {
            let run = on_seed(Config::new(seed, seed), move |world| async move {
                world.add_node("broker", "broker", ip(1), broker_main);
                let (seen, holds) = (Seen::default(), Holds::default());
                for (n, name) in ["a", "b"].into_iter().enumerate() {
                    let (seen, holds) = (Rc::clone(&seen), Rc::clone(&holds));
                    world.add_node(name, "member", ip(2 + n as u8), move || {
                        member(name, kind, Rc::clone(&seen), Rc::clone(&holds))
                    });
                }
                env::time::sleep(Duration::from_secs(10)).await;
                let created = Admin::new(client()).create_topics(&[NewTopic::new("t", PARTITIONS)]).await.unwrap();
                assert_eq!(created["t"], Ok(()));
                env::time::sleep(Duration::from_secs(45)).await;
                let each: Vec<_> = holds.borrow().values().map(BTreeSet::len).collect();
                assert_eq!(each, [2, 2], "{kind:?}: {:?}", holds.borrow());
            });
            run.unwrap();
        }
    }
}
