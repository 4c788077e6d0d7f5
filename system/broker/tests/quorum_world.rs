//! Three nodes keep the metadata over a simulated network and disks: whoever leads creates topics, while nodes crash at
//! the quorum's own steps and at any disk operation, lose power, lose a disk, are paused, cut off and held up.
//!
//! Checked: two nodes that applied the same part of the log have the same state; what was committed to whoever asked is
//! in the end on all nodes, what was refused is on none; and once all is healed, the nodes agree and go on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use env::io::{AsyncReadExt, AsyncWriteExt};
use env::net::{TcpListener, TcpStream};
use protocol::frame::FrameDecoder;
use protocol::{ErrorCode, Uuid, request, response};
use streamproof_broker::controller::machine::Settings;
use streamproof_broker::controller::proposal::{Heartbeat, NewTopic, Outcome, Placement, Proposal, Registration};
use streamproof_broker::metadata::Metadata;
use streamproof_broker::quorum::message::ReplicaKey;
use streamproof_broker::quorum::{Membership, Quorum};
use streamproof_broker::{BrokerConfig, Failure, Metrics};
use world::{Config, CrashPoint, NodeId, PowerLaw, Target, Then, When, World, on_seed};

const NODES: u8 = 3;
const PORT: u16 = 9093;

#[derive(Debug, Default)]
struct Told {
    /// State by the end of the part of the log that it shows.
    states: BTreeMap<i64, String>,
    committed: BTreeSet<String>,
    refused: BTreeSet<String>,
    unknown: usize,
    terms: BTreeSet<i32>,
    /// The last thing each node knew: applied end, its topics.
    last: BTreeMap<i32, (i64, BTreeSet<String>)>,
    directories: u128,
    /// No more topics are created.
    stop: bool,
}

type Shared = Rc<RefCell<Told>>;

fn ip(id: i32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, id as u8))
}

/// One node: a replica of the metadata, its listener, and a client of its own.
async fn node(id: i32, told: Shared) {
    let Ok(listener) = TcpListener::bind(SocketAddr::new(ip(id), PORT)).await else { return };
    let directory = directory(&told).await;
    let Some(directory) = directory else { return };
    let membership = Membership {
        me: ReplicaKey { id, directory },
        cluster_id: "c".into(),
        voters: (1..=NODES).map(|v| (v.into(), (ip(v.into()).to_string(), PORT))).collect(),
        election_timeout: Duration::from_millis(1000),
        fetch_timeout: Duration::from_millis(2000),
        snapshot_bytes: 3000,
    };
    let settings = Settings::of(&BrokerConfig { node_id: id, ..BrokerConfig::default() });
    let failure = Failure::default();
    let open =
        Metadata::open(Path::new("/data/metadata"), membership, settings, failure.clone(), Metrics::default()).await;
    let metadata = match open {
        Ok(metadata) => metadata,
        Err(error) => panic!("node {id}: {error}"),
    };
    let quorum = metadata.quorum().clone();
    env::task::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            env::task::spawn(serve(stream, quorum.clone()));
        }
    });
    env::task::spawn(watch(id, metadata.clone(), Rc::clone(&told)));
    env::task::spawn(create(id, metadata.clone(), told));
    let error = failure.failed().await;
    panic!("node {id}: {error}");
}

/// The id of the node's directory, made when it is first used, or used after its disk was lost.
async fn directory(told: &Shared) -> Option<Uuid> {
    let path = Path::new("/data/id");
    if let Ok(bytes) = env::disk::read(path).await {
        return Uuid::from_slice(&bytes).ok();
    }
    let id = {
        let mut told = told.borrow_mut();
        told.directories += 1;
        Uuid::from_u128(told.directories)
    };
    env::disk::create_dir_all("/data").await.ok()?;
    env::disk::replace(path, bytes::Bytes::copy_from_slice(id.as_bytes())).await.ok()?;
    env::disk::sync_ancestors("/data").await.ok()?;
    Some(id)
}

async fn serve(stream: TcpStream, quorum: Quorum) {
    let (mut reader, mut writer) = stream.into_split();
    let mut decoder = FrameDecoder::new(1 << 20);
    loop {
        match reader.read_buf(decoder.buffer_mut()).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
        while let Ok(Some(frame)) = decoder.next() {
            let request = request::decode(frame).expect("a peer's request");
            let (version, correlation_id) = (request.version, request.correlation_id);
            assert!(Quorum::serves(&request.body), "a request of another kind");
            let Some(answer) = quorum.request(request.body).await else { return };
            let frame = response::encode(version, correlation_id, &answer).expect("an answer");
            if writer.write_all(&frame).await.is_err() {
                return;
            }
        }
    }
}

