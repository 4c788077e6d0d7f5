//! Administration: topics, offsets of partitions, where their logs begin, committed offsets of groups.

use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use protocol::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, ListOffsetsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use protocol::{ApiKey, ErrorCode, RequestBody, ResponseBody, str_bytes, topic_name};

use crate::client::{Attempt, Cause, Client, CoordinatorType, Lane};
use crate::consumer::Isolation;
use crate::error::{ClientError, Outcome};
use crate::metadata::{Metadata, TopicPartition};

const ROLE: &str = "admin";

/// Administrative calls. Each retries by itself within the client's `api_timeout`.
#[derive(Clone)]
pub struct Admin(Client);

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    /// -1: the broker's default.
    pub partitions: i32,
    /// -1: the broker's default.
    pub replication_factor: i16,
    pub configs: BTreeMap<String, String>,
}

impl NewTopic {
    pub fn new(name: impl Into<String>, partitions: i32) -> Self {
        Self { name: name.into(), partitions, replication_factor: -1, configs: BTreeMap::new() }
    }
}

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    Earliest,
    /// The end of what the isolation level may read.
    Latest,
    /// The first record with this timestamp (milliseconds) or a later one.
    Timestamp(i64),
}

impl OffsetSpec {
    fn wire(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::Timestamp(ms) => ms,
        }
    }
}

/// An offset that a group committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

impl CommittedOffset {
    pub fn new(offset: i64) -> Self {
        Self { offset, leader_epoch: -1, metadata: String::new() }
    }
}

/// The partitions grouped by topic, in order.
pub(crate) fn by_topic<'a, V>(
    partitions: impl IntoIterator<Item = (&'a TopicPartition, V)>,
) -> BTreeMap<&'a str, Vec<(i32, V)>> {
    let mut topics: BTreeMap<&str, Vec<(i32, V)>> = BTreeMap::new();
    for (tp, value) in partitions {
        topics.entry(&tp.topic).or_default().push((tp.partition, value));
    }
    topics
}

