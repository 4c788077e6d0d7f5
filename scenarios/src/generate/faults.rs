//! Faults drawn from a menu, placed where the action is: inside the active period, on links that carry traffic, at
//! actions that every run executes often.

use super::stream;
use crate::plan::{
    Action, Client, ClientRole, Commit, CrashPoint, Family, Fault, NodeName, Partition, Persistence, Plan, Role,
    Target, Topic, TopicRef, Trigger, When,
};
use seed::Rng;

/// Where faults may strike.
#[derive(Clone, Copy, Debug)]
pub struct FaultSpace {
    /// Timed faults start within this stretch, in milliseconds since the clients started.
    pub from_ms: u64,
    pub to_ms: u64,
}

/// How many faults of each kind, at most (each count is drawn from `low..=high`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Menu {
    pub net: (u64, u64),
    pub disk: (u64, u64),
    pub clock: (u64, u64),
    pub process: (u64, u64),
    pub crash_points: (u64, u64),
    pub duplicates: (u64, u64),
    /// Power loss on this role.
    pub power: Option<Role>,
    /// Crash points may lose power too.
    pub power_at_crash_points: bool,
}

const COORDINATOR: Target = Target::Node(NodeName::new(Role::Coordinator, 0));

/// An action that driver loops execute often, as a place for crash points.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Of the node.
    pub role: Role,
    pub label: &'static str,
    /// Every run reaches it at least this often within the active period, on each node that reaches it at all.
    pub most: u64,
    /// Only with transactions, of a client or of a processor's sink.
    pub transactions: bool,
}

const fn label(role: Role, label: &'static str, most: u64, transactions: bool) -> Label {
    Label { role, label, most, transactions }
}

/// Where crash points are put. A label that no driver has is never reached: sweeps show it as a fault that never bites.
pub const LABELS: &[Label] = &[
    label(Role::Broker, "append", 60, false),
    label(Role::Broker, "flush", 40, false),
    label(Role::Broker, "publish", 40, false),
    label(Role::Broker, "ack", 40, false),
    label(Role::Broker, "txn.marker", 5, true),
    label(Role::Broker, "disk.write", 40, false),
    label(Role::Broker, "disk.sync", 30, false),
    label(Role::Broker, "net.write", 60, false),
    label(Role::Broker, "txn.persist", 5, true),
    label(Role::Broker, "txn.complete", 3, true),
    label(Role::Coordinator, "checkpoint.trigger", 4, false),
    label(Role::Coordinator, "checkpoint.store", 3, false),
    label(Role::Coordinator, "checkpoint.complete", 4, false),
    label(Role::Coordinator, "disk.sync", 3, false),
    label(Role::Coordinator, "disk.write", 3, false),
    label(Role::Worker, "barrier.send", 2, false),
    label(Role::Worker, "sink.prepare", 3, false),
    label(Role::Worker, "sink.commit", 3, false),
    label(Role::Worker, "window.fire", 10, false),
    label(Role::Worker, "records.send", 10, false),
    label(Role::Worker, "net.write", 60, false),
];

/// The same, where consumers share topics.
pub const GROUP_LABELS: &[Label] =
    &[label(Role::Broker, "groups.append", 6, false), label(Role::Broker, "offsets.append", 20, false)];

/// The same, where brokers replicate.
pub const CLUSTER_LABELS: &[Label] = &[
    label(Role::Broker, "replicate", 60, false),
    label(Role::Broker, "fetch.send", 60, false),
    label(Role::Broker, "truncate", 1, false),
    label(Role::Broker, "isr", 3, false),
    label(Role::Broker, "isr.alter", 2, false),
    label(Role::Broker, "metadata.apply", 20, false),
    label(Role::Broker, "quorum.flush", 10, false),
    label(Role::Broker, "txn.send", 4, true),
];

/// The same, where logs are compacted. [`Menu`] puts crash points there only for topics of the workload.
pub const CLEANER_LABELS: &[Label] = &[
    label(Role::Broker, "clean.read", 2, false),
    label(Role::Broker, "clean.write", 2, false),
    label(Role::Broker, "clean.swap", 2, false),
    label(Role::Broker, "clean.remove", 2, false),
    label(Role::Broker, "clean.rename", 2, false),
    label(Role::Broker, "clean.checkpoint", 2, false),
];

/// Adds one fault, unless its family is off.
pub fn strike(plan: &mut Plan, family: Family, trigger: Trigger, action: Action) {
    if plan.families_off.contains(&family) {
        return;
    }
    let id = plan.faults.iter().map(|f| f.id + 1).max().unwrap_or(0);
    plan.faults.push(Fault { id, family, trigger, action });
}

