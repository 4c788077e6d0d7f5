//! The calls of a member to its coordinator, as messages.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use protocol::messages::join_group_request::JoinGroupRequestProtocol;
use protocol::messages::leave_group_request::MemberIdentity;
use protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use protocol::messages::{
    ConsumerGroupHeartbeatRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
};
use protocol::{ApiKey, ErrorCode, RequestBody, ResponseBody, Uuid, str_bytes, topic_name};

use super::GroupConfig;
use super::membership::{Answer, Call, Partitions, Refused};
use crate::client::{Cause, Client, CoordinatorType, Lane};
use crate::metadata::TopicPartition;

const ROLE: &str = "group";
const PROTOCOL_TYPE: &str = "consumer";
/// The consumer protocol names what a static member leaves for now by.
const LEAVES: i32 = -1;

fn refused(code: ErrorCode) -> Refused {
    Refused { code: Some(code), reason: code.to_string().into(), member_id: None }
}

fn of_cause(cause: Cause) -> Refused {
    Refused { code: cause.code, reason: cause.reason, member_id: None }
}

fn lost(reason: impl Into<std::borrow::Cow<'static, str>>) -> Refused {
    Refused { code: None, reason: reason.into(), member_id: None }
}

fn millis(d: Duration) -> i32 {
    i32::try_from(d.as_millis()).unwrap_or(i32::MAX)
}

/// How long the others wait for this member, and it for them.
fn patience_of(config: &GroupConfig) -> Duration {
    config.rebalance_timeout.max(config.session_timeout)
}

/// One attempt at the call.
pub(super) async fn make(client: &Client, lane: Lane, config: &GroupConfig, call: Call) -> Result<Answer, Refused> {
    let (api, newest, label) = match &call {
        Call::Join { .. } => (ApiKey::JoinGroup, 9, "join"),
        Call::Sync { .. } => (ApiKey::SyncGroup, 5, "sync"),
        Call::Heartbeat { .. } => (ApiKey::Heartbeat, 4, "heartbeat"),
        Call::ConsumerHeartbeat { .. } => (ApiKey::ConsumerGroupHeartbeat, 1, "heartbeat"),
        Call::Leave { .. } => (ApiKey::LeaveGroup, 5, "leave"),
    };
    // The coordinator answers these when the other members let it.
    let patience = match &call {
        Call::Join { .. } | Call::Sync { .. } => patience_of(config),
        _ => Duration::ZERO,
    };
    let key = config.group_id.as_str();
    let kind = CoordinatorType::Group;
    let node = client.coordinator(kind, key).await.map_err(of_cause)?;
    let reached = client.connect(node, lane).await;
    let connection = reached.map_err(|e| {
        client.forget_coordinator(kind, key);
        of_cause(e.into())
    })?;
    let version = match connection.version_up_to(api, newest) {
        Ok(version) => version,
        Err(_) => {
            return Err(Refused {
                reason: format!("broker does not support {api:?}").into(),
                ..refused(ErrorCode::UNSUPPORTED_VERSION)
            });
        }
    };
    let body = request(client, config, version, &call);
    let timeout = client.config().request_timeout + patience;
    let answered = client.call_within(&connection, ROLE, label, version, &body, timeout).await;
    let body = answered.map_err(|e| {
        client.forget_coordinator(kind, key);
        of_cause(e.into())
    })?;
    let (answer, code) = answer(client, body).await?;
    if matches!(code, ErrorCode::NOT_COORDINATOR | ErrorCode::COORDINATOR_NOT_AVAILABLE) {
        client.forget_coordinator(kind, key);
    }
    match (answer, code) {
        (answer, ErrorCode::NONE) => Ok(answer),
        (Answer::Joined { member_id, .. }, code) => Err(Refused { member_id: Some(member_id), ..refused(code) }),
        (_, code) => Err(refused(code)),
    }
}

