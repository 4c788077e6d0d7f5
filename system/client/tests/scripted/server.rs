//! A broker in memory: one node that leads everything, with just enough of Kafka's rules to catch a client that breaks
//! them, and a script of faults for each API.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use env::io::{AsyncReadExt, AsyncWriteExt};
use env::net::{TcpListener, TcpStream};
use protocol::batch::{BatchHeader, ControlRecord, ControlType, Limits, add_sequence, assign, decode_records};
use protocol::frame::FrameDecoder;
use protocol::messages::{self, fetch_response, metadata_response};
use protocol::request::DecodeError;
use protocol::{
    ApiKey, ErrorCode, InitProducerIdResponse, Request, RequestBody, ResponseBody, Uuid, api, request, response,
    str_bytes,
};

/// What happens to one request.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    None,
    /// The connection ends before the request is looked at.
    CutBefore,
    /// The request is carried out, the connection ends without a response.
    CutAfter,
    /// Carried out; no response, and the connection stays open.
    Silence,
    /// Carried out; the response is not of this protocol.
    Garbage,
    /// Carried out; the connection ends in the middle of the response.
    HalfResponse,
    /// Refused.
    Code(ErrorCode),
}

const NODE: i32 = 1;

#[derive(Default)]
struct State {
    port: u16,
    script: BTreeMap<i16, VecDeque<Fault>>,
    old: bool,
    v2: bool,
    topics: BTreeMap<String, Uuid>,
    log: Vec<Bytes>,
    end: i64,
    producers: BTreeMap<i64, Seen>,
    ongoing: BTreeMap<i64, i64>,
    aborted: Vec<(i64, i64)>,
    transactional: BTreeMap<String, Txn>,
    next_producer_id: i64,
}

/// A producer's epoch, and its last five batches: first and last sequence, offset.
type Seen = (i16, VecDeque<(i32, i32, i64)>);

#[derive(Default, Clone, Copy)]
struct Txn {
    producer_id: i64,
    epoch: i16,
    /// The last end, to recognise its repetition.
    ended: Option<bool>,
    added: bool,
}

#[derive(Clone)]
pub struct Server(Rc<RefCell<State>>);