/// Compares each state with what other nodes had at the same place.
async fn watch(id: i32, metadata: Metadata, told: Shared) {
    loop {
        let changed = metadata.changed();
        {
            let mut told = told.borrow_mut();
            let (applied, (state, topics)) = (
                metadata.applied(),
                metadata.with(|image| (format!("{image:?}"), image.names.keys().cloned().collect::<BTreeSet<_>>())),
            );
            let known = told.states.entry(applied).or_insert_with(|| state.clone());
            assert_eq!(*known, state, "node {id} has another state at {applied} than another node had");
            told.last.insert(id, (applied, topics));
        }
        changed.await;
    }
}

/// Creates topics whenever this node is the controller.
async fn create(id: i32, metadata: Metadata, told: Shared) {
    let mut registered = None;
    for n in 0u128.. {
        env::time::sleep(Duration::from_millis(300)).await;
        let (epoch, leader) = metadata.leader();
        if leader != Some(id) {
            continue;
        }
        if registered != Some(epoch) && register(id, &metadata).await.is_none() {
            continue;
        }
        registered = Some(epoch);
        told.borrow_mut().terms.insert(epoch);
        if told.borrow().stop {
            continue;
        }
        let name = format!("t-{id}-{}-{n}", env::node::incarnation());
        let topic_id =
            Uuid::from_u128((u128::from(env::node::incarnation()) << 64) | ((id as u128) << 48) | n | 1 << 100);
        let place = Placement::Count { partitions: 1, replication_factor: 1 };
        let topics = vec![NewTopic { name: name.clone(), topic_id, place, configs: BTreeMap::new() }];
        let outcome = metadata.propose(Proposal::CreateTopics { topics, validate_only: false }).await;
        let mut told = told.borrow_mut();
        match outcome {
            Ok(Outcome::CreatedTopics(created)) if created.iter().all(Result::is_ok) => {
                told.committed.insert(name);
            }
            Ok(_) | Err(ErrorCode::NOT_CONTROLLER) => {
                told.refused.insert(name);
            }
            Err(_) => told.unknown += 1,
        }
    }
}

async fn register(id: i32, metadata: &Metadata) -> Option<()> {
    let previous_broker_epoch = metadata.with(|image| image.brokers.get(&id).map_or(-1, |b| b.broker_epoch));
    let registration = Registration {
        broker_id: id,
        incarnation_id: Uuid::from_u128(u128::from(env::node::incarnation()) << 8 | id as u128),
        host: ip(id).to_string(),
        port: PORT,
        rack: None,
        log_dir: Uuid::from_u128(id as u128),
        previous_broker_epoch,
    };
    let broker_epoch = match metadata.propose(Proposal::RegisterBroker(registration)).await {
        Ok(Outcome::Registered { broker_epoch }) => broker_epoch,
        _ => return None,
    };
    let metadata_offset = metadata.applied() - 1;
    let heartbeat =
        Heartbeat { broker_id: id, broker_epoch, metadata_offset, want_fence: false, want_shut_down: false };
    match metadata.propose(Proposal::Heartbeat(heartbeat)).await {
        Ok(Outcome::Heartbeat(reply)) if !reply.is_fenced => Some(()),
        _ => None,
    }
}

struct Summary {
    terms: usize,
    committed: usize,
    unknown: usize,
    lives: u32,
}

fn run(seed: u64, faults: impl AsyncFn(&World, &[NodeId]) + Send) -> Summary {
    let done = on_seed(Config::new(seed, seed), |world| async move {
        let told = Shared::default();
        let nodes: Vec<NodeId> = (1..=i32::from(NODES))
            .map(|id| {
                let told = Rc::clone(&told);
                world.add_node(&format!("node-{id}"), "broker", ip(id), move || node(id, Rc::clone(&told)))
            })
            .collect();
        faults(&world, &nodes).await;
        world.heal_all();
        world.sleep(Duration::from_secs(20)).await;
        let before = told.borrow().committed.len();
        world.sleep(Duration::from_secs(5)).await;
        assert!(told.borrow().committed.len() > before, "nothing is committed after healing: {:?}", told.borrow().last);
        told.borrow_mut().stop = true;
        world.sleep(Duration::from_secs(3)).await;
        let t = told.borrow();
        let (end, topics) = t.last.values().next().cloned().expect("a node");
        assert_eq!(t.last.len(), nodes.len());
        for (id, last) in &t.last {
            assert_eq!(*last, (end, topics.clone()), "node {id} is behind");
        }
        assert!(t.committed.is_subset(&topics), "lost: {:?}", t.committed.difference(&topics).collect::<Vec<_>>());
        assert!(t.refused.is_disjoint(&topics), "refused, yet there: {:?}", t.refused.intersection(&topics));
        let lives = nodes.iter().map(|n| world.incarnation(*n)).sum();
        Summary { terms: t.terms.len(), committed: t.committed.len(), unknown: t.unknown, lives }
    });
    done.unwrap_or_else(|failed| panic!("seed {seed}: {failed}")).value
}

