//! What a plan must hold to be run. Generated plans always pass; a plan edited by hand gets the path of its first fault.

use std::collections::BTreeSet;

use super::{
    Action, ClientRole, Commit, Flush, Member, NodeName, Partition, Plan, Role, Schedule, Target, TopicRef, Trigger,
    VERSION,
};

/// Why a plan cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("failed to read the plan: {0}")]
    Json(String),
    #[error("plan has version {found}, this build runs version {expected}")]
    Version { found: u64, expected: u32 },
    #[error("invalid plan at {path}: {what}")]
    Invalid { path: String, what: String },
}

fn invalid(path: impl Into<String>, what: impl Into<String>) -> PlanError {
    PlanError::Invalid { path: path.into(), what: what.into() }
}

/// Bounds that keep a hand-made plan from running for ever.
const MAX_TOTAL_MS: u64 = 24 * 3600 * 1000;
const MAX_RECORDS: usize = 1_000_000;
const MAX_PARTITIONS: u32 = 64;
const MAX_NODES: usize = 64;
/// The topic setting that a plan's knob of this name is the default of.
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Each broker votes in the metadata quorum; an even number would survive no more failures than one less.
const BROKERS: [u32; 3] = [1, 3, 5];

impl Plan {
    /// # Errors
    /// The first thing that keeps the plan from being run.
    pub fn validate(&self) -> Result<(), PlanError> {
        if self.version != VERSION {
            return Err(PlanError::Version { found: u64::from(self.version), expected: VERSION });
        }
        if crate::catalogue::find(&self.scenario).is_none() {
            return Err(invalid("scenario", format!("`{}` is not in the catalogue", self.scenario)));
        }
        if self.schedule != Schedule::Uniform {
            return Err(invalid("schedule", "only `uniform` is run by this build"));
        }
        self.validate_topology()?;
        self.validate_knobs()?;
        self.validate_workload()?;
        self.validate_faults()?;
        self.validate_budgets()
    }

    fn validate_topology(&self) -> Result<(), PlanError> {
        if !BROKERS.contains(&self.topology.brokers) {
            let what = "must be 1, 3 or 5: every broker is a voter of the metadata quorum";
            return Err(invalid("topology.brokers", what));
        }
        match (&self.job, &self.knobs.processor, self.topology.workers) {
            (None, None, 0) => {}
            (Some(_), Some(_), workers) if workers >= 2 => {}
            _ => {
                let what = "a job needs knobs.processor and at least 2 workers; without a job there are neither";
                return Err(invalid("topology.workers", what));
            }
        }
        let nodes = self.nodes();
        if nodes.len() > MAX_NODES {
            return Err(invalid("topology", format!("{} nodes, at most {MAX_NODES}", nodes.len())));
        }
        if nodes.iter().collect::<BTreeSet<_>>().len() != nodes.len() {
            return Err(invalid("clients", "two clients have one id"));
        }
        Ok(())
    }

