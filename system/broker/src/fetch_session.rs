//! Incremental fetch sessions (KIP-227): the broker remembers which partitions a reader wants and what it last told of
//! them, so that a request names only what changed on one side, and an answer only what changed on the other.
//!
//! | session id | epoch | means |
//! |--|--|--|
//! | 0 | -1 | everything, no session |
//! | 0 | 0 | everything, and begin a session if there is room: the answer carries its id |
//! | n | -1 or 0 | end session n, then as above |
//! | n | k > 0 | changes to what session n asks; k is one more than last time, or INVALID_FETCH_SESSION_EPOCH |
//!
//! An id is drawn, so that a reader that outlived its broker does not hit another's session. There are at most
//! [`MAX_SESSIONS`]; the one unused for longest makes room, replicas' last, if it is idle for [`MAX_IDLE`].

use std::collections::BTreeMap;
use std::time::Duration;

use env::clock::Instant;
use protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use protocol::messages::{FetchRequest, FetchResponse, TopicName};
use protocol::{ErrorCode, Uuid};

/// `max.incremental.fetch.session.cache.slots`
const MAX_SESSIONS: usize = 1000;
/// `min.incremental.fetch.session.eviction.ms`
const MAX_IDLE: Duration = Duration::from_secs(120);
const FINAL_EPOCH: i32 = -1;
/// From here on topics are named by id.
const TOPIC_IDS: i16 = 13;

/// A topic as the request names it: by name, or by id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    topic: TopicName,
    topic_id: Uuid,
    partition: i32,
}

#[derive(Clone, Debug)]
struct Wanted {
    key: Key,
    request: FetchPartition,
    /// High watermark and log start as of the last answer; `None` before it, and after an error.
    told: Option<(i64, i64)>,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    used: Instant,
    of_replica: bool,
    by_id: bool,
    /// In the order they are read: who got records goes last.
    wanted: Vec<Wanted>,
}

/// How a request is to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// All partitions, session id 0.
    Sessionless,
    /// All partitions, the first answer of this session.
    Begins(i32),
    /// Only what is news in this session.
    Continues(i32),
}

/// All sessions of a broker. Pure: time and ids are arguments.
#[derive(Debug, Default)]
pub(crate) struct FetchSessions {
    sessions: BTreeMap<i32, Session>,
}

impl FetchSessions {
    /// Takes in a request; on return it names all partitions that are to be read. `fresh` is a drawn id.
    pub fn begin(
        &mut self,
        version: i16,
        request: &mut FetchRequest,
        fresh: i32,
        now: Instant,
    ) -> Result<Kind, ErrorCode> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        let by_id = version >= TOPIC_IDS;
        if epoch == FINAL_EPOCH || epoch == 0 {
            self.sessions.remove(&id);
            if epoch == FINAL_EPOCH || request.topics.is_empty() {
                return Ok(Kind::Sessionless);
            }
            return Ok(self.create(request, by_id, fresh, now).map_or(Kind::Sessionless, Kind::Begins));
        }
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        if epoch != session.epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if by_id != session.by_id {
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        session.epoch = epoch.checked_add(1).unwrap_or(1);
        session.used = now;
        for topic in &request.forgotten_topics_data {
            let gone = |key: &Key| {
                let same = if by_id { key.topic_id == topic.topic_id } else { key.topic == topic.topic };
                same && topic.partitions.contains(&key.partition)
            };
            session.wanted.retain(|w| !gone(&w.key));
        }
        for (key, partition) in keyed(request) {
            match session.wanted.iter_mut().find(|w| w.key == key) {
                Some(wanted) => wanted.request = partition,
                None => session.wanted.push(Wanted { key, request: partition, told: None }),
            }
        }
        request.topics = topics(&session.wanted);
        Ok(Kind::Continues(id))
    }

