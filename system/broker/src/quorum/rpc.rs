//! The quorum's messages as Kafka's requests and responses about `__cluster_metadata`, and back.
//!
//! | message | api | version spoken |
//! |--|--|--|
//! | Vote | Vote | 2: pre-vote (KIP-996) |
//! | Begin, End | BeginQuorumEpoch, EndQuorumEpoch | 1 |
//! | Fetch | Fetch | 17: replica directory ids (KIP-853) |
//! | a part of a snapshot | FetchSnapshot | 1 |
//!
//! Anything that does not read as one of these, of this cluster and partition, is refused before the machine sees it.

use std::time::Duration;

use protocol::messages::{
    BeginQuorumEpochRequest, BeginQuorumEpochResponse, BrokerId, EndQuorumEpochRequest, EndQuorumEpochResponse,
    FetchRequest, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse, VoteRequest, VoteResponse,
    begin_quorum_epoch_request as begin_req, begin_quorum_epoch_response as begin_res,
    end_quorum_epoch_request as end_req, end_quorum_epoch_response as end_res, fetch_request as fetch_req,
    fetch_response as fetch_res, fetch_snapshot_request as snap_req, fetch_snapshot_response as snap_res,
    vote_request as vote_req, vote_response as vote_res,
};
use protocol::{ErrorCode, RequestBody, ResponseBody, StrBytes, Uuid, str_bytes, topic_name};

use super::message::{Answer, Batch, Batches, Fetch, Fetched, Header, Position, ReplicaKey, Request, Vote};

/// The metadata log's topic; its one partition is 0.
pub const TOPIC: &str = "__cluster_metadata";
/// Its id, fixed as in Kafka.
pub const TOPIC_ID: Uuid = Uuid::from_u128(1);

/// No quorum holds this many elections. A greater epoch is a stranger's, and would leave no room for the next.
const MAX_EPOCH: i32 = 1 << 30;

/// Most bytes of one fetch.
const FETCH_BYTES: i32 = 8 << 20;

/// A request that is none of the quorum's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused(pub ErrorCode);

/// The request to `to`, with its version.
pub fn encode(request: &Request, cluster_id: &str, to: i32) -> (i16, RequestBody) {
    let cluster = Some(str_bytes(cluster_id));
    match request {
        Request::Vote(vote) => {
            let partition = vote_req::PartitionData::default()
                .with_replica_epoch(vote.epoch)
                .with_replica_id(BrokerId(vote.candidate.id))
                .with_replica_directory_id(vote.candidate.directory)
                .with_last_offset_epoch(vote.end.epoch)
                .with_last_offset(vote.end.offset)
                .with_pre_vote(vote.pre_vote);
            let topic =
                vote_req::TopicData::default().with_topic_name(topic_name(TOPIC)).with_partitions(vec![partition]);
            let body =
                VoteRequest::default().with_cluster_id(cluster).with_voter_id(BrokerId(to)).with_topics(vec![topic]);
            (2, body.into())
        }
        Request::Begin { epoch, leader } => {
            let partition =
                begin_req::PartitionData::default().with_leader_id(BrokerId(*leader)).with_leader_epoch(*epoch);
            let topic =
                begin_req::TopicData::default().with_topic_name(topic_name(TOPIC)).with_partitions(vec![partition]);
            let body = BeginQuorumEpochRequest::default()
                .with_cluster_id(cluster)
                .with_voter_id(BrokerId(to))
                .with_topics(vec![topic]);
            (1, body.into())
        }
        Request::End { epoch, leader, successors } => {
            let candidate = |id: &i32| end_req::ReplicaInfo::default().with_candidate_id(BrokerId(*id));
            let partition = end_req::PartitionData::default()
                .with_leader_id(BrokerId(*leader))
                .with_leader_epoch(*epoch)
                .with_preferred_candidates(successors.iter().map(candidate).collect());
            let topic =
                end_req::TopicData::default().with_topic_name(topic_name(TOPIC)).with_partitions(vec![partition]);
            (1, EndQuorumEpochRequest::default().with_cluster_id(cluster).with_topics(vec![topic]).into())
        }
        Request::Fetch(fetch) => {
            let partition = fetch_req::FetchPartition::default()
                .with_current_leader_epoch(fetch.epoch)
                .with_fetch_offset(fetch.from.offset)
                .with_last_fetched_epoch(fetch.from.epoch)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(FETCH_BYTES)
                .with_replica_directory_id(fetch.replica.directory);
            let topic = fetch_req::FetchTopic::default().with_topic_id(TOPIC_ID).with_partitions(vec![partition]);
            let replica =
                fetch_req::ReplicaState::default().with_replica_id(BrokerId(fetch.replica.id)).with_replica_epoch(-1);
            let body = FetchRequest::default()
                .with_cluster_id(cluster)
                .with_replica_state(replica)
                .with_max_wait_ms(millis(fetch.max_wait))
                .with_max_bytes(FETCH_BYTES)
                .with_session_epoch(-1)
                .with_topics(vec![topic]);
            (17, body.into())
        }
    }
}

