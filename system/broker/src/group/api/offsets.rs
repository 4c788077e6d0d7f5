//! OffsetCommit, OffsetFetch and TxnOffsetCommit.

use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use protocol::messages::txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic};
use protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};
use protocol::{ErrorCode, StrBytes, str_bytes, topic_name};

use crate::context::Context;
use crate::group::offsets::{Committed, Fetched, Place};
use crate::group::shard::{Author, Commit, InTransaction};
use crate::internal_topics::CONSUMER_OFFSETS;
use crate::txn::state::ProducerIdEpoch;
use crate::txn::verification;

/// From this version on OffsetCommit and OffsetFetch carry a member's epoch (KIP-848).
const MEMBER_EPOCH: i16 = 9;
/// OffsetFetch carries several groups from this version on.
const OFFSET_FETCH_BATCHED: i16 = 8;
/// From this version on clients know TRANSACTION_ABORTABLE.
const ABORTABLE: i16 = 4;
/// TxnOffsetCommit joins the transaction by itself from this version on (KIP-890).
const TXN_OFFSET_COMMIT_JOINS: i16 = 5;

/// A commit with an answer for each place, some given before anything is appended.
#[derive(Default)]
struct Asked {
    /// In the order asked.
    answers: Vec<(Place, ErrorCode)>,
    offsets: Vec<(Place, Option<Committed>)>,
}

impl Asked {
    fn push(&mut self, context: &Context, place: Place, offset: i64, leader_epoch: i32, metadata: Option<StrBytes>) {
        let metadata = metadata.map(|m| m.as_str().to_owned()).unwrap_or_default();
        let error = if context.leader(&place.0, place.1).is_none() {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        } else if metadata.len() > context.config.offset_metadata_max_bytes {
            ErrorCode::OFFSET_METADATA_TOO_LARGE
        } else {
            let commit_ms = env::clock::wall_ms();
            let committed = Committed { offset, leader_epoch, metadata, commit_ms };
            self.offsets.push((place.clone(), Some(committed)));
            ErrorCode::NONE
        };
        self.answers.push((place, error));
    }

    /// The answers by topic, `code` where nothing else was wrong.
    fn by_topic(self, code: ErrorCode) -> BTreeMap<String, Vec<(i32, ErrorCode)>> {
        let mut topics: BTreeMap<String, Vec<(i32, ErrorCode)>> = BTreeMap::new();
        for ((topic, partition), error) in self.answers {
            let error = if error.is_ok() { code } else { error };
            topics.entry(topic).or_default().push((partition, error));
        }
        topics
    }
}

pub(crate) async fn commit(context: &Rc<Context>, version: i16, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let mut asked = Asked::default();
    for topic in request.topics {
        for p in topic.partitions {
            let place = (topic.name.as_str().to_owned(), p.partition_index);
            asked.push(context, place, p.committed_offset, p.committed_leader_epoch, p.committed_metadata);
        }
    }
    let author = Author {
        member_id: request.member_id.as_str().to_owned(),
        instance_id: request.group_instance_id.as_ref().map(|i| i.as_str().to_owned()),
        generation: request.generation_id_or_member_epoch,
    };
    let mut code = if request.group_id.is_empty() { ErrorCode::INVALID_GROUP_ID } else { ErrorCode::NONE };
    if code.is_ok() && !asked.offsets.is_empty() {
        let group = request.group_id.as_str().to_owned();
        let offsets = std::mem::take(&mut asked.offsets);
        code = match context.groups().shard(&group).await {
            Ok(shard) => shard.commit(Commit { group, offsets, transaction: None }, &author).await,
            Err(error) => error,
        };
        // Clients of before the consumer protocol know no member epochs.
        if code == ErrorCode::STALE_MEMBER_EPOCH && version < MEMBER_EPOCH {
            code = ErrorCode::ILLEGAL_GENERATION;
        }
    }
    let topics = asked.by_topic(code).into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(index, error)| {
            OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(error.code())
        });
        OffsetCommitResponseTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

pub(crate) async fn txn_commit(
    context: &Rc<Context>,
    version: i16,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let mut asked = Asked::default();
    for topic in request.topics {
        for p in topic.partitions {
            let place = (topic.name.as_str().to_owned(), p.partition_index);
            asked.push(context, place, p.committed_offset, p.committed_leader_epoch, p.committed_metadata);
        }
    }
    let author = Author {
        member_id: request.member_id.as_str().to_owned(),
        instance_id: request.group_instance_id.as_ref().map(|i| i.as_str().to_owned()),
        generation: request.generation_id,
    };
    let mut code = ErrorCode::NONE;
    if request.group_id.is_empty() || request.transactional_id.is_empty() {
        code = ErrorCode::INVALID_REQUEST;
    }
    if code.is_ok() && !asked.offsets.is_empty() {
        let group = request.group_id.as_str().to_owned();
        let offsets = std::mem::take(&mut asked.offsets);
        let id = request.transactional_id.as_str();
        let producer = ProducerIdEpoch::new(request.producer_id.0, request.producer_epoch);
        let commit = Commit { group, offsets, transaction: None };
        let joins = version >= TXN_OFFSET_COMMIT_JOINS;
        code = txn_commit_one(context, commit, &author, (id, producer), joins).await.err().unwrap_or_default();
        // Clients of before know only the older code.
        if code == ErrorCode::TRANSACTION_ABORTABLE && version < ABORTABLE {
            code = ErrorCode::INVALID_TXN_STATE;
        }
    }
    let topics = asked.by_topic(code).into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(index, error)| {
            TxnOffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(error.code())
        });
        TxnOffsetCommitResponseTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect())
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

