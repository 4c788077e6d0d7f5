//! `--metrics`: one endpoint for all nodes of this process, each with its own label `node`.
//!
//! Each node owns its counters, on its own thread: for a scrape it is asked over a channel and answers between two of its
//! own turns. A node that ended, or does not answer within [`PATIENCE`], is `streamproof_node_up 0`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Snapshot, endpoint};
use tokio::sync::{mpsc, oneshot};

use super::nodes::{Event, Node};

/// How long a scrape waits for a node.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions that wait at a node; further ones are not asked.
const QUESTIONS: usize = 16;

type Question = oneshot::Sender<Snapshot>;

/// A node that can be asked.
#[derive(Clone, Debug)]
struct Source {
    node: String,
    ask: mpsc::Sender<Question>,
}

/// All of them, in the order they were started.
#[derive(Clone, Debug, Default)]
pub struct Sources(Arc<Mutex<Vec<Source>>>);

/// Where a node is asked.
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<Question>);

impl Sources {
    pub fn register(&self, node: &str) -> Questions {
        let (ask, asked) = mpsc::channel(QUESTIONS);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Source { node: node.to_owned(), ask });
        Questions(asked)
    }

    async fn ask_all(&self) -> Snapshot {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let deadline = env::clock::now() + PATIENCE;
        let asked: Vec<_> = sources
            .into_iter()
            .map(|Source { node, ask }| {
                let (reply, answer) = oneshot::channel();
                (node, ask.try_send(reply).is_ok().then_some(answer))
            })
            .collect();
        let mut all = Snapshot::default();
        for (node, answer) in asked {
            let answered = match answer {
                Some(answer) => env::time::timeout_at(deadline, answer).await.ok().and_then(Result::ok),
                None => None,
            };
            let up = answered.is_some().into();
            let mut of_node = answered.unwrap_or_default();
            of_node.gauge("streamproof_node_up", "1 if the node answered this scrape", &[], up);
            all.merge(&node, of_node);
        }
        all
    }
}

impl Questions {
    /// Answers for as long as it is polled.
    pub async fn answer(mut self, snapshot: impl AsyncFn() -> Snapshot) {
        while let Some(reply) = self.0.recv().await {
            // Whoever asked may have given up.
            let _ = reply.send(snapshot().await);
        }
    }
}

/// The endpoint.
///
/// # Errors
/// If no thread can be started.
pub fn endpoint(listen: SocketAddr, sources: Sources, events: std::sync::mpsc::Sender<Event>) -> std::io::Result<Node> {
    Node::start("metrics", events, move |events, stop| async move {
        let bound = match env::net::TcpListener::bind(listen).await {
            Ok(listener) => listener.local_addr().map(|at| (listener, at)),
            Err(error) => Err(error),
        };
        let (listener, at) = match bound {
            Ok(bound) => bound,
            Err(error) => {
                let _ = events.send(Event::Refused(format!("failed to listen on {listen}: {error} (--metrics)")));
                return Ok(());
            }
        };
        let _ = events.send(Event::MetricsUp(at));
        let source = move || {
            let sources = sources.clone();
            async move { sources.ask_all().await }
        };
        env::select! {
            _ = stop => {}
            () = endpoint::serve(listener, source) => {}
        }
        Ok(())
    })
}