/// Adds faults to `plan`. Families in `plan.families_off` add nothing, and their streams are not read, so that switching
/// one off leaves the others' faults as they were.
pub fn faults(plan: &mut Plan, space: FaultSpace, menu: Menu) {
    let mut all = Vec::new();
    for (family, count) in [
        (Family::Net, menu.net),
        (Family::Disk, menu.disk),
        (Family::Clock, menu.clock),
        (Family::Process, menu.process),
        (Family::CrashPoints, menu.crash_points),
        (Family::Duplicates, menu.duplicates),
    ] {
        if plan.families_off.contains(&family) {
            continue;
        }
        let mut rng = stream(plan, "faults", &[family as u64]);
        for _ in 0..rng.range(count.0, count.1) {
            let at = rng.range(space.from_ms, space.to_ms);
            let (trigger, action) = match family {
                Family::Net => (Trigger::At { ms: at }, net(plan, &mut rng, at)),
                Family::Disk => (Trigger::At { ms: at }, disk(plan, &mut rng)),
                Family::Clock => (Trigger::At { ms: at }, clock(plan, &mut rng)),
                Family::Process => (Trigger::At { ms: at }, process(plan, &mut rng, menu)),
                Family::CrashPoints => match crash_point(plan, &mut rng, space, menu) {
                    Some(both) => both,
                    None => continue,
                },
                Family::Duplicates => (Trigger::At { ms: at }, duplicate(plan, &mut rng, at)),
                Family::EventTime => continue,
            };
            // A disk that is full for moments, again and again, refuses a batch and takes the next: harder than one that
            // stays full.
            let flaps = if matches!(action, Action::DiskFull { .. }) { rng.range(0, 5) } else { 0 };
            let mut end = at + action.duration_ms();
            for _ in 0..flaps {
                let (ms, for_ms) = (end + rng.range(50, 300), rng.range(250, 600));
                if ms > space.to_ms {
                    break;
                }
                end = ms + for_ms;
                let [node] = action.targets()[..] else { continue };
                let action = Action::DiskFull { node, for_ms };
                all.push(Fault { id: 0, family, trigger: Trigger::At { ms }, action });
            }
            all.push(Fault { id: 0, family, trigger: trigger.clone(), action: action.clone() });
            // Connections last: that new ones hang matters to those who just lost theirs.
            if let Action::ConnectHang { from, to, .. } = action {
                all.push(Fault { id: 0, family, trigger, action: Action::Reset { a: from, b: to } });
            }
        }
    }
    let first = plan.faults.iter().map(|f| f.id + 1).max().unwrap_or(0);
    for (i, fault) in all.iter_mut().enumerate() {
        fault.id = first + i as u32;
    }
    plan.faults.extend(all);
}

/// Adds the loss of one broker's disk, where the plan's settings outlive it, none is lost yet and its family is on.
pub fn lose_a_disk(plan: &mut Plan, space: FaultSpace) {
    if plan.outlives_a_disk().is_err() || plan.faults.iter().any(|f| matches!(f.action, Action::Wipe { .. })) {
        return;
    }
    let mut rng = stream(plan, "lost disk", &[]);
    let ms = rng.range(space.from_ms, space.to_ms);
    let action = Action::Wipe { node: broker(plan, &mut rng), restart_after_ms: rng.range(100, 3_000) };
    strike(plan, Family::Disk, Trigger::At { ms }, action);
}

/// Some broker. Of several it is often one by what it does at that moment: faults that matter strike leaders.
fn broker(plan: &Plan, rng: &mut Rng) -> Target {
    if plan.topology.brokers == 1 {
        return Target::Node(NodeName::new(Role::Broker, 0));
    }
    match rng.range(0, 9) {
        0..2 => Target::Node(broker_node(plan, rng)),
        2..6 => Target::Leader(workload_partition(plan, rng)),
        6 => Target::Follower(workload_partition(plan, rng)),
        7..9 => Target::Leader(transactions_partition(plan, rng)),
        _ => Target::Controller,
    }
}

/// Some broker by its number.
pub fn broker_node(plan: &Plan, rng: &mut Rng) -> NodeName {
    NodeName::new(Role::Broker, rng.range(0, u64::from(plan.topology.brokers) - 1) as u32)
}

/// Some partition of some topic of the workload.
pub fn workload_partition(plan: &Plan, rng: &mut Rng) -> Partition {
    let topic = rng.index(plan.topics.len());
    let partition = rng.range(0, u64::from(plan.topics[topic].partitions) - 1) as i32;
    Partition { topic: TopicRef::Workload(topic as u32), partition }
}