/// Whether the request is about the metadata log, and so the quorum's to answer.
pub fn is_quorums(request: &RequestBody) -> bool {
    match request {
        RequestBody::Vote(_)
        | RequestBody::BeginQuorumEpoch(_)
        | RequestBody::EndQuorumEpoch(_)
        | RequestBody::FetchSnapshot(_) => true,
        RequestBody::Fetch(fetch) => fetch.topics.iter().any(|t| t.topic_id == TOPIC_ID || t.topic.0.as_str() == TOPIC),
        _ => false,
    }
}

/// Reads a request that [`is_quorums`], other than FetchSnapshot, as sent to voter or observer `me`.
pub fn decode(request: RequestBody, cluster_id: &str, me: i32) -> Result<Request, Refused> {
    let refuse = |error| Err(Refused(error));
    let other_cluster = |id: &Option<StrBytes>| id.as_ref().is_some_and(|id| id.as_str() != cluster_id);
    match request {
        RequestBody::Vote(body) => {
            if other_cluster(&body.cluster_id) {
                return refuse(ErrorCode::INCONSISTENT_CLUSTER_ID);
            }
            if body.voter_id.0 >= 0 && body.voter_id.0 != me {
                return refuse(ErrorCode::INVALID_VOTER_KEY);
            }
            let mut topics = body.topics.into_iter();
            let Some(p) = only(topics.next().filter(|t| t.topic_name.0.as_str() == TOPIC).map(|t| t.partitions)) else {
                return refuse(ErrorCode::INVALID_REQUEST);
            };
            let end = Position { offset: p.last_offset, epoch: p.last_offset_epoch };
            if p.partition_index != 0 || !is_epoch(p.replica_epoch) || end.offset < 0 || end.epoch < 0 {
                return refuse(ErrorCode::INVALID_REQUEST);
            }
            let candidate = ReplicaKey { id: p.replica_id.0, directory: p.replica_directory_id };
            Ok(Request::Vote(Vote { epoch: p.replica_epoch, candidate, end, pre_vote: p.pre_vote }))
        }
        RequestBody::BeginQuorumEpoch(body) => {
            if other_cluster(&body.cluster_id) {
                return refuse(ErrorCode::INCONSISTENT_CLUSTER_ID);
            }
            let mut topics = body.topics.into_iter();
            match only(topics.next().filter(|t| t.topic_name.0.as_str() == TOPIC).map(|t| t.partitions)) {
                Some(p) if p.partition_index == 0 && is_epoch(p.leader_epoch) => {
                    Ok(Request::Begin { epoch: p.leader_epoch, leader: p.leader_id.0 })
                }
                _ => refuse(ErrorCode::INVALID_REQUEST),
            }
        }
        RequestBody::EndQuorumEpoch(body) => {
            if other_cluster(&body.cluster_id) {
                return refuse(ErrorCode::INCONSISTENT_CLUSTER_ID);
            }
            let mut topics = body.topics.into_iter();
            match only(topics.next().filter(|t| t.topic_name.0.as_str() == TOPIC).map(|t| t.partitions)) {
                Some(p) if p.partition_index == 0 && is_epoch(p.leader_epoch) => {
                    let mut successors = p.preferred_successors;
                    successors.extend(p.preferred_candidates.iter().map(|c| c.candidate_id.0));
                    Ok(Request::End { epoch: p.leader_epoch, leader: p.leader_id.0, successors })
                }
                _ => refuse(ErrorCode::INVALID_REQUEST),
            }
        }
        RequestBody::Fetch(body) => {
            if other_cluster(&body.cluster_id) {
                return refuse(ErrorCode::INCONSISTENT_CLUSTER_ID);
            }
            let id = body.replica_state.replica_id.0.max(body.replica_id.0);
            let max_wait = Duration::from_millis(u64::try_from(body.max_wait_ms).unwrap_or(0));
            let one = body.topics.len() == 1;
            match only(body.topics.into_iter().next().filter(|_| one).map(|t| t.partitions)) {
                Some(p) if p.partition == 0 && id >= 0 && p.fetch_offset >= 0 => {
                    let replica = ReplicaKey { id, directory: p.replica_directory_id };
                    let from = Position { offset: p.fetch_offset, epoch: p.last_fetched_epoch.max(0) };
                    Ok(Request::Fetch(Fetch { epoch: p.current_leader_epoch, replica, from, max_wait }))
                }
                _ => refuse(ErrorCode::INVALID_REQUEST),
            }
        }
        _ => refuse(ErrorCode::INVALID_REQUEST),
    }
}