impl Server {
    /// Listens on a port of its own; topic `t` exists.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let topics = BTreeMap::from([("t".to_owned(), Uuid::from_u128(7))]);
        let server =
            Self(Rc::new(RefCell::new(State { port, topics, v2: true, next_producer_id: 1000, ..State::default() })));
        let accepting = server.clone();
        env::task::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                env::task::spawn(accepting.clone().serve(stream));
            }
        });
        server
    }

    pub fn port(&self) -> u16 {
        self.0.borrow().port
    }

    /// Replaces the script of an API: one entry a request, then none.
    pub fn script(&self, api: ApiKey, faults: &[Fault]) {
        self.0.borrow_mut().script.insert(api as i16, faults.iter().copied().collect());
    }

    /// ApiVersions 0 only, and nothing with topic ids.
    pub fn pretend_old(&self) {
        self.0.borrow_mut().old = true;
    }

    pub fn transactions_v2(&self, v2: bool) {
        self.0.borrow_mut().v2 = v2;
    }

    /// All data records of the log.
    pub fn values(&self) -> Vec<String> {
        let state = self.0.borrow();
        let data = state.log.iter().filter(|b| !BatchHeader::parse(b).unwrap().is_control());
        let records = data.flat_map(|b| decode_records(b, &Limits::default()).unwrap());
        records.map(|r| String::from_utf8(r.value.unwrap().to_vec()).unwrap()).collect()
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut decoder = FrameDecoder::new(1 << 20);
        loop {
            let frame = loop {
                match decoder.next() {
                    Ok(Some(frame)) => break frame,
                    Ok(None) => {}
                    Err(_) => return,
                }
                match stream.read_buf(decoder.buffer_mut()).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            };
            let old = self.0.borrow().old;
            let request = match request::decode(frame) {
                Ok(r) if old && r.api_key() == ApiKey::ApiVersions && r.version > 0 => {
                    let answer = response::unsupported_api_versions(r.correlation_id);
                    stream.write_all(&answer).await.unwrap();
                    continue;
                }
                Ok(r) => r,
                Err(DecodeError::UnsupportedVersion { api_key: ApiKey::ApiVersions, correlation_id, .. }) => {
                    stream.write_all(&response::unsupported_api_versions(correlation_id)).await.unwrap();
                    continue;
                }
                Err(e) => panic!("client sent what cannot be decoded: {e}"),
            };
            let range = self.versions(request.api_key());
            assert!(range.0 <= request.version && request.version <= range.1, "{request:?} was not offered");
            let key = request.api_key() as i16;
            let fault = self.0.borrow_mut().script.entry(key).or_default().pop_front().unwrap_or(Fault::None);
            if let Fault::CutBefore = fault {
                return;
            }
            let (version, id) = (request.version, request.correlation_id);
            let refusal = if let Fault::Code(code) = fault { Some(code) } else { None };
            if let RequestBody::Fetch(fetch) = &request.body
                && fetch.topics.iter().flat_map(|t| &t.partitions).all(|p| p.fetch_offset >= self.0.borrow().end)
            {
                env::time::sleep(std::time::Duration::from_millis(fetch.max_wait_ms as u64)).await;
            }
            let body = self.handle(request, refusal);
            let frame = response::encode(version, id, &body).unwrap();
            let written = match fault {
                Fault::None | Fault::Code(_) => stream.write_all(&frame).await,
                Fault::CutAfter => return,
                Fault::CutBefore | Fault::Silence => Ok(()),
                Fault::Garbage => stream.write_all(b"\0\0\0\x08HTTP/1.1").await,
                Fault::HalfResponse => {
                    let _ = stream.write_all(&frame[..frame.len() / 2]).await;
                    return;
                }
            };
            if written.is_err() {
                return;
            }
        }
    }

    fn versions(&self, key: ApiKey) -> (i16, i16) {
        let range = api::versions(key).unwrap();
        let old = self.0.borrow().old;
        let max = match key {
            ApiKey::ApiVersions if old => 0,
            ApiKey::Metadata if old => 5,
            ApiKey::Produce if old => 7,
            ApiKey::Fetch if old => 8,
            ApiKey::InitProducerId if old => 1,
            _ => range.max,
        };
        (range.min, max)
    }

    fn handle(&self, request: Request, refusal: Option<ErrorCode>) -> ResponseBody {
        let version = request.version;
        match request.body {
            RequestBody::ApiVersions(_) => self.api_versions().into(),
            RequestBody::Metadata(m) => self.metadata(&m, version).into(),
            RequestBody::Produce(m) => self.produce(m, version).into(),
            RequestBody::Fetch(m) => self.fetch(m, version).into(),
            RequestBody::InitProducerId(m) => self.init(m.transactional_id.as_deref()).into(),
            RequestBody::FindCoordinator(m) => {
                let coordinator = messages::find_coordinator_response::Coordinator::default()
                    .with_key(m.coordinator_keys[0].clone())
                    .with_node_id(NODE.into())
                    .with_host(str_bytes("127.0.0.1"))
                    .with_port(self.port().into());
                messages::FindCoordinatorResponse::default().with_coordinators(vec![coordinator]).into()
            }
            RequestBody::AddPartitionsToTxn(m) => {
                assert!(!self.0.borrow().v2, "the leader adds partitions");
                let id = m.v3_and_below_transactional_id.to_string();
                self.0.borrow_mut().transactional.get_mut(&id).unwrap().added = true;
                messages::AddPartitionsToTxnResponse::default().into()
            }
            RequestBody::EndTxn(m) => self.end_txn(&m, version).into(),
            RequestBody::ListOffsets(m) => {
                use messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
                let topics = m.topics.iter().map(|t| {
                    let p = ListOffsetsPartitionResponse::default()
                        .with_error_code(refusal.unwrap_or_default().code())
                        .with_offset(self.0.borrow().end);
                    ListOffsetsTopicResponse::default().with_name(t.name.clone()).with_partitions(vec![p])
                });
                messages::ListOffsetsResponse::default().with_topics(topics.collect()).into()
            }
            RequestBody::CreateTopics(m) => {
                use messages::create_topics_response::CreatableTopicResult;
                let mut state = self.0.borrow_mut();
                let topics = m.topics.iter().map(|t| {
                    let id = Uuid::from_u128(100 + state.topics.len() as u128);
                    let exists = state.topics.insert(t.name.to_string(), id).is_some();
                    let code = if exists { ErrorCode::TOPIC_ALREADY_EXISTS } else { ErrorCode::NONE };
                    CreatableTopicResult::default().with_name(t.name.clone()).with_error_code(code.code())
                });
                messages::CreateTopicsResponse::default().with_topics(topics.collect()).into()
            }
            other => panic!("not in the script: {other:?}"),
        }
    }

    fn api_versions(&self) -> messages::ApiVersionsResponse {
        use messages::api_versions_response::{ApiVersion, FinalizedFeatureKey};
        let keys = api::ALL.iter().map(|&key| {
            let (min, max) = self.versions(key);
            ApiVersion::default().with_api_key(key as i16).with_min_version(min).with_max_version(max)
        });
        let answer = messages::ApiVersionsResponse::default().with_api_keys(keys.collect());
        if self.0.borrow().old {
            return answer;
        }
        let level = if self.0.borrow().v2 { 2 } else { 1 };
        let feature = FinalizedFeatureKey::default()
            .with_name(str_bytes("transaction.version"))
            .with_max_version_level(level)
            .with_min_version_level(level);
        answer.with_finalized_features(vec![feature]).with_finalized_features_epoch(1)
    }

    fn metadata(&self, m: &messages::MetadataRequest, version: i16) -> messages::MetadataResponse {
        let state = self.0.borrow();
        let broker = metadata_response::MetadataResponseBroker::default()
            .with_node_id(NODE.into())
            .with_host(str_bytes("127.0.0.1"))
            .with_port(state.port.into());
        let topics = m.topics.iter().flatten().map(|t| {
            let name = t.name.clone().unwrap();
            let mut topic = metadata_response::MetadataResponseTopic::default().with_name(Some(name.clone()));
            match state.topics.get(name.as_str()) {
                None => topic.error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code(),
                Some(id) => {
                    let mut p = metadata_response::MetadataResponsePartition::default().with_leader_id(NODE.into());
                    if version >= 7 {
                        p.leader_epoch = 0;
                    }
                    topic.partitions = vec![p];
                    if version >= 10 {
                        topic.topic_id = *id;
                    }
                }
            }
            topic
        });
        messages::MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_controller_id(NODE.into())
            .with_topics(topics.collect())
    }

    fn produce(&self, m: messages::ProduceRequest, version: i16) -> messages::ProduceResponse {
        use messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
        let responses = m.topic_data.into_iter().map(|t| {
            let partitions = t.partition_data.into_iter().map(|p| {
                let answer = self.append(p.records.unwrap(), m.transactional_id.as_ref().map(|id| id.as_str()));
                let response = PartitionProduceResponse::default().with_index(p.index);
                match answer {
                    Ok(offset) => response.with_base_offset(offset),
                    Err(code) => response.with_error_code(code.code()),
                }
            });
            let response = TopicProduceResponse::default().with_partition_responses(partitions.collect());
            if version >= 13 {
                assert_eq!(t.topic_id, Uuid::from_u128(7));
                response.with_topic_id(t.topic_id)
            } else {
                response.with_name(t.name)
            }
        });
        messages::ProduceResponse::default().with_responses(responses.collect())
    }

    fn append(&self, batch: Bytes, transactional_id: Option<&str>) -> Result<i64, ErrorCode> {
        let mut state = self.0.borrow_mut();
        let header = BatchHeader::parse(&batch).unwrap();
        header.verify_crc(&batch).unwrap();
        header.check_produced().unwrap();
        assert_eq!(header.is_transactional(), transactional_id.is_some());
        if let Some(id) = transactional_id {
            let txn = state.transactional[id];
            if txn.epoch != header.producer_epoch {
                return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
            }
            assert!(state.v2 || txn.added, "produced to a partition that is not in the transaction");
        }
        let end = state.end;
        let (epoch, seen) = state.producers.entry(header.producer_id).or_default();
        if *epoch != header.producer_epoch {
            (*epoch, *seen) = (header.producer_epoch, VecDeque::new());
        }
        let sequences = (header.base_sequence, header.last_sequence());
        if let Some((_, _, offset)) = seen.iter().find(|(a, b, _)| (*a, *b) == sequences) {
            return Ok(*offset);
        }
        if header.base_sequence != seen.back().map_or(0, |(_, last, _)| add_sequence(*last, 1)) {
            return Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        }
        seen.push_back((sequences.0, sequences.1, end));
        if seen.len() > 5 {
            seen.pop_front();
        }
        if header.is_transactional() {
            state.ongoing.entry(header.producer_id).or_insert(end);
        }
        state.push(&batch);
        Ok(end)
    }

    fn fetch(&self, m: messages::FetchRequest, version: i16) -> messages::FetchResponse {
        use fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
        let state = self.0.borrow();
        let stable = state.ongoing.values().copied().min().unwrap_or(state.end);
        let committed = m.isolation_level == 1;
        let upper = if committed { stable } else { state.end };
        let responses = m.topics.into_iter().map(|t| {
            let partitions = t.partitions.iter().map(|p| {
                let mut records = BytesMut::new();
                for batch in &state.log {
                    let header = BatchHeader::parse(batch).unwrap();
                    if header.last_offset() >= p.fetch_offset && header.last_offset() < upper {
                        records.extend_from_slice(batch);
                    }
                }
                let aborted = state.aborted.iter().map(|(producer, first)| {
                    AbortedTransaction::default().with_producer_id((*producer).into()).with_first_offset(*first)
                });
                PartitionData::default()
                    .with_partition_index(p.partition)
                    .with_high_watermark(state.end)
                    .with_last_stable_offset(stable)
                    .with_aborted_transactions(committed.then(|| aborted.collect()))
                    .with_records(Some(records.freeze()))
            });
            let response = FetchableTopicResponse::default().with_partitions(partitions.collect());
            if version >= 13 { response.with_topic_id(t.topic_id) } else { response.with_topic(t.topic) }
        });
        messages::FetchResponse::default().with_responses(responses.collect())
    }

    fn init(&self, transactional_id: Option<&str>) -> InitProducerIdResponse {
        let mut state = self.0.borrow_mut();
        state.next_producer_id += 1;
        let fresh = state.next_producer_id;
        let Some(id) = transactional_id else {
            return InitProducerIdResponse { producer_id: fresh, producer_epoch: 0, ..Default::default() };
        };
        let txn =
            state.transactional.entry(id.to_owned()).or_insert(Txn { producer_id: fresh, epoch: -1, ..Txn::default() });
        txn.epoch += 1;
        (txn.ended, txn.added) = (None, false);
        let (producer_id, producer_epoch) = (txn.producer_id, txn.epoch);
        state.end_ongoing(producer_id, producer_epoch, false);
        InitProducerIdResponse { producer_id, producer_epoch, ..Default::default() }
    }

    fn end_txn(&self, m: &messages::EndTxnRequest, version: i16) -> messages::EndTxnResponse {
        let mut state = self.0.borrow_mut();
        let v2 = state.v2;
        assert_eq!(version, if v2 { 5 } else { 4 });
        let id = m.transactional_id.to_string();
        let txn = state.transactional[&id];
        let answer = messages::EndTxnResponse::default();
        let repeated = v2 && m.producer_epoch + 1 == txn.epoch && txn.ended == Some(m.committed);
        if !repeated && m.producer_epoch != txn.epoch {
            return answer.with_error_code(ErrorCode::PRODUCER_FENCED.code());
        }
        let mut next = txn;
        if !repeated {
            next.epoch += i16::from(v2);
            (next.ended, next.added) = (Some(m.committed), false);
            state.end_ongoing(txn.producer_id, next.epoch, m.committed);
            state.transactional.insert(id, next);
        }
        if v2 { answer.with_producer_id(next.producer_id.into()).with_producer_epoch(next.epoch) } else { answer }
    }
}

impl State {
    fn push(&mut self, batch: &Bytes) {
        let mut batch = BytesMut::from(&batch[..]);
        assign(&mut batch, self.end, 0);
        self.end = BatchHeader::parse(&batch).unwrap().next_offset();
        self.log.push(batch.freeze());
    }

    fn end_ongoing(&mut self, producer_id: i64, epoch: i16, commit: bool) {
        let Some(first) = self.ongoing.remove(&producer_id) else { return };
        let control_type = if commit { ControlType::Commit } else { ControlType::Abort };
        if !commit {
            self.aborted.push((producer_id, first));
        }
        self.push(&ControlRecord { control_type, coordinator_epoch: 0 }.batch(producer_id, epoch, 0));
    }
}
