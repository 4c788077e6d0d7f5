//! What clients ask of the controller, by way of any broker: topics, partitions, settings, elections, the quorum.
//!
//! All topics of a request are one decision, each with its own result.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use protocol::messages::create_topics_request::CreatableTopic;
use protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use protocol::messages::delete_topics_response::DeletableTopicResult;
use protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeQuorumResponse, ElectLeadersRequest,
    ElectLeadersResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, UnregisterBrokerRequest,
    UnregisterBrokerResponse, alter_configs_response, incremental_alter_configs_response,
};
use protocol::{ApiKey, ErrorCode, RequestBody, ResponseBody, StrBytes, Uuid, str_bytes, topic_name};

use super::api::{ControllerApi, unexpected};
use super::proposal::{
    ConfigChange, ConfigOp, CreatedTopic, NewPartitions, NewTopic, Outcome, Placement, Proposal, Refusal, TopicRef,
};

/// Kafka's number for topics in requests about settings.
pub(crate) const TOPIC_RESOURCE: i8 = 2;
/// Where a setting in an answer comes from: the topic itself.
pub(crate) const DYNAMIC_TOPIC_CONFIG: i8 = 1;
/// From this version on DeleteTopics names topics by name or id.
const DELETE_BY_ID: i16 = 6;
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Whether a broker passes such a request on to the controller.
pub(crate) fn is_forwarded(api: ApiKey) -> bool {
    matches!(
        api,
        ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::CreatePartitions
            | ApiKey::AlterConfigs
            | ApiKey::IncrementalAlterConfigs
            | ApiKey::ElectLeaders
            | ApiKey::UnregisterBroker
            | ApiKey::DescribeQuorum
    )
}

pub(super) async fn answer(api: &ControllerApi, version: i16, body: &RequestBody) -> Option<ResponseBody> {
    Some(match body {
        RequestBody::CreateTopics(r) => create_topics(api, r).await.into(),
        RequestBody::DeleteTopics(r) => delete_topics(api, version, r).await.into(),
        RequestBody::CreatePartitions(r) => create_partitions(api, r).await.into(),
        RequestBody::AlterConfigs(r) => alter_configs(api, r).await.into(),
        RequestBody::IncrementalAlterConfigs(r) => incremental_alter_configs(api, r).await.into(),
        RequestBody::ElectLeaders(r) => elect_leaders(api, version, r).await.into(),
        RequestBody::UnregisterBroker(r) => unregister_broker(api, r).await.into(),
        RequestBody::DescribeQuorum(r) => api.metadata.quorum().describe_to_client(r).await.into(),
        _ => return None,
    })
}

/// The answer that refuses a forwarded request as a whole.
pub(crate) fn refuse(version: i16, body: &RequestBody, error: ErrorCode) -> Option<ResponseBody> {
    Some(match body {
        RequestBody::CreateTopics(r) => {
            let results = r.topics.iter().map(|t| created(&t.name.0, Err(error.into()))).collect();
            CreateTopicsResponse::default().with_topics(results).into()
        }
        RequestBody::DeleteTopics(r) => {
            let results = to_delete(version, r).iter().map(|t| deleted(t, Err(error.into()))).collect();
            DeleteTopicsResponse::default().with_responses(results).into()
        }
        RequestBody::CreatePartitions(r) => {
            let results = r.topics.iter().map(|t| more_partitions(&t.name.0, Err(error.into()))).collect();
            CreatePartitionsResponse::default().with_results(results).into()
        }
        RequestBody::AlterConfigs(r) => {
            let results = r.resources.iter().map(|x| altered(x.resource_type, &x.resource_name, Err(error.into())));
            AlterConfigsResponse::default().with_responses(results.collect()).into()
        }
        RequestBody::IncrementalAlterConfigs(r) => {
            let one = |x: &protocol::messages::incremental_alter_configs_request::AlterConfigsResource| {
                incrementally_altered(x.resource_type, &x.resource_name, Err(error.into()))
            };
            let results = r.resources.iter().map(one).collect();
            IncrementalAlterConfigsResponse::default().with_responses(results).into()
        }
        RequestBody::ElectLeaders(_) => {
            let code = if version >= 1 { error.code() } else { 0 };
            ElectLeadersResponse::default().with_error_code(code).into()
        }
        RequestBody::UnregisterBroker(_) => UnregisterBrokerResponse::default().with_error_code(error.code()).into(),
        RequestBody::DescribeQuorum(_) => DescribeQuorumResponse::default().with_error_code(error.code()).into(),
        _ => return None,
    })
}

