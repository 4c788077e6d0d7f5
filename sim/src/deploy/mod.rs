//! From a plan to running nodes: addresses, configurations, main functions.
//!
//! ```text
//! broker-N       10.0.0.(N+1):9092        each a voter of the metadata quorum, if there are several
//! coordinator-0  10.0.1.1:9200            clients and processor nodes know the brokers' addresses only
//! worker-N       10.0.2.(N+1):9300        workers register with the coordinator and are told of each other
//! client-N       10.0.3.(N+1)
//! ```

mod broker;
mod processor;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use ::client::ClientConfig;
use scenarios::Plan;
use scenarios::plan::{NodeName, Role};
use world::{DiskLaw, LinkLaw, NodeId, Status, World};

pub use self::processor::{Control, job_config};
use crate::clients::{self, Progress, Stage};
use crate::recorder::Recording;

/// Where every node keeps its files.
pub const DATA_DIR: &str = "/data";

/// The nodes of a plan in a world.
#[derive(Debug)]
pub struct Cluster {
    pub world: World,
    pub nodes: RefCell<BTreeMap<NodeName, NodeId>>,
    /// Each broker's own view of the cluster.
    views: RefCell<BTreeMap<u32, broker::Seen>>,
    pub recording: Recording,
    pub client_config: ClientConfig,
    pub stage: Rc<Stage>,
    pub progress: RefCell<BTreeMap<u32, Rc<Progress>>>,
    /// The harness's hand on the coordinator.
    pub control: Rc<Control>,
    /// Latency and loss before any fault.
    pub law: LinkLaw,
}

pub fn address(name: NodeName) -> SocketAddr {
    let (net, port) = match name.role {
        Role::Broker => (0, 9092),
        Role::Coordinator => (1, 9200),
        Role::Worker => (2, 9300),
        Role::Client => (3, 9400),
    };
    let host = u8::try_from(name.number + 1).expect("a valid plan has at most 64 nodes of a role");
    SocketAddr::from((Ipv4Addr::new(10, 0, net, host), port))
}

/// The law of a link as the plan has it. `None` keeps the plan's latency and loss.
pub fn link_law(plan: &Plan, latency_us: Option<(u64, u64)>, loss_per_million: Option<u32>) -> LinkLaw {
    let world = &plan.knobs.world;
    let (low, high) = latency_us.unwrap_or(world.latency_us);
    LinkLaw {
        loss_ppm: loss_per_million.unwrap_or(world.loss_per_million),
        chop_ppm: world.partial_per_million,
        bandwidth: world.bandwidth.unwrap_or(0),
        ..LinkLaw::LAN.latency(Duration::from_micros(low), Duration::from_micros(high))
    }
}

pub fn disk_law(plan: &Plan) -> DiskLaw {
    let world = &plan.knobs.world;
    DiskLaw {
        sync_min: Duration::from_micros(world.sync_latency_us.0),
        sync_max: Duration::from_micros(world.sync_latency_us.1),
        capacity: world.disk_bytes.unwrap_or(0),
        ..DiskLaw::SSD
    }
}

impl Cluster {
    /// Prepares the cluster; no node runs yet.
    pub fn new(world: World, plan: &Plan, recording: Recording) -> Rc<Cluster> {
        let knobs = &plan.knobs.client;
        let brokers = (0..plan.topology.brokers).map(|n| address(NodeName::new(Role::Broker, n)));
        let client_config = ClientConfig {
            request_timeout: Duration::from_millis(knobs.request_timeout_ms),
            connect_timeout: Duration::from_millis(knobs.request_timeout_ms),
            api_timeout: Duration::from_millis(knobs.request_timeout_ms * 10),
            retry_backoff: Duration::from_millis(50),
            retry_backoff_max: Duration::from_millis(500),
            ..ClientConfig::new(brokers.map(|a| (a.ip().to_string(), a.port())).collect())
        };
        let stage = Rc::new(Stage {
            recording: recording.clone(),
            knobs: knobs.clone(),
            config: client_config.clone(),
            group: (
                Duration::from_millis(plan.knobs.broker.group_session_timeout_ms),
                Duration::from_millis(plan.knobs.broker.group_heartbeat_interval_ms),
            ),
            partitions: plan.topics.iter().map(|t| (t.name.clone(), t.partitions as i32)).collect(),
            start: Cell::new(world.now()),
            wake: Rc::new(env::sync::Notify::new()),
            stop: Cell::new(false),
        });
        Rc::new(Cluster {
            law: link_law(plan, None, None),
            world,
            nodes: RefCell::default(),
            views: RefCell::default(),
            recording,
            client_config,
            stage,
            progress: RefCell::default(),
            control: Rc::default(),
        })
    }

