//! The cluster as this broker's copy of the metadata has it (`kafka.controller:type=KafkaController`).
//!
//! Every broker tells what it knows; whether it is the active controller is its own word, so that two at a time would be
//! seen. For the rest take the maximum over brokers, not the sum.

use metrics::{Counter, Snapshot};

use super::gauge;
use crate::context::Context;
use crate::metadata::image::NO_LEADER;
use crate::metadata::records::MetadataRecord;

/// Leaders that the controller elected while it ran here.
#[derive(Debug, Default)]
pub(crate) struct Elections {
    all: Counter,
    unclean: Counter,
    /// How often this node became the active controller.
    pub terms: Counter,
    /// Changes of the metadata log's leader or epoch that this node saw.
    pub quorum_changes: Counter,
}

impl Elections {
    /// A record of the metadata log that this node, as the controller, has committed.
    pub fn committed(&self, record: &MetadataRecord) {
        let MetadataRecord::PartitionChange(change) = record else { return };
        if change.leader.is_some_and(|leader| leader != NO_LEADER) {
            self.all.inc();
            if change.recovering == Some(true) {
                self.unclean.inc();
            }
        }
    }

    pub fn measure(&self, out: &mut Snapshot) {
        for (name, help, counter) in [
            ("kafka_controller_controllerstats_leaderelections_total", "Leaders elected by this controller", &self.all),
            (
                "kafka_controller_controllerstats_uncleanleaderelections_total",
                "Of these, from outside the in-sync and eligible sets",
                &self.unclean,
            ),
            ("kafka_controller_kafkacontroller_terms_total", "Times that this node became the controller", &self.terms),
            (
                "kafka_server_raft_metrics_leaderchanges_total",
                "Changes of the metadata log's epoch or leader seen here",
                &self.quorum_changes,
            ),
        ] {
            out.counter(name, help, &[], counter.get());
        }
    }
}

/// `kafka.server:type=KafkaServer,name=BrokerState`.
const STARTING: usize = 1;
const RUNNING: usize = 3;
const PENDING_SHUTDOWN: usize = 6;

pub(super) fn measure(context: &Context, out: &mut Snapshot) {
    let active = usize::from(context.metadata.is_controller());
    let state = if context.lifecycle.is_stopping() {
        PENDING_SHUTDOWN
    } else if context.lifecycle.is_ready() {
        RUNNING
    } else {
        STARTING
    };
    gauge(out, "kafka_server_kafkaserver_brokerstate", "1 starting, 3 running, 6 about to stop", state);
    gauge(
        out,
        "kafka_controller_kafkacontroller_activecontrollercount",
        "1 if this node is the active controller",
        active,
    );
    context.metadata.with(|image| {
        let fenced = image.brokers.values().filter(|b| b.fenced).count();
        let partitions = || image.topics.values().flat_map(|t| t.partitions.values());
        let offline = partitions().filter(|p| p.leader == NO_LEADER).count();
        let imbalanced = partitions().filter(|p| p.replicas.first() != Some(&p.leader)).count();
        for (name, help, value) in [
            ("kafka_controller_kafkacontroller_fencedbrokercount", "Registered brokers that are fenced", fenced),
            (
                "kafka_controller_kafkacontroller_activebrokercount",
                "Registered brokers that are not fenced",
                image.brokers.len() - fenced,
            ),
            ("kafka_controller_kafkacontroller_globaltopiccount", "Topics", image.topics.len()),
            ("kafka_controller_kafkacontroller_globalpartitioncount", "Partitions", partitions().count()),
            ("kafka_controller_kafkacontroller_offlinepartitionscount", "Partitions without a leader", offline),
            (
                "kafka_controller_kafkacontroller_preferredreplicaimbalancecount",
                "Partitions led by another than their preferred replica",
                imbalanced,
            ),
        ] {
            gauge(out, name, help, value);
        }
    });
}