/// Whether the answer refuses something with `error`.
pub(crate) fn is_refused(answer: &ResponseBody, error: ErrorCode) -> bool {
    let code = error.code();
    match answer {
        ResponseBody::BrokerRegistration(r) => r.error_code == code,
        ResponseBody::BrokerHeartbeat(r) => r.error_code == code,
        ResponseBody::AlterPartition(r) => r.error_code == code,
        ResponseBody::AllocateProducerIds(r) => r.error_code == code,
        ResponseBody::AssignReplicasToDirs(r) => r.error_code == code,
        ResponseBody::Envelope(r) => r.error_code == code,
        ResponseBody::CreateTopics(r) => r.topics.iter().any(|t| t.error_code == code),
        ResponseBody::DeleteTopics(r) => r.responses.iter().any(|t| t.error_code == code),
        ResponseBody::CreatePartitions(r) => r.results.iter().any(|t| t.error_code == code),
        ResponseBody::AlterConfigs(r) => r.responses.iter().any(|t| t.error_code == code),
        ResponseBody::IncrementalAlterConfigs(r) => r.responses.iter().any(|t| t.error_code == code),
        ResponseBody::ElectLeaders(r) => r.error_code == code,
        ResponseBody::UnregisterBroker(r) => r.error_code == code,
        ResponseBody::DescribeQuorum(r) => r.error_code == code,
        _ => false,
    }
}

/// Waits for a decision as long as the client said; longer, and nobody knows.
async fn within(
    timeout_ms: i32,
    decision: impl Future<Output = Result<Outcome, ErrorCode>>,
) -> Result<Outcome, ErrorCode> {
    let timeout = Duration::from_millis(timeout_ms.max(0) as u64);
    env::time::timeout(timeout, decision).await.unwrap_or(Err(ErrorCode::REQUEST_TIMED_OUT))
}

fn message_of(refusal: &Refusal) -> Option<StrBytes> {
    if refusal.message.is_empty() { None } else { Some(str_bytes(refusal.message.clone())) }
}

fn twice<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    names.filter(|n| !seen.insert(*n)).map(str::to_owned).collect()
}

fn named_twice<T>() -> Result<T, Refusal> {
    Err(Refusal::new(ErrorCode::INVALID_REQUEST, "named twice in the request"))
}

/// Asks for those items that are `Ok`, and puts the controller's results in their places.
async fn ask<T, R>(
    items: Vec<Result<T, Refusal>>,
    decide: impl AsyncFnOnce(Vec<T>) -> Result<Vec<Result<R, Refusal>>, ErrorCode>,
) -> Vec<Result<R, Refusal>> {
    let mut asked = Vec::new();
    let places: Vec<Result<(), Refusal>> = items.into_iter().map(|item| item.map(|t| asked.push(t))).collect();
    let results = if asked.is_empty() { Ok(Vec::new()) } else { decide(asked).await };
    let mut results = results.map(Vec::into_iter);
    let mut next = || match &mut results {
        Ok(results) => results.next().unwrap_or(Err(ErrorCode::UNKNOWN_SERVER_ERROR.into())),
        Err(error) => Err((*error).into()),
    };
    places.into_iter().map(|place| place.and_then(|()| next())).collect()
}

async fn create_topics(api: &ControllerApi, r: &CreateTopicsRequest) -> CreateTopicsResponse {
    let twice = twice(r.topics.iter().map(|t| t.name.as_str()));
    let topics =
        r.topics.iter().map(|t| if twice.contains(t.name.as_str()) { named_twice() } else { new_topic(api, t) });
    let results = ask(topics.collect(), async |topics| {
        let proposal = Proposal::CreateTopics { topics, validate_only: r.validate_only };
        match within(r.timeout_ms, api.metadata.propose(proposal)).await {
            Ok(Outcome::CreatedTopics(results)) => Ok(results),
            other => Err(unexpected(other)),
        }
    });
    let results = results.await.into_iter().zip(&r.topics).map(|(result, t)| created(&t.name.0, result));
    CreateTopicsResponse::default().with_topics(results.collect())
}

