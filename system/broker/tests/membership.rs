//! Three brokers that are their own quorum form a cluster over a simulated network: they register, one that dies is
//! fenced and leads nothing, one that is told to stop gives its leaderships up first, and whatever a client was told the
//! controller decided is so on all of them, through crashes, cuts and changes of the controller.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use env::io::{AsyncReadExt, AsyncWriteExt};
use env::net::TcpStream;
use protocol::frame::FrameDecoder;
use protocol::messages::create_topics_request::CreatableTopic;
use protocol::messages::delete_topics_request::DeleteTopicState;
use protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeQuorumRequest,
    DescribeTopicPartitionsRequest, IncrementalAlterConfigsRequest, describe_quorum_request,
};
use protocol::{ErrorCode, RequestBody, ResponseBody, api, request, response, str_bytes, topic_name};
use streamproof_broker::{Broker, BrokerConfig};
use world::{Config, NodeId, PowerLaw, World, on_seed};

const BROKERS: i32 = 3;
const PORT: u16 = 9092;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));

fn ip(id: i32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + id as u8))
}

/// A broker until its node dies or it is told to stop.
async fn broker(id: i32, told: Shared) {
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
        ..BrokerConfig::default()
    };
    let broker = match Broker::start(config).await {
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
}

#[derive(Default, Debug)]
struct Told {
    /// Brokers that are to stop.
    stop: BTreeSet<i32>,
    created: BTreeSet<String>,
    unknown: BTreeSet<String>,
    /// No more topics are created.
    enough: bool,
    /// What each broker says now.
    views: BTreeMap<i32, View>,
}

/// Leader, in-sync set and eligible set of a partition.
type Replication = (i32, Vec<i32>, Vec<i32>);

/// The cluster as one broker tells of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct View {
    /// Unfenced.
    brokers: BTreeSet<i32>,
    controller: i32,
    partitions: BTreeMap<(String, i32), Replication>,
}

type Shared = Rc<RefCell<Told>>;

/// One request over a connection of its own.
async fn ask(id: i32, body: RequestBody) -> Option<ResponseBody> {
    let asking = async {
        let api_key = body.api_key();
        let version = api::versions(api_key)?.max;
        let (mut reader, mut writer) = TcpStream::connect(SocketAddr::new(ip(id), PORT)).await.ok()?.into_split();
        writer.write_all(&request::encode(version, 7, Some("test"), &body).ok()?).await.ok()?;
        let mut decoder = FrameDecoder::new(1 << 20);
        loop {
            if let Some(frame) = decoder.next().ok()? {
                return response::decode(api_key, version, frame).ok().map(|(_, body)| body);
            }
            if reader.read_buf(decoder.buffer_mut()).await.ok()? == 0 {
                return None;
            }
        }
    };
    env::time::timeout(Duration::from_secs(5), asking).await.ok()?
}

async fn view(id: i32) -> Option<View> {
    let ResponseBody::DescribeCluster(cluster) =
        ask(id, DescribeClusterRequest::default().with_endpoint_type(1).into()).await?
    else {
        panic!()
    };
    let request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(2000);
    let ResponseBody::DescribeTopicPartitions(topics) = ask(id, request.into()).await? else { panic!() };
    let mut partitions = BTreeMap::new();
    for topic in topics.topics {
        let name = topic.name.unwrap().as_str().to_owned();
        for p in topic.partitions {
            let ids = |ids: &[protocol::messages::BrokerId]| ids.iter().map(|b| b.0).collect::<Vec<_>>();
            let elr = ids(&p.eligible_leader_replicas.unwrap_or_default());
            partitions.insert((name.clone(), p.partition_index), (p.leader_id.0, ids(&p.isr_nodes), elr));
        }
    }
    let brokers = cluster.brokers.iter().map(|b| b.broker_id.0).collect();
    Some(View { brokers, controller: cluster.controller_id.0, partitions })
}