#[test]
fn three_fresh_nodes_elect_one_and_stay_with_it() {
    let summary = run(1, async |world, _| world.sleep(Duration::from_secs(10)).await);
    assert_eq!(summary.terms, 1, "the leader changed without a reason");
    assert!(summary.committed > 40 && summary.unknown == 0, "{} committed", summary.committed);
}

#[test]
fn a_quorum_survives_a_stop_at_each_of_its_steps() {
    let labels = [
        "quorum.vote.store",
        "quorum.epoch.store",
        "quorum.lead",
        "quorum.append",
        "quorum.append.fetched",
        "quorum.flush",
        "quorum.truncate",
        "quorum.snapshot",
        "quorum.snapshot.install",
        "metadata.apply",
    ];
    let (mut runs, mut terms) = (0, 0);
    for (i, label) in labels.into_iter().enumerate() {
        for (when, nth) in [(When::Before, 1), (When::After, 1), (When::Before, 4), (When::After, 9)] {
            let seed = nth * 100 + i as u64;
            let summary = run(seed, async |world, nodes| {
                for (n, then) in [Then::Power(PowerLaw::Any), Then::Crash].into_iter().enumerate() {
                    let target = Target::Node(format!("node-{}", n + 1));
                    let recover_after = Some(Duration::from_millis(2500));
                    world.arm(CrashPoint {
                        target,
                        label: label.into(),
                        when,
                        nth,
                        partition: None,
                        then,
                        recover_after,
                    });
                }
                world.sleep(Duration::from_secs(5)).await;
                // So that there is something to elect and to cut.
                world.net().partition(&nodes[..1], &nodes[1..]);
                world.sleep(Duration::from_secs(5)).await;
                world.heal_all();
                world.net().partition(&nodes[1..2], &[nodes[0], nodes[2]]);
                world.sleep(Duration::from_secs(5)).await;
            });
            runs += 1;
            terms += summary.terms;
        }
    }
    println!("{runs} runs, {terms} terms");
    assert!(terms > runs, "leaders changed");
}

/// A schedule of faults drawn from the seed: at most one node down at a time, one disk lost.
async fn disturb(world: &World, nodes: &[NodeId], seed: u64) {
    let mut rng = seed::stream(seed, "quorum-world", &[]);
    let mut lost_a_disk = false;
    world.sleep(Duration::from_secs(rng.range(0, 4))).await;
    for _ in 0..8 {
        let node = *rng.choose(nodes);
        let others: Vec<NodeId> = nodes.iter().copied().filter(|n| *n != node).collect();
        let pause = Duration::from_millis(rng.range(200, 5000));
        match rng.range(0, 7) {
            0 => drop(world.crash(node)),
            1 => drop(world.power_loss(node, PowerLaw::Any)),
            2 => {
                world.power_loss(node, PowerLaw::Any);
                // A second one before the first has joined again would be more than three voters bear.
                if !std::mem::replace(&mut lost_a_disk, true) {
                    world.wipe(node);
                }
            }
            3 => drop(world.pause(node)),
            4 => drop(world.net().partition(&[node], &others)),
            5 => drop(world.net().cut(&[node], &others)),
            6 => drop(world.net().hold(&others, &[node])),
            _ => drop(world.disk(node).stall(pause)),
        }
        world.sleep(pause).await;
        world.heal_all();
        world.sleep(Duration::from_millis(rng.range(0, 8000))).await;
    }
}

#[test]
fn a_quorum_survives_what_network_and_disks_do() {
    let first: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(12);
    let (mut terms, mut committed, mut unknown, mut lives) = (0, 0, 0, 0);
    for seed in first..first + seeds {
        let summary = run(seed, async |world, nodes| disturb(world, nodes, seed).await);
        terms += summary.terms;
        committed += summary.committed;
        unknown += summary.unknown;
        lives += summary.lives;
    }
    println!("{seeds} seeds: {terms} terms, {committed} committed, {unknown} unknown, {lives} lives");
    assert!(terms as u64 > seeds && lives as u64 > 3 * seeds);
}
