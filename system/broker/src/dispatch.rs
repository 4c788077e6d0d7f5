//! One request to its handler.

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use protocol::{ApiKey, Request, RequestBody, ResponseBody, response};

use crate::context::Context;
use crate::group::machine::Client;
use crate::quorum::Quorum;
use crate::turn::Turn;
use crate::{
    api_versions, create_topics, delete_records, describe, fetch, find_coordinator, group, list_offsets, metadata_api,
    offset_for_leader_epoch, produce, txn,
};

/// What [`handle`] has an arm for, and so what ApiVersions tells.
pub(crate) const SERVED: &[ApiKey] = &[
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::OffsetCommit,
    ApiKey::OffsetFetch,
    ApiKey::FindCoordinator,
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::InitProducerId,
    ApiKey::AddPartitionsToTxn,
    ApiKey::AddOffsetsToTxn,
    ApiKey::EndTxn,
    ApiKey::WriteTxnMarkers,
    ApiKey::TxnOffsetCommit,
    ApiKey::Vote,
    ApiKey::BeginQuorumEpoch,
    ApiKey::EndQuorumEpoch,
    ApiKey::FetchSnapshot,
    ApiKey::DescribeQuorum,
    ApiKey::DeleteTopics,
    ApiKey::DeleteRecords,
    ApiKey::DescribeConfigs,
    ApiKey::AlterConfigs,
    ApiKey::CreatePartitions,
    ApiKey::ElectLeaders,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::AlterPartition,
    ApiKey::Envelope,
    ApiKey::DescribeCluster,
    ApiKey::BrokerRegistration,
    ApiKey::BrokerHeartbeat,
    ApiKey::UnregisterBroker,
    ApiKey::AllocateProducerIds,
    ApiKey::AssignReplicasToDirs,
    ApiKey::DescribeTopicPartitions,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::JoinGroup,
    ApiKey::SyncGroup,
    ApiKey::Heartbeat,
    ApiKey::LeaveGroup,
    ApiKey::DescribeGroups,
    ApiKey::ListGroups,
    ApiKey::DeleteGroups,
    ApiKey::OffsetDelete,
    ApiKey::ConsumerGroupHeartbeat,
    ApiKey::ConsumerGroupDescribe,
    ApiKey::DescribeTransactions,
    ApiKey::ListTransactions,
];