/// The answer as the response to a request of its kind; the bytes of a fetch's batches are `records`.
pub fn encode_answer(answer: Answer) -> ResponseBody {
    let header = answer.header();
    let (code, epoch) = (header.error.code(), header.epoch);
    let leader = BrokerId(header.leader.unwrap_or(-1));
    match answer {
        Answer::Vote { granted, .. } => {
            let partition = vote_res::PartitionData::default()
                .with_error_code(code)
                .with_leader_id(leader)
                .with_leader_epoch(epoch)
                .with_vote_granted(granted);
            let topic =
                vote_res::TopicData::default().with_topic_name(topic_name(TOPIC)).with_partitions(vec![partition]);
            VoteResponse::default().with_topics(vec![topic]).into()
        }
        Answer::Begin { .. } => {
            let partition = begin_res::PartitionData::default()
                .with_error_code(code)
                .with_leader_id(leader)
                .with_leader_epoch(epoch);
            let topic =
                begin_res::TopicData::default().with_topic_name(topic_name(TOPIC)).with_partitions(vec![partition]);
            BeginQuorumEpochResponse::default().with_topics(vec![topic]).into()
        }
        Answer::End { .. } => {
            let partition =
                end_res::PartitionData::default().with_error_code(code).with_leader_id(leader).with_leader_epoch(epoch);
            let topic =
                end_res::TopicData::default().with_topic_name(topic_name(TOPIC)).with_partitions(vec![partition]);
            EndQuorumEpochResponse::default().with_topics(vec![topic]).into()
        }
        Answer::Fetch { high_watermark, fetched, .. } => {
            let current = fetch_res::LeaderIdAndEpoch::default().with_leader_id(leader).with_leader_epoch(epoch);
            let mut partition = fetch_res::PartitionData::default()
                .with_error_code(code)
                .with_high_watermark(high_watermark)
                .with_last_stable_offset(high_watermark)
                .with_log_start_offset(-1)
                .with_current_leader(current)
                .with_aborted_transactions(None)
                .with_preferred_read_replica(BrokerId(-1));
            match fetched {
                Fetched::Batches(batches) => partition.records = Some(batches.bytes),
                Fetched::Diverging(end) => {
                    partition.diverging_epoch =
                        fetch_res::EpochEndOffset::default().with_epoch(end.epoch).with_end_offset(end.offset);
                    partition.records = Some(Default::default());
                }
                Fetched::Snapshot(at) => {
                    partition.snapshot_id =
                        fetch_res::SnapshotId::default().with_end_offset(at.offset).with_epoch(at.epoch);
                    partition.records = Some(Default::default());
                }
            }
            // Versions up to 12 name the topic, later ones its id.
            let topic = fetch_res::FetchableTopicResponse::default()
                .with_topic(topic_name(TOPIC))
                .with_topic_id(TOPIC_ID)
                .with_partitions(vec![partition]);
            FetchResponse::default().with_responses(vec![topic]).into()
        }
    }
}

