//! One run from the first node to the last look at the disks.
//!
//! ```text
//! set-up   brokers up, topics made, processor started
//! safety   clients at work, faults strike                    until budgets.safety_ms
//! heal     everything repaired and restarted
//! liveness clients finish, open transactions end             at most budgets.liveness_ms
//! quiet    nothing is sent; watermarks settle                budgets.quiet_ms
//! drain    the input is closed and the job ends              at most budgets.drain_ms
//! finale   every partition is read from 0, then every disk decoded
//! ```

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use client::{Admin, Client, Isolation, NewTopic, OffsetSpec, TopicPartition};
use history::{Span, Violation, Witness};
use models::JobSpec;
use scenarios::Plan;
use scenarios::plan::{ClientRole, Member, NodeName, Role, Topic, TopicRef};
use world::World;

use super::finale::{self, Logs};
use super::nemesis::{self, Effects};
use crate::deploy::Cluster;
use crate::recorder::Recording;

/// How long members may take to leave.
const LEAVING: Duration = Duration::from_secs(2);

/// What a run that came to its end left behind, beside the recording.
#[derive(Debug, Default)]
pub(super) struct Ending {
    pub effects: Effects,
    pub logs: Logs,
    /// What did not happen in time.
    pub stuck: Vec<Violation>,
    pub healed_ns: u64,
    pub converged_ns: u64,
    pub drained_ns: u64,
    pub ended_ns: u64,
    pub calm: Vec<Span>,
    pub drained: bool,
    /// Every group that works to the end has committed up to the end of its topic.
    pub caught_up: bool,
    pub source_ends: Vec<(i32, i64)>,
}

pub(super) async fn run(world: World, plan: &Plan, recording: Recording) -> Ending {
    let cluster = Cluster::new(world.clone(), plan, recording);
    let mut ending = Ending::default();
    let client = Client::new(cluster.client_config.clone());
    cluster.start_brokers(plan);
    set_up(&cluster, plan, &client).await;
    cluster.start_processor(plan);
    cluster.start_clients(plan);
    set_laws(&cluster, plan);
    let mut operators = Vec::new();
    for role in [Role::Broker, Role::Coordinator, Role::Worker] {
        for node in cluster.of_role(role) {
            let after = Duration::from_millis(plan.knobs.world.restart_exited_ms);
            operators.push(env::task::spawn(nemesis::operator(Rc::clone(&cluster), node, after)).abort_on_drop());
        }
    }

    let start = world.now();
    let healed = start + Duration::from_millis(plan.budgets.safety_ms);
    ending.effects = nemesis::run(&cluster, plan, start, healed).await;
    world.heal_all();
    ending.healed_ns = world.now().as_nanos();

    let deadline = healed + Duration::from_millis(plan.budgets.liveness_ms);
    let mut stuck = clients_done(&cluster, plan, deadline).await;
    if stuck.is_empty() {
        stuck = replicas_in_sync(&cluster, plan, deadline).await;
    }
    if stuck.is_empty() {
        stuck = transactions_ended(&cluster, plan, &client, deadline).await;
    }
    if stuck.is_empty() {
        stuck = groups_caught_up(&cluster, plan, &client, deadline).await;
        ending.caught_up = stuck.is_empty();
    }
    ending.converged_ns = world.now().as_nanos();
    ending.stuck = stuck;
    if ending.stuck.is_empty() {
        match plan.job {
            Some(_) => drain(&cluster, plan, &client, &mut ending).await,
            None => quiet(&cluster, plan).await,
        }
    }
    if !ending.stuck.is_empty() {
        drop(operators);
        halt(&cluster).await;
    }
    cluster.stage.stop.set(true);
    if plan.clients.iter().any(|c| matches!(c.role, ClientRole::Member(_))) {
        // They end what they are at, and leave; the markers of a last transaction come after its answer.
        world.sleep(LEAVING).await;
    }

    let mut topics: Vec<String> = plan.topics.iter().map(|t| t.name.clone()).collect();
    topics.extend(job_topics(plan));
    topics.dedup();
    let compacted = |name: &str| plan.topics.iter().any(|t| t.name == name && t.is_compacted());
    match finale::read(&client, &topics, compacted).await {
        Ok(logs) => ending.logs = logs,
        Err(e) => ending.stuck.push(liveness("the final read failed", e)),
    }
    topics.extend([TopicRef::Offsets, TopicRef::Transactions].map(|of| plan.name_of(of).to_owned()));
    ending.logs.add_disks(&cluster, &topics);
    ending.ended_ns = world.now().as_nanos();
    ending
}

