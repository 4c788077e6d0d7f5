//! The APIs this crate can speak, with their versions. A broker advertises these or fewer.

pub use kafka_protocol::messages::ApiKey;
pub use kafka_protocol::protocol::VersionRange;

/// The one table of APIs, in the order of their keys: each with its request and its response.
macro_rules! for_each_api {
    ($then:ident) => {
        $then! {
            Produce(messages::ProduceRequest, messages::ProduceResponse),
            Fetch(messages::FetchRequest, messages::FetchResponse),
            ListOffsets(messages::ListOffsetsRequest, messages::ListOffsetsResponse),
            Metadata(messages::MetadataRequest, messages::MetadataResponse),
            OffsetCommit(messages::OffsetCommitRequest, messages::OffsetCommitResponse),
            OffsetFetch(messages::OffsetFetchRequest, messages::OffsetFetchResponse),
            FindCoordinator(messages::FindCoordinatorRequest, messages::FindCoordinatorResponse),
            JoinGroup(messages::JoinGroupRequest, messages::JoinGroupResponse),
            Heartbeat(messages::HeartbeatRequest, messages::HeartbeatResponse),
            LeaveGroup(messages::LeaveGroupRequest, messages::LeaveGroupResponse),
            SyncGroup(messages::SyncGroupRequest, messages::SyncGroupResponse),
            DescribeGroups(messages::DescribeGroupsRequest, messages::DescribeGroupsResponse),
            ListGroups(messages::ListGroupsRequest, messages::ListGroupsResponse),
            ApiVersions(messages::ApiVersionsRequest, messages::ApiVersionsResponse),
            CreateTopics(messages::CreateTopicsRequest, messages::CreateTopicsResponse),
            DeleteTopics(messages::DeleteTopicsRequest, messages::DeleteTopicsResponse),
            DeleteRecords(messages::DeleteRecordsRequest, messages::DeleteRecordsResponse),
            InitProducerId(init_producer_id::InitProducerIdRequest, init_producer_id::InitProducerIdResponse),
            OffsetForLeaderEpoch(messages::OffsetForLeaderEpochRequest, messages::OffsetForLeaderEpochResponse),
            AddPartitionsToTxn(messages::AddPartitionsToTxnRequest, messages::AddPartitionsToTxnResponse),
            AddOffsetsToTxn(messages::AddOffsetsToTxnRequest, messages::AddOffsetsToTxnResponse),
            EndTxn(messages::EndTxnRequest, messages::EndTxnResponse),
            WriteTxnMarkers(write_txn_markers::WriteTxnMarkersRequest, messages::WriteTxnMarkersResponse),
            TxnOffsetCommit(messages::TxnOffsetCommitRequest, messages::TxnOffsetCommitResponse),
            DescribeConfigs(messages::DescribeConfigsRequest, messages::DescribeConfigsResponse),
            AlterConfigs(messages::AlterConfigsRequest, messages::AlterConfigsResponse),
            CreatePartitions(messages::CreatePartitionsRequest, messages::CreatePartitionsResponse),
            DeleteGroups(messages::DeleteGroupsRequest, messages::DeleteGroupsResponse),
            ElectLeaders(messages::ElectLeadersRequest, messages::ElectLeadersResponse),
            IncrementalAlterConfigs(messages::IncrementalAlterConfigsRequest, messages::IncrementalAlterConfigsResponse),
            OffsetDelete(messages::OffsetDeleteRequest, messages::OffsetDeleteResponse),
            Vote(messages::VoteRequest, messages::VoteResponse),
            BeginQuorumEpoch(messages::BeginQuorumEpochRequest, messages::BeginQuorumEpochResponse),
            EndQuorumEpoch(messages::EndQuorumEpochRequest, messages::EndQuorumEpochResponse),
            DescribeQuorum(messages::DescribeQuorumRequest, messages::DescribeQuorumResponse),
            AlterPartition(messages::AlterPartitionRequest, messages::AlterPartitionResponse),
            Envelope(messages::EnvelopeRequest, messages::EnvelopeResponse),
            FetchSnapshot(messages::FetchSnapshotRequest, messages::FetchSnapshotResponse),
            DescribeCluster(messages::DescribeClusterRequest, messages::DescribeClusterResponse),
            DescribeProducers(messages::DescribeProducersRequest, messages::DescribeProducersResponse),
            BrokerRegistration(messages::BrokerRegistrationRequest, messages::BrokerRegistrationResponse),
            BrokerHeartbeat(messages::BrokerHeartbeatRequest, messages::BrokerHeartbeatResponse),
            UnregisterBroker(messages::UnregisterBrokerRequest, messages::UnregisterBrokerResponse),
            DescribeTransactions(messages::DescribeTransactionsRequest, messages::DescribeTransactionsResponse),
            ListTransactions(messages::ListTransactionsRequest, messages::ListTransactionsResponse),
            AllocateProducerIds(messages::AllocateProducerIdsRequest, messages::AllocateProducerIdsResponse),
            ConsumerGroupHeartbeat(messages::ConsumerGroupHeartbeatRequest, messages::ConsumerGroupHeartbeatResponse),
            ConsumerGroupDescribe(messages::ConsumerGroupDescribeRequest, messages::ConsumerGroupDescribeResponse),
            AssignReplicasToDirs(messages::AssignReplicasToDirsRequest, messages::AssignReplicasToDirsResponse),
            DescribeTopicPartitions(messages::DescribeTopicPartitionsRequest, messages::DescribeTopicPartitionsResponse),
        }
    };
}
pub(crate) use for_each_api;