/// Creates topics by way of one broker after the other, and looks at the cluster through all of them.
async fn client(told: Shared) {
    for n in 0.. {
        let via = n % BROKERS;
        if !told.borrow().enough {
            let name = format!("t{n}");
            let topic = CreatableTopic::default()
                .with_name(topic_name(name.clone()))
                .with_num_partitions(2)
                .with_replication_factor(-1);
            let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(2000);
            let answer = match ask(via, request.into()).await {
                Some(ResponseBody::CreateTopics(r)) => Some(ErrorCode::from_code(r.topics[0].error_code)),
                _ => None,
            };
            let mut t = told.borrow_mut();
            match answer {
                Some(ErrorCode::NONE) => t.created.insert(name),
                None | Some(ErrorCode::REQUEST_TIMED_OUT) => t.unknown.insert(name),
                Some(ErrorCode::INVALID_REPLICATION_FACTOR) => false,
                Some(other) => panic!("{name}: {other}"),
            };
        }
        for id in 0..BROKERS {
            let view = view(id).await;
            let mut t = told.borrow_mut();
            match view {
                Some(view) => t.views.insert(id, view),
                None => t.views.remove(&id),
            };
        }
        env::time::sleep(Duration::from_millis(300)).await;
    }
}

struct Run<'a> {
    world: &'a World,
    nodes: Vec<NodeId>,
    told: Shared,
}

impl Run<'_> {
    async fn seconds(&self, n: u64) {
        self.world.sleep(Duration::from_secs(n)).await;
    }

    /// What all brokers say that answer; they must say the same.
    fn agreed(&self) -> View {
        let t = self.told.borrow();
        let view = t.views.values().next().expect("a broker answers").clone();
        for (id, other) in &t.views {
            // A leader that has not opened its copy yet is shown as none by itself alone.
            let seen = |v: &View| v.partitions.iter().map(|(k, p)| (k.clone(), p.1.clone())).collect::<Vec<_>>();
            assert_eq!(other.brokers, view.brokers, "broker {id} sees other brokers");
            assert_eq!(seen(other), seen(&view), "broker {id} sees another state");
        }
        view
    }

    fn controller(&self) -> i32 {
        self.told.borrow().views.values().next().expect("a broker answers").controller
    }
}

fn run(seed: u64, story: impl AsyncFnOnce(&Run<'_>) + Send) {
    let done = on_seed(Config::new(seed, seed), |world| async move {
        let told = Shared::default();
        let nodes = (0..BROKERS)
            .map(|id| {
                let told = Rc::clone(&told);
                world.add_node(&format!("broker-{id}"), "broker", ip(id), move || broker(id, Rc::clone(&told)))
            })
            .collect();
        let for_node = Rc::clone(&told);
        world.add_node("client", "client", CLIENT, move || client(Rc::clone(&for_node)));
        let run = Run { world: &world, nodes, told };
        story(&run).await;
        run.world.heal_all();
        run.seconds(15).await;
        run.told.borrow_mut().enough = true;
        run.seconds(4).await;
        let view = run.agreed();
        let t = run.told.borrow();
        assert_eq!((t.views.len(), view.brokers.len()), (3, 3), "all brokers serve: {:?}", view.brokers);
        let topics: BTreeSet<String> = view.partitions.keys().map(|(t, _)| t.clone()).collect();
        let missing: Vec<_> = t.created.difference(&topics).collect();
        assert!(missing.is_empty(), "created and not there: {missing:?}");
        let strange: Vec<_> = topics.iter().filter(|n| !t.created.contains(*n) && !t.unknown.contains(*n)).collect();
        assert!(strange.is_empty(), "there and never asked for: {strange:?}");
        assert!(t.created.len() > 5, "only {} topics were created", t.created.len());
    });
    if let Err(failed) = done {
        panic!("seed {seed}: {failed}");
    }
}

#[test]
fn three_brokers_form_a_cluster_and_any_of_them_takes_requests() {
    run(1, async |run| {
        run.seconds(5).await;
        let view = run.agreed();
        assert_eq!(view.brokers, BTreeSet::from([0, 1, 2]));
        assert!(!view.partitions.is_empty());
        let leaders: BTreeSet<i32> = view.partitions.values().map(|(leader, _, _)| *leader).collect();
        assert!(leaders.len() > 1, "leaders are spread: {view:?}");
        for (name, (_, isr, elr)) in &view.partitions {
            assert_eq!((isr.len(), elr.len()), (3, 0), "{name:?}");
        }
        // The quorum's leader knows how far the others are; any broker passes the question on to it (KIP-836).
        for via in 0..BROKERS {
            let partition = describe_quorum_request::PartitionData::default();
            let topic = describe_quorum_request::TopicData::default()
                .with_topic_name(topic_name("__cluster_metadata"))
                .with_partitions(vec![partition]);
            let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
            let Some(ResponseBody::DescribeQuorum(answer)) = ask(via, request.into()).await else { panic!() };
            let quorum = &answer.topics[0].partitions[0];
            assert_eq!((answer.error_code, quorum.error_code, quorum.leader_id.0), (0, 0, run.controller()), "{via}");
            assert_eq!(quorum.current_voters.len(), 3);
        }
        // Settings and deletion by way of a broker that is not the controller.
        let other = (run.controller() + 1) % BROKERS;
        let name = view.partitions.keys().next().unwrap().0.clone();
        let config = AlterableConfig::default()
            .with_name(str_bytes("min.insync.replicas"))
            .with_value(Some(str_bytes("1")))
            .with_config_operation(0);
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(str_bytes(name.clone()))
            .with_configs(vec![config]);
        let answer = ask(other, IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).into()).await;
        let Some(ResponseBody::IncrementalAlterConfigs(answer)) = answer else { panic!("{answer:?}") };
        assert_eq!(answer.responses[0].error_code, 0);
        let topic = DeleteTopicState::default().with_name(Some(topic_name(name.clone())));
        let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(2000);
        let Some(ResponseBody::DeleteTopics(answer)) = ask(other, request.into()).await else { panic!() };
        assert_eq!(answer.responses[0].error_code, 0);
        run.told.borrow_mut().created.remove(&name);
        run.seconds(2).await;
        assert!(!run.agreed().partitions.contains_key(&(name, 0)));
    });
}