/// The quiet stretch, then the end of the input and of the job.
async fn drain(cluster: &Cluster, plan: &Plan, client: &Client, ending: &mut Ending) {
    let world = &cluster.world;
    quiet(cluster, plan).await;
    ending.calm.push(Span { from_ns: ending.converged_ns, to_ns: world.now().as_nanos() });
    match log_ends(plan, client).await {
        Ok(ends) => ending.source_ends = ends,
        Err(e) => {
            ending.stuck.push(liveness("the ends of the input could not be listed after healing", e));
            return;
        }
    }
    cluster.control.finish(ending.source_ends.iter().copied().collect());
    let deadline = world.now() + Duration::from_millis(plan.budgets.drain_ms);
    while !cluster.control.is_drained() && world.now() < deadline {
        env::select! {
            () = cluster.control.heard.notified() => {}
            () = world.sleep_until(deadline) => {}
        }
    }
    ending.drained = cluster.control.is_drained();
    ending.drained_ns = world.now().as_nanos();
    if ending.drained {
        let deadline = world.now() + Duration::from_millis(plan.budgets.liveness_ms);
        ending.stuck = ended_on(cluster, client, &job_topics(plan), deadline).await;
    } else {
        ending.stuck.push(liveness("the job did not drain", format!("within {} ms", plan.budgets.drain_ms)));
    }
}

/// Takes clients and processor away from a run that is stuck, so that what is read then and what the disks hold agree.
/// What was sent arrives or is lost meanwhile.
async fn halt(cluster: &Cluster) {
    for role in [Role::Client, Role::Worker, Role::Coordinator] {
        for node in cluster.of_role(role) {
            cluster.world.crash(node);
        }
    }
    cluster.world.sleep(Duration::from_secs(5)).await;
}

/// What did not happen in time, and how things stand instead.
pub(super) fn liveness(message: impl Into<String>, found: impl Into<String>) -> Violation {
    let witness = Witness::default().found(found.into());
    Violation { property: "liveness".into(), message: message.into(), witness, op: None }
}

/// Waits for the brokers and makes the plan's topics. Nothing is wrong yet, so failing here is the harness's failure.
async fn set_up(cluster: &Cluster, plan: &Plan, client: &Client) {
    nemesis::set_disk_laws(cluster, plan);
    let deadline = cluster.world.now() + SET_UP;
    while cluster.view().active_brokers() < plan.topology.brokers as usize {
        assert!(cluster.world.now() < deadline, "the brokers did not come up");
        cluster.world.sleep(Duration::from_millis(100)).await;
    }
    let admin = Admin::new(client.clone());
    let topics: Vec<_> = plan.topics.iter().map(new_topic).collect();
    let made = loop {
        match admin.create_topics(&topics).await {
            Ok(results) => break results,
            Err(e) => assert!(cluster.world.now() < deadline, "failed to create topics: {e}"),
        }
        cluster.world.sleep(Duration::from_millis(100)).await;
    };
    for (topic, result) in made {
        if let Err(code) = result {
            assert_eq!(code, protocol::ErrorCode::TOPIC_ALREADY_EXISTS, "failed to create topic {topic}");
        }
    }
}

/// Brokers that meet no fault are up and have topics after this time.
const SET_UP: Duration = Duration::from_secs(30);

fn new_topic(topic: &Topic) -> NewTopic {
    NewTopic {
        replication_factor: topic.replication_factor as i16,
        configs: topic.configs.clone(),
        ..NewTopic::new(&topic.name, topic.partitions as i32)
    }
}