    fn validate_knobs(&self) -> Result<(), PlanError> {
        let range = |path: &str, (low, high): (u64, u64)| match low <= high && low >= 1 {
            true => Ok(()),
            false => Err(invalid(path, format!("{low}..={high} is not a range from 1 up"))),
        };
        let positive = |path: &str, value: u64| match value {
            0 => Err(invalid(path, "must be positive")),
            _ => Ok(()),
        };
        let world = &self.knobs.world;
        range("knobs.world.latency_us", world.latency_us)?;
        range("knobs.world.sync_latency_us", world.sync_latency_us)?;
        if world.loss_per_million >= 1_000_000 {
            return Err(invalid("knobs.world.loss_per_million", "must be below 1000000"));
        }
        if world.bandwidth == Some(0) {
            return Err(invalid("knobs.world.bandwidth", "must be positive"));
        }
        for (i, link) in world.links.iter().enumerate() {
            range(&format!("knobs.world.links[{i}].latency_us"), link.latency_us)?;
            for name in [link.from, link.to] {
                self.known(&format!("knobs.world.links[{i}]"), name)?;
            }
        }
        let broker = &self.knobs.broker;
        positive("knobs.broker.segment_bytes", broker.segment_bytes)?;
        positive("knobs.broker.max_frame_bytes", broker.max_frame_bytes)?;
        positive("knobs.broker.offsets_partitions", u64::from(broker.offsets_partitions))?;
        positive("knobs.broker.transactions_partitions", u64::from(broker.transactions_partitions))?;
        positive("knobs.broker.min_insync_replicas", u64::from(broker.min_insync_replicas))?;
        positive("knobs.broker.quorum_election_timeout_ms", broker.quorum_election_timeout_ms)?;
        positive("knobs.broker.quorum_fetch_timeout_ms", broker.quorum_fetch_timeout_ms)?;
        positive("knobs.broker.heartbeat_interval_ms", broker.heartbeat_interval_ms)?;
        positive("knobs.broker.replica_lag_max_ms", broker.replica_lag_max_ms)?;
        positive("knobs.broker.leader_rebalance_ms", broker.leader_rebalance_ms)?;
        positive("knobs.broker.group_heartbeat_interval_ms", broker.group_heartbeat_interval_ms)?;
        positive("knobs.broker.cleaner_interval_ms", broker.cleaner_interval_ms)?;
        positive("knobs.broker.retention_check_interval_ms", broker.retention_check_interval_ms)?;
        if broker.group_session_timeout_ms <= broker.group_heartbeat_interval_ms {
            return Err(invalid(
                "knobs.broker.group_session_timeout_ms",
                "must be more than group_heartbeat_interval_ms",
            ));
        }
        self.replicas("knobs.broker.default_replication_factor", broker.default_replication_factor)?;
        if broker.session_timeout_ms <= broker.heartbeat_interval_ms {
            return Err(invalid("knobs.broker.session_timeout_ms", "must be more than heartbeat_interval_ms"));
        }
        let client = &self.knobs.client;
        positive("knobs.client.request_timeout_ms", client.request_timeout_ms)?;
        positive("knobs.client.batch_bytes", client.batch_bytes)?;
        if !(1..=5).contains(&client.max_in_flight) {
            return Err(invalid("knobs.client.max_in_flight", "must be 1 to 5"));
        }
        if let Some(p) = &self.knobs.processor {
            for (path, value) in [
                ("source_tasks", u64::from(p.source_tasks)),
                ("window_tasks", u64::from(p.window_tasks)),
                ("key_groups", u64::from(p.key_groups)),
                ("checkpoint_interval_ms", p.checkpoint_interval_ms),
                ("heartbeat_interval_ms", p.heartbeat_interval_ms),
                ("restart_backoff_min_ms", p.restart_backoff_min_ms),
            ] {
                positive(&format!("knobs.processor.{path}"), value)?;
            }
            if p.window_tasks > p.key_groups {
                return Err(invalid("knobs.processor.window_tasks", "more tasks than key groups"));
            }
        }
        Ok(())
    }

