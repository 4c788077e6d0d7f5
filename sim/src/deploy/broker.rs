//! A broker node.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use broker::group::GroupConfig;
use broker::{Broker, BrokerConfig, View};
use scenarios::Plan;
use scenarios::plan::{Flush, NodeName, Role};
use world::World;

use super::{DATA_DIR, address};
use crate::recorder::Recording;

/// The harness's look at a broker, kept outside the node.
pub type Seen = Rc<RefCell<View>>;

pub(super) fn config(plan: &Plan, name: NodeName) -> BrokerConfig {
    let knobs = &plan.knobs.broker;
    let listen = address(name);
    let all = (0..plan.topology.brokers).map(|n| (n as i32, address(NodeName::new(Role::Broker, n))));
    let voters = match plan.topology.brokers {
        1 => Default::default(),
        _ => all.map(|(id, at)| (id, (at.ip().to_string(), at.port()))).collect(),
    };
    BrokerConfig {
        node_id: name.number as i32,
        cluster_id: "streamproof-simulation".into(),
        listen,
        advertised_host: listen.ip().to_string(),
        advertised_port: Some(listen.port()),
        data_dir: PathBuf::from(DATA_DIR),
        flush: match knobs.flush {
            Flush::Fsync => broker::Flush::Fsync,
            Flush::PageCache => broker::Flush::PageCache,
        },
        voters,
        quorum_election_timeout_ms: knobs.quorum_election_timeout_ms,
        quorum_fetch_timeout_ms: knobs.quorum_fetch_timeout_ms,
        broker_session_timeout_ms: knobs.session_timeout_ms,
        broker_heartbeat_interval_ms: knobs.heartbeat_interval_ms,
        default_replication_factor: knobs.default_replication_factor as i16,
        min_insync_replicas: knobs.min_insync_replicas as i32,
        leader_rebalance_ms: knobs.leader_rebalance_ms,
        replica_lag_max_ms: knobs.replica_lag_max_ms,
        max_frame_bytes: knobs.max_frame_bytes as usize,
        segment_bytes: knobs.segment_bytes as u32,
        offsets_partitions: knobs.offsets_partitions as i32,
        transaction_partitions: knobs.transactions_partitions as i32,
        transaction_max_timeout_ms: knobs.transaction_max_timeout_ms as i32,
        group: GroupConfig {
            min_session_timeout_ms: knobs.group_session_timeout_ms.min(6_000) as i32,
            consumer_session_timeout: Duration::from_millis(knobs.group_session_timeout_ms),
            consumer_heartbeat_interval: Duration::from_millis(knobs.group_heartbeat_interval_ms),
            ..GroupConfig::default()
        },
        cleaner_interval_ms: knobs.cleaner_interval_ms,
        retention_check_interval_ms: knobs.retention_check_interval_ms,
        ..BrokerConfig::default()
    }
}

/// Runs until the node dies, or returns when the broker stops, by itself or as asked: an operator (the runner) starts it
/// again.
pub(super) async fn run(config: BrokerConfig, world: World, recording: Recording, name: NodeName, seen: Seen) {
    let node = world.node(&name.to_string()).expect("a node knows itself");
    let ended = match Broker::start(config).await {
        Ok(broker) => {
            *seen.borrow_mut() = broker.view();
            broker.run_until(world.terminated(node)).await.map_err(|e| e.to_string())
        }
        Err(e) => Err(e.to_string()),
    };
    if let Err(e) = ended {
        recording
            .note(format!("{:.3}s {name} stopped: {e}", Duration::from_nanos(world.now().as_nanos()).as_secs_f64()));
    }
}
