//! The endpoint over the simulated network: what is served, what is refused, and that it stays bounded.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use env::io::{AsyncReadExt, AsyncWriteExt};
use env::net::{TcpListener, TcpStream};
use streamproof_metrics::{Snapshot, endpoint};
use world::{Config, on_seed};

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 9464);
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

async fn server() {
    let listener = TcpListener::bind(SERVER).await.unwrap();
    let scrapes = Rc::new(Cell::new(0));
    let source = move || {
        let scrapes = Rc::clone(&scrapes);
        async move {
            scrapes.set(scrapes.get() + 1);
            let mut snapshot = Snapshot::default();
            snapshot.counter("scrapes_total", "Scrapes", &[], scrapes.get());
            snapshot
        }
    };
    endpoint::serve(listener, source).await;
}

/// Sends `request` and reads until the server closes or says nothing more for a second.
async fn exchange(stream: &mut TcpStream, request: &str) -> String {
    let mut answer = Vec::new();
    if stream.write_all(request.as_bytes()).await.is_ok() {
        while let Ok(Ok(n)) = env::time::timeout(Duration::from_secs(1), stream.read_buf(&mut answer)).await {
            if n == 0 {
                break;
            }
        }
    }
    String::from_utf8(answer).unwrap()
}

async fn ask(request: &str) -> String {
    exchange(&mut TcpStream::connect(SERVER).await.unwrap(), request).await
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

async fn client(done: Rc<RefCell<Option<String>>>) {
    let text = "# HELP scrapes_total Scrapes\n# TYPE scrapes_total counter\nscrapes_total ";
    let answer = ask(&get("/metrics")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    assert!(answer.ends_with(&format!("\r\n\r\n{text}1\n")), "{answer}");
    assert!(!answer.to_lowercase().contains("\r\ndate:"), "the machine's clock is in {answer}");

    // One connection, several scrapes, as Prometheus does it.
    let mut kept = TcpStream::connect(SERVER).await.unwrap();
    for n in 2..4 {
        let answer = exchange(&mut kept, &get("/metrics")).await;
        assert!(answer.ends_with(&format!("{text}{n}\n")), "{answer}");
    }
    let head = ask("HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");

    for (request, status) in [
        (get("/"), "404"),
        (get("/metrics/../x"), "404"),
        ("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_owned(), "405"),
        ("\0\0\0\u{1}nonsense\r\n\r\n".to_owned(), "400"),
        (format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(2 * endpoint::MAX_HEAD)), "431"),
    ] {
        let answer = ask(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.40}: {answer}");
    }

    let mut silent = Vec::new();
    for _ in 0..endpoint::MAX_CONNECTIONS {
        silent.push(TcpStream::connect(SERVER).await.unwrap());
    }
    env::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ask(&get("/metrics")).await, "", "one more than there may be");
    drop((silent, kept));
    env::time::sleep(Duration::from_secs(1)).await;
    let answer = ask(&get("/metrics")).await;
    *done.borrow_mut() = Some(answer);
}

#[test]
fn it_serves_refuses_and_stays_bounded() {
    let answered = on_seed(Config::new(1, 1), |world| async move {
        let done = Rc::default();
        world.add_node("server", "server", SERVER.ip(), server);
        let told = Rc::clone(&done);
        world.add_node("client", "client", CLIENT, move || client(Rc::clone(&told)));
        world.sleep(Duration::from_secs(60)).await;
        done.borrow_mut().take()
    });
    let answer = answered.unwrap_or_else(|failed| panic!("{failed}")).value.expect("the client is done");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}
