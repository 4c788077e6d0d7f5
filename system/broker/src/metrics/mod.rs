//! What a broker can be measured by, under the names that Kafka's dashboards know: its JMX names in lower case, as the
//! Prometheus exporters write them; `_total` marks what only rises.
//!
//! | file | kept as it happens | read when somebody asks |
//! |--|--|--|
//! | `requests` | requests, answers and errors by API | |
//! | `traffic` | records and bytes by topic | |
//! | `storage` | flushes, failures of the disk, the cleaner's last round | |
//! | `replication` | changes of in-sync sets | |
//! | `cluster` | elections | brokers, controller, topics, as the image has them |
//! | `quorum` | changes of the metadata log's leader | its epoch, role and offsets |
//! | `partitions` | | offsets, in-sync replicas, lag of replicas, open transactions |
//! | `groups` | | groups, committed offsets, lag of consumers |
//! | `transactions` | | transactions by state, the age of the oldest |
//!
//! Counting is an add to a cell of this node: no clock, no draw, no task, so a broker that is measured runs as one that
//! is not. Only [`Observer::snapshot`] walks over the broker, in one turn but for the question to the quorum's replica.
//! Labels are topics, partitions, replicas, groups, APIs and states; [`metrics::MAX_SERIES`] bounds each family.

mod cluster;
mod groups;
mod partitions;
mod quorum;
mod replication;
mod requests;
mod storage;
mod traffic;
mod transactions;

use std::ops::Deref;
use std::rc::{Rc, Weak};

use metrics::{Counter, Snapshot};

pub(crate) use cluster::Elections;
pub(crate) use traffic::TopicTraffic;

use crate::context::Context;
use crate::server::Connections;
use replication::Replication;
use requests::Requests;
use storage::Storage;
use traffic::Traffic;

/// The counters of a broker. Clones share them: handed to the next start in the same process, they go on.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Rc<Counters>);

#[derive(Debug, Default)]
pub struct Counters {
    starts: Counter,
    pub(crate) requests: Requests,
    pub(crate) traffic: Traffic,
    pub(crate) storage: Storage,
    pub(crate) replication: Replication,
    pub(crate) elections: Elections,
}

impl Deref for Metrics {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        &self.0
    }
}

impl Metrics {
    pub(crate) fn started(&self) {
        self.starts.inc();
    }

    /// What is counted, whether or not the broker runs.
    pub fn snapshot(&self) -> Snapshot {
        let mut out = Snapshot::default();
        out.counter("streamproof_broker_starts_total", "Starts of the broker in this process", &[], self.starts.get());
        self.requests.measure(&mut out);
        self.traffic.measure(&mut out);
        self.storage.measure(&mut out);
        self.replication.measure(&mut out);
        self.elections.measure(&mut out);
        out
    }
}

/// Looks at a broker from outside, without keeping it.
#[derive(Clone)]
pub struct Observer {
    pub(crate) context: Weak<Context>,
    pub(crate) connections: Weak<Connections>,
    pub(crate) metrics: Metrics,
}

impl Observer {
    /// Everything, now; of a broker that is gone what was counted.
    pub async fn snapshot(&self) -> Snapshot {
        let mut out = self.metrics.snapshot();
        let connections = self.connections.upgrade().map_or(0, |c| c.count());
        gauge(
            &mut out,
            "kafka_server_socketservermetrics_connectioncount",
            "Connections of clients and other brokers",
            connections,
        );
        let Some(context) = self.context.upgrade() else { return out };
        cluster::measure(&context, &mut out);
        partitions::measure(&context, &mut out);
        groups::measure(&context, &mut out);
        transactions::measure(&context, &mut out);
        quorum::measure(&context, &mut out).await;
        out
    }
}

/// One without labels.
fn gauge(out: &mut Snapshot, name: &'static str, help: &'static str, value: usize) {
    out.gauge(name, help, &[], i64::try_from(value).unwrap_or(i64::MAX));
}
