//! What `serve` lets people see while it runs: metrics over HTTP for real, and its log.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::serves::{Server, command, three_ports};
use super::{JOB, transcript};

const ACTIVE: &str = "kafka_controller_kafkacontroller_activecontrollercount";
const REPLICATED: &str = "kafka_server_replicamanager_partitioncount";

/// One scrape, as samples by name and labels.
fn scrape(url: &str) -> BTreeMap<String, i64> {
    let address = url.strip_prefix("http://").and_then(|u| u.strip_suffix("/metrics")).expect("a URL of metrics");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let samples = body.lines().filter(|l| !l.starts_with('#'));
    samples
        .map(|l| l.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

fn sum(series: &BTreeMap<String, i64>, family: &str) -> i64 {
    series.iter().filter(|(name, _)| name.split('{').next() == Some(family)).map(|(_, value)| value).sum()
}

/// Scrapes until `holds`.
fn scrape_until(url: &str, holds: impl Fn(&BTreeMap<String, i64>) -> bool) -> BTreeMap<String, i64> {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let series = scrape(url);
        if holds(&series) {
            return series;
        }
        assert!(Instant::now() < deadline, "not within 40 s: {series:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn one_endpoint_serves_the_metrics_of_all_nodes_of_the_process() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("job.toml"), JOB).unwrap();
    let args = ["--job", "job.toml", "--data", "d", "--brokers", "3", "--metrics", "127.0.0.1:0"];
    let mut server = Server::spawn(command(dir.path(), &format!("127.0.0.1:{}", three_ports()), &args));
    let url = server.tells("metrics on ");
    server.tells("listening on ");
    let series = scrape_until(&url, |s| {
        sum(s, "flink_jobmanager_job_running") == 1
            && sum(s, "flink_jobmanager_job_numberofcompletedcheckpoints_total") > 0
            && sum(s, "streamproof_node_up") == 6
            && sum(s, "kafka_server_replicamanager_underreplicatedpartitions") == 0
    });
    for node in ["broker-0", "broker-1", "broker-2", "coordinator", "worker-0", "worker-1"] {
        assert_eq!(series[&format!("streamproof_node_up{{node=\"{node}\"}}")], 1, "{series:#?}");
    }
    assert_eq!(sum(&series, ACTIVE), 1, "{series:#?}");
    assert_eq!(sum(&series, "kafka_server_kafkaserver_brokerstate"), 9, "all three run: {series:#?}");
    assert_eq!(sum(&series, "flink_jobmanager_numregisteredtaskmanagers"), 2);
    assert!(series.contains_key("kafka_server_replicamanager_leadercount{node=\"broker-2\"}"), "{series:#?}");
    let watermarks = series.keys().filter(|k| k.starts_with("flink_taskmanager_job_task_currentwatermark{")).count();
    assert!(watermarks > 0, "{series:#?}");
    assert!(sum(&series, REPLICATED) > 3);
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_process_of_one_broker_has_an_endpoint_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--data", "d", "--metrics", "127.0.0.1:0"];
    let mut server = Server::spawn(command(dir.path(), "127.0.0.1:0", &args));
    let url = server.tells("metrics on ");
    server.tells("listening on ");
    let series = scrape_until(&url, |s| sum(s, ACTIVE) == 1);
    assert_eq!(series["streamproof_node_up{node=\"broker\"}"], 1);
    assert_eq!(series["streamproof_broker_starts_total{node=\"broker\"}"], 1);
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn an_address_in_use_and_a_filter_that_is_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = |args: &[&str]| {
        let output = command(dir.path(), "127.0.0.1:0", args).output().unwrap();
        transcript(&output).replace(&address, "ADDRESS")
    };
    insta::assert_snapshot!(refused(&["--data", "d", "--metrics", &address]), @r#"
    exit 2
    -- stderr
    error: failed to listen on ADDRESS: the address is in use (--metrics)
    "#);
    assert!(!dir.path().join("d").exists(), "a refused command made its data directory");
    let text = refused(&["--data", "d", "--log", "verbose=perhaps"]);
    assert!(text.starts_with("exit 2\n") && text.contains("write a level (off, error, warn, info"), "{text}");
    assert!(!dir.path().join("d").exists());
}

#[test]
fn the_log_is_structured_and_says_which_node_and_partition() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("job.toml"), JOB).unwrap();
    let cluster = ["--job", "job.toml", "--data", "d", "--brokers", "3", "--metrics", "127.0.0.1:0"];
    let log = ["--log", "streamproof_broker=debug,streamproof_processor=info", "--log-format", "json"];
    let args = [&cluster[..], &log[..]].concat();
    let mut command = command(dir.path(), &format!("127.0.0.1:{}", three_ports()), &args);
    command.stderr(Stdio::piped());
    let mut server = Server::spawn(command);
    let mut stderr = server.child.stderr.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let url = server.tells("metrics on ");
    server.tells("listening on ");
    scrape_until(&url, |s| sum(s, "flink_jobmanager_job_numberofcommittedcheckpoints_total") > 0);
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(0));
    let log = reading.join().unwrap().unwrap();
    let events: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    let with = |message: &str| events.iter().filter(|e| e["fields"]["message"] == message).collect::<Vec<_>>();
    let up = with("broker is up");
    assert_eq!(up.len(), 3, "{log}");
    for event in up {
        let node = event["fields"]["node"].as_i64().unwrap();
        assert_eq!(event["span"]["id"], format!("broker-{node}"), "{event}");
        assert_eq!(event["level"], "INFO");
    }
    assert!(!with("active controller").is_empty(), "{log}");
    let roles = with("role changed");
    assert!(!roles.is_empty(), "{log}");
    for event in roles {
        let fields = &event["fields"];
        assert!(fields["topic"].is_string() && fields["partition"].is_i64(), "{event}");
        assert!(fields["node"].is_i64() && fields["epoch"].is_i64(), "{event}");
    }
    let checkpoints = with("checkpoint is committed");
    assert_eq!(checkpoints[0]["span"]["id"], "coordinator");
    assert!(checkpoints[0]["fields"]["checkpoint"].is_u64(), "{}", checkpoints[0]);
}