/// Some partition of `__transaction_state`.
pub fn transactions_partition(plan: &Plan, rng: &mut Rng) -> Partition {
    let partitions = u64::from(plan.knobs.broker.transactions_partitions);
    Partition { topic: TopicRef::Transactions, partition: rng.range(0, partitions - 1) as i32 }
}

/// The partition of `__transaction_state` that holds this transactional id (Kafka: `Utils.abs(id.hashCode()) % partitions`).
pub fn transactions_partition_of(plan: &Plan, transactional_id: &str) -> Partition {
    let hash = transactional_id.encode_utf16().fold(0_i32, |h, unit| h.wrapping_mul(31).wrapping_add(i32::from(unit)));
    let partitions = plan.knobs.broker.transactions_partitions;
    Partition { topic: TopicRef::Transactions, partition: (hash & i32::MAX) % partitions as i32 }
}

/// Two different brokers, if there are several.
fn broker_link(plan: &Plan, rng: &mut Rng) -> Option<(Target, Target)> {
    let brokers = plan.topology.brokers;
    if brokers == 1 {
        return None;
    }
    let a = broker_node(plan, rng);
    let b = NodeName::new(Role::Broker, (a.number + rng.range(1, u64::from(brokers) - 1) as u32) % brokers);
    Some((Target::Node(a), Target::Node(b)))
}

/// A pair of nodes that talk to each other all the time, in a random direction.
fn busy_link(plan: &Plan, rng: &mut Rng, at: u64) -> (Target, Target) {
    if rng.chance(1, 2)
        && let Some(link) = broker_link(plan, rng)
    {
        return link;
    }
    let broker = broker(plan, rng);
    let other = peer_of_broker(plan, rng, at);
    if rng.chance(1, 2) { (broker, other) } else { (other, broker) }
}

/// A client that is at work then, or a worker when there is a processor.
fn peer_of_broker(plan: &Plan, rng: &mut Rng, at: u64) -> Target {
    let workers = plan.topology.workers;
    if workers > 0 && rng.chance(2, 3) {
        return Target::Node(NodeName::new(Role::Worker, rng.range(0, u64::from(workers) - 1) as u32));
    }
    let mut clients: Vec<u32> = plan.clients.iter().filter(|c| is_at_work(c, at)).map(|c| c.id).collect();
    if clients.is_empty() {
        clients.extend(plan.clients.iter().map(|c| c.id));
    }
    Target::Node(NodeName::new(Role::Client, *rng.choose(&clients)))
}

/// Whether a client has something to send within a second from then on.
fn is_at_work(client: &Client, at: u64) -> bool {
    match &client.role {
        ClientRole::Producer(p) => p.batches.iter().any(|b| (at..at + 1_000).contains(&b.at_ms)),
        ClientRole::Member(m) => m.is_there(at),
        ClientRole::Reader(_) => true,
    }
}

/// Two processor nodes, if there are any.
fn processor_link(plan: &Plan, rng: &mut Rng) -> Option<(Target, Target)> {
    let workers = u64::from(plan.topology.workers);
    if workers < 2 {
        return None;
    }
    let a = rng.range(0, workers - 1);
    let worker = Target::Node(NodeName::new(Role::Worker, a as u32));
    if rng.chance(1, 2) {
        return Some((worker, COORDINATOR));
    }
    let b = (a + rng.range(1, workers - 1)) % workers;
    Some((worker, Target::Node(NodeName::new(Role::Worker, b as u32))))
}

fn net(plan: &Plan, rng: &mut Rng, at: u64) -> Action {
    let (from, to) = match rng.chance(1, 3) {
        true => processor_link(plan, rng).unwrap_or_else(|| busy_link(plan, rng, at)),
        false => busy_link(plan, rng, at),
    };
    let short = rng.range(200, 2_500);
    if plan.topology.brokers > 1 && rng.chance(1, 4) {
        return split(plan, rng);
    }
    match rng.range(0, 7) {
        0 => Action::Cut { from, to, both: true, for_ms: short },
        1 | 2 => Action::Cut { from, to, both: false, for_ms: short },
        3 => Action::Hold { from, to, for_ms: short },
        4 => Action::Reset { a: from, b: to },
        5 => Action::ConnectHang { from: to_client(from, to), to: to_server(from, to), for_ms: short },
        6 => Action::Loss { from, to, per_million: rng.range(50_000, 300_000) as u32, for_ms: 2 * short },
        _ => {
            let low = rng.range(20_000, 80_000);
            Action::Slow { from, to, latency_us: (low, low + rng.range(1_000, 200_000)), for_ms: 2 * short }
        }
    }
}