    pub fn start_brokers(self: &Rc<Self>, plan: &Plan) {
        for n in 0..plan.topology.brokers {
            let name = NodeName::new(Role::Broker, n);
            let config = broker::config(plan, name);
            let (world, recording) = (self.world.clone(), self.recording.clone());
            let seen = broker::Seen::default();
            self.views.borrow_mut().insert(n, Rc::clone(&seen));
            let main = move || broker::run(config.clone(), world.clone(), recording.clone(), name, Rc::clone(&seen));
            self.add(name, main);
            let node = self.node(name).expect("just added");
            self.recording.is_broker(node.index(), n);
        }
    }

    pub fn start_processor(self: &Rc<Self>, plan: &Plan) {
        let Some(setup) = processor::Setup::of(plan, &self.client_config) else { return };
        let setup = Rc::new(setup);
        let name = NodeName::new(Role::Coordinator, 0);
        let (s, control, recording) = (Rc::clone(&setup), Rc::clone(&self.control), self.recording.clone());
        self.add(name, move || processor::coordinator(Rc::clone(&s), Rc::clone(&control), recording.clone()));
        for n in 0..plan.topology.workers {
            let (s, recording) = (Rc::clone(&setup), self.recording.clone());
            self.add(NodeName::new(Role::Worker, n), move || processor::worker(Rc::clone(&s), n, recording.clone()));
        }
    }

    pub fn start_clients(self: &Rc<Self>, plan: &Plan) {
        self.stage.start.set(self.world.now());
        for client in &plan.clients {
            let progress = Rc::new(Progress::default());
            self.progress.borrow_mut().insert(client.id, Rc::clone(&progress));
            let (stage, client) = (Rc::clone(&self.stage), Rc::new(client.clone()));
            let name = NodeName::new(Role::Client, client.id);
            self.add(name, move || clients::run(Rc::clone(&stage), Rc::clone(&client), Rc::clone(&progress)));
        }
    }

    fn add<F, Fut>(&self, name: NodeName, main: F)
    where
        F: Fn() -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let ip: IpAddr = address(name).ip();
        let id = self.world.add_node(&name.to_string(), name.role.name(), ip, main);
        self.nodes.borrow_mut().insert(name, id);
    }

    pub fn node(&self, name: NodeName) -> Option<NodeId> {
        self.nodes.borrow().get(&name).copied()
    }

    /// What the broker with the newest image of the cluster knows, of those that run.
    pub fn view(&self) -> ::broker::View {
        let views = self.views.borrow();
        let running = views.iter().filter(|(n, _)| {
            self.node(NodeName::new(Role::Broker, **n)).is_some_and(|node| self.world.status(node) == Status::Up)
        });
        let newest = running.map(|(_, view)| view.borrow().clone()).max_by_key(::broker::View::applied);
        newest.unwrap_or_default()
    }

    /// The node of a broker by its id.
    pub fn broker(&self, id: i32) -> Option<NodeId> {
        self.node(NodeName::new(Role::Broker, u32::try_from(id).ok()?))
    }

    /// Nodes of a role, in order.
    pub fn of_role(&self, role: Role) -> Vec<NodeId> {
        self.nodes.borrow().iter().filter(|(n, _)| n.role == role).map(|(_, id)| *id).collect()
    }
}