async fn txn_commit_one(
    context: &Rc<Context>,
    mut commit: Commit,
    author: &Author,
    (transactional_id, producer): (&str, ProducerIdEpoch),
    joins: bool,
) -> Result<(), ErrorCode> {
    let shard = context.groups().shard(&commit.group).await?;
    let index = context.groups().partition_of(&commit.group).await?;
    let asked = shard.ask(producer);
    if asked.is_some() {
        let partition = vec![(CONSUMER_OFFSETS.to_owned(), index)];
        let verified = verification::verify(context, transactional_id, producer, partition, joins).await;
        // It is the *group's* coordinator that the client asks, and this is still the one.
        verified.map_err(|e| if verification::is_passing(e) { ErrorCode::COORDINATOR_LOAD_IN_PROGRESS } else { e })?;
    }
    commit.transaction = Some(InTransaction { producer, asked });
    // The member is checked after the transaction: it may have lost its partitions in between (KIP-447).
    shard.commit(commit, author).await.ok()
}

/// What to answer for one place: offset, leader epoch, metadata, error.
fn of_fetched(fetched: Fetched) -> (i64, i32, String, ErrorCode) {
    match fetched {
        Fetched::None => (-1, -1, String::new(), ErrorCode::NONE),
        Fetched::Offset(c) => (c.offset, c.leader_epoch, c.metadata, ErrorCode::NONE),
        Fetched::Unstable => (-1, -1, String::new(), ErrorCode::UNSTABLE_OFFSET_COMMIT),
    }
}

type ByTopic = Vec<(String, Vec<(i32, Fetched)>)>;

/// The offsets of one group, of all its places if none are named.
async fn fetch_group(
    context: &Rc<Context>,
    group: &str,
    member: (&str, i32),
    asked: Option<Vec<(String, Vec<i32>)>>,
    require_stable: bool,
) -> Result<ByTopic, ErrorCode> {
    let shard = context.groups().shard(group).await?;
    let (member_id, epoch) = member;
    let (checked, places) = shard.look(|groups, offsets, _| {
        (groups.check_fetch(group, member_id, epoch), if asked.is_none() { offsets.places(group) } else { Vec::new() })
    })?;
    checked?;
    let asked = asked.unwrap_or_else(|| {
        let mut all: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in places {
            all.entry(topic).or_default().push(partition);
        }
        all.into_iter().collect()
    });
    let fetch = |(topic, partitions): (String, Vec<i32>)| {
        let fetched = partitions.into_iter().map(|p| (p, shard.fetch(group, &(topic.clone(), p), require_stable)));
        let fetched = fetched.collect();
        (topic, fetched)
    };
    Ok(asked.into_iter().map(fetch).collect())
}

pub(crate) async fn fetch(context: &Rc<Context>, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let stable = request.require_stable;
    if version < OFFSET_FETCH_BATCHED {
        let asked = request.topics.map(|topics| {
            topics.into_iter().map(|t| (t.name.as_str().to_owned(), t.partition_indexes)).collect::<Vec<_>>()
        });
        let response = OffsetFetchResponse::default();
        let found = match fetch_group(context, request.group_id.as_str(), ("", -1), asked.clone(), stable).await {
            Ok(found) => found,
            // Before version 2 there is no place for an error of the whole request.
            Err(error) => {
                let topics = asked.unwrap_or_default().into_iter().map(|(topic, partitions)| {
                    let partitions = partitions.into_iter().map(|p| {
                        OffsetFetchResponsePartition::default()
                            .with_partition_index(p)
                            .with_committed_offset(-1)
                            .with_error_code(error.code())
                    });
                    OffsetFetchResponseTopic::default()
                        .with_name(topic_name(topic))
                        .with_partitions(partitions.collect())
                });
                return response.with_topics(topics.collect()).with_error_code(if version >= 2 {
                    error.code()
                } else {
                    0
                });
            }
        };
        let topics = found.into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|(index, fetched)| {
                let (offset, epoch, metadata, error) = of_fetched(fetched);
                OffsetFetchResponsePartition::default()
                    .with_partition_index(index)
                    .with_committed_offset(offset)
                    .with_committed_leader_epoch(if version >= 5 { epoch } else { -1 })
                    .with_metadata(Some(str_bytes(metadata)))
                    .with_error_code(error.code())
            });
            OffsetFetchResponseTopic::default().with_name(topic_name(topic)).with_partitions(partitions.collect())
        });
        return response.with_topics(topics.collect());
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    for asked in request.groups {
        let group = OffsetFetchResponseGroup::default().with_group_id(asked.group_id.clone());
        let topics = asked
            .topics
            .map(|topics| topics.into_iter().map(|t| (t.name.as_str().to_owned(), t.partition_indexes)).collect());
        let member_id = asked.member_id.as_ref().map(StrBytes::as_str).unwrap_or_default();
        let member = (member_id, asked.member_epoch);
        groups.push(match fetch_group(context, asked.group_id.as_str(), member, topics, stable).await {
            Err(error) => group.with_error_code(error.code()),
            Ok(found) => {
                let topics = found.into_iter().map(|(topic, partitions)| {
                    let partitions = partitions.into_iter().map(|(index, fetched)| {
                        let (offset, epoch, metadata, error) = of_fetched(fetched);
                        OffsetFetchResponsePartitions::default()
                            .with_partition_index(index)
                            .with_committed_offset(offset)
                            .with_committed_leader_epoch(epoch)
                            .with_metadata(Some(str_bytes(metadata)))
                            .with_error_code(error.code())
                    });
                    OffsetFetchResponseTopics::default()
                        .with_name(topic_name(topic))
                        .with_partitions(partitions.collect())
                });
                group.with_topics(topics.collect())
            }
        });
    }
    OffsetFetchResponse::default().with_groups(groups)
}
