//! DescribeGroups, ListGroups, DeleteGroups and OffsetDelete.

use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;
use protocol::messages::delete_groups_response::DeletableGroupResult;
use protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use protocol::messages::list_groups_response::ListedGroup;
use protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    ListGroupsRequest, ListGroupsResponse, OffsetDeleteRequest, OffsetDeleteResponse,
};
use protocol::{ErrorCode, str_bytes};

use crate::context::Context;
use crate::group::classic;
use crate::group::machine::{CONSUMER, Group};
use crate::group::offsets::Place;

/// An unknown group is an error of its own from this version on; before, it is one that is dead.
const NOT_FOUND: i16 = 6;
/// "Not asked for".
const NO_OPERATIONS: i32 = i32::MIN;

pub(crate) async fn describe(
    context: &Rc<Context>,
    version: i16,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    for group_id in request.groups {
        let found = match context.groups().shard(group_id.as_str()).await {
            Err(error) => Err(error),
            Ok(shard) => shard.look(|groups, offsets, _| match groups.group(group_id.as_str()) {
                Some(Group::Classic(g)) => Some(described(g)),
                // Only offsets, no members ever.
                None if !offsets.places(group_id.as_str()).is_empty() => {
                    Some(DescribedGroup::default().with_group_state(str_bytes("Empty")))
                }
                Some(Group::Consumer(_)) | None => None,
            }),
        };
        let described = match found {
            Ok(Some(described)) => described,
            Ok(None) => {
                let dead = DescribedGroup::default().with_group_state(str_bytes("Dead"));
                if version >= NOT_FOUND {
                    let message = format!("Group {} is not a classic group.", group_id.as_str());
                    dead.with_error_code(ErrorCode::GROUP_ID_NOT_FOUND.code())
                        .with_error_message(Some(str_bytes(message)))
                } else {
                    dead
                }
            }
            Err(error) => DescribedGroup::default().with_error_code(error.code()),
        };
        groups.push(described.with_group_id(group_id).with_authorized_operations(NO_OPERATIONS));
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn described(group: &classic::Group) -> DescribedGroup {
    let stable = group.state() == classic::State::Stable;
    let protocol = group.protocol().filter(|_| stable).unwrap_or_default();
    let members = group.members().iter().map(|(id, m)| {
        DescribedGroupMember::default()
            .with_member_id(str_bytes(id.as_str()))
            .with_group_instance_id(m.instance_id.as_deref().map(str_bytes))
            .with_client_id(str_bytes(m.client.id.as_str()))
            .with_client_host(str_bytes(m.client.host.as_str()))
            .with_member_metadata(if stable { m.metadata(protocol) } else { Bytes::new() })
            .with_member_assignment(if stable { m.assignment.clone() } else { Bytes::new() })
    });
    DescribedGroup::default()
        .with_group_state(str_bytes(group.state().name()))
        .with_protocol_type(str_bytes(group.protocol_type().unwrap_or_default()))
        .with_protocol_data(str_bytes(protocol))
        .with_members(members.collect())
}

pub(crate) fn list(context: &Rc<Context>, request: &ListGroupsRequest) -> ListGroupsResponse {
    let mut listed = Vec::new();
    for shard in context.groups().shards() {
        let found = shard.look(|groups, offsets, _| {
            let mut found: Vec<(String, String, &'static str, &'static str)> = Vec::new();
            for (name, group) in groups.groups() {
                found.push(match group {
                    Group::Classic(g) => {
                        (name.clone(), g.protocol_type().unwrap_or_default().to_owned(), g.state().name(), "classic")
                    }
                    Group::Consumer(g) => (name.clone(), CONSUMER.to_owned(), g.state_name(), "consumer"),
                });
            }
            let simple = offsets.groups().filter(|name| groups.group(name).is_none());
            found.extend(simple.map(|name| (name.clone(), String::new(), "Empty", "classic")));
            found
        });
        match found {
            Ok(found) => listed.extend(found),
            Err(error) => return ListGroupsResponse::default().with_error_code(error.code()),
        }
    }
    let wanted = |filter: &[protocol::StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|f| f.as_str().eq_ignore_ascii_case(value))
    };
    listed.retain(|(_, _, state, kind)| wanted(&request.states_filter, state) && wanted(&request.types_filter, kind));
    listed.sort();
    let groups = listed.into_iter().map(|(name, protocol_type, state, kind)| {
        ListedGroup::default()
            .with_group_id(GroupId(str_bytes(name)))
            .with_protocol_type(str_bytes(protocol_type))
            .with_group_state(str_bytes(state))
            .with_group_type(str_bytes(kind))
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

pub(crate) async fn delete(context: &Rc<Context>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let error = if group_id.is_empty() {
            ErrorCode::INVALID_GROUP_ID
        } else {
            match context.groups().shard(group_id.as_str()).await {
                Ok(shard) => shard.delete(group_id.as_str()).await,
                Err(error) => error,
            }
        };
        results.push(DeletableGroupResult::default().with_group_id(group_id).with_error_code(error.code()));
    }
    DeleteGroupsResponse::default().with_results(results)
}

pub(crate) async fn delete_offsets(context: &Rc<Context>, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let response = OffsetDeleteResponse::default();
    let group = request.group_id.as_str();
    let exists = |topic: &str, index: i32| {
        context.metadata.with(|image| image.topic(topic).is_some_and(|t| t.partitions.contains_key(&index)))
    };
    let mut subscribed = BTreeSet::new();
    let error = match context.groups().shard(group).await {
        Err(error) => error,
        Ok(shard) => {
            let which = |groups: &crate::group::machine::Machine, offsets: &crate::group::offsets::Offsets| {
                let known = offsets.places(group);
                match groups.group(group) {
                    None if known.is_empty() => return Err(ErrorCode::GROUP_ID_NOT_FOUND),
                    None => {}
                    Some(g) => subscribed = g.subscribed_topics().ok_or(ErrorCode::NON_EMPTY_GROUP)?,
                }
                let asked = request.topics.iter().flat_map(|t| {
                    t.partitions.iter().map(|p| -> Place { (t.name.as_str().to_owned(), p.partition_index) })
                });
                let asked = asked.filter(|p| exists(&p.0, p.1));
                Ok(asked.filter(|p| !subscribed.contains(&p.0) && known.contains(p)).collect())
            };
            shard.forget(group, which).await
        }
    };
    if !error.is_ok() {
        return response.with_error_code(error.code());
    }
    let topics = request.topics.into_iter().map(|t| {
        let of_topic =
            if subscribed.contains(t.name.as_str()) { ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC } else { ErrorCode::NONE };
        let name = t.name.clone();
        let partitions = t.partitions.into_iter().map(|p| {
            let known = exists(name.as_str(), p.partition_index);
            let error = if known { of_topic } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(p.partition_index)
                .with_error_code(error.code())
        });
        OffsetDeleteResponseTopic::default().with_name(t.name).with_partitions(partitions.collect())
    });
    response.with_topics(topics.collect())
}
