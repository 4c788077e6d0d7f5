//! The partitions of this broker (`kafka.server:type=ReplicaManager`, `kafka.cluster:type=Partition`, `kafka.log:type=Log`).
//!
//! Offsets are those of this copy. In-sync sets are the committed ones, told by the leader alone, so that sums over
//! brokers count each partition once; so is how far each other replica has fetched.

use metrics::Snapshot;

use super::gauge;
use crate::context::Context;
use crate::controller::election::effective_minimum;
use crate::partition::Partition;

#[derive(Default)]
struct Totals {
    all: usize,
    led: usize,
    under_replicated: usize,
    under_minimum: usize,
    at_minimum: usize,
}

pub(super) fn measure(context: &Context, out: &mut Snapshot) {
    let mut totals = Totals::default();
    for partition in context.replicas.copies() {
        totals.all += 1;
        offsets(&partition, out);
        if partition.is_leader() {
            totals.led += 1;
            in_sync(context, &partition, &mut totals, out);
        }
    }
    for (name, help, value) in [
        ("kafka_server_replicamanager_partitioncount", "Partitions with a copy here", totals.all),
        ("kafka_server_replicamanager_leadercount", "Partitions led here", totals.led),
        (
            "kafka_server_replicamanager_underreplicatedpartitions",
            "Partitions led here with replicas that are not in sync",
            totals.under_replicated,
        ),
        (
            "kafka_server_replicamanager_underminisrpartitioncount",
            "Partitions led here that take no acks=all",
            totals.under_minimum,
        ),
        (
            "kafka_server_replicamanager_atminisrpartitioncount",
            "Partitions led here with no in-sync replica to spare",
            totals.at_minimum,
        ),
    ] {
        gauge(out, name, help, value);
    }
}

fn offsets(partition: &Partition, out: &mut Snapshot) {
    let id = partition.id();
    let labels: metrics::Labels<'_> = &[("topic", &id.topic), ("partition", &id.partition)];
    let (high_watermark, last_stable) = (partition.high_watermark(), partition.last_stable_offset());
    for (name, help, value) in [
        ("kafka_log_log_logstartoffset", "First offset of the log", partition.log_start_offset()),
        ("kafka_log_log_logendoffset", "End of the log", partition.log_end_offset()),
        ("kafka_cluster_partition_highwatermark", "End of what is committed, as known here", high_watermark),
        ("kafka_cluster_partition_laststableoffset", "End of what read_committed sees", last_stable),
        (
            "kafka_cluster_partition_laststableoffsetlag",
            "What open transactions keep from read_committed",
            high_watermark - last_stable,
        ),
        ("kafka_cluster_partition_leaderepoch", "Epoch of this copy's role", partition.leader_epoch().into()),
        ("kafka_cluster_partition_isleader", "1 if it is led here", partition.is_leader().into()),
    ] {
        out.gauge(name, help, labels, value);
    }
}

fn in_sync(context: &Context, partition: &Partition, totals: &mut Totals, out: &mut Snapshot) {
    let id = partition.id();
    let default_min = context.config.min_insync_replicas;
    let known = context.metadata.with(|image| {
        let topic = image.topics.get(&id.topic_id)?;
        let state = topic.partitions.get(&id.partition)?;
        let minimum = effective_minimum(topic.min_insync_replicas(default_min), state.replicas.len());
        Some((state.isr.len(), state.replicas.len(), minimum))
    });
    let Some((in_sync, replicas, minimum)) = known else { return };
    totals.under_replicated += usize::from(in_sync < replicas);
    totals.under_minimum += usize::from(in_sync < minimum);
    totals.at_minimum += usize::from(in_sync == minimum && minimum < replicas);
    let labels: metrics::Labels<'_> = &[("topic", &id.topic), ("partition", &id.partition)];
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    for (name, help, value) in [
        ("kafka_cluster_partition_insyncreplicascount", "Members of the in-sync set", count(in_sync)),
        ("kafka_cluster_partition_replicascount", "Replicas", count(replicas)),
        ("kafka_cluster_partition_underreplicated", "1 if replicas are not in sync", (in_sync < replicas).into()),
        ("kafka_cluster_partition_underminisr", "1 if it takes no acks=all", (in_sync < minimum).into()),
        (
            "kafka_cluster_partition_opentransactions",
            "Transactions that have records here and no marker yet",
            count(partition.open_transactions()),
        ),
    ] {
        out.gauge(name, help, labels, value);
    }
    let end = partition.log_end_offset();
    let lags = partition.with_leader(|leader| {
        let lag = |fetched: Option<i64>| fetched.map_or(end - partition.log_start_offset(), |f| end - f);
        leader.remotes().iter().map(|(id, remote)| (*id, lag(remote.end).max(0))).collect::<Vec<_>>()
    });
    for (replica, lag) in lags.unwrap_or_default() {
        let labels: metrics::Labels<'_> = &[("topic", &id.topic), ("partition", &id.partition), ("replica", &replica)];
        let help = "Records that a follower has not fetched; all of them before its first fetch of this leader epoch";
        out.gauge("kafka_cluster_partition_replicalag", help, labels, lag);
    }
}
