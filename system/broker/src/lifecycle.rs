//! A broker's membership of its cluster.
//!
//! ```text
//! metadata log read   -> registered (fenced)      -> own registration read, replicas opened
//!                     -> heartbeat: unfenced      -> own unfencing read: ready
//!                     -> heartbeats               -> told to stop: heartbeats that want to shut down, until allowed
//! ```
//! A broker whose epoch the controller does not know any more registers again, as the same incarnation. Nothing here
//! stops a broker that cannot reach the controller: it is fenced by the controller, and its leaderships by epochs.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use env::sync::Notify;
use protocol::{ErrorCode, Uuid};

use crate::context::Context;
use crate::controller::proposal::{Heartbeat, HeartbeatReply, Registration};
use crate::failure::BrokerError;

/// Between two tries of a registration, and two heartbeats that wait for something to change.
const SOON: Duration = Duration::from_millis(100);
/// A registration that is refused for good is tried again this rarely: an operator has to see to it.
const REFUSED: Duration = Duration::from_secs(1);

/// Who this process is to the controller.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub incarnation_id: Uuid,
    pub directory_id: Uuid,
    pub port: u16,
    /// The broker epoch of the stop before this start, if that was clean.
    pub stopped_cleanly: Option<i64>,
    /// Nothing promised is ever lost by a stop, clean or not.
    pub always_clean: bool,
}

pub(crate) struct Lifecycle {
    identity: Identity,
    stopping: Cell<bool>,
    /// The broker has been unfenced and acts by it.
    ready: Cell<bool>,
    changed: Notify,
    registered: RefCell<Option<i64>>,
}

