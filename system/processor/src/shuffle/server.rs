//! The receiving end of a worker's channels: one listener for the worker's life, endpoints for one attempt at a time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use env::net::{ReadHalf, TcpListener, TcpStream};
use env::sync::mpsc;
use env::task::AbortOnDrop;

use super::{ChannelId, Incoming, Message, Reply};
use crate::control;
use crate::task_set::TaskSet;

/// Who takes what arrives on a channel. Taken by the first connection that asks.
type Endpoints = BTreeMap<ChannelId, mpsc::Sender<Incoming>>;

#[derive(Debug, Default)]
struct State {
    endpoints: Endpoints,
    connections: TaskSet,
}

#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    state: Rc<RefCell<State>>,
    _accepting: AbortOnDrop<()>,
}

impl Server {
    pub async fn bind(addr: SocketAddr, hello_timeout: Duration) -> env::io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let state = Rc::new(RefCell::new(State::default()));
        let accepting = env::task::spawn(accept(listener, Rc::clone(&state), hello_timeout)).abort_on_drop();
        Ok(Self { addr, state, _accepting: accepting })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Opens a channel for an attempt; at most `capacity` messages wait in it.
    pub fn open(&self, id: ChannelId, capacity: usize) -> mpsc::Receiver<Incoming> {
        let (tx, rx) = mpsc::channel(capacity);
        self.state.borrow_mut().endpoints.insert(id, tx);
        rx
    }

    /// Takes a channel for a sender on this worker.
    pub fn take(&self, id: &ChannelId) -> Option<mpsc::Sender<Incoming>> {
        self.state.borrow_mut().endpoints.remove(id)
    }

    /// Ends every channel and connection: nothing of the attempt is left when it returns.
    pub async fn clear(&self) {
        let connections = {
            let mut state = self.state.borrow_mut();
            state.endpoints.clear();
            std::mem::take(&mut state.connections)
        };
        connections.stop().await;
    }
}

async fn accept(listener: TcpListener, state: Rc<RefCell<State>>, hello_timeout: Duration) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = serve(stream, Rc::clone(&state), hello_timeout);
                state.borrow_mut().connections.spawn(serving);
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a channel");
                env::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, state: Rc<RefCell<State>>, hello_timeout: Duration) {
    let (mut from, mut to) = stream.into_split();
    let hello = env::time::timeout(hello_timeout, control::read_message::<ChannelId, _>(&mut from)).await;
    let Ok(Ok((id, _))) = hello else { return };
    let endpoint = state.borrow_mut().endpoints.remove(&id);
    let reply = if endpoint.is_some() { Reply::Accepted } else { Reply::Refused };
    env::sometimes!(endpoint.is_none(), "a channel of another attempt was refused");
    let replied = control::write_message(&mut to, &reply, &[]).await;
    let Some(endpoint) = endpoint else { return };
    let why = match replied {
        Ok(()) => receive(&mut from, &id, &endpoint).await,
        Err(e) => e.to_string(),
    };
    let _ = endpoint.send(Incoming::Broken(why)).await;
}

/// Moves messages until the channel breaks; returns why.
async fn receive(from: &mut ReadHalf, id: &ChannelId, endpoint: &mpsc::Sender<Incoming>) -> String {
    let mut next = 0;
    loop {
        let content = match control::read_frame(from).await {
            Ok(content) => content,
            Err(e) => return e.to_string(),
        };
        match Message::decode(content) {
            Ok((generation, seq, message)) if generation == id.generation && seq == next => {
                next += 1;
                if endpoint.send(Incoming::Message(message)).await.is_err() {
                    return "the receiving task is gone".into();
                }
            }
            Ok((generation, seq, _)) => {
                return format!("message {seq} of generation {generation}, where {next} of {} was due", id.generation);
            }
            Err(e) => return e.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Outbound, ShuffleError};
    use super::*;

    fn id(generation: u64) -> ChannelId {
        ChannelId { generation, from: "source-0".into(), to: "window-0".into() }
    }

    const TIMEOUT: Duration = Duration::from_secs(5);

    async fn server() -> Server {
        Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), TIMEOUT).await.unwrap()
    }

    #[test]
    fn messages_arrive_in_order_and_a_lost_sender_is_noticed() {
        env::node::run_real(async {
            let server = server().await;
            let mut rx = server.open(id(3), 2);
            let mut out = Outbound::connect(server.local_addr(), &id(3), TIMEOUT).await.unwrap();
            let sending = env::task::spawn(async move {
                for n in 0..100 {
                    out.send(Message::Barrier(n)).await.unwrap();
                }
            });
            for n in 0..100 {
                let Some(Incoming::Message(m)) = rx.recv().await else { panic!("broken at {n}") };
                assert_eq!(m, Message::Barrier(n));
            }
            sending.await.unwrap();
            assert!(matches!(rx.recv().await, Some(Incoming::Broken(_))));
        })
        .unwrap();
    }

    #[test]
    fn other_generations_and_second_connections_are_refused() {
        env::node::run_real(async {
            let server = server().await;
            let _rx = server.open(id(3), 2);
            let other = Outbound::connect(server.local_addr(), &id(2), TIMEOUT).await;
            assert!(matches!(other, Err(ShuffleError::Refused(2))));
            let _first = Outbound::connect(server.local_addr(), &id(3), TIMEOUT).await.unwrap();
            let second = Outbound::connect(server.local_addr(), &id(3), TIMEOUT).await;
            assert!(matches!(second, Err(ShuffleError::Refused(3))));
        })
        .unwrap();
    }

    #[test]
    fn a_message_of_an_older_attempt_breaks_the_channel() {
        use env::io::AsyncWriteExt as _;
        env::node::run_real(async {
            let server = server().await;
            let mut rx = server.open(id(3), 2);
            let mut out = Outbound::connect(server.local_addr(), &id(3), TIMEOUT).await.unwrap();
            let Outbound::Remote { to, .. } = &mut out else { panic!("local") };
            to.write_all(&Message::Barrier(1).encode(2, 0)).await.unwrap();
            assert!(matches!(rx.recv().await, Some(Incoming::Broken(_))));
        })
        .unwrap();
    }

    #[test]
    fn a_full_channel_makes_its_sender_wait_and_clear_ends_it() {
        env::node::run_real(async {
            let server = server().await;
            let rx = server.open(id(3), 1);
            let mut local = Outbound::Local(server.take(&id(3)).unwrap());
            local.send(Message::Barrier(0)).await.unwrap();
            let full = env::time::timeout(Duration::from_millis(10), local.send(Message::Barrier(1))).await;
            assert!(full.is_err());
            drop(rx);
            assert!(matches!(local.send(Message::Barrier(2)).await, Err(ShuffleError::Closed)));
            let mut rx = server.open(id(4), 1);
            server.clear().await;
            assert!(rx.recv().await.is_none());
        })
        .unwrap();
    }
}
