//! ConsumerGroupHeartbeat and ConsumerGroupDescribe (KIP-848).

use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::messages::consumer_group_describe_response::{
    Assignment as DescribedAssignment, DescribedGroup, Member as DescribedMember, TopicPartitions as DescribedTopic,
};
use protocol::messages::consumer_group_heartbeat_response::{
    Assignment as SentAssignment, TopicPartitions as SentTopic,
};
use protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
};
use protocol::{ErrorCode, StrBytes, str_bytes, topic_name};

use crate::context::Context;
use crate::group::consumer::{self, Assignment, Beat, Heartbeat, LEAVE_FOR_NOW, assignor};
use crate::group::machine::{Client, Group, Reply, Request, Topics};
use crate::turn::Turn;

/// From this version on the client chooses its member id.
const OWN_MEMBER_ID: i16 = 1;
/// "Not asked for".
const NO_OPERATIONS: i32 = i32::MIN;

/// What is wrong with the request itself.
fn check(version: i16, r: &ConsumerGroupHeartbeatRequest) -> Result<(), (ErrorCode, &'static str)> {
    let invalid = |what| Err((ErrorCode::INVALID_REQUEST, what));
    let empty = |s: &Option<StrBytes>| s.as_ref().is_some_and(|s| s.is_empty());
    let joins = r.member_epoch == 0;
    let has_topics = r.subscribed_topic_names.is_some();
    if r.group_id.is_empty() {
        return invalid("the group id is empty");
    }
    if r.member_id.is_empty() && (version >= OWN_MEMBER_ID || !joins) {
        return invalid("the member id is empty");
    }
    if empty(&r.instance_id) || empty(&r.rack_id) {
        return invalid("an instance or rack id is empty");
    }
    if r.subscribed_topic_regex.as_ref().is_some_and(|regex| !regex.is_empty()) {
        return Err((ErrorCode::INVALID_REGULAR_EXPRESSION, "subscriptions by regular expression are not served here"));
    }
    if joins && !(r.rebalance_timeout_ms > 0 && has_topics) {
        return invalid("a member that joins names its rebalance time-out and topics");
    }
    if joins && !r.topic_partitions.as_ref().is_some_and(Vec::is_empty) {
        return invalid("a member that joins owns no partitions");
    }
    if r.member_epoch < LEAVE_FOR_NOW || r.member_epoch == LEAVE_FOR_NOW && r.instance_id.is_none() {
        return invalid("the member epoch is not one to leave with");
    }
    if r.server_assignor.as_ref().is_some_and(|name| assignor::Kind::parse(name.as_str()).is_none()) {
        return Err((ErrorCode::UNSUPPORTED_ASSIGNOR, "assignors are uniform and range"));
    }
    Ok(())
}

pub(crate) async fn heartbeat(
    context: &Rc<Context>,
    version: i16,
    request: ConsumerGroupHeartbeatRequest,
    client: Client,
    turn: Turn,
) -> ConsumerGroupHeartbeatResponse {
    let response = ConsumerGroupHeartbeatResponse::default();
    if let Err((error, message)) = check(version, &request) {
        return response.with_error_code(error.code()).with_error_message(Some(str_bytes(message)));
    }
    let text = |s: StrBytes| s.as_str().to_owned();
    let owned = request.topic_partitions.map(|topics| {
        let mut owned = Assignment::new();
        for topic in topics {
            if !topic.partitions.is_empty() {
                owned.entry(topic.topic_id).or_default().extend(topic.partitions);
            }
        }
        owned
    });
    let heartbeat = Heartbeat {
        member_id: text(request.member_id),
        epoch: request.member_epoch,
        instance_id: request.instance_id.map(text),
        rack_id: request.rack_id.map(text),
        client,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        topics: request.subscribed_topic_names.map(|t| t.into_iter().map(|t| text(t.0)).collect()),
        assignor: request.server_assignor.map(text),
        owned,
    };
    let member_id = heartbeat.member_id.clone();
    let group = request.group_id;
    let beat = match context.groups().shard(group.as_str()).await {
        Err(error) => Beat::error(error, &member_id),
        Ok(shard) => {
            let answer = shard.request(group.as_str(), Request::ConsumerHeartbeat(heartbeat));
            drop(turn);
            match answer.await {
                Ok(Reply::Beat(beat)) => beat,
                Ok(_) => Beat::error(ErrorCode::UNKNOWN_SERVER_ERROR, &member_id),
                Err(error) => Beat::error(error, &member_id),
            }
        }
    };
    let assignment = beat.assignment.map(|a| {
        let topics = a.into_iter().map(|(topic_id, partitions)| {
            SentTopic::default().with_topic_id(topic_id).with_partitions(partitions.into_iter().collect())
        });
        SentAssignment::default().with_topic_partitions(topics.collect())
    });
    response
        .with_error_code(beat.error.code())
        .with_error_message(beat.error.name().filter(|_| !beat.error.is_ok()).map(str_bytes))
        .with_member_id(Some(str_bytes(beat.member_id)))
        .with_member_epoch(beat.epoch)
        .with_heartbeat_interval_ms(beat.heartbeat_interval_ms)
        .with_assignment(assignment)
}