    fn validate_workload(&self) -> Result<(), PlanError> {
        let mut names = BTreeSet::new();
        for (i, topic) in self.topics.iter().enumerate() {
            if !names.insert(topic.name.as_str()) {
                return Err(invalid(format!("topics[{i}].name"), "named twice"));
            }
            if !(1..=MAX_PARTITIONS).contains(&topic.partitions) {
                return Err(invalid(format!("topics[{i}].partitions"), format!("must be 1 to {MAX_PARTITIONS}")));
            }
        }
        for (i, topic) in self.topics.iter().enumerate() {
            self.replicas(&format!("topics[{i}].replication_factor"), topic.replication_factor)?;
        }
        if let Some(job) = &self.job {
            models::JobSpec::parse(&job.toml, "job.toml").map_err(|e| invalid("job.toml", e.to_string()))?;
        }
        let (mut total, mut transactions) = (0, BTreeSet::new());
        for client in &self.clients {
            let path = format!("clients[{}]", client.id);
            let topic_name = match &client.role {
                ClientRole::Producer(p) => &p.topic,
                ClientRole::Reader(r) => &r.topic,
                ClientRole::Member(m) => &m.topic,
            };
            let Some(topic) = self.topics.iter().find(|t| t.name == *topic_name) else {
                return Err(invalid(path, format!("topic `{topic_name}` is not listed in topics")));
            };
            if let ClientRole::Member(member) = &client.role {
                self.validate_member(&path, member)?;
            }
            let ClientRole::Producer(producer) = &client.role else { continue };
            if producer.transactional && !producer.idempotent {
                return Err(invalid(path, "a transactional producer is idempotent"));
            }
            let (mut last_at, mut last_n) = (0, None);
            for (b, batch) in producer.batches.iter().enumerate() {
                let path = format!("{path}.batches[{b}]");
                if batch.at_ms < last_at {
                    return Err(invalid(path, "at_ms goes back"));
                }
                last_at = batch.at_ms;
                if batch.transaction.is_some() != producer.transactional {
                    return Err(invalid(path, "a transactional producer, and only it, names a transaction"));
                }
                total += batch.records.len();
                for record in &batch.records {
                    if last_n.is_some_and(|n| record.n <= n) {
                        return Err(invalid(path, "n does not rise"));
                    }
                    last_n = Some(record.n);
                    if !(0..topic.partitions as i32).contains(&record.partition) {
                        return Err(invalid(path, format!("partition {} does not exist", record.partition)));
                    }
                    if !record.value.is_well_formed() || record.key.as_ref().is_some_and(|k| !k.is_well_formed()) {
                        return Err(invalid(path, "malformed hex"));
                    }
                }
                if let Some(t) = batch.transaction {
                    if !transactions.insert(t.id) {
                        return Err(invalid(path, format!("transaction {} is named twice", t.id)));
                    }
                    if last_n.is_some_and(|n| t.n <= n) {
                        return Err(invalid(path, "n does not rise"));
                    }
                    last_n = Some(t.n);
                }
            }
        }
        if total > MAX_RECORDS {
            return Err(invalid("clients", format!("{total} records, at most {MAX_RECORDS}")));
        }
        Ok(())
    }

    fn validate_member(&self, path: &str, member: &Member) -> Result<(), PlanError> {
        if let Commit::Transaction { to } = &member.commit {
            if !self.topics.iter().any(|t| t.name == *to) {
                return Err(invalid(path, format!("topic `{to}` is not listed in topics")));
            }
            if *to == member.topic {
                return Err(invalid(path, "a copy goes to another topic"));
            }
        }
        if member.commit == (Commit::Auto { every_ms: 0 }) {
            return Err(invalid(path, "every_ms must be positive"));
        }
        let mut free = Some(0);
        for stay in &member.stays {
            if free.is_none_or(|free| stay.from_ms < free) || stay.until_ms.is_some_and(|until| until <= stay.from_ms) {
                return Err(invalid(path, "stays must come one after the other"));
            }
            free = stay.until_ms;
        }
        Ok(())
    }