impl Admin {
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    /// Creates topics. Each has its own answer; TOPIC_ALREADY_EXISTS after a lost response may be one's own doing.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
    ) -> Result<BTreeMap<String, Result<(), ErrorCode>>, ClientError> {
        let client = &self.0;
        let body = topics.iter().map(|t| {
            let configs = t.configs.iter().map(|(k, v)| {
                CreatableTopicConfig::default().with_name(str_bytes(k.clone())).with_value(Some(str_bytes(v.clone())))
            });
            CreatableTopic::default()
                .with_name(topic_name(t.name.clone()))
                .with_num_partitions(t.partitions)
                .with_replication_factor(t.replication_factor)
                .with_configs(configs.collect())
        });
        let timeout_ms = i32::try_from(client.config().request_timeout.as_millis()).unwrap_or(i32::MAX);
        let body: RequestBody =
            CreateTopicsRequest::default().with_topics(body.collect()).with_timeout_ms(timeout_ms).into();
        client
            .retry("create topics", client.api_deadline(), async || {
                if let Err(cause) = client.refresh().await {
                    return Attempt::Again(Cause { outcome: Outcome::Failed, ..cause });
                }
                let Some(controller) = client.metadata().controller else {
                    return Attempt::refused(ErrorCode::NOT_CONTROLLER);
                };
                let connection = match client.connect(controller, Lane::Shared).await {
                    Ok(c) => c,
                    Err(e) => return Attempt::lost(e),
                };
                let version = match connection.version_up_to(ApiKey::CreateTopics, 7) {
                    Ok(v) => v,
                    Err(e) => return Attempt::lost(e),
                };
                let answer = match client.call(&connection, ROLE, "create_topics", version, &body).await {
                    Ok(ResponseBody::CreateTopics(answer)) => answer,
                    Ok(_) => return Attempt::unexpected(),
                    Err(e) => return Attempt::lost(e),
                };
                let mut results = BTreeMap::new();
                for t in &answer.topics {
                    let code = ErrorCode::from_code(t.error_code);
                    if !code.is_ok() && code.retriable() {
                        return Attempt::refused(code);
                    }
                    results.insert(t.name.to_string(), code.ok());
                }
                Attempt::Done(results)
            })
            .await
    }

    /// The cluster, with these topics. Waits, within the client's `api_timeout`, for topics that have no leader yet;
    /// topics that do not exist are in [`Metadata::errors`].
    pub async fn metadata(&self, topics: &[&str]) -> Result<Rc<Metadata>, ClientError> {
        let client = &self.0;
        client.want_topics(topics.iter().copied());
        client
            .retry("read metadata", client.api_deadline(), async || {
                let metadata = match client.refresh().await {
                    Ok(metadata) => metadata,
                    Err(cause) => return Attempt::Again(cause),
                };
                let leaderless = topics
                    .iter()
                    .filter_map(|t| metadata.topics.get(*t))
                    .any(|t| t.partitions.values().any(Option::is_none));
                if leaderless { Attempt::refused(ErrorCode::LEADER_NOT_AVAILABLE) } else { Attempt::Done(metadata) }
            })
            .await
    }

    /// One offset of each partition; `None` where a timestamp is past the last record.
    pub async fn list_offsets(
        &self,
        partitions: &[TopicPartition],
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<BTreeMap<TopicPartition, Option<i64>>, ClientError> {
        let client = &self.0;
        client.want_topics(partitions.iter().map(|tp| tp.topic.as_str()));
        let mut found = BTreeMap::new();
        let mut stale = false;
        client
            .retry("list offsets", client.api_deadline(), async || {
                let missing: Vec<_> = partitions.iter().filter(|tp| !found.contains_key(*tp)).collect();
                if (stale || missing.iter().any(|tp| client.metadata().leader(tp).is_none()))
                    && let Err(cause) = client.refresh().await
                {
                    return Attempt::Again(cause);
                }
                stale = true;
                let metadata = client.metadata();
                let mut by_node: BTreeMap<i32, Vec<&TopicPartition>> = BTreeMap::new();
                for tp in missing {
                    match metadata.leader(tp) {
                        Some(leader) => by_node.entry(leader.node).or_default().push(tp),
                        None => return Attempt::refused(ErrorCode::LEADER_NOT_AVAILABLE),
                    }
                }
                for (node, partitions) in by_node {
                    match self.list_offsets_of(node, &partitions, spec, isolation).await {
                        Attempt::Done(offsets) => found.extend(offsets),
                        Attempt::Again(cause) => return Attempt::Again(cause),
                        Attempt::Fail(cause) => return Attempt::Fail(cause),
                    }
                }
                Attempt::Done(())
            })
            .await?;
        Ok(found)
    }

    async fn list_offsets_of(
        &self,
        node: i32,
        partitions: &[&TopicPartition],
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Attempt<Vec<(TopicPartition, Option<i64>)>> {
        let client = &self.0;
        let connection = match client.connect(node, Lane::Shared).await {
            Ok(c) => c,
            Err(e) => return Attempt::lost(e),
        };
        // 7 and later differ only in the kinds of offset they know.
        let version = match connection.version_up_to(ApiKey::ListOffsets, 7) {
            Ok(v) => v,
            Err(e) => return Attempt::lost(e),
        };
        let metadata = client.metadata();
        let topics = by_topic(partitions.iter().map(|tp| (*tp, metadata.leader(tp).map_or(-1, |l| l.epoch))));
        let topics = topics.into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|(index, epoch)| {
                ListOffsetsPartition::default()
                    .with_partition_index(index)
                    .with_current_leader_epoch(epoch)
                    .with_timestamp(spec.wire())
            });
            ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect())
        });
        let mut body = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(topics.collect());
        if version >= 2 {
            body.isolation_level = isolation.wire();
        }
        let answer = match client.call(&connection, ROLE, "list_offsets", version, &body.into()).await {
            Ok(ResponseBody::ListOffsets(answer)) => answer,
            Ok(_) => return Attempt::unexpected(),
            Err(e) => return Attempt::lost(e),
        };
        let mut offsets = Vec::new();
        for t in &answer.topics {
            for p in &t.partitions {
                if let Err(code) = ErrorCode::from_code(p.error_code).ok() {
                    return Attempt::refused(code);
                }
                let tp = TopicPartition::new(t.name.as_str(), p.partition_index);
                offsets.push((tp, (p.offset >= 0).then_some(p.offset)));
            }
        }
        if offsets.len() != partitions.len() {
            return Attempt::unexpected();
        }
        Attempt::Done(offsets)
    }

    /// Gives up the records below an offset of each partition, for good (KIP-107); -1 is the high watermark, that of the
    /// moment at which the call, or its repetition, arrives. Each partition has its own answer: the low watermark, which all
    /// live replicas have reached, or an error that no repetition helps against. An error of the whole call says nothing
    /// about any one of them; the same call again does no harm.
    pub async fn delete_records(
        &self,
        before: &BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, Result<i64, ErrorCode>>, ClientError> {
        let client = &self.0;
        client.want_topics(before.keys().map(|tp| tp.topic.as_str()));
        let mut answers = BTreeMap::new();
        let mut stale = false;
        client
            .retry("delete records", client.api_deadline(), async || {
                let missing: Vec<_> = before.iter().filter(|(tp, _)| !answers.contains_key(*tp)).collect();
                if (stale || missing.iter().any(|(tp, _)| client.metadata().leader(tp).is_none()))
                    && let Err(cause) = client.refresh().await
                {
                    return Attempt::Again(Cause { outcome: Outcome::Failed, ..cause });
                }
                stale = true;
                let metadata = client.metadata();
                let mut by_node: BTreeMap<i32, Vec<(&TopicPartition, i64)>> = BTreeMap::new();
                let mut again = None;
                for (tp, offset) in missing {
                    match metadata.leader(tp) {
                        Some(leader) => by_node.entry(leader.node).or_default().push((tp, *offset)),
                        None => again = Some(Cause::from(ErrorCode::LEADER_NOT_AVAILABLE)),
                    }
                }
                // What one leader cannot do now is no reason not to ask the others.
                for (node, partitions) in by_node {
                    match self.delete_records_of(node, &partitions, &mut answers).await {
                        Attempt::Done(()) => {}
                        Attempt::Again(cause) => again = Some(cause),
                        Attempt::Fail(cause) => return Attempt::Fail(cause),
                    }
                }
                again.map_or(Attempt::Done(()), Attempt::Again)
            })
            .await?;
        Ok(answers)
    }

    async fn delete_records_of(
        &self,
        node: i32,
        partitions: &[(&TopicPartition, i64)],
        answers: &mut BTreeMap<TopicPartition, Result<i64, ErrorCode>>,
    ) -> Attempt<()> {
        let client = &self.0;
        let connection = match client.connect(node, Lane::Shared).await {
            Ok(c) => c,
            Err(e) => return Attempt::lost(e),
        };
        let version = match connection.version_up_to(ApiKey::DeleteRecords, 2) {
            Ok(v) => v,
            Err(e) => return Attempt::lost(e),
        };
        let topics = by_topic(partitions.iter().copied()).into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|(index, offset)| {
                DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset)
            });
            DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect())
        });
        let timeout_ms = i32::try_from(client.config().request_timeout.as_millis()).unwrap_or(i32::MAX);
        let body = DeleteRecordsRequest::default().with_topics(topics.collect()).with_timeout_ms(timeout_ms);
        let answer = match client.call(&connection, ROLE, "delete_records", version, &body.into()).await {
            Ok(ResponseBody::DeleteRecords(answer)) => answer,
            Ok(_) => return Attempt::unexpected(),
            Err(e) => return Attempt::lost(e),
        };
        let (mut told, mut again) = (0, None);
        for t in &answer.topics {
            for p in &t.partitions {
                told += 1;
                match ErrorCode::from_code(p.error_code) {
                    code if !code.is_ok() && code.retriable() => again = Some(Cause::from(code)),
                    code => {
                        let tp = TopicPartition::new(t.name.as_str(), p.partition_index);
                        answers.insert(tp, code.ok().map(|()| p.low_watermark));
                    }
                }
            }
        }
        if told != partitions.len() {
            return Attempt::unexpected();
        }
        again.map_or(Attempt::Done(()), Attempt::Again)
    }

    /// Commits offsets of a group that has no members.
    pub async fn commit_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<(), ClientError> {
        let client = &self.0;
        let coordinator = (CoordinatorType::Group, group);
        let build = |version: i16| commit_request(version, group, CommitAs::NOBODY, offsets);
        client
            .retry("commit offsets", client.api_deadline(), async || {
                let api = ApiKey::OffsetCommit;
                client
                    .call_coordinator(coordinator, Lane::Shared, ROLE, "commit_offsets", api, 9, build, commit_code)
                    .await
            })
            .await
            .map(drop)
    }

    /// The committed offsets of a group for these partitions; those without one are absent. With `require_stable` it
    /// waits for transactions that are about to commit some.
    pub async fn fetch_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        require_stable: bool,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        let client = &self.0;
        let coordinator = (CoordinatorType::Group, group);
        let build = |version: i16| fetch_request(version, group, None, partitions, require_stable);
        let body = client
            .retry("fetch offsets", client.api_deadline(), async || {
                let (api, label) = (ApiKey::OffsetFetch, "fetch_offsets");
                let code = |body: &ResponseBody| offsets_in(body).map(|found| found.err().unwrap_or_default());
                client.call_coordinator(coordinator, Lane::Shared, ROLE, label, api, 9, build, code).await
            })
            .await?;
        Ok(offsets_in(&body).and_then(Result::ok).unwrap_or_default())
    }
}