#[test]
fn a_dead_broker_is_fenced_and_comes_back() {
    for (seed, kill_the_controller) in [(2, false), (3, true)] {
        run(seed, async move |run| {
            run.seconds(5).await;
            let controller = run.controller();
            let dead = if kill_the_controller { controller } else { (controller + 1) % BROKERS };
            run.world.crash(run.nodes[dead as usize]);
            run.seconds(8).await;
            let view = run.agreed();
            assert!(!view.brokers.contains(&dead), "{dead} is not fenced: {view:?}");
            for (name, (leader, isr, _)) in &view.partitions {
                assert!(*leader != dead && !isr.contains(&dead) && !isr.is_empty(), "{name:?} {leader} {isr:?}");
            }
            assert!(!kill_the_controller || run.controller() != controller);
        });
    }
}

#[test]
fn a_broker_told_to_stop_gives_its_leaderships_up_first() {
    run(4, async |run| {
        run.seconds(5).await;
        for id in 0..BROKERS {
            run.told.borrow_mut().stop.insert(id);
            // Well before its session could have ended.
            for _ in 0..10 {
                run.world.sleep(Duration::from_millis(250)).await;
                if run.world.exited(run.nodes[id as usize]) {
                    break;
                }
            }
            assert!(run.world.exited(run.nodes[id as usize]), "broker {id} does not stop");
            run.seconds(1).await;
            let view = run.agreed();
            assert!(!view.brokers.contains(&id), "{id} is not fenced");
            for (name, (leader, isr, _)) in &view.partitions {
                assert!(*leader != id && !isr.contains(&id), "{name:?} {leader} {isr:?}");
            }
            run.world.restart(run.nodes[id as usize]);
            run.seconds(6).await;
            assert!(run.agreed().brokers.contains(&id));
        }
    });
}

#[test]
fn what_was_decided_is_so_everywhere_whatever_happens_to_one_broker_at_a_time() {
    let first: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(100);
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(20);
    for seed in first..first + seeds {
        run(seed, async move |run| {
            let mut rng = seed::stream(seed, "membership", &[]);
            run.seconds(rng.range(4, 6)).await;
            for _ in 0..6 {
                let node = *rng.choose(&run.nodes);
                let others: Vec<NodeId> = run.nodes.iter().copied().filter(|n| *n != node).collect();
                let pause = Duration::from_millis(rng.range(200, 6000));
                let world = run.world;
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
                world.sleep(Duration::from_millis(rng.range(0, 6000))).await;
            }
        });
    }
}
