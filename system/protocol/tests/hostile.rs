//! Frames from a peer that means harm: no panic, and no more memory than the bytes it sent are worth.

use std::process::Command;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use protocol::batch::{BatchBuilder, Compression, Limits, Record, decode_records, split};
use protocol::messages::{FetchRequest, MetadataRequest, ProduceRequest};
use protocol::{ApiKey, RequestBody, api, request, response, topic_name};
use streamproof_protocol as protocol;

fn valid_frames() -> Vec<Bytes> {
    use protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    use protocol::messages::metadata_request::MetadataRequestTopic;
    use protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    let mut builder = BatchBuilder::new();
    builder.push(&Record { value: Some(Bytes::from_static(b"value")), ..Record::default() });
    let data = PartitionProduceData::default().with_records(Some(builder.build()));
    let topic = TopicProduceData::default().with_name(topic_name("t")).with_partition_data(vec![data]);
    let produce: RequestBody = ProduceRequest::default().with_topic_data(vec![topic]).into();
    let topic = FetchTopic::default().with_topic(topic_name("t")).with_partitions(vec![FetchPartition::default()]);
    let fetch: RequestBody = FetchRequest::default().with_topics(vec![topic]).into();
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
    let metadata: RequestBody = MetadataRequest::default().with_topics(Some(vec![topic])).into();
    let init: RequestBody = protocol::InitProducerIdRequest::default().into();
    let versions =
        [(3, &produce), (9, &produce), (4, &fetch), (12, &fetch), (0, &metadata), (12, &metadata), (6, &init)];
    versions.iter().map(|(v, body)| request::encode(*v, 7, Some("c"), body).unwrap().slice(4..)).collect()
}

proptest! {
    #[test]
    fn arbitrary_requests(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = request::decode(bytes.into());
    }

    #[test]
    fn arbitrary_bodies(
        at in 0..api::ALL.len(),
        version in 0i16..18,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let key = api::ALL[at];
        let mut frame = BytesMut::new();
        frame.put_i16(key as i16);
        frame.put_i16(version);
        frame.put_i32(1);
        frame.put_i16(-1);
        if api::request_header_version(key, version) == 2 {
            frame.put_u8(0);
        }
        frame.put_slice(&bytes);
        let _ = request::decode(frame.freeze());
        if api::versions(key).is_some_and(|r| r.min <= version && version <= r.max) {
            let _ = response::decode(key, version, Bytes::from(bytes));
        }
    }

    #[test]
    fn mutated_requests(which in 0usize..7, edits in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4)) {
        let mut frame = valid_frames()[which].to_vec();
        for (at, byte) in edits {
            let at = usize::from(at) % frame.len();
            frame[at] = byte;
        }
        let _ = request::decode(frame.into());
    }

    #[test]
    fn mutated_batches(codec in 0usize..5, edits in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4)) {
        let codecs =
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
        let mut builder = BatchBuilder::new().compression(codecs[codec]);
        for i in 0..20 {
            builder.push(&Record { timestamp: i, value: Some(Bytes::from_static(b"some value")), ..Record::default() });
        }
        let mut batch = builder.build().to_vec();
        for (at, byte) in edits {
            let at = usize::from(at) % batch.len();
            batch[at] = byte;
        }
        for (_, batch) in split(batch.into()).flatten() {
            let _ = decode_records(&batch, &Limits { max_decompressed_bytes: 1 << 20 });
        }
    }
}

#[test]
fn valid_frames_are_valid() {
    for frame in valid_frames() {
        request::decode(frame).unwrap();
    }
}

const IN_CHILD: &str = "STREAMPROOF_HOSTILE_CHILD";
/// Address space of the child in KiB: enough for the test binary, not for what the frames ask for.
const CHILD_KIB: u32 = 512 * 1024;

/// Runs the attacks in a child whose address space is limited: an attempt to allocate what they ask for aborts it.
#[test]
fn attacks_fit_into_little_memory() {
    if std::env::var_os(IN_CHILD).is_some() {
        return attack();
    }
    let test = std::env::current_exe().unwrap();
    let script =
        format!("ulimit -v {CHILD_KIB} && exec \"$0\" --exact attacks_fit_into_little_memory --test-threads 1");
    let child = Command::new("sh").arg("-c").arg(script).arg(test).env(IN_CHILD, "1").output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

fn attack() {
    // Arrays of two thousand million elements, as the first field and deeper.
    for (key, version) in api::ALL.iter().copied().flat_map(|k| {
        let range = api::versions(k).unwrap();
        (range.min..=range.max).map(move |v| (k, v))
    }) {
        for huge in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
            for lead in 0..40 {
                let mut frame = BytesMut::new();
                frame.put_i16(key as i16);
                frame.put_i16(version);
                frame.put_i32(1);
                frame.put_i16(-1);
                if api::request_header_version(key, version) == 2 {
                    frame.put_u8(0);
                }
                frame.put_bytes(0, lead);
                frame.put_slice(huge);
                frame.put_bytes(0, 40);
                let _ = request::decode(frame.clone().freeze());
                let _ = response::decode(key, version, frame.split_off(6).freeze());
            }
        }
    }
    // Compressed records that are a thousand times their size.
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::new().compression(codec);
        builder.push(&Record { value: Some(vec![0; 64 << 20].into()), ..Record::default() });
        let batch = builder.build();
        drop(builder);
        for _ in 0..8 {
            assert!(decode_records(&batch, &Limits { max_decompressed_bytes: 1 << 20 }).is_err(), "{codec}");
        }
    }
    // A count of records that the bytes cannot hold.
    let mut builder = BatchBuilder::new();
    builder.push(&Record::default());
    let mut batch = builder.build().to_vec();
    batch[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    assert!(decode_records(&batch.into(), &Limits::default()).is_err());
    assert_eq!(request::decode(Bytes::new()).unwrap_err().to_string(), "malformed message: 2 bytes wanted, 0 left");
    assert!(matches!(
        request::decode(Bytes::from_static(&[0, 18, 0, 9, 0, 0, 0, 5])),
        Err(request::DecodeError::UnsupportedVersion { api_key: ApiKey::ApiVersions, version: 9, correlation_id: 5 })
    ));
}