fn request(client: &Client, config: &GroupConfig, version: i16, call: &Call) -> RequestBody {
    let group = || protocol::messages::GroupId(str_bytes(config.group_id.as_str()));
    let instance = config.instance_id.as_deref().map(str_bytes);
    match call {
        Call::Join { member_id, protocols } => {
            let protocols = protocols.iter().map(|(name, metadata)| {
                JoinGroupRequestProtocol::default().with_name(str_bytes(*name)).with_metadata(metadata.clone())
            });
            let mut r = JoinGroupRequest::default()
                .with_group_id(group())
                .with_session_timeout_ms(millis(config.session_timeout))
                .with_member_id(str_bytes(member_id.as_str()))
                .with_protocol_type(str_bytes(PROTOCOL_TYPE))
                .with_protocols(protocols.collect());
            if version >= 1 {
                r.rebalance_timeout_ms = millis(patience_of(config));
            }
            if version >= 5 {
                r.group_instance_id = instance;
            }
            r.into()
        }
        Call::Sync { member_id, generation, protocol, assignments } => {
            let assignments = assignments.iter().map(|(id, assignment)| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(str_bytes(id.as_str()))
                    .with_assignment(assignment.clone())
            });
            let mut r = SyncGroupRequest::default()
                .with_group_id(group())
                .with_generation_id(*generation)
                .with_member_id(str_bytes(member_id.as_str()))
                .with_assignments(assignments.collect());
            if version >= 3 {
                r.group_instance_id = instance;
            }
            if version >= 5 {
                r.protocol_type = Some(str_bytes(PROTOCOL_TYPE));
                r.protocol_name = Some(str_bytes(protocol.as_str()));
            }
            r.into()
        }
        Call::Heartbeat { member_id, generation } => {
            let mut r = HeartbeatRequest::default()
                .with_group_id(group())
                .with_generation_id(*generation)
                .with_member_id(str_bytes(member_id.as_str()));
            if version >= 3 {
                r.group_instance_id = instance;
            }
            r.into()
        }
        Call::Leave { member_id } => {
            let r = LeaveGroupRequest::default().with_group_id(group());
            if version < 3 {
                return r.with_member_id(str_bytes(member_id.as_str())).into();
            }
            let member = MemberIdentity::default()
                .with_member_id(str_bytes(member_id.as_str()))
                .with_group_instance_id(instance);
            r.with_members(vec![member]).into()
        }
        Call::ConsumerHeartbeat { member_id, epoch, full, owned } => {
            let mut r = ConsumerGroupHeartbeatRequest::default()
                .with_group_id(group())
                .with_member_id(str_bytes(member_id.as_str()))
                .with_member_epoch(*epoch)
                .with_instance_id(instance)
                .with_rebalance_timeout_ms(-1);
            if *epoch > LEAVES && *full {
                r.rebalance_timeout_ms = millis(patience_of(config));
                r.rack_id = config.consumer.rack.as_deref().map(str_bytes);
                r.server_assignor = config.server_assignor.as_deref().map(str_bytes);
                r.subscribed_topic_names = Some(config.topics.iter().map(|t| topic_name(t.as_str())).collect());
                r.topic_partitions = Some(by_id(client, owned));
            }
            r.into()
        }
    }
}

fn by_id(client: &Client, owned: &Partitions) -> Vec<TopicPartitions> {
    let metadata = client.metadata();
    let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for tp in owned {
        if let Some(id) = metadata.topic_id(&tp.topic) {
            topics.entry(id).or_default().push(tp.partition);
        }
    }
    let topic = |(id, partitions)| TopicPartitions::default().with_topic_id(id).with_partitions(partitions);
    topics.into_iter().map(topic).collect()
}

async fn answer(client: &Client, body: ResponseBody) -> Result<(Answer, ErrorCode), Refused> {
    Ok(match body {
        ResponseBody::JoinGroup(r) => {
            let members = r
                .members
                .into_iter()
                .map(|m| (m.member_id.to_string(), m.group_instance_id.map(|i| i.to_string()), m.metadata));
            let joined = Answer::Joined {
                generation: r.generation_id,
                protocol: r.protocol_name.map(|p| p.to_string()).unwrap_or_default(),
                leads: r.leader == r.member_id,
                member_id: r.member_id.to_string(),
                skip_assignment: r.skip_assignment,
                members: members.collect(),
            };
            (joined, ErrorCode::from_code(r.error_code))
        }
        ResponseBody::SyncGroup(r) => (Answer::Synced(r.assignment), ErrorCode::from_code(r.error_code)),
        ResponseBody::Heartbeat(r) => (Answer::Beat, ErrorCode::from_code(r.error_code)),
        ResponseBody::LeaveGroup(r) => (Answer::Left, ErrorCode::from_code(r.error_code)),
        ResponseBody::ConsumerGroupHeartbeat(r) => {
            let (mut assigned, mut incomplete) = (None, false);
            if let Some(assignment) = r.assignment {
                let known = |id: Uuid| client.metadata().topic_name(id).map(str::to_owned);
                if assignment.topic_partitions.iter().any(|t| known(t.topic_id).is_none()) {
                    // Without an answer the next heartbeat asks again.
                    let _ = client.refresh().await;
                }
                let mut partitions = Partitions::new();
                for t in assignment.topic_partitions {
                    match known(t.topic_id) {
                        Some(topic) => {
                            partitions.extend(t.partitions.into_iter().map(|p| TopicPartition::new(topic.as_str(), p)))
                        }
                        None => incomplete = true,
                    }
                }
                assigned = Some(partitions);
            }
            let told = Answer::Told {
                epoch: r.member_epoch,
                interval: Duration::from_millis(u64::try_from(r.heartbeat_interval_ms).unwrap_or(0).max(100)),
                assigned,
                incomplete,
            };
            (told, ErrorCode::from_code(r.error_code))
        }
        _ => return Err(lost("answer to another request")),
    })
}