fn set_laws(cluster: &Cluster, plan: &Plan) {
    nemesis::set_disk_laws(cluster, plan);
    for link in &plan.knobs.world.links {
        let (Some(from), Some(to)) = (cluster.node(link.from), cluster.node(link.to)) else { continue };
        let law = crate::deploy::link_law(plan, Some(link.latency_us), Some(link.loss_per_million));
        cluster.world.net().set_law(&[from], &[to], law);
    }
}

/// Producers come to the end of their scripts. Names those that did not.
async fn clients_done(cluster: &Cluster, plan: &Plan, deadline: world::SimTime) -> Vec<Violation> {
    let producers: Vec<_> =
        plan.clients.iter().filter(|c| matches!(c.role, ClientRole::Producer(_))).map(|c| c.id).collect();
    loop {
        let waiting: Vec<_> = {
            let progress = cluster.progress.borrow();
            producers
                .iter()
                .filter_map(|id| progress.get(id).filter(|p| !p.is_done()).map(|p| (*id, Rc::clone(p))))
                .collect()
        };
        if waiting.is_empty() {
            return Vec::new();
        }
        if cluster.world.now() >= deadline {
            let violation = |(id, p): (u32, Rc<crate::clients::Progress>)| {
                let name = NodeName::new(Role::Client, id);
                liveness(format!("{name} did not finish after the faults had stopped"), p.describe())
            };
            return waiting.into_iter().map(violation).collect();
        }
        env::select! {
            () = cluster.stage.wake.notified() => {}
            () = cluster.world.sleep_until(deadline) => {}
        }
    }
}

/// Every partition has a leader, and every replica is in sync again.
async fn replicas_in_sync(cluster: &Cluster, plan: &Plan, deadline: world::SimTime) -> Vec<Violation> {
    loop {
        let view = cluster.view();
        let mut behind = view.under_replicated();
        if view.active_brokers() < plan.topology.brokers as usize {
            behind.insert(0, format!("{} of {} brokers active", view.active_brokers(), plan.topology.brokers));
        }
        if behind.is_empty() {
            return Vec::new();
        }
        if cluster.world.now() >= deadline {
            return vec![liveness("replicas did not come back in sync after healing", behind.join("; "))];
        }
        cluster.world.sleep(Duration::from_millis(200)).await;
    }
}

/// The lag of every group that has a member to the end is 0 (rule 26).
async fn groups_caught_up(cluster: &Cluster, plan: &Plan, client: &Client, deadline: world::SimTime) -> Vec<Violation> {
    let stays = |m: &Member| m.stays.last().is_some_and(|s| s.until_ms.is_none());
    let groups: BTreeMap<&str, &Topic> = plan
        .clients
        .iter()
        .filter_map(|c| match &c.role {
            ClientRole::Member(m) if stays(m) => {
                Some((m.group.as_str(), plan.topics.iter().find(|t| t.name == m.topic)?))
            }
            _ => None,
        })
        .collect();
    let admin = Admin::new(client.clone());
    for (group, topic) in groups {
        let all: Vec<_> = (0..topic.partitions as i32).map(|p| TopicPartition::new(&topic.name, p)).collect();
        loop {
            let ends = admin.list_offsets(&all, OffsetSpec::Latest, Isolation::ReadCommitted).await;
            let done = admin.fetch_offsets(group, &all, true).await;
            let lag = match (ends, done) {
                (Ok(ends), Ok(done)) => {
                    let behind = ends.iter().filter_map(|(tp, end)| {
                        let at = done.get(tp).map_or(0, |c| c.offset);
                        end.is_some_and(|end| at < end).then(|| format!("{tp}: {at} of {end:?}"))
                    });
                    behind.collect::<Vec<_>>().join(", ")
                }
                (Err(e), _) | (_, Err(e)) => e.to_string(),
            };
            if lag.is_empty() {
                break;
            }
            if cluster.world.now() >= deadline {
                return vec![liveness(format!("group {group} did not reach the end of its topic after healing"), lag)];
            }
            cluster.world.sleep(Duration::from_millis(300)).await;
        }
    }
    Vec::new()
}

