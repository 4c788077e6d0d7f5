//! FindCoordinator: which broker leads the partition that coordinates a group or a transactional id.

use std::rc::Rc;

use protocol::messages::find_coordinator_response::Coordinator;
use protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use protocol::{ErrorCode, StrBytes, str_bytes};

use crate::context::Context;
use crate::internal_topics::{CONSUMER_OFFSETS, TRANSACTION_STATE, partition_for};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// Several keys in a request from this version on.
const BATCHED: i16 = 4;

struct Found {
    node_id: i32,
    host: String,
    port: i32,
}

pub(crate) async fn handle(
    context: &Rc<Context>,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let response = FindCoordinatorResponse::default();
    if version < BATCHED {
        return match find(context, &request.key, request.key_type).await {
            Ok(found) => {
                response.with_node_id(BrokerId(found.node_id)).with_host(str_bytes(found.host)).with_port(found.port)
            }
            Err(error) => response
                .with_error_code(error.code())
                .with_error_message(error.name().map(str_bytes))
                .with_node_id(BrokerId(-1))
                .with_port(-1),
        };
    }
    let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
    for key in request.coordinator_keys {
        let coordinator = Coordinator::default().with_key(key.clone());
        coordinators.push(match find(context, &key, request.key_type).await {
            Ok(found) => {
                coordinator.with_node_id(BrokerId(found.node_id)).with_host(str_bytes(found.host)).with_port(found.port)
            }
            Err(error) => coordinator
                .with_error_code(error.code())
                .with_error_message(error.name().map(str_bytes))
                .with_node_id(BrokerId(-1))
                .with_port(-1),
        });
    }
    response.with_coordinators(coordinators)
}

async fn find(context: &Rc<Context>, key: &StrBytes, key_type: i8) -> Result<Found, ErrorCode> {
    let topic = match key_type {
        GROUP => CONSUMER_OFFSETS,
        TRANSACTION if key.is_empty() => return Err(ErrorCode::INVALID_REQUEST),
        TRANSACTION => TRANSACTION_STATE,
        _ => return Err(ErrorCode::INVALID_REQUEST),
    };
    let partitions = context.ensure_internal(topic).await.map_err(|_| ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
    let leader = context.leader(topic, partition_for(key, partitions)).ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
    let broker = context.metadata.with(|image| image.brokers.get(&leader).cloned());
    let broker = broker.ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
    Ok(Found { node_id: leader, host: broker.host, port: broker.port.into() })
}