pub(crate) async fn describe(
    context: &Rc<Context>,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let mut groups = Vec::with_capacity(request.group_ids.len());
    for group_id in request.group_ids {
        let found = match context.groups().shard(group_id.as_str()).await {
            Err(error) => Err(error),
            Ok(shard) => shard.look(|groups, _, topics| match groups.group(group_id.as_str()) {
                Some(Group::Consumer(g)) => Ok(described(g, topics)),
                Some(Group::Classic(_)) | None => Err(ErrorCode::GROUP_ID_NOT_FOUND),
            }),
        };
        let described = found.and_then(|found| found).unwrap_or_else(|error| {
            let message = match error {
                ErrorCode::GROUP_ID_NOT_FOUND => Some(format!("Group {} is not a consumer group.", group_id.as_str())),
                error => error.name().map(str::to_owned),
            };
            DescribedGroup::default().with_error_code(error.code()).with_error_message(message.map(str_bytes))
        });
        groups.push(described.with_group_id(group_id).with_authorized_operations(NO_OPERATIONS));
    }
    ConsumerGroupDescribeResponse::default().with_groups(groups)
}

fn described(group: &consumer::Group, topics: &dyn Topics) -> DescribedGroup {
    let assignment = |a: &Assignment| {
        let topic = |(id, partitions): (&protocol::Uuid, &std::collections::BTreeSet<i32>)| {
            // A deleted topic has no name any more.
            let name = topics.name(*id)?;
            let partitions = partitions.iter().copied().collect();
            Some(
                DescribedTopic::default()
                    .with_topic_id(*id)
                    .with_topic_name(topic_name(name))
                    .with_partitions(partitions),
            )
        };
        DescribedAssignment::default().with_topic_partitions(a.iter().filter_map(topic).collect())
    };
    let none = BTreeMap::new();
    let members = group.members().iter().map(|(id, m)| {
        DescribedMember::default()
            .with_member_id(str_bytes(id.as_str()))
            .with_instance_id(m.metadata.instance_id.as_deref().map(str_bytes))
            .with_rack_id(m.metadata.rack_id.as_deref().map(str_bytes))
            .with_member_epoch(m.current.epoch)
            .with_client_id(str_bytes(m.metadata.client.id.as_str()))
            .with_client_host(str_bytes(m.metadata.client.host.as_str()))
            .with_subscribed_topic_names(m.metadata.topics.iter().map(|t| topic_name(t.as_str())).collect())
            .with_assignment(assignment(&m.current.assigned))
            .with_target_assignment(assignment(group.target(id).unwrap_or(&none)))
            .with_member_type(1)
    });
    DescribedGroup::default()
        .with_group_state(str_bytes(group.state_name()))
        .with_group_epoch(group.epoch())
        .with_assignment_epoch(group.target_epoch())
        .with_assignor_name(str_bytes(group.assignor().name()))
        .with_members(members.collect())
}
