//! A broker from start to stop.
//!
//! ```text
//! bind -> data directory: ours, free? -> metadata log opened
//!   alone:      -> registered, unfenced -> partitions opened, recovered -> coordinators replayed -> listening
//!   in company: -> listening -> quorum  -> registered, unfenced -> partitions opened             -> coordinators
//! ```
//! The port is bound before the first write of a broker epoch, so that a port in use changes nothing. A broker that is
//! its own quorum accepts only once everything is recovered; among others it must answer before, and answers for
//! partitions as it opens them.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use env::net::TcpListener;
use env::task::AbortOnDrop;

use crate::cleaner;
use crate::config::{BrokerConfig, Flush};
use crate::connection::Closing;
use crate::context::Context;
use crate::controller::machine::Settings;
use crate::controller_channel::ControllerChannel;
use crate::data_dir::DataDir;
use crate::failure::{BrokerError, Failure};
use crate::group::GroupCoordinator;
use crate::ids;
use crate::lifecycle::{Identity, Lifecycle};
use crate::metadata::Metadata;
use crate::metrics::{Metrics, Observer};
use crate::peers::Peers;
use crate::probe::Probe;
use crate::producer_ids::ProducerIds;
use crate::quorum::Membership;
use crate::replication::Replicas;
use crate::server::{self, Connections};
use crate::topics::Topics;
use crate::txn::TxnCoordinator;
use crate::txn::machine::Config as TxnConfig;
use crate::view::View;

/// How long a stopping broker waits for its leaderships to move.
const LEAVE: Duration = Duration::from_secs(10);
/// How long a stopping broker waits for requests that were read to be answered.
const DRAIN: Duration = Duration::from_secs(5);

/// A running broker.
pub struct Broker {
    context: Rc<Context>,
    local_addr: SocketAddr,
    connections: Rc<Connections>,
    closing: Rc<Closing>,
    accepting: RefCell<Option<AbortOnDrop<()>>>,
    /// Membership of the cluster.
    living: RefCell<Option<AbortOnDrop<()>>>,
    opening: RefCell<Option<AbortOnDrop<()>>>,
    cleaning: RefCell<Option<AbortOnDrop<()>>>,
    data_dir: RefCell<Option<DataDir>>,
}

impl Broker {
    /// Recovers what the data directory holds and listens. Nothing on disk is changed if the directory is not ours, is
    /// held by another process, or the port is taken.
    pub async fn start(config: BrokerConfig) -> Result<Self, BrokerError> {
        Self::start_measured(config, Metrics::default()).await
    }