macro_rules! keys {
    ($($api:ident($request:ty, $response:ty),)*) => {
        /// All APIs, in the order of their keys.
        pub const ALL: &[ApiKey] = &[$(ApiKey::$api,)*];
    };
}
for_each_api!(keys);

/// The versions this crate encodes and decodes; `None` for an API it does not know.
pub fn versions(api: ApiKey) -> Option<VersionRange> {
    if !ALL.contains(&api) {
        return None;
    }
    let mut range = api.valid_versions();
    match api {
        // KIP-939, by hand in `init_producer_id`.
        ApiKey::InitProducerId => range.max = 6,
        // KIP-1228, by hand in `write_txn_markers`.
        ApiKey::WriteTxnMarkers => range.max = 2,
        // The crate lists 10 (topic ids), but cannot encode it.
        ApiKey::OffsetCommit | ApiKey::OffsetFetch => range.max = 9,
        // From 2 on a client may ask by a pattern of RE2's syntax (KIP-1152), which nothing here reads.
        ApiKey::ListTransactions => range.max = 1,
        _ => {}
    }
    Some(range)
}

/// The header version of a request: 2 from the first flexible version on, else 1.
pub fn request_header_version(api: ApiKey, version: i16) -> i16 {
    api.request_header_version(version)
}

/// The header version of a response: 1 from the first flexible version on, else 0. Always 0 for ApiVersions, so that a
/// client can read it before it knows the broker's versions (KIP-511).
pub fn response_header_version(api: ApiKey, version: i16) -> i16 {
    api.response_header_version(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_keys() {
        assert!(ALL.is_sorted_by_key(|k| *k as i16));
    }

    #[test]
    fn api_versions_responses_always_have_header_0() {
        for v in 0..=4 {
            assert_eq!(response_header_version(ApiKey::ApiVersions, v), 0);
        }
        assert_eq!(request_header_version(ApiKey::ApiVersions, 3), 2);
        assert_eq!(response_header_version(ApiKey::Produce, 9), 1);
        assert_eq!(request_header_version(ApiKey::InitProducerId, 6), 2);
        assert_eq!(response_header_version(ApiKey::InitProducerId, 6), 1);
    }
}
