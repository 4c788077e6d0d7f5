//! ApiVersions: what this broker speaks.

use protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use protocol::{ErrorCode, StrBytes, api, str_bytes};

use crate::dispatch::SERVED;

/// From this version on a client names itself.
const NAMED: i16 = 3;
const ZERO_ALLOWED: i16 = 4;
/// `transaction.version` 2: a new epoch at each EndTxn (KIP-890).
const FEATURES: &[(&str, i16)] = &[("transaction.version", 2)];

pub(crate) fn handle(version: i16, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    let response = ApiVersionsResponse::default();
    let named = |s: &StrBytes| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        edge(s.as_bytes().first()) && edge(s.as_bytes().last()) && s.bytes().all(inner)
    };
    if version >= NAMED && !(named(&request.client_software_name) && named(&request.client_software_version)) {
        return response.with_error_code(ErrorCode::INVALID_REQUEST.code());
    }
    let keys = SERVED.iter().filter_map(|&api| {
        let range = api::versions(api)?;
        Some(ApiVersion::default().with_api_key(api as i16).with_min_version(range.min).with_max_version(range.max))
    });
    // A lowest version of 0 breaks clients before version 4 (KIP-1022): they are not told.
    let supported = FEATURES.iter().filter(|_| version >= ZERO_ALLOWED).map(|(name, max)| {
        SupportedFeatureKey::default().with_name(str_bytes(*name)).with_min_version(0).with_max_version(*max)
    });
    let finalized = FEATURES.iter().map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(str_bytes(*name))
            .with_min_version_level(*level)
            .with_max_version_level(*level)
    });
    response
        .with_api_keys(keys.collect())
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(0)
        .with_finalized_features(finalized.collect())
}
