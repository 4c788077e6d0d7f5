//! CreateTopics.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use protocol::messages::create_topics_request::CreatableTopic;
use protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use protocol::{ErrorCode, str_bytes};

use crate::context::Context;
use crate::topics::{check_name, check_setting, may_create};

/// Where a setting in the answer comes from: the topic itself.
const DYNAMIC_TOPIC_CONFIG: i8 = 1;

pub(crate) async fn handle(context: &Rc<Context>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut names = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for topic in &request.topics {
        if !names.insert(topic.name.clone()) {
            twice.insert(topic.name.clone());
        }
    }
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let result = CreatableTopicResult::default().with_name(topic.name.clone());
        let outcome = if twice.contains(&topic.name) {
            Err((ErrorCode::INVALID_REQUEST, "topic is named twice".to_owned()))
        } else {
            create(context, &topic, request.validate_only).await
        };
        results.push(match outcome {
            Err((error, message)) => {
                let message = if message.is_empty() { None } else { Some(str_bytes(message)) };
                let result = result.with_error_code(error.code()).with_error_message(message);
                result.with_num_partitions(-1).with_replication_factor(-1)
            }
            Ok((topic_id, partitions)) => {
                let configs = topic.configs.iter().map(|c| {
                    CreatableTopicConfigs::default()
                        .with_name(c.name.clone())
                        .with_value(c.value.clone())
                        .with_config_source(DYNAMIC_TOPIC_CONFIG)
                });
                result
                    .with_topic_id(topic_id)
                    .with_num_partitions(partitions)
                    .with_replication_factor(1)
                    .with_configs(Some(configs.collect()))
            }
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

async fn create(
    context: &Rc<Context>,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<(protocol::Uuid, i32), (ErrorCode, String)> {
    let name = topic.name.as_str();
    check_name(name).map_err(|e| (ErrorCode::INVALID_TOPIC_EXCEPTION, e.to_owned()))?;
    if !may_create(name) {
        return Err((ErrorCode::INVALID_TOPIC_EXCEPTION, format!("{name} is internal")));
    }
    let partitions = partitions_of(context, topic)?;
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let value = config.value.as_ref().map(|v| v.as_str());
        check_setting(&config.name, value).map_err(|e| (ErrorCode::INVALID_CONFIG, e))?;
        configs.insert(config.name.as_str().to_owned(), value.unwrap_or_default().to_owned());
    }
    if context.metadata.with(|image| image.names.contains_key(name)) {
        return Err((ErrorCode::TOPIC_ALREADY_EXISTS, format!("topic {name} exists")));
    }
    if validate_only {
        return Ok((protocol::Uuid::nil(), partitions));
    }
    let created = context.topics.create(context, name.to_owned(), partitions, configs).await;
    let topic_id = created.map_err(|e| (e, String::new()))?;
    Ok((topic_id, partitions))
}

fn partitions_of(context: &Context, topic: &CreatableTopic) -> Result<i32, (ErrorCode, String)> {
    let invalid = |error, message: &str| Err((error, message.to_owned()));
    let partitions = if topic.assignments.is_empty() {
        if !matches!(topic.replication_factor, -1 | 1) {
            let message = format!("replication factor {} is larger than the one broker", topic.replication_factor);
            return Err((ErrorCode::INVALID_REPLICATION_FACTOR, message));
        }
        match topic.num_partitions {
            -1 => context.config.default_partitions,
            n => n,
        }
    } else {
        let me = protocol::messages::BrokerId(context.config.node_id);
        let indexes: BTreeSet<i32> = topic.assignments.iter().map(|a| a.partition_index).collect();
        if topic.assignments.iter().any(|a| a.broker_ids != [me]) {
            return invalid(ErrorCode::INVALID_REPLICA_ASSIGNMENT, "every partition goes to the one broker");
        }
        if !indexes.iter().copied().eq(0..topic.assignments.len() as i32) {
            return invalid(ErrorCode::INVALID_REPLICA_ASSIGNMENT, "partitions must be numbered from 0 without gaps");
        }
        topic.assignments.len() as i32
    };
    if partitions < 1 || partitions > context.config.max_partitions_per_topic {
        let max = context.config.max_partitions_per_topic;
        return Err((ErrorCode::INVALID_PARTITIONS, format!("partitions must be 1 to {max}")));
    }
    Ok(partitions)
}
