//! The APIs this crate can speak, with their versions. A broker advertises these or fewer.

pub use kafka_protocol::messages::ApiKey;
pub use kafka_protocol::protocol::VersionRange;

/// All APIs, in the order of their keys.
pub const ALL: [ApiKey; 15] = [
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
];

/// The versions this crate encodes and decodes; `None` for an API it does not know.
pub fn versions(api: ApiKey) -> Option<VersionRange> {
    if !ALL.contains(&api) {
        return None;
    }
    let mut range = api.valid_versions();
    match api {
        // KIP-939, by hand in `init_producer_id`.
        ApiKey::InitProducerId => range.max = 6,
        // 18 adds a follower's high watermark (KIP-1166); no follower fetches yet.
        ApiKey::Fetch => range.max = 17,
        // The crate lists 10 (topic ids), but cannot encode it.
        ApiKey::OffsetCommit | ApiKey::OffsetFetch => range.max = 9,
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