/// The workload's transactions end, by their clients or by time-out: LSO = LEO on every workload topic (rule 26).
async fn transactions_ended(
    cluster: &Cluster,
    plan: &Plan,
    client: &Client,
    deadline: world::SimTime,
) -> Vec<Violation> {
    let topics: Vec<_> = plan.topics.iter().map(|t| t.name.clone()).collect();
    ended_on(cluster, client, &topics, deadline).await
}

async fn ended_on(cluster: &Cluster, client: &Client, topics: &[String], deadline: world::SimTime) -> Vec<Violation> {
    loop {
        match open_partitions(client, topics).await {
            Ok(open) if open.is_empty() => return Vec::new(),
            other if cluster.world.now() >= deadline => {
                let witness = match other {
                    Ok(open) => open.join(", "),
                    Err(e) => e.to_string(),
                };
                return vec![liveness("the last stable offset did not reach the log's end", witness)];
            }
            _ => cluster.world.sleep(Duration::from_millis(300)).await,
        }
    }
}

/// Partitions whose last stable offset is below the high watermark.
async fn open_partitions(client: &Client, topics: &[String]) -> Result<Vec<String>, client::ClientError> {
    let admin = Admin::new(client.clone());
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let metadata = admin.metadata(&names).await?;
    let mut all = Vec::new();
    for name in names {
        let partitions = metadata.topics.get(name).map(|t| t.partitions.keys().copied().collect()).unwrap_or(vec![]);
        all.extend(partitions.into_iter().map(|p| TopicPartition::new(name, p)));
    }
    let ends = admin.list_offsets(&all, OffsetSpec::Latest, Isolation::ReadUncommitted).await?;
    let stable = admin.list_offsets(&all, OffsetSpec::Latest, Isolation::ReadCommitted).await?;
    let open = ends.iter().filter(|(tp, end)| stable.get(*tp) != Some(*end));
    Ok(open.map(|(tp, end)| format!("{tp}: {:?} of {end:?}", stable.get(tp))).collect())
}

/// The stretch in which nothing is sent. Idle splits must be noticed within it.
async fn quiet(cluster: &Cluster, plan: &Plan) {
    cluster.world.sleep(Duration::from_millis(quiet_ms(plan))).await;
}

/// Length of the quiet stretch: the plan's, and twice the time after which a split counts as idle if that is of
/// simulated size.
pub(super) fn quiet_ms(plan: &Plan) -> u64 {
    let idle = plan.job.as_ref().and_then(|j| JobSpec::parse(&j.toml, "job.toml").ok()?.watermark.idle_after_ms);
    let idle = idle.and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms <= 10_000).unwrap_or(0);
    plan.budgets.quiet_ms + 2 * idle
}

/// Where the source's partitions end.
async fn log_ends(plan: &Plan, client: &Client) -> Result<Vec<(i32, i64)>, String> {
    let Some(topic) = plan.topics.first() else { return Ok(Vec::new()) };
    let all: Vec<_> = (0..topic.partitions as i32).map(|p| TopicPartition::new(&topic.name, p)).collect();
    let ends = Admin::new(client.clone()).list_offsets(&all, OffsetSpec::Latest, Isolation::ReadUncommitted).await;
    let ends: BTreeMap<_, _> = ends.map_err(|e| e.to_string())?;
    Ok(ends.into_iter().map(|(tp, end)| (tp.partition, end.unwrap_or(0))).collect())
}

/// Topics that the job writes.
pub(super) fn job_topics(plan: &Plan) -> Vec<String> {
    let Some(job) = plan.job.as_ref().and_then(|j| JobSpec::parse(&j.toml, "job.toml").ok()) else { return Vec::new() };
    let mut topics =
        vec![job.sink.topic.clone(), job.sink.late_topic.clone(), job.sink.dlq_topic.clone(), job.epochs_topic()];
    topics.extend(job.sink.decisions_topic.clone());
    topics
}
