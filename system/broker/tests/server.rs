//! A broker on real sockets and files: strangers' bytes, pipelining, and data directories that are not its own.

#![allow(clippy::disallowed_methods, reason = "the test stands outside the broker and meddles with its files")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use client::{Admin, Client, ClientConfig, NewTopic, Producer, ProducerConfig};
use env::io::{AsyncReadExt, AsyncWriteExt};
use env::net::TcpStream;
use protocol::batch::Record;
use protocol::frame::FrameDecoder;
use protocol::messages::{ApiVersionsRequest, MetadataRequest};
use protocol::{ApiKey, ErrorCode, RequestBody, ResponseBody, request, response, str_bytes};
use streamproof_broker::{Broker, BrokerConfig, BrokerError};

fn on_node<F: Future>(f: impl FnOnce(PathBuf) -> F) -> F::Output {
    let dir = tempfile::tempdir().unwrap();
    env::node::run_real(f(dir.path().join("data"))).unwrap()
}

fn config(dir: &Path) -> BrokerConfig {
    BrokerConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        data_dir: dir.to_owned(),
        max_frame_bytes: 64 << 10,
        max_in_flight: 4,
        ..BrokerConfig::default()
    }
}

fn client(broker: &Broker) -> Client {
    Client::new(ClientConfig::new(vec![("127.0.0.1".to_owned(), broker.local_addr().port())]))
}

/// Everything the broker sends until it closes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = env::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the broker closes the connection");
    bytes
}

async fn answer(stream: &mut TcpStream, decoder: &mut FrameDecoder) -> Bytes {
    loop {
        if let Some(frame) = decoder.next().unwrap() {
            return frame;
        }
        assert_ne!(stream.read_buf(decoder.buffer_mut()).await.unwrap(), 0, "closed");
    }
}

fn api_versions() -> RequestBody {
    ApiVersionsRequest::default()
        .with_client_software_name(str_bytes("test"))
        .with_client_software_version(str_bytes("1"))
        .into()
}

#[test]
fn what_is_not_a_request_closes_the_connection_and_nothing_else() {
    on_node(|dir| async move {
        let broker = Broker::start(config(&dir)).await.unwrap();
        let garbage: &[&[u8]] = &[
            b"GET / HTTP/1.1\r\n\r\n",
            b"\xff\xff\xff\xff",
            b"\x7f\xff\xff\xff",
            b"\x00\x01\x00\x01",
            b"\x00\x00\x00\x00",
            b"\x00\x00\x00\x01\x00",
            // An API that does not exist, a version that does not, a body cut short.
            b"\x00\x00\x00\x0a\x7f\x00\x00\x00\x00\x00\x00\x01\xff\xff",
            b"\x00\x00\x00\x0a\x00\x03\x7f\x00\x00\x00\x00\x01\xff\xff",
            b"\x00\x00\x00\x0e\x00\x03\x00\x01\x00\x00\x00\x01\xff\xff\x7f\xff\xff\xff",
        ];
        for bytes in garbage {
            let mut stream = TcpStream::connect(broker.local_addr()).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            assert_eq!(rest(&mut stream).await, b"", "{bytes:?}");
        }
        let mut stream = TcpStream::connect(broker.local_addr()).await.unwrap();
        let frame = request::encode(3, 7, Some("t"), &api_versions()).unwrap();
        stream.write_all(&frame).await.unwrap();
        let frame = answer(&mut stream, &mut FrameDecoder::new(1 << 20)).await;
        let (correlation_id, body) = response::decode(ApiKey::ApiVersions, 3, frame).unwrap();
        let ResponseBody::ApiVersions(body) = body else { panic!() };
        assert_eq!((correlation_id, body.error_code), (7, 0));
        let found = body.api_keys.iter().find(|k| k.api_key == ApiKey::InitProducerId as i16).unwrap();
        assert_eq!(found.max_version, 6);
        broker.shutdown().await.unwrap();
    });
}

#[test]
fn a_version_of_api_versions_from_the_future_is_answered() {
    on_node(|dir| async move {
        let broker = Broker::start(config(&dir)).await.unwrap();
        let mut stream = TcpStream::connect(broker.local_addr()).await.unwrap();
        stream.write_all(b"\x00\x00\x00\x0a\x00\x12\x00\x63\x00\x00\x00\x09\xff\xff").await.unwrap();
        let frame = answer(&mut stream, &mut FrameDecoder::new(1 << 20)).await;
        let (correlation_id, body) = response::decode(ApiKey::ApiVersions, 0, frame).unwrap();
        let ResponseBody::ApiVersions(body) = body else { panic!() };
        assert_eq!((correlation_id, body.error_code), (9, ErrorCode::UNSUPPORTED_VERSION.code()));
    });
}

