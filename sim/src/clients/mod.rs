//! The workload: each client is a node that runs its script over `system/client` and records what it asked and heard.
//!
//! A script's progress is kept outside the node, as a person's notes would be: after a crash the client goes on with the
//! next batch, and what was under way stays unknown.

mod member;
mod producer;
mod reader;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use client::ClientConfig;
use scenarios::plan::{Client, ClientKnobs, ClientRole};
use world::SimTime;

use crate::recorder::Recording;

/// All that the clients of one run share.
#[derive(Debug)]
pub struct Stage {
    pub recording: Recording,
    pub knobs: ClientKnobs,
    pub config: ClientConfig,
    /// How long a member of a group may be silent, and how often it is heard.
    pub group: (std::time::Duration, std::time::Duration),
    /// Partitions of each topic, by name.
    pub partitions: Vec<(String, i32)>,
    /// When the workload's clock reads 0.
    pub start: Cell<SimTime>,
    pub wake: Rc<env::sync::Notify>,
    /// Clients told to come to an end (readers and members: producers end with their script).
    pub stop: Cell<bool>,
}

impl Stage {
    /// Milliseconds until `at_ms` of the workload's clock, 0 if it has passed.
    fn until(&self, at_ms: u64) -> std::time::Duration {
        let now = world::port::current().map_or(SimTime::default(), |c| c.now);
        (self.start.get() + std::time::Duration::from_millis(at_ms)) - now
    }

    fn client(&self, id: u32) -> client::Client {
        client::Client::new(ClientConfig { client_id: format!("workload-{id}"), ..self.config.clone() })
    }

    fn partitions_of(&self, topic: &str) -> i32 {
        self.partitions.iter().find(|(name, _)| name == topic).map_or(0, |(_, n)| *n)
    }
}

/// Where a client is in its script.
#[derive(Debug, Default)]
pub struct Progress {
    /// The next batch, or stretch of membership, to begin.
    batch: Cell<usize>,
    /// Operations of this life that have no answer yet.
    open: Cell<u64>,
    /// Numbers of operations that no script gives, and of transactions.
    next_n: Cell<u64>,
    next_txn: Cell<u64>,
    done: Cell<bool>,
    /// The last error, for people.
    trouble: RefCell<Option<String>>,
}

impl Progress {
    pub fn is_done(&self) -> bool {
        self.done.get()
    }

    /// A number for an operation, above all before it.
    fn number(&self) -> u64 {
        self.next_n.replace(self.next_n.get() + 1)
    }

    /// Why it is not done, as far as it knows.
    pub fn describe(&self) -> String {
        let trouble = self.trouble.borrow();
        let trouble = trouble.as_deref().unwrap_or("no error");
        format!("next batch {}, {} open operations, last error: {trouble}", self.batch.get(), self.open.get())
    }

    fn trouble(&self, error: &dyn std::fmt::Display) {
        *self.trouble.borrow_mut() = Some(error.to_string());
    }
}

/// The main of a client's node, called again at each restart.
pub async fn run(stage: Rc<Stage>, client: Rc<Client>, progress: Rc<Progress>) {
    match &client.role {
        ClientRole::Producer(script) => producer::run(&stage, client.id, script, &progress).await,
        ClientRole::Reader(script) => reader::run(&stage, client.id, script).await,
        ClientRole::Member(script) => member::run(&stage, client.id, script, &progress).await,
    }
    progress.done.set(true);
    stage.wake.notify_waiters();
}
