//! What any broker tells of the cluster from its own copy of the metadata log: DescribeCluster, DescribeConfigs,
//! DescribeTopicPartitions.

use std::collections::BTreeMap;

use protocol::messages::describe_cluster_response::DescribeClusterBroker;
use protocol::messages::describe_configs_request::DescribeConfigsResource;
use protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
};
use protocol::{ErrorCode, str_bytes, topic_name};

use crate::config::BrokerConfig;
use crate::context::Context;
use crate::controller::admin::{DYNAMIC_TOPIC_CONFIG, TOPIC_RESOURCE};
use crate::controller::configs::{Kind, SETTINGS, Setting};
use crate::internal_topics::is_internal;
use crate::metadata::{BrokerState, TopicState};

const BROKER_RESOURCE: i8 = 4;
/// Sources of a setting.
const STATIC_BROKER_CONFIG: i8 = 4;
const DEFAULT_CONFIG: i8 = 5;
/// Types of a setting.
const BOOLEAN: i8 = 1;
const STRING: i8 = 2;
const INT: i8 = 3;
const LONG: i8 = 5;
const DOUBLE: i8 = 6;
const LIST: i8 = 7;
/// End points of brokers, not of controllers.
const BROKERS: i8 = 1;
/// Not asked for, so not told.
const NO_OPERATIONS: i32 = i32::MIN;
/// Most partitions in one answer to DescribeTopicPartitions.
const MAX_PARTITIONS: i32 = 2000;

pub(crate) fn cluster(context: &Context, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    let response = DescribeClusterResponse::default()
        .with_cluster_id(str_bytes(context.config.cluster_id.clone()))
        .with_cluster_authorized_operations(NO_OPERATIONS)
        .with_endpoint_type(request.endpoint_type)
        .with_error_message(None);
    if request.endpoint_type != BROKERS {
        return response.with_error_code(ErrorCode::UNSUPPORTED_ENDPOINT_TYPE.code());
    }
    let brokers = context.metadata.with(|image| {
        let told = |(_, b): &(&i32, &BrokerState)| !b.fenced || request.include_fenced_brokers;
        let one = |(id, b): (&i32, &BrokerState)| {
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(*id))
                .with_host(str_bytes(b.host.clone()))
                .with_port(b.port.into())
                .with_rack(b.rack.clone().map(str_bytes))
                .with_is_fenced(b.fenced)
        };
        image.brokers.iter().filter(told).map(one).collect()
    });
    response.with_controller_id(BrokerId(context.controller_id())).with_brokers(brokers)
}

pub(crate) fn configs(context: &Context, request: &DescribeConfigsRequest) -> DescribeConfigsResponse {
    let one = |resource: &DescribeConfigsResource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_message(None);
        let wanted = |name: &str| match &resource.configuration_keys {
            None => true,
            Some(keys) => keys.iter().any(|k| k.as_str() == name),
        };
        let shape = |r: DescribeConfigsResourceResult, about: &str, synonyms: Vec<DescribeConfigsSynonym>| {
            let r = if request.include_synonyms { r.with_synonyms(synonyms) } else { r };
            if request.include_documentation {
                r.with_documentation(Some(str_bytes(about)))
            } else {
                r.with_documentation(None)
            }
        };
        match resource.resource_type {
            TOPIC_RESOURCE => {
                let topic = resource.resource_name.as_str();
                let set = context.metadata.with(|image| image.topic(topic).map(|t| t.configs.clone()));
                let Some(set) = set else {
                    return result.with_error_code(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code());
                };
                let told = SETTINGS.iter().filter(|s| wanted(s.name));
                let told = told.map(|s| {
                    let (r, synonyms) = of_topic(&context.config, topic, s, &set);
                    shape(r, s.about, synonyms)
                });
                result.with_configs(told.collect())
            }
            BROKER_RESOURCE => {
                let node_id = context.config.node_id.to_string();
                if !resource.resource_name.is_empty() && resource.resource_name.as_str() != node_id {
                    let message = format!("this is broker {node_id}");
                    return result
                        .with_error_code(ErrorCode::INVALID_REQUEST.code())
                        .with_error_message(Some(str_bytes(message)));
                }
                let told = of_broker(&context.config).into_iter().filter(|s| wanted(s.name));
                let told = told.map(|s| {
                    let r = DescribeConfigsResourceResult::default()
                        .with_name(str_bytes(s.name))
                        .with_value(Some(str_bytes(s.value.clone())))
                        .with_read_only(true)
                        .with_config_source(STATIC_BROKER_CONFIG)
                        .with_config_type(s.kind);
                    shape(r, "", vec![synonym(s.name, &s.value, STATIC_BROKER_CONFIG)])
                });
                result.with_configs(told.collect())
            }
            other => result
                .with_error_code(ErrorCode::INVALID_REQUEST.code())
                .with_error_message(Some(str_bytes(format!("resources of type {other} have no settings here")))),
        }
    };
    DescribeConfigsResponse::default().with_results(request.resources.iter().map(one).collect())
}