#[test]
fn pipelined_requests_are_answered_in_order_however_many() {
    on_node(|dir| async move {
        let broker = Broker::start(config(&dir)).await.unwrap();
        let stream = TcpStream::connect(broker.local_addr()).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        const N: i32 = 2_000;
        let writing = env::task::spawn(async move {
            for id in 0..N {
                let body: RequestBody =
                    if id % 2 == 0 { api_versions() } else { MetadataRequest::default().with_topics(None).into() };
                let version = if id % 2 == 0 { 3 } else { 9 };
                writer.write_all(&request::encode(version, id, None, &body).unwrap()).await.unwrap();
            }
            writer
        });
        let mut decoder = FrameDecoder::new(1 << 20);
        for id in 0..N {
            let frame = loop {
                if let Some(frame) = decoder.next().unwrap() {
                    break frame;
                }
                assert_ne!(reader.read_buf(decoder.buffer_mut()).await.unwrap(), 0, "closed");
            };
            assert_eq!(response::correlation_id(&frame).unwrap(), id);
        }
        drop(writing.await);
    });
}

#[test]
fn a_stopped_broker_comes_back_with_what_it_had() {
    on_node(|dir| async move {
        let broker = Broker::start(config(&dir)).await.unwrap();
        let c = client(&broker);
        let admin = Admin::new(c.clone());
        assert_eq!(admin.create_topics(&[NewTopic::new("t", 2)]).await.unwrap()["t"], Ok(()));
        let again = admin.create_topics(&[NewTopic::new("t", 2), NewTopic::new("no/good", 1)]).await.unwrap();
        assert_eq!(again["t"], Err(ErrorCode::TOPIC_ALREADY_EXISTS));
        assert_eq!(again["no/good"], Err(ErrorCode::INVALID_TOPIC_EXCEPTION));
        let producer = Producer::new(c, ProducerConfig::default());
        for n in 0..100 {
            let record = Record { value: Some(vec![n].into()), ..Record::default() };
            let delivery = producer.send("t", 1, record).await;
            if n == 99 {
                assert_eq!(delivery.await.unwrap().offset, Some(99));
            }
        }
        broker.shutdown().await.unwrap();
        let broker = Broker::start(config(&dir)).await.unwrap();
        let admin = Admin::new(client(&broker));
        let metadata = admin.metadata(&["t"]).await.unwrap();
        assert_eq!(metadata.topics["t"].partitions.len(), 2);
        let place = client::TopicPartition::new("t", 1);
        let end = admin
            .list_offsets(std::slice::from_ref(&place), client::OffsetSpec::Latest, client::Isolation::ReadCommitted)
            .await
            .unwrap();
        assert_eq!(end[&place], Some(100));
        broker.shutdown().await.unwrap();
    });
}

fn listing(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = if path.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
        found.push((path, bytes));
    }
    found.sort();
    found
}

#[test]
fn a_directory_that_is_not_ours_is_refused_untouched() {
    on_node(|dir| async move {
        let refused = |dir: PathBuf| async move {
            let before = listing(&dir);
            let error = match Broker::start(config(&dir)).await {
                Ok(_) => panic!("started on {}", dir.display()),
                Err(error) => error,
            };
            assert_eq!(listing(&dir), before, "touched after: {error}");
            error
        };
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("thesis.doc"), "all of it").unwrap();
        let error = refused(dir.clone()).await;
        assert!(matches!(&error, BrokerError::Foreign { found, .. } if found == "thesis.doc"), "{error}");
        std::fs::remove_file(dir.join("thesis.doc")).unwrap();

        let broker = Broker::start(config(&dir)).await.unwrap();
        let error = refused(dir.clone()).await;
        assert!(matches!(error, BrokerError::Held { .. }), "{error}");
        let port = broker.local_addr();
        let other = dir.with_file_name("other");
        let taken = BrokerConfig { listen: port, ..config(&other) };
        let error = Broker::start(taken).await.err().unwrap();
        assert!(matches!(error, BrokerError::Bind { .. }), "{error}");
        assert!(!other.exists());
        broker.shutdown().await.unwrap();

        let meta = dir.join("meta.properties");
        let good = std::fs::read_to_string(&meta).unwrap();
        let with = |from: &str, to: &str| std::fs::write(&meta, good.replace(from, to)).unwrap();
        with("streamproof.format=1", "streamproof.format=2");
        let error = refused(dir.clone()).await;
        assert!(matches!(&error, BrokerError::Version { found, .. } if found == "2"), "{error}");
        with("streamproof.format=1\n", "");
        let error = refused(dir.clone()).await;
        assert!(matches!(&error, BrokerError::Version { .. }), "{error}");
        with("node.id=1", "node.id=2");
        let error = refused(dir.clone()).await;
        assert!(matches!(&error, BrokerError::Identity { what: "node", .. }), "{error}");
        with("cluster.id=streamproof", "cluster.id=other");
        let error = refused(dir.clone()).await;
        assert!(matches!(&error, BrokerError::Identity { what: "cluster", .. }), "{error}");
        with("node.id=1", "node.id=one");
        let error = refused(dir.clone()).await;
        assert!(matches!(&error, BrokerError::Meta { .. }), "{error}");
        std::fs::write(&meta, &good).unwrap();

        let broker = Broker::start(config(&dir)).await.unwrap();
        Admin::new(client(&broker)).create_topics(&[NewTopic::new("t", 1)]).await.unwrap();
        broker.shutdown().await.unwrap();
        std::fs::remove_dir_all(dir.join("t-0")).unwrap();
        let error = Broker::start(config(&dir)).await.err().unwrap();
        assert!(matches!(&error, BrokerError::Storage { .. }), "{error}");
        assert!(!dir.join("t-0").exists(), "an empty log in place of a lost one");
    });
}
