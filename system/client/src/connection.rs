//! One connection to one broker: versions negotiated, requests pipelined in the order they were submitted, responses
//! matched in order by correlation id. A response that does not come within the request's time-out closes the connection, since
//! the broker answers in order and nothing after it can be trusted to come.
//!
//! Two tasks, one that writes and one that reads, live as long as the handle. Once closed it stays closed: all requests
//! in flight end as `Lost`, and the pool opens a new one.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use env::io::{AsyncReadExt, AsyncWriteExt};
use env::net::{ReadHalf, TcpStream, WriteHalf};
use env::sync::{mpsc, oneshot};
use env::task::AbortOnDrop;
use protocol::frame::FrameDecoder;
use protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use protocol::{ApiKey, ErrorCode, RequestBody, ResponseBody, api, request, response, str_bytes};

use crate::config::ClientConfig;
use crate::error::CallError;

/// Frames joined into one write, at most about this long.
const WRITE_BYTES: usize = 64 * 1024;

pub(crate) struct Connection {
    client_id: String,
    shared: Rc<RefCell<Shared>>,
    outbox: mpsc::UnboundedSender<Bytes>,
    _writer: AbortOnDrop<()>,
    _reader: AbortOnDrop<()>,
}

#[derive(Default)]
struct Shared {
    versions: BTreeMap<i16, (i16, i16)>,
    features: BTreeMap<String, i16>,
    next_correlation_id: i32,
    /// In the order they were submitted, which is the order of the responses.
    pending: VecDeque<Pending>,
    closed: Option<Cow<'static, str>>,
}

struct Pending {
    correlation_id: i32,
    api_key: ApiKey,
    version: i16,
    reply: oneshot::Sender<Result<ResponseBody, CallError>>,
}

/// A response to come. Dropping it abandons the response, not the request.
pub(crate) struct Reply {
    shared: Rc<RefCell<Shared>>,
    receiver: oneshot::Receiver<Result<ResponseBody, CallError>>,
    timeout: Duration,
}

impl Reply {
    /// The response, or `Lost`. A time-out closes the connection.
    pub async fn wait(self) -> Result<ResponseBody, CallError> {
        match env::time::timeout(self.timeout, self.receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(CallError::Lost("connection dropped".into())),
            Err(env::time::Elapsed) => {
                close(&self.shared, "request timed out");
                Err(CallError::Lost("request timed out".into()))
            }
        }
    }
}

impl Connection {
    /// Connects to the first address that accepts and asks it for its versions.
    pub async fn open(addrs: &[SocketAddr], config: &ClientConfig) -> Result<Self, CallError> {
        let mut last: Cow<'static, str> = "no address".into();
        for &addr in addrs {
            match env::time::timeout(config.connect_timeout, TcpStream::connect(addr)).await {
                Ok(Ok(stream)) => {
                    let connection = Self::start(stream, config);
                    connection.negotiate(config).await?;
                    return Ok(connection);
                }
                Ok(Err(e)) => last = format!("failed to connect to {addr}: {e}").into(),
                Err(env::time::Elapsed) => last = format!("connecting to {addr} timed out").into(),
            }
        }
        Err(CallError::NotSent(last))
    }

    fn start(stream: TcpStream, config: &ClientConfig) -> Self {
        let (reader, writer) = stream.into_split();
        let shared = Rc::new(RefCell::new(Shared::default()));
        let (outbox, frames) = mpsc::unbounded_channel();
        let max = config.max_response_bytes;
        Self {
            client_id: config.client_id.clone(),
            _writer: env::task::spawn(write_loop(writer, frames, Rc::clone(&shared))).abort_on_drop(),
            _reader: env::task::spawn(read_loop(reader, FrameDecoder::new(max), Rc::clone(&shared))).abort_on_drop(),
            shared,
            outbox,
        }
    }

    async fn negotiate(&self, config: &ClientConfig) -> Result<(), CallError> {
        let unusable = |why: Cow<'static, str>| CallError::NotSent(format!("version negotiation: {why}").into());
        let ask = ApiVersionsRequest::default()
            .with_client_software_name(str_bytes("streamproof"))
            .with_client_software_version(str_bytes(env!("CARGO_PKG_VERSION")));
        let mut answer = self.ask_versions(3, ask, config).await.map_err(|e| unusable(e.to_string().into()))?;
        if ErrorCode::from_code(answer.error_code) == ErrorCode::UNSUPPORTED_VERSION {
            let ask = ApiVersionsRequest::default();
            answer = self.ask_versions(0, ask, config).await.map_err(|e| unusable(e.to_string().into()))?;
        }
        let code = ErrorCode::from_code(answer.error_code);
        if !code.is_ok() {
            return Err(unusable(code.to_string().into()));
        }
        let mut shared = self.shared.borrow_mut();
        shared.versions = answer.api_keys.iter().map(|v| (v.api_key, (v.min_version, v.max_version))).collect();
        shared.features = answer.finalized_features.iter().map(|f| (f.name.to_string(), f.max_version_level)).collect();
        Ok(())
    }

    async fn ask_versions(
        &self,
        version: i16,
        ask: ApiVersionsRequest,
        config: &ClientConfig,
    ) -> Result<ApiVersionsResponse, CallError> {
        match self.submit(version, &ask.into(), config.request_timeout)?.wait().await? {
            ResponseBody::ApiVersions(answer) => Ok(answer),
            _ => Err(CallError::Lost("answer to another request".into())),
        }
    }

