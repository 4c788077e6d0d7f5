//! `serve` in short: it listens, refuses what would harm others, drains and stops when told. The long story, with other
//! people's clients and kill -9, is `tests/interop/run`.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::{JOB, transcript};

pub(super) struct Server {
    pub(super) child: Child,
    stdout: BufReader<ChildStdout>,
    pub(super) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn command(dir: &Path, listen: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamproof"));
    command.current_dir(dir).env("STREAMPROOF_LISTEN", listen).arg("serve").args(args);
    command
}

impl Server {
    fn start(dir: &Path, args: &[&str]) -> Server {
        Server::start_at("127.0.0.1:0", dir, args)
    }

    fn start_at(listen: &str, dir: &Path, args: &[&str]) -> Server {
        let mut server = Server::spawn(command(dir, listen, args));
        server.address = server.tells("listening on ");
        server
    }

    /// It may not listen yet.
    pub(super) fn spawn(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Server { child, stdout, address: String::new() }
    }

    /// What the next line of its output says after `what`.
    pub(super) fn tells(&mut self, what: &str) -> String {
        let line = self.line();
        line.strip_prefix(what).unwrap_or_else(|| panic!("{line:?}")).to_owned()
    }

    pub(super) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(super) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    pub(super) fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

#[test]
fn drains_at_the_first_signal_and_stops_at_the_second() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("job.toml"), JOB).unwrap();
    let args = ["--job", "job.toml", "--data", "d", "--until-end"];
    let mut server = Server::start(dir.path(), &args);
    server.signal("-TERM");
    assert_eq!(server.line(), "drained");
    server.signal("-INT");
    assert_eq!(server.exit_code(), Some(0));
    // Drained is for good: a new start says so by itself, and one signal ends it.
    let mut server = Server::start(dir.path(), &args);
    assert_eq!(server.line(), "drained");
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_held_directory_and_a_port_in_use_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--data", "d"]);
    let refused = |listen: &str, args: &[&str]| {
        transcript(&command(dir.path(), listen, args).output().unwrap()).replace(&server.address, "ADDRESS")
    };
    insta::assert_snapshot!(refused("127.0.0.1:0", &["--data", "d"]), @r#"
    exit 2
    -- stderr
    error: data directory d is held by another process
    "#);
    insta::assert_snapshot!(refused(&server.address, &["--data", "e"]), @r#"
    exit 2
    -- stderr
    error: failed to listen on ADDRESS: the address is in use (STREAMPROOF_LISTEN names another one)
    "#);
    assert!(!dir.path().join("e").exists(), "a refused command made its data directory");
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = refused(&foreign.local_addr().unwrap().to_string(), &["--data", "e"]);
    assert!(text.starts_with("exit 2\n-- stderr\nerror: failed to listen on "), "{text}");
    insta::assert_snapshot!(refused("here", &["--data", "e"]), @r#"
    exit 2
    -- stderr
    error: STREAMPROOF_LISTEN=`here` is no address: write one such as 127.0.0.1:9092
    "#);
    server.signal("-TERM");
}

#[test]
fn a_directory_of_another_version_or_another_program_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for (name, file, text) in [("v", "streamproof.json", "{\"version\":7}"), ("x", "precious.txt", "x")] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join(file), text).unwrap();
    }
    let refused = |data: &str| {
        let output = command(dir.path(), "127.0.0.1:0", &["--data", data]).output().unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join(data)).unwrap().count(), 1, "it wrote into {data}");
        transcript(&output)
    };
    insta::assert_snapshot!(refused("v"), @r#"
    exit 2
    -- stderr
    error: data directory v has version 7, this program reads versions 1 to 2
    "#);
    insta::assert_snapshot!(refused("x"), @r#"
    exit 2
    -- stderr
    error: data directory x is not empty and not streamproof's: precious.txt is in it
    "#);
}

#[test]
fn until_end_needs_a_job() {
    let dir = tempfile::tempdir().unwrap();
    let output = command(dir.path(), "127.0.0.1:0", &["--until-end"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", transcript(&output));
}

/// The first of three ports in a row that nobody holds.
pub(super) fn three_ports() -> u16 {
    (0..50)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
        .find(|first| {
            let held: Vec<_> =
                (0..3).map_while(|n| TcpListener::bind(("127.0.0.1", first.checked_add(n)?)).ok()).collect();
            held.len() == 3
        })
        .expect("three free ports in a row")
}

#[test]
fn three_brokers_in_one_process_drain_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("job.toml"), JOB).unwrap();
    let args = ["--job", "job.toml", "--data", "d", "--until-end", "--brokers", "3"];
    let first = three_ports();
    let mut server = Server::start_at(&format!("127.0.0.1:{first}"), dir.path(), &args);
    let all: Vec<String> = (first..first + 3).map(|port| format!("127.0.0.1:{port}")).collect();
    assert_eq!(server.address, all.join(","));
    server.signal("-TERM");
    assert_eq!(server.line(), "drained");
    server.signal("-INT");
    assert_eq!(server.exit_code(), Some(0));
    for id in 0..3 {
        assert!(dir.path().join(format!("d/broker-{id}")).is_dir());
    }
    let refused = command(dir.path(), "127.0.0.1:0", &["--job", "job.toml", "--data", "d"]).output().unwrap();
    insta::assert_snapshot!(transcript(&refused), @r#"
    exit 2
    -- stderr
    error: data directory d is that of a cluster of 3, not 1: give another --data
    "#);
}

#[test]
fn clusters_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |args: &[&str]| transcript(&command(dir.path(), "127.0.0.1:0", args).output().unwrap());
    insta::assert_snapshot!(refused(&["--brokers", "3"]), @r#"
    exit 2
    -- stderr
    error: 3 brokers need 3 ports from 127.0.0.1:0: STREAMPROOF_LISTEN names another first one
    "#);
    insta::assert_snapshot!(refused(&["--broker-id", "7", "--quorum", "0@127.0.0.1:9092"]), @r#"
    exit 2
    -- stderr
    error: --broker-id 7 is not in --quorum
    "#);
    insta::assert_snapshot!(refused(&["--broker-id", "0", "--quorum", "0@127.0.0.1:9092,1@127.0.0.1:9093"]), @r#"
    exit 2
    -- stderr
    error: --quorum names 1, 3 or 5 brokers, each with an id of its own
    "#);
    assert!(refused(&["--brokers", "2"]).contains("a quorum has 1, 3 or 5 brokers"));
    assert!(refused(&["--broker-id", "0", "--quorum", "here"]).contains("write a broker as ID@ADDRESS:PORT"));
}