/// In whose name offsets are committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitAs<'a> {
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    /// Generation or member epoch; -1 if none.
    pub generation: i32,
}

impl CommitAs<'_> {
    /// A consumer that is no member.
    pub const NOBODY: CommitAs<'static> = CommitAs { member_id: "", instance_id: None, generation: -1 };
}

pub(crate) fn commit_request(
    version: i16,
    group: &str,
    member: CommitAs<'_>,
    offsets: &BTreeMap<TopicPartition, CommittedOffset>,
) -> RequestBody {
    let topics = by_topic(offsets.iter()).into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(index, committed)| {
            let mut p = OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(committed.offset)
                .with_committed_metadata(Some(str_bytes(committed.metadata.clone())));
            if version >= 6 {
                p.committed_leader_epoch = committed.leader_epoch;
            }
            p
        });
        OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect())
    });
    let mut request = OffsetCommitRequest::default()
        .with_group_id(str_bytes(group).into())
        .with_generation_id_or_member_epoch(member.generation)
        .with_member_id(str_bytes(member.member_id))
        .with_topics(topics.collect());
    if version >= 7 {
        request.group_instance_id = member.instance_id.map(str_bytes);
    }
    request.into()
}

/// The first error in the answer to a commit.
pub(crate) fn commit_code(body: &ResponseBody) -> Option<ErrorCode> {
    let ResponseBody::OffsetCommit(answer) = body else { return None };
    let codes = answer.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code));
    Some(ErrorCode::from_code(codes.into_iter().find(|c| *c != 0).unwrap_or(0)))
}