    /// The newest version of an API that both sides speak, up to `max`.
    pub fn version_up_to(&self, api_key: ApiKey, max: i16) -> Result<i16, CallError> {
        let unsupported = CallError::Unsupported(api_key);
        let ours = api::versions(api_key).ok_or_else(|| unsupported.clone())?;
        let &(min, theirs) = self.shared.borrow().versions.get(&(api_key as i16)).ok_or_else(|| unsupported.clone())?;
        let version = theirs.min(ours.max).min(max);
        if version < min.max(ours.min) { Err(unsupported) } else { Ok(version) }
    }

    /// The finalized level of a feature of the cluster, 0 if it has none.
    pub fn feature(&self, name: &str) -> i16 {
        self.shared.borrow().features.get(name).copied().unwrap_or(0)
    }

    pub fn is_closed(&self) -> bool {
        self.shared.borrow().closed.is_some()
    }

    /// Queues a request behind those submitted before. Synchronous, so that the order of calls is the order on the wire.
    pub fn submit(&self, version: i16, body: &RequestBody, timeout: Duration) -> Result<Reply, CallError> {
        let (reply, receiver) = oneshot::channel();
        let frame = {
            let mut shared = self.shared.borrow_mut();
            if let Some(reason) = &shared.closed {
                return Err(CallError::NotSent(reason.clone()));
            }
            let id = shared.next_correlation_id;
            let frame = request::encode(version, id, Some(&self.client_id), body)
                .map_err(|e| CallError::NotSent(e.to_string().into()))?;
            shared.next_correlation_id = id.wrapping_add(1);
            shared.pending.push_back(Pending { correlation_id: id, api_key: body.api_key(), version, reply });
            frame
        };
        // A writer that is gone has closed the connection, and with it this request.
        let _ = self.outbox.send(frame);
        Ok(Reply { shared: Rc::clone(&self.shared), receiver, timeout })
    }

    /// Queues a request that the broker does not answer (Produce with acks=0).
    pub fn submit_unanswered(&self, version: i16, body: &RequestBody) -> Result<(), CallError> {
        let mut shared = self.shared.borrow_mut();
        if let Some(reason) = &shared.closed {
            return Err(CallError::NotSent(reason.clone()));
        }
        let frame = request::encode(version, shared.next_correlation_id, Some(&self.client_id), body)
            .map_err(|e| CallError::NotSent(e.to_string().into()))?;
        shared.next_correlation_id = shared.next_correlation_id.wrapping_add(1);
        let _ = self.outbox.send(frame);
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        close(&self.shared, "connection dropped");
    }
}

/// Ends the connection and every request on it. The first reason stays.
fn close(shared: &Rc<RefCell<Shared>>, reason: impl Into<Cow<'static, str>>) {
    let pending = {
        let mut shared = shared.borrow_mut();
        if shared.closed.is_none() {
            shared.closed = Some(reason.into());
        }
        std::mem::take(&mut shared.pending)
    };
    let reason = shared.borrow().closed.clone().unwrap_or_default();
    for request in pending {
        let _ = request.reply.send(Err(CallError::Lost(reason.clone())));
    }
}

async fn write_loop(mut writer: WriteHalf, mut frames: mpsc::UnboundedReceiver<Bytes>, shared: Rc<RefCell<Shared>>) {
    while let Some(first) = frames.recv().await {
        let mut chunk = first;
        if let Ok(second) = frames.try_recv() {
            let mut joined = BytesMut::from(&chunk[..]);
            joined.extend_from_slice(&second);
            while joined.len() < WRITE_BYTES
                && let Ok(next) = frames.try_recv()
            {
                joined.extend_from_slice(&next);
            }
            chunk = joined.freeze();
        }
        if shared.borrow().closed.is_some() {
            return;
        }
        if let Err(e) = writer.write_all(&chunk).await {
            return close(&shared, format!("failed to write: {e}"));
        }
    }
}

async fn read_loop(mut reader: ReadHalf, mut decoder: FrameDecoder, shared: Rc<RefCell<Shared>>) {
    loop {
        match reader.read_buf(decoder.buffer_mut()).await {
            Ok(0) => return close(&shared, "closed by the broker"),
            Ok(_) => {}
            Err(e) => return close(&shared, format!("failed to read: {e}")),
        }
        loop {
            match decoder.next() {
                Ok(Some(frame)) => {
                    if let Err(reason) = complete(&shared, frame) {
                        return close(&shared, reason);
                    }
                }
                Ok(None) => break,
                Err(e) => return close(&shared, e.to_string()),
            }
        }
    }
}

fn complete(shared: &Rc<RefCell<Shared>>, frame: Bytes) -> Result<(), String> {
    let id = response::correlation_id(&frame).map_err(|e| e.to_string())?;
    // A broker answers in order. One that leaves a request out would let a sixth batch of a partition be sent while the
    // first is unanswered, and could not recognise the first when it is repeated.
    let Some(pending) = shared.borrow_mut().pending.pop_front_if(|p| p.correlation_id == id) else {
        return Err(format!("response {id} is not the next one"));
    };
    match response::decode(pending.api_key, pending.version, frame) {
        Ok((_, body)) => {
            // The caller may have stopped waiting.
            let _ = pending.reply.send(Ok(body));
            Ok(())
        }
        Err(e) => {
            let reason = format!("{:?} v{}: {e}", pending.api_key, pending.version);
            let _ = pending.reply.send(Err(CallError::Lost(reason.clone().into())));
            Err(reason)
        }
    }
}