fn synonym(name: &str, value: &str, source: i8) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default().with_name(str_bytes(name)).with_value(Some(str_bytes(value))).with_source(source)
}

fn of_topic(
    config: &BrokerConfig,
    topic: &str,
    setting: &Setting,
    set: &BTreeMap<String, String>,
) -> (DescribeConfigsResourceResult, Vec<DescribeConfigsSynonym>) {
    let default = (setting.default)(config, topic);
    let (value, source) = match set.get(setting.name) {
        Some(value) => (value.clone(), DYNAMIC_TOPIC_CONFIG),
        None => (default.clone(), DEFAULT_CONFIG),
    };
    let kind = match setting.kind {
        Kind::Bool => BOOLEAN,
        Kind::Int(_) => INT,
        Kind::Long(_) => LONG,
        Kind::Share => DOUBLE,
        Kind::OneOf(_) => STRING,
        Kind::ListOf(_) => LIST,
    };
    let mut synonyms = Vec::new();
    if source == DYNAMIC_TOPIC_CONFIG {
        synonyms.push(synonym(setting.name, &value, DYNAMIC_TOPIC_CONFIG));
    }
    synonyms.push(synonym(setting.name, &default, DEFAULT_CONFIG));
    let result = DescribeConfigsResourceResult::default()
        .with_name(str_bytes(setting.name))
        .with_value(Some(str_bytes(value)))
        .with_read_only(false)
        .with_config_source(source)
        .with_config_type(kind);
    (result, synonyms)
}

struct BrokerSetting {
    name: &'static str,
    value: String,
    kind: i8,
}

/// What this broker was started with, by the names Kafka's operators know.
fn of_broker(config: &BrokerConfig) -> Vec<BrokerSetting> {
    let of = |name, value: String, kind| BrokerSetting { name, value, kind };
    vec![
        of("node.id", config.node_id.to_string(), INT),
        of("broker.rack", config.rack.clone().unwrap_or_default(), STRING),
        of("auto.create.topics.enable", config.auto_create_topics.to_string(), BOOLEAN),
        of("broker.heartbeat.interval.ms", config.broker_heartbeat_interval_ms.to_string(), INT),
        of("broker.session.timeout.ms", config.broker_session_timeout_ms.to_string(), INT),
        of("controller.quorum.election.timeout.ms", config.quorum_election_timeout_ms.to_string(), INT),
        of("controller.quorum.fetch.timeout.ms", config.quorum_fetch_timeout_ms.to_string(), INT),
        of("default.replication.factor", config.default_replication_factor.to_string(), INT),
        of("log.cleaner.backoff.ms", config.cleaner_interval_ms.to_string(), LONG),
        of("log.cleaner.dedupe.buffer.size", config.cleaner_dedupe_buffer_bytes.to_string(), LONG),
        of("log.cleaner.delete.retention.ms", config.delete_retention_ms.to_string(), LONG),
        of("log.cleaner.min.cleanable.ratio", config.min_cleanable_dirty_ratio.to_string(), DOUBLE),
        of("log.cleaner.min.compaction.lag.ms", config.min_compaction_lag_ms.to_string(), LONG),
        of("log.retention.bytes", config.retention_bytes.to_string(), LONG),
        of("log.retention.check.interval.ms", config.retention_check_interval_ms.to_string(), LONG),
        of("log.retention.ms", config.retention_ms.to_string(), LONG),
        of("log.segment.bytes", config.segment_bytes.to_string(), INT),
        of("message.max.bytes", config.max_message_bytes.to_string(), INT),
        of("min.insync.replicas", config.min_insync_replicas.to_string(), INT),
        of("num.partitions", config.default_partitions.to_string(), INT),
        of(
            "offsets.retention.check.interval.ms",
            config.group.offsets_retention_check_interval.as_millis().to_string(),
            LONG,
        ),
        of("offsets.retention.minutes", (config.group.offsets_retention.as_secs() / 60).to_string(), INT),
        of("offsets.topic.num.partitions", config.offsets_partitions.to_string(), INT),
        of("replica.lag.time.max.ms", config.replica_lag_max_ms.to_string(), LONG),
        of("transaction.max.timeout.ms", config.transaction_max_timeout_ms.to_string(), INT),
        of("transactional.id.expiration.ms", config.transactional_id_expiration_ms.to_string(), LONG),
        of("transaction.state.log.num.partitions", config.transaction_partitions.to_string(), INT),
    ]
}