/// Brokers apart from each other: one alone, or with a part of the others on its side. It lasts longer than sessions and
/// elections take.
fn split(plan: &Plan, rng: &mut Rng) -> Action {
    let for_ms = rng.range(1_000, 5_000);
    if rng.chance(1, 2) {
        return Action::Isolate { node: broker(plan, rng), for_ms };
    }
    let alone = broker(plan, rng);
    Action::Split { nodes: side_of(plan, rng, alone, |role| role != Role::Broker), for_ms }
}

/// One side of a split: `first`, and of the nodes whose role may be on its side each with even chances.
pub fn side_of(plan: &Plan, rng: &mut Rng, first: Target, may: impl Fn(Role) -> bool) -> Vec<Target> {
    let others = plan.nodes().into_iter().filter(|n| may(n.role));
    std::iter::once(first).chain(others.filter(|_| rng.chance(1, 2)).map(Target::Node)).collect()
}

/// Somebody who writes in transactions: a producer of the workload, or a worker with its sink. In a plan without any,
/// some producer.
pub fn some_transactional(plan: &Plan, rng: &mut Rng) -> Target {
    let transactional = |c: &&Client| matches!(&c.role, ClientRole::Producer(p) if p.transactional);
    let clients = plan.clients.iter().filter(transactional).map(|c| NodeName::new(Role::Client, c.id));
    let workers = (0..plan.topology.workers).map(|n| NodeName::new(Role::Worker, n));
    let all: Vec<NodeName> = clients.chain(workers).collect();
    if all.is_empty() { producer(plan, rng) } else { Target::Node(*rng.choose(&all)) }
}

/// Of a link's ends, the one that connects: brokers and coordinators only listen, to their clients.
fn to_client(a: Target, b: Target) -> Target {
    if is_server(a) { b } else { a }
}

fn to_server(a: Target, b: Target) -> Target {
    if is_server(a) { a } else { b }
}

fn is_server(target: Target) -> bool {
    match target {
        Target::Node(name) => matches!(name.role, Role::Broker | Role::Coordinator),
        Target::Role(role) => matches!(role, Role::Broker | Role::Coordinator),
        Target::Leader(_) | Target::Follower(_) | Target::Followers(_) | Target::Controller => true,
    }
}

fn disk(plan: &Plan, rng: &mut Rng) -> Action {
    let node = broker(plan, rng);
    match rng.range(0, 4) {
        0 => Action::FsyncError { node, restart_after_ms: rng.range(300, 1_500) },
        // Of several brokers one that has to write.
        1 | 2 if plan.topology.brokers > 1 => {
            Action::DiskFull { node: Target::Leader(workload_partition(plan, rng)), for_ms: rng.range(300, 1_500) }
        }
        1 | 2 => Action::DiskFull { node, for_ms: rng.range(300, 1_500) },
        3 => Action::Power { node, unsynced: persistence(rng), restart_after_ms: rng.range(300, 1_500) },
        _ => Action::DiskStall { node, for_ms: rng.range(200, 2_500) },
    }
}

pub fn persistence(rng: &mut Rng) -> Persistence {
    *rng.choose(&[Persistence::Kept, Persistence::Lost, Persistence::Prefix, Persistence::Subset])
}

fn clock(plan: &Plan, rng: &mut Rng) -> Action {
    let system: Vec<NodeName> = plan.nodes().into_iter().filter(|n| n.role != Role::Client).collect();
    let node = Target::Node(*rng.choose(&system));
    match rng.range(0, 2) {
        0 => Action::ClockOffset { node, ms: rng.range_i64(-86_400_000, 86_400_000) },
        1 => Action::ClockStep { node, by_ms: rng.range_i64(-7_200_000, 7_200_000) },
        _ => Action::ClockDrift { node, ppm: rng.range_i64(-50_000, 50_000) as i32 },
    }
}

fn process(plan: &Plan, rng: &mut Rng, menu: Menu) -> Action {
    let node = match plan.topology.workers {
        0 => match rng.chance(4, 5) {
            true => broker(plan, rng),
            false => producer(plan, rng),
        },
        workers => match rng.range(0, 9) {
            0..3 => broker(plan, rng),
            3..5 => COORDINATOR,
            5..9 => Target::Node(NodeName::new(Role::Worker, rng.range(0, u64::from(workers) - 1) as u32)),
            _ => producer(plan, rng),
        },
    };
    let is_broker = is_server(node) && node != COORDINATOR;
    if menu.power == Some(Role::Broker) && is_broker {
        return Action::Power { node, unsynced: persistence(rng), restart_after_ms: rng.range(200, 1_500) };
    }
    if is_broker && plan.topology.brokers > 1 && rng.chance(1, 5) {
        return Action::Stop { node };
    }
    match rng.range(0, 3) {
        0 => Action::Pause { node, for_ms: rng.range(200, 3_000) },
        _ => Action::Crash { node, restart_after_ms: rng.range(100, 1_500) },
    }
}