    fn validate_faults(&self) -> Result<(), PlanError> {
        let mut ids = BTreeSet::new();
        for (i, fault) in self.faults.iter().enumerate() {
            let path = format!("faults[{i}]");
            if !ids.insert(fault.id) {
                return Err(invalid(path, format!("id {} is used twice", fault.id)));
            }
            if self.families_off.contains(&fault.family) {
                return Err(invalid(path, format!("family {} is switched off", fault.family.name())));
            }
            for target in fault.action.targets() {
                self.known_target(&path, target)?;
                if fault.action.is_of_one_node() && matches!(target, Target::Followers(_)) {
                    return Err(invalid(path, format!("{} strikes one node, not all followers", fault.action.kind())));
                }
            }
            if let Action::Loss { per_million, .. } | Action::Straggle { per_million, .. } = fault.action
                && per_million >= 1_000_000
            {
                return Err(invalid(path, "per_million must be below 1000000"));
            }
            if let Action::Slow { latency_us: (low, high), .. } = fault.action
                && (low > high || low == 0)
            {
                return Err(invalid(path, "latency_us is not a range from 1 up"));
            }
            if let Action::Split { nodes, .. } = &fault.action
                && nodes.is_empty()
            {
                return Err(invalid(path, "a split needs a node on its side"));
            }
            if let Action::Stop { node } = fault.action
                && !self.is_broker(node)
            {
                return Err(invalid(path, "only brokers are asked to stop"));
            }
            if let Action::Wipe { node, .. } = fault.action {
                if !self.is_broker(node) {
                    return Err(invalid(path, "only brokers lose their disk"));
                }
                self.outlives_a_disk().map_err(|why| invalid(path.clone(), why))?;
                if self.faults[..i].iter().any(|f| matches!(f.action, Action::Wipe { .. })) {
                    return Err(invalid(path, "a second disk is lost: what was acknowledged need not be on a third"));
                }
            }
            if let Action::ClockDrift { ppm, .. } = fault.action
                && !(-500_000..=500_000).contains(&ppm)
            {
                return Err(invalid(path, "ppm must be within 500000 of 0"));
            }
            let start = match &fault.trigger {
                Trigger::At { ms } => *ms,
                Trigger::CrashPoint(point) => {
                    self.known_target(&path, point.node)?;
                    if matches!(point.node, Target::Followers(_)) {
                        return Err(invalid(path, "a crash point is reached by one node, not by all followers"));
                    }
                    if !fault.action.fits_crash_point() {
                        return Err(invalid(path, "only crash, power, pause and isolate happen at a crash point"));
                    }
                    if point.nth == 0 {
                        return Err(invalid(path, "nth counts from 1"));
                    }
                    point.after_ms
                }
            };
            if start > self.budgets.safety_ms {
                return Err(invalid(path, "starts after the safety phase"));
            }
        }
        Ok(())
    }