/// Handles the request of a client at `peer`; its framed answer, `None` if it has none or cannot be encoded.
pub(crate) async fn handle(context: Rc<Context>, request: Request, peer: IpAddr, turn: Turn) -> Option<Bytes> {
    let (version, correlation_id) = (request.version, request.correlation_id);
    let api_key = request.api_key();
    context.metrics.requests.came(api_key);
    let metrics = context.metrics.clone();
    let client = Client { id: request.client_id.unwrap_or_default(), host: format!("/{peer}") };
    let body: ResponseBody = match request.body {
        r if Quorum::serves(&r) => {
            // Nothing of the quorum depends on the order of a connection, and its fetches wait.
            drop(turn);
            context.metadata.quorum().request(r).await?
        }
        RequestBody::Produce(r) => produce::handle(context, version, r, turn).await?.into(),
        RequestBody::Fetch(r) => {
            // A long poll holds up answers, not effects.
            drop(turn);
            fetch::handle(context, version, r).await.into()
        }
        RequestBody::ListOffsets(r) => list_offsets::handle(context, version, r).await.into(),
        RequestBody::Metadata(r) => metadata_api::handle(&context, version, r).await.into(),
        RequestBody::OffsetCommit(r) => group::api::offsets::commit(&context, version, r).await.into(),
        RequestBody::OffsetFetch(r) => group::api::offsets::fetch(&context, version, r).await.into(),
        RequestBody::FindCoordinator(r) => find_coordinator::handle(&context, version, r).await.into(),
        RequestBody::ApiVersions(r) => api_versions::handle(version, &r).into(),
        RequestBody::CreateTopics(r) => create_topics::handle(&context, version, r).await.into(),
        RequestBody::InitProducerId(r) => txn::api::init_producer_id(&context, r).await.into(),
        RequestBody::AddPartitionsToTxn(r) => txn::api::add_partitions(&context, version, r, turn).await.into(),
        RequestBody::AddOffsetsToTxn(r) => txn::api::add_offsets(&context, r).await.into(),
        RequestBody::EndTxn(r) => txn::api::end(&context, version, r).await.into(),
        RequestBody::DescribeTransactions(r) => txn::listing::describe(&context, r).await.into(),
        RequestBody::ListTransactions(r) => txn::listing::list(&context, &r).into(),
        RequestBody::WriteTxnMarkers(r) => txn::markers::handle(&context, r, turn).await.into(),
        RequestBody::DeleteRecords(r) => delete_records::handle(context, r, turn).await.into(),
        RequestBody::OffsetForLeaderEpoch(r) => offset_for_leader_epoch::handle(&context, r).into(),
        // What the controller decides: by way of any broker.
        body @ (RequestBody::DeleteTopics(_)
        | RequestBody::CreatePartitions(_)
        | RequestBody::AlterConfigs(_)
        | RequestBody::IncrementalAlterConfigs(_)
        | RequestBody::ElectLeaders(_)
        | RequestBody::UnregisterBroker(_)
        | RequestBody::DescribeQuorum(_)) => context.controller.forward(version, body).await?,
        // What brokers ask of the controller: it answers as far as this node is it.
        body @ (RequestBody::BrokerRegistration(_)
        | RequestBody::BrokerHeartbeat(_)
        | RequestBody::AlterPartition(_)
        | RequestBody::AllocateProducerIds(_)
        | RequestBody::AssignReplicasToDirs(_)
        | RequestBody::Envelope(_)) => {
            // One that waits for a majority must not hold up the heartbeat behind it.
            drop(turn);
            context.controller.answer(version, &body).await?
        }
        RequestBody::DescribeCluster(r) => describe::cluster(&context, &r).into(),
        RequestBody::DescribeConfigs(r) => describe::configs(&context, &r).into(),
        RequestBody::DescribeTopicPartitions(r) => describe::topic_partitions(&context, &r).into(),
        RequestBody::TxnOffsetCommit(r) => group::api::offsets::txn_commit(&context, version, r).await.into(),
        RequestBody::JoinGroup(r) => group::api::classic::join(&context, version, r, client, turn).await.into(),
        RequestBody::SyncGroup(r) => group::api::classic::sync(&context, version, r, turn).await.into(),
        RequestBody::Heartbeat(r) => group::api::classic::heartbeat(&context, r, turn).await.into(),
        RequestBody::LeaveGroup(r) => group::api::classic::leave(&context, version, r, turn).await.into(),
        RequestBody::DescribeGroups(r) => group::api::admin::describe(&context, version, r).await.into(),
        RequestBody::ListGroups(r) => group::api::admin::list(&context, &r).into(),
        RequestBody::DeleteGroups(r) => group::api::admin::delete(&context, r).await.into(),
        RequestBody::OffsetDelete(r) => group::api::admin::delete_offsets(&context, r).await.into(),
        RequestBody::ConsumerGroupHeartbeat(r) => {
            group::api::consumer::heartbeat(&context, version, r, client, turn).await.into()
        }
        RequestBody::ConsumerGroupDescribe(r) => group::api::consumer::describe(&context, r).await.into(),
        _ => {
            tracing::debug!(?api_key, version, "not served here");
            return None;
        }
    };
    match response::encode(version, correlation_id, &body) {
        Ok(frame) => {
            metrics.requests.answered(&body, frame.len());
            Some(frame)
        }
        Err(error) => {
            tracing::error!(?api_key, version, %error, "answer cannot be encoded");
            None
        }
    }
}
