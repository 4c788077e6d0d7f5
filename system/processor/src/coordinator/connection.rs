//! One worker's connection: registration, heartbeats, and messages both ways.

use std::time::Duration;

use bytes::Bytes;
use env::net::TcpStream;
use env::sync::mpsc;

use super::driver::Event;
use super::machine::Input;
use crate::control::{self, ToCoordinator, ToWorker};

/// Messages waiting for a slow worker; one that lets more pile up is lost.
pub(super) const OUTBOX: usize = 256;

pub(super) type Outbox = mpsc::Sender<(ToWorker, Bytes)>;

/// Serves the connection `id` to its end, and reports it.
pub(super) async fn serve(id: u64, stream: TcpStream, silence: Duration, events: mpsc::Sender<Event>) {
    let (mut from, mut to) = stream.into_split();
    let hello = env::time::timeout(silence, control::read_message::<ToCoordinator, _>(&mut from)).await;
    let Ok(Ok((ToCoordinator::Register { worker, shuffle }, _))) = hello else { return };
    let (outbox, mut waiting) = mpsc::channel::<(ToWorker, Bytes)>(OUTBOX);
    // Weak: once the coordinator has dropped its end, because a newer connection took this one's place, the connection
    // closes, and a worker that still listens here registers again.
    let heartbeats = outbox.downgrade();
    let registered = Event::Registered { connection: id, worker: worker.clone(), shuffle, outbox };
    if events.send(registered).await.is_err() {
        return;
    }
    let writing = async {
        while let Some((message, payload)) = waiting.recv().await {
            let written = env::time::timeout(silence, control::write_message(&mut to, &message, &payload)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
    };
    let reading = async {
        loop {
            let next = env::time::timeout(silence, control::read_message(&mut from)).await;
            let Ok(Ok((message, payload))) = next else { return };
            if message == ToCoordinator::Heartbeat {
                let Some(outbox) = heartbeats.upgrade() else { return };
                if outbox.try_send((ToWorker::Heartbeat, Bytes::new())).is_err() {
                    return;
                }
                continue;
            }
            let input = Input::Message { worker: worker.clone(), message, payload };
            if events.send(Event::Input { connection: Some(id), input }).await.is_err() {
                return;
            }
        }
    };
    // Both borrow the connection and end with it.
    env::select! {
        () = writing => {}
        () = reading => {}
    }
    let input = Input::Lost { worker: worker.clone() };
    let _ = events.send(Event::Input { connection: Some(id), input }).await;
}