fn new_topic(api: &ControllerApi, topic: &CreatableTopic) -> Result<NewTopic, Refusal> {
    let invalid = |message: &str| Refusal::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message);
    let place = if topic.assignments.is_empty() {
        Placement::Count { partitions: topic.num_partitions, replication_factor: topic.replication_factor }
    } else {
        let by_index: BTreeMap<i32, Vec<i32>> =
            topic.assignments.iter().map(|a| (a.partition_index, a.broker_ids.iter().map(|b| b.0).collect())).collect();
        if !by_index.keys().copied().eq(0..topic.assignments.len() as i32) {
            return Err(invalid("partitions must be numbered from 0 without gaps"));
        }
        Placement::Assigned(by_index.into_values().collect())
    };
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let value = config
            .value
            .as_ref()
            .ok_or_else(|| Refusal::new(ErrorCode::INVALID_CONFIG, format!("{} has no value", config.name.as_str())))?;
        configs.insert(config.name.as_str().to_owned(), value.as_str().to_owned());
    }
    Ok(NewTopic { name: topic.name.as_str().to_owned(), topic_id: api.fresh_id(), place, configs })
}

fn created(name: &StrBytes, result: Result<CreatedTopic, Refusal>) -> CreatableTopicResult {
    let answer = CreatableTopicResult::default().with_name(protocol::messages::TopicName(name.clone()));
    match result {
        Err(refusal) => answer
            .with_error_code(refusal.error.code())
            .with_error_message(message_of(&refusal))
            .with_num_partitions(-1)
            .with_replication_factor(-1),
        Ok(topic) => {
            let configs = topic.configs.into_iter().map(|(name, value)| {
                CreatableTopicConfigs::default()
                    .with_name(str_bytes(name))
                    .with_value(Some(str_bytes(value)))
                    .with_config_source(DYNAMIC_TOPIC_CONFIG)
            });
            answer
                .with_topic_id(topic.topic_id)
                .with_num_partitions(topic.partitions)
                .with_replication_factor(topic.replication_factor)
                .with_configs(Some(configs.collect()))
        }
    }
}

fn to_delete(version: i16, r: &DeleteTopicsRequest) -> Vec<TopicRef> {
    if version < DELETE_BY_ID {
        return r.topic_names.iter().map(|n| TopicRef::Name(n.as_str().to_owned())).collect();
    }
    let one = |t: &protocol::messages::delete_topics_request::DeleteTopicState| match &t.name {
        Some(name) => TopicRef::Name(name.as_str().to_owned()),
        None => TopicRef::Id(t.topic_id),
    };
    r.topics.iter().map(one).collect()
}

async fn delete_topics(api: &ControllerApi, version: i16, r: &DeleteTopicsRequest) -> DeleteTopicsResponse {
    let topics = to_delete(version, r);
    let results = ask(topics.iter().cloned().map(Ok).collect(), async |topics| {
        match within(r.timeout_ms, api.metadata.propose(Proposal::DeleteTopics { topics })).await {
            Ok(Outcome::DeletedTopics(results)) => Ok(results),
            other => Err(unexpected(other)),
        }
    });
    let results = results.await.into_iter().zip(&topics).map(|(result, t)| deleted(t, result));
    DeleteTopicsResponse::default().with_responses(results.collect())
}

fn deleted(topic: &TopicRef, result: Result<(String, Uuid), Refusal>) -> DeletableTopicResult {
    let answer = DeletableTopicResult::default();
    match result {
        Ok((name, id)) => answer.with_name(Some(topic_name(name))).with_topic_id(id),
        Err(refusal) => {
            let answer = answer.with_error_code(refusal.error.code()).with_error_message(message_of(&refusal));
            match topic {
                TopicRef::Name(name) => answer.with_name(Some(topic_name(name.clone()))),
                TopicRef::Id(id) => answer.with_name(None).with_topic_id(*id),
            }
        }
    }
}

