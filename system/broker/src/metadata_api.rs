//! Metadata: brokers, topics, leaders.

use std::collections::BTreeSet;
use std::rc::Rc;

use protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use protocol::{ErrorCode, str_bytes, topic_name};

use crate::context::Context;
use crate::internal_topics::is_internal;
use crate::metadata::{BrokerState, PartitionState, TopicState};
use crate::topics::{check_name, may_create};

/// From this version on an empty list means no topic, before it meant all.
const EMPTY_MEANS_NONE: i16 = 1;
/// From this version on the request says whether topics may be created.
const ALLOW_AUTO_CREATE: i16 = 4;
/// From this version on a topic may be asked for by its id alone.
const BY_ID: i16 = 12;

enum Asked {
    Name(String),
    Id(protocol::Uuid),
}

pub(crate) async fn handle(context: &Rc<Context>, version: i16, request: MetadataRequest) -> MetadataResponse {
    let all = match &request.topics {
        None => true,
        Some(topics) => topics.is_empty() && version < EMPTY_MEANS_NONE,
    };
    let asked: Vec<Asked> = if all {
        context.metadata.with(|image| image.names.keys().map(|n| Asked::Name(n.clone())).collect())
    } else {
        let topics = request.topics.into_iter().flatten();
        topics
            .map(|t| match t.name {
                Some(name) => Asked::Name(name.as_str().to_owned()),
                None => Asked::Id(t.topic_id),
            })
            .collect()
    };
    let may_auto_create = !all && (version < ALLOW_AUTO_CREATE || request.allow_auto_topic_creation);
    let mut topics = Vec::with_capacity(asked.len());
    for topic in asked {
        topics.push(match topic {
            Asked::Name(name) => by_name(context, name, may_auto_create).await,
            Asked::Id(id) => {
                let found =
                    context.metadata.with(|image| image.topics.get(&id).cloned()).map(|t| of_topic(context, &t));
                found.unwrap_or_else(|| {
                    let missing = MetadataResponseTopic::default()
                        .with_topic_id(id)
                        .with_error_code(ErrorCode::UNKNOWN_TOPIC_ID.code());
                    if version >= BY_ID { missing.with_name(None) } else { missing.with_name(Some(topic_name(""))) }
                })
            }
        });
    }
    // A fenced broker serves nobody.
    let brokers = context.metadata.with(|image| {
        let broker = |(id, b): (&i32, &BrokerState)| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(*id))
                .with_host(str_bytes(b.host.clone()))
                .with_port(b.port.into())
                .with_rack(b.rack.clone().map(str_bytes))
        };
        image.brokers.iter().filter(|(_, b)| !b.fenced).map(broker).collect::<Vec<_>>()
    });
    MetadataResponse::default()
        .with_cluster_id(Some(str_bytes(context.config.cluster_id.clone())))
        .with_controller_id(BrokerId(context.controller_id()))
        .with_brokers(brokers)
        .with_topics(topics)
}

async fn by_name(context: &Rc<Context>, name: String, may_auto_create: bool) -> MetadataResponseTopic {
    let look = || context.metadata.with(|image| image.topic(&name).cloned()).map(|t| of_topic(context, &t));
    if let Some(found) = look() {
        return found;
    }
    let error = if check_name(&name).is_err() {
        ErrorCode::INVALID_TOPIC_EXCEPTION
    } else if !may_auto_create || !may_create(&name) {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    } else {
        match context.ensure_topic(&name).await {
            Ok(()) => match look() {
                Some(found) => return found,
                None => ErrorCode::LEADER_NOT_AVAILABLE,
            },
            Err(error) => error,
        }
    };
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(name.clone())))
        .with_is_internal(is_internal(&name))
        .with_error_code(error.code())
}

fn of_topic(context: &Context, topic: &TopicState) -> MetadataResponseTopic {
    let fenced = context.metadata.with(|image| {
        let fenced = image.brokers.iter().filter(|(_, b)| b.fenced);
        fenced.map(|(id, _)| *id).collect::<BTreeSet<_>>()
    });
    let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
    let partition = |(index, state): (&i32, &PartitionState)| {
        let leader = context.shown_leader(&topic.name, *index, state);
        let error = if leader < 0 { ErrorCode::LEADER_NOT_AVAILABLE } else { ErrorCode::NONE };
        let offline: Vec<i32> = state.replicas.iter().copied().filter(|r| fenced.contains(r)).collect();
        MetadataResponsePartition::default()
            .with_partition_index(*index)
            .with_error_code(error.code())
            .with_leader_id(BrokerId(leader))
            .with_leader_epoch(state.leader_epoch)
            .with_replica_nodes(ids(&state.replicas))
            .with_isr_nodes(ids(&state.isr))
            .with_offline_replicas(ids(&offline))
    };
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(topic.name.clone())))
        .with_topic_id(topic.topic_id)
        .with_is_internal(is_internal(&topic.name))
        .with_partitions(topic.partitions.iter().map(partition).collect())
}
