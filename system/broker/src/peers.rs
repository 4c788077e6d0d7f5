//! The other brokers, for what coordinators and partition leaders ask of each other.
//!
//! A broker answers the requests of one connection in their order, so what may wait for a slow partition goes over
//! another connection than what must not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use protocol::{ErrorCode, RequestBody, ResponseBody, api};

use crate::config::BrokerConfig;
use crate::metadata::Metadata;
use crate::peer::{Peer, PeerConfig, PeerError};

const CONNECT: Duration = Duration::from_secs(2);

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Lane {
    /// Markers, which wait for their partitions' in-sync sets.
    Markers,
    /// Questions of partition leaders, with a producer waiting.
    Verification,
}

pub(crate) struct Peers {
    node_id: i32,
    metadata: Metadata,
    settings: PeerConfig,
    open: RefCell<BTreeMap<(i32, Lane), Peer>>,
}

impl Peers {
    pub fn new(metadata: Metadata, config: &BrokerConfig) -> Self {
        let settings = PeerConfig { connect_timeout: CONNECT, max_response_bytes: config.max_frame_bytes };
        Self { node_id: config.node_id, metadata, settings, open: RefCell::default() }
    }

    /// Asks the broker once, in the newest version there is, or in `version`. `timeout` counts from when it is written.
    pub async fn call(
        &self,
        node: i32,
        lane: Lane,
        version: Option<i16>,
        body: &RequestBody,
        timeout: Duration,
    ) -> Result<ResponseBody, PeerError> {
        let newest = || api::versions(body.api_key()).map_or(0, |range| range.max);
        let peer = self.peer(node, lane)?;
        peer.call(version.unwrap_or_else(newest), body, timeout).await
    }

    /// The connection to the broker, at the address that the image gives.
    fn peer(&self, node: i32, lane: Lane) -> Result<Peer, PeerError> {
        let address = self.metadata.with(|image| image.brokers.get(&node).map(|b| (b.host.clone(), b.port)));
        let (host, port) = address.ok_or(PeerError::NotSent("no such broker".into()))?;
        let mut open = self.open.borrow_mut();
        match open.get(&(node, lane)) {
            Some(peer) if peer.address() == (host.as_str(), port) => Ok(peer.clone()),
            _ => {
                let peer = Peer::new(self.node_id, host, port, self.settings);
                open.insert((node, lane), peer.clone());
                Ok(peer)
            }
        }
    }
}

/// What a call without an answer tells of the work that it asked for.
pub(crate) fn error_of(failure: &PeerError) -> ErrorCode {
    match failure {
        PeerError::NotSent(_) => ErrorCode::LEADER_NOT_AVAILABLE,
        PeerError::Lost(_) => ErrorCode::REQUEST_TIMED_OUT,
    }
}
