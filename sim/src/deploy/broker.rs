//! A broker node.

use std::path::PathBuf;

use broker::{Broker, BrokerConfig};
use scenarios::Plan;
use scenarios::plan::{Flush, NodeName};

use super::{DATA_DIR, address};
use crate::recorder::Recording;

pub(super) fn config(plan: &Plan, name: NodeName) -> BrokerConfig {
    let knobs = &plan.knobs.broker;
    let listen = address(name);
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
        max_frame_bytes: knobs.max_frame_bytes as usize,
        segment_bytes: knobs.segment_bytes as u32,
        offsets_partitions: knobs.offsets_partitions as i32,
        transaction_partitions: knobs.transactions_partitions as i32,
        transaction_max_timeout_ms: knobs.transaction_max_timeout_ms as i32,
        ..BrokerConfig::default()
    }
}

/// Runs until the node dies, or returns when the broker stops by itself: an operator (the runner) starts it again.
pub(super) async fn run(config: BrokerConfig, recording: Recording, name: NodeName) {
    let ended = match Broker::start(config).await {
        Ok(broker) => broker.run_until(std::future::pending::<()>()).await.map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    };
    if let Err(e) = ended {
        recording.note(format!("{name} stopped: {e}"));
    }
}
