//! Offsets of the group: committed and fetched in the member's name.

use std::collections::BTreeMap;

use protocol::{ErrorCode, ResponseBody};

use super::Shared;
use super::turns::Turn;
use crate::admin::{self, CommittedOffset};
use crate::client::{Attempt, CoordinatorType};
use crate::error::ClientError;
use crate::metadata::TopicPartition;

const ROLE: &str = "group";

impl Shared {
    /// Commits until there is an answer. A member whose epoch rose meanwhile goes on with the new one as long as all
    /// partitions are its own (KIP-848); a classic member of another generation does not.
    pub(super) async fn commit(
        &self,
        turn: Turn,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<(), ClientError> {
        if offsets.is_empty() {
            return Ok(());
        }
        turn.come().await;
        let client = &self.client;
        let group = self.config.group_id.as_str();
        client
            .retry("commit offsets", client.api_deadline(), async || {
                let identity = self.speaks_as();
                let member = admin::CommitAs {
                    member_id: &identity.member_id,
                    instance_id: self.config.instance_id.as_deref(),
                    generation: identity.generation,
                };
                let call = client.call_coordinator(
                    (CoordinatorType::Group, group),
                    self.commit_lane,
                    ROLE,
                    "commit",
                    protocol::ApiKey::OffsetCommit,
                    9,
                    |version| admin::commit_request(version, group, member, offsets),
                    admin::commit_code,
                );
                match call.await {
                    Attempt::Fail(cause) if cause.code == Some(ErrorCode::STALE_MEMBER_EPOCH) => {
                        let membership = self.membership.borrow();
                        if offsets.keys().all(|tp| membership.owned().contains(tp)) {
                            Attempt::Again(cause)
                        } else {
                            Attempt::Fail(cause)
                        }
                    }
                    other => other,
                }
            })
            .await
            .map(drop)
    }

    /// The group's offsets, once transactions that are about to commit some are over: without that, a member could
    /// begin where the one before it already wrote (KIP-447).
    pub(super) async fn fetch_offsets(
        &self,
        wanted: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        let client = &self.client;
        let group = self.config.group_id.as_str();
        let body = client
            .retry("fetch offsets", client.api_deadline(), async || {
                let identity = self.membership.borrow().identity();
                let modern = self.config.protocol == super::GroupProtocol::Consumer;
                let member = (modern && identity.generation > 0).then_some((identity.member_id, identity.generation));
                let call = client.call_coordinator(
                    (CoordinatorType::Group, group),
                    self.commit_lane,
                    ROLE,
                    "fetch_offsets",
                    protocol::ApiKey::OffsetFetch,
                    9,
                    |version| admin::fetch_request(version, group, member, wanted, true),
                    |body: &ResponseBody| admin::offsets_in(body).map(|found| found.err().unwrap_or_default()),
                );
                match call.await {
                    Attempt::Fail(cause) if cause.code == Some(ErrorCode::STALE_MEMBER_EPOCH) => Attempt::Again(cause),
                    other => other,
                }
            })
            .await?;
        Ok(admin::offsets_in(&body).and_then(Result::ok).unwrap_or_default())
    }
}