    /// Whether what was acknowledged is on two disks before that.
    pub(crate) fn outlives_a_disk(&self) -> Result<(), &'static str> {
        let broker = &self.knobs.broker;
        let least = self.topics.iter().filter_map(|t| t.configs.get(MIN_INSYNC_REPLICAS)?.parse().ok());
        if broker.flush != Flush::Fsync || least.chain([broker.min_insync_replicas]).any(|n| n < 2) {
            return Err("a disk may be lost where brokers fsync and min_insync_replicas is 2 or more");
        }
        Ok(())
    }

    fn validate_budgets(&self) -> Result<(), PlanError> {
        let b = &self.budgets;
        if b.safety_ms == 0 || b.liveness_ms == 0 || b.drain_ms == 0 || b.max_events == 0 {
            return Err(invalid("budgets", "must be positive"));
        }
        let total = [b.safety_ms, b.liveness_ms, b.quiet_ms, b.drain_ms]
            .iter()
            .try_fold(0u64, |sum, ms| sum.checked_add(*ms))
            .unwrap_or(u64::MAX);
        if total > MAX_TOTAL_MS {
            return Err(invalid("budgets", "the phases together are longer than a day"));
        }
        Ok(())
    }

    /// Whether every node that it may come to is a broker.
    fn is_broker(&self, target: Target) -> bool {
        match target {
            Target::Node(name) => name.role == Role::Broker,
            Target::Role(role) => role == Role::Broker,
            Target::Leader(_) | Target::Follower(_) | Target::Followers(_) | Target::Controller => true,
        }
    }

    fn known(&self, path: &str, name: NodeName) -> Result<(), PlanError> {
        match self.nodes().contains(&name) {
            true => Ok(()),
            false => Err(invalid(path, format!("node {name} does not exist"))),
        }
    }

    fn replicas(&self, path: &str, replicas: u32) -> Result<(), PlanError> {
        match (1..=self.topology.brokers).contains(&replicas) {
            true => Ok(()),
            false => Err(invalid(path, format!("must be 1 to {}, the number of brokers", self.topology.brokers))),
        }
    }

    fn known_target(&self, path: &str, target: Target) -> Result<(), PlanError> {
        let of = |at: Partition| {
            let partitions = match at.topic {
                TopicRef::Workload(topic) => self.topics.get(topic as usize).map_or(0, |t| t.partitions),
                TopicRef::Offsets => self.knobs.broker.offsets_partitions,
                TopicRef::Transactions => self.knobs.broker.transactions_partitions,
            };
            match u32::try_from(at.partition).is_ok_and(|p| p < partitions) {
                true => Ok(()),
                false => Err(invalid(path, format!("partition {} of {:?} does not exist", at.partition, at.topic))),
            }
        };
        match target {
            Target::Leader(at) | Target::Follower(at) | Target::Followers(at) => of(at),
            Target::Controller => Ok(()),
            Target::Node(name) => self.known(path, name),
            Target::Role(role) if self.nodes().iter().any(|n| n.role == role) => Ok(()),
            Target::Role(role) => Err(invalid(path, format!("no node has the role {}", Role::name(role)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::generate;
    use crate::plan::{Action, Partition, Plan, Target, TopicRef};

    fn with(action: Action) -> Plan {
        let mut plan = generate("network_partition", 1).expect("a scenario of the catalogue");
        plan.faults.truncate(1);
        plan.faults[0].action = action;
        plan
    }

    #[test]
    fn all_followers_are_an_end_of_a_link_and_not_one_node() {
        let at = |partition| Partition { topic: TopicRef::Workload(0), partition };
        let cut =
            |p| Action::Cut { from: Target::Leader(at(p)), to: Target::Followers(at(p)), both: true, for_ms: 100 };
        assert_eq!(with(cut(0)).validate(), Ok(()));
        let unknown = with(cut(99)).validate().expect_err("there is no such partition").to_string();
        assert!(unknown.contains("does not exist"), "{unknown}");
        let crash = Action::Crash { node: Target::Followers(at(0)), restart_after_ms: 100 };
        let refused = with(crash).validate().expect_err("a crash is of one node").to_string();
        assert!(refused.contains("crash strikes one node"), "{refused}");
    }

    #[test]
    fn one_disk_is_lost_where_records_are_on_two() {
        let wipe = Action::Wipe { node: Target::Controller, restart_after_ms: 100 };
        let mut plan = with(wipe);
        plan.knobs.broker.min_insync_replicas = 2;
        assert_eq!(plan.validate(), Ok(()));
        let refused = |plan: &Plan| plan.validate().expect_err("records would be lost").to_string();

        let mut twice = plan.clone();
        twice.faults.push(crate::plan::Fault { id: twice.faults[0].id + 1, ..twice.faults[0].clone() });
        assert!(refused(&twice).contains("second disk"), "{}", refused(&twice));
        let mut alone = plan.clone();
        alone.topics[0].configs.insert(super::MIN_INSYNC_REPLICAS.into(), "1".into());
        assert!(refused(&alone).contains("min_insync_replicas"), "{}", refused(&alone));
        let mut cached = plan.clone();
        cached.knobs.broker.flush = crate::plan::Flush::PageCache;
        assert!(refused(&cached).contains("fsync"), "{}", refused(&cached));
        let client = crate::plan::NodeName::new(crate::plan::Role::Client, 0);
        plan.faults[0].action = Action::Wipe { node: Target::Node(client), restart_after_ms: 100 };
        assert!(refused(&plan).contains("only brokers"), "{}", refused(&plan));
    }
}