    fn create(&mut self, request: &FetchRequest, by_id: bool, fresh: i32, now: Instant) -> Option<i32> {
        let id = fresh.checked_abs().filter(|id| *id > 0 && !self.sessions.contains_key(id))?;
        if self.sessions.len() >= MAX_SESSIONS {
            let idle = self.sessions.iter().filter(|(_, s)| now.saturating_since(s.used) >= MAX_IDLE);
            let oldest = idle.min_by_key(|(_, s)| (s.of_replica, s.used)).map(|(id, _)| *id)?;
            self.sessions.remove(&oldest);
        }
        let of_replica = request.replica_id.0 >= 0 || request.replica_state.replica_id.0 >= 0;
        let wanted = keyed(request).into_iter().map(|(key, request)| Wanted { key, request, told: None });
        let session = Session { epoch: 1, used: now, of_replica, by_id, wanted: wanted.collect() };
        self.sessions.insert(id, session);
        Some(id)
    }

    /// Leaves out of an answer what is no news, and notes what it tells.
    pub fn finish(&mut self, kind: Kind, response: FetchResponse) -> FetchResponse {
        let (id, all) = match kind {
            Kind::Sessionless => return response,
            Kind::Begins(id) => (id, true),
            Kind::Continues(id) => (id, false),
        };
        let mut response = response.with_session_id(id);
        // One that made room meanwhile: the reader is told of it at its next request.
        let Some(session) = self.sessions.get_mut(&id) else { return response };
        let mut fed = Vec::new();
        for topic in &mut response.responses {
            topic.partitions.retain(|data| {
                let key = Key { topic: topic.topic.clone(), topic_id: topic.topic_id, partition: data.partition_index };
                let Some(at) = session.wanted.iter().position(|w| w.key == key) else { return true };
                let wanted = &mut session.wanted[at];
                let now = (data.error_code == 0).then_some((data.high_watermark, data.log_start_offset));
                let records = data.records.as_ref().is_some_and(|r| !r.is_empty());
                let news = records
                    || now.is_none()
                    || wanted.told != now
                    || data.diverging_epoch.epoch >= 0
                    || data.preferred_read_replica.0 >= 0;
                wanted.told = now;
                if records {
                    fed.push(key);
                }
                all || news
            });
        }
        response.responses.retain(|topic| !topic.partitions.is_empty());
        // Who got something reads last next time, so that one busy partition starves no other.
        session.wanted.sort_by_key(|w| fed.contains(&w.key));
        response
    }
}

fn keyed(request: &FetchRequest) -> Vec<(Key, FetchPartition)> {
    let topics = request.topics.iter();
    let of_topic = |t: &FetchTopic| {
        let (topic, topic_id) = (t.topic.clone(), t.topic_id);
        let key = move |partition| Key { topic: topic.clone(), topic_id, partition };
        t.partitions.iter().map(|p| (key(p.partition), p.clone())).collect::<Vec<_>>()
    };
    topics.flat_map(of_topic).collect()
}