async fn create_partitions(api: &ControllerApi, r: &CreatePartitionsRequest) -> CreatePartitionsResponse {
    let twice = twice(r.topics.iter().map(|t| t.name.as_str()));
    let topics = r.topics.iter().map(|t| {
        if twice.contains(t.name.as_str()) {
            return named_twice();
        }
        let assigned = t.assignments.iter().flatten().map(|a| a.broker_ids.iter().map(|b| b.0).collect()).collect();
        Ok(NewPartitions { topic: t.name.as_str().to_owned(), total: t.count, assigned })
    });
    let results = ask(topics.collect(), async |topics| {
        let proposal = Proposal::CreatePartitions { topics, validate_only: r.validate_only };
        match within(r.timeout_ms, api.metadata.propose(proposal)).await {
            Ok(Outcome::CreatedPartitions(results)) => Ok(results),
            other => Err(unexpected(other)),
        }
    });
    let results = results.await.into_iter().zip(&r.topics).map(|(result, t)| more_partitions(&t.name.0, result));
    CreatePartitionsResponse::default().with_results(results.collect())
}

fn more_partitions(name: &StrBytes, result: Result<(), Refusal>) -> CreatePartitionsTopicResult {
    let answer = CreatePartitionsTopicResult::default().with_name(protocol::messages::TopicName(name.clone()));
    match result {
        Ok(()) => answer.with_error_message(None),
        Err(refusal) => answer.with_error_code(refusal.error.code()).with_error_message(message_of(&refusal)),
    }
}

/// Asks for changes of settings of topics; other resources have none that can be changed while they run.
async fn change_configs(
    api: &ControllerApi,
    resources: Vec<(i8, StrBytes, Result<ConfigChange, Refusal>)>,
    validate_only: bool,
) -> Vec<(i8, StrBytes, Result<(), Refusal>)> {
    let twice = twice(resources.iter().map(|(_, name, _)| name.as_str()));
    let mut places = Vec::with_capacity(resources.len());
    let mut changes = Vec::with_capacity(resources.len());
    for (kind, name, change) in resources {
        changes.push(if kind != TOPIC_RESOURCE {
            Err(Refusal::new(ErrorCode::INVALID_REQUEST, "only settings of topics can be changed"))
        } else if twice.contains(name.as_str()) {
            named_twice()
        } else {
            change
        });
        places.push((kind, name));
    }
    let results = ask(changes, async |changes| {
        match api.metadata.propose(Proposal::AlterConfigs { changes, validate_only }).await {
            Ok(Outcome::AlteredConfigs(results)) => Ok(results),
            other => Err(unexpected(other)),
        }
    });
    places.into_iter().zip(results.await).map(|((kind, name), result)| (kind, name, result)).collect()
}

async fn alter_configs(api: &ControllerApi, r: &AlterConfigsRequest) -> AlterConfigsResponse {
    let resources = r.resources.iter().map(|resource| {
        let op = |c: &protocol::messages::alter_configs_request::AlterableConfig| {
            let op = c.value.as_ref().map_or(ConfigOp::Delete, |v| ConfigOp::Set(v.as_str().to_owned()));
            (c.name.as_str().to_owned(), op)
        };
        let topic = resource.resource_name.as_str().to_owned();
        let change = ConfigChange { topic, replace: true, ops: resource.configs.iter().map(op).collect() };
        (resource.resource_type, resource.resource_name.clone(), Ok(change))
    });
    let results = change_configs(api, resources.collect(), r.validate_only).await;
    let results = results.into_iter().map(|(kind, name, result)| altered(kind, &name, result));
    AlterConfigsResponse::default().with_responses(results.collect())
}

fn altered(
    kind: i8,
    name: &StrBytes,
    result: Result<(), Refusal>,
) -> alter_configs_response::AlterConfigsResourceResponse {
    let answer = alter_configs_response::AlterConfigsResourceResponse::default()
        .with_resource_type(kind)
        .with_resource_name(name.clone());
    match result {
        Ok(()) => answer.with_error_message(None),
        Err(refusal) => answer.with_error_code(refusal.error.code()).with_error_message(message_of(&refusal)),
    }
}

