//! The listener.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use env::net::TcpListener;
use env::sync::Notify;

use crate::connection::{self, Closing};
use crate::context::Context;

/// After an accept that failed (out of file descriptors, say).
const BACKOFF: Duration = Duration::from_millis(100);

/// Open connections of a broker.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Cell<usize>,
    closed: Notify,
}

struct Open(Rc<Connections>);

impl Connections {
    fn open(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        Open(Rc::clone(self))
    }

    pub fn count(&self) -> usize {
        self.open.get()
    }

    pub async fn all_closed(&self) {
        loop {
            let closed = self.closed.notified();
            if self.open.get() == 0 {
                return;
            }
            closed.await;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.closed.notify_waiters();
    }
}

/// Accepts connections until dropped.
pub(crate) async fn listen(
    listener: TcpListener,
    context: Rc<Context>,
    connections: Rc<Connections>,
    closing: Rc<Closing>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if connections.open.get() >= context.config.max_connections {
                    tracing::warn!(%peer, "too many connections, closing one");
                    continue;
                }
                let open = connections.open();
                let serving = connection::serve(Rc::clone(&context), stream, peer.ip(), Rc::clone(&closing));
                env::task::spawn(async move {
                    serving.await;
                    drop(open);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                env::time::sleep(BACKOFF).await;
            }
        }
    }
}