/// The response to a request of `like`'s kind that was refused before the machine saw it.
pub fn encode_refusal(like: &RequestBody, error: ErrorCode) -> ResponseBody {
    let code = error.code();
    match like {
        RequestBody::Vote(_) => VoteResponse::default().with_error_code(code).into(),
        RequestBody::BeginQuorumEpoch(_) => BeginQuorumEpochResponse::default().with_error_code(code).into(),
        RequestBody::EndQuorumEpoch(_) => EndQuorumEpochResponse::default().with_error_code(code).into(),
        RequestBody::FetchSnapshot(_) => FetchSnapshotResponse::default().with_error_code(code).into(),
        _ => FetchResponse::default().with_error_code(code).into(),
    }
}

/// Reads a peer's response; `None` if it tells nothing.
pub fn decode_answer(response: ResponseBody) -> Option<Answer> {
    let header = |code: i16, epoch: i32, leader: i32| Header {
        error: ErrorCode::from_code(code),
        epoch,
        leader: Some(leader).filter(|l| *l >= 0),
    };
    match response {
        ResponseBody::Vote(body) if body.error_code == 0 => {
            let p = only(body.topics.into_iter().next().map(|t| t.partitions))?;
            let header = header(p.error_code, p.leader_epoch, p.leader_id.0);
            Some(Answer::Vote { header, granted: p.vote_granted })
        }
        ResponseBody::BeginQuorumEpoch(body) if body.error_code == 0 => {
            let p = only(body.topics.into_iter().next().map(|t| t.partitions))?;
            Some(Answer::Begin { header: header(p.error_code, p.leader_epoch, p.leader_id.0) })
        }
        ResponseBody::EndQuorumEpoch(body) if body.error_code == 0 => {
            let p = only(body.topics.into_iter().next().map(|t| t.partitions))?;
            Some(Answer::End { header: header(p.error_code, p.leader_epoch, p.leader_id.0) })
        }
        ResponseBody::Fetch(body) if body.error_code == 0 => {
            let p = only(body.responses.into_iter().next().map(|t| t.partitions))?;
            let header = header(p.error_code, p.current_leader.leader_epoch, p.current_leader.leader_id.0);
            let fetched = if p.diverging_epoch.end_offset >= 0 {
                Fetched::Diverging(Position { offset: p.diverging_epoch.end_offset, epoch: p.diverging_epoch.epoch })
            } else if p.snapshot_id.end_offset >= 0 {
                Fetched::Snapshot(Position { offset: p.snapshot_id.end_offset, epoch: p.snapshot_id.epoch })
            } else {
                Fetched::Batches(batches(p.records.unwrap_or_default())?)
            };
            Some(Answer::Fetch { header, high_watermark: p.high_watermark, fetched })
        }
        _ => None,
    }
}

/// The batches of a fetch, which end where the first incomplete or broken one begins.
fn batches(bytes: bytes::Bytes) -> Option<Batches> {
    let mut headers = Vec::new();
    for part in protocol::batch::split(bytes.clone()) {
        let (header, batch) = part.ok()?;
        header.verify_crc(&batch).ok()?;
        let epoch = header.partition_leader_epoch;
        headers.push(Batch { base: header.base_offset, next: header.next_offset(), epoch });
    }
    Some(Batches { headers, bytes })
}

