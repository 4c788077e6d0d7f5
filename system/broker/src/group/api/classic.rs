//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup.

use std::rc::Rc;

use protocol::messages::join_group_response::JoinGroupResponseMember;
use protocol::messages::leave_group_response::MemberResponse;
use protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use protocol::{ErrorCode, StrBytes, str_bytes};

use crate::context::Context;
use crate::group::classic::{Join, Joined, Leaving, Sync, Synced, Who};
use crate::group::machine::{Client, Reply, Request};
use crate::turn::Turn;

/// The rebalance time-out is the session's before this version.
const REBALANCE_TIMEOUT: i16 = 1;
/// The client joins again with the id it is given (KIP-394).
const ID_REQUIRED: i16 = 4;
/// A null protocol name is allowed from here on.
const NULLABLE_PROTOCOL: i16 = 7;
/// A leader may be told that nothing is to be assigned.
const SKIP_ASSIGNMENT: i16 = 9;
/// LeaveGroup carries several members from here on.
const LEAVE_BATCHED: i16 = 3;

fn text(s: &StrBytes) -> String {
    s.as_str().to_owned()
}

fn maybe_text(s: &Option<StrBytes>) -> Option<String> {
    s.as_ref().map(text)
}

/// Asks the group's coordinator. The turn passes once the request took effect, since the answer may take long.
async fn ask(context: &Rc<Context>, group: &StrBytes, request: Request, turn: Turn) -> Result<Reply, ErrorCode> {
    if group.is_empty() {
        return Err(ErrorCode::INVALID_GROUP_ID);
    }
    let shard = context.groups().shard(group.as_str()).await?;
    let answer = shard.request(group.as_str(), request);
    drop(turn);
    answer.await
}

pub(crate) async fn join(
    context: &Rc<Context>,
    version: i16,
    request: JoinGroupRequest,
    client: Client,
    turn: Turn,
) -> JoinGroupResponse {
    let member_id = text(&request.member_id);
    let rebalance_timeout_ms =
        if version >= REBALANCE_TIMEOUT { request.rebalance_timeout_ms } else { request.session_timeout_ms };
    let join = Join {
        member_id: member_id.clone(),
        instance_id: maybe_text(&request.group_instance_id),
        client,
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: text(&request.protocol_type),
        protocols: request.protocols.iter().map(|p| (text(&p.name), p.metadata.clone())).collect(),
        id_required: version >= ID_REQUIRED,
        can_skip_assignment: version >= SKIP_ASSIGNMENT,
    };
    let joined = match ask(context, &request.group_id, Request::Join(join), turn).await {
        Ok(Reply::Joined(joined)) => joined,
        Ok(_) => Joined::error(ErrorCode::UNKNOWN_SERVER_ERROR, &member_id),
        Err(error) => Joined::error(error, &member_id),
    };
    let members = joined.members.into_iter().map(|(id, instance, metadata)| {
        JoinGroupResponseMember::default()
            .with_member_id(str_bytes(id))
            .with_group_instance_id(instance.map(str_bytes))
            .with_metadata(metadata)
    });
    let no_protocol = (version < NULLABLE_PROTOCOL).then(String::new);
    JoinGroupResponse::default()
        .with_error_code(joined.error.code())
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.filter(|_| version >= NULLABLE_PROTOCOL).map(str_bytes))
        .with_protocol_name(joined.protocol.or(no_protocol).map(str_bytes))
        .with_leader(str_bytes(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(str_bytes(joined.member_id))
        .with_members(members.collect())
}

pub(crate) async fn sync(
    context: &Rc<Context>,
    version: i16,
    request: SyncGroupRequest,
    turn: Turn,
) -> SyncGroupResponse {
    /// Names its protocol from here on.
    const NAMES_PROTOCOL: i16 = 5;
    let sync = Sync {
        who: Who {
            member_id: text(&request.member_id),
            instance_id: maybe_text(&request.group_instance_id),
            generation: request.generation_id,
        },
        protocol_type: maybe_text(&request.protocol_type),
        protocol: maybe_text(&request.protocol_name),
        assignments: request.assignments.into_iter().map(|a| (text(&a.member_id), a.assignment)).collect(),
    };
    let synced = match ask(context, &request.group_id, Request::Sync(sync), turn).await {
        Ok(Reply::Synced(synced)) => synced,
        Ok(_) => Synced::error(ErrorCode::UNKNOWN_SERVER_ERROR),
        Err(error) => Synced::error(error),
    };
    let named = |s: Option<String>| s.filter(|_| version >= NAMES_PROTOCOL).map(str_bytes);
    SyncGroupResponse::default()
        .with_error_code(synced.error.code())
        .with_protocol_type(named(synced.protocol_type))
        .with_protocol_name(named(synced.protocol))
        .with_assignment(synced.assignment)
}

pub(crate) async fn heartbeat(context: &Rc<Context>, request: HeartbeatRequest, turn: Turn) -> HeartbeatResponse {
    let who = Who {
        member_id: text(&request.member_id),
        instance_id: maybe_text(&request.group_instance_id),
        generation: request.generation_id,
    };
    let error = match ask(context, &request.group_id, Request::Heartbeat(who), turn).await {
        Ok(Reply::Heartbeat(error)) | Err(error) => error,
        Ok(_) => ErrorCode::UNKNOWN_SERVER_ERROR,
    };
    HeartbeatResponse::default().with_error_code(error.code())
}

pub(crate) async fn leave(
    context: &Rc<Context>,
    version: i16,
    request: LeaveGroupRequest,
    turn: Turn,
) -> LeaveGroupResponse {
    let leaving: Vec<_> = if version >= LEAVE_BATCHED {
        let leaving = |m: &protocol::messages::leave_group_request::MemberIdentity| Leaving {
            member_id: text(&m.member_id),
            instance_id: maybe_text(&m.group_instance_id),
        };
        request.members.iter().map(leaving).collect()
    } else {
        vec![Leaving { member_id: text(&request.member_id), instance_id: None }]
    };
    let response = LeaveGroupResponse::default();
    let answers = match ask(context, &request.group_id, Request::Leave(leaving), turn).await {
        Ok(Reply::Left(answers)) => answers,
        Ok(_) => return response.with_error_code(ErrorCode::UNKNOWN_SERVER_ERROR.code()),
        Err(error) => return response.with_error_code(error.code()),
    };
    if version < LEAVE_BATCHED {
        return response.with_error_code(answers.first().copied().unwrap_or_default().code());
    }
    let members = request.members.into_iter().zip(answers).map(|(m, error)| {
        MemberResponse::default()
            .with_member_id(m.member_id)
            .with_group_instance_id(m.group_instance_id)
            .with_error_code(error.code())
    });
    response.with_members(members.collect())
}
