//! Calls to another broker: one connection, opened at the first call and again after it broke.
//!
//! Calls are pipelined: sent in the order they are made, answered in that order. One that gets no answer in time closes
//! the connection, since nothing behind it can be trusted to come; its outcome is unknown. Brokers of one cluster are of
//! one build, so versions are not negotiated. How long to wait before another try is the caller's business.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use env::io::{AsyncReadExt, AsyncWriteExt};
use env::net::{ReadHalf, TcpStream, WriteHalf};
use env::sync::{Mutex, mpsc, oneshot};
use env::task::AbortOnDrop;
use protocol::frame::FrameDecoder;
use protocol::{ApiKey, RequestBody, ResponseBody, request, response};

/// How a call to a peer failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PeerError {
    /// It has certainly not arrived.
    #[error("not sent: {0}")]
    NotSent(Cow<'static, str>),
    /// It may have taken effect.
    #[error("no answer: {0}")]
    Lost(Cow<'static, str>),
}

#[derive(Clone, Copy, Debug)]
pub struct PeerConfig {
    pub connect_timeout: Duration,
    /// Largest answer, in bytes.
    pub max_response_bytes: usize,
}

/// A broker as seen from another. Clones share its connection.
#[derive(Clone)]
pub struct Peer(Rc<Inner>);

struct Inner {
    client_id: String,
    host: String,
    port: u16,
    config: PeerConfig,
    connection: RefCell<Option<Rc<Connection>>>,
    /// One caller opens, the others wait for it.
    opening: Mutex<()>,
}

impl Peer {
    /// `me` is the id of the calling broker.
    pub fn new(me: i32, host: String, port: u16, config: PeerConfig) -> Self {
        Self(Rc::new(Inner {
            client_id: format!("broker-{me}"),
            host,
            port,
            config,
            connection: RefCell::default(),
            opening: Mutex::new(()),
        }))
    }

    pub fn address(&self) -> (&str, u16) {
        (&self.0.host, self.0.port)
    }

    /// Sends the request and waits for its answer. `timeout` counts from when it is written, connecting has its own.
    pub async fn call(&self, version: i16, body: &RequestBody, timeout: Duration) -> Result<ResponseBody, PeerError> {
        let connection = self.connection().await?;
        let receiver = connection.submit(&self.0.client_id, version, body)?;
        match env::time::timeout(timeout, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(PeerError::Lost("connection dropped".into())),
            Err(env::time::Elapsed) => {
                connection.shared.close("request timed out");
                Err(PeerError::Lost("request timed out".into()))
            }
        }
    }

    async fn connection(&self) -> Result<Rc<Connection>, PeerError> {
        if let Some(open) = self.open() {
            return Ok(open);
        }
        let _opening = self.0.opening.lock().await;
        if let Some(open) = self.open() {
            return Ok(open);
        }
        let (host, port) = (self.0.host.as_str(), self.0.port);
        let not_sent = |e: String| PeerError::NotSent(e.into());
        let connect = async {
            let addrs = env::net::lookup(host, port).await?;
            let mut last = std::io::Error::other("no address");
            for addr in addrs {
                match TcpStream::connect(addr).await {
                    Ok(stream) => return Ok(stream),
                    Err(e) => last = e,
                }
            }
            Err(last)
        };
        let stream = match env::time::timeout(self.0.config.connect_timeout, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(not_sent(format!("failed to connect to {host}:{port}: {e}"))),
            Err(env::time::Elapsed) => return Err(not_sent(format!("connecting to {host}:{port} timed out"))),
        };
        let connection = Rc::new(Connection::start(stream, self.0.config.max_response_bytes));
        *self.0.connection.borrow_mut() = Some(Rc::clone(&connection));
        Ok(connection)
    }

    fn open(&self) -> Option<Rc<Connection>> {
        self.0.connection.borrow().as_ref().filter(|c| c.shared.closed.borrow().is_none()).cloned()
    }
}

type Answer = Result<ResponseBody, PeerError>;

struct Pending {
    correlation_id: i32,
    api_key: ApiKey,
    version: i16,
    reply: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Shared {
    next_correlation_id: Cell<i32>,
    /// In the order they were sent, which is the order of the answers.
    pending: RefCell<VecDeque<Pending>>,
    closed: RefCell<Option<Cow<'static, str>>>,
}

impl Shared {
    /// Ends the connection and every call on it. The first reason stays.
    fn close(&self, reason: impl Into<Cow<'static, str>>) {
        let reason = self.closed.borrow_mut().get_or_insert_with(|| reason.into()).clone();
        for call in self.pending.take() {
            let _ = call.reply.send(Err(PeerError::Lost(reason.clone())));
        }
    }
}

struct Connection {
    shared: Rc<Shared>,
    outbox: mpsc::UnboundedSender<Bytes>,
    _writer: AbortOnDrop<()>,
    _reader: AbortOnDrop<()>,
}

impl Connection {
    fn start(stream: TcpStream, max_response_bytes: usize) -> Self {
        let (reader, writer) = stream.into_split();
        let shared = Rc::new(Shared::default());
        let (outbox, frames) = mpsc::unbounded_channel();
        let decoder = FrameDecoder::new(u32::try_from(max_response_bytes).unwrap_or(u32::MAX));
        Self {
            _writer: env::task::spawn(write_loop(writer, frames, Rc::clone(&shared))).abort_on_drop(),
            _reader: env::task::spawn(read_loop(reader, decoder, Rc::clone(&shared))).abort_on_drop(),
            shared,
            outbox,
        }
    }

    /// Synchronous, so that the order of calls is the order on the wire. What waits here is bounded by the callers,
    /// each of which waits for its answer.
    fn submit(
        &self,
        client_id: &str,
        version: i16,
        body: &RequestBody,
    ) -> Result<oneshot::Receiver<Answer>, PeerError> {
        if let Some(reason) = &*self.shared.closed.borrow() {
            return Err(PeerError::NotSent(reason.clone()));
        }
        let id = self.shared.next_correlation_id.get();
        let frame = request::encode(version, id, Some(client_id), body);
        let frame = frame.map_err(|e| PeerError::NotSent(e.to_string().into()))?;
        self.shared.next_correlation_id.set(id.wrapping_add(1));
        let (reply, receiver) = oneshot::channel();
        let call = Pending { correlation_id: id, api_key: body.api_key(), version, reply };
        self.shared.pending.borrow_mut().push_back(call);
        // A writer that is gone has closed the connection, and with it this call.
        let _ = self.outbox.send(frame);
        Ok(receiver)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close("connection dropped");
    }
}

async fn write_loop(mut writer: WriteHalf, mut frames: mpsc::UnboundedReceiver<Bytes>, shared: Rc<Shared>) {
    while let Some(frame) = frames.recv().await {
        if shared.closed.borrow().is_some() {
            return;
        }
        if let Err(e) = writer.write_all(&frame).await {
            return shared.close(format!("failed to write: {e}"));
        }
    }
}

async fn read_loop(mut reader: ReadHalf, mut decoder: FrameDecoder, shared: Rc<Shared>) {
    loop {
        match reader.read_buf(decoder.buffer_mut()).await {
            Ok(0) => return shared.close("closed by the other side"),
            Ok(_) => {}
            Err(e) => return shared.close(format!("failed to read: {e}")),
        }
        loop {
            let done = match decoder.next() {
                Ok(Some(frame)) => complete(&shared, frame),
                Ok(None) => break,
                Err(e) => Err(e.to_string()),
            };
            if let Err(reason) = done {
                return shared.close(reason);
            }
        }
    }
}

fn complete(shared: &Shared, frame: Bytes) -> Result<(), String> {
    let id = response::correlation_id(&frame).map_err(|e| e.to_string())?;
    let next = shared.pending.borrow_mut().pop_front_if(|p| p.correlation_id == id);
    let Some(call) = next else { return Err(format!("answer {id} is not the next one")) };
    match response::decode(call.api_key, call.version, frame) {
        Ok((_, body)) => {
            // The caller may have gone.
            let _ = call.reply.send(Ok(body));
            Ok(())
        }
        Err(e) => {
            let reason = format!("{:?} v{}: {e}", call.api_key, call.version);
            let _ = call.reply.send(Err(PeerError::Lost(reason.clone().into())));
            Err(reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use env::net::TcpListener;
    use protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

    use super::*;

    const CONFIG: PeerConfig = PeerConfig { connect_timeout: Duration::from_secs(5), max_response_bytes: 1 << 20 };
    const LONG: Duration = Duration::from_secs(5);

    /// Answers `answered` requests, then closes.
    async fn serve(listener: &TcpListener, answered: usize) {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let mut decoder = FrameDecoder::new(1 << 20);
        for _ in 0..answered {
            let frame = loop {
                if let Some(frame) = decoder.next().unwrap() {
                    break frame;
                }
                reader.read_buf(decoder.buffer_mut()).await.unwrap();
            };
            let asked = request::decode(frame).unwrap();
            let answer = response::encode(3, asked.correlation_id, &ApiVersionsResponse::default().into()).unwrap();
            writer.write_all(&answer).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    }

    #[test]
    fn a_broken_connection_fails_its_calls_and_the_next_call_opens_another() {
        env::node::run_real(async {
            let listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
            let addr = listener.local_addr().unwrap();
            let serving = env::task::spawn(async move {
                serve(&listener, 2).await;
                serve(&listener, 1).await;
                // Accepts and never answers.
                let silent = listener.accept().await.unwrap();
                env::time::sleep(LONG).await;
                drop(silent);
            });
            let peer = Peer::new(1, addr.ip().to_string(), addr.port(), CONFIG);
            let ask = RequestBody::from(ApiVersionsRequest::default());
            for _ in 0..2 {
                assert!(matches!(peer.call(3, &ask, LONG).await, Ok(ResponseBody::ApiVersions(_))));
            }
            // Sent before the end was seen, or after: lost, or answered by the next connection.
            while peer.call(3, &ask, LONG).await.is_err() {}
            let mut last = peer.call(3, &ask, Duration::from_millis(50)).await;
            if last == Err(PeerError::Lost("closed by the other side".into())) {
                last = peer.call(3, &ask, Duration::from_millis(50)).await;
            }
            assert_eq!(last, Err(PeerError::Lost("request timed out".into())));
            drop(serving.abort_on_drop());
            let gone = Peer::new(1, "127.0.0.1".into(), 1, CONFIG);
            assert!(matches!(gone.call(3, &ask, LONG).await, Err(PeerError::NotSent(_))));
        })
        .unwrap();
    }
}