/// `member`: id and epoch of a member of the consumer protocol.
pub(crate) fn fetch_request(
    version: i16,
    group: &str,
    member: Option<(String, i32)>,
    partitions: &[TopicPartition],
    require_stable: bool,
) -> RequestBody {
    let topics = by_topic(partitions.iter().map(|tp| (tp, ())));
    let mut body = OffsetFetchRequest::default();
    if version >= 7 {
        body.require_stable = require_stable;
    }
    if version >= 8 {
        let topics = topics.iter().map(|(topic, partitions)| {
            OffsetFetchRequestTopics::default()
                .with_name(topic_name(*topic))
                .with_partition_indexes(partitions.iter().map(|(p, ())| *p).collect())
        });
        let mut group = OffsetFetchRequestGroup::default()
            .with_group_id(str_bytes(group).into())
            .with_topics(Some(topics.collect()));
        if let Some((member_id, epoch)) = member.filter(|_| version >= 9) {
            group.member_id = Some(str_bytes(member_id));
            group.member_epoch = epoch;
        }
        body.groups = vec![group];
    } else {
        let topics = topics.iter().map(|(topic, partitions)| {
            OffsetFetchRequestTopic::default()
                .with_name(topic_name(*topic))
                .with_partition_indexes(partitions.iter().map(|(p, ())| *p).collect())
        });
        body.group_id = str_bytes(group).into();
        body.topics = Some(topics.collect());
    }
    body.into()
}

/// The offsets in an answer, or its first error; `None` if it is another API's answer.
pub(crate) fn offsets_in(body: &ResponseBody) -> Option<Result<BTreeMap<TopicPartition, CommittedOffset>, ErrorCode>> {
    let ResponseBody::OffsetFetch(answer) = body else { return None };
    let group = answer.groups.first();
    let mut codes = vec![answer.error_code, group.map_or(0, |g| g.error_code)];
    let mut rows = Vec::new();
    for t in &answer.topics {
        for p in &t.partitions {
            codes.push(p.error_code);
            rows.push((&t.name, p.partition_index, p.committed_offset, p.committed_leader_epoch, &p.metadata));
        }
    }
    for t in group.iter().flat_map(|g| &g.topics) {
        for p in &t.partitions {
            codes.push(p.error_code);
            rows.push((&t.name, p.partition_index, p.committed_offset, p.committed_leader_epoch, &p.metadata));
        }
    }
    if let Some(code) = codes.into_iter().find(|c| *c != 0) {
        return Some(Err(ErrorCode::from_code(code)));
    }
    let committed = rows.into_iter().filter(|(_, _, offset, _, _)| *offset >= 0);
    let committed = committed.map(|(topic, partition, offset, leader_epoch, metadata)| {
        let metadata = metadata.as_ref().map(|m| m.to_string()).unwrap_or_default();
        (TopicPartition::new(topic.as_str(), partition), CommittedOffset { offset, leader_epoch, metadata })
    });
    Some(Ok(committed.collect()))
}