    /// [`Broker::start`] that counts on in `metrics`: those of an earlier start in this process, say.
    pub async fn start_measured(config: BrokerConfig, metrics: Metrics) -> Result<Self, BrokerError> {
        config.validate().map_err(BrokerError::Config)?;
        let mut fresh_id = ids::source("broker.ids");
        let bind = |source| BrokerError::Bind { addr: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(bind)?;
        let local_addr = listener.local_addr().map_err(bind)?;
        let data_dir = DataDir::open(&config, fresh_id()).await?;

        let failure = Failure::default();
        let stopped_cleanly = data_dir.take_clean().await?;
        let membership = Membership::of(&config, data_dir.directory_id);
        metrics.started();
        let settings = Settings::of(&config);
        let metadata =
            Metadata::open(&data_dir.metadata_dir(), membership, settings, failure.clone(), metrics.clone()).await?;
        env::disk::sync_dir(&data_dir.path).await.map_err(|e| BrokerError::storage(data_dir.path.display(), e))?;
        let identity = Identity {
            incarnation_id: fresh_id(),
            directory_id: data_dir.directory_id,
            port: local_addr.port(),
            stopped_cleanly,
            always_clean: config.flush == Flush::Fsync,
        };
        let txn_config = TxnConfig {
            max_timeout_ms: config.transaction_max_timeout_ms,
            two_phase_commit: config.two_phase_commit,
            expiration_ms: i64::try_from(config.transactional_id_expiration_ms).unwrap_or(i64::MAX),
        };
        let controller = ControllerChannel::new(metadata.clone(), &config);
        let context = Rc::new_cyclic(|context| Context {
            failure,
            metrics,
            peers: Peers::new(metadata.clone(), &config),
            metadata,
            lifecycle: Lifecycle::new(identity),
            topics: Topics,
            replicas: Replicas::new(context.clone(), data_dir.path.clone(), data_dir.directory_id),
            fetch_sessions: RefCell::default(),
            session_ids: RefCell::new(Box::new(ids::source("broker.fetch-session"))),
            txn: TxnCoordinator::new(context.clone(), txn_config),
            groups: GroupCoordinator::new(context.clone()),
            producer_ids: ProducerIds::new(Rc::clone(&controller)),
            controller,
            partitions: RefCell::default(),
            config,
        });
        let (connections, closing) = (Rc::new(Connections::default()), Rc::new(Closing::default()));
        let listening = {
            let (context, connections, closing) = (Rc::clone(&context), Rc::clone(&connections), Rc::clone(&closing));
            async move { server::listen(listener, context, connections, closing).await }
        };
        let living = Rc::clone(&context);
        let living = async move { living.lifecycle.run(Rc::clone(&living), open_replicas).await };
        let cleaning = cleaner::start(&context);
        let broker = Self {
            context,
            local_addr,
            connections,
            closing,
            accepting: RefCell::default(),
            living: RefCell::new(Some(env::task::spawn(living).abort_on_drop())),
            opening: RefCell::default(),
            cleaning: RefCell::new(Some(cleaning)),
            data_dir: RefCell::new(Some(data_dir)),
        };
        let opening = open_when_ready(Rc::clone(&broker.context), local_addr);
        if broker.context.config.is_alone() {
            env::select! {
                error = broker.context.failure.failed() => return Err(shared(error)),
                opened = opening => opened?,
            }
            *broker.accepting.borrow_mut() = Some(env::task::spawn(listening).abort_on_drop());
        } else {
            // The quorum meets over this very listener.
            *broker.accepting.borrow_mut() = Some(env::task::spawn(listening).abort_on_drop());
            let failure = broker.context.failure.clone();
            let opening = env::task::spawn(async move {
                if let Err(error) = opening.await {
                    failure.report(error);
                }
            });
            *broker.opening.borrow_mut() = Some(opening.abort_on_drop());
        }
        Ok(broker)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// To measure it by, also while and after it stops.
    pub fn observer(&self) -> Observer {
        Observer {
            context: Rc::downgrade(&self.context),
            connections: Rc::downgrade(&self.connections),
            metrics: self.context.metrics.clone(),
        }
    }

    /// What this broker knows of its cluster, for as long as it runs.
    pub fn view(&self) -> View {
        View::new(Rc::downgrade(&self.context))
    }

    /// Ready with the reason when the broker cannot go on: it serves nothing any more, and what to do is up to the
    /// caller.
    pub async fn failed(&self) -> Rc<BrokerError> {
        let error = self.context.failure.failed().await;
        self.accepting.borrow_mut().take();
        self.closing.close();
        error
    }

    /// Runs until `shutdown` is ready, then stops; an error if the broker could not go on or not stop cleanly.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), Rc<BrokerError>> {
        env::select! {
            error = self.failed() => return Err(error),
            () = shutdown => {}
        }
        self.shutdown().await
    }

    /// Answers what was read, flushes everything and lets go of the data directory.
    pub async fn shutdown(self) -> Result<(), Rc<BrokerError>> {
        let me = self.context.config.node_id;
        let others =
            |image: &crate::metadata::MetadataImage| image.brokers.keys().any(|b| *b != me && image.is_active(*b));
        if self.context.failure.error().is_none() && self.context.metadata.with(others) {
            self.context.lifecycle.leave(&self.context, LEAVE).await;
        }
        self.living.borrow_mut().take();
        // While this node still answers, so that its successor need not wait for a time-out.
        self.context.metadata.quorum().resign().await;
        self.opening.borrow_mut().take();
        self.cleaning.borrow_mut().take();
        self.accepting.borrow_mut().take();
        self.closing.close();
        // A client that does not read its answers is not waited for.
        let _ = env::time::timeout(DRAIN, self.connections.all_closed()).await;
        self.context.partitions.take();
        self.context.replicas.stop().await.map_err(Rc::new)?;
        let data_dir = self.data_dir.borrow_mut().take();
        let broker_epoch = self.context.controller.broker_epoch();
        if let Some(data_dir) = data_dir
            && self.context.config.flush == Flush::PageCache
            && self.context.failure.error().is_none()
            && broker_epoch >= 0
        {
            data_dir.mark_clean(broker_epoch).await.map_err(Rc::new)?;
        }
        match self.context.failure.error() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// In company a broker opens its partitions before it asks to be unfenced: it follows first.
async fn open_replicas(context: Rc<Context>) -> Result<(), BrokerError> {
    if context.config.is_alone() { Ok(()) } else { context.replicas.start().await }
}

/// Waits until this broker is a member of the cluster; one that is alone leads all its partitions then.
async fn open_when_ready(context: Rc<Context>, local_addr: SocketAddr) -> Result<(), BrokerError> {
    context.lifecycle.ready().await;
    let node_id = context.config.node_id;
    if context.config.is_alone() {
        context.replicas.start().await?;
        context.replicas.settle(&context, None).await;
    }
    let broker_epoch = context.controller.broker_epoch();
    env::probe::probe(|| Probe::Started { node_id, broker_epoch });
    tracing::info!(node = node_id, broker_epoch, %local_addr, "broker is up");
    Ok(())
}

/// The error that others hold too, as one's own.
fn shared(error: Rc<BrokerError>) -> BrokerError {
    let text = error.to_string();
    Rc::try_unwrap(error).unwrap_or(BrokerError::Stopped(text))
}