fn producer(plan: &Plan, rng: &mut Rng) -> Target {
    let producers: Vec<u32> =
        plan.clients.iter().filter(|c| matches!(c.role, ClientRole::Producer(_))).map(|c| c.id).collect();
    Target::Node(NodeName::new(Role::Client, *rng.choose(&producers)))
}

/// A lost reply and the retry that follows, or a request given up whose bytes arrive after its repetition.
fn duplicate(plan: &Plan, rng: &mut Rng, at: u64) -> Action {
    let (broker, peer) = match rng.chance(1, 3).then(|| broker_link(plan, rng)).flatten() {
        Some(link) => link,
        // Of several brokers those that lead have traffic with everybody.
        None if plan.topology.brokers > 1 => {
            (Target::Leader(workload_partition(plan, rng)), peer_of_broker(plan, rng, at))
        }
        None => (broker(plan, rng), peer_of_broker(plan, rng, at)),
    };
    match rng.chance(1, 2) {
        true => Action::Cut { from: broker, to: peer, both: false, for_ms: rng.range(800, 2_500) },
        false => Action::Straggle {
            from: peer,
            to: broker,
            per_million: rng.range(50_000, 300_000) as u32,
            up_to_ms: rng.range(1_000, 4_000),
            for_ms: rng.range(1_000, 3_500),
        },
    }
}

fn crash_point(plan: &Plan, rng: &mut Rng, space: FaultSpace, menu: Menu) -> Option<(Trigger, Action)> {
    let transactions = plan.clients.iter().any(|c| match &c.role {
        ClientRole::Producer(p) => p.transactional,
        ClientRole::Reader(_) => false,
        ClientRole::Member(m) => matches!(m.commit, Commit::Transaction { .. }),
    });
    let processor = plan.job.is_some();
    let cluster: &[Label] = if plan.topology.brokers > 1 { CLUSTER_LABELS } else { &[] };
    let member = |c: &Client| matches!(c.role, ClientRole::Member(_));
    let groups: &[Label] = if plan.clients.iter().any(member) { GROUP_LABELS } else { &[] };
    let cleaner: &[Label] = if plan.topics.iter().any(Topic::is_compacted) { CLEANER_LABELS } else { &[] };
    let usable: Vec<_> = LABELS
        .iter()
        .chain(cluster)
        .chain(groups)
        .chain(cleaner)
        .filter(|l| !l.transactions || transactions || processor)
        .filter(|l| processor || !matches!(l.role, Role::Coordinator | Role::Worker))
        .collect();
    if usable.is_empty() {
        return None;
    }
    let &&Label { role, label, most, .. } = rng.choose(&usable);
    let node = Target::Role(role);
    let point = CrashPoint {
        node,
        label: label.to_owned(),
        when: if rng.chance(1, 2) { When::Before } else { When::After },
        partition: None,
        nth: rng.range(1, most) as u32,
        // Early enough that enough of the run is left for the count to be reached.
        after_ms: rng.range(space.from_ms, space.from_ms + (space.to_ms - space.from_ms) / 2),
    };
    let restart_after_ms = rng.range(100, 1_500);
    let action = match rng.range(0, 9) {
        0 => Action::Pause { node, for_ms: rng.range(200, 3_000) },
        1 => Action::Isolate { node, for_ms: rng.range(200, 3_000) },
        2..5 if menu.power_at_crash_points => Action::Power { node, unsynced: persistence(rng), restart_after_ms },
        _ => Action::Crash { node, restart_after_ms },
    };
    Some((Trigger::CrashPoint(point), action))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "foo".hashCode() is 101574, "polygenelubricants".hashCode() the smallest integer, of which `Utils.abs` makes 0.
    #[test]
    fn a_transactional_id_is_where_kafka_puts_it() {
        let mut plan = crate::generate::base("hash", 1, &Family::ALL.into_iter().collect());
        plan.knobs.broker.transactions_partitions = 1_000;
        let at = |id| transactions_partition_of(&plan, id).partition;
        assert_eq!((at("foo"), at("polygenelubricants"), at("")), (574, 0, 0));
    }
}
