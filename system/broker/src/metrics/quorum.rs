//! The metadata log's quorum as this node's replica knows it (`kafka.server:type=raft-metrics`).

use std::time::Duration;

use metrics::Snapshot;

use crate::context::Context;

/// A replica that is held up by its disk must not hold up the rest of a scrape.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn measure(context: &Context, out: &mut Snapshot) {
    let described = env::time::timeout(PATIENCE, context.metadata.quorum().describe()).await;
    let Ok(Some(quorum)) = described else { return };
    let state = format!("{:?}", quorum.role).to_lowercase();
    out.gauge(
        "kafka_server_raft_metrics_current_state",
        "1 with the role of this replica of the metadata log as label",
        &[("state", &state)],
        1,
    );
    for (name, help, value) in [
        ("kafka_server_raft_metrics_current_epoch", "Epoch of the metadata log", i64::from(quorum.epoch)),
        (
            "kafka_server_raft_metrics_current_leader",
            "Leader of the metadata log, -1 while none is known",
            quorum.leader.map_or(-1, i64::from),
        ),
        ("kafka_server_raft_metrics_high_watermark", "End of what is committed", quorum.high_watermark),
        ("kafka_server_raft_metrics_log_end_offset", "End of this replica's log", quorum.end),
        ("kafka_server_metadataloader_appliedoffset", "End of what this broker acts by", context.metadata.applied()),
    ] {
        out.gauge(name, help, &[], value);
    }
}