pub(crate) fn topic_partitions(
    context: &Context,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let limit = request.response_partition_limit.clamp(1, MAX_PARTITIONS);
    let (from_topic, from_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str().to_owned(), cursor.partition_index),
        None => (String::new(), 0),
    };
    let mut response = DescribeTopicPartitionsResponse::default();
    context.metadata.with(|image| {
        let mut names: Vec<String> = if request.topics.is_empty() {
            image.names.keys().cloned().collect()
        } else {
            request.topics.iter().map(|t| t.name.as_str().to_owned()).collect()
        };
        names.sort();
        names.dedup();
        let mut left = limit;
        for name in names.into_iter().filter(|n| *n >= from_topic) {
            let answer = DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(topic_name(name.clone())))
                .with_is_internal(is_internal(&name))
                .with_topic_authorized_operations(NO_OPERATIONS);
            let Some(topic) = image.topic(&name) else {
                response.topics.push(answer.with_error_code(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code()));
                continue;
            };
            let first = if name == from_topic { from_partition.max(0) } else { 0 };
            let mut partitions = Vec::new();
            for (index, _) in topic.partitions.range(first..) {
                if left == 0 {
                    let cursor =
                        Cursor::default().with_topic_name(topic_name(name.clone())).with_partition_index(*index);
                    response.next_cursor = Some(cursor);
                    break;
                }
                left -= 1;
                partitions.push(partition(context, image, topic, *index));
            }
            if !partitions.is_empty() || response.next_cursor.is_none() {
                response.topics.push(answer.with_topic_id(topic.topic_id).with_partitions(partitions));
            }
            if response.next_cursor.is_some() {
                break;
            }
        }
    });
    response
}

fn partition(
    context: &Context,
    image: &crate::metadata::MetadataImage,
    topic: &TopicState,
    index: i32,
) -> DescribeTopicPartitionsResponsePartition {
    let answer = DescribeTopicPartitionsResponsePartition::default().with_partition_index(index);
    let Some(state) = topic.partitions.get(&index) else { return answer };
    let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
    let leader = context.shown_leader(&topic.name, index, state);
    let error = if leader < 0 { ErrorCode::LEADER_NOT_AVAILABLE } else { ErrorCode::NONE };
    let offline: Vec<i32> =
        state.replicas.iter().copied().filter(|r| image.brokers.get(r).is_none_or(|b| b.fenced)).collect();
    answer
        .with_error_code(error.code())
        .with_leader_id(BrokerId(leader))
        .with_leader_epoch(state.leader_epoch)
        .with_replica_nodes(ids(&state.replicas))
        .with_isr_nodes(ids(&state.isr))
        .with_eligible_leader_replicas(Some(ids(&state.elr)))
        .with_last_known_elr(Some(ids(&state.last_known_elr)))
        .with_offline_replicas(ids(&offline))
}