impl Lifecycle {
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            stopping: Cell::new(false),
            ready: Cell::new(false),
            changed: Notify::new(),
            registered: RefCell::default(),
        }
    }

    /// This broker has been unfenced.
    pub fn is_ready(&self) -> bool {
        self.ready.get()
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Ready once this broker has been unfenced for the first time.
    pub async fn ready(&self) {
        loop {
            let changed = self.changed.notified();
            if self.ready.get() {
                return;
            }
            changed.await;
        }
    }

    /// Registers and sends heartbeats for as long as the broker runs. `opened` is called once the broker acts by its own
    /// registration, before it asks to be unfenced.
    pub async fn run<F>(&self, context: Rc<Context>, opened: impl FnOnce(Rc<Context>) -> F)
    where
        F: Future<Output = Result<(), BrokerError>>,
    {
        let mut opened = Some(opened);
        let interval = Duration::from_millis(context.config.broker_heartbeat_interval_ms);
        while !self.stopping.get() {
            let broker_epoch = self.register(&context).await;
            self.applied(&context, broker_epoch).await;
            if let Some(opened) = opened.take()
                && let Err(error) = opened(Rc::clone(&context)).await
            {
                context.failure.report(error);
                return;
            }
            while !self.stopping.get() {
                let heartbeat = self.heartbeat(&context, broker_epoch, false);
                let answer = context.controller.heartbeat(&heartbeat).await;
                let awaited = !self.ready.get() && matches!(&answer, Ok(reply) if !reply.is_fenced);
                if awaited && self.is_unfenced(&context, broker_epoch) {
                    self.ready.set(true);
                    self.changed.notify_waiters();
                }
                let wait = match answer {
                    Ok(reply) if reply.is_fenced => SOON,
                    // Heartbeats go on until this node acts by its being unfenced. Were they to stop meanwhile, the
                    // session could end in the same stretch of the log as it began: with both read at once, the broker
                    // would wait for ever.
                    Ok(_) if !self.ready.get() => SOON,
                    Ok(_) => interval,
                    Err(ErrorCode::STALE_BROKER_EPOCH | ErrorCode::BROKER_ID_NOT_REGISTERED) => {
                        let node = context.config.node_id;
                        tracing::warn!(node, broker_epoch, "the controller knows another epoch of this broker");
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(node = context.config.node_id, broker_epoch, %error, "heartbeat failed");
                        SOON
                    }
                };
                env::select! {
                    () = self.changed.notified() => {}
                    () = env::time::sleep(wait) => {}
                    () = self.becomes_ready(&context, broker_epoch, awaited) => {}
                }
            }
        }
    }

    /// Lets leaderships move away first. Gives up after `patience`: those that are left move when the session ends.
    pub async fn leave(&self, context: &Context, patience: Duration) {
        self.stopping.set(true);
        self.changed.notify_waiters();
        let Some(broker_epoch) = *self.registered.borrow() else { return };
        let leaving = async {
            loop {
                let heartbeat = self.heartbeat(context, broker_epoch, true);
                match context.controller.heartbeat(&heartbeat).await {
                    Ok(HeartbeatReply { should_shut_down: true, .. }) => return,
                    Ok(_) | Err(ErrorCode::NOT_CONTROLLER) => {}
                    Err(error) => {
                        let node = context.config.node_id;
                        tracing::info!(node, %error, "stopping without the controller's leave");
                        return;
                    }
                }
                env::time::sleep(SOON).await;
            }
        };
        if env::time::timeout(patience, leaving).await.is_err() {
            let node = context.config.node_id;
            tracing::warn!(node, "stopping without the controller's leave: it took too long");
        }
    }

    fn heartbeat(&self, context: &Context, broker_epoch: i64, want_shut_down: bool) -> Heartbeat {
        Heartbeat {
            broker_id: context.config.node_id,
            broker_epoch,
            metadata_offset: context.metadata.applied() - 1,
            want_fence: false,
            want_shut_down,
        }
    }

    /// Tries until the controller has taken the registration.
    async fn register(&self, context: &Context) -> i64 {
        let config = &context.config;
        loop {
            // What this node knows of itself comes from the log, and that is read once a leader says how far it goes.
            let read =
                || config.is_alone() || (context.metadata.leader().1.is_some() && context.metadata.applied() > 0);
            self.when(context, read).await;
            let known = context.metadata.with(|image| image.brokers.get(&config.node_id).cloned());
            let same_disk = known.as_ref().is_some_and(|b| b.log_dir == self.identity.directory_id);
            let ours = known.as_ref().is_some_and(|b| b.incarnation_id == self.identity.incarnation_id);
            let known = known.map(|b| b.broker_epoch);
            let previous = if same_disk && (self.identity.always_clean || ours) {
                known
            } else {
                // A later life than the one that stopped cleanly did not.
                self.identity.stopped_cleanly.filter(|stopped| known.is_none_or(|known| known <= *stopped))
            };
            let registration = Registration {
                broker_id: config.node_id,
                incarnation_id: self.identity.incarnation_id,
                host: config.advertised_host.clone(),
                port: config.advertised_port.unwrap_or(self.identity.port),
                rack: config.rack.clone(),
                log_dir: self.identity.directory_id,
                previous_broker_epoch: previous.unwrap_or(-1),
            };
            match context.controller.register(registration, &config.cluster_id).await {
                Ok(broker_epoch) => {
                    *self.registered.borrow_mut() = Some(broker_epoch);
                    tracing::info!(node = config.node_id, broker_epoch, "registered");
                    return broker_epoch;
                }
                Err(ErrorCode::STALE_BROKER_EPOCH) => {
                    // This node's copy of the log is behind: it has not read of its own last life yet.
                    env::sometimes!(true, "a broker registers before it has read of its last life");
                    let newer = || {
                        let now =
                            context.metadata.with(|image| image.brokers.get(&config.node_id).map(|b| b.broker_epoch));
                        now > known
                    };
                    let _ = env::time::timeout(REFUSED, self.when(context, newer)).await;
                }
                Err(ErrorCode::INCONSISTENT_CLUSTER_ID | ErrorCode::INVALID_REQUEST) => {
                    tracing::error!(node = config.node_id, "the controller refuses this broker");
                    env::time::sleep(REFUSED).await;
                }
                Err(error) => {
                    tracing::debug!(node = config.node_id, %error, "registration failed");
                    env::time::sleep(SOON).await;
                }
            }
        }
    }

    /// Waits until this node acts by its registration.
    async fn applied(&self, context: &Context, broker_epoch: i64) {
        self.when(context, || context.metadata.applied() > broker_epoch).await;
    }

    /// Ready once a broker that was never unfenced is, as far as this node knows, if that is `awaited`.
    async fn becomes_ready(&self, context: &Context, broker_epoch: i64, awaited: bool) {
        match awaited && !self.ready.get() {
            true => self.when(context, || self.is_unfenced(context, broker_epoch)).await,
            false => std::future::pending().await,
        }
    }

    /// Whether this node acts by its being unfenced, or its registration has been followed by another.
    fn is_unfenced(&self, context: &Context, broker_epoch: i64) -> bool {
        let me = context.config.node_id;
        let broker = context.metadata.with(|image| image.brokers.get(&me).cloned());
        broker.is_some_and(|b| b.broker_epoch > broker_epoch || (b.broker_epoch == broker_epoch && !b.fenced))
    }

    async fn when(&self, context: &Context, condition: impl Fn() -> bool) {
        loop {
            let changed = context.metadata.changed();
            if condition() {
                return;
            }
            changed.await;
        }
    }
}