async fn incremental_alter_configs(
    api: &ControllerApi,
    r: &IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let resources = r.resources.iter().map(|resource| {
        let op = |c: &protocol::messages::incremental_alter_configs_request::AlterableConfig| {
            let name = c.name.as_str().to_owned();
            let value = c.value.as_ref().map(|v| v.as_str().to_owned());
            let op = match (c.config_operation, value) {
                (0, Some(v)) => ConfigOp::Set(v),
                (1, _) => ConfigOp::Delete,
                (2, Some(v)) => ConfigOp::Append(v),
                (3, Some(v)) => ConfigOp::Subtract(v),
                (operation, _) => {
                    let message = format!("{name}: operation {operation} is unknown or lacks a value");
                    return Err(Refusal::new(ErrorCode::INVALID_REQUEST, message));
                }
            };
            Ok((name, op))
        };
        let ops: Result<Vec<_>, Refusal> = resource.configs.iter().map(op).collect();
        let topic = resource.resource_name.as_str().to_owned();
        let change = ops.map(|ops| ConfigChange { topic, replace: false, ops });
        (resource.resource_type, resource.resource_name.clone(), change)
    });
    let results = change_configs(api, resources.collect(), r.validate_only).await;
    let results = results.into_iter().map(|(kind, name, result)| incrementally_altered(kind, &name, result));
    IncrementalAlterConfigsResponse::default().with_responses(results.collect())
}

fn incrementally_altered(
    kind: i8,
    name: &StrBytes,
    result: Result<(), Refusal>,
) -> incremental_alter_configs_response::AlterConfigsResourceResponse {
    let answer = incremental_alter_configs_response::AlterConfigsResourceResponse::default()
        .with_resource_type(kind)
        .with_resource_name(name.clone());
    match result {
        Ok(()) => answer.with_error_message(None),
        Err(refusal) => answer.with_error_code(refusal.error.code()).with_error_message(message_of(&refusal)),
    }
}

async fn elect_leaders(api: &ControllerApi, version: i16, r: &ElectLeadersRequest) -> ElectLeadersResponse {
    let response = ElectLeadersResponse::default();
    let election = if version == 0 { PREFERRED } else { r.election_type };
    if !matches!(election, PREFERRED | UNCLEAN) {
        return response.with_error_code(ErrorCode::INVALID_REQUEST.code());
    }
    let partitions = r.topic_partitions.as_ref().map(|topics| {
        let of_topic = |t: &protocol::messages::elect_leaders_request::TopicPartitions| {
            t.partitions.iter().map(|p| (t.topic.as_str().to_owned(), *p)).collect::<Vec<_>>()
        };
        topics.iter().flat_map(of_topic).collect()
    });
    let proposal = Proposal::ElectLeaders { partitions, unclean: election == UNCLEAN };
    let results = match within(r.timeout_ms, api.metadata.propose(proposal)).await {
        Ok(Outcome::Elected(results)) => results,
        other => {
            let code = unexpected(other).code();
            return if version == 0 { response } else { response.with_error_code(code) };
        }
    };
    let mut by_topic: BTreeMap<String, Vec<PartitionResult>> = BTreeMap::new();
    for (topic, partition, result) in results {
        let answer = PartitionResult::default().with_partition_id(partition).with_error_message(None);
        let answer = match result {
            Ok(()) => answer,
            Err(error) => answer.with_error_code(error.code()).with_error_message(error.name().map(str_bytes)),
        };
        by_topic.entry(topic).or_default().push(answer);
    }
    let results = by_topic.into_iter().map(|(topic, results)| {
        ReplicaElectionResult::default().with_topic(topic_name(topic)).with_partition_result(results)
    });
    response.with_replica_election_results(results.collect())
}

async fn unregister_broker(api: &ControllerApi, r: &UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    let response = UnregisterBrokerResponse::default().with_error_message(None);
    match api.metadata.propose(Proposal::UnregisterBroker { broker_id: r.broker_id.0 }).await {
        Ok(Outcome::Unregistered) => response,
        other => response.with_error_code(unexpected(other).code()),
    }
}