/// Asks for the part of the leader's snapshot `at` that begins at byte `position`.
pub fn fetch_snapshot(
    cluster_id: &str,
    me: ReplicaKey,
    epoch: i32,
    at: Position,
    position: i64,
    max_bytes: i32,
) -> (i16, RequestBody) {
    let partition = snap_req::PartitionSnapshot::default()
        .with_current_leader_epoch(epoch)
        .with_snapshot_id(snap_req::SnapshotId::default().with_end_offset(at.offset).with_epoch(at.epoch))
        .with_position(position)
        .with_replica_directory_id(me.directory);
    let topic = snap_req::TopicSnapshot::default().with_name(topic_name(TOPIC)).with_partitions(vec![partition]);
    let body = FetchSnapshotRequest::default()
        .with_cluster_id(Some(str_bytes(cluster_id)))
        .with_replica_id(BrokerId(me.id))
        .with_max_bytes(max_bytes)
        .with_topics(vec![topic]);
    (1, body.into())
}

/// What a FetchSnapshot asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotPart {
    pub replica: ReplicaKey,
    pub epoch: i32,
    pub at: Position,
    pub position: i64,
    pub max_bytes: i32,
}

pub fn decode_snapshot(body: FetchSnapshotRequest, cluster_id: &str) -> Result<SnapshotPart, Refused> {
    if body.cluster_id.as_ref().is_some_and(|id| id.as_str() != cluster_id) {
        return Err(Refused(ErrorCode::INCONSISTENT_CLUSTER_ID));
    }
    let (id, max_bytes) = (body.replica_id.0, body.max_bytes);
    match only(body.topics.into_iter().next().filter(|t| t.name.0.as_str() == TOPIC).map(|t| t.partitions)) {
        Some(p) if p.partition == 0 && p.position >= 0 && max_bytes > 0 => Ok(SnapshotPart {
            replica: ReplicaKey { id, directory: p.replica_directory_id },
            epoch: p.current_leader_epoch,
            at: Position { offset: p.snapshot_id.end_offset, epoch: p.snapshot_id.epoch },
            position: p.position,
            max_bytes,
        }),
        _ => Err(Refused(ErrorCode::INVALID_REQUEST)),
    }
}

/// A part of a snapshot of `size` bytes, or why there is none.
pub fn encode_snapshot(part: &SnapshotPart, header: Header, size: i64, bytes: bytes::Bytes) -> ResponseBody {
    let leader = snap_res::LeaderIdAndEpoch::default()
        .with_leader_id(BrokerId(header.leader.unwrap_or(-1)))
        .with_leader_epoch(header.epoch);
    let partition = snap_res::PartitionSnapshot::default()
        .with_error_code(header.error.code())
        .with_snapshot_id(snap_res::SnapshotId::default().with_end_offset(part.at.offset).with_epoch(part.at.epoch))
        .with_current_leader(leader)
        .with_size(size)
        .with_position(part.position)
        .with_unaligned_records(bytes);
    let topic = snap_res::TopicSnapshot::default().with_name(topic_name(TOPIC)).with_partitions(vec![partition]);
    FetchSnapshotResponse::default().with_topics(vec![topic]).into()
}

/// The size of the snapshot and the part at `position`, if the response has it.
pub fn decode_snapshot_part(response: ResponseBody, at: Position, position: i64) -> Option<(i64, bytes::Bytes)> {
    let ResponseBody::FetchSnapshot(body) = response else { return None };
    if body.error_code != 0 {
        return None;
    }
    let p = only(body.topics.into_iter().next().map(|t| t.partitions))?;
    let id = Position { offset: p.snapshot_id.end_offset, epoch: p.snapshot_id.epoch };
    (p.error_code == 0 && id == at && p.position == position).then_some((p.size, p.unaligned_records))
}

fn is_epoch(epoch: i32) -> bool {
    (0..=MAX_EPOCH).contains(&epoch)
}

/// The one element, if there is exactly one.
fn only<T>(list: Option<Vec<T>>) -> Option<T> {
    let mut list = list?;
    if list.len() == 1 { list.pop() } else { None }
}