/// Grouped by topic where neighbours are of one.
fn topics(wanted: &[Wanted]) -> Vec<FetchTopic> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for Wanted { key, request, .. } in wanted {
        match topics.last_mut().filter(|t| t.topic == key.topic && t.topic_id == key.topic_id) {
            Some(topic) => topic.partitions.push(request.clone()),
            None => {
                let topic = FetchTopic::default().with_topic(key.topic.clone()).with_topic_id(key.topic_id);
                topics.push(topic.with_partitions(vec![request.clone()]));
            }
        }
    }
    topics
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::messages::BrokerId;
    use protocol::messages::fetch_request::ForgottenTopic;
    use protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    use protocol::topic_name;

    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000_000);

    fn request(id: i32, epoch: i32, partitions: &[i32]) -> FetchRequest {
        let request = FetchRequest::default().with_session_id(id).with_session_epoch(epoch);
        let partitions = partitions.iter().map(|p| FetchPartition::default().with_partition(*p));
        let partitions: Vec<_> = partitions.collect();
        let topic = FetchTopic::default().with_topic(topic_name("t")).with_partitions(partitions);
        if topic.partitions.is_empty() { request } else { request.with_topics(vec![topic]) }
    }

    /// (partition, high watermark, records)
    fn response(partitions: &[(i32, i64, &'static str)]) -> FetchResponse {
        let data = partitions.iter().map(|(p, high_watermark, records)| {
            PartitionData::default()
                .with_partition_index(*p)
                .with_high_watermark(*high_watermark)
                .with_preferred_read_replica(BrokerId(-1))
                .with_records(Some(Bytes::from_static(records.as_bytes())))
        });
        let topic = FetchableTopicResponse::default().with_topic(topic_name("t")).with_partitions(data.collect());
        FetchResponse::default().with_responses(vec![topic])
    }

    fn named(response: &FetchResponse) -> Vec<i32> {
        response.responses.iter().flat_map(|t| t.partitions.iter().map(|p| p.partition_index)).collect()
    }

    fn asked(request: &FetchRequest) -> Vec<i32> {
        request.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.partition)).collect()
    }

    #[test]
    fn a_session_asks_for_all_and_is_told_what_changed() {
        let mut s = FetchSessions::default();
        let mut full = request(0, 0, &[0, 1, 2]);
        assert_eq!(s.begin(12, &mut full, 7, NOW), Ok(Kind::Begins(7)));
        let first = s.finish(Kind::Begins(7), response(&[(0, 5, ""), (1, 5, ""), (2, 5, "")]));
        assert_eq!((first.session_id, named(&first)), (7, vec![0, 1, 2]));
        let mut next = request(7, 1, &[]);
        assert_eq!(s.begin(12, &mut next, 8, NOW), Ok(Kind::Continues(7)));
        assert_eq!(asked(&next), [0, 1, 2]);
        let second = s.finish(Kind::Continues(7), response(&[(0, 5, "x"), (1, 6, ""), (2, 5, "")]));
        assert_eq!(named(&second), [0, 1], "records, and a new high watermark");
        let forgotten = ForgottenTopic::default().with_topic(topic_name("t")).with_partitions(vec![1]);
        let mut next = request(7, 2, &[3]).with_forgotten_topics_data(vec![forgotten]);
        assert_eq!(s.begin(12, &mut next, 8, NOW), Ok(Kind::Continues(7)));
        assert_eq!(asked(&next), [2, 0, 3], "who got records reads after the others");
    }

    #[test]
    fn epochs_fence_and_unknown_sessions_are_told() {
        let mut s = FetchSessions::default();
        s.begin(12, &mut request(0, 0, &[0]), 7, NOW).unwrap();
        let not_found = Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        assert_eq!(s.begin(12, &mut request(9, 1, &[]), 8, NOW), not_found);
        assert!(s.begin(12, &mut request(7, 1, &[]), 8, NOW).is_ok());
        let again = s.begin(12, &mut request(7, 1, &[]), 8, NOW);
        assert_eq!(again, Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH), "a repeated request");
        let by_id = s.begin(13, &mut request(7, 2, &[]), 8, NOW);
        assert_eq!(by_id, Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR));
        assert_eq!(s.begin(12, &mut request(7, -1, &[0]), 8, NOW), Ok(Kind::Sessionless));
        assert_eq!(s.begin(12, &mut request(7, 2, &[]), 8, NOW), not_found, "it was ended");
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut s = FetchSessions::default();
        for id in 1..=MAX_SESSIONS as i32 {
            let mut full = request(0, 0, &[0]);
            if id == 1 {
                full = full.with_replica_id(BrokerId(1));
            }
            assert_eq!(s.begin(12, &mut full, id, NOW), Ok(Kind::Begins(id)));
        }
        assert_eq!(s.begin(12, &mut request(0, 0, &[0]), -5000, NOW), Ok(Kind::Sessionless), "none is idle");
        let later = NOW + MAX_IDLE;
        s.begin(12, &mut request(3, 1, &[]), 0, later).unwrap();
        assert_eq!(s.begin(12, &mut request(0, 0, &[0]), -5000, later), Ok(Kind::Begins(5000)));
        assert!(s.sessions.contains_key(&1) && !s.sessions.contains_key(&2), "a replica's goes last");
    }
}
