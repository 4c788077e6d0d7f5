//! One client's connection.
//!
//! Requests take effect in the order they came (see [`Turn`]) and are answered in that order. At most `max_in_flight`
//! requests, and at most one largest frame's worth of bytes, are between having been read and having been answered;
//! beyond that nothing is read, so a client that does not read its answers stops itself. Whatever is not a request
//! closes the connection.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use env::io::{AsyncReadExt, AsyncWriteExt};
use env::net::{ReadHalf, TcpStream, WriteHalf};
use env::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use protocol::frame::FrameDecoder;
use protocol::request::DecodeError;
use protocol::{ApiKey, request, response};

use crate::context::Context;
use crate::dispatch;
use crate::turn::Turn;

type Handling = Pin<Box<dyn Future<Output = Option<Bytes>>>>;

/// An answer in its place: there, or still being made.
enum Answer {
    Ready(Option<Bytes>),
    Pending(Handling),
}

struct Queued {
    answer: Answer,
    /// Produce without acknowledgement: no answer is due, and none is a failure.
    silent: bool,
    _place: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// Serves the connection until it ends, breaks, idles for too long, or `closing` is called: then what was read is
/// answered first.
pub(crate) async fn serve(context: Rc<Context>, stream: TcpStream, peer: IpAddr, closing: Rc<Closing>) {
    let (reader, writer) = stream.into_split();
    let (answers, queue) = mpsc::channel(context.config.max_in_flight);
    let idle = context.config.connection_idle;
    let mut writing = env::task::spawn(write(writer, queue, idle)).abort_on_drop();
    env::select! {
        // The client is gone, or one answer could not be made: the rest would be misread.
        _ = &mut writing => return,
        () = read(context, reader, peer, answers, closing) => {}
    }
    let _ = writing.await;
}

/// Tells connections to end.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    closing: std::cell::Cell<bool>,
    told: Notify,
}

impl Closing {
    pub fn close(&self) {
        self.closing.set(true);
        self.told.notify_waiters();
    }

    async fn told(&self) {
        let told = self.told.notified();
        if !self.closing.get() {
            told.await;
        }
    }
}

/// A client that reads nothing for `idle` is gone.
async fn write(mut writer: WriteHalf, mut queue: mpsc::Receiver<Queued>, idle: Duration) {
    while let Some(Queued { answer, silent, .. }) = queue.recv().await {
        let answer = match answer {
            Answer::Ready(answer) => answer,
            Answer::Pending(handling) => handling.await,
        };
        match answer {
            Some(frame) => {
                if !matches!(env::time::timeout(idle, writer.write_all(&frame)).await, Ok(Ok(()))) {
                    return;
                }
            }
            None if silent => {}
            None => break,
        }
    }
    let _ = writer.shutdown().await;
}

async fn read(
    context: Rc<Context>,
    mut reader: ReadHalf,
    peer: IpAddr,
    answers: mpsc::Sender<Queued>,
    closing: Rc<Closing>,
) {
    let config = &context.config;
    let places = Arc::new(Semaphore::new(config.max_in_flight));
    let budget = Arc::new(Semaphore::new(kib(config.max_frame_bytes) as usize));
    let mut decoder = FrameDecoder::new(u32::try_from(config.max_frame_bytes).unwrap_or(u32::MAX));
    let mut idle_at = env::clock::now() + config.connection_idle;
    let mut idle = Box::pin(env::time::sleep_until(idle_at));
    loop {
        let frame = match decoder.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                // Closing comes first: a client that sends without pause must not hold up the end.
                let read = env::select! {
                    () = closing.told() => return,
                    read = reader.read_buf(decoder.buffer_mut()) => read,
                    () = &mut idle => {
                        if env::clock::now() >= idle_at {
                            return;
                        }
                        idle = Box::pin(env::time::sleep_until(idle_at));
                        continue;
                    }
                };
                match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {
                        idle_at = env::clock::now() + config.connection_idle;
                        continue;
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "closing a connection");
                return;
            }
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok(bytes) = Arc::clone(&budget).acquire_many_owned(kib(frame.len())).await else { return };
        let mut silent = false;
        let answer = match request::decode(frame) {
            Ok(request) => {
                silent = matches!(&request.body, protocol::RequestBody::Produce(p) if p.acks == 0);
                let (turn, mut passed) = Turn::new();
                let mut handling: Handling = Box::pin(dispatch::handle(Rc::clone(&context), request, peer, turn));
                env::select! {
                    answer = &mut handling => Answer::Ready(answer),
                    () = passed.passed() => Answer::Pending(handling),
                }
            }
            // A newer client asks: it learns what is spoken here, and asks again (KIP-511).
            Err(DecodeError::UnsupportedVersion { api_key: ApiKey::ApiVersions, correlation_id, .. }) => {
                Answer::Ready(Some(response::unsupported_api_versions(correlation_id)))
            }
            Err(error) => {
                tracing::debug!(%error, "closing a connection");
                return;
            }
        };
        let queued = Queued { answer, silent, _place: place, _bytes: bytes };
        if answers.send(queued).await.is_err() {
            return;
        }
    }
}

/// Rounded up, at least one.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX)
}
