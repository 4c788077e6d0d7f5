//! The groups that this broker coordinates, and how far they are behind (`kafka_consumergroup_*`, as the lag exporters
//! name it).
//!
//! Lag is the high watermark less the committed offset. The coordinator knows the high watermark of partitions that it
//! has a copy of, as a follower a moment late; of others the committed offset is told without a lag.

use std::collections::BTreeMap;

use metrics::Snapshot;

use crate::context::Context;
use crate::group::machine::Group;

pub(super) fn measure(context: &Context, out: &mut Snapshot) {
    let mut states: BTreeMap<(&'static str, &'static str), i64> = BTreeMap::new();
    for shard in context.groups().shards() {
        // One that still reads its log knows nothing yet.
        let _ = shard.look(|groups, offsets, _| {
            for (name, group) in groups.groups() {
                let (protocol, state, members) = match group {
                    Group::Classic(g) => ("classic", g.state().name(), g.members().len()),
                    Group::Consumer(g) => ("consumer", g.state_name(), g.members().len()),
                };
                *states.entry((protocol, state)).or_default() += 1;
                let members = i64::try_from(members).unwrap_or(i64::MAX);
                out.gauge("kafka_consumergroup_members", "Members of a group", &[("group", name)], members);
            }
            for (group, (topic, partition), offset) in offsets.committed() {
                let labels: metrics::Labels<'_> = &[("group", group), ("topic", topic), ("partition", partition)];
                out.gauge("kafka_consumergroup_current_offset", "Offset that a group committed", labels, offset);
                let Ok(copy) = context.replica(topic, *partition) else { continue };
                let lag = (copy.high_watermark() - offset).max(0);
                out.gauge("kafka_consumergroup_lag", "Records that a group has not committed yet", labels, lag);
            }
        });
    }
    for ((protocol, state), count) in states {
        out.gauge(
            "kafka_coordinator_group_groupcount",
            "Groups coordinated here",
            &[("protocol", &protocol), ("state", &state)],
            count,
        );
    }
}
