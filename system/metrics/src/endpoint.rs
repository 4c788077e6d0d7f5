//! `GET /metrics` over HTTP/1.1: hyper's protocol on `env`'s sockets, so that it serves in both worlds.
//!
//! | bound | what happens at it |
//! |--|--|
//! | [`MAX_CONNECTIONS`] | a further connection is closed at once |
//! | [`CONNECTION`] | a connection is closed, whatever it is doing: Prometheus makes a new one |
//! | [`MAX_HEAD`] | a longer request is refused by hyper |
//!
//! No `Date` is sent: it would be the machine's clock, past `env`.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use env::net::{TcpListener, TcpStream};
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};

use crate::snapshot::{self, Snapshot};
use crate::stream::HttpStream;

/// Where the measurements are.
pub const PATH: &str = "/metrics";

/// Connections at a time.
pub const MAX_CONNECTIONS: usize = 16;
/// Longest life of a connection.
pub const CONNECTION: Duration = Duration::from_secs(300);
/// Longest request line with headers, in bytes.
pub const MAX_HEAD: usize = 16 << 10;

/// After an accept that failed (out of file descriptors, say).
const BACKOFF: Duration = Duration::from_millis(100);

/// Serves what `source` measures, each time anew, until dropped; connections that were accepted end by themselves.
pub async fn serve<F>(listener: TcpListener, source: impl Fn() -> F + 'static)
where
    F: Future<Output = Snapshot> + 'static,
{
    let source = Rc::new(source);
    let open = Rc::new(Cell::new(0));
    loop {
        match listener.accept().await {
            Ok((_, peer)) if open.get() >= MAX_CONNECTIONS => {
                tracing::warn!(%peer, "too many connections for metrics, closing one");
            }
            Ok((stream, peer)) => {
                let place = Place::take(&open);
                let source = Rc::clone(&source);
                env::task::spawn(async move {
                    let _place = place;
                    match env::time::timeout(CONNECTION, connection(stream, source)).await {
                        Ok(Ok(())) | Err(_) => {}
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection for metrics broke"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection for metrics");
                env::time::sleep(BACKOFF).await;
            }
        }
    }
}

/// One of the connections that are open.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn connection<F>(stream: TcpStream, source: Rc<impl Fn() -> F + 'static>) -> hyper::Result<()>
where
    F: Future<Output = Snapshot> + 'static,
{
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let source = Rc::clone(&source);
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &*source).await) }
    });
    let mut protocol = http1::Builder::new();
    protocol.auto_date_header(false).max_buf_size(MAX_HEAD);
    protocol.serve_connection(HttpStream(stream), service).await
}

async fn answer<F: Future<Output = Snapshot>>(
    method: &Method,
    path: &str,
    source: &impl Fn() -> F,
) -> Response<Full<Bytes>> {
    if path != PATH {
        return plain(StatusCode::NOT_FOUND, format!("metrics are at {PATH}\n"));
    }
    if method != Method::GET && method != Method::HEAD {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics can be got only\n".to_owned());
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    plain(StatusCode::OK, source().await.render())
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(snapshot::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
