//! A broker from start to stop.
//!
//! ```text
//! data directory: ours, free?     -> bind -> metadata log replayed -> registered (broker epoch, leader epochs)
//! -> partitions opened, recovered -> coordinators replayed         -> listening
//! ```
//! The port is bound before the first write of a broker epoch, so that a port in use changes nothing, and it accepts
//! only once everything is recovered.

use std::cell::{OnceCell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use env::net::TcpListener;
use env::task::AbortOnDrop;
use protocol::Uuid;

use crate::config::BrokerConfig;
use crate::connection::Closing;
use crate::context::Context;
use crate::controller::machine::Settings;
use crate::controller::proposal::{Heartbeat, Outcome, Proposal, Registration};
use crate::data_dir::DataDir;
use crate::failure::{BrokerError, Failure};
use crate::group::GroupCoordinator;
use crate::ids;
use crate::metadata::Metadata;
use crate::probe::Probe;
use crate::producer_ids::ProducerIds;
use crate::quorum::Membership;
use crate::server::{self, Connections};
use crate::topics::{Topics, open_partitions};
use crate::txn::TxnCoordinator;
use crate::txn::machine::Config as TxnConfig;

/// How long a stopping broker waits for requests that were read to be answered.
const DRAIN: Duration = Duration::from_secs(5);

/// A running broker.
pub struct Broker {
    context: Rc<Context>,
    local_addr: SocketAddr,
    connections: Rc<Connections>,
    closing: Rc<Closing>,
    accepting: RefCell<Option<AbortOnDrop<()>>>,
    data_dir: RefCell<Option<DataDir>>,
}

impl Broker {
    /// Recovers what the data directory holds and listens. Nothing on disk is changed if the directory is not ours, is
    /// held by another process, or the port is taken.
    pub async fn start(config: BrokerConfig) -> Result<Self, BrokerError> {
        config.validate().map_err(BrokerError::Config)?;
        let mut fresh_id = ids::source("broker.ids");
        let bind = |source| BrokerError::Bind { addr: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(bind)?;
        let local_addr = listener.local_addr().map_err(bind)?;
        let data_dir = DataDir::open(&config, fresh_id()).await?;

        let failure = Failure::default();
        let membership = Membership::of(&config, data_dir.directory_id);
        let metadata =
            Metadata::open(&data_dir.metadata_dir(), membership, Settings::of(&config), failure.clone()).await?;
        env::disk::sync_dir(&data_dir.path).await.map_err(|e| BrokerError::storage(data_dir.path.display(), e))?;
        let broker_epoch = register(&metadata, &config, local_addr, &data_dir, fresh_id()).await?;

        let txn_config =
            TxnConfig { max_timeout_ms: config.transaction_max_timeout_ms, two_phase_commit: config.two_phase_commit };
        let block = config.producer_id_block;
        let ids = ProducerIds::new(metadata.clone(), config.node_id, broker_epoch, block);
        let context = Rc::new_cyclic(|context| Context {
            failure,
            metadata,
            topics: Topics::new(data_dir.path.clone(), data_dir.directory_id),
            txn: TxnCoordinator::new(context.clone(), txn_config),
            groups: GroupCoordinator::new(context.clone()),
            producer_ids: OnceCell::from(ids),
            partitions: RefCell::default(),
            config,
        });
        let node_id = context.config.node_id;
        let mine = context.metadata.with(|image| {
            let of_topic = |t: &crate::metadata::TopicState| {
                let mine = t.partitions.iter().filter(|(_, p)| p.replicas.contains(&node_id));
                mine.map(|(index, _)| (t.name.clone(), *index)).collect::<Vec<_>>()
            };
            image.topics.values().flat_map(of_topic).collect()
        });
        open_partitions(&context, mine).await?;

        env::probe::probe(|| Probe::Started { node_id, broker_epoch });
        tracing::info!(node_id, broker_epoch, %local_addr, "broker is up");
        let (connections, closing) = (Rc::new(Connections::default()), Rc::new(Closing::default()));
        let accept = server::listen(listener, Rc::clone(&context), Rc::clone(&connections), Rc::clone(&closing));
        let accepting = env::task::spawn(accept).abort_on_drop();
        Ok(Self {
            context,
            local_addr,
            connections,
            closing,
            accepting: RefCell::new(Some(accepting)),
            data_dir: RefCell::new(Some(data_dir)),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
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
        // While this node still answers, so that its successor need not wait for a time-out.
        self.context.metadata.quorum().resign().await;
        self.accepting.borrow_mut().take();
        self.closing.close();
        // A client that does not read its answers is not waited for.
        let _ = env::time::timeout(DRAIN, self.connections.all_closed()).await;
        let open = std::mem::take(&mut *self.context.partitions.borrow_mut());
        for partition in open.into_values().flat_map(|p| p.into_values()) {
            partition.close().await.map_err(Rc::new)?;
        }
        self.data_dir.borrow_mut().take();
        match self.context.failure.error() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

async fn register(
    metadata: &Metadata,
    config: &BrokerConfig,
    local_addr: SocketAddr,
    data_dir: &DataDir,
    incarnation_id: Uuid,
) -> Result<i64, BrokerError> {
    let broker_id = config.node_id;
    let registration = Registration {
        broker_id,
        incarnation_id,
        host: config.advertised_host.clone(),
        port: config.advertised_port.unwrap_or(local_addr.port()),
        rack: config.rack.clone(),
        log_dir: data_dir.directory_id,
        previous_broker_epoch: metadata.with(|image| image.brokers.get(&broker_id).map_or(-1, |b| b.broker_epoch)),
    };
    let unexpected = |what: String| BrokerError::storage("the metadata log", what);
    let broker_epoch = match metadata.propose(Proposal::RegisterBroker(registration)).await {
        Ok(Outcome::Registered { broker_epoch }) => broker_epoch,
        Ok(other) => return Err(unexpected(format!("{other:?} for a registration"))),
        Err(error) => return Err(unexpected(error.to_string())),
    };
    let metadata_offset = metadata.applied() - 1;
    let heartbeat = Heartbeat { broker_id, broker_epoch, metadata_offset, want_fence: false, want_shut_down: false };
    match metadata.propose(Proposal::Heartbeat(heartbeat)).await {
        Ok(Outcome::Heartbeat(reply)) if !reply.is_fenced => Ok(broker_epoch),
        Ok(other) => Err(unexpected(format!("{other:?} for a heartbeat"))),
        Err(error) => Err(unexpected(error.to_string())),
    }
}