fn millis(d: Duration) -> i32 {
    i32::try_from(d.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::batch::{BatchBuilder, Record, assign};
    use protocol::{request, response};

    const ME: ReplicaKey = ReplicaKey { id: 2, directory: Uuid::from_u128(22) };

    fn over_the_wire(version: i16, body: &RequestBody) -> RequestBody {
        let frame = request::encode(version, 5, Some("broker-2"), body).expect("it can be encoded");
        request::decode(frame.slice(4..)).expect("it reads as it was written").body
    }

    #[test]
    fn requests_arrive_as_they_were_sent() {
        let end = Position { offset: 40, epoch: 6 };
        let requests = [
            Request::Vote(Vote { epoch: 7, candidate: ME, end, pre_vote: true }),
            Request::Begin { epoch: 7, leader: 2 },
            Request::End { epoch: 7, leader: 2, successors: vec![3, 1] },
            Request::Fetch(Fetch { epoch: 7, replica: ME, from: end, max_wait: Duration::from_millis(500) }),
        ];
        for request in requests {
            let (version, body) = encode(&request, "c", 1);
            let body = over_the_wire(version, &body);
            assert!(is_quorums(&body));
            assert_eq!(decode(body.clone(), "c", 1), Ok(request));
            assert_eq!(decode(body, "d", 1), Err(Refused(ErrorCode::INCONSISTENT_CLUSTER_ID)));
        }
    }

    #[test]
    fn answers_arrive_as_they_were_sent() {
        let header = Header { error: ErrorCode::NONE, epoch: 7, leader: Some(2) };
        let none = Header { error: ErrorCode::NOT_LEADER_OR_FOLLOWER, epoch: 8, leader: None };
        let mut builder = BatchBuilder::new();
        builder.push(&Record { value: Some("x".into()), ..Record::default() });
        let mut batch = bytes::BytesMut::from(&builder.build()[..]);
        assign(&mut batch, 40, 7);
        let headers = vec![Batch { base: 40, next: 41, epoch: 7 }];
        let batches = Fetched::Batches(Batches { headers, bytes: batch.freeze() });
        let fetch = |header, fetched| Answer::Fetch { header, high_watermark: 39, fetched };
        let answers = [
            (2, Answer::Vote { header, granted: true }),
            (1, Answer::Begin { header: none }),
            (1, Answer::End { header }),
            (17, fetch(header, batches)),
            (17, fetch(header, Fetched::Diverging(Position { offset: 3, epoch: 1 }))),
            (17, fetch(header, Fetched::Snapshot(Position { offset: 30, epoch: 6 }))),
            (17, fetch(none, Fetched::Batches(Batches::default()))),
        ];
        for (version, answer) in answers {
            let body = encode_answer(answer.clone());
            let frame = response::encode(version, 5, &body).expect("it can be encoded");
            let (_, body) = response::decode(body.api_key(), version, frame.slice(4..)).expect("it reads");
            assert_eq!(decode_answer(body), Some(answer));
        }
    }

    #[test]
    fn a_strangers_epoch_is_refused() {
        for epoch in [-1, i32::MAX] {
            let (_, body) = encode(&Request::Begin { epoch, leader: 2 }, "c", 1);
            assert_eq!(decode(body, "c", 1), Err(Refused(ErrorCode::INVALID_REQUEST)));
        }
    }

    #[test]
    fn a_snapshot_is_fetched_in_parts() {
        let at = Position { offset: 30, epoch: 6 };
        let (version, body) = fetch_snapshot("c", ME, 7, at, 100, 50);
        let RequestBody::FetchSnapshot(body) = over_the_wire(version, &body) else { panic!("another request") };
        let part = decode_snapshot(body, "c").expect("it is about the metadata log");
        assert_eq!(part, SnapshotPart { replica: ME, epoch: 7, at, position: 100, max_bytes: 50 });
        let header = Header { error: ErrorCode::NONE, epoch: 7, leader: Some(2) };
        let response = encode_snapshot(&part, header, 120, "0123".into());
        assert_eq!(decode_snapshot_part(response.clone(), at, 100), Some((120, "0123".into())));
        assert_eq!(decode_snapshot_part(response, at, 0), None);
    }
}
